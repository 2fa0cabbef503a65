"""Each event with whom it happened to, once, whatever browsers do with pages."""

from __future__ import annotations

import collections.abc as c
import json
import threading
import time
import typing as t

import pytest
from flask import request
from journey import (
    BY_FETCH,
    COMING_MEANWHILE,
    LOADED,
    SERVER_ONLY,
    OpenShop,
    Shop,
    arrive,
    cookies,
    doing,
    let_picture_come,
)
from persistences import LOADERS, READY
from playwright.sync_api import Browser, BrowserContext
from playwright.sync_api import Page as Tab
from script_pages import without_errors

from needs import need
from waiting import wait_until

pytestmark = pytest.mark.browsers(
    "chromium", why="the same Python decides; the browser adds nothing"
)


@pytest.fixture
def shop(open_shop: OpenShop) -> Shop:
    return open_shop()


#: What a page does that comes back as it was left, of which Playwright knows nothing
#: in Firefox.
COME_BACK = """
addEventListener("pageshow", async event => {
    if (event.persisted && window.mark === 1) {
        await fetch("/api/stock");
        await fetch("/api/fence");
    }
})
"""


@pytest.fixture
def remembering(browser: Browser) -> c.Iterator[Tab]:
    """A tab of a browser that keeps left pages as they are, as Firefox always does."""
    name = browser.browser_type.name

    if name == "chromium":
        browser = browser.browser_type.launch(
            executable_path=need(name),
            args=["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"],
            ignore_default_args=["--disable-back-forward-cache"],
        )

    context = browser.new_context()

    with without_errors(context.new_page()) as page:
        page.add_init_script(COME_BACK)
        yield page

    context.close()

    if name == "chromium":
        browser.close()


def come_back(shop: Shop, tab: Tab) -> None:
    """Go back to the page that is marked, and wait for what it asks for."""
    tab.evaluate("setTimeout(() => history.back())")
    assert wait_until(lambda: shop.book[-1].event == "Fence")
    shop.settle()


def sign_in(tab: Tab, user: str) -> None:
    tab.evaluate(
        "user => fetch(`/api/sign-in?user=${user}`, {method: 'POST'})"
        ".then(answer => answer.json())",
        user,
    )


def persons(shop: Shop) -> dict[str, set[str]]:
    """Each event's name -> whose events of that name are."""
    people = shop.people()
    found: dict[str, set[str]] = {}

    for entry in shop.book:
        found.setdefault(entry.event, set()).add(people[entry.number])

    return found


def leave_waiting(shop: Shop, context: BrowserContext) -> str:
    """Let the calls of a redirect wait in the browser's session, as if the redirect
    had not been followed yet; gives that session."""
    sent = context.request.get(
        f"{shop.url}/go?to=/quiet",
        max_redirects=0,
        headers={"Sec-Fetch-Dest": "document", "Sec-Fetch-Mode": "navigate"},
    )
    assert sent.status == 302
    return cookies(context)["session"]


# -- who


@pytest.mark.parametrize("options", [{}, {"strategies": SERVER_ONLY}])
def test_signing_out_over_a_redirect_ends_the_visitor_there(
    open_shop: OpenShop, page: Tab, options: dict[str, t.Any]
) -> None:
    shop = open_shop(**options)
    page.goto(f"{shop.url}/products/1")
    sign_in(page, "ann")
    page.goto(f"{shop.url}/products/2")
    page.click("text=Sign out")
    page.wait_for_url(f"{shop.url}/")
    page.wait_for_load_state("load")
    page.goto(f"{shop.url}/products/3")
    shop.settle(page)
    shop.check()
    people = persons(shop)
    assert people["View Product 1"] == people["Sign In"] == {"ann"}
    assert people["View Product 2"] == people["Sign Out"] == {"ann"}
    assert people["Land"] == people["View Product 3"] != {"ann"}
    assert len(people["Land"]) == 1


@pytest.mark.parametrize("options", [{}, {"strategies": SERVER_ONLY}])
def test_who_signs_in_after_a_sign_out_gets_nothing_of_the_one_before(
    open_shop: OpenShop, page: Tab, options: dict[str, t.Any]
) -> None:
    shop = open_shop(**options)
    page.goto(f"{shop.url}/products/1")
    sign_in(page, "ann")
    page.click("text=Sign out")
    page.wait_for_url(f"{shop.url}/")
    page.wait_for_load_state("load")
    sign_in(page, "bob")
    page.goto(f"{shop.url}/products/2")
    shop.settle(page)
    shop.check()
    people = persons(shop)
    assert people["View Product 1"] == people["Sign Out"] == {"ann"}
    assert people["Land"] == people["View Product 2"] == {"bob"}


