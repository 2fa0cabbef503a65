"""The places in which a record can be; ``thread`` has the table."""

from __future__ import annotations

import collections
import enum
import typing as t

from .batches import Batch
from .endpoints import EndpointQueues
from .overflow import Overflow
from .queue import Queue, QueuedEnvelope, row_of

if t.TYPE_CHECKING:
    from .ledger import Balance


class State(enum.Enum):
    """Where a record is, from the hand-over to the end of its way."""

    QUEUED = enum.auto()
    OVERFLOWING = enum.auto()
    BUILDING = enum.auto()
    BUILT = enum.auto()
    IN_FLIGHT = enum.auto()
    ANSWERED = enum.auto()
    STORING = enum.auto()
    LEASING = enum.auto()
    REPORTING = enum.auto()


#: In these a worker has it, and is in the middle of something.
AT_WORK = frozenset(
    {
        State.BUILDING,
        State.IN_FLIGHT,
        State.ANSWERED,
        State.STORING,
        State.LEASING,
        State.REPORTING,
    }
)


class Places:
    """What is in each state, in this process; to be read with the monitor's lock.

    :param capacity: the weight that may wait in the queue.
    :param built_capacity: the batches that may wait for an endpoint that fails.
    """

    def __init__(self, capacity: int, built_capacity: int, *, has_spool: bool) -> None:
        self.queue = Queue(capacity)
        self.overflow = Overflow()
        self.building: list[QueuedEnvelope] = []
        #: Whether the ledger has what is being built.
        self.building_is_recorded = True
        self.endpoints = EndpointQueues(built_capacity, has_spool=has_spool)
        self.answered: set[Batch] = set()
        #: How many workers are in each of the other states.
        self.workers_in: collections.Counter[State] = collections.Counter()

    def occupied(self) -> set[State]:
        """Return the states in which something is."""
        found: dict[State, object] = {
            State.QUEUED: self.queue.envelopes,
            State.OVERFLOWING: self.overflow.writes,
            State.BUILDING: self.building,
            State.BUILT: self.endpoints.built,
            State.IN_FLIGHT: self.endpoints.in_flight,
            State.ANSWERED: self.answered,
            **self.workers_in,
        }
        return {state for state, things in found.items() if things}

    @property
    def overflow_is_active(self) -> bool:
        """Whether what comes goes through the spool, so that it isn't empty."""
        return self.overflow.is_active or self.endpoints.overflow

    @property
    def unrecorded(self) -> int:
        """The records of envelopes in the queue or after it that the ledger hasn't."""
        recorded = len(self.building) if self.building_is_recorded else 0
        envelopes = [*self.building[recorded:], *self.queue.envelopes]
        return sum(records for _, records, _, _ in envelopes)

    def count(self, balance: Balance) -> None:
        """Add the records of each state, as the table says."""
        queued = [*self.building, *self.queue.envelopes]
        writes = list(self.overflow.writes)

        # What the ledger hasn't counted yet.
        balance.recorded += self.unrecorded
        balance.recorded += sum(write.envelope.records for write in writes)

        # The spool counts what has a row.
        balance.waiting += sum(
            records for _, records, _, write in queued if not row_of(write)
        )
        balance.waiting += sum(
            write.envelope.records for write in writes if not write.rows
        )
        balance.waiting += sum(
            batch.records
            for batch in (*self.endpoints.built, *self.endpoints.in_flight)
            if not batch.rows
        )

    def leased_rows(self) -> list[int]:
        """Return the rows of the spool that are here to be sent."""
        return [
            row
            for batches in (
                self.endpoints.built,
                self.endpoints.in_flight,
                self.answered,
            )
            for batch in batches
            for row in batch.rows
        ]

    def take_for_building(self) -> None:
        """QUEUED -> BUILDING."""
        self.building_is_recorded = False
        self.building = self.queue.take()

    def count_building(self, building: list[QueuedEnvelope]) -> int:
        """Return how many records the ledger gets of what is being built: none if it
        was taken away."""
        if self.building is not building:
            return 0

        self.building_is_recorded = True
        return sum(records for _, records, _, _ in building)

    def abandon(self) -> tuple[list[Batch], list[Batch], list[QueuedEnvelope]]:
        """Take everything away from the workers: what is in flight, what is built, and
        the envelopes, those that are being built first."""
        in_flight, built = self.endpoints.abandon()
        envelopes = [*self.building, *self.queue.clear()]
        self.building = []

        return in_flight, built, envelopes
