"""A site whose pages are left, Mixpanel's stand-in, and what came of each call.

The site keeps a book of the calls that its views made. What Mixpanel has in the end is
compared with it.
"""

from __future__ import annotations

import base64
import collections
import collections.abc as c
import dataclasses
import gzip
import itertools
import json
import random
import re
import socket
import threading
import time
import typing as t
from ipaddress import IPv4Address
from pathlib import Path
from urllib.parse import parse_qs

from flask import Flask, Response, jsonify, redirect, request, send_file, session

from flask_mengpaneel import Mengpaneel

from ..needs import need_npm
from ..servers import Complaints, Server

if t.TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

LIBRARY = "/library.js"
#: In the user agent of each visitor's browser, so in every request that it makes.
VISITOR = re.compile(r" Visitor/(\d+)$")
#: Whatever can be kept from a browser, or break off, and where it is.
PARTS = {
    "script": re.compile(r"^/_mengpaneel/static/"),
    "library": re.compile(rf"^{LIBRARY}$"),
    "endpoint": re.compile(r"^/_mengpaneel/(acks|calls)$"),
    "API": re.compile(r"^/(track|engage|groups)/"),
}

Json = t.Any
#: By these Mixpanel tells events apart.
Identity = tuple[Json, ...]


@dataclasses.dataclass
class Network:
    """What becomes of a visitor's requests for the parts."""

    #: The parts of which connections break off without an answer.
    broken: c.Collection[str] = ()
    #: From which of these requests on.
    since: int = 0
    #: Seconds that a part takes to answer.
    delays: dict[str, float] = dataclasses.field(default_factory=dict)
    requests: int = 0


@dataclasses.dataclass
class Entry:
    """Something that a view has recorded."""

    number: int
    #: The page whose visit it belongs to.
    page: int
    #: Those of one request are handed over together.
    request: int
    #: ``None``: a visitor whom nobody has identified.
    user: str | None


class Networks:
    """The networks of all visitors, between them and the servers."""

    def __init__(self) -> None:
        self.of: dict[int, Network] = collections.defaultdict(Network)
        self._lock = threading.Lock()

    def between(self, app: Flask) -> WSGIApplication:
        """Put them between an app and its visitors."""

        def through(environ: t.Any, start_response: t.Any) -> t.Any:
            # Each visitor is somebody else, of whom the app sees few requests.
            environ["REMOTE_ADDR"] = str(
                IPv4Address(random.randrange(1 << 24, 1 << 31))
            )
            found = VISITOR.search(environ.get("HTTP_USER_AGENT", ""))
            path = environ["PATH_INFO"]
            part = next((name for name in PARTS if PARTS[name].match(path)), None)

            if found and part and self._is_broken(self.of[int(found[1])], part):
                # Else the server takes what it says for the next request.
                environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
                environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
                raise ConnectionAbortedError("broken off")

            return app(environ, start_response)

        return through

    def _is_broken(self, network: Network, part: str) -> bool:
        with self._lock:
            network.requests += 1
            is_broken = part in network.broken and network.requests > network.since

        if not is_broken:
            time.sleep(network.delays.get(part, 0.0))

        return is_broken


class StandIn(Server):
    """A stand-in for Mixpanel, at a host of its own, to which both sides send."""

    def __init__(self, networks: Networks) -> None:
        #: Each message that arrived, copies included, and from whom.
        self.messages: list[tuple[dict[str, Json], str]] = []
        app = Flask("mixpanel")
        app.add_url_rule(
            "/<endpoint>",
            view_func=self._take,
            methods=["POST"],
            strict_slashes=False,
        )
        app.add_url_rule("/<endpoint>/", "slash", self._take, methods=["POST"])
        super().__init__(networks.between(app))

    def _take(self, endpoint: str) -> Response:
        body = request.get_data()
        sender = "browser" if request.origin else "server"

        if request.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)

        if body[:1] not in (b"[", b"{"):
            body = parse_qs(body)[b"data"][0]

            if body[:1] not in (b"[", b"{"):
                body = base64.b64decode(body)

        found = json.loads(body)
        found = found if isinstance(found, list) else [found]
        self.messages += [(message, sender) for message in found]
        answer: Json = {"status": 1, "error": None}

        if endpoint == "import":
            answer = {"code": 200, "num_records_imported": len(found), "status": "OK"}

        response = jsonify(answer)
        response.headers["Access-Control-Allow-Origin"] = request.origin or "*"
        response.headers["Access-Control-Allow-Credentials"] = "true"
        return response


