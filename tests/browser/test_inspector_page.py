"""The inspector's page, and the real browser library sending to it."""

from __future__ import annotations

import collections.abc as c
import json
import typing as t
from pathlib import Path

import pytest
from flask import Flask, Response, request, send_file
from playwright.sync_api import Browser, Page, expect

from flask_mengpaneel import Mengpaneel
from flask_mengpaneel.calls import Call, Source, SourcedCall
from flask_mengpaneel.config import INSPECTOR_PREFIX
from flask_mengpaneel.deliver.hand_overs.news import NEVER_ACKNOWLEDGED
from flask_mengpaneel.inspector import Inspector, create_inspector_app
from flask_mengpaneel.outcome import Unrecorded
from mixpanel_records import event, people, track
from needs import need_npm
from servers import Server

pytestmark = pytest.mark.browsers(
    "chromium", why="a page for developers, of plain HTML; the same library sends to it"
)


STUB = """
window.mixpanel = [];
mixpanel.__SV = 1.2;
mixpanel.people = [];
mixpanel._i = [["token", JSON.parse(document.body.dataset.config), "mixpanel"]];
mixpanel.push(function () {
  this.track("Place Order", {Total: 42});
  this.identify("ada");
  this.people.set("Plan", "pro");
});
"""

LOW_CONTRAST = """
(selector) => {
  const canvas = document.createElement("canvas").getContext("2d");
  const luminance = (color) => {
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map((part) => {
      const value = part / 255;
      return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const back = (node) => {
    const color = getComputedStyle(node).backgroundColor;
    return color.endsWith(", 0)") ? back(node.parentElement) : color;
  };
  const contrast = (node) => {
    const [a, b] = [getComputedStyle(node).color, back(node)].map(luminance);
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  };
  return [...document.querySelectorAll(selector)]
    .filter((node) => node.innerText && contrast(node) < 4.5)
    .map((node) => `${node.className} ${node.innerText} ${contrast(node)}`);
}
"""


CUT_OFF = """
(selector) => [...document.querySelectorAll(selector)]
  .filter((node) => node.scrollWidth > node.clientWidth)
  .map((node) => node.innerText)
"""


class Stand(Server):
    """An inspector, served, with a page beside it that tracks."""

    def __init__(self, path: Path) -> None:
        app = create_inspector_app(path)
        self.inspector: Inspector = app.extensions["mengpaneel_inspector"]
        self.config: dict[str, t.Any] = {}

        @app.get("/shop")
        def shop() -> str:
            config = json.dumps(self.config)
            return (
                f"<!doctype html><body data-config='{config}'>"
                "<script src=/stub.js></script><script src=/library.js></script>"
            )

        @app.get("/stub.js")
        def stub() -> Response:
            return Response(STUB, content_type="text/javascript")

        @app.get("/library.js")
        def library() -> Response:
            return send_file(need_npm("mixpanel-browser") / "dist/mixpanel.min.js")

        super().__init__(app)

    @property
    def page_url(self) -> str:
        return f"{self.url}{INSPECTOR_PREFIX}/"

    def send(self, endpoint: str, *records: t.Any) -> None:
        self.inspector.post(f"/{endpoint}", json.dumps(records).encode(), {})


@pytest.fixture
def stand(tmp_path: Path) -> c.Iterator[Stand]:
    with Stand(tmp_path / "inspector.sqlite3") as stand:
        yield stand


@pytest.fixture
def board(page: Page, stand: Stand) -> c.Iterator[Page]:
    """The inspector's page, open; nothing in it may break its policy or fail."""
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.goto(stand.page_url)
    expect(page.locator("#state")).to_have_text("Live")
    yield page
    assert complaints == []


def row(board: Page, text: str) -> t.Any:
    return board.locator("#list > li", has_text=text)


@pytest.mark.parametrize("host", ["", "http://127.0.0.1", "http://localhost"])
@pytest.mark.parametrize("batched", [True, False])
def test_the_real_library_sends_here(
    page: Page, stand: Stand, host: str, batched: bool
) -> None:
    """As a path, as a URL of the same origin, and as one of another."""
    port = stand.url.rpartition(":")[2]
    stand.config = {
        "api_host": f"{host and f'{host}:{port}'}{INSPECTOR_PREFIX}",
        "batch_requests": batched,
        "batch_flush_interval_ms": 200,
    }
    page.goto(f"{stand.url}/shop")
    # Of its own accord the library keeps where a visitor first came from.
    stand.inspector.wait_for(events=2, updates=2)

    assert {value["event"] for value in stand.inspector.events()} == {
        "Place Order",
        "$identify",
    }
    plans = [value.get("$set", {}).get("Plan") for value in stand.inspector.updates()]
    assert sorted(plans, key=str) == [None, "pro"]
    assert stand.inspector.refused() == []
    assert list(stand.inspector.events_by_person()) == ["ada"]


