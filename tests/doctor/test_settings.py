"""What the doctor finds in settings."""

from __future__ import annotations

import socket
import typing as t
from pathlib import Path

import pytest
from flask import Flask

from doctor_pages import HOST, lines
from flask_mengpaneel.doctor.command import examine
from servers import Server
from sites import CreateApp


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
    with Server(Flask("mixpanel")) as server:
        assert examine(serve(api_host=server.url), online=True) == []
