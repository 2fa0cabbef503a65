"""The calls of a request or job, given to the first strategy that takes them."""

from __future__ import annotations

import collections.abc as c
import contextlib
import logging
import time
import typing as t
import weakref

from .. import signals
from ..calls import Call, CallLog, count
from ..config import PREFIX
from ..outcome import Declined, Outcome
from ..record.manager import Manager
from ..record.proxies import current_g
from ..record.running_views import RunningViews
from ..values import plain
from ..visitor.visitor import Visitor
from . import injection
from .delayed_calls import Entry, Waiting, arrives
from .handover import RecentlySeen
from .response_policy import keep_private
from .strategies import (
    REPLAYING,
    AsyncServerSide,
    CapableClientSide,
    ClientSide,
    Delayed,
    Exchange,
    Kind,
    ServerSide,
    ServerStrategy,
    Strategy,
    hold,
    unused,
)

if t.TYPE_CHECKING:
    from flask import Flask, Request, Response

    from ..calls import Json
    from ..config import Config
    from ..deliver.ledger import Ledger
    from ..transport import Transport
    from .handover import Signer

logger = logging.getLogger("flask_mengpaneel")

# What each event has for itself.
_OWN = frozenset({"time", "$insert_id", "token"})

#: In an environment: what its response has taken along.
_CARRIED = "flask_mengpaneel.carried"

#: Strategies, each with the reason for which it needn't be asked.
Candidates: t.TypeAlias = "list[tuple[Strategy, str | None]]"


class _Carried(t.NamedTuple):
    """What a response has taken along: to the client, or to the next page.

    :param calls: those of the request itself.
    :param found: what waited before.
    """

    request: Request
    #: A weak reference, since an environment, and with it all that is in it, lives
    #: until Python's garbage collector comes by.
    response: weakref.ref[Response]
    calls: CallLog
    waiting: Waiting
    found: list[Entry]

    def misses(self, request: Request, response: Response) -> bool:
        """Whether the request is answered with another response after all."""
        return self.request is request and self.response() is not response