def test_an_empty_page_says_what_to_do(board: Page, stand: Stand) -> None:
    expect(board.locator("#empty")).to_be_visible()
    expect(board.locator("#empty")).to_contain_text(f"{stand.url}{INSPECTOR_PREFIX}")


def test_events_are_shown_as_they_arrive(board: Page, stand: Stand) -> None:
    value = event(Total=42)
    stand.inspector.store.add_flush(
        "ClientSide", {"Delayed": "not a redirect"}, [track(value)], "GET /thanks"
    )
    expect(row(board, "Place Order")).to_contain_text("not arrived yet")

    stand.send("track", value)
    expect(row(board, "Place Order")).not_to_contain_text("not arrived yet")
    expect(row(board, "Place Order")).to_have_count(1)
    expect(row(board, "Place Order").locator(".chip")).to_have_text("ClientSide")
    expect(board.locator("#empty")).to_be_hidden()
    expect(board.get_by_role("status")).to_have_text("1 arrived: Place Order")

    row(board, "Place Order").locator("summary").click()
    inside = row(board, "Place Order").locator(".inside")
    expect(inside).to_contain_text("GET /thanks")
    expect(inside).to_contain_text("not a redirect")
    expect(inside.locator("tr", has_text="Total").locator("td")).to_have_text("42")


@pytest.fixture
def shop(tmp_path: Path) -> c.Iterator[Server]:
    """An app with an inspector, and a page that tracks."""
    app = Flask(__name__, instance_path=str(tmp_path))
    app.secret_key = "secret"
    mengpaneel = Mengpaneel(
        app, token="token", inspector=True, library_url="/library.js", ack_timeout=4
    )

    @app.get("/")
    def page() -> str:
        mengpaneel.track("View Home")
        return "<!doctype html><title>Shop</title><body></body>"

    @app.get("/elsewhere")
    def elsewhere() -> str:
        mengpaneel.track("View Elsewhere")
        url = request.url_root
        mengpaneel.set_config({"api_host": f"{url}_mengpaneel/inspector"})
        return '<!doctype html><base href="http://elsewhere.test/"><body></body>'

    @app.get("/library.js")
    def library() -> Response:
        return send_file(need_npm("mixpanel-browser") / "dist/mixpanel.min.js")

    with Server(app) as server:
        yield server


def test_an_acknowledgement_is_shown_soon_after_the_page(
    page: Page, browser: Browser, shop: Server
) -> None:
    page.goto(shop.url)
    board = browser.new_page()
    board.goto(f"{shop.url}{INSPECTOR_PREFIX}/")
    expect(row(board, "View Home").locator(".device")).not_to_be_empty()
    row(board, "View Home").locator("summary").click()

    expect(row(board, "View Home").locator(".became")).to_have_text(
        "acknowledged by the browser"
    )
    expect(row(board, "View Home").locator(".mark")).to_have_text("acknowledged")
    board.close()


def test_a_page_whose_base_is_another_site_acknowledges_to_its_own(
    page: Page, shop: Server
) -> None:
    acks = "/_mengpaneel/acks"

    with page.expect_response(f"{shop.url}{acks}", timeout=20_000) as acknowledged:
        page.goto(f"{shop.url}/elsewhere")

    assert acknowledged.value.status == 204
    assert page.evaluate("document.baseURI") == "http://elsewhere.test/"


def test_what_the_server_sends_in_place_of_the_page_is_marked(
    page: Page, browser: Browser, shop: Server
) -> None:
    page.route("**/mengpaneel.js*", lambda route: route.abort())
    page.goto(shop.url)
    board = browser.new_page()
    board.goto(f"{shop.url}{INSPECTOR_PREFIX}/")
    expect(row(board, "View Home").locator(".mark")).to_have_text(
        "sent by the server", timeout=15_000
    )
    row(board, "View Home").locator("summary").click()

    expect(row(board, "View Home").locator(".became")).to_have_text(
        "sent by the server: never acknowledged"
    )
    board.close()


