"""Visitors of an app behind nginx, which keeps responses and gives them to others.

Nothing of one visitor may come to another in any byte, and every event arrives once,
as its own visitor's, whatever nginx may keep. Each test has URLs of its own, so that
none finds what another has left in a cache.
"""

from __future__ import annotations

import collections.abc as c
import contextlib
import dataclasses
import functools
import gzip
import http.client
import itertools
import json
import os
import threading
import time
import typing as t
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit
from zlib import crc32

import pytest
from flask import Response, abort, current_app, redirect, request, session
from flask.sessions import SecureCookieSessionInterface
from flask.typing import ResponseReturnValue
from werkzeug.middleware.proxy_fix import ProxyFix

from agents import CHROME
from needs import need
from nginx import GREEDY, WAYS, Nginx
from servers import Server
from sites import ACKNOWLEDGES, COOKIE, PAGE, Site, scripts

SESSION = "session"
LIBRARY = "http://127.0.0.1:9/library.js"
#: The server soon sends what nginx has thrown away.
SOON = {"ack_timeout": 0.5, "delayed_max_age": 1}
REDIRECTS = (301, 302, 303, 307, 308)


# -- the app


@dataclasses.dataclass
class Route:
    """A view, and how browsers ask for it."""

    respond: c.Callable[[], ResponseReturnValue]
    events: int = 1
    #: Whether it looks who is signed in, and identifies them.
    identifies: bool = False
    method: str = "GET"
    #: By a script of a page, not by the browser itself.
    is_fetched: bool = False
    #: The script is the extension's.
    is_capable: bool = False
    #: Whether the app itself ends the session's cookie.
    signs_out: bool = False


def _page(**headers: str) -> c.Callable[[], Response]:
    return lambda: Response(
        PAGE, headers={name.replace("_", "-"): headers[name] for name in headers}
    )


def _json(**headers: str) -> c.Callable[[], Response]:
    return lambda: Response(
        "{}",
        mimetype="application/json",
        headers={name.replace("_", "-"): headers[name] for name in headers},
    )


def _to_rest(code: int = 302, **headers: str) -> c.Callable[[], ResponseReturnValue]:
    def respond() -> ResponseReturnValue:
        response = redirect("rest", code)
        response.headers.extend({n.replace("_", "-"): v for n, v in headers.items()})
        return response

    return respond


def _signing_out(
    respond: c.Callable[[], t.Any], clear_site_data: str | None = None
) -> c.Callable[[], t.Any]:
    def sign_out() -> t.Any:
        response = respond()
        response.delete_cookie(SESSION)

        if clear_site_data is not None:
            response.headers["Clear-Site-Data"] = clear_site_data

        return response

    return sign_out


def _choosing(
    name: str, respond: c.Callable[[], Response] | None = None
) -> c.Callable[[], Response]:
    """Something that changes the library's own cookies."""

    def choose() -> Response:
        getattr(current_app.config["EXTENSION"], name)()
        return (respond or _page())()

    return choose


def _cleared() -> ResponseReturnValue:
    session.clear()
    return redirect("rest")


def _tagged(cache_control: str | None = None) -> Response:
    response = Response(PAGE)

    if cache_control is not None:
        response.headers["Cache-Control"] = cache_control

    response.add_etag()
    return response.make_conditional(request)


@functools.cache
def _one_for_all(case: int, body: str, mimetype: str) -> Response:
    """A response that is made once, and given to everybody."""
    return Response(body, mimetype=mimetype)


def _shared(body: str, mimetype: str) -> c.Callable[[], Response]:
    return lambda: _one_for_all((request.view_args or {})["case"], body, mimetype)


def _heavy(response: t.Any) -> t.Any:
    """One with a cookie of the app's own beside what it carries."""
    # Nothing that can be compressed.
    session["basket"] = os.urandom(int(request.args["basket"])).hex()
    return response


HEAVY = ("heavy-page", "heavy-fetch", "heavy-redirect")

