"""The recorded calls that the app has flushed."""

from __future__ import annotations

import collections.abc as c
import dataclasses
import json
import sqlite3
import typing as t

from ..calls import Call, dumps
from .tables import id_text


class Flush(t.TypedDict):
    """One flush that a recorded call went through."""

    #: The strategy that took the call.
    strategy: str
    #: Why each strategy that was asked before declined, by name.
    declined: dict[str, str]
    #: When it was, in seconds since the epoch.
    at: float
    #: The request during which it was: ``POST /sign-up``; empty for a job.
    during: str


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
    #: Whether its record has arrived.
    arrived: bool
    #: Why its record will not arrive; empty while it may.
    failure: str


def read_flushed_call(row: sqlite3.Row) -> FlushedCall:
    """Return the call in a row of the table."""
    return FlushedCall(
        id=row["id"],
        at=row["at"],
        call=Call.from_json(json.loads(row["wire"])),
        person=row["person"] or "",
        flushes=json.loads(row["flushes"]),
        arrived=row["arrival"] is not None,
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
    before = _row_of_earlier_flush(db, call, person)

    if before is not None:
        flushes = dumps([*json.loads(before["flushes"]), flush])
        db.execute(
            "UPDATE calls SET flushes = ?, revision = ?, flush_revision = ?"
            " WHERE id = ?",
            (flushes, revision, revision, before["id"]),
        )
        return before["id"], flushes

    flushes = dumps([flush])
    row = {
        "revision": revision,
        "at": flush["at"],
        "flush_revision": revision,
        "wire": dumps(call.wire),
        "insert_id": insert_id_of(call),
        "person": person,
        "flushes": flushes,
    }
    cursor = db.execute(
        f"INSERT INTO calls ({', '.join(row)})"
        f" VALUES ({', '.join(':' + name for name in row)})",
        row,
    )
    return t.cast(int, cursor.lastrowid), flushes


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
    if not call.tracks or len(call.arguments) < 2:
        return None

    properties = call.arguments[1]
    return (
        id_text(properties.get("$insert_id")) if isinstance(properties, dict) else None
    )


def _row_of_earlier_flush(
    db: sqlite3.Connection, call: Call, person: str | None
) -> sqlite3.Row | None:
    """Return the row of a call that was delayed, or handed back, and comes again."""
    insert_id = insert_id_of(call)

    if insert_id is not None:
        query = "SELECT * FROM calls WHERE insert_id = ?"
        return t.cast("sqlite3.Row | None", db.execute(query, (insert_id,)).fetchone())

    query = (
        "SELECT * FROM calls WHERE insert_id IS NULL AND arrival IS NULL AND wire = ?"
        " ORDER BY id"
    )

    for row in db.execute(query, (dumps(call.wire),)):
        delayed = json.loads(row["flushes"])[-1]["strategy"] == "Delayed"

        if delayed and (person is None or row["person"] in {None, person}):
            return t.cast(sqlite3.Row, row)

    return None