def test_the_newest_is_on_top_and_what_is_open_stays_open(
    board: Page, stand: Stand
) -> None:
    first = event("First")
    stand.send("track", first)
    row(board, "First").locator("summary").click()
    stand.send("track", event("Second"))
    stand.inspector.store.add_flush("AsyncServerSide", {}, [track(first)])

    expect(row(board, "First").locator(".chip")).to_have_text("AsyncServerSide")
    expect(board.locator("#list .name")).to_have_text(["Second", "First"])
    expect(row(board, "First").locator(".inside")).to_be_visible()


def test_what_mixpanel_would_do_is_marked(board: Page, stand: Stand) -> None:
    long = event("Long", Note="x" * 255 + "gone")
    stand.send("track", long, long, event("Nobody", distinct_id="undefined"))

    expect(row(board, "Nobody").locator(".mark")).to_have_text("refused")
    expect(row(board, "Long").first.locator(".mark")).to_have_text(["duplicate", "cut"])

    row(board, "Nobody").locator("summary").click()
    expect(row(board, "Nobody").locator(".notice")).to_contain_text("nobody's id")
    row(board, "Long").last.locator("summary").click()
    expect(row(board, "Long").last.locator("del")).to_have_text("gone")


def test_what_arrives_is_text_and_never_markup(board: Page, stand: Stand) -> None:
    evil = "<img src=x onerror='window.hacked = 1'></script><script>hacked = 1</script>"
    stand.send(
        "track",
        event(evil, distinct_id=evil, **{evil: evil, "list": [evil], "$browser": evil}),
    )
    stand.send("engage", {"$token": evil, "$distinct_id": evil, "$set": {evil: evil}})
    stand.inspector.store.add_flush(evil, {evil: evil}, [track(event("Waits"))], evil)
    expect(board.locator("#list > li")).to_have_count(3)

    for index in range(3):
        board.locator("summary").nth(index).click()

    expect(board.locator(".inside")).to_have_count(3)
    assert board.locator("#list img, #list script").count() == 0
    assert board.evaluate("typeof hacked") == "undefined"


def test_records_of_any_shape_are_shown(board: Page, stand: Stand) -> None:
    shapes = [None, 1, "text", [], {}, {"event": {}, "properties": []}]

    for endpoint in ("track", "engage", "groups"):
        stand.send(endpoint, *shapes)

    expect(board.locator("#list > li")).to_have_count(18)
    assert board.locator(".mark.error").count() == 18


def test_filters_narrow_the_list_down(board: Page, stand: Stand) -> None:
    stand.inspector.store.add_flush("ClientSide", {}, [track(event("Paged"))])
    stand.send(
        "track", event("Paged"), event("Hidden", distinct_id="bob", Colour="red")
    )
    stand.send(
        "engage", {"$token": "t", "$distinct_id": "ada", "$set": {"Plan": "pro"}}
    )
    names = board.locator("#list > li:visible .name")
    expect(names).to_have_count(3)

    board.get_by_role("button", name="ClientSide 1", exact=True).click()
    expect(names).to_have_text(["Paged"])
    # The page's address has what is chosen.
    board.reload()
    expect(names).to_have_text(["Paged"])
    board.get_by_role("button", name="All 3", exact=True).click()

    board.get_by_label("Kind").select_option("update")
    expect(names).to_have_text(["people.set"])
    board.reload()
    expect(names).to_have_text(["people.set"])
    board.get_by_label("Kind").select_option("")

    board.get_by_label("Person").select_option("bob")
    expect(names).to_have_text(["Hidden"])
    board.get_by_label("Person").select_option("")

    board.keyboard.press("Escape")
    board.locator("h1").click()
    board.keyboard.press("/")
    board.keyboard.type("RED")
    expect(names).to_have_text(["Hidden"])

    board.keyboard.type(" or nothing")
    board.get_by_role("button", name="Show everything").click()
    expect(names).to_have_count(3)


