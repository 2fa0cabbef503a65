"""A shop that uses the extension in every way, what its views recorded, and what
Mixpanel knows in the end.

The shop keeps a book of its own of each call that a view made: when, for whom, on
which page. The inspector is Mixpanel, and :meth:`Shop.check` compares the two.
"""

from __future__ import annotations

import collections.abc as c
import dataclasses
import io
import itertools
import json
import threading
import time
import typing as t
from pathlib import Path
from urllib.parse import quote

from flask import (
    Flask,
    Response,
    jsonify,
    redirect,
    request,
    send_file,
    send_from_directory,
    session,
)
from merges import simplified
from playwright.sync_api import BrowserContext
from playwright.sync_api import Page as Tab

from flask_mengpaneel import Mengpaneel, Outcome, flushed
from flask_mengpaneel.inspector import Inspector
from needs import need_npm
from servers import Complaints, Server
from waiting import wait_until

TOKEN = "TOKEN"
STRICT = "default-src 'none'; script-src 'self'; connect-src 'self'"
LIBRARY = "/npm/mixpanel-browser/dist/mixpanel.min.js"
LOADED = "() => window.mixpanel && window.mixpanel.__loaded === true"
SERVER_ONLY = ["AsyncServerSide", "ServerSide"]
#: What an event says of the device, on each way to Mixpanel.
DEVICE = ("$browser", "$browser_version", "$os", "$device")

#: How the calls get to Mixpanel: the shop's options.
WAYS: dict[str, dict[str, t.Any]] = {
    "all ways": {},
    "server-only": {"strategies": SERVER_ONLY},
    "Delayed": {"force": "Delayed"},
    "ClientSide": {"force": "ClientSide"},
    "CapableClientSide": {"force": "CapableClientSide"},
    "AsyncServerSide": {"force": "AsyncServerSide"},
    "ServerSide": {"force": "ServerSide"},
}

#: The smallest picture there is: a transparent GIF.
PIXEL = bytes.fromhex(
    "47494638396101000100800000000000ffffff21f90401000000002c00000000"
    "010001000002024401003b"
)

#: Seconds for which an answer is held back at most.
_GATE_TIMEOUT = 60

_JQUERY = '<script src="/npm/jquery/dist/jquery.min.js"></script>'
_LINKS = """
<a href="/">Home</a> <a href="/products/1">Tea</a> <a href="/products/2">Pot</a>
<form method="post" action="/sign-up"><button>Sign up</button></form>
<form method="post" action="/sign-out"><button>Sign out</button></form>
"""

Json = t.Any


@dataclasses.dataclass
class Entry:
    """An event that a view tracked."""

    number: int
    event: str
    #: Who was signed in; ``None``: nobody.
    user: str | None
    #: The page that the visitor was on.
    url: str
    earliest: float
    latest: float


