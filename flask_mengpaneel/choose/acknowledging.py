"""The endpoint by which browsers say which hand-overs have arrived."""

from __future__ import annotations

import typing as t

from werkzeug.wsgi import get_content_length

from .senders import Senders, answer, refusal

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
        body = _body_of(request).decode("ascii", "replace")
        ids = self._signer.ids_of(body.split()[:_MAX_TOKENS])

        if ids:
            self._hand_overs.acknowledge(ids)
            return answer(204)

        # Those that are right are never too many: a whole office may be behind one
        # address, or everybody, behind a proxy that the app isn't told of.
        return answer(429 if self._senders.is_too_often(request) else 400)


def _body_of(request: Request) -> bytes:
    """Return the body of a request that isn't refused, and so has a length."""
    # The app has begun to read it, and may have it.
    if "stream" in vars(request):
        return request.get_data(cache=False)

    # 7 us of the 80 that an acknowledgement takes: what is behind `get_data` finds out
    # how much may be read, and how much there is.
    environ = request.environ
    body: bytes = environ["wsgi.input"].read(get_content_length(environ))
    return body