#: Headers with which an app has shared caches keep a response.
SHARING: dict[str, dict[str, str]] = {
    "public": {"Cache_Control": "public, max-age=60"},
    "public-loud": {"cache_control": "PUBLIC, MAX-AGE=60"},
    "public-tagged": {"Cache_Control": "public, max-age=60", "ETag": '"1"'},
    "public-but-cookies": {
        "Cache_Control": 'public, max-age=60, no-cache="Set-Cookie"'
    },
    "s-maxage": {"Cache_Control": "s-maxage=60"},
    "stale-while-revalidate": {
        "Cache_Control": "public, max-age=60, stale-while-revalidate=60"
    },
    "x-accel-expires": {"X_Accel_Expires": "60"},
    "x-accel-expires-at": {"X_Accel_Expires": "@4102444800"},
    "x-accel-expires-private": {"X_Accel_Expires": "60", "Cache_Control": "private"},
    "x-accel-expires-no-store": {"X_Accel_Expires": "60", "Cache_Control": "no-store"},
    "cdn": {"CDN_Cache_Control": "max-age=60"},
    "cloudflare": {"Cloudflare_CDN_Cache_Control": "max-age=60"},
    "surrogate": {"Surrogate_Control": "max-age=60"},
    "edge-control": {"Edge_Control": "max-age=60"},
    "litespeed": {"X_LiteSpeed_Cache_Control": "public, max-age=60"},
}
#: Headers that leave it open who may keep it.
OPEN: dict[str, dict[str, str]] = {
    "max-age": {"Cache_Control": "max-age=60"},
    "expires": {"Expires": "Fri, 01 Jan 2100 00:00:00 GMT"},
    "must-revalidate": {"Cache_Control": "max-age=60, must-revalidate"},
    "x-accel-expires-never": {"X_Accel_Expires": "0", "Cache_Control": "max-age=60"},
}

_COOKIELESS = ("hiding-cookies",)

ROUTES: dict[str, Route] = {
    "page": Route(_page()),
    "page-quiet": Route(_page(), 0),
    "page-of-user": Route(_page(), identifies=True),
    "page-of-user-quiet": Route(_page(), 0, identifies=True),
    "page-tagged": Route(_tagged),
    "page-shared-object": Route(_shared(PAGE, "text/html"), identifies=True),
    "page-streamed": Route(lambda: Response(iter([PAGE]), mimetype="text/html")),
    "poll": Route(_json(), is_fetched=True),
    "poll-of-user": Route(_json(), is_fetched=True, identifies=True),
    "fetch": Route(_json(), is_fetched=True, is_capable=True),
    "fetch-of-user": Route(_json(), is_fetched=True, is_capable=True, identifies=True),
    "fetch-post": Route(_json(), method="POST", is_fetched=True, is_capable=True),
    "fetch-part": Route(lambda: "<p>Hi</p>", is_fetched=True, is_capable=True),
    "fetch-shared-object": Route(
        _shared("{}", "application/json"),
        is_fetched=True,
        is_capable=True,
        identifies=True,
    ),
    **{f"redirect-{code}": Route(_to_rest(code)) for code in (301, 302, 307)},
    "redirect-of-user": Route(_to_rest(), identifies=True),
    "redirect-many": Route(_to_rest(), 12, identifies=True),
    "redirect-public": Route(_to_rest(301, Cache_Control="public, max-age=60")),
    "redirect-max-age": Route(_to_rest(301, Cache_Control="max-age=60")),
    "redirect-x-accel": Route(_to_rest(301, X_Accel_Expires="60")),
    "redirect-fetched": Route(_to_rest(), is_fetched=True, is_capable=True),
    "sign-out": Route(
        _signing_out(_to_rest()), method="POST", identifies=True, signs_out=True
    ),
    "sign-out-cleared": Route(
        _cleared,
        method="POST",
        identifies=True,
        signs_out=True,
    ),
    "sign-out-clear-site-data": Route(
        _signing_out(_to_rest(), '"cookies", "storage"'),
        method="POST",
        identifies=True,
        signs_out=True,
    ),
    "sign-out-page": Route(
        _signing_out(_page()), method="POST", identifies=True, signs_out=True
    ),
    "sign-out-fetched": Route(
        _signing_out(_json()),
        method="POST",
        identifies=True,
        signs_out=True,
        is_fetched=True,
        is_capable=True,
    ),
    **{
        f"{name}-page": Route(_choosing(name), 0)
        for name in ("opt_out_tracking", "opt_in_tracking", "reset")
    },
    "opt-out-fetch": Route(_choosing("opt_out_tracking", _json()), 0, is_fetched=True),
    "opt-out-public": Route(
        _choosing("opt_out_tracking", _page(Cache_Control="public, max-age=60")), 0
    ),
    "error-404": Route(lambda: (PAGE, 404)),
    "error-404-plain": Route(lambda: abort(404)),
    "error-500": Route(lambda: (PAGE, 500)),
    # As the app's own word; nginx says the same when it can't use the app's answer.
    "error-502": Route(lambda: (PAGE, 502)),
    "error-fetched": Route(lambda: ({}, 404), is_fetched=True, is_capable=True),
    "accel-page": Route(_page(X_Accel_Redirect="/internal/file.html")),
    "accel-of-user": Route(
        _page(X_Accel_Redirect="/internal/file.html"), identifies=True
    ),
    "accel-fetched": Route(
        _json(X_Accel_Redirect="/internal/file.html"), is_fetched=True, is_capable=True
    ),
    **{
        f"{name}-page": Route(_page(**headers), identifies=True)
        for name, headers in {**SHARING, **OPEN}.items()
    },
    **{
        f"{name}-quiet": Route(_page(**headers), 0)
        for name, headers in {**SHARING, **OPEN}.items()
    },
    **{
        f"{name}-fetch": Route(
            _json(**headers), is_fetched=True, is_capable=True, identifies=True
        )
        for name, headers in {**SHARING, **OPEN}.items()
    },
    # What the tests themselves go by.
    "rest": Route(_page(Cache_Control="no-store"), 0, identifies=True),
    "waiting": Route(_to_rest(), method="POST"),
    "heavy-page": Route(lambda: _heavy(Response(PAGE))),
    "heavy-fetch": Route(
        lambda: _heavy(Response("{}", mimetype="application/json")),
        is_fetched=True,
        is_capable=True,
    ),
    "heavy-redirect": Route(lambda: _heavy(redirect("rest"))),
    "tagged-for-a-second": Route(lambda: _tagged("public, max-age=1")),
}
HELPERS = ("rest", "waiting", "tagged-for-a-second", *HEAVY)


