"""One request to Mixpanel, for the commands that try it: what it says, in its words."""

from __future__ import annotations

import dataclasses
import email.utils
import time
import typing as t

from ..calls import Call, CallLog
from ..envelope import Message
from ..identity import hex_id
from ..visitor.visitor import Visitor
from .answers import Answer, Meaning, printable, read
from .batches import Batch, pack
from .http import RequestFailed

if t.TYPE_CHECKING:
    from .delivery import Delivery
    from .http import Reply

#: The event that is sent to try it.
TEST_EVENT = "Flask-Mengpaneel Test"

# Mixpanel looks at the credentials first, and then refuses an event that lacks all that
# it requires: https://docs.mixpanel.com/reference/import-events
_NO_EVENT = Message("events", '{"event":"","properties":{}}', records=0)


@dataclasses.dataclass(frozen=True)
class Trial:
    """What came of a request to Mixpanel."""

    meaning: Meaning
    #: What it said, or why there was no answer.
    words: str
    #: The status of the answer; ``None``: there was none.
    status: int | None
    #: Seconds by which the clock of this machine is ahead of Mixpanel's, as far as it
    #: says what time it is.
    clock_ahead: float | None = None

    @property
    def is_busy(self) -> bool:
        """Whether it is in trouble, so that it says nothing of the event."""
        return self.status is not None and (
            self.status in (408, 429) or self.status >= 500
        )

    @property
    def accepts_token(self) -> bool:
        """Whether Mixpanel has got so far as to look at the event."""
        return self.meaning in {
            Meaning.TAKEN,
            Meaning.PARTLY_TAKEN,
            Meaning.REFUSED,
        }


def send_test_event(delivery: Delivery) -> Trial:
    """Send one event now, and leave it at that."""
    stamp = {"time": time.time(), "$insert_id": hex_id()}
    calls = CallLog(tracking=[Call([["track"], [TEST_EVENT, stamp]])])
    envelope = Visitor(delivery.config, None).envelope(calls)
    messages, _dropped = delivery.translate(envelope)
    (batch,) = pack(messages)
    return _try(delivery, batch)


def try_token(delivery: Delivery) -> Trial:
    """Find out whether Mixpanel takes the project's token, with an event that it won't
    take."""
    return _try(delivery, Batch("events", [_NO_EVENT]))


def _try(delivery: Delivery, batch: Batch) -> Trial:
    try:
        reply = delivery.post(batch)
    except RequestFailed as error:
        return Trial(Meaning.RETRY, printable(str(error)), None)

    answer = read(reply, batch)
    return Trial(
        answer.meaning, _words(reply, answer), reply.status, _clock_ahead(reply)
    )


def _words(reply: Reply, answer: Answer) -> str:
    text = reply.body.decode("utf-8", "replace").strip()
    said = f"HTTP {reply.status}: {printable(text)}" if text else answer.reason
    return said or f"HTTP {reply.status}"


def _clock_ahead(reply: Reply) -> float | None:
    try:
        date = email.utils.parsedate_to_datetime(reply.headers.get("Date", ""))
        return time.time() - date.timestamp()
    except (ValueError, OverflowError, TypeError):
        return None
