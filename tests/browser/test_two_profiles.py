"""Two browsers at a shop behind nginx, which keeps what it may and gives it to both."""

from __future__ import annotations

import collections.abc as c
import json
import time
from pathlib import Path
from urllib.parse import unquote

import pytest
from flask import Flask, Response, request
from journey import OpenShop, Shop, cookies
from playwright.sync_api import Browser, BrowserContext, Error, Request
from playwright.sync_api import Response as Received

from nginx import GREEDY, Nginx

pytestmark = pytest.mark.browsers(
    "chromium", why="nginx decides what it keeps; the browser adds nothing"
)


SHARED = ("/products/2", "/api/stock", "/go", "/quiet")


def let_nginx_keep(app: Flask) -> None:
    """Have an app say of some responses that nginx may keep them."""

    @app.after_request
    def say_so(response: Response) -> Response:
        if request.path in SHARED:
            response.headers["X-Accel-Expires"] = "60"

        return response


class Profile:
    """A browser profile, and all that came to it."""

    def __init__(self, browser: Browser, name: str, url: str) -> None:
        self.name = name
        self.received: list[str] = []
        self.context: BrowserContext = browser.new_context()
        self.tab = self.context.new_page()
        self._url = url
        self._responses: list[Received] = []
        self._cookies: set[str] = set()
        self.tab.on("response", lambda response: self._responses.append(response))
        # Those whose body is here, or will never be.
        self._ended: set[Request] = set()
        self.tab.on("requestfinished", lambda request: self._ended.add(request))
        self.tab.on("requestfailed", lambda request: self._ended.add(request))

    def go(self, path: str) -> None:
        """Go to a page."""
        self.tab.goto(f"{self._url}{path}")
        self.tab.wait_for_load_state("load")
        self._read()

    def fetch(self, path: str, method: str = "GET") -> None:
        """Let a script of the page ask for something."""
        self.tab.evaluate(
            "([path, method]) => fetch(path, {method}).then(answer => answer.text())",
            [path, method],
        )
        self._read()

    def _read(self) -> None:
        """Remember what has come until now."""
        while self._responses:
            response = self._responses.pop(0)
            lines = [f"{h['name']}: {h['value']}" for h in response.headers_array()]

            if self._has_ended(response.request):
                try:
                    lines.append(response.text())
                except (Error, UnicodeDecodeError):
                    # A redirect has no body; that of a page which was left is gone.
                    pass

            self.received.append("\n".join([response.url, *lines]))

        self._cookies.update(v for v in cookies(self.context).values() if len(v) > 8)

    def _has_ended(self, request: Request) -> bool:
        """Wait until a request has ended. Of what a page asked for that was left then,
        Chromium may never say it."""
        deadline = time.monotonic() + 10

        while request not in self._ended and time.monotonic() < deadline:
            self.tab.wait_for_timeout(20)

        return request in self._ended

    @property
    def secrets(self) -> set[str]:
        """What only this visitor may know."""
        found = {self.name} | self._cookies

        for value in self._cookies:
            if unquote(value).startswith("{"):
                found.add(json.loads(unquote(value))["$device_id"])

        return found

    @property
    def storage(self) -> str:
        """What the browser keeps of the site."""
        return json.dumps(self.context.storage_state())


@pytest.fixture(params=[None, let_nginx_keep], ids=["silent", "x-accel-expires"])
def shop(request: pytest.FixtureRequest, open_shop: OpenShop) -> Shop:
    return open_shop(finish=request.param or (lambda app: None))


@pytest.fixture
def nginx(shop: Shop, tmp_path: Path) -> c.Iterator[Nginx]:
    folder = tmp_path / "nginx"
    folder.mkdir()
    opened = Nginx(folder, shop.port)
    shop.url = opened.url(GREEDY)
    yield opened
    opened.close()


@pytest.fixture
def profiles(browser: Browser, nginx: Nginx) -> c.Iterator[list[Profile]]:
    url = nginx.url(GREEDY)
    opened = [Profile(browser, f"{name}-of-the-test", url) for name in ("ann", "bob")]
    yield opened

    for profile in opened:
        profile.context.close()


def test_each_profile_gets_its_own(shop: Shop, profiles: list[Profile]) -> None:
    def each(step: c.Callable[[Profile], None]) -> None:
        for profile in (*profiles, profiles[0]):
            step(profile)

    # Strangers first.
    each(lambda one: one.go("/products/1"))
    each(lambda one: one.fetch("/api/stock"))
    each(lambda one: one.go("/go?to=/products/2"))
    each(lambda one: one.fetch(f"/api/sign-in?user={one.name}", "POST"))
    each(lambda one: one.go("/products/3"))
    each(lambda one: one.go("/products/2"))
    each(lambda one: one.fetch("/api/stock?of=mine"))
    each(lambda one: one.go("/go?to=/quiet"))
    each(lambda one: one.go("/products/4"))

    for one, other in (profiles, profiles[::-1]):
        found = [
            (secret, text)
            for secret in other.secrets
            for text in [*one.received, one.storage]
            if secret in text
        ]
        assert found == []

    shop.settle(*(profile.tab for profile in profiles))
    shop.check()
