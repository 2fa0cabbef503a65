"""What is said of settings and pages that would lose calls."""

from __future__ import annotations

import collections.abc as c
import gzip
import os
import socket
import threading
import typing as t
from pathlib import Path

import pytest
from flask import Flask, Response, g, redirect, request
from flask_talisman import Talisman
from flask_wtf import CSRFProtect
from werkzeug.serving import make_server

from flask_mengpaneel import Mengpaneel
from flask_mengpaneel.cli import mengpaneel as commands
from flask_mengpaneel.doctor.command import examine
from flask_mengpaneel.doctor.csp import parse
from flask_mengpaneel.testing import RecordingTransport

PAGE = "<!doctype html><html><head><title>Shop</title></head><body></body></html>"
SCRIPT = "/_mengpaneel/static/mengpaneel.js"
HOST = "https://api-js.mixpanel.com"
CDN = "https://cdn.mxpnl.com"

CreateApp = c.Callable[..., Flask]


@pytest.fixture
def serve(create_app: CreateApp) -> CreateApp:
    """Makes an app with one page; settings as for ``create_app``."""

    def create(
        body: str | Response = PAGE, headers: t.Any = (), **settings: t.Any
    ) -> Flask:
        app = create_app(**settings)

        @app.get("/")
        def page() -> Response:
            response = body if isinstance(body, Response) else Response(body)

            for name, value in headers:
                response.headers.add(name, value.replace("NONCE", g.get("nonce", "")))

            return response

        return app

    return create


def under(*policies: str) -> dict[str, t.Any]:
    return {"headers": [("Content-Security-Policy", text) for text in policies]}


def lines(app: Flask, *urls: str) -> list[str]:
    return [str(finding) for finding in examine(app, urls or ("/",))]


def test_nothing_is_wrong_with_an_ordinary_app(serve: CreateApp) -> None:
    runner = serve().test_cli_runner()
    result = runner.invoke(commands, ["doctor"])

    assert result.output == "Nothing is wrong.\n"
    assert result.exit_code == 0


def test_it_fails_if_calls_would_be_lost(serve: CreateApp) -> None:
    runner = serve(**under("script-src https://other.test")).test_cli_runner()
    result = runner.invoke(commands, ["doctor", "/"])

    assert result.output == (
        f"error: /: script-src of Content-Security-Policy forbids {SCRIPT} and"
        " https://cdn.mxpnl.com/libs/mixpanel-2-latest.min.js"
        f" -> script-src https://other.test 'self' {CDN}\n"
    )
    assert result.exit_code == 1


def test_a_warning_is_no_failure(serve: CreateApp) -> None:
    runner = serve(body="no page").test_cli_runner()
    result = runner.invoke(commands, ["doctor"])

    assert result.output.startswith("warning: /: calls can't go with the page")
    assert result.exit_code == 0


def test_an_app_without_the_extension_is_said(app: Flask) -> None:
    result = Flask("other").test_cli_runner().invoke(commands, ["doctor"])

    assert "This app has no Mengpaneel." in result.output
    assert result.exit_code == 1


# -- Policies


@pytest.mark.parametrize(
    "policy",
    [
        f"default-src 'none'; script-src 'self' {CDN}; connect-src 'self' {HOST}",
        "default-src 'self' *.mxpnl.com *.mixpanel.com",
        "DEFAULT-SRC 'SELF' https:",
        "default-src *",
        "default-src https:",
        f"script-src 'none'; script-src-elem 'self' {CDN}",
        f"script-src 'self' {CDN}/libs/",
        "img-src 'none'; style-src 'self'; object-src 'none'",
        f"script-src 'self' {CDN}; script-src 'none'",
        "require-trusted-types-for 'script'",
        "require-trusted-types-for 'script'; trusted-types other mengpaneel",
        "trusted-types other",
        "sandbox allow-scripts allow-same-origin",
        f"connect-src 'self' {HOST}:443",
    ],
)
def test_what_a_policy_lets_through_is_no_finding(
    serve: CreateApp, policy: str
) -> None:
    assert lines(serve(**under(policy))) == []


