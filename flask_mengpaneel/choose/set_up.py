"""The operations in the set-up of requests, which say the same again and again."""

from __future__ import annotations

import time
import typing as t

from ..calls import Call, CallLog, dumps
from ..recently_seen import Memory
from ..record.job import last_word
from .operations import (
    operation_of,
    operations_of,
    riding,
    without_group_operations,
)

if t.TYPE_CHECKING:
    from ..visitor.visitor import Visitor

#: Seconds after which what was set up for a person is made again.
_MAX_AGE = 86_400.0
# Persons whose last set-up a process remembers.
_MAX_PERSONS = 10_000


def without_set_up_operations(calls: CallLog, visitor: Visitor) -> CallLog:
    """Return calls without the operations of the set-up; of its groups it keeps what
    goes with every event."""
    # What most set up is who it is, and nothing else.
    if not any(map(operation_of, calls.setup)):
        return calls

    setup = riding(CallLog(setup=calls.setup)).setup
    log = without_group_operations(CallLog(calls.before_setup, setup), visitor)
    return CallLog(
        calls.before_setup, log.setup, calls.tracking, calls.was_set_up, calls.size
    )


def signs_out(calls: CallLog, visitor: Visitor) -> bool:
    """Whether a set-up says that nobody is signed in where the browser knows who is."""
    # Most have reset nothing.
    word = last_word(calls.setup) if visitor.successors else None
    is_reset = word is not None and word.name == "reset"
    return is_reset and visitor.browser_identity.user_id is not None


class SetUpOperations(Memory[tuple[int, float]]):
    """Tells the operations of a set-up that are news from those that were made.

    A set-up runs with each request. What it says of a person is made again if it is
    something else than what it said last, or if that was a day ago. So it remembers of
    each person what was said last, and when by the monotonic clock.
    """

    def __init__(self) -> None:
        super().__init__(_MAX_PERSONS)

    def news(self, calls: CallLog, visitor: Visitor) -> CallLog:
        """Return calls that are about to be made, without the operations of the set-up
        that were made lately."""
        operations = operations_of(calls.setup)

        if not operations:
            return calls

        person = visitor.known_identity.after([*calls.before_setup, *calls.setup])

        if not person or self._is_news(person.distinct_id, operations):
            return calls

        return without_set_up_operations(calls, visitor)

    def _is_news(self, person: str, operations: list[Call]) -> bool:
        said = hash(dumps([call.wire for call in operations]))
        now = time.monotonic()

        with self._lock:
            last, at = self._seen.pop(person, (None, 0.0))
            is_news = last != said or now - at > _MAX_AGE
            self._seen[person] = said, now if is_news else at

            if len(self._seen) > self._max_things:
                self._seen.popitem(last=False)

        return is_news