@pytest.mark.parametrize("options", [{}, {"strategies": SERVER_ONLY}])
def test_switching_the_account_over_a_redirect_moves_no_event(
    open_shop: OpenShop, page: Tab, options: dict[str, t.Any]
) -> None:
    shop = open_shop(**options)
    page.goto(f"{shop.url}/products/1")
    sign_in(page, "ann")
    page.goto(f"{shop.url}/switch/bob?to=/switch/eve")
    shop.settle(page)
    shop.check()
    assert shop.names[:5] == [
        "View Product 1",
        "Sign In",
        "Leave Account",
        "Leave Account",
        "Land",
    ]
    people = shop.people()
    assert [people[number] for number in range(5)] == [
        "ann",
        "ann",
        "ann",
        "bob",
        "eve",
    ]


def test_impersonation_and_back_moves_no_event(shop: Shop, page: Tab) -> None:
    arrive(page, f"{shop.url}/products/1")
    sign_in(page, "root")
    page.goto(f"{shop.url}/switch/ann?to=/products/2")
    page.wait_for_function(LOADED)
    page.goto(f"{shop.url}/switch/root?to=/products/3")
    page.wait_for_function(LOADED)
    shop.settle(page)
    shop.check()
    people = shop.people()
    assert [people[number] for number in range(6)] == [
        "root",
        "root",
        "root",
        "ann",
        "ann",
        "root",
    ]


def test_signing_in_by_fetch_identifies_the_browser_at_once(
    shop: Shop, page: Tab
) -> None:
    arrive(page, shop.url)
    sign_in(page, "ann")
    page.wait_for_function("window.mixpanel.get_distinct_id() === 'ann'")
    page.evaluate(
        "mixpanel.track('Of The Page', {Number: -1}, {send_immediately: true})"
    )
    shop.settle(page)
    assert wait_until(lambda: -1 in shop.people()) and shop.people()[-1] == "ann"


@pytest.mark.browsers("chromium", "firefox", why="each keeps cookies in its own way")
@pytest.mark.parametrize("order", ["library last", "at once", "picture last"])
def test_a_picture_on_the_first_page_is_of_the_pages_visitor(
    shop: Shop, page: Tab, order: str
) -> None:
    later = shop.gates["library" if order == "library last" else "pixel"]
    later.clear()

    if order == "at once":
        page.add_init_script(COMING_MEANWHILE)

    page.goto(f"{shop.url}/quiet?body=<img src=/pixel.gif>", wait_until="commit")

    if order == "library last":
        page.wait_for_function("document.images[0]?.complete")
    else:
        page.wait_for_function(LOADED)

    # The library opens the gate itself, where they come at once.
    assert later.is_set() == (order == "at once")
    later.set()
    page.wait_for_function(f"({LOADED})() && document.images[0].complete")
    wait_until(lambda: shop.arrived)
    device = shop.event("See Picture")["$device_id"]
    # It is the page's before the page is left.
    page.wait_for_function(f"mixpanel.get_property('$device_id') === '{device}'")
    arrive(page, f"{shop.url}/products/1")
    sign_in(page, "ann")
    shop.settle(page)
    shop.check()
    assert persons(shop)["See Picture"] == {"ann"}


@pytest.mark.browsers("chromium", "firefox", why="each keeps cookies in its own way")
@pytest.mark.parametrize("order", ["at once", "picture last"])
def test_a_picture_on_the_first_page_undoes_nothing_that_the_page_has_said(
    shop: Shop, page: Tab, order: str
) -> None:
    code = "mixpanel.register({Theme: 'dark'});mixpanel.identify('ann')"
    let_picture_come(shop, page, order, code)
    device = shop.event("See Picture")["$device_id"]
    page.wait_for_function(f"mixpanel.get_property('$device_id') === '{device}'")
    assert page.evaluate("mixpanel.get_property('Theme')") == "dark"
    assert page.evaluate("mixpanel.get_distinct_id()") == "ann"
    page.evaluate(
        "mixpanel.track('Of The Page', {Number: -1}, {send_immediately: true})"
    )
    wait_until(lambda: -1 in shop.people())
    assert shop.people() == {0: "ann", -1: "ann"}


