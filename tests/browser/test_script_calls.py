"""The page's calls, and those that responses carry, with the real library."""

from __future__ import annotations

from playwright.sync_api import Page as Tab
from script_pages import Page, ScriptSite, track

from waiting import wait_until


def test_the_pages_calls_are_made_in_order(site: ScriptSite, page: Tab) -> None:
    calls = [
        [["identify"], ["7"]],
        [["people", "set"], [{"Plan": "pro"}]],
        track("First", 1),
        [["get_group"], ["company", "acme"], ["set"], [{"Seats": 12}]],
        [["no_such_method"], [1]],
        track("Second", 2, Name="Zoë 🎉 </script>"),
    ]
    site.pages["/"] = Page(data=site.data(["a", calls]))
    site.pages["/home"] = site.pages["/"]
    page.goto(site.url + "/home")
    assert wait_until(lambda: len(site.api.events) == 2)
    assert site.api.events == ["First", "Second"]
    second = site.api.named("Second")
    assert second["Name"] == "Zoë 🎉 </script>"
    assert second["distinct_id"] == "7"
    assert second["$insert_id"] == "Second-2"


def test_an_event_is_not_of_who_signed_in_after_it(site: ScriptSite, page: Tab) -> None:
    device = {"distinct_id": "$device:before", "$device_id": "before"}
    calls = [
        [["identify"], ["7"]],
        track("Looked Before", 1, **device),
        track("Bought", 2, **device, **{"$user_id": "5"}),
        track("Said Nothing", 3),
    ]
    site.pages["/home"] = Page(data=site.data(["a", calls]))
    page.goto(site.url + "/home")
    assert wait_until(lambda: len(site.api.events) == 3)
    users = [site.api.named(name).get("$user_id") for name in site.api.events]
    assert users == [None, "5", "7"]
    assert site.api.named("Looked Before")["distinct_id"] == "$device:before"


def test_calls_of_a_fetch_are_made(site: ScriptSite, page: Tab) -> None:
    site.pages["/home"] = Page(data=site.data())
    site.calls["cart"] = [track("Add To Cart", 1)]
    page.goto(site.url + "/home")
    page.wait_for_function("window.mixpanel.__loaded")
    assert page.evaluate("fetch('/api/cart').then(r => r.text())") == "answer cart"
    assert wait_until(lambda: site.api.events) == ["Add To Cart"]


def test_calls_of_an_xmlhttprequest_are_made(site: ScriptSite, page: Tab) -> None:
    site.pages["/home"] = Page(data=site.data())
    site.calls["cart"] = [track("Add To Cart", 1)]
    page.goto(site.url + "/home")
    page.wait_for_function("window.mixpanel.__loaded")
    page.evaluate(
        """() => new Promise(done => {
            const xhr = new XMLHttpRequest();
            xhr.open("GET", "/api/cart");
            xhr.onload = () => done(xhr.responseText);
            xhr.send();
        })"""
    )
    assert wait_until(lambda: site.api.events) == ["Add To Cart"]