class ProxiedSite(Site):
    """A site, served by threads, and nginx in front of it."""

    def __init__(self, folder: Path, **settings: t.Any) -> None:
        need("nginx")
        super().__init__(testing=False, library_url=LIBRARY, **SOON, **settings)
        app = self.app
        app.wsgi_app = self._counted(  # type: ignore[method-assign]
            ProxyFix(app.wsgi_app)
        )
        # Views are in tables that know of no site.
        app.config["EXTENSION"] = self.mengpaneel
        app.before_request(self._identify)
        # As if it had been there before the extension: what comes first runs last.
        app.after_request_funcs[None].insert(0, self._share)
        app.add_url_rule("/<int:case>/who", view_func=self._who)
        app.add_url_rule("/<int:case>/logo.svg", view_func=self._logo)
        app.add_url_rule(
            "/<int:case>/<name>", view_func=self._view, methods=["GET", "POST"]
        )
        #: The event's mark -> who did it.
        self.recorded: dict[str, str] = {}
        self._numbers = itertools.count()
        self._cases = itertools.count()
        self._busy = 0
        self._idle = threading.Condition()
        self._server = Server(app)
        self.nginx = Nginx(folder, self._server.port)

    def close(self) -> None:
        self.nginx.close()
        self._server.close()

    def case(self, way: str) -> Case:
        """URLs that nobody has asked for yet, behind one way of nginx."""
        self.recorded.clear()
        self.kept.envelopes.clear()
        self.outcomes.clear()
        return Case(self, way, next(self._cases))

    def wait(self) -> None:
        """Wait until no request is under way."""
        with self._idle:
            assert self._idle.wait_for(lambda: not self._busy, 60)

    def settle(self) -> None:
        """Wait until nothing waits for a browser to acknowledge it."""
        self.wait()
        deadline = time.monotonic() + 60

        while self.mengpaneel.ledger().waiting:
            assert time.monotonic() < deadline, self.mengpaneel.ledger()
            time.sleep(0.01)

    def _counted(self, app: t.Any) -> t.Any:
        """Know of requests until they have ended, which is after the answer."""

        def counted(environ: t.Any, start_response: t.Any) -> c.Iterator[bytes]:
            # Visitors are at home in different places.
            name = environ.get("HTTP_X_TEST_VISITOR", "")
            environ["HTTP_X_FORWARDED_FOR"] = f"2001:db8:{crc32(name.encode()):x}::1"

            with self._idle:
                self._busy += 1

            try:
                body = app(environ, start_response)

                try:
                    yield from body
                finally:
                    body.close()
            finally:
                with self._idle:
                    self._busy -= 1
                    self._idle.notify_all()

        return counted

    # -- what the app does

    def _identify(self) -> None:
        route = ROUTES.get((request.view_args or {}).get("name", ""))

        # Whoever looks at the session makes a response vary by cookie.
        if route is None or not route.identifies or "user" not in session:
            return

        with self.mengpaneel.setup():
            self.mengpaneel.identify(session["user"])
            self.mengpaneel.people.set({"$email": f"{session['user']}@a.example"})

    def _share(self, response: Response) -> Response:
        for name, value in SHARING.get(request.args.get("last", ""), {}).items():
            response.headers[name.replace("_", "-")] = value

        return response

    def _who(self, case: int) -> ResponseReturnValue:
        response = Response(session.get("user", ""))
        response.headers["Cache-Control"] = "no-store"
        return response

    def _view(self, case: int, name: str) -> ResponseReturnValue:
        for _ in range(request.args.get("events", ROUTES[name].events, int)):
            who = request.headers["X-Test-Visitor"]
            mark = f"{who} {next(self._numbers)}"
            self.recorded[mark] = who
            self.mengpaneel.track("Visit", {"Mark": mark, "Page": "/products"})

        return ROUTES[name].respond()

    def _logo(self, case: int) -> ResponseReturnValue:
        name = request.args["headers"]
        shared = {**SHARING, **OPEN}[name]
        headers = {n.replace("_", "-"): v for n, v in shared.items()}
        return Response("<svg/>", mimetype="image/svg+xml", headers=headers)


