"""Mixpanel's browser library, method by method: each call is recorded, not made."""

from __future__ import annotations

import collections.abc as c
import contextlib
import datetime as dt
import functools
import numbers
import re
import typing as t
from abc import ABC, abstractmethod

from ..calls import Stage
from ..values import Id, fault_of, identifier, plain

if t.TYPE_CHECKING:
    from .manager import Manager

P = t.ParamSpec("P")
Recording = t.TypeVar("Recording", bound="HasManager")

#: What a property may be: anything that :func:`~flask_mengpaneel.values.plain` turns
#: into JSON.
Value: t.TypeAlias = t.Any
Properties: t.TypeAlias = c.Mapping[str, Value]

_NAME = re.compile(r"[A-Za-z_$][\w$]*")
_INSERT_ID = re.compile(r"[A-Za-z0-9-]{1,36}")

#: Properties of an event that say whose it is.
_IDS = frozenset({"distinct_id", "$device_id", "$user_id"})


class _Missing:
    def __repr__(self) -> str:
        return "..."


_MISSING: t.Any = _Missing()


#: The methods that `recorded` has made.
_RECORDED: set[t.Any] = set()


def recorded(
    method: c.Callable[t.Concatenate[Recording, P], list[t.Any]],
) -> c.Callable[t.Concatenate[Recording, P], None]:
    """Record the call that a method returns.

    A wrong argument is the mistake of whoever wrote the call, never the visitor's:
    the manager decides whether it is raised.
    """

    @functools.wraps(method)
    def record(self: Recording, /, *args: P.args, **kwargs: P.kwargs) -> None:
        manager = self._manager()

        try:
            manager.record(method(self, *args, **kwargs))
        except Exception as error:
            manager.refuse(method.__name__, error)

    _RECORDED.add(record)
    return record


class HasManager(ABC):
    """Whatever knows the manager that its calls go to."""

    # Without a dict, so that also a misspelt attribute fails at once.
    __slots__ = ()

    @abstractmethod
    def _manager(self) -> Manager: ...


class People(HasManager):
    """Profile operations on the person whom the calls are about.

    https://docs.mixpanel.com/docs/tracking-methods/sdks/javascript#storing-user-profiles
    """

    __slots__ = ("_unit",)

    def __init__(self, unit: HasManager) -> None:
        self._unit = unit

    def _manager(self) -> Manager:
        return self._unit._manager()

    @recorded
    def set(self, prop: str | Properties, to: Value = _MISSING) -> list[t.Any]:
        """Set properties of the profile: ``set("Plan", "pro")`` or a dict.

        :param prop: the name of a property, or several with their values.
        :param to: the value, when ``prop`` is a name.
        """
        return [["people", "set"], [_pairs(prop, to)]]

    @recorded
    def set_once(self, prop: str | Properties, to: Value = _MISSING) -> list[t.Any]:
        """Set properties that the profile doesn't have yet."""
        return [["people", "set_once"], [_pairs(prop, to)]]

    @recorded
    def unset(self, prop: str | c.Sequence[str]) -> list[t.Any]:
        """Remove one property of the profile, or several."""
        return [["people", "unset"], [_names(prop)]]

    @recorded
    def increment(self, prop: str | Properties, by: float = 1) -> list[t.Any]:
        """Add to a number of the profile, or to several: ``{"Logins": 1}``."""
        return [["people", "increment"], [_amounts(prop, by)]]

    @recorded
    def append(self, prop: str | Properties, value: Value = _MISSING) -> list[t.Any]:
        """Append a value to a list of the profile."""
        return [["people", "append"], [_pairs(prop, value)]]

    @recorded
    def union(self, prop: str | Properties, values: Value = _MISSING) -> list[t.Any]:
        """Add values to a list of the profile, those that it doesn't have yet."""
        return [["people", "union"], [_lists(prop, values)]]

    @recorded
    def remove(self, prop: str | Properties, value: Value = _MISSING) -> list[t.Any]:
        """Remove a value from a list of the profile."""
        return [["people", "remove"], [_pairs(prop, value)]]

    @recorded
    def track_charge(
        self, amount: float, properties: Properties | None = None
    ) -> list[t.Any]:
        """Record that the person was charged an amount of money.

        The browser library has made this a no-op; server-side it still appends to
        ``$transactions``, as Mixpanel's Python library does.
        """
        return [
            ["people", "track_charge"],
            [_number(amount, "an amount"), _properties(properties)],
        ]

    @recorded
    def clear_charges(self) -> list[t.Any]:
        """Remove all charges of the person."""
        return [["people", "clear_charges"], []]

    @recorded
    def delete_user(self) -> list[t.Any]:
        """Delete the profile of the person."""
        return [["people", "delete_user"], []]


