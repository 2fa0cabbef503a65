"""Browsers that come back with what the server has sent in the meantime."""

from __future__ import annotations

import collections.abc as c

import pytest
from flask import Flask, Response
from journey import BY_FETCH, LIBRARY, LOADED, OpenShop, Shop, arrive
from playwright.sync_api import BrowserContext
from playwright.sync_api import Page as Tab
from script_pages import SERVICE_WORKER

from waiting import wait_until

#: What may be kept from a browser for a while.
PARTS = {
    "script": "**/mengpaneel.js*",
    "library": f"**{LIBRARY}",
    "API and endpoint": "**/_mengpaneel/{inspector/track,acks,calls}{/**,**}",
    "endpoint": "**/_mengpaneel/{acks,calls}",
}


@pytest.fixture
def shop(open_shop: OpenShop) -> Shop:
    """A shop that soon sends what no browser acknowledges."""
    return open_shop(ack_timeout=1, finish=add_worker)


def add_worker(app: Flask) -> None:
    @app.get("/worker.js")
    def worker() -> Response:
        return Response(SERVICE_WORKER, content_type="text/javascript")


def sign(tab: Tab, path: str) -> None:
    tab.evaluate(
        "path => fetch(path, {method: 'POST'}).then(answer => answer.text())", path
    )


def by_server(shop: Shop) -> c.Callable[[], bool]:
    """Whether the server has sent all that is in the book."""
    return lambda: {e["Number"] for e in shop.arrived} == {e.number for e in shop.book}


@pytest.mark.parametrize("part", PARTS)
def test_what_the_server_has_sent_meanwhile_is_the_same_event(
    shop: Shop, page: Tab, context: BrowserContext, part: str
) -> None:
    context.route(PARTS[part], lambda route: route.abort())
    page.goto(f"{shop.url}/cached")
    assert wait_until(by_server(shop))
    context.unroute(PARTS[part])
    page.goto(f"{shop.url}/products/1")
    # The browser has kept that page, and nothing has said that it was shown already.
    page.evaluate("location.href = '/cached'")
    page.wait_for_url("**/cached")
    page.wait_for_function(LOADED)
    shop.settle(page)
    shop.check()
    assert shop.names == ["View Cached", "View Product 1", "Fence"]


@pytest.mark.parametrize("part", PARTS)
def test_who_signs_in_meanwhile_gets_nothing_of_the_one_before(
    shop: Shop, page: Tab, context: BrowserContext, part: str
) -> None:
    arrive(page, f"{shop.url}/products/1")
    sign(page, "/api/sign-in?user=ann")
    context.route(PARTS[part], lambda route: route.abort())
    page.goto(f"{shop.url}/products/2")
    page.evaluate(BY_FETCH, 1)
    sign(page, "/api/sign-out")
    sign(page, "/api/sign-in?user=bob")
    context.unroute(PARTS[part])
    # Without the library, where the app has been told that it was blocked.
    page.goto(f"{shop.url}/products/3")
    page.evaluate(BY_FETCH, 2)
    shop.settle(page)
    shop.check()
    people = shop.people()
    assert [people[entry.number] for entry in shop.book] == ["ann"] * 5 + ["bob"] * 4


def test_who_was_offline_goes_on_online(
    shop: Shop, page: Tab, context: BrowserContext
) -> None:
    arrive(page, f"{shop.url}/products/1")
    context.set_offline(True)
    page.evaluate("fetch('/api/stock').catch(() => 0)")
    context.set_offline(False)
    page.evaluate(BY_FETCH, 1)
    shop.settle(page)
    shop.check()
    assert shop.names == ["View Product 1", "Add To Cart 1", "Fence"]


def test_a_service_worker_gives_no_calls_again(shop: Shop, page: Tab) -> None:
    arrive(page, f"{shop.url}/products/1")
    page.evaluate(
        """async () => {
            await navigator.serviceWorker.register("/worker.js");
            await navigator.serviceWorker.ready;
            while (!navigator.serviceWorker.controller)
                await new Promise(done => setTimeout(done, 10));
        }"""
    )

    for _ in range(3):
        page.evaluate("fetch('/api/stock').then(answer => answer.text())")

    shop.settle(page)
    shop.check()
    assert shop.names == ["View Product 1", "Check Stock", "Fence"]
