"""A model of whose events are, which knows nothing of the package, and what Mixpanel
makes of the ids that they arrive with."""

from __future__ import annotations

import collections.abc as c
import itertools
import typing as t

from hypothesis import strategies as st

from flask_mengpaneel import Manager
from imitation import Arrival
from sites import Site

USERS = ("ada", "bob", "eve")
USER = st.sampled_from(USERS)
# In a job: who is set up, or nobody anew, and what becomes of the calls.
WORK = st.one_of(
    st.tuples(st.just("set up"), USER),
    st.just(("set up nobody", "")),
    st.just(("reset", "")),
    st.just(("track", "")),
    st.just(("flush", "")),
)


class Model:
    """Who each event belongs to: a name, or an anonymous visitor's number."""

    def __init__(self) -> None:
        self.anonymous = itertools.count(1)
        self.numbers = itertools.count()
        #: Who sits in front of the browser.
        self.visitor: t.Any = next(self.anonymous)
        #: Who was anonymous on the same device before.
        self.before: int | None = None
        #: The visitors who were anonymous and then signed in: an event says so.
        self.became: dict[int, str] = {}
        self.expected: dict[str, t.Any] = {}

    def event(self, who: t.Any) -> str:
        name = f"event {next(self.numbers)}"
        self.expected[name] = who
        return name

    def link(self) -> None:
        """An event has the ids of the device and of whom it became."""
        if self.before is not None:
            self.became.setdefault(self.before, self.visitor)

    def visitor_event(self) -> str:
        self.link()
        return self.event(self.visitor)

    def sign_in(self, user: str) -> None:
        if isinstance(self.visitor, int):
            self.before = self.visitor

        self.visitor = user

    def sign_out(self) -> None:
        self.visitor, self.before = next(self.anonymous), None

    def person(self, who: t.Any) -> t.Any:
        return self.became.get(who, who)


def work(site: Site, model: Model, options: t.Any, given: t.Any, works: t.Any) -> None:
    """Let a job do something.

    :param options: of its manager.
    :param given: whose it is before anybody is set up.
    """
    base = "" if "identify" in options else given
    now, is_named = given, isinstance(given, str) and bool(given)
    #: The device of an anonymous visitor, until somebody else is set up.
    device = given if isinstance(given, int) else None
    #: What was tracked before anybody was set up, and is the first one's.
    early: list[str] = []

    with site.app.app_context(), Manager(**options) as manager:
        for work, user in works:
            if work == "track":
                name = model.event(now)
                manager.track(name)

                if not is_named:
                    early.append(name)
                elif device is not None and isinstance(now, str) and now:
                    model.became.setdefault(device, now)
            elif work == "flush":
                manager.flush()
                early = []
            elif work == "reset":
                manager.reset()
                now, device, is_named, early = "", None, True, []
            else:
                with manager.setup():
                    if user:
                        manager.identify(user)

                if user and not is_named:
                    if device is not None and early:
                        model.became.setdefault(device, user)

                    model.expected.update(dict.fromkeys(early, user))
                elif now != (user or base) and is_named:
                    # With the visitor who was given comes their device.
                    device = given if isinstance(given, int) and not user else None

                now, is_named = user or base, is_named or bool(user)


def check(model: Model, arrivals: c.Iterable[Arrival]) -> None:
    """Each event has arrived once, and is whose it is."""
    arrived = [one for one in arrivals if one.what in model.expected]
    # In the order in which they happened.
    found = resolve(sorted(arrived, key=lambda one: number(one.what)))
    assert len(arrived) == len(found)
    assert found.keys() == model.expected.keys()
    ids: dict[t.Any, str] = {}

    for event, who in model.expected.items():
        person = model.person(who)

        if isinstance(person, str):
            assert found[event] == person, (event, found, model.expected)
        else:
            # Each anonymous visitor has one device, which nobody else has.
            assert found[event].startswith("$device:"), (event, found, model.expected)
            assert ids.setdefault(person, found[event]) == found[event], (
                event,
                found,
                model.expected,
            )

    assert len(set(ids.values())) == len(ids), (found, model.expected)


def number(event: str) -> int:
    return int(event.removeprefix("event "))


def resolve(arrivals: c.Iterable[Arrival]) -> dict[str, str]:
    """Whose each event is to Mixpanel: a device is its first user's.

    https://docs.mixpanel.com/docs/tracking-methods/id-management/identifying-users-simplified
    """
    events = list(arrivals)
    owners: dict[str, str] = {}

    for one in events:
        if one.device_id and one.user_id:
            owners.setdefault(one.device_id, one.user_id)

    return {
        one.what: one.user_id or owners.get(one.device_id or "") or one.distinct_id
        for one in events
    }