class Group(HasManager):
    """Profile operations on a group, such as a company.

    https://docs.mixpanel.com/docs/data-structure/group-analytics
    """

    __slots__ = ("_id", "_key", "_unit")

    def __init__(self, unit: HasManager, key: str, id: Id) -> None:
        self._unit = unit
        self._key = key
        self._id = id

    def _manager(self) -> Manager:
        return self._unit._manager()

    @property
    def _wire(self) -> list[t.Any]:
        # Checked here and not in `get_group`, so that a wrong id is refused together
        # with the call, and breaks no page.
        return [
            ["get_group"],
            [_text(self._key, "a group key"), _group_id(self._id)],
        ]

    @recorded
    def set(self, prop: str | Properties, to: Value = _MISSING) -> list[t.Any]:
        """Set properties of the group's profile."""
        return [*self._wire, ["set"], [_pairs(prop, to)]]

    @recorded
    def set_once(self, prop: str | Properties, to: Value = _MISSING) -> list[t.Any]:
        """Set properties that the group's profile doesn't have yet."""
        return [*self._wire, ["set_once"], [_pairs(prop, to)]]

    @recorded
    def unset(self, prop: str | c.Sequence[str]) -> list[t.Any]:
        """Remove one property of the group's profile, or several."""
        return [*self._wire, ["unset"], [_names(prop)]]

    @recorded
    def union(self, prop: str | Properties, values: Value = _MISSING) -> list[t.Any]:
        """Add values to a list of the group's profile, those it doesn't have yet."""
        return [*self._wire, ["union"], [_lists(prop, values)]]

    @recorded
    def remove(self, prop: str | Properties, value: Value = _MISSING) -> list[t.Any]:
        """Remove a value from a list of the group's profile."""
        return [*self._wire, ["remove"], [_pairs(prop, value)]]

    @recorded
    def delete(self) -> list[t.Any]:
        """Delete the group's profile."""
        return [*self._wire, ["delete"], []]


