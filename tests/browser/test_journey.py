"""The whole way of a visitor, and what Mixpanel knows of it in the end."""

from __future__ import annotations

import json
import urllib.request

import pytest
from journey import (
    BY_FETCH,
    BY_JQUERY,
    BY_XHR,
    DEVICE,
    LOADED,
    STRICT,
    WAYS,
    OpenShop,
    Shop,
    arrive,
)
from playwright.sync_api import Browser, BrowserContext, Request, Route
from playwright.sync_api import Page as Tab

from agents import CHROME_ON_ANDROID
from waiting import wait_until


def pay(shop: Shop, user: str) -> None:
    """The payment provider calls."""
    call = urllib.request.Request(
        f"{shop.url}/webhook",
        json.dumps({"user": user}).encode(),
        {"Content-Type": "application/json"},
    )
    urllib.request.urlopen(call, timeout=60).close()


@pytest.mark.parametrize("policy", [None, STRICT], ids=["no policy", "strict policy"])
def test_each_call_of_a_journey_arrives_once_and_in_order(
    open_shop: OpenShop, page: Tab, policy: str | None
) -> None:
    headers = {"Content-Security-Policy": policy} if policy else {}
    shop = open_shop(headers=headers)
    complaints: list[str] = []
    page.on("console", lambda line: complaints.append(line.text))
    arrive(page, shop.url)
    page.click("text=Tea")
    page.click("text=Pot")
    page.click("text=Sign up")
    page.wait_for_url("**/welcome")
    page.wait_for_function(LOADED)
    page.evaluate(BY_FETCH, 1)
    page.evaluate(BY_XHR, 2)
    page.evaluate(BY_JQUERY, 3)
    pay(shop, "ann")
    page.click("text=Sign out")
    page.wait_for_url(f"{shop.url}/")
    shop.settle(page)
    shop.check()
    assert shop.names == [
        "Land",
        "View Product 1",
        "View Product 2",
        "Sign Up",
        "Confirm",
        "Welcome",
        "Add To Cart 1",
        "Add To Cart 2",
        "Add To Cart 3",
        "Pay",
        "Sign Out",
        "Land",
        "Fence",
    ]
    people = shop.people()
    assert {people[number] for number in range(11)} == {"ann"}
    assert people[11] == people[12] != "ann"
    assert [shop.ways[number][-1] for number in range(3)] == ["ClientSide"] * 3
    assert shop.ways[3] == shop.ways[4] == ["Delayed", "ClientSide"]
    assert [shop.ways[number] for number in (6, 7, 8)] == [["CapableClientSide"]] * 3
    assert shop.ways[9] == ["AsyncServerSide"]
    (alias,) = shop.inspector.events("$create_alias")
    assert alias["properties"]["alias"] == "ann"
    # It is of the time before the set-up, and so of the anonymous visitor.
    first = shop.arrived[0]
    assert alias["properties"]["distinct_id"] == f"$device:{first['$device_id']}"
    assert complaints == []


