"""The endpoint by which browsers say which hand-overs have arrived."""

from __future__ import annotations

import typing as t

from .senders import Senders, answer, refusal, sent_body

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
        return refusal(request, _MAX_BYTES) or self._take(request)

    def _take(self, request: Request) -> Response:
        body = sent_body(request, _MAX_BYTES)

        if not isinstance(body, bytes):
            return body

        tokens = body.decode("ascii", "replace").split()
        ids = self._signer.ids_of(tokens[:_MAX_TOKENS])

        if ids:
            self._hand_overs.acknowledge(ids)
            return answer(204)

        # Those that are right are never too many: a whole office may be behind one
        # address, or everybody, behind a proxy that the app isn't told of.
        return answer(429 if self._senders.is_too_often(request) else 400)
