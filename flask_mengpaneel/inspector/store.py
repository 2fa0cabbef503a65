"""What arrived at the inspector, and what became of each flushed call.

It is in one SQLite file, so that several workers, the reloader and jobs see the same.
"""

from __future__ import annotations

import collections.abc as c
import contextlib
import json
import logging
import sqlite3
import tempfile
import time
import typing as t
from pathlib import Path

from ..calls import Call, dumps
from ..deliver.hand_overs.news import What
from ..deliver.spool import make_private
from . import matching
from .arrivals import Arrival, insert_arrival, read_arrival
from .flushed_calls import (
    Flush,
    FlushedCall,
    became,
    identified_person,
    insert_id_of,
    is_made,
    keep_dropped_call,
    keep_flushed_call,
    read_flushed_call,
    sources_of,
    waiting,
)
from .rules import EVENT_ENDPOINTS, Record
from .tables import (
    MAX_KEPT,
    SELECT_ARRIVALS,
    VERSION,
    create_tables,
    id_text,
    next_revision,
    trim,
)
from .unrecorded_calls import (
    UnrecordedCall,
    keep_unrecorded_call,
    read_unrecorded_call,
)

if t.TYPE_CHECKING:
    from ..outcome import Unrecorded

#: Seconds between two looks at what other processes and threads have written.
POLL_INTERVAL = 0.1

logger = logging.getLogger("flask_mengpaneel")


