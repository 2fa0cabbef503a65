"""A small site on loopback with pages as the extension writes them, and a stand-in
for Mixpanel's API beside it, on another port.

The site knows nothing of the extension: what a test wants in a page or in a header is
what is in there.
"""

from __future__ import annotations

import base64
import collections.abc as c
import contextlib
import dataclasses
import io
import itertools
import json
import os
import pathlib
import threading
import time
import typing as t
from urllib.parse import parse_qs

from flask import Flask, Response, redirect, request, send_file
from playwright.sync_api import Error
from playwright.sync_api import Page as Tab

from servers import Server

ROOT = pathlib.Path(__file__).parent.parent.parent
PACKAGES = pathlib.Path(
    os.environ.get("MENGPANEEL_NODE_MODULES", ROOT / "node_modules")
)
LIBRARY = "/npm/mixpanel-browser/dist/mixpanel.min.js"
TOKEN = "TOKEN"

Json = t.Any


def track(event: str, number: int = 0, **properties: Json) -> list[Json]:
    """A tracked event as the server records it."""
    stamp = {"time": 1700000000.0 + number / 1000, "$insert_id": f"{event}-{number}"}
    return [["track"], [event, {**properties, **stamp}]]


def script_file(path: pathlib.Path, max_age: int | None = None) -> Response:
    """A script, out of memory: a file would stay open where the answer is 304."""
    content = io.BytesIO(path.read_bytes())
    return send_file(content, mimetype="text/javascript", max_age=max_age)


@contextlib.contextmanager
def without_errors(tab: Tab) -> c.Iterator[Tab]:
    """No error may reach the page of a tab, and in Firefox nothing be logged."""
    said: list[str] = []

    def note(error: Error) -> None:
        # Firefox tells in the same way what it keeps from a page by itself.
        if "favicon.ico" not in error.message and "Cross-Origin" not in error.name:
            said.append(str(error))

    tab.on("pageerror", note)
    browser = tab.context.browser

    if browser is not None and browser.browser_type.name == "firefox":
        tab.on("console", lambda line: said.append(line.text))

    yield tab
    assert said == []


@dataclasses.dataclass
class Record:
    """One record that arrived at Mixpanel."""

    endpoint: str
    message: dict[str, t.Any]
    #: The number of the request that brought it.
    batch: int

    @property
    def label(self) -> str:
        """The event's name, or what is done to the profile."""
        event = self.message.get("event")
        return event or next(key for key in self.message if key in OPERATIONS)


OPERATIONS = {
    "$set",
    "$set_once",
    "$unset",
    "$add",
    "$append",
    "$union",
    "$remove",
    "$delete",
}


class Api(Server):
    """What the browser library takes for Mixpanel."""

    def __init__(self) -> None:
        self.app = Flask(__name__)
        super().__init__(self.app)
        self.records: list[Record] = []
        self.delay = 0.0
        #: Nothing is answered while it isn't set.
        self.answers = threading.Event()
        self.answers.set()
        self.status = 200
        self.answer: str | None = None
        self.requests = 0
        self._batches = itertools.count()
        self.app.add_url_rule("/<endpoint>/", view_func=self._take, methods=["POST"])

    def _take(self, endpoint: str) -> Response:
        self.requests += 1
        batch = next(self._batches)
        form = parse_qs(request.get_data(as_text=True))["data"][0]
        text = form if form[0] in "[{" else base64.b64decode(form).decode()
        found = json.loads(text)

        if self.status == 200 and self.answer is None:
            self.records += [
                Record(endpoint, message, batch)
                for message in (found if isinstance(found, list) else [found])
            ]

        time.sleep(self.delay)
        self.answers.wait(30)
        body = self.answer or '{"status": 1, "error": null}'
        response = Response(body, self.status, content_type="application/json")
        response.headers["Access-Control-Allow-Origin"] = request.origin or "*"
        response.headers["Access-Control-Allow-Credentials"] = "true"
        return response

    @property
    def events(self) -> list[str]:
        """The events that arrived, without those that the library makes itself."""
        return [
            record.label
            for record in self.records
            if record.endpoint == "track" and record.label[0] != "$"
        ]

    @property
    def updates(self) -> list[dict[str, t.Any]]:
        """The profile updates that arrived, without the library's own referrers."""
        return [
            {key: value for key, value in record.message.items() if key in OPERATIONS}
            for record in self.records
            if record.endpoint == "engage"
            and not any("$initial" in str(v) for v in record.message.values())
        ]

    def named(self, event: str) -> dict[str, t.Any]:
        """The properties of the first event of that name."""
        return next(
            record.message["properties"]
            for record in self.records
            if record.message.get("event") == event
        )


#: Gives each response of the app's API once more, whatever its headers say.
SERVICE_WORKER = """
const kept = new Map();
const answer = async request => {
  if (!kept.has(request.url)) kept.set(request.url, await fetch(request));
  return kept.get(request.url).clone();
};
addEventListener("install", () => skipWaiting());
addEventListener("activate", event => event.waitUntil(clients.claim()));
addEventListener("fetch", event => {
  if (event.request.url.includes("/api/")) event.respondWith(answer(event.request));
});
"""


