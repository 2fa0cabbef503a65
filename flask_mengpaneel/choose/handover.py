"""Calls that a browser couldn't make, handed back to the app that gave them to it."""

from __future__ import annotations

import base64
import collections
import collections.abc as c
import dataclasses
import ipaddress
import json
import os
import threading
import time
import typing as t
import weakref
from urllib.parse import urlsplit

from flask import Response
from itsdangerous import BadSignature, TimestampSigner

from ..calls import Call, CallLog, dumps
from ..identity import NOBODY, Identity
from ..visitor.client import BLOCKED_COOKIE
from ..visitor.visitor import Visitor
from .response_policy import carrier, keep_private

if t.TYPE_CHECKING:
    from flask import Flask, Request

    from .flusher import Flusher

SIGNATURE_HEADER = "X-Mengpaneel-Signature"

# Seconds after which the library gets another chance there.
_BLOCKED_FOR = 3600

# Seconds for which a page's calls are taken back: a tab may sleep for long.
_MAX_AGE = 7 * 86400

# A page of calls that Mixpanel takes is smaller.
_MAX_BYTES = 2_000_000

_Answer: type[Response] = carrier(Response)

# Hand-backs that one sender may send a minute; a page sends one or two.
_MAX_A_MINUTE = 120


class Signed(t.NamedTuple):
    """What a signature says."""

    #: No two signatures have the same.
    id: str
    #: Whom the browser took the visitor for when the text was given to it.
    given_to: Identity


class Signer:
    """Signs what the app gives to browsers, so that nothing else is taken back.

    :param token: of the project; an app of another project may have the same key.
    """

    def __init__(self, app: Flask, token: str | None) -> None:
        # Else an app would be freed by Python's garbage collector only.
        self._app = weakref.ref(app)
        self._salt = f"mengpaneel {token}"

    @property
    def _signer(self) -> TimestampSigner | None:
        app = self._app()
        key = app and app.secret_key

        if app is None or not key:
            return None

        # The last one signs, as in Flask's own session.
        former = app.config.get("SECRET_KEY_FALLBACKS") or []
        keys: list[t.Any] = [*former, key]
        return TimestampSigner(keys, salt=self._salt)

    def sign(self, text: str, given_to: Identity = NOBODY) -> str | None:
        """The signature of a text; ``None`` if the app has no secret key.

        :param given_to: whom the browser takes the visitor for that it is given to.
        """
        signer = self._signer

        if signer is None:
            return None

        visitor = base64.urlsafe_b64encode(dumps(given_to.to_json()).encode()).decode()
        # The same calls, made again within a second, are other calls.
        unique = f"{text}.{visitor}.{os.urandom(6).hex()}"
        return signer.sign(unique).decode()[len(text) + 1 :]

    def verify(self, text: t.Any, signature: t.Any) -> Signed | None:
        """Read a signature, if this app signed the text with it not too long ago.

        :raises ValueError: the text isn't the whole of what was signed.
        """
        signer = self._signer

        if signer is None or type(text) is not str or type(signature) is not str:
            return None

        try:
            signer.unsign(f"{text}.{signature}", max_age=_MAX_AGE)
        except BadSignature:
            return None

        # The last part has several spellings.
        visitor, unique, at, _ = signature.split(".")
        given_to = json.loads(base64.urlsafe_b64decode(visitor))
        return Signed(f"{unique}.{at}", Identity.from_json(given_to))


class RecentlySeen:
    """What was seen lately, for as many things as a process can afford."""

    def __init__(self, most: int) -> None:
        self._seen: collections.OrderedDict[t.Any, int] = collections.OrderedDict()
        self._most = most
        self._lock = threading.Lock()

    def count(self, thing: t.Any) -> int:
        """See a thing, and say how often it was seen before."""
        with self._lock:
            before = self._seen.pop(thing, 0)
            self._seen[thing] = before + 1

            if len(self._seen) > self._most:
                self._seen.popitem(last=False)

            return before


@dataclasses.dataclass(slots=True)
class Part:
    """Calls of a hand-over in a row, as far as they are handed back."""

    #: Who it was before the first of them.
    start: Identity
    #: Who it was after the last of them.
    end: Identity
    calls: list[Call] = dataclasses.field(default_factory=list)
    #: Who there is after each ``reset()`` among them.
    successors: tuple[Identity, ...] = ()


class HandOver:
    """The calls that a browser was given at once, and whose they are.

    :param given_to: whom the browser took its visitor for then.
    :param visitor: whoever hands calls back.
    """

    def __init__(self, calls: list[Call], given_to: Identity, visitor: Visitor) -> None:
        self._calls = calls
        self._given_to = given_to
        known = visitor.browser_identity
        last_user = given_to.after(calls).user_id
        users = {call.arguments[0] for call in calls if call.name == "identify"}
        resets = sum(call.name == "reset" for call in calls)
        is_same_device = known.device_id == given_to.device_id and (
            known.user_id in {given_to.user_id, *users}
        )
        # The library makes ids itself for those who have none.
        is_new_device = bool(resets or not given_to) and known.user_id == last_user
        #: Whether the browser is still in the hands of whoever got the calls.
        self.is_of_visitor = (
            is_same_device if given_to else known is NOBODY
        ) or is_new_device
        #: Whoever had no ids when the calls were given, and who came after a reset.
        self._strangers = [Identity.new() for _ in range(resets + (not given_to))]

        if not known and not given_to:
            self._strangers[0] = visitor.identity
        elif is_new_device and known.device_id:
            self._strangers[-1] = Identity(known.device_id)

    def parts(self, positions: c.Collection[int]) -> list[Part]:
        """The calls at these positions, each after all that came before it.

        The library may have made some of them, and not only those that say nothing
        of who it is.
        """
        parts: list[Part] = []
        strangers = iter(self._strangers)
        identity = self._given_to or next(strangers)

        for position, call in enumerate(self._calls):
            start, is_reset = identity, call.name == "reset"
            identity = next(strangers) if is_reset else identity.after([call])

            if position in positions:
                if not parts or parts[-1].end != start:
                    parts.append(Part(start, start))

                part = parts[-1]
                part.calls.append(call)
                part.end = identity

                if is_reset:
                    part.successors += (identity,)

        return parts


