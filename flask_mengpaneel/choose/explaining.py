"""Which way the calls of a request have gone, why no other, and what its response may
be given: in a header while debugging, and for ``flask mengpaneel explain``."""

from __future__ import annotations

import collections.abc as c
import dataclasses
import typing as t

from .. import reasons, signals
from ..outcome import Declined
from ..proxies import active_request, current_flask
from ..record.context import request_state
from ..record.errors import handle_error
from . import injection
from .session_cookie import has_session

if t.TYPE_CHECKING:
    from flask import Flask, Response

    from ..outcome import Outcome
    from ..visitor.consent import Consent
    from ..visitor.visitor import Visitor
    from .exchange import Exchange
    from .response_headers import ResponseHeaders
    from .response_policy import ResponsePolicy

HEADER = "X-Mengpaneel-Explain"

#: Characters of the header: servers and proxies limit all headers together.
_MAX_HEADER = 1500


@dataclasses.dataclass(frozen=True)
class Explanation:
    """Which way the calls of a request have gone, and what its response may be given.

    :param calls: the names of the calls, in the order in which they are made.
    :param events: the names of the events among them.
    :param strategy: the name of the strategy that took them; ``None``: nobody did.
    :param is_client_side: whether the client makes them.
    :param declined: the reasons of those that were asked before, by name.
    :param nothing: why there are no calls, if there is a reason but that none was made.
    :param withheld: what the response isn't given, and why not; ``None`` for what it
        may be given.
    """

    calls: c.Sequence[str]
    events: c.Sequence[str]
    strategy: str | None
    is_client_side: bool
    declined: c.Mapping[str, str]
    nothing: str | None
    withheld: c.Mapping[str, str | None]

    @classmethod
    def of(cls, exchange: Exchange, outcome: Outcome | None) -> Explanation:
        """Explain what became of the calls of a request."""
        taken = outcome.calls if outcome else ()
        return cls(
            [call.name for call in taken],
            [call.event for call in taken if call.tracks],
            outcome.strategy if outcome else None,
            outcome is not None and outcome.is_client_side,
            dict(exchange.declined),
            _untracked(exchange.visitor.consent),
            _withheld(exchange),
        )

    def __str__(self) -> str:
        said = [_took(self.strategy, self.calls) if self.strategy else "no calls"]

        if self.nothing:
            said.append(self.nothing)

        said += [f"{name} declined: {why}" for name, why in self.declined.items()]
        given = [what for what, why in self.withheld.items() if why is None]
        said.append(f"may be given calls in: {', '.join(given) or 'nothing'}")
        said += [
            f"not in the {what}: {why}" for what, why in self.withheld.items() if why
        ]
        return "; ".join(said)


def _took(strategy: str, calls: c.Sized) -> str:
    count = "1 call" if len(calls) == 1 else f"{len(calls)} calls"
    return f"{strategy} took {count}"


def _untracked(consent: Consent) -> str | None:
    if consent.given is None:
        return reasons.NOT_ASKED

    if consent.given:
        return None

    why = consent.refusal.removeprefix("no consent: ")
    return f"{reasons.NOT_CONSENTED} ({why})"


def _withheld(exchange: Exchange) -> dict[str, str | None]:
    found = withheld(
        exchange.policy, exchange.visitor, exchange.response, exchange.headers
    )
    return {**found, "page": None} if exchange.is_page else found


def withheld(
    policy: ResponsePolicy,
    visitor: Visitor,
    response: Response,
    headers: ResponseHeaders,
) -> dict[str, str | None]:
    """Return what a response may be given calls in, each with why it isn't.

    :param headers: the response's, as the app has set them.
    """
    return {
        "page": policy.page or _no_place(response, headers),
        "header": visitor.client.incapable or policy.header,
        "session": policy.new_session_data
        or (None if has_session() else reasons.NO_SESSION),
        "library's cookie": policy.cookie,
    }


def _no_place(response: Response, headers: ResponseHeaders) -> str | None:
    try:
        injection.locate(response, headers)
    except Declined as reason:
        return str(reason)

    return None


def listen(app: Flask) -> None:
    """Let requests know from now on what of their calls goes by itself, such as those
    of a ``with Manager():`` block."""
    signals.flushed.connect(_note_outcome, app)


def _note_outcome(_app: Flask, *, outcome: Outcome) -> None:
    if (request := active_request()) is not None:
        state = request_state(request)
        state.outcomes = [*state.outcomes, outcome]


def add_header(exchange: Exchange, outcome: Outcome | None) -> None:
    """Say in a header of the response what has become of the calls."""
    # It is asked to by the first request, and debugging may be over by now.
    if not current_flask().debug:
        return

    try:
        said = [str(Explanation.of(exchange, outcome))]
        said += [
            f"beside that {_took(one.strategy, one.calls)}:"
            f" {', '.join(call.name for call in one.calls)}"
            for one in request_state(exchange.request).outcomes
            if one is not outcome
        ]
    except Exception as error:
        # It asks more of the app than the calls do that the response has already.
        handle_error(current_flask(), "a response could not be explained", error)
        return

    # What an exception says may have anything in it.
    text = "".join(one if " " <= one <= "~" else "?" for one in "; ".join(said))
    exchange.writable_response().headers[HEADER] = text[:_MAX_HEADER]
