"""Asking an app leaves nothing of ours behind."""

from __future__ import annotations

import collections.abc as c
import pathlib
import sys
import typing as t

import pytest
from click.testing import Result
from flask import redirect, request

from doctor_pages import PAGE
from flask_mengpaneel.cli import mengpaneel as commands
from flask_mengpaneel.deliver.spool import Spool
from flask_mengpaneel.signals import dropped, flushed, recorded, unrecorded
from processes import SETTINGS, Process
from rig import event
from sink import Sink
from sites import DEVICE, TOKEN, Site

BASE = "https://localhost"
FLASK = [sys.executable, "-m", "flask"]
#: An app that a process of its own asks.
SHOP = f"""
import json
import os

from flask import Flask

from flask_mengpaneel import Mengpaneel

app = Flask(__name__)
app.secret_key = "secret"
mengpaneel = Mengpaneel(app, **json.loads(os.environ["{SETTINGS}"]))


@app.get("/page")
def page():
    mengpaneel.track("Look")
    return {PAGE!r}
"""


@pytest.fixture
def spool(tmp_path: pathlib.Path) -> pathlib.Path:
    """Where all processes of an app have their spool."""
    folder = tmp_path / "spool"
    folder.mkdir()
    return folder / "spool.sqlite3"


@pytest.fixture
def serve(spool: pathlib.Path, sink: Sink) -> c.Callable[..., Site]:
    """Makes a process of the same app."""

    def create(**settings: t.Any) -> Site:
        site = Site(
            testing=False,
            transport="thread",
            api_host=sink.url,
            spool=str(spool),
            **settings,
        )
        mengpaneel = site.mengpaneel

        def order() -> t.Any:
            if "operation" in request.args:
                mengpaneel.people.increment("Orders")
            else:
                mengpaneel.track("Order")

            return redirect("/page")

        def sign_in() -> str:
            mengpaneel.identify("ann")
            mengpaneel.people.append({"Visits": 1})
            mengpaneel.track("Sign In")
            return PAGE

        site.view("/order", order)
        site.view("/sign-in", sign_in)
        site.view("/page", lambda: PAGE)
        return site

    return create


def explain(site: Site, *arguments: str) -> Result:
    result = site.app.test_cli_runner().invoke(commands, ["explain", *arguments])
    assert result.exit_code == 0, result.output
    return result


@pytest.mark.parametrize(
    ("before", "arguments"),
    [
        (None, ["GET", "/sign-in"]),
        (None, ["GET", "/sign-in", "--as-browser", "none"]),
        (None, ["GET", "/sign-in", "--header", "Sec-GPC: 1"]),
        (None, ["GET", "/order?operation"]),
        ("/order", ["GET", "/page"]),
        ("/order", ["GET", "/page", "--header", "Sec-GPC: 1"]),
        ("/order", ["GET", "/page", "--cookie", "mengpaneel_blocked=1"]),
        ("/order?operation", ["GET", "/sign-in"]),
        ("/order?operation", ["GET", "/page", "--header", "Sec-GPC: 1"]),
    ],
    ids=str,
)
def test_asking_writes_nothing_and_takes_nothing_that_waits(
    serve: c.Callable[..., Site],
    spool: pathlib.Path,
    before: str | None,
    arguments: list[str],
) -> None:
    served, asked = serve(), serve()

    if before:
        client = served.client()
        client.get(before, base_url=BASE)
        session = client.get_cookie("session", domain="localhost")
        assert session is not None
        arguments = [*arguments, "--cookie", f"session={session.value}"]

    explain(asked, *arguments)

    assert list(spool.parent.iterdir()) == []
    assert str(asked.mengpaneel.ledger()).startswith("0 recorded = 0 delivered + 0")
    assert asked.app.extensions["mengpaneel"].hand_overs.counts().kept == 0


def test_asking_acknowledges_nothing_that_a_browser_posts(
    serve: c.Callable[..., Site], spool: pathlib.Path
) -> None:
    result = serve().app.test_cli_runner().invoke(commands, ["doctor", "/page"])

    assert result.exit_code == 0, result.output
    assert list(spool.parent.iterdir()) == []


@pytest.mark.parametrize("command", [["explain", "GET"], ["doctor"]], ids=" ".join)
def test_asking_sends_nothing_that_others_have_left(
    tmp_path: pathlib.Path, spool: pathlib.Path, sink: Sink, command: list[str]
) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    settings = {"api_host": sink.url, "spool": str(spool), "shutdown_timeout": 20}
    left = Spool(spool, TOKEN)
    left.put([event()], "down")
    process = Process(
        tmp_path,
        [*FLASK, "--app", "shop", "mengpaneel", *command, "/page"],
        {"token": TOKEN, **settings},
    )

    assert process.wait() == 0, process.output
    assert sink.requests == []
    assert left.summary().records == 1
    assert [path.name for path in spool.parent.glob("*ledger*")] == []


def test_no_receiver_is_told_of_what_is_only_asked(
    serve: c.Callable[..., Site],
) -> None:
    site = serve()
    told: list[object] = []

    def receive(_app: object, **sent: object) -> None:
        told.append(sent)

    for signal in (recorded, unrecorded, dropped, flushed):
        signal.connect(receive, site.app)

    explain(site, "GET", "/sign-in")
    explain(site, "GET", "/sign-in", "--header", "Sec-GPC: 1")
    assert told == []

    site.client().get("/sign-in")
    assert told != []


def test_a_process_that_was_asked_goes_on_as_if_it_hadn_t_been(
    serve: c.Callable[..., Site],
) -> None:
    # As it has to in the tests of an app.
    site = serve()

    def set_up() -> str:
        with site.mengpaneel.setup():
            site.mengpaneel.identify("ann")
            site.mengpaneel.people.set({"Plan": "pro"})

        site.mengpaneel.track("Look")
        return PAGE

    site.view("/set-up", set_up)
    site.app.extensions["mengpaneel"].chain.divert(site.kept)
    client = site.visitor(**DEVICE)
    client.get("/order", base_url=BASE)
    session = client.get_cookie("session", domain="localhost")
    assert session is not None
    blocked = "mengpaneel_blocked"
    cookies = [f"session={session.value}", f"{blocked}=1"]
    options = [word for cookie in cookies for word in ("--cookie", cookie)]
    explain(site, "GET", "/set-up", *options)
    client.set_cookie(blocked, "1", domain="localhost")
    client.get("/set-up", base_url=BASE)

    assert sorted(call.name for call in site.kept.calls if call.is_record) == [
        "people.set",
        "track",
        "track",
    ]


def test_the_inspector_shows_nothing_of_it() -> None:
    site = Site(testing=False, inspector=True, transport="inline")
    site.view("/track", lambda: (site.mengpaneel.track("Look"), PAGE)[1])
    explain(site, "GET", "/track")
    explain(site, "GET", "/track", "--header", "Sec-GPC: 1")
    inspector = site.app.extensions["mengpaneel_inspector"]

    assert inspector.unrecorded() == []
    assert inspector.store.calls() == []
    assert inspector.arrivals() == []
