"""Consent, and the policies that pages are under."""

from __future__ import annotations

import collections.abc as c
import secrets
import typing as t

import pytest
from flask import Flask, g, request
from flask_talisman import Talisman
from journey import (
    BY_FETCH,
    BY_XHR,
    LOADED,
    SERVER_ONLY,
    OpenShop,
    Shop,
    arrive,
    cookies,
)
from playwright.sync_api import Browser, BrowserContext
from playwright.sync_api import Page as Tab
from script_pages import without_errors

from needs import need
from waiting import wait_until

pytestmark = pytest.mark.browsers(
    "chromium",
    why="the same Python decides; what policies do, test_journey.py tries in both",
)


@pytest.fixture
def requests(page: Tab) -> list[str]:
    """The URLs that the tab asks for."""
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    return asked


def _walk(shop: Shop, page: Tab) -> None:
    """Go through the shop in every way there is."""
    page.goto(shop.url)
    page.evaluate(BY_FETCH, 1)
    page.goto(f"{shop.url}/old")
    page.goto(f"{shop.url}/go?to=/products/1")
    page.evaluate(BY_XHR, 2)
    page.click("text=Sign up")
    page.wait_for_url("**/welcome")
    page.wait_for_load_state("load")


def _assert_silence(shop: Shop, page: Tab, requests: list[str]) -> None:
    """Nothing was recorded, stored or sent, and of what stands in for the library no
    more was loaded than the script."""
    with shop.app.app_context():
        assert shop.mengpaneel.drain(60)
        assert shop.mengpaneel.ledger().delivered == 0

    assert shop.inspector.arrivals() == []
    assert _telling(requests) == []
    assert {name for name in cookies(page.context) if "mp" in name} == set()
    assert page.evaluate("localStorage.length + sessionStorage.length") == 0
    assert shop.errors.lines == []


def _telling(requests: list[str]) -> list[str]:
    """The requests to Mixpanel, for its library, or by the script to the app."""
    ours = [url for url in requests if "mixpanel" in url or "_mengpaneel" in url]
    return [url for url in ours if "/_mengpaneel/static/" not in url]


@pytest.mark.parametrize("signal", ["DNT", "Sec-GPC"])
@pytest.mark.parametrize("options", [{}, {"strategies": SERVER_ONLY}])
def test_a_browser_that_says_no_meets_silence(
    open_shop: OpenShop,
    page: Tab,
    requests: list[str],
    signal: str,
    options: dict[str, t.Any],
) -> None:
    shop = open_shop(**options)
    page.context.set_extra_http_headers({signal: "1"})
    _walk(shop, page)
    _assert_silence(shop, page, requests)


def test_signals_count_for_nothing_where_the_app_says_so(
    open_shop: OpenShop, page: Tab
) -> None:
    shop = open_shop(respect_dnt=False)
    page.context.set_extra_http_headers({"DNT": "1", "Sec-GPC": "1"})
    arrive(page, shop.url)
    shop.settle(page)
    assert shop.names == ["Land", "Fence"]


#: What browsers that say no have, at which the library looks too.
SAYS_NO = """
for (const [name, value] of [["doNotTrack", "1"], ["globalPrivacyControl", true]])
    Object.defineProperty(Navigator.prototype, name, {get: () => value})
"""


@pytest.fixture
def refusing(browser: Browser) -> c.Iterator[Tab]:
    """A tab of a browser that says no, with headers and properties."""
    if browser.browser_type.name == "firefox":
        browser = browser.browser_type.launch(
            channel="moz-firefox",
            executable_path=need("firefox"),
            firefox_user_prefs={
                "privacy.donottrackheader.enabled": True,
                "privacy.globalprivacycontrol.enabled": True,
            },
        )

        with without_errors(browser.new_page()) as page:
            yield page

        browser.close()
    else:
        context = browser.new_context(extra_http_headers={"DNT": "1", "Sec-GPC": "1"})
        context.add_init_script(SAYS_NO)

        with without_errors(context.new_page()) as page:
            yield page

        context.close()