@pytest.mark.browsers("chromium", "firefox", why="each keeps cookies in its own way")
@pytest.mark.parametrize("order", ["at once", "picture last"])
def test_a_picture_on_the_first_page_brings_no_device_back_after_an_opt_out(
    shop: Shop, page: Tab, order: str
) -> None:
    code = "mixpanel.opt_out_tracking()"
    device = let_picture_come(shop, page, order, code)
    wait_until(lambda: set(cookies(page.context)) == {"__mp_opt_in_out_TOKEN"})
    page.wait_for_timeout(200)
    assert set(cookies(page.context)) == {"__mp_opt_in_out_TOKEN"}
    assert page.evaluate("mixpanel.get_property('$device_id')") == device


@pytest.mark.browsers("chromium", "firefox", why="each keeps cookies in its own way")
@pytest.mark.parametrize("order", ["at once", "picture last"])
def test_a_sign_in_on_the_first_page_identifies_the_browser(
    shop: Shop, page: Tab, order: str
) -> None:
    picture = doing("picture", ["identify", "bob"], ["track", "Sign In"])
    let_picture_come(shop, page, order, "", picture)
    device = shop.event("Sign In")["$device_id"]
    page.wait_for_function(f"mixpanel.get_property('$device_id') === '{device}'")
    assert page.evaluate("mixpanel.get_property('$user_id')") == "bob"
    assert page.evaluate("mixpanel.get_distinct_id()") == "bob"


@pytest.mark.browsers("chromium", "firefox", why="each keeps cookies in its own way")
def test_a_picture_on_the_first_page_stops_no_clock(shop: Shop, page: Tab) -> None:
    picture = doing("picture", ["time_event", "Check Out"], ["track", "See Picture"])
    code = "mixpanel.time_event('Read')"
    let_picture_come(shop, page, "picture last", code, picture)
    device = shop.event("See Picture")["$device_id"]
    page.wait_for_function(f"mixpanel.get_property('$device_id') === '{device}'")
    timers = page.evaluate("mixpanel.get_property('__timers')")
    assert set(timers) == {"Check Out", "Read"}


#: Lets the picture come while the page is busy, so that the browser tells of it later
#: than of what the page says then.
COMING_WHILE_BUSY = """() => {
    mixpanel.register({Theme: "light", Count: 1});
    SAYS;
    const before = document.cookie;
    const request = new XMLHttpRequest();
    request.open("GET", "/open/pixel", false);
    request.send();
    const end = Date.now() + 2_000;
    while (document.cookie === before && Date.now() < end);
    mixpanel.register({Theme: "dark"});
}"""


@pytest.mark.browsers("chromium", "firefox", why="each keeps cookies in its own way")
@pytest.mark.parametrize("says", ["", "mixpanel.identify('ann')"])
def test_a_picture_that_comes_while_the_page_is_busy_undoes_nothing(
    shop: Shop, page: Tab, says: str
) -> None:
    shop.gates["pixel"].clear()
    page.goto(f"{shop.url}/quiet?body=<img src=/pixel.gif>", wait_until="commit")
    page.wait_for_function(LOADED)
    page.evaluate(COMING_WHILE_BUSY.replace("SAYS", says))
    wait_until(lambda: shop.arrived)
    device = shop.event("See Picture")["$device_id"]
    page.wait_for_function(f"mixpanel.get_property('$device_id') === '{device}'")
    page.wait_for_timeout(200)
    names = "['$device_id', 'distinct_id', 'Theme', 'Count']"
    assert page.evaluate(f"{names}.map(name => mixpanel.get_property(name))") == [
        device,
        "ann" if says else f"$device:{device}",
        "dark",
        1,
    ]


@pytest.mark.browsers("chromium", "firefox", why="each keeps cookies in its own way")
@pytest.mark.parametrize("choice", ["snippet", "bundle"])
def test_a_picture_undoes_nothing_that_was_said_before_the_second_script_was_there(
    open_shop: OpenShop, page: Tab, choice: str
) -> None:
    shop = open_shop(library_url=None)
    options = shop.app.extensions["mengpaneel"].config.init_options
    shop.head = LOADERS[choice].replace("OPTIONS", json.dumps(options))
    shop.gates["memory"].clear()
    shop.gates["pixel"].clear()
    page.goto(f"{shop.url}/quiet?body=<img src=/pixel.gif>", wait_until="commit")
    page.wait_for_function(READY)
    page.evaluate("window.library ||= mixpanel")
    page.evaluate("library.register({Theme: 'dark'}), library.identify('ann')")
    shop.gates["memory"].set()
    page.wait_for_function("!!Mengpaneel.share")
    page.wait_for_timeout(200)
    shop.gates["pixel"].set()
    page.wait_for_function("document.images[0].complete")
    wait_until(lambda: shop.arrived)
    device = shop.event("See Picture")["$device_id"]
    page.wait_for_function(f"library.get_property('$device_id') === '{device}'")
    names = "['distinct_id', '$user_id', 'Theme']"
    assert page.evaluate(f"{names}.map(name => library.get_property(name))") == [
        "ann",
        "ann",
        "dark",
    ]


