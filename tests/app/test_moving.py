"""What docs/moving.md says: an app before it moves, and the same app after."""

from __future__ import annotations

import collections.abc as c
import json
import pathlib
import re
import subprocess
import typing as t

import mixpanel
import posthog
import pytest
from flask import Flask

from agents import CHROME
from flask_mengpaneel.testing import RecordingTransport, record_flushes
from needs import need
from sites import page_calls

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "moving.md"
#: What stands in for Rails around what the page says.
RAILS = PAGE.parents[1] / "tests" / "rails" / "moving.rb"
#: Where nobody listens.
NOWHERE = "http://127.0.0.1:9"


def blocks(language: str = "python") -> dict[str, list[str]]:
    """The code of each section."""
    parts = re.split(r"^## (.*)\n", PAGE.read_text(), flags=re.M)
    return {
        heading: re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)
        for heading, text in zip(parts[1::2], parts[2::2], strict=True)
    }


@pytest.fixture(autouse=True)
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make_app(code: str) -> tuple[Flask, dict[str, t.Any]]:
    names: dict[str, t.Any] = {"__name__": "moved"}
    exec(code, names)
    return names["app"], names


def after(heading: str) -> tuple[Flask, RecordingTransport]:
    """The app as it is after the move, which sends nothing."""
    transport = RecordingTransport()
    settings = 'app.config["MENGPANEEL_TRANSPORT"] = transport\nmengpaneel ='
    code = blocks()[heading][-1].replace("\nmengpaneel =", f"\n{settings}", 1)
    names: dict[str, t.Any] = {"__name__": "moved", "transport": transport}
    exec(code, names)
    return names["app"], transport


class Kept:
    """Keeps what is sent in the place of another library's client."""

    def __init__(self) -> None:
        self.sent: list[t.Any] = []

    def __getattr__(self, name: str) -> c.Callable[..., None]:
        return lambda *arguments, **named: self.sent.append((name, arguments, named))

    def send(self, endpoint: str, message: str, *_: object) -> None:
        self.sent.append((endpoint, message))


def test_the_official_library_before_and_after() -> None:
    heading = "From Mixpanel's Python library"
    app, names = make_app(blocks()[heading][0])
    kept = Kept()
    names["mp"] = mixpanel.Mixpanel("TOKEN", kept)
    assert app.test_client().post("/orders").status_code == 302
    assert [endpoint for endpoint, _ in kept.sent] == ["events", "people"]

    app, transport = after(heading)
    client = app.test_client()

    with client.session_transaction() as session:
        session["user_id"] = "42"

    with record_flushes(app) as outcomes:
        assert client.post("/orders").status_code == 302

    made = {call.name for outcome in outcomes for call in outcome.calls}
    assert {"identify", "track", "people.increment"} <= made
    assert "people.increment" in [call.name for call in transport.calls]


def test_the_snippet_after() -> None:
    app, _ = after("From the page's snippet")

    with record_flushes(app) as outcomes:
        client = app.test_client()
        page = client.post(
            "/sign-up", follow_redirects=True, headers={"User-Agent": CHROME}
        )

    assert [one.strategy for one in outcomes] == ["Delayed", "ClientSide"]
    assert '"Sign Up"' in page.text
    assert "mengpaneel.js" in page.text


@pytest.mark.parametrize(
    ("heading", "client", "methods"),
    [
        ("From Segment", "analytics", ["identify", "track", "group"]),
        ("From PostHog", "posthog", ["capture"]),
    ],
)
def test_segment_and_posthog_before_and_after(
    heading: str, client: str, methods: list[str]
) -> None:
    before = blocks()[heading][0]
    app, names = make_app(before.replace("https://eu.posthog.com", NOWHERE))
    given, names[client] = names[client], Kept()
    assert app.test_client().post("/orders").json == {"placed": True}
    assert [name for name, _, _ in names[client].sent] == methods
    assert all(callable(getattr(given, name)) for name in methods)

    if isinstance(given, posthog.Posthog):
        given.shutdown()

    app, transport = after(heading)
    agent = {"User-Agent": "curl/8.5.0"}
    assert app.test_client().post("/orders", headers=agent).json == {"placed": True}
    calls = {call.name: call.arguments for call in transport.calls}
    assert calls["identify"] == ["42"]
    assert calls["people.set"] == [{"$email": "ann@example.com"}]
    assert "track" in calls
    assert ("get_group.set" in calls) is (client == "analytics")


def test_mengpaneel_for_rails_before_and_after(folder: pathlib.Path) -> None:
    heading = "From Mengpaneel for Rails"
    (code,) = blocks("ruby")[heading]
    (folder / "before.rb").write_text(code)
    command = [need("ruby"), str(RAILS), "./before.rb"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    before = json.loads(done.stdout)

    app, transport = after(heading)
    app.add_url_rule("/thanks", view_func=lambda: "<title>Thanks</title><body></body>")
    client = app.test_client()

    with client.session_transaction() as session:
        session["user_id"] = "42"

    answer = client.post("/orders")
    page = client.get("/thanks", headers={"User-Agent": CHROME})
    app.view_functions["place_order"].__globals__["renew"]("42")
    identify, (_, (event, properties)) = page_calls(page)
    order = [event, {"Items": properties["Items"]}]

    assert answer.status_code == 302
    assert before["location"] == answer.location
    assert identify == [["identify"], ["42"]]
    renewed = [[call.name, call.arguments[0]] for call in transport.calls]
    assert before["calls"] == [
        ["identify", "42"],
        ["track", *order],
        ["identify", "42"],
        ["track", "Renew Subscription", {}],
    ]
    assert renewed == [["identify", "42"], ["track", "Renew Subscription"]]
