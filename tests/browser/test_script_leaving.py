"""Every call arrives, or is known not to have, however soon its page is left."""

from __future__ import annotations

import itertools
import typing as t

import pytest
from playwright.sync_api import BrowserContext
from playwright.sync_api import Page as Tab
from script_pages import TOKEN, Page, ScriptSite, track

from waiting import wait_until

# In all, some ninety pages are left; a hundred more in test_leaving.py.
RUNS = 2
SIZES = [1, 20]
LEAVE = {
    "link": "document.querySelector('a').click()",
    "redirect": "location.href = '/redirect?to=/next'",
    "close": "",
}


def calls(run: int, size: int) -> list[t.Any]:
    """As many events, which say whose they are."""
    return [track(f"{run}-{number}", number, distinct_id="7") for number in range(size)]


def prepare(site: ScriptSite, wait: int, way: str, **more: t.Any) -> list[str]:
    """Make a page for each run; return what is to arrive."""
    due = []

    for run, size in zip(range(RUNS), itertools.cycle(SIZES), strict=False):
        data = site.data(
            [None, [[["identify"], ["7"]]]], [f"run-{run}", calls(run, size)], **more
        )
        leave = f"<script>setTimeout(() => {{ {LEAVE[way]} }}, {wait})</script>"
        site.pages[f"/{run}"] = Page(
            data=data,
            body=f'<a href="/next">next</a>{leave}',
            signature=f"signed-{run}",
        )
        due += [f"{run}-{number}" for number in range(size)]

    site.pages["/next"] = Page(data=site.data(**more))
    return due


def visit(site: ScriptSite, context: BrowserContext, wait: int, way: str) -> None:
    tab = context.new_page()

    for run in range(RUNS):
        tab.goto(f"{site.url}/{run}", wait_until="commit")

        if way == "close":
            tab.wait_for_selector("a", state="attached")
            tab.wait_for_timeout(wait)
            tab.close()
            tab = context.new_page()
        else:
            tab.wait_for_url("**/next")

    tab.goto(site.url + "/next")
    tab.wait_for_function("window.mixpanel.__loaded")


@pytest.mark.browsers(
    "chromium",
    "firefox",
    why="each takes seconds",
    in_firefox={"wait": [0, 200]},
)
@pytest.mark.parametrize("way", LEAVE)
@pytest.mark.parametrize("wait", [0, 50, 200, 600])
def test_what_is_acknowledged_has_arrived(
    site: ScriptSite, context: BrowserContext, way: str, wait: int
) -> None:
    due = prepare(site, wait, way, fallback="/calls", acks="/acks")
    site.pages["/stay"] = Page(
        data=site.data(["stay", [track("Stay")]], acks="/acks", handover="stay.x")
    )

    for run in range(RUNS):
        site.pages[f"/{run}"].data["handover"] = f"run{run}.x"

    visit(site, context, wait, way)
    context.new_page().goto(site.url + "/stay")
    assert wait_until(lambda: "stay.x" in site.acknowledged)
    acknowledged = set(site.acknowledged) - {"stay.x"}
    given_back = {body["handover"] for body in site.handed_back}
    assert len(site.acknowledged) == len(set(site.acknowledged))
    assert acknowledged.isdisjoint(given_back)
    # What is neither, the server sends.
    assert all(
        step in site.api.events
        for step in due
        if f"run{step.split('-')[0]}.x" in acknowledged
    )
    assert set(handed_back(site)) <= {*due, "7"}


def test_what_is_under_way_when_its_page_is_left_is_not_acknowledged(
    site: ScriptSite, page: Tab
) -> None:
    site.pages["/first"] = Page(
        data=site.data(["1", [track("First")]], acks="/acks", handover="1.x")
    )
    site.pages["/next"] = Page(
        data=site.data(["2", [track("Next")]], acks="/acks", handover="2.x")
    )
    site.api.answers.clear()
    page.goto(site.url + "/first")
    assert wait_until(lambda: site.api.events) == ["First"]
    page.goto(site.url + "/next")
    site.api.answers.set()
    assert wait_until(lambda: site.acknowledged) == ["2.x"]
    assert page.evaluate(f"localStorage.{TOKEN}_mengpaneel_undelivered || '[]'") == "[]"


# The second in which others may follow never ends, so that only leaving can end it.
ENDLESS = """
const later = setTimeout;
window.setTimeout = (action, delay, ...rest) =>
    delay === 1000 ? (window.isDue = true) : later(action, delay, ...rest);
"""