@pytest.mark.browsers("chromium", "firefox", why="each keeps cookies in its own way")
def test_a_picture_in_one_of_two_tabs_is_of_the_visitor_of_both(
    shop: Shop, page: Tab, context: BrowserContext
) -> None:
    other = context.new_page()
    shop.gates["library"].clear()
    shop.gates["pixel"].clear()
    page.goto(f"{shop.url}/quiet?body=<img src=/pixel.gif>", wait_until="commit")
    other.goto(f"{shop.url}/quiet", wait_until="commit")

    for tab in (page, other):
        tab.wait_for_function("!!window.Mengpaneel?.share")

    shop.gates["library"].set()

    for tab in (page, other):
        tab.wait_for_function(LOADED)

    other.evaluate("mixpanel.register({Theme: 'dark'})")
    shop.gates["pixel"].set()
    page.wait_for_function("document.images[0].complete")
    wait_until(lambda: shop.arrived)
    device = shop.event("See Picture")["$device_id"]
    names = "['$device_id', 'distinct_id', 'Theme']"

    for tab in (page, other):
        tab.wait_for_function(f"mixpanel.get_property('$device_id') === '{device}'")
        tab.wait_for_timeout(200)
        assert tab.evaluate(f"{names}.map(name => mixpanel.get_property(name))") == [
            device,
            f"$device:{device}",
            "dark",
        ]


#: Lets the page write its cookie twice, and counts what the browser tells of it.
WRITE_TWICE = """
window.writes = 0;
cookieStore.addEventListener("change", () => writes++);
mixpanel.register({Count: 1});
mixpanel.register({Count: 2});
"""


@pytest.mark.browsers("chromium", "firefox", why="each keeps cookies in its own way")
def test_what_the_library_writes_itself_it_is_not_told(shop: Shop, page: Tab) -> None:
    let_picture_come(shop, page, "picture last", "")
    device = shop.event("See Picture")["$device_id"]
    page.wait_for_function(f"mixpanel.get_property('$device_id') === '{device}'")
    page.wait_for_timeout(200)
    page.evaluate(f"() => {{{WRITE_TWICE}}}")
    page.wait_for_function("writes >= 2")
    page.wait_for_timeout(200)
    assert page.evaluate("[writes, mixpanel.get_property('Count')]") == [2, 2]


def test_the_library_goes_on_with_the_device_that_the_server_began(
    shop: Shop, page: Tab, context: BrowserContext
) -> None:
    page.goto(f"{shop.url}/old")
    wait_until(lambda: shop.arrived)
    device = shop.event("See Picture")["$device_id"]
    arrive(page, shop.url)
    assert page.evaluate("mixpanel.get_property('$device_id')") == device
    shop.settle(page)
    shop.check()
    assert {event["$device_id"] for event in shop.arrived} == {device}
    kept = [
        cookie
        for cookie in context.cookies()
        if cookie.get("name") == "mp_TOKEN_mixpanel"
    ]
    assert [cookie.get("httpOnly") for cookie in kept] == [False]


@pytest.mark.parametrize(
    "cookie",
    ["%7Bgarbage", "null", "%7B%22distinct_id%22%3A%7B%7D%7D", "%22%F0%9F%8E%89%22"],
)
def test_a_garbage_cookie_harms_nobody(
    shop: Shop, page: Tab, context: BrowserContext, cookie: str
) -> None:
    context.add_cookies(
        [{"name": "mp_TOKEN_mixpanel", "value": cookie, "url": shop.url}]
    )
    page.goto(f"{shop.url}/old")
    arrive(page, shop.url)
    sign_in(page, "ann")
    shop.settle(page)
    shop.check()
    assert persons(shop)["Land"] == {"ann"}


