from __future__ import annotations

import json
import re
import typing as t
from urllib.parse import quote, unquote

import pytest
from flask import Flask, Response, redirect, request
from flask.testing import FlaskClient
from werkzeug.middleware.proxy_fix import ProxyFix

from conftest import CreateApp, sent
from flask_mengpaneel import Mengpaneel
from flask_mengpaneel.config import Config
from flask_mengpaneel.testing import RecordingTransport, record_flushes
from flask_mengpaneel.visitor.client import Client, parse_address

PAGE = "<!doctype html><html><head><title>Shop</title></head><body>Hi</body></html>"
NAME = "mp_token_mixpanel"
OPT = "__mp_opt_in_out_token"
CHROME = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)"
    " Chrome/126.0.0.0 Safari/537.36"
)
ANN = {"distinct_id": "ann", "$device_id": "d1", "$user_id": "ann"}


def client_of(config: dict[str, t.Any] | None = None, **request_: t.Any) -> Client:
    with Flask("shop").test_request_context(**request_):
        return Client(
            Config(token="token", **(config or {})),
            request._get_current_object(),  # type: ignore[attr-defined]
        )


def set_cookies(response: t.Any) -> dict[str, str]:
    """The cookies that a response sets: name -> the whole header."""
    headers = response.headers.getlist("Set-Cookie")
    return {header.partition("=")[0]: header for header in headers}


def kept(client: FlaskClient) -> dict[str, t.Any]:
    """What the browser has in the library's cookie."""
    cookie = client.get_cookie(NAME)
    return json.loads(unquote(cookie.value)) if cookie else {}


@pytest.fixture
def shop(app: Flask, mengpaneel: Mengpaneel) -> Flask:
    """An app that tracks on every way."""
    return add_views(app, mengpaneel)


def add_views(app: Flask, mengpaneel: Mengpaneel) -> Flask:
    @app.route("/<way>", methods=["GET", "POST"])
    def view(way: str) -> t.Any:
        if way != "quiet":
            mengpaneel.track(way)

        return {
            "page": PAGE,
            "quiet": PAGE,
            "redirect": redirect("/quiet"),
            "image": Response(b"x", mimetype="image/png"),
            "cached": Response(
                b"x", mimetype="image/png", headers={"Cache-Control": "public"}
            ),
        }.get(way, {})

    return app


# -- with what


@pytest.mark.parametrize(
    ("agent", "expected"),
    [
        (CHROME, True),
        ("Opera/9.80 (Windows NT 6.1) Presto/2.12 Version/12.16", True),
        ("Werkzeug/3.1.0", True),
        ("curl/8.5.0", False),
        ("python-requests/2.32", False),
        ("Stripe/1.0 (+https://stripe.com/docs/webhooks)", False),
        ("okhttp/4.12.0", False),
        ("Shop/3.1 CFNetwork/1494 Darwin/23.4.0", False),
        ("", False),
        (None, False),
    ],
)
def test_browsers_are_told_from_programs(agent: str | None, expected: bool) -> None:
    headers = {} if agent is None else {"User-Agent": agent}
    assert client_of(headers=headers).is_browser is expected