def test_it_finds_what_it_shows(board: Page, stand: Stand) -> None:
    store = stand.inspector.store
    sent = event("Place Order", Part="Dial", Note="la" * 50, Items=[{"sku": "A-1"}])
    call = SourcedCall(track(sent).wire, [Source("shop/views.py:42", "place_order")])
    declined = {"Delayed": "not a redirect"}
    store.add_flush("ClientSide", declined, [call], "POST /orders", hand_over="abc")
    stand.inspector.on_hand_over("abc", "sent", NEVER_ACKNOWLEDGED)
    stand.send("track", sent, event("Other", distinct_id="$device:3f2a9c1e-77d0"))
    reason = "the browser sends 'Sec-GPC: 1'"
    store.add_unrecorded(
        Unrecorded("track", "Banner", reason, "shop/ads.py:9", "GET /")
    )
    expect(board.locator("#list > li")).to_have_count(3)
    names = board.locator("#list > li:visible .name")

    for text, found in {
        "Part: Dial": "Place Order",
        "part:  dial · note: lala": "Place Order",
        '"Part": "Dial"': "Place Order",
        '"Part":"Dial"': "Place Order",
        '"sku": "A-1"': "Place Order",
        "la" * 50: "Place Order",
        "sent by the server": "Place Order",
        "not a redirect": "Place Order",
        "POST /orders": "Place Order",
        "shop/views.py:42": "Place Order",
        "device 3f2a9c1e": "Other",
        "not recorded": "Banner",
        "not known": "Banner",
        "sec-gpc": "Banner",
        "shop/ads.py:9": "Banner",
    }.items():
        board.get_by_label("Text").fill(text)
        expect(names).to_have_text([found])

    board.reload()
    expect(names).to_have_text(["Banner"])

    # What is drawn of each row finds it, word for word.
    board.get_by_label("Text").fill("")
    drawn = board.locator("#list > li").evaluate_all(
        """(rows) => rows.map((row) => [
            row.querySelector(".name").innerText,
            [...row.querySelectorAll(
                "time, .name, .brief, .mark, .chip, .person, .device"
            )]
                .map((part) => part.innerText),
        ])"""
    )

    for name, texts in drawn:
        for text in texts:
            board.get_by_label("Text").fill(text)
            expect(names.filter(has_text=name)).to_have_count(1)


def test_own_properties_come_before_what_went_along(board: Page, stand: Stand) -> None:
    campaign = {"utm_source": "news", "gclid": "abc"}
    own = {"Part": "Dial", "Price": 9}
    sent = event("Known", **campaign, Plan="pro", **own)
    call = track(sent)
    call.wire[1][1] = {**own, "$insert_id": sent["properties"]["$insert_id"]}
    stand.inspector.store.add_flush("ClientSide", {}, [call])
    # Of the page's own script, only the campaign is known for what it is.
    stand.send("track", sent, event("Foreign", **campaign, Part="Dial"))

    expect(row(board, "Known").locator(".brief")).to_have_text(
        "Part: Dial · Price: 9 · Plan: pro · utm_source: news"
    )
    expect(row(board, "Foreign").locator(".brief")).to_have_text(
        "Part: Dial · utm_source: news · gclid: abc"
    )
    row(board, "Known").locator("summary").click()
    expect(row(board, "Known").locator("caption")).to_have_text(
        ["Properties", "Super properties", "Campaign", "Added by the library"]
    )


def test_a_row_leads_to_its_line_its_person_and_has_an_address(
    board: Page, stand: Stand, browser: Browser
) -> None:
    sources = [
        Source("shop/tracking.py:7", "record"),
        Source("shop/views.py:42", "buy"),
    ]
    sent = event("Mine")
    call = SourcedCall(track(sent).wire, sources)
    stand.inspector.store.add_flush("ClientSide", {}, [call])
    row(board, "Mine").locator("summary").click()
    expect(row(board, "Mine").locator(".sources li")).to_have_text(
        ["shop/tracking.py:7 in record", "called from shop/views.py:42 in buy"]
    )
    waiting = board.url
    assert waiting.endswith("#c1")

    # What is open stays open when it arrives, and the address leads there as well.
    stand.send("track", sent, event("Others", distinct_id="bob"))
    expect(row(board, "Mine").locator(".chip")).to_have_text("ClientSide")
    expect(row(board, "Mine").locator(".mark")).to_have_count(0)
    expect(row(board, "Mine").locator(".sources")).to_be_visible()
    assert board.url.endswith("#a1")

    other = browser.new_page()
    other.goto(waiting.replace("#", "?person=bob#"))
    expect(row(other, "Mine").locator(".inside")).to_be_visible()
    assert other.url.endswith("#a1")
    # Also while others arrive, although it isn't bob's.
    stand.send("track", event("Later", distinct_id="bob"))
    expect(row(other, "Later")).to_be_visible()
    expect(row(other, "Mine")).to_be_visible()

    row(other, "Mine").get_by_role("link", name="Everything of this person").click()
    expect(other.locator("#list > li:visible .name")).to_have_text(["Mine"])
    assert other.url.endswith("?person=ada")
    other.go_back()
    expect(other.get_by_label("Person")).to_have_value("bob")

    other.goto(f"{stand.page_url}#a99")
    other.reload()
    expect(other.locator("#gone")).to_be_visible()
    other.close()