class Flusher:
    """What belongs to one app: its settings, its strategies, its ledger."""

    def __init__(
        self,
        app: Flask,
        config: Config,
        ledger: Ledger,
        background: Transport | None,
        inline: Transport,
        signer: Signer | None,
    ) -> None:
        # Else an app would be freed by Python's garbage collector only.
        self._reference = weakref.ref(app)
        self.config = config
        self.ledger = ledger
        self.background = background
        self._sent = RecentlySeen(10_000)
        self.signer = signer
        self.running_views = RunningViews(background is not None)
        self.inline = inline
        self._client_side = ClientSide(config, app, signer)
        self._all: dict[str, Strategy] = {
            strategy.name: strategy
            for strategy in (
                Delayed(config),
                self._client_side,
                CapableClientSide(config, signer),
                AsyncServerSide(background, ledger),
                ServerSide(inline, ledger),
            )
        }
        self._chain = tuple(self._all[name] for name in config.strategies)
        self._server_chain = tuple(
            strategy for strategy in self._chain if not strategy.is_client_side
        ) or (self._all["ServerSide"],)
        self._replaying = tuple(one for one in self._chain if one.name in REPLAYING)
        #: Whether pages without calls get the browser library too.
        self.boots = "ClientSide" in config.strategies
        self._candidates: dict[t.Any, Candidates] = {}

    @property
    def _app(self) -> Flask:
        app = self._reference()
        assert app is not None, "it is at work"
        return app

    # -- what every event gets

    def default_properties(self) -> dict[str, Json]:
        """The properties that the app adds to every event, as they are now."""
        properties = self.config.default_properties

        if properties is None:
            return {}

        try:
            given = plain(properties() if callable(properties) else properties)

            if not isinstance(given, dict):
                raise TypeError(f"it gave {given!r}, which is no dict")
        except Exception:
            logger.exception(
                "MENGPANEEL_DEFAULT_PROPERTIES failed: the event is without"
            )
            return {}

        return {name: given[name] for name in given if name not in _OWN}

    def refuse(self, name: str, error: Exception) -> None:
        """Drop a call that can't be sent."""
        logger.error("mengpaneel.%s was not recorded: %s", name, error, exc_info=error)
        self.ledger.record(1)
        self.ledger.drop("refused when recorded", 1)

    # -- the end of a request

    def respond(
        self, manager: Manager | None, request: Request, response: Response
    ) -> Response:
        """Let a response carry the calls of its request, and those that wait for it.

        :param manager: of the request, if anything was recorded in it.
        :return: the response, or a copy of it if that carries anything.
        """
        # What waits is not for the inspector's pages.
        if request.environ["PATH_INFO"].startswith(PREFIX):
            return response

        carried: _Carried | None = request.environ.pop(_CARRIED, None)

        if carried is not None:
            if carried.misses(request, response):
                self._recall(carried, manager)
            else:
                carried = None

        waiting = Waiting(self._app, request, self.config.session_key)
        headers = injection.headers_of(response)
        may_boot = self.boots and injection.is_html(headers.get("content-type", ""))
        idle = manager is None and carried is None and not waiting.entries
        is_used = "x-mengpaneel-calls" in headers or (
            may_boot and injection.is_used(response)
        )

        if is_used:
            response = unused(response, self.config.cookie_name)
            headers = injection.headers_of(response)

        if idle and not may_boot:
            return response

        found = waiting.entries
        visitor = manager.visitor if manager else Visitor(self.config, request)
        exchange = Exchange(self.config, request, response, headers, visitor, waiting)
        exchange.is_own = is_used

        if carried is not None and carried.waiting.changed:
            if exchange.policy.session is None:
                waiting.changed = True
            else:
                carried.waiting.leave_unmarked()

        if not idle:
            self._flush_into(exchange, manager)

        if may_boot and not exchange.carries:
            self._boot(exchange)

        if exchange.handed_over is not None:
            carried = request.environ[_CARRIED] = _Carried(
                request,
                weakref.ref(exchange.response),
                exchange.handed_over,
                waiting,
                found,
            )

            if exchange.holds:
                current_g()._mengpaneel_held = carried
        elif waiting.entries:
            current_g()._mengpaneel_held = _Carried(
                request, weakref.ref(exchange.response), CallLog(), waiting, found
            )

        return exchange.response

    def give_up(self, manager: Manager | None, error: Exception) -> None:
        """Leave a response as it is, since something went wrong."""
        if manager is not None:
            self.flush_late(manager)

        self.trouble("the response was left as it was", error)

    def send_unheld(
        self, held: _Carried, request: Request | None, manager: Manager | None
    ) -> None:
        """Send what was in a session that isn't there any more after the response."""
        response = held.response()

        if held.request is not request or response is None:
            return

        waiting = held.waiting
        is_overruled = getattr(response, "_mengpaneel_is_overruled", False)

        if not is_overruled and arrives(
            held.request, response, is_written=waiting.changed
        ):
            return

        if held.calls and manager is not None:
            records = count(held.calls)
            self.ledger.record(-records)
            self.ledger.deliver(-records)
            manager.restore(held.calls)
            self.flush_late(manager)

        gone = [entry for entry in held.found if entry in waiting.entries]
        visitor = manager.visitor if manager else Visitor(self.config, request)

        if gone and visitor.consent.given is True:
            try:
                self._send_gone(gone, visitor)
            except Exception as error:
                self.trouble("what waited in the session could not be sent", error)

    def _send_gone(self, gone: list[Entry], visitor: Visitor) -> None:
        for entry in self._unsent(gone):
            person = (
                visitor.as_browser_identity(entry.seen)
                if entry.is_of(visitor.browser_identity, CallLog())
                else visitor.as_person(entry.seen or entry.new_identity)
            )
            self._ask(self._server_chain, entry.calls, person, None)

    def resume_spooled(self) -> None:
        """Send what other processes have left, if they did."""
        try:
            if self.background is not None:
                self.background.resume_spooled()
        except Exception as error:
            self.trouble("what other processes left could not be sent", error)

    def _flush_into(self, exchange: Exchange, manager: Manager | None) -> None:
        visitor, entries = exchange.visitor, exchange.waiting.entries
        calls = manager.drain() if manager else CallLog()

        if entries and not visitor.browser_identity:
            # Requests that are under way at once find the same new visitor.
            visitor.identity = entries[0].new_identity

        if exchange.waiting.cleared and exchange.policy.session is None:
            exchange.waiting.keep(entries)

        if visitor.consent.given is None:
            self._hold(calls, exchange)
        else:
            self._carry(calls, exchange, manager.strategy if manager else None)

        self._remember(exchange)

        if exchange.waiting.changed:
            response = exchange.own()
            keep_private(response)
            response._mengpaneel_cookie = exchange.waiting.own_cookie

    def _remember(self, exchange: Exchange) -> None:
        """Tell the browser library what the server has learnt in its place."""
        visitor, policy = exchange.visitor, exchange.policy

        if not visitor.cookie_is_stale(exchange.sent):
            return

        ids, choice = policy.cookie is None, policy.choice is None
        told = (ids or choice) and visitor.write_cookie(
            exchange.own(), exchange.sent, ids=ids, choice=choice
        )

        if told:
            keep_private(exchange.response)

    def _carry(self, calls: CallLog, exchange: Exchange, insisted: str | None) -> None:
        visitor = exchange.visitor
        late: list[Entry] = []
        others: list[Entry] = []
        outcome = None

        if exchange.waiting.entries:
            late, others = self._take_up(calls, exchange)

        if calls:
            outcome = self._ask(self._chain_for(insisted), calls, visitor, exchange)
        elif exchange.entries:
            outcome = self._ask(self._replaying, calls, visitor, exchange)

        if outcome and self._all[outcome.strategy].is_client_side:
            exchange.handed_over = calls
        elif outcome:
            exchange.sent = outcome.calls

        if late or others:
            self._send_apart(late, others, exchange)

    def _take_up(
        self, calls: CallLog, exchange: Exchange
    ) -> tuple[list[Entry], list[Entry]]:
        """Find out what of that which waits goes with this response, and what the
        server sends: what has waited too long, and what is other people's."""
        visitor, waiting, policy = exchange.visitor, exchange.waiting, exchange.policy
        may_change = policy.session is None
        # It won't be there for another request.
        ends = policy.session_ends is not None or (waiting.cleared and not may_change)

        if visitor.consent.given is False:
            # What this request recorded it recorded before it opted out.
            if may_change:
                waiting.keep([])

            return [], []

        if not may_change and not ends:
            return [], []

        ours, late, others = self._sort(calls, exchange)

        if ends:
            waiting.leave_out()
            return [*ours, *late], others

        exchange.entries = [] if ours and visitor.client.is_prefetch else ours
        return late, others

    def _recall(self, carried: _Carried, manager: Manager | None) -> None:
        """Take calls back from a response that isn't sent.

        A function that runs after the extension's has failed, or the session couldn't
        be saved; what comes now is an error page.
        """
        records = count(carried.calls)
        self.ledger.record(-records)
        self.ledger.deliver(-records)
        carried.waiting.keep(carried.found)
        current_g().__dict__.pop("_mengpaneel_held", None)

        if manager is not None:
            manager.restore(carried.calls)

    def _send_apart(
        self, late: list[Entry], others: list[Entry], exchange: Exchange
    ) -> None:
        """Send from the server what has waited too long, or is other people's."""
        visitor, waiting = exchange.visitor, exchange.waiting

        for entry in self._unsent(late):
            earlier = visitor.as_browser_identity(entry.seen)
            outcome = self._ask(self._server_chain, entry.calls, earlier, None)
            exchange.sent = [*(outcome.calls if outcome else ()), *exchange.sent]

        for entry in self._unsent(others):
            # The calls themselves say who it became.
            person = visitor.as_person(entry.seen or entry.new_identity)
            self._ask(self._server_chain, entry.calls, person, None)

        if exchange.policy.session is None:
            gone = [*late, *others]
            waiting.keep([entry for entry in waiting.entries if entry not in gone])

    def _unsent(self, entries: c.Iterable[Entry]) -> c.Iterator[Entry]:
        """The entries that this process hasn't sent yet: requests that are under way
        at once have the same session."""
        return (entry for entry in entries if not self._sent.count(entry.id))

    def _sort(
        self, calls: CallLog, exchange: Exchange
    ) -> tuple[list[Entry], list[Entry], list[Entry]]:
        """Tell apart the calls that may go with this response, those that have waited
        too long, and those of other people."""
        ours: list[Entry] = []
        late: list[Entry] = []
        others: list[Entry] = []
        oldest = time.time() - self.config.delayed_max_age
        # Who is sent to another site may not come back.
        all_late = (
            not self._replaying
            or exchange.visitor.client.is_blocked
            or exchange.redirects_offsite
        )

        for entry in exchange.waiting.entries:
            if not entry.is_of(exchange.visitor.browser_identity, calls):
                others.append(entry)
            elif all_late or entry.at < oldest:
                late.append(entry)
            else:
                ours.append(entry)

        return ours, late, others

    def _hold(self, calls: CallLog, exchange: Exchange) -> None:
        """Keep the calls of a visitor who hasn't been asked for consent yet."""
        if not calls.before_setup and not calls.tracking:
            return

        try:
            hold(calls, exchange)
        except Declined as reason:
            records = count(calls)
            self.ledger.record(records)
            self.ledger.drop("no consent yet", records)
            logger.debug("Calls without consent were dropped: %s", reason)
        else:
            records = count(calls)
            self.ledger.record(records)
            self.ledger.deliver(records)
            exchange.handed_over = calls

    def _boot(self, exchange: Exchange) -> None:
        """Load the browser library on a page that has no calls of its own."""
        if exchange.visitor.consent.given is not True:
            return

        try:
            self._client_side.boot(exchange)
        except Declined:
            # There is nothing that another strategy could take.
            pass
        except Exception as error:
            # What the response has been given already it keeps.
            self.trouble("the page doesn't load the browser library", error)

    def take_back(
        self, calls: CallLog, visitor: Visitor, response: Response | None
    ) -> None:
        """Send calls from the server that a browser couldn't make.

        :param response: tells the browser library of them; ``None`` if none may.
        """
        outcome = self._ask(self._server_chain, calls, visitor, None)
        sent = outcome.calls if outcome else ()

        if response is not None and visitor.cookie_is_stale(sent):
            visitor.write_cookie(response, sent)

    # -- jobs, and what a request does after its response

    def flush_late(self, manager: Manager) -> None:
        """Send the calls of a manager where nobody waits for the outcome."""
        try:
            self.flush(manager)
        except Exception as error:
            self.trouble("what was left could not be sent", error)

    def flush_running(self, manager: Manager) -> None:
        """Send the calls of a view that runs, from a thread that has no context."""
        if (app := self._reference()) is not None:
            with app.app_context():
                self.flush_late(manager)

    def flush(self, manager: Manager) -> Outcome | None:
        """Send the calls that no response can carry.

        :return: which strategy took them, or ``None`` if there was nothing to send.
        """
        if not manager.calls:
            return None

        calls = manager.drain()

        if manager.visitor.consent.given is None:
            records = count(calls)
            self.ledger.record(records)
            self.ledger.drop("no consent yet", records)
            return None

        chain = self._chain_for(manager.strategy)
        return self._ask(chain, calls, manager.visitor, None)

    # -- the chain

    def _chain_for(self, insisted: str | None) -> tuple[Strategy, ...]:
        if insisted is None:
            return self._chain

        first = self._all[insisted]
        return (first, *(one for one in self._server_chain if one is not first))

    def _look_at(self, chain: tuple[Strategy, ...], kind: Kind | None) -> Candidates:
        """A chain, and who of it takes nothing with such a response, or without one.

        It is the same for most responses of an app.
        """
        candidates = [(strategy, strategy.rules_out(kind)) for strategy in chain]
        self._candidates[chain, kind] = candidates
        return candidates

    def _ask(
        self,
        chain: tuple[Strategy, ...],
        calls: CallLog,
        visitor: Visitor,
        exchange: Exchange | None,
    ) -> Outcome | None:
        """Offer the calls to one strategy after the other."""
        kind = exchange.kind if exchange else None
        declined: dict[str, str] = {} if exchange is None else exchange.declined

        candidates = self._candidates.get((chain, kind)) or self._look_at(chain, kind)

        for strategy, reason in candidates:
            if reason:
                declined[strategy.name] = reason
                continue

            try:
                taken = strategy.flush(calls, visitor, exchange)
            except Declined as refusal:
                declined[strategy.name] = str(refusal)
            except Exception as error:
                # Strategies change something only when nothing can fail any more,
                # so the next one may try.
                declined[strategy.name] = f"failed: {error!r}"

                try:
                    self.trouble(f"{strategy.name} failed", error)
                except Exception:
                    self._lose(calls, declined)
                    raise
            else:
                if not taken and not strategy.is_client_side:
                    # Nothing but who it is, which is no news for Mixpanel.
                    return None

                return self._settle(strategy, calls, declined, taken)

        self._lose(calls, declined)
        return None

    def _lose(self, calls: CallLog, declined: c.Mapping[str, str]) -> None:
        """Say that nobody took the calls of this request itself."""
        records = count(calls)

        if calls.before_setup or calls.tracking:
            logger.warning("No strategy took %d calls: %s", len(calls), dict(declined))
            self.ledger.record(records)
            self.ledger.drop("no strategy takes it", records)

    def _settle(
        self,
        strategy: Strategy,
        calls: CallLog,
        declined: dict[str, str],
        taken: list[Call],
    ) -> Outcome:
        if strategy.is_client_side:
            own = {id(call) for call in calls}
            records = sum(call.is_record for call in taken if id(call) in own)
            self.ledger.record(records)
            self.ledger.deliver(records)

        outcome = Outcome(strategy.name, declined, taken)

        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("%s took %d calls; %s", strategy.name, len(taken), declined)

        if signals.flushed.receivers:
            try:
                signals.flushed.send(self._app, outcome=outcome)
            except Exception as error:
                self.trouble("a receiver of the signal 'flushed' failed", error)

        return outcome

    @contextlib.contextmanager
    def diverted(self, transport: Transport) -> c.Iterator[None]:
        """Let another transport take for a while what the server is to send."""
        servers = [one for one in self._all.values() if isinstance(one, ServerStrategy)]
        usual = [server.transport for server in servers]

        def use(transports: c.Iterable[Transport | None]) -> None:
            self._candidates.clear()

            for server, one in zip(servers, transports, strict=True):
                server.transport = one

        use([transport] * len(servers))

        try:
            yield
        finally:
            use(usual)

    # -- trouble

    def trouble(self, what: str, error: Exception) -> None:
        """Log what went wrong in here; raise it in tests."""
        logger.error("Flask-Mengpaneel: %s", what, exc_info=error)

        if self._app.testing:
            raise error
