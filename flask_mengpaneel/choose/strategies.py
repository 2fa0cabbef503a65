"""The five ways for the calls of a response, in the order in which they are asked."""

from __future__ import annotations

import collections.abc as c
import dataclasses
import functools
import typing as t
from abc import ABC, abstractmethod

from ..calls import Call, CallLog, Json, dumps
from ..identity import Identity, hex_id
from ..outcome import REDIRECTS, Declined
from ..record import profile_merging as profiles
from ..visitor.attribution import page_properties
from ..visitor.client import join_url
from ..visitor.visitor import Visitor
from . import delayed_calls as waiting
from . import injection, redirects
from .delayed_calls import Entry, Waiting
from .handover import SIGNATURE_HEADER
from .response_policy import Carrier, ResponsePolicy, carrier, keep_apart, keep_private

if t.TYPE_CHECKING:
    from flask import Flask, Request, Response

    from ..config import Config
    from ..deliver.ledger import Ledger
    from ..transport import Transport
    from .handover import Signer

RESPONSE_HEADER = "X-Mengpaneel-Calls"
PROJECT_HEADER = "X-Mengpaneel-Project"

#: The strategies that take calls out of the session.
REPLAYING = frozenset({"ClientSide", "CapableClientSide"})


class Kind(t.NamedTuple):
    """What a response is, as far as it rules strategies out."""

    is_redirect: bool
    is_html: bool
    #: Why the client can't make calls itself, if it can't.
    incapable: str | None


# There are twelve.
_kind = functools.cache(Kind)


@dataclasses.dataclass(slots=True)
class Exchange:
    """A request, the response to it, and what is known of whoever sent it."""

    config: Config
    request: Request
    response: Response
    #: The response's headers as the app has set them; the names are in lower case.
    headers: dict[str, str]
    visitor: Visitor
    #: What waits in the session.
    waiting: Waiting
    #: What of that which waits may be made with this response.
    entries: list[Entry] = dataclasses.field(default_factory=list)
    #: Why strategies declined until now.
    declined: dict[str, str] = dataclasses.field(default_factory=dict)
    #: Whether the response has calls in it.
    carries: bool = False
    #: The calls that the server sends itself.
    sent: c.Sequence[Call] = ()
    #: Whether the calls of the request wait in the session.
    holds: bool = False
    #: The calls of the request itself, if the client or the session has them.
    handed_over: CallLog | None = None
    #: Whether the response is a copy, made to be changed.
    is_own: bool = False
    #: What the response may be given.
    policy: ResponsePolicy = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.policy = ResponsePolicy(
            self.config, self.request, self.response, self.headers, self.visitor
        )

    @property
    def kind(self) -> Kind:
        """What the response is, to rule strategies out."""
        headers = self.headers
        return _kind(
            "location" in headers and self.response.status_code in REDIRECTS,
            injection.is_html(headers.get("content-type", "")),
            self.visitor.client.incapable,
        )

    @property
    def redirects_offsite(self) -> bool:
        """Whether the response sends the visitor to another site."""
        return self.kind.is_redirect and not redirects.is_internal(
            self.headers["location"], self.request
        )

    def own(self) -> Carrier:
        """The response, as one that is given to nobody else: a view may give the same
        object to everybody."""
        if not self.is_own:
            self.response = _copy(self.response)
            self.is_own = True

        return t.cast(Carrier, self.response)

    def mark_carried(self, calls: c.Iterable[Call]) -> list[Call]:
        """The response has the calls now, and those of them that waited need not."""
        self.carries = True

        if self.entries:
            self.waiting.keep(
                [entry for entry in self.waiting.entries if entry not in self.entries]
            )

        return list(calls)


def _copy(response: Response) -> Carrier:
    """A response that can be changed without changing this one."""
    # 2 us; `copy.copy` takes 7.
    kind: t.Any = type(response)
    copied: Carrier = kind.__new__(carrier(kind))
    copied.__dict__.update(response.__dict__)

    for name in _slots(kind):
        if hasattr(response, name):
            setattr(copied, name, getattr(response, name))

    copied.headers = response.headers.copy()
    # It runs what is to run when this one is closed, which it is in its place.
    copied._on_close = list(response._on_close)
    # It writes to the response that it was made for.
    copied.__dict__.pop("stream", None)

    if type(response.response) is list:
        copied.response = response.response[:]

    return copied


def unused(response: Response, cookie_name: str) -> Response:
    """A copy of a response that an app has kept with what was given to somebody else,
    without that."""
    copied = _copy(response)
    copied._mengpaneel_said = copied._mengpaneel_cookie = None

    for name in (RESPONSE_HEADER, PROJECT_HEADER, SIGNATURE_HEADER):
        del copied.headers[name]

    cookies = copied.headers.getlist("Set-Cookie")
    kept = [line for line in cookies if line.partition("=")[0] != cookie_name]

    if len(kept) < len(cookies):
        copied.headers.setlist("Set-Cookie", kept)

    if injection.is_used(copied):
        injection.clean(copied)

    return copied


