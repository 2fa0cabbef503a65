"""What the doctor finds in pages, and in what they need of the app."""

from __future__ import annotations

import gzip
import typing as t

import pytest
from flask import Flask, Response, redirect, request
from flask_wtf import CSRFProtect
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix

from agents import CHROME
from doctor_pages import PAGE, SCRIPT, TOKEN, lines, under
from flask_mengpaneel import Declined, Mengpaneel, Strategy
from flask_mengpaneel.doctor.command import examine
from flask_mengpaneel.doctor.examiner import Person
from flask_mengpaneel.testing import RecordingTransport
from sites import CreateApp


def compressed() -> Response:
    return Response(gzip.compress(PAGE.encode()), headers={"Content-Encoding": "gzip"})


@pytest.mark.parametrize(
    ("body", "headers", "reason"),
    [
        ("<p>part", (), "no </head> or </body>, or a frameset"),
        (PAGE, [("Cache-Control", "public")], "shared caches may keep the page"),
        (PAGE, [("CDN-Cache-Control", "max-age=9")], "shared caches may keep the page"),
        (compressed(), (), "the body is encoded"),
        (Response(iter([PAGE])), (), "the body is streamed"),
        (PAGE, [("Content-Type", "text/plain")], "not HTML"),
    ],
)
def test_a_page_that_carries_no_calls_is_found(
    serve: CreateApp, body: str | Response, headers: t.Any, reason: str
) -> None:
    if headers and headers[0][0] == "Content-Type":
        body, headers = Response(body, content_type="text/plain"), ()

    (line,) = lines(serve(body, headers))

    assert f"({reason}): the server sends them" in line
    assert line.startswith("warning: ")


class ServerTiming(Strategy):
    """Tells a page's scripts in a header."""

    is_client_side = True

    def flush(self, calls: t.Any, visitor: t.Any, exchange: t.Any) -> None:
        if exchange.request.args:
            raise Declined("the header is full")

        exchange.private_response().headers["Server-Timing"] = "calls"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/", "warning: /: the page can't carry calls {}: ServerTiming takes them"),
        (
            "/?full",
            "error: /: the page can't carry calls {}: no other strategy",
        ),
    ],
)
def test_an_app_s_own_strategy_may_take_what_a_page_can_t_carry(
    serve: CreateApp, path: str, said: str
) -> None:
    app = serve("<p>part", strategies=["ClientSide", ServerTiming])
    (line,) = lines(app, path)

    assert line.startswith(said.format("(no </head> or </body>, or a frameset)"))


def test_a_page_that_is_compressed_afterwards_is_fine(
    mengpaneel: Mengpaneel,
) -> None:
    app = Flask("shop")
    app.secret_key = "secret"
    app.config.update(MENGPANEEL_TOKEN=TOKEN, MENGPANEEL_SPOOL=None)

    # Registered before the extension, and so run after it.
    @app.after_request
    def compress(response: Response) -> Response:
        if response.is_sequence and "gzip" in request.headers["Accept-Encoding"]:
            response.set_data(gzip.compress(response.get_data()))
            response.headers["Content-Encoding"] = "gzip"

        return response

    mengpaneel.init_app(app)
    app.add_url_rule("/", view_func=lambda: PAGE)

    assert lines(app) == []


def test_a_page_that_carries_no_calls_loses_them_if_nothing_else_does(
    serve: CreateApp,
) -> None:
    (line,) = lines(serve("<p>part", strategies=["Delayed", "ClientSide"]))

    assert line.startswith("error: /: the page can't carry calls")


def test_nothing_that_views_track_is_sent(
    app: Flask, mengpaneel: Mengpaneel, transport: RecordingTransport
) -> None:
    @app.get("/")
    def page() -> str:
        mengpaneel.track("Look")
        return "no page"

    assert len(lines(app)) == 1
    assert transport.envelopes == []

    app.test_client().get("/")
    assert len(transport.envelopes) == 1


@pytest.mark.parametrize("url", ["/", "/from"])
def test_nothing_that_pages_carry_waits_to_be_acknowledged(
    app: Flask, mengpaneel: Mengpaneel, url: str
) -> None:
    @app.get("/")
    def page() -> str:
        with mengpaneel.setup():
            mengpaneel.identify("ann")
            mengpaneel.people.set({"Plan": "pro"})

        mengpaneel.track("Look")
        return PAGE

    @app.get("/from")
    def redirected() -> t.Any:
        mengpaneel.track("Leave")
        return redirect("/")

    hand_overs = app.extensions["mengpaneel"].hand_overs
    assert [line for line in lines(app, url) if not line.startswith("note")] == []
    assert hand_overs.counts().kept == 0
    assert mengpaneel.ledger().waiting == 0

    app.test_client().get("/", headers={"User-Agent": CHROME})
    assert hand_overs.counts().kept == 1


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (None, "nobody has asked whether this visitor may be tracked"),
        (False, "this visitor hasn't consented (MENGPANEEL_CONSENT)"),
    ],
)
def test_a_page_is_checked_whatever_the_consent(
    serve: CreateApp, answer: bool | None, why: str
) -> None:
    app = serve(**under("connect-src 'none'"), consent=lambda: answer)
    (line,) = lines(app)
    assert line.startswith("error: /: connect-src")

    first, second = map(str, examine(app, person=Person(consents=False)))
    assert first == f"note: /: nothing is tracked: {why}"
    assert second == line
    # It is asked again.
    assert app.extensions["mengpaneel"].config.consent() is answer