@pytest.mark.parametrize("options", [{}, {"strategies": SERVER_ONLY}])
def test_signing_out_by_fetch_ends_the_visitor_at_once(
    open_shop: OpenShop, page: Tab, options: dict[str, t.Any]
) -> None:
    shop = open_shop(**options)
    page.goto(shop.url)
    sign_in(page, "ann")
    page.evaluate(
        "fetch('/api/sign-out', {method: 'POST'}).then(answer => answer.text())"
    )
    page.evaluate("fetch('/api/stock').then(answer => answer.text())")
    page.goto(f"{shop.url}/products/1")
    shop.settle(page)
    shop.check()
    people = persons(shop)
    assert people["Land"] == people["Sign In"] == people["Sign Out"] == {"ann"}
    assert people["Check Stock"] == people["View Product 1"] != {"ann"}


def test_signing_out_ends_a_visitor_of_whom_the_server_sees_no_cookie(
    open_shop: OpenShop, page: Tab
) -> None:
    shop = open_shop(client_config={"persistence": "localStorage"})
    arrive(page, shop.url)
    sign_in(page, "ann")
    page.goto(f"{shop.url}/go?to=/products/1")
    page.wait_for_function(LOADED)
    page.click("text=Sign out")
    page.wait_for_url(f"{shop.url}/")
    page.wait_for_function(LOADED)
    page.goto(f"{shop.url}/products/2")
    page.wait_for_function(LOADED)
    shop.settle(page)
    shop.check()
    people = [person for _, person in sorted(shop.people().items())]
    assert people[:5] == ["ann"] * 5
    assert people[5:] == [people[5]] * 3 != ["ann"] * 3
    assert "mp_TOKEN_mixpanel" not in cookies(page.context)


def test_a_tab_left_open_over_a_sign_out_tracks_nothing_for_the_one_before(
    shop: Shop, page: Tab, context: BrowserContext
) -> None:
    arrive(page, f"{shop.url}/products/1")
    sign_in(page, "ann")
    other = context.new_page()
    arrive(other, f"{shop.url}/products/2")
    page.click("text=Sign out")
    page.wait_for_url(f"{shop.url}/")
    page.wait_for_function(LOADED)
    other.evaluate("fetch('/api/stock').then(answer => answer.text())")
    shop.settle(page)
    shop.check()
    people = persons(shop)
    assert people["View Product 2"] == people["Sign Out"] == {"ann"}
    assert people["Check Stock"] == people["Land"] != {"ann"}


def test_a_tab_left_open_over_a_switch_of_accounts_tracks_for_the_new_one(
    shop: Shop, page: Tab, context: BrowserContext
) -> None:
    arrive(page, f"{shop.url}/products/1")
    sign_in(page, "ann")
    other = context.new_page()
    arrive(other, f"{shop.url}/products/2")
    page.goto(f"{shop.url}/switch/bob")
    page.wait_for_function(LOADED)
    page.wait_for_function("mixpanel.get_distinct_id() === 'bob'")
    other.evaluate(BY_FETCH, 1)
    shop.settle(page)
    shop.check()
    assert persons(shop)["Add To Cart 1"] == {"bob"}


@pytest.mark.browsers("chromium", "firefox")
def test_a_page_restored_after_a_sign_out_tracks_nothing_for_the_one_before(
    shop: Shop, remembering: Tab
) -> None:
    page = remembering
    arrive(page, f"{shop.url}/products/1")
    sign_in(page, "ann")
    page.evaluate("window.mark = 1")
    page.evaluate(
        """() => {
            const form = document.querySelector("form[action='/sign-out']");
            form.submit();
        }"""
    )
    page.wait_for_url(f"{shop.url}/")
    page.wait_for_function(LOADED)
    come_back(shop, page)
    shop.check()
    people = persons(shop)
    assert people["Sign Out"] == {"ann"}
    assert people["Check Stock"] == people["Land"] != {"ann"}


# -- what is kept with the visitor


@pytest.mark.parametrize("stop", ["page", "picture"])
@pytest.mark.parametrize("start", ["page", "picture"])
def test_an_event_is_timed_across_requests_and_ways(
    shop: Shop, page: Tab, start: str, stop: str
) -> None:
    page.goto(f"{shop.url}/old")
    began = time.time()
    page.goto(shop.url + doing(start, ["time_event", "Check Out"]))
    started = time.time()
    wait_until(lambda: "__timers" in cookies(page.context)["mp_TOKEN_mixpanel"])
    page.goto(f"{shop.url}/old")
    page.goto(shop.url + doing(stop, ["track", "Check Out"]))
    wait_until(lambda: "Check Out" in shop.names)
    # The library's own clock stops when the page makes the call.
    longest = time.time() - began
    checked_out = shop.event("Check Out")
    shortest = checked_out["time"] - started
    assert shortest - 0.05 <= checked_out["$duration"] <= longest + 0.05


