"""Calls of Mixpanel's browser library, and the one JSON form they have everywhere."""

from __future__ import annotations

import collections.abc as c
import dataclasses
import enum
import json
import typing as t

Json: t.TypeAlias = "None | bool | int | float | str | list[Json] | dict[str, Json]"

#: The calls whose event is one record at Mixpanel, and has a time and an id.
TRACKING = frozenset({"track", "track_pageview", "track_with_groups"})

#: The calls that add groups to every event, and to the profile of the person: what each
#: makes there is that method of ``people``.
GROUP_CALLS = {"set_group": "set", "add_group": "union", "remove_group": "remove"}

#: The calls that say who it is.
_IDENTIFYING = frozenset({"identify", "reset"})

#: Further calls that change one profile or event at Mixpanel.
_RECORDS = frozenset({"alias", *GROUP_CALLS})

#: The calls that aren't made again where they may have been made: most add up, and what
#: ``union`` and ``remove`` do to a list, another operation may have undone in between.
_UNREPEATABLE = frozenset(
    {
        "add_group",
        "remove_group",
        *(
            f"people.{operation}"
            for operation in ("increment", "append", "union", "remove", "track_charge")
        ),
        "get_group.union",
        "get_group.remove",
    }
)


class Stage(enum.StrEnum):
    """When a call reaches Mixpanel, relative to the others of its request."""

    BEFORE_SETUP = "before_setup"
    SETUP = "setup"
    TRACKING = "tracking"


# Not asked of the enum each time: 13 of 686 function calls, redirect with a call.
_STAGES = tuple(stage.value for stage in Stage)


class Call:
    """A recorded method call, such as ``people.set({"Plan": "pro"})``.

    :param wire: ``[[name, ...], [argument, ...]]``: the names that lead from the
        ``mixpanel`` object to the method, and plain JSON arguments. A chained call
        has further pairs: ``[["get_group"], ["company", "acme"], ["set"],
        [{"Seats": 12}]]``.
    """

    __slots__ = ("wire",)

    def __init__(self, wire: list[t.Any]) -> None:
        self.wire = wire

    @classmethod
    def from_json(cls, value: t.Any) -> Call:
        """Return a call that was elsewhere in the meantime.

        :raises ValueError: the value isn't a call.
        """
        if (
            not isinstance(value, list)
            or not value
            or len(value) % 2
            or not all(isinstance(part, list) for part in value)
            or not all(
                names and all(isinstance(name, str) for name in names)
                for names in value[::2]
            )
        ):
            raise ValueError("not a call")

        return cls(value)

    @property
    def name(self) -> str:
        """The method, as one would write it: ``people.set``, ``get_group.set``."""
        if len(self.wire) == 2:
            return ".".join(self.wire[0])

        return ".".join(name for names in self.wire[::2] for name in names)

    @property
    def arguments(self) -> list[t.Any]:
        """The arguments of the last method of the chain."""
        arguments: list[t.Any] = self.wire[-1]
        return arguments

    @property
    def tracks(self) -> bool:
        """Whether the call tracks an event."""
        return self.wire[0][0] in TRACKING

    @property
    def says_who(self) -> bool:
        """Whether the call says who it is from then on."""
        return self.wire[0][0] in _IDENTIFYING

    @property
    def is_record(self) -> bool:
        """Whether the call is something that Mixpanel stores: an event, a profile or
        group operation; what the ledger counts."""
        names = self.wire[0]
        return (
            names[0] in TRACKING
            or names[0] in _RECORDS
            or (names[0] == "people" and len(names) == 2)
            or (names[0] == "get_group" and len(self.wire) == 4)
        )

    @property
    def is_repeatable(self) -> bool:
        """Whether the call may be made again where nobody knows whether it was made."""
        return self.name not in _UNREPEATABLE

    @property
    def event(self) -> str:
        """The name of a tracked or timed event."""
        name: str

        if self.wire[0][0] != "track_pageview":
            name = self.wire[1][0]
        else:
            options = self.wire[1][1] if len(self.wire[1]) > 1 else {}
            name = options.get("event_name", "$mp_web_page_view")

        return name

    @property
    def at(self) -> float | None:
        """When the clock of a timed event was started, in seconds.

        It is one argument more than the browser library has, which leaves it alone.
        """
        if self.name == "time_event" and len(self.arguments) > 1:
            return t.cast(float, self.arguments[1])

        return None

    @property
    def properties(self) -> dict[str, Json]:
        """The properties of a tracked event."""
        position = 0 if self.wire[0][0] == "track_pageview" else 1
        properties: dict[str, Json] = self.wire[1][position]
        return properties

    @property
    def insert_id(self) -> Json:
        """The ``$insert_id`` of a tracked event; ``None`` if the call has none."""
        return self.properties.get("$insert_id") if self.tracks else None

    def become(self, event: str, properties: dict[str, Json]) -> None:
        """Be the call of an event with another name and other properties."""
        arguments = self.wire[1]

        if self.wire[0][0] != "track_pageview":
            arguments[:2] = [event, properties]
            return

        arguments[0] = properties

        if event != self.event:
            options = arguments[1] if len(arguments) > 1 else {}
            arguments[1:] = [{**options, "event_name": event}]

    def with_defaults(self, defaults: c.Mapping[str, Json]) -> Call:
        """Return the same event with further properties; its own win."""
        names, arguments = self.wire[0], list(self.wire[1])
        position = 0 if names[0] == "track_pageview" else 1
        arguments[position] = {**defaults, **arguments[position]}
        return Call([names, arguments])

    def instead(self, wire: list[t.Any]) -> Call:
        """Return the call that is made in the place of this one."""
        return Call(wire)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Call) and self.wire == other.wire

    def __repr__(self) -> str:
        return f"Call({self.wire!r})"


