"""Whose events are, whichever way they go, after any sequence of sign-ins, sign-outs,
switches, resets, loops, jobs and redirects, of which only the sign-in says who it is.

A visitor with a browser goes through random requests. A model of its own says whose
each event is.
"""

from __future__ import annotations

import collections
import collections.abc as c
import contextlib
import json
import threading
import typing as t

import pytest
from flask import Response, copy_current_request_context, redirect
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from flask_mengpaneel import Manager
from flask_mengpaneel.record.context import current_manager
from imitation import Browser, arrivals_of
from sites import PAGE, Site
from whose import USER, WORK, Model, check, work

DEED = st.one_of(
    st.just(("track", "")),
    # In a set-up, or as a script of the page's own would do it.
    st.tuples(st.sampled_from(["sign in", "identify"]), USER),
    st.just(("sign out", "")),
    st.just(("sign out by set-up", "")),
    st.tuples(st.just("loop"), USER),
    st.tuples(st.sampled_from(["job", "job of visitor", "thread"]), USER),
    # As a view does that runs for long.
    st.just(("flush", "")),
    st.just(("take along", "")),
)
DEEDS = st.lists(DEED, max_size=4)
WAYS = [
    "page",
    "fetch",
    "poll",
    "redirect",
    "chain",
    "unfinished",
    "away",
    "fetched",
    "streamed",
    "image",
    "error",
    "crash",
]
STEP = st.one_of(
    st.tuples(st.sampled_from(WAYS), DEEDS),
    st.tuples(st.just("later"), st.lists(WORK, max_size=5)),
)
JOURNEY = st.lists(STEP, max_size=6)
STRATEGIES = {
    "all": None,
    "the server alone": ["AsyncServerSide"],
    "over redirects": ["Delayed", "AsyncServerSide"],
    "without delay": ["ClientSide", "CapableClientSide", "AsyncServerSide"],
    "headers first": ["Delayed", "CapableClientSide", "ClientSide", "AsyncServerSide"],
}