@functools.lru_cache(maxsize=32)
def _slots(kind: t.Any) -> list[str]:
    named = [vars(one).get("__slots__", ()) for one in kind.__mro__]
    slots = [(one,) if isinstance(one, str) else one for one in named]
    return [
        name
        for names in slots
        for name in names
        if name not in ("__dict__", "__weakref__")
    ]


class Strategy(ABC):
    """One way for the calls of a response."""

    #: Whether the calls are out of the server's hands then.
    is_client_side = True

    #: The name in settings and outcomes.
    name: t.ClassVar[str]

    def __init_subclass__(cls) -> None:
        cls.name = cls.__name__

    @abstractmethod
    def rules_out(self, kind: Kind | None) -> str | None:
        """Say why it takes no calls at all with such a response, if it doesn't.

        :param kind: ``None`` where there is no response any more, or never was.
        """

    @abstractmethod
    def flush(
        self, calls: CallLog, visitor: Visitor, exchange: Exchange | None
    ) -> list[Call]:
        """Take the calls, unless the kind of the response has ruled that out.

        :param exchange: ``None`` where there is no response any more, or never was.
        :return: the calls that were needed, in the order in which they are made.
        :raises Declined: it can't take them, and has changed nothing.
        """


class ResponseStrategy(Strategy):
    """One that needs a response, which carries the calls to the client."""

    def rules_out(self, kind: Kind | None) -> str | None:
        return "not in a request" if kind is None else self.lacks(kind)

    @abstractmethod
    def lacks(self, kind: Kind) -> str | None:
        """Say what such a response is not, if that rules the strategy out."""

    def flush(
        self, calls: CallLog, visitor: Visitor, exchange: Exchange | None
    ) -> list[Call]:
        assert exchange is not None, "ruled out"
        return self.carry(calls, visitor, exchange)

    @abstractmethod
    def carry(self, calls: CallLog, visitor: Visitor, exchange: Exchange) -> list[Call]:
        """Let the response carry the calls: see :meth:`flush`."""


class Delayed(ResponseStrategy):
    """Keep the calls in the session until the redirect is followed."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def lacks(self, kind: Kind) -> str | None:
        return None if kind.is_redirect else "not a redirect"

    def carry(self, calls: CallLog, visitor: Visitor, exchange: Exchange) -> list[Call]:
        if exchange.redirects_offsite:
            raise Declined("a redirect to another site")

        if not calls.before_setup and not calls.tracking:
            raise Declined("nothing but set-up calls")

        if visitor.successors and self._config.cookie_persistence:
            # The response itself tells the browser.
            raise Declined("the next page is another visitor's")

        if REPLAYING.isdisjoint(self._config.strategies):
            raise Declined("no other strategy would take the calls up again")

        hold(calls, exchange)
        return list(calls)


def hold(calls: CallLog, exchange: Exchange) -> None:
    """Keep calls in the session, after those that wait there already.

    :raises Declined: it can't hold them.
    """
    policy, visitor = exchange.policy, exchange.visitor
    reason = policy.new_session_data

    if reason:
        raise Declined(reason)

    seen = visitor.browser_identity

    # A new visitor gets ids with this very response, so that the calls are theirs
    # whoever sits in front of the browser when they are made.
    if visitor.may_write_cookie and policy.cookie is None:
        seen = visitor.identity

    entry = Entry.of(_stamped(calls, visitor, seen), seen.after(calls), seen)
    entries = [*exchange.waiting.entries, entry]

    try:
        if not waiting.can_hold():
            raise Declined("there is no session: SECRET_KEY is not set")

        if not exchange.waiting.fits(entries, policy.room_for_session):
            raise Declined("the session can't hold so much")

        exchange.waiting.keep(entries)
        exchange.holds = True
        visitor.identity_sent = seen is visitor.identity
    except Declined:
        raise
    except Exception as error:
        raise Declined(f"the session fails: {error!r}") from error


def _stamped(calls: CallLog, visitor: Visitor, identity: Identity) -> CallLog:
    """Name in each event the person whom it happened to, and where.

    What the caller says of an event wins in the browser library, so the event stays
    with this person, whoever uses the browser when it is sent.
    """
    identity = identity.after([*calls.before_setup, *calls.setup])
    page = _page_properties(visitor)
    tracking = []

    for call in calls.tracking:
        identity = identity.after([call])
        tracking.append(
            call.with_defaults({**page, **identity.properties}) if call.tracks else call
        )

    return CallLog(calls.before_setup, calls.setup, tracking, calls.set_up)


def _page_properties(visitor: Visitor) -> dict[str, Json]:
    url, referrer = visitor.client.page
    return dict(page_properties(join_url(url), referrer)) if url else {}


class ClientSide(ResponseStrategy):
    """Put the calls into the page; the browser library makes them."""

    def __init__(self, config: Config, app: Flask, signer: Signer | None) -> None:
        self._script = injection.Script(config, app, signer)

    def lacks(self, kind: Kind) -> str | None:
        return None if kind.is_html else "not HTML"

    def carry(self, calls: CallLog, visitor: Visitor, exchange: Exchange) -> list[Call]:
        page, at = _page(exchange, exchange.policy.page)
        snippet = self._script.snippet(
            exchange.request,
            calls=_hand_overs(calls, exchange.entries),
            races=not all(entry.is_repeatable for entry in exchange.entries),
            given_to=visitor.browser_identity,
            declined=exchange.declined,
        )
        injection.insert(exchange.own(), page, at, snippet)
        keep_private(exchange.response, page=True)
        return exchange.mark_carried(_merged_log(calls, exchange.entries))

    def boot(self, exchange: Exchange) -> None:
        """Load the browser library on a page that has no calls of its own.

        :raises Declined: this isn't a page.
        """
        page, at = _page(exchange, exchange.policy.boot)
        snippet = self._script.snippet(exchange.request)
        is_all = not exchange.is_own
        response = exchange.own()
        injection.insert(response, page, at, snippet)

        if exchange.policy.consent_varies:
            keep_apart(
                response, exchange.request, exchange.headers, snippet, is_all=is_all
            )


def _page(exchange: Exchange, reason: str | None) -> tuple[bytes, int]:
    """The page, and where in it the script goes.

    :param reason: why there is to be nothing in it.
    :raises Declined: there is such a reason, or no place.
    """
    if reason:
        raise Declined(reason)

    return injection.find(exchange.response, exchange.headers)


def _merged_log(calls: CallLog, entries: c.Sequence[Entry]) -> CallLog:
    """The calls that waited and those of this request, each in its stage."""
    log = CallLog()

    for one in [*(entry.calls for entry in entries), calls]:
        log.before_setup += one.before_setup
        log.tracking += one.tracking

        if one.set_up:
            log.setup = one.setup
            log.set_up = True

    return log


def _hand_overs(calls: CallLog, entries: c.Sequence[Entry]) -> list[t.Any]:
    """The calls in the order in which they are to be made, by what is made once.

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
        [once, [call.wire for call, _ in profiles.merge(made)]]
        for once, made in hand_overs
        if made
    ]


