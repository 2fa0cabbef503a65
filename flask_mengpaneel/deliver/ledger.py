"""The ledger of a process: what was recorded, and where it is now."""

from __future__ import annotations

import collections.abc as c
import contextlib
import dataclasses
import io
import os
import threading
import time
import weakref

from .. import process

#: Seconds for which a reader waits until no transfer is going on. One takes some
#: milliseconds; on a stuck disk a number that is seen twice is better than no answer.
SNAPSHOT_TIMEOUT = 2.0


@dataclasses.dataclass(slots=True)
class Balance:
    """What a ledger says at one moment, in records.

    One tracked event, one profile operation and one group operation is one record.
    """

    #: Recorded in this process.
    recorded: int = 0
    #: Taken by Mixpanel, as it told the server or a browser that acknowledged it; or
    #: given to a client that is believed.
    delivered: int = 0
    #: Counted where they wait: in memory, on their way, in the spool, or to be
    #: acknowledged by the clients that were given them.
    waiting: int = 0
    #: Not delivered and never will be, by reason.
    dropped: dict[str, int] = dataclasses.field(default_factory=dict)
    #: Delivered for another process; these are in that one's ledger.
    forwarded: int = 0
    #: Of the recorded ones, those without something that can't be sent.
    incomplete: int = 0
    #: Never recorded, by reason: these are in none of the other numbers.
    unrecorded: dict[str, int] = dataclasses.field(default_factory=dict)

    @property
    def balanced(self) -> bool:
        """Whether recorded = delivered + waiting + dropped."""
        return self.recorded == self.delivered + self.waiting + sum(
            self.dropped.values()
        )

    def __str__(self) -> str:
        reasons = _by_reason(self.dropped)
        return (
            f"{self.recorded} recorded = {self.delivered} delivered"
            f" + {self.waiting} waiting + {sum(self.dropped.values())} dropped"
            + (f" ({reasons})" if reasons else "")
            + (f"; {self.incomplete} incomplete" if self.incomplete else "")
            + (
                f"; not recorded: {_by_reason(self.unrecorded)}"
                if self.unrecorded
                else ""
            )
        )


def _by_reason(counts: c.Mapping[str, int]) -> str:
    return ", ".join(f"{reason}: {number}" for reason, number in counts.items())


