"""The calls that apps record in a test, and what becomes of each."""

from __future__ import annotations

import collections.abc as c
import contextlib
import threading
import typing as t

from blinker import ANY

from ..plan.declared import Event, name_and_properties, name_of
from ..proxies import active_request
from ..signals import dropped, flushed, recorded
from ..values import plain
from .nearest import differences, explain, listing
from .recorded_call import RecordedCall

if t.TYPE_CHECKING:
    from flask import Flask, Request

    from ..calls import Call
    from ..outcome import Outcome
    from ..values import Id
    from .recorded_call import Unit

#: The properties that an assertion names, if they aren't all words of Python.
Properties: t.TypeAlias = "c.Mapping[str, t.Any]"

# The methods that give a profile properties.
_SETTING = frozenset({"people.set", "people.set_once"})

_NO_PROPERTIES: Properties = {}


class RecordedCalls(c.Sequence[RecordedCall]):
    """The calls that apps have recorded, in order, whichever way they went."""

    def __init__(self) -> None:
        #: The outcome of each flush, in order.
        self.outcomes: list[Outcome] = []
        self._calls: list[RecordedCall] = []
        #: The requests and jobs that they are of, by their identities.
        self._units: dict[int, tuple[object, list[RecordedCall]]] = {}
        # Servers record in threads of their own.
        self._lock = threading.Lock()

    # -- recording

    @contextlib.contextmanager
    def connected_to(self, app: Flask | None) -> c.Iterator[None]:
        """Collect the calls of an app, or of all."""
        sender: t.Any = ANY if app is None else app

        with (
            recorded.connected_to(self.on_recorded, sender),
            dropped.connected_to(self.on_dropped, sender),
            flushed.connected_to(self.on_flushed, sender),
        ):
            yield

    def on_recorded(self, app: Flask, call: Call, unit: Unit) -> None:
        """Add a call that a request or a job has recorded."""
        with self._lock:
            self._add(app, call, unit.request, unit)

    def on_flushed(self, app: Flask, outcome: Outcome) -> None:
        """Note what became of calls."""
        with self._lock:
            self.outcomes.append(outcome)

            for call in outcome.calls:
                known = self._find(app, call)

                # Else it waited in the session before this began.
                if known is None and call.tracks:
                    known = self._add(app, call, active_request(), None)

                if known is not None:
                    known.outcomes.append(outcome)

    def on_dropped(self, app: Flask, calls: c.Sequence[Call], reason: str) -> None:
        """Note why no strategy is asked to take calls."""
        # Without the lock, which this thread may have.
        for call in calls:
            for one in self._calls:
                if one.call is call:
                    one.dropped = reason

    def _add(
        self, app: Flask, call: Call, request: Request | None, unit: Unit | None
    ) -> RecordedCall:
        during = None if request is None else f"{request.method} {request.path}"
        one = RecordedCall(app, call, during, unit)
        work = request or unit or call
        self._units.setdefault(id(work), (work, []))[1].append(one)
        self._calls.append(one)
        return one

    def _find(self, app: Flask, call: Call) -> RecordedCall | None:
        latest = [one for one in reversed(self._calls) if one.app is app]
        same = (one for one in latest if one.call is call)
        return next(same, None) or next(
            (one for one in latest if one.is_same(call)), None
        )

    # -- reading

    @t.overload
    def __getitem__(self, index: int) -> RecordedCall: ...

    @t.overload
    def __getitem__(self, index: slice) -> list[RecordedCall]: ...

    def __getitem__(self, index: int | slice) -> RecordedCall | list[RecordedCall]:
        return self._calls[index]

    def __len__(self) -> int:
        return len(self._calls)

    def __repr__(self) -> str:
        return f"<{len(self)} calls: {self._calls!r}>"

    @property
    def by_request(self) -> list[list[RecordedCall]]:
        """The calls of each request and each job, in the order of their first calls."""
        return [list(calls) for _, calls in self._units.values()]

    @property
    def events(self) -> list[str]:
        """The names of the events that are tracked, each once however often it was
        carried."""
        return [one.event for one in self._calls if one.event is not None and one.goes]

    def clear(self) -> None:
        """Forget the calls until now."""
        with self._lock:
            self._calls.clear()
            self._units.clear()
            self.outcomes.clear()

    # -- assertions

    def assert_tracked(
        self,
        event: str | Event | type[Event],
        properties: Properties = _NO_PROPERTIES,
        /,
        **more: t.Any,
    ) -> RecordedCall:
        """Assert that an event was tracked, with these properties among others.

        :param event: its name, its class, or one as it was tracked.
        :param properties: those whose names are no words of Python.
        :param more: further properties, by name.
        :return: the first such call.
        :raises AssertionError: there is none; the message shows the nearest calls.
        """
        __tracebackhide__ = True
        name, expected = _expected(event, {**properties, **more})
        wanted = f"event {name!r}{_with(expected)}"
        return self._first(lambda one: one.event == name, name, expected, wanted)

    def assert_not_tracked(
        self,
        event: str | Event | type[Event] | None = None,
        properties: Properties = _NO_PROPERTIES,
        /,
        **more: t.Any,
    ) -> None:
        """Assert that no event was tracked, or none of this name or class with these
        properties among others.

        :param event: its name, its class, or one as it was tracked; ``None``: any.
        :param properties: those whose names are no words of Python.
        :param more: further properties, by name.
        :raises AssertionError: there is one; the message shows all of them.
        """
        __tracebackhide__ = True
        given = {**properties, **more}
        name, expected = (None, given) if event is None else _expected(event, given)
        found = [
            one
            for one in self
            if one.event is not None
            and name in (None, one.event)
            and one.goes
            and not differences(expected, one.properties)
        ]

        if found:
            said = "event" if name is None else f"event {name!r}"
            what = f"there is to be no {said}{_with(expected)}, but there is:"
            raise AssertionError(listing(what, found))

    def assert_identified(self, user_id: Id | None = None) -> RecordedCall:
        """Assert that somebody was identified, or the person with this id.

        :param user_id: the id, as the app gives it to ``identify``; ``None``: any.
        :return: the first such call.
        :raises AssertionError: there is none; the message shows the nearest calls.
        """
        __tracebackhide__ = True
        arguments = None if user_id is None else [str(plain(user_id))]
        said = "" if arguments is None else repr(arguments[0])
        return self._first(
            lambda one: one.name == "identify" and arguments in (None, one.arguments),
            "identify",
            {},
            f"identify({said})",
        )

    def assert_profile(
        self, properties: Properties = _NO_PROPERTIES, /, **more: t.Any
    ) -> None:
        """Assert that a profile was given these properties, by ``people.set`` or
        ``people.set_once``, in one call or in several.

        :param properties: those whose names are no words of Python.
        :param more: further properties, by name.
        :raises AssertionError: there is no such call for one of them; the message shows
            the nearest calls.
        """
        __tracebackhide__ = True
        expected = {**properties, **more}

        for name, value in expected.items():
            one = {name: value}
            self._first(
                lambda call: call.name in _SETTING,
                "people.set",
                one,
                f"operation on a profile{_with(one)}",
            )

    def _first(
        self,
        is_wanted: c.Callable[[RecordedCall], bool],
        name: str,
        expected: Properties,
        wanted: str,
    ) -> RecordedCall:
        __tracebackhide__ = True
        calls = list(self)

        for one in calls:
            if (
                is_wanted(one)
                and one.goes
                and not differences(expected, one.properties)
            ):
                return one

        raise AssertionError(explain(wanted, name, expected, calls))


def _expected(
    event: str | Event | type[Event], properties: dict[str, t.Any]
) -> tuple[str, dict[str, t.Any]]:
    """Return the name and the properties that an event is to have."""
    if isinstance(event, Event):
        return name_and_properties(event, properties)

    return event if isinstance(event, str) else name_of(event), properties


def _with(expected: Properties) -> str:
    return f" with {dict(expected)!r}" if expected else ""
