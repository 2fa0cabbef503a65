"""The endpoint by which clients say which hand-overs have arrived."""

from __future__ import annotations

import base64
import gc
import io
import re
import typing as t
import weakref

import pytest
from flask import Flask, redirect, request, request_started, session
from flask.testing import FlaskClient
from werkzeug.exceptions import ClientDisconnected, NotFound
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.test import Client, TestResponse

from agents import CHROME
from flask_mengpaneel import Mengpaneel
from flask_mengpaneel.choose.signing import Signer
from sites import ACKNOWLEDGES, ANN, PAGE, TOKEN, Kept, Site, balance, block
from waiting import Clock

URL = "/_mengpaneel/acks"


def make_site(**settings: t.Any) -> Site:
    site = Site(**settings)
    site.view("/", lambda: (site.mengpaneel.track("View"), PAGE)[1])
    site.view("/json", lambda: (site.mengpaneel.track("Ask"), {})[1])
    site.view("/quiet", lambda: PAGE)
    return site


@pytest.fixture
def site() -> Site:
    return make_site()


#: What a browser says.
BROWSER = {"Sec-Fetch-Site": "same-origin"}


def page_token(client: FlaskClient) -> str:
    data = block(client.get("/"))
    assert data is not None
    return str(data["handover"])


def header_token(client: FlaskClient) -> str:
    return client.get("/json", headers=ACKNOWLEDGES).headers["X-Mengpaneel-Hand-Over"]


def acknowledge(
    client: FlaskClient, body: str | bytes, **options: t.Any
) -> TestResponse:
    """As ``navigator.sendBeacon`` does with a text."""
    options.setdefault("headers", BROWSER)
    return client.post(URL, data=body, content_type="text/plain", **options)


# -- what is acknowledged


@pytest.mark.parametrize("between", [" ", "\n", "\r\n", "  \n\t "])
def test_many_are_acknowledged_at_once(site: Site, between: str) -> None:
    client = site.visitor(**ANN)
    tokens = [page_token(client) for _ in range(3)] + [header_token(client)]
    assert acknowledge(client, between.join(tokens) + between).status_code == 204
    assert balance(site) == (4, 4, 0)


def test_a_page_says_where(site: Site) -> None:
    for path in ("/", "/quiet"):
        data = block(site.visitor(**ANN).get(path))
        assert data is not None
        assert data["acks"] == URL

    data = block(site.client().get("/", base_url="http://localhost/shop"))
    assert data is not None
    assert data["acks"] == f"/shop{URL}"


def test_nothing_of_it_is_there_if_it_is_switched_off() -> None:
    site = make_site(ack_timeout=0)
    client = site.visitor(**ANN)
    data = block(client.get("/"))
    assert data is not None
    assert not {"acks", "handover"} & data.keys()
    headers = client.get("/json", headers=ACKNOWLEDGES).headers
    assert "X-Mengpaneel-Hand-Over" not in headers
    assert "X-Mengpaneel-Calls" in headers
    assert acknowledge(client, "x").status_code == 404
    assert balance(site) == (2, 2, 0)


@pytest.mark.parametrize("announced", ["true", "1", "TRUE", "true; project=token"])
def test_who_does_not_say_so_is_believed(site: Site, announced: str) -> None:
    headers = {"X-Mengpaneel-Flush-Capable": announced, "Accept": "*/*"}
    response = site.visitor(**ANN).get("/json", headers=headers)
    assert "X-Mengpaneel-Calls" in response.headers
    assert "X-Mengpaneel-Hand-Over" not in response.headers
    assert balance(site) == (1, 1, 0)


@pytest.mark.parametrize(
    "announced",
    ["true; ack", "true;ack", "1; ACK", "true; ack; project=token", "true; x=1; ack"],
)
def test_the_words_are_in_any_order(site: Site, announced: str) -> None:
    headers = {"X-Mengpaneel-Flush-Capable": announced, "Accept": "*/*"}
    response = site.visitor(**ANN).get("/json", headers=headers)
    assert "X-Mengpaneel-Hand-Over" in response.headers
    assert balance(site) == (1, 0, 1)


# -- only what the app gave