@pytest.mark.parametrize(
    ("policy", "level", "remedy"),
    [
        ("default-src 'self'", "warning", f"script-src 'self' {CDN}"),
        ("default-src 'self'", "warning", f"connect-src 'self' {HOST}"),
        ("default-src 'none'", "warning", f"script-src 'self' {CDN}"),
        ("default-src 'none'", "warning", f"connect-src {HOST} 'self'"),
        ("connect-src 'none'", "error", f"connect-src {HOST} 'self'"),
        (f"script-src {CDN}", "error", f"script-src {CDN} 'self'"),
        ("script-src 'self' http:", None, None),
        ("script-src-elem 'self'", "warning", f"script-src-elem 'self' {CDN}"),
        (
            f"script-src 'self' {CDN}/other/",
            "warning",
            f"script-src 'self' {CDN}/other/ {CDN}",
        ),
        (
            "script-src 'self' https://*.cdn.mxpnl.com",
            "warning",
            f"script-src 'self' https://*.cdn.mxpnl.com {CDN}",
        ),
        (f"connect-src {HOST}", "warning", f"connect-src {HOST} 'self'"),
        (
            f"connect-src 'self' {HOST}:8443",
            "warning",
            f"connect-src 'self' {HOST}:8443 {HOST}",
        ),
        (
            "script-src 'nonce-abc'",
            "error",
            "MENGPANEEL_CSP_NONCE = a callable that gives the nonce of the response",
        ),
        (
            f"script-src 'strict-dynamic' 'self' {CDN}",
            "error",
            "MENGPANEEL_CSP_NONCE = a callable that gives the nonce of the response",
        ),
        ("script-src 'sha256-abc='", "error", f"script-src 'sha256-abc=' 'self' {CDN}"),
        (
            "require-trusted-types-for 'script'; trusted-types other",
            "warning",
            "trusted-types other mengpaneel",
        ),
        (
            "require-trusted-types-for 'script'; trusted-types 'none'",
            "warning",
            "trusted-types mengpaneel",
        ),
        ("sandbox", "warning", "sandbox allow-scripts allow-same-origin"),
    ],
)
def test_what_a_policy_lacks_is_said(
    serve: CreateApp, policy: str, level: str | None, remedy: str | None
) -> None:
    found = [
        (str(finding.level.value), finding.remedy)
        for finding in examine(serve(**under(policy)))
    ]

    assert found == [] if level is None else (level, remedy) in found


def test_what_is_added_is_enough(serve: CreateApp) -> None:
    findings = examine(serve(**under("default-src 'none'")))
    policy = "; ".join(finding.remedy for finding in findings if finding.remedy)
    app = Flask("cured")
    app.secret_key = "secret"
    app.config.update(MENGPANEEL_TOKEN="token", MENGPANEEL_SPOOL=None)
    Mengpaneel(app)

    @app.get("/")
    def page() -> Response:
        return Response(PAGE, headers={"Content-Security-Policy": policy})

    assert lines(app) == []


def test_all_policies_of_a_page_count(serve: CreateApp) -> None:
    meta = '<meta http-equiv="content-security-policy" content="connect-src *">'
    narrow = meta.replace("*", "'self'")
    fine = f"script-src 'self' {CDN}"

    assert lines(serve(PAGE.replace("<title>", f"{meta}<title>"), **under(fine))) == []
    app = Flask("narrow")
    app.secret_key = "secret"
    app.config.update(MENGPANEEL_TOKEN="token", MENGPANEEL_SPOOL=None)
    Mengpaneel(app)
    body = PAGE.replace("<title>", f"{narrow}<title>")
    policies = f"{fine}, script-src 'self'"
    app.add_url_rule(
        "/", view_func=lambda: (body, {"Content-Security-Policy": policies})
    )

    assert [finding.remedy for finding in examine(app)] == [
        f"script-src 'self' {CDN}",
        f"connect-src 'self' {HOST}",
    ]
    assert "<meta http-equiv" in lines(app)[1]


def test_a_policy_that_only_reports_is_a_note(serve: CreateApp) -> None:
    headers = [("Content-Security-Policy-Report-Only", "default-src 'none'")]
    found = lines(serve(headers=headers))

    assert len(found) == 2
    assert all(line.startswith("note: ") for line in found)
    assert "Content-Security-Policy-Report-Only" in found[0]


def _nonce() -> str:
    return t.cast(str, g.setdefault("nonce", os.urandom(8).hex()))


