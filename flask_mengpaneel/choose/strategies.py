"""The five ways for the calls of a response, in the order in which they are asked."""

from __future__ import annotations

import collections.abc as c
import typing as t

from .. import strategy
from ..calls import Call, CallLog, dumps
from ..identity import Identity, hex_id
from ..outcome import Declined
from ..record import profile_merging
from ..strategy import Strategy
from ..visitor.visitor import Visitor
from . import injection
from .carrier import (
    CALLS_HEADER,
    PROJECT_HEADER,
    SIGNATURE_HEADER,
    give_own_validators,
    mark_private,
)
from .delayed_calls import Entry
from .exchange import Exchange
from .header_room import room_for_calls
from .script import Script
from .session_cookie import expected_size
from .session_storage import store_in_session

if t.TYPE_CHECKING:
    from ..config import Config
    from ..deliver.ledger import Ledger
    from ..transport import Transport
    from .signing import Signer

#: The strategies that take calls out of the session.
REPLAYING = frozenset({"ClientSide", "CapableClientSide"})

_NO_RESPONSE = "not in a request"
_NO_ROOM = "the background transport has no room"


class Delayed(Strategy):
    """Keep the calls in the session until the redirect is followed."""

    is_client_side = True

    def __init__(self, config: Config) -> None:
        self._config = config

    def flush(
        self,
        calls: CallLog,
        visitor: strategy.Visitor,
        exchange: strategy.Exchange | None,
    ) -> list[Call]:
        if not isinstance(exchange, Exchange):
            raise Declined(_NO_RESPONSE)

        if not exchange.is_redirect:
            raise Declined("not a redirect")

        if exchange.redirects_offsite:
            raise Declined("a redirect to another site")

        if not calls.before_setup and not calls.tracking:
            raise Declined("nothing but set-up calls")

        if exchange.visitor.successors and self._config.cookie_persistence:
            # The response itself tells the browser.
            raise Declined("the next page is another visitor's")

        if REPLAYING.isdisjoint(self._config.strategies):
            raise Declined("no other strategy would take the calls up again")

        store_in_session(calls, exchange, self._config)
        return list(calls)


class ClientSide(Strategy):
    """Put the calls into the page; the browser library makes them."""

    is_client_side = True

    def __init__(self, config: Config, signer: Signer | None) -> None:
        self._config = config
        self._script = Script(config, signer)

    def flush(
        self,
        calls: CallLog,
        visitor: strategy.Visitor,
        exchange: strategy.Exchange | None,
    ) -> list[Call]:
        if not isinstance(exchange, Exchange):
            raise Declined(_NO_RESPONSE)

        if not injection.is_html(exchange.headers.get("content-type", "")):
            raise Declined("not HTML")

        page, at = _locate(exchange, exchange.policy.page)
        snippet = self._script.snippet(
            exchange.request,
            calls=_hand_overs(calls, exchange.due_entries),
            may_race=not all(entry.is_repeatable for entry in exchange.due_entries),
            browser_identity=exchange.visitor.browser_identity,
            declined=exchange.declined,
        )
        response = exchange.writable_response()
        injection.insert(response, page, at, snippet)
        mark_private(response, page=True)
        return exchange.mark_carried(_merged_log(calls, exchange.due_entries))

    def boot(self, exchange: Exchange) -> None:
        """Load the browser library on a page that has no calls of its own.

        :raises Declined: this isn't a page.
        """
        page, at = _locate(exchange, exchange.policy.boot)
        snippet = self._script.snippet(exchange.request)
        is_all = not exchange.is_copy
        response = exchange.writable_response()
        injection.insert(response, page, at, snippet)

        if self._config.consent_varies:
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


def _merged_log(calls: CallLog, entries: c.Sequence[Entry]) -> CallLog:
    """Put the calls that waited and those of this request together, by stage."""
    log = CallLog()

    for one in [*(entry.calls for entry in entries), calls]:
        log.before_setup += one.before_setup
        log.tracking += one.tracking

        if one.set_up:
            log.setup = one.setup
            log.set_up = True

    return log