@dataclasses.dataclass
class Page:
    """What a URL of the site answers."""

    body: str = ""
    data: dict[str, t.Any] | None = None
    head: str = ""
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    script: str = '<script src="/mengpaneel.js"></script>'
    type: str = "text/html"
    signature: str | None = None

    def render(self) -> str:
        block = ""

        if self.data is not None:
            text = json.dumps(self.data).replace("<", "\\u003c")
            signed = f' data-signature="{self.signature}"' if self.signature else ""
            block = (
                f'<script type="application/json" id="mengpaneel"{signed}>'
                f"{text}</script>"
            )

        return (
            f"<!doctype html><html><head><title>page</title>{self.head}{block}"
            f"{self.script}</head><body>{self.body}</body></html>"
        )


class ScriptSite(Server):
    """The app whose pages have the script."""

    def __init__(self, api: Api) -> None:
        self.app = Flask(__name__, static_folder=None)
        super().__init__(self.app)
        self.api = api
        self.pages: dict[str, Page] = {}
        self.calls: dict[str, list[Json]] = {}
        #: The tokens of these calls' hand-overs, and what caches may do with them.
        self.tokens: dict[str, str] = {}
        self.caching: dict[str, str] = {}
        self.handed_back: list[dict[str, t.Any]] = []
        self.fallback_status = 204
        #: Each post's tokens, and whether it said that it comes from an own page.
        self.acks: list[tuple[list[str], bool]] = []
        self.acks_status = 204
        #: The statuses with which both were answered.
        self.statuses: list[int] = []
        self.seen: list[tuple[str, str, str | None]] = []
        self.library_delay = 0.0
        add = self.app.add_url_rule
        add("/<any('mengpaneel.js', 'mengpaneel.mjs'):name>", view_func=self._static)
        add("/npm/<path:name>", view_func=self._package)
        add("/calls", view_func=self._fallback, methods=["POST"])
        add("/acks", view_func=self._take_acks, methods=["POST"])
        add("/worker.js", view_func=self._worker)
        methods = ["GET", "POST", "PUT", "HEAD", "OPTIONS"]
        add("/api/<path:name>", view_func=self._api, methods=methods)
        add("/redirect", view_func=self._redirect)
        add("/elsewhere", view_func=self._elsewhere, methods=methods)
        add("/<path:name>", view_func=self._page)

    def data(self, *handovers: list[Json], **more: Json) -> dict[str, t.Any]:
        """The data of a page; each hand-over is ``[once, [call, ...]]``."""
        return {
            "token": TOKEN,
            "config": {"api_host": self.api.url},
            "library": LIBRARY,
            "calls": list(handovers),
            **more,
        }

    def calls_handed_back(self) -> list[Json]:
        """The calls that a browser gave back, in order."""
        found = []

        for body in self.handed_back:
            data = json.loads(body["text"])
            hand_overs = data["calls"] if isinstance(data, dict) else [[None, data]]
            calls = [call for _, calls in hand_overs for call in calls]
            found += [calls[position] for position in body["calls"]]

        return found

    @property
    def acknowledged(self) -> list[str]:
        """The tokens of hand-overs that browsers acknowledged, in order."""
        return [token for tokens, _ in self.acks for token in tokens]

    def capable(self, name: str) -> bool:
        """Whether the latest request for ``/api/<name>`` announced the script."""
        return [seen for seen in self.seen if seen[0] == name][-1][2] is not None

    def _static(self, name: str) -> Response:
        return script_file(ROOT / "static" / name)

    def _package(self, name: str) -> Response:
        if "mixpanel" in name:
            time.sleep(self.library_delay)

        return script_file(PACKAGES / name, max_age=60)

    def _redirect(self) -> t.Any:
        return redirect(request.args["to"])

    def _fallback(self) -> Response:
        self.statuses.append(self.fallback_status)

        if self.fallback_status < 300:
            self.handed_back.append(request.get_json(force=True))

        return Response(status=self.fallback_status)

    def _take_acks(self) -> Response:
        self.statuses.append(self.acks_status)

        if self.acks_status < 300:
            tokens = request.get_data(as_text=True).split()
            is_own = request.headers.get("Sec-Fetch-Site") == "same-origin"
            is_own |= f"{request.origin}/" == request.host_url
            self.acks.append((tokens, is_own))

        return Response(status=self.acks_status)

    def _worker(self) -> Response:
        return Response(SERVICE_WORKER, content_type="text/javascript")

    def _api(self, name: str) -> Response:
        body = request.get_data(as_text=True)
        self.seen.append(
            (name, body, request.headers.get("X-Mengpaneel-Flush-Capable"))
        )
        response = Response(body or f"answer {name}", content_type="text/plain")
        response.headers["Cache-Control"] = self.caching.get(name, "no-store")

        if request.headers.get("X-Mengpaneel-Flush-Capable") and name in self.calls:
            response.headers["X-Mengpaneel-Calls"] = json.dumps(self.calls[name])
            response.headers["X-Mengpaneel-Signature"] = f"signed-{name}"

            if name in self.tokens:
                response.headers["X-Mengpaneel-Hand-Over"] = self.tokens[name]

        return response

    def _elsewhere(self) -> Response:
        response = Response("elsewhere")
        response.headers["Access-Control-Allow-Origin"] = request.origin or "*"

        if request.method == "OPTIONS":
            response.headers["Access-Control-Allow-Headers"] = "*"

        response.headers["X-Mengpaneel-Calls"] = json.dumps([track("Foreign")])
        response.headers["Access-Control-Expose-Headers"] = "X-Mengpaneel-Calls"
        return response

    def _page(self, name: str) -> Response:
        page = self.pages.get(f"/{name}")

        if page is None:
            return Response(status=204 if name == "favicon.ico" else 404)

        response = Response(page.render(), headers=page.headers)
        response.content_type = page.type
        return response
