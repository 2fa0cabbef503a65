"""The records that were sent to the inspector."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
import typing as t

from ..calls import Call, Json, dumps
from ..identity import EVENT_IDS
from .flushed_calls import Flush
from .rules import EVENT_ENDPOINTS, Record, seconds
from .tables import id_text


@dataclasses.dataclass(slots=True)
class Arrival:
    """One record that was sent to the inspector."""

    id: int
    #: When it arrived, in seconds since the epoch.
    at: float
    endpoint: str
    value: Json
    #: Why Mixpanel would refuse it; empty if it would take it.
    problem: str
    #: What Mixpanel would change, each as a sentence.
    remarks: list[str]
    #: The id of the first arrival that Mixpanel would take for the same event.
    duplicate_of: int | None
    #: Whose it is, after Mixpanel has merged devices and users.
    person: str
    #: The flushes that its call went through, oldest first: a delayed call has two.
    flushes: list[Flush]
    #: The user agent that sent it.
    agent: str
    #: The names of the properties that the app gave the event; ``None`` if that is not
    #: known.
    own: list[str] | None

    @property
    def strategy(self) -> str:
        """The strategy that took its call last; empty if the app didn't record it."""
        return self.flushes[-1]["strategy"] if self.flushes else ""

    @property
    def is_event(self) -> bool:
        """Whether it is an event, and not a profile or group update."""
        return self.endpoint in EVENT_ENDPOINTS


def read_arrival(row: sqlite3.Row, *, merge: bool) -> Arrival:
    """Return the arrival in a row of :data:`~.tables.SELECT_ARRIVALS`.

    :param merge: whether Mixpanel merges devices and users.
    """
    return Arrival(
        id=row["id"],
        at=row["at"],
        endpoint=row["endpoint"],
        value=json.loads(row["record"]),
        problem=row["problem"],
        remarks=json.loads(row["remarks"]),
        duplicate_of=row["duplicate_of"],
        person=(row["person"] if merge else row["distinct_id"]) or "",
        flushes=json.loads(row["flushes"]),
        agent=row["agent"],
        own=_own_properties(row["wire"]),
    )


def _own_properties(wire: str | None) -> list[str] | None:
    if wire is None:
        return None

    return [
        name
        for name in Call.from_json(json.loads(wire)).properties
        if name not in EVENT_IDS and not name.startswith("$")
    ]


def insert_arrival(
    db: sqlite3.Connection,
    revision: int,
    at: float,
    endpoint: str,
    record: Record,
    agent: str,
) -> int:
    """Keep a record, and return the id of its arrival."""
    key = _deduplication_key(record)
    row = {
        "revision": revision,
        "at": at,
        "endpoint": endpoint,
        "record": dumps(record.value),
        "problem": record.problem,
        "remarks": dumps(record.remarks),
        "deduplication_key": key,
        "duplicate_of": _first_arrival(db, key),
        "insert_id": id_text(record.properties.get("$insert_id")),
        **_ids(endpoint, record),
        "agent": agent,
    }
    cursor = db.execute(
        f"INSERT INTO arrivals ({', '.join(row)})"
        f" VALUES ({', '.join(':' + name for name in row)})",
        row,
    )
    return t.cast(int, cursor.lastrowid)


def _deduplication_key(record: Record) -> str | None:
    """Return what is equal in two events that Mixpanel takes for one.

    https://docs.mixpanel.com/reference/event-deduplication
    """
    properties = record.properties

    if record.problem or "$insert_id" not in properties:
        return None

    event = record.value.get("event") if isinstance(record.value, dict) else None
    return dumps(
        [
            event,
            id_text(properties.get("distinct_id")),
            seconds(properties.get("time")),
            id_text(properties["$insert_id"]),
        ]
    )


def _first_arrival(db: sqlite3.Connection, key: str | None) -> int | None:
    row = db.execute(
        "SELECT min(id) AS id FROM arrivals WHERE deduplication_key = ?", (key,)
    ).fetchone()
    return t.cast("int | None", row["id"])


def _ids(endpoint: str, record: Record) -> dict[str, str | None]:
    """Return the ids of whom a record is about, by column."""
    value = record.value if isinstance(record.value, dict) else {}
    device = record.properties.get("$device_id")
    user = record.properties.get("$user_id")

    if endpoint == "groups":
        distinct = id_text(f"{value.get('$group_key')}: {value.get('$group_id')}")
    elif endpoint == "engage":
        # The $device_id of an update says which device sent it, not whose profile
        # it is.
        distinct, user = id_text(value.get("$distinct_id")), value.get("$user_id")
        prefix, _, device = (distinct or "").rpartition("$device:")
        device = None if prefix or device == distinct else device
    else:
        distinct = id_text(record.properties.get("distinct_id"))

    return {
        "distinct_id": distinct,
        "device_id": id_text(device),
        "user_id": id_text(user),
    }
