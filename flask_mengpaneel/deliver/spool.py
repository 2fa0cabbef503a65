"""What could not be delivered yet, on disk, shared by the processes of an app.

One SQLite file. A process that sends rows of it leases them for a while first; the
lease ends by itself if the process dies, and no lock is held while HTTP is done.
"""

from __future__ import annotations

import collections.abc as c
import contextlib
import dataclasses
import functools
import json
import logging
import os
import shutil
import sqlite3
import stat
import threading
import time
import typing as t
import uuid
from pathlib import Path

from .. import process
from ..envelope import Message
from . import spool_tables as tables

if t.TYPE_CHECKING:
    from .ledger import Balance

logger = logging.getLogger("flask_mengpaneel")

#: Seconds for which rows belong to the process that took them.
LEASE = 60.0
#: Bytes that may wait; what comes then is refused. An ordinary event takes 1 KB.
MAX_BYTES = 256 * 1024 * 1024
#: Bytes that are leased at once, unless a single row has more.
MAX_LEASED_BYTES = 4_000_000
#: Seconds to wait for another process that writes.
WRITE_TIMEOUT = 5.0

_FREE = (
    "project = :project AND NOT (leased_until BETWEEN :now AND :now + :lease)"
    # By the clock of all machines and restarts. If it was set back to before it was
    # put in, a row waits no longer.
    " AND (hand_over IS NULL OR NOT (:wall BETWEEN put_at AND not_before))"
    " AND (:endpoints IS NULL"
    " OR endpoint IN (SELECT value FROM json_each(:endpoints)))"
    " AND id NOT IN (SELECT value FROM json_each(:in_flight))"
)

