"""When the library or Mixpanel is blocked, calls go back to the app, each once."""

from __future__ import annotations

import collections.abc as c
import itertools
import random
import typing as t
from collections import Counter

import pytest
from playwright.sync_api import Page as Tab
from script_pages import LIBRARY, TOKEN, Page, ScriptSite, track

from servers import NOBODY_LISTENS
from waiting import wait_until

pytestmark = pytest.mark.browsers(
    "chromium", why="needs CDP to block requests, or the script does the same in each"
)


CALLS = [
    [["identify"], ["7"]],
    track("First", 1),
    [["register"], [{"Seen": "a"}]],
    track("Second", 2),
]
EVENTS = ["First", "Second"]


Block = c.Callable[..., None]


@pytest.fixture
def block(page: Tab) -> Block:
    """Have the browser refuse requests, as an extension does; call it again for
    others."""
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")

    def block(*urls: str) -> None:
        session.send("Network.setBlockedURLs", {"urls": list(urls)})

    return block


#: Whether the server keeps the page's calls until they are acknowledged.
TOKENS = [None, "page.x"]


def prepare(site: ScriptSite, token: str | None = None) -> None:
    data = site.data(
        [None, CALLS[:1]],
        ["once", CALLS[1:]],
        fallback="/calls",
        acks="/acks",
        handover=token,
    )
    site.pages["/home"] = Page(data=data, signature="signed")
    site.calls["cart"] = [track("Add To Cart", 3)]


def kept(page: Tab) -> list[t.Any]:
    """What waits in the browser for the next page."""
    return t.cast(
        "list[t.Any]",
        page.evaluate(
            f"JSON.parse(localStorage.{TOKEN}_mengpaneel_undelivered || '[]')"
        ),
    )


def announced_after(site: ScriptSite, page: Tab) -> bool:
    page.evaluate("fetch('/api/cart').then(r => r.text())")
    return site.capable("cart")


@pytest.mark.browsers(
    "chromium",
    "firefox",
    why="the script does the same of each error",
    in_firefox={"how": ["nobody"], "token": TOKENS[1:]},
)
@pytest.mark.parametrize("token", TOKENS)
@pytest.mark.parametrize("how", ["error", "nobody", "empty", "policy"])
def test_calls_go_back_when_the_library_is_blocked(
    site: ScriptSite,
    page: Tab,
    how: str,
    token: str | None,
    request: pytest.FixtureRequest,
) -> None:
    prepare(site, token)

    if how == "error":
        request.getfixturevalue("block")("*" + LIBRARY)
    elif how == "nobody":
        site.pages["/home"].data["library"] = f"{NOBODY_LISTENS}/mixpanel.min.js"
    elif how == "empty":
        page.route("**" + LIBRARY, lambda route: route.fulfill(body=""))
    else:
        site.pages["/home"].data["library"] = site.api.url + "/library.js"
        site.pages["/home"].headers["Content-Security-Policy"] = "script-src 'self'"

    page.goto(site.url + "/home")
    assert wait_until(lambda: site.handed_back)
    assert site.calls_handed_back() == CALLS
    assert site.handed_back[0]["blocked"]
    assert site.handed_back[0]["signature"] == "signed"
    assert site.handed_back[0].get("handover") == token
    assert not announced_after(site, page)


@pytest.mark.browsers(
    "chromium",
    "firefox",
    why="the script does the same of each error",
    in_firefox={"how": ["nobody"], "token": TOKENS[1:]},
)
@pytest.mark.parametrize("token", TOKENS)
@pytest.mark.parametrize("how", ["error", "nobody"])
def test_calls_go_back_when_mixpanel_is_blocked(
    site: ScriptSite,
    page: Tab,
    how: str,
    token: str | None,
    request: pytest.FixtureRequest,
) -> None:
    prepare(site, token)

    if how == "error":
        request.getfixturevalue("block")(site.api.url + "/*")
    else:
        site.pages["/home"].data["config"] = {"api_host": NOBODY_LISTENS}

    page.goto(site.url + "/home")
    assert wait_until(lambda: len(site.calls_handed_back()) >= len(CALLS))
    assert site.calls_handed_back() == CALLS
    assert all(body["blocked"] for body in site.handed_back)
    assert site.handed_back[0].get("handover") == token
    assert not announced_after(site, page)
    assert site.acknowledged == []


def test_calls_of_a_response_go_back_with_its_signature(
    site: ScriptSite, page: Tab, block: Block
) -> None:
    prepare(site)
    site.tokens["cart"] = "cart.x"
    page.goto(site.url + "/home")
    assert wait_until(lambda: len(site.api.events) == 2)
    block(site.api.url + "/*")
    assert announced_after(site, page)
    assert wait_until(lambda: site.handed_back)
    assert site.calls_handed_back() == site.calls["cart"]
    assert site.handed_back[0]["signature"] == "signed-cart"
    assert site.handed_back[0]["handover"] == "cart.x"


