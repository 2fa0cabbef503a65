"""Delivery in the background, by threads of this process: the theory of operation.

A request hands its envelope over by one step that nothing can interrupt: it appends it
to a queue, where it counts as recorded and as waiting. A worker is woken before that.
All the rest may happen later or not at all, so that the ledger is right whatever
exception arrives from outside, a time limit for example, and so that the handler of a
signal may track while its thread is in the middle of a hand-over. A worker, where no
such exception arrives, enters into the ledger what it takes.

A record is in one state at a time (:class:`~.places.State`):

=========== ======================= ==================== ==============================
state       where                   counts as            who moves it on
=========== ======================= ==================== ==============================
QUEUED      ``queue.envelopes``     recorded, waiting    a worker: BUILDING
OVERFLOWING ``overflow.writes``     recorded, waiting    its request writes it; then a
                                                         worker: in the spool; QUEUED
BUILDING    ``building``            recorded till the    the worker: BUILT; STORING;
                                    ledger has it;       not sent
                                    waiting
BUILT       ``endpoints.built``     waiting              a worker: IN_FLIGHT
IN_FLIGHT   ``endpoints.in_flight`` waiting              the worker: ANSWERED
ANSWERED    ``answered``            (in a transfer)      the worker: delivered; BUILT
                                                         again; dropped: REPORTING
STORING     (the worker's)          (in a transfer)      the worker: in the spool;
                                                         dropped
LEASING     the spool               as the spool says    the worker: BUILT; back
REPORTING   (the worker's)          dropped              the worker: the end
=========== ======================= ==================== ==============================

* What has a row in the spool, the spool counts, wherever else it is.
* The ledger isn't read in the middle of a transfer.
* :meth:`ThreadTransport.flush` waits until no state has anything, nothing has to go
  through the spool (``Pipeline.is_empty``), and the spool has nothing when it is asked.
* The end of the process waits until nothing is left but BUILT batches whose pause is
  longer than the time that is left (``ThreadTransport._is_over``); the rest goes into
  the spool, or is dropped.

``Places`` has what is in each state, ``Pipeline`` moves it, ``Workers`` are the threads
that let it, and ``ThreadTransport`` is what requests and the process see.
"""

from __future__ import annotations

import logging
import os
import time
import typing as t

from .. import process, server
from ..limits import MAX_RECORDS
from .batches import wrap
from .delivery import Delivery
from .final_spooling import spool_rest
from .pipeline import AFTER_JOB, AT_EXIT, FULL, Pipeline
from .places import Places, State
from .queue import MAX_AS_OBJECTS, SpoolWrite, weight_of
from .spooling import SpoolingTransport
from .workers import Workers

if t.TYPE_CHECKING:
    from ..envelope import Envelope
    from .ledger import Balance

logger = logging.getLogger("flask_mengpaneel")

#: Records that may wait in memory, or KB: fewer if there is a spool to take the rest,
#: and of these a fifth while Mixpanel is in trouble.
MAX_WAITING = 100_000
MAX_WAITING_WITH_SPOOL = 50_000
#: Seconds that a request waits for the spool.
SPOOL_TIMEOUT = 0.1


