"""Every call once, with its person, whatever the visitor does.

A visitor with a browser goes through random journeys. The browser does what
``mengpaneel.js`` and Mixpanel's library do with what is in pages and headers; what the
server sends is read from its transport. In the end each recorded call has to have
arrived once, with the person whom it happened to.
"""

from __future__ import annotations

import collections
import collections.abc as c
import contextlib
import dataclasses
import itertools
import json
import typing as t
from urllib.parse import quote, unquote

import pytest
from flask import Response, redirect, session
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from flask_mengpaneel import Manager
from sites import CAPABLE, COOKIE, PAGE, Site, block, header_calls

REDIRECTS = (301, 302, 303, 307, 308)


@dataclasses.dataclass
class Arrival:
    """Something that Mixpanel got."""

    what: str
    distinct_id: str
    device_id: str | None = None
    user_id: str | None = None
    insert_id: str | None = None


class Browser:
    """A browser that has ``mengpaneel.js`` and Mixpanel's library."""

    def __init__(self, site: Site) -> None:
        self.client = site.client()
        self.arrived: list[Arrival] = []
        self.has_library = False
        self._devices = itertools.count()
        self._made: set[str] = set()
        self._identified = False
        #: Profile operations wait here until `identify` is called, as the library's.
        self._held: list[dict[str, t.Any]] = []
        self._last: list[t.Any] = []

    @property
    def is_known(self) -> bool:
        """Whether it has ids of the visitor; a response that can't set a cookie
        can't give it any."""
        return self.client.get_cookie(COOKIE) is not None

    # -- what it asks for

    def show(self, path: str, **headers: str) -> None:
        """Go to a page."""
        response = self._follow("GET", path, {"Sec-Fetch-Dest": "document", **headers})
        data = block(response)

        if data is not None:
            self.has_library, self._identified = True, False
            self._cookie()
            self._last = data.get("calls", [])
            self._hand_over()

    def again(self) -> None:
        """Show the last page again: back, reload, a duplicated tab."""
        if self.has_library:
            self._identified = False
            self._hand_over()

    def fetch(self, path: str, *, method: str = "POST", capable: bool = True) -> None:
        """Let a script of the page ask for something."""
        headers = {"Sec-Fetch-Dest": "empty", "Accept": "*/*"}

        if capable and self.has_library:
            headers.update(CAPABLE)

        for call in header_calls(self._follow(method, path, headers)):
            self._make(call)

    def load(self, path: str, destination: str, **headers: str) -> None:
        """Ask for something that isn't shown as a page."""
        self._follow("GET", path, {"Sec-Fetch-Dest": destination, **headers})

    def _follow(self, method: str, path: str, headers: dict[str, str]) -> TestResponse:
        response = self.client.open(path, method=method, headers=headers)

        while response.status_code in REDIRECTS:
            location = response.headers["Location"]

            if location.startswith("https://"):
                break

            response = self.client.get(location, headers=headers)

        return response

    # -- what the scripts do

    def _hand_over(self) -> None:
        for once, calls in self._last:
            if once not in self._made:
                if once is not None:
                    self._made.add(once)

                for call in calls:
                    self._make(call)

    def _cookie(self) -> dict[str, t.Any]:
        held = self.client.get_cookie(COOKIE)

        if held is None:
            return self._new_visitor()

        cookie: dict[str, t.Any] = json.loads(unquote(held.decoded_value))
        return cookie

    def _new_visitor(self) -> dict[str, t.Any]:
        device = f"browser-{id(self)}-{next(self._devices)}"
        return self._keep({"distinct_id": f"$device:{device}", "$device_id": device})

    def _keep(self, cookie: dict[str, t.Any]) -> dict[str, t.Any]:
        self.client.set_cookie(COOKIE, quote(json.dumps(cookie)))
        return cookie

    def _make(self, call: list[t.Any]) -> None:
        name = ".".join(call[0])
        cookie = self._cookie()

        if name == "track":
            self._arrive(call[1][0], {**cookie, **call[1][1]})
        elif name == "identify":
            self._identify(cookie, call[1][0])
        elif name == "alias":
            self._arrive(f"alias {call[1][0]}", cookie)
            self._identify(cookie, call[1][0])
        elif name == "reset":
            self._new_visitor()
            self._held = []
        elif name.startswith("people."):
            self._held.append(call[1][0])
            self._release()
        else:
            assert name == "register"

    def _identify(self, cookie: dict[str, t.Any], user: str) -> None:
        self._identified = True
        self._keep({**cookie, "distinct_id": user, "$user_id": user})
        self._release()

    def _release(self) -> None:
        if self._identified:
            for operation in self._held:
                for name in operation:
                    self._arrive(name, {**self._cookie(), "$insert_id": None})

            self._held = []

    def _arrive(self, what: str, properties: dict[str, t.Any]) -> None:
        self.arrived.append(
            Arrival(
                what,
                properties["distinct_id"],
                properties.get("$device_id"),
                properties.get("$user_id"),
                properties.get("$insert_id"),
            )
        )


