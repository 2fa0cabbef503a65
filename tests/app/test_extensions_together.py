"""Other extensions in the same app, in each order in which they may be initialised."""

from __future__ import annotations

import collections.abc as c
import contextlib
import gzip
import json
import pathlib
import socket
import subprocess
import time
import typing as t

import pytest
from cachelib import FileSystemCache
from flask import Flask, make_response, redirect, request, session, url_for
from flask_caching import Cache
from flask_compress import Compress
from flask_debugtoolbar import DebugToolbarExtension
from flask_session import Session
from flask_talisman import Talisman
from flask_wtf import CSRFProtect
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from werkzeug.test import TestResponse

from needs import need
from sites import CAPABLE, PAGE, Site, header_calls, names, scripts

#: Puts an extension into an app.
Extend = c.Callable[[Flask], t.Any]


def nothing(app: Flask) -> None:
    """No other extension."""


class TrackingSite(Site):
    """A site in which each request of an endpoint of its own is tracked.

    :param before: other extensions that are initialised before this one.
    :param after: other extensions that are initialised after it.
    """

    def __init__(
        self, before: Extend = nothing, after: Extend = nothing, **settings: t.Any
    ) -> None:
        super().__init__(prepare=before, **settings)
        after(self.app)
        self.app.before_request(self.track)

    def track(self) -> None:
        if request.blueprint == "mengpaneel":
            return

        user = request.headers.get("User", "ann")

        with self.mengpaneel.setup():
            self.mengpaneel.identify(user)

        self.mengpaneel.track(f"{request.path} by {user}")

    @property
    def sent(self) -> list[str]:
        """The events that the server sends."""
        return [call.event for call in self.kept.calls if call.tracks]


def text_of(response: TestResponse) -> str:
    body = response.get_data()

    if response.headers.get("Content-Encoding") == "gzip":
        body = gzip.decompress(body)

    return body.decode()


def block_of(response: TestResponse) -> str:
    """The data of a page, as it stands there."""
    (text,) = (
        text
        for attributes, text in scripts(text_of(response))
        if attributes.get("id") == "mengpaneel"
    )
    return text


def calls_of(response: TestResponse) -> list[str]:
    """The calls of a page, in order."""
    data = json.loads(block_of(response))
    return names(call for _, calls in data["calls"] for call in calls)


# -- Flask-Compress


def compress(app: Flask) -> None:
    app.config.update(COMPRESS_MIN_SIZE=1, COMPRESS_ALGORITHM="gzip")
    Compress(app)


def test_a_page_is_compressed_with_its_calls() -> None:
    site = TrackingSite(before=compress)
    site.view("/", lambda: PAGE)
    response = site.client().get("/", headers={"Accept-Encoding": "gzip"})

    assert response.headers["Content-Encoding"] == "gzip"
    assert int(response.headers["Content-Length"]) == len(response.data)
    assert response.cache_control.private
    assert calls_of(response) == ["identify ann", "track / by ann"]
    assert site.sent == []


def test_the_calls_of_a_page_that_is_compressed_already_are_sent() -> None:
    site = TrackingSite(after=compress)
    site.view("/", lambda: PAGE)
    response = site.client().get("/", headers={"Accept-Encoding": "gzip"})

    assert text_of(response) == PAGE
    assert site.sent == ["/ by ann"]


@pytest.mark.parametrize("order", ["before", "after"])
def test_calls_in_a_header_are_next_to_a_compressed_body(order: str) -> None:
    site = TrackingSite(**{order: compress})
    site.view("/api", lambda: {"items": ["x"] * 100})
    headers = {"Accept-Encoding": "gzip", **CAPABLE}
    response = site.client().get("/api", headers=headers)

    assert json.loads(text_of(response)) == {"items": ["x"] * 100}
    assert names(header_calls(response))[-1] == "track /api by ann"
    assert site.sent == []


