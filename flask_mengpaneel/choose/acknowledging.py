"""The endpoint by which browsers say which hand-overs have arrived."""

from __future__ import annotations

import typing as t

from .carrier import mark_private
from .senders import Answer, Senders, refusal

if t.TYPE_CHECKING:
    from flask import Request, Response

    from ..deliver.hand_overs import HandOvers
    from .signing import Signer

# Tokens in one request, and the bytes that they have.
_MAX_TOKENS = 100
_MAX_BYTES = 64 * _MAX_TOKENS


class AcknowledgingEndpoint:
    """The endpoint that takes the tokens of hand-overs whose events Mixpanel has."""

    def __init__(self, hand_overs: HandOvers, signer: Signer) -> None:
        self._hand_overs = hand_overs
        self._signer = signer
        self._senders = Senders()

    def answer(self, request: Request) -> Response:
        """Answer tokens, separated by white space: 204 if one of them is right."""
        response = refusal(request, _MAX_BYTES) or self._take(request)
        # There are caches that keep answers to a POST.
        mark_private(response, header=True)
        return response

    def _take(self, request: Request) -> Response:
        body = request.get_data(cache=False).decode("ascii", "replace")
        tokens = body.split()[:_MAX_TOKENS]
        ids = [id for token in tokens if (id := self._signer.id_of(token)) is not None]

        if ids:
            self._hand_overs.acknowledge(ids)
            return Answer(status=204)

        # Those that are right are never too many: a whole office may be behind one
        # address, or everybody, behind a proxy that the app isn't told of.
        return Answer(status=429 if self._senders.is_too_often(request) else 400)
