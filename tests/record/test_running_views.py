"""Views that run for long: what they track doesn't wait for their end."""

from __future__ import annotations

import collections.abc as c
import contextlib
import signal
import sys
import threading
import time
import typing as t
from pathlib import Path
from urllib.request import urlopen

import pytest
import simple_websocket

from agents import CHROME
from flask_mengpaneel.record import running_views
from ports import free_port
from processes import Process, get, settings_for
from sink import Sink
from sites import Site, balance

SERVED = """
import time
from flask import copy_current_request_context, g
from flask_sock import Sock
from processes import create_app, mengpaneel

app = create_app()
sock = Sock(app)

@sock.route("/echo")
def echo(ws):
    mengpaneel.track("Open")

    while True:
        message = ws.receive()

        if message == "sign in":
            with mengpaneel.setup():
                mengpaneel.identify("ann")

        mengpaneel.track("Message", {"Text": message})
        ws.send(message)

@app.get("/long")
def long():
    mengpaneel.track("Begin")
    time.sleep(60)
    return "done"
"""
SERVERS = {
    "flask run": ["-m", "flask", "--app=served", "run", "--port={port}"],
    "gunicorn --threads": ["-m", "gunicorn", "--threads=8", "-b127.0.0.1:{port}"]
    + ["served:app"],
    "gunicorn --worker-class=gevent": ["-m", "gunicorn", "-kgevent"]
    + ["-b127.0.0.1:{port}", "served:app"],
}


def serve(folder: Path, server: str, port: int, url: str, **settings: t.Any) -> Process:
    (folder / "served.py").write_text(SERVED)
    command = [part.format(port=port) for part in SERVERS[server]]
    return Process(folder, [sys.executable, *command], settings_for(url, **settings))


@pytest.mark.parametrize("server", SERVERS)
def test_what_a_websocket_tracks_is_sent_while_it_is_open(
    tmp_path: Path, server: str
) -> None:
    port = free_port()

    with Sink() as sink:
        process = serve(tmp_path, server, port, sink.url)

        try:
            get(port, 1)
            # A browser's, as another client without cookies is nobody.
            client = simple_websocket.Client(
                f"ws://127.0.0.1:{port}/echo", headers={"User-Agent": CHROME}
            )

            for text in ("a", "sign in", "b"):
                client.send(text)
                assert client.receive(10) == text

            assert sink.wait_for(5), process.output
            found = {
                record["properties"].get("Text"): record["properties"]
                for record in sink.events
                if record["event"] == "Message"
            }
            assert found["b"]["distinct_id"] == found["sign in"]["distinct_id"] == "ann"
            assert found["a"]["distinct_id"] != "ann"
            assert found["a"]["$device_id"] == found["b"]["$device_id"]
            client.close()
        finally:
            process.kill()


@pytest.mark.parametrize("stage", ["before_setup", "setup", "tracking"])
def test_what_a_websocket_tracks_in_a_stage_is_sent_when_that_is_left(
    site: Site, stage: str
) -> None:
    sent: list[list[str]] = []

    def view() -> dict[str, str]:
        with getattr(site.mengpaneel, stage)():
            site.mengpaneel.track("Connect")
            site.mengpaneel.identify("ann")
            sent.append([message["event"] for message in site.messages])

        sent.append([message["event"] for message in site.messages])
        return {}

    site.view("/socket", view)
    site.client().get("/socket", environ_overrides={"HTTP_UPGRADE": "websocket"})

    assert sent[0] == []
    assert "Connect" in sent[1]
    assert balance(site)[2] == 0


@pytest.mark.parametrize("durable", [False, True], ids=["memory", "durable"])
def test_the_end_of_a_process_sends_what_a_running_view_tracked(
    tmp_path: Path, durable: bool
) -> None:
    port = free_port()

    with Sink() as sink:
        process = serve(tmp_path, "flask run", port, sink.url, durable=durable)

        try:
            get(port, 1)
            request = threading.Thread(
                target=_ask, args=(f"http://127.0.0.1:{port}/long",), daemon=True
            )
            request.start()
            time.sleep(0.5)
            assert process.terminate() == -signal.SIGTERM
        finally:
            process.kill()

        assert sorted(record["event"] for record in sink.events) == ["Begin", "Visit"]


