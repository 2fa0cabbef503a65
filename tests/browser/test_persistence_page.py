"""A visitor is the one whom the library alone would see, wherever it keeps them."""

from __future__ import annotations

import collections.abc as c
import json
import typing as t
from urllib.parse import quote

import pytest
from flask import abort, request
from journey import (
    BY_FETCH,
    BY_XHR,
    LIBRARY,
    LOADED,
    TOKEN,
    OpenShop,
    Shop,
    arrive,
    cookies,
    doing,
    let_picture_come,
)
from persistences import APP, TRACK, Cell, compare, made, made_alone
from playwright.sync_api import Browser, BrowserContext
from playwright.sync_api import Page as Tab
from script_pages import without_errors
from test_front_ends import SNIPPET

from needs import need
from waiting import wait_until


@pytest.fixture
def contexts(browser: Browser) -> c.Iterator[c.Callable[[], BrowserContext]]:
    """Gives browser profiles without history."""
    opened: list[BrowserContext] = []

    def open_() -> BrowserContext:
        opened.append(browser.new_context())
        return opened[-1]

    yield open_

    for context in opened:
        context.close()


OF_THE_PAGE = {"disable_persistence": True}

#: Of each persistence, loader and chain some.
SAMPLE = [
    Cell("localStorage", "ours"),
    Cell("localStorage", "snippet", "AsyncServerSide", is_told=False),
    Cell("named localStorage", "instance", "CapableClientSide"),
    Cell("disabled", "bundle", "ClientSide"),
    Cell("named", "snippet", "server-only"),
    Cell("named", "bundle", "ServerSide", is_told=False),
    Cell("cookie", "instance", "no Delayed"),
    Cell("one host", "ours", "Delayed", merge="original"),
]


@pytest.mark.browsers(
    "chromium",
    "firefox",
    why="persistences.py makes the whole table, in both",
    in_firefox={"cell": SAMPLE[:2]},
)
@pytest.mark.parametrize("cell", SAMPLE, ids=lambda cell: ", ".join(map(str, cell)))
def test_a_journey_is_what_the_library_alone_would_make_of_it(
    open_shop: OpenShop, contexts: c.Callable[[], BrowserContext], cell: Cell
) -> None:
    alone = made_alone(open_shop, contexts, cell.persistence, cell.merge)
    assert compare(made(open_shop, contexts, cell), alone, cell) == {}


@pytest.fixture
def without_cookies(browser: Browser) -> c.Iterator[Tab]:
    """A tab of a browser that takes no cookies, and has no storage."""
    browser = browser.browser_type.launch(
        channel="moz-firefox",
        executable_path=need("firefox"),
        firefox_user_prefs={"network.cookie.cookieBehavior": 2},
    )

    with without_errors(browser.new_page()) as page:
        yield page

    browser.close()


@pytest.mark.browsers("firefox", why="Playwright can't tell Chromium to take none")
@pytest.mark.parametrize("persistence", ["cookie", "localStorage"])
def test_what_one_page_does_is_one_persons_where_there_are_no_cookies(
    open_shop: OpenShop, without_cookies: Tab, persistence: str
) -> None:
    shop = open_shop(client_config={"persistence": persistence})
    page = without_cookies

    for number in (1, 2):
        page.goto(f"{shop.url}/products/{number}")
        page.wait_for_function(LOADED)
        assert page.evaluate("document.cookie = 'any=1', document.cookie") == ""
        page.evaluate(BY_FETCH, number)
        page.evaluate(TRACK, {APP: -number})
        page.evaluate(BY_XHR, number)
        shop.settle(page)
        wait_until(lambda number=number: -number in shop.people())

    people = shop.people()
    book = [*((one.number, one.url) for one in shop.book)]
    found = {
        number: {people[one] for one, url in book if url.endswith(f"/{number}")}
        for number in (1, 2)
    }
    assert found == {1: {people[-1]}, 2: {people[-2]}}
    assert people[-1] != people[-2]


