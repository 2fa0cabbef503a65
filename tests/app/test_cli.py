from __future__ import annotations

import collections.abc as c
import os
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
from flask import Flask

from flask_mengpaneel import Mengpaneel
from flask_mengpaneel.deliver.spool import Spool
from kept import keep, kept_by
from rig import event, events, rig, update
from sink import Sink, Status


@pytest.fixture
def app(tmp_path: Path, sink: Sink) -> Flask:
    app = Flask(__name__, instance_path=str(tmp_path))
    app.config["MENGPANEEL_TOKEN"] = "t"
    app.config["MENGPANEEL_API_HOST"] = sink.url
    Mengpaneel(app)
    return app


def spool_path(folder: Path) -> Path:
    return folder / "mengpaneel-spool.sqlite3"


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    spool = Spool(spool_path(tmp_path), "t")
    spool.put([event() for _ in range(2500)], "HTTP 503")
    return spool


def call(app: Flask, *arguments: str) -> t.Any:
    from flask_mengpaneel.cli import mengpaneel

    return app.test_cli_runner().invoke(mengpaneel, arguments)


def test_spool_shows_what_waits_and_why(app: Flask, spool: Spool) -> None:
    result = call(app, "spool")

    assert result.exit_code == 0, result.output
    assert "2500 records wait" in result.output
    assert "HTTP 503" in result.output


def test_spool_without_anything(app: Flask) -> None:
    assert "0 records wait" in call(app, "spool").output


def test_spool_send_sends(app: Flask, spool: Spool, sink: Sink) -> None:
    result = call(app, "spool", "send")

    assert result.exit_code == 0, result.output
    assert "2500 records sent, 0 wait" in result.output
    assert (len(sink.ids), sink.copies) == (2500, 0)


def test_spool_send_says_when_it_cannot(app: Flask, spool: Spool, sink: Sink) -> None:
    sink.always = Status(503)
    result = call(app, "spool", "send", "--timeout=0.5")

    assert result.exit_code == 1
    assert "0 records sent, 2500 wait" in result.output

    sink.always = None
    assert "2500 records sent, 0 wait" in call(app, "spool", "send").output


def test_spool_send_sends_what_was_put_off(
    app: Flask, tmp_path: Path, sink: Sink
) -> None:
    sink.script(Status(503, {"Retry-After": "86400"}))

    with rig(sink.url, spool=Spool(spool_path(tmp_path), "t"), shutdown_timeout=0) as r:
        r.send(events(20))
        assert sink.wait_for(lambda: sink.requests)

    result = call(app, "spool", "send")
    assert result.exit_code == 0, result.output
    assert "20 records sent, 0 wait" in result.output


def test_spool_send_sends_the_rest_if_an_endpoint_is_in_trouble(
    app: Flask, tmp_path: Path, sink: Sink
) -> None:
    put_off = Spool(spool_path(tmp_path), "t")
    put_off.put([update("$set", {"a": 1})] * 2100 + [event() for _ in range(100)], "no")
    sink.always_at["/engage"] = Status(503)
    result = call(app, "spool", "send", "--timeout=10")

    assert result.exit_code == 1
    assert "100 records sent, 2100 wait" in result.output


def test_spool_send_leaves_what_another_process_is_sending(
    app: Flask, spool: Spool, sink: Sink
) -> None:
    leased = len(spool.lease(10))
    result = call(app, "spool", "send")

    assert result.exit_code == 0, result.output
    assert f"{2500 - leased} records sent, 0 wait." in result.output
    assert f"{leased} more are another process's, which is sending" in result.output


def test_status_is_of_all_processes(app: Flask, spool: Spool, sink: Sink) -> None:
    sink.refuse = lambda record: "no" if record["event"] == "Bad" else None
    spool.put([event("Bad") for _ in range(3)], "HTTP 503")
    call(app, "spool", "send")
    output = call(app, "status").output

    assert [line.split() for line in output.splitlines()[1:5]] == [
        ["spooled", "2503"],
        ["delivered", "2500"],
        ["waiting", "0"],
        ["dropped", "3"],
    ]
    assert "properties: no" in output


