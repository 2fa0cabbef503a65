"""``flask mengpaneel send-test``, and what the log says where Mixpanel refuses all."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
from flask import Flask

from flask_mengpaneel import Manager, Mengpaneel, cli
from flask_mengpaneel.cli import mengpaneel as commands
from flask_mengpaneel.deliver.answers import Meaning, what_to_check
from flask_mengpaneel.deliver.trial_requests import Trial
from sink import Html, Sink, Status

TO_CHECK = (
    "check that MENGPANEEL_TOKEN is the token of your project, and MENGPANEEL_API_HOST"
    " the host of its region (https://api.mixpanel.com, https://api-eu.mixpanel.com,"
    " https://api-in.mixpanel.com)"
)
UNAUTHORIZED = {"code": 401, "error": "Invalid credentials", "status": "Unauthorized"}


def send_test(folder: Path, url: str, **settings: t.Any) -> tuple[int, str]:
    app = Flask("shop", instance_path=str(folder))
    app.testing = True
    Mengpaneel(app, **{"token": "t", "api_host": url, "spool": None, **settings})
    result = app.test_cli_runner().invoke(commands, ["send-test"])
    return result.exit_code, result.output


def test_one_event_is_sent_and_it_is_said_where_it_is(
    tmp_path: Path, sink: Sink
) -> None:
    status, output = send_test(tmp_path, sink.url)
    said, where = output.splitlines()

    assert status == 0
    assert said.startswith(f"{sink.url} says: HTTP 200: ")
    assert '"num_records_imported": 1' in said
    assert 'The event "Flask-Mengpaneel Test" is in your project' in where
    (request,) = sink.requests
    assert (request.path, request.query) == ("/import", {"strict": "1"})
    (event,) = sink.events
    assert event["event"] == "Flask-Mengpaneel Test"
    # It makes no new person.
    assert event["properties"]["distinct_id"] == ""


@pytest.mark.parametrize(
    ("host", "reports"),
    [
        ("https://api.mixpanel.com", "https://mixpanel.com"),
        ("https://api-js.mixpanel.com", "https://mixpanel.com"),
        ("https://api-eu.mixpanel.com", "https://eu.mixpanel.com"),
        ("https://api-in.mixpanel.com", "https://in.mixpanel.com"),
        ("https://proxy.test", ""),
    ],
)
def test_where_the_event_is_shown_depends_on_the_region(
    tmp_path: Path, host: str, reports: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nobody asks Mixpanel itself.
    taken = Trial(Meaning.TAKEN, "HTTP 200", 200)
    monkeypatch.setattr(cli, "send_test_event", lambda _: taken)
    status, output = send_test(tmp_path, host)

    assert status == 0
    assert (f"project at {reports}" in output) is bool(reports)
    assert output.count("https://") == bool(reports) + 1


@pytest.mark.parametrize(
    ("fault", "words", "advised"),
    [
        (Status(401, body=UNAUTHORIZED), "HTTP 401: ", True),
        (Status(403), "HTTP 403: ", True),
        (
            Status(
                400, body={"error": "project is in another region", "status": "error"}
            ),
            "project is in another region",
            True,
        ),
        (Status(401, body="<h1>Sign in"), "HTTP 401: <h1>Sign in", False),
        (Status(503), "HTTP 503: ", False),
        (Status(500, body=""), "HTTP 500", False),
        (Html(), "It works!", False),
    ],
)
def test_what_mixpanel_says_is_said_and_what_to_check(
    tmp_path: Path, sink: Sink, fault: Status, words: str, advised: bool
) -> None:
    sink.script(fault)
    status, output = send_test(tmp_path, sink.url)

    assert status == 1
    assert words in output
    assert "Error: The event was not taken" in output
    assert (TO_CHECK in " ".join(output.split())) is advised
    # That is what runs.
    assert "flask mengpaneel send-test" not in output


def test_a_record_that_is_refused_is_not_taken(tmp_path: Path, sink: Sink) -> None:
    sink.refuse = lambda record: "no"
    status, output = send_test(tmp_path, sink.url)

    assert status == 1
    assert "some data points in the request failed validation" in output


def test_nobody_there_is_said(tmp_path: Path, sink: Sink) -> None:
    sink.close()
    status, output = send_test(tmp_path, sink.url)

    assert status == 1
    assert f"{sink.url} says: " in output
    assert "refused" in output


def test_the_inspector_takes_it_too(tmp_path: Path) -> None:
    status, output = send_test(tmp_path, "https://api.mixpanel.com", inspector=True)

    assert status == 0
    assert output.startswith("the inspector says: HTTP 200: ")
    assert output.endswith("is in /_mengpaneel/inspector.\n")


def test_an_app_that_tracks_nothing_sends_nothing(tmp_path: Path, sink: Sink) -> None:
    status, output = send_test(tmp_path, sink.url, enabled=False)

    assert (status, sink.requests) == (1, [])
    assert "Nothing is sent" in output


@pytest.mark.parametrize(
    "fault",
    [
        Status(401, body=UNAUTHORIZED),
        Status(403),
        Status(400, body={"error": "invalid region", "status": "Bad Request"}),
    ],
)
def test_the_log_says_what_to_check(
    sink: Sink, caplog: pytest.LogCaptureFixture, fault: Status
) -> None:
    sink.always = fault
    app = Flask("shop")
    Mengpaneel(app, token="t", api_host=sink.url, spool=None, transport="inline")

    with app.app_context(), Manager() as manager:
        manager.track("Renew")

    (line,) = [one for one in caplog.messages if "not delivered" in one]
    assert line.startswith(f"1 records were not delivered: HTTP {fault.status}: ")
    assert TO_CHECK in line
    assert line.endswith("'flask mengpaneel send-test' tries both")


@pytest.mark.parametrize(
    ("reason", "is_said"),
    [
        ("HTTP 401: Invalid credentials", True),
        ("HTTP 403", True),
        ("HTTP 400: invalid project id for cluster", True),
        ("HTTP 400: EU residency", True),
        ("HTTP 401, not by Mixpanel", False),
        ("HTTP 400: some data points in the request failed validation", False),
        ("properties.time: 4010", False),
        ("no time was left", False),
    ],
)
def test_only_where_all_is_refused_there_is_something_to_check(
    reason: str, is_said: bool
) -> None:
    assert bool(what_to_check(reason)) is is_said
