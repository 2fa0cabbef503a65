"""The batches for each of Mixpanel's endpoints, in order."""

from __future__ import annotations

import collections
import collections.abc as c
import logging
import time

from .answers import backoff
from .batches import Batch
from .delivery import Attempt

logger = logging.getLogger("flask_mengpaneel")

#: Batches of up to 2 MB that may wait for an endpoint before more are built.
MAX_BUILT = 6
#: Batches out of the spool that one endpoint may have in memory, those in flight
#: included: if this process dies, they may be sent twice, under one id.
MAX_LEASED = 2
#: Requests with events that may be in flight at once.
MAX_IN_FLIGHT = 4
#: Seconds without an answer after which an endpoint that has enough to send isn't
#: waited for.
STALL_TIMEOUT = 1.0


class EndpointQueue:
    """The batches for one endpoint, in order.

    :param width: how many may be in flight at once. Profile updates go one after the
        other: what was set last has to arrive last.
    """

    def __init__(self, width: int) -> None:
        self.batches: collections.deque[Batch] = collections.deque()
        self.in_flight: set[Batch] = set()
        #: The answers that are being applied, whose batches may come back.
        self._applying = 0
        #: Whether what comes goes through the spool until nothing for this endpoint is
        #: there, since there was too much.
        self.overflows = False
        self.failures = 0
        self.not_before = 0.0
        #: When the spool is asked next for something for it.
        self.next_poll = 0.0
        self._width = width
        #: Whether it ever had a batch.
        self.is_used = False
        #: Whether Mixpanel asked for the pause.
        self._pause_was_asked = False
        #: When it last had an answer, or nothing to wait for.
        self._answered_at = 0.0

    def put(self, batch: Batch, now: float) -> None:
        """Append a batch, to the last one if both fit into one request."""
        self.is_used = True

        if not self.batches and not self.in_flight:
            self._answered_at = now

        if self.joins(batch):
            self.batches[-1].messages += batch.messages
            self.batches[-1].rows += batch.rows
        else:
            self.batches.append(batch)

    def joins(self, batch: Batch) -> bool:
        """Whether a batch goes into one request with the last."""
        return bool(self.batches) and self.batches[-1].has_room_for(batch)

    @property
    def is_at_work(self) -> bool:
        """Whether it has something to send, or to learn of what it has sent."""
        return bool(self.batches or self.in_flight or self._applying)

    @property
    def is_full(self) -> bool:
        """Whether it has enough to send for now."""
        return len(self.batches) >= (1 if self.failures else MAX_BUILT)

    @property
    def has_leased_enough(self) -> bool:
        """Whether it has as much out of the spool as may be in memory."""
        leased = sum(batch.from_spool for batch in (*self.batches, *self.in_flight))
        return leased >= MAX_LEASED

    @property
    def may_lease(self) -> bool:
        """Whether it has room for what waits in the spool, and gets on."""
        return not self.failures and not self.is_full and not self.has_leased_enough

    def is_poll_due(self, now: float) -> bool:
        """Whether the spool is to be asked for something for it."""
        return self.overflows or now >= self.next_poll

    @property
    def stalls_at(self) -> float:
        """When it isn't worth waiting for any more, unless an answer comes."""
        return self._answered_at + STALL_TIMEOUT

    def progresses(self, now: float) -> bool:
        """Whether it is worth waiting for."""
        return not self.failures and now < self.stalls_at

    def next_batch(self, now: float) -> Batch | None:
        """Return a batch that is to be sent now; it is in flight from here on."""
        if (
            not self.batches
            or len(self.in_flight) >= self._width
            or self.not_before > now
        ):
            return None

        batch = self.batches.popleft()
        self.in_flight.add(batch)
        return batch

    def answered(self, batch: Batch, now: float) -> bool:
        """Take a batch that was answered; ``False`` if it was abandoned before."""
        self._answered_at = now

        if batch not in self.in_flight:
            return False

        self.in_flight.remove(batch)
        self._applying += 1
        return True

    def apply(self, attempt: Attempt) -> bool:
        """Send again what has to be, after a pause if the attempt failed.

        :return: whether this ends a time of failures.
        """
        self._applying -= 1
        self.batches.extendleft(reversed(attempt.again))

        if attempt.failed:
            if not self.failures:
                logger.warning("Mixpanel can't be reached: %s", attempt.reason)

            pause = backoff(self.failures, attempt.retry_after)
            self._pause_was_asked = attempt.retry_after is not None
            self.failures += 1
            self.not_before = max(self.not_before, time.monotonic() + pause)
            return False

        if not self.failures:
            return False

        logger.info("Mixpanel can be reached again.")
        self.failures = 0
        return True

    def expedite(self) -> None:
        """Send at once, unless Mixpanel asked for the pause."""
        if not self._pause_was_asked:
            self.not_before = 0.0


