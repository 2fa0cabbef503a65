"""The five ways for the calls of a response, in the order in which they are asked."""

from __future__ import annotations

import collections.abc as c
import typing as t

from .. import mistakes, reasons, strategy
from ..calls import Call, CallLog, dumps
from ..identity import Identity
from ..outcome import Declined
from ..proxies import current_flask
from ..strategy import Strategy
from ..visitor.visitor import Visitor
from . import injection
from .advice import advise
from .carrier import (
    CALLS_HEADER,
    HAND_OVER_HEADER,
    PROJECT_HEADER,
    SIGNATURE_HEADER,
    give_own_validators,
    mark_private,
)
from .exchange import Exchange
from .header_room import room_for_calls
from .script import Script
from .session_cookie import expected_size
from .session_storage import store_in_session

if t.TYPE_CHECKING:
    from ..config import Config
    from ..deliver.ledger import Ledger
    from ..transport import Transport
    from .hand_over import HandOver
    from .handing_over import HandingOver
    from .signing import Signer

#: Why no client is given anything in a job.
NO_RESPONSE = "no response is to come"
_NO_ROOM = "the background transport has no room"


class ClientStrategy(Strategy):
    """Give the calls to a client with the response."""

    is_client_side = True
    keeps_ledger = True
    #: Whether it takes calls out of the session as well.
    replays: t.ClassVar[bool] = False


class Delayed(ClientStrategy):
    """Keep the calls in the session until the redirect is followed.

    :param is_replayed: whether a strategy takes calls out of the session.
    """

    def __init__(
        self, config: Config, handing_over: HandingOver, is_replayed: bool
    ) -> None:
        self._config = config
        self._handing_over = handing_over
        self._is_replayed = is_replayed
        self._has_advised = False

    def flush(
        self,
        calls: CallLog,
        visitor: strategy.Visitor,
        exchange: strategy.Exchange | None,
    ) -> list[Call]:
        if type(exchange) is not Exchange:
            raise Declined(NO_RESPONSE)

        if not exchange.is_redirect:
            raise Declined("not a redirect")

        if reason := exchange.departure:
            self._advise(reason, exchange)
            raise Declined(reason)

        if not calls.before_setup and not calls.tracking:
            raise Declined("nothing but set-up calls")

        if exchange.visitor.successors and exchange.visitor.is_shown:
            # The response itself tells the browser.
            raise Declined("the next page is another visitor's")

        if not self._is_replayed:
            raise Declined("no other strategy would take the calls up again")

        is_named = self._handing_over.is_on
        entry = store_in_session(calls, exchange, self._config, is_named=is_named)
        age = self._config.delayed_max_age
        exchange.handed_over = self._handing_over.to_session(
            entry, exchange, "session", age
        )
        return calls.in_order

    def _advise(self, reason: str, exchange: Exchange) -> None:
        """Say once that the session never comes back."""
        if reason == reasons.INSECURE and not self._has_advised:
            self._has_advised = True
            environ = exchange.request.environ
            advise(mistakes.of_request(current_flask(), self._config, environ))


