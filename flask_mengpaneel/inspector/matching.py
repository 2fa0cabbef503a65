"""Match records that arrived with the recorded calls that they come from.

Events have ids. Profile and group updates have none, and one update may come from
several calls: they are matched by whom they are about and by what they change.
"""

from __future__ import annotations

import json
import sqlite3
import time
import typing as t

from ..calls import GROUP_CALLS, Call, Json, dumps
from .flushed_calls import NO_FLUSHES
from .rules import OPERATIONS, Record
from .tables import SELECT_ARRIVALS

#: Seconds between a flush and the arrival of an update that probably belongs to it.
MATCH_WINDOW = 30.0

# -- When a record arrives


def match_event(
    db: sqlite3.Connection, revision: int, arrival: int, record: Record
) -> None:
    """Find the flushed call of an event that arrived."""
    found = db.execute(
        "SELECT id, flushes FROM calls"
        " WHERE insert_id = (SELECT insert_id FROM arrivals WHERE id = ?)",
        (arrival,),
    ).fetchone()

    if found is None:
        found = _call_of_alias(db, record)

    if found is not None:
        _link(db, revision, found["id"], arrival, found["flushes"])


def _call_of_alias(db: sqlite3.Connection, record: Record) -> sqlite3.Row | None:
    """Find the call of ``alias`` that an event comes from.

    It is the one event that the library makes of a call of another name.
    """
    value = record.value

    if not isinstance(value, dict) or value.get("event") != "$create_alias":
        return None

    # The call may have a second argument, which the event doesn't tell.
    start = dumps([["alias"], [record.properties.get("alias")]])[:-2]
    found = db.execute(
        "SELECT id, flushes FROM calls WHERE arrival IS NULL AND flushes != :none"
        " AND substr(wire, 1, length(:start)) = :start ORDER BY id",
        {"none": NO_FLUSHES, "start": start},
    ).fetchone()
    return t.cast("sqlite3.Row | None", found)


def match_updates(db: sqlite3.Connection, revision: int, arrivals: list[int]) -> None:
    """Find the flushed calls of profile and group updates that arrived together."""
    unmatched = _unmatched_update_calls(db) if arrivals else []

    for id in arrivals:
        arrival = db.execute(f"{SELECT_ARRIVALS} WHERE id = ?", (id,)).fetchone()
        candidates = [
            one for one in unmatched if _may_match(arrival, one.call, one.person)
        ]
        flush = _likeliest_flush(candidates, arrival["at"])

        for one in candidates:
            if one.flush_revision == flush:
                _link(db, revision, one.id, id, one.flushes)
                unmatched.remove(one)


class _UnmatchedCall(t.NamedTuple):
    """A flushed profile or group call whose update has not arrived."""

    id: int
    #: The revision of its last flush, which tells one flush from another.
    flush_revision: int
    #: When it was flushed last, in seconds since the epoch.
    at: float
    person: str | None
    #: All of its flushes, as JSON.
    flushes: str
    call: Call


def _unmatched_update_calls(db: sqlite3.Connection) -> list[_UnmatchedCall]:
    rows = db.execute(
        "SELECT * FROM calls WHERE insert_id IS NULL AND arrival IS NULL"
        " AND flushes != ? ORDER BY id",
        (NO_FLUSHES,),
    )
    return [
        _UnmatchedCall(
            row["id"],
            row["flush_revision"],
            json.loads(row["flushes"])[-1]["at"],
            row["person"],
            row["flushes"],
            Call.from_json(json.loads(row["wire"])),
        )
        for row in rows
    ]


def _likeliest_flush(candidates: list[_UnmatchedCall], at: float) -> int | None:
    """Return the oldest recent flush; else the newest, as what is older may be lost."""
    recent = [one.flush_revision for one in candidates if one.at > at - MATCH_WINDOW]
    older = [one.flush_revision for one in reversed(candidates)]
    return next(iter(recent or older), None)


# -- When a flush becomes known after its records have arrived


def match_tracking_call(
    db: sqlite3.Connection, revision: int, call: int, insert_id: str, flushes: str
) -> None:
    """Find the events that a flushed call has become already.

    :param call: the id of the flushed call.
    :param flushes: all flushes of the call, as JSON.
    """
    rows = db.execute(
        "SELECT id FROM arrivals WHERE insert_id = ? ORDER BY id DESC",
        (insert_id,),
    )

    # The first arrival comes last, and stays linked: the others are its duplicates.
    for row in rows.fetchall():
        _link(db, revision, call, row["id"], flushes)


