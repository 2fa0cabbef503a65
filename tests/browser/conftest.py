from __future__ import annotations

import collections.abc as c
import typing as t

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright
from script_pages import Api, Site

from needs import need

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def chromium() -> c.Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=need("chromium"), args=FLAGS
        )
        yield browser
        browser.close()


@pytest.fixture
def context(chromium: Browser) -> c.Iterator[BrowserContext]:
    """A browser profile without history."""
    context = chromium.new_context()
    context.set_default_timeout(30_000)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext) -> c.Iterator[Page]:
    """A tab, in which no error may reach the page."""
    page = context.new_page()
    errors: list[t.Any] = []
    page.on("pageerror", lambda error: errors.append(error))
    yield page
    assert errors == []


@pytest.fixture
def api() -> c.Iterator[Api]:
    api = Api()
    yield api
    api.close()


@pytest.fixture
def site(api: Api) -> c.Iterator[Site]:
    site = Site(api)
    yield site
    site.close()