class World:
    """A site, its visitor, and what the views recorded."""

    def __init__(self, **settings: t.Any) -> None:
        self.site = Site(**settings)
        self.browser = Browser(self.site)
        #: What was recorded, and who did it.
        self.expected: dict[str, str] = {}
        self.aliases: list[str] = []
        self._numbers = itertools.count()
        self._epoch = 0
        self._users = itertools.count()
        self._plan: collections.deque[tuple[list[str], c.Callable[[], t.Any]]]
        self._plan = collections.deque()
        self.site.app.before_request(self._set_up)
        self.site.view("/act", self._act, methods=["GET", "POST"])
        self.site.view("/quiet", lambda: PAGE)

    # -- the site

    @property
    def _me(self) -> str:
        return str(session.get("user") or f"visitor {self._epoch}")

    def _set_up(self) -> None:
        mengpaneel = self.site.mengpaneel

        with mengpaneel.setup():
            if session.get("user"):
                mengpaneel.identify(session["user"])

            mengpaneel.register({"Release": 7})

    def _act(self) -> t.Any:
        calls, respond = self._plan.popleft()

        for call in calls:
            self._record(call)

        return respond()

    def _record(self, kind: str) -> None:
        mengpaneel = self.site.mengpaneel
        number = next(self._numbers)

        if kind == "track":
            self._expect(f"event {number}")
            mengpaneel.track(f"event {number}")
        elif kind == "before":
            self._expect(f"event {number}")

            with mengpaneel.before_setup():
                mengpaneel.track(f"event {number}")
        elif session.get("user"):
            self._expect(f"profile {number}")
            getattr(mengpaneel.people, kind)({f"profile {number}": 1})

    def _expect(self, what: str) -> None:
        self.expected[what] = self._me

    def _sign_up(self, then: c.Callable[[], t.Any]) -> t.Any:
        if session.get("user"):
            return then()

        mengpaneel = self.site.mengpaneel
        session["user"] = user = f"user {next(self._users)}"
        self.aliases.append(user)

        with mengpaneel.before_setup():
            mengpaneel.alias(user)

        self._set_up()
        self._record("track")
        self._record("increment")
        return then()

    def _sign_out(self, then: c.Callable[[], t.Any]) -> t.Any:
        if session.pop("user", None):
            self.site.mengpaneel.reset()
            self._epoch += 1

        return then()

    # -- the journey

    def step(self, kind: str, calls: list[str]) -> None:
        """One thing that the visitor does."""
        who, _, kind = kind.rpartition(" ")
        hooks = {"in": self._sign_up, "out": self._sign_out}
        go = getattr(self, f"_{kind}")

        if who:
            go(calls, lambda then: lambda: hooks[who](then))
        else:
            go(calls, lambda then: then)

    def _to_act(self, calls: list[str], respond: c.Callable[[], t.Any]) -> str:
        self._plan.append((calls, respond))
        return "/act"

    def _page(self, calls: list[str], wrap: t.Any) -> None:
        self.browser.show(self._to_act(calls, wrap(lambda: PAGE)))

    def _redirect(self, calls: list[str], wrap: t.Any) -> None:
        path = self._to_act(calls, wrap(lambda: redirect("/quiet")))
        self.browser.show(path)

    def _chain(self, calls: list[str], wrap: t.Any) -> None:
        path = self._to_act(calls, wrap(lambda: redirect("/act")))
        self._to_act(calls, lambda: redirect("/act"))
        self._to_act(calls, lambda: PAGE)
        self.browser.show(path)

    def _away(self, calls: list[str], wrap: t.Any) -> None:
        path = self._to_act(calls, wrap(lambda: redirect("https://pay.example/")))
        self.browser.show(path)

    def _unfinished(self, calls: list[str], wrap: t.Any) -> None:
        path = self._to_act(calls, wrap(lambda: redirect("/quiet")))
        self.browser.client.get(path)

    def _fetch(self, calls: list[str], wrap: t.Any) -> None:
        self.browser.fetch(self._to_act(calls, wrap(lambda: {})))

    def _fetched(self, calls: list[str], wrap: t.Any) -> None:
        path = self._to_act(calls, wrap(lambda: redirect("/act")))
        self._to_act(calls, lambda: {})
        self.browser.fetch(path)

    def _poll(self, calls: list[str], wrap: t.Any) -> None:
        self.browser.fetch(self._to_act(calls, wrap(lambda: {})), capable=False)

    def _image(self, calls: list[str], wrap: t.Any) -> None:
        path = self._to_act(calls, wrap(lambda: Response(b"", mimetype="image/gif")))
        self.browser.load(path, "image")

    def _prefetch(self, calls: list[str], wrap: t.Any) -> None:
        # Only a page that is shown makes its calls, so one that isn't has none.
        self.browser.load(
            self._to_act([], lambda: PAGE), "document", **{"Sec-Purpose": "prefetch"}
        )

    def _cached(self, calls: list[str], wrap: t.Any) -> None:
        def respond() -> Response:
            return Response(PAGE, headers={"Cache-Control": "public"})

        path = self._to_act(calls if self.browser.is_known else [], wrap(respond))
        self.browser.show(path)

    def _streamed(self, calls: list[str], wrap: t.Any) -> None:
        self.browser.show(self._to_act(calls, wrap(lambda: Response(iter([PAGE])))))

    def _download(self, calls: list[str], wrap: t.Any) -> None:
        def respond() -> Response:
            return Response(PAGE, headers={"Content-Disposition": "attachment"})

        self.browser.show(self._to_act(calls, wrap(respond)))

    def _error(self, calls: list[str], wrap: t.Any) -> None:
        self.browser.show(self._to_act(calls, lambda: (PAGE, 500)))

    def _crash(self, calls: list[str], wrap: t.Any) -> None:
        path = self._to_act(calls if self.browser.is_known else [], lambda: 1 / 0)

        with contextlib.suppress(ZeroDivisionError):
            self.browser.show(path)

    def _again(self, calls: list[str], wrap: t.Any) -> None:
        self.browser.again()

    def _webhook(self, calls: list[str], wrap: t.Any) -> None:
        what = f"event {next(self._numbers)}"
        self.expected[what] = "user 0"

        def pay() -> dict[str, str]:
            with self.site.mengpaneel.setup():
                self.site.mengpaneel.identify("user 0")

            self.site.mengpaneel.track(what)
            return {}

        self.site.client("Stripe/1.0").post(self._to_act([], pay))

    def _job(self, calls: list[str], wrap: t.Any) -> None:
        what = f"event {next(self._numbers)}"
        self.expected[what] = "user 0"

        with self.site.app.app_context(), Manager() as manager:
            with manager.setup():
                manager.identify("user 0")

            manager.track(what)

    # -- what arrived

    def arrived(self) -> list[Arrival]:
        """What Mixpanel got, by all ways."""
        return self.browser.arrived + [
            arrival
            for message in self.site.messages
            for arrival in _from_server(message)
        ]

    def check(self) -> None:
        """Everything arrived once, and with its person."""
        self.browser.show("/quiet")
        arrived = self.arrived()
        whats = collections.Counter(arrival.what for arrival in arrived)

        assert whats == collections.Counter(
            [*self.expected, *(f"alias {user}" for user in self.aliases)]
        )

        ids = [one.insert_id for one in arrived if one.what.startswith("event")]
        assert len(set(ids)) == len(ids)
        assert None not in ids

        users = self._users_by_device(arrived)
        visitors: dict[str, set[str]] = collections.defaultdict(set)

        for one in arrived:
            if one.what.startswith("alias"):
                continue

            expected = self.expected[one.what]
            person = one.user_id or users.get(one.device_id or "", one.distinct_id)

            if one.what.startswith("profile"):
                assert one.distinct_id == expected, one
            elif expected.startswith("user"):
                assert person == expected, one
            else:
                visitors[expected].add(person)

        for people in visitors.values():
            assert len(people) == 1, visitors

        assert len({min(people) for people in visitors.values()}) == len(visitors)
        books = self.site.mengpaneel.ledger().snapshot()
        assert books.balanced, books
        assert books.dropped == {}

    @staticmethod
    def _users_by_device(arrived: list[Arrival]) -> dict[str, str]:
        """What Mixpanel's simplified merge makes of devices."""
        users: dict[str, str] = {}

        for one in arrived:
            if one.device_id and one.user_id and one.what.startswith("event"):
                users.setdefault(one.device_id, one.user_id)

        return users