class ClientSide(ClientStrategy):
    """Put the calls into the page; the browser library makes them."""

    replays = True

    def __init__(self, script: Script, handing_over: HandingOver) -> None:
        self._script = script
        self._handing_over = handing_over

    def flush(
        self,
        calls: CallLog,
        visitor: strategy.Visitor,
        exchange: strategy.Exchange | None,
    ) -> list[Call]:
        if type(exchange) is not Exchange:
            raise Declined(NO_RESPONSE)

        if not exchange.headers.is_html:
            raise Declined(reasons.NOT_HTML)

        exchange.decline_old_news(calls)
        page, at = _locate(exchange, exchange.policy.page)
        _decline_successors(calls, exchange)
        hand_over = self._handing_over.prepare(calls, exchange)
        identity = hand_over.browser_identity
        # A browser with any cookie takes this one as well.
        is_first = "HTTP_COOKIE" not in exchange.request.environ
        snippet = self._script.snippet(
            exchange.request,
            calls=_made_once(hand_over),
            token=hand_over.token,
            browser_identity=identity,
            ids=identity.properties if is_first else None,
            declined=exchange.declined,
        )
        response = exchange.writable_response()
        injection.insert(response, page, at, snippet)
        mark_private(response, page=True)
        exchange.mark_carried()
        exchange.is_page = True
        self._handing_over.complete(hand_over, exchange, "page")
        return hand_over.calls.in_order

    def boot(self, exchange: Exchange) -> None:
        """Load the browser library on a page that has no calls of its own.

        Where the visitor may not be tracked, something stands in for it.

        :raises Declined: this isn't a page.
        """
        page, at = _locate(exchange, exchange.policy.boot)
        visitor = exchange.visitor
        # One whose library is blocked has as much of it.
        consent = visitor.consent.given and not visitor.client.is_blocked
        snippet = self._script.snippet(exchange.request, consent=consent)
        is_all = not exchange.is_copy
        response = exchange.writable_response()
        injection.insert(response, page, at, snippet)
        exchange.is_page = True

        if self._script.varies or visitor.client.is_blocked:
            give_own_validators(
                response, exchange.request, exchange.headers, snippet, is_all=is_all
            )


def _locate(exchange: Exchange, reason: str | None) -> tuple[bytes, int]:
    """Return the page, and where in it the script goes.

    :param reason: why there is to be nothing in it.
    :raises Declined: there is such a reason, or no place.
    """
    if reason:
        raise Declined(reason)

    return injection.locate(exchange.response, exchange.headers)


def _decline_successors(calls: CallLog, exchange: Exchange) -> None:
    """Leave to the server what happened to somebody who would get other ids from the
    browser library: the server alone says who comes after a reset.

    :raises Declined: there is an event after a reset, here or elsewhere.
    """
    visitor, is_reset = exchange.visitor, False

    if not visitor.successors or not visitor.may_write_cookie or exchange.policy.cookie:
        return

    for call in calls:
        is_reset = is_reset or call.name == "reset"

        if is_reset and (call.tracks or visitor.is_taken_elsewhere):
            raise Declined("there are events of the next visitor")


def _made_once(hand_over: HandOver) -> list[t.Any]:
    """Put calls into the order in which they are to be made, by what is made once.

    A page that is shown again, perhaps after its visitor has signed out, makes none
    of its calls again, and doesn't identify anybody.
    """
    id = hand_over.id
    parts = [(entry.id, entry.calls) for entry in hand_over.entries]
    parts.append((id, hand_over.own))
    made_once = [(f"{one}b", part.before_setup) for one, part in parts]
    made_once.append((f"{id}s", hand_over.calls.setup))
    made_once += [(one, part.tracking) for one, part in parts]
    return [[one, [call.wire for call in made]] for one, made in made_once if made]