class SoakSite(Server):
    """The app, served by threads.

    :param settings: the extension's, without their prefix.
    """

    def __init__(self, folder: Path, **settings: Json) -> None:
        self.networks = Networks()
        self.mixpanel = StandIn(self.networks)
        self.events: list[Entry] = []
        self.operations: list[Entry] = []
        self.mengpaneel = Mengpaneel()
        self._library = need_npm("mixpanel-browser") / "dist" / "mixpanel.min.js"
        self._numbers = itertools.count()
        self._requests = itertools.count()
        self._complaints = Complaints()
        self.app = Flask("left", instance_path=str(folder), static_folder=None)
        self.app.secret_key = "secret"
        values = {
            "token": "TOKEN",
            "api_host": self.mixpanel.url,
            "client_config": {"api_host": self.mixpanel.url},
            "library_url": LIBRARY,
            "spool": None,
            **settings,
        }
        self.app.config.update(
            {f"MENGPANEEL_{n.upper()}": v for n, v in values.items()}
        )
        self.mengpaneel.init_app(self.app)
        add = self.app.add_url_rule
        add("/page/<int:page>", view_func=self._page)
        add("/go/<int:page>", view_func=self._go)
        add("/api/<int:page>", view_func=self._api)
        add("/rest", "rest", view_func=lambda: "<!doctype html><title>Rest</title>")
        add("/favicon.ico", "icon", view_func=lambda: ("", 204))
        add(LIBRARY, view_func=self._send_library)
        super().__init__(self.networks.between(self.app))

    def close(self) -> None:
        super().close()
        self.mixpanel.close()
        self._complaints.close()

    # -- the views

    def _page(self, page: int) -> str:
        self._track(page, request.args.get("events", 1, int))
        actions = request.args.get("do", "")
        return (
            f"<!doctype html><html><head><title>Page {page}</title></head><body>"
            f"<a href=/rest>Rest</a><script>{actions}</script></body></html>"
        )

    def _go(self, page: int) -> t.Any:
        self._track(page, 1)
        return redirect(f"/page/{page}?{request.query_string.decode()}")

    def _api(self, page: int) -> Response:
        self._track(page, 1)
        time.sleep(request.args.get("wait", 0.0, float))
        return jsonify(page=page)

    def _send_library(self) -> Response:
        return send_file(self._library, mimetype="text/javascript", max_age=60)

    def _track(self, page: int, events: int) -> None:
        user = session["user"] = request.args.get("user") or session.get("user")
        made = next(self._requests)

        if user is not None:
            with self.mengpaneel.setup():
                self.mengpaneel.identify(user)
                self.mengpaneel.people.set({"Name": user})

        for _ in range(events):
            entry = Entry(next(self._numbers), page, made, user)
            self.events.append(entry)
            self.mengpaneel.track("Look", {"Number": entry.number})

        entry = Entry(next(self._numbers), page, made, user)
        self.operations.append(entry)
        self.mengpaneel.people.append({"Looks": entry.number})

    # -- in the end

    def settle(self, seconds: float) -> None:
        """Wait until nothing waits any more."""
        deadline = time.monotonic() + seconds

        while time.monotonic() < deadline:
            balance = self.mengpaneel.ledger()

            if not balance.waiting and self.mengpaneel.drain(1):
                return

            time.sleep(0.1)

    @property
    def hand_overs(self) -> t.Any:
        """What became of the hand-overs."""
        return self.app.extensions["mengpaneel"].hand_overs.counts()

    def wrongs(self) -> list[str]:
        """What is wrong with the site as a whole."""
        balance = self.mengpaneel.ledger()
        wrongs = [f"logged: {line}" for line in self._complaints.lines]

        if balance.waiting or balance.dropped or balance.recorded != balance.delivered:
            wrongs.append(f"in the end: {balance}")

        return wrongs