def forgeries(token: str) -> list[str]:
    id, _, code = token.partition(".")
    return [
        id,
        f"{id}.",
        f".{code}",
        f".{id}.{code}",
        f"{id}..{code}",
        f"{id}.{code}.",
        f"{id}.{code}x",
        f"{id}x.{code}",
        f"{id[::-1]}.{code}",
        f"{id}.{code[::-1]}",
        f"{id}.{code[:-1]}",
        f"{id}.{'A' * len(code)}",
        f"{'0' * len(id)}.{code}",
        f"{id.upper()}.{code}" if id.upper() != id else f"{id}0.{code}",
        f"{id}.{code.swapcase()}",
        f"{id},{code}",
        base64.b64encode(token.encode()).decode(),
    ]


def test_what_is_forged_is_refused(site: Site) -> None:
    client = site.visitor(**ANN)
    token = page_token(client)

    for forged in forgeries(token):
        assert acknowledge(client, forged).status_code == 400, forged

    assert balance(site) == (1, 0, 1)


def test_the_right_ones_among_wrong_ones_are_taken(site: Site) -> None:
    client = site.visitor(**ANN)
    token = page_token(client)
    body = " ".join([*forgeries(token)[:5], token, *forgeries(token)[5:]])
    assert acknowledge(client, body).status_code == 204
    assert balance(site) == (1, 1, 0)


@pytest.mark.parametrize(("project", "key"), [("another", "secret"), ("token", "x")])
def test_what_another_app_gave_is_refused(site: Site, project: str, key: str) -> None:
    other = make_site(token=project)
    other.app.secret_key = key
    token = page_token(other.visitor(**ANN))
    assert acknowledge(site.client(), token).status_code == 400
    assert acknowledge(other.client(), token).status_code == 204


def test_a_signature_of_calls_is_no_token(site: Site) -> None:
    signer: Signer = site.app.extensions["mengpaneel"].signer
    signature = signer.sign("0123456789abcdef")
    assert signature is not None

    for body in (signature, f"0123456789abcdef.{signature}"):
        assert acknowledge(site.client(), body).status_code == 400


def test_a_key_that_was_rotated_out_counts_as_long_as_it_is_named(site: Site) -> None:
    client = site.visitor(**ANN)
    token = page_token(client)
    site.app.secret_key = "new"
    assert acknowledge(client, token).status_code == 400
    site.app.config["SECRET_KEY_FALLBACKS"] = ["older", "secret"]
    fresh = page_token(client)
    assert acknowledge(client, f"{token} {fresh}").status_code == 204
    assert balance(site) == (2, 2, 0)
    site.app.config["SECRET_KEY_FALLBACKS"] = None
    assert acknowledge(client, fresh).status_code == 204


@pytest.mark.parametrize("key", [None, ""])
def test_without_a_secret_key_the_process_knows_its_own(key: t.Any) -> None:
    site, other = make_site(), make_site()
    site.app.secret_key = other.app.secret_key = key
    client = site.visitor(**ANN)
    token = page_token(client)
    assert acknowledge(client, forgeries(token)[0]).status_code == 400
    assert acknowledge(client, token).status_code == 204
    assert balance(site) == (1, 1, 0)


@pytest.mark.parametrize("key", [b"\xff\x00key", "ключ", "x" * 10_000], ids=len)
def test_a_key_is_of_any_kind(key: t.Any) -> None:
    site = make_site()
    site.app.secret_key = key
    client = site.visitor(**ANN)
    assert acknowledge(client, page_token(client)).status_code == 204
    assert balance(site) == (1, 1, 0)


def test_a_token_goes_into_a_header_and_says_nothing(site: Site) -> None:
    client = site.visitor(**ANN)
    tokens = {page_token(client) for _ in range(10)}
    assert len(tokens) == 10

    for token in tokens:
        assert re.fullmatch(r"[0-9a-f]{16}\.[\w-]+={0,2}", token)


# -- what is no acknowledgement


@pytest.mark.parametrize(
    "body",
    [
        b" \n",
        b"\xff\xfe\x00",
        b".",
        b"...",
        b"{}",
        b'["a.b"]',
        "é.é".encode(),
        "\U0001f600.\U0001f600".encode(),
        b"\xed\xa0\x80.x",
        b"." * 6000,
        b"a.b " * 1500,
    ],
    ids=lambda body: repr(body)[:20],
)
def test_garbage_is_refused(site: Site, body: bytes) -> None:
    assert acknowledge(site.client(), body).status_code == 400


def test_so_many_are_taken_at_once(site: Site) -> None:
    client = site.visitor(**ANN)
    token = page_token(client)
    wrong = "0123456789abcdef.x"
    assert acknowledge(client, " ".join([*[wrong] * 100, token])).status_code == 400
    assert balance(site) == (1, 0, 1)
    assert acknowledge(client, " ".join([*[wrong] * 99, token])).status_code == 204
    assert balance(site) == (1, 1, 0)