class EndpointQueues:
    """The queues of all endpoints.

    :param capacity: the batches that may wait for an endpoint that doesn't get on.
    :param has_spool: whether there is a spool for what is too much.
    """

    def __init__(self, capacity: int, *, has_spool: bool) -> None:
        self._capacity = max(MAX_BUILT, capacity)
        self._has_spool = has_spool
        self.by_name = {
            "events": EndpointQueue(MAX_IN_FLIGHT),
            "people": EndpointQueue(1),
            "groups": EndpointQueue(1),
        }

    def __iter__(self) -> c.Iterator[EndpointQueue]:
        return iter(self.by_name.values())

    @property
    def built(self) -> list[Batch]:
        """The batches that wait to be sent."""
        return [batch for queue in self for batch in queue.batches]

    @property
    def in_flight(self) -> list[Batch]:
        """The batches whose answers are awaited."""
        return [batch for queue in self for batch in queue.in_flight]

    @property
    def overflow(self) -> bool:
        """Whether what comes for some endpoint goes through the spool."""
        return any(queue.overflows for queue in self)

    @property
    def all_fail(self) -> bool:
        """Whether nothing gets on."""
        at_work = [queue for queue in self if queue.is_at_work]
        return bool(at_work) and all(queue.failures for queue in at_work)

    def have_enough(self, now: float) -> bool:
        """Whether one that gets on has enough to send."""
        return any(queue.is_full and queue.progresses(now) for queue in self)

    def want_more(self, now: float) -> bool:
        """Whether what is built now is worth it: some endpoint can do with more, and
        none that gets on has enough."""
        used = [queue for queue in self if queue.is_used]
        is_wanted = not used or any(not queue.is_full for queue in used)

        return is_wanted and not self.have_enough(now)

    def may_lease(self, now: float) -> set[str]:
        """Return the endpoints that are to get what waits in the spool.

        None while one that gets on has enough of it; else all that have room, since an
        envelope may be for several.
        """
        if any(
            (queue.is_full or queue.has_leased_enough) and queue.progresses(now)
            for queue in self
        ):
            return set()

        able = {name for name, queue in self.by_name.items() if queue.may_lease}
        is_due = any(self.by_name[name].is_poll_due(now) for name in able)
        return able if is_due else set()

    def poll_at(self, moment: float, names: c.Iterable[str] | None = None) -> None:
        """Ask the spool for these endpoints at that moment, for all by default."""
        for name in self.by_name if names is None else names:
            self.by_name[name].next_poll = moment

    def put(
        self, built: list[Batch], leased_for: c.Container[str] | None = None
    ) -> list[Batch]:
        """Append batches to their queues; return those for which there is no room.

        :param leased_for: they come from the spool, so that they are before what is
            there, and are for these endpoints.
        """
        now = time.monotonic()
        too_many = []

        for batch in built:
            queue = self.by_name[batch.endpoint]
            waits = (
                queue.overflows
                if leased_for is None
                else batch.endpoint not in leased_for
            )

            if waits or (
                len(queue.batches) >= self._capacity
                and not queue.progresses(now)
                and not queue.joins(batch)
            ):
                queue.overflows = self._has_spool
                too_many.append(batch)
            else:
                queue.put(batch, now)

        return too_many

    def expedite(self) -> None:
        """Send at once what no answer asked to hold back."""
        for queue in self:
            queue.expedite()

    def abandon(self) -> tuple[list[Batch], list[Batch]]:
        """Take away all batches: those in flight, and the others."""
        taken = self.in_flight, self.built

        for queue in self:
            queue.in_flight.clear()
            queue.batches.clear()

        return taken
