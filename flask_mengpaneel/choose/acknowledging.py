"""The endpoint by which browsers say which hand-overs have arrived."""

from __future__ import annotations

import collections.abc as c
import functools
import io
import logging
import typing as t

from werkzeug.wsgi import get_content_length

from .browser_posts import Senders, answer, refusal, sent_body

if t.TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment
    from flask import Flask, Request, Response

    from ..deliver.hand_overs.keeper import HandOvers
    from .signing import Signer

logger = logging.getLogger("flask_mengpaneel")

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
        """Answer what is right before Flask is asked.

        :param path: of the endpoint in the app.
        """
        answering: t.Any = app

        # The app's class may refuse to be derived from, or to be replaced, in any way.
        # Then Flask answers, as it does where the app isn't called itself.
        try:
            answering.__class__ = _answering_class(answering.__class__)
        except Exception:
            logger.debug("Flask answers acknowledgements", exc_info=True)
            return

        answering._mengpaneel_endpoint = self
        answering._mengpaneel_acks = path

    def answer(self, request: Request) -> Response:
        """Answer tokens, separated by white space: 204 if one of them is right."""
        refused = refusal(request, _MAX_BYTES)

        if refused is not None:
            return refused

        body = sent_body(request, _MAX_BYTES)

        if not isinstance(body, bytes):
            return body

        if self._takes(body):
            return answer(204)

        # Those that are right are never too many: a whole office may be behind one
        # address, or everybody, behind a proxy that the app isn't told of.
        return answer(429 if self._senders.is_too_often(request) else 400)

    def answer_at_once(self, request: Request) -> Response | None:
        """Answer what is right; ``None``: Flask is to be asked, as if nothing had been.

        What seems wrong may have come by a proxy of which only the app's middleware
        knows.
        """
        environ = request.environ

        if get_content_length(environ) is None or refusal(request, _MAX_BYTES):
            return None

        body = sent_body(request, _MAX_BYTES)

        if not isinstance(body, bytes):
            return body

        if self._takes(body):
            return answer(204)

        environ["wsgi.input"] = io.BytesIO(body)
        return None

    def _takes(self, body: bytes) -> bool:
        tokens = body.decode("ascii", "replace").split()
        ids = self._signer.ids_of(tokens[:_MAX_TOKENS])

        if ids:
            self._hand_overs.acknowledge(ids)

        return bool(ids)


@functools.lru_cache(maxsize=32)
def _answering_class(kind: t.Any) -> t.Any:
    """Return the class of apps of a kind that answer acknowledgements before Flask is
    asked.

    So an acknowledgement takes a third of a plain view's time, 57 of 167 us; inside of
    Flask it took 9 to 12 us more than that view. And it is no concern of the app's:
    what asks each visitor to sign in, limits rates or writes the session would only be
    in its way.

    The class does it, as nothing at ``app.wsgi_app`` could without harm. It would have
    to refer to the app. If it kept the app alive, only Python's garbage collector would
    free that; if not, a server that is given ``ProxyFix(create_app().wsgi_app)`` would
    lose its app. And what is there already may be a method, a property or a proxy,
    which can't be told from Flask's own and would no longer be called.
    """
    if hasattr(kind, "_mengpaneel_acks"):
        return kind

    class Answering(kind):  # type: ignore[misc]
        __module__ = kind.__module__
        __qualname__ = kind.__qualname__
        __doc__ = kind.__doc__

        _mengpaneel_endpoint: AcknowledgingEndpoint
        #: Its path; ``None``: the app has no Mengpaneel, but the class of one that has.
        _mengpaneel_acks: str | None = None
        _mengpaneel_is_first = True

        def __call__(
            self, environ: WSGIEnvironment, start_response: StartResponse
        ) -> c.Iterable[bytes]:
            if (
                "PATH_INFO" in environ
                and environ["PATH_INFO"] == self._mengpaneel_acks
                and environ["REQUEST_METHOD"] == "POST"
                and not self._mengpaneel_is_first
            ):
                request = self.request_class(environ)
                response = self._mengpaneel_endpoint.answer_at_once(request)

                if response is not None:
                    return response(environ, start_response)

            # With its first request a process begins to serve.
            self._mengpaneel_is_first = False
            body: c.Iterable[bytes] = super().__call__(environ, start_response)
            return body

    Answering.__name__ = kind.__name__
    return Answering