class Recorder(HasManager):
    """The methods of the ``mixpanel`` object of Mixpanel's browser library.

    What is called here is recorded with its arguments as they are now, and reaches
    Mixpanel when the request or job is over. InvalidSetting arguments raise
    :exc:`TypeError` or :exc:`ValueError` while debugging and testing, and are logged
    and dropped in production. Outside of a request and of ``with Manager():`` a call
    raises :exc:`RuntimeError`.

    https://docs.mixpanel.com/docs/tracking-methods/sdks/javascript
    """

    __slots__ = ()

    @property
    def people(self) -> People:
        """Operations on the profile of the person whom the calls are about."""
        return People(self)

    def get_group(self, group_key: str, group_id: Id) -> Group:
        """Operations on the profile of a group: ``get_group("company", "acme")``."""
        return Group(self, group_key, group_id)

    # -- events

    @recorded
    def track(
        self, event_name: str, properties: Properties | None = None
    ) -> list[t.Any]:
        """Track an event.

        :param event_name: what happened: ``"Place Order"``.
        :param properties: under what circumstances.
        """
        return [["track"], [_event(event_name), _event_properties(properties)]]

    @recorded
    def track_pageview(
        self,
        properties: Properties | None = None,
        options: Properties | None = None,
    ) -> list[t.Any]:
        """Track that a page is viewed.

        :param options: ``{"event_name": ...}`` to name the event otherwise than
            ``$mp_web_page_view``.
        """
        arguments = [_event_properties(properties)]

        if options is not None:
            checked = _given(options, "options")

            if "event_name" in checked:
                _event(checked["event_name"])

            arguments.append(checked)

        return [["track_pageview"], arguments]

    @recorded
    def track_with_groups(
        self, event_name: str, properties: Properties | None, groups: Properties
    ) -> list[t.Any]:
        """Track an event of one or more groups: ``{"company": "acme"}``."""
        return [
            ["track_with_groups"],
            [
                _event(event_name),
                _event_properties(properties),
                {
                    _text(key, "a group key"): _group_ids(ids)
                    for key, ids in _given(groups, "groups").items()
                },
            ],
        ]

    @recorded
    def time_event(self, event_name: str) -> list[t.Any]:
        """Start the clock for an event: its next ``track`` gets ``$duration``."""
        return [["time_event"], [_event(event_name)]]

    # -- who it is

    @recorded
    def identify(self, unique_id: Id) -> list[t.Any]:
        """Say who the visitor is.

        :param unique_id: the id of the user in your database; numbers and UUIDs
            become texts.
        """
        return [["identify"], [_person(unique_id)]]

    @recorded
    def alias(self, alias: Id, original: Id | None = None) -> list[t.Any]:
        """Give the visitor a second id: the id of the user who has just signed up."""
        arguments = [_person(alias)]

        if original is not None:
            arguments.append(identifier(original, "the original id"))

        return [["alias"], arguments]

    @recorded
    def reset(self) -> list[t.Any]:
        """Start a new, anonymous visitor: someone has signed out."""
        return [["reset"], []]

    # -- properties of every event

    @recorded
    def register(
        self, properties: Properties, options: Properties | int | None = None
    ) -> list[t.Any]:
        """Add properties to every event of this visitor from now on.

        :param options: days after which they are forgotten, or
            ``{"persistent": False}``.
        """
        return [["register"], [_given(properties), *_options(options)]]

    @recorded
    def register_once(
        self,
        properties: Properties,
        default_value: Value = None,
        options: Properties | int | None = None,
    ) -> list[t.Any]:
        """Add properties to every event unless they are there already.

        :param default_value: a value that counts as not being there.
        """
        arguments: list[t.Any] = [_given(properties)]

        if default_value is not None or options is not None:
            arguments += [plain(default_value), *_options(options)]

        return [["register_once"], arguments]

    @recorded
    def unregister(
        self, property_name: str, options: Properties | None = None
    ) -> list[t.Any]:
        """Stop adding a property to every event."""
        return [
            ["unregister"],
            [_text(property_name, "a property name"), *_options(options)],
        ]

    # -- groups

    @recorded
    def set_group(
        self, group_key: str, group_ids: Id | c.Sequence[Id] | c.Set[Id]
    ) -> list[t.Any]:
        """Say which groups the visitor belongs to: ``set_group("company", "acme")``."""
        return [
            ["set_group"],
            [_text(group_key, "a group key"), _group_ids(group_ids)],
        ]

    @recorded
    def add_group(self, group_key: str, group_id: Id) -> list[t.Any]:
        """Add the visitor to a group."""
        return [["add_group"], [_text(group_key, "a group key"), _group_id(group_id)]]

    @recorded
    def remove_group(self, group_key: str, group_id: Id) -> list[t.Any]:
        """Remove the visitor from a group."""
        return [
            ["remove_group"],
            [_text(group_key, "a group key"), _group_id(group_id)],
        ]

    # -- what is tracked at all

    @recorded
    def disable(self, events: c.Sequence[str] | None = None) -> list[t.Any]:
        """Stop tracking the named events, or all, for the rest of the request."""
        return [["disable"], [] if events is None else [_names(events)]]

    @recorded
    def enable(self, events: c.Sequence[str] | None = None) -> list[t.Any]:
        """Track the named events, or all, again."""
        return [["enable"], [] if events is None else [_names(events)]]

    @recorded
    def set_config(self, config: Properties) -> list[t.Any]:
        """Change settings of the browser library on this page."""
        return [["set_config"], [_given(config, "the configuration")]]

    @recorded
    def opt_in_tracking(self, options: Properties | None = None) -> list[t.Any]:
        """Track this visitor, who has agreed to it."""
        return [["opt_in_tracking"], _options(options)]

    @recorded
    def opt_out_tracking(self, options: Properties | None = None) -> list[t.Any]:
        """Stop tracking this visitor, who has refused it."""
        return [["opt_out_tracking"], _options(options)]

    def call(self, name: str, /, *arguments: Value) -> None:
        """Call a method of the browser library that this class doesn't know.

        :param name: with dots where JavaScript has them: ``"people.brand_new"``.
        """
        known = self._known(name)

        # What has rules of its own (event names, ids, time) keeps them.
        if known is not None:
            known(*arguments)
        else:
            self._call(name, *arguments)

    def _known(self, name: t.Any) -> c.Callable[..., None] | None:
        """The method of this name, where this class has it."""
        owner: HasManager = self

        if isinstance(name, str) and name.startswith("people."):
            owner, name = self.people, name.removeprefix("people.")

        if not isinstance(name, str) or not name.isidentifier() or name[0] == "_":
            return None

        method = getattr(owner, name, None)
        return method if getattr(method, "__func__", None) in _RECORDED else None

    @recorded
    def _call(self, name: str, /, *arguments: Value) -> list[t.Any]:
        names = _text(name, "a method").split(".")

        if not all(map(_NAME.fullmatch, names)):
            raise ValueError(f"{name!r} is not the name of a method")

        return [names, [plain(argument) for argument in arguments]]

    # -- stages

    @contextlib.contextmanager
    def before_setup(self) -> c.Iterator[Recorder]:
        """What is called inside reaches Mixpanel before what is set up.

        For ``alias`` on sign-up, which has to come before ``identify``.
        """
        with self._manager().stage(Stage.BEFORE_SETUP):
            yield self

    @contextlib.contextmanager
    def setup(self) -> c.Iterator[Recorder]:
        """Say who this is and what goes with every event.

        What is called inside replaces what was set up before, in this request or in
        the one that redirected to it.
        """
        with self._manager().stage(Stage.SETUP):
            yield self

    @contextlib.contextmanager
    def tracking(self) -> c.Iterator[Recorder]:
        """Track from within :meth:`setup` or :meth:`before_setup`."""
        with self._manager().stage(Stage.TRACKING):
            yield self