class CapableClientSide(ClientStrategy):
    """Hand the calls to a client that says it can make them."""

    replays = True

    def __init__(
        self, config: Config, signer: Signer | None, handing_over: HandingOver
    ) -> None:
        self._config = config
        self._signer = signer
        self._handing_over = handing_over

    def flush(
        self,
        calls: CallLog,
        visitor: strategy.Visitor,
        exchange: strategy.Exchange | None,
    ) -> list[Call]:
        if type(exchange) is not Exchange:
            raise Declined(NO_RESPONSE)

        if reason := exchange.visitor.client.incapable or exchange.policy.header:
            raise Declined(reason)

        exchange.decline_old_news(calls)
        _decline_successors(calls, exchange)
        hand_over = self._handing_over.prepare(
            calls, exchange, acknowledges=exchange.visitor.client.acknowledges
        )
        needed = required_calls(hand_over.calls, exchange.visitor)

        if not needed:
            raise Declined("nothing but set-up calls")

        identity = hand_over.browser_identity
        headers = self._headers(needed, hand_over, identity)

        if len(headers[CALLS_HEADER]) > self._room(exchange, hand_over, headers):
            raise Declined("the other headers leave no room for it")

        response = exchange.writable_response()

        for name, value in headers.items():
            # Of each that is set Flask asks whether it is there: 20 steps more, of 429,
            # a call in the header of a fetch.
            if name.lower() in exchange.headers:
                response.headers[name] = value
            else:
                response.headers.add(name, value)

        mark_private(response, header=True)
        exchange.mark_carried()
        self._handing_over.complete(hand_over, exchange, "header")
        return needed

    def _headers(
        self, calls: c.Iterable[Call], hand_over: HandOver, identity: Identity
    ) -> dict[str, str]:
        text = dumps([call.wire for call in calls])
        most = self._config.max_header

        if len(text) > most:
            raise Declined(f"more than {most} bytes of header")

        headers = {CALLS_HEADER: text, PROJECT_HEADER: str(self._config.token)}

        if hand_over.token is not None:
            headers[HAND_OVER_HEADER] = hand_over.token

        signature = self._signer.sign(text, identity) if self._signer else None

        if signature:
            headers[SIGNATURE_HEADER] = signature

        return headers

    def _room(
        self, exchange: Exchange, hand_over: HandOver, headers: dict[str, str]
    ) -> int:
        entries, due = exchange.delayed.entries, exchange.due_entries
        beside = expected_size(is_changed=bool(entries)) - len(headers[CALLS_HEADER])

        for name, value in headers.items():
            beside += len(name) + len(value) + 4

        return room_for_calls(
            self._config,
            exchange.request,
            exchange.response,
            beside,
            library_cookie=exchange.visitor.consent.choice is not None
            or len(entries) > len(due)
            # One who is new gets ids with it.
            or (hand_over.token is not None and exchange.introduces),
        )


def required_calls(calls: CallLog, visitor: Visitor) -> list[Call]:
    """Return the calls that a client has to make to be as far as this request is."""
    known = visitor.browser_identity
    user_id = Identity().after(calls.setup).user_id
    # A browser's visitor is seldom unknown, that of an app for phones always is.
    may_sign_in = known or (visitor.client.is_browser and not visitor.is_shown)

    if calls.before_setup or (may_sign_in and user_id not in (None, known.user_id)):
        return calls.in_order

    return calls.tracking


class ServerStrategy(Strategy):
    """Hand the calls to a transport, which sends them to Mixpanel.

    :param transport: ``None`` if there is none.
    """

    keeps_ledger = True

    def __init__(self, transport: Transport | None, ledger: Ledger) -> None:
        self.transport = transport
        self._ledger = ledger

    def flush(
        self,
        calls: CallLog,
        visitor: strategy.Visitor,
        exchange: strategy.Exchange | None,
    ) -> list[Call]:
        transport = self.transport

        if transport is None:
            raise Declined("there is no background transport")

        envelope = visitor.envelope(calls)

        if not transport.send(envelope):
            raise Declined(_NO_ROOM)

        if not transport.reports_delivery:
            with self._ledger.transfer():
                self._ledger.record(envelope.records)
                self._ledger.deliver(envelope.records)

        return envelope.calls


class AsyncServerSide(ServerStrategy):
    """Send the calls from the server, in the background."""


class ServerSide(ServerStrategy):
    """Send the calls from the server, now."""


def make_strategies(
    config: Config,
    signer: Signer | None,
    handing_over: HandingOver,
    background: Transport | None,
    inline: Transport,
    ledger: Ledger,
) -> list[Strategy]:
    """Make the extension's strategies, and those of an app's own.

    :param signer: of what browsers may hand back.
    """
    script = Script(config, signer, acknowledges=handing_over.is_on)
    others: list[ClientStrategy] = [
        ClientSide(script, handing_over),
        CapableClientSide(config, signer, handing_over),
    ]
    names = config.strategy_names
    is_replayed = any(one.replays for one in others if one.name in names)
    return [
        Delayed(config, handing_over, is_replayed),
        *others,
        AsyncServerSide(background, ledger),
        ServerSide(inline, ledger),
        *(one() for one in config.strategies if isinstance(one, type)),
    ]
