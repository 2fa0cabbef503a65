"""What arrived at the inspector, and what became of each recorded call.

One SQLite file, so that several workers, the reloader and jobs see the same.
"""

from __future__ import annotations

import collections.abc as c
import contextlib
import dataclasses
import json
import logging
import sqlite3
import tempfile
import time
import typing as t
from pathlib import Path

from ..calls import Call, Json, dumps
from ..config import CLIENT_STRATEGIES
from ..deliver.spool import make_private
from .matching import (
    ARRIVALS,
    settle_event,
    settle_tracking_call,
    settle_update_call,
    settle_updates,
)
from .rules import Record, seconds

#: How many arrivals, and how many recorded calls, are kept.
KEPT = 5_000

#: Changed with the schema: what another version wrote is thrown away.
VERSION = 1

_SCHEMA = """
    DROP TABLE IF EXISTS arrivals;
    DROP TABLE IF EXISTS calls;
    DROP TABLE IF EXISTS devices;
    DROP TABLE IF EXISTS clock;

    CREATE TABLE arrivals (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        changed INTEGER NOT NULL,
        at REAL NOT NULL,
        endpoint TEXT NOT NULL,
        record TEXT NOT NULL,
        problem TEXT NOT NULL,
        remarks TEXT NOT NULL,
        same TEXT,
        duplicate_of INTEGER,
        insert_id TEXT,
        distinct_id TEXT,
        device_id TEXT,
        user_id TEXT,
        ways TEXT NOT NULL DEFAULT '[]',
        agent TEXT NOT NULL
    );
    CREATE INDEX arrivals_changed ON arrivals (changed);
    CREATE INDEX arrivals_same ON arrivals (same);
    CREATE INDEX arrivals_insert_id ON arrivals (insert_id);
    CREATE INDEX arrivals_device_id ON arrivals (device_id);

    CREATE TABLE calls (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        changed INTEGER NOT NULL,
        at REAL NOT NULL,
        flush INTEGER NOT NULL,
        wire TEXT NOT NULL,
        insert_id TEXT,
        person TEXT,
        ways TEXT NOT NULL,
        arrival INTEGER,
        failure TEXT NOT NULL DEFAULT ''
    );
    CREATE INDEX calls_changed ON calls (changed);
    CREATE INDEX calls_insert_id ON calls (insert_id);

    CREATE TABLE devices (device_id TEXT PRIMARY KEY, user_id TEXT NOT NULL);

    CREATE TABLE clock (now INTEGER NOT NULL, cleared INTEGER NOT NULL);
    INSERT INTO clock VALUES (1, 1);
"""

logger = logging.getLogger("flask_mengpaneel")


class Way(t.TypedDict):
    """How a recorded call was flushed."""

    strategy: str
    declined: dict[str, str]
    at: float
    #: What was being done: ``POST /sign-up``; empty for a job.
    during: str


@dataclasses.dataclass(slots=True)
class Arrival:
    """One record that was sent to the inspector."""

    id: int
    at: float
    endpoint: str
    value: Json
    #: Why Mixpanel would refuse it; empty if it would take it.
    problem: str
    #: What Mixpanel would do to it that its sender may not want.
    remarks: list[str]
    #: The earlier arrival that Mixpanel would take for the same event.
    duplicate_of: int | None
    #: Whose it is, after Mixpanel has merged devices and users.
    person: str
    #: The flushes that it went through: a delayed call has two.
    ways: list[Way]
    #: The user agent that sent it.
    agent: str

    @property
    def strategy(self) -> str:
        """The strategy that took it at last; empty if the app didn't record it."""
        return self.ways[-1]["strategy"] if self.ways else ""

    @property
    def is_event(self) -> bool:
        """Whether it is an event, and not a profile or group update."""
        return self.endpoint in {"track", "import"}


@dataclasses.dataclass(slots=True)
class Waiting:
    """A recorded call that has been flushed; waiting until its record arrives."""

    id: int
    at: float
    call: Call
    person: str
    ways: list[Way]
    arrived: bool
    #: Why it will not arrive; empty while it may.
    failure: str


