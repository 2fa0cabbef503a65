"""What takes the calls of a flush some way: derive from it to add a way of your own."""

from __future__ import annotations

import collections.abc as c
import typing as t
from abc import ABC, abstractmethod

from .calls import Call as Call
from .calls import CallLog as CallLog

if t.TYPE_CHECKING:
    from flask import Request, Response

    from .envelope import Envelope
    from .identity import Identity


class Visitor(t.Protocol):
    """Whom the calls are from, as far as a strategy has to know."""

    @property
    def identity(self) -> Identity:
        """The visitor's ids at Mixpanel; new ones for somebody without any."""
        ...

    def envelope(self, log: CallLog, /) -> Envelope:
        """Put calls into an envelope, as transports get them: with the visitor's ids,
        address and device, and the page that they are on."""
        ...


class Exchange(t.Protocol):
    """A request and the response to it."""

    @property
    def request(self) -> Request:
        """The request whose view made the calls."""
        ...

    @property
    def response(self) -> Response:
        """The response, to be looked at: a view may give the same to everybody."""
        ...

    def private_response(self) -> Response:
        """Return the response to be changed: a copy that no cache keeps.

        :raises Declined: what is in its headers wouldn't come to the visitor, or could
            come to others as well; the message says why.
        """
        ...


class Strategy(ABC):
    """One way for the calls of a flush. Derive from it, and put your class into
    ``MENGPANEEL_STRATEGIES``: its name is the class's.

    The class is called without arguments, once for each app.
    """

    #: Whether the calls are out of the server's hands once they are taken: the client
    #: makes them. Else the server does, and the browser library is told of them.
    is_client_side: t.ClassVar[bool] = False
    #: Whether it keeps the ledger itself; else what it takes counts as delivered.
    keeps_ledger: t.ClassVar[bool] = False
    #: The name in settings and outcomes.
    name: t.ClassVar[str] = "Strategy"

    def __init_subclass__(cls) -> None:
        cls.name = cls.__name__

    @abstractmethod
    def flush(
        self, calls: CallLog, visitor: Visitor, exchange: Exchange | None
    ) -> c.Sequence[Call] | None:
        """Take all calls, or none.

        Called at the end of a request: be quick, and do the work elsewhere.

        :param calls: what was recorded, by stage: to be looked at, not changed.
        :param visitor: whose calls they are.
        :param exchange: ``None`` if there is no response that could carry them: in a
            job, or when it has left.
        :return: what of the calls was needed, in the order in which it is made;
            ``None``: all of it.
        :raises Declined: it can't take them, and has changed nothing; the message says
            why. The next strategy is asked.
        """
