"""Pages as front-end developers build them, with the whole extension: what the views
recorded arrives once, whoever asks for their answers."""

from __future__ import annotations

import json
import typing as t
from urllib.parse import quote

import pytest
from flask import Response, redirect, request
from journey import LIBRARY, LOADED, TOKEN, OpenShop, Shop, arrive
from playwright.sync_api import Page as Tab
from playwright.sync_api import expect

from needs import need_npm
from waiting import wait_until

pytestmark = pytest.mark.browsers(
    "chromium",
    why="the libraries make the same requests; one of each kind runs in both",
)


@pytest.fixture
def shop(open_shop: OpenShop) -> Shop:
    return open_shop()


def script(package: str, path: str) -> str:
    """An element that loads a file of an npm package."""
    need_npm(package)
    return f'<script src="/npm/{package}/dist/{path}"></script>'


def add_page(shop: Shop, path: str, body: str = "", *, head: str = "") -> None:
    """Let the shop have a page of its own kind, which tracks that it was viewed."""

    def view() -> str:
        shop.track(f"View {path}")
        return (
            f"<!doctype html><html><head><title>{path}</title>{head}</head>"
            f"<body><h1>{path}</h1>{body}</body></html>"
        )

    shop.app.add_url_rule(path, f"page {path}", view)


def add_answer(
    shop: Shop, path: str, text: str, content_type: str = "text/html"
) -> None:
    """Let the shop answer a request of a script, whatever its method."""

    def view() -> Response:
        shop.track(f"{request.method} {path}")
        return Response(text, content_type=content_type)

    methods = ["GET", "POST", "PUT"]
    shop.app.add_url_rule(path, f"answer {path}", view, methods=methods)


def way_of(shop: Shop, event: str) -> list[str]:
    """The strategies that took the events of this name."""
    numbers = [entry.number for entry in shop.book if entry.event == event]
    return [way for number in numbers for way in shop.ways[number]]


def count(shop: Shop, event: str) -> int:
    """How many events of this name Mixpanel has."""
    return [one["event"] for one in shop.inspector.events()].count(event)


# -- libraries that make requests