# -- the visitors


@dataclasses.dataclass
class Answer:
    """What came to a visitor."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str:
        return ", ".join(v for n, v in self.headers if n.lower() == name)

    @property
    def text(self) -> str:
        """All of it, in each form in which something may be hidden there."""
        lines = [f"{name}: {value}" for name, value in self.headers]
        head = "\n".join(lines)
        return "\n".join([head, unquote(head), self.body.decode("latin-1")])


class Visitor:
    """A browser with the library and the extension's script in it."""

    def __init__(self, case: Case, name: str, **headers: str) -> None:
        self.name = name
        #: ``None``: that doesn't matter.
        self.is_signed_in: bool | None = False
        self.cookies: dict[str, str] = {}
        self.answers: list[Answer] = []
        #: The events that it has sent to Mixpanel: their marks and ids.
        self.made: list[tuple[str, str]] = []
        #: What only this visitor may know.
        self.secrets = {name}
        self._case = case
        self._headers = headers
        self._hand_overs: set[str] = set()
        self._tokens: list[str] = []
        self._tags: dict[str, str] = {}
        self._last: tuple[str, str | None] = "", None

    def open(self, path: str, method: str | None = None) -> Answer:
        """Ask for a route as its table says, and follow where it leads."""
        route = ROUTES[path.partition("?")[0]]

        if route.signs_out:
            # Where cookies are hidden, nginx itself keeps anybody from that.
            hidden = self._case.way in _COOKIELESS
            self.is_signed_in = None if hidden else False

        answer = self.ask(
            path,
            method=method or route.method,
            is_fetched=route.is_fetched,
            is_capable=route.is_capable,
        )

        if answer.status in REDIRECTS:
            target = urlsplit(answer.header("location")).path.rpartition("/")[2]
            answer = self.ask(
                target, is_fetched=route.is_fetched, is_capable=route.is_capable
            )

        return answer

    def rest(self) -> str:
        """Come to a page that takes up what waits, and say who is signed in."""
        self.ask("rest")
        return self.ask("who", is_fetched=True).body.decode()

    def ask(
        self,
        path: str,
        *,
        method: str = "GET",
        destination: str = "document",
        is_fetched: bool = False,
        is_capable: bool = False,
        body: str | None = None,
    ) -> Answer:
        """Make one request, and the calls in what comes back."""
        destination = "empty" if is_fetched else destination
        headers = {
            "Host": self._case.host,
            "User-Agent": CHROME,
            "Accept": "text/html" if destination == "document" else "*/*",
            "Accept-Encoding": "gzip",
            "Sec-Fetch-Site": "same-origin",
            "Origin": f"http://{self._case.host}",
            "Sec-Fetch-Mode": "navigate" if destination == "document" else "cors",
            "Sec-Fetch-Dest": destination,
            "X-Test-Visitor": self.name,
            **(ACKNOWLEDGES if is_capable else {}),
            **self._headers,
        }

        if self.cookies:
            headers["Cookie"] = "; ".join(f"{n}={v}" for n, v in self.cookies.items())

        if path in self._tags:
            headers["If-None-Match"] = self._tags[path]

        connection = http.client.HTTPConnection(
            "127.0.0.1", self._case.site.nginx.port, timeout=60
        )

        with contextlib.closing(connection):
            target = path if path[0] == "/" else f"/{self._case.number}/{path}"
            connection.request(method, target, body, headers)
            response = connection.getresponse()
            answer = Answer(response.status, response.getheaders(), response.read())

        if answer.body and answer.header("content-encoding") == "gzip":
            answer.body = gzip.decompress(answer.body)

        if etag := answer.header("etag"):
            self._tags[path] = etag

        self.answers.append(answer)
        self._keep_cookies(answer)
        self._make_calls(answer, is_capable)
        return answer

    def hand_back(self) -> None:
        """Let the server make the calls of the last page, which it couldn't make."""
        text, signature = self._last
        data = json.loads(text)
        positions = range(sum(len(calls) for _, calls in data["calls"]))
        del self.made[:], self._tokens[:]
        self.ask(
            "/_mengpaneel/calls",
            method="POST",
            is_fetched=True,
            body=json.dumps(
                {
                    "text": text,
                    "signature": signature,
                    "calls": [*positions],
                    "handover": data.get("handover"),
                }
            ),
        )

    def acknowledge(self) -> None:
        """Say that Mixpanel has what was made."""
        if self._tokens:
            tokens, self._tokens = " ".join(self._tokens), []
            self.ask("/_mengpaneel/acks", method="POST", is_fetched=True, body=tokens)

    def set_cookie(self, name: str, value: str) -> None:
        self.cookies[name] = value

        if len(value) > 8:
            self.secrets.update((value, unquote(value)))

    def introduce(self, device: str = "device") -> None:
        """Let the library have been here."""
        device = f"{device}-of-{self.name}"
        ids = {"distinct_id": f"$device:{device}", "$device_id": device}
        self.set_cookie(COOKIE, quote(json.dumps(ids)))

    def consent(self, answer: str) -> None:
        if answer:
            self.set_cookie("consent", answer)

    def _keep_cookies(self, answer: Answer) -> None:
        if '"cookies"' in answer.header("clear-site-data"):
            # Its own cookies are gone with the others.
            self.cookies.clear()
            return

        for header, line in answer.headers:
            if header.lower() != "set-cookie":
                continue

            name, _, value = line.partition(";")[0].partition("=")

            if not value:
                # The way to delete one.
                self.cookies.pop(name, None)
                continue

            self.set_cookie(name, value)

            if name == COOKIE:
                ids = json.loads(unquote(value))
                self.secrets.update(
                    v for k, v in ids.items() if k in ("distinct_id", "$device_id")
                )

    def _make_calls(self, answer: Answer, is_capable: bool) -> None:
        calls: list[t.Any] = []

        if is_capable and (header := answer.header("x-mengpaneel-calls")):
            calls += json.loads(header)
            self._tokens.append(answer.header("x-mengpaneel-hand-over"))
            self.secrets.add(answer.header("x-mengpaneel-signature"))
            self.secrets.add(self._tokens[-1])

        if "text/html" in answer.header("content-type"):
            for attributes, text in scripts(answer.body.decode()):
                if attributes.get("id") == "mengpaneel":
                    signature = attributes.get("data-signature")
                    self.secrets.add(signature or "")
                    self._last = text, signature

                    data = json.loads(text)

                    if "handover" in data:
                        self._tokens.append(data["handover"])
                        self.secrets.add(data["handover"])

                    for once, made in data.get("calls", []):
                        if once not in self._hand_overs:
                            self._hand_overs.add(once)
                            calls += made

        for call in calls:
            if call[0] == ["track"]:
                properties = call[1][1]
                self.made.append((properties["Mark"], properties["$insert_id"]))
                self.secrets.add(properties["$insert_id"])


