"""Every call arrives once and in order, however soon its page is left."""

from __future__ import annotations

import itertools
import typing as t

import pytest
from playwright.sync_api import BrowserContext
from playwright.sync_api import Page as Tab
from script_pages import Page, ScriptSite, track, wait_until

# What is under way when a page is left depends on the moment.
pytestmark = pytest.mark.alone

RUNS = 20
SIZES = [1, 4, 8, 20]
LEAVE = {
    "link": "document.querySelector('a').click()",
    "redirect": "location.href = '/redirect?to=/next'",
    "close": "",
}


def calls(run: int, size: int) -> list[t.Any]:
    """As many calls, every other one a profile update."""
    return [
        [["people", "append"], [{"Step": f"{run}-{number}"}]]
        if number % 2
        else track(f"{run}-{number}", number)
        for number in range(size)
    ]


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


def arrived(site: ScriptSite) -> list[str]:
    """Events and updates in the order in which they arrived, each kind by itself."""
    steps = [
        update["$append"]["Step"] for update in site.api.updates if "$append" in update
    ]
    return site.api.events + steps


def in_order(found: list[str]) -> bool:
    """Whether the calls of each run are in order, events and updates apart."""
    numbers = [tuple(map(int, name.split("-"))) for name in found]
    return all(
        kept == sorted(kept)
        for run in range(RUNS)
        for odd in (0, 1)
        if (kept := [n for r, n in numbers if r == run and n % 2 == odd])
    )


@pytest.mark.also_in_firefox(way=["link"], wait=[0, 50, 200])
@pytest.mark.parametrize("way", LEAVE)
@pytest.mark.parametrize("wait", [0, 50, 200, 600])
def test_nothing_is_lost_between_pages(
    site: ScriptSite, context: BrowserContext, way: str, wait: int
) -> None:
    due = prepare(site, wait, way)
    visit(site, context, wait, way)
    wait_until(lambda: len(arrived(site)) >= len(due), 20)
    assert sorted(arrived(site)) == sorted(due)
    assert in_order(arrived(site))


def handed_back(site: ScriptSite) -> list[str]:
    """The names of the calls that the app was given back."""
    return [name(call) for call in site.calls_handed_back()]


def name(call: list[t.Any]) -> str:
    argument = call[1][0]
    return argument["Step"] if call[0] == ["people", "append"] else argument


@pytest.mark.also_in_firefox
def test_calls_of_a_page_left_before_the_library_came_go_back_to_the_app(
    site: ScriptSite, page: Tab
) -> None:
    due = prepare(site, 0, "link", fallback="/calls")
    site.library_delay = 3
    page.goto(site.url + "/3", wait_until="commit")
    page.wait_for_url("**/next")
    assert wait_until(lambda: site.handed_back)
    assert handed_back(site) == ["7", *(step for step in due if step[:2] == "3-")]
    assert site.handed_back[0]["signature"] == "signed-3"
    assert not site.handed_back[0].get("blocked")
    site.library_delay = 0
    page.wait_for_function("window.mixpanel.__loaded")
    assert arrived(site) == []


def test_without_the_fallback_the_next_page_makes_them(
    site: ScriptSite, page: Tab
) -> None:
    due = prepare(site, 0, "link")
    site.library_delay = 2
    page.goto(site.url + "/2", wait_until="commit")
    page.wait_for_url("**/next")
    site.library_delay = 0
    page.goto(site.url + "/next")
    mine = [step for step in due if step[:2] == "2-"]
    wait_until(lambda: len(arrived(site)) >= len(mine))
    page.goto(site.url + "/next")
    page.wait_for_function("window.mixpanel.__loaded")
    assert sorted(arrived(site)) == mine
    assert in_order(arrived(site))


@pytest.mark.parametrize("wait", [0, 300])
def test_more_than_may_outlive_a_page_is_not_lost(
    site: ScriptSite, context: BrowserContext, wait: int
) -> None:
    site.api.delay = 1
    large = [
        track(f"0-{number}", number, Text=["x" * 200] * 10) for number in range(80)
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
    wait_until(lambda: len(arrived(site)) >= len(due), 20)
    assert sorted(arrived(site)) == sorted(due)
    assert in_order(arrived(site))
    times = [site.api.named(event)["time"] for event in due]
    assert times == sorted(set(times))