@pytest.mark.parametrize("options", [{}, {"strategies": SERVER_ONLY}])
@pytest.mark.parametrize("track", ["page", "picture"])
@pytest.mark.parametrize("register", ["page", "picture"])
def test_super_properties_hold_on_every_way(
    open_shop: OpenShop,
    page: Tab,
    register: str,
    track: str,
    options: dict[str, t.Any],
) -> None:
    shop = open_shop(**options)
    page.goto(f"{shop.url}/old")
    registered = [
        ["register", {"Plan": "pro", "Gone": 1}],
        ["register_once", {"Plan": "free", "Source": "mail"}],
        ["unregister", "Gone"],
        ["set_group", "Company", "acme"],
        ["track", "Registered"],
    ]
    page.goto(shop.url + doing(register, *registered))
    wait_until(lambda: "Registered" in shop.names)
    page.goto(f"{shop.url}/old")
    page.goto(shop.url + doing(track, ["track", "After"]))
    wait_until(lambda: "After" in shop.names)
    after = shop.event("After")
    names = ("Plan", "Source", "Gone", "Company")
    assert [after.get(name) for name in names] == ["pro", "mail", None, ["acme"]]


# -- once


def answer_together(shop: Shop, endpoint: str) -> None:
    """Let requests wait for each other by twos: both leave with the same session,
    before either answer comes."""
    gate = threading.Barrier(2, timeout=60)
    view = shop.app.view_functions[endpoint]

    def together() -> t.Any:
        gate.wait()
        return view()

    shop.app.view_functions[endpoint] = together


@pytest.mark.browsers("chromium", "firefox")
def test_two_tabs_that_race_for_delayed_calls_make_them_once(
    shop: Shop, page: Tab, context: BrowserContext
) -> None:
    arrive(page, shop.url)
    sign_in(page, "ann")
    other = context.new_page()
    arrive(other, f"{shop.url}/quiet")
    leave_waiting(shop, context)
    answer_together(shop, "quiet")
    page.evaluate("setTimeout(() => location.href = '/quiet?one')")
    other.evaluate("setTimeout(() => location.href = '/quiet?two')")
    page.wait_for_url("**/quiet?one")
    other.wait_for_url("**/quiet?two")
    page.wait_for_function(LOADED)
    other.wait_for_function(LOADED)
    shop.settle(page, other)
    shop.check()
    assert shop.names.count("Go") == 1


def test_two_fetches_that_race_for_delayed_calls_make_them_once(
    shop: Shop, page: Tab, context: BrowserContext
) -> None:
    arrive(page, f"{shop.url}/quiet")
    sign_in(page, "ann")
    leave_waiting(shop, context)
    answer_together(shop, "stock")
    page.evaluate("Promise.all([fetch('/api/stock?1'), fetch('/api/stock?2')])")
    # What no header may carry, as nobody could tell its copies apart, a page can.
    arrive(page, f"{shop.url}/quiet")
    shop.settle(page)
    shop.check()
    assert shop.names.count("Go") == 1


@pytest.mark.parametrize("by", ["page", "fetch"])
def test_a_replayed_session_makes_no_calls_again(
    shop: Shop, page: Tab, context: BrowserContext, by: str
) -> None:
    arrive(page, f"{shop.url}/quiet")
    sign_in(page, "ann")
    delayed = leave_waiting(shop, context)

    for _ in range(2):
        # A slow answer to an earlier request sets the session that it knew.
        context.add_cookies([{"name": "session", "value": delayed, "url": shop.url}])

        if by == "page":
            arrive(page, f"{shop.url}/quiet")
        else:
            page.evaluate("fetch('/api/stock').then(answer => answer.text())")

    arrive(page, f"{shop.url}/quiet")
    shop.settle(page)
    shop.check()
    assert shop.names.count("Go") == 1


def test_back_and_forward_make_calls_once(shop: Shop, page: Tab) -> None:
    arrive(page, f"{shop.url}/go?to=/cached")
    page.goto(f"{shop.url}/products/2")
    page.evaluate("location.href = '/cached'")
    page.wait_for_url("**/cached")
    page.wait_for_function(LOADED)
    page.goto(f"{shop.url}/products/3")
    page.wait_for_function(LOADED)
    seen = len(shop.book)
    page.go_back(wait_until="load")
    page.wait_for_function(LOADED)
    # The page that has calls came from the browser's cache.
    assert len(shop.book) == seen
    page.go_back(wait_until="load")
    page.go_back(wait_until="load")
    page.go_forward(wait_until="load")
    page.wait_for_function(LOADED)
    shop.settle(page)
    shop.check()
    assert shop.names.count("Go") == 1