# -- arguments


def _text(value: t.Any, what: str) -> str:
    text = plain(value)

    if not isinstance(text, str):
        raise TypeError(f"{what} must be a text, not {value!r}")

    if not text.strip():
        raise ValueError(f"{what} is empty")

    return text


def _event(name: t.Any) -> str:
    # Nearly all are as plain as that.
    if type(name) is str and name.isascii() and name.strip():
        return name

    return _text(name, "an event name")


def _person(value: t.Any) -> str:
    text = identifier(value, "the id of a person")
    fault = fault_of(text)

    if fault is not None:
        raise ValueError(f"{text!r} can't be the id of a person: {fault}")

    # Refused by the browser library as well, whose prefix for visitors it is.
    if text.startswith("$device:"):
        raise ValueError(f"{text!r} is the id of a device, not of a person")

    return text


def _group_id(value: t.Any) -> str:
    return identifier(value, "the id of a group")


def _group_ids(value: t.Any) -> list[str]:
    if isinstance(value, c.Sequence | c.Set) and not isinstance(value, str | bytes):
        return [_group_id(one) for one in value]

    return [_group_id(value)]


def _properties(value: t.Any) -> dict[str, t.Any]:
    return {} if value is None else _given(value)


def _given(value: t.Any, what: str = "properties") -> dict[str, t.Any]:
    given = plain(value)

    if not isinstance(given, dict):
        raise TypeError(f"{what} must be a dict, not {value!r}")

    return given


def _event_properties(value: t.Any) -> dict[str, t.Any]:
    properties = plain(value) if type(value) is dict else _properties(value)
    assert isinstance(properties, dict)

    if "time" in properties:
        properties["time"] = _moment(value["time"])

    if not _IDS.isdisjoint(properties):
        for name in _IDS.intersection(properties):
            if _is_number(properties[name]):
                properties[name] = identifier(value[name], name)

    if "$insert_id" in properties and not (
        isinstance(properties["$insert_id"], str)
        and _INSERT_ID.fullmatch(properties["$insert_id"])
    ):
        # https://docs.mixpanel.com/reference/import-events#propertiesinsert_id
        raise ValueError(
            "$insert_id must be up to 36 letters, digits and '-', not"
            f" {properties['$insert_id']!r}"
        )

    return properties


def _moment(value: t.Any) -> float:
    """An event's own time as Mixpanel wants it: seconds since the epoch."""
    if isinstance(value, dt.datetime):
        value = value if value.tzinfo else value.replace(tzinfo=dt.UTC)
        return float(value.timestamp())

    return float(_number(value, "the time of an event"))


def _options(value: t.Any) -> list[t.Any]:
    return [] if value is None else [plain(value)]


def _pairs(prop: str | Properties, value: Value) -> dict[str, t.Any]:
    if isinstance(prop, c.Mapping):
        if value is not _MISSING:
            raise TypeError("a dict of properties goes alone, without a value")

        return _given(prop)

    if value is _MISSING:
        raise TypeError(f"the value of {prop!r} is missing")

    return {_text(prop, "a property name"): plain(value)}


def _lists(prop: str | Properties, values: Value) -> dict[str, t.Any]:
    return {
        name: value if isinstance(value, list) else [value]
        for name, value in _pairs(prop, values).items()
    }


def _amounts(prop: str | Properties, by: t.Any) -> dict[str, t.Any]:
    if not isinstance(prop, c.Mapping):
        return {_text(prop, "a property name"): _number(by, f"{prop!r}")}

    return _given({name: _number(one, f"{name!r}") for name, one in prop.items()})


def _number(value: t.Any, what: str) -> float:
    number = plain(value)

    if isinstance(number, str) and isinstance(value, numbers.Number):
        # An id is a text when it is that large; an amount has a size.
        number = float(number)

    if not _is_number(number):
        raise TypeError(f"{what} must be a number, not {value!r}")

    return t.cast(float, number)


def _is_number(value: t.Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _names(value: t.Any) -> list[str]:
    if isinstance(value, str):
        value = [value]

    if not isinstance(value, c.Iterable):
        raise TypeError(f"names are expected, not {value!r}")

    return [_text(name, "a name") for name in value]
