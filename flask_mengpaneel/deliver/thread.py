"""How server-side calls leave: at once, or in the background."""

from __future__ import annotations

import collections
import collections.abc as c
import dataclasses
import functools
import logging
import os
import threading
import time
import typing as t
import warnings

from .. import process
from ..envelope import Envelope
from ..transport import Transport
from .delivery import (
    MAX_RECORDS,
    READ_TIMEOUT,
    SPOOL_POLL_INTERVAL,
    Attempt,
    Batch,
    Delivery,
    Dropped,
    Kind,
    Verdict,
    backoff,
    batches,
    wrap,
)

if t.TYPE_CHECKING:
    from celery import Celery

    from ..config import Config
    from ..envelope import Message
    from .ledger import Balance

logger = logging.getLogger("flask_mengpaneel")

#: Seconds for which the first of some events waits for company.
LINGER = 0.2
#: Records that may wait in memory, or KB: fewer if there is a spool to take the rest,
#: and of these a fifth while Mixpanel is in trouble.
MAX_WAITING = 100_000
MAX_WAITING_WITH_SPOOL = 50_000
#: Envelopes that wait as they are. To put one into bytes takes a request some time.
FEW = 100
#: Batches of up to 2 MB that may wait for an endpoint before more are built.
MAX_BUILT = 6
#: Seconds without an answer after which an endpoint that has as many isn't waited for.
SLOW = 1.0
#: Seconds that a request waits for the spool.
MAX_PATIENCE = 0.1
#: Seconds that the end of the process waits for it, if an answer came at the end.
MAX_SETTLING = 2.0
#: Seconds without anything to do after which a worker ends: an app that is gone would
#: keep it for good. With a spool there is always something: to look into it.
IDLE = 30.0
#: Seconds for which a worker computes before it lets others.
SLICE = 0.001
#: Requests with events that may be under way at once.
MAX_ON_WAY = 4
#: While as many as there may be wait for the answers of each endpoint, another builds
#: messages.
WORKERS = MAX_ON_WAY + 3

AT_EXIT = "the process ended"
FULL = "the queue was full"
UNANSWERED = Verdict(Kind.AMBIGUOUS, "no answer before the process ended")


class InlineTransport(Transport):
    """Delivers each envelope at once, within ``MENGPANEEL_TIMEOUT``.

    On Vercel it does so when the response has left, where that is offered.
    """

    reports_delivery = True
    counts_recorded = True

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery
        #: Threads that deliver, and what the handlers of their signals add to it.
        self._busy: dict[int, list[c.Callable[[], None]]] = {}

    def send(self, envelope: Envelope) -> bool:
        """Deliver the envelope; what can't be delivered in time is kept or reported."""
        process.on_exit(self)
        deliver = self.delivery.defer(envelope)

        if not process.after_response(deliver):
            try:
                self._deliver(deliver)
            except Exception:
                # From outside, such as a time limit. Nobody else may send it now.
                logger.warning(
                    "Something came in the way of a delivery.", exc_info=True
                )

        return True

    def _deliver(self, deliver: c.Callable[[], None]) -> None:
        me = threading.get_ident()

        # The connection that is in use in this thread has locks of its own.
        if me in self._busy:
            self._busy[me].append(deliver)
            return

        added = self._busy[me] = []

        try:
            deliver()

            while added:
                added.pop(0)()
        finally:
            self._busy.pop(me, None)

    def close(self) -> None:
        """Finish: the process ends."""
        # A background transport does it when it has nothing left.
        if not self.delivery.in_background:
            self.delivery.close()


@dataclasses.dataclass(slots=True, eq=False)
class Writing:
    """An envelope that a request writes into the spool: what became of that."""

    envelope: Envelope
    rows: list[int] = dataclasses.field(default_factory=list)
    done: bool = False


#: An envelope, its records, its weight, and whether it is written into the spool. Where
#: there are many, it is in bytes: such a tuple is nothing that Python's garbage
#: collector goes through again and again.
Queued = tuple["Envelope | bytes", int, int, "Writing | None"]
#: The row of an envelope, its messages, and what isn't sent of it.
Packed = tuple[int, list["Message"], dict[str, int]]


