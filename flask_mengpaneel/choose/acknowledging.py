"""The endpoint by which browsers say which hand-overs have arrived."""

from __future__ import annotations

import collections.abc as c
import typing as t
import weakref

from .senders import Senders, answer, refusal, sent_body

if t.TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment
    from flask import Flask, Request, Response

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

    def stand_in_front_of(self, app: Flask, path: str) -> None:
        """Answer browsers before Flask is asked.

        :param path: of the endpoint in the app.
        """
        app.wsgi_app = _Middleware(app, path, self)  # type: ignore[method-assign]

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


class _Middleware:
    """Answers what browsers acknowledge, and leaves all else to the app.

    Inside of Flask it would take longer than a plain view, and it is no concern of the
    app's: what asks each visitor to sign in, limits rates or writes the session would
    only be in its way.
    """

    def __init__(self, app: Flask, path: str, endpoint: AcknowledgingEndpoint) -> None:
        # Else an app would be freed by Python's garbage collector only.
        self._app = weakref.ref(app)
        self._path = path
        self._endpoint = endpoint
        self._is_first = True
        behind = app.wsgi_app
        #: What was in front of the app before, if anything was.
        self._behind = None if getattr(behind, "__self__", None) is app else behind

    def __call__(
        self, environ: WSGIEnvironment, start_response: StartResponse
    ) -> c.Iterable[bytes]:
        app = self._app()
        assert app is not None, "it is at work"

        # Any other may have come by a proxy that only what is behind this knows of.
        if (
            "PATH_INFO" in environ
            and environ["PATH_INFO"] == self._path
            and environ["REQUEST_METHOD"] == "POST"
            and environ.get("HTTP_SEC_FETCH_SITE") == "same-origin"
            and not self._is_first
        ):
            answer = self._endpoint.answer(app.request_class(environ))
            return answer(environ, start_response)

        # With its first request a process begins to serve.
        self._is_first = False

        if self._behind is not None:
            return self._behind(environ, start_response)

        # Looked up each time, as instrumentation replaces it later.
        return type(app).wsgi_app(app, environ, start_response)