class Ledger:
    """Counts what this process recorded until it is delivered or dropped.

    What is waiting isn't the difference of the others: it is counted by the sources
    where things wait, so that ``recorded = delivered + waiting + dropped`` is a check
    that fails when something got lost.
    """

    def __init__(self) -> None:
        self._sources: list[c.Callable[[Balance], None]] = []
        #: Called when something was counted; maybe in the middle of a transfer.
        self.on_change: c.Callable[[], None] | None = None
        #: Called at the end of the process.
        self.on_close: c.Callable[[], None] | None = None
        self.reset()

    def reset(self) -> None:
        """Start with nothing, as in a process that was just forked."""
        # Its thread may take it again: the handler of a signal may track. No thread
        # waits for anything while it has it, so that it does for green ones as well.
        self._lock = threading.RLock()
        self._transfers: list[weakref.ref[io.BytesIO]] = []
        self._recorded = 0
        self._delivered = 0
        self._dropped: dict[str, int] = {}
        self._incomplete = 0
        self._unrecorded: dict[str, int] = {}

    def add_source(self, source: c.Callable[[Balance], None]) -> None:
        """Add a source: a place in which records are.

        :param source: adds what it holds to the balance that it is given.
        """
        self._sources.append(source)

    def transfer(self) -> contextlib.AbstractContextManager[object]:
        """While records go from one source to another, nobody reads the ledger.

        Several transfers may go on at once; they don't wait for each other.

        :return: to be entered at once. It goes on until this is closed, or nobody has
            it any more. Something of C's, as an exception from outside that arrives
            while a function of Python's closes it would leave it open, and every
            reader waiting, for as long as that exception's traceback is kept.
        """
        transfer = io.BytesIO()

        try:
            with self._lock:
                self._transfers = [*self._going_on(), weakref.ref(transfer)]

            return transfer
        except BaseException:
            transfer.close()
            raise

    def _going_on(self) -> list[weakref.ref[io.BytesIO]]:
        # Looked through here, as what a reference calls when its object dies would
        # swallow an exception that arrives in it.
        return [
            reference
            for reference in self._transfers
            if (transfer := reference()) is not None and not transfer.closed
        ]

    def record(self, records: int = 1) -> None:
        """Count what has been recorded, when it is flushed."""
        if process.pid != os.getpid():
            process.after_fork()

        with self._lock:
            self._recorded += records

        if self.on_change is not None:
            self.on_change()

    def deliver(self, records: int = 1) -> None:
        """Count what has reached Mixpanel, or what a believed client was given."""
        with self._lock:
            self._delivered += records

        if self.on_change is not None:
            self.on_change()

    def drop(self, reason: str, records: int = 1) -> None:
        """Count what won't be delivered."""
        if records:
            with self._lock:
                self._dropped[reason] = self._dropped.get(reason, 0) + records

            if self.on_change is not None:
                self.on_change()

    def record_dropped(self, reason: str, records: int = 1) -> None:
        """Count records as recorded and dropped in one transfer, so that no reader sees
        them missing."""
        with self.transfer():
            self.record(records)
            self.drop(reason, records)

    def skip(self, reason: str) -> None:
        """Count what isn't recorded."""
        with self._lock:
            self._unrecorded[reason] = self._unrecorded.get(reason, 0) + 1

    def leave_out(self) -> None:
        """Count a record without something that can't be sent."""
        with self._lock:
            self._incomplete += 1

    @contextlib.contextmanager
    def paused(self) -> c.Iterator[None]:
        """Forget what is counted for a while, and tell nobody of it."""
        on_change, self.on_change = self.on_change, None
        kept = self._recorded, self._delivered, self._incomplete
        dropped, unrecorded = dict(self._dropped), dict(self._unrecorded)

        try:
            yield
        finally:
            with self._lock:
                self._recorded, self._delivered, self._incomplete = kept
                self._dropped, self._unrecorded = dropped, unrecorded

            self.on_change = on_change

    def close(self) -> None:
        """Finish: the process ends."""
        if self.on_close is not None:
            self.on_close()

    def snapshot(self, without: c.Callable[[Balance], None] | None = None) -> Balance:
        """Return what the ledger says at this moment.

        :param without: a source that isn't asked.
        """
        deadline = time.monotonic() + SNAPSHOT_TIMEOUT

        while True:
            with self._lock:
                if not self._going_on() or time.monotonic() > deadline:
                    return self._read(without)

            time.sleep(0.001)

    def _read(self, without: c.Callable[[Balance], None] | None) -> Balance:
        balance = Balance(
            recorded=self._recorded,
            delivered=self._delivered,
            dropped=dict(self._dropped),
            incomplete=self._incomplete,
            unrecorded=dict(self._unrecorded),
        )

        for source in self._sources:
            if source != without:
                source(balance)

        return balance

    @property
    def recorded(self) -> int:
        """Recorded in this process."""
        return self.snapshot().recorded

    @property
    def delivered(self) -> int:
        """Taken by Mixpanel, or given to a client that is believed."""
        return self.snapshot().delivered

    @property
    def waiting(self) -> int:
        """In memory, on their way, in the spool, or to be acknowledged."""
        return self.snapshot().waiting

    @property
    def dropped(self) -> dict[str, int]:
        """Not delivered, by reason."""
        return self.snapshot().dropped

    @property
    def forwarded(self) -> int:
        """Delivered for another process."""
        return self.snapshot().forwarded

    @property
    def incomplete(self) -> int:
        """Recorded without something that can't be sent."""
        return self.snapshot().incomplete

    @property
    def unrecorded(self) -> dict[str, int]:
        """Not recorded, by reason."""
        return self.snapshot().unrecorded

    def __str__(self) -> str:
        return str(self.snapshot())