def test_what_became_of_a_call_is_told_apart(board: Page, stand: Stand) -> None:
    store, inspector = stand.inspector.store, stand.inspector

    for name in ("One", "Two", "Three", "Four", "Five"):
        strategy = "Delayed" if name == "Five" else "ClientSide"
        store.add_flush(strategy, {}, [track(event(name))], hand_over=name)

    inspector.on_hand_over("One", "acknowledged", "")
    inspector.on_hand_over("Two", "sent", NEVER_ACKNOWLEDGED)
    inspector.on_hand_over("Three", "dropped", "a robot's page")
    store.add_flush("AsyncServerSide", {}, [track(event("Six"))])
    store.add_failure([event("Six")["properties"]["$insert_id"]], "no answer")
    store.add_unrecorded(Unrecorded("track", "Seven", "no consent", "shop.py:7"))
    store.add_unrecorded(Unrecorded("people.set", "", "it waits in the session"))
    store.add_dropped([track(event("Eleven"))], "rolled back")

    # Without one property, and one that has arrived after all.
    for name, missing in (("Nine", ("Items[1].sku",)), ("Ten", ())):
        id = event(name)["properties"]["$insert_id"]
        told = Unrecorded("track", name, "it can't be sent", "", "", missing, id)
        store.add_unrecorded(told)

    stand.send("track", event("One"), event("Two"), event("Eight", distinct_id="null"))
    stand.send("track", event("Nine"), event("Ten"))
    expect(board.locator("#list > li")).to_have_count(12)
    expect(row(board, "Ten").locator(".mark")).to_have_count(0)
    # No strategy was asked, but the app has recorded it.
    expect(row(board, "Eleven").locator(".chip")).to_have_count(0)

    for name, mark in {
        "One": "acknowledged",
        "Two": "sent by the server",
        "Three": "not sent",
        "Four": "waits for the browser",
        "Five": "waits for a page",
        "Six": "not delivered",
        "Seven": "not recorded",
        "people.set()": "not sent",
        "Eight": "refused",
        "Nine": "property left out: Items[1].sku",
        "Eleven": "dropped",
    }.items():
        expect(row(board, name).locator(".mark")).to_have_text([mark])

    for kind, found in {
        "waiting": ["Five", "Four"],
        "acknowledged": ["One"],
        "sent": ["Two"],
        "lost": ["Eleven", "Six", "Three"],
        "refused": ["Eight"],
        "not-recorded": ["Seven", "people.set()"],
        "left-out": ["Nine"],
    }.items():
        board.get_by_label("Kind").select_option(kind)
        shown = board.locator("#list > li:visible .name").all_text_contents()
        assert sorted(shown) == found, kind


def test_an_operation_shows_what_it_would_have_changed(
    board: Page, stand: Stand
) -> None:
    store = stand.inspector.store
    store.add_dropped([people("set", {"$email": "a@b.c"})], "rolled back")
    store.add_unrecorded(Unrecorded("people.increment", "", "no consent"))

    expect(row(board, "people.set()").locator(".brief")).to_have_text("$email: a@b.c")
    unrecorded = row(board, "people.increment()")
    unrecorded.locator(".name").click()
    expect(unrecorded).to_contain_text("outside a request")
    expect(unrecorded).not_to_contain_text('""')


def test_whose_it_is_shows_when_it_arrives_and_never_if_it_does_not(
    board: Page, stand: Stand
) -> None:
    store = stand.inspector.store
    store.add_flush("ClientSide", {}, [Call([["track"], ["Waiting", {}]])])
    store.add_dropped([Call([["track"], ["Dropped", {}]])], "rolled back")

    for name, person in {"Waiting": "not known yet", "Dropped": "not known"}.items():
        expect(row(board, name).locator(".person")).to_have_text(person)


def test_it_asks_when_there_is_something_and_not_all_the_time(
    page: Page, stand: Stand
) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(stand.page_url)
    expect(page.locator("#state")).to_have_text("Live")
    page.wait_for_timeout(1500)

    # What there was, and the question that waits.
    assert len([url for url in asked if "/arrivals" in url]) <= 2
    stand.send("track", event())
    expect(row(page, "Place Order")).to_have_count(1)