def test_a_hundred_tokens_are_not_too_large(site: Site) -> None:
    client = site.visitor(**ANN)
    tokens = [page_token(client) for _ in range(100)]
    assert acknowledge(client, "\r\n".join(tokens)).status_code == 204
    assert balance(site) == (100, 100, 0)


def test_what_is_too_large_is_not_read(site: Site) -> None:
    assert acknowledge(site.client(), b"x" * 6401).status_code == 413
    assert acknowledge(site.client(), b"x" * 6400).status_code == 400


#: Calls are handed back in the same ways.
EACH_ENDPOINT = pytest.mark.parametrize("url", [URL, "/_mengpaneel/calls"])


class Body(io.RawIOBase):
    """A body that comes in parts, as a slow client's does; an exception in their place
    is raised."""

    def __init__(self, *parts: bytes | Exception) -> None:
        super().__init__()
        self._parts = list(parts)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if size < 0:
            return self.readall()

        if not self._parts:
            return b""

        part = self._parts.pop(0)

        if isinstance(part, Exception):
            raise part

        if size < len(part):
            self._parts.insert(0, part[size:])
            part = part[:size]

        return part

    def readinto(self, buffer: t.Any) -> int:
        part = self.read(len(buffer))
        buffer[: len(part)] = part
        return len(part)


def post(client: FlaskClient, url: str, body: Body, length: int | None) -> TestResponse:
    said: dict[str, t.Any] = {"wsgi.input": body}

    if length is None:
        said |= {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True}
    else:
        said["CONTENT_LENGTH"] = str(length)

    return client.post(url, environ_overrides=said)


IS_READ_BEFORE = pytest.mark.parametrize("is_read_before", [False, True])


def read_before(site: Site) -> None:
    """Let the app have begun to read each body."""
    site.app.before_request(lambda: request.stream and None)


@IS_READ_BEFORE
@pytest.mark.parametrize("has_length", [True, False])
def test_a_body_may_come_byte_by_byte(
    site: Site, has_length: bool, is_read_before: bool
) -> None:
    if is_read_before:
        read_before(site)

    client = site.visitor(**ANN)
    token = page_token(client).encode()
    body = Body(*(token[at : at + 1] for at in range(len(token))))
    length = len(token) if has_length else None
    assert post(client, URL, body, length).status_code == 204
    assert balance(site) == (1, 1, 0)


class ServersOwn(Exception):
    """As gunicorn and others have for it."""


GONE = [
    (),
    (OSError("error during read(8) on wsgi.input"),),
    (ConnectionResetError(),),
    (ValueError("chunk size"),),
    (ClientDisconnected(),),
    (ServersOwn(),),
]


@IS_READ_BEFORE
@EACH_ENDPOINT
@pytest.mark.parametrize("end", GONE, ids=repr)
@pytest.mark.parametrize("begins", [True, False])
@pytest.mark.parametrize("testing", [True, False])
def test_who_goes_in_the_midst_of_a_body_is_no_error_of_the_app(
    caplog: pytest.LogCaptureFixture,
    url: str,
    begins: bool,
    end: tuple[Exception, ...],
    testing: bool,
    is_read_before: bool,
) -> None:
    site = make_site(testing=testing)
    errors: list[Exception] = []
    site.app.register_error_handler(Exception, lambda error: errors.append(error) or "")

    if is_read_before:
        read_before(site)

    client = site.visitor(**ANN)
    token = page_token(client).encode()
    body = Body(*((token[:20],) if begins else ()), *end)
    assert post(client, url, body, len(token)).status_code == 400
    assert errors == []
    assert caplog.text == ""
    assert balance(site) == (1, 0, 1)
    assert acknowledge(client, token).status_code == 204


@EACH_ENDPOINT
def test_a_body_whose_end_nobody_says_is_refused(site: Site, url: str) -> None:
    for body in (b"x", b"{}"):
        headers = {"Transfer-Encoding": "chunked"}
        stream = io.BytesIO(body)
        response = site.client().post(url, input_stream=stream, headers=headers)
        assert response.status_code == 413


@EACH_ENDPOINT
def test_of_a_body_without_a_length_no_more_is_read_than_it_may_have(
    site: Site, url: str
) -> None:
    body = Body(*[b"x" * 1000] * 3000)
    assert post(site.client(), url, body, None).status_code == 413
    assert body.read()


