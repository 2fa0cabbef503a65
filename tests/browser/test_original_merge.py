"""Who is who by Mixpanel's original merge of ids, which has to be told."""

from __future__ import annotations

import pytest
from journey import BY_FETCH, LOADED, SERVER_ONLY, OpenShop
from merges import Clusters
from playwright.sync_api import Page as Tab
from test_journey import pay

pytestmark = pytest.mark.browsers(
    "chromium", why="the same Python decides; the browser adds nothing"
)


SIGN_UP = {
    "redirect": """user => {
        const form = document.querySelector("form[action='/sign-up']");
        form.innerHTML = `<input name="user" value="${user}">`;
        form.submit();
    }""",
    "fetch": """user => fetch(`/api/sign-up?user=${user}`, {method: "POST"})
        .then(() => { location.href = "/welcome" })""",
}


@pytest.mark.parametrize("by", SIGN_UP)
@pytest.mark.parametrize("server_only", [False, True], ids=["all ways", "server-only"])
def test_all_that_visitors_did_is_theirs_and_of_nobody_else(
    open_shop: OpenShop, page: Tab, by: str, server_only: bool
) -> None:
    options = {"strategies": SERVER_ONLY} if server_only else {}
    shop = open_shop(id_merge="original", **options)

    def ready() -> None:
        page.wait_for_function("true" if server_only else LOADED)

    for user in ["ann", "bob"]:
        page.goto(shop.url)
        ready()
        page.click("text=Tea")
        page.wait_for_url("**/products/1")
        ready()
        page.evaluate(SIGN_UP[by], user)
        page.wait_for_url("**/welcome")
        ready()
        page.evaluate(BY_FETCH, 1)
        pay(shop, user)
        page.click("text=Sign out")
        page.wait_for_url(f"{shop.url}/")
        ready()

    shop.settle(page)
    shop.check()
    clusters = Clusters(shop.inspector.events())
    events = sorted(shop.arrived, key=lambda event: event["Number"])
    found = [clusters.of(event["distinct_id"]) & {"ann", "bob"} for event in events]
    ann, bob = (n + 1 for n, entry in enumerate(shop.book) if entry.event == "Sign Out")
    rest = len(shop.book) - bob
    assert found == [{"ann"}] * ann + [{"bob"}] * (bob - ann) + [set()] * rest
    # Each is one browser. A cluster has room for 500 ids, so who pays by a webhook
    # gets none with each payment.
    assert clusters.of("ann") == {"ann", events[0]["$device_id"]}
    assert clusters.of("bob") == {"bob", events[ann]["$device_id"]}