@dataclasses.dataclass
class Case:
    """What a test asks for, and who asks."""

    site: ProxiedSite
    way: str
    number: int

    def __post_init__(self) -> None:
        self.visitors: list[Visitor] = []

    @property
    def host(self) -> str:
        return self.site.nginx.host(self.way)

    @property
    def serializer(self) -> t.Any:
        """What makes cookies of sessions."""
        app = self.site.app
        assert isinstance(app.session_interface, SecureCookieSessionInterface)
        return app.session_interface.get_signing_serializer(app)

    def visitor(self, kind: str = "new", **headers: str) -> Visitor:
        """Somebody ``new``, ``known`` or ``signed in``."""
        name = f"visitor{self.number}x{len(self.visitors)}x"
        visitor = Visitor(self, name, **headers)
        self.visitors.append(visitor)

        if kind != "new":
            visitor.introduce()

        if kind == "signed in":
            # Where cookies are hidden nobody could sign in; this one did elsewhere.
            visitor.set_cookie(SESSION, self.serializer.dumps({"user": name}))
            visitor.is_signed_in = True

        return visitor

    def leaks(self) -> list[str]:
        """What came to somebody of somebody else, in which lines."""
        return [
            f"{secret} of {owner.name} came to {other.name}: {line:.300}"
            for owner, other in itertools.permutations(self.visitors, 2)
            for answer in other.answers
            for line in (answer.text + self._sessions(answer)).splitlines()
            for secret in owner.secrets
            if secret and secret in line
        ]

    def _sessions(self, answer: Answer) -> str:
        """What is in the sessions that an answer gives."""
        return "\n".join(
            json.dumps(self.serializer.loads(pair.partition("=")[2]))
            for name, line in answer.headers
            if name.lower() == "set-cookie"
            and (pair := line.partition(";")[0]).startswith(f"{SESSION}=")
            and pair != f"{SESSION}="
        )

    def kept_cookies(self) -> list[tuple[str, str]]:
        """The cookies that came to somebody out of a cache."""
        return [
            (visitor.name, value)
            for visitor in self.visitors
            for answer in visitor.answers
            for name, value in answer.headers
            if name.lower() == "set-cookie"
            and answer.header("x-cache") not in ("", "MISS", "BYPASS", "EXPIRED")
        ]

    def arrived(self) -> list[tuple[str, str]]:
        """Each event at Mixpanel: its mark, and who it was as far as one can tell.

        Mixpanel takes those that the server sends too, under the same ids, for one.
        """
        self.site.settle()
        found = [(mark, one.name) for one in self.visitors for mark, _ in one.made]
        ids = {id for one in self.visitors for _, id in one.made}

        for message in self.site.messages:
            properties = message.get("properties", {})

            # Others are of pages that an earlier test has thrown away.
            if properties.get("Mark") in self.site.recorded:
                if properties["$insert_id"] not in ids:
                    ids.add(properties["$insert_id"])
                    found.append((properties["Mark"], self._whose(message)))

        return sorted(found)

    def _whose(self, message: dict[str, t.Any]) -> str:
        """The visitor whose ids an event has that the server sent."""
        ids = {
            message["properties"].get(name)
            for name in ("distinct_id", "$user_id", "$device_id")
        }
        ids = {f"{id}".removeprefix("$device:") for id in ids}
        whose = {
            one.name
            for one in self.visitors
            if any(id in one.secrets or id.endswith(f"-of-{one.name}") for id in ids)
        }
        assert len(whose) < 2, (whose, message)
        # A new visitor may have no ids that anybody knows.
        return (
            whose.pop() if whose else self.site.recorded[message["properties"]["Mark"]]
        )

    def check(self, arrives: bool = True) -> None:
        """Nothing came to somebody else, and everything arrived once.

        :param arrives: whether all of it is to arrive.
        """
        signed_in = [visitor.rest() for visitor in self.visitors]

        for visitor in self.visitors:
            visitor.acknowledge()

        assert self.leaks() == []
        kept = self.kept_cookies()
        # What the app itself has kept for everybody is its own affair.
        assert [one for one in kept if not one[1].startswith(f"{SESSION}=;")] == []

        for visitor, user in zip(self.visitors, signed_in, strict=True):
            if visitor.is_signed_in is not None:
                assert user == (visitor.name if visitor.is_signed_in else "")

        if arrives:
            outcomes = [(one.strategy, one.declined) for one in self.site.outcomes]
            assert self.arrived() == sorted(self.site.recorded.items()), outcomes


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> c.Iterator[ProxiedSite]:
    opened = ProxiedSite(tmp_path_factory.mktemp("nginx"))
    yield opened
    opened.close()


