"""Calls that a browser couldn't make, handed back to the app that gave them to it."""

from __future__ import annotations

import collections.abc as c
import dataclasses
import json
import typing as t

from ..calls import Call, CallLog
from ..identity import NOBODY, Identity
from ..recently_seen import RecentlySeen
from ..visitor.client import BLOCKED_COOKIE
from ..visitor.visitor import Visitor
from .browser_posts import Senders, answer, refusal, sent_body
from .operations import without_group_operations

if t.TYPE_CHECKING:
    from flask import Request, Response

    from ..config import Config
    from .flusher import Flusher
    from .handing_over import HandingOver
    from .signing import Signer

# Seconds after which the library gets another chance there.
_BLOCKED_FOR = 3600

# A page of calls that Mixpanel takes is smaller.
_MAX_BYTES = 2_000_000

# Calls that were handed back that a process remembers.
_MAX_RETURNED = 20_000


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


class HandedBack:
    """The calls that a browser was given at once, and whose they are.

    :param browser_identity: whom the browser took its visitor for then.
    :param visitor: the one who hands calls back.
    """

    def __init__(
        self, calls: list[Call], browser_identity: Identity, visitor: Visitor
    ) -> None:
        self._calls = calls
        self._browser_identity = browser_identity
        known = visitor.browser_identity
        last_user = browser_identity.after(calls).user_id
        users = {call.arguments[0] for call in calls if call.name == "identify"}
        resets = sum(call.name == "reset" for call in calls)
        is_same_device = known.device_id == browser_identity.device_id and (
            known.user_id in {browser_identity.user_id, *users}
        )
        # The library makes ids itself for those who have none.
        is_new_device = (
            bool(resets or not browser_identity) and known.user_id == last_user
        )
        #: Whether the browser is still in the hands of the person who got the calls.
        self.is_of_visitor = (
            is_same_device if browser_identity else known is NOBODY
        ) or is_new_device
        #: The ids of a visitor who had none when the calls were given, and of those who
        #: came after a reset.
        self._new_identities = [
            Identity.new() for _ in range(resets + (not browser_identity))
        ]

        if not known and not browser_identity:
            self._new_identities[0] = visitor.identity
        elif is_new_device and known.device_id:
            self._new_identities[-1] = Identity(known.device_id)

    def parts(self, positions: c.Collection[int]) -> list[Part]:
        """Return the calls at these positions, each after all that came before it.

        The library may have made some of them, and not only those that say nothing
        of who it is.
        """
        parts: list[Part] = []
        new_identities = iter(self._new_identities)
        identity = self._browser_identity or next(new_identities)

        for position, call in enumerate(self._calls):
            start, is_reset = identity, call.name == "reset"
            identity = next(new_identities) if is_reset else identity.after([call])

            if position in positions:
                if not parts or parts[-1].end != start:
                    parts.append(Part(start, start))

                part = parts[-1]
                part.calls.append(call)
                part.end = identity

                if is_reset:
                    part.successors += (identity,)

        return parts


class HandBackEndpoint:
    """The endpoint that takes calls back, and delivers them from the server."""

    def __init__(
        self,
        config: Config,
        flusher: Flusher,
        signer: Signer,
        handing_over: HandingOver,
    ) -> None:
        self._config = config
        self._flusher = flusher
        self._signer = signer
        self._handing_over = handing_over
        self._returned = RecentlySeen(_MAX_RETURNED)
        self._senders = Senders()

    def answer(self, request: Request) -> Response:
        """Answer a hand-back: ``{"text": ..., "signature": ..., "calls": [...]}``.

        ``text`` is what the app gave to the browser, to the letter; ``calls`` are the
        positions of those of its calls that weren't made.
        """
        # First, so that another site's pages can't use up what a visitor may send.
        if (refused := refusal(request, _MAX_BYTES)) is not None:
            return refused

        if self._senders.is_too_often(request):
            return answer(429)

        body = sent_body(request, _MAX_BYTES)

        if not isinstance(body, bytes):
            return body

        try:
            value = json.loads(body)
            text, signature, positions = (
                value[name] for name in ("text", "signature", "calls")
            )
            signed = self._signer.verify(text, signature)

            if signed is None:
                return answer(403)

            calls = _read_calls(text)
            _check(positions, len(calls))
        except (ValueError, TypeError, LookupError, RecursionError):
            return answer(400)

        response = answer(204)
        visitor = Visitor(self._config, request)

        if visitor.consent.given is not True:
            if visitor.consent.given is False:
                self._handing_over.discard(value.get("handover"), calls, positions)

            return response

        handed_back = HandedBack(calls, signed.browser_identity, visitor)

        if value.get("blocked") and handed_back.is_of_visitor:
            response.set_cookie(
                BLOCKED_COOKIE, "1", max_age=_BLOCKED_FOR, samesite="Lax"
            )

        self._handing_over.settle_returned(value.get("handover"), calls, positions)
        new = {one for one in positions if not self._returned.count((signed.id, one))}
        self._deliver(handed_back, handed_back.parts(new), visitor, response)
        return response

    def _deliver(
        self,
        handed_back: HandedBack,
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
                handed_back.is_of_visitor
                and len(parts) == 1
                and (is_current or part.end == visitor.browser_identity)
            )
            person = (
                visitor.as_browser_knew(part.start)
                if handed_back.is_of_visitor and not is_current
                else visitor.as_person(part.start)
            )
            person.successors = part.successors
            calls = without_group_operations(CallLog(tracking=part.calls), person)
            self._flusher.send_returned(calls, person, response if remembers else None)


def _read_calls(text: str) -> list[Call]:
    """Read the calls of a page's data, or of a header."""
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