def test_whoever_navigates_is_a_browser() -> None:
    headers = {"User-Agent": "New/1.0", "Sec-Fetch-Mode": "navigate"}
    assert client_of(headers=headers).is_browser


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, True),
        ({"Accept": "*/*"}, False),
        ({"Accept": "application/json"}, False),
        ({"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}, True),
        ({"Accept": "application/xhtml+xml"}, True),
        ({"Sec-Fetch-Dest": "document", "Sec-Fetch-Mode": "navigate"}, True),
        ({"Sec-Fetch-Dest": "iframe"}, True),
        ({"Sec-Fetch-Dest": "frame"}, True),
        ({"Sec-Fetch-Dest": "empty", "Sec-Fetch-Mode": "cors"}, False),
        ({"Sec-Fetch-Dest": "empty", "Accept": "text/html"}, False),
        ({"Sec-Fetch-Dest": "image"}, False),
        ({"Sec-Fetch-Dest": "script"}, False),
        ({"Sec-Fetch-Mode": "navigate"}, True),
        ({"Sec-Fetch-Mode": "cors", "Accept": "text/html"}, False),
        ({"X-Requested-With": "XMLHttpRequest", "Accept": "text/html"}, False),
        ({"X-Requested-With": "xmlhttprequest", "Accept": "text/html"}, False),
        ({"X-Requested-With": "com.android.browser", "Accept": "text/html"}, True),
        ({"HX-Request": "true", "Accept": "text/html"}, False),
        ({"HX-Request": "true", "HX-Boosted": "true", "Accept": "text/html"}, False),
        ({"Turbo-Frame": "cart", "Accept": "text/html"}, False),
        (
            {"Sec-Fetch-Dest": "document", "X-Requested-With": "XMLHttpRequest"},
            True,
        ),
        # Whoever makes calls is a script: its fetches may look as pages do.
        *(
            ({"X-Mengpaneel-Flush-Capable": value, "Accept": accept}, False)
            for value in ("true", "1", "true; project=token", "true; project=other")
            for accept in ("text/html", "text/html, application/xhtml+xml", "")
        ),
        ({"X-Mengpaneel-Flush-Capable": "true; ack"}, False),
        ({"X-Mengpaneel-Flush-Capable": "false", "Accept": "text/html"}, True),
        ({"X-Mengpaneel-Flush-Capable": "", "Accept": "text/html"}, True),
        # An app that shows pages may say it with all that it asks for.
        ({"X-Mengpaneel-Flush-Capable": "1", "Sec-Fetch-Dest": "document"}, True),
    ],
    ids=lambda value: (
        " ".join(f"{k}={v}" for k, v in value.items())
        if isinstance(value, dict)
        else ""
    ),
)
def test_page_views_are_told_from_what_scripts_fetch(
    headers: dict[str, str], expected: bool
) -> None:
    assert client_of(headers=headers).is_page_view is expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, False),
        ({"Sec-Purpose": "prefetch"}, True),
        ({"Sec-Purpose": "prefetch;prerender"}, True),
        ({"Sec-Purpose": "prefetch;anonymous-client-ip"}, True),
        ({"X-Sec-Purpose": "prefetch"}, True),
        ({"Purpose": "prefetch"}, True),
        ({"X-Moz": "prefetch"}, True),
        ({"Sec-Purpose": "other"}, False),
    ],
    ids=str,
)
def test_what_may_never_be_shown_is_known(
    headers: dict[str, str], expected: bool
) -> None:
    assert client_of(headers=headers).is_prefetch is expected


# -- from where


ADDRESSES = [
    ("192.0.2.77", "192.0.2.77", "192.0.2.0"),
    ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2:3:4:5:6", "2001:db8:1::"),
    ("2001:DB8:0:0::7", "2001:db8::7", "2001:db8::"),
    ("::1", "::1", "::"),
    ("fe80::1%eth0", "fe80::1", "fe80::"),
    ("[fe80::1%25eth0]:80", "fe80::1", "fe80::"),
    ("::ffff:192.0.2.77", "192.0.2.77", "192.0.2.0"),
    ("[::ffff:192.0.2.77]:51234", "192.0.2.77", "192.0.2.0"),
    ("192.0.2.77:51234", "192.0.2.77", "192.0.2.0"),
    ("[2001:db8::7]:443", "2001:db8::7", "2001:db8::"),
    ("[2001:db8::7]", "2001:db8::7", "2001:db8::"),
    ('"[2001:db8::7]:443"', "2001:db8::7", "2001:db8::"),
    ("192.0.2.77, 198.51.100.1", "192.0.2.77", "192.0.2.0"),
    ("192.0.2.77:5000,198.51.100.1", "192.0.2.77", "192.0.2.0"),
    (" 192.0.2.77\t", "192.0.2.77", "192.0.2.0"),
    ("192.0.2.77," + "198.51.100.1, " * 1000, "192.0.2.77", "192.0.2.0"),
    *(
        (text, None, None)
        for text in (
            "",
            "unix:",
            "unix:/run/app.sock",
            "unknown",
            "unknown, 192.0.2.77",
            "_hidden",
            "localhost",
            "localhost:5000",
            "garbage",
            "192.0.2",
            "192.0.2.256",
            "0300.0.2.77",
            "3221226061",
            ":",
            "[",
            "[]",
            "]:80",
            "%eth0",
            ",",
            "1" * 100_000,
            "\0",
        )
    ),
]