@pytest.mark.browsers("firefox", why="Playwright can't tell Chromium to take none")
@pytest.mark.parametrize("persistence", ["cookie", "localStorage"])
def test_what_a_page_says_at_once_is_its_persons_where_there_are_no_cookies(
    open_shop: OpenShop, without_cookies: Tab, persistence: str
) -> None:
    shop = open_shop(client_config={"persistence": persistence})
    body = quote("<script>mixpanel.track('Own', {Number: -1})</script>")
    page = without_cookies
    page.goto(shop.url + doing("page", ["track", "View"]) + f"&body={body}")
    page.wait_for_function(LOADED)
    wait_until(lambda: len(shop.arrived) == 2)
    assert len({event["$device_id"] for event in shop.arrived}) == 1


SHOWN = "mp_TOKEN_mengpaneel"


@pytest.mark.parametrize("options", [{"persistence": "localStorage"}, OF_THE_PAGE])
def test_what_is_shown_to_the_server_lives_as_long_as_what_the_library_keeps(
    open_shop: OpenShop, page: Tab, options: dict[str, t.Any]
) -> None:
    shop = open_shop(client_config=options)
    arrive(page, shop.url)
    (life,) = [
        cookie["expires"]
        for cookie in page.context.cookies()
        if cookie["name"] == SHOWN
    ]
    assert (life == -1) is (options is OF_THE_PAGE)

    page.evaluate("mixpanel.opt_out_tracking()")
    assert SHOWN not in cookies(page.context)
    page.evaluate("mixpanel.opt_in_tracking()")
    assert SHOWN in cookies(page.context)


def test_the_server_knows_of_local_storage_the_clocks_and_what_it_has_registered(
    open_shop: OpenShop, page: Tab
) -> None:
    shop = open_shop(client_config={"persistence": "localStorage"})
    arrive(page, shop.url)
    page.goto(shop.url + doing("picture", ["register", {"Plan": "free", "Left": 3}]))
    page.goto(shop.url + doing("picture", ["track", "Register"]))
    arrive(page, shop.url)
    page.evaluate("mixpanel.register({Plan: 'pro', Theme: 'dark'})")
    page.evaluate("mixpanel.time_event('Read')")
    page.evaluate("fetch('/api/stock').then(answer => answer.text())")
    page.goto(shop.url + doing("picture", ["track", "Read"]))
    arrive(page, shop.url)
    shop.settle(page)
    read = shop.event("Read")
    assert (read["Plan"], read["Left"]) == ("pro", 3)
    assert read["$duration"] > 0
    # It may be long, and each request would carry it; the page's own events have it.
    assert "Theme" not in read
    assert shop.event("Check Stock")["Theme"] == "dark"


def open_in_storage(open_shop: OpenShop, *, is_told: bool) -> Shop:
    """Open a shop whose library keeps visitors in ``localStorage``.

    :param is_told: whether the app knows that; else the page's own snippet says it.
    """
    options = {"persistence": "localStorage"}

    if is_told:
        return open_shop(client_config=options)

    shop = open_shop(library_url=None)
    known = shop.app.extensions["mengpaneel"].config.init_options
    shop.head = SNIPPET.format(
        library=LIBRARY, token=TOKEN, options=json.dumps({**known, **options})
    )
    return shop


#: Asks for a picture, and waits until it is there.
SHOW = """path => new Promise(done => {
    const image = new Image();
    image.onload = done;
    image.src = path;
})"""
IDENTIFY = "mixpanel.push(function () { this.identify('ann') })"