@pytest.mark.parametrize(
    "policy",
    ["script-src 'nonce-NONCE'", "script-src 'nonce-NONCE' 'strict-dynamic'"],
)
def test_the_nonce_of_the_response_lets_scripts_through(
    serve: CreateApp, policy: str
) -> None:
    app = serve(**under(policy), csp_nonce=_nonce)
    app.before_request(lambda: t.cast(None, _nonce() and None))

    assert lines(app) == []


def test_a_nonce_that_is_not_in_the_policy_lets_nothing_through(
    serve: CreateApp,
) -> None:
    app = serve(**under("script-src 'nonce-other'"), csp_nonce=_nonce)

    assert lines(app)[0].startswith("error: /: script-src")


def test_a_nonce_that_fails_is_said(serve: CreateApp) -> None:
    def nonce() -> str:
        raise LookupError("no nonce")

    app = serve(csp_nonce=nonce, testing=False)

    assert lines(app) == [
        "error: /: MENGPANEEL_CSP_NONCE raises LookupError('no nonce')"
    ]


@pytest.mark.parametrize(
    ("strategies", "level"),
    [(["ClientSide", "ServerSide"], "warning"), (["ClientSide"], "error")],
)
def test_where_no_script_may_run_the_server_sends(
    serve: CreateApp, strategies: list[str], level: str
) -> None:
    app = serve(**under("script-src 'none'"), strategies=strategies)
    first, second = lines(app)

    assert first.startswith(f"{level}: /: calls can't go with the page")
    assert second.endswith(f"-> script-src 'self' {CDN}")


def test_talismans_default_is_judged(create_app: CreateApp) -> None:
    app = create_app()
    Talisman(app)
    app.add_url_rule("/", view_func=lambda: PAGE)

    assert [finding.remedy for finding in examine(app)] == [
        f"script-src 'self' {CDN}",
        f"connect-src 'self' {HOST}",
    ]


@pytest.mark.parametrize(
    ("settings", "policy"),
    [
        (
            {"library_url": "/mixpanel.js", "client_config": {"api_host": "/mp"}},
            "default-src 'self'",
        ),
        ({"library_url": None}, f"script-src 'self'; connect-src 'self' {HOST}"),
        (
            {
                "client_config": {"api_host": "https://api-eu.mixpanel.com"},
                "api_host": "https://api-eu.mixpanel.com",
            },
            "connect-src 'self' https://api-eu.mixpanel.com",
        ),
        (
            {"client_config": {"api_hosts": {"people": "https://b.test"}}},
            f"connect-src 'self' {HOST}/track/ {HOST}/groups/ https://b.test/engage/",
        ),
        ({"fallback": False}, f"connect-src {HOST}"),
        ({"strategies": ["AsyncServerSide", "ServerSide"]}, "default-src 'none'"),
    ],
)
def test_policies_are_held_against_the_settings(
    serve: CreateApp, settings: dict[str, t.Any], policy: str
) -> None:
    assert lines(serve(**under(policy), **settings)) == []


@pytest.mark.parametrize(
    "settings", [{"fallback": False}, {"SECRET_KEY": None}], ids=["off", "no key"]
)
def test_without_the_fallback_a_blocked_library_loses_calls(
    serve: CreateApp, settings: dict[str, t.Any]
) -> None:
    app = serve(**under("script-src 'self'"), **settings)

    assert [line for line in lines(app) if line.startswith("error: /: script-src")]


# -- Pages


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
def test_a_page_that_takes_no_calls_is_said(
    serve: CreateApp, body: str | Response, headers: t.Any, reason: str
) -> None:
    if headers and headers[0][0] == "Content-Type":
        body, headers = Response(body, content_type="text/plain"), ()

    (line,) = lines(serve(body, headers))

    assert f"({reason}): they are sent from the server" in line
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


def test_a_page_that_takes_no_calls_loses_them_if_nothing_else_does(
    serve: CreateApp,
) -> None:
    (line,) = lines(serve("<p>part", strategies=["Delayed", "ClientSide"]))

    assert line.startswith("error: /: calls can't go with the page")


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


def test_a_page_is_judged_though_nobody_has_consented(serve: CreateApp) -> None:
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

    assert lines(app)[0].startswith("warning: /: calls can't go with the page")
    assert lines(app, "/out") == [
        "note: /out: leads to https://other.test/ -> name a page that doesn't"
    ]