@pytest.mark.parametrize(
    ("text", "whole", "anonymous"), ADDRESSES, ids=range(len(ADDRESSES))
)
def test_the_address_is_one_or_none_and_shortened_if_so_configured(
    text: str, whole: str | None, anonymous: str | None
) -> None:
    environ = {"REMOTE_ADDR": text}
    config = {"anonymize_ip": True}

    assert parse_address(text) == whole
    assert client_of(environ_overrides=environ).ip == whole
    assert client_of(config, environ_overrides=environ).ip == anonymous


@pytest.mark.parametrize("text", [None, b"192.0.2.7", 42, ["192.0.2.7"]], ids=range(4))
def test_what_is_no_text_is_no_address(text: t.Any) -> None:
    assert parse_address(text) is None


def test_the_address_is_the_one_that_the_app_believes_in(
    shop: Flask, transport: RecordingTransport
) -> None:
    headers = {"X-Forwarded-For": "192.0.2.7"}
    shop.test_client().get("/api", headers=headers)
    shop.wsgi_app = ProxyFix(shop.wsgi_app)  # type: ignore[method-assign]
    shop.test_client().get("/api", headers=headers)

    addresses = [event["properties"]["ip"] for event in sent(shop, transport)]
    assert addresses == ["127.0.0.1", "192.0.2.7"]


@pytest.mark.parametrize(
    ("path", "headers", "url", "referrer"),
    [
        (
            "/page?utm_source=news",
            {"Referer": "https://www.google.com/"},
            "http://localhost/page?utm_source=news",
            "https://www.google.com/",
        ),
        ("/page", {}, "http://localhost/page", None),
        (
            "/api",
            {"Referer": "http://localhost/cart?a=1", "Sec-Fetch-Dest": "empty"},
            "http://localhost/cart?a=1",
            None,
        ),
        ("/api", {"Sec-Fetch-Dest": "empty"}, None, None),
        ("/api", {"User-Agent": "curl/8"}, None, None),
    ],
    ids=["page", "direct", "fetch", "no referrer", "webhook"],
)
def test_the_page_is_the_one_that_the_visitor_sees(
    create_app: CreateApp,
    mengpaneel: Mengpaneel,
    transport: RecordingTransport,
    path: str,
    headers: dict[str, str],
    url: str | None,
    referrer: str | None,
) -> None:
    app = add_views(create_app(strategies=["AsyncServerSide"]), mengpaneel)
    app.test_client().get(path, headers=headers)
    (event,) = sent(app, transport)

    assert event["properties"].get("$current_url") == url
    assert event["properties"].get("$referrer") in (referrer, "$direct", "")


def test_a_request_without_a_host_has_a_url_all_the_same(
    create_app: CreateApp, mengpaneel: Mengpaneel, transport: RecordingTransport
) -> None:
    app = add_views(create_app(strategies=["AsyncServerSide"]), mengpaneel)

    def http_1_0(environ: dict[str, t.Any], start_response: t.Any) -> t.Any:
        del environ["HTTP_HOST"]
        return wsgi_app(environ, start_response)

    wsgi_app, app.wsgi_app = app.wsgi_app, http_1_0  # type: ignore[method-assign]
    app.test_client().get("/page")
    (event,) = sent(app, transport)
    assert event["properties"]["$current_url"] == "http://localhost/page"


# -- who


def test_a_new_visitor_gets_a_device_that_the_browser_goes_on_with(
    shop: Flask, transport: RecordingTransport
) -> None:
    client = shop.test_client()
    client.get("/image")
    client.get("/image")
    first, second = (event["properties"] for event in sent(shop, transport))

    assert first["distinct_id"] == f"$device:{first['$device_id']}"
    assert "$user_id" not in first
    assert second["distinct_id"] == first["distinct_id"]
    assert kept(client)["$device_id"] == first["$device_id"]
    assert kept(client)["distinct_id"] == first["distinct_id"]


def test_the_cookie_can_be_read_by_scripts(shop: Flask) -> None:
    header = set_cookies(shop.test_client().get("/image"))[NAME].lower()
    assert "httponly" not in header
    assert "path=/" in header


@pytest.mark.parametrize(
    ("way", "headers"),
    [
        ("quiet", {}),
        ("page", {}),
        ("cached", {}),
        ("image", {"User-Agent": "curl/8.5.0"}),
        ("image", {"DNT": "1"}),
        ("api", {"X-Mengpaneel-Flush-Capable": "true"}),
    ],
    ids=["quiet", "page", "cached", "program", "no consent", "capable"],
)
def test_no_cookie_is_written_where_none_is_due(
    shop: Flask, way: str, headers: dict[str, str]
) -> None:
    response = shop.test_client().get(f"/{way}", headers=headers)
    assert NAME not in set_cookies(response)


