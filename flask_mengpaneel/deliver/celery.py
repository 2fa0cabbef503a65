"""Delivery by Celery's workers, for sites of more than one machine."""

from __future__ import annotations

import collections
import collections.abc as c
import dataclasses
import logging
import threading
import time
import typing as t

from celery import shared_task
from flask import current_app

from .. import process
from ..envelope import Envelope, Message
from ..transport import Transport
from .delivery import (
    READ_TIMEOUT,
    Batch,
    Delivery,
    Kind,
    Verdict,
    backoff,
    batches,
    wrap,
)
from .thread import MAX_PATIENCE, ThreadTransport

if t.TYPE_CHECKING:
    from celery import Celery, Task

logger = logging.getLogger("flask_mengpaneel")

TASK = "flask_mengpaneel.deliver"
#: Seconds that a request waits for the broker, to connect and for an answer each.
PATIENCE = 0.08
#: Seconds for which a broker that failed isn't asked again.
BREAK = 5.0

REDELIVERED = Verdict(Kind.AMBIGUOUS, "the worker that had it died")
UNCLEAR = Verdict(Kind.AMBIGUOUS, "the broker didn't answer")


@shared_task(  # type: ignore[untyped-decorator]
    bind=True,
    name=TASK,
    acks_late=True,
    reject_on_worker_lost=True,
    max_retries=None,
    ignore_result=True,
)
def deliver(
    self: Task, envelope: dict[str, t.Any] | None, messages: list[list[t.Any]]
) -> None:
    """Deliver an envelope to Mixpanel, in a worker.

    :param envelope: of a request, as JSON.
    :param messages: instead of it, what is left after an earlier try.
    """
    delivery: Delivery = current_app.extensions["mengpaneel"].delivery
    pending = _opened(delivery, envelope, messages)

    if (self.request.delivery_info or {}).get("redelivered"):
        _drop_unclear(delivery, pending)

    # One failure is enough: Celery keeps the rest until the next try.
    last = delivery.run(pending, time.monotonic() + READ_TIMEOUT, patient=False)

    if not pending:
        return

    left = [message for batch in pending for message in batch.messages]

    with delivery.ledger.transfer():
        delivery.let_go(pending)
        delivery.ledger.record(-sum(message.records for message in left))

    raise self.retry(
        args=(None, [dataclasses.astuple(message) for message in left]),
        argsrepr="(messages,)",
        countdown=backoff(self.request.retries, last.retry_after),
    )


def _opened(
    delivery: Delivery, envelope: dict[str, t.Any] | None, left: list[list[t.Any]]
) -> collections.deque[Batch]:
    dropped: dict[str, int] = {}
    messages = [Message(*message) for message in left]

    if envelope is not None:
        messages, dropped = delivery.pack(Envelope.from_json(envelope))

    pending = collections.deque(batches(messages))

    with delivery.ledger.transfer():
        delivery.ledger.record(
            sum(dropped.values()) + sum(batch.records for batch in pending)
        )
        delivery.count_dropped(dropped)
        delivery.hold(pending)

    return pending


def _drop_unclear(delivery: Delivery, pending: collections.deque[Batch]) -> None:
    for batch in list(pending):
        with delivery.ledger.transfer():
            attempt = delivery.settle(batch, REDELIVERED)
            delivery.let_go([pending.popleft()])
            delivery.hold(attempt.again)
            pending += attempt.again

        delivery.tell(attempt.dropped)