@pytest.mark.browsers("chromium", "firefox", why="each keeps cookies in its own way")
def test_a_picture_makes_nobody_new_of_whom_local_storage_has(
    open_shop: OpenShop, page: Tab
) -> None:
    shop = open_in_storage(open_shop, is_told=True)
    page.goto(f"{shop.url}/npm/jquery/package.json")
    kept = {"distinct_id": "$device:before", "$device_id": "before"}
    page.evaluate("kept => localStorage.mp_TOKEN_mixpanel = JSON.stringify(kept)", kept)
    assert let_picture_come(shop, page, "picture last", "") == "before"
    page.wait_for_timeout(200)
    assert page.evaluate("mixpanel.get_property('$device_id')") == "before"
    page.evaluate(SHOW, doing("picture", ["track", "After"]))
    wait_until(lambda: "After" in shop.names)
    assert shop.event("After")["$device_id"] == "before"


@pytest.mark.browsers("chromium", "firefox", why="each keeps cookies in its own way")
@pytest.mark.parametrize("is_told", [True, False])
def test_the_server_sees_whom_the_page_identifies_before_a_picture_comes(
    open_shop: OpenShop, page: Tab, is_told: bool
) -> None:
    shop = open_in_storage(open_shop, is_told=is_told)
    let_picture_come(shop, page, "picture last", IDENTIFY)
    page.wait_for_timeout(200)
    page.evaluate(SHOW, doing("picture", ["track", "After"]))
    wait_until(lambda: "After" in shop.names)
    assert shop.event("After").get("$user_id") == "ann"
    device = page.evaluate("mixpanel.get_property('$device_id')")
    assert {event["$device_id"] for event in shop.arrived} == {device}


def test_the_server_sees_whom_the_page_identifies_before_the_second_script_is_there(
    open_shop: OpenShop, page: Tab
) -> None:
    shop = open_in_storage(open_shop, is_told=False)
    shop.gates["memory"].clear()
    let_picture_come(shop, page, "picture last", IDENTIFY, is_heard=False)
    shop.gates["memory"].set()
    page.wait_for_function("!!Mengpaneel.share")
    page.wait_for_timeout(200)
    page.evaluate(SHOW, doing("picture", ["track", "After"]))
    wait_until(lambda: "After" in shop.names)
    assert shop.event("After").get("$user_id") == "ann"


@pytest.mark.browsers("chromium", "firefox", why="each keeps cookies in its own way")
@pytest.mark.parametrize("is_told", [True, False])
def test_nobody_is_again_whom_a_picture_has_signed_in(
    open_shop: OpenShop, page: Tab, is_told: bool
) -> None:
    shop = open_in_storage(open_shop, is_told=is_told)
    calls = ["identify", "bob"], ["register", {"Plan": "pro"}], ["track", "Sign In"]
    let_picture_come(shop, page, "picture last", "", doing("picture", *calls))
    page.wait_for_function("mixpanel.get_property('$user_id') === 'bob'")
    page.evaluate("mixpanel.reset()")
    device = page.evaluate("mixpanel.get_property('$device_id')")
    arrive(page, f"{shop.url}/quiet")
    names = "['$device_id', '$user_id', 'Plan']"
    assert page.evaluate(
        f"{names}.map(name => mixpanel.get_property(name) ?? null)"
    ) == [device, None, None]


@pytest.mark.parametrize("kept", ["localStorage", "cookie"])
def test_calls_are_made_though_the_second_script_cannot_be_had(
    open_shop: OpenShop, page: Tab, kept: str
) -> None:
    def refuse() -> None:
        if request.path.endswith("/memory.js"):
            abort(404)

    shop = open_shop(
        library_url=None,
        # The server doesn't send them within the time of this test.
        ack_timeout=3_600,
        prepare=lambda app: app.before_request(refuse),
    )
    options = shop.app.extensions["mengpaneel"].config.init_options
    shop.head = SNIPPET.format(
        library=LIBRARY,
        token=TOKEN,
        options=json.dumps({**options, "persistence": kept}),
    )
    arrive(page, f"{shop.url}/products/1")
    wait_until(lambda: shop.arrived)
    shop.check()
