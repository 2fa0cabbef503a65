"""Delivery at once, by the caller: in the request, in a task, by a command."""

from __future__ import annotations

import collections
import collections.abc as c
import functools
import logging
import threading
import time
import typing as t

from .. import process, server
from ..envelope import Envelope
from ..limits import MAX_RECORDS
from ..transport import Transport
from .answers import Answer, Meaning, backoff
from .batches import Batch, pack
from .delivery import REQUEST_TIMEOUT, SPOOL_POLL_INTERVAL, Attempt, Delivery
from .http import PATHS

if t.TYPE_CHECKING:
    from .failures import Dropped
    from .ledger import Balance

logger = logging.getLogger("flask_mengpaneel")

#: Seconds that one endpoint isn't made to leave to the others, where little is left.
MIN_SHARE = 1.0


class Sender:
    """Sends batches one after the other in the calling thread, until a deadline.

    What it is in the middle of is a source of the ledger: deferred envelopes, and the
    batches that are tracked as in flight.
    """

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery
        self._reset()
        delivery.ledger.add_source(self._count)
        process.on_fork(self)

    def _reset(self) -> None:
        self._deferred: dict[int, Envelope] = {}
        self._in_flight: set[Batch] = set()
        self._next_poll = 0.0

    def after_fork(self) -> None:
        """Start anew in a child process: what waits is the parent's to deliver."""
        self._reset()

    def _count(self, balance: Balance) -> None:
        balance.waiting += sum(e.records for e in list(self._deferred.values()))
        balance.waiting += sum(b.records for b in list(self._in_flight) if not b.rows)

    # Envelopes.

    def defer(self, envelope: Envelope) -> c.Callable[[], None]:
        """Count an envelope as recorded; calling the result delivers it."""
        self.delivery.ledger.record(envelope.records)
        self._deferred[id(envelope)] = envelope

        return functools.partial(self._deliver, envelope)

    def _deliver(self, envelope: Envelope) -> None:
        pending: collections.deque[Batch] = collections.deque()

        try:
            self._deliver_now(envelope, pending)
        except BaseException:
            # From outside, such as a time limit.
            self._spool_interrupted(envelope, pending)
            raise

    def _deliver_now(
        self, envelope: Envelope, pending: collections.deque[Batch]
    ) -> None:
        delivery = self.delivery
        deadline = time.monotonic() + delivery.config.timeout
        messages, dropped = delivery.translate(envelope)
        pending.extend(pack(messages))

        with delivery.ledger.transfer():
            del self._deferred[id(envelope)]
            delivery.count_dropped(dropped)
            self.track_in_flight(pending)

        failed = self.send(pending, deadline)

        with delivery.ledger.transfer():
            self.untrack(pending)
            reported = [
                one
                for batch in pending
                for one in delivery.spool_batch(batch, failed.reason)
            ]

        delivery.report_drops(reported)

        # Where no thread does it, requests send what waits from before.
        if not pending and time.monotonic() >= self._next_poll:
            self._next_poll = time.monotonic() + SPOOL_POLL_INTERVAL
            self._send_spooled(deadline, MAX_RECORDS)

    def _spool_interrupted(
        self, envelope: Envelope, pending: collections.deque[Batch]
    ) -> None:
        """Spool what was being delivered: its request goes on with something else."""
        reason = "its delivery was interrupted"
        delivery = self.delivery
        dropped: list[Dropped] = []

        with delivery.ledger.transfer():
            if self._deferred.pop(id(envelope), None) is not None:
                dropped += delivery.spool_envelopes([(envelope, 0)], reason)
            elif pending:
                sent = pending.popleft()
                answer = Answer(Meaning.AMBIGUOUS, reason)
                attempt = delivery.apply_answer(sent, answer)
                self.untrack([sent, *pending])
                dropped += attempt.dropped

                for batch in [*attempt.again, *pending]:
                    dropped += delivery.spool_batch(batch, reason)

        delivery.report_drops(dropped)

    # Batches.

    def track_in_flight(self, batches: c.Iterable[Batch]) -> None:
        """Count batches as being sent, until :meth:`send` has an answer to them."""
        self._in_flight.update(batches)

    def untrack(self, batches: c.Iterable[Batch]) -> None:
        """Leave the counting of batches to others."""
        self._in_flight.difference_update(batches)

    def send(
        self,
        pending: collections.deque[Batch],
        deadline: float,
        *,
        retry: bool = True,
    ) -> Attempt:
        """Send batches one after the other until the deadline.

        No endpoint waits for another that fails, pauses or is slow.

        :param pending: what couldn't be sent is left in there.
        :param retry: try again after a failure.
        :return: the last attempt that failed.
        """
        failures: collections.Counter[str] = collections.Counter()
        not_before: dict[str, float] = {}
        failed = Attempt(reason="no time was left")

        while (left := deadline - time.monotonic()) > 0:
            names = dict.fromkeys(batch.endpoint for batch in pending)
            name = min(names, key=lambda name: not_before.get(name, 0.0), default="")
            moment = not_before.get(name, 0.0)

            if not names or moment >= deadline:
                break

            if (pause := moment - time.monotonic()) > 0:
                time.sleep(pause)
                continue

            batch = next(batch for batch in pending if batch.endpoint == name)
            share = max(left / len(names), MIN_SHARE)
            attempt = self._send_first(pending, batch, min(left, share))

            if attempt.failed:
                failed = attempt
                pause = backoff(failures[name], attempt.retry_after)
                failures[name] += 1
                not_before[name] = time.monotonic() + pause if retry else deadline

        return failed

    def _send_first(
        self, pending: collections.deque[Batch], batch: Batch, timeout: float
    ) -> Attempt:
        delivery = self.delivery
        answer = delivery.send(batch, min(timeout, REQUEST_TIMEOUT))

        with delivery.ledger.transfer():
            attempt = delivery.apply_answer(batch, answer)
            pending.remove(batch)
            pending.extendleft(reversed(attempt.again))
            self.untrack([batch])
            self.track_in_flight(attempt.again)

        delivery.report_drops(attempt.dropped)
        return attempt

    # The spool.

    def send_spooled(self, deadline: float) -> int:
        """Send what waits in the spool; return how many records were delivered."""
        ledger = self.delivery.ledger
        before = ledger.forwarded
        self._send_spooled(deadline)

        return ledger.forwarded - before

    def _send_spooled(self, deadline: float, limit: float = float("inf")) -> None:
        """Send what waits in the spool, at most about that many messages."""
        endpoints = set(PATHS)

        while endpoints and limit > 0 and time.monotonic() < deadline:
            leased = self.delivery.lease_batches(
                int(min(limit, MAX_RECORDS)), endpoints
            )

            if not leased:
                break

            pending = collections.deque(b for b in leased if b.endpoint in endpoints)
            others = [b for b in leased if b.endpoint not in endpoints]
            limit -= sum(len(batch.messages) for batch in pending)
            failed = self.send(pending, deadline)

            for batch in (*pending, *others):
                self.delivery.spool_batch(batch, failed.reason)

            for batch in pending:
                # The others aren't to wait behind it.
                endpoints.discard(batch.endpoint)
                limit += len(batch.messages)


