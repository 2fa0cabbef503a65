"""Checks of arguments: each returns what is recorded of an argument.

They raise :exc:`TypeError` or :exc:`ValueError` for what can't be recorded.
"""

from __future__ import annotations

import collections.abc as c
import datetime as dt
import hashlib
import marshal
import numbers
import typing as t

from ..calls import Call, dumps
from ..identity import ID_PROPERTIES
from ..limits import INSERT_ID, MAX_RECORD_BYTES, MAX_TEXT
from ..values import FORBIDDEN_IDS, fault_of, few, identifier, is_number, plain

#: What a property may be: anything that :func:`~flask_mengpaneel.values.plain` turns
#: into JSON.
Value: t.TypeAlias = t.Any
Properties: t.TypeAlias = c.Mapping[str, Value]

# Hexadecimal digits of an id that is made: as many as those of the extension's own.
_MADE_DIGITS = 32


class _Missing:
    def __repr__(self) -> str:
        return "..."


#: The default of an argument that may be ``None``.
MISSING: t.Any = _Missing()


def text(value: t.Any, what: str) -> str:
    """Return a text that isn't empty.

    :param what: what it is, for the message of an error, as everywhere here.
    """
    given = plain(value)

    if not isinstance(given, str):
        raise TypeError(f"{what} must be a text, not {value!r}")

    if not given.strip():
        raise ValueError(f"{what} is empty")

    return given


def names(value: t.Any) -> list[str]:
    """Return one name, or several, as a list."""
    if isinstance(value, str):
        value = [value]

    if not isinstance(value, c.Iterable):
        raise TypeError(f"names are expected, not {value!r}")

    return [text(name, "a name") for name in few(value)]


def number(value: t.Any, what: str) -> float:
    """Return a number, as large as it is."""
    given = plain(value)

    if isinstance(given, str) and isinstance(value, numbers.Number):
        # An id is a text when it is that large; an amount has a size.
        given = float(given)

    if not is_number(given):
        raise TypeError(f"{what} must be a number, not {value!r}")

    return t.cast(float, given)


def mapping(value: t.Any, what: str = "properties") -> dict[str, t.Any]:
    """Return a dict of plain values."""
    given = plain(value)

    if type(given) is not dict:
        raise TypeError(f"{what} must be a dict, not {value!r}")

    return given


def options(value: t.Any) -> list[t.Any]:
    """Return a last argument that may be left out, in a list with or without it."""
    return [] if value is None else [plain(value)]


# -- ids


def person_id(value: t.Any) -> str:
    """Return the id of a person, which Mixpanel and the browser library take."""
    id = identifier(value, "the id of a person")
    fault = fault_of(id)

    if fault is not None:
        raise ValueError(f"{id!r} can't be the id of a person: {fault}")

    # Refused by the browser library as well, whose prefix for visitors it is.
    if id.startswith("$device:"):
        raise ValueError(f"{id!r} is the id of a device, not of a person")

    return id


def group_id(value: t.Any) -> str:
    """Return the id of a group."""
    return identifier(value, "the id of a group")


def group_ids(value: t.Any) -> list[str]:
    """Return the id of one group, or of several, as a list."""
    if isinstance(value, c.Sequence | c.Set) and not isinstance(value, str | bytes):
        return [group_id(one) for one in few(value)]

    return [group_id(value)]


# -- events


def event_name(name: t.Any) -> str:
    """Return the name of an event."""
    # Nearly all are as plain as that.
    if type(name) is str and name.isascii() and name.strip():
        return name

    return text(name, "an event name")


def event_properties(value: t.Any) -> dict[str, t.Any]:
    """Return the properties of an event, with what it says of itself as Mixpanel wants
    it: its time, its id, and whose it is."""
    if value is None:
        return {}

    given = mapping(value)

    if "time" in given:
        given["time"] = event_time(value["time"])

    if not ID_PROPERTIES.isdisjoint(given):
        for name in ID_PROPERTIES.intersection(given):
            if is_number(given[name]):
                given[name] = identifier(value[name], name)

    if "$insert_id" in given:
        given["$insert_id"] = insert_id(given["$insert_id"])

    return given


def insert_id(value: t.Any) -> str:
    """Return the id of an event, as Mixpanel takes it.

    Of an id that it doesn't take, one is made that is the same each time, so that a
    repeated event is the same event: other programs may have to make it as well.
    https://docs.mixpanel.com/reference/import-events#propertiesinsert_id
    """
    id = identifier(value, "$insert_id")

    if len(id) > MAX_TEXT:
        raise ValueError(f"$insert_id has more than {MAX_TEXT} characters")

    if INSERT_ID.fullmatch(id) and id.lower() not in FORBIDDEN_IDS:
        return id

    return hashlib.sha256(id.encode()).hexdigest()[:_MADE_DIGITS]


def event_time(value: t.Any) -> float:
    """Return an event's own time in seconds since the epoch.

    A naive datetime is in UTC, as everywhere in Mixpanel's libraries.
    """
    if isinstance(value, dt.datetime):
        value = value if value.tzinfo else value.replace(tzinfo=dt.UTC)
        return float(value.timestamp())

    return float(number(value, "the time of an event"))


# -- properties


def properties(value: t.Any) -> dict[str, t.Any]:
    """Return properties, which may be left out."""
    return {} if value is None else mapping(value)


def pairs(prop: str | Properties, value: Value) -> dict[str, t.Any]:
    """Return properties that are given as a dict, or as a name and a value."""
    if isinstance(prop, c.Mapping):
        if value is not MISSING:
            raise TypeError("a dict of properties goes alone, without a value")

        return mapping(prop)

    if value is MISSING:
        raise TypeError(f"the value of {prop!r} is missing")

    return {text(prop, "a property name"): plain(value)}


def lists(prop: str | Properties, values: Value) -> dict[str, t.Any]:
    """Return the properties of :func:`pairs`, each value as a list."""
    return {
        name: value if isinstance(value, list) else [value]
        for name, value in pairs(prop, values).items()
    }


def amounts(prop: str | Properties, by: t.Any) -> dict[str, t.Any]:
    """Return the properties of :func:`pairs`, each value as a number."""
    if not isinstance(prop, c.Mapping):
        return {text(prop, "a property name"): number(by, f"{prop!r}")}

    return mapping({name: number(one, f"{name!r}") for name, one in prop.items()})


def checked_size(call: Call) -> int:
    """Return about how many bytes a call has.

    :raises ValueError: it has more than Mixpanel takes.
    """
    # Several times as fast as JSON, which has at most six bytes for each of these.
    size = len(marshal.dumps(call.wire, 2))

    if size > MAX_RECORD_BYTES // 6 and len(dumps(call.wire)) >= MAX_RECORD_BYTES:
        raise ValueError(
            f"{call.name} has {MAX_RECORD_BYTES} bytes or more, and Mixpanel takes"
            " fewer"
        )

    return size
