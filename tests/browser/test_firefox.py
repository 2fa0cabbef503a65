"""The same in Firefox: what is imported here, and what is told otherwise there."""

from __future__ import annotations

import collections.abc as c
import typing as t

import pytest
import test_journey as journeys
import test_script_fronts as fronts
import test_script_leaving as leaving
from journey import BY_FETCH, OpenShop, Shop, arrive, opened_shops
from playwright.sync_api import Browser, BrowserContext, Error, Playwright
from playwright.sync_api import Page as Tab
from script_pages import Page, Site, wait_until
from test_front_ends import (  # noqa: F401
    test_htmx_swaps_by_attributes,
    test_turbo_visits_and_previews_make_each_pages_calls_once,
)
from test_identity import (  # noqa: F401
    test_two_tabs_that_race_for_delayed_calls_make_them_once,
)
from test_journey import (  # noqa: F401
    test_each_call_of_a_journey_arrives_once_and_in_order,
)
from test_journey_blocked import (  # noqa: F401
    NOBODY,
    test_a_journey_without_the_library_arrives_by_way_of_the_app,
)
from test_script_blocked import CALLS, announced_after, prepare
from test_script_fronts import (  # noqa: F401
    test_a_nonce_is_passed_on_whatever_elements_are_called,
    test_what_elements_are_called_is_of_no_matter,
)
from test_script_leaving import (  # noqa: F401
    test_calls_of_a_page_left_before_the_library_came_go_back_to_the_app,
)
from test_script_other_sites import (  # noqa: F401
    evil,
    own_site,
    test_another_sites_page_hands_nothing_back,
    test_the_sites_own_pages_hand_back_under_each_policy,
)
from test_script_requests import OBSERVE, REQUESTS

from needs import need

open_shop = opened_shops


@pytest.fixture(scope="session")
def firefox(playwright: Playwright) -> c.Iterator[Browser]:
    browser = playwright.firefox.launch(
        # Firefox as it is, not a build of Playwright's own.
        channel="moz-firefox",
        executable_path=need("firefox"),
    )
    yield browser
    browser.close()


@pytest.fixture
def browser(firefox: Browser) -> Browser:
    return firefox


@pytest.fixture
def page(context: BrowserContext) -> c.Iterator[Tab]:
    """A tab in which nothing may be thrown and nothing logged."""
    page = context.new_page()
    said: list[str] = []

    def note(error: Error) -> None:
        # Firefox tells in the same way what it keeps from a page by itself.
        if "favicon.ico" not in error.message and "Cross-Origin" not in error.name:
            said.append(str(error))

    page.on("pageerror", note)
    page.on("console", lambda line: said.append(line.text))
    yield page
    assert said == []


@pytest.fixture
def shop(open_shop: OpenShop) -> Shop:
    return open_shop()


def test_each_event_is_with_its_person_from_first_picture_to_sign_out(
    open_shop: OpenShop, firefox: Browser, context: BrowserContext
) -> None:
    test = journeys.test_each_event_is_with_its_person_from_first_picture_to_sign_out
    test(open_shop, firefox, context, "all ways")


@pytest.mark.parametrize("wait", [0, 50, 200])
def test_nothing_is_lost_between_pages(
    site: Site, context: BrowserContext, wait: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leaving, "RUNS", 10)
    leaving.test_nothing_is_lost_between_pages(site, context, "link", wait)


@pytest.mark.parametrize("how", ["reload", "tab"])
def test_a_pages_calls_are_made_once(site: Site, page: Tab, how: str) -> None:
    fronts.test_a_pages_calls_are_made_once(site, page, how)


def test_a_page_from_the_back_forward_cache_makes_no_calls_again(
    shop: Shop, page: Tab
) -> None:
    page.add_init_script(
        """addEventListener("pageshow", event => {
            if (event.persisted) fetch("/api/stock");
        })"""
    )
    arrive(page, f"{shop.url}/go?to=/products/1")
    arrive(page, f"{shop.url}/products/2")
    page.evaluate("setTimeout(() => history.back())")
    # Only the page that comes back asks for it.
    assert wait_until(lambda: shop.book[-1].event == "Check Stock")
    shop.settle()
    shop.check()
    assert shop.names == ["Go", "View Product 1", "View Product 2", "Check Stock"]


def test_requests_are_the_same_with_the_script(site: Site, page: Tab) -> None:
    site.pages["/with"] = Page(data=site.data())
    site.pages["/without"] = Page(script="")
    other = site.api.url.replace("127.0.0.1", "localhost")
    answers: list[dict[str, str]] = []

    for path in ["/with", "/without"]:
        page.goto(site.url + path)

        if path == "/with":
            page.wait_for_function("window.mixpanel.__loaded")

        answers.append({})

        for name, code in REQUESTS.items():
            site.seen.clear()
            answer = page.evaluate(OBSERVE, [code, other])
            # Whether a request that is given up still leaves is a race.
            bodies = [seen[:2] for seen in site.seen] if "abort" not in name else []
            answers[-1][name] = f"{answer} {bodies}"

    assert answers[0] == answers[1]


@pytest.mark.parametrize("options", [{"respect_dnt": False}, {"consent": lambda: True}])
def test_the_library_does_not_ask_again_where_the_app_has_decided(
    open_shop: OpenShop, playwright: Playwright, options: dict[str, t.Any]
) -> None:
    shop = open_shop(**options)
    firefox = playwright.firefox.launch(
        channel="moz-firefox",
        executable_path=need("firefox"),
        firefox_user_prefs={"privacy.donottrackheader.enabled": True},
    )

    try:
        page = firefox.new_page()
        arrive(page, shop.url)
        assert page.evaluate("navigator.doNotTrack") == "1"
        page.evaluate(BY_FETCH, 1)
        shop.settle(page)
        shop.check()
        assert {"Land", "Add To Cart 1"} <= set(shop.names)
    finally:
        firefox.close()


@pytest.mark.parametrize("name", ["axios", "axios fetch", "htmx"])
def test_libraries_that_make_requests_need_no_adapter(
    site: Site, page: Tab, name: str
) -> None:
    fronts.test_libraries_that_make_requests_need_no_adapter(site, page, name, True)


def test_it_adds_no_other_global(site: Site, page: Tab) -> None:
    site.pages["/home"] = Page(data=site.data(["once", CALLS]))
    site.pages["/plain"] = Page(script="")
    names = "Object.keys(window).filter(name => !name.startsWith('__pw'))"
    page.goto(site.url + "/plain")
    before = set(page.evaluate(names))
    page.goto(site.url + "/home")
    page.wait_for_function("window.mixpanel.__loaded")
    assert set(page.evaluate(names)) - before == {"Mengpaneel", "mixpanel"}


def test_calls_go_back_when_the_library_is_blocked(site: Site, page: Tab) -> None:
    prepare(site)
    site.pages["/home"].data["library"] = f"{NOBODY}/mixpanel.min.js"
    page.goto(site.url + "/home")
    assert wait_until(lambda: site.handed_back)
    assert site.calls_handed_back() == CALLS
    assert site.handed_back[0]["blocked"]
    assert not announced_after(site, page)


def test_calls_go_back_when_mixpanel_is_blocked(site: Site, page: Tab) -> None:
    prepare(site)
    site.pages["/home"].data["config"] = {"api_host": NOBODY}
    page.goto(site.url + "/home")
    assert wait_until(lambda: len(site.calls_handed_back()) >= len(CALLS))
    assert sorted(map(str, site.calls_handed_back())) == sorted(map(str, CALLS))
    assert all(body["blocked"] for body in site.handed_back)
    assert not announced_after(site, page)