def _ask(url: str) -> None:
    with contextlib.suppress(OSError):
        urlopen(url, timeout=90)


def test_what_a_view_tracked_long_ago_is_sent_while_it_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(running_views, "_MAX_WAIT", 0.1)
    monkeypatch.setattr(running_views, "_CHECK_INTERVAL", 0.02)
    site = Site()
    seen: list[list[str]] = []

    def wait_for(count: int) -> None:
        deadline = time.monotonic() + 60

        while len(site.messages) < count:
            assert time.monotonic() < deadline
            time.sleep(0.01)

        seen.append([message["event"] for message in site.messages])

    def long() -> str:
        site.mengpaneel.track("One")
        wait_for(1)

        with site.mengpaneel.setup():
            site.mengpaneel.identify("ann")

        site.mengpaneel.track("Two")
        wait_for(2)
        site.mengpaneel.track("Three")
        return "done"

    site.view("/long", long)
    site.client().get("/long")
    assert seen == [["One"], ["One", "Two"]]
    events = [m["properties"]["distinct_id"] for m in site.messages if "event" in m]
    assert events[1:] == ["ann", "ann"]
    assert len(events) == 3


def test_what_is_taken_from_a_view_that_goes_on_is_lost_and_doubled_nowhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(running_views, "_MAX_WAIT", 0.0)
    monkeypatch.setattr(running_views, "_CHECK_INTERVAL", 0.0005)
    site = Site()

    turns = 0

    def busy() -> str:
        nonlocal turns
        deadline = time.monotonic() + 60

        while turns < 5_000 or not site.kept.envelopes:
            assert time.monotonic() < deadline
            site.mengpaneel.track("Turn", {"Number": turns})
            turns += 1

        return "done"

    site.view("/busy", busy)
    site.client().get("/busy")
    # It may be about to send what it has taken.
    site.app.extensions["mengpaneel"].running_views.begin_shutdown()
    numbers = [message["properties"]["Number"] for message in site.messages]
    assert sorted(numbers) == list(range(turns))
    assert len(site.kept.envelopes) > 1


class SlowView:
    """What is asked who the visitor is, and takes its time."""

    can_flush = True

    def __init__(self) -> None:
        self.begun, self.goes_on, self.sent = (threading.Event() for _ in range(3))

    def flush_while_running(self, *, is_last: bool) -> None:
        self.begun.set()
        self.goes_on.wait(60)
        self.sent.set()


@pytest.fixture
def slow_view() -> c.Iterator[SlowView]:
    view = SlowView()
    yield view
    view.goes_on.set()


def look_after(view: SlowView, timeout: float) -> running_views.RunningViews:
    """Views of which the thread is in the middle of sending this one's calls."""
    views = running_views.RunningViews(True, timeout)
    views.begin(view)
    assert view.begun.wait(60)
    view.can_flush = False
    return views


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running_views, "_MAX_WAIT", 0.0)
    monkeypatch.setattr(running_views, "_CHECK_INTERVAL", 0.01)


@pytest.mark.usefixtures("soon")
def test_the_end_waits_for_what_is_being_sent(slow_view: SlowView) -> None:
    views = look_after(slow_view, timeout=20)
    threading.Timer(0.1, slow_view.goes_on.set).start()
    views.begin_shutdown()
    assert slow_view.sent.is_set()


@pytest.mark.usefixtures("soon")
def test_the_end_does_not_wait_for_ever(slow_view: SlowView) -> None:
    views = look_after(slow_view, timeout=0.1)
    views.begin_shutdown()
    assert not slow_view.sent.is_set()