class Lane:
    """The batches for one endpoint, in order.

    :param width: how many may be on their way at once. Profile updates go one after
        the other: what was set last has to arrive last.
    """

    def __init__(self, width: int) -> None:
        self.batches: collections.deque[Batch] = collections.deque()
        #: Whether it ever had one.
        self.is_used = False
        #: Whether what comes goes through the spool until nothing of it is there,
        #: since there was too much.
        self.overflows = False
        self.width = width
        self.on_way = 0
        self.failures = 0
        self.not_before = 0.0
        #: Whether it was Mixpanel who asked for the pause.
        self.asked = False
        #: When it last had an answer, or nothing to wait for.
        self.moved_at = 0.0

    def put(self, batch: Batch, now: float) -> None:
        """Send a batch after all others, in one request with the last if it fits."""
        self.is_used = True

        if not self.batches and not self.on_way:
            self.moved_at = now

        if self.joins(batch):
            self.batches[-1].messages += batch.messages
            self.batches[-1].rows += batch.rows
        else:
            self.batches.append(batch)

    def joins(self, batch: Batch) -> bool:
        """Whether a batch goes in one request with the last."""
        return bool(self.batches) and self.batches[-1].has_room_for(batch)

    @property
    def is_full(self) -> bool:
        """Whether it has enough to send, as long as this takes."""
        return len(self.batches) >= (1 if self.failures else MAX_BUILT)

    def moves(self, now: float) -> bool:
        """Whether it is worth waiting for."""
        return not self.failures and now < self.moved_at + SLOW

    def ready(self, now: float) -> bool:
        """Whether a batch of it may be sent."""
        return bool(
            self.batches and self.on_way < self.width and self.not_before <= now
        )

    def pause(self, attempt: Attempt, now: float) -> None:
        """Send nothing for a while, as an attempt failed."""
        pause = backoff(self.failures, attempt.retry_after)
        self.asked = attempt.retry_after is not None
        self.failures += 1
        self.not_before = max(self.not_before, now + pause)

    def hurry(self) -> None:
        """Send at once, unless Mixpanel asked for the pause."""
        if not self.asked:
            self.not_before = 0.0


