"""What the page is told: what is new or changed, as soon as there is something."""

from __future__ import annotations

import collections
import contextlib
import typing as t

from ..plan.checking import undeclared
from ..plan.declared import declarations
from .arrivals import Arrival
from .flushed_calls import FlushedCall
from .store import Store

#: The most arrivals, and the most calls, in one answer: what a page shows at most.
MAX_FEED = 2_000

#: Seconds for which a question waits for news.
MAX_WAIT = 10.0

#: How many questions wait at once. Each has a thread of the server's; those of pages
#: that have been left aren't known as such, and are the oldest.
MAX_WAITING = 2


class Feed:
    """The news of an inspector.

    :param store: what it knows.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        #: One object for each question that waits; a further one ends the oldest.
        self._waiting: collections.deque[object] = collections.deque(maxlen=MAX_WAITING)

    def wait(self, after: int) -> None:
        """Wait until there is something after a revision, or for long enough."""
        question = object()
        self._waiting.append(question)

        try:
            self._store.wait_for_change(
                after, MAX_WAIT, lambda: question not in self._waiting
            )
        finally:
            # It isn't there any more if others have ended it.
            with contextlib.suppress(ValueError):
                self._waiting.remove(question)

    def after(self, revision: int, row: str = "") -> dict[str, t.Any]:
        """Return what is new or changed after a revision.

        :param row: the key of a row that is wanted, however old it is: ``a7`` is the
            arrival 7, ``c7`` the call 7.
        """
        latest, cleared = self._store.revisions()

        # The page starts again after a clear, and when the file was made anew.
        if not cleared <= revision <= latest:
            revision = 0

        arrivals = self._store.arrivals(revision, MAX_FEED)
        calls = self._store.calls(revision, MAX_FEED)
        unrecorded = self._store.unrecorded(revision, MAX_FEED)
        kind, id = row[:1], row[1:]

        if id.isdecimal() and len(id) < 19:
            if kind == "c" and (call := self._store.call(int(id))) is not None:
                _add(calls, call)
                # It is shown as that, if it has arrived.
                kind, id = "a", str(call.arrival or 0)

            if kind == "a" and (one := self._store.arrival(int(id))) is not None:
                _add(arrivals, one)

        return {
            "after": latest,
            "cleared": cleared,
            "arrivals": [_arrival_json(arrival) for arrival in arrivals],
            "calls": [_call_json(call) for call in calls],
            "unrecorded": [call.to_json() for call in unrecorded],
        }


Row = t.TypeVar("Row", Arrival, FlushedCall)


def _add(rows: list[Row], row: Row) -> None:
    """Put a row before others, which are newer, unless it is one of them."""
    if row.id not in {one.id for one in rows}:
        rows.insert(0, row)


def _arrival_json(arrival: Arrival) -> dict[str, t.Any]:
    return {
        "id": arrival.id,
        "at": arrival.at,
        "endpoint": arrival.endpoint,
        "record": arrival.value,
        "problem": arrival.problem,
        "remarks": arrival.remarks,
        "undeclared": _undeclared(arrival),
        "duplicateOf": arrival.duplicate_of,
        "person": arrival.person,
        "flushes": arrival.flushes,
        "agent": arrival.agent,
        "own": arrival.own,
    }


def _undeclared(arrival: Arrival) -> str:
    """Say that an event is not in the app's tracking plan, if it has one."""
    name = arrival.value.get("event") if isinstance(arrival.value, dict) else None

    if not arrival.is_event or not isinstance(name, str) or not declarations():
        return ""

    return undeclared(name)


def _call_json(call: FlushedCall) -> dict[str, t.Any]:
    # The page has the arrival in its place.
    if call.arrived:
        return {"id": call.id, "arrival": call.arrival}

    return {
        "id": call.id,
        "arrival": None,
        "at": call.at,
        "name": call.call.name,
        "wire": call.call.wire,
        "person": call.person,
        "flushes": call.flushes,
        "failure": call.failure,
    }
