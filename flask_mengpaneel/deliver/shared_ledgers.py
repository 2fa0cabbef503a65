"""The ledgers of all processes that share a spool, summed.

Each process writes what its ledger says into a file beside the spool. It keeps that
file locked while it lives, so that the others know it does. What it has in the spool
they see there. When a process is gone and the spool has nothing of it any more, its
file is added to the one of all those before: no sum ever gets smaller.
"""

from __future__ import annotations

import collections.abc as c
import contextlib
import dataclasses
import errno
import importlib
import json
import logging
import os
import threading
import time
import typing as t
from pathlib import Path

from .. import process, server
from .spool import SpoolError, make_private

if t.TYPE_CHECKING:
    import sqlite3

    from .ledger import Ledger
    from .spool import Spool

fcntl: t.Any = None

# Not on Windows.
with contextlib.suppress(ImportError):
    fcntl = importlib.import_module("fcntl")

logger = logging.getLogger("flask_mengpaneel")

#: Seconds by which the file of a process may be behind its ledger.
PUBLISH_INTERVAL = 1.0
#: Why what a process had in memory is dropped that didn't end in order.
PROCESS_DIED = "its process died"
#: Reasons that are told apart, and characters of one; the rest is summed.
MAX_REASONS = 50
MAX_REASON = 60
OTHER_REASONS = "other"


@dataclasses.dataclass(slots=True)
class Totals:
    """What became of the records of some processes."""

    recorded: int = 0
    delivered: int = 0
    dropped: dict[str, int] = dataclasses.field(default_factory=dict)
    in_memory: int = 0
    in_spool: int = 0

    def drop(self, reason: str, records: int) -> None:
        """Count what was dropped, by the kind of the reason."""
        # What comes after the colon is Mixpanel's, or of one record.
        kind = reason.partition(":")[0][:MAX_REASON]

        if kind not in self.dropped and len(self.dropped) >= MAX_REASONS:
            kind = OTHER_REASONS

        self.dropped[kind] = self.dropped.get(kind, 0) + records

    def add(self, other: Totals) -> None:
        """Add those of others."""
        self.recorded += other.recorded
        self.delivered += other.delivered
        self.in_memory += other.in_memory
        self.in_spool += other.in_spool

        for reason, records in other.dropped.items():
            self.drop(reason, records)

    def complete(
        self, in_spool: int, tallies: c.Mapping[str, int], *, is_alive: bool
    ) -> None:
        """Add what the spool knows of the records of a process to what it has
        published, and what follows of the others.

        :param in_spool: how many wait there.
        :param tallies: what became of those that did, by reason: none if delivered.
        """
        self.in_spool = in_spool

        for reason, records in tallies.items():
            if reason:
                self.drop(reason, records)
            else:
                self.delivered += records

        left = self.recorded - self.settled - self.in_spool

        if left < 0:
            # Its file is a little behind.
            self.recorded -= left
        elif is_alive:
            self.in_memory = left
        elif left:
            self.drop(PROCESS_DIED, left)

    @property
    def settled(self) -> int:
        """How many are delivered or dropped."""
        return self.delivered + sum(self.dropped.values())