def test_no_cookie_is_written_where_the_library_keeps_none(
    create_app: CreateApp, mengpaneel: Mengpaneel
) -> None:
    for options in ({"persistence": "localStorage"}, {"disable_persistence": True}):
        app = add_views(create_app(client_config=options), mengpaneel)
        assert NAME not in set_cookies(app.test_client().get("/image"))


def test_a_known_visitor_s_cookie_is_left_alone(shop: Flask) -> None:
    client = shop.test_client()
    client.set_cookie(NAME, quote(json.dumps(ANN)))
    assert NAME not in set_cookies(client.get("/image"))


@pytest.mark.parametrize(
    "garbage", ["garbage", "%7B", quote("[]"), quote('{"distinct_id": {}}')]
)
def test_garbage_in_the_cookie_is_replaced(
    shop: Flask, transport: RecordingTransport, garbage: str
) -> None:
    client = shop.test_client()
    client.set_cookie(NAME, garbage)
    client.get("/image")
    (event,) = sent(shop, transport)
    assert kept(client)["distinct_id"] == event["properties"]["distinct_id"]


def test_server_only_operation_carries_the_visitor_from_anonymous_to_known(
    create_app: CreateApp, mengpaneel: Mengpaneel, transport: RecordingTransport
) -> None:
    app = create_app(strategies=["AsyncServerSide", "ServerSide"])

    @app.get("/<step>")
    def view(step: str) -> t.Any:
        if step == "Sign in":
            with mengpaneel.setup():
                mengpaneel.identify("ann")
                mengpaneel.register({"Plan": "pro"})

        mengpaneel.track(step)

        if step == "Sign out":
            mengpaneel.reset()

        return PAGE

    client = app.test_client()

    for step in ("Visit", "Sign in", "Order", "Sign out", "Again"):
        client.get(f"/{step}")

    events = {e["event"]: e["properties"] for e in sent(app, transport)}
    device = events["Visit"]["$device_id"]
    assert events["Visit"]["distinct_id"] == f"$device:{device}"

    for step in ("Sign in", "Order", "Sign out"):
        assert events[step]["distinct_id"] == "ann"
        assert events[step]["$user_id"] == "ann"
        assert events[step]["$device_id"] == device
        assert events[step]["Plan"] == "pro"

    assert events["Again"]["distinct_id"] == f"$device:{events['Again']['$device_id']}"
    assert events["Again"]["$device_id"] != device
    assert not {"$user_id", "Plan"} & events["Again"].keys()


def test_each_reset_is_a_new_visitor(
    app: Flask, mengpaneel: Mengpaneel, transport: RecordingTransport
) -> None:
    @app.post("/")
    def view() -> dict[str, t.Any]:
        for event in "ABC":
            mengpaneel.track(event)
            mengpaneel.reset()

        return {}

    app.test_client().post("/")
    people = {event["properties"]["distinct_id"] for event in sent(app, transport)}
    assert len(people) == 3


def test_a_clock_runs_on_over_requests(
    create_app: CreateApp, mengpaneel: Mengpaneel, transport: RecordingTransport
) -> None:
    app = create_app(strategies=["AsyncServerSide"])

    @app.get("/<step>")
    def view(step: str) -> str:
        if step == "start":
            mengpaneel.time_event("Checkout")
        else:
            mengpaneel.track("Checkout")

        return PAGE

    client = app.test_client()
    client.get("/start")
    (started,) = kept(client)["__timers"].values()
    client.get("/stop")
    client.get("/stop")
    first, second = (event["properties"] for event in sent(app, transport))
    assert first["$duration"] == pytest.approx(
        first["time"] - started / 1000, abs=0.002
    )
    assert "$duration" not in second


def test_two_requests_without_cookies_are_two_visitors(
    shop: Flask, transport: RecordingTransport
) -> None:
    for _ in range(2):
        shop.test_client(use_cookies=False).get("/api")

    first, second = (event["properties"] for event in sent(shop, transport))
    assert first["distinct_id"] != second["distinct_id"]


# -- consent

REFUSALS: list[tuple[dict[str, str], dict[str, str]]] = [
    ({"DNT": "1"}, {}),
    ({"Sec-GPC": "1"}, {}),
    ({}, {OPT: "0"}),
    ({}, {"mp_optout": "1"}),
]


