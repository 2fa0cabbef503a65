"""What the workers do: each step moves some records from one place to the next."""

from __future__ import annotations

import collections.abc as c
import functools
import threading
import time
import typing as t

from .. import process
from ..limits import MAX_RECORDS
from .batches import Batch, pack
from .delivery import REQUEST_TIMEOUT, SPOOL_POLL_INTERVAL
from .places import State
from .queue import row_of, unserialized

if t.TYPE_CHECKING:
    from ..envelope import Message
    from .delivery import Delivery
    from .endpoints import EndpointQueue
    from .failures import Dropped
    from .places import Places
    from .queue import QueuedEnvelope

#: Seconds for which a worker computes before it lets others.
COMPUTE_SLICE = 0.001
#: Seconds that a request has at least when the process ends.
MIN_LAST_TIMEOUT = 0.05
#: Seconds without anything to do after which a worker ends: an app that is gone would
#: keep it for good. With a spool there is always something: to poll it.
IDLE_TIMEOUT = 30.0

AT_EXIT = "the process ended"
AFTER_JOB = "a job ended"
FULL = "the queue was full"

Step = c.Callable[[], None]
#: The row of an envelope, its messages, and what isn't sent of it.
Translated = tuple[int, "list[Message]", dict[str, int]]


class Monitor:
    """The lock of all places, and what is told to those who wait for it."""

    def __init__(self) -> None:
        self.threads = process.ThreadKind()
        # One that its thread may take again: the handler of a signal may track.
        self.lock: t.Any = threading.RLock()
        #: For workers.
        self.work_available = threading.Condition(self.lock)
        #: For those who wait until something is done.
        self.progress = threading.Condition(self.lock)

    def await_progress(self, condition: c.Callable[[], bool], timeout: float) -> bool:
        """Wait until something that is done makes a condition true. With the lock."""
        try:
            return self.progress.wait_for(condition, timeout)
        except BaseException:
            # It may come when the lock is given away, not where it is taken back.
            if not self.lock._is_owned():
                self.lock.acquire()

            raise

    def notify(self) -> None:
        """Wake all: something is done, and there may be something else to do."""
        self.work_available.notify_all()
        self.progress.notify_all()