@pytest.mark.browsers(
    "chromium",
    "firefox",
    why="of a tab that is closed, Firefox sends a beacon as a rule only",
    in_firefox={"way": ["link"]},
)
@pytest.mark.parametrize("way", ["link", "close"])
@pytest.mark.parametrize("policy", ["", "no-referrer"])
@pytest.mark.parametrize("host", ["127.0.0.1", "plain.test"])
def test_a_page_that_is_left_acknowledges_at_once(
    site: ScriptSite, page: Tab, way: str, policy: str, host: str
) -> None:
    site.pages["/home"] = Page(
        data=site.data(["1", [track("First")]], acks="/acks", handover="1.x"),
        headers={"Referrer-Policy": policy},
    )
    site.pages["/next"] = Page(script="")
    page.add_init_script(ENDLESS)
    url = site.url.replace("127.0.0.1", host)
    page.goto(url + "/home")
    page.wait_for_function("window.isDue")
    assert site.api.events == ["First"]
    assert site.acknowledged == []

    if way == "close":
        page.close(run_before_unload=True)
    else:
        page.goto(url + "/next")

    assert wait_until(lambda: site.acks) == [(["1.x"], True)]


def handed_back(site: ScriptSite) -> list[str]:
    """The names of the calls that the app was given back."""
    return [call[1][0] for call in site.calls_handed_back()]


@pytest.mark.parametrize("token", [None, "1.x"])
def test_calls_of_a_page_left_before_the_library_came_go_back_to_the_app(
    site: ScriptSite, page: Tab, token: str | None
) -> None:
    due = prepare(site, 0, "link", fallback="/calls", acks="/acks")
    site.pages["/1"].data["handover"] = token
    site.library_delay = 3
    page.goto(site.url + "/1", wait_until="commit")
    page.wait_for_url("**/next")
    assert wait_until(lambda: site.handed_back)
    assert handed_back(site) == ["7", *(step for step in due if step[:2] == "1-")]
    assert site.handed_back[0]["signature"] == "signed-1"
    assert site.handed_back[0].get("handover") == token
    assert not site.handed_back[0].get("blocked")
    site.library_delay = 0
    page.wait_for_function("window.mixpanel.__loaded")
    assert site.api.events == []


@pytest.mark.parametrize("token", [None, "1.x"])
def test_without_the_fallback_the_next_page_makes_what_says_whose_it_is(
    site: ScriptSite, page: Tab, token: str | None
) -> None:
    prepare(site, 0, "link")
    site.pages["/1"].data["handover"] = token
    calls = site.pages["/1"].data["calls"][1][1]
    mine = ["1-1", "1-4"]

    for _, (event, properties) in calls:
        if event not in mine:
            del properties["distinct_id"]

    site.library_delay = 2
    page.goto(site.url + "/1", wait_until="commit")
    page.wait_for_url("**/next")
    site.library_delay = 0
    data = site.data([None, [[["identify"], ["bob"]]]], ["then", [track("Then")]])
    site.pages["/next"].data = data
    page.goto(site.url + "/next")
    assert wait_until(lambda: "Then" in site.api.events)
    # What has a token, the server has.
    assert site.api.events == ([] if token else mine) + ["Then"]
    assert site.api.named("Then")["distinct_id"] == "bob"
    found = [r.message["properties"] for r in site.api.records if r.label in mine]
    assert all(properties["distinct_id"] == "7" for properties in found)


@pytest.mark.parametrize("wait", [0, 300])
def test_more_than_may_outlive_a_page_is_not_lost(
    site: ScriptSite, context: BrowserContext, wait: int
) -> None:
    site.api.delay = 1
    large = [
        track(f"0-{number}", number, Text=["x" * 200] * 10, distinct_id="7")
        for number in range(80)
    ]
    leave = f"""<script>
        const timer = setInterval(() => {{
            if (!window.mixpanel.__loaded) return;
            clearInterval(timer);
            setTimeout(() => {{ location.href = "/next" }}, {wait});
        }}, 5);
    </script>"""
    site.pages["/0"] = Page(data=site.data(["large", large]), body=leave)
    site.pages["/next"] = Page(data=site.data())
    tab = context.new_page()
    tab.goto(site.url + "/0", wait_until="commit")
    tab.wait_for_url("**/next")
    due = [f"0-{number}" for number in range(80)]
    wait_until(lambda: len(site.api.events) >= len(due))
    assert sorted(site.api.events) == sorted(due)

    # What leaves with a page is under way at once with what the next page sends, and
    # any of these requests may be the first to arrive: each event has its own time.
    for batch in {record.batch for record in site.api.records}:
        brought = [r.label for r in site.api.records if r.batch == batch]
        assert brought == sorted(brought, key=due.index)
    times = [site.api.named(event)["time"] for event in due]
    assert times == sorted(set(times))
