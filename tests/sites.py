"""An app under test, its visitors, and what the calls in its responses are.

The fixtures of ``conftest.py`` are parts of such an app.
"""

from __future__ import annotations

import collections.abc as c
import html.parser
import json
import re
import shutil
import tempfile
import threading
import typing as t
import weakref
from urllib.parse import quote, unquote

from flask import Flask, Response, request
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from agents import CHROME
from flask_mengpaneel import Envelope, Mengpaneel, Outcome, flushed
from flask_mengpaneel.deliver.translation import Translator
from flask_mengpaneel.record.context import current_manager
from flask_mengpaneel.testing import RecordingTransport
from servers import NOBODY_LISTENS

CreateApp = c.Callable[..., Flask]

TOKEN = "token"
COOKIE = f"mp_{TOKEN}_mixpanel"
PAGE = "<!doctype html><html><head><title>x</title></head><body><p>Hi</p></body></html>"
#: What the library knows in a browser: nothing, its own ids, that Ann has signed in.
#: To one with ids the server has none to tell.
NOBODY: dict[str, str] = {}
DEVICE = {"distinct_id": "$device:d1", "$device_id": "d1"}
ANN = {"distinct_id": "ann", "$device_id": "d1", "$user_id": "ann"}

SCRIPT_TAGS = re.compile(
    rb'<script type="application/json" id="mengpaneel"[^<>]*>[^<>]*</script>'
    rb'<script src="[^"<>]*"(?: nonce="[^"<>]*")?></script>'
)
CAPABLE = {"X-Mengpaneel-Flush-Capable": "true", "Accept": "*/*"}
ACKNOWLEDGES = {**CAPABLE, "X-Mengpaneel-Flush-Capable": "true; ack"}


class Kept(RecordingTransport):
    """A background transport that may have no room."""

    def __init__(self) -> None:
        super().__init__()
        self.has_room = True

    def send(self, envelope: Envelope) -> bool:
        if self.has_room:
            # What can't be written down could not be sent either.
            self.envelopes.append(
                Envelope.from_json(json.loads(json.dumps(envelope.to_json())))
            )

        return self.has_room


def sent(app: Flask, transport: RecordingTransport) -> list[dict[str, t.Any]]:
    """What Mixpanel would get of what was sent from the server, in order."""
    translator = Translator(app.extensions["mengpaneel"].config)
    return [
        json.loads(message.json)
        for envelope in transport.envelopes
        for message in translator.messages(envelope)[0]
    ]


class Site:
    """An app with the extension in it, and what became of its calls.

    :param prepare: called with the app before the extension is initialised.
    :param mengpaneel: the extension, where several apps have the same one.
    :param settings: without their prefix if they are the extension's.
    """

    def __init__(
        self,
        *,
        testing: bool = True,
        debug: bool = False,
        prepare: c.Callable[[Flask], object] = lambda app: None,
        mengpaneel: Mengpaneel | None = None,
        **settings: t.Any,
    ) -> None:
        self.app = Flask("shop")

        if settings.get("inspector"):
            # Not in the checkout, where the example would show it.
            self.app.instance_path = tempfile.mkdtemp()
            weakref.finalize(self, shutil.rmtree, self.app.instance_path, True)

        self.app.testing = testing
        self.app.debug = debug
        self.app.secret_key = "secret"
        transport = settings.get("transport")
        self.kept = transport if isinstance(transport, Kept) else Kept()
        self.outcomes: list[Outcome] = []
        self.mengpaneel = mengpaneel or Mengpaneel()
        values = {
            "token": TOKEN,
            "transport": self.kept,
            "spool": None,
            "api_host": NOBODY_LISTENS,
            **settings,
        }
        self.app.config.update(
            (name if name.isupper() else f"MENGPANEEL_{name.upper()}", value)
            for name, value in values.items()
        )
        prepare(self.app)
        self.mengpaneel.init_app(self.app)
        flushed.connect(self._flushed, self.app)

    def _flushed(self, _app: Flask, *, outcome: Outcome) -> None:
        self.outcomes.append(outcome)

    @property
    def outcome(self) -> Outcome:
        """The only outcome until now."""
        (outcome,) = self.outcomes
        return outcome

    def client(self, user_agent: str | None = CHROME) -> FlaskClient:
        """A client with cookies of its own; ``None``: Werkzeug's name."""
        client = self.app.test_client()

        if user_agent is not None:
            client.environ_base["HTTP_USER_AGENT"] = user_agent

        return client

    def visitor(self, **ids: t.Any) -> FlaskClient:
        """A browser in which Mixpanel's library has run already."""
        client = self.client()
        set_library_cookie(client, **ids)
        return client

    def view(self, path: str, view: c.Callable[..., t.Any], **options: t.Any) -> None:
        """Add a view."""
        self.app.add_url_rule(path, path, view, **options)

    @property
    def messages(self) -> list[dict[str, t.Any]]:
        """What the background transport would send to Mixpanel."""
        return sent(self.app, self.kept)