@pytest.mark.browsers(
    "chromium",
    "firefox",
    why="the same Python takes the other ways",
    in_firefox={"way": ["all ways"]},
)
@pytest.mark.parametrize("way", WAYS)
def test_each_event_is_with_its_person_from_first_picture_to_sign_out(
    open_shop: OpenShop, browser: Browser, context: BrowserContext, way: str
) -> None:
    shop = open_shop(**WAYS[way])
    laptop = context.new_page()
    second = browser.new_context(user_agent=CHROME_ON_ANDROID)
    phone = second.new_page()
    has_library = way != "server-only"

    def ready(tab: Tab) -> None:
        if has_library:
            tab.wait_for_function(LOADED)

    # The first that the shop sees of the visitor is a picture on a page without
    # Mixpanel's library, and a fetch.
    laptop.goto(f"{shop.url}/old")
    laptop.evaluate("fetch('/api/stock').then(answer => answer.text())")
    laptop.goto(shop.url)
    ready(laptop)
    laptop.goto(f"{shop.url}/products/1")
    ready(laptop)
    laptop.evaluate("fetch('/api/sign-up?user=ann', {method: 'POST'})")
    laptop.evaluate(BY_FETCH, 1)
    laptop.goto(f"{shop.url}/go?to=/products/2")
    ready(laptop)

    phone.goto(f"{shop.url}/products/3")
    ready(phone)
    phone.evaluate("fetch('/api/sign-in?user=ann', {method: 'POST'})")
    phone.evaluate(BY_XHR, 2)
    phone.goto(f"{shop.url}/")
    ready(phone)

    laptop.click("text=Sign out")
    laptop.wait_for_url(f"{shop.url}/")
    ready(laptop)
    laptop.goto(f"{shop.url}/products/4")
    ready(laptop)

    # What waited for a page without calls of its own has had one now.
    laptop.goto(f"{shop.url}/quiet")
    ready(laptop)
    shop.settle(laptop, phone)
    second.close()
    shop.check()
    assert WAYS[way].get("force") in {None, *(ways[0] for ways in shop.ways.values())}
    people = [person for _, person in sorted(shop.people().items())]
    assert [entry.event for entry in shop.book] == [
        "See Picture",
        "Check Stock",
        "Land",
        "View Product 1",
        "Sign Up",
        "Add To Cart 1",
        "Go",
        "View Product 2",
        "View Product 3",
        "Sign In",
        "Add To Cart 2",
        "Land",
        "Sign Out",
        "Land",
        "View Product 4",
        "Fence",
        "Fence",
    ]
    new_visitor = people[13]
    assert people[:13] == ["ann"] * 13
    assert people[13:] == [new_visitor] * 3 + ["ann"]
    assert new_visitor.startswith("$device:")
    by_number = {event["Number"]: event for event in shop.arrived}
    devices = [
        tuple(by_number[number].get(name) for name in DEVICE)
        for number in range(len(by_number))
    ]
    phones = {8, 9, 10, 11, 16}
    assert len({devices[n] for n in range(17) if n not in phones}) == 1
    assert len({devices[n] for n in phones}) == 1
    assert devices[8][2:] == ("Android", "Android")


def test_what_a_page_has_waits_until_the_browser_has_acknowledged_it(
    open_shop: OpenShop, page: Tab
) -> None:
    shop = open_shop()
    held: list[Route] = []
    page.route("**/_mengpaneel/acks", lambda route: held.append(route))
    page.goto(shop.url)
    page.wait_for_function(LOADED)

    def is_held() -> bool:
        page.wait_for_timeout(10)
        return bool(held)

    assert wait_until(is_held)
    assert shop.names == ["Land"]
    assert shop.mengpaneel.ledger().waiting == 1
    held[0].continue_()

    def is_acknowledged() -> bool:
        page.wait_for_timeout(10)
        return shop.mengpaneel.ledger().waiting == 0

    assert wait_until(is_acknowledged)
    assert shop.mengpaneel.ledger().delivered == 1
    assert shop.inspector.duplicates() == []


def test_profiles_are_the_servers_and_a_page_without_news_has_nothing(
    open_shop: OpenShop, page: Tab
) -> None:
    shop = open_shop()
    arrive(page, shop.url)
    page.evaluate("fetch('/api/sign-up?user=ann', {method: 'POST'})")
    page.evaluate(BY_FETCH, 1)

    posted: list[str] = []

    def note(made: Request) -> None:
        if made.method == "POST":
            posted.append(made.url)

    for _ in range(2):
        answer = page.goto(f"{shop.url}/quiet")
        assert answer is not None
        text = answer.text()
        page.wait_for_function(LOADED)
        page.on(
            "request", lambda made: made.method == "POST" and posted.append(made.url)
        )

    # An acknowledgement would follow after a second.
    page.wait_for_timeout(1_500)
    assert posted == []
    assert '"acks"' in text
    assert '"handover"' not in text
    assert '"calls"' not in text
    shop.settle(page)
    shop.check()
    operations = [
        (arrival.agent, arrival.value)
        for arrival in shop.inspector.arrivals()
        # The library itself says where the visitor came from.
        if not arrival.is_event and "$initial" not in str(arrival.value)
    ]
    names = [
        value for _, value in operations if "ann" in value.get("$set", {}).values()
    ]
    assert len(names) == 1
    assert [agent for agent, _ in operations if "Mozilla" in agent] == []
