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
from .answers import Answer, Meaning, backoff
from .batches import Batch, pack, wrap
from .delivery import REQUEST_TIMEOUT, Delivery
from .inline import Sender
from .spooling import SpoolingTransport
from .thread import SPOOL_TIMEOUT, ThreadTransport

if t.TYPE_CHECKING:
    from celery import Celery, Task

logger = logging.getLogger("flask_mengpaneel")

TASK = "flask_mengpaneel.deliver"
#: Seconds that a request waits for the broker, to connect and for an answer each.
BROKER_TIMEOUT = 0.08
#: Seconds for which a broker that failed isn't asked again.
BROKER_PAUSE = 5.0

BROKER_DOWN = "the broker was down"
REDELIVERED = Answer(Meaning.AMBIGUOUS, "the worker that had it died")
UNCLEAR = Answer(Meaning.AMBIGUOUS, "the broker didn't answer")


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
    sender: Sender = current_app.extensions["mengpaneel"].inline.sender
    pending = _unserialized(sender, envelope, messages)

    if (self.request.delivery_info or {}).get("redelivered"):
        _drop_unclear(sender, pending)

    # One failure is enough: Celery keeps the rest until the next try.
    failed = sender.send(pending, time.monotonic() + REQUEST_TIMEOUT, retry=False)

    if not pending:
        return

    left = [message for batch in pending for message in batch.messages]

    with sender.delivery.ledger.transfer():
        sender.untrack(pending)
        sender.delivery.ledger.record(-sum(message.records for message in left))

    raise self.retry(
        args=(None, [dataclasses.astuple(message) for message in left]),
        argsrepr="(messages,)",
        countdown=backoff(self.request.retries, failed.retry_after),
    )


def _unserialized(
    sender: Sender, envelope: dict[str, t.Any] | None, left: list[list[t.Any]]
) -> collections.deque[Batch]:
    delivery = sender.delivery
    dropped: dict[str, int] = {}
    messages = [Message(*message) for message in left]

    if envelope is not None:
        messages, dropped = delivery.translate(Envelope.from_json(envelope))

    pending = collections.deque(pack(messages))

    with delivery.ledger.transfer():
        delivery.ledger.record(
            sum(dropped.values()) + sum(batch.records for batch in pending)
        )
        delivery.count_dropped(dropped)
        sender.track_in_flight(pending)

    return pending


def _drop_unclear(sender: Sender, pending: collections.deque[Batch]) -> None:
    delivery = sender.delivery

    for batch in list(pending):
        with delivery.ledger.transfer():
            attempt = delivery.apply_answer(batch, REDELIVERED)
            sender.untrack([pending.popleft()])
            sender.track_in_flight(attempt.again)
            pending += attempt.again

        delivery.report_drops(attempt.dropped)


class CeleryTransport(SpoolingTransport):
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
        self._threads = process.ThreadKind()
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
            with self._delivery.ledger.transfer():
                self._delivery.ledger.record(envelope.records)
                self._delivery.ledger.deliver(envelope.records)

            return True

        if taken is None:
            self._spool_repeatable(envelope)
            return True

        # The other transport records it itself.
        return self._spool(envelope) or self._direct.send(envelope)

    def resume_spooled(self) -> None:
        """Send what other processes left in the spool, if they did."""
        self._direct.resume_spooled()

    def poll_spool(self) -> None:
        """Send at once what has become due in the spool."""
        self._direct.poll_spool()

    def flush(self, timeout: float) -> bool:
        """Send what waits in this process, as the broker was down."""
        return self._direct.flush(timeout)

    def deliver_or_spool(self) -> None:
        """Send what waits in this process, or spool it."""
        self._direct.deliver_or_spool()

    def close(self) -> None:
        """Finish: the process ends."""
        self._direct.close()

    def _publish(self, envelope: Envelope) -> bool | None:
        """Whether the broker took it; ``None`` if nobody knows."""
        if not self._threads.is_current:
            self._reset()

        if time.monotonic() < self._not_before:
            return False

        if not self._lock.acquire(timeout=2 * BROKER_TIMEOUT):
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
        self._not_before = time.monotonic() + BROKER_PAUSE

    def _spool(self, envelope: Envelope) -> bool:
        """Put an envelope into the spool; ``False`` if none takes it."""
        spool, ledger = self._delivery.spool, self._delivery.ledger

        if spool is None:
            return False

        with ledger.transfer():
            if not spool.put([wrap(envelope)], BROKER_DOWN, timeout=SPOOL_TIMEOUT):
                return False

            ledger.record(envelope.records)

        self._direct.poll_spool()
        return True

    def _spool_repeatable(self, envelope: Envelope) -> None:
        """Spool what does no harm if the broker has it all the same."""
        delivery = self._delivery
        messages, dropped = delivery.translate(envelope)
        reported = []

        with delivery.ledger.transfer():
            delivery.ledger.record(envelope.records)
            delivery.count_dropped(dropped)

            for batch in pack(messages):
                attempt = delivery.apply_answer(batch, UNCLEAR)
                reported += attempt.dropped

                for again in attempt.again:
                    reported += delivery.spool_batch(again, BROKER_DOWN)

        delivery.report_drops(reported)
        self._direct.poll_spool()


def _producer(celery: Celery) -> t.Any:
    connection = celery.connection_for_write(connect_timeout=BROKER_TIMEOUT)

    if connection.transport.driver_type == "redis":
        connection.transport_options = {
            **connection.transport_options,
            "socket_connect_timeout": BROKER_TIMEOUT,
            "socket_timeout": BROKER_TIMEOUT,
            "retry_on_timeout": False,
        }
    else:
        connection.transport_options = {
            **connection.transport_options,
            "read_timeout": BROKER_TIMEOUT,
            "write_timeout": BROKER_TIMEOUT,
        }

    connection.transport_options["max_retries"] = 0
    # Also makes the queue known to the broker.
    connection.default_channel  # noqa: B018
    return celery.amqp.Producer(connection, auto_declare=False)
