"""What requests show to be wrong around the app is said in the log, once."""

from __future__ import annotations

import typing as t

import pytest
from flask import redirect
from werkzeug.middleware.proxy_fix import ProxyFix

from servers import Complaints
from session_interfaces import SECURING, Broken
from sites import PAGE, Site

CLIENT = "203.0.113.7"
PROXY = {"REMOTE_ADDR": "10.0.0.5"}
READ = "X-Forwarded-For and X-Forwarded-Proto"


@pytest.fixture
def complaints() -> t.Iterator[Complaints]:
    complaints = Complaints()
    yield complaints
    complaints.close()


def shop(**settings: t.Any) -> Site:
    """A site behind which there may be something; each of its views tracks."""
    site = Site(**settings)

    def go() -> t.Any:
        site.mengpaneel.track("Order")
        return redirect("/page")

    site.view("/go", go)
    site.view("/page", lambda: PAGE)
    site.view("/health", lambda: "ok")
    return site


@pytest.mark.parametrize(
    ("headers", "environ", "schemes"),
    [
        ({"X-Forwarded-For": CLIENT}, PROXY, False),
        ({"X-Forwarded-For": f"{CLIENT}, 10.0.0.4"}, PROXY, False),
        ({"X-Forwarded-For": f"{CLIENT}, 10.0.0.55"}, PROXY, False),
        ({"X-Forwarded-For": CLIENT}, {"REMOTE_ADDR": "::1"}, False),
        ({"X-Forwarded-For": CLIENT}, {"REMOTE_ADDR": "fe80::1%eth0"}, False),
        ({"X-Forwarded-For": CLIENT}, {"REMOTE_ADDR": ""}, False),
        ({"X-Forwarded-For": CLIENT}, {"REMOTE_ADDR": None}, False),
        ({"X-Forwarded-Proto": "https"}, PROXY, True),
        ({"X-Forwarded-Proto": "HTTPS, http"}, PROXY, True),
        ({"X-Forwarded-For": CLIENT, "X-Forwarded-Proto": "https"}, PROXY, True),
        ({"X-Forwarded-For": CLIENT, "Forwarded": f"for={CLIENT}"}, PROXY, False),
        ({"Forwarded": f"for={CLIENT};proto=https"}, PROXY, True),
        ({"Forwarded": f'for={CLIENT}; Proto="HTTPS", for=10.0.0.4'}, PROXY, True),
        ({"Forwarded": f"for={CLIENT};proto=http, proto=https"}, PROXY, False),
    ],
)
def test_a_proxy_that_the_app_does_not_know_of_is_said_once(
    complaints: Complaints,
    headers: dict[str, str],
    environ: dict[str, t.Any],
    schemes: bool,
) -> None:
    client = shop().client()
    client.get("/health")
    client.get("/go")
    assert complaints.lines == []

    for path in ("/go", "/page", "/go"):
        client.get(path, headers=headers, environ_overrides=environ)

    (line,) = complaints.lines
    assert line.startswith("a request came through a proxy")
    remedy = "-> app.wsgi_app = ProxyFix(app.wsgi_app)"
    is_read = any(name.startswith("X-") for name in headers)
    assert line.endswith(remedy if is_read else f"{remedy}  # it reads {READ} alone")
    assert ("the wrong scheme" in line) is schemes


@pytest.mark.parametrize(
    ("headers", "environ"),
    [
        # Anybody may say so.
        ({"X-Forwarded-For": CLIENT}, {"REMOTE_ADDR": "8.8.8.8"}),
        (
            {"X-Forwarded-For": CLIENT, "X-Forwarded-Proto": "https"},
            {"REMOTE_ADDR": "8.8.8.8"},
        ),
        # Something in between has put the address in order.
        ({"X-Forwarded-For": "10.0.0.5"}, PROXY),
        ({"X-Forwarded-For": "10.0.0.5, 10.0.0.9"}, PROXY),
        ({"X-Forwarded-Proto": "http"}, PROXY),
        ({"X-Forwarded-For": CLIENT}, {"REMOTE_ADDR": "nonsense"}),
    ],
)
def test_what_may_come_from_anybody_is_not_taken_for_a_proxy(
    complaints: Complaints, headers: dict[str, str], environ: dict[str, str]
) -> None:
    shop().client().get("/go", headers=headers, environ_overrides=environ)

    assert complaints.lines == []


