from __future__ import annotations

import json
import pathlib
import random
import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents import FIREFOX
from flask_mengpaneel.visitor.attribution import (
    CAMPAIGN,
    CLICK_IDS,
    cookie_domain,
    initial_referrer,
    page_properties,
    pageview_properties,
    search_properties,
)
from parity.visits import Agent, sent_by_library, visit

AGENT = Agent(FIREFOX, "", True)
FILE = pathlib.Path(__file__).parent.parent / "parity" / "pages.json"
PAGES: list[dict[str, str]] = json.loads(FILE.read_text("utf-8"))

OF_EVENTS = {
    *CAMPAIGN,
    *CLICK_IDS,
    "$current_url",
    "$initial_referrer",
    "$initial_referring_domain",
    "$referrer",
    "$referring_domain",
    "$search_engine",
    "mp_keyword",
}
OF_PAGEVIEWS = {
    *CAMPAIGN,
    *CLICK_IDS,
    "current_domain",
    "current_page_title",
    "current_url_path",
    "current_url_protocol",
    "current_url_search",
}

Sent = dict[str, t.Any]


@pytest.fixture(scope="module")
def sent() -> list[Sent]:
    """What the browser library sent, page by page."""
    return sent_by_library([visit(AGENT, **page) for page in PAGES])


@pytest.fixture(params=range(len(PAGES)))
def pair(request: pytest.FixtureRequest, sent: list[Sent]) -> tuple[Sent, Sent]:
    """A page, and what the browser library sent from it."""
    page = dict(PAGES[request.param])
    # What the server sees of the URL is what the browser made of it.
    page["url"] = sent[request.param]["url"]
    return page, sent[request.param]


def test_events_say_where_they_are_from_as_the_browser_library_does(
    pair: tuple[Sent, Sent],
) -> None:
    page, sent = pair
    ours = {
        **page_properties(page["url"], page["referrer"]),
        **search_properties(page["referrer"]),
        **initial_referrer(page["referrer"]),
    }

    assert ours == _only(OF_EVENTS, sent["events"][0]["properties"])


def test_page_views_are_described_as_the_browser_library_does(
    pair: tuple[Sent, Sent],
) -> None:
    page, sent = pair
    ours = pageview_properties(page["url"], page["title"])

    assert ours == _only(OF_PAGEVIEWS, sent["events"][1]["properties"])


def test_the_cookie_has_the_domain_that_the_browser_library_gives_it(
    pair: tuple[Sent, Sent],
) -> None:
    page, sent = pair
    host = page["url"].split("/")[2].rpartition("@")[2]
    domains = [
        attribute.removeprefix("domain=")
        for attribute in sent["cookie"]
        if attribute.startswith("domain=")
    ]

    assert cookie_domain(host) == (domains[0] if domains else None)


def _only(names: set[str], properties: dict[str, str]) -> dict[str, str]:
    # The library cuts through an emoji and sends half of it; nothing here does.
    return {
        name: value.encode("utf-8", "ignore").decode()
        for name, value in properties.items()
        if name in names
    }


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:5000", "127.0.0.1:5000", "[::1]:5000", "[::1]", ""]
)
def test_hosts_that_are_no_domains_get_a_cookie_of_their_own(host: str) -> None:
    assert cookie_domain(host) is None


def test_a_referrer_that_is_not_known_is_left_out() -> None:
    assert page_properties("https://example.com/", None) == {
        "$current_url": "https://example.com/"
    }


HOSTILE = [
    "x" * 10_000_000,
    "https://example.com/?utm_source=" + "%" * 10_000_000,
    "https://" + "a" * 10_000_000,
    "https://" + "a." * 5_000_000,
    "https://" + "@" * 10_000_000,
    "https://" + "google" * 1_000_000,
    "?&" * 5_000_000,
    "https://[",
    "https://[::1",
    "https://]:99999999/",
    "http://\x00\x01\r\n\u2028/?utm_source=\ud800",
    "\udfff" * 300,
    "https://example.com/?utm_source=%ED%A0%80%00",
    "://",
    "////////",
    "a" * 254 + "\U0001f45f" * 10,
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_urls_do_no_harm(text: str) -> None:
    _check(text)


@given(st.text() | st.text(alphabet="https:/?&=%.@[]#utm_sourceq\ud800\U0001f45f"))
def test_nothing_that_one_can_write_is_an_error(text: str) -> None:
    _check(text)


def _check(text: str) -> None:
    found = {
        **page_properties(text, text),
        **search_properties(text),
        **initial_referrer(text),
        **pageview_properties(text, text),
        "domain": cookie_domain(text) or "",
    }

    for value in found.values():
        assert len(value.encode("utf-16-le")) <= 2 * 255


def test_looking_at_a_long_url_takes_no_longer_than_at_any_other_of_its_kind() -> None:
    noise = random.Random(1).choices("a-.:/?&=%google", k=8192)

    # What backtracks over the square of the length would not end here.
    for _ in range(50):
        random.Random(2).shuffle(noise)
        _check("https://" + "".join(noise))
        _check("".join(noise))