class Shop(Server):
    """The app, served on loopback by threads.

    :param force: the strategy on which each request insists.
    :param headers: what every response gets, such as a policy.
    :param prepare: called with the app before the extension is initialised.
    :param finish: called with the app after that.
    :param settings: the extension's, without their prefix.
    """

    def __init__(
        self,
        folder: Path,
        *,
        force: str | None = None,
        headers: c.Mapping[str, str] | None = None,
        prepare: c.Callable[[Flask], object] = lambda app: None,
        finish: c.Callable[[Flask], object] = lambda app: None,
        **settings: t.Any,
    ) -> None:
        self.packages = need_npm("mixpanel-browser").parent
        self.force = force
        self.headers = dict(headers or {})
        #: Whether pages do without jQuery, which some policies forbid.
        self.bare = False
        #: What else is in the head of each page.
        self.head = ""
        #: What the library, the second script, or a picture waits for before it is
        #: answered.
        self.gates = {
            name: threading.Event() for name in ("library", "memory", "pixel")
        }

        for gate in self.gates.values():
            gate.set()

        self.book: list[Entry] = []
        #: Profile operations in the order in which the views made them.
        self.operations: list[tuple[str, str, dict[str, Json]]] = []
        #: The number of each event -> the strategies that took it, in order.
        self.ways: dict[int, list[str]] = {}
        # It stands in for Mixpanel in an app that is as in production otherwise.
        self.errors = Complaints(known="MENGPANEEL_INSPECTOR is True outside of debug")
        self._lock = threading.Lock()
        self.mengpaneel = Mengpaneel()
        self.app = self._app(folder, settings, prepare, finish)
        self.inspector: Inspector = self.app.extensions["mengpaneel_inspector"]
        super().__init__(self.app)

    def close(self) -> None:
        super().close()
        self.errors.close()

    def _app(
        self,
        folder: Path,
        settings: dict[str, t.Any],
        prepare: c.Callable[[Flask], object],
        finish: c.Callable[[Flask], object],
    ) -> Flask:
        app = Flask("shop", instance_path=str(folder), static_folder=None)
        app.secret_key = "secret"
        values = {
            "token": TOKEN,
            "inspector": True,
            "library_url": LIBRARY,
            "spool": None,
            **settings,
        }
        app.config.update(
            {f"MENGPANEEL_{name.upper()}": value for name, value in values.items()}
        )
        prepare(app)
        self.mengpaneel.init_app(app)
        finish(app)
        # A strong reference: the signal keeps none.
        self._receiver = self._flushed
        flushed.connect(self._receiver, app)
        app.before_request(self._before)
        app.after_request(self._after)
        Views(self).add(app)
        return app

    def _before(self) -> None:
        if request.path.endswith("/memory.js"):
            self.gates["memory"].wait(_GATE_TIMEOUT)

        if self.force is not None:
            self.mengpaneel.strategy = self.force

        # Whoever looks at the session makes a page vary by cookie.
        if request.path != "/cached" and "user" in session:
            self.identify(session["user"])

    def _after(self, response: Response) -> Response:
        for name, value in self.headers.items():
            response.headers[name] = value

        return response

    def _flushed(self, _app: Flask, *, outcome: Outcome) -> None:
        for call in outcome.calls:
            if call.tracks and "Number" in call.properties:
                number = t.cast(int, call.properties["Number"])
                self.ways.setdefault(number, []).append(outcome.strategy)

    # -- what views do

    def identify(self, user: str) -> None:
        with self.mengpaneel.setup():
            self.mengpaneel.identify(user)
            self.mengpaneel.people.set({"$name": user})

    def track(self, event: str) -> None:
        """Track an event of whoever is signed in, and enter it into the book."""
        self.track_of(session.get("user"), event)

    def track_of(self, user: str | None, event: str) -> None:
        """Track an event of somebody; ``None``: of nobody in particular."""
        with self._lock:
            entry = Entry(len(self.book), event, user, "", 0, 0)
            self.book.append(entry)

        entry.url = _page_url()
        entry.earliest = time.time()
        self.mengpaneel.track(event, {"Number": entry.number})
        entry.latest = time.time()

    def profile(self, user: str, operation: str, properties: dict[str, Json]) -> None:
        """Change a profile, and enter it into the book."""
        with self._lock:
            self.operations.append((user, operation, properties))

        getattr(self.mengpaneel.people, operation)(properties)

    def page(self, title: str, body: str = "") -> str:
        head = self.head if self.bare else _JQUERY + self.head
        return (
            f"<!doctype html><html><head><title>{title}</title>{head}</head>"
            f"<body><h1>{title}</h1>{_LINKS}{body}</body></html>"
        )

    # -- what Mixpanel has

    @property
    def arrived(self) -> list[dict[str, Json]]:
        """The properties of the shop's events at Mixpanel, in order of arrival, as
        it stores them: each once."""
        return [
            {**event["properties"], "event": event["event"]}
            for event in self.inspector.events()
            if "Number" in event["properties"]
        ]

    @property
    def names(self) -> list[str]:
        """The shop's events at Mixpanel, in order of time."""
        ordered = sorted(self.arrived, key=lambda event: event["time"])
        return [event["event"] for event in ordered]

    def event(self, name: str) -> dict[str, Json]:
        """The properties of the only event of this name."""
        (found,) = [event for event in self.arrived if event["event"] == name]
        return found

    def people(self) -> dict[int, str]:
        """Each event's number -> whose it is."""
        return simplified(self.inspector.events())

    def settle(self, *tabs: Tab) -> None:
        """Wait until everything that was recorded has arrived, and what tabs and
        server would send besides, too."""
        for tab in tabs:
            if tab.url.startswith(self.url):
                tab.evaluate("fetch('/api/fence').then(answer => answer.text())")

        with self.app.app_context():
            assert self.mengpaneel.drain(60)

        expected = {entry.number for entry in self.book}
        wait_until(lambda: expected <= {e["Number"] for e in self.arrived})
        wait_until(lambda: not self.missing_operations(), 30)

    def missing_operations(self) -> dict[str, tuple[Json, Json]]:
        """What profiles are and aren't, against the book."""
        wanted = profiles(self.operations)
        found = profiles(_operations(self.inspector.updates()))
        return {
            f"{user}.{name}": (value, found.get(user, {}).get(name))
            for user, profile in wanted.items()
            for name, value in profile.items()
            if found.get(user, {}).get(name) != value
        }

    def check(self) -> None:
        """Nothing is missing at Mixpanel, nothing twice, and all of it is true."""
        refused = [arrival.problem for arrival in self.inspector.refused()]
        _same(self.errors.lines + refused, [])
        found = self.arrived
        recorded = [(entry.number, entry.event) for entry in self.book]
        _same(sorted((e["Number"], e["event"]) for e in found), recorded)
        by_number = {event["Number"]: event for event in found}
        # Two requests may track in the same millisecond, or while the other does.
        turned = [
            (one, other)
            for one, other in itertools.pairwise(self.book)
            if one.latest < other.earliest
            and by_number[one.number]["time"] > by_number[other.number]["time"]
        ]
        _same(turned, [])
        wrong = [
            (entry, by_number[entry.number])
            for entry in self.book
            if not _true(entry, by_number[entry.number])
        ]
        _same(wrong, [])
        _same(self.missing_operations(), {})
        people = self.people()
        strangers = [
            (entry, people[entry.number])
            for entry in self.book
            if entry.user is not None and people[entry.number] != entry.user
        ]
        _same(strangers, [])