def match_update_call(
    db: sqlite3.Connection,
    revision: int,
    id: int,
    call: Call,
    person: str | None,
    flushes: str,
) -> None:
    """Find the update that a flushed call has become already.

    :param id: the id of the flushed call.
    :param flushes: all flushes of the call, as JSON.
    """
    # An update without a flush first. Then those that have been matched in this very
    # change: several calls of one flush may be merged into one update.
    rows = db.execute(
        f"{SELECT_ARRIVALS} WHERE endpoint IN ('engage', 'groups')"
        " AND problem = '' AND (flushes = '[]' OR revision = ?) AND at > ?"
        " ORDER BY flushes != '[]', id",
        (revision, time.time() - MATCH_WINDOW),
    )

    for row in rows.fetchall():
        if _may_match(row, call, person):
            return _link(db, revision, id, row["id"], flushes)


def _link(
    db: sqlite3.Connection, revision: int, call: int, arrival: int, flushes: str
) -> None:
    db.execute(
        "UPDATE arrivals SET flushes = ?, revision = ? WHERE id = ?",
        (flushes, revision, arrival),
    )
    db.execute(
        "UPDATE calls SET arrival = ?, revision = ?, failure = '' WHERE id = ?",
        (arrival, revision, call),
    )


# -- Whether an update comes from a call


def _may_match(arrival: sqlite3.Row, call: Call, person: str | None) -> bool:
    if arrival["endpoint"] == "engage" and person not in {None, arrival["person"]}:
        return False

    return may_come_from(json.loads(arrival["record"]), call)


def may_come_from(update: dict[str, Json], call: Call) -> bool:
    """Whether a call may have become this profile or group update, or part of it."""
    change = _change(call)

    if change is None:
        return False

    if change.group is not None:
        if change.group != (update.get("$group_key"), str(update.get("$group_id"))):
            return False
    elif "$group_key" in update:
        return False

    if change.operation == "$delete":
        return "$delete" in update

    return all(
        _changes_property(update, change.operation, name, value)
        for name, value in change.properties.items()
    )


def _changes_property(
    update: dict[str, Json], operation: str, name: str, value: Json
) -> bool:
    for other in OPERATIONS:
        changed = update.get(other)

        if isinstance(changed, list | dict) and name in changed:
            # Two calls of these are never merged, so that the value tells them apart.
            if other == operation and other in {"$append", "$remove"}:
                return isinstance(changed, dict) and changed[name] == value

            # Another operation will do: merging makes a $set of $set and $add.
            return True

    return False


#: The operation that each method of a profile or a group becomes.
_METHODS = {
    "set": "$set",
    "set_once": "$set_once",
    "unset": "$unset",
    "increment": "$add",
    "append": "$append",
    "union": "$union",
    "remove": "$remove",
    "delete": "$delete",
    "delete_user": "$delete",
    "track_charge": "$transactions",
    "clear_charges": "$transactions",
}
_METHODS |= {name: _METHODS[method] for name, method in GROUP_CALLS.items()}


class _Change(t.NamedTuple):
    """What a call changes."""

    #: The key and the id of the group; ``None`` if it is a profile.
    group: tuple[Json, str] | None
    operation: str
    properties: dict[str, Json]


def _change(call: Call) -> _Change | None:
    method = call.name.rpartition(".")[2]
    operation = _METHODS.get(method)

    if operation is None:
        return None

    group = None

    if call.wire[0][0] == "get_group":
        key, id = [*call.wire[1], None, None][:2]
        group = (key, str(id))

    if operation == "$transactions":
        return _Change(group, operation, {operation: None})

    return _Change(group, operation, _properties(call.arguments))


def _properties(arguments: list[t.Any]) -> dict[str, Json]:
    """Return the properties in a call's arguments: a dict, names, or name and value."""
    if not arguments:
        return {}

    if isinstance(arguments[0], dict):
        return arguments[0]

    names = arguments[0] if isinstance(arguments[0], list) else [arguments[0]]
    value = arguments[1] if len(arguments) > 1 else None
    return {str(name): value for name in names}
