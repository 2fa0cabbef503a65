"""Envelopes that wait in memory for a worker."""

from __future__ import annotations

import collections
import collections.abc as c
import dataclasses
import time

from ..envelope import Envelope
from ..limits import MAX_RECORDS

#: Seconds for which the first of some envelopes waits for company.
LINGER = 0.2
#: Envelopes that wait as they are; to serialize one takes a request some time.
MAX_AS_OBJECTS = 100


@dataclasses.dataclass(slots=True, eq=False)
class SpoolWrite:
    """An envelope that a request writes into the spool, and what became of that."""

    envelope: Envelope
    #: The row that it is in now, or none.
    rows: list[int] = dataclasses.field(default_factory=list)
    done: bool = False


#: An envelope, its records, its weight, and how it is written into the spool, if it is.
#: Where there are many, it is in bytes: such a tuple is nothing that Python's garbage
#: collector goes through again and again.
QueuedEnvelope = tuple["Envelope | bytes", int, int, "SpoolWrite | None"]


def weight_of(envelope: Envelope) -> int:
    """Return how much room an envelope takes: an ordinary record is 1, a large one as
    many as it has KB."""
    return max(envelope.records, envelope.size // 1024, 1)


def row_of(write: SpoolWrite | None) -> int:
    """Return the row of an envelope in the spool, or 0."""
    return write.rows[0] if write is not None and write.rows else 0


def unserialized(envelope: Envelope | bytes) -> Envelope:
    """Return an envelope that waited in either form."""
    return Envelope.from_bytes(envelope) if isinstance(envelope, bytes) else envelope


def contents(envelopes: c.Iterable[QueuedEnvelope]) -> list[tuple[Envelope, int]]:
    """Return envelopes as objects, with their rows."""
    return [(unserialized(one), row_of(write)) for one, _, _, write in envelopes]


class Queue:
    """Envelopes in the order in which requests appended them.

    A request appends to :attr:`envelopes` itself, since only a call of a built-in
    method can't be interrupted. What that needs is done before: if it isn't appended
    after all, a worker has been woken in vain, or some weight is counted until the
    queue is empty.

    :param capacity: the weight that may wait.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.envelopes: collections.deque[QueuedEnvelope] = collections.deque()
        self.weight = 0
        #: The weight at which a worker has to be woken.
        self.wake_at = 1.0
        #: Since when the first envelope waits.
        self._first_at = 0.0

    def has_room_for(self, weight: int, *, prefers_spool: c.Callable[[], bool]) -> bool:
        """Whether an envelope may be appended.

        :param prefers_spool: whether there is a spool, and nothing is delivered at the
            moment: what waits long is safer there. Asked only where much waits, as it
            takes 8 function calls.
        """
        total = self.weight + weight

        if not self.envelopes or total <= self.capacity // 5:
            return True

        return total <= self.capacity and not prefers_spool()

    def before_append(self, weight: int) -> bool:
        """Count the weight of an envelope, and begin to measure how long the first one
        waits; return whether a worker has to be woken."""
        if not self.envelopes:
            self._first_at = time.monotonic()
            self.weight = 0

        self.weight += weight
        return self.weight >= self.wake_at

    @property
    def lingers_until(self) -> float:
        """When the first envelope has waited for company long enough."""
        return self._first_at + LINGER

    def is_due(self, now: float) -> bool:
        """Whether messages are to be built of it, even if nobody expedites it."""
        return self.weight >= MAX_RECORDS or now >= self.lingers_until

    @property
    def is_takable(self) -> bool:
        """Whether no request is writing the first envelope into the spool."""
        return bool(self.envelopes) and _is_written(self.envelopes[0])

    def take(self) -> list[QueuedEnvelope]:
        """Return the first envelopes, of about as many records as one request has."""
        taken: list[QueuedEnvelope] = []
        total = 0

        while self.is_takable and total < MAX_RECORDS:
            envelope = self.envelopes.popleft()
            taken.append(envelope)
            total += envelope[2]

        self.weight -= total
        self._first_at = time.monotonic()
        return taken

    def clear(self) -> list[QueuedEnvelope]:
        """Return all envelopes."""
        taken = list(self.envelopes)
        self.envelopes.clear()
        self.weight = 0
        return taken


def _is_written(envelope: QueuedEnvelope) -> bool:
    write = envelope[3]
    return write is None or write.done
