"""The tables of the spool's file, and what is done with the small ones."""

from __future__ import annotations

import collections.abc as c
import json
import sqlite3
import time

_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    -- Whose project it is for: only its own app may send it.
    project TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    records INTEGER NOT NULL,
    repeatable INTEGER NOT NULL,
    -- Whether it has been on its way, so that it may have been taken.
    sent INTEGER NOT NULL DEFAULT 0,
    -- The process in whose ledger it is.
    origin TEXT NOT NULL,
    leased_by TEXT NOT NULL,
    leased_until REAL NOT NULL,
    put_at REAL NOT NULL,
    -- The hand-over whose acknowledgement it waits for, mostly none, until when, and
    -- why it isn't sent after that, if it isn't.
    hand_over TEXT,
    not_before REAL NOT NULL,
    dropped_for TEXT,
    reason TEXT NOT NULL,
    -- Last, so that a search by the others doesn't read it.
    json TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS by_origin ON messages (origin, records);
CREATE INDEX IF NOT EXISTS updates ON messages (id) WHERE endpoint != 'events';
CREATE INDEX IF NOT EXISTS by_hand_over ON messages (hand_over)
    WHERE hand_over IS NOT NULL;
CREATE TABLE IF NOT EXISTS tallies (
    origin TEXT NOT NULL,
    -- Why they were dropped; empty if they were delivered.
    reason TEXT NOT NULL,
    records INTEGER NOT NULL,
    PRIMARY KEY (origin, reason)
) WITHOUT ROWID;
-- Of hand-overs that another process has, or nobody.
CREATE TABLE IF NOT EXISTS acknowledgements (
    id TEXT PRIMARY KEY,
    until REAL NOT NULL,
    -- Empty if Mixpanel has it.
    dropped_for TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS acknowledged_until ON acknowledgements (until);
-- What must not be made twice, and was made: out of the spool, or by a request.
CREATE TABLE IF NOT EXISTS made (
    id TEXT PRIMARY KEY,
    at REAL NOT NULL,
    from_spool INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS made_at ON made (at);
"""


def prepare(connection: sqlite3.Connection) -> None:
    """Make the tables, if they aren't there.

    :raises sqlite3.OperationalError: a later version made them.
    """
    if _version(connection) == _VERSION:
        return

    connection.execute("BEGIN IMMEDIATE")

    try:
        # Another process may have done it in the meantime.
        if _version(connection) > _VERSION:
            raise sqlite3.OperationalError("a newer Flask-Mengpaneel wrote it")

        for statement in _statements(_SCHEMA):
            connection.execute(statement)

        connection.execute(f"PRAGMA user_version = {_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")

        raise


def _version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def _statements(script: str) -> c.Iterator[str]:
    statement = ""

    # `executescript` would end the transaction.
    for line in script.splitlines(keepends=True):
        statement += line

        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def tally(
    connection: sqlite3.Connection, origin: str, reason: str, records: int
) -> None:
    """Count records of a process as delivered, or dropped for a reason."""
    connection.execute(
        "INSERT INTO tallies VALUES (?, ?, ?) ON CONFLICT DO UPDATE"
        " SET records = records + excluded.records",
        (origin, reason, records),
    )


# Acknowledgements, and what was made.


def add_acknowledgements(
    connection: sqlite3.Connection,
    ids: c.Collection[str],
    dropped_for: str,
    max_age: float,
    longest: float,
) -> None:
    """Remember acknowledgements, and forget those that nobody asks for any more.

    :param dropped_for: why they are dropped; empty if Mixpanel has them.
    :param max_age: seconds for which these are remembered.
    :param longest: seconds for which any are.
    """
    now = time.time()
    # Also what is too far in the future since the clock was set back.
    connection.execute(
        "DELETE FROM acknowledgements WHERE until < ? OR until > ?",
        (now, now + longest),
    )
    connection.executemany(
        "INSERT OR IGNORE INTO acknowledgements VALUES (?, ?, ?)",
        [(id, now + max_age, dropped_for) for id in ids],
    )


def acknowledgements(
    connection: sqlite3.Connection, ids: c.Collection[str]
) -> dict[str, str]:
    """Return the acknowledged ones of some hand-overs, and why they are dropped."""
    found = connection.execute(
        "SELECT id, dropped_for FROM acknowledgements"
        " WHERE id IN (SELECT value FROM json_each(?))",
        (json.dumps(list(ids)),),
    )
    return dict(found.fetchall())


def claim(
    connection: sqlite3.Connection, id: str, max_age: float, *, from_spool: bool = False
) -> bool:
    """Remember that something is made now; ``False`` if it was made before.

    :param from_spool: whether a row of the spool is what is made. It may be leased
        again, as the process that had it is gone: then only a request was before it.
    """
    now = time.time()
    # Also what is in the future since the clock was set back.
    connection.execute(
        "DELETE FROM made WHERE at < ? OR at > ?", (now - max_age, now + max_age)
    )
    made = connection.execute(
        "INSERT INTO made VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET at = at"
        " WHERE from_spool AND excluded.from_spool",
        (id, now, from_spool),
    )
    return made.rowcount == 1