class Store:
    """The arrivals and the recorded calls of an inspector.

    :param path: the SQLite file; where it can't be written, a temporary one is used.
    :param merge: whether events of a device belong to the user it was seen with, as
        in Mixpanel's simplified identity merge.
    """

    def __init__(self, path: Path, merge: bool = True) -> None:
        self.path = path
        self._merge = merge

        try:
            path.parent.mkdir(parents=True, exist_ok=True)

            with self._transaction():
                pass
        except (OSError, sqlite3.Error) as error:
            self.path = Path(tempfile.mkdtemp(prefix="mengpaneel-")) / path.name
            logger.warning(
                "The inspector can't write %s (%s); it uses %s, which other processes"
                " don't see.",
                path,
                error,
                self.path,
            )

    @contextlib.contextmanager
    def _transaction(self) -> c.Iterator[sqlite3.Connection]:
        # A connection of its own each time: nothing to share between threads, and
        # nothing that a fork takes along.
        make_private(self.path)

        with contextlib.closing(
            sqlite3.connect(self.path, timeout=10, isolation_level=None)
        ) as db:
            db.row_factory = sqlite3.Row
            # What is lost with the machine's power is of no value here.
            db.execute("PRAGMA synchronous = OFF")
            db.execute("BEGIN IMMEDIATE")

            try:
                if db.execute("PRAGMA user_version").fetchone()[0] != VERSION:
                    # It will have what people do, and is for its owner alone.
                    self.path.chmod(0o600)
                    _create(db)

                yield db
            except BaseException:
                db.execute("ROLLBACK")
                raise

            db.execute("COMMIT")

    def add(
        self,
        endpoint: str,
        records: c.Sequence[Record],
        agent: str,
        at: float | None = None,
    ) -> None:
        """Keep what arrived in one request."""
        at = time.time() if at is None else at

        with self._transaction() as db:
            now = _tick(db)
            updates: list[int] = []

            for record in records:
                id = _insert(db, now, at, endpoint, record, agent)

                if endpoint in {"track", "import"}:
                    self._merge_device(db, now, record)
                    settle_event(db, now, id, record)
                elif not record.problem:
                    updates.append(id)

            settle_updates(db, now, updates)
            _trim(db, "arrivals")

    def _merge_device(self, db: sqlite3.Connection, now: int, record: Record) -> None:
        device, user = (
            _id(record.properties.get(name)) for name in ("$device_id", "$user_id")
        )

        if not self._merge or not device or not user or record.problem:
            return

        known = db.execute(
            "INSERT OR IGNORE INTO devices VALUES (?, ?)", (device, user)
        )

        if known.rowcount:
            # Whoever had this device until now was this user all along.
            db.execute(
                "UPDATE arrivals SET changed = ? WHERE device_id = ?", (now, device)
            )

    def flush(
        self,
        strategy: str,
        declined: c.Mapping[str, str],
        calls: c.Sequence[Call],
        during: str = "",
        at: float | None = None,
    ) -> None:
        """Keep what became of the calls of one request or job."""
        at = time.time() if at is None else at
        way = Way(strategy=strategy, declined=dict(declined), at=at, during=during)
        person = _identified(calls)

        with self._transaction() as db:
            now = _tick(db)

            for call in calls:
                if call.is_record:
                    _keep_call(db, now, call, person, way)

            _trim(db, "calls")

    def fail(self, insert_ids: c.Iterable[str], reason: str) -> None:
        """Keep why events will not arrive."""
        with self._transaction() as db:
            now = _tick(db)
            db.executemany(
                "UPDATE calls SET failure = ?, changed = ?"
                " WHERE insert_id = ? AND arrival IS NULL",
                [(reason, now, insert_id) for insert_id in insert_ids],
            )

    def arrivals(self, after: int = 0, limit: int = KEPT) -> list[Arrival]:
        """What arrived, or changed, since the clock said ``after``; oldest first."""
        with self._transaction() as db:
            rows = db.execute(
                f"{ARRIVALS} WHERE changed > ? ORDER BY id DESC LIMIT ?",
                (after, limit),
            ).fetchall()

        return [self._arrival(row) for row in reversed(rows)]

    def _arrival(self, row: sqlite3.Row) -> Arrival:
        return Arrival(
            id=row["id"],
            at=row["at"],
            endpoint=row["endpoint"],
            value=json.loads(row["record"]),
            problem=row["problem"],
            remarks=json.loads(row["remarks"]),
            duplicate_of=row["duplicate_of"],
            person=(row["person"] if self._merge else row["distinct_id"]) or "",
            ways=json.loads(row["ways"]),
            agent=row["agent"],
        )

    def calls(self, after: int = 0, limit: int = KEPT) -> list[Waiting]:
        """The recorded calls that were flushed, or have arrived, since the clock said
        ``after``; oldest first."""
        with self._transaction() as db:
            rows = db.execute(
                "SELECT * FROM calls WHERE changed > ? ORDER BY id DESC LIMIT ?",
                (after, limit),
            ).fetchall()

        return [
            Waiting(
                id=row["id"],
                at=row["at"],
                call=Call.from_json(json.loads(row["wire"])),
                person=row["person"] or "",
                ways=json.loads(row["ways"]),
                arrived=row["arrival"] is not None,
                failure=row["failure"],
            )
            for row in reversed(rows)
        ]

    def clock(self) -> tuple[int, int]:
        """The number of the latest change, and of the latest :meth:`clear`."""
        with self._transaction() as db:
            now, cleared = db.execute("SELECT now, cleared FROM clock").fetchone()
            return now, cleared

    def clear(self) -> None:
        """Forget everything."""
        with self._transaction() as db:
            now = _tick(db)

            for table in ("arrivals", "calls", "devices"):
                db.execute(f"DELETE FROM {table}")

            db.execute("UPDATE clock SET cleared = ?", (now,))


def _create(db: sqlite3.Connection) -> None:
    # Not executescript, which would end the transaction.
    for statement in _SCHEMA.split(";"):
        db.execute(statement)

    db.execute(f"PRAGMA user_version = {VERSION}")