def test_a_proxy_that_the_app_knows_of_is_fine(complaints: Complaints) -> None:
    site = shop(SESSION_COOKIE_SECURE=True)
    site.app.wsgi_app = ProxyFix(site.app.wsgi_app)  # type: ignore[method-assign]
    headers = {"X-Forwarded-For": CLIENT, "X-Forwarded-Proto": "https"}
    client = site.client()
    client.get("/go", headers=headers, environ_overrides=PROXY)

    assert complaints.lines == []
    assert site.outcome.strategy == "Delayed"
    # It isn't looked for any more.
    client.get(
        "/go", headers=headers, environ_overrides=PROXY | {"wsgi.url_scheme": ""}
    )
    assert complaints.lines == []


UNKNOWN_PROXY = (
    "the session's cookie is secure, and the app takes the request for one over http:,"
    " as it doesn't know of the proxy in front of it"
)


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({}, "the session's cookie is secure, and doesn't go along over http:"),
        ({"X-Forwarded-Proto": "https"}, UNKNOWN_PROXY),
        ({"Forwarded": "proto=https"}, UNKNOWN_PROXY),
        ({"Forwarded": f"for={CLIENT};proto=https"}, UNKNOWN_PROXY),
    ],
)
@pytest.mark.parametrize("setting", SECURING)
def test_a_session_that_never_comes_back_is_said_once(
    complaints: Complaints, setting: str, headers: dict[str, str], reason: str
) -> None:
    site = shop(**{setting: True})
    client = site.client()

    for _ in range(3):
        client.get("/go", headers=headers, environ_overrides=PROXY)

    assert [one.declined["Delayed"] for one in site.outcomes] == [reason] * 3
    (line,) = complaints.lines
    assert (f"{setting} = False" in line) is (not headers)


def test_the_host_before_a_proxy_is_no_other_site() -> None:
    site = Site()
    site.view(
        "/go",
        lambda: (site.mengpaneel.track("Order"), redirect("https://shop.test/page"))[1],
    )
    headers = {"X-Forwarded-Host": "shop.test", "X-Forwarded-For": CLIENT}
    site.client().get("/go", headers=headers, environ_overrides=PROXY)
    site.client().get("/go", headers=headers | {"X-Forwarded-Host": "other.test"})

    assert [one.declined["Delayed"] for one in site.outcomes] == [
        "a redirect to the host that a proxy was asked for, of which the app doesn't"
        " know",
        "a redirect to another site",
    ]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"inspector": True}, ["MENGPANEEL_INSPECTOR is True outside of debug"]),
        ({"inspector": True, "debug": True}, []),
        ({"inspector": True, "testing": True}, []),
        ({"inspector": True, "enabled": False}, []),
        (
            {"SESSION_COOKIE_SAMESITE": "None"},
            ['SESSION_COOKIE_SAMESITE is "None" without SESSION_COOKIE_SECURE'],
        ),
        ({"SESSION_COOKIE_SAMESITE": "Strict"}, []),
        ({"SESSION_COOKIE_NAME": "__Host-s", "strategies": ["ServerSide"]}, []),
    ],
)
def test_what_shows_with_the_first_request_is_said_with_it(
    caplog: pytest.LogCaptureFixture, settings: dict[str, t.Any], said: list[str]
) -> None:
    client = shop(**{"testing": False, **settings}).client()
    assert caplog.messages == []

    for _ in range(2):
        client.get("/health")

    assert len(caplog.messages) == len(said)
    assert all(
        line.startswith(text) for line, text in zip(caplog.messages, said, strict=True)
    )


def test_settings_that_can_not_be_checked_harm_nobody(complaints: Complaints) -> None:
    site = shop()
    site.app.session_interface = Broken()

    assert site.client().get("/health").status_code == 200
    (line,) = complaints.lines
    assert line.startswith("The settings could not be checked.")