def test_what_the_app_has_read_before_is_taken() -> None:
    """As a function does that logs bodies, or looks for a form in each of them."""
    site = make_site()
    seen = []

    @site.app.before_request
    def log_body() -> None:
        assert not request.form
        seen.append(request.get_data(as_text=True))

    client = site.visitor(**ANN)
    token = page_token(client)
    # Without a length, nothing is read before the app's functions.
    assert post(client, URL, Body(token.encode()), None).status_code == 204
    assert seen == ["", token]
    assert balance(site) == (1, 1, 0)


def test_no_more_is_read_than_the_length_that_is_said(site: Site) -> None:
    """The rest may be the next request on the same connection."""
    client = site.visitor(**ANN)
    token = page_token(client)
    stream = io.BytesIO(f"{token}POST /next".encode())
    said = {"wsgi.input": stream, "CONTENT_LENGTH": str(len(token))}
    answer = client.post(URL, headers=BROWSER, environ_overrides=said)
    assert answer.status_code == 204
    assert stream.read() == b"POST /next"


@EACH_ENDPOINT
def test_other_methods_are_refused(site: Site, url: str) -> None:
    for method in ["get", "put", "delete", "patch"]:
        assert getattr(site.client(), method)(url).status_code == 405


OTHERS: list[dict[str, str]] = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "none"},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Referer": "https://evil.example/"},
]


@pytest.mark.parametrize("headers", OTHERS, ids=str)
def test_other_sites_acknowledge_nothing(site: Site, headers: dict[str, str]) -> None:
    client = site.visitor(**ANN)
    token = page_token(client)
    assert acknowledge(client, token, headers=headers).status_code == 403
    assert balance(site) == (1, 0, 1)


