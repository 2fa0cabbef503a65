from __future__ import annotations

import collections.abc as c
import typing as t

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    Error,
    Frame,
    Page,
    Playwright,
    sync_playwright,
)
from script_pages import Api, Site, wait_until

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
    # A site that is served without encryption: what is on loopback counts as safe.
    "--host-resolver-rules=MAP plain.test 127.0.0.1",
]


def wait_for_function(page: Page | Frame, expression: str) -> None:
    """Wait until an expression is true.

    Playwright's own asks within the page, with `eval`, which strict policies forbid.
    """

    def is_true() -> bool:
        try:
            return bool(page.evaluate(expression))
        except Error as error:
            # The page is being left.
            assert "context" in str(error) or "navigat" in str(error), error
            return False

    assert wait_until(is_true, 30), f"{expression} is not true"


@pytest.fixture(scope="session", autouse=True)
def waiting_without_eval() -> c.Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for kind in (Page, Frame):
            patch.setattr(kind, "wait_for_function", wait_for_function)

        yield


@pytest.fixture(scope="session")
def playwright() -> c.Iterator[Playwright]:
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="session")
def chromium(playwright: Playwright) -> c.Iterator[Browser]:
    browser = playwright.chromium.launch(executable_path=need("chromium"), args=FLAGS)
    yield browser
    browser.close()


@pytest.fixture
def browser(chromium: Browser) -> Browser:
    """The browser in which a test's pages are."""
    return chromium


@pytest.fixture
def context(browser: Browser) -> c.Iterator[BrowserContext]:
    """A browser profile without history."""
    context = browser.new_context()
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
