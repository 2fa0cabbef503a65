"""What the doctor finds in pages, and in what they need of the app."""

from __future__ import annotations

import gzip
import typing as t

import pytest
from flask import Flask, Response, redirect, request
from flask_wtf import CSRFProtect

from doctor_pages import PAGE, SCRIPT, lines, under
from flask_mengpaneel import Mengpaneel
from flask_mengpaneel.doctor.command import examine
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


def test_a_page_that_is_compressed_afterwards_is_fine(
    mengpaneel: Mengpaneel,
) -> None:
    app = Flask("shop")
    app.secret_key = "secret"
    app.config.update(MENGPANEEL_TOKEN="token", MENGPANEEL_SPOOL=None)

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


def test_a_page_is_checked_though_nobody_has_consented(serve: CreateApp) -> None:
    app = serve(**under("connect-src 'none'"), consent=lambda: None)
    first, second = lines(app)

    assert first == "note: /: nothing is tracked: this visitor hasn't consented"
    assert second.startswith("error: /: connect-src")


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

    assert lines(app)[0].startswith("warning: /: the page can't carry calls")
    assert lines(app, "/out") == [
        "note: /out: redirects to https://other.test/ -> name a page that doesn't"
    ]


def test_a_page_that_is_not_there_is_found(app: Flask) -> None:
    (line,) = lines(app, "/none")

    assert line.startswith("warning: /none: the app answers with 404")


def test_a_view_that_raises_is_found(app: Flask) -> None:
    app.add_url_rule("/", view_func=lambda: 1 / 0)  # type: ignore[arg-type,return-value]

    assert lines(app)[0].startswith("error: /: the view raises ZeroDivisionError")


def test_hand_backs_that_csrf_protection_refuses_are_found(serve: CreateApp) -> None:
    app = serve()
    csrf = CSRFProtect(app)

    (finding,) = examine(app)
    assert finding.text.startswith("the app answers /_mengpaneel/calls with 400")
    assert finding.remedy == 'csrf.exempt(app.blueprints["mengpaneel"])'
    assert finding.level.value == "error"

    csrf.exempt(app.blueprints["mengpaneel"])
    assert lines(app) == []


def test_an_app_that_lets_nobody_in_is_found(serve: CreateApp) -> None:
    app = serve()
    app.before_request(lambda: redirect("/sign-in") if request.path != "/" else None)

    found = lines(app)
    assert found[0].startswith(f"error: the app answers {SCRIPT} with 302")
    assert found[1].startswith("error: the app answers /_mengpaneel/calls with 302")