def ask(
    app: Flask, headers: dict[str, str], cookies: dict[str, str], way: str = "/page"
) -> t.Any:
    client = app.test_client()

    for name, value in cookies.items():
        client.set_cookie(name, value)

    return client.get(way, headers=headers)


@pytest.mark.parametrize(("headers", "cookies"), REFUSALS, ids=str)
@pytest.mark.parametrize("way", ["page", "quiet", "redirect", "api", "image"])
def test_without_consent_nothing_happens(
    shop: Flask,
    mengpaneel: Mengpaneel,
    transport: RecordingTransport,
    headers: dict[str, str],
    cookies: dict[str, str],
    way: str,
) -> None:
    plain = add_views(Flask("plain"), t.cast(Mengpaneel, Silent()))

    with record_flushes(shop) as outcomes:
        response = ask(shop, headers, cookies, f"/{way}")

    expected = ask(plain, headers, cookies, f"/{way}")
    assert response.data == expected.data
    assert list(response.headers) == list(expected.headers)
    assert outcomes == []
    assert transport.envelopes == []
    assert mengpaneel.ledger().recorded == 0


class Silent:
    """Where an app has no extension."""

    def track(self, _name: str) -> None:
        return None


@pytest.mark.parametrize(
    ("headers", "cookies"),
    [
        ({"DNT": "0"}, {}),
        ({"DNT": "x"}, {}),
        ({"Sec-GPC": "0"}, {}),
        ({}, {OPT: "1"}),
        ({}, {OPT: "garbage"}),
        ({}, {"mp_optout": ""}),
        ({}, {"__mp_opt_in_out_other": "0"}),
    ],
    ids=str,
)
def test_what_is_no_refusal_is_none(
    shop: Flask, headers: dict[str, str], cookies: dict[str, str]
) -> None:
    assert b"calls" in ask(shop, headers, cookies).data


@pytest.mark.parametrize(("headers", "cookies"), REFUSALS[:2], ids=str)
def test_the_signals_may_be_ignored(
    create_app: CreateApp,
    mengpaneel: Mengpaneel,
    headers: dict[str, str],
    cookies: dict[str, str],
) -> None:
    app = add_views(create_app(respect_dnt=False), mengpaneel)
    assert b"calls" in ask(app, headers, cookies).data


def refuse() -> t.NoReturn:
    raise ZeroDivisionError("who knows")


@pytest.mark.parametrize(
    ("consent", "headers", "tracked"),
    [
        (lambda: True, {}, True),
        (lambda: True, {"DNT": "1"}, True),
        (lambda: True, {"Sec-GPC": "1"}, True),
        (lambda: False, {}, False),
        (lambda: 0, {}, False),
        (lambda: None, {"DNT": "1"}, False),
        (refuse, {}, False),
    ],
    ids=range(7),
)
@pytest.mark.parametrize("testing", [True, False])
def test_the_app_is_asked_for_consent(
    create_app: CreateApp,
    mengpaneel: Mengpaneel,
    transport: RecordingTransport,
    caplog: pytest.LogCaptureFixture,
    consent: t.Any,
    headers: dict[str, str],
    tracked: bool,
    testing: bool,
) -> None:
    app = add_views(create_app(consent=consent, testing=testing), mengpaneel)

    for way in ("page", "quiet"):
        assert (b"<script" in ask(app, headers, {}, f"/{way}").data) is tracked

    ask(app, headers, {}, "/api")
    assert len(transport.envelopes) == tracked

    if consent is refuse:
        assert "who knows" in caplog.text


def test_the_library_s_opt_out_outweighs_the_app(
    create_app: CreateApp, mengpaneel: Mengpaneel
) -> None:
    app = add_views(create_app(consent=lambda: True), mengpaneel)
    assert ask(app, {}, {OPT: "0"}).text == PAGE


def test_the_callable_is_called_inside_the_request(
    create_app: CreateApp, mengpaneel: Mengpaneel, transport: RecordingTransport
) -> None:
    def consent() -> bool:
        return request.cookies.get("consent") == "yes"

    app = add_views(create_app(consent=consent), mengpaneel)
    ask(app, {}, {"consent": "yes"}, "/api")
    ask(app, {}, {"consent": "no"}, "/api")
    assert len(transport.envelopes) == 1


