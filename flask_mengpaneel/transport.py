"""The base of what brings calls to Mixpanel."""

from __future__ import annotations

import typing as t
from abc import ABC, abstractmethod

if t.TYPE_CHECKING:
    from .envelope import Envelope


class Transport(ABC):
    """Takes envelopes of calls to Mixpanel. Derive from it to send them your way."""

    #: Whether it counts in the ledger itself: what it takes as recorded, and later what
    #: became of that. Else what it takes counts as recorded and delivered.
    reports_delivery = False

    @abstractmethod
    def send(self, envelope: Envelope) -> bool:
        """Take an envelope; ``False`` if there is no room for it.

        Called at the end of a request: be quick, and do the work elsewhere.
        """

    def flush(self, timeout: float) -> bool:
        """Wait until nothing is left to send; ``True`` if nothing is.

        :param timeout: seconds to wait at most.
        """
        return True

    def close(self) -> None:
        """Finish: the process ends."""
        return None
