"""Whose events are, after any sequence of what may happen: held against a model of its
own, and against ids that are resolved as Mixpanel's simplified merge does it."""

from __future__ import annotations

import json
import typing as t

from flask import redirect, request
from hypothesis import given, settings
from hypothesis import strategies as st

from imitation import arrivals_of
from sites import Site
from whose import USER, WORK, Model, check, work

# In a request: sign-in, sign-out, switch, and events in between.
DEED = st.one_of(
    st.tuples(st.just("sign in"), USER),
    st.just(("sign out", "")),
    st.just(("track", "")),
)
STEP = st.one_of(
    st.tuples(st.sampled_from(["fetch", "redirect"]), st.lists(DEED, max_size=5)),
    st.tuples(st.sampled_from(["job", "job of visitor"]), st.lists(WORK, max_size=8)),
    st.tuples(st.sampled_from(["job of ada", "job of bob"]), st.lists(WORK)),
)


class World:
    """A site, its visitor's browser, and the model."""

    def __init__(self) -> None:
        self.site = Site(strategies=["Delayed", "AsyncServerSide"])
        self.model = Model()
        self.client = self.site.client()
        self.kept: t.Any = None
        self.site.view("/", self.view, methods=["POST"])
        self.site.view("/next", dict)

    def view(self) -> t.Any:
        model, mengpaneel = self.model, self.site.mengpaneel
        #: What was tracked before this request has said who it is: the set-up comes
        #: first.
        early: list[str] | None = []

        for deed, user in json.loads(request.form["deeds"]):
            if deed == "sign in":
                with mengpaneel.setup():
                    mengpaneel.identify(user)

                model.sign_in(user)

                if early:
                    model.expected.update(dict.fromkeys(early, user))
                    model.link()

                early = None
            elif deed == "sign out":
                mengpaneel.reset()
                model.sign_out()
                early = None
            else:
                name = model.visitor_event()
                mengpaneel.track(name)

                if early is not None:
                    early.append(name)

        # So that an identity that the request ends with reaches the browser.
        mengpaneel.track(model.visitor_event())
        self.kept = json.loads(json.dumps(mengpaneel.visitor.to_json())), model.visitor
        return redirect("/next") if request.form["kind"] == "redirect" else {}

    def visit(self, kind: str, deeds: t.Any) -> None:
        self.client.post(
            "/",
            data={"kind": kind, "deeds": json.dumps(deeds)},
            follow_redirects=True,
            headers={"Sec-Fetch-Mode": "cors"},
        )

    def job(self, kind: str, works: t.Any) -> None:
        options, given = {}, ""

        if kind == "job of visitor" and self.kept is not None:
            options["visitor"], given = self.kept
        elif kind != "job of visitor" and " of " in kind:
            given = options["identify"] = kind.removeprefix("job of ")

        work(self.site, self.model, options, given, works)


@given(st.lists(STEP, max_size=5))
@settings(max_examples=150)
def test_each_event_is_whose_it_is(steps: t.Any) -> None:
    world = World()

    for kind, what in steps:
        if kind in ("fetch", "redirect"):
            world.visit(kind, what)
        else:
            world.job(kind, what)

    arrivals = [one for m in world.site.messages for one in arrivals_of(m)]
    check(world.model, arrivals)
