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
from .delivery import (
    READ_TIMEOUT,
    Delivery,
    Kind,
    Parcel,
    Verdict,
    backoff,
    parcels,
    wrap,
)
from .thread import MOST_PATIENCE, ThreadTransport, Transport
from .translation import Batch, Message

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
    self: Task, batch: dict[str, t.Any] | None, messages: list[list[t.Any]]
) -> None:
    """Deliver a batch to Mixpanel, in a worker.

    :param batch: of a request, as JSON.
    :param messages: instead of it, what is left after an earlier try.
    """
    delivery: Delivery = current_app.extensions["mengpaneel"].inline.delivery
    pending = _opened(delivery, batch, messages)

    if (self.request.delivery_info or {}).get("redelivered"):
        _drop_unclear(delivery, pending)

    # One failure is enough: Celery keeps the rest until the next try.
    last = delivery.run(pending, time.monotonic() + READ_TIMEOUT, patient=False)

    if not pending:
        return

    left = [message for parcel in pending for message in parcel.messages]

    with delivery.ledger.moving():
        delivery.let_go(pending)
        delivery.ledger.record(-sum(message.records for message in left))

    raise self.retry(
        args=(None, [dataclasses.astuple(message) for message in left]),
        argsrepr="(messages,)",
        countdown=backoff(self.request.retries, last.retry_after),
    )


def _opened(
    delivery: Delivery, batch: dict[str, t.Any] | None, left: list[list[t.Any]]
) -> collections.deque[Parcel]:
    dropped: dict[str, int] = {}
    messages = [Message(*message) for message in left]

    if batch is not None:
        messages, dropped = delivery.pack(Batch.from_json(batch))

    pending = collections.deque(parcels(messages))

    with delivery.ledger.moving():
        delivery.ledger.record(
            sum(dropped.values()) + sum(parcel.records for parcel in pending)
        )
        delivery.count_dropped(dropped)
        delivery.hold(pending)

    return pending


def _drop_unclear(delivery: Delivery, pending: collections.deque[Parcel]) -> None:
    for parcel in list(pending):
        with delivery.ledger.moving():
            attempt = delivery.settle(parcel, REDELIVERED)
            delivery.let_go([pending.popleft()])
            delivery.hold(attempt.again)
            pending += attempt.again

        delivery.tell(attempt.dropped)


class CeleryTransport(Transport):
    """Gives each batch to Celery's workers, by a task in its default queue.

    While the broker is down batches go to the spool, and from there to Mixpanel, by a
    thread of this process.
    """

    keeps_books = True

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

    def send(self, batch: Batch) -> bool:
        """Give a batch to the broker; to the spool if that is down."""
        taken = self._publish(batch)

        if taken:
            self._delivery.ledger.deliver(batch.records)
            return True

        if taken is None:
            self._keep_repeatable(batch)
            return True

        return self._keep(batch)

    def look(self) -> None:
        """Send what other processes left in the spool, if they did."""
        self._direct.look()

    def flush(self, timeout: float) -> bool:
        """Send what waits in this process, as the broker was down."""
        return self._direct.flush(timeout)

    def hurry(self) -> None:
        """Begin to finish: the process ends."""
        self._direct.hurry()

    def close(self) -> None:
        """Finish: the process ends."""
        self._direct.close()

    def _publish(self, batch: Batch) -> bool | None:
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
                args=(batch.to_json(), []),
                # Else it is computed for each task, and put into the worker's log.
                argsrepr="(batch,)",
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

    def _keep(self, batch: Batch) -> bool:
        spool = self._delivery.spool

        if spool is None or not spool.put(
            [wrap(batch)], "the broker was down", patience=MOST_PATIENCE
        ):
            with self._delivery.ledger.moving():
                # The other transport counts it itself.
                self._delivery.ledger.record(-batch.records)
                taken = False

                try:
                    taken = self._direct.send(batch)
                finally:
                    if not taken:
                        self._delivery.ledger.record(batch.records)

            return taken

        self._direct.look()
        return True

    def _keep_repeatable(self, batch: Batch) -> None:
        """Keep what does no harm if the broker has it all the same."""
        delivery = self._delivery
        messages, dropped = delivery.pack(batch)
        told = []

        with delivery.ledger.moving():
            delivery.count_dropped(dropped)

            for parcel in parcels(messages):
                attempt = delivery.settle(parcel, UNCLEAR)
                told += attempt.dropped

                for again in attempt.again:
                    told += delivery.keep(again, "the broker was down")

        delivery.tell(told)
        self._direct.look()


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