def _consent() -> bool | None:
    return {"yes": True, "no": False}.get(request.cookies.get("consent", ""))


@pytest.fixture(scope="module")
def asking_site(tmp_path_factory: pytest.TempPathFactory) -> c.Iterator[ProxiedSite]:
    """One whose visitors are asked whether they may be tracked."""
    opened = ProxiedSite(tmp_path_factory.mktemp("nginx"), consent=_consent)
    yield opened
    opened.close()


# -- the tests


#: Who asks first and last, and who asks in between.
PAIRS = [("signed in", "new"), ("new", "signed in"), ("known", "known")]
each_pair = pytest.mark.parametrize("kinds", PAIRS, ids=" and ".join)
ROUTES_TO_TRY = [name for name in ROUTES if name not in HELPERS]
HEADERS = [*SHARING, *OPEN]
each_header = pytest.mark.parametrize("headers", HEADERS)
Kinds = tuple[str, str]


def cases(names: str, *axes: c.Iterable[t.Any]) -> pytest.MarkDecorator:
    """All combinations of some axes, each with one of the pairs in turn."""
    combinations = itertools.product(*map(enumerate, axes))
    found = []

    for combination in combinations:
        numbers, values = zip(*combination, strict=True)
        found.append((*values, PAIRS[sum(numbers) % len(PAIRS)]))

    ids = ["-".join(map(_case_id, values)) for values in found]
    return pytest.mark.parametrize(f"{names}, kinds", found, ids=ids)