def test_redirects_are_followed_within_the_site(app: Flask) -> None:
    @app.get("/")
    def page() -> t.Any:
        return redirect("/old")

    @app.get("/old")
    def old() -> str:
        return "no page"

    @app.get("/out")
    def out() -> t.Any:
        return redirect("https://other.test/")

    led, line = lines(app)
    assert led.startswith("note: /: redirects to /old: this is examined -> --cookie")
    assert line.startswith("warning: /old: the page can't carry calls")
    assert lines(app, "/out") == [
        "note: /out: redirects to https://other.test/ -> name a page that doesn't"
    ]


@pytest.mark.parametrize(
    ("url", "header"),
    [("/mounted/", None), ("/", "/mounted"), ("https://shop.test/mounted/", None)],
)
def test_an_app_that_middleware_mounts_below_a_path_is_examined_there(
    serve: CreateApp, url: str, header: str | None
) -> None:
    app = serve()

    if header is None:
        mounted = {"/mounted": app.wsgi_app}
        app.wsgi_app = DispatcherMiddleware(Response(status=404), mounted)  # type: ignore[method-assign]
    else:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_prefix=1)  # type: ignore[method-assign]

    person = Person(headers=[("X-Forwarded-Prefix", header)] if header else [])

    assert examine(app, [url], person=person) == []


def test_a_page_that_is_not_there_is_found(app: Flask) -> None:
    (line,) = lines(app, "/none")

    assert line.startswith("warning: /none: the app answers with 404")


def test_where_nothing_but_a_form_is_answered_the_way_to_ask_is_said(
    app: Flask,
) -> None:
    app.add_url_rule("/orders", view_func=lambda: "", methods=["POST"])
    (line,) = lines(app, "/orders")

    assert line.startswith("warning: /orders: the app answers with 405")
    assert line.endswith(" -> flask mengpaneel explain POST /orders")


def test_a_view_that_raises_is_found(app: Flask) -> None:
    app.add_url_rule("/", view_func=lambda: 1 / 0)  # type: ignore[arg-type,return-value]

    assert lines(app)[0].startswith("error: /: the view raises ZeroDivisionError")


def test_hand_backs_that_csrf_protection_refuses_are_found(serve: CreateApp) -> None:
    app = serve()
    csrf = CSRFProtect(app)

    (calls,) = examine(app)
    assert calls.text.startswith("the app answers /_mengpaneel/calls with 400")
    assert calls.remedy == 'csrf.exempt(app.blueprints["mengpaneel"])'
    assert calls.level.value == "error"

    csrf.exempt(app.blueprints["mengpaneel"])
    assert lines(app) == []


def test_an_app_that_lets_nobody_in_is_found(serve: CreateApp) -> None:
    app = serve()
    app.before_request(lambda: redirect("/sign-in") if request.path != "/" else None)

    found = lines(app)
    assert found[0].startswith(f"error: the app answers {SCRIPT} with 302")
    assert found[1].startswith("error: the app answers /_mengpaneel/calls with 302")


ELSEWHERE = PAGE.replace("<head>", '<head><base href="https://cdn.test/">')


def test_a_base_on_another_site_leads_nothing_of_the_page_there(
    serve: CreateApp,
) -> None:
    assert lines(serve(ELSEWHERE)) == []


@pytest.mark.parametrize(
    ("host", "found"),
    [
        ("/mixpanel", True),
        ("//mixpanel.test", False),
        ("https://mixpanel.test", False),
    ],
)
@pytest.mark.parametrize("base", ["https://cdn.test/", "//cdn.test/a/", "/app/"])
def test_a_base_that_leads_what_the_library_sends_elsewhere_is_found(
    serve: CreateApp, base: str, host: str, found: bool
) -> None:
    page = PAGE.replace("<head>", f'<head><base href="{base}">')
    app = serve(page, client_config={"api_host": host})

    if not found or base == "/app/":
        assert lines(app) == []
        return

    leads = "https:" + base.removeprefix("https:")
    assert lines(app) == [
        f"error: /: its <base> leads what the library sends to {leads}"
        ' -> MENGPANEEL_CLIENT_CONFIG = {"api_host": "https://localhost/mixpanel"}'
    ]


def test_a_base_that_comes_after_the_extension_is_found(serve: CreateApp) -> None:
    def add_base(response: Response) -> Response:
        if response.mimetype == "text/html":
            page = response.get_data(as_text=True)
            base = '<head><base href="//cdn.test/">'
            response.set_data(page.replace("<head>", base))

        return response

    def prepare(app: Flask) -> None:
        app.after_request(add_base)

    (line,) = lines(serve(prepare=prepare))
    assert line.startswith("error: /: its <base> leads the script to https://cdn.test/")


@pytest.mark.parametrize(
    ("options", "told", "finding"),
    [
        ('{persistence: "localStorage"}', {}, '"persistence": "localStorage"'),
        ("{'persistence':'localStorage'}", {}, '"persistence": "localStorage"'),
        ('{"persistence_name": "shop"}', {}, '"persistence_name": "shop"'),
        ("{disable_persistence: true}", {}, '"disable_persistence": True'),
        ("{disable_persistence:!0}", {}, '"disable_persistence": True'),
        ('{persistence: "cookie"}', {}, None),
        ("{disable_persistence: false}", {}, None),
        ('{persistence: "localStorage"}', {"persistence": "localStorage"}, None),
    ],
)
def test_where_the_page_s_own_library_keeps_the_visitor_has_to_be_told(
    serve: CreateApp, options: str, told: dict[str, str], finding: str | None
) -> None:
    own = f"<head><script>mixpanel.init('token', {options})</script>"
    app = serve(PAGE.replace("<head>", own), client_config=told)
    found = lines(app)

    if finding is None:
        assert found == []
    else:
        (line,) = found
        assert line.startswith("warning: /: its own code gives Mixpanel's library")
        assert line.endswith(f"MENGPANEEL_CLIENT_CONFIG = {{{finding}}}")