class InlineTransport(Transport):
    """Delivers each envelope at once, within ``MENGPANEEL_TIMEOUT``.

    On Vercel it does so when the response has left, where that is offered.
    """

    reports_delivery = True

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery
        self.sender = Sender(delivery)
        #: Threads that deliver, and what the handlers of their signals add to it.
        self._delivering: dict[int, list[c.Callable[[], None]]] = {}

    def send(self, envelope: Envelope) -> bool:
        """Deliver the envelope; spool or report what can't be delivered in time."""
        process.on_exit(self)
        deliver = self.sender.defer(envelope)

        if not server.after_response(deliver):
            try:
                self._deliver(deliver)
            except Exception:
                # From outside, such as a time limit. Nobody else may send it now.
                logger.warning(
                    "Something came in the way of a delivery.", exc_info=True
                )

        return True

    def _deliver(self, deliver: c.Callable[[], None]) -> None:
        thread = threading.get_ident()

        # The connection that is in use in this thread has locks of its own.
        if thread in self._delivering:
            self._delivering[thread].append(deliver)
            return

        added = self._delivering[thread] = []

        try:
            deliver()

            while added:
                added.pop(0)()
        finally:
            self._delivering.pop(thread, None)

    def begin_shutdown(self) -> None:
        """Begin to finish: :meth:`close` comes next."""

    def close(self) -> None:
        """Finish: the process ends."""
        # A background transport does it when it has nothing left.
        if not self.delivery.in_background:
            self.delivery.close()