def _from_server(message: dict[str, t.Any]) -> c.Iterator[Arrival]:
    if "event" in message:
        properties = message["properties"]
        name = message["event"]
        yield Arrival(
            f"alias {properties['alias']}" if name == "$create_alias" else name,
            properties["distinct_id"],
            properties.get("$device_id"),
            properties.get("$user_id"),
            properties.get("$insert_id"),
        )
        return

    for value in message.values():
        for name in value if isinstance(value, dict) else ():
            if name.startswith("profile"):
                yield Arrival(name, message["$distinct_id"])


KINDS = [
    "page",
    "redirect",
    "chain",
    "away",
    "unfinished",
    "fetch",
    "fetched",
    "poll",
    "image",
    "prefetch",
    "cached",
    "streamed",
    "download",
    "error",
    "crash",
    "again",
    "webhook",
    "job",
    *(
        f"{who} {how}"
        for who in ("in", "out")
        for how in ("page", "redirect", "chain", "fetch", "fetched", "poll", "away")
    ),
]
CALLS = st.lists(
    st.sampled_from(["track", "before", "set", "increment", "append", "union"]),
    max_size=3,
)
JOURNEY = st.lists(st.tuples(st.sampled_from(KINDS), CALLS), max_size=10)
STRATEGIES = {
    "all": None,
    "the server alone": ["AsyncServerSide", "ServerSide"],
    "without delay": ["ClientSide", "CapableClientSide", "AsyncServerSide"],
    "without headers": ["Delayed", "ClientSide", "AsyncServerSide"],
    "headers first": ["Delayed", "CapableClientSide", "ClientSide", "AsyncServerSide"],
}