def library_cookie(client: FlaskClient) -> dict[str, t.Any]:
    """What the library knows in a browser."""
    cookie = client.get_cookie(COOKIE)
    return json.loads(unquote(cookie.value)) if cookie else {}


def come(site: Site, known: dict[str, str]) -> FlaskClient:
    """A browser in which the library knows this."""
    return site.visitor(**known) if known else site.client()


def balance(site: Site) -> tuple[int, int, int]:
    """What the ledger says: recorded, delivered, waiting; nothing was dropped."""
    balance = site.mengpaneel.ledger().snapshot()
    assert balance.balanced, balance
    assert balance.dropped == {}, balance
    return balance.recorded, balance.delivered, balance.waiting


def set_library_cookie(client: FlaskClient, **cookie: t.Any) -> None:
    """Let the library have been here."""
    client.set_cookie(COOKIE, quote(json.dumps(cookie)))


class _Scripts(html.parser.HTMLParser):
    """What a browser finds in a page: its scripts, and in which element they are."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.seen: list[str] = []
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self._inside = tag == "script"

        if self._inside:
            self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        self.seen.append(f"/{tag}")
        self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            attributes, text = self.scripts[-1]
            self.scripts[-1] = (attributes, text + data)


def scripts(page: str) -> list[tuple[dict[str, str | None], str]]:
    """The scripts of a page: attributes and text."""
    parser = _Scripts()
    parser.feed(page)
    parser.close()
    return parser.scripts


def tags(page: str) -> list[str]:
    """The tags of a page in their order, end tags with a slash."""
    parser = _Scripts()
    parser.feed(page)
    parser.close()
    return parser.seen


def loads_library(response: TestResponse) -> bool:
    """Whether a page loads the browser library at once."""
    data = block(response)
    return data is not None and data.keys().isdisjoint(("refused", "unasked"))


def block(response: TestResponse) -> dict[str, t.Any] | None:
    """The data that a page has for ``mengpaneel.js``."""
    found = [
        text
        for attributes, text in scripts(response.get_data(as_text=True))
        if attributes.get("id") == "mengpaneel"
    ]

    if not found:
        return None

    (text,) = found
    data: dict[str, t.Any] = json.loads(text)
    return data


def hand_overs(response: TestResponse) -> list[t.Any]:
    """The hand-overs of a page, in order."""
    data = block(response)
    return [] if data is None else data.get("calls", [])


def page_calls(response: TestResponse) -> list[t.Any]:
    """The calls of a page, in order."""
    return [call for _, calls in hand_overs(response) for call in calls]


def header_calls(response: TestResponse) -> list[t.Any]:
    """The calls in a response's header."""
    header = response.headers.get("X-Mengpaneel-Calls")
    return [] if header is None else json.loads(header)


def flush_in_thread() -> None:
    """Send what the view has tracked so far, as the thread does that looks after views
    that run long."""
    thread = threading.Thread(target=current_manager().flush_while_running)
    thread.start()
    thread.join()


def names(calls: c.Iterable[t.Any]) -> list[str]:
    """What calls are, in few words: ``track Sign In``, ``people.set``."""
    found = []

    for call in calls:
        method = ".".join(call[0])
        subject = call[1][0] if call[1] and isinstance(call[1][0], str) else ""
        found.append(f"{method} {subject}".strip())

    return found


def page_site(
    page: str | bytes | c.Callable[[], t.Any] = PAGE, **settings: t.Any
) -> Site:
    """A site whose ``/`` tracks and shows a page; ``/quiet`` only shows it."""
    site = Site(**settings)

    def respond() -> t.Any:
        return page() if callable(page) else Response(page)

    site.view("/", lambda: (site.mengpaneel.track("View"), respond())[1])
    site.view("/quiet", respond)
    return site


def without_script(body: bytes) -> bytes:
    """A page without what was put into it."""
    rest, count = SCRIPT_TAGS.subn(b"", body)
    assert count == 1
    return rest


def redirect_site(location: str = "/page", code: int = 302, **settings: t.Any) -> Site:
    """A site whose ``/go`` tracks and redirects; the others are what may come next."""
    site = Site(**settings)

    def go() -> Response:
        site.mengpaneel.track("Order", {"Items": 3})
        return Response("", code, {"Location": location})

    site.view("/go", go, methods=["GET", "POST"])
    site.view("/page", lambda: PAGE)
    site.view("/json", lambda: {}, methods=["GET", "POST"])
    site.view("/image", lambda: Response(b"GIF89a", mimetype="image/gif"))
    site.view("/poll", lambda: (site.mengpaneel.track("Poll"), {})[1])
    return site


def run_later(site: Site, path: str, hook: c.Callable[[Response], t.Any]) -> None:
    """Let a function run after the extension's."""

    def run(response: Response) -> Response:
        if request.path == path:
            hook(response)

        return response

    # Flask calls first what was registered last.
    site.app.after_request_funcs[None].insert(0, run)


class Consent:
    """A visitor's answer, which may change."""

    answer: bool | None = True

    def __call__(self) -> bool | None:
        return self.answer