class Store:
    """The arrivals and the flushed calls of an inspector.

    :param path: the SQLite file. If it can't be written, a temporary file takes its
        place, with a warning in the log.
    :param merge: whether the events of a device belong to the user it was first seen
        with, as in Mixpanel's simplified identity merge.
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
    def _connection(self) -> c.Iterator[sqlite3.Connection]:
        # One for each use: threads share none, a fork inherits none.
        with contextlib.closing(
            sqlite3.connect(self.path, timeout=10, isolation_level=None)
        ) as db:
            db.row_factory = sqlite3.Row
            yield db

    @contextlib.contextmanager
    def _transaction(self) -> c.Iterator[sqlite3.Connection]:
        make_private(self.path)

        with self._connection() as db:
            # Nobody misses what is lost in a power cut.
            db.execute("PRAGMA synchronous = OFF")
            db.execute("BEGIN IMMEDIATE")

            try:
                if db.execute("PRAGMA user_version").fetchone()[0] != VERSION:
                    # The file will hold what people do: its owner alone may read it.
                    self.path.chmod(0o600)
                    create_tables(db)

                yield db
            except BaseException:
                db.execute("ROLLBACK")
                raise

            db.execute("COMMIT")

    def add_arrivals(
        self,
        endpoint: str,
        records: c.Sequence[Record],
        agent: str,
        at: float | None = None,
    ) -> None:
        """Keep the records of one request, and match them with flushed calls.

        :param agent: the user agent that sent them.
        :param at: when they arrived, in seconds since the epoch; now by default.
        """
        at = time.time() if at is None else at

        with self._transaction() as db:
            revision = next_revision(db)
            updates: list[int] = []

            for record in records:
                id = insert_arrival(db, revision, at, endpoint, record, agent)

                if endpoint in EVENT_ENDPOINTS:
                    self._merge_device(db, revision, record)
                    matching.match_event(db, revision, id, record)
                elif not record.problem:
                    updates.append(id)

            matching.match_updates(db, revision, updates)
            trim(db, "arrivals")

    def _merge_device(
        self, db: sqlite3.Connection, revision: int, record: Record
    ) -> None:
        device, user = (
            id_text(record.properties.get(name)) for name in ("$device_id", "$user_id")
        )

        if not self._merge or not device or not user or record.problem:
            return

        inserted = db.execute(
            "INSERT OR IGNORE INTO devices VALUES (?, ?)", (device, user)
        )

        if inserted.rowcount:
            # What the device did before now belongs to this user.
            db.execute(
                "UPDATE arrivals SET revision = ? WHERE device_id = ?",
                (revision, device),
            )

    def add_flush(
        self,
        strategy: str,
        declined: c.Mapping[str, str],
        calls: c.Sequence[Call],
        during: str = "",
        at: float | None = None,
        hand_over: str | None = None,
        is_client_side: bool = False,
    ) -> None:
        """Keep one flush, and match its calls with what has arrived before.

        :param strategy: the strategy that took the calls.
        :param declined: the reason of each strategy that was asked before, by name.
        :param during: the request, such as ``POST /sign-up``; empty for a job.
        :param at: when it was, in seconds since the epoch; now by default.
        :param hand_over: the id under which the server keeps the calls, if it does.
        :param is_client_side: whether the client makes the calls.
        """
        flush = Flush(
            strategy=strategy,
            is_client_side=is_client_side,
            declined=dict(declined),
            at=time.time() if at is None else at,
            during=during,
            hand_over=hand_over or "",
            state="waiting" if hand_over else "",
            became=waiting(strategy) if hand_over else "",
            sources=[],
        )
        person = identified_person(calls)

        with self._transaction() as db:
            revision = next_revision(db)

            for call in calls:
                if is_made(call, is_client_side=is_client_side):
                    own: Flush = {**flush, "sources": sources_of(call)}
                    _add_flushed_call(db, revision, call, person, own)

            trim(db, "calls")

    def add_unrecorded(self, told: Unrecorded, at: float | None = None) -> None:
        """Keep a call that isn't recorded, or a part of one.

        :param at: when it was made, in seconds since the epoch; now by default.
        """
        with self._transaction() as db:
            at = time.time() if at is None else at
            keep_unrecorded_call(db, next_revision(db), at, told)
            trim(db, "unrecorded")

    def conclude_hand_over(self, id: str, what: What, why: str) -> None:
        """Keep what became of a hand-over, in all flushes that it is of."""
        with self._transaction() as db:
            revision = next_revision(db)

            for table in ("calls", "arrivals"):
                rows = db.execute(
                    f"SELECT id, flushes FROM {table} WHERE instr(flushes, ?)", (id,)
                )

                for row in rows.fetchall():
                    flushes: list[Flush] = json.loads(row["flushes"])

                    for flush in flushes:
                        if flush["hand_over"] == id:
                            flush["state"] = what
                            flush["became"] = became(flush["strategy"], what, why)

                    db.execute(
                        f"UPDATE {table} SET flushes = ?, revision = ? WHERE id = ?",
                        (dumps(flushes), revision, row["id"]),
                    )

    def add_failure(self, insert_ids: c.Iterable[str], reason: str) -> None:
        """Keep why events will not arrive."""
        with self._transaction() as db:
            revision = next_revision(db)
            db.executemany(
                "UPDATE calls SET failure = ?, revision = ?"
                " WHERE insert_id = ? AND arrival IS NULL",
                [(reason, revision, insert_id) for insert_id in insert_ids],
            )

    def add_dropped(self, calls: c.Sequence[Call], reason: str) -> None:
        """Keep calls that were dropped before any flush, and why."""
        at, person = time.time(), identified_person(calls)

        with self._transaction() as db:
            revision = next_revision(db)

            for call in calls:
                if call.is_record:
                    keep_dropped_call(db, revision, call, person, at, reason)

            trim(db, "calls")

    def arrivals(self, after: int = 0, limit: int = MAX_KEPT) -> list[Arrival]:
        """Return what arrived, or changed, after a revision; oldest first."""
        with self._transaction() as db:
            rows = db.execute(
                f"{SELECT_ARRIVALS} WHERE revision > ? ORDER BY id DESC LIMIT ?",
                (after, limit),
            ).fetchall()

        return [read_arrival(row, merge=self._merge) for row in reversed(rows)]

    def arrival(self, id: int) -> Arrival | None:
        """Return one of what arrived, if it is still kept."""
        with self._connection() as db:
            row = db.execute(f"{SELECT_ARRIVALS} WHERE id = ?", (id,)).fetchone()
            return None if row is None else read_arrival(row, merge=self._merge)

    def calls(self, after: int = 0, limit: int = MAX_KEPT) -> list[FlushedCall]:
        """Return the calls that were flushed, arrived or failed after a revision;
        oldest first."""
        with self._transaction() as db:
            rows = db.execute(
                "SELECT * FROM calls WHERE revision > ? ORDER BY id DESC LIMIT ?",
                (after, limit),
            ).fetchall()

        return [read_flushed_call(row) for row in reversed(rows)]

    def unrecorded(self, after: int = 0, limit: int = MAX_KEPT) -> list[UnrecordedCall]:
        """Return the calls that weren't recorded after a revision; oldest first."""
        with self._transaction() as db:
            rows = db.execute(
                "SELECT * FROM unrecorded WHERE revision > ? ORDER BY id DESC LIMIT ?",
                (after, limit),
            ).fetchall()

        return [read_unrecorded_call(row) for row in reversed(rows)]

    def call(self, id: int) -> FlushedCall | None:
        """Return one of the calls, if it is still kept."""
        with self._connection() as db:
            row = db.execute("SELECT * FROM calls WHERE id = ?", (id,)).fetchone()
            return None if row is None else read_flushed_call(row)

    def wait_for_change(
        self, after: int, timeout: float, is_over: c.Callable[[], bool]
    ) -> None:
        """Wait until there is something after a revision.

        :param timeout: in seconds.
        :param is_over: whether nobody waits any more.
        """
        deadline = time.monotonic() + timeout
        # Makes the tables, if somebody has deleted the file.
        self.revisions()

        with self._connection() as db:
            while time.monotonic() < deadline and not is_over():
                # Without a lock that others had to wait for. It is another revision,
                # and not a later one, where the file has been made anew.
                row = db.execute("SELECT latest FROM revisions").fetchone()

                if row["latest"] != after:
                    return

                time.sleep(POLL_INTERVAL)

    def revisions(self) -> tuple[int, int]:
        """Return the latest revision, and that of the latest :meth:`clear`."""
        with self._transaction() as db:
            latest, cleared = db.execute(
                "SELECT latest, cleared FROM revisions"
            ).fetchone()
            return latest, cleared

    def clear(self) -> None:
        """Forget everything."""
        with self._transaction() as db:
            revision = next_revision(db)

            for table in ("arrivals", "calls", "unrecorded", "devices"):
                db.execute(f"DELETE FROM {table}")

            db.execute("UPDATE revisions SET cleared = ?", (revision,))


def _add_flushed_call(
    db: sqlite3.Connection,
    revision: int,
    call: Call,
    person: str | None,
    flush: Flush,
) -> None:
    id, flushes = keep_flushed_call(db, revision, call, person, flush)
    insert_id = insert_id_of(call)

    # What the server sends may arrive before the news of its flush.
    if insert_id is not None:
        matching.match_tracking_call(db, revision, id, insert_id, flushes)
    else:
        matching.match_update_call(db, revision, id, call, person, flushes)