@pytest.mark.browsers("chromium", "firefox")
@pytest.mark.parametrize("options", [{"respect_dnt": False}, {"consent": lambda: True}])
def test_the_library_does_not_ask_again_where_the_app_has_decided(
    open_shop: OpenShop, refusing: Tab, options: dict[str, t.Any]
) -> None:
    shop = open_shop(**options)
    page = refusing
    arrive(page, shop.url)
    assert page.evaluate("navigator.doNotTrack") == "1"
    assert page.evaluate("navigator.globalPrivacyControl") is True
    page.evaluate(BY_FETCH, 1)
    shop.settle(page)
    shop.check()
    assert {"Land", "Add To Cart 1"} <= set(shop.names)
    assert not page.evaluate("mixpanel.has_opted_out_tracking()")


@pytest.mark.parametrize("options", [{}, {"strategies": SERVER_ONLY}])
def test_a_refused_consent_is_silence(
    open_shop: OpenShop, page: Tab, requests: list[str], options: dict[str, t.Any]
) -> None:
    shop = open_shop(consent=lambda: False, **options)
    _walk(shop, page)
    _assert_silence(shop, page, requests)


@pytest.mark.parametrize("options", [{}, {"strategies": SERVER_ONLY}])
def test_nothing_is_sent_or_loaded_until_there_is_an_answer(
    open_shop: OpenShop, page: Tab, requests: list[str], options: dict[str, t.Any]
) -> None:
    shop = open_shop(consent="journey.by_session", **options)
    _walk(shop, page)
    _assert_silence(shop, page, requests)


#: What a page's own code calls, each of which the library has.
CALLS = """() => {
    mixpanel.track("Clicked", {Number: -1}, {send_immediately: true});
    mixpanel.people.set({Plan: "pro"});
    mixpanel.get_group("Company", "acme").set({Seats: 12});
    mixpanel.init("TOKEN", {debug: false});
    mixpanel.time_event("Clicked");
}"""


@pytest.mark.browsers("chromium", "firefox")
def test_calls_of_a_page_without_consent_do_nothing(
    open_shop: OpenShop, page: Tab, requests: list[str]
) -> None:
    answers = {"/quiet?asked": None}
    shop = open_shop(consent=lambda: answers.get(request.full_path, False))
    page.goto(f"{shop.url}/quiet?refused")
    page.evaluate(CALLS)
    # A page without a place for the script has none of this.
    page.goto(f"{shop.url}/quiet?asked")
    page.evaluate(CALLS)
    page.evaluate("Mengpaneel.consent(false)")
    page.evaluate(CALLS)
    _assert_silence(shop, page, requests)


@pytest.mark.browsers("chromium", "firefox")
@pytest.mark.parametrize("persistence", ["cookie", "localStorage"])
def test_calls_of_a_page_go_out_when_consent_comes(
    open_shop: OpenShop, page: Tab, requests: list[str], persistence: str
) -> None:
    shop = open_shop(
        consent="journey.by_session", client_config={"persistence": persistence}
    )
    page.goto(f"{shop.url}/products/1")
    page.evaluate(CALLS)
    _assert_silence(shop, page, requests)
    page.evaluate("fetch('/answer/yes').then(answer => answer.text())")
    page.evaluate("Mengpaneel.consent(true)")
    page.wait_for_function(LOADED)
    page.evaluate(BY_FETCH, 1)
    arrive(page, f"{shop.url}/products/2")
    shop.settle(page)
    assert shop.inspector.events("Clicked")[1:] == []
    people = shop.people()
    assert set(people) == {-1, *(entry.number for entry in shop.book)}
    assert len(set(people.values())) == 1


def test_calls_of_a_page_before_a_refusal_stay_refused(
    open_shop: OpenShop, page: Tab
) -> None:
    shop = open_shop(consent="journey.by_session")
    page.goto(f"{shop.url}/quiet")
    page.evaluate("mixpanel.track('Before', {}, {send_immediately: true})")
    page.evaluate("Mengpaneel.consent(false)")
    page.evaluate("mixpanel.track('Between', {}, {send_immediately: true})")
    page.evaluate("Mengpaneel.consent(true)")
    page.evaluate("mixpanel.track('After', {}, {send_immediately: true})")
    wait_until(lambda: shop.inspector.events("After"))
    assert [event["event"] for event in shop.inspector.events()] == ["After"]


