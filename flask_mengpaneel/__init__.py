"""Mixpanel from Flask: every call recorded in a view reaches Mixpanel once.

A call goes four steps, in this order:

* **record** (``record/``) -- the recorder spells out Mixpanel's browser library; a
  manager keeps the calls of a request or a job, with its visitor (``visitor/``).
* **choose** (``choose/``) -- the flusher asks the strategies, one after the other; each
  takes all calls, or declines and says why.
* **flush** (``choose/``) -- the strategy puts the calls into the session, the page or a
  header, or gives them to a transport.
* **deliver** (``deliver/``) -- the translator turns calls into messages, as of the
  person, the page and the device that they happened with; a delivery takes them to
  Mixpanel.
"""

from .deliver.ledger import Ledger as Ledger
from .envelope import Envelope as Envelope
from .event import TrackedEvent as TrackedEvent
from .extension import Mengpaneel as Mengpaneel
from .login import Login as Login
from .outcome import Declined as Declined
from .outcome import Outcome as Outcome
from .outcome import Unrecorded as Unrecorded
from .plan.declared import Event as Event
from .record.manager import Manager as Manager
from .signals import failed as failed
from .signals import flushed as flushed
from .signals import unrecorded as unrecorded
from .strategy import Strategy as Strategy
from .transport import Transport as Transport
from .visitor.portable import PortableVisitor as PortableVisitor

__all__ = [
    "Declined",
    "Envelope",
    "Event",
    "Ledger",
    "Login",
    "Manager",
    "Mengpaneel",
    "Outcome",
    "PortableVisitor",
    "Strategy",
    "TrackedEvent",
    "Transport",
    "Unrecorded",
    "failed",
    "flushed",
    "unrecorded",
]
