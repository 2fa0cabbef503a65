"""Mixpanel from Flask: every call recorded in a view reaches Mixpanel once.

A call goes four steps, in this order:

* **record** -- ``recorder.py`` spells out Mixpanel's browser library; ``values.py``
  and ``calls.py`` say what is kept of a call, ``manager.py`` whose it is.
* **choose** -- ``flusher.py`` asks the strategies of ``strategies.py``, one after the
  other; each takes all calls, or declines and says why.
* **flush** -- into the session (``waiting.py``), the page (``injection.py``), a header,
  or a transport (``transports.py``).
* **deliver** -- ``tracker.py`` turns calls into messages, as of the person, the page
  and the device that ``visitor.py`` knows of; ``delivery.py`` takes them to Mixpanel.
"""

from .deliver.ledger import Ledger as Ledger
from .envelope import Envelope as Envelope
from .extension import Mengpaneel as Mengpaneel
from .outcome import Outcome as Outcome
from .record.manager import Manager as Manager
from .signals import failed as failed
from .signals import flushed as flushed
from .transport import Transport as Transport

__all__ = [
    "Envelope",
    "Ledger",
    "Manager",
    "Mengpaneel",
    "Outcome",
    "Transport",
    "failed",
    "flushed",
]