@pytest.mark.browsers("chromium", "firefox")
def test_a_page_from_the_back_forward_cache_makes_no_calls_again(
    shop: Shop, remembering: Tab
) -> None:
    page = remembering
    arrive(page, f"{shop.url}/products/1")
    sign_in(page, "ann")
    page.goto(f"{shop.url}/go?to=/products/2")
    page.wait_for_function(LOADED)
    page.evaluate("window.mark = 1")
    page.goto(f"{shop.url}/products/3")
    page.wait_for_function(LOADED)
    come_back(shop, page)
    shop.check()
    assert shop.names == [
        "View Product 1",
        "Sign In",
        "Go",
        "View Product 2",
        "View Product 3",
        "Check Stock",
        "Fence",
    ]


def test_reloading_makes_delayed_calls_once(shop: Shop, page: Tab) -> None:
    arrive(page, f"{shop.url}/products/1")
    sign_in(page, "ann")
    page.goto(f"{shop.url}/go?to=/products/2")
    page.reload()
    page.wait_for_function(LOADED)
    page.reload()
    page.wait_for_function(LOADED)
    shop.settle(page)
    shop.check()
    assert shop.names.count("Go") == 1
    # Each of them was a view of its own.
    assert shop.names.count("View Product 2") == 3


def test_a_duplicated_tab_makes_no_calls_again(
    shop: Shop, page: Tab, context: BrowserContext
) -> None:
    arrive(page, f"{shop.url}/cached")
    wait_until(lambda: "View Cached" in shop.names)
    kept = page.evaluate("JSON.stringify(sessionStorage)")
    # What a duplicated tab starts with: the document from the cache, and a copy of
    # what the tab kept.
    twin = context.new_page()
    twin.add_init_script(f"Object.assign(sessionStorage, {kept})")
    arrive(twin, f"{shop.url}/cached")
    assert [entry.event for entry in shop.book] == ["View Cached"]
    shop.settle(page, twin)
    shop.check()


def test_a_page_from_the_http_cache_makes_no_calls_again(shop: Shop, page: Tab) -> None:
    arrive(page, f"{shop.url}/cached")
    page.goto(f"{shop.url}/products/1")
    page.evaluate("location.href = '/cached'")
    page.wait_for_url("**/cached")
    page.wait_for_function(LOADED)
    assert [entry.event for entry in shop.book] == ["View Cached", "View Product 1"]
    shop.settle(page)
    shop.check()


def test_a_page_that_is_asked_for_again_makes_each_call_once(
    shop: Shop, page: Tab
) -> None:
    arrive(page, f"{shop.url}/go?to=/cached?etag")
    page.goto(f"{shop.url}/products/1")
    page.evaluate("location.href = '/cached?etag'")
    page.wait_for_url("**/cached?etag")
    page.wait_for_function(LOADED)
    shop.settle(page)
    shop.check()
    assert shop.names.count("Go") == 1


def test_a_304_leaves_delayed_calls_for_the_next_page(shop: Shop, page: Tab) -> None:
    arrive(page, f"{shop.url}/products/1")
    sign_in(page, "ann")
    page.goto(f"{shop.url}/go?to=/quiet")
    page.wait_for_function(LOADED)
    leave_waiting(shop, page.context)
    answer = page.request.get(
        f"{shop.url}/cached?etag",
        headers={
            "If-None-Match": '"same"',
            "Sec-Fetch-Dest": "document",
            "Sec-Fetch-Mode": "navigate",
        },
    )
    assert answer.status == 304
    assert answer.body() == b""
    arrive(page, f"{shop.url}/quiet")
    shop.settle(page)
    assert shop.names.count("Go") == 2
    assert shop.names.count("View Cached") == 1


IN_ADVANCE = """
([kind, path]) => {
    const rules = document.createElement("script");
    rules.type = "speculationrules";
    rules.text = JSON.stringify({[kind]: [{source: "list", urls: [path]}]});
    document.head.append(rules);
}
"""