@pytest.mark.parametrize("answer", [True, False])
@pytest.mark.parametrize("way", ["page", "redirect", "api"])
def test_calls_wait_until_the_visitor_was_asked(
    create_app: CreateApp,
    mengpaneel: Mengpaneel,
    transport: RecordingTransport,
    answer: bool,
    way: str,
) -> None:
    choice: bool | None = None
    app = add_views(create_app(consent=lambda: choice), mengpaneel)
    client = app.test_client()
    response = client.get(f"/{way}")
    cookies = set_cookies(response)
    assert b"<script" not in response.data
    assert NAME not in cookies
    assert transport.envelopes == []
    assert client.get("/quiet").text == PAGE

    choice = answer
    page = client.get("/quiet").text
    calls = re.findall(r'"track"\],\["(\w+)"', page)
    assert calls == ([way] if answer else [])
    assert client.get("/quiet").text.count('"track"') == 0

    with client.session_transaction() as session:
        assert "_mengpaneel_token" not in session

    assert transport.envelopes == []


def test_what_can_t_wait_for_consent_is_dropped_and_counted(
    create_app: CreateApp, mengpaneel: Mengpaneel, transport: RecordingTransport
) -> None:
    app = create_app(consent=lambda: None)
    app.secret_key = None
    add_views(app, mengpaneel)
    app.test_client().get("/api")

    assert transport.envelopes == []
    ledger = mengpaneel.ledger().snapshot()
    assert ledger.balanced
    assert sum(ledger.dropped.values()) == 1


OPTIONS: list[dict[str, t.Any]] = [
    {},
    {"client_config": {"persistence": "localStorage"}},
    {"strategies": ["AsyncServerSide"]},
]


@pytest.mark.parametrize("settings", OPTIONS, ids=str)
def test_opting_out_from_a_view_takes_effect_at_once_on_both_sides(
    create_app: CreateApp,
    mengpaneel: Mengpaneel,
    transport: RecordingTransport,
    settings: dict[str, t.Any],
) -> None:
    app = add_views(create_app(**settings), mengpaneel)

    @app.get("/opt-out")
    def opt_out() -> t.Any:
        mengpaneel.opt_out_tracking()
        mengpaneel.track("Too late")
        return PAGE

    client = app.test_client()
    client.set_cookie(NAME, quote(json.dumps(ANN)))
    response = client.get("/opt-out")
    assert "Too late" not in response.text
    assert set_cookies(response)[OPT].startswith(f"{OPT}=0;")
    assert "httponly" not in set_cookies(response)[OPT].lower()
    assert all(call.name != "track" for call in transport.calls)

    transport.envelopes.clear()
    assert client.get("/page").text == PAGE
    client.get("/api")
    assert transport.envelopes == []


def test_opting_out_forgets_who_it_was(shop: Flask, mengpaneel: Mengpaneel) -> None:
    @shop.get("/opt/out")
    def opt_out() -> t.Any:
        mengpaneel.opt_out_tracking()
        return {}

    client = shop.test_client()
    client.set_cookie(NAME, quote(json.dumps(ANN)))
    client.get("/opt/out")
    cookie = client.get_cookie(NAME)
    assert cookie is None or cookie.value == ""


@pytest.mark.parametrize("settings", OPTIONS, ids=str)
def test_opting_in_from_a_view_takes_effect_at_once(
    create_app: CreateApp,
    mengpaneel: Mengpaneel,
    transport: RecordingTransport,
    settings: dict[str, t.Any],
) -> None:
    app = add_views(create_app(**settings), mengpaneel)

    @app.get("/opt/in")
    def opt_in() -> t.Any:
        mengpaneel.track("Too early")
        mengpaneel.opt_in_tracking()
        mengpaneel.track("Agreed")
        return {}

    client = app.test_client()
    client.set_cookie(OPT, "0")
    response = client.get("/opt/in")
    assert [call.event for call in transport.calls if call.tracks] == ["Agreed"]
    assert set_cookies(response)[OPT].startswith(f"{OPT}=1;")
    client.get("/api")
    assert len(transport.envelopes) == 2


@pytest.mark.parametrize(
    ("consent", "headers"),
    [(lambda: False, {}), (None, {"DNT": "1"}), (None, {"Sec-GPC": "1"})],
    ids=["app", "DNT", "GPC"],
)
def test_opting_in_doesn_t_outweigh_the_app_and_the_browser(
    create_app: CreateApp,
    mengpaneel: Mengpaneel,
    transport: RecordingTransport,
    consent: t.Any,
    headers: dict[str, str],
) -> None:
    app = create_app(consent=consent)

    @app.get("/")
    def view() -> t.Any:
        mengpaneel.opt_in_tracking()
        mengpaneel.track("A")
        return {}

    app.test_client().get("/", headers=headers)
    assert transport.envelopes == []