def test_it_works_under_the_policy_of_the_app(page: Page, tmp_path: Path) -> None:
    app = Flask(__name__, instance_path=str(tmp_path))
    mengpaneel = Mengpaneel(app, token="token", inspector=True)

    @app.after_request
    def be_strict(response: Response) -> Response:
        policy = "default-src 'none'; script-src 'nonce-abc' 'strict-dynamic'"
        response.headers["Content-Security-Policy"] = policy
        return response

    @app.get("/api")
    def api() -> dict[str, str]:
        mengpaneel.track("Ask")
        return {}

    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))

    with Server(app) as server:
        page.request.get(f"{server.url}/api", headers={"Sec-Fetch-Dest": "empty"})
        page.goto(f"{server.url}{INSPECTOR_PREFIX}/")
        row(page, "Ask").locator("summary").click()
        expect(row(page, "Ask").locator(".sources")).to_contain_text("in api")

    assert complaints == []


def test_clear_empties_every_open_page(
    board: Page, stand: Stand, browser: Browser
) -> None:
    stand.send("track", event())
    other = browser.new_page()
    other.goto(stand.page_url)
    expect(row(other, "Place Order")).to_have_count(1)

    board.get_by_role("button", name="Clear").click()
    expect(board.locator("#empty")).to_be_visible()
    expect(other.locator("#empty")).to_be_visible()
    other.close()

    assert stand.inspector.arrivals() == []


def test_pause_holds_the_list_and_resume_catches_up(board: Page, stand: Stand) -> None:
    board.get_by_role("button", name="Pause").click()
    expect(board.locator("#state")).to_have_text("Paused")
    stand.send("track", event())

    # As long as a poll would have taken, and half as long again.
    board.wait_for_timeout(1500)
    expect(row(board, "Place Order")).to_have_count(0)

    board.get_by_role("button", name="Resume").click()
    expect(row(board, "Place Order")).to_have_count(1)


def test_the_keyboard_opens_a_row(board: Page, stand: Stand) -> None:
    stand.send("track", event())
    row(board, "Place Order").locator("summary").focus()
    board.keyboard.press("Enter")

    expect(row(board, "Place Order").locator(".inside")).to_be_visible()


def test_a_person_has_the_same_colour_everywhere(board: Page, stand: Stand) -> None:
    stand.send(
        "track",
        event("A"),
        event("B", distinct_id="bob"),
        event("C", distinct_id="ada"),
    )
    expect(board.locator("#list > li")).to_have_count(3)
    newest_first = [
        dot.get_attribute("style") for dot in board.locator("#list .dot").all()
    ]
    first, second, third = newest_first

    assert first == third != second


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_at_any_width_and_in_both_schemes(
    browser: Browser, stand: Stand, width: int, scheme: t.Any
) -> None:
    for name in ("Delayed", "ClientSide", "CapableClientSide", "AsyncServerSide"):
        calls = [track(event(name))]
        stand.inspector.store.add_flush(
            name, {"X": "no"}, calls, "GET /", hand_over=name
        )

    stand.inspector.on_hand_over("ClientSide", "sent", NEVER_ACKNOWLEDGED)
    stand.send("track", event("Delayed"), event("ClientSide", Note="x" * 999))
    stand.send("track", event("Undefined" * 20, distinct_id="null"), event("Delayed"))
    page = browser.new_page(
        viewport={"width": width, "height": 800}, color_scheme=scheme
    )
    page.goto(stand.page_url)
    expect(page.locator("#list > li")).to_have_count(6)

    for index in range(6):
        page.locator("summary").nth(index).click()

    expect(page.locator(".inside")).to_have_count(6)
    # What comes in and goes out of the light is not measured half-way.
    page.wait_for_function("document.getAnimations().length === 0")

    assert page.evaluate("document.documentElement.scrollWidth") == width
    boxes = [count.bounding_box() for count in page.locator(".count").all()]
    assert len(boxes) == 7
    assert all(box and 0 < box["x"] < width - box["width"] for box in boxes)
    assert page.evaluate(CUT_OFF, ".channel .label") == []
    texts = "summary span, summary time, .inside p, .inside span, .label"
    texts += ", .became, th, td, dd"
    assert page.evaluate(LOW_CONTRAST, texts) == []
    page.close()