_INSERT = (
    "INSERT INTO messages (endpoint, records, repeatable, json, hand_over, not_before,"
    " dropped_for, project, origin, leased_by, leased_until, put_at, reason)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
# One statement for all of some rows: SQLite lets other threads run meanwhile.
# https://www.sqlite.org/json1.html#jeach
_ROWS = "id IN (SELECT value FROM json_each(?))"
_OWN_ROWS = f"{_ROWS} AND leased_by = ?"
#: Rows that are written in one transaction: durable requests wait for the end of it.
_MAX_ROWS_AT_ONCE = 100

#: Seconds for which it is remembered that something was made: as long as a browser
#: keeps a session, by Flask's default.
_MADE_FOR = 31 * 86_400.0

#: Rows that may be acknowledged before the log is emptied, and pages of 4 KB in it
#: after which the next writer has to do it.
_MAX_UNCHECKED = 2000
_MAX_LOGGED = 10_000

#: Seconds for which nothing more is said of trouble.
_LOG_INTERVAL = 60.0

_inherited: list[sqlite3.Connection] = []


S = t.TypeVar("S")
T = t.TypeVar("T")


class SpoolError(Exception):
    """The spool can't be used; the message says why."""


class Waiting(t.NamedTuple):
    """What a row waits for before it is sent: the acknowledgement of a hand-over."""

    hand_over: str
    #: Seconds.
    timeout: float
    #: Why it is dropped after that; ``None``: it is sent.
    dropped_for: str | None


class Row(t.NamedTuple):
    """A message in the spool, leased by this process."""

    id: int
    message: Message
    #: Whether a process had sent it when it died.
    sent: bool
    #: The hand-over that was not acknowledged, and why it is dropped, if it is.
    hand_over: str | None = None
    dropped_for: str | None = None


@dataclasses.dataclass(slots=True)
class Summary:
    """What waits in a spool, and what became of the rest."""

    #: (endpoint, reason) -> records, and when the oldest was put in.
    waiting: dict[tuple[str, str], tuple[int, float]]
    #: Those of the records that wait to be acknowledged.
    unacknowledged: int
    #: Those of the records that other processes are sending.
    leased: int
    delivered: int
    dropped: dict[str, int]
    #: Bytes in use.
    size: int

    @property
    def records(self) -> int:
        """How many records wait."""
        return sum(records for records, _ in self.waiting.values())


class Spool:
    """Keeps messages in a SQLite file. Nothing it does raises: what fails is logged.

    The file is made when there is something to put into it.

    :param project: whose records they are: the token's, or the inspector's. Apps that
        track for others may share the file, but send nothing of each other's.
    """

    def __init__(
        self, path: Path, project: str = "", max_bytes: int = MAX_BYTES
    ) -> None:
        self.path = path
        self._project = project
        self._max_bytes = max_bytes
        self._reset()

    def _reset(self) -> None:
        self._make_lock()
        self._connection: sqlite3.Connection | None = None
        #: Seconds for which the connection waits for other processes.
        self._timeout = WRITE_TIMEOUT
        #: This process in the file.
        self.process_id = uuid.uuid4().hex
        #: Rows that are delivered or dropped (with a reason), while that isn't written
        #: yet: a disk may be full.
        self._unwritten_acks: list[tuple[list[int], str]] = []
        #: Whether records of this process are, or were, in it.
        self._used = False
        #: Rows acknowledged since the log was emptied.
        self._unchecked = 0
        #: Delivered records that are in another process's ledger.
        self._forwarded = 0
        #: Nothing is said of trouble before that, by the monotonic clock.
        self._silent_until = 0.0

    def _make_lock(self) -> None:
        self._threads = process.ThreadKind()
        # Of those that know whether their thread has them.
        self._lock: t.Any = threading.RLock()

    def after_fork(self) -> None:
        """Start anew in a child process."""
        # SQLite's connections must not be used, and not even be closed, by a child.
        if self._connection is not None:
            _inherited.append(self._connection)

        self._reset()

    def check(self) -> None:
        """Find out whether the file can be used, without making it.

        :raises SpoolError: it can't.
        """
        try:
            if not stat.S_ISREG(self.path.stat().st_mode):
                raise SpoolError(f"{self.path} is not a file")

            if not os.access(self.path, os.R_OK | os.W_OK):
                raise SpoolError(f"{self.path} can't be written")
        except FileNotFoundError:
            # There will be one when it is needed.
            pass
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise SpoolError(f"{self.path} can't be written: {reason}") from None

        folder = self._folder

        if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
            raise SpoolError(f"{folder} can't be written")

    @property
    def room(self) -> int:
        """Bytes that are free on its disk."""
        return shutil.disk_usage(self._folder).free

    @property
    def _folder(self) -> Path:
        """Where the file is, or the nearest that is there already."""
        parents = self.path.absolute().parents
        return next(parent for parent in parents if os.path.exists(parent))

    def exists(self) -> bool:
        """Whether there is a file: something may wait in it."""
        # Unlike `Path.exists` it never raises.
        return os.path.exists(self.path)

    # Putting in.

    def put(
        self,
        messages: c.Sequence[Message],
        reason: str,
        *,
        leased: bool = False,
        timeout: float = WRITE_TIMEOUT,
        rows: list[int] | None = None,
        waiting: c.Sequence[Waiting | None] = (),
    ) -> list[int]:
        """Put messages in; return their rows, none if that isn't possible.

        :param leased: this process is going to send them.
        :param timeout: seconds to wait for others that write.
        :param rows: an empty list to use for the rows. It is right even if an
            exception from outside, such as a time limit, ends this call.
        :param waiting: what each waits for before it is sent, if they do.
        """
        stored = [] if rows is None else rows

        def insert(connection: sqlite3.Connection) -> None:
            if self.is_full(connection):
                self._log("it is full")
                return

            self._used = True
            stored[:] = self._insert(
                connection,
                messages,
                self.process_id,
                reason,
                leased=leased,
                waiting=waiting,
            )

        self.write(insert, None, timeout, undo=stored.clear)
        return stored

    def _insert(
        self,
        connection: sqlite3.Connection,
        messages: c.Sequence[Message],
        origin: str,
        reason: str,
        *,
        leased: bool,
        waiting: c.Sequence[Waiting | None] = (),
    ) -> list[int]:
        if not messages:
            return []

        now = time.time()
        shared = (
            self._project,
            origin,
            self.process_id if leased else "",
            time.monotonic() + LEASE if leased else 0.0,
            now,
            reason,
        )
        *others, final = [
            (m.endpoint, m.records, m.repeatable, m.json, *_columns(w, now), *shared)
            for m, w in zip(messages, waiting or [None] * len(messages), strict=True)
        ]

        if others:
            connection.executemany(_INSERT, others)

        last = t.cast(int, connection.execute(_INSERT, final).lastrowid)
        # Nobody else writes meanwhile, so that the numbers follow each other.
        return list(range(last - len(messages) + 1, last + 1))

    def unpack(
        self, opened: c.Sequence[tuple[int, c.Sequence[Message], c.Mapping[str, int]]]
    ) -> dict[int, list[Row]]:
        """Replace envelopes by their messages, which are leased as those were.

        :param opened: row of the envelope, its messages, and what isn't sent of it.
        :return: the messages of each envelope.
        """
        unpacked: dict[int, list[Row]] = {}

        for chunk in _chunks(opened, lambda one: len(one[1])):
            replaced = self.write(functools.partial(self._replace, chunk), None)
            unpacked |= replaced or {}

        return unpacked

    def _replace(
        self,
        opened: c.Sequence[tuple[int, c.Sequence[Message], c.Mapping[str, int]]],
        connection: sqlite3.Connection,
    ) -> dict[int, list[Row]]:
        replaced: dict[int, list[Row]] = {}

        for row, messages, dropped in opened:
            found = connection.execute(
                "DELETE FROM messages WHERE id = ? AND leased_by = ?"
                " RETURNING origin, reason, hand_over",
                (row, self.process_id),
            ).fetchall()

            for origin, reason, hand_over in found:
                # The browser may come back with them, much later.
                if hand_over and not all(message.repeatable for message in messages):
                    tables.claim(connection, hand_over, _MADE_FOR, from_spool=True)

                rows = self._insert(connection, messages, origin, reason, leased=True)
                replaced[row] = [
                    Row(new, message, False)
                    for new, message in zip(rows, messages, strict=True)
                ]

                for why, records in dropped.items():
                    tables.tally(connection, origin, why, records)

        return replaced

    # Sending.

    def lease(
        self,
        limit: int,
        endpoints: c.Collection[str] | None = None,
        in_flight: c.Collection[int] = (),
    ) -> list[Row]:
        """Lease messages that nobody is sending; the updates of profiles first.

        :param endpoints: those for which they are leased; all if it isn't given.
        :param in_flight: rows that the caller has, although their lease may be over.
        """
        free = {
            "project": self._project,
            "lease": LEASE,
            "endpoints": None if endpoints is None else json.dumps(list(endpoints)),
            "in_flight": json.dumps(list(in_flight)),
        }

        def now() -> dict[str, t.Any]:
            # Leases are measured by the monotonic clock: nobody sets it, and it is the
            # same for all processes of a machine.
            return {**free, "now": time.monotonic(), "wall": time.time()}

        def take(connection: sqlite3.Connection) -> list[Row]:
            # Not before the others are locked out: they may be taking rows.
            this = now()
            rows = self._free(connection, "endpoint != 'events'", limit, this)

            if endpoints is None or "events" in endpoints:
                left = limit - len(rows)
                rows += self._free(connection, "endpoint = 'events'", left, this)

            connection.execute(
                f"UPDATE messages SET leased_by = ?, leased_until = ? WHERE {_ROWS}",
                (
                    self.process_id,
                    time.monotonic() + LEASE,
                    json.dumps([r.id for r in rows]),
                ),
            )
            return rows

        def any_free(connection: sqlite3.Connection) -> bool:
            found = connection.execute(
                f"SELECT 1 FROM messages WHERE {_FREE} LIMIT 1", now()
            )
            return found.fetchone() is not None

        if not self.exists() or not self.read(any_free, False):
            return []

        return self.write(take, [])

    def _free(
        self,
        connection: sqlite3.Connection,
        which: str,
        limit: int,
        free: c.Mapping[str, t.Any],
    ) -> list[Row]:
        found = connection.execute(
            "SELECT id, endpoint, json, records, repeatable, sent, hand_over,"
            " dropped_for FROM messages"
            f" WHERE {which} AND {_FREE} ORDER BY id LIMIT :limit",
            {**free, "limit": limit},
        )
        rows: list[Row] = []
        size = 0

        for row, endpoint, text, records, repeatable, sent, *waited in found:
            size += len(text)

            if rows and size > MAX_LEASED_BYTES:
                break

            message = Message(endpoint, text, records, bool(repeatable))
            rows.append(Row(row, message, bool(sent), *waited))

        found.close()
        return rows

    def renew_lease(self, rows: c.Sequence[int], once: c.Sequence[int]) -> bool | None:
        """Make sure, before sending, that rows are leased by this process; ``None`` if
        that can't be found out.

        :param once: those of them that must not be sent again if this process dies
            before it knows whether they were taken.
        """

        for chunk in _chunks(rows):
            if not (renewed := self.write(functools.partial(self._renew, chunk), None)):
                return renewed

        for chunk in _chunks(once):
            if not self.write(functools.partial(self._mark, chunk), False):
                return None

        return True

    def _renew(self, rows: list[int], connection: sqlite3.Connection) -> bool | None:
        renewed = connection.execute(
            f"UPDATE messages SET leased_until = ? WHERE {_OWN_ROWS}",
            (time.monotonic() + LEASE, json.dumps(rows), self.process_id),
        )
        return renewed.rowcount == len(rows)

    @staticmethod
    def _mark(rows: list[int], connection: sqlite3.Connection) -> bool:
        connection.execute(
            f"UPDATE messages SET sent = 1 WHERE {_ROWS}", (json.dumps(rows),)
        )
        return True

    def acknowledge(self, rows: c.Sequence[int], reason: str = "") -> None:
        """Remove rows: they were delivered, or dropped for that reason."""
        for some in _chunks(rows):
            self._unwritten_acks.append((some, reason))
            self.write(lambda connection: None, None)

        self._unchecked += len(rows)

        if self._unchecked >= _MAX_UNCHECKED:
            self._unchecked = 0
            self._checkpoint()

    def _write_acks(self, connection: sqlite3.Connection, count: int) -> int:
        """Remove acknowledged rows; return how many records of others they had."""
        forwarded = 0

        for rows, reason in self._unwritten_acks[:count]:
            by_origin: dict[str, int] = {}

            for origin, records in connection.execute(
                f"DELETE FROM messages WHERE {_OWN_ROWS} RETURNING origin, records",
                (json.dumps(rows), self.process_id),
            ).fetchall():
                by_origin[origin] = by_origin.get(origin, 0) + records

            for origin, records in by_origin.items():
                tables.tally(connection, origin, reason, records)

                if origin != self.process_id and not reason:
                    forwarded += records

        return forwarded

    def release(self, rows: c.Sequence[int], reason: str) -> None:
        """Leave rows to the next that leases some; they were not taken."""
        self.write(
            lambda connection: connection.execute(
                "UPDATE messages SET leased_by = '', leased_until = 0, sent = 0,"
                f" reason = ? WHERE {_OWN_ROWS}",
                (reason, json.dumps(rows), self.process_id),
            ),
            None,
        )

    def claim(self, id: str, *, from_spool: bool = False) -> bool:
        """Whether the caller is to make now what must not be made twice: nobody has
        asked before, in this process or another.

        If that can't be found out, it is: a disk in trouble stops nothing.

        :param from_spool: whether a row of the spool is what is made.
        """
        return self.write(
            lambda connection: tables.claim(
                connection, id, _MADE_FOR, from_spool=from_spool
            ),
            True,
        )

    # Reading.

    def count(self, balance: Balance) -> None:
        """Add what the spool knows of the records of this process."""

        def query(connection: sqlite3.Connection) -> None:
            (waiting,) = connection.execute(
                "SELECT total(records) FROM messages WHERE origin = ?",
                (self.process_id,),
            ).fetchone()
            balance.waiting += int(waiting)

            for reason, records in connection.execute(
                "SELECT reason, records FROM tallies WHERE origin = ?",
                (self.process_id,),
            ):
                if reason:
                    balance.dropped[reason] = balance.dropped.get(reason, 0) + records
                else:
                    balance.delivered += records

        balance.forwarded += self._forwarded

        if self._used:
            self.read(query, None)

    def summary(self) -> Summary:
        """What waits in the spool for this project, of all processes."""

        def query(connection: sqlite3.Connection) -> Summary:
            waiting = {
                (endpoint, reason): (records, since)
                for endpoint, reason, records, since in connection.execute(
                    "SELECT endpoint, reason, sum(records), min(put_at)"
                    " FROM messages WHERE project = ?"
                    " GROUP BY endpoint, reason ORDER BY min(put_at)",
                    (self._project,),
                )
            }
            tallies = dict(
                connection.execute(
                    "SELECT reason, sum(records) FROM tallies GROUP BY reason"
                ).fetchall()
            )
            delivered = tallies.pop("", 0)
            (unacknowledged,) = connection.execute(
                "SELECT total(records) FROM messages"
                " WHERE project = ? AND hand_over IS NOT NULL",
                (self._project,),
            ).fetchone()
            (leased,) = connection.execute(
                "SELECT total(records) FROM messages"
                " WHERE project = :project AND hand_over IS NULL"
                " AND leased_by NOT IN ('', :process)"
                " AND leased_until BETWEEN :now AND :now + :lease",
                {
                    "project": self._project,
                    "process": self.process_id,
                    "now": time.monotonic(),
                    "lease": LEASE,
                },
            ).fetchone()
            return Summary(
                waiting,
                int(unacknowledged),
                int(leased),
                delivered,
                tallies,
                self._size(connection),
            )

        nothing = Summary({}, 0, 0, 0, {}, 0)
        return self.read(query, nothing) if self.exists() else nothing

    def is_full(self, connection: sqlite3.Connection) -> bool:
        """Whether there is no room for more."""
        return self._size(connection) > self._max_bytes

    @staticmethod
    def _size(connection: sqlite3.Connection) -> int:
        (size,) = connection.execute(
            "SELECT (page_count - freelist_count) * page_size"
            " FROM pragma_page_count, pragma_freelist_count, pragma_page_size"
        ).fetchone()
        return t.cast(int, size)

    # The file.

    def close(self) -> None:
        """Close the file."""
        self._notice_green_threads()

        with self._lock:
            self._disconnect()

    def __del__(self) -> None:
        # An app may be gone before its process is, as in tests. Since Python 3.13 a
        # connection complains if nobody has closed it.
        if self._connection is not None:
            self._connection.close()

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def read(self, query: c.Callable[[sqlite3.Connection], T], failed: T) -> T:
        """Ask the file something.

        :param failed: the answer if it can't be asked.
        """
        return self._guarded(query, failed, WRITE_TIMEOUT)

    def write(
        self,
        work: c.Callable[[sqlite3.Connection], T],
        failed: T,
        timeout: float = WRITE_TIMEOUT,
        undo: c.Callable[[], None] = lambda: None,
    ) -> T:
        """Do something in one transaction, which also writes acknowledgements.

        :param failed: the result if it can't be done.
        :param timeout: seconds to wait for others that write.
        :param undo: called if it was done and isn't written after all.
        """

        def transaction(connection: sqlite3.Connection) -> T:
            try:
                connection.execute("BEGIN IMMEDIATE")
                # A request, which has little time, has no time for this either.
                acks = len(self._unwritten_acks) if timeout >= WRITE_TIMEOUT else 0
                forwarded = self._write_acks(connection, acks)
                done = work(connection)
                connection.execute("COMMIT")
            except BaseException as error:
                # An exception from outside may arrive when all is written. SQLite ends
                # a transaction itself that it can't write.
                if connection.in_transaction or isinstance(error, sqlite3.Error):
                    undo()

                    with contextlib.suppress(sqlite3.Error):
                        connection.execute("ROLLBACK")

                raise

            del self._unwritten_acks[:acks]
            self._forwarded += forwarded
            return done

        return self._guarded(transaction, failed, timeout)

    def _guarded(
        self, work: c.Callable[[sqlite3.Connection], T], failed: T, timeout: float
    ) -> T:
        self._notice_green_threads()
        # Else it is released by another's hands.
        lock = self._lock

        # The handler of a signal may come here while its thread is in the middle of a
        # transaction.
        if lock._is_owned():
            return failed

        try:
            try:
                if not lock.acquire(timeout=timeout):
                    return failed

                return self._tried(work, timeout)
            except (sqlite3.Error, OSError) as error:
                self._log(str(error))
                return failed
            finally:
                if lock._is_owned():
                    lock.release()
        finally:
            # An exception from outside may arrive in the lines above.
            if lock._is_owned():
                lock.release()

    def _notice_green_threads(self) -> None:
        """Leave the lock and the connection of the other kind of threads."""
        if not self._threads.is_current:
            # One of the others may still use it.
            if self._connection is not None:
                _inherited.append(self._connection)

            self._connection = None
            self._make_lock()

    def _tried(self, work: c.Callable[[sqlite3.Connection], T], timeout: float) -> T:
        try:
            return work(self._connected(timeout))
        except sqlite3.DatabaseError as error:
            if not _is_corrupt(error):
                raise

            self._disconnect()
            self._set_aside(error)
            return work(self._connected(timeout))

    def _connected(self, timeout: float) -> sqlite3.Connection:
        if self._connection is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            make_private(self.path)
            connection = sqlite3.connect(
                self.path,
                timeout=WRITE_TIMEOUT,
                isolation_level=None,
                check_same_thread=False,
            )

            try:
                self._prepare(connection)
            except BaseException:
                connection.close()
                raise

            self._connection = connection
            self._timeout = WRITE_TIMEOUT

        if timeout != self._timeout:
            self._connection.execute(f"PRAGMA busy_timeout = {timeout * 1000:.0f}")
            self._timeout = timeout

        return self._connection

    def _checkpoint(self) -> None:
        """Move what was written from SQLite's log to the file itself.

        SQLite would make the next writer wait for the disk, maybe a request. On a
        connection of its own, this makes nobody wait.
        https://www.sqlite.org/wal.html#ckpt
        """
        with (
            contextlib.suppress(sqlite3.Error),
            contextlib.closing(
                # Without it SQLite would make the file anew if it's gone.
                sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=rw", uri=True)
            ) as connection,
        ):
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_MAX_LOGGED}")
        tables.prepare(connection)

    def _set_aside(self, error: sqlite3.DatabaseError) -> None:
        # Another process may have done it already; then the file is a good one.
        with (
            contextlib.suppress(sqlite3.DatabaseError),
            contextlib.closing(sqlite3.connect(self.path)) as connection,
        ):
            if connection.execute("PRAGMA quick_check(1)").fetchone() == ("ok",):
                return

        aside = self.path.with_name(f"{self.path.name}.corrupt-{time.time_ns()}")
        logger.error(
            "The spool %s is corrupt (%s); it is now %s.", self.path, error, aside
        )

        for suffix in ("-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)

        with contextlib.suppress(FileNotFoundError):
            self.path.rename(aside)

    def _log(self, reason: str) -> None:
        """Say what is wrong, unless something was just now: a full disk refuses each
        request, and can be read in between."""
        now = time.monotonic()

        if now >= self._silent_until:
            self._silent_until = now + _LOG_INTERVAL
            logger.error("The spool %s can't be used: %s", self.path, reason)


def make_private(path: Path) -> None:
    """Make an SQLite file that only its owner can read, or make it one.

    What SQLite writes beside it gets the same permissions.
    https://www.sqlite.org/src/file?name=src/os_unix.c (findCreateFileMode)
    """
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))

    for suffix in ("", "-wal", "-shm", "-journal"):
        beside = f"{path}{suffix}"

        # Another's, or one that is gone by now.
        with contextlib.suppress(OSError):
            if os.stat(beside).st_mode & 0o077:
                os.chmod(beside, 0o600)


def _chunks(
    things: c.Sequence[S], rows: c.Callable[[S], int] = lambda thing: 1
) -> c.Iterator[list[S]]:
    """Divide what is to be written into chunks of about `_MAX_ROWS_AT_ONCE` rows."""
    chunk: list[S] = []
    size = 0

    for thing in things:
        if size >= _MAX_ROWS_AT_ONCE:
            yield chunk
            chunk, size = [], 0
            # A thread that releases a lock and takes it again at once gives it to none.
            time.sleep(0)

        chunk.append(thing)
        size += rows(thing)

    if chunk:
        yield chunk


def _is_corrupt(error: sqlite3.DatabaseError) -> bool:
    # Extended codes have the kind of error in their lowest byte.
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def _columns(
    waiting: Waiting | None, now: float
) -> tuple[str | None, float, str | None]:
    if waiting is None:
        return None, 0.0, None

    return waiting.hand_over, now + waiting.timeout, waiting.dropped_for