@pytest.mark.parametrize("options", [{}, {"strategies": SERVER_ONLY}])
def test_what_was_held_arrives_when_consent_comes(
    open_shop: OpenShop, page: Tab, options: dict[str, t.Any]
) -> None:
    shop = open_shop(consent="journey.by_session", **options)
    _walk(shop, page)
    page.goto(f"{shop.url}/answer/yes")
    page.goto(f"{shop.url}/products/2")
    shop.settle(page)
    shop.check()
    assert set(shop.people().values()) == {"ann"}


@pytest.mark.parametrize("options", [{}, {"strategies": SERVER_ONLY}])
def test_what_was_held_is_gone_when_consent_is_refused(
    open_shop: OpenShop, page: Tab, requests: list[str], options: dict[str, t.Any]
) -> None:
    shop = open_shop(consent="journey.by_session", **options)
    _walk(shop, page)
    page.goto(f"{shop.url}/answer/no")
    page.goto(f"{shop.url}/products/2")
    _assert_silence(shop, page, requests)
    # Nor does it come back when the visitor thinks better of it.
    page.goto(f"{shop.url}/answer/yes")
    page.goto(f"{shop.url}/products/3")
    wait_until(lambda: "View Product 3" in shop.names)
    assert shop.names == ["View Product 3"]


@pytest.mark.parametrize("options", [{}, {"strategies": SERVER_ONLY}])
def test_opting_out_in_a_view_takes_effect_at_once(
    open_shop: OpenShop, page: Tab, requests: list[str], options: dict[str, t.Any]
) -> None:
    shop = open_shop(**options)
    page.goto(shop.url)
    wait_until(lambda: shop.names == ["Land"])
    page.goto(f"{shop.url}/opt-out")

    if not options:
        # On the very page: neither calls of the server nor of the page itself.
        page.evaluate("window.mixpanel && mixpanel.track && mixpanel.track('Page')")

    before = len(shop.book)
    requests.clear()
    page.evaluate(BY_FETCH, 1)
    page.goto(f"{shop.url}/go?to=/products/1")
    page.evaluate(BY_XHR, 2)
    assert len(shop.book) == before + 4

    with shop.app.app_context():
        assert shop.mengpaneel.drain(60)

    assert _telling(requests) == []
    assert shop.names == ["Land"]
    assert shop.inspector.events("After Opt-out") == []
    assert shop.inspector.events("Page") == []
    assert "mp_TOKEN_mixpanel" not in cookies(page.context)


@pytest.mark.parametrize("options", [{}, {"strategies": SERVER_ONLY}])
def test_opting_in_again_in_a_view_takes_effect_at_once(
    open_shop: OpenShop, page: Tab, options: dict[str, t.Any]
) -> None:
    shop = open_shop(**options)
    page.goto(f"{shop.url}/opt-out")
    page.goto(f"{shop.url}/products/1")
    page.goto(f"{shop.url}/opt-in")

    if not options:
        page.wait_for_function(LOADED)
        assert page.evaluate("mixpanel.has_opted_out_tracking()") is False

    page.evaluate(BY_FETCH, 1)
    page.goto(f"{shop.url}/products/2")
    wait_until(lambda: len(shop.names) == 3)
    assert shop.names == ["Opt In", "Add To Cart 1", "View Product 2"]


def test_the_librarys_own_opt_out_holds_on_the_server(
    open_shop: OpenShop, page: Tab, context: BrowserContext
) -> None:
    shop = open_shop()
    arrive(page, shop.url)
    wait_until(lambda: shop.names == ["Land"])
    page.evaluate("mixpanel.opt_out_tracking()")
    page.evaluate(BY_FETCH, 1)
    page.goto(f"{shop.url}/old")
    page.goto(f"{shop.url}/products/1")

    with shop.app.app_context():
        assert shop.mengpaneel.drain(60)

    assert not page.evaluate(LOADED)
    assert shop.names == ["Land"]


# -- Content-Security-Policy and Trusted Types


NONCE = "'nonce-NONCE'"
TRUSTED = "require-trusted-types-for 'script'"