class CapableClientSide(ResponseStrategy):
    """Hand the calls to a client that says it can make them."""

    def __init__(self, config: Config, signer: Signer | None) -> None:
        self._config = config
        self._signer = signer

    def lacks(self, kind: Kind) -> str | None:
        return kind.incapable

    def carry(self, calls: CallLog, visitor: Visitor, exchange: Exchange) -> list[Call]:
        policy, reason = exchange.policy, exchange.policy.header

        if reason:
            raise Declined(reason)

        # Two requests that are under way at once have the same session. A page knows
        # which of its calls were made already; a header doesn't.
        exchange.entries = [one for one in exchange.entries if one.is_repeatable]
        needed = required_calls(_merged_log(calls, exchange.entries), visitor)

        if not needed:
            raise Declined("nothing but set-up calls")

        header = dumps([call.wire for call, _ in profiles.merge(needed)])
        most = self._config.max_header

        if len(header) > most:
            raise Declined(f"more than {most} bytes of header")

        signature = (
            self._signer.sign(header, visitor.browser_identity)
            if self._signer
            else None
        )
        given = {RESPONSE_HEADER: header, PROJECT_HEADER: str(self._config.token)}

        if signature:
            given[SIGNATURE_HEADER] = signature

        waiting = exchange.waiting
        beside = waiting.cookie_size(changed=bool(waiting.entries)) - len(header)

        for name, value in given.items():
            beside += len(name) + len(value) + 4

        writes = visitor.consent.choice is not None or len(waiting.entries) > len(
            exchange.entries
        )

        if len(header) > policy.room_for_header(beside, library_cookie=writes):
            raise Declined("the other headers leave no room for it")

        response = exchange.own()
        response.headers.update(given)
        keep_private(response, header=True)
        return exchange.mark_carried(needed)


def required_calls(calls: CallLog, visitor: Visitor) -> list[Call]:
    """The calls that a client has to make to be as far as this request is."""
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
    """Hand the calls to a transport, which sends them to Mixpanel."""

    is_client_side = False

    def __init__(self, transport: Transport | None, ledger: Ledger) -> None:
        self.transport = transport
        self._ledger = ledger

    def rules_out(self, kind: Kind | None) -> str | None:
        return None if self.transport else "there is no background transport"

    def flush(
        self, calls: CallLog, visitor: Visitor, exchange: Exchange | None
    ) -> list[Call]:
        assert self.transport is not None, "ruled out"

        if not calls.before_setup and not calls.tracking:
            return []

        envelope = visitor.envelope(calls)

        if not self.transport.send(envelope):
            raise Declined("the background transport has no room")

        if not self.transport.reports_delivery:
            with self._ledger.transfer():
                self._ledger.record(envelope.records)
                self._ledger.deliver(envelope.records)

        return envelope.calls


class AsyncServerSide(ServerStrategy):
    """Send the calls from the server, in the background."""


class ServerSide(ServerStrategy):
    """Send the calls from the server, now."""