@pytest.mark.browsers(
    "chromium",
    "firefox",
    why="the script does the same of each status",
    in_firefox={"status": [400]},
)
@pytest.mark.parametrize("status", [200, 400, 429, 503])
def test_what_mixpanel_does_not_take_goes_back_without_a_word_of_blocking(
    site: ScriptSite, page: Tab, status: int
) -> None:
    prepare(site, "page.x")
    site.api.status = status
    site.api.answer = '{"status": 0, "error": "no"}'
    page.goto(site.url + "/home")
    assert wait_until(lambda: len(site.calls_handed_back()) >= len(CALLS))
    assert not any(body.get("blocked") for body in site.handed_back)
    assert announced_after(site, page)
    assert site.acknowledged == []


def test_an_answer_that_is_not_mixpanels_counts_as_not_taken(
    site: ScriptSite, page: Tab
) -> None:
    prepare(site)
    site.api.answer = "<html>Please log in to the WiFi</html>"
    page.goto(site.url + "/home")
    assert wait_until(lambda: len(site.calls_handed_back()) >= len(CALLS))


def test_calls_wait_for_the_next_page_when_the_app_is_out_of_reach_too(
    site: ScriptSite, page: Tab, block: Block
) -> None:
    prepare(site)
    site.fallback_status = 503
    block("*" + LIBRARY)
    page.goto(site.url + "/home")
    assert wait_until(lambda: kept(page))
    block()
    page.goto(site.url + "/home")
    page.wait_for_function("window.mixpanel.__loaded")
    assert wait_until(lambda: kept(page))
    site.fallback_status = 204
    page.goto(site.url + "/home")
    # Somebody else may use the browser by now, but the app knows whose they are.
    assert wait_until(lambda: site.handed_back)
    assert site.calls_handed_back() == CALLS
    assert not site.handed_back[0].get("blocked")
    assert kept(page) == []
    assert site.api.events == []


@pytest.mark.browsers("chromium", "firefox")
def test_what_the_server_has_does_not_wait_in_the_browser(
    site: ScriptSite, page: Tab
) -> None:
    prepare(site, "page.x")
    site.pages["/home"].data["library"] = f"{NOBODY_LISTENS}/mixpanel.min.js"
    site.fallback_status = 503
    page.goto(site.url + "/home")
    assert wait_until(lambda: site.statuses) == [503]
    # By then the script knows it, too.
    page.evaluate("fetch('/api/cart').then(r => r.text())")
    assert kept(page) == []


def test_calls_that_wait_are_left_alone_by_pages_of_another_project(
    site: ScriptSite, page: Tab, block: Block
) -> None:
    prepare(site)
    site.pages["/two"] = Page(
        data=site.data(["two", [track("Two")]], token="TWO", fallback="/calls")
    )
    site.fallback_status = 503
    block("*" + LIBRARY)
    page.goto(site.url + "/home")
    assert wait_until(lambda: kept(page))
    block()
    site.fallback_status = 204
    page.goto(site.url + "/two")
    assert wait_until(lambda: site.api.events) == ["Two"]
    assert site.api.named("Two")["token"] == "TWO"
    assert site.handed_back == []
    page.goto(site.url + "/home")
    assert wait_until(lambda: site.handed_back)
    assert site.calls_handed_back() == CALLS


@pytest.mark.parametrize("token", TOKENS)
def test_nothing_is_handed_back_without_the_fallback(
    site: ScriptSite, page: Tab, block: Block, token: str | None
) -> None:
    prepare(site, token)
    del site.pages["/home"].data["fallback"]
    block("*" + LIBRARY)
    page.goto(site.url + "/home", wait_until="load")

    if token is None:
        assert wait_until(lambda: kept(page))
    else:
        assert not announced_after(site, page)
        assert kept(page) == []

    assert site.handed_back == []


def test_no_journey_loses_or_doubles_a_call_when_a_blocker_comes_and_goes(
    site: ScriptSite, page: Tab, block: Block
) -> None:
    numbers = itertools.count()
    chance = random.Random(7)
    due = []

    for journey in range(50):
        block()
        change = chance.randrange(4)

        for step in range(4):
            if step == change:
                both = ["*" + LIBRARY, site.api.url + "/*"]
                block(*chance.choice([both, both[:1], both[1:]]))

            number = next(numbers)
            call = track(f"{journey}-{step}", number)
            due.append(call)
            site.pages["/step"] = Page(
                data=site.data(
                    [call[1][0], [call]],
                    fallback="/calls",
                    acks="/acks",
                    handover=f"{number}.x",
                ),
                signature="signed",
            )
            page.goto(site.url + "/step")

    def found() -> list[tuple[str, str]]:
        """Name and id of each event that arrived, by either way."""
        sent = [
            (record.label, record.message["properties"]["$insert_id"])
            for record in site.api.records
        ]
        return sent + [
            (event, properties["$insert_id"])
            for _, (event, properties) in site.calls_handed_back()
        ]

    page.goto(site.url + "/api/end")
    tokens = {
        (event, properties["$insert_id"]): f"{number}.x"
        for number, (_, (event, properties)) in enumerate(due)
    }

    def is_settled() -> bool:
        """Whether each event arrived, or is one that the server has still."""
        known = {*site.acknowledged, *(body["handover"] for body in site.handed_back)}
        return all(one in found() for one, token in tokens.items() if token in known)

    assert wait_until(is_settled)
    assert site.acknowledged
    assert site.handed_back
    # A request of which the browser said that it failed may have arrived.
    assert max(Counter(found()).values()) <= 2