def _tick(db: sqlite3.Connection) -> int:
    row = db.execute("UPDATE clock SET now = now + 1 RETURNING now").fetchone()
    return t.cast(int, row["now"])


def _trim(db: sqlite3.Connection, table: str) -> None:
    db.execute(
        f"DELETE FROM {table} WHERE id <= (SELECT max(id) FROM {table}) - {KEPT}"
    )


def _id(value: Json) -> str | None:
    if value is None or value == "":
        return None

    # SQLite takes no half surrogate pairs, which refused records may have.
    return str(value).encode(errors="replace").decode()


def _insert(
    db: sqlite3.Connection,
    now: int,
    at: float,
    endpoint: str,
    record: Record,
    agent: str,
) -> int:
    same = duplicate_of = None
    properties = record.properties

    if not record.problem and "$insert_id" in properties:
        same = _sameness(record)
        first = db.execute(
            "SELECT min(id) AS id FROM arrivals WHERE same = ?", (same,)
        ).fetchone()
        duplicate_of = first["id"]

    row = {
        "changed": now,
        "at": at,
        "endpoint": endpoint,
        "record": dumps(record.value),
        "problem": record.problem,
        "remarks": dumps(record.remarks),
        "same": same,
        "duplicate_of": duplicate_of,
        "insert_id": _id(properties.get("$insert_id")),
        **_whose(endpoint, record),
        "agent": agent,
    }
    cursor = db.execute(
        f"INSERT INTO arrivals ({', '.join(row)})"
        f" VALUES ({', '.join(':' + name for name in row)})",
        row,
    )
    return t.cast(int, cursor.lastrowid)


def _sameness(record: Record) -> str:
    """What is equal in two events that Mixpanel takes for one."""
    properties = record.properties
    return dumps(
        [
            _event(record),
            _id(properties.get("distinct_id")),
            seconds(properties.get("time")),
            _id(properties["$insert_id"]),
        ]
    )


def _event(record: Record) -> Json:
    return record.value.get("event") if isinstance(record.value, dict) else None


def _whose(endpoint: str, record: Record) -> dict[str, str | None]:
    value = record.value if isinstance(record.value, dict) else {}
    device = record.properties.get("$device_id")
    user = record.properties.get("$user_id")

    if endpoint == "groups":
        distinct = _id(f"{value.get('$group_key')}: {value.get('$group_id')}")
    elif endpoint == "engage":
        # A device in it says from where it came, not whose the profile is.
        distinct, user = _id(value.get("$distinct_id")), value.get("$user_id")
        prefix, _, device = (distinct or "").rpartition("$device:")
        device = None if prefix or device == distinct else device
    else:
        distinct = _id(record.properties.get("distinct_id"))

    return {"distinct_id": distinct, "device_id": _id(device), "user_id": _id(user)}


def _identified(calls: c.Sequence[Call]) -> str | None:
    """Whom a flush says that it is for, if it does."""
    names = [call for call in calls if call.name == "identify" and call.arguments]
    return _id(names[-1].arguments[0]) if names else None


def _keep_call(
    db: sqlite3.Connection, now: int, call: Call, person: str | None, way: Way
) -> None:
    insert_id = _call_insert_id(call)
    before = _flushed_before(db, call, insert_id, person)

    if before is None:
        ways = dumps([way])
        id = db.execute(
            "INSERT INTO calls (changed, at, flush, wire, insert_id, person, ways)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (now, way["at"], now, dumps(call.wire), insert_id, person, ways),
        ).lastrowid
    else:
        id = before["id"]
        ways = dumps([*json.loads(before["ways"]), way])
        db.execute(
            "UPDATE calls SET ways = ?, changed = ?, flush = ? WHERE id = ?",
            (ways, now, now, id),
        )

    # What is sent from here may have been quicker than the news of it.
    if insert_id is not None:
        settle_tracking_call(db, now, t.cast(int, id), insert_id, ways)
    elif way["strategy"] not in CLIENT_STRATEGIES:
        settle_update_call(db, now, t.cast(int, id), call, person, ways)


def _call_insert_id(call: Call) -> str | None:
    if not call.tracks or len(call.arguments) < 2:
        return None

    properties = call.arguments[1]
    return _id(properties.get("$insert_id")) if isinstance(properties, dict) else None


def _flushed_before(
    db: sqlite3.Connection, call: Call, insert_id: str | None, person: str | None
) -> sqlite3.Row | None:
    """The same call in an earlier flush: one that was delayed, or handed back."""
    if insert_id is not None:
        query = "SELECT * FROM calls WHERE insert_id = ?"
        return t.cast("sqlite3.Row | None", db.execute(query, (insert_id,)).fetchone())

    query = (
        "SELECT * FROM calls WHERE insert_id IS NULL AND arrival IS NULL AND wire = ?"
        " ORDER BY id"
    )

    for row in db.execute(query, (dumps(call.wire),)):
        delayed = json.loads(row["ways"])[-1]["strategy"] == "Delayed"

        if delayed and (person is None or row["person"] in {None, person}):
            return t.cast(sqlite3.Row, row)

    return None