def _hand_overs(calls: CallLog, entries: c.Sequence[Entry]) -> list[t.Any]:
    """Put calls into the order in which they are to be made, by what is made once.

    A page that is shown again, perhaps after its visitor has signed out, makes none
    of its calls again, and doesn't identify anybody.
    """
    own = hex_id()[:12]
    parts = [*((entry.id, entry.calls) for entry in entries), (own, calls)]
    hand_overs = [
        *((f"{id}b", part.before_setup) for id, part in parts),
        (f"{own}s", _merged_log(calls, entries).setup),
        *((id, part.tracking) for id, part in parts),
    ]
    return [
        [once, [call.wire for call, _ in profile_merging.merge(made)]]
        for once, made in hand_overs
        if made
    ]


class CapableClientSide(Strategy):
    """Hand the calls to a client that says it can make them."""

    is_client_side = True

    def __init__(self, config: Config, signer: Signer | None) -> None:
        self._config = config
        self._signer = signer

    def flush(
        self,
        calls: CallLog,
        visitor: strategy.Visitor,
        exchange: strategy.Exchange | None,
    ) -> list[Call]:
        if not isinstance(exchange, Exchange):
            raise Declined(_NO_RESPONSE)

        reason = exchange.visitor.client.incapable or exchange.policy.header

        if reason:
            raise Declined(reason)

        # Two requests that are under way at once have the same session. A page knows
        # which of its calls were made already; a header doesn't.
        due = [entry for entry in exchange.due_entries if entry.is_repeatable]
        needed = required_calls(_merged_log(calls, due), exchange.visitor)

        if not needed:
            raise Declined("nothing but set-up calls")

        headers = self._headers(needed, exchange.visitor)

        if len(headers[CALLS_HEADER]) > self._room(exchange, due, headers):
            raise Declined("the other headers leave no room for it")

        exchange.due_entries = due
        response = exchange.writable_response()
        response.headers.update(headers)
        mark_private(response, header=True)
        return exchange.mark_carried(needed)

    def _headers(self, calls: c.Iterable[Call], visitor: Visitor) -> dict[str, str]:
        text = dumps([call.wire for call, _ in profile_merging.merge(calls)])
        most = self._config.max_header

        if len(text) > most:
            raise Declined(f"more than {most} bytes of header")

        headers = {CALLS_HEADER: text, PROJECT_HEADER: str(self._config.token)}
        signature = (
            self._signer.sign(text, visitor.browser_identity) if self._signer else None
        )

        if signature:
            headers[SIGNATURE_HEADER] = signature

        return headers

    def _room(
        self, exchange: Exchange, due: list[Entry], headers: dict[str, str]
    ) -> int:
        entries = exchange.delayed.entries
        beside = expected_size(is_changed=bool(entries)) - len(headers[CALLS_HEADER])

        for name, value in headers.items():
            beside += len(name) + len(value) + 4

        return room_for_calls(
            self._config,
            exchange.request,
            exchange.response,
            beside,
            library_cookie=exchange.visitor.consent.choice is not None
            or len(entries) > len(due),
        )


def required_calls(calls: CallLog, visitor: Visitor) -> list[Call]:
    """Return the calls that a client has to make to be as far as this request is."""
    user_id = Identity().after(calls.setup).user_id
    signs_in = visitor.browser_identity and user_id not in (
        None,
        visitor.browser_identity.user_id,
    )

    # The library holds profile operations back until `identify` was called on the
    # page; calling it again with the same id costs nothing.
    updates = visitor.browser_identity and any(
        call.wire[0][0] == "people" for call in calls.tracking
    )

    if calls.before_setup or signs_in or updates:
        return list(calls)

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
    background: Transport | None,
    inline: Transport,
    ledger: Ledger,
) -> list[Strategy]:
    """Make the extension's strategies, and those of an app's own."""
    return [
        Delayed(config),
        ClientSide(config, signer),
        CapableClientSide(config, signer),
        AsyncServerSide(background, ledger),
        ServerSide(inline, ledger),
        *(one() for one in config.strategies if isinstance(one, type)),
    ]
