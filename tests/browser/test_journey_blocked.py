"""The way of a visitor in whose browser the library is blocked."""

from __future__ import annotations

from journey import OpenShop
from playwright.sync_api import Page as Tab

from servers import NOBODY_LISTENS


def test_a_journey_without_the_library_arrives_by_way_of_the_app(
    open_shop: OpenShop, page: Tab
) -> None:
    shop = open_shop(library_url=f"{NOBODY_LISTENS}/mixpanel.min.js")
    page.goto(shop.url)
    page.click("text=Tea")
    page.click("text=Sign up")
    page.wait_for_url("**/welcome")
    shop.settle(page)
    shop.check()
    assert shop.names == [
        "Land",
        "View Product 1",
        "Sign Up",
        "Confirm",
        "Welcome",
        "Fence",
    ]