def test_compressed_pages_that_are_kept_have_nobody_s_calls() -> None:
    kept = KeptPages()

    def keep(app: Flask) -> None:
        app.config["COMPRESS_CACHE_BACKEND"] = lambda: kept
        app.config["COMPRESS_CACHE_KEY"] = lambda request: request.path
        compress(app)

    site = TrackingSite(after=keep)
    site.view("/", lambda: PAGE)

    for user in ("ann", "bob"):
        headers = {"Accept-Encoding": "gzip", "User": user}
        assert text_of(site.client().get("/", headers=headers)) == PAGE

    assert [gzip.decompress(value).decode() for value in kept.values()] == [PAGE]
    assert site.sent == ["/ by ann", "/ by bob"]


class KeptPages(dict[str, t.Any]):
    """A cache that keeps the very objects it is given."""

    def set(self, key: str, value: t.Any, timeout: float | None = None) -> None:
        self[key] = value


# -- Flask-Caching


def page_in_a_string() -> t.Any:
    return PAGE


def page_in_a_response() -> t.Any:
    return make_response(PAGE)


def page_with_headers() -> t.Any:
    return PAGE, 200, {"X-Page": "1"}


@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("kind", ["SimpleCache", "FileSystemCache"])
@pytest.mark.parametrize(
    "view", [page_in_a_string, page_in_a_response, page_with_headers]
)
def test_a_cached_view_gives_each_visitor_their_own_calls(
    view: t.Callable[[], t.Any], kind: str, order: str, tmp_path: pathlib.Path
) -> None:
    cache = Cache(config={"CACHE_TYPE": kind, "CACHE_DIR": str(tmp_path)})
    site = TrackingSite(**{order: cache.init_app})
    site.view("/", cache.cached(key_prefix="page")(view))

    for user in ("ann", "bob", "cleo"):
        response = site.client().get("/", headers={"User": user})
        assert calls_of(response) == [f"identify {user}", f"track / by {user}"]

    with site.app.test_request_context():
        found = make_response(cache.get("page"))

    assert found.get_data(as_text=True) == PAGE
    assert not {"Cache-Control", "Set-Cookie", "Vary"} & set(found.headers.keys())


def test_a_cached_answer_gives_each_client_its_own_header() -> None:
    cache = Cache(config={"CACHE_TYPE": "SimpleCache"})
    site = TrackingSite(before=cache.init_app)
    site.view("/api", cache.cached()(lambda: make_response({"items": []})))

    for user in ("ann", "bob", "cleo"):
        response = site.client().get("/api", headers={"User": user, **CAPABLE})
        assert names(header_calls(response))[-1] == f"track /api by {user}"
        assert len(response.headers.getlist("X-Mengpaneel-Calls")) == 1


def test_a_cached_redirect_delays_each_visitor_s_own_calls() -> None:
    cache = Cache(config={"CACHE_TYPE": "SimpleCache"})
    site = TrackingSite(before=cache.init_app)
    site.view("/", lambda: PAGE)
    site.view("/go", cache.cached()(lambda: redirect("/")))

    for user in ("ann", "bob", "cleo"):
        client = site.client()
        headers = {"User": user}
        response = client.get("/go", headers=headers, follow_redirects=True)
        tracked = [f"track /go by {user}", f"track / by {user}"]
        assert calls_of(response) == [f"identify {user}", *tracked]


def test_a_cached_stream_is_a_page_like_any_other() -> None:
    cache = Cache(config={"CACHE_TYPE": "SimpleCache"})
    site = TrackingSite(before=cache.init_app)
    site.view("/", cache.cached()(lambda: (part for part in (PAGE[:30], PAGE[30:]))))

    # Flask-Caching puts the parts together the first time already.
    for user in ("ann", "bob", "cleo"):
        response = site.client().get("/", headers={"User": user})
        assert calls_of(response) == [f"identify {user}", f"track / by {user}"]


# -- Flask-Session


def answers(client: Redis) -> bool:
    try:
        return bool(client.ping())
    except RedisConnectionError:
        return False