class Pipeline:
    """Chooses and does the next step."""

    def __init__(self, places: Places, delivery: Delivery) -> None:
        self.places = places
        self.monitor = Monitor()
        #: When this process ends, if it does.
        self.deadline: float | None = None
        self.is_closed = False
        #: Those that want everything sent without waiting for company.
        self.expediting: set[object] = set()
        self._leased_last = False
        self._delivery = delivery
        self._ledger = delivery.ledger
        self._has_spool = delivery.spool is not None

    def renew_monitor(self) -> None:
        """Replace the locks by those that are in force now."""
        self.monitor = Monitor()

    def expedite(self, who: object) -> None:
        """Send what waits at once; undone by ``expediting.discard(who)``."""
        self.expediting.add(who)
        self.places.endpoints.expedite()
        self.monitor.work_available.notify_all()

    def poll_spool(self) -> None:
        """Ask the spool at once for what is due in it."""
        with self.monitor.lock:
            # Else a worker that is reading it just now would say that nothing is there.
            self.places.overflow.arrivals += 1
            self.places.endpoints.poll_at(0.0)
            self.monitor.work_available.notify()

    # The choice.

    def next_step(self, now: float) -> Step | None:
        """Return what a worker is to do now. With the lock, as all of this part."""
        places = self.places

        for endpoint in places.endpoints:
            if batch := endpoint.next_batch(now):
                return functools.partial(self._send, endpoint, batch)

        if places.overflow.is_takable:
            return self._record_overflow

        # One after the other, in order.
        if places.building or places.workers_in[State.LEASING]:
            return None

        if self.may_lease(now):
            places.workers_in[State.LEASING] += 1
            return functools.partial(
                self._lease, places.overflow.arrivals, places.endpoints.may_lease(now)
            )

        if (
            places.queue.is_takable
            and self.is_due(now)
            and places.endpoints.want_more(now)
        ):
            self._leased_last = False
            places.take_for_building()
            return functools.partial(self._build, places.building)

        return None

    def may_lease(self, now: float) -> bool:
        """Whether something is to be taken from the spool."""
        endpoints = self.places.endpoints

        if not self._has_spool or not endpoints.may_lease(now):
            return False

        # At the end what this process has itself goes first: then it is known, too,
        # that Mixpanel takes something.
        if self.deadline is not None:
            return now < self.deadline and not (
                self.places.queue.envelopes or endpoints.in_flight or endpoints.built
            )

        # What is in the queue is older if it overflows; else take turns.
        return not self.places.queue.envelopes or not (
            self.places.overflow.is_active or self._leased_last
        )

    def is_due(self, now: float) -> bool:
        """Whether the queue has waited for company long enough."""
        return bool(self.expediting) or self.places.queue.is_due(now)

    def wait(self, now: float) -> bool:
        """Wait for something to do; ``False`` if nothing has come for long."""
        queue = self.places.queue
        waiting = [one for one in self.places.endpoints if one.batches]
        moments = [endpoint.not_before for endpoint in waiting]
        moments += [
            endpoint.stalls_at
            for endpoint in self.places.endpoints
            if endpoint.is_full or endpoint.has_leased_enough
        ]
        queue.wake_at = 1

        if queue.envelopes:
            moments.append(queue.lingers_until)
            queue.wake_at = MAX_RECORDS

        if self._has_spool:
            moments += [endpoint.next_poll for endpoint in self.places.endpoints]

        until = min((moment for moment in moments if moment > now), default=None)

        if until is None:
            return self.monitor.work_available.wait(IDLE_TIMEOUT)

        self.monitor.work_available.wait(until - now)
        return True

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left to do: what :meth:`Transport.flush` waits for."""
        return not self.places.occupied() and not self.places.overflow_is_active

    # OVERFLOWING -> the spool.

    def _record_overflow(self) -> None:
        with self._ledger.transfer():
            with self.monitor.lock:
                records = self.take_overflow()

            self._ledger.record(records)

    def take_overflow(self) -> int:
        """Return how many records of the overflow are in the spool now."""
        records = 0

        for write in self.places.overflow.take():
            if write.rows:
                records += write.envelope.records
            else:
                # Its request was stopped before it could write.
                envelope = write.envelope
                self.append((envelope, envelope.records, envelope.records, None))

        self.monitor.progress.notify_all()
        return records

    def append(self, envelope: QueuedEnvelope) -> None:
        """Append an envelope to the queue. With the lock."""
        self.before_append(envelope[2])
        self.places.queue.envelopes.append(envelope)

    def before_append(self, weight: int) -> None:
        """Get ready for an envelope. With the lock, and until it is in the queue."""
        queue = self.places.queue

        if queue.before_append(weight):
            # All: an exception from outside may have stopped the first the last time.
            self.monitor.work_available.notify_all()
            queue.wake_at = float("inf")

    # BUILDING -> BUILT, or STORING.

    def _build(self, building: list[QueuedEnvelope]) -> None:
        places = self.places

        with self._ledger.transfer():
            with self.monitor.lock:
                records = places.count_building(building)

            self._ledger.record(records)

        translated = self._translate(building)
        stored = [one for one in translated if one[0]]
        plain = [one for one in translated if not one[0]]
        built = pack(message for _, messages, _ in plain for message in messages)

        with self._ledger.transfer():
            if stored:
                built += self._delivery.unpack(stored)

            with self.monitor.lock:
                # The end of the process, or of a job, has it: there may be others now.
                if places.building is not building:
                    return

                places.building = []
                too_many = self._put(built)

            for _, _, dropped in plain:
                self._delivery.count_dropped(dropped)

            reported = self._store(too_many, FULL)

        self._delivery.report_drops(reported)

    def _translate(self, envelopes: list[QueuedEnvelope]) -> list[Translated]:
        translated = []
        until = time.perf_counter() + COMPUTE_SLICE

        for envelope, _, _, write in envelopes:
            messages = self._delivery.translate(unserialized(envelope))
            translated.append((row_of(write), *messages))

            # Without this a request that wants the interpreter waits for the 5 ms
            # after which Python takes it away from a thread.
            if time.perf_counter() > until:
                time.sleep(0)
                until = time.perf_counter() + COMPUTE_SLICE

        return translated

    def _put(
        self, built: list[Batch], leased_for: c.Container[str] | None = None
    ) -> list[Batch]:
        too_many = self.places.endpoints.put(built, leased_for)
        self.places.workers_in[State.STORING] += bool(too_many)
        self.monitor.notify()
        return too_many

    def _store(self, too_many: list[Batch], reason: str) -> list[Dropped]:
        """STORING -> the spool, or dropped."""
        if not too_many:
            return []

        try:
            return [
                dropped
                for batch in too_many
                for dropped in self._delivery.spool_batch(batch, reason)
            ]
        finally:
            with self.monitor.lock:
                self.places.workers_in[State.STORING] -= 1
                self.places.overflow.arrivals += 1
                self.monitor.progress.notify_all()

    # The spool -> BUILT, or back.

    def _lease(self, arrivals: int, endpoints: set[str]) -> None:
        places = self.places

        with self.monitor.lock:
            in_flight = places.leased_rows()

        leased: list[Batch] = []

        try:
            leased = self._delivery.lease_batches(MAX_RECORDS, endpoints, in_flight)
        finally:
            with self.monitor.lock:
                places.workers_in[State.LEASING] -= 1
                self._leased_last = True
                too_many = self._put_leased(leased, endpoints)

        self._store(too_many, AT_EXIT if self.is_closed else FULL)

        if not leased:
            with self.monitor.lock:
                self._found_nothing(arrivals, endpoints)

    def _put_leased(self, leased: list[Batch], endpoints: set[str]) -> list[Batch]:
        if not self.is_closed:
            return self._put(leased, endpoints)

        # The end of the process didn't wait for it.
        self.places.workers_in[State.STORING] += bool(leased)
        return leased

    def _found_nothing(self, arrivals: int, endpoints: set[str]) -> None:
        """Poll the spool later, and let nothing go through it any more, unless
        something has come into it meanwhile."""
        overflow = self.places.overflow
        self.places.endpoints.poll_at(time.monotonic() + SPOOL_POLL_INTERVAL, endpoints)
        has_come = overflow.arrivals != arrivals
        comes = overflow.writes or self.places.workers_in[State.STORING]

        for name in () if has_come or comes else endpoints:
            self.places.endpoints.by_name[name].overflows = False

        if not (has_come or comes or self.places.queue.envelopes):
            overflow.is_active = False
        elif overflow.is_active or has_come:
            self.places.endpoints.poll_at(0.0)

        self.monitor.progress.notify_all()

    # IN_FLIGHT -> ANSWERED -> delivered, dropped (REPORTING), or BUILT again.

    def _send(self, endpoint: EndpointQueue, batch: Batch) -> None:
        places = self.places
        answer = self._delivery.send(batch, self._request_timeout())

        with self._ledger.transfer():
            with self.monitor.lock:
                # The end of the process or of a job didn't wait for the answer.
                if not endpoint.answered(batch, time.monotonic()):
                    return

                places.answered.add(batch)

            attempt = self._delivery.apply_answer(batch, answer)

            with self.monitor.lock:
                places.answered.remove(batch)
                places.workers_in[State.REPORTING] += 1

                if endpoint.apply(attempt):
                    places.endpoints.poll_at(0.0)

                self.monitor.notify()

        self._delivery.report_drops(attempt.dropped)

        with self.monitor.lock:
            places.workers_in[State.REPORTING] -= 1
            self.monitor.progress.notify_all()

    def _request_timeout(self) -> float:
        if self.deadline is None:
            return REQUEST_TIMEOUT

        return max(self.deadline - time.monotonic(), MIN_LAST_TIMEOUT)
