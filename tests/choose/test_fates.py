"""Whatever becomes of a response, each event reaches Mixpanel as one, and each
operation once.

A visitor goes through random requests, whose responses are acknowledged, lost, handed
back or shown again. Then the process ends, and the server sends what nobody has
acknowledged.
"""

from __future__ import annotations

import collections
import collections.abc as c
import dataclasses
import itertools
import json
import typing as t

from flask import redirect, request, session
from hypothesis import example, given, settings
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from simulated import SimulatedBrowser, World
from sites import ACKNOWLEDGES, PAGE, Site, scripts

Json = dict[str, t.Any]


@dataclasses.dataclass
class Given:
    """What a response has for the library."""

    text: str
    signature: str | None
    token: str | None
    calls: list[tuple[str | None, list[t.Any]]]
    #: Whether the browser has looked at it.
    is_seen: bool = False

    @classmethod
    def of(cls, response: TestResponse) -> Given | None:
        text = response.headers.get("X-Mengpaneel-Calls")

        if text is not None:
            headers = response.headers
            token = headers.get("X-Mengpaneel-Hand-Over")
            return cls(
                text,
                headers.get("X-Mengpaneel-Signature"),
                token,
                [(token, call) for call in json.loads(text)],
            )

        for attributes, text in scripts(response.get_data(as_text=True)):
            if attributes.get("id") == "mengpaneel":
                data = json.loads(text)
                calls = [
                    (once, call)
                    for once, calls in data.get("calls", [])
                    for call in calls
                ]
                signature = attributes.get("data-signature")
                return (
                    cls(text, signature, data.get("handover"), calls) if calls else None
                )

        return None


