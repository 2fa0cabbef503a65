"""A page of a test run that is guarded, with the real library in a real browser."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from flask import Flask
from playwright.sync_api import Page
from script_pages import LIBRARY, PACKAGES

from flask_mengpaneel import Mengpaneel, guard
from servers import Server
from sites import PAGE
from waiting import wait_until

pytestmark = pytest.mark.browsers(
    "chromium", why="where the library sends to doesn't depend on the browser"
)


def test_the_library_sends_to_the_app_and_the_script_acknowledges(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(guard.VARIABLE, "1")
    app = Flask(__name__, static_folder=str(PACKAGES), static_url_path="/npm")
    app.secret_key = "secret"
    mengpaneel = Mengpaneel(app, token="token", library_url=LIBRARY)

    @app.get("/")
    def home() -> str:
        mengpaneel.track("View")
        return PAGE

    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))

    with Server(app) as server, app.app_context():
        page.goto(server.url)

        assert wait_until(lambda: mengpaneel.ledger().delivered == 1)
        assert {urlsplit(url).port for url in asked} == {server.port}
        assert "/_mengpaneel/guard/track/" in [urlsplit(url).path for url in asked]
