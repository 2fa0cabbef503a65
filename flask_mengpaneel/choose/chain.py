"""The strategies of an app: asked one after the other until one takes the calls."""

from __future__ import annotations

import collections.abc as c
import contextlib
import logging
import typing as t
import weakref

from .. import signals
from ..calls import Call, CallLog, count
from ..outcome import Declined, Outcome
from ..record.errors import handle_error
from .exchange import OPERATIONS, no_news
from .operations import Shares, all_of, riding_records
from .strategies import NO_RESPONSE, ClientSide, ClientStrategy, ServerStrategy

if t.TYPE_CHECKING:
    from flask import Flask

    from ..deliver.ledger import Ledger
    from ..strategy import Strategy
    from ..transport import Transport
    from ..visitor.visitor import Visitor
    from .exchange import Exchange

logger = logging.getLogger("flask_mengpaneel")


class Chain:
    """Offers calls to one strategy after the other, and says what became of them.

    :param available: the strategies that a unit of work may insist on.
    :param names: of those that are asked, in their order.
    """

    def __init__(
        self,
        app: Flask,
        ledger: Ledger,
        available: c.Iterable[Strategy],
        names: c.Iterable[str],
    ) -> None:
        # Else an app would be freed by Python's garbage collector only.
        self._app = weakref.ref(app)
        self._ledger = ledger
        self._names = tuple(names)
        #: What is concluded while the calls are diverted.
        self._diverted: list[Outcome] | None = None
        self._arrange({strategy.name: strategy for strategy in available})

    def _arrange(self, by_name: dict[str, Strategy]) -> None:
        self._by_name = by_name
        self._all = tuple(by_name[name] for name in self._names)
        self._server_side = tuple(one for one in self._all if not one.is_client_side)
        self._replaying = tuple(
            one for one in self._all if isinstance(one, ClientStrategy) and one.replays
        )
        #: Those that are asked where no response is to come, and why others aren't: to
        #: ask these takes 3 of 87 function calls, end of a job with an event, and as
        #: many exceptions.
        self._in_jobs = tuple(
            one for one in self._all if not isinstance(one, ClientStrategy)
        )
        self._not_in_jobs = {
            one.name: NO_RESPONSE
            for one in self._all
            if isinstance(one, ClientStrategy)
        }
        #: The client-side strategies that are the app's own.
        self._app_client_side = frozenset(
            name
            for name, one in by_name.items()
            if one.is_client_side and not isinstance(one, ClientStrategy)
        )

    @property
    def replays(self) -> bool:
        """Whether any strategy takes calls out of the session."""
        return bool(self._replaying)

    @property
    def client_side(self) -> ClientSide | None:
        """The strategy that pages get the browser library from, if it is asked."""
        return next((one for one in self._all if isinstance(one, ClientSide)), None)

    def offer(
        self,
        shares: Shares,
        visitor: Visitor,
        exchange: Exchange | None,
        insisted: str | None = None,
    ) -> Outcome | None:
        """Offer calls to the strategies of the app.

        If a client takes those that ride, the server makes the operations.

        :param exchange: ``None`` if there is no response that could carry the calls.
        :param insisted: the strategy that is asked first; if it declines, the server
            sends the calls.
        :return: ``None`` if nobody has taken them, or there was nothing to take.
        """
        strategies = self._all
        declined = {} if exchange is None else exchange.declined

        if insisted is not None:
            first = self._by_name[insisted]
            others = (one for one in self._server_side if one is not first)
            strategies = (first, *others)
        elif exchange is None:
            strategies, declined = self._in_jobs, self._not_in_jobs.copy()

        outcome = self._ask(strategies, shares, visitor, exchange, declined)

        if outcome is not None and shares.operations and outcome.is_client_side:
            operations = all_of(shares.operations)
            reasons = {outcome.strategy: OPERATIONS}
            self._ask(self._server_side, operations, visitor, None, reasons)

        return outcome

    def offer_delayed(
        self, calls: CallLog, visitor: Visitor, exchange: Exchange
    ) -> Outcome | None:
        """Offer what is due of the delayed calls.

        :param calls: those of the request itself: none, but it may have been set up.
        """
        return self._ask(
            self._replaying, all_of(calls), visitor, exchange, exchange.declined
        )

    def send_from_server(self, calls: CallLog, visitor: Visitor) -> Outcome | None:
        """Offer calls that no response can carry to the server-side strategies."""
        return self._ask(self._server_side, all_of(calls), visitor, None, {})

    def _ask(
        self,
        strategies: tuple[Strategy, ...],
        shares: Shares,
        visitor: Visitor,
        exchange: Exchange | None,
        declined: dict[str, str],
    ) -> Outcome | None:
        for strategy in strategies:
            calls = shares.riding if strategy.is_client_side else shares.whole

            try:
                if strategy.name in self._app_client_side:
                    # Ours ask when they know that they could take anything: it takes
                    # 30 us of 39, a request without a call that is set up.
                    if reason := no_news(calls, visitor, exchange):
                        raise Declined(reason)
                elif not (
                    strategy.is_client_side or calls.before_setup or calls.tracking
                ):
                    # Nothing but who it is, which is no news for Mixpanel.
                    return None

                taken = strategy.flush(calls, visitor, exchange)
            except Declined as refusal:
                declined[strategy.name] = str(refusal)
            except Exception as error:
                # Strategies change something only when nothing can fail any more,
                # so the next one may try.
                declined[strategy.name] = f"failed: {error!r}"

                try:
                    self._fail(f"{strategy.name} failed", error)
                except Exception:
                    self._drop(shares.whole, declined)
                    raise
            else:
                return self._conclude(strategy, calls, exchange, declined, taken)

        self._drop(shares.whole, declined)
        return None

    def _drop(self, calls: CallLog, declined: c.Mapping[str, str]) -> None:
        """Say that nobody took the calls of this request itself."""
        if calls.before_setup or calls.tracking:
            logger.warning("No strategy took %d calls: %s", len(calls), dict(declined))
            self._ledger.record_dropped("no strategy takes it", count(calls))

    def _conclude(
        self,
        strategy: Strategy,
        calls: CallLog,
        exchange: Exchange | None,
        declined: dict[str, str],
        taken: c.Sequence[Call] | None,
    ) -> Outcome:
        if taken is None:
            taken = calls.in_order

        if not strategy.keeps_ledger:
            own = {id(call) for call in calls}
            made = [call for call in taken if id(call) in own]
            records = riding_records(made) if strategy.is_client_side else count(made)
            self._ledger.record(records)
            self._ledger.deliver(records)

        given = None if exchange is None else exchange.handed_over
        kept = given.id if given is not None and given.token is not None else None
        outcome = Outcome(strategy.name, declined, taken, kept, strategy.is_client_side)

        if logger.isEnabledFor(logging.DEBUG):
            what = "1 call" if len(taken) == 1 else f"{len(taken)} calls"
            logger.debug("%s took %s; %s", strategy.name, what, declined)

        if self._diverted is not None:
            self._diverted.append(outcome)
        elif signals.flushed.receivers:
            try:
                signals.flushed.send(self._app(), outcome=outcome)
            except Exception as error:
                self._fail("a receiver of the signal 'flushed' failed", error)

        return outcome

    def _fail(self, what: str, error: Exception) -> None:
        app = self._app()
        assert app is not None, "it is at work"
        handle_error(app, what, error)

    def divert(self, transport: Transport) -> None:
        """Let a transport take from now on what the server sends."""
        self._arrange(
            {
                name: type(strategy)(transport, self._ledger)
                if isinstance(strategy, ServerStrategy)
                else strategy
                for name, strategy in self._by_name.items()
            }
        )

    @contextlib.contextmanager
    def diverted(self, transport: Transport) -> c.Iterator[list[Outcome]]:
        """Let a transport take for a while what the server is to send, whatever the
        strategy, and collect the outcomes: nobody else is told."""
        usual, outcomes = self._by_name, list[Outcome]()
        self._diverted = outcomes
        diverted = {
            name: type(name, (ServerStrategy,), {})(transport, self._ledger)
            for name, strategy in usual.items()
            if not strategy.is_client_side
        }
        self._arrange({**usual, **diverted})

        try:
            yield outcomes
        finally:
            self._arrange(usual)
            self._diverted = None