class UnluckyBrowser(SimulatedBrowser):
    """A browser with Mixpanel's library, for which things go wrong."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.arrived: list[Json] = []
        self._made: set[tuple[str, int]] = set()
        self._meetings = itertools.count()
        self.last: Given | None = None

    # -- the library

    def _make(self, call: list[t.Any]) -> None:
        name = call[0][0]

        if name == "track":
            own = call[1][1]
            properties = {**self._cookie(), **own}

            # The script takes away what the library adds to an event of nobody yet.
            if "distinct_id" in own and "$user_id" not in own:
                properties.pop("$user_id", None)

            self.arrived.append({"event": call[1][0], "properties": properties})
        elif name == "identify":
            self._be(call[1][0])
        elif name == "reset":
            self._new_visitor()
        else:
            assert name in ("add_group", "register"), name

    # -- what becomes of a response

    def meet(self, given: Given, fate: str) -> None:
        """Let something become of what a response has."""
        total = len(given.calls)

        if fate == "lost":
            return

        given.is_seen = True
        back = set(range(total // 2, total)) if fate == "half back" else set()
        back = set(range(total)) if fate == "back" else back
        seen: collections.Counter[str | None] = collections.Counter()

        for position, (once, call) in enumerate(given.calls):
            # What has no id isn't remembered.
            mark = (once or f"once {next(self._meetings)}", seen[once])
            seen[once] += 1

            if position not in back and mark not in self._made:
                self._made.add(mark)
                self._make(call)
            elif position in back:
                self._made.add(mark)

        if back:
            self.hand_back(given, sorted(back))
        elif fate == "acknowledged" and given.token is not None:
            self.client.post("/_mengpaneel/acks", data=given.token)

    def hand_back(self, given: Given, positions: list[int]) -> None:
        value = {
            "text": given.text,
            "signature": given.signature,
            "calls": positions,
            "handover": given.token,
        }
        answer = self.client.post("/_mengpaneel/calls", data=json.dumps(value))
        assert answer.status_code == 204

    def ask(self, path: str, headers: Json, fate: str, *, follows: bool = True) -> None:
        response = self.client.get(path, headers=headers)

        while response.status_code == 302 and follows:
            response = self.client.get(response.headers["Location"], headers=headers)

        found = Given.of(response)

        if found is not None:
            # A header that tracks nothing has no id, and comes with `no-store`.
            is_kept = any(once is not None for once, _ in found.calls)
            self.last = found if is_kept else None
            self.meet(found, fate)


PAGE_VIEW = {"Sec-Fetch-Dest": "document", "Sec-Fetch-Mode": "navigate"}
FETCH = {"Sec-Fetch-Dest": "empty", "Accept": "*/*"}


class FatefulWorld(World):
    """A world in which things become of responses."""

    def __init__(self) -> None:
        super().__init__(ack_timeout=600)
        self.browser = UnluckyBrowser(self.site)
        #: What was tracked, and the user who did it; a number: the one who was
        #: identified later, if anybody was.
        self.events: dict[str, str | int] = {}
        self.operations: dict[str, str | int] = {}
        self.users: dict[int, str] = {}
        self._calls: list[str] = []
        self.site.view("/page", self._view(lambda: PAGE))
        self.site.view("/json", self._view(lambda: {}))
        self.site.view("/go", self._view(lambda: redirect("/quiet")))

    def _set_up(self) -> None:
        user = session.get("user")

        if user and not request.path.startswith("/_mengpaneel"):
            with self.site.mengpaneel.setup():
                self.site.mengpaneel.identify(user)

    def _view(self, respond: c.Callable[[], t.Any]) -> c.Callable[[], t.Any]:
        def view() -> t.Any:
            for call in self._calls:
                getattr(self, f"_{call}")()

            return respond()

        return view

    def _event(self) -> None:
        name = f"event {next(self._numbers)}"
        self.events[name] = session.get("user") or self._epoch
        self.site.mengpaneel.track(name)

    def _operation(self) -> None:
        name = f"operation {next(self._numbers)}"
        self.operations[name] = session.get("user") or self._epoch
        self.site.mengpaneel.people.append(name, 1)

    def _group(self) -> None:
        name = f"operation {next(self._numbers)}"
        self.operations[name] = session.get("user") or self._epoch
        self.site.mengpaneel.add_group(name, "x")

    def _sign_in(self) -> None:
        if not session.get("user"):
            session["user"] = self.users[self._epoch] = f"user {next(self._users)}"
            self._set_up()

    def _sign_out(self) -> None:
        if session.pop("user", None):
            self.site.mengpaneel.reset()
            self._epoch += 1

    def step(self, way: str, calls: list[str], fate: str) -> None:
        """One request, and what becomes of the response."""
        if way == "again":
            if self.browser.last is not None:
                self.browser.meet(self.browser.last, fate)
        else:
            # Who misses that somebody has signed out can't know it.
            self._calls = calls
            self.browser.ask(
                {"page": "/page", "json": "/json", "capable": "/json"}.get(way, "/go"),
                {"json": FETCH, "capable": {**FETCH, **ACKNOWLEDGES}}.get(
                    way, PAGE_VIEW
                ),
                "acknowledged" if "sign_out" in calls else fate,
                follows=way != "unfollowed" or "sign_out" in calls,
            )

        # That a page is of the time before a sign-out an app knows only if it says who
        # is signed in: see "Over a redirect" in docs/identity.md.
        if "sign_out" in calls and (last := self.browser.last) and not last.is_seen:
            self.browser.last = None

        self.check_ledger()

    def end(self) -> None:
        """Let everything that waits arrive, and see what has."""
        self.step("page", ["sign_in"], "acknowledged")
        hand_overs = self.site.app.extensions["mengpaneel"].hand_overs
        hand_overs.hand_on()
        self.check_ledger()
        assert self.site.mengpaneel.ledger().waiting == 0
        messages = self.site.messages
        self._check_events(
            [*self.browser.arrived, *(one for one in messages if "event" in one)]
        )
        self._check_operations([one for one in messages if "event" not in one])

    def _check_events(self, arrived: list[Json]) -> None:
        copies: dict[str, set[tuple[t.Any, ...]]] = collections.defaultdict(set)

        for event in arrived:
            properties = event["properties"]
            copies[event["event"]].add(
                (
                    properties["$insert_id"],
                    properties["time"],
                    properties["distinct_id"],
                    properties.get("$user_id"),
                )
            )

        assert copies.keys() == self.events.keys()
        ids = []

        for name, found in copies.items():
            assert len(found) == 1, (name, found)
            ((id, _, person, user),) = found
            ids.append(id)
            assert self._is_of(person, self.events[name]), (name, person)
            assert user is None or self._is_of(user, self.events[name])

        assert len(set(ids)) == len(ids)

    def _check_operations(self, messages: list[Json]) -> None:
        made = [
            (name, message["$distinct_id"])
            for message in messages
            for change in ("$append", "$union")
            for name in message.get(change, {})
        ]
        assert sorted(name for name, _ in made) == sorted(self.operations)

        for name, person in made:
            assert self._is_of(person, self.operations[name]), (name, person)

    def _is_of(self, person: str, expected: str | int) -> bool:
        if isinstance(expected, str):
            return person == expected

        # Somebody who wasn't identified yet.
        return person == self.users.get(expected) or person.startswith("$device:")


WAYS = ["page", "json", "capable", "redirect", "unfollowed", "again"]
FATES = ["acknowledged", "made", "lost", "back", "half back"]
CALLS = ["event", "event", "operation", "group"]
STEP = st.tuples(
    st.sampled_from(WAYS),
    st.lists(st.sampled_from(CALLS), max_size=3).flatmap(
        lambda calls: st.sampled_from(
            [
                calls,
                calls,
                ["sign_in", *calls],
                [*calls, "sign_in"],
                [*calls, "sign_out"],
            ]
        )
    ),
    st.sampled_from(FATES),
)


@settings(max_examples=150)
@given(st.lists(STEP, max_size=8))
@example([("page", ["event", "operation", "group"], fate) for fate in FATES])
@example([("redirect", ["event", "operation"], fate) for fate in FATES])
@example([("capable", ["event", "operation"], fate) for fate in FATES])
@example([("unfollowed", ["group", "event"], "lost"), ("capable", [], "half back")])
@example([("page", ["sign_in", "group", "event"], "back"), ("again", [], "made")])
@example(
    [
        ("page", ["event", "operation"], "lost"),
        ("json", ["sign_in"], "acknowledged"),
        ("again", [], "made"),
    ]
)
@example(
    [
        ("page", ["operation"], "lost"),
        ("page", ["event", "sign_in"], "lost"),
        ("redirect", ["event", "sign_out"], "acknowledged"),
        ("page", ["operation", "event"], "back"),
    ]
)
def test_each_event_is_one_and_each_operation_made_once(
    journey: list[tuple[str, list[str], str]],
) -> None:
    world = FatefulWorld()

    for way, calls, fate in journey:
        world.step(way, calls, fate)

    world.end()
