"""Two apps on one site, each of which tracks for its own project."""

from __future__ import annotations

import collections.abc as c

import pytest
from flask import Flask, redirect, request
from playwright.sync_api import Page as Tab
from script_pages import LIBRARY, PACKAGES, Api, Json
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from flask_mengpaneel import Mengpaneel, Outcome, flushed
from flask_mengpaneel.testing import RecordingTransport
from servers import Server
from sites import PAGE
from waiting import wait_until


class Twins(Server):
    """``/`` is of the project ONE, ``/two`` of another."""

    def __init__(self, api: Api, other: str) -> None:
        self.transports = [RecordingTransport(), RecordingTransport()]
        self.outcomes: list[Outcome] = []
        one, two = (
            self._make(api, token, transport)
            for token, transport in zip(("ONE", other), self.transports, strict=True)
        )
        super().__init__(DispatcherMiddleware(one, {"/two": two}))

    def _make(self, api: Api, token: str, transport: RecordingTransport) -> Flask:
        app = Flask(__name__, static_folder=str(PACKAGES), static_url_path="/npm")
        app.secret_key = "secret"
        mengpaneel = Mengpaneel(
            app,
            token=token,
            transport=transport,
            spool=None,
            library_url=LIBRARY,
            client_config={"api_host": api.url},
        )

        @app.route("/")
        def home() -> str:
            mengpaneel.track(f"View {token}")
            return PAGE

        @app.route("/cart")
        def cart() -> str:
            mengpaneel.track(f"Cart {token}")
            return "cart"

        @app.route("/go")
        def go() -> Json:
            return redirect(request.args["to"])

        def note(_app: Flask, *, outcome: Outcome) -> None:
            self.outcomes.append(outcome)

        flushed.connect(note, app, weak=False)
        return app


@pytest.fixture
def open_twins(api: Api) -> c.Iterator[c.Callable[[str], Twins]]:
    opened: list[Twins] = []

    def open_twins(other: str) -> Twins:
        twins = Twins(api, other)
        opened.append(twins)
        return twins

    yield open_twins

    for twins in opened:
        twins.close()


HOW = {
    "fetch": "url => fetch(url).then(r => r.text())",
    "request": "url => fetch(new Request(url)).then(r => r.text())",
    "xhr": """url => new Promise(done => { const r = new XMLHttpRequest();
        r.open('GET', url); r.onloadend = done; r.send(); })""",
}


@pytest.mark.parametrize("url", ["/two/cart", "/go?to=/two/cart"])
@pytest.mark.parametrize("how", HOW)
def test_what_another_projects_app_tracks_goes_to_that_project(
    open_twins: c.Callable[[str], Twins], api: Api, page: Tab, how: str, url: str
) -> None:
    twins = open_twins("TWO")
    page.goto(twins.url)
    page.wait_for_function("window.mixpanel.__loaded")
    page.evaluate(HOW[how], url)
    page.evaluate(HOW[how], "/cart")
    assert wait_until(lambda: len(api.events) == 2)
    assert api.events == ["View ONE", "Cart ONE"]
    assert {
        record.message["properties"]["token"]
        for record in api.records
        if record.endpoint == "track"
    } == {"ONE"}
    assert [call.event for call in twins.transports[1].calls] == ["Cart TWO"]
    (outcome,) = [one for one in twins.outcomes if one.strategy == "AsyncServerSide"]
    assert "another project" in outcome.declined["CapableClientSide"]


def test_two_apps_of_one_project_share_the_page(
    open_twins: c.Callable[[str], Twins], api: Api, page: Tab
) -> None:
    twins = open_twins("ONE")
    page.goto(twins.url)
    page.wait_for_function("window.mixpanel.__loaded")
    page.evaluate(HOW["fetch"], "/two/cart")
    assert wait_until(lambda: len(api.events) == 2)
    assert api.events == ["View ONE", "Cart ONE"]
    assert not any(transport.calls for transport in twins.transports)
