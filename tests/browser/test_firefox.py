"""What browsers have to be told of in a way of their own: here, Firefox.

Tests of other modules run in it too where they are marked ``also_in_firefox``.
"""

from __future__ import annotations

import typing as t

import pytest
from journey import BY_FETCH, OpenShop, arrive
from playwright.sync_api import Browser
from playwright.sync_api import Page as Tab
from script_pages import wait_until

from needs import need

pytestmark = pytest.mark.only_in_firefox


def test_a_page_from_the_back_forward_cache_makes_no_calls_again(
    open_shop: OpenShop, page: Tab
) -> None:
    shop = open_shop()
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


@pytest.mark.parametrize("options", [{"respect_dnt": False}, {"consent": lambda: True}])
def test_the_library_does_not_ask_again_where_the_app_has_decided(
    open_shop: OpenShop, browser: Browser, options: dict[str, t.Any]
) -> None:
    shop = open_shop(**options)
    refusing = browser.browser_type.launch(
        channel="moz-firefox",
        executable_path=need("firefox"),
        firefox_user_prefs={"privacy.donottrackheader.enabled": True},
    )

    try:
        page = refusing.new_page()
        arrive(page, shop.url)
        assert page.evaluate("navigator.doNotTrack") == "1"
        page.evaluate(BY_FETCH, 1)
        shop.settle(page)
        shop.check()
        assert {"Land", "Add To Cart 1"} <= set(shop.names)
    finally:
        refusing.close()