@pytest.mark.browsers("chromium", why="Firefox has no speculation rules")
@pytest.mark.parametrize("kind", ["prefetch", "prerender"])
def test_a_page_that_is_loaded_in_advance_uses_up_no_delayed_calls(
    shop: Shop, page: Tab, context: BrowserContext, kind: str
) -> None:
    purposes: list[str] = []

    @shop.app.before_request
    def note() -> None:
        if request.path == "/products/7":
            purposes.append(request.headers.get("Sec-Purpose", ""))

    arrive(page, f"{shop.url}/products/1")
    sign_in(page, "ann")
    # Calls that wait, while the page at hand has another one loaded in advance.
    leave_waiting(shop, context)
    page.evaluate(IN_ADVANCE, [kind, "/products/7"])
    wait_until(lambda: purposes)
    assert purposes[0].startswith("prefetch")
    page.evaluate("location.href = '/products/7'")
    page.wait_for_url("**/products/7")
    arrive(page, f"{shop.url}/quiet")
    shop.settle(page)
    shop.check()
    assert shop.names.count("Go") == 1


@pytest.mark.browsers("chromium", why="Firefox has no speculation rules")
@pytest.mark.parametrize("kind", ["prefetch", "prerender"])
def test_a_page_that_was_loaded_in_advance_makes_its_calls_when_it_is_shown(
    shop: Shop, page: Tab, kind: str
) -> None:
    arrive(page, f"{shop.url}/products/1")
    page.evaluate(IN_ADVANCE, [kind, "/products/7"])
    wait_until(lambda: len(shop.book) == 2)
    assert "View Product 7" not in shop.names
    page.evaluate("location.href = '/products/7'")
    page.wait_for_url("**/products/7")
    page.wait_for_function(LOADED)
    shop.settle(page)
    shop.check()
    assert shop.names == ["View Product 1", "View Product 7", "Fence"]


@pytest.mark.browsers("chromium", why="Firefox has no speculation rules")
@pytest.mark.parametrize("kind", ["prefetch", "prerender"])
def test_a_page_that_is_loaded_in_advance_and_never_shown_is_sent_by_nobody(
    open_shop: OpenShop,
    context: BrowserContext,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    monkeypatch.setattr("flask_mengpaneel.choose.handing_over._MAX_ADVANCE", 1.0)
    shop = open_shop(ack_timeout=1)
    page = context.new_page()
    arrive(page, f"{shop.url}/products/1")
    page.evaluate(IN_ADVANCE, [kind, "/products/7"])
    wait_until(lambda: len(shop.book) == 2)
    ledger = shop.app.extensions["mengpaneel"].ledger
    reason = "fetched in advance and never shown"
    wait_until(lambda: ledger.snapshot().dropped == {reason: 1})
    arrive(page, f"{shop.url}/products/2")
    wait_until(lambda: "View Product 2" in shop.names)
    assert shop.names == ["View Product 1", "View Product 2"]


def test_a_prefetch_leaves_delayed_calls_alone(shop: Shop, page: Tab) -> None:
    arrive(page, f"{shop.url}/products/1")
    sign_in(page, "ann")
    leave_waiting(shop, page.context)
    answer = page.request.get(
        f"{shop.url}/quiet",
        headers={"Sec-Purpose": "prefetch;prerender", "Sec-Fetch-Dest": "document"},
    )
    assert answer.ok
    assert '"Go"' not in answer.text()
    arrive(page, f"{shop.url}/quiet")
    shop.settle(page)
    shop.check()
    assert shop.names.count("Go") == 1


def test_a_page_fetched_by_a_script_makes_no_page_view(shop: Shop, page: Tab) -> None:
    arrive(page, f"{shop.url}/products/1")
    sign_in(page, "ann")
    page.goto(f"{shop.url}/go?to=/quiet")
    page.wait_for_function(LOADED)
    text = page.evaluate(
        "fetch('/products/2', {headers: {Accept: 'text/html'}})"
        ".then(answer => answer.text())"
    )
    assert "View Product 2" not in text
    page.evaluate(
        "fetch('/go?to=/products/3').then(answer => answer.text())",
    )
    arrive(page, f"{shop.url}/quiet")
    shop.settle(page)
    shop.check()
    assert shop.names.count("Go") == 2
    assert shop.names.count("View Product 2") == 1
    assert shop.names.count("View Product 3") == 1


def test_a_picture_between_redirect_and_page_leaves_delayed_calls(
    shop: Shop, page: Tab
) -> None:
    arrive(page, f"{shop.url}/products/1")
    sign_in(page, "ann")
    page.goto(f"{shop.url}/go?to=/old")
    assert "Go" not in shop.names
    arrive(page, f"{shop.url}/products/2")
    shop.settle(page)
    shop.check()
    assert shop.names == [
        "View Product 1",
        "Sign In",
        "Go",
        "See Picture",
        "View Product 2",
        "Fence",
    ]