def test_an_address_may_acknowledge_so_often_a_minute(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr("flask_mengpaneel.choose.browser_posts.time", clock)
    client = site.visitor(**ANN)
    token = page_token(client)

    for _ in range(120):
        assert acknowledge(client, "x").status_code == 400

    # Another site's pages don't count; another endpoint has its own.
    assert acknowledge(client, token, headers=OTHERS[0]).status_code == 403
    assert client.post("/_mengpaneel/calls", data="{}").status_code == 400
    assert acknowledge(client, "x").status_code == 429
    # What is right is taken: whole offices have one address.
    assert acknowledge(client, token).status_code == 204
    assert balance(site) == (1, 1, 0)
    other = {"environ_base": {"REMOTE_ADDR": "192.0.2.1", "HTTP_USER_AGENT": CHROME}}
    assert acknowledge(client, "x", **other).status_code == 400
    clock.passed += 60
    assert acknowledge(client, "x").status_code == 400


def test_an_address_acknowledges_as_often_as_it_is_right(site: Site) -> None:
    client = site.visitor(**ANN)

    for _ in range(300):
        assert acknowledge(client, page_token(client)).status_code == 204

    assert balance(site) == (300, 300, 0)


def test_no_cache_keeps_an_answer(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flask_mengpaneel.choose.browser_posts.time", Clock())
    client = site.visitor(**ANN)
    token = page_token(client)
    answers = [
        acknowledge(client, token),
        acknowledge(client, "x"),
        acknowledge(client, token, headers=OTHERS[0]),
        acknowledge(client, "x" * 6401),
        *(acknowledge(client, "x") for _ in range(120)),
    ]
    assert {answer.status_code for answer in answers} == {204, 400, 403, 413, 429}

    for answer in answers:
        assert "no-store" in answer.headers["Cache-Control"]
        assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize("consent", [False, None])
def test_consent_is_not_needed_to_say_what_has_arrived(consent: bool | None) -> None:
    answers: list[bool | None] = [True]
    site = make_site(consent=lambda: answers[0])
    client = site.visitor(**ANN)
    token = page_token(client)
    answers[0] = consent
    assert acknowledge(client, token).status_code == 204
    assert balance(site) == (1, 1, 0)


# -- in front of Flask, what is right, but for the first request of a process


def test_what_an_app_does_with_each_request_does_not_keep_a_browser_from_it() -> None:
    site = make_site()
    seen = []

    @site.app.before_request
    def ask_to_sign_in() -> t.Any:
        seen.append(request.path)
        session.permanent = True
        return None if request.path == "/" else redirect("/")

    client = site.visitor(**ANN)
    token = page_token(client)
    answer = acknowledge(client, token)
    assert answer.status_code == 204
    # Else it would write back a session that another response has changed meanwhile.
    assert "Set-Cookie" not in answer.headers
    assert seen == ["/"]
    assert balance(site) == (1, 1, 0)


@pytest.mark.parametrize("root", ["", "/shop"])
def test_a_browser_acknowledges_below_the_app_s_root(root: str) -> None:
    site = make_site(url_prefix="/stats")
    site.app.before_request(lambda: None if request.path == "/" else ("no", 403))
    mounted = Client(DispatcherMiddleware(NotFound(), {root: site.app}))
    page = mounted.get(f"{root}/", headers={"User-Agent": CHROME})
    data = block(page)
    assert data is not None
    token, url = data["handover"], data["acks"]
    assert url == f"{root}/stats/acks"
    assert mounted.post(url, data=token, headers=BROWSER).status_code == 204
    assert balance(site) == (1, 1, 0)


def test_what_is_in_front_of_the_app_stays_there_for_all_else() -> None:
    seen: list[str] = []

    def put_in_front(app: Flask, name: str) -> None:
        behind = app.wsgi_app

        def middleware(environ: t.Any, start_response: t.Any) -> t.Any:
            seen.append(f"{name} {environ['PATH_INFO']}")
            return behind(environ, start_response)

        app.wsgi_app = middleware  # type: ignore[method-assign]

    site = make_site(prepare=lambda app: put_in_front(app, "before"))
    put_in_front(site.app, "after")
    client = site.visitor(**ANN)
    token = page_token(client)
    assert acknowledge(client, token).status_code == 204
    assert seen == ["after /", "before /"]


class Proxy:
    """In the place of what it wraps, as libraries that measure put one there: it looks
    the same."""

    def __init__(self, wrapped: t.Any, seen: list[str]) -> None:
        self._wrapped = wrapped
        self._seen = seen

    def __getattr__(self, name: str) -> t.Any:
        return getattr(self._wrapped, name)

    def __call__(self, environ: t.Any, start_response: t.Any) -> t.Any:
        self._seen.append(environ["PATH_INFO"])
        return self._wrapped(environ, start_response)


class Watching(Flask):
    """An app that looks at each request."""

    def __init__(self) -> None:
        super().__init__("shop")
        self.secret_key = "secret"
        self.seen: list[str] = []

    def watch(self, environ: t.Any, start_response: t.Any) -> t.Any:
        self.seen.append(environ["PATH_INFO"])
        return Flask.wsgi_app(self, environ, start_response)


class WatchesByMethod(Watching):
    def __init__(self) -> None:
        super().__init__()
        self.wsgi_app = self.watch  # type: ignore[method-assign]


class WatchesByProxy(Watching):
    def __init__(self) -> None:
        super().__init__()
        self.wsgi_app = Proxy(self.wsgi_app, self.seen)  # type: ignore[method-assign,assignment]


class WatchesByProperty(Watching):
    @property
    def wsgi_app(self) -> t.Any:  # type: ignore[override]
        return self.watch


class WatchesInItsClass(Watching):
    def wsgi_app(self, environ: t.Any, start_response: t.Any) -> t.Any:
        return self.watch(environ, start_response)


class WatchesWhereItIsCalled(Watching):
    def __call__(self, environ: t.Any, start_response: t.Any) -> t.Any:
        self.seen.append(environ["PATH_INFO"])
        return super().__call__(environ, start_response)


@pytest.mark.parametrize(
    "kind",
    [
        WatchesByMethod,
        WatchesByProxy,
        WatchesByProperty,
        WatchesInItsClass,
        WatchesWhereItIsCalled,
    ],
)
def test_what_an_app_looks_at_requests_with_sees_them(kind: type[Watching]) -> None:
    app = kind()
    mengpaneel = Mengpaneel(app, token="t", spool=None, transport=Kept())
    app.add_url_rule("/", "/", lambda: (mengpaneel.track("View"), PAGE)[1])
    client = app.test_client()
    client.environ_base["HTTP_USER_AGENT"] = CHROME
    assert acknowledge(client, page_token(client)).status_code == 204
    assert app.seen == ["/"]
    assert mengpaneel.ledger().snapshot().delivered == 1


def test_what_is_taken_out_of_an_app_keeps_it_alive() -> None:
    """As where a server is given what is in front of it: nothing else has the app."""

    def make_app() -> t.Any:
        app = Flask("shop")
        Mengpaneel(app, token="t" * 32, spool=None)
        app.add_url_rule("/", "/", lambda: "Hi")
        return ProxyFix(app.wsgi_app)

    assert Client(make_app()).get("/").text == "Hi"


def test_an_app_is_of_the_same_kind_as_before(site: Site) -> None:
    kind = type(site.app)
    assert issubclass(kind, Flask)
    assert repr(kind) == repr(Flask)
    assert kind.__doc__ == Flask.__doc__
    assert type(make_site().app) is kind
    # Who makes another one of it gets a plain app.
    other = kind("other").test_client()
    assert [acknowledge(other, "x").status_code for _ in range(2)] == [404, 404]
    assert (
        type(make_site(prepare=lambda app: setattr(app, "__class__", kind)).app) is kind
    )


class Final(Flask):
    """An app whose class nobody derives from, as `typing.final` says without effect."""

    def __init_subclass__(cls) -> None:
        raise TypeError("Final is final")


class Named(Flask):
    """An app whose subclasses say something."""

    def __init_subclass__(cls, *, name: str) -> None:
        super().__init_subclass__()


class Unhashable(type):
    """The class of classes that are the key of nothing."""

    __hash__ = None  # type: ignore[assignment]


class Alike(Flask, metaclass=Unhashable):
    """An app whose class can't be looked up."""


class Frozen(Flask):
    """An app that keeps its class."""

    def __setattr__(self, name: str, value: object) -> None:
        if name == "__class__":
            raise AttributeError(name)

        super().__setattr__(name, value)


@pytest.mark.parametrize("kind", [Final, Named, Alike, Frozen])
def test_an_app_whose_class_cannot_be_replaced_is_left_to_flask(
    kind: type[Flask],
) -> None:
    app = kind("shop")
    mengpaneel = Mengpaneel(app, token="t", spool=None, transport=Kept())
    app.add_url_rule("/", "/", lambda: (mengpaneel.track("View"), PAGE)[1])
    client = app.test_client()
    client.environ_base["HTTP_USER_AGENT"] = CHROME
    assert type(app) is kind
    assert acknowledge(client, page_token(client)).status_code == 204
    assert mengpaneel.ledger().snapshot().delivered == 1


def test_what_replaces_the_app_s_own_later_is_called(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As libraries do that measure how long requests take."""
    seen: list[str] = []
    usual = Flask.wsgi_app

    def measured(self: Flask, environ: t.Any, start_response: t.Any) -> t.Any:
        seen.append(environ["PATH_INFO"])
        return usual(self, environ, start_response)

    monkeypatch.setattr(Flask, "wsgi_app", measured)
    assert site.client().get("/quiet").status_code == 200
    assert seen == ["/quiet"]


def test_a_process_whose_first_request_acknowledges_begins_to_serve(
    site: Site,
) -> None:
    started: list[str] = []
    client = site.client()
    token = Signer(site.app, TOKEN).token("0123456789abcdef")

    with request_started.connected_to(lambda _: started.append(request.path), site.app):
        for _ in range(2):
            assert acknowledge(client, token).status_code == 204

    assert started == [URL]


def test_what_is_wrong_reaches_the_app_whole(site: Site) -> None:
    seen: list[str] = []
    site.app.before_request(lambda: seen.append(request.get_data(as_text=True)))
    client = site.client()
    assert client.get("/quiet").status_code == 200

    for body, headers in [("x.y", BROWSER), ("x.y", {}), ("x.y", OTHERS[0])]:
        acknowledge(client, body, headers=headers)

    assert seen == ["", "x.y", "x.y", "x.y"]


def test_who_sends_what_is_wrong_is_told_by_the_app_s_proxy(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_mengpaneel.choose.browser_posts.time", Clock())
    app = site.app
    app.wsgi_app = ProxyFix(app.wsgi_app, x_host=1)  # type: ignore[method-assign]
    client = site.visitor(**ANN)
    token = page_token(client)

    for number in range(130):
        headers = {"X-Forwarded-For": f"192.0.2.{number}"}
        assert acknowledge(client, "x", headers=headers).status_code == 400

    # A page of an old browser, which names a host that only the proxy was asked for.
    shop = "shop.example"
    headers = {"Origin": f"http://{shop}", "X-Forwarded-Host": shop}
    assert acknowledge(client, token, headers=headers).status_code == 204


def test_an_app_is_freed_with_its_last_reference() -> None:
    app = Flask("shop")
    Mengpaneel(app, token="t" * 32, spool=None)
    reference = weakref.ref(app)
    gc.disable()

    try:
        del app
        assert reference() is None
    finally:
        gc.enable()
