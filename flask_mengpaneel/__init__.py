"""Mixpanel from Flask: every call recorded in a view reaches Mixpanel once.

A call goes four steps, in this order:

* **record** -- ``record/recorder.py`` spells out Mixpanel's browser library;
  ``values.py`` and ``calls.py`` say what is kept of a call, ``record/manager.py`` whose
  it is.
* **choose** -- ``choose/chain.py`` asks the strategies of ``choose/strategies.py``, one
  after the other; each takes all calls, or declines and says why.
* **flush** -- into the session (``choose/delayed_calls.py``), the page
  (``choose/injection.py``), a header, or a transport (``transport.py``).
* **deliver** -- ``deliver/translation.py`` turns calls into messages, as of the person,
  the page and the device that ``visitor/`` knows of; ``deliver/delivery.py`` takes them
  to Mixpanel.
"""

from .deliver.ledger import Ledger as Ledger
from .envelope import Envelope as Envelope
from .extension import Mengpaneel as Mengpaneel
from .outcome import Declined as Declined
from .outcome import Outcome as Outcome
from .record.manager import Manager as Manager
from .signals import failed as failed
from .signals import flushed as flushed
from .strategy import Strategy as Strategy
from .transport import Transport as Transport

__all__ = [
    "Declined",
    "Envelope",
    "Ledger",
    "Manager",
    "Mengpaneel",
    "Outcome",
    "Strategy",
    "Transport",
    "failed",
    "flushed",
]