def test_what_a_browser_may_still_acknowledge_is_no_failure(
    app: Flask, tmp_path: Path, sink: Sink
) -> None:
    with kept_by(sink.url, spool=Spool(spool_path(tmp_path), "t")) as (_, hand_overs):
        keep(hand_overs, 300.0, records=3)

    result = call(app, "spool", "send")
    assert result.exit_code == 0, result.output
    assert "0 records sent, 0 wait" in result.output
    assert "3 more wait for a browser's word" in result.output

    output = call(app, "status").output
    assert ["waiting", "3"] in [line.split() for line in output.splitlines()]
    assert "3  not acknowledged yet" in output
    assert "not acknowledged yet" in call(app, "spool").output


def test_without_a_spool(tmp_path: Path) -> None:
    app = Flask(__name__, instance_path=str(tmp_path))
    Mengpaneel(app, token="t", spool=None)

    for command in (["spool"], ["spool", "send"], ["status"]):
        result = call(app, *command)
        assert (result.exit_code, result.output) == (0, "This app has no spool.\n")


@pytest.mark.filterwarnings("ignore:MENGPANEEL_TOKEN is not set")
@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({}, "no MENGPANEEL_TOKEN"),
        ({"token": "t", "enabled": False}, "MENGPANEEL_ENABLED is False"),
    ],
)
def test_without_a_spool_as_nothing_is_tracked(
    tmp_path: Path, settings: dict[str, t.Any], why: str
) -> None:
    app = Flask(__name__, instance_path=str(tmp_path))
    Mengpaneel(app, **settings)

    for command in (["spool"], ["spool", "send"], ["status"]):
        output = call(app, *command).output
        assert output == f"This app has no spool, as nothing is tracked: {why}.\n"


def test_an_app_without_mengpaneel() -> None:
    result = call(Flask(__name__), "status")
    assert result.exit_code == 1
    assert "no Mengpaneel" in result.output


@pytest.fixture
def shop(tmp_path: Path) -> c.Iterator[c.Callable[..., tuple[int, str, str]]]:
    """An app with declared events, whose commands run in a process of their own."""
    module = tmp_path / "shop.py"
    module.write_text(SHOP)

    def run(*arguments: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [sys.executable, "-m", "flask", "--app", "shop", "mengpaneel", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONIOENCODING": "utf-8"},
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=60,
        )
        return done.returncode, done.stdout, done.stderr

    yield run


SHOP = '''
from flask import Flask
from flask_mengpaneel import Event, Mengpaneel

app = Flask(__name__)
Mengpaneel(app, token="0123456789abcdef" * 2, spool=None, transport="inline")


class PlaceOrder(Event, name="Place Order", owner="checkout"):
    """Somebody has placed an order – or two."""

    items: int
'''


def test_plan_writes_what_the_app_declares_and_tells_when_that_changes(
    shop: c.Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    assert shop("plan", "--output", "plan.json") == (0, "", "")
    assert '"Place Order"' in (tmp_path / "plan.json").read_text("utf-8")
    assert shop("plan", "--check", "plan.json") == (0, "", "")

    (tmp_path / "shop.py").write_text(SHOP.replace("items: int", "items: float"))
    code, difference, hint = shop("plan", "--check", "plan.json")

    assert code == 1
    assert '-          "type": "integer"' in difference
    assert '+          "type": "number"' in difference
    assert "flask mengpaneel plan --output plan.json" in hint


def test_plan_says_where_no_event_is_declared(
    shop: c.Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    (tmp_path / "shop.py").write_text(SHOP.partition("class PlaceOrder")[0])

    code, text, hint = shop("plan")

    assert (code, text) == (0, "# Tracking plan\n")
    assert "import the modules that declare them where the app is made" in hint


def test_plan_shows_what_it_would_write(app: Flask, tmp_path: Path) -> None:
    assert call(app, "plan").stdout.startswith("# Tracking plan\n")
    text = call(app, "plan", "--format=csv").stdout
    assert text.startswith("event,display name,")

    for name in ("plan.txt", "plan"):
        result = call(app, "plan", "--output", str(tmp_path / name))
        assert result.exit_code == 2
        assert "--format" in result.output

    missing = str(tmp_path / "missing.md")
    assert call(app, "plan", "--check", missing).exit_code == 1
    assert call(app, "plan", "--check", missing, "--output", missing).exit_code == 2