OpenShop = c.Callable[..., Shop]


def _same(found: t.Any, expected: t.Any) -> None:
    assert found == expected, f"found {found}, expected {expected}"


def _true(entry: Entry, event: dict[str, Json]) -> bool:
    """Whether an event has the time and the page at which it was recorded."""
    in_time = entry.earliest - 0.05 <= event["time"] <= entry.latest + 0.05
    return bool(in_time and event.get("$current_url", "") == entry.url)


def _page_url() -> str:
    """The page that the visitor is on, by what browsers say."""
    if request.headers.get("Sec-Fetch-Dest") in {"document", "iframe"}:
        return request.url

    return request.referrer or ""


_OPERATIONS = {"$add": "increment", "$append": "append", "$union": "union"}


def _operations(
    updates: c.Iterable[dict[str, Json]],
) -> c.Iterator[tuple[str, str, dict[str, Json]]]:
    for update in updates:
        for name, operation in _OPERATIONS.items():
            if name in update and "$distinct_id" in update:
                yield update["$distinct_id"], operation, update[name]


def profiles(
    operations: c.Iterable[tuple[str, str, dict[str, Json]]],
) -> dict[str, dict[str, Json]]:
    """What operations make of profiles; lists are sorted, since two ways to Mixpanel
    don't wait for each other."""
    made: dict[str, dict[str, Json]] = {}

    for user, operation, properties in operations:
        profile = made.setdefault(user, {})

        for name, value in properties.items():
            if operation == "increment":
                profile[name] = profile.get(name, 0) + value
            else:
                profile[name] = sorted([*profile.get(name, []), value])

    return made


