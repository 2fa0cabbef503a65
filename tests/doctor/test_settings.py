"""What the doctor finds in settings."""

from __future__ import annotations

import contextlib
import email.utils
import shutil
import socket
import time
import typing as t
from pathlib import Path

import pytest

from case_ids import case_id
from doctor_pages import HOST, lines, under
from flask_mengpaneel.doctor.command import examine
from session_interfaces import SECURING
from sink import Html, Sink, Status
from sites import CreateApp


def ago(seconds: float) -> str:
    """A time as HTTP has it."""
    return email.utils.formatdate(time.time() - seconds, usegmt=True)


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
        *({"SESSION_COOKIE_SAMESITE": "None", name: True} for name in SECURING),
        *({"SESSION_COOKIE_NAME": "__Host-s", name: True} for name in SECURING),
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

    with pytest.warns(UserWarning) if remedy else contextlib.nullcontext() as said:
        app = serve(api_host=server, client_config=config)

    found = examine(app)
    assert said is None or [str(one.message) for one in said] == [found[0].advice]
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


def test_a_full_disk_is_a_warning(
    serve: CreateApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = serve(spool=tmp_path / "spool.sqlite3")
    usage = shutil.disk_usage(tmp_path)._replace(free=100_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)

    (line,) = lines(app)
    assert line.startswith("warning: the spool's disk is full")
    assert str(tmp_path) in line


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

    assert lines(app)[0].startswith("warning: MENGPANEEL_INSPECTOR is True outside of")


def test_mixpanel_is_asked_only_if_wanted(serve: CreateApp) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        host = f"http://127.0.0.1:{free.getsockname()[1]}"

    app = serve(api_host=host)

    assert lines(app) == []
    (finding,) = examine(app, online=True)
    assert finding.text.startswith(f"{host} can't be reached from here")


UNAUTHORIZED = {"code": 401, "error": "Invalid credentials", "status": "Unauthorized"}


@pytest.mark.parametrize(
    ("fault", "level", "words"),
    [
        (None, None, ""),
        (Status(401, body=UNAUTHORIZED), "error", "refuses the token: HTTP 401"),
        (Status(403), "error", "refuses the token: HTTP 403"),
        (Status(429), "warning", "can't say now whether the token is right: HTTP 429"),
        (Status(502), "warning", "can't say now"),
        (Status(404, body="<h1>Not found"), "error", "isn't Mixpanel: HTTP 404"),
        (Status(401, body="<h1>Sign in"), "error", "isn't Mixpanel: HTTP 401"),
        (Html(), "error", "isn't Mixpanel: HTTP 200"),
    ],
    ids=case_id,
)
def test_mixpanel_says_whether_the_token_is_right(
    serve: CreateApp, sink: Sink, fault: Status | None, level: str | None, words: str
) -> None:
    sink.refuse = lambda record: None if record["event"] else "event: missing"
    sink.script(*([fault] if fault else []))
    found = examine(serve(api_host=sink.url), online=True)

    assert [one.level.value for one in found] == ([level] if level else [])
    assert all(words in one.text and one.remedy for one in found)
    # Nothing has come into the project.
    assert (len(sink.requests), sink.count()) == (1, 0)
    assert sink.requests[0].headers["authorization"] == "Basic dG9rZW46"


@pytest.mark.parametrize(
    ("ahead", "level", "words"),
    [
        (300, "warning", "seconds ahead of Mixpanel's"),
        (4000, "error", "ahead of Mixpanel's, which takes no events from the future"),
        (-300, "warning", "seconds behind Mixpanel's"),
        (2, None, ""),
        (None, None, ""),
    ],
)
def test_mixpanel_says_whether_the_clock_is_right(
    serve: CreateApp, sink: Sink, ahead: float | None, level: str | None, words: str
) -> None:
    date = "today" if ahead is None else ago(ahead)
    sink.script(Status(200, {"Date": date}, {"code": 200, "status": "OK"}))
    found = examine(serve(api_host=sink.url), online=True)

    assert [one.level.value for one in found] == ([level] if level else [])
    assert all(words in one.text for one in found)
    assert all(one.remedy == "timedatectl set-ntp true" for one in found)


def test_the_inspector_is_not_asked(serve: CreateApp, tmp_path: Path) -> None:
    (finding,) = examine(serve(inspector=True), online=True)

    assert finding.text.startswith("the inspector stands in for Mixpanel")


@pytest.mark.parametrize(
    ("prefix", "word"),
    [
        ("/mengpaneel", "mengpaneel"),
        ("/mixpanel-proxy", "mixpanel"),
        ("/Analytics", "analytics"),
        ("/x/tracking", "track"),
        ("/pixels", "pixel"),
        ("/telemetry", "telemetry"),
    ],
)
def test_a_prefix_that_filter_lists_look_for_is_a_warning(
    serve: CreateApp, prefix: str, word: str
) -> None:
    (line,) = lines(serve(url_prefix=prefix))

    assert line.startswith(f"warning: MENGPANEEL_URL_PREFIX is {prefix!r}")
    assert repr(word) in line


@pytest.mark.parametrize("prefix", ["/_mengpaneel", "/shop-data", "/a"])
def test_another_prefix_is_none(serve: CreateApp, prefix: str) -> None:
    assert lines(serve(url_prefix=prefix)) == []


def test_a_policy_that_allows_the_script_at_the_app_s_own_prefix_is_fine(
    serve: CreateApp,
) -> None:
    policy = f"script-src {{}} https://cdn.mxpnl.com; connect-src 'self' {HOST}"
    app = serve(
        url_prefix="/shop-data",
        **under(policy.format("https://localhost/shop-data/app.js")),
    )
    assert lines(app) == []

    app = serve(
        url_prefix="/shop-data", **under(policy.format("https://localhost/shop-data/x"))
    )
    assert any("/shop-data/app.js" in line for line in lines(app))


@pytest.mark.parametrize("rule", ["/shop-data/cart", "/shop-data/<name>"])
def test_a_view_below_the_prefix_is_an_error(serve: CreateApp, rule: str) -> None:
    app = serve(url_prefix="/shop-data")
    app.add_url_rule(rule, "cart", lambda name="": name)

    (line,) = lines(app)

    assert line.startswith(f"error: {rule} is below /shop-data")
