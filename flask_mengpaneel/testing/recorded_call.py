"""A call that an app has recorded in a test, and what has become of it until now."""

from __future__ import annotations

import collections.abc as c
import typing as t

from ..identity import EVENT_IDS

if t.TYPE_CHECKING:
    from flask import Flask, Request

    from ..calls import Call, Json
    from ..outcome import Outcome


class Unit(t.Protocol):
    """A request or a job, as its manager knows it."""

    @property
    def calls(self) -> c.Iterable[Call]: ...

    @property
    def request(self) -> Request | None: ...


class RecordedCall:
    """A call that an app has recorded, and what has become of it until now."""

    __slots__ = (
        "_has_waited",
        "_unit",
        "app",
        "call",
        "dropped",
        "outcomes",
        "request",
    )

    def __init__(
        self, app: Flask, call: Call, request: str | None, unit: Unit | None
    ) -> None:
        #: The app that recorded it.
        self.app = app
        #: The call itself.
        self.call = call
        #: The request that recorded it, such as ``POST /orders``, or that found it in
        #: the session; ``None``: a job.
        self.request = request
        #: The outcomes of the flushes that it went through.
        self.outcomes: list[Outcome] = []
        #: Why it was dropped before any strategy was asked: ``"rolled back"``; else
        #: empty.
        self.dropped = ""
        #: What keeps it until it is flushed.
        self._unit = unit
        self._has_waited = unit is None

    @property
    def name(self) -> str:
        """The method, as one would write it: ``people.set``."""
        return self.call.name

    @property
    def arguments(self) -> list[t.Any]:
        """The arguments, as JSON values."""
        return self.call.arguments

    @property
    def event(self) -> str | None:
        """The name of the event that it tracks; ``None``: it tracks none."""
        return self.call.event if self.call.tracks else None

    @property
    def properties(self) -> dict[str, Json]:
        """What it says of an event or a profile."""
        if self.call.tracks:
            return self.call.properties

        given = (one for one in self.arguments if isinstance(one, dict))
        return next(given, {})

    @property
    def ways(self) -> list[str]:
        """The strategies that have taken it, in order: over a redirect there are two.

        Empty: none has, so far.
        """
        return [outcome.strategy for outcome in self.outcomes]

    @property
    def declined(self) -> c.Mapping[str, str]:
        """Why each strategy declined that was asked before the last one took it."""
        return self.outcomes[-1].declined if self.outcomes else {}

    @property
    def goes(self) -> bool:
        """Whether a strategy has taken it, or is to be asked yet, as its request or job
        goes on."""
        return bool(self.outcomes) or self._is_kept

    @property
    def _is_kept(self) -> bool:
        return self._unit is not None and any(
            one is self.call for one in self._unit.calls
        )

    def is_same(self, call: Call) -> bool:
        """Whether a call that was elsewhere in the meantime is this one."""
        if self.call.tracks:
            return call.tracks and call.insert_id == self.call.insert_id

        # What has no id is made by the next response.
        is_away = self.ways[-1:] in ([], ["Delayed"]) and not self._is_kept
        return is_away and self.call == call

    def __repr__(self) -> str:
        return f"<{self.request or 'a job'}: {self.said}, {self.became}>"

    @property
    def said(self) -> str:
        """The call, as one would write it."""
        if self.event is None:
            return f"{self.name}({', '.join(map(repr, self.arguments))})"

        # Beside these, it has what the app says of it.
        own = {
            name: value
            for name, value in self.properties.items()
            if name not in EVENT_IDS
        }
        return f"{self.name}({self.event!r}, {own!r})"

    @property
    def became(self) -> str:
        """What has become of it, in words."""
        if self.ways:
            before = "waited in the session, " if self._has_waited else ""
            return f"{before}by {', then '.join(self.ways)}"

        if self.dropped:
            return f"dropped: {self.dropped}"

        return "not flushed yet" if self._is_kept else "no way so far"
