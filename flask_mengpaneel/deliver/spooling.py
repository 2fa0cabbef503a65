"""The base of the transports that send what is in the spool."""

from __future__ import annotations

from abc import abstractmethod

from ..transport import Transport


class SpoolingTransport(Transport):
    """A transport that sends what this process, or another, has put into the spool."""

    @abstractmethod
    def resume_spooled(self) -> None:
        """Send what other processes have left, as this one serves its first request."""

    @abstractmethod
    def poll_spool(self) -> None:
        """Send at once what has become due in the spool."""

    @abstractmethod
    def deliver_or_spool(self) -> None:
        """Deliver what waits, or spool it: the process may end without telling us."""