class Views:
    """What the shop answers."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop

    def add(self, app: Flask) -> None:
        get, post = app.get, app.post
        get("/")(self.home)
        get("/products/<int:number>")(self.product)
        get("/quiet")(self.quiet)
        get("/old")(self.old)
        get("/cached")(self.cached)
        get("/pixel.gif")(self.pixel)
        get("/open/<gate>")(self.open)
        get("/api/stock")(self.stock)
        get("/api/fence")(self.fence)
        post("/cart/<int:number>")(self.cart)
        post("/sign-up")(self.sign_up)
        get("/sign-up/confirm")(self.confirm)
        get("/welcome")(self.welcome)
        post("/api/sign-up")(self.api_sign_up)
        post("/api/sign-in")(self.api_sign_in)
        post("/webhook")(self.webhook)
        post("/sign-out")(self.sign_out)
        get("/switch/<user>")(self.switch)
        get("/go")(self.go)
        get("/opt-out")(self.opt_out)
        get("/opt-in")(self.opt_in)
        get("/answer/<word>")(self.answer)
        get("/do/<kind>")(self.do)
        post("/api/sign-out")(self.api_sign_out)
        get("/npm/<path:name>")(self.package)
        get("/favicon.ico")(self.icon)

    def package(self, name: str) -> Response:
        if "mixpanel" in name:
            self.shop.gates["library"].wait(_GATE_TIMEOUT)

        return send_from_directory(self.shop.packages, name, max_age=60)

    def icon(self) -> Response:
        return Response(status=204)

    def home(self) -> str:
        self.shop.track("Land")
        return self.shop.page("Home")

    def product(self, number: int) -> str:
        self.shop.track(f"View Product {number}")
        return self.shop.page(f"Product {number}")

    def quiet(self) -> str:
        """A page that tracks nothing, but shows a picture on demand."""
        return self.shop.page("Quiet", request.args.get("body", ""))

    def old(self) -> Response:
        """A page in which there is no place for a script."""
        return Response("<!doctype html><title>Old</title><img src=/pixel.gif>Old")

    def cached(self) -> Response:
        """A page that browsers keep for a minute, or ask for again each time; it is
        the same one for all visitors."""
        self.shop.track_of(None, "View Cached")
        response = Response(self.shop.page("Cached"))

        if "etag" in request.args:
            response.set_etag("same")
            response.cache_control.no_cache = True
            return t.cast(Response, response.make_conditional(request))

        response.cache_control.max_age = 60
        response.cache_control.private = True
        return response

    def pixel(self) -> Response:
        self.shop.track("See Picture")
        self.shop.gates["pixel"].wait(_GATE_TIMEOUT)
        response = send_file(io.BytesIO(PIXEL), "image/gif")
        response.headers["Cache-Control"] = "no-store"
        return response

    def open(self, gate: str) -> str:
        self.shop.gates[gate].set()
        return ""

    def stock(self) -> Response:
        self.shop.track("Check Stock")
        return jsonify(left=3)

    def fence(self) -> Response:
        self.shop.track("Fence")
        return jsonify({})

    def cart(self, number: int) -> Response:
        self.shop.track(f"Add To Cart {number}")

        if "user" in session:
            self.shop.profile(session["user"], "append", {"Cart": number})

        return jsonify(added=number)

    def sign_up(self) -> t.Any:
        self._join(request.form.get("user", "ann"))
        self.shop.track("Sign Up")
        return redirect("/sign-up/confirm")

    def _join(self, user: str) -> None:
        session["user"] = user

        with self.shop.mengpaneel.before_setup():
            self.shop.mengpaneel.alias(user)

        self.shop.identify(user)

    def confirm(self) -> t.Any:
        self.shop.track("Confirm")
        self.shop.profile(session["user"], "increment", {"Credit": 5})
        return redirect("/welcome")

    def welcome(self) -> str:
        self.shop.track("Welcome")
        return self.shop.page("Welcome")

    def api_sign_up(self) -> Response:
        self._join(request.args["user"])
        self.shop.track("Sign Up")
        return jsonify(user=session["user"])

    def api_sign_in(self) -> Response:
        session["user"] = request.args["user"]
        self.shop.identify(session["user"])
        self.shop.track("Sign In")
        return jsonify(user=session["user"])

    def webhook(self) -> Response:
        user = request.get_json()["user"]

        with self.shop.mengpaneel.setup():
            self.shop.mengpaneel.identify(user)

        self.shop.track_of(user, "Pay")
        self.shop.profile(user, "increment", {"Spent": 42})
        return jsonify(paid=True)

    def sign_out(self) -> t.Any:
        self.shop.track("Sign Out")
        self.shop.mengpaneel.reset()
        session.pop("user", None)
        return redirect("/")

    def api_sign_out(self) -> Response:
        self.shop.track("Sign Out")
        self.shop.mengpaneel.reset()
        session.pop("user", None)
        return jsonify({})

    def do(self, kind: str) -> t.Any:
        """Make calls, and answer with a page or with a picture."""
        for name, *arguments in json.loads(request.args["calls"]):
            if name == "track":
                self.shop.track(*arguments)
            else:
                getattr(self.shop.mengpaneel, name)(*arguments)

        if kind == "picture":
            self.shop.gates["pixel"].wait(_GATE_TIMEOUT)
            return send_file(io.BytesIO(PIXEL), "image/gif")

        return self.shop.page("Done", request.args.get("body", ""))

    def switch(self, user: str) -> t.Any:
        """Another user, at once: what was before is the first one's."""
        self.shop.track("Leave Account")
        session["user"] = user
        return redirect(request.args.get("to", "/"))

    def go(self) -> t.Any:
        self.shop.track("Go")

        if "user" in session:
            self.shop.profile(session["user"], "append", {"Went": len(self.shop.book)})

        return redirect(request.args["to"])

    def opt_out(self) -> str:
        self.shop.mengpaneel.opt_out_tracking()
        self.shop.mengpaneel.track("After Opt-out")
        return self.shop.page("Opted out")

    def opt_in(self) -> str:
        self.shop.mengpaneel.opt_in_tracking()
        self.shop.track("Opt In")
        return self.shop.page("Opted in")

    def answer(self, word: str) -> str:
        """The visitor's answer to the question for consent; see ``by_session``."""
        session["consent"] = word == "yes"
        return self.shop.page("Answered")