REQUESTS = {
    "jQuery 1 get": ("jquery-1", "jQuery.get('/answer')"),
    "jQuery 1 post": ("jquery-1", "jQuery.post('/answer', {a: 1})"),
    "jQuery 1 ajax": ("jquery-1", "jQuery.ajax({url: '/answer', type: 'PUT'})"),
    "jQuery 1 load": (
        "jquery-1",
        "new Promise(done => jQuery('<p>').load('/answer', text => done(text)))",
    ),
    "jQuery get": ("jquery", "jQuery.get('/answer')"),
    "jQuery post": ("jquery", "jQuery.post('/answer', {a: 1})"),
    "jQuery ajax": ("jquery", "jQuery.ajax({url: '/answer', type: 'PUT'})"),
    "axios get": ("axios", "axios.get('/answer').then(r => r.data)"),
    "axios post": ("axios", "axios.post('/answer', {a: 1}).then(r => r.data)"),
    "axios instance": (
        "axios",
        "axios.create({baseURL: '/'}).put('answer').then(r => r.data)",
    ),
    "axios by fetch": (
        "axios",
        "axios.post('/answer', {a: 1}, {adapter: 'fetch'}).then(r => r.data)",
    ),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_each_request_of_a_library_makes_its_calls_once(
    shop: Shop, page: Tab, name: str
) -> None:
    package, code = REQUESTS[name]
    path = "axios.min.js" if package == "axios" else "jquery.min.js"
    add_page(shop, "/home", head=script(package, path))
    add_answer(shop, "/answer", "<b>fine</b>")
    arrive(page, f"{shop.url}/home")

    for _ in range(2):
        found = page.evaluate(f"async () => await {code}")
        assert found == "<b>fine</b>"

    shop.settle(page)
    shop.check()
    (event,) = {entry.event for entry in shop.book if "/answer" in entry.event}
    assert way_of(shop, event) == ["CapableClientSide"] * 2


# -- htmx


def htmx() -> str:
    return script("htmx.org", "htmx.min.js")


@pytest.mark.browsers("chromium", "firefox")
def test_htmx_swaps_by_attributes(shop: Shop, page: Tab) -> None:
    body = """
    <button id="get" hx-get="/part" hx-target="main">Get</button>
    <form hx-post="/saved" hx-swap="outerHTML"><button id="post">Save</button></form>
    <main></main>
    """
    add_page(shop, "/home", body, head=htmx())
    # What is swapped in asks for more as soon as it is there.
    add_answer(shop, "/part", '<p id="part" hx-get="/more" hx-trigger="load">...</p>')
    add_answer(shop, "/more", "more")
    add_answer(shop, "/saved", '<p id="saved">saved</p>')
    arrive(page, f"{shop.url}/home")
    page.click("#get")
    expect(page.locator("#part")).to_have_text("more")
    page.click("#post")
    expect(page.locator("#saved")).to_have_text("saved")
    shop.settle(page)
    shop.check()
    assert shop.names == [
        "View /home",
        "GET /part",
        "GET /more",
        "POST /saved",
        "Fence",
    ]
    assert way_of(shop, "GET /more") == ["CapableClientSide"]


def test_htmx_swaps_out_of_band(shop: Shop, page: Tab) -> None:
    body = """
    <button id="add" hx-post="/added" hx-target="main">Add</button>
    <main></main><i id="count">0</i>
    """
    add_page(shop, "/home", body, head=htmx())
    added = '<p>added</p><i id="count" hx-swap-oob="true">1</i>'
    add_answer(shop, "/added", added)
    arrive(page, f"{shop.url}/home")

    for _ in range(2):
        with page.expect_response("**/added"):
            page.click("#add")

    expect(page.locator("main")).to_have_text("added")
    expect(page.locator("#count")).to_have_text("1")
    shop.settle(page)
    shop.check()
    assert shop.names.count("POST /added") == 2


def test_htmx_boosted_pages_are_viewed_once_each(shop: Shop, page: Tab) -> None:
    body = """
    <a id="one" href="/one" hx-boost="true">One</a>
    <a id="two" href="/two" hx-boost="true">Two</a>
    <a id="three" href="/three">Three</a>
    <form action="/saved" method="post" hx-boost="true"><button>Save</button></form>
    """
    for path in ["/one", "/two", "/three"]:
        add_page(shop, path, body, head=htmx())

    def save() -> t.Any:
        shop.track("Save")
        return redirect("/one")

    shop.app.add_url_rule("/saved", "saved", save, methods=["POST"])
    arrive(page, f"{shop.url}/one")
    page.evaluate("window.same = true")
    page.click("#two")
    expect(page.locator("h1")).to_have_text("/two")
    page.click("form button")
    expect(page.locator("h1")).to_have_text("/one")
    page.click("#two")
    expect(page.locator("h1")).to_have_text("/two")
    page.go_back()
    expect(page.locator("h1")).to_have_text("/one")
    assert page.evaluate("window.same")
    page.click("#three")
    expect(page.locator("h1")).to_have_text("/three")
    page.wait_for_function(LOADED)
    assert not page.evaluate("window.same")
    shop.settle(page)
    shop.check()
    assert "Save" in shop.names
    assert shop.names.count("View /two") == 2


# -- Turbo


def turbo() -> str:
    return script("@hotwired/turbo", "turbo.es2017-umd.js")


# A page that was here before is asked for when its preview is shown: Turbo leaves the
# preview out where the answer comes before the next frame.
ASK_AFTER_THE_PREVIEW = """() => {
    const seen = new Set([location.href]);
    let resume = null;
    window.previews = 0;

    addEventListener("turbo:before-fetch-request", (event) => {
        if (seen.has(event.detail.url.href)) {
            event.preventDefault();
            resume = event.detail.resume;
        }
        seen.add(event.detail.url.href);
    });
    addEventListener("turbo:render", () => {
        if (document.documentElement.hasAttribute("data-turbo-preview")) {
            window.previews += 1;
            resume();
        }
    });
}"""


@pytest.mark.browsers("chromium", "firefox")
def test_turbo_visits_and_previews_make_each_pages_calls_once(
    shop: Shop, page: Tab
) -> None:
    body = '<a id="one" href="/one">One</a> <a id="two" href="/two">Two</a>'

    for path in ["/one", "/two"]:
        add_page(shop, path, body, head=turbo())

    arrive(page, f"{shop.url}/one")
    page.evaluate(ASK_AFTER_THE_PREVIEW)

    for name in ["two", "one", "two"]:
        with page.expect_response(f"**/{name}"):
            page.evaluate("name => document.getElementById(name).click()", name)

        page.wait_for_selector(
            f"html:not([data-turbo-preview]):not([aria-busy]) h1:text-is('/{name}')"
        )

    # From the cache, without asking.
    page.go_back()
    page.wait_for_selector("h1:text-is('/one')")
    assert page.evaluate("window.previews") == 2
    shop.settle(page)

    # While its preview is shown, a page that is asked for has its address already;
    # else it has that of the page before.
    for entry, path in zip(shop.book[2:4], ["/one", "/two"], strict=True):
        entry.url = shop.url + path

    shop.check()
    names = ["View /one", "View /two", "View /one", "View /two", "Fence"]
    assert shop.names == names
    assert way_of(shop, "View /two") == ["CapableClientSide"] * 2


def test_a_turbo_visit_that_was_fetched_in_advance_makes_its_calls_once(
    shop: Shop, page: Tab
) -> None:
    add_page(shop, "/one", '<a id="two" href="/two">Two</a>', head=turbo())
    add_page(shop, "/two", head=turbo())
    arrive(page, f"{shop.url}/one")

    with page.expect_response("**/two"):
        page.hover("#two")

    page.click("#two")
    page.wait_for_selector("h1:text-is('/two')")
    shop.settle(page)
    shop.check()
    assert shop.names == ["View /one", "View /two", "Fence"]


def test_turbo_forms_follow_redirects(shop: Shop, page: Tab) -> None:
    form = '<form action="/saved" method="post"><button>Save</button></form>'
    add_page(shop, "/one", form, head=turbo())
    add_page(shop, "/two", head=turbo())

    def save() -> t.Any:
        shop.identify("ann")
        shop.track_of("ann", "Save")
        return redirect("/two", 303)

    shop.app.add_url_rule("/saved", "saved", save, methods=["POST"])
    arrive(page, f"{shop.url}/one")
    page.click("form button")
    page.wait_for_selector("h1:text-is('/two')")
    shop.settle(page)
    shop.check()
    assert shop.names == ["View /one", "Save", "View /two", "Fence"]


def test_turbo_frames_make_their_calls_once(shop: Shop, page: Tab) -> None:
    body = """
    <turbo-frame id="eager" src="/eager"></turbo-frame>
    <turbo-frame id="linked"><a id="go" href="/linked">Go</a></turbo-frame>
    """
    add_page(shop, "/home", body, head=turbo())
    add_page(shop, "/eager", '<turbo-frame id="eager">soon</turbo-frame>')
    add_page(shop, "/linked", '<turbo-frame id="linked">later</turbo-frame>')
    arrive(page, f"{shop.url}/home")
    expect(page.locator("#eager")).to_have_text("soon")
    page.click("#go")
    expect(page.locator("#linked")).to_have_text("later")
    shop.settle(page)
    shop.check()
    assert shop.names == ["View /home", "View /eager", "View /linked", "Fence"]
    assert way_of(shop, "View /linked") == ["CapableClientSide"]


def test_turbo_streams_make_their_calls_once(shop: Shop, page: Tab) -> None:
    body = """
    <form action="/stream" method="post"><button>Add</button></form>
    <ul id="list"></ul>
    """
    add_page(shop, "/home", body, head=turbo())
    stream = (
        '<turbo-stream action="append" target="list">'
        "<template><li>added</li></template></turbo-stream>"
    )
    add_answer(shop, "/stream", stream, "text/vnd.turbo-stream.html")
    arrive(page, f"{shop.url}/home")

    for number in [1, 2]:
        page.click("form button")
        expect(page.locator("li")).to_have_count(number)

    shop.settle(page)
    shop.check()
    assert way_of(shop, "POST /stream") == ["CapableClientSide"] * 2


# -- a page that never reloads


def test_a_single_page_app_has_each_event_on_its_own_page(
    shop: Shop, page: Tab
) -> None:
    add_page(shop, "/app", "<main></main>")
    add_answer(shop, "/answer", "fine")
    ask = "path => fetch(path, {method: 'POST'}).then(answer => answer.text())"
    arrive(page, f"{shop.url}/app")

    for number in range(3):
        page.evaluate("n => history.pushState({}, '', `/app/${n}`)", number)
        page.evaluate(ask, "/answer")

    page.evaluate(ask, "/api/sign-in?user=ann")
    page.evaluate(ask, "/answer")
    page.evaluate("history.back()")
    page.wait_for_url("**/app/1")
    page.evaluate(ask, "/answer")
    page.evaluate(ask, "/api/sign-out")
    page.evaluate("history.replaceState({}, '', '/app/out')")
    page.evaluate(ask, "/answer")
    shop.settle(page)
    shop.check()
    in_time = sorted(shop.arrived, key=lambda event: event["time"])
    answers = [event for event in in_time if event["event"] == "POST /answer"]
    pages = ["/app/0", "/app/1", "/app/2", "/app/2", "/app/1", "/app/out"]
    assert [event["$current_url"] for event in answers] == [
        shop.url + path for path in pages
    ]
    owners = [shop.people()[event["Number"]] for event in answers]
    assert owners[:5] == ["ann"] * 5
    assert owners[5] != "ann"


# -- frames


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_pages_inside_a_page_make_their_own_calls_once(
    shop: Shop, page: Tab, host: str
) -> None:
    inner = f"{shop.url}/inner"
    add_page(shop, "/inner", "<p>in</p>")
    add_page(shop, "/outer", f'<iframe src="{inner}"></iframe>')
    add_answer(shop, "/answer", "fine")
    arrive(page, f"{shop.url.replace('127.0.0.1', host)}/outer")
    frame = wait_until(lambda: page.frame(url=inner))
    frame.wait_for_function(LOADED)

    for one in [frame, page]:
        assert one.evaluate("fetch('/answer').then(answer => answer.text())") == "fine"

    shop.settle(page)
    shop.check()
    expected = ["View /outer", "View /inner", "GET /answer", "GET /answer"]
    assert shop.names[:4] == expected
    assert way_of(shop, "GET /answer") == ["CapableClientSide"] * 2


# -- the script


COPY = '<script src="/_mengpaneel/static/mengpaneel.js" {}></script>'


@pytest.mark.parametrize("attributes", ["", "defer", "async", "data-exclude='/none'"])
@pytest.mark.parametrize("place", ["head", "body"])
def test_a_copy_of_the_script_of_the_pages_own_changes_nothing(
    shop: Shop, page: Tab, place: str, attributes: str
) -> None:
    copy = COPY.format(attributes)
    in_head = place == "head"
    add_page(shop, "/home", "" if in_head else copy, head=copy if in_head else "")
    add_answer(shop, "/answer", "fine")
    arrive(page, f"{shop.url}/home")
    page.wait_for_load_state("load")
    page.evaluate("fetch('/answer').then(answer => answer.text())")
    shop.settle(page)
    shop.check()
    assert shop.names == ["View /home", "GET /answer", "Fence"]


#: Loads a script of the page's own, as one does that is to keep its place among others.
IN_ORDER = """
const script = document.createElement("script");
script.async = false;
script.src = "/npm/jquery/dist/jquery.slim.min.js";
script.onload = () => { window.isThere = true };
document.head.append(script);
"""


@pytest.mark.browsers("chromium", "firefox", why="each orders scripts by itself")
@pytest.mark.parametrize("is_known", [True, False])
def test_the_pages_own_scripts_wait_for_no_library(
    shop: Shop, page: Tab, is_known: bool
) -> None:
    if is_known:
        page.goto(f"{shop.url}/npm/jquery/package.json")
        page.evaluate("document.cookie = 'mp_TOKEN_mixpanel=%7B%7D; path=/'")

    shop.gates["library"].clear()
    body = quote(f"<script>{IN_ORDER}</script>")
    page.goto(f"{shop.url}/quiet?body={body}", wait_until="commit")
    page.wait_for_function("window.isThere")
    assert not shop.gates["library"].is_set()
    # The window is loaded when the library is.
    assert page.evaluate("document.readyState") == "interactive"
    assert not page.evaluate("mixpanel.__loaded")
    shop.gates["library"].set()
    page.wait_for_function(LOADED)


@pytest.mark.parametrize("excluded", ["", "/out", "/none /out"])
def test_an_excluded_path_may_redirect_to_another_origin(
    shop: Shop, page: Tab, excluded: str
) -> None:
    add_page(shop, "/home", head=COPY.format(f'data-exclude="{excluded}"'))
    elsewhere = shop.url.replace("127.0.0.1", "localhost") + "/elsewhere"

    def out() -> t.Any:
        shop.track("Go Out")
        return redirect(elsewhere)

    def foreign() -> Response:
        return Response("there", headers={"Access-Control-Allow-Origin": "*"})

    shop.app.add_url_rule("/out", "out", out)
    shop.app.add_url_rule("/elsewhere", "elsewhere", foreign)
    arrive(page, f"{shop.url}/home")
    found = page.evaluate("fetch('/out').then(answer => answer.text(), e => e.name)")
    # The other origin doesn't allow our header.
    assert found == ("there" if excluded else "TypeError")
    shop.settle(page)
    shop.check()
    assert shop.names == ["View /home", "Go Out", "Fence"]


# -- the library

SNIPPET = """
<script>
(function () {{
  var m = window.mixpanel = window.mixpanel || [];
  if (!m.__SV) {{
    m._i = []; m.people = []; m.__SV = 1.2;
    m.init = function (token, options, name) {{ m._i.push([token, options, name]); }};
    var s = document.createElement("script");
    s.async = true; s.src = "{library}"; document.head.appendChild(s);
  }}
  m.init("{token}", {options}, "mixpanel");
}})();
</script>
"""
BUNDLE = """
<script type="module">
import mixpanel from "/npm/mixpanel-browser/dist/mixpanel.module.js";
{init}
window.ready = true;
</script>
"""
INLINE = '<script>mixpanel.track("Inline")</script>'


def library(shop: Shop, choice: str) -> dict[str, str]:
    """What a page has of its own, where in it."""
    options = json.dumps(shop.app.extensions["mengpaneel"].config.init_options)
    snippet = SNIPPET.format(library=LIBRARY, token=TOKEN, options=options)
    bundled = f'mixpanel.init("{TOKEN}", {options}); Mengpaneel.use(mixpanel);'
    named = f'mixpanel.init("{TOKEN}", {options}, "own"); Mengpaneel.use(mixpanel.own);'
    return {
        "ours": {"body": INLINE},
        "snippet before": {"head": snippet},
        "snippet after": {"body": snippet},
        "snippet alone": {"body": snippet},
        "bundled": {"body": BUNDLE.format(init=bundled)},
        "named": {"body": BUNDLE.format(init=named)},
    }[choice]


@pytest.mark.parametrize(
    "choice",
    ["ours", "snippet before", "snippet after", "snippet alone", "bundled", "named"],
)
def test_whosever_library_it_is_each_call_is_made_once(
    open_shop: OpenShop, page: Tab, choice: str
) -> None:
    theirs = choice in {"snippet alone", "bundled", "named"}
    shop = open_shop(**({"library_url": None} if theirs else {}))
    options = library(shop, choice)
    body = options.get("body", "")
    add_page(shop, "/one", body, head=options.get("head", ""))
    add_page(shop, "/two", body, head=options.get("head", ""))
    add_answer(shop, "/answer", "fine")

    for path in ["/one", "/two"]:
        page.goto(shop.url + path)
        page.wait_for_function("() => window.ready" if "ready" in body else LOADED)
        page.wait_for_load_state("load")
        page.evaluate("fetch('/answer').then(answer => answer.text())")

    shop.settle(page)
    shop.check()
    pages = ["View /one", "GET /answer", "View /two", "GET /answer", "Fence"]
    assert shop.names == pages
    assert way_of(shop, "GET /answer") == ["CapableClientSide"] * 2
    devices = {event["$device_id"] for event in shop.arrived}
    assert len(devices) == 1

    if choice == "ours":
        # What the page itself calls, before the library is there.
        assert wait_until(lambda: count(shop, "Inline") == 2)
