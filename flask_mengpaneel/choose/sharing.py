"""Divides the calls of a request among a client, the server, and another request."""

from __future__ import annotations

import collections.abc as c
import contextlib
import logging
import typing as t

from ..calls import CallLog
from ..config import MAX_OPERATION_AGE
from ..outcome import Declined
from .operations import Shares, all_of, share
from .session_storage import store_in_session
from .set_up import SetUpOperations

if t.TYPE_CHECKING:
    from ..calls import Call
    from ..config import Config
    from ..visitor.visitor import Visitor
    from .delayed_calls import Entry
    from .exchange import Exchange
    from .handing_over import HandingOver
    from .late_calls import LateCalls

logger = logging.getLogger("flask_mengpaneel")


class Sharing:
    """Says who makes which calls of a request.

    Operations on the profile of somebody whom nobody has identified yet wait in the
    session until somebody is; where they can't, they go to the profile of the device.
    """

    def __init__(
        self, config: Config, handing_over: HandingOver, late_calls: LateCalls
    ) -> None:
        self._config = config
        self._handing_over = handing_over
        self._late_calls = late_calls
        self._set_up = SetUpOperations()

    @contextlib.contextmanager
    def paused(self) -> c.Iterator[None]:
        """Remember nothing of what was made for a while."""
        with self._late_calls.paused(), self._set_up.paused():
            yield

    def share(
        self,
        calls: CallLog,
        visitor: Visitor,
        exchange: Exchange,
        waiting: c.Sequence[Entry],
    ) -> Shares:
        """Divide the calls of a request.

        :param visitor: whom they are from.
        :param waiting: operations that have waited until now.
        """
        if calls.setup and (calls.before_setup or calls.tracking):
            calls = self._set_up.news(calls, visitor)

        operations: list[Call] = []

        if waiting and (
            visitor.known_identity.is_identified or any(call.says_who for call in calls)
        ):
            for entry in self._late_calls.unsent(waiting):
                operations += entry.calls

            exchange.delayed.remove(waiting)

        shares = share(calls, visitor, operations)

        if shares.waiting_operations:
            self._let_wait(shares, exchange)

        return shares

    def _let_wait(self, shares: Shares, exchange: Exchange) -> None:
        calls = CallLog(tracking=shares.waiting_operations)

        try:
            entry = store_in_session(calls, exchange, self._config)
        except Declined as reason:
            logger.debug("Operations don't wait for an identify: %s", reason)
            shares.stop_waiting()
        else:
            age = MAX_OPERATION_AGE
            exchange.waiting_operations = self._handing_over.to_session(
                entry, exchange, "operations", age
            )

    def share_set_up(self, calls: CallLog, exchange: Exchange) -> Shares:
        """Divide a set-up that goes with nothing but a page."""
        visitor = exchange.person
        is_known = visitor.known_identity.is_identified

        # Else it waits, and not in the session, for something that is tracked.
        if not is_known and not any(call.says_who for call in calls.setup):
            return all_of(CallLog())

        return share(self._set_up.news(calls, visitor), visitor)
