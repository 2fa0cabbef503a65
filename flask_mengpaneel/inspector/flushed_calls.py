"""The recorded calls that the app has flushed."""

from __future__ import annotations

import collections.abc as c
import dataclasses
import json
import sqlite3
import typing as t

from ..calls import Call, Source, SourcedCall, dumps
from ..choose.operations import operation_of
from ..deliver.hand_overs.news import NEVER_ACKNOWLEDGED, What
from .tables import id_text


class Flush(t.TypedDict):
    """One flush that a recorded call went through."""

    #: The strategy that took the call.
    strategy: str
    #: Whether the client makes it.
    is_client_side: bool
    #: Why each strategy that was asked before declined, by name.
    declined: dict[str, str]
    #: When it was, in seconds since the epoch.
    at: float
    #: The request during which it was: ``POST /sign-up``; empty for a job.
    during: str
    #: The id under which the server keeps the calls until they are acknowledged; empty
    #: if it doesn't.
    hand_over: str
    #: Where that is; empty without one.
    state: State
    #: The same in words.
    became: str
    #: The lines of the app that recorded the call; none if that was another process.
    sources: list[Source]


#: Where a hand-over is.
State: t.TypeAlias = t.Literal["", "waiting"] | What
#: The flushes of a call that was dropped before there was any.
NO_FLUSHES = "[]"

#: What becomes of a hand-over, if nothing is to be added.
_BECAME = {
    "acknowledged": "acknowledged by the browser",
    "settled": "handed back by the browser",
    "withdrawn": "taken back, as the response wasn't sent",
}


def waiting(strategy: str) -> str:
    """Say what a hand-over waits for."""
    if strategy == "Delayed":
        return "waiting for a later response to take it up"

    return "waiting to be acknowledged"


def became(strategy: str, what: What, why: str) -> str:
    """Say what became of a hand-over.

    :param strategy: the strategy that handed it over.
    """
    if strategy == "Delayed" and what in ("acknowledged", "settled"):
        return "taken up by a later response"

    if strategy == "Delayed" and why == NEVER_ACKNOWLEDGED:
        why = "no later response has taken it up"

    if what == "sent":
        return f"sent by the server: {why}"

    if what == "dropped":
        return f"not sent: {why}"

    return _BECAME[what]


@dataclasses.dataclass(slots=True)
class FlushedCall:
    """A recorded call that has been flushed, whether or not it has arrived."""

    id: int
    #: When it was flushed first, in seconds since the epoch.
    at: float
    call: Call
    person: str
    #: The flushes that it went through, oldest first.
    flushes: list[Flush]
    #: The id of the arrival that it has become; ``None`` if it hasn't arrived.
    arrival: int | None
    #: Why its record will not arrive; empty while it may.
    failure: str

    @property
    def arrived(self) -> bool:
        """Whether its record has arrived."""
        return self.arrival is not None


def read_flushed_call(row: sqlite3.Row) -> FlushedCall:
    """Return the call in a row of the table."""
    return FlushedCall(
        id=row["id"],
        at=row["at"],
        call=Call.from_json(json.loads(row["wire"])),
        person=row["person"] or "",
        flushes=json.loads(row["flushes"]),
        arrival=row["arrival"],
        failure=row["failure"],
    )


def keep_flushed_call(
    db: sqlite3.Connection,
    revision: int,
    call: Call,
    person: str | None,
    flush: Flush,
) -> tuple[int, str]:
    """Keep a flush of a call.

    :param person: the id that the flush identifies, if it does.
    :returns: the id of the row, and the JSON of all flushes of the call so far.
    """
    insert_id = insert_id_of(call)
    before = _row_before(db, call, insert_id)

    if before is not None:
        flushes = dumps([*json.loads(before["flushes"]), flush])
        db.execute(
            "UPDATE calls SET flushes = ?, revision = ?, flush_revision = ?"
            " WHERE id = ?",
            (flushes, revision, revision, before["id"]),
        )
        return before["id"], flushes

    flushes = dumps([flush])
    return _insert(db, revision, call, person, flush["at"], flushes), flushes


def keep_dropped_call(
    db: sqlite3.Connection,
    revision: int,
    call: Call,
    person: str | None,
    at: float,
    reason: str,
) -> None:
    """Keep a call that was dropped before any flush.

    :param person: the id that the calls with it identify, if they do.
    """
    _insert(db, revision, call, person, at, NO_FLUSHES, f"dropped: {reason}")


def _insert(
    db: sqlite3.Connection,
    revision: int,
    call: Call,
    person: str | None,
    at: float,
    flushes: str,
    failure: str = "",
) -> int:
    row = {
        "revision": revision,
        "at": at,
        "flush_revision": revision,
        "wire": dumps(call.wire),
        "insert_id": insert_id_of(call),
        "person": person,
        "flushes": flushes,
        "failure": failure,
    }
    cursor = db.execute(
        f"INSERT INTO calls ({', '.join(row)})"
        f" VALUES ({', '.join(':' + name for name in row)})",
        row,
    )
    return t.cast(int, cursor.lastrowid)


def sources_of(call: Call) -> list[Source]:
    """Return the lines of the app that recorded a call, the one that made it first."""
    return call.sources if isinstance(call, SourcedCall) else []


def is_made(call: Call, *, is_client_side: bool) -> bool:
    """Whether a call becomes a record where it was taken: operations on profiles and
    groups are made by the server, which has a flush of its own for them."""
    return call.is_record and not (is_client_side and operation_of(call) is not None)


def identified_person(calls: c.Iterable[Call]) -> str | None:
    """Return the id that the last ``identify`` among calls has, if there is one."""
    ids = [
        call.arguments[0]
        for call in calls
        if call.name == "identify" and call.arguments
    ]
    return id_text(ids[-1]) if ids else None


def insert_id_of(call: Call) -> str | None:
    """Return the ``$insert_id`` of a tracked event; ``None`` if the call has none."""
    return id_text(call.insert_id)


def _row_before(
    db: sqlite3.Connection, call: Call, insert_id: str | None
) -> sqlite3.Row | None:
    """Return the row of a call that was delayed, or handed back, and comes again."""
    if insert_id is not None:
        query = "SELECT * FROM calls WHERE insert_id = ?"
        return t.cast("sqlite3.Row | None", db.execute(query, (insert_id,)).fetchone())

    # The only other one that becomes an event: what has no id rides with the visitor.
    if call.name != "alias":
        return None

    query = (
        "SELECT * FROM calls WHERE wire = ? AND arrival IS NULL AND flushes != ?"
        " ORDER BY id"
    )
    rows = db.execute(query, (dumps(call.wire), NO_FLUSHES)).fetchall()
    return next(
        (row for row in rows if json.loads(row["flushes"])[-1]["is_client_side"]), None
    )
