"""What the queue has no room for: it goes through the spool."""

from __future__ import annotations

import collections

from .queue import SpoolWrite


class Overflow:
    """Envelopes that requests write into the spool instead of the queue.

    Once there was one, all that follow go through the spool until it is empty: what
    was set last has to arrive last.
    """

    def __init__(self) -> None:
        self.is_active = False
        #: Those of which a worker hasn't counted yet what became of them.
        self.writes: collections.deque[SpoolWrite] = collections.deque()
        #: How often something has come into the spool, as far as this process knows. If
        #: it is the same before and after a lease that found nothing, nothing is there.
        self.arrivals = 0

    @property
    def is_takable(self) -> bool:
        """Whether the request of the first envelope is done with it."""
        return bool(self.writes) and self.writes[0].done

    def take(self) -> list[SpoolWrite]:
        """Return the envelopes that requests are done with."""
        taken = []

        while self.is_takable:
            taken.append(self.writes.popleft())

        self.arrivals += len(taken)
        return taken

    def withdraw(self, write: SpoolWrite) -> bool:
        """Remove an envelope that the spool didn't take; ``False`` if a worker has."""
        if write not in self.writes:
            return False

        self.writes.remove(write)
        return True
