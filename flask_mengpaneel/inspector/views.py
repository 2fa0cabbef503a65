"""What the inspector serves: its page, Mixpanel's endpoints, and the page's feed."""

from __future__ import annotations

import typing as t

from flask import Blueprint, Response, abort, render_template, request
from werkzeug.datastructures import Headers

from ..calls import dumps
from ..hosts import ENDPOINTS
from .feed import Feed
from .quiet_log import leave_out

if t.TYPE_CHECKING:
    import collections.abc as c

    from _typeshed.wsgi import WSGIEnvironment

    from ..deliver.http import Reply
    from .store import Store

    #: Answers a request to one of Mixpanel's endpoints, with this query, these headers
    #: and this body.
    Ingest = c.Callable[[str, c.Mapping[str, str], Headers, bytes], Reply]

#: The endings of the page's files.
FILES = ("css", "js", "svg")

#: What the page needs. It has nothing inline, and asks nobody else.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
    " img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)


class _Page(Response):
    """The page, which has its own policy, whatever policy the app gives its own pages:
    that is written for those, and may want a nonce."""

    def get_wsgi_headers(self, environ: WSGIEnvironment) -> Headers:
        """Return the headers after all functions of the app have changed them."""
        headers = super().get_wsgi_headers(environ)
        headers["Content-Security-Policy"] = POLICY
        headers.remove("Content-Security-Policy-Report-Only")
        return headers


def make_blueprint(store: Store, answer: Ingest, url_prefix: str) -> Blueprint:
    """Make the blueprint of an inspector.

    :param store: what the page shows.
    :param url_prefix: the extension's, below which it is.
    """
    blueprint = Blueprint(
        "mengpaneel_inspector",
        __name__,
        template_folder="templates",
        url_prefix=f"{url_prefix}/inspector",
    )
    endpoints = ", ".join(ENDPOINTS)
    feed = Feed(store)

    for path in ("inspector", *(f"static/inspector.{kind}" for kind in FILES)):
        leave_out(f"{url_prefix}/{path}")

    @blueprint.get("/", strict_slashes=False)
    def page() -> Response:
        return _Page(render_template("mengpaneel/inspector.html"))

    @blueprint.get("/arrivals")
    def arrivals() -> Response:
        after = request.args.get("after", 0, type=int)

        # Else the page's question would keep everybody else waiting.
        if "wait" in request.args and request.environ.get("wsgi.multithread"):
            feed.wait(after)

        # Not Flask's jsonify, which may sort: properties stay in the order in which
        # they arrived.
        news = dumps(feed.after(after, request.args.get("row", "")))
        response = Response(news, content_type="application/json")
        response.cache_control.no_store = True
        return response

    @blueprint.post("/clear")
    def clear() -> tuple[str, int]:
        # Browsers let other sites send a form here, but not JSON.
        if not request.is_json:
            abort(415)

        store.clear()
        return "", 204

    @blueprint.route(
        f"/<any({endpoints}):endpoint>/",
        methods=["GET", "POST", "OPTIONS"],
        strict_slashes=False,
        provide_automatic_options=False,
    )
    def ingestion(endpoint: str) -> Response:
        if request.method == "OPTIONS":
            return _with_cors(Response(status=204))

        reply = answer(
            endpoint, request.args, Headers(request.headers), request.get_data()
        )
        return _with_cors(Response(reply.body, reply.status, dict(reply.headers)))

    return blueprint


def _with_cors(response: Response) -> Response:
    """Let pages of other origins send here, with cookies, as Mixpanel does."""
    origin = request.headers.get("Origin")

    if origin is not None:
        response.headers["Access-Control-Allow-Origin"] = origin
        response.headers["Access-Control-Allow-Credentials"] = "true"
        response.headers["Access-Control-Allow-Methods"] = "GET, POST, OPTIONS"
        response.headers["Access-Control-Allow-Headers"] = request.headers.get(
            "Access-Control-Request-Headers", "*"
        )
        response.vary.add("Origin")

    return response