@pytest.fixture
def complaints(page: Tab) -> list[str]:
    """What the browser says that policies forbid."""
    lines: list[str] = []
    page.on("console", lambda line: lines.append(line.text))
    return lines


def _assert_all_ways(shop: Shop, page: Tab, complaints: list[str]) -> None:
    """The library runs, and a page's calls and those of a header are made by it."""
    arrive(page, f"{shop.url}/go?to=/products/1")
    page.evaluate(BY_FETCH, 1)
    shop.settle(page)
    shop.check()
    assert list(shop.ways.values()) == [
        ["Delayed", "ClientSide"],
        ["ClientSide"],
        ["CapableClientSide"],
        ["CapableClientSide"],
    ]
    assert complaints == []


def _nonce() -> str:
    if "nonce" not in g:
        g.nonce = secrets.token_urlsafe(16)

    return t.cast(str, g.nonce)


def _with_nonce(policy: str) -> c.Callable[[Flask], None]:
    """An app whose policy names a nonce, another one for each response."""

    def prepare(app: Flask) -> None:
        @app.after_request
        def after(response: t.Any) -> t.Any:
            value = policy.replace("NONCE", _nonce())
            response.headers["Content-Security-Policy"] = value
            return response

    return prepare


@pytest.mark.parametrize(
    "policy",
    [
        f"script-src {NONCE}",
        f"default-src 'none'; script-src {NONCE}; connect-src 'self'; img-src data:",
        f"script-src {NONCE} 'strict-dynamic'; object-src 'none'; base-uri 'none'",
        f"script-src {NONCE} 'strict-dynamic'; {TRUSTED}",
        f"script-src 'self'; {TRUSTED}",
        f"script-src 'self'; {TRUSTED}; trusted-types mengpaneel",
    ],
)
def test_all_ways_work_under_a_policy(
    open_shop: OpenShop, page: Tab, complaints: list[str], policy: str
) -> None:
    shop = open_shop(
        prepare=_with_nonce(policy), csp_nonce=_nonce if "NONCE" in policy else None
    )
    shop.bare = True
    _assert_all_ways(shop, page, complaints)


# Loopback has no TLS.
_PLAIN = {
    "force_https": False,
    "session_cookie_secure": False,
    "strict_transport_security": False,
}
_STRICT = {
    **_PLAIN,
    "content_security_policy": {
        "default-src": "'none'",
        "script-src": "'self'",
        "connect-src": "'self'",
        "img-src": "'self' data:",
        "base-uri": "'none'",
        "form-action": "'self'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
    },
    "frame_options": "DENY",
    "session_cookie_samesite": "Strict",
    "permissions_policy": {"browsing-topics": "()", "geolocation": "()"},
}
_NONCE = {
    **_PLAIN,
    "content_security_policy": {
        "default-src": "'none'",
        "script-src": "'strict-dynamic'",
        "connect-src": "'self'",
    },
    "content_security_policy_nonce_in": ["script-src"],
}


@pytest.mark.parametrize("first", ["talisman", "mengpaneel"])
@pytest.mark.parametrize(
    "settings", [_PLAIN, _STRICT, _NONCE], ids=["default", "strict", "nonce"]
)
def test_all_ways_work_with_talisman(
    open_shop: OpenShop,
    page: Tab,
    complaints: list[str],
    settings: dict[str, t.Any],
    first: str,
) -> None:
    def nonce() -> str:
        return t.cast(str, getattr(request, "csp_nonce", ""))

    def init(app: Flask) -> None:
        Talisman(app, **settings)

    order = {"prepare" if first == "talisman" else "finish": init}
    shop = open_shop(csp_nonce=nonce if settings is _NONCE else None, **order)
    shop.bare = True
    _assert_all_ways(shop, page, complaints)


def test_a_page_whose_policy_shuts_the_library_out_loses_nothing(
    open_shop: OpenShop, page: Tab
) -> None:
    shop = open_shop(headers={"Content-Security-Policy": "script-src 'none'"})
    page.goto(f"{shop.url}/go?to=/products/1")
    shop.headers = {}
    arrive(page, f"{shop.url}/products/2")
    shop.settle(page)
    shop.check()
