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

from flask_mengpaneel import Mengpaneel
from flask_mengpaneel.inspector import Inspector
from flask_mengpaneel.inspector.app import URL_PREFIX
from flask_mengpaneel.inspector.flushed_calls import Flush
from inspector_calls import flush, send
from mixpanel_records import event, track
from sites import CAPABLE, PAGE, block

WAITING = "waiting to be acknowledged"
ACKNOWLEDGED = "acknowledged by the browser"
SENT = "sent by the server: never acknowledged"
GOOGLEBOT = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"


class Shop:
    """An app with an inspector."""

    def __init__(self, folder: Path, **settings: t.Any) -> None:
        self.app = app = Flask("shop", instance_path=str(folder))
        app.secret_key = "secret"
        self.mengpaneel = Mengpaneel(app, token="token", inspector=True, **settings)

        @app.get("/")
        def page() -> str:
            self.mengpaneel.track("Look")
            return PAGE

        @app.get("/go")
        def go() -> t.Any:
            self.mengpaneel.track("Go")
            return redirect("/quiet")

        @app.get("/quiet")
        def quiet() -> str:
            return PAGE

        self.client: FlaskClient = app.test_client()
        self.inspector: Inspector = app.extensions["mengpaneel_inspector"]

    def flushes(self) -> list[Flush]:
        (call,) = self.inspector.store.calls()
        return call.flushes

    def became(self, *words: str) -> bool:
        """Whether the flushes of the only call became this, before long."""
        deadline = time.monotonic() + 10

        while [flush["became"] for flush in self.flushes()] != list(words):
            if time.monotonic() > deadline:
                return False

            time.sleep(0.01)

        return True

    def acknowledge(self, token: str | None) -> None:
        assert token is not None
        response = self.client.post(
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
def make_shop(request: pytest.FixtureRequest, tmp_path: Path) -> c.Callable[..., Shop]:
    """Makes a shop that keeps what waits in memory, or in the spool at once."""

    def make(**settings: t.Any) -> Shop:
        return Shop(tmp_path, **{"durable": request.param, **settings})

    return make


def test_a_page_waits_until_it_is_acknowledged(
    make_shop: c.Callable[..., Shop],
) -> None:
    shop = make_shop()
    page = shop.client.get("/")

    assert shop.became(WAITING)
    shop.acknowledge(page_token(page))
    assert shop.became(ACKNOWLEDGED)


def test_a_header_waits_until_it_is_acknowledged(
    make_shop: c.Callable[..., Shop],
) -> None:
    shop = make_shop()
    headers = {**CAPABLE, "X-Mengpaneel-Flush-Capable": "true; ack"}
    shop.client.get("/")  # It has a cookie from now on.
    shop.inspector.clear()
    response = shop.client.get("/", headers=headers)

    assert shop.became(WAITING)
    shop.acknowledge(response.headers["X-Mengpaneel-Hand-Over"])
    assert shop.became(ACKNOWLEDGED)


def test_what_nobody_acknowledges_the_server_sends(
    make_shop: c.Callable[..., Shop],
) -> None:
    shop = make_shop(ack_timeout=0.1)
    shop.client.get("/")
    shop.inspector.wait_for(events=1, timeout=20)

    assert shop.became(SENT)
    assert shop.inspector.arrivals()[0].flushes[-1]["became"] == SENT


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"User-Agent": GOOGLEBOT}, "not sent: a robot's page"),
        ({"Sec-Purpose": "prefetch"}, "not sent: fetched in advance and never shown"),
    ],
)
def test_what_nobody_saw_is_not_sent(
    make_shop: c.Callable[..., Shop],
    headers: dict[str, str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flask_mengpaneel.choose.handing_over._MAX_ADVANCE", 0.1)
    shop = make_shop(ack_timeout=0.1)
    shop.client.get("/", headers=headers)

    assert shop.became(words)


def test_what_waits_in_the_session_is_taken_up(
    make_shop: c.Callable[..., Shop],
) -> None:
    shop = make_shop()
    shop.client.get("/go")
    assert shop.became("waiting for a later response to take it up")

    shop.acknowledge(page_token(shop.client.get("/quiet")))
    assert shop.became("taken up by a later response", ACKNOWLEDGED)


def test_what_no_response_takes_up_the_server_sends(
    make_shop: c.Callable[..., Shop],
) -> None:
    shop = make_shop(delayed_max_age=1)
    shop.client.get("/go")

    assert shop.became("sent by the server: no later response has taken it up")


def test_at_its_end_a_process_sends_what_waits(tmp_path: Path) -> None:
    shop = Shop(tmp_path, spool=None)
    shop.client.get("/")
    shop.app.extensions["mengpaneel"].hand_overs.hand_on()

    assert shop.became("sent by the server: the process ended")


def test_the_next_process_says_what_became_of_it(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    token = page_token(shop.client.get("/"))
    shop.app.extensions["mengpaneel"].hand_overs.hand_on()
    shop.app.extensions["mengpaneel"].background.close()
    assert shop.became(WAITING)

    following = Shop(tmp_path)
    following.acknowledge(token)
    assert following.became(ACKNOWLEDGED)


def test_a_site_that_believes_its_clients_waits_for_nobody(tmp_path: Path) -> None:
    shop = Shop(tmp_path, ack_timeout=0)
    shop.client.get("/")

    assert shop.became("")


def test_the_page_is_told_of_it(
    app: Flask, client: FlaskClient, inspector: Inspector
) -> None:
    def feed(after: int) -> t.Any:
        return client.get(f"{URL_PREFIX}/arrivals?after={after}").get_json()

    value = event()
    flush(app, "ClientSide", track(value), hand_over="abc")
    flush(app, "ClientSide", track(event("Other")), hand_over="def")
    send(inspector, "track", value)
    before = feed(0)
    inspector.on_hand_over("abc", "acknowledged", "")
    after = feed(before["after"])

    assert [call["flushes"][0]["became"] for call in before["calls"]] == [WAITING] * 2
    assert [call["flushes"][0]["became"] for call in after["calls"]] == [ACKNOWLEDGED]
    assert after["arrivals"][0]["flushes"][0]["became"] == ACKNOWLEDGED