@contextlib.contextmanager
def redis_server(folder: pathlib.Path) -> c.Iterator[Redis]:
    program = need("redis-server")

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    command = [program, "--port", str(port), "--save", "", "--dir", str(folder)]

    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        client = Redis(port=port)
        deadline = time.monotonic() + 60

        try:
            while not answers(client):
                assert time.monotonic() < deadline
                time.sleep(0.02)

            yield client
        finally:
            client.close()
            process.terminate()


@pytest.fixture(scope="module", params=["cachelib", "redis", "redis-json"])
def sessions(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> c.Iterator[Extend]:
    """Puts sessions that are kept on the server into an app."""
    folder = tmp_path_factory.mktemp("sessions")

    with contextlib.ExitStack() as stack:
        if request.param == "cachelib":
            kept = {
                "SESSION_TYPE": "cachelib",
                "SESSION_CACHELIB": FileSystemCache(str(folder)),
            }
        else:
            kept = {
                "SESSION_TYPE": "redis",
                "SESSION_REDIS": stack.enter_context(redis_server(folder)),
                "SESSION_SERIALIZATION_FORMAT": "json"
                if request.param == "redis-json"
                else "msgpack",
            }

        def extend(app: Flask) -> None:
            app.config.update(kept)
            Session(app)

        yield extend


@pytest.mark.parametrize("order", ["before", "after"])
def test_calls_wait_in_a_session_on_the_server(sessions: Extend, order: str) -> None:
    site = TrackingSite(**{order: sessions})

    def go() -> t.Any:
        session["cart"] = ["tea"]
        # Much more than a cookie holds.
        site.mengpaneel.track("Much", {"text": "x" * 20_000, "n": 2**63 - 1})
        return redirect("/")

    site.view("/", lambda: PAGE.replace("Hi", ",".join(session["cart"])))
    site.view("/go", go)
    client = site.client()
    response = client.get("/go", follow_redirects=True)

    assert "<p>tea</p>" in text_of(response)
    assert calls_of(response) == [
        "identify ann",
        "track /go by ann",
        "track Much",
        "track / by ann",
    ]
    assert calls_of(client.get("/")) == ["identify ann", "track / by ann"]
    assert site.sent == []


@pytest.mark.parametrize(
    "leave",
    [
        pytest.param(lambda app: session.clear(), id="clear"),
        pytest.param(
            lambda app: app.session_interface.regenerate(session), id="regenerate"
        ),
        pytest.param(
            lambda app: (session.clear(), session.update(user="ann")), id="replace"
        ),
    ],
)
def test_calls_outlive_a_session_on_the_server_that_is_begun_anew(
    request: pytest.FixtureRequest,
    sessions: Extend,
    leave: t.Callable[[Flask], t.Any],
) -> None:
    site = TrackingSite(before=sessions)

    def again() -> t.Any:
        leave(site.app)
        return redirect("/")

    def go() -> t.Any:
        session["user"] = "ann"
        return redirect("/again")

    site.view("/", lambda: PAGE)
    site.view("/go", go)
    site.view("/again", again)
    client = site.client()
    response = client.get("/go", follow_redirects=True)
    carried = [
        call.removeprefix("track ")
        for call in calls_of(response)
        if call.startswith("track")
    ]

    if "clear" in request.node.callspec.id:
        # It ends, with its id, and takes nothing along.
        assert sorted(site.sent) == ["/again by ann", "/go by ann"]
        assert carried == ["/ by ann"]
    else:
        assert [*carried, *site.sent] == ["/go by ann", "/again by ann", "/ by ann"]


def test_a_session_on_the_server_is_left_alone_by_what_nothing_waits_for(
    sessions: Extend,
) -> None:
    site = TrackingSite(before=sessions)
    site.view("/", lambda: PAGE)
    site.view("/api", lambda: {})

    for path, headers in (("/", {}), ("/api", CAPABLE), ("/api", {})):
        client = site.client()
        response = client.get(path, headers=headers)
        assert client.get_cookie("session") is None
        assert "Cookie" not in response.headers.get("Vary", "")


# -- Flask-Talisman


def secure(app: Flask) -> None:
    Talisman(
        app,
        content_security_policy={
            "default-src": "'self'",
            "script-src": "'strict-dynamic'",
        },
        content_security_policy_nonce_in=["script-src"],
    )


@pytest.mark.parametrize("order", ["before", "after"])
def test_the_script_has_the_nonce_of_its_page_s_policy(order: str) -> None:
    site = TrackingSite(
        csp_nonce=lambda: request.csp_nonce,  # type: ignore[attr-defined]
        **{order: secure},
    )
    site.view("/", lambda: PAGE)
    client = site.client()
    nonces = set()

    for _ in range(2):
        response = client.get("/", base_url="https://localhost")
        (nonce,) = (
            attributes["nonce"]
            for attributes, _ in scripts(text_of(response))
            if attributes.get("src")
        )
        assert f"'nonce-{nonce}'" in response.headers["Content-Security-Policy"]
        assert "track / by ann" in calls_of(response)
        nonces.add(nonce)

    assert len(nonces) == 2


@pytest.mark.parametrize("order", ["before", "after"])
def test_nothing_is_lost_where_http_is_sent_to_https(order: str) -> None:
    site = TrackingSite(**{order: secure})
    # Before the function that redirects.
    site.app.before_request_funcs[None].insert(
        0, site.app.before_request_funcs[None].pop()
    )
    site.view("/", lambda: PAGE)
    response = site.client().get("/", base_url="http://site.example")

    assert response.location == "https://site.example/"
    # No browser keeps the session's cookie, which is a secure one.
    assert site.sent == ["/ by ann"]


# -- Flask-WTF


def protect(app: Flask) -> None:
    csrf = CSRFProtect(app)

    if "mengpaneel" in app.blueprints:
        csrf.exempt(app.blueprints["mengpaneel"])


def test_hand_backs_pass_csrf_protection() -> None:
    site = TrackingSite(after=protect)
    site.app.config["WTF_CSRF_SSL_STRICT"] = True
    site.view("/", lambda: PAGE)
    client = site.client()
    page = client.get("/")
    attributes = next(a for a, _ in scripts(text_of(page)) if a.get("id"))
    sent = {
        "text": block_of(page),
        "signature": attributes["data-signature"],
        "calls": [1],
    }

    assert client.post("/_mengpaneel/calls", json=sent).status_code == 204
    assert site.sent == ["/ by ann"]


@pytest.mark.parametrize("order", ["before", "after"])
def test_a_form_is_still_protected(order: str) -> None:
    site = TrackingSite(**{order: protect})
    site.view("/", lambda: PAGE, methods=["GET", "POST"])
    response = site.client().post("/")

    assert response.status_code == 400
    assert "CSRF" in text_of(response)


# -- Flask-DebugToolbar


def intercept(app: Flask) -> None:
    app.debug = True
    app.config.update(DEBUG_TB_INTERCEPT_REDIRECTS=True, DEBUG_TB_ENABLED=True)
    DebugToolbarExtension(app)


@pytest.mark.parametrize("order", ["before", "after"])
def test_an_intercepted_redirect_loses_nothing(order: str) -> None:
    site = TrackingSite(**{order: intercept})
    site.view("/", lambda: PAGE)
    site.view("/go", lambda: redirect(url_for("/")))
    client = site.client()
    carried = []

    for path in ("/go", "/"):
        response = client.get(path)
        assert response.status_code == 200
        assert 'id="flDebug"' in text_of(response)

        if 'id="mengpaneel"' in text_of(response):
            carried += calls_of(response)

    tracked = [call for call in carried if call.startswith("track")]
    assert tracked == ["track /go by ann", "track / by ann"]
    assert site.sent == []