def test_consent_is_of_one_request(
    create_app: CreateApp, mengpaneel: Mengpaneel, transport: RecordingTransport
) -> None:
    answers = [True, False, True]
    app = add_views(create_app(consent=lambda: answers[-1]), mengpaneel)
    client = app.test_client()

    while answers:
        client.get("/api")
        answers.pop()

    assert len(transport.envelopes) == 2


# -- robots


@pytest.mark.parametrize("way", ["api", "page"])
def test_a_webhook_is_no_robot(
    create_app: CreateApp,
    mengpaneel: Mengpaneel,
    transport: RecordingTransport,
    way: str,
) -> None:
    app = add_views(create_app(bots="drop"), mengpaneel)
    headers = {"User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)"}
    app.test_client().post(f"/{way}", headers=headers)
    assert len(sent(app, transport)) == 1


# -- what there is no room for


def test_whoever_has_more_properties_than_a_cookie_stays_one_person(
    create_app: CreateApp, mengpaneel: Mengpaneel, transport: RecordingTransport
) -> None:
    app = create_app(strategies=["AsyncServerSide", "ServerSide"])

    @app.route("/<path:name>")
    def view(name: str) -> str:
        mengpaneel.register({name: name * 5_000, "Plan": "pro"})
        mengpaneel.track("View")
        return PAGE

    client = app.test_client()

    for name in "abc":
        client.get(f"/{name}")

    events = [event["properties"] for event in sent(app, transport)]
    assert len({event["distinct_id"] for event in events}) == 1
    # What is too much for the cookie is a part of the event all the same.
    assert [event[name] for event, name in zip(events, "abc", strict=True)] == [
        name * 5_000 for name in "abc"
    ]
    assert kept(client)["Plan"] == "pro"


@pytest.mark.parametrize(
    "id", ["👩\u200d💻", "a\xa0b", "a\u3000b", "\u200fשלום", "e\u0301", "漢" * 255]
)
def test_whoever_has_an_unusual_id_is_believed(
    create_app: CreateApp,
    mengpaneel: Mengpaneel,
    transport: RecordingTransport,
    id: str,
) -> None:
    app = create_app(strategies=["AsyncServerSide", "ServerSide"])

    @app.route("/in")
    def sign_in() -> str:
        mengpaneel.identify(id)
        mengpaneel.track("In")
        return PAGE

    @app.route("/")
    def view() -> str:
        mengpaneel.track("View")
        return PAGE

    client = app.test_client()
    client.get("/in")
    client.get("/")

    events = [event["properties"] for event in sent(app, transport)]
    assert [event["distinct_id"] for event in events] == [id, id]


@pytest.mark.parametrize("stack", [0, 500])
@pytest.mark.parametrize("depth", [5, 300, 500, 2_000])
def test_a_cookie_that_is_nested_deeply_costs_its_sender_no_call(
    shop: Flask, transport: RecordingTransport, depth: int, stack: int
) -> None:
    text = json.dumps(ANN)[:-1] + ', "deep": ' + "[" * depth + "]" * depth + "}"
    headers = {"Cookie": f"{NAME}={quote(text, safe='[]')}"}

    def ask(depth: int) -> None:
        if depth:
            ask(depth - 1)
        else:
            shop.test_client(use_cookies=False).post("/buy", headers=headers)

    ask(stack)
    (event,) = sent(shop, transport)
    assert event["properties"]["distinct_id"] == "ann"
    assert event["properties"]["$device_id"] == "d1"


def test_no_more_is_kept_of_a_request_than_a_request_needs(
    shop: Flask, transport: RecordingTransport
) -> None:
    large = "x" * 60_000
    headers = {"User-Agent": f"Mozilla/5.0 {large}", "Referer": f"https://a/{large}"}
    shop.test_client().get(f"/buy?{large}", headers=headers)
    shop.test_client().post("/buy", headers={**headers, "Sec-Fetch-Mode": "cors"})

    assert transport.envelopes
    assert all(len(one.to_bytes()) < 30_000 for one in transport.envelopes)