class World:
    """A site, its visitor's browser, and the model."""

    def __init__(self, **options: t.Any) -> None:
        self.site = Site(**options)
        self.model = Model()
        self.browser = Browser(self.site)
        #: A visitor whom a view has taken along, and who that was.
        self.taken: tuple[t.Any, t.Any] | None = None
        self._plan: collections.deque[tuple[t.Any, c.Callable[[], t.Any]]]
        self._plan = collections.deque()
        #: What was tracked in this request before anybody was identified in it, and is
        #: of whom the first set-up identifies; ``None`` from then on.
        self._early: list[str] | None = None
        self.site.view("/act", self._act, methods=["GET", "POST"])
        self.site.view("/quiet", lambda: PAGE)

    # -- the site

    def _act(self) -> t.Any:
        deeds, respond = self._plan.popleft()
        self._early = []

        for deed, user in deeds:
            getattr(self, f"_{deed.replace(' ', '_').replace('-', '_')}")(user)

        return respond()

    def _track(self, _user: str = "") -> None:
        name = self.model.visitor_event()
        self.site.mengpaneel.track(name)

        if self._early is not None:
            self._early.append(name)

    def _sign_in(self, user: str) -> None:
        self.model.sign_in(user)
        early, self._early = self._early, None

        if early:
            self.model.expected.update(dict.fromkeys(early, user))
            self.model.link()

        with self.site.mengpaneel.setup():
            self.site.mengpaneel.identify(user)

        self._track()

    def _identify(self, user: str) -> None:
        self.model.sign_in(user)
        self._early = None
        self.site.mengpaneel.identify(user)
        self._track()

    def _sign_out(self, _user: str) -> None:
        self._track()
        self.model.sign_out()
        self._early = None
        self.site.mengpaneel.reset()

    def _sign_out_by_set_up(self, user: str) -> None:
        # Else the set-up comes before what was tracked.
        if self._early is None:
            self.model.sign_out()

            with self.site.mengpaneel.setup():
                self.site.mengpaneel.reset()

            self._track()

    def _loop(self, user: str) -> None:
        with Manager() as manager:
            for one in ("ada", user):
                with manager.setup():
                    manager.identify(one)

                self.site.mengpaneel.track(self.model.event(one))

    def _job(self, user: str) -> None:
        with Manager(identify=user):
            self.site.mengpaneel.track(self.model.event(user))

    def _job_of_visitor(self, user: str) -> None:
        with Manager(visitor=self.site.mengpaneel.visitor):
            self.site.mengpaneel.track(self.model.visitor_event())

    def _thread(self, user: str) -> None:
        @copy_current_request_context
        def run() -> None:
            self.site.mengpaneel.track(self.model.visitor_event())

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()

    def _flush(self, _user: str) -> None:
        current_manager().flush_while_running()

        if self._early is not None:
            self._early = []

    def _take_along(self, _user: str) -> None:
        visitor = json.loads(json.dumps(self.site.mengpaneel.visitor.to_json()))
        self.taken = visitor, self.model.visitor

    # -- the journey

    def step(self, way: str, what: t.Any) -> None:
        """One thing that the visitor does."""
        getattr(self, f"go_{way}")(what)

    def _to_act(self, deeds: t.Any, respond: c.Callable[[], t.Any]) -> str:
        self._plan.append((deeds, respond))
        return "/act"

    def go_page(self, deeds: t.Any) -> None:
        self.browser.show(self._to_act(deeds, lambda: PAGE))

    def go_fetch(self, deeds: t.Any) -> None:
        self.browser.fetch(self._to_act(deeds, dict))

    def go_poll(self, deeds: t.Any) -> None:
        self.browser.fetch(self._to_act(deeds, dict), capable=False)

    def go_redirect(self, deeds: t.Any) -> None:
        self.browser.show(self._to_act(deeds, lambda: redirect("/quiet")))

    def go_chain(self, deeds: t.Any) -> None:
        path = self._to_act(deeds, lambda: redirect("/act"))
        self._to_act([("track", "")], lambda: redirect("/act"))
        self._to_act([], lambda: PAGE)
        self.browser.show(path)

    def go_unfinished(self, deeds: t.Any) -> None:
        path = self._to_act(deeds, lambda: redirect("/quiet"))
        self.browser.client.get(path)

    def go_away(self, deeds: t.Any) -> None:
        self.browser.show(self._to_act(deeds, lambda: redirect("https://pay.example/")))

    def go_fetched(self, deeds: t.Any) -> None:
        path = self._to_act(deeds, lambda: redirect("/act"))
        self._to_act([("track", "")], dict)
        self.browser.fetch(path)

    def go_streamed(self, deeds: t.Any) -> None:
        self.browser.show(self._to_act(deeds, lambda: Response(iter([PAGE]))))

    def go_image(self, deeds: t.Any) -> None:
        path = self._to_act(deeds, lambda: Response(b"", mimetype="image/gif"))
        self.browser.load(path, "image")

    def go_error(self, deeds: t.Any) -> None:
        self.browser.show(self._to_act(deeds, lambda: (PAGE, 500)))

    def go_crash(self, deeds: t.Any) -> None:
        # No response says who somebody new is.
        path = self._to_act([] if not self.browser.is_known else [("track", "")], _fail)

        with contextlib.suppress(ZeroDivisionError):
            self.browser.show(path)

    def go_later(self, works: t.Any) -> None:
        if self.taken is None:
            return

        visitor, who = self.taken
        work(self.site, self.model, {"visitor": visitor}, who, works)

    def end(self) -> None:
        """Look whose the events are."""
        self.browser.show("/quiet")
        from_server = [one for m in self.site.messages for one in arrivals_of(m)]
        check(self.model, [*self.browser.arrived, *from_server])
        books = self.site.mengpaneel.ledger().snapshot()
        assert books.balanced, books
        assert books.dropped == {}


def _fail() -> t.NoReturn:
    raise ZeroDivisionError


def travel(journey: t.Any, **options: t.Any) -> None:
    world = World(**options)

    for way, what in journey:
        world.step(way, what)

    world.end()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(JOURNEY)
@example([("unfinished", [("track", "")]), ("page", [("loop", "ada")])])
def test_each_event_is_whose_it_is(journey: t.Any) -> None:
    travel(journey)


@pytest.mark.parametrize("name", list(STRATEGIES)[1:])
def test_whatever_the_strategies(name: str) -> None:
    @settings(
        max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    @given(JOURNEY)
    def check(journey: t.Any) -> None:
        travel(journey, strategies=STRATEGIES[name])

    check()


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(JOURNEY)
@example([("unfinished", [("sign in", "ada")]), ("page", [("track", "")])])
def test_calls_that_are_too_old_for_a_page_as_well(journey: t.Any) -> None:
    travel(journey, delayed_max_age=0, ack_timeout=0)
