"""Who is who by Mixpanel's original merge of ids, which has to be told."""

from __future__ import annotations

import collections.abc as c
import typing as t

import pytest
from journey import BY_FETCH, LOADED, SERVER_ONLY, OpenShop
from playwright.sync_api import Page as Tab
from test_journey import pay

SIGN_UP = {
    "redirect": """user => {
        const form = document.querySelector("form[action='/sign-up']");
        form.innerHTML = `<input name="user" value="${user}">`;
        form.submit();
    }""",
    "fetch": """user => fetch(`/api/sign-up?user=${user}`, {method: "POST"})
        .then(() => { location.href = "/welcome" })""",
}


class Clusters:
    """Which ids are one person, as the original merge says: by the messages that link
    two of them. An anonymous id is linked once; an alias is of one id only.

    Mixpanel takes the id of a device with and without its prefix.
    """

    def __init__(self, events: c.Iterable[dict[str, t.Any]]) -> None:
        self._ids: dict[str, set[str]] = {}
        linked: set[str] = set()

        for event in events:
            for new, old in _links(event["event"], event["properties"]):
                if new not in linked:
                    linked.add(new)
                    self._join(new, old)

    def _join(self, one: str, other: str) -> None:
        both = self.of(one) | self.of(other)
        self._ids.update(dict.fromkeys(both, both))

    def of(self, id: str) -> set[str]:
        """All ids of the person that has this one."""
        plain = id.removeprefix("$device:")
        return self._ids.get(plain, {plain})


def _links(event: str, properties: dict[str, t.Any]) -> c.Iterator[tuple[str, str]]:
    """The ids that a message links; the first may be linked only once."""
    id = properties["distinct_id"]

    if event == "$identify":
        anonymous = properties.get("$anon_id") or properties["$anon_distinct_id"]
        yield anonymous.removeprefix("$device:"), properties.get("$identified_id", id)
    elif event == "$create_alias":
        yield properties["alias"], id.removeprefix("$device:")


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