class CeleryTransport(Transport):
    """Gives each envelope to Celery's workers, by a task in its default queue.

    While the broker is down envelopes go to the spool, and from there to Mixpanel, by a
    thread of this process.
    """

    reports_delivery = True

    def __init__(self, delivery: Delivery, celery: c.Callable[[], Celery]) -> None:
        self._delivery = delivery
        self._celery = celery
        self._direct = ThreadTransport(delivery)
        self._reset()
        process.on_fork(self)

    def _reset(self) -> None:
        self._kind = threading.Lock
        self._lock = threading.Lock()
        self._producer: t.Any = None
        self._not_before = 0.0

    def after_fork(self) -> None:
        """Start anew in a child process; the connection is the parent's."""
        self._reset()

    def send(self, envelope: Envelope) -> bool:
        """Give an envelope to the broker; to the spool if that is down."""
        taken = self._publish(envelope)

        if taken:
            self._delivery.ledger.deliver(envelope.records)
            return True

        if taken is None:
            self._keep_repeatable(envelope)
            return True

        return self._keep(envelope)

    def resume_spooled(self) -> None:
        """Send what other processes left in the spool, if they did."""
        self._direct.resume_spooled()

    def flush(self, timeout: float) -> bool:
        """Send what waits in this process, as the broker was down."""
        return self._direct.flush(timeout)

    def hurry(self) -> None:
        """Begin to finish: the process ends."""
        self._direct.hurry()

    def close(self) -> None:
        """Finish: the process ends."""
        self._direct.close()

    def _publish(self, envelope: Envelope) -> bool | None:
        """Whether the broker took it; ``None`` if nobody knows."""
        # Green threads may take the place of others when the app was made already.
        if self._kind is not threading.Lock:
            self._reset()

        if time.monotonic() < self._not_before:
            return False

        if not self._lock.acquire(timeout=2 * PATIENCE):
            return False

        try:
            # Another request may have waited for the broker in the meantime.
            if time.monotonic() < self._not_before or not self._connected():
                return False

            self._celery().tasks[TASK].apply_async(
                args=(envelope.to_json(), []),
                # Else it is computed for each task, and put into the worker's log.
                argsrepr="(envelope,)",
                producer=self._producer,
                retry=False,
            )
        except Exception as error:
            self._fail(error)
            return None
        finally:
            self._lock.release()

        return True

    def _connected(self) -> bool:
        if self._producer is not None:
            return True

        try:
            self._producer = _producer(self._celery())
        except Exception as error:
            self._fail(error)

        return self._producer is not None

    def _fail(self, error: Exception) -> None:
        logger.warning("Celery's broker can't be reached: %s", error)
        self._producer = None
        self._not_before = time.monotonic() + BREAK

    def _keep(self, envelope: Envelope) -> bool:
        spool = self._delivery.spool

        if spool is None or not spool.put(
            [wrap(envelope)], "the broker was down", patience=MAX_PATIENCE
        ):
            with self._delivery.ledger.transfer():
                # The other transport counts it itself.
                self._delivery.ledger.record(-envelope.records)
                taken = False

                try:
                    taken = self._direct.send(envelope)
                finally:
                    if not taken:
                        self._delivery.ledger.record(envelope.records)

            return taken

        self._direct.resume_spooled()
        return True

    def _keep_repeatable(self, envelope: Envelope) -> None:
        """Keep what does no harm if the broker has it all the same."""
        delivery = self._delivery
        messages, dropped = delivery.pack(envelope)
        told = []

        with delivery.ledger.transfer():
            delivery.count_dropped(dropped)

            for batch in batches(messages):
                attempt = delivery.settle(batch, UNCLEAR)
                told += attempt.dropped

                for again in attempt.again:
                    told += delivery.keep(again, "the broker was down")

        delivery.tell(told)
        self._direct.resume_spooled()


def _producer(celery: Celery) -> t.Any:
    connection = celery.connection_for_write(connect_timeout=PATIENCE)

    if connection.transport.driver_type == "redis":
        connection.transport_options = {
            **connection.transport_options,
            "socket_connect_timeout": PATIENCE,
            "socket_timeout": PATIENCE,
            "retry_on_timeout": False,
        }
    else:
        connection.transport_options = {
            **connection.transport_options,
            "read_timeout": PATIENCE,
            "write_timeout": PATIENCE,
        }

    connection.transport_options["max_retries"] = 0
    # Also makes the queue known to the broker.
    connection.default_channel  # noqa: B018
    return celery.amqp.Producer(connection, auto_declare=False)
