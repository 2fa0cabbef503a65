"""An app in testing records what it would send, and never contacts Mixpanel."""

from __future__ import annotations

import collections.abc as c
import pathlib
import threading
import time
import typing as t

import pytest
from flask import Flask, redirect

from agents import CHROME
from flask_mengpaneel import Manager, Mengpaneel, Strategy
from flask_mengpaneel.deliver import connections
from flask_mengpaneel.testing import RecordingTransport, recording_transport
from sink import Sink
from sites import CAPABLE, DEVICE, PAGE, Kept, set_library_cookie

SETTINGS = {"SECRET_KEY": "secret", "MENGPANEEL_TOKEN": "token"}


def make_app(path: pathlib.Path, **settings: t.Any) -> tuple[Flask, Mengpaneel]:
    """An app with a response for each way; it isn't in testing yet."""
    app = Flask(__name__, instance_path=str(path))
    app.config.update(SETTINGS, **settings)
    mengpaneel = Mengpaneel(app)

    def track() -> None:
        mengpaneel.track("Track")
        mengpaneel.people.increment("Visits")

    def insist() -> dict[str, t.Any]:
        mengpaneel.strategy = "ServerSide"
        track()
        return {}

    app.add_url_rule("/json", "json", lambda: (track(), {})[1])
    app.add_url_rule("/page", "page", lambda: (track(), PAGE)[1])
    app.add_url_rule("/go", "go", lambda: (track(), redirect("/page"))[1])
    app.add_url_rule("/now", "now", insist)
    return app, mengpaneel


def use(app: Flask, mengpaneel: Mengpaneel) -> None:
    """Track on each way, as somebody new, as a device, as Ann, and in a job."""
    for ids in (None, DEVICE, {"distinct_id": "ann", "$user_id": "ann"}):
        client = app.test_client()
        client.environ_base["HTTP_USER_AGENT"] = CHROME

        if ids is not None:
            set_library_cookie(client, **ids)

        for path in ("/json", "/page", "/go", "/now"):
            client.get(path, follow_redirects=True)

        client.get("/json", headers=CAPABLE)

    with app.app_context(), Manager(identify="ann"):
        mengpaneel.track("Job")


@pytest.fixture(params=["before", "after"])
def say_so(request: pytest.FixtureRequest) -> c.Callable[[dict[str, t.Any]], t.Any]:
    """Makes an app of settings, which is in testing before or after `init_app`."""

    def make(settings: dict[str, t.Any]) -> tuple[Flask, Mengpaneel]:
        if request.param == "before":
            settings = {"TESTING": True, **settings}

        path = settings.pop("path")
        app, mengpaneel = make_app(path, **settings)
        app.config.update(TESTING=True)
        return app, mengpaneel

    return make


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[threading.Thread]:
    """The threads that the test starts; those of earlier tests may start more."""
    started, start, tester = [], threading.Thread.start, threading.current_thread()

    def note(thread: threading.Thread) -> None:
        if threading.current_thread() is tester:
            started.append(thread)

        start(thread)

    monkeypatch.setattr(threading.Thread, "start", note)
    return started


def test_an_app_in_testing_only_records(
    say_so: t.Any, sink: Sink, started: list[threading.Thread], tmp_path: pathlib.Path
) -> None:
    app, mengpaneel = say_so({"path": tmp_path / "i", "MENGPANEEL_API_HOST": sink.url})
    use(app, mengpaneel)

    assert started == []
    assert not (tmp_path / "i").exists()
    assert sink.requests == []
    events = [call.event for call in recording_transport(app).calls if call.tracks]
    # Of each visitor, those that no client has taken.
    assert events == ["Track", "Track"] * 3 + ["Job"]
    assert (
        sum(call.name == "people.increment" for call in recording_transport(app).calls)
        > 3
    )

    with app.app_context():
        balance = mengpaneel.ledger().snapshot()
        assert mengpaneel.drain(0.0)

    assert balance.balanced
    assert (balance.waiting, balance.dropped) == (0, {})


@pytest.mark.parametrize("transport", ["thread", "inline", "celery", Kept])
def test_what_is_set_for_production_doesn_t_reach_mixpanel_either(
    say_so: t.Any,
    started: list[threading.Thread],
    transport: t.Any,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "HttpConnections", None)
    app, mengpaneel = say_so({"path": tmp_path, "MENGPANEEL_TRANSPORT": transport})
    use(app, mengpaneel)

    kept = recording_transport(app)
    assert isinstance(kept, Kept) == (transport is Kept)
    # The app's own transport gets what no browser acknowledges.
    assert started == [] or transport is Kept
    events = [call.event for call in kept.calls if call.tracks]
    assert events == ["Track", "Track"] * 3 + ["Job"]


def test_a_transport_that_is_asked_for_sends_to_a_stand_in(
    say_so: t.Any, sink: Sink, tmp_path: pathlib.Path
) -> None:
    app, mengpaneel = say_so(
        {
            "path": tmp_path,
            "MENGPANEEL_API_HOST": sink.url,
            "MENGPANEEL_TRANSPORT": "inline",
        }
    )

    with app.app_context(), Manager(identify="ann"):
        mengpaneel.track("Job")

    assert [event["event"] for event in sink.events] == ["Job"]

    with pytest.raises(LookupError, match="MENGPANEEL_TRANSPORT"):
        recording_transport(app)


class Printed(Strategy):
    taken: t.ClassVar[list[str]] = []

    def flush(self, calls: t.Any, visitor: t.Any, exchange: t.Any) -> None:
        self.taken.extend(call.event for call in calls)


def test_a_strategy_of_the_app_s_own_is_asked_in_testing(
    say_so: t.Any, tmp_path: pathlib.Path
) -> None:
    app, mengpaneel = say_so({"path": tmp_path, "MENGPANEEL_STRATEGIES": [Printed]})

    with app.app_context(), Manager():
        mengpaneel.track("Job")

    assert Printed.taken.pop() == "Job"
    assert recording_transport(app).calls == []


def test_the_inspector_of_an_app_in_testing_gets_all(
    say_so: t.Any, tmp_path: pathlib.Path
) -> None:
    app, mengpaneel = say_so(
        {"path": tmp_path, "MENGPANEEL_INSPECTOR": True, "MENGPANEEL_SPOOL": None}
    )

    with app.app_context(), Manager(identify="ann"):
        mengpaneel.track("Job")

    app.extensions["mengpaneel_inspector"].wait_for(events=1)


def test_threads_that_use_an_app_first_record_in_one_place(
    tmp_path: pathlib.Path,
) -> None:
    app, mengpaneel = make_app(tmp_path)
    app.testing = True
    start = threading.Barrier(8)

    def job() -> None:
        start.wait(60)

        with app.app_context(), Manager():
            mengpaneel.track("Job")

    threads = [threading.Thread(target=job) for _ in range(8)]

    for thread in threads:
        thread.start()

    deadline = time.monotonic() + 60

    for thread in threads:
        thread.join(deadline - time.monotonic())

    assert len(recording_transport(app).calls) == 8
    assert isinstance(recording_transport(app), RecordingTransport)
