from __future__ import annotations

import collections.abc as c
import pathlib
import typing as t

import pytest
from playwright.sync_api import Browser, Page, expect
from script_pages import PACKAGES

from example.app import create_app
from flask_mengpaneel.inspector.arrivals import Arrival
from flask_mengpaneel.inspector.store import Store
from needs import need_npm
from servers import Server
from waiting import wait_until

pytestmark = pytest.mark.browsers(
    "chromium",
    why="the example's pages are plain; each way is in test_journey.py in both",
)


LIBRARY = "mixpanel-browser/dist/mixpanel.min.js"
SHARED = ["View Parts"]
JOB = ["Renew Subscription"]


class Example(Server):
    """The example, served, and what its inspector knows."""

    def __init__(
        self, folder: pathlib.Path, library: pathlib.Path = PACKAGES / LIBRARY
    ) -> None:
        super().__init__(create_app(str(folder), BENCH_PAUSE=0.02, LIBRARY=library))
        self.store = Store(folder / "mengpaneel-inspector.sqlite3")

    @property
    def events(self) -> list[Arrival]:
        """What the app tracked and what arrived, without what the library adds."""
        return [
            arrival
            for arrival in self.store.arrivals()
            if arrival.is_event and event(arrival)[0] != "$"
        ]

    def wait_for(self, name: str, count: int = 1) -> None:
        wait_until(lambda: [event(one) for one in self.events].count(name) >= count)


def event(arrival: Arrival) -> str:
    return str(t.cast(t.Any, arrival.value)["event"])


@pytest.fixture
def shop(tmp_path: pathlib.Path) -> c.Iterator[Example]:
    if not (PACKAGES / LIBRARY).is_file():
        need_npm("mixpanel-browser")

    with Example(tmp_path) as shop:
        yield shop


@pytest.fixture
def violations(page: Page) -> list[str]:
    """What the policy of the pages did not let through."""
    found: list[str] = []
    page.on(
        "console",
        lambda message: (
            found.append(message.text) if "Content Security" in message.text else None
        ),
    )
    return found


def test_a_walk_through_the_shop_arrives_once_by_every_way(
    shop: Example, page: Page, violations: list[str]
) -> None:
    page.set_viewport_size({"width": 1280, "height": 860})
    page.goto(shop.url)
    shop.wait_for("View Parts")
    page.click("h2:text-is('Glide')")
    shop.wait_for("View Part")
    page.click(".part .add button")
    expect(page.locator("#count")).to_have_text("1")
    shop.wait_for("Add to Cart")
    page.click("nav .cart")
    shop.wait_for("View Cart")
    page.click("text=Sign up to order")
    page.fill("[name=name]", "Nina")
    page.fill("[name=email]", "nina@example.com")
    page.click("main button")
    shop.wait_for("View Cart", 2)
    page.click("text=Place order")
    shop.wait_for("View Thanks")
    page.click("main button")
    expect(page.locator(".happened")).to_contain_text("Nina has paid")
    page.click("text=Capable app")
    expect(page.locator(".happened")).to_contain_text("Nina’s newer phone")
    page.click("text=Night job")
    expect(page.locator(".happened")).to_contain_text("Ada, Miles, Nina")

    with page.expect_download() as download:
        page.click("text=Download")

    assert "1002,Glide,24,True" in download.value.path().read_text()
    page.click("text=Stream")
    expect(page.locator(".rows .paid")).to_have_count(6)
    page.click("text=Sign out")
    shop.wait_for("View Parts", 2)
    shop.wait_for("Test Part", 6)
    shop.wait_for("Sign Out")

    came = [(event(one), one.strategy) for one in shop.events]
    assert sorted(came) == sorted(
        [
            ("View Parts", "ClientSide"),
            ("View Part", "ClientSide"),
            ("Add to Cart", "CapableClientSide"),
            ("View Cart", "ClientSide"),
            ("Sign Up", "ClientSide"),
            ("Welcome", "ClientSide"),
            ("View Cart", "ClientSide"),
            ("Place Order", "ClientSide"),
            ("View Thanks", "ClientSide"),
            ("Pay Order", "AsyncServerSide"),
            ("Place Order", "CapableClientSide"),
            *[("Renew Subscription", "AsyncServerSide")] * 3,
            ("Download Orders", "AsyncServerSide"),
            *[("Test Part", "AsyncServerSide")] * 6,
            ("Sign Out", "AsyncServerSide"),
            ("View Parts", "ClientSide"),
        ]
    )
    assert [one for one in shop.store.arrivals() if one.problem] == []
    assert violations == []

    people = [(event(one), one.person) for one in shop.events]
    of_nina = {who for name, who in people if name not in {*SHARED, *JOB}}
    (nina,) = of_nina
    assert nina.startswith("nina-")

    # What the browser did before she signed up is hers; what it does now isn't.
    first, second = (who for name, who in people if name in SHARED)
    assert first == nina != second