class ThreadTransport(SpoolingTransport):
    """Delivers envelopes in the background, by threads of this process."""

    reports_delivery = True

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery
        self._ledger = delivery.ledger
        self._spool = delivery.spool
        self._durable = self._spool is not None and (
            delivery.config.durable or server.may_be_killed()
        )
        delivery.in_background = True
        self._reset()
        delivery.ledger.add_source(self._count)
        process.on_fork(self)

    def _reset(self) -> None:
        has_spool = self._spool is not None
        self._places = Places(
            MAX_WAITING_WITH_SPOOL if has_spool else MAX_WAITING,
            0 if has_spool else MAX_WAITING // MAX_RECORDS,
            has_spool=has_spool,
        )
        self._pipeline = Pipeline(self._places, self._delivery)
        self._workers = Workers(self._pipeline)
        self._is_closing = False

    def after_fork(self) -> None:
        """Start anew in a child process, without threads and with nothing to send."""
        self._reset()

    def _notice_changes(self) -> None:
        """Notice a fork that Python wasn't told of, and green threads that took the
        place of others when the app was made already."""
        if process.pid != os.getpid():
            process.after_fork()

        if not self._pipeline.monitor.threads.is_current:
            self._replace_workers()

    def _replace_workers(self) -> None:
        monitor = self._pipeline.monitor
        self._workers.await_steps()

        with monitor.lock:
            if self._pipeline.monitor.threads.is_current:
                return

            had_workers = bool(self._workers.threads)
            # Those of the other kind end when they notice. They aren't woken, as
            # eventlet replaces a lock, but not what a condition knows of it.
            self._pipeline.renew_monitor()
            self._workers = Workers(self._pipeline)

        if had_workers and not self._pipeline.is_closed:
            with self._pipeline.monitor.lock:
                self._workers.ensure(self)

    def _count(self, balance: Balance) -> None:
        with self._pipeline.monitor.lock:
            self._places.count(balance)

    # In the request.

    def send(self, envelope: Envelope) -> bool:
        """Take an envelope, if there is room for it."""
        self._notice_changes()
        queue = self._places.queue
        waiting = queue.envelopes
        content = envelope if len(waiting) < MAX_AS_OBJECTS else envelope.to_bytes()
        weight = weight_of(envelope)
        write = None
        taken = False

        try:
            with self._pipeline.monitor.lock:
                if not self._is_ready():
                    return False

                fits = self._has_room_for(weight)

                if self._spool is not None and (self._durable or not fits):
                    write = SpoolWrite(envelope)

                if fits:
                    self._pipeline.before_append(weight)
                    queued = (content, envelope.records, weight, write)
                    # Nothing can come between these two.
                    taken = True
                    waiting.append(queued)
                elif write is not None:
                    writes = self._places.overflow.writes
                    self._places.overflow.is_active = True
                    self._places.endpoints.poll_at(0.0)
                    taken = True
                    writes.append(write)

                is_behind = self._is_behind()

            if write is not None:
                self._write(write, fits)

            if not fits and not self._overflow(write, content, weight):
                return self._drop(envelope)
        except BaseException as error:
            if write is not None:
                write.done = True

                with self._pipeline.monitor.lock:
                    self._pipeline.monitor.work_available.notify_all()

            if not taken or not isinstance(error, Exception):
                raise

            # From outside, such as a time limit. Nobody else may send it now.
            logger.warning("Something came in the way of a hand-over.", exc_info=True)
            return True

        if is_behind:
            # A loop that tracks leaves the workers no time: here is some.
            time.sleep(0)

        return True

    def _is_ready(self) -> bool:
        # Where there is no worker at the end, the thread that closes this stands in.
        return self._pipeline.deadline is None and (
            self._workers.ensure(self) or process.is_ending()
        )

    def _has_room_for(self, weight: int) -> bool:
        return not self._places.overflow.is_active and self._places.queue.has_room_for(
            weight, prefers_spool=self._prefers_spool
        )

    def _prefers_spool(self) -> bool:
        return self._spool is not None and self._places.endpoints.all_fail

    def _is_behind(self) -> bool:
        queue = self._places.queue
        return 2 * queue.weight > queue.capacity and self._places.endpoints.want_more(
            time.monotonic()
        )

    def _write(self, write: SpoolWrite, fits: bool) -> None:
        """Write an envelope into the spool."""
        assert self._spool is not None

        try:
            self._spool.put(
                [wrap(write.envelope)],
                "being sent" if fits else FULL,
                leased=fits,
                timeout=SPOOL_TIMEOUT,
                rows=write.rows,
            )
        finally:
            write.done = True

        with self._pipeline.monitor.lock:
            if not fits or self._pipeline.is_due(time.monotonic()):
                self._pipeline.monitor.work_available.notify_all()

    def _overflow(
        self, write: SpoolWrite | None, content: Envelope | bytes, weight: int
    ) -> bool:
        """Whether an envelope that the queue has no room for is in the spool, or queued
        after all: a disk that takes nothing is no reason to send nothing."""
        if write is None or write.rows:
            return write is not None

        with self._pipeline.monitor.lock:
            if self._places.overflow.withdraw(write):
                queue = self._places.queue

                if queue.weight + weight > queue.capacity:
                    return False

                self._pipeline.append((content, write.envelope.records, weight, None))

        return True

    def _drop(self, envelope: Envelope) -> bool:
        """Drop an envelope if others would try in vain to send it; ``False`` if not."""
        with self._pipeline.monitor.lock:
            if not self._places.endpoints.all_fail:
                return False

        with self._ledger.transfer():
            self._ledger.record(envelope.records)
            dropped = self._delivery.drop_envelopes([envelope], FULL)

        self._delivery.report_drops(dropped)
        return True

    def resume_spooled(self) -> None:
        """Send what other processes left in the spool, if they did."""
        if self._spool is not None and self._spool.exists():
            self._notice_changes()

            with self._pipeline.monitor.lock:
                if self._pipeline.deadline is None:
                    self._workers.ensure(self)

    def poll_spool(self) -> None:
        """Send at once what has become due in the spool."""
        self._pipeline.poll_spool()
        self.resume_spooled()

    # For those who wait.

    def flush(self, timeout: float) -> bool:
        """Send what waits at once; ``True`` if in the end nothing does."""
        self._notice_changes()
        pipeline = self._pipeline
        who = object()

        try:
            with pipeline.monitor.lock:
                pipeline.expedite(who)
                return pipeline.monitor.await_progress(self._is_flushed, timeout)
        finally:
            pipeline.expediting.discard(who)

    def _is_flushed(self) -> bool:
        return self._pipeline.is_empty and not self._is_leasing

    @property
    def _is_leasing(self) -> bool:
        """Whether a worker is about to send what others left in the spool."""
        return bool(self._workers.threads) and self._pipeline.may_lease(
            time.monotonic()
        )

    def deliver_or_spool(self) -> None:
        """Deliver within ``MENGPANEEL_SHUTDOWN_TIMEOUT``, spool the rest, and go on."""
        is_delivered = False

        try:
            is_delivered = self.flush(self._delivery.config.shutdown_timeout)
        finally:
            if self._spool is not None and not is_delivered:
                spool_rest(self._pipeline, self._delivery, AFTER_JOB)

        if self._spool is None and not is_delivered:
            logger.warning("What a job has tracked is not sent, and there is no spool.")

    def begin_shutdown(self) -> None:
        """Begin to deliver all that waits."""
        self._notice_changes()

        with self._pipeline.monitor.lock:
            self._set_deadline()

    def _set_deadline(self) -> float:
        pipeline = self._pipeline

        if pipeline.deadline is None:
            timeout = self._delivery.config.shutdown_timeout
            pipeline.expedite(self)
            pipeline.deadline = time.monotonic() + timeout

        return pipeline.deadline

    def close(self) -> None:
        """Deliver within ``MENGPANEEL_SHUTDOWN_TIMEOUT``, and spool the rest."""
        with self._pipeline.monitor.lock:
            if self._is_closing:
                return

            self._is_closing = True
            deadline = self._set_deadline()

            if is_worked_on := self._is_over() or self._workers.ensure(self):
                left = max(deadline - time.monotonic(), 0.0)
                self._pipeline.monitor.await_progress(self._is_over, left)

        if not is_worked_on:
            self._workers.stand_in(self._is_over, deadline)

        spool_rest(self._pipeline, self._delivery, AT_EXIT, closes=True)
        self._delivery.close()

    def _is_over(self) -> bool:
        if self._places.occupied() - {State.BUILT}:
            return False

        # What others left is sent as well. Short jobs have no other time for it.
        if self._is_leasing:
            return False

        # What has to pause until after the end isn't waited for.
        deadline = t.cast(float, self._pipeline.deadline)
        return not any(
            endpoint.batches and endpoint.not_before < deadline
            for endpoint in self._places.endpoints
        )