class SharedLedgers:
    """Publishes the ledger of this process, and sums those of all.

    :param spool: ``None``: there are no others.
    """

    def __init__(self, ledger: Ledger, spool: Spool | None) -> None:
        self._ledger = ledger
        self._spool = spool if fcntl is not None else None
        self._file: int | None = None
        self._reset()

        if self._spool is not None:
            if server.threads_allowed():
                ledger.on_change = self._on_change

            ledger.on_close = self.publish
            process.on_fork(self)

    def _reset(self) -> None:
        self._is_due = False
        self._lock = threading.Lock()

    def after_fork(self) -> None:
        """Leave the file of the parent, whose lock a child has as well."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

        self._reset()

    # Of this process.

    def _on_change(self) -> None:
        if self._is_due:
            return

        self._is_due = True
        # Also in a process that has no transport.
        process.on_exit(self)
        timer = threading.Thread(
            target=self._publish_soon,
            args=(threading.get_native_id(),),
            name="mengpaneel-ledger",
            daemon=True,
        )

        try:
            timer.start()
        except RuntimeError:
            # At the very end of a process, when it publishes anyway.
            self._is_due = False

    def _publish_soon(self, started_by: int) -> None:
        process.leave_signals_to(started_by)
        time.sleep(PUBLISH_INTERVAL)
        # What changes from here on has another one.
        self._is_due = False
        self.publish()

    def begin_shutdown(self) -> None:
        """Begin to finish: :meth:`close` comes next."""

    def close(self) -> None:
        """Publish at the end of the process, unless something else comes after it."""
        self.publish()

    def publish(self) -> None:
        """Write down what the ledger of this process says now."""
        if self._spool is None:
            return

        try:
            with self._lock, self._locked():
                self._publish(self._spool)
        except OSError as error:
            _say_unshared(error)

    def _publish(self, spool: Spool) -> Totals:
        totals = self._own(spool)

        try:
            if self._file is None and totals.recorded:
                path = self._path(f".ledger-{spool.process_id}")
                self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
                fcntl.flock(self._file, fcntl.LOCK_EX)

            if self._file is not None:
                _write(self._file, dataclasses.asdict(totals))
        except OSError as error:
            _say_unshared(error)

        return totals

    def _own(self, spool: Spool | None) -> Totals:
        """Return what this process knows by itself, without what the spool does."""
        balance = self._ledger.snapshot(None if spool is None else spool.count)
        totals = Totals(balance.recorded, balance.delivered)

        for reason, records in balance.dropped.items():
            totals.drop(reason, records)

        return totals

    # Of all processes.

    def sum(self) -> Totals:
        """Return what became of the records of all processes, also of those before.

        :raises SpoolError: it can't be read.
        """
        if self._spool is None:
            own = self._own(None)
            own.in_memory = max(own.recorded - own.settled, 0)
            return own

        try:
            with self._lock, self._locked() as shared:
                own = self._publish(self._spool)
                return self._sum(self._spool, shared, own)
        except OSError as error:
            raise SpoolError(f"the ledgers can't be summed: {error}") from None

    def _sum(self, spool: Spool, shared: int, own: Totals) -> Totals:
        kept = _first_json(os.pread(shared, os.fstat(shared).st_size, 0).decode())
        past, counted = _totals(kept.get("past", {})), kept.get("counted", [])
        spooled, tallies = _spooled(spool)
        whole = Totals()
        gone: list[Path] = []
        # There may be no room for it.
        own_path = self._path(f".ledger-{spool.process_id}")

        for path in {own_path, *spool.path.parent.iterdir()}:
            name, _, origin = path.name.rpartition("-")

            if name != f"{spool.path.name}.ledger":
                continue

            if origin in counted:
                gone.append(path)
                continue

            totals, is_alive = (own, True) if path == own_path else _visit(path)
            totals.complete(
                spooled.get(origin, 0), tallies.get(origin, {}), is_alive=is_alive
            )

            if is_alive or totals.in_spool:
                whole.add(totals)
            else:
                past.add(totals)
                gone.append(path)

        whole.add(past)
        # What is taken back again, as no response carried it, was counted before.
        whole.recorded = max(whole.recorded, kept.get("recorded", 0))
        value = {
            "past": dataclasses.asdict(past),
            # If this process is killed before they are deleted.
            "counted": [path.name.rpartition("-")[2] for path in gone],
            "recorded": whole.recorded,
        }

        try:
            _write(shared, value)
        except OSError as error:
            # The next sum finds all of them where they were.
            _say_unshared(error)
            return whole

        for path in gone:
            path.unlink(missing_ok=True)

        return whole

    def _path(self, suffix: str) -> Path:
        assert self._spool is not None
        return self._spool.path.with_name(self._spool.path.name + suffix)

    @contextlib.contextmanager
    def _locked(self) -> c.Iterator[int]:
        """Keep other processes out; give the file of those that are gone."""
        path = self._path(".ledgers")
        path.parent.mkdir(parents=True, exist_ok=True)
        make_private(path)
        shared = os.open(path, os.O_RDWR)

        try:
            fcntl.flock(shared, fcntl.LOCK_EX)
            yield shared
        finally:
            os.close(shared)


def _spooled(spool: Spool) -> tuple[dict[str, int], dict[str, dict[str, int]]]:
    """Return how many records of each process wait in the spool, and what became of
    those that did."""

    def query(
        connection: sqlite3.Connection,
    ) -> tuple[dict[str, int], dict[str, dict[str, int]]]:
        waiting = connection.execute(
            "SELECT origin, sum(records) FROM messages GROUP BY origin"
        ).fetchall()
        tallies: dict[str, dict[str, int]] = {}

        for origin, reason, records in connection.execute(
            "SELECT origin, reason, records FROM tallies"
        ):
            tallies.setdefault(origin, {})[reason] = records

        return dict(waiting), tallies

    if not spool.exists():
        return {}, {}

    # Without it, sums would get smaller.
    if (found := spool.read(query, None)) is None:
        raise SpoolError(f"{spool.path} can't be read")

    return found


def _visit(path: Path) -> tuple[Totals, bool]:
    """Return what a process has published, and whether it is alive."""
    file = os.open(path, os.O_RDWR)

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_alive = False
    except BlockingIOError:
        is_alive = True
    finally:
        os.close(file)

    return _read(path), is_alive


def _read(path: Path) -> Totals:
    return _totals(_first_json(path.read_text()))


def _totals(kept: dict[str, t.Any]) -> Totals:
    return Totals(
        kept.get("recorded", 0), kept.get("delivered", 0), kept.get("dropped", {})
    )


def _first_json(text: str) -> dict[str, t.Any]:
    try:
        value = json.JSONDecoder().raw_decode(text)[0]
    except ValueError:
        # It is new, or the disk was full.
        return {}

    return value if isinstance(value, dict) else {}


def _write(file: int, value: dict[str, t.Any]) -> None:
    """Write a value in the place of the one before; if the process is killed in
    between, there is a rest of that one behind it."""
    data = json.dumps(value).encode()
    size = os.fstat(file).st_size
    # First what needs room: if there is none, the value before is still there.
    tail = data[size:]

    if os.pwrite(file, tail, size) < len(tail):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    os.pwrite(file, data, 0)
    os.ftruncate(file, len(data))


def _say_unshared(error: OSError) -> None:
    logger.error("The ledger can't be shared: %s", error)
