"""The tables of the inspector's SQLite file.

Each change of what the file holds has a *revision*, a number that only grows. A row
carries the revision that last touched it, so that a page can ask for what is new or
different since the last one it saw.
"""

from __future__ import annotations

import sqlite3
import typing as t

from ..calls import Json

#: How many arrivals, and how many flushed calls, are kept.
MAX_KEPT = 5_000

#: Changed with the schema. A file of another version is emptied.
VERSION = 5

_SCHEMA = """
    DROP TABLE IF EXISTS arrivals;
    DROP TABLE IF EXISTS calls;
    DROP TABLE IF EXISTS unrecorded;
    DROP TABLE IF EXISTS devices;
    DROP TABLE IF EXISTS clock;
    DROP TABLE IF EXISTS revisions;

    CREATE TABLE arrivals (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        revision INTEGER NOT NULL,
        at REAL NOT NULL,
        endpoint TEXT NOT NULL,
        record TEXT NOT NULL,
        problem TEXT NOT NULL,
        remarks TEXT NOT NULL,
        deduplication_key TEXT,
        duplicate_of INTEGER,
        insert_id TEXT,
        distinct_id TEXT,
        device_id TEXT,
        user_id TEXT,
        flushes TEXT NOT NULL DEFAULT '[]',
        agent TEXT NOT NULL
    );
    CREATE INDEX arrivals_revision ON arrivals (revision);
    CREATE INDEX arrivals_deduplication_key ON arrivals (deduplication_key);
    CREATE INDEX arrivals_insert_id ON arrivals (insert_id);
    CREATE INDEX arrivals_device_id ON arrivals (device_id);

    CREATE TABLE calls (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        revision INTEGER NOT NULL,
        at REAL NOT NULL,
        flush_revision INTEGER NOT NULL,
        wire TEXT NOT NULL,
        insert_id TEXT,
        person TEXT,
        flushes TEXT NOT NULL,
        arrival INTEGER,
        failure TEXT NOT NULL DEFAULT ''
    );
    CREATE INDEX calls_revision ON calls (revision);
    CREATE INDEX calls_insert_id ON calls (insert_id);

    CREATE TABLE unrecorded (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        revision INTEGER NOT NULL,
        at REAL NOT NULL,
        told TEXT NOT NULL,
        insert_id TEXT NOT NULL
    );
    CREATE INDEX unrecorded_revision ON unrecorded (revision);

    CREATE TABLE devices (device_id TEXT PRIMARY KEY, user_id TEXT NOT NULL);

    CREATE TABLE revisions (latest INTEGER NOT NULL, cleared INTEGER NOT NULL);
    INSERT INTO revisions VALUES (1, 1);
"""

#: Selects each arrival, whose it is after Mixpanel has merged devices and users, and
#: the recorded call of an event.
SELECT_ARRIVALS = (
    "SELECT arrivals.*, coalesce(arrivals.user_id, devices.user_id,"
    " '$device:' || device_id, distinct_id) AS person,"
    " (SELECT wire FROM calls WHERE calls.insert_id = arrivals.insert_id) AS wire"
    " FROM arrivals LEFT JOIN devices USING (device_id)"
)


def create_tables(db: sqlite3.Connection) -> None:
    """Make the tables anew, within the transaction."""
    # Not executescript, which would end the transaction.
    for statement in _SCHEMA.split(";"):
        db.execute(statement)

    db.execute(f"PRAGMA user_version = {VERSION}")


def next_revision(db: sqlite3.Connection) -> int:
    """Begin a change, and return its revision."""
    row = db.execute(
        "UPDATE revisions SET latest = latest + 1 RETURNING latest"
    ).fetchone()
    return t.cast(int, row["latest"])


def trim(db: sqlite3.Connection, table: str) -> None:
    """Delete the oldest rows of a table beyond :data:`MAX_KEPT`."""
    db.execute(
        f"DELETE FROM {table} WHERE id <= (SELECT max(id) FROM {table}) - {MAX_KEPT}"
    )


def id_text(value: Json) -> str | None:
    """Return an id, which refused records may have in any type, as SQLite keeps it."""
    if value is None or value == "":
        return None

    # SQLite takes no half surrogate pairs, which refused records may have.
    return str(value).encode(errors="replace").decode()
