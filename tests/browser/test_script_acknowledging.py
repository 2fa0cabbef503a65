"""The app is told of hand-overs whose events Mixpanel has taken, and of no others."""

from __future__ import annotations

import typing as t

import pytest
from playwright.sync_api import Page as Tab
from script_pages import Json, Page, ScriptSite, track

from waiting import wait_until

IDENTIFY = [["identify"], ["7"]]


def open_page(
    site: ScriptSite, page: Tab, *handovers: list[Json], **more: Json
) -> None:
    site.pages["/home"] = Page(
        data=site.data(*handovers, fallback="/calls", acks="/acks", **more),
        signature="signed",
    )
    page.goto(site.url + "/home")
    page.wait_for_function("window.mixpanel.__loaded")


def ask(page: Tab, name: str) -> None:
    page.evaluate(f"fetch('/api/{name}').then(r => r.text())")


def test_a_pages_calls_are_acknowledged_when_mixpanel_has_answered(
    site: ScriptSite, page: Tab
) -> None:
    site.api.answers.clear()
    calls = [IDENTIFY, track("First"), track("Second", 1)]
    open_page(site, page, ["once", calls], handover="page.x")
    # `$identify` is a message like the others.
    labels = ["$identify", "First", "Second"]
    assert wait_until(lambda: len(site.api.records) == 3)
    assert [record.label for record in site.api.records] == labels
    # As long as acknowledging takes, and half as long again.
    page.wait_for_timeout(1500)
    assert site.acknowledged == []
    site.api.answers.set()
    assert wait_until(lambda: site.acknowledged) == ["page.x"]
    assert site.handed_back == []


def test_calls_of_responses_are_acknowledged(site: ScriptSite, page: Tab) -> None:
    open_page(site, page)
    names = [f"n{number}" for number in range(30)]
    site.calls = {name: [track(name, 1)] for name in names}
    site.tokens = {name: f"{name}.x" for name in names}
    page.evaluate(
        """names => Promise.all(names.map((name, number) => number % 2
        ? fetch('/api/' + name)
        : new Promise(done => { const r = new XMLHttpRequest();
            r.open('GET', '/api/' + name); r.onloadend = done; r.send(); })))""",
        names,
    )
    assert site.seen[-1][2] == "true; ack; project=TOKEN"
    assert wait_until(lambda: len(site.acknowledged) >= len(names))
    assert sorted(site.acknowledged) == sorted(site.tokens.values())
    assert sorted(site.api.events) == sorted(names)


def test_what_the_app_could_not_hear_it_is_told_later(
    site: ScriptSite, page: Tab
) -> None:
    open_page(site, page)
    site.acks_status = 503

    for name in ["a", "b"]:
        site.calls[name], site.tokens[name] = [track(name)], f"{name}.x"
        ask(page, name)
        assert wait_until(lambda: site.statuses)
        site.acks_status = 204

    assert wait_until(lambda: sorted(site.acknowledged) == ["a.x", "b.x"])


@pytest.mark.parametrize(
    "identity", [[IDENTIFY], [[["alias"], ["7"]], IDENTIFY]], ids=["identify", "alias"]
)
@pytest.mark.parametrize("status", [1, 0])
def test_who_it_is_is_acknowledged_when_mixpanel_knows_it(
    site: ScriptSite, page: Tab, identity: list[Json], status: int
) -> None:
    site.api.answer = f'{{"status": {status}, "error": null}}'
    open_page(site, page, [None, identity], handover="page.x")

    if status:
        assert wait_until(lambda: site.acknowledged) == ["page.x"]
        assert site.handed_back == []
    else:
        assert wait_until(lambda: site.handed_back)
        assert site.calls_handed_back() == identity
        assert site.handed_back[0]["handover"] == "page.x"

    assert page.evaluate("mixpanel.get_distinct_id()") == "7"


def test_an_alias_is_told_before_the_identify_that_uses_it(
    site: ScriptSite, page: Tab
) -> None:
    open_page(site, page, [None, [[["alias"], ["7"]], IDENTIFY, track("Sign Up")]])
    assert wait_until(lambda: "Sign Up" in site.api.events)
    labels = [record.label for record in site.api.records]
    assert labels == ["$create_alias", "$identify", "$identify", "Sign Up"]
    assert site.api.named("$create_alias")["alias"] == "7"
    assert site.api.named("Sign Up")["distinct_id"] == "7"


def test_a_visitor_who_is_known_needs_no_message(site: ScriptSite, page: Tab) -> None:
    open_page(site, page, [None, [IDENTIFY]], handover="1.x")
    assert wait_until(lambda: site.acknowledged) == ["1.x"]
    requests = site.api.requests
    site.api.status = 503
    open_page(site, page, [None, [IDENTIFY]], handover="2.x")
    assert wait_until(lambda: site.acknowledged[1:]) == ["2.x"]
    assert site.api.requests == requests


