"""What the doctor finds in the policies of a page."""

from __future__ import annotations

import os
import typing as t

import pytest
from flask import Flask, Response, g
from flask_talisman import Talisman

from doctor_pages import CDN, HOST, PAGE, TOKEN, lines, under
from flask_mengpaneel import Mengpaneel
from flask_mengpaneel.doctor.command import examine
from sites import CreateApp


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
def test_what_a_policy_lacks_is_found(
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
    app.config.update(MENGPANEEL_TOKEN=TOKEN, MENGPANEEL_SPOOL=None)
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
    app.config.update(MENGPANEEL_TOKEN=TOKEN, MENGPANEEL_SPOOL=None)
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


def test_a_nonce_that_fails_is_found(serve: CreateApp) -> None:
    def nonce() -> str:
        raise LookupError("no nonce")

    app = serve(csp_nonce=nonce, testing=False)

    assert lines(app)[1:] == [
        "error: /: MENGPANEEL_CSP_NONCE raises LookupError('no nonce')"
        " -> MENGPANEEL_CSP_NONCE = a callable that returns a nonce, or None"
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

    assert first.startswith(f"{level}: /: the page can't carry calls")
    assert second.endswith(f"-> script-src 'self' {CDN}")


def test_what_talismans_default_forbids_is_found(create_app: CreateApp) -> None:
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
        ({"fallback": False, "ack_timeout": 0}, f"connect-src {HOST}"),
        ({"strategies": ["AsyncServerSide", "ServerSide"]}, "default-src 'none'"),
    ],
)
def test_policies_are_checked_against_the_settings(
    serve: CreateApp, settings: dict[str, t.Any], policy: str
) -> None:
    assert lines(serve(**under(policy), **settings)) == []


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({}, "handing calls back and acknowledging them"),
        ({"fallback": False}, "acknowledging them"),
        ({"ack_timeout": 0}, "handing calls back"),
    ],
)
def test_what_is_posted_to_the_app_is_checked(
    serve: CreateApp, settings: dict[str, t.Any], what: str
) -> None:
    assert lines(serve(**under(f"connect-src {HOST}"), **settings)) == [
        f"warning: /: connect-src of Content-Security-Policy forbids {what}"
        f" -> connect-src {HOST} 'self'"
    ]


@pytest.mark.parametrize(
    "settings", [{"fallback": False}, {"SECRET_KEY": None}], ids=["off", "no key"]
)
def test_without_the_fallback_a_blocked_library_loses_calls(
    serve: CreateApp, settings: dict[str, t.Any]
) -> None:
    app = serve(**under("script-src 'self'"), **settings)

    assert [line for line in lines(app) if line.startswith("error: /: script-src")]
