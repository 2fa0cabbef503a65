"""The operations in the set-up of requests, which say the same again and again."""

from __future__ import annotations

import collections
import collections.abc as c
import contextlib
import threading
import time
import typing as t

from .. import process
from ..calls import Call, CallLog, dumps
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


class SetUpOperations:
    """Tells the operations of a set-up that are news from those that were made.

    A set-up runs with each request. What it says of a person is made again if it is
    something else than what it said last, or if that was a day ago.
    """

    def __init__(self) -> None:
        #: What was said last of each person, and when by the monotonic clock.
        self._said: collections.OrderedDict[str, tuple[int, float]]
        self._said = collections.OrderedDict()
        self._lock = threading.Lock()
        process.on_fork(self)

    def after_fork(self) -> None:
        """Go on in a child process: another thread of the parent may have the lock."""
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def paused(self) -> c.Iterator[None]:
        """Remember nothing of what is set up for a while."""
        with self._lock:
            said = self._said.copy()

        try:
            yield
        finally:
            with self._lock:
                self._said = said

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
            last, at = self._said.pop(person, (None, 0.0))
            is_news = last != said or now - at > _MAX_AGE
            self._said[person] = said, now if is_news else at

            if len(self._said) > _MAX_PERSONS:
                self._said.popitem(last=False)

        return is_news
