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
import typing as t

import pytest
from flask import Response, redirect, session
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from flask_mengpaneel import Manager
from imitation import Arrival, Browser, arrivals_of
from simulated import World
from sites import PAGE


class Journeys(World):
    """A world in which a visitor does whatever visitors do.

    :param tells_each_time: whether each request says who is signed in, or the sign-up
        alone.
    """

    def __init__(self, *, tells_each_time: bool = True, **settings: t.Any) -> None:
        self._tells_each_time = tells_each_time
        super().__init__(**settings)
        self.browser = Browser(self.site)
        #: What was recorded, and who did it.
        self.expected: dict[str, str] = {}
        self.aliases: list[str] = []
        self._plan: collections.deque[tuple[list[str], c.Callable[[], t.Any]]]
        self._plan = collections.deque()
        self.site.view("/act", self._act, methods=["GET", "POST"])

    # -- the site

    @property
    def _me(self) -> str:
        return str(session.get("user") or f"visitor {self._epoch}")

    def _set_up(self) -> None:
        mengpaneel = self.site.mengpaneel

        # A set-up without an id would say that it is nobody.
        if not self._tells_each_time:
            return

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

        with mengpaneel.setup():
            mengpaneel.identify(user)
            mengpaneel.register({"Release": 7})

        self._record("track")
        self._record("increment")
        return then()

    def _sign_out(self, then: c.Callable[[], t.Any]) -> t.Any:
        if session.pop("user", None):
            self.site.mengpaneel.reset()
            self._epoch += 1

        return then()

    def _switch(self, calls: list[str], then: c.Callable[[], t.Any]) -> t.Any:
        """Let somebody else sign in in front of the same browser, without a reset."""
        session["user"] = user = f"user {next(self._users)}"

        with self.site.mengpaneel.setup():
            self.site.mengpaneel.identify(user)

        for call in ("track", "increment", *calls):
            # What is tracked before the set-up is the former visitor's.
            self._record("track" if call == "before" else call)

        return then()

    # -- the journey

    def step(self, kind: str, calls: list[str]) -> None:
        """One thing that the visitor does."""
        who, _, kind = kind.rpartition(" ")
        hooks = {"in": self._sign_up, "out": self._sign_out}
        go = getattr(self, f"_{kind}")

        if who == "as":
            # A set-up says whose all is that was recorded before.
            go([], lambda then: lambda: self._switch(calls, then))
        elif who:
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
            for arrival in arrivals_of(message)
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
        self.check_ledger()

    @staticmethod
    def _users_by_device(arrived: list[Arrival]) -> dict[str, str]:
        """What Mixpanel's simplified merge makes of devices."""
        users: dict[str, str] = {}

        events = [one for one in arrived if one.what.startswith("event")]

        for one in sorted(events, key=lambda one: int(one.what.split()[1])):
            if one.device_id and one.user_id:
                users.setdefault(one.device_id, one.user_id)

        return users


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
SWITCHES = [f"as {how}" for how in ("page", "redirect", "chain", "fetch", "poll")]
SWITCHING = st.lists(st.tuples(st.sampled_from(KINDS + SWITCHES), CALLS), max_size=10)
STRATEGIES = {
    "all": None,
    "the server alone": ["AsyncServerSide", "ServerSide"],
    "without delay": ["ClientSide", "CapableClientSide", "AsyncServerSide"],
    "without headers": ["Delayed", "ClientSide", "AsyncServerSide"],
    "headers first": ["Delayed", "CapableClientSide", "ClientSide", "AsyncServerSide"],
}


def travel(
    journey: list[tuple[str, list[str]]],
    *,
    tells_each_time: bool = True,
    **settings: t.Any,
) -> None:
    world = Journeys(tells_each_time=tells_each_time, **settings)

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


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(SWITCHING)
def test_who_it_is_needs_to_be_said_once(journey: list[tuple[str, list[str]]]) -> None:
    travel(journey, tells_each_time=False)


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