def travel(journey: list[tuple[str, list[str]]], **settings: t.Any) -> None:
    world = World(**settings)

    for kind, calls in journey:
        world.step(kind, calls)

    world.check()


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(JOURNEY)
@example([("in redirect", ["track"]), ("out redirect", ["track", "set"])])
@example([("in fetch", ["track"]), ("unfinished", ["set"]), ("out page", ["track"])])
@example([("image", ["track"]), ("in chain", ["track", "before"]), ("again", [])])
# Somebody without ids signs up over a redirect, and has signed out before a page came.
@example([("in fetched", []), ("out redirect", [])])
@example([("in fetched", ["track"]), ("away", [])])
@example([("fetched", ["track"]), ("in poll", []), ("out redirect", [])])
# The library on the page hasn't been told who signed in elsewhere.
@example([("page", []), ("in poll", []), ("out fetch", ["set"])])
@example([("page", []), ("in poll", []), ("fetch", ["set"]), ("out poll", [])])
def test_every_call_arrives_once_with_its_person(
    journey: list[tuple[str, list[str]]],
) -> None:
    travel(journey)


@pytest.mark.parametrize("name", list(STRATEGIES)[1:])
def test_whatever_the_strategies(name: str) -> None:
    @settings(
        max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    @given(JOURNEY)
    def check(journey: list[tuple[str, list[str]]]) -> None:
        travel(journey, strategies=STRATEGIES[name])

    check()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(JOURNEY)
@example([("out chain", ["track"])])
def test_calls_that_are_too_old_for_a_page_arrive_as_well(
    journey: list[tuple[str, list[str]]],
) -> None:
    travel(journey, delayed_max_age=0, ack_timeout=0)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(JOURNEY)
def test_small_limits_lose_nothing(journey: list[tuple[str, list[str]]]) -> None:
    travel(journey, max_header=250)