@dataclasses.dataclass
class Figures:
    """What came of the pages that were left in one way."""

    pages: int = 0
    events: int = 0
    operations: int = 0
    lost: int = 0
    doubled: int = 0
    #: Of somebody else, or the events of a call that differ from each other.
    wrong: int = 0
    #: Those that arrived again as the same event, which Mixpanel counts once.
    copies: int = 0
    #: Requests that recorded events, and those of whose events there are copies.
    requests: int = 0
    requests_sent_twice: int = 0

    NAMES: t.ClassVar[tuple[str, ...]] = (
        "pages",
        "events",
        "operations",
        "lost",
        "doubled",
        "wrong",
        "copies",
        "copies %",
    )

    @property
    def row(self) -> list[str]:
        """The cells of a table."""
        share = 100 * self.copies / max(self.events, 1)
        numbers = (
            self.pages,
            self.events,
            self.operations,
            self.lost,
            self.doubled,
            self.wrong,
            self.copies,
        )
        return [*map(str, numbers), f"{share:.1f}"]


@dataclasses.dataclass
class Report:
    """What came of all pages: by the way in which they were left, and in all."""

    by_way: dict[str, Figures]
    total: Figures
    #: By page, what is wrong there.
    wrongs: dict[int, list[str]]
    #: The library's own events, such as ``$identify``: how many of each name.
    others: collections.Counter[str]


def compare(site: SoakSite, ways: c.Mapping[int, str]) -> Report:
    """Compare what Mixpanel has with what was recorded.

    :param ways: by which way each page was left.
    """
    wrongs: dict[int, list[str]] = collections.defaultdict(list)
    report = Report({}, Figures(), wrongs, collections.Counter())
    arrived: dict[int, list[dict[str, Json]]] = collections.defaultdict(list)
    operated: dict[int, list[dict[str, Json]]] = collections.defaultdict(list)

    for message, sender in site.mixpanel.messages:
        properties = message.get("properties", {})

        if "Number" in properties:
            arrived[properties["Number"]].append({**message, "sender": sender})
        elif number := message.get("$append", {}).get("Looks"):
            operated[number].append(message)
        elif "event" in message:
            report.others[message["event"]] += 1

    # Else nothing would be lost where nothing happens.
    recorded = {entry.page for entry in site.events}

    for page, way in ways.items():
        for figures in _both(report, way):
            figures.pages += 1

        if page not in recorded:
            report.wrongs[page].append("it recorded nothing")

    requests: dict[int, tuple[str, list[int]]] = {}

    for entry in site.events:
        found = arrived[entry.number]
        way = ways[entry.page]
        same = {identity(message) for message in found}
        wrong = len(same) > 1 or any(not _is_of(message, entry) for message in found)
        copies = max(len(found) - 1, 0)
        requests.setdefault(entry.request, (way, []))[1].append(copies)

        for figures in _both(report, way):
            figures.events += 1
            figures.lost += not found
            figures.wrong += wrong
            figures.copies += copies

        if not found or wrong:
            report.wrongs[entry.page].append(f"{entry}: {found}")

    for entry in site.operations:
        done = operated[entry.number]
        way = ways[entry.page]
        wrong = any(
            entry.user and message["$distinct_id"] != entry.user for message in done
        )

        for figures in _both(report, way):
            figures.operations += 1
            figures.lost += not done
            figures.doubled += len(done) > 1
            figures.wrong += wrong

        if len(done) != 1 or wrong:
            report.wrongs[entry.page].append(f"operation {entry}: {done}")

    for way, copies_of in requests.values():
        for figures in _both(report, way):
            figures.requests += 1
            figures.requests_sent_twice += any(copies_of)

    return report


def _both(report: Report, way: str) -> tuple[Figures, Figures]:
    return report.by_way.setdefault(way, Figures()), report.total


def identity(message: dict[str, Json]) -> Identity:
    """What Mixpanel tells an event by."""
    properties = message["properties"]
    # Mixpanel has milliseconds.
    moment = round(properties["time"], 3)
    return (
        message["event"],
        properties["$insert_id"],
        properties["distinct_id"],
        moment,
    )


def _is_of(message: dict[str, Json], entry: Entry) -> bool:
    properties = message["properties"]

    if entry.user is not None:
        return properties.get("$user_id") == entry.user

    return "$user_id" not in properties