def by_session() -> bool | None:
    """For ``MENGPANEEL_CONSENT``: what the visitor has answered, if anything."""
    return session.get("consent")


def doing(kind: str, *calls: list[Json]) -> str:
    """The path at which the shop makes these calls."""
    return f"/do/{kind}?calls={quote(json.dumps(calls))}"


def arrive(tab: Tab, url: str) -> None:
    """Go to a page, and wait until Mixpanel's library is there."""
    tab.goto(url)
    tab.wait_for_function(LOADED)


#: Lets the picture come when the library has read its cookie, but not written it yet.
COMING_MEANWHILE = """
const { get, set } = Object.getOwnPropertyDescriptor(Document.prototype, "cookie")
let isOpen = false
Object.defineProperty(Document.prototype, "cookie", {
    configurable: true,
    get,
    set(value) {
        if (!isOpen && value.startsWith("mp_TOKEN_mixpanel=")) {
            isOpen = true
            const request = new XMLHttpRequest()
            request.open("GET", "/open/pixel", false)
            request.send()
            const end = Date.now() + 2_000
            while (!get.call(this).includes("mp_TOKEN_mixpanel=") && Date.now() < end);
        }
        set.call(this, value)
    },
})
"""


def let_picture_come(
    shop: Shop,
    page: Tab,
    order: str,
    code: str,
    picture: str = "/pixel.gif",
    *,
    is_heard: bool = True,
) -> str:
    """Open a page with code of its own, and a picture that comes when that was run, or
    while the library starts; the library's device when it has started.

    :param is_heard: the second script is there before a picture that comes last.
    """
    shop.gates["pixel"].clear()

    if order == "at once":
        page.add_init_script(COMING_MEANWHILE)

    body = quote(f'<img src="{picture}"><script>{code}</script>')
    page.goto(f"{shop.url}/quiet?body={body}", wait_until="commit")
    page.wait_for_function(LOADED)

    if is_heard:
        page.wait_for_function("!!Mengpaneel.share")

    device = page.evaluate("mixpanel.get_property('$device_id')")
    shop.gates["pixel"].set()
    page.wait_for_function("document.images[0].complete")
    wait_until(lambda: shop.arrived)
    return str(device)


def cookies(context: BrowserContext) -> dict[str, str]:
    """The names and values of a browser's cookies."""
    return {
        cookie.get("name", ""): cookie.get("value", "") for cookie in context.cookies()
    }


BY_FETCH = "n => fetch(`/cart/${n}`, {method: 'POST'}).then(answer => answer.json())"
BY_XHR = """n => new Promise(done => {
    const xhr = new XMLHttpRequest();
    xhr.open("POST", `/cart/${n}`);
    xhr.onload = () => done(JSON.parse(xhr.responseText));
    xhr.send();
})"""
BY_JQUERY = "n => jQuery.post(`/cart/${n}`).then(answer => answer)"