def test_a_page_that_is_not_there_is_said(app: Flask) -> None:
    (line,) = lines(app, "/none")

    assert line.startswith("warning: /none: is answered with 404")


def test_a_view_that_raises_is_said(app: Flask) -> None:
    app.add_url_rule("/", view_func=lambda: 1 / 0)  # type: ignore[arg-type,return-value]

    assert lines(app)[0].startswith("error: /: the view raises ZeroDivisionError")


# -- What pages need of the app


def test_hand_backs_that_csrf_protection_refuses_are_said(serve: CreateApp) -> None:
    app = serve()
    csrf = CSRFProtect(app)

    (finding,) = examine(app)
    assert finding.text.startswith("/_mengpaneel/calls is answered with 400")
    assert finding.remedy == 'csrf.exempt(app.blueprints["mengpaneel"])'
    assert finding.level.value == "error"

    csrf.exempt(app.blueprints["mengpaneel"])
    assert lines(app) == []


def test_an_app_that_lets_nobody_in_is_said(serve: CreateApp) -> None:
    app = serve()
    app.before_request(lambda: redirect("/sign-in") if request.path != "/" else None)

    found = lines(app)
    assert found[0].startswith(f"error: {SCRIPT} is answered with 302")
    assert found[1].startswith("error: /_mengpaneel/calls is answered with 302")


# -- Settings


def test_no_token_is_an_error(create_app: CreateApp) -> None:
    with pytest.warns(UserWarning, match="MENGPANEEL_TOKEN"):
        app = create_app(token=None)

    assert lines(app)[0].startswith("error: there is no token")


def test_an_extension_that_is_off_is_a_note(create_app: CreateApp) -> None:
    (line,) = lines(create_app(enabled=False))

    assert line == "note: MENGPANEEL_ENABLED is False: nothing is tracked"


def test_no_secret_key_is_a_warning(serve: CreateApp) -> None:
    (line,) = lines(serve(SECRET_KEY=None))

    assert line.startswith("warning: without a secret key")


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (
            {"SESSION_COOKIE_DOMAIN": "shop.test"},
            "SESSION_COOKIE_DOMAIN is 'shop.test'",
        ),
        ({"SESSION_COOKIE_SAMESITE": "None"}, 'SESSION_COOKIE_SAMESITE is "None"'),
        ({"SESSION_COOKIE_NAME": "__Host-s"}, "SESSION_COOKIE_NAME is '__Host-s'"),
        ({"SESSION_COOKIE_NAME": "__Secure-s"}, "SESSION_COOKIE_NAME is '__Secure-s'"),
        (
            {
                "SESSION_COOKIE_NAME": "__Host-s",
                "SESSION_COOKIE_SECURE": True,
                "SESSION_COOKIE_PATH": "/shop",
            },
            "it has a domain or a path",
        ),
    ],
)
def test_a_session_that_browsers_refuse_is_an_error(
    serve: CreateApp, settings: dict[str, t.Any], problem: str
) -> None:
    (line,) = lines(serve(**settings))

    assert line.startswith("error: ")
    assert problem in line


@pytest.mark.parametrize(
    "settings",
    [
        {"SESSION_COOKIE_DOMAIN": "localhost"},
        {"SESSION_COOKIE_SAMESITE": "None", "SESSION_COOKIE_SECURE": True},
        {"SESSION_COOKIE_NAME": "__Host-s", "SESSION_COOKIE_SECURE": True},
        {
            "SESSION_COOKIE_SAMESITE": "None",
            "strategies": ["ClientSide", "ServerSide"],
        },
    ],
)
def test_a_session_that_loses_nothing_is_no_finding(
    serve: CreateApp, settings: dict[str, t.Any]
) -> None:
    assert lines(serve(**settings)) == []


def test_a_strict_session_is_a_note(serve: CreateApp) -> None:
    (line,) = lines(serve(SESSION_COOKIE_SAMESITE="Strict"))

    assert line.startswith("note: ")