class ThreadTransport(Transport):
    """Delivers envelopes in the background, by threads of this process.

    A request hands its envelope over by one step that nothing can interrupt: it appends
    it to a queue, where it counts as recorded and as waiting. All the rest may happen
    later or not at all, so that the books are right whatever exception arrives from
    outside, a time limit for example, and so that the handler of a signal may track
    while its thread is in the middle of a hand-over. A worker, where no such exception
    arrives, puts on the books what it takes.
    """

    reports_delivery = True
    counts_recorded = True

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery
        self._spool = delivery.spool
        self._durable = self._spool is not None and (
            delivery.config.durable or process.may_be_killed()
        )
        delivery.in_background = True
        self._room = MAX_WAITING if self._spool is None else MAX_WAITING_WITH_SPOOL
        #: The batches that may wait for an endpoint that doesn't get on.
        self._lane_room = max(
            MAX_BUILT, 0 if self._spool else MAX_WAITING // MAX_RECORDS
        )
        self._reset()
        delivery.ledger.add_source(self._count)
        process.on_fork(self)

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._make_locks()

        #: What goes from here to the messages being built to the lanes.
        self._queue: collections.deque[Queued] = collections.deque()
        self._building: list[Queued] = []
        self._lanes = {
            "events": Lane(MAX_ON_WAY),
            "people": Lane(1),
            "groups": Lane(1),
        }
        #: Whether what is being built is on the books.
        self._booked = True
        self._in_hand: set[Batch] = set()
        #: How many answers are being acted upon.
        self._settling = 0
        #: How many workers report what was dropped.
        self._telling = 0
        #: The weight of the queue, and since when its first envelope waits.
        self._queued = 0
        self._first = 0.0
        #: The weight at which a worker is to be woken.
        self._wake_at = 1.0

        #: Whether all goes through the spool until it is empty, since the queue was
        #: full: what was set last has to arrive last.
        self._overflows = False
        #: What goes into the spool only, until it is on the books.
        self._spilling: collections.deque[Writing] = collections.deque()
        self._spilled = 0
        #: How often workers are putting into the spool what a lane has no room for, and
        #: how often they did.
        self._storing = 0
        self._stored = 0
        self._draining = False
        self._drained_last = False
        self._look_at = 0.0

        #: How many want that everything is sent without waiting for company.
        self._hurried = 0
        #: When this process ends, if it does.
        self._deadline: float | None = None
        self._closing = False
        self._closed = False

    def _make_locks(self) -> None:
        #: What was in force as a lock when these were made.
        self._kind = threading.Lock
        # One that its thread may take again: the handler of a signal may track.
        self._lock = threading.RLock()
        #: Something to do for a worker.
        self._news = threading.Condition(self._lock)
        #: Something was done, for those who wait for the end of it.
        self._done = threading.Condition(self._lock)
        self._workers: set[threading.Thread] = set()
        #: Those of them that are in the middle of something.
        self._working: set[threading.Thread] = set()

    def _keep_up(self) -> None:
        """Notice a fork that Python wasn't told of, and green threads that took the
        place of others when the app was made already."""
        if self._pid != os.getpid():
            process.after_fork()

        if self._kind is not threading.Lock:
            self._await_others()

            with self._lock:
                if self._kind is threading.Lock:
                    return

                had_workers = bool(self._workers)
                # Those of the other kind end when they notice. They aren't woken, as
                # eventlet replaces a lock, but not what a condition knows of it.
                self._make_locks()

            if had_workers and not self._closed:
                with self._lock:
                    self._start()

    def _await_others(self) -> None:
        """Let workers of the other kind finish what they are in the middle of; they
        begin nothing new."""
        deadline = time.monotonic() + READ_TIMEOUT

        while (
            self._in_hand
            or self._building
            or self._draining
            or self._settling
            or self._telling
        ) and time.monotonic() < deadline:
            time.sleep(0.01)

    def after_fork(self) -> None:
        """Start anew in a child process, without threads and with nothing to send."""
        self._reset()

    def _count(self, balance: Balance) -> None:
        with self._lock:
            queued = [*self._building, *self._queue]
            spilling = list(self._spilling)
            booked = len(self._building) if self._booked else 0
            balance.recorded += sum(records for _, records, _, _ in queued[booked:])
            balance.recorded += sum(some.envelope.records for some in spilling)
            balance.waiting += sum(
                records for _, records, _, writing in queued if not _row(writing)
            )
            balance.waiting += sum(
                some.envelope.records for some in spilling if not some.rows
            )
            balance.waiting += sum(p.records for p in self._batches() if not p.rows)

    def _batches(self) -> c.Iterator[Batch]:
        yield from self._in_hand

        for lane in self._lanes.values():
            yield from lane.batches

    # In the request.

    def send(self, envelope: Envelope) -> bool:
        """Take an envelope, if there is room for it."""
        self._keep_up()
        kept = envelope if len(self._queue) < FEW else envelope.to_bytes()
        # An ordinary record is 1, a large one as many as it has KB.
        weight = max(envelope.records, envelope.size // 1024, 1)
        writing = None
        taken = False

        try:
            with self._lock:
                if self._deadline is not None or not (self._workers or self._start()):
                    return False

                fits = self._fits(weight)

                if self._spool is not None and (self._durable or not fits):
                    writing = Writing(envelope)

                if fits:
                    self._begin_queue()
                    queued = (kept, envelope.records, weight, writing)
                    # Nothing can come between these two.
                    taken = True
                    self._queue.append(queued)
                    self._appended(weight)
                elif writing is not None:
                    self._overflows = True
                    self._look_at = 0.0
                    taken = True
                    self._spilling.append(writing)

                now = time.monotonic()
                behind = 2 * self._queued > self._room and self._may_build(now)

            if writing is not None:
                self._write(writing, fits)

            if not fits and not self._spill(writing, kept, weight):
                return self._drop(envelope)
        except BaseException as error:
            if writing is not None:
                writing.done = True

            if not taken or not isinstance(error, Exception):
                raise

            # From outside, such as a time limit. Nobody else may send it now.
            logger.warning("Something came in the way of a hand-over.", exc_info=True)
            return True

        if behind:
            # A loop that tracks leaves the workers no time: here is some.
            time.sleep(0)

        return True

    def _fits(self, weight: int) -> bool:
        if self._overflows:
            return False

        total = self._queued + weight

        if not self._queue or total <= self._room // 5:
            return True

        # What waits long is safer in the spool.
        return total <= self._room and (self._spool is None or not self._in_trouble)

    @property
    def _in_trouble(self) -> bool:
        """Whether nothing gets on."""
        waited_for = [
            lane for lane in self._lanes.values() if lane.batches or lane.on_way
        ]
        return bool(waited_for) and all(lane.failures for lane in waited_for)

    def _append(self, queued: Queued) -> None:
        _, _, weight, _ = queued
        self._begin_queue()
        self._queue.append(queued)
        self._appended(weight)

    def _begin_queue(self) -> None:
        if not self._queue:
            self._first = time.monotonic()
            self._queued = 0

    def _appended(self, weight: int) -> None:
        self._queued += weight

        if self._queued >= self._wake_at:
            self._news.notify()
            self._wake_at = float("inf")

    def _write(self, writing: Writing, fits: bool) -> None:
        """Write an envelope into the spool."""
        assert self._spool is not None
        reason = "being sent" if fits else FULL
        message = wrap(writing.envelope)

        try:
            self._spool.put(
                [message],
                reason,
                leased=fits,
                patience=MAX_PATIENCE,
                rows=writing.rows,
            )
        finally:
            writing.done = True

        with self._lock:
            if not fits or self._lingered(time.monotonic()):
                self._news.notify()

    def _spill(
        self, writing: Writing | None, kept: Envelope | bytes, weight: int
    ) -> bool:
        """Whether an envelope that the queue has no room for is in the spool, or queued
        after all: a disk that takes nothing is no reason to send nothing."""
        if writing is None or writing.rows:
            return writing is not None

        with self._lock:
            # Else a worker has it.
            if writing in self._spilling:
                self._spilling.remove(writing)

                if self._queued + weight > self._room:
                    return False

                self._append((kept, writing.envelope.records, weight, None))

        return True

    def _drop(self, envelope: Envelope) -> bool:
        """Give an envelope up, if whoever else would try to send it now would wait in
        vain; ``False`` if not."""
        with self._lock:
            if not self._in_trouble:
                return False

        with self._delivery.ledger.transfer():
            self._delivery.ledger.record(envelope.records)
            told = self._delivery.drop([envelope], FULL)

        self._delivery.tell(told)
        return True

    def resume_spooled(self) -> None:
        """Send what other processes left in the spool, if they did."""
        if self._spool is not None and self._spool.exists():
            self._keep_up()

            with self._lock:
                if self._deadline is None and not self._workers:
                    self._start()

    def _start(self) -> bool:
        is_first = not self._workers
        worker = threading.Thread(
            target=self._work,
            args=(threading.get_native_id(), self._lock),
            name="mengpaneel",
            daemon=True,
        )

        if is_first:
            process.on_exit(self)

        self._workers.add(worker)

        try:
            worker.start()
        except BaseException as error:
            # If it runs all the same, it comes back by itself.
            self._workers.discard(worker)

            if isinstance(error, RuntimeError):
                # No more threads, as at the very end of a process.
                return False

            raise

        return True

    # In the workers.

    def _work(self, started_by: int, lock: t.Any) -> None:
        process.leave_signals_to(started_by)
        me = threading.current_thread()

        with lock:
            working = self._working

            if lock is self._lock:
                self._workers.add(me)

        while task := self._next(lock):
            try:
                task()
            except Exception:
                logger.exception("Delivering failed in an unexpected way.")
            finally:
                with lock:
                    working.discard(me)

    def _next(self, lock: t.Any) -> c.Callable[[], None] | None:
        me = threading.current_thread()

        with lock:
            # Under other locks there are other workers.
            while (
                not self._closed and lock is self._lock and self._kind is threading.Lock
            ):
                now = time.monotonic()

                if task := self._task(now):
                    self._working.add(me)

                    # Somebody is to be there for what comes while others wait.
                    if len(self._working) == len(self._workers) < WORKERS:
                        self._start()

                    return task

                # One is enough.
                if len(self._workers) - len(self._working) > 1:
                    break

                if not self._wait(now) and self._empty():
                    break

            if lock is self._lock:
                self._workers.discard(me)

            return None

    def _task(self, now: float) -> c.Callable[[], None] | None:
        for lane in self._lanes.values():
            if lane.ready(now):
                batch = lane.batches.popleft()
                lane.on_way += 1
                self._in_hand.add(batch)
                return functools.partial(self._send, lane, batch)

        if self._spilling and self._spilling[0].done:
            return self._book_spilled

        # One after the other, in order.
        if self._building or self._draining:
            return None

        if self._may_drain(now):
            self._draining = True
            stored = self._stored + self._spilled
            return functools.partial(self._drain, stored, self._open())

        if (
            self._queue
            and _is_written(self._queue[0])
            and self._lingered(now)
            and self._may_build(now)
        ):
            self._take()
            return self._build

        return None

    def _may_build(self, now: float) -> bool:
        """Whether what is built now is worth it: some endpoint can do with more, and
        none that gets on has enough."""
        used = [lane for lane in self._lanes.values() if lane.is_used]
        is_wanted = not used or any(not lane.is_full for lane in used)

        return is_wanted and not self._has_enough(now)

    def _has_enough(self, now: float) -> bool:
        return any(lane.is_full and lane.moves(now) for lane in self._lanes.values())

    def _open(self) -> set[str]:
        """The endpoints that are to get what waits in the spool."""
        return {
            name
            for name, lane in self._lanes.items()
            if not lane.failures and not lane.is_full
        }

    def _may_drain(self, now: float) -> bool:
        if (
            self._spool is None
            or self._has_enough(now)
            or not (open_ := self._open())
            or (
                now < self._look_at
                and not any(self._lanes[name].overflows for name in open_)
            )
        ):
            return False

        # At the end what this process has itself goes first: then it is known, too,
        # that Mixpanel takes something.
        if self._deadline is not None:
            return now < self._deadline and not (
                self._queue or self._in_hand or next(self._batches(), None)
            )

        # What is in the queue is older if it overflows; else take turns.
        return not self._queue or not (self._overflows or self._drained_last)

    def _lingered(self, now: float) -> bool:
        return (
            self._hurried > 0
            or self._queued >= MAX_RECORDS
            or now >= self._first + LINGER
        )

    def _wait(self, now: float) -> bool:
        """Wait for something to do; ``False`` if nothing has come for long."""
        waiting = [lane for lane in self._lanes.values() if lane.batches]
        moments = [lane.not_before for lane in waiting]
        moments += [lane.moved_at + SLOW for lane in waiting if lane.is_full]
        self._wake_at = 1

        if self._queue:
            moments.append(self._first + LINGER)
            self._wake_at = MAX_RECORDS

        if self._spool is not None:
            moments.append(self._look_at)

        until = min((moment for moment in moments if moment > now), default=None)

        if until is None:
            return self._news.wait(IDLE)

        self._news.wait(until - now)
        return True

    def _book_spilled(self) -> None:
        with self._delivery.ledger.transfer():
            with self._lock:
                records = sum(self._take_spilled())

            self._delivery.ledger.record(records)

    def _take_spilled(self) -> c.Iterator[int]:
        """The records of envelopes that are in the spool now."""
        while self._spilling and self._spilling[0].done:
            writing = self._spilling.popleft()
            envelope = writing.envelope
            self._spilled += 1

            if writing.rows:
                yield envelope.records
            else:
                # Its request was stopped before it could write.
                self._append((envelope, envelope.records, envelope.records, None))

        self._done.notify_all()

    def _take(self) -> None:
        self._drained_last = False
        self._booked = False
        taken = 0

        while self._queue and taken < MAX_RECORDS and _is_written(self._queue[0]):
            queued = self._queue.popleft()
            _, _, weight, _ = queued
            self._building.append(queued)
            taken += weight

        self._queued -= taken
        self._first = time.monotonic()

    def _build(self) -> None:
        with self._delivery.ledger.transfer():
            with self._lock:
                records = sum(records for _, records, _, _ in self._building)
                self._booked = True

            self._delivery.ledger.record(records)

        packed = self._packed(list(self._building))
        stored = [some for some in packed if some[0]]
        plain = [some for some in packed if not some[0]]
        built = batches(message for _, messages, _ in plain for message in messages)

        with self._delivery.ledger.transfer():
            if stored:
                built += self._delivery.unpack(stored)

            with self._lock:
                # The end of the process didn't wait for it.
                if not self._building:
                    return

                self._building = []
                too_many = self._sort(built)
                self._storing += bool(too_many)

            for _, _, dropped in plain:
                self._delivery.count_dropped(dropped)

            told = self._keep(too_many)

        self._delivery.tell(told)

    def _keep(self, too_many: list[Batch], reason: str = FULL) -> list[Dropped]:
        """Put into the spool what :meth:`_sort` had no room for."""
        if not too_many:
            return []

        try:
            return [
                told
                for batch in too_many
                for told in self._delivery.keep(batch, reason)
            ]
        finally:
            with self._lock:
                self._storing -= 1
                self._stored += 1
                self._done.notify_all()

    def _packed(self, queued: list[Queued]) -> list[Packed]:
        packed = []
        until = time.perf_counter() + SLICE

        for kept, _, _, writing in queued:
            packed.append((_row(writing), *self._delivery.pack(_opened(kept))))

            # Without this a request that wants the interpreter waits for the 5 ms
            # after which Python takes it away from a thread.
            if time.perf_counter() > until:
                time.sleep(0)
                until = time.perf_counter() + SLICE

        return packed

    def _sort(
        self, built: list[Batch], drained_for: c.Container[str] | None = None
    ) -> list[Batch]:
        """Give batches to their lanes; those for which there is no room.

        :param drained_for: they come from the spool, so that they are before what is
            there, and are for these endpoints.
        """
        now = time.monotonic()
        too_many = []

        for batch in built:
            lane = self._lanes[batch.endpoint]
            waits = (
                lane.overflows
                if drained_for is None
                else batch.endpoint not in drained_for
            )

            if waits or (
                len(lane.batches) >= self._lane_room
                and not lane.moves(now)
                and not lane.joins(batch)
            ):
                lane.overflows = self._spool is not None
                too_many.append(batch)
            else:
                lane.put(batch, now)

        self._news.notify_all()
        self._done.notify_all()
        return too_many

    def _drain(self, stored: int, endpoints: set[str]) -> None:
        drained = self._delivery.drain(MAX_RECORDS, endpoints)

        with self._lock:
            self._draining = False
            self._drained_last = True
            closed = self._closed
            left = drained if closed else self._sort(drained, endpoints)
            self._storing += bool(left)

        # There was no room, or the end of the process didn't wait for it.
        self._keep(left, AT_EXIT if closed else FULL)

        with self._lock:
            self._look_again(stored, drained, endpoints)

    def _look_again(
        self, stored: int, drained: list[Batch], endpoints: set[str]
    ) -> None:
        if drained:
            return

        self._look_at = time.monotonic() + SPOOL_POLL_INTERVAL
        nothing_came = not (self._storing or self._spilling) and (
            self._stored + self._spilled == stored
        )

        for name in endpoints if nothing_came else ():
            self._lanes[name].overflows = False

        if nothing_came and not self._queue:
            self._overflows = False
        elif self._overflows:
            self._look_at = 0.0

    def _send(self, lane: Lane, batch: Batch) -> None:
        verdict = self._delivery.ask(batch, self._patience())

        with self._delivery.ledger.transfer():
            with self._lock:
                lane.on_way -= 1
                lane.moved_at = time.monotonic()

                # The end of the process didn't wait for the answer.
                if batch not in self._in_hand:
                    return

                self._in_hand.remove(batch)
                self._settling += 1

            attempt = self._delivery.settle(batch, verdict)

            with self._lock:
                lane.batches.extendleft(reversed(attempt.again))
                self._react(lane, attempt)
                self._settling -= 1
                self._telling += 1

        self._delivery.tell(attempt.dropped)

        with self._lock:
            self._telling -= 1
            self._done.notify_all()

    def _patience(self) -> float:
        if self._deadline is None:
            return READ_TIMEOUT

        return max(self._deadline - time.monotonic(), 0.05)

    def _react(self, lane: Lane, attempt: Attempt) -> None:
        if attempt.failed:
            if not lane.failures:
                logger.warning("Mixpanel can't be reached: %s", attempt.reason)

            lane.pause(attempt, time.monotonic())
        elif lane.failures:
            logger.info("Mixpanel can be reached again.")
            lane.failures = 0
            self._look_at = 0.0

        self._news.notify_all()
        self._done.notify_all()

    # For those who wait.

    def _empty(self) -> bool:
        return not (
            self._queue
            or self._building
            or self._draining
            or self._overflows
            or any(lane.overflows for lane in self._lanes.values())
            or self._busy
            or next(self._batches(), None)
        )

    def flush(self, timeout: float) -> bool:
        """Send what waits at once; ``True`` if in the end nothing does."""
        self._keep_up()

        with self._lock:
            self._hurry()

            try:
                return self._done.wait_for(self._empty, timeout)
            finally:
                self._hurried -= 1

    def hurry(self) -> None:
        """Begin to deliver all that waits."""
        self._keep_up()

        with self._lock:
            self._set_deadline()

    def _set_deadline(self) -> float:
        if self._deadline is None:
            timeout = self._delivery.config.shutdown_timeout
            self._deadline = time.monotonic() + timeout
            self._hurry()

        return self._deadline

    def _hurry(self) -> None:
        self._hurried += 1

        for lane in self._lanes.values():
            lane.hurry()

        self._news.notify_all()

    def close(self) -> None:
        """Deliver within ``MENGPANEEL_SHUTDOWN_TIMEOUT``, and keep the rest."""
        with self._lock:
            if self._closing:
                return

            self._closing = True
            left = self._set_deadline() - time.monotonic()
            self._done.wait_for(self._over, max(left, 0.0))

        self._keep_rest()
        self._delivery.close()

    @property
    def _busy(self) -> bool:
        return bool(self._spilling) or (
            self._storing > 0 or self._settling > 0 or self._telling > 0
        )

    def _over(self) -> bool:
        if (
            self._queue
            or self._building
            or self._draining
            or self._in_hand
            or self._busy
        ):
            return False

        # What others left is sent as well. Short jobs have no other time for it.
        if self._workers and self._may_drain(time.monotonic()):
            return False

        # What has to pause until after the end isn't waited for.
        return not any(
            lane.batches and lane.not_before < t.cast(float, self._deadline)
            for lane in self._lanes.values()
        )

    def _keep_rest(self) -> None:
        delivery = self._delivery
        told: list[Dropped] = []

        with delivery.ledger.transfer():
            with self._lock:
                # What they don't settle comes back.
                self._done.wait_for(lambda: not self._settling, MAX_SETTLING)
                booked = len(self._building) if self._booked else 0
                records = sum(self._take_spilled())
                in_hand, waiting, queued = self._abandon()

            records += sum(records for _, records, _, _ in queued[booked:])
            delivery.ledger.record(records)

            for batch in in_hand:
                attempt = delivery.settle(batch, UNANSWERED)
                told += attempt.dropped
                waiting = attempt.again + waiting

            for batch in waiting:
                told += delivery.keep(batch, AT_EXIT)

            told += delivery.keep_envelopes(
                [(_opened(kept), _row(writing)) for kept, _, _, writing in queued],
                AT_EXIT,
            )

        delivery.tell(told)

    def _abandon(self) -> tuple[set[Batch], list[Batch], list[Queued]]:
        """Take everything away from the workers."""
        in_hand, self._in_hand = self._in_hand, set()
        waiting = [batch for lane in self._lanes.values() for batch in lane.batches]
        queued = [*self._building, *self._queue]

        for lane in self._lanes.values():
            lane.batches.clear()

        self._building = []
        self._queue.clear()
        self._queued = 0
        self._closed = True
        self._news.notify_all()

        return in_hand, waiting, queued


def _row(writing: Writing | None) -> int:
    """The row of an envelope in the spool, or 0."""
    return writing.rows[0] if writing is not None and writing.rows else 0


def _is_written(queued: Queued) -> bool:
    """Whether no request is writing it into the spool at the moment."""
    _, _, _, writing = queued
    return writing is None or writing.done


def _opened(kept: Envelope | bytes) -> Envelope:
    return Envelope.from_bytes(kept) if isinstance(kept, bytes) else kept


def make_transport(
    config: Config, delivery: Delivery, celery: c.Callable[[], Celery] | None = None
) -> Transport | None:
    """The background transport of an app; ``None`` if it delivers in the request.

    :param celery: gives the Celery app when it is needed, which is not yet now.
    """
    from ..config import TRANSPORTS

    kind = config.transport

    if isinstance(kind, Transport):
        return kind

    if kind not in TRANSPORTS:
        kind = "inline" if config.serverless else "thread"

    if kind == "thread" and not process.threads_allowed():
        warnings.warn(
            "uWSGI runs without threads, so that events are delivered in the request."
            " Set 'enable-threads = true' in its configuration.",
            stacklevel=2,
        )
        return None

    if kind == "thread":
        return ThreadTransport(delivery)

    if kind == "celery" and celery is not None:
        from .celery import CeleryTransport

        return CeleryTransport(delivery, celery)

    return None