def _case_id(value: str | tuple[str, str]) -> str:
    return value if isinstance(value, str) else " and ".join(value)


@each_pair
@pytest.mark.parametrize("route", ROUTES_TO_TRY)
@pytest.mark.parametrize("way", ["plain", "keeping", GREEDY])
def test_each_visitor_gets_their_own(
    site: ProxiedSite, way: str, route: str, kinds: Kinds
) -> None:
    try_route(site, way, route, kinds)


@cases(
    "way, route",
    [w for w in WAYS if w not in ("plain", "keeping", GREEDY)],
    ROUTES_TO_TRY,
)
def test_each_visitor_gets_their_own_however_nginx_is_set_up(
    site: ProxiedSite, way: str, route: str, kinds: Kinds
) -> None:
    try_route(site, way, route, kinds)


def try_route(site: ProxiedSite, way: str, route: str, kinds: Kinds) -> None:
    case = site.case(way)
    one, other = map(case.visitor, kinds)

    for visitor in (one, other, one):
        answer = visitor.open(route)
        assert answer.status not in (502, 504) or route == "error-502", (
            site.nginx.output
        )

        if way == "replacing-errors" and route.startswith("error-"):
            assert b"An error" in answer.body

    assert site.recorded or not ROUTES[route.partition("?")[0]].events
    case.check()


@pytest.mark.parametrize(
    "route", [name for name, route in ROUTES.items() if route.signs_out]
)
@pytest.mark.parametrize("way", ["plain", "keeping", GREEDY, "keeping-posts"])
def test_signing_out_while_calls_wait(site: ProxiedSite, way: str, route: str) -> None:
    case = site.case(way)
    visitor = case.visitor("signed in")
    visitor.ask("waiting", method="POST")
    visitor.open(route)
    case.check()


@cases("way, route", [GREEDY, "asking-head"], ROUTES_TO_TRY)
def test_asking_for_headers_alone(
    site: ProxiedSite, way: str, route: str, kinds: Kinds
) -> None:
    case = site.case(way)
    one, other = map(case.visitor, kinds)

    for visitor in (one, other, one):
        visitor.open(route, "HEAD" if visitor is one else None)

    # One of the two asks for the whole page, and throws it away.
    case.check()


