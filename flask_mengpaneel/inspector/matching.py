"""Which recorded calls the records stand for that arrived at the inspector.

Events have ids. Profile and group updates have none, and several calls may have been
merged into one: they are known by whose they are and by what they change.
"""

from __future__ import annotations

import json
import sqlite3
import time
import typing as t

from ..calls import Call, Json, dumps
from .rules import OPERATIONS, Record

#: Seconds within which an update and the news of its flush belong together.
RECENT = 30.0

#: Each arrival, and whose it is after Mixpanel has merged devices and users.
ARRIVALS = (
    "SELECT arrivals.*, coalesce(arrivals.user_id, devices.user_id,"
    " '$device:' || device_id, distinct_id) AS person"
    " FROM arrivals LEFT JOIN devices USING (device_id)"
)


def settle_event(
    db: sqlite3.Connection, now: int, arrival: int, record: Record
) -> None:
    """Find the recorded call of an event that arrived."""
    found = db.execute(
        "SELECT id, ways FROM calls"
        " WHERE insert_id = (SELECT insert_id FROM arrivals WHERE id = ?)",
        (arrival,),
    ).fetchone()

    if found is None:
        found = _call_of_alias(db, record)

    if found is not None:
        _arrived(db, now, found["id"], arrival, found["ways"])


def _call_of_alias(db: sqlite3.Connection, record: Record) -> sqlite3.Row | None:
    """The one event that the library makes of a call of another name."""
    value = record.value

    if not isinstance(value, dict) or value.get("event") != "$create_alias":
        return None

    start = dumps([["alias"], [record.properties.get("alias")]])[:-2]
    found = db.execute(
        "SELECT id, ways FROM calls WHERE arrival IS NULL"
        " AND substr(wire, 1, length(:start)) = :start ORDER BY id",
        {"start": start},
    ).fetchone()
    return t.cast("sqlite3.Row | None", found)


def settle_updates(db: sqlite3.Connection, now: int, arrivals: list[int]) -> None:
    """Find the recorded calls of profile and group updates that arrived together."""
    waiting = _waiting(db) if arrivals else []

    for id in arrivals:
        arrival = db.execute(f"{ARRIVALS} WHERE id = ?", (id,)).fetchone()
        fitting = [one for one in waiting if _fits(arrival, one.call, one.person)]
        flush = _likeliest_flush(fitting, arrival["at"])

        for one in fitting:
            if one.flush == flush:
                _arrived(db, now, one.id, id, one.ways)
                waiting.remove(one)


def _likeliest_flush(fitting: list[_Waiting], at: float) -> int | None:
    """The first of those that are on their way; what is older may be lost."""
    recent = [one.flush for one in fitting if one.at > at - RECENT]
    return next(iter(recent or [one.flush for one in reversed(fitting)]), None)


def _fits(arrival: sqlite3.Row, call: Call, person: str | None) -> bool:
    if arrival["endpoint"] == "engage" and person not in {None, arrival["person"]}:
        return False

    return stands_for(json.loads(arrival["record"]), call)


def settle_tracking_call(
    db: sqlite3.Connection, now: int, call: int, insert_id: str, ways: str
) -> None:
    """Find the events of a call whose flush is heard of only now."""
    rows = db.execute(
        "SELECT id FROM arrivals WHERE insert_id = ? ORDER BY id DESC",
        (insert_id,),
    )

    # The first one last: it is the one that counts.
    for row in rows.fetchall():
        _arrived(db, now, call, row["id"], ways)


def settle_update_call(
    db: sqlite3.Connection,
    now: int,
    call: int,
    made: Call,
    person: str | None,
    ways: str,
) -> None:
    """Find the update of a call whose flush is heard of only now."""
    # Several calls of one flush may be one update: those of this flush come last.
    rows = db.execute(
        f"{ARRIVALS} WHERE endpoint IN ('engage', 'groups')"
        " AND problem = '' AND (ways = '[]' OR changed = ?) AND at > ?"
        " ORDER BY ways != '[]', id",
        (now, time.time() - RECENT),
    )

    for row in rows.fetchall():
        if _fits(row, made, person):
            return _arrived(db, now, call, row["id"], ways)


def _arrived(db: sqlite3.Connection, now: int, call: int, id: int, ways: str) -> None:
    db.execute(
        "UPDATE arrivals SET ways = ?, changed = ? WHERE id = ?", (ways, now, id)
    )
    db.execute(
        "UPDATE calls SET arrival = ?, changed = ?, failure = '' WHERE id = ?",
        (id, now, call),
    )


class _Waiting(t.NamedTuple):
    """A flushed profile or group call that has not arrived yet."""

    id: int
    flush: int
    #: When it was flushed at last.
    at: float
    person: str | None
    ways: str
    call: Call


def _waiting(db: sqlite3.Connection) -> list[_Waiting]:
    rows = db.execute(
        "SELECT * FROM calls WHERE insert_id IS NULL AND arrival IS NULL ORDER BY id"
    )
    return [
        _Waiting(
            row["id"],
            row["flush"],
            json.loads(row["ways"])[-1]["at"],
            row["person"],
            row["ways"],
            Call.from_json(json.loads(row["wire"])),
        )
        for row in rows
    ]


def stands_for(update: dict[str, Json], call: Call) -> bool:
    """Whether a profile or group update may be what was sent for a call."""
    changes = _changes(call)

    if changes is None:
        return False

    of, operation, values = changes

    if of is not None:
        if of != (update.get("$group_key"), str(update.get("$group_id"))):
            return False
    elif "$group_key" in update:
        return False

    if operation == "$delete":
        return "$delete" in update

    return all(_holds(update, operation, name, value) for name, value in values.items())


def _holds(update: dict[str, Json], operation: str, name: str, value: Json) -> bool:
    for other in OPERATIONS:
        changed = update.get(other)

        if isinstance(changed, list | dict) and name in changed:
            # Two of these are two updates, never merged into one.
            if other == operation and other in {"$append", "$remove"}:
                return isinstance(changed, dict) and changed[name] == value

            return True

    return False


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
    "set_group": "$set",
    "add_group": "$union",
    "remove_group": "$remove",
}


def _changes(
    call: Call,
) -> tuple[tuple[Json, str] | None, str, dict[str, Json]] | None:
    """The group that a call is about, if any, its operation and its properties."""
    method = call.name.rpartition(".")[2]
    operation = _METHODS.get(method)

    if operation is None:
        return None

    of = None

    if call.wire[0][0] == "get_group":
        key, group = [*call.wire[1], None, None][:2]
        of = (key, str(group))

    if operation == "$transactions":
        return of, operation, {operation: None}

    return of, operation, _properties(call.arguments)


def _properties(arguments: list[t.Any]) -> dict[str, Json]:
    if not arguments:
        return {}

    if isinstance(arguments[0], dict):
        return arguments[0]

    names = arguments[0] if isinstance(arguments[0], list) else [arguments[0]]
    value = arguments[1] if len(arguments) > 1 else None
    return {str(name): value for name in names}