@pytest.mark.parametrize(
    ("server", "client", "remedy"),
    [
        ("https://api-eu.mixpanel.com", None, None),
        ("https://api-eu.mixpanel.com", HOST, "https://api-eu.mixpanel.com"),
        ("https://api.mixpanel.com", "https://api-eu.mixpanel.com", HOST),
        ("https://api.mixpanel.com", HOST, None),
        ("https://api-eu.mixpanel.com", "https://proxy.test", None),
    ],
)
def test_two_regions_are_an_error(
    serve: CreateApp, server: str, client: str | None, remedy: str | None
) -> None:
    config = {"api_host": client} if client else {}
    found = examine(serve(api_host=server, client_config=config))

    assert [finding.remedy for finding in found] == (
        [f'MENGPANEEL_CLIENT_CONFIG = {{"api_host": "{remedy}"}}'] if remedy else []
    )


def test_a_spool_that_cannot_be_written_is_an_error(
    serve: CreateApp, tmp_path: Path
) -> None:
    path = tmp_path / "spool.sqlite3"
    app = serve(spool=path)
    path.mkdir()

    assert lines(app)[0].startswith("error: what can't be delivered at once")


def test_threads_where_they_are_stopped_are_an_error(
    serve: CreateApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = serve(transport="thread")
    monkeypatch.setenv("VERCEL", "1")

    (line,) = lines(app)
    assert line.endswith('-> MENGPANEEL_TRANSPORT = "inline"')


def test_celery_without_celery_is_an_error(serve: CreateApp) -> None:
    (line,) = lines(serve(transport="celery"))

    assert 'the app has no Celery -> app.extensions["celery"]' in line


def test_the_inspector_in_production_is_a_warning(
    serve: CreateApp, tmp_path: Path
) -> None:
    app = serve(inspector=True, transport="inline", testing=False)

    assert (
        "warning: everything goes to the inspector, and nothing to Mixpanel"
        in (lines(app)[0])
    )


def test_mixpanel_is_asked_only_if_wanted(serve: CreateApp) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        host = f"http://127.0.0.1:{free.getsockname()[1]}"

    app = serve(api_host=host)

    assert lines(app) == []
    (finding,) = examine(app, online=True)
    assert finding.text.startswith(f"{host} can't be reached from here")


def test_any_answer_of_mixpanel_will_do(serve: CreateApp) -> None:
    server = make_server("127.0.0.1", 0, Flask("mixpanel"))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()

    try:
        app = serve(api_host=f"http://127.0.0.1:{server.server_port}")
        assert examine(app, online=True) == []
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


# -- The matching of sources


@pytest.mark.parametrize(
    ("source", "page", "url", "matches"),
    [
        ("*", "https://a.test/", "http://b.test/", True),
        ("*", "https://a.test/", "data:x", False),
        ("'self'", "https://a.test/x", "https://a.test:443/y", True),
        ("'self'", "http://a.test/", "https://a.test/", True),
        ("'self'", "https://a.test/", "http://a.test/", False),
        ("'self'", "http://a.test:81/", "http://a.test/", False),
        ("'self'", "https://a.test/", "https://b.a.test/", False),
        ("http:", "https://a.test/", "https://b.test/", True),
        ("https:", "https://a.test/", "http://b.test/", False),
        ("b.test", "https://a.test/", "https://b.test/", True),
        ("b.test", "https://a.test/", "http://b.test/", False),
        ("b.test", "http://a.test/", "https://b.test/", True),
        ("B.TEST", "https://a.test/", "https://b.test/", True),
        ("*.b.test", "https://a.test/", "https://c.b.test/", True),
        ("*.b.test", "https://a.test/", "https://b.test/", False),
        ("b.test:*", "https://a.test/", "https://b.test:8443/", True),
        ("b.test:8443", "https://a.test/", "https://b.test:8443/", True),
        ("b.test", "https://a.test/", "https://b.test:8443/", False),
        ("b.test/x/", "https://a.test/", "https://b.test/x/y.js", True),
        ("b.test/x", "https://a.test/", "https://b.test/x/y.js", False),
        ("b.test/%78", "https://a.test/", "https://b.test/x", True),
        ("127.0.0.1:5001", "http://127.0.0.1:5000/", "http://127.0.0.1:5001/", True),
        ("'none'", "https://a.test/", "https://a.test/", False),
        ("b.test/?x", "https://a.test/", "https://b.test/", False),
        ("b.test:99999", "https://a.test/", "https://b.test/", False),
    ],
)
def test_a_source_matches_a_url(
    source: str, page: str, url: str, matches: bool
) -> None:
    (policy,) = parse(f"connect-src {source}", page)

    assert policy.allows_connection(url) is matches