class Source(t.NamedTuple):
    """A line of the app's own code."""

    #: The file and the line: ``shop/views.py:42``.
    place: str
    function: str


class SourcedCall(Call):
    """A call that knows where it was recorded, as long as it stays in this process.

    All calls of an app with an inspector are.
    """

    __slots__ = ("sources",)

    def __init__(self, wire: list[t.Any], sources: list[Source]) -> None:
        super().__init__(wire)
        self.sources = sources

    def with_defaults(self, defaults: c.Mapping[str, Json]) -> Call:
        """Return the same event with further properties; its own win."""
        return self.instead(super().with_defaults(defaults).wire)

    def instead(self, wire: list[t.Any]) -> Call:
        """Return the call that is made in the place of this one."""
        return SourcedCall(wire, self.sources)


@dataclasses.dataclass(slots=True)
class CallLog:
    """The calls of one unit of work, by stage."""

    before_setup: list[Call] = dataclasses.field(default_factory=list)
    setup: list[Call] = dataclasses.field(default_factory=list)
    tracking: list[Call] = dataclasses.field(default_factory=list)

    #: Whether the set-up stage was entered: it says who this is, even if only that it
    #: is nobody.
    was_set_up: bool = False
    #: About how many bytes the calls have.
    size: int = 0

    def __bool__(self) -> bool:
        return bool(self.before_setup or self.setup or self.tracking)

    def __iter__(self) -> c.Iterator[Call]:
        """The calls in the order in which they are to reach Mixpanel."""
        return iter(self.in_order)

    @property
    def in_order(self) -> list[Call]:
        """The same as a list: to make one of a log itself asks it for its length."""
        return [*self.before_setup, *self.setup, *self.tracking]

    def __len__(self) -> int:
        return len(self.before_setup) + len(self.setup) + len(self.tracking)

    @property
    def identifies(self) -> bool:
        """Whether the calls say who this is before anything is tracked."""
        return any(
            call.wire[0][0] == "identify" for call in (*self.before_setup, *self.setup)
        )

    @property
    def stages(self) -> tuple[list[Call], list[Call], list[Call]]:
        """The calls of each stage, in the order in which they are to reach Mixpanel."""
        return self.before_setup, self.setup, self.tracking

    def forget_timer(self, event: str) -> None:
        """Take away what has started the clock of an event."""
        for calls in self.stages:
            calls[:] = [
                call
                for call in calls
                if call.name != "time_event" or call.event != event
            ]

    def of(self, stage: Stage) -> list[Call]:
        """Return the calls of one stage."""
        if stage is Stage.TRACKING:
            return self.tracking

        return self.setup if stage is Stage.SETUP else self.before_setup

    def filtered(self, is_wanted: c.Callable[[Call], bool]) -> CallLog:
        """Return a log with some of the calls."""
        return CallLog(
            list(filter(is_wanted, self.before_setup)),
            list(filter(is_wanted, self.setup)),
            list(filter(is_wanted, self.tracking)),
            self.was_set_up,
            self.size,
        )

    def to_json(self) -> dict[str, t.Any]:
        """Return the calls as plain JSON values, by stage, without empty stages."""
        return {
            name: [call.wire for call in calls]
            for name, calls in zip(_STAGES, self.stages, strict=True)
            if calls or (name == Stage.SETUP and self.was_set_up)
        }

    @classmethod
    def from_json(cls, value: t.Any) -> CallLog:
        """Return a log from what :meth:`to_json` returned.

        :raises ValueError: it isn't a log of calls.
        """
        if not isinstance(value, dict):
            raise ValueError("not a log of calls")

        before_setup, setup, tracking = (
            [Call.from_json(wire) for wire in _list(value.get(stage.value, []))]
            for stage in Stage
        )
        return cls(before_setup, setup, tracking, Stage.SETUP.value in value)


def count(calls: c.Iterable[Call]) -> int:
    """Return how many records calls make: what the ledger counts."""
    records = 0

    for call in calls:
        # 1 of the 48 function calls that a further event takes: an event is a record.
        if call.wire[0][0] in TRACKING or call.is_record:
            records += 1

    return records


def profile_change(name: str, key: str, value: Json) -> tuple[str, dict[str, Json]]:
    """Return what one of :data:`GROUP_CALLS` does to the person's profile: a method of
    ``people``, and the properties that it is given."""
    return GROUP_CALLS[name], {key: [value] if name == "add_group" else value}


def _list(value: t.Any) -> list[t.Any]:
    if not isinstance(value, list):
        raise ValueError("not a list of calls")

    return value


def _make_encode() -> c.Callable[[t.Any], str]:
    encoder = json.JSONEncoder(separators=(",", ":"))
    module: t.Any = json.encoder

    if module.c_make_encoder is None:
        return encoder.encode

    # `JSONEncoder.encode` makes one each time: 4 us for a few ids, where this takes 1.
    text = module.encode_basestring_ascii
    encode = module.c_make_encoder(
        None, encoder.default, text, None, ":", ",", False, False, True
    )
    return lambda value: "".join(encode(value, 0))


_encode = _make_encode()


def dumps(value: t.Any) -> str:
    """Return plain JSON values as ASCII, in the fewest bytes."""
    return _encode(value)
