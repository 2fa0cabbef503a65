"""What became of the calls that a client was given."""

from __future__ import annotations

import collections.abc as c
import time
import typing as t
from pathlib import Path

import pytest
from flask import Flask, redirect
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from agents import GOOGLEBOT
from flask_mengpaneel.config import INSPECTOR_PREFIX
from flask_mengpaneel.inspector import Inspector
from flask_mengpaneel.inspector.flushed_calls import Flush
from inspector_calls import flush, send
from mixpanel_records import event, track
from sink import Sink
from sites import CAPABLE, PAGE, Site, block

WAITING = "waiting to be acknowledged"
ACKNOWLEDGED = "acknowledged by the browser"
SENT = "sent by the server: never acknowledged"


class InspectedSite(Site):
    """A site whose calls go to an inspector, and a visitor of it."""

    def __init__(self, folder: Path, **settings: t.Any) -> None:
        def prepare(app: Flask) -> None:
            app.instance_path = str(folder)

            # By default all goes to the inspector, and waits in the folder.
            for name in {"transport", "spool", "api_host"} - settings.keys():
                del app.config[f"MENGPANEEL_{name.upper()}"]

        super().__init__(testing=False, prepare=prepare, inspector=True, **settings)
        self.view("/", self._page)
        self.view("/go", self._go)
        self.view("/quiet", lambda: PAGE)
        self.browser = self.client(None)
        self.inspector: Inspector = self.app.extensions["mengpaneel_inspector"]

    def _page(self) -> str:
        self.mengpaneel.track("Look")
        return PAGE

    def _go(self) -> t.Any:
        self.mengpaneel.track("Go")
        return redirect("/quiet")

    def flushes(self) -> list[Flush]:
        (call,) = self.inspector.store.calls()
        return call.flushes

    def became(self, *words: str) -> bool:
        """Whether the flushes of the only call became this, before long."""
        deadline = time.monotonic() + 60

        while [flush["became"] for flush in self.flushes()] != list(words):
            if time.monotonic() > deadline:
                return False

            time.sleep(0.01)

        return True

    def acknowledge(self, token: str | None) -> None:
        assert token is not None
        response = self.browser.post(
            "/_mengpaneel/acks",
            data=token,
            headers={"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"},
        )
        assert response.status_code == 204


def page_token(response: TestResponse) -> str | None:
    data = block(response)
    assert data is not None
    return t.cast("str | None", data.get("handover"))


@pytest.fixture(params=[False, True], ids=["memory", "spool"])
def make_site(
    request: pytest.FixtureRequest, tmp_path: Path
) -> c.Callable[..., InspectedSite]:
    """Makes a site that keeps what waits in memory, or in the spool at once."""

    def make(**settings: t.Any) -> InspectedSite:
        return InspectedSite(tmp_path, **{"durable": request.param, **settings})

    return make


def test_a_page_waits_until_it_is_acknowledged(
    make_site: c.Callable[..., InspectedSite],
) -> None:
    site = make_site()
    page = site.browser.get("/")

    assert site.became(WAITING)
    site.acknowledge(page_token(page))
    assert site.became(ACKNOWLEDGED)


def test_a_header_waits_until_it_is_acknowledged(
    make_site: c.Callable[..., InspectedSite],
) -> None:
    site = make_site()
    headers = {**CAPABLE, "X-Mengpaneel-Flush-Capable": "true; ack"}
    site.browser.get("/")  # It has a cookie from now on.
    site.inspector.clear()
    response = site.browser.get("/", headers=headers)

    assert site.became(WAITING)
    site.acknowledge(response.headers["X-Mengpaneel-Hand-Over"])
    assert site.became(ACKNOWLEDGED)


def test_what_nobody_acknowledges_the_server_sends(
    make_site: c.Callable[..., InspectedSite],
) -> None:
    site = make_site(ack_timeout=0.1)
    site.browser.get("/")
    site.inspector.wait_for(events=1, timeout=60)

    assert site.became(SENT)
    assert site.inspector.arrivals()[0].flushes[-1]["became"] == SENT


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"User-Agent": GOOGLEBOT}, "not sent: a robot's page"),
        ({"Sec-Purpose": "prefetch"}, "not sent: fetched in advance and never shown"),
    ],
)
def test_what_nobody_saw_is_not_sent(
    make_site: c.Callable[..., InspectedSite],
    headers: dict[str, str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flask_mengpaneel.choose.handing_over._MAX_ADVANCE", 0.1)
    site = make_site(ack_timeout=0.1)
    site.browser.get("/", headers=headers)

    assert site.became(words)


def test_what_waits_in_the_session_is_taken_up(
    make_site: c.Callable[..., InspectedSite],
) -> None:
    site = make_site()
    site.browser.get("/go")
    assert site.became("waiting for a later response to take it up")

    site.acknowledge(page_token(site.browser.get("/quiet")))
    assert site.became("taken up by a later response", ACKNOWLEDGED)


def test_what_no_response_takes_up_the_server_sends(
    make_site: c.Callable[..., InspectedSite],
) -> None:
    site = make_site(delayed_max_age=1)
    site.browser.get("/go")

    assert site.became("sent by the server: no later response has taken it up")


def test_at_its_end_a_process_sends_what_waits(tmp_path: Path) -> None:
    site = InspectedSite(tmp_path, spool=None)
    site.browser.get("/")
    site.app.extensions["mengpaneel"].hand_overs.hand_on()

    assert site.became("sent by the server: the process ended")


def test_the_next_process_says_what_became_of_it(tmp_path: Path) -> None:
    site = InspectedSite(tmp_path)
    token = page_token(site.browser.get("/"))
    site.app.extensions["mengpaneel"].hand_overs.hand_on()
    site.app.extensions["mengpaneel"].background.close()
    assert site.became(WAITING)

    following = InspectedSite(tmp_path)
    following.acknowledge(token)
    assert following.became(ACKNOWLEDGED)


def test_a_site_that_believes_its_clients_waits_for_nobody(tmp_path: Path) -> None:
    site = InspectedSite(tmp_path, ack_timeout=0)
    site.browser.get("/")

    assert site.became("")


def test_the_page_is_told_of_it(
    app: Flask, client: FlaskClient, inspector: Inspector
) -> None:
    def feed(after: int) -> t.Any:
        return client.get(f"{INSPECTOR_PREFIX}/arrivals?after={after}").get_json()

    value = event()
    flush(app, "ClientSide", track(value), hand_over="abc")
    flush(app, "ClientSide", track(event("Other")), hand_over="def")
    send(inspector, "track", value)
    before = feed(0)
    inspector.on_hand_over("abc", "acknowledged", "")
    after = feed(before["after"])

    def state(row: t.Any) -> tuple[str, str]:
        flush = row["flushes"][0]
        return flush["state"], flush["became"]

    arrived, waits = before["calls"]
    assert arrived == {"id": 1, "arrival": 1}
    assert state(waits) == state(before["arrivals"][0]) == ("waiting", WAITING)
    assert after["calls"] == [arrived]
    assert state(after["arrivals"][0]) == ("acknowledged", ACKNOWLEDGED)


def test_what_waits_for_the_inspector_never_goes_to_mixpanel(
    tmp_path: Path, sink: Sink
) -> None:
    developed = InspectedSite(tmp_path, durable=True)
    developed.browser.get("/")
    sends = Site(
        testing=False,
        transport="thread",
        spool=tmp_path / "mengpaneel-spool.sqlite3",
        api_host=sink.url,
    )

    waiting = [
        site.app.extensions["mengpaneel"].delivery.spool.summary().records
        for site in (developed, sends)
    ]
    assert waiting == [1, 0]