class Fallback:
    """The endpoint that takes calls back, and delivers them from the server."""

    def __init__(self, flusher: Flusher, signer: Signer) -> None:
        self._flusher = flusher
        self._signer = signer
        self._taken = RecentlySeen(20_000)
        self._senders = RecentlySeen(10_000)

    def take(self, request: Request) -> Response:
        """Answer a hand-back: ``{"text": ..., "signature": ..., "calls": [...]}``.

        ``text`` is what the app gave to the browser, to the letter; ``calls`` are the
        positions of those of its calls that weren't made.
        """
        response = self._answer(request)
        # There are caches that keep answers to a POST.
        keep_private(response, header=True)
        return response

    def _answer(self, request: Request) -> Response:
        # First, so that another site's pages can't use up what a visitor may send.
        if not is_from_own_page(request):
            return _Answer(status=403)

        if (request.content_length or 0) > _MAX_BYTES or request.content_length is None:
            return _Answer(status=413)

        sender = sender_of(request.remote_addr), int(time.time() // 60)

        if self._senders.count(sender) >= _MAX_A_MINUTE:
            return _Answer(status=429)

        try:
            value = json.loads(request.get_data(cache=False))
            text, signature, positions = (
                value[name] for name in ("text", "signature", "calls")
            )
            signed = self._signer.verify(text, signature)

            if signed is None:
                return _Answer(status=403)

            calls = _calls(text)
            _check(positions, len(calls))
        except (ValueError, TypeError, LookupError, RecursionError):
            return _Answer(status=400)

        response = _Answer(status=204)
        visitor = Visitor(self._flusher.config, request)

        if visitor.consent.given is not True:
            return response

        hand_over = HandOver(calls, signed.given_to, visitor)

        if value.get("blocked") and hand_over.is_of_visitor:
            response.set_cookie(
                BLOCKED_COOKIE, "1", max_age=_BLOCKED_FOR, samesite="Lax"
            )

        new = {one for one in positions if not self._taken.count((signed.id, one))}
        self._deliver(hand_over, hand_over.parts(new), visitor, response)
        return response

    def _deliver(
        self,
        hand_over: HandOver,
        parts: list[Part],
        visitor: Visitor,
        response: Response,
    ) -> None:
        """Send calls as whose they are, and tell the browser if it isn't anybody else.

        Where there are several parts the library works, and knows it all.
        """
        for part in parts:
            is_current = part.start == visitor.identity
            remembers = (
                hand_over.is_of_visitor
                and len(parts) == 1
                and (is_current or part.end == visitor.browser_identity)
            )
            person = (
                visitor.as_browser_identity(part.start)
                if hand_over.is_of_visitor and not is_current
                else visitor.as_person(part.start)
            )
            person.successors = part.successors
            self._flusher.take_back(
                CallLog(tracking=part.calls), person, response if remembers else None
            )


def is_from_own_page(request: Request) -> bool:
    """Whether a page of this very origin has sent a request, or a program.

    Browsers say where a request comes from; no page can keep them from it, or have
    them say something else. Old ones, and all of them over plain HTTP, have no
    ``Sec-Fetch-Site`` but an ``Origin``: https://www.w3.org/TR/fetch-metadata/
    """
    site = request.headers.get("Sec-Fetch-Site")

    if site is not None:
        return site == "same-origin"

    origin = request.headers.get("Origin", request.headers.get("Referer"))

    if origin is None:
        return True

    try:
        theirs, ours = urlsplit(origin), urlsplit(f"//{request.host}")
        # A proxy may have taken the encryption off.
        return theirs.scheme in ("http", "https") and (
            (theirs.hostname, _port(theirs.port)) == (ours.hostname, _port(ours.port))
        )
    except ValueError:
        return False


def _port(port: int | None) -> int | None:
    return None if port in (80, 443) else port


def sender_of(address: str | None) -> int | None:
    """The network that a single sender has: for IPv6, one of 64 bits.

    What isn't an address, as a proxy may pass it on, has no limit of its own, and so
    takes no memory.
    """
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return None

    if parsed.version == 4:
        return int(parsed)

    # What an IPv6 socket says of an IPv4 client: ::ffff:192.0.2.7.
    mapped = parsed.ipv4_mapped
    return int(mapped) if mapped else -(int(parsed) >> 64) - 1


def _calls(text: str) -> list[Call]:
    """The calls of a page's data, or of a header."""
    data = json.loads(text)
    hand_overs = data["calls"] if isinstance(data, dict) else [[None, data]]
    return [Call.from_json(wire) for _, wires in hand_overs for wire in wires]


def _check(positions: t.Any, total: int) -> None:
    """Make sure that positions are of calls, each named once.

    :raises ValueError: they aren't.
    """
    if (
        not isinstance(positions, list)
        or len(positions) > total
        # `True` would be a second name of the call at 1.
        or not all(type(one) is int and 0 <= one < total for one in positions)
        or len(set(positions)) < len(positions)
    ):
        raise ValueError("not the positions of calls")