def test_what_was_delayed_is_shown_with_each_way_it_went(
    shop: Example, page: Page
) -> None:
    page.goto(f"{shop.url}/sign-up")
    page.fill("[name=name]", "Nina")
    page.fill("[name=email]", "nina@example.com")
    page.click("main button")
    shop.wait_for("Sign Up")
    (one,) = (one for one in shop.events if event(one) == "Sign Up")

    assert [(flush["strategy"], flush["during"]) for flush in one.flushes] == [
        ("Delayed", "POST /sign-up"),
        ("ClientSide", "GET /"),
    ]


def test_the_inspector_beside_the_shop_shows_what_happens(
    shop: Example, page: Page
) -> None:
    page.set_viewport_size({"width": 1280, "height": 860})
    page.goto(shop.url)
    inspector = page.frame_locator("iframe")

    expect(inspector.locator("#list")).to_contain_text("View Parts")
    page.click("text=Phone app")
    expect(inspector.locator("#list")).to_contain_text("Place Order")


def test_the_inspector_stays_closed_when_it_was_closed(
    shop: Example, page: Page
) -> None:
    page.set_viewport_size({"width": 1280, "height": 860})
    page.goto(shop.url)
    page.click("#close-dock")
    expect(page.locator("#dock")).to_be_hidden()
    page.reload()
    expect(page.locator("#dock")).to_be_hidden()
    page.click("#open-dock")
    expect(page.locator("#dock")).to_be_visible()


def test_a_phone_shows_the_inspector_when_asked(shop: Example, page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(shop.url)
    expect(page.locator("#dock")).to_be_hidden()
    page.click("#open-dock")
    inspector = page.frame_locator("iframe")

    expect(inspector.locator("#list")).to_contain_text("View Parts")


@pytest.mark.parametrize("width", [360, 390, 1000, 1280])
def test_no_page_is_wider_than_the_screen(
    shop: Example, page: Page, width: int
) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(f"{shop.url}/sign-in")
    page.click("text=Ada")
    page.click("[aria-label='Add Cue to the cart']")
    expect(page.locator("#count")).to_have_text("1")

    for path in ["/", "/parts/cue", "/cart", "/orders", "/sign-up", "/sign-in"]:
        page.goto(shop.url + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path


def test_the_shop_works_without_a_script(shop: Example, browser: Browser) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(shop.url)
    page.click("[aria-label='Add Cue to the cart']")

    assert page.url == f"{shop.url}/cart"
    expect(page.locator(".rows")).to_contain_text("Cue")
    context.close()


def test_without_the_library_the_page_says_so_and_hands_its_calls_back(
    page: Page, tmp_path: pathlib.Path
) -> None:
    shop = Example(tmp_path, tmp_path / "none.js")
    page.route("https://cdn.mxpnl.com/**", lambda route: route.abort())
    page.goto(shop.url)
    expect(page.locator("#no-library")).to_be_visible()
    shop.wait_for("View Parts")

    (one,) = shop.events
    assert [flush["strategy"] for flush in one.flushes] == [
        "ClientSide",
        "AsyncServerSide",
    ]
    shop.close()
