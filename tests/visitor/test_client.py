from __future__ import annotations

import typing as t

import pytest
from flask import Flask, request
from werkzeug.middleware.proxy_fix import ProxyFix

from agents import CHROME
from flask_mengpaneel import Mengpaneel
from flask_mengpaneel.config import Config
from flask_mengpaneel.testing import RecordingTransport
from flask_mengpaneel.visitor.client import Client, parse_address
from sites import PAGE, CreateApp, sent


def client_of(config: dict[str, t.Any] | None = None, **request_: t.Any) -> Client:
    with Flask("shop").test_request_context(**request_):
        return Client(
            Config(token="token", **(config or {})),
            request._get_current_object(),  # type: ignore[attr-defined]
        )


def tracking(app: Flask, mengpaneel: Mengpaneel) -> Flask:
    """The app with a page and an API that track."""

    @app.route("/page")
    def page() -> str:
        mengpaneel.track("page")
        return PAGE

    @app.route("/api")
    def api() -> dict[str, t.Any]:
        mengpaneel.track("api")
        return {}

    return app


# -- which program


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
        # Only Firefox says more of what it asks for than this.
        ({"Upgrade": "websocket", "Connection": "Upgrade"}, False),
        ({"Upgrade": "WebSocket", "Connection": "keep-alive, Upgrade"}, False),
        ({"Upgrade": "h2c", "Connection": "Upgrade"}, True),
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


# -- where


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
    app: Flask, mengpaneel: Mengpaneel, transport: RecordingTransport
) -> None:
    shop = tracking(app, mengpaneel)
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
        ("/api?sid=x", {"Upgrade": "websocket"}, None, None),
        ("/api", {"User-Agent": "curl/8"}, None, None),
    ],
    ids=["page", "direct", "fetch", "no referrer", "socket", "webhook"],
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
    app = tracking(create_app(strategies=["AsyncServerSide"]), mengpaneel)
    app.test_client().get(path, headers=headers)
    (event,) = sent(app, transport)

    assert event["properties"].get("$current_url") == url
    assert event["properties"].get("$referrer") in (referrer, "$direct", "")


def test_a_request_without_a_host_has_a_url_all_the_same(
    create_app: CreateApp, mengpaneel: Mengpaneel, transport: RecordingTransport
) -> None:
    app = tracking(create_app(strategies=["AsyncServerSide"]), mengpaneel)

    def http_1_0(environ: dict[str, t.Any], start_response: t.Any) -> t.Any:
        del environ["HTTP_HOST"]
        return wsgi_app(environ, start_response)

    wsgi_app, app.wsgi_app = app.wsgi_app, http_1_0  # type: ignore[method-assign]
    app.test_client().get("/page")
    (event,) = sent(app, transport)
    assert event["properties"]["$current_url"] == "http://localhost/page"