def test_profiles_and_groups_are_the_servers(site: ScriptSite, page: Tab) -> None:
    calls = [
        [["people", "set"], [{"Plan": "pro"}]],
        [["people", "increment"], ["Visits"]],
        [["get_group"], ["company", "acme"], ["set"], [{"Seats": 12}]],
        [["set_group"], ["company", ["acme"]]],
        [["add_group"], ["team", "a"]],
        [["add_group"], ["team", "b"]],
        [["remove_group"], ["team", "a"]],
        track("First"),
    ]
    open_page(site, page, [None, [IDENTIFY]], ["once", calls], handover="page.x")
    assert wait_until(lambda: site.acknowledged) == ["page.x"]
    assert site.api.named("First")["company"] == ["acme"]
    # The library's own call makes its batch, and whatever came before it.
    page.evaluate("mixpanel.people.set('Own', 1)")
    assert wait_until(lambda: site.api.updates)
    assert [list(update.values())[0].get("Own") for update in site.api.updates] == [1]
    assert not [r for r in site.api.records if r.endpoint == "groups"]


def test_what_the_library_refuses_is_made(site: ScriptSite, page: Tab) -> None:
    open_page(site, page, ["1", [track("First")]], handover="1.x")
    assert wait_until(lambda: site.acknowledged) == ["1.x"]
    page.evaluate("mixpanel.disable(['Disabled'])")
    site.calls["a"], site.tokens["a"] = [track("Disabled"), track("Other")], "a.x"
    ask(page, "a")
    assert wait_until(lambda: site.acknowledged[1:]) == ["a.x"]
    page.evaluate("mixpanel.opt_out_tracking()")
    open_page(site, page, ["2", [track("Second")]], handover="2.x")
    assert wait_until(lambda: site.acknowledged[2:]) == ["2.x"]
    assert site.api.events == ["First", "Other"]


def test_a_call_that_fails_leaves_its_hand_over_to_the_server(
    site: ScriptSite, page: Tab
) -> None:
    open_page(site, page, ["1", [[["brand_new"], []], track("First")]], handover="1.x")
    site.calls["a"], site.tokens["a"] = [track("Other")], "a.x"
    ask(page, "a")
    assert wait_until(lambda: site.acknowledged) == ["a.x"]
    assert site.api.events == ["First", "Other"]
    assert site.handed_back == []


def by_force(site: ScriptSite, page: Tab) -> None:
    """The page asks for what the browser has, however old it is."""
    site.caching["a"] = "max-age=60"

    for _ in range(3):
        page.evaluate("fetch('/api/a', {cache: 'force-cache'}).then(r => r.text())")


def by_going_back(site: ScriptSite, page: Tab) -> None:
    """A page that asks for it is shown again."""
    site.caching["a"] = "max-age=60"
    ask(page, "a")
    assert wait_until(lambda: site.acknowledged)
    page.goto(site.url + "/elsewhere")
    page.evaluate("setTimeout(() => history.back())")
    page.wait_for_function("location.pathname == '/home' && window.mixpanel?.__loaded")
    ask(page, "a")


def by_revalidating(site: ScriptSite, page: Tab) -> None:
    """The browser gives what is old, and asks for what is new."""
    site.caching["a"] = "max-age=0, stale-while-revalidate=60"

    for _ in range(3):
        ask(page, "a")


def by_a_service_worker(site: ScriptSite, page: Tab) -> None:
    page.evaluate(
        """() => navigator.serviceWorker.register("/worker.js").then(() =>
        navigator.serviceWorker.controller || new Promise(done =>
            navigator.serviceWorker.oncontrollerchange = done)).then(() => 1)"""
    )

    for _ in range(3):
        ask(page, "a")


def in_another_tab(site: ScriptSite, page: Tab) -> None:
    site.caching["a"] = "max-age=60"
    ask(page, "a")
    tab = page.context.new_page()
    tab.goto(site.url + "/home")
    tab.wait_for_function("window.mixpanel.__loaded")
    ask(tab, "a")


AGAIN = [
    by_force,
    by_going_back,
    by_revalidating,
    by_a_service_worker,
    in_another_tab,
]


@pytest.mark.parametrize("again", AGAIN)
def test_a_response_that_comes_again_is_made_once(
    site: ScriptSite, page: Tab, again: t.Callable[[ScriptSite, Tab], None]
) -> None:
    open_page(site, page)
    site.calls["a"], site.tokens["a"] = [track("A")], "a.x"
    again(site, page)
    site.calls["b"], site.tokens["b"] = [track("B")], "b.x"
    ask(page, "b")
    assert wait_until(lambda: "b.x" in site.acknowledged)
    assert site.api.events == ["A", "B"]
    assert wait_until(lambda: sorted(site.acknowledged) == ["a.x", "b.x"])


def test_each_turbo_visit_is_acknowledged(site: ScriptSite, page: Tab) -> None:
    turbo = '<script src="/npm/@hotwired/turbo/dist/turbo.es2017-umd.js"></script>'

    for name in ["one", "two"]:
        site.pages[f"/{name}"] = Page(
            data=site.data([name, [track(name)]], acks="/acks", handover=f"{name}.x"),
            head=turbo,
            body=f'<a href="/two">2</a><h1>{name}</h1>',
        )

    page.goto(site.url + "/one")
    page.click("a")
    page.wait_for_selector("h1:text-is('two')")
    assert wait_until(lambda: len(site.acknowledged) == 2)
    assert site.acknowledged == ["one.x", "two.x"]


def test_a_page_without_acknowledging_says_so(site: ScriptSite, page: Tab) -> None:
    site.pages["/home"] = Page(data=site.data(["once", [track("First")]]))
    page.goto(site.url + "/home")
    assert wait_until(lambda: site.api.events)
    ask(page, "a")
    assert site.seen[-1][2] == "true; project=TOKEN"