@cases("headers, how", HEADERS, ["waiting", "blocked", "another's by now"])
def test_a_file_for_everybody_while_calls_wait(
    site: ProxiedSite, headers: str, how: str, kinds: Kinds
) -> None:
    case = site.case(GREEDY)
    one, other = map(case.visitor, kinds)
    one.ask("waiting", method="POST")

    if how == "blocked":
        # The server sends what waits with the next request.
        one.set_cookie("mengpaneel_blocked", "1")
    elif how == "another's by now":
        one.introduce("new-device")

    for visitor in (one, other, one):
        visitor.ask(f"logo.svg?headers={headers}", destination="image")

    case.check()


@cases("route, headers", ["page", "fetch-of-user", "redirect-302", "poll"], SHARING)
def test_headers_that_come_after_the_extension(
    site: ProxiedSite, route: str, headers: str, kinds: Kinds
) -> None:
    try_route(site, GREEDY, f"{route}?last={headers}", kinds)


@pytest.mark.parametrize("way", [way for way in WAYS if way not in _COOKIELESS])
def test_each_visitor_can_hand_back_their_own(site: ProxiedSite, way: str) -> None:
    case = site.case(way)
    visitors = [case.visitor("known"), case.visitor("known")]

    for visitor in visitors:
        visitor.open("page")
        visitor.hand_back()

    case.check()


@each_header
@pytest.mark.parametrize("signal", ["DNT", "Sec-GPC"])
def test_who_objects_gets_no_library_out_of_a_cache(
    site: ProxiedSite, signal: str, headers: str
) -> None:
    case = site.case(GREEDY)
    one, other = case.visitor(), case.visitor(**{signal: "1"})

    for visitor in (one, other, one):
        visitor.open(f"{headers}-quiet")

    assert LIBRARY not in other.answers[0].text
    case.check()


@each_header
@pytest.mark.parametrize("consent", ["no", ""])
def test_who_has_not_consented_gets_no_library_out_of_a_cache(
    asking_site: ProxiedSite, headers: str, consent: str
) -> None:
    case = asking_site.case(GREEDY)
    one, other = case.visitor(), case.visitor()
    one.consent("yes")
    other.consent(consent)

    for visitor in (one, other, one):
        visitor.open(f"{headers}-quiet")

    assert LIBRARY not in other.answers[0].text
    case.check()


CONSENTS = [("yes", "no"), ("yes", ""), ("", "yes"), ("", "")]


@cases("route, consents", ROUTES_TO_TRY, CONSENTS)
def test_whoever_has_consented(
    asking_site: ProxiedSite, route: str, consents: tuple[str, str], kinds: Kinds
) -> None:
    case = asking_site.case(GREEDY)
    one, other = map(case.visitor, kinds)
    one.consent(consents[0])
    other.consent(consents[1])

    for visitor in (one, other, one):
        visitor.open(route)

    case.check(arrives=False)
    arrived = case.arrived()
    marks = [mark for mark, _ in arrived]
    assert len(set(marks)) == len(marks)
    agreed = {one.name} if consents[0] == "yes" else set()
    agreed |= {other.name} if consents[1] == "yes" else set()
    assert {name for _, name in arrived} <= agreed


@pytest.mark.parametrize("kind", ["signed in", "new"])
@pytest.mark.parametrize("basket", [0, 400, 1400, 2000])
@pytest.mark.parametrize("events", [1, 8, 22, 28, 34, 60])
@pytest.mark.parametrize("route", HEAVY)
def test_what_a_response_carries_fits_into_the_buffer(
    site: ProxiedSite, route: str, events: int, basket: int, kind: str
) -> None:
    case = site.case("plain")
    visitor = case.visitor(kind)
    visitor.is_signed_in = None
    answer = visitor.open(f"{route}?events={events}&basket={basket}")
    assert answer.status == 200, site.nginx.output.splitlines()[-1]
    case.check()


@each_pair
def test_a_page_that_nginx_asks_for_again(site: ProxiedSite, kinds: Kinds) -> None:
    case = site.case("serving-stale")
    visitors = [case.visitor(kind) for kind in kinds]
    seen: set[str] = set()
    deadline = time.monotonic() + 60

    while not seen & {"UPDATING", "STALE", "REVALIDATED"}:
        assert time.monotonic() < deadline, seen

        for visitor in visitors:
            seen.add(visitor.open("tagged-for-a-second").header("x-cache"))

    case.check()
