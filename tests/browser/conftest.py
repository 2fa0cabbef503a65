from __future__ import annotations

import collections.abc as c
import typing as t
from pathlib import Path

import pytest
from journey import OpenShop, Shop
from playwright.sync_api import (
    Browser,
    BrowserContext,
    Error,
    Frame,
    Page,
    Playwright,
    sync_playwright,
)
from script_pages import Api, ScriptSite, without_errors

from needs import need
from waiting import wait_until

#: A site without encryption: what is named as loopback, browsers take for safe.
PLAIN_HOST = "plain.test"
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    f"--host-resolver-rules=MAP {PLAIN_HOST} 127.0.0.1",
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

    assert wait_until(is_true, 60), f"{expression} is not true"


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


@pytest.fixture(scope="session")
def firefox(playwright: Playwright) -> c.Iterator[Browser]:
    browser = playwright.firefox.launch(
        # Firefox as it is, not a build of Playwright's own.
        channel="moz-firefox",
        executable_path=need("firefox"),
        firefox_user_prefs={"network.dns.localDomains": PLAIN_HOST},
    )
    yield browser
    browser.close()


#: In each of these runs a test that has a browser, unless its marker says otherwise.
BROWSERS = ("chromium", "firefox")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test that has a browser in both, or in those that the marker
    ``browsers`` of the test, else of its module, names: for a reason."""
    if "browser" not in metafunc.fixturenames:
        return

    marker = metafunc.definition.get_closest_marker("browsers")
    names = BROWSERS if marker is None else marker.args
    assert names and set(names) <= set(BROWSERS), marker

    if marker and (marker.kwargs or set(names) != set(BROWSERS)):
        assert isinstance(marker.kwargs.get("why"), str), f"no reason: {marker}"

    metafunc.parametrize(
        "browser",
        [pytest.param(name, marks=getattr(pytest.mark, name)) for name in names],
        indirect=True,
    )


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Leave out, in Firefox, the values of parameters that a marker leaves out."""
    left_out = [item for item in items if _is_left_out(item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def _is_left_out(item: pytest.Item) -> bool:
    marker = item.get_closest_marker("browsers")

    if marker is None or item.get_closest_marker("firefox") is None:
        return False

    assert isinstance(item, pytest.Function)
    params = item.callspec.params
    kept = marker.kwargs.get("in_firefox", {})
    return any(params[name] not in values for name, values in kept.items())


@pytest.fixture
def browser(request: pytest.FixtureRequest) -> Browser:
    """The browser in which a test's pages are."""
    return t.cast(Browser, request.getfixturevalue(request.param))


@pytest.fixture
def context(browser: Browser) -> c.Iterator[BrowserContext]:
    """A browser profile without history."""
    context = browser.new_context()
    context.set_default_timeout(60_000)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext) -> c.Iterator[Page]:
    """A tab, in which no error may reach the page, and in Firefox nothing be logged."""
    with without_errors(context.new_page()) as page:
        yield page


@pytest.fixture
def api() -> c.Iterator[Api]:
    with Api() as api:
        yield api


@pytest.fixture
def site(api: Api) -> c.Iterator[ScriptSite]:
    with ScriptSite(api) as site:
        yield site


@pytest.fixture
def open_shop(tmp_path: Path) -> c.Iterator[OpenShop]:
    """Opens shops, which are closed after the test."""
    shops: list[Shop] = []

    def open_(**options: t.Any) -> Shop:
        shops.append(Shop(tmp_path / str(len(shops)), **options))
        return shops[-1]

    yield open_

    for shop in shops:
        shop.close()
