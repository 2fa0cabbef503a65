"""Checks of arguments: each returns what is recorded of an argument.

They raise :exc:`TypeError` or :exc:`ValueError` for what can't be recorded.
"""

from __future__ import annotations

import collections.abc as c
import datetime as dt
import numbers
import re
import typing as t

from ..identity import ID_PROPERTIES
from ..values import fault_of, identifier, is_number, plain

#: What a property may be: anything that :func:`~flask_mengpaneel.values.plain` turns
#: into JSON.
Value: t.TypeAlias = t.Any
Properties: t.TypeAlias = c.Mapping[str, Value]

_INSERT_ID = re.compile(r"[A-Za-z0-9-]{1,36}")


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

    return [text(name, "a name") for name in value]


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

    if not isinstance(given, dict):
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
        return [group_id(one) for one in value]

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
    given = properties(value)

    if "time" in given:
        given["time"] = event_time(value["time"])

    if not ID_PROPERTIES.isdisjoint(given):
        for name in ID_PROPERTIES.intersection(given):
            if is_number(given[name]):
                given[name] = identifier(value[name], name)

    if "$insert_id" in given and not (
        isinstance(given["$insert_id"], str)
        and _INSERT_ID.fullmatch(given["$insert_id"])
    ):
        # https://docs.mixpanel.com/reference/import-events#propertiesinsert_id
        raise ValueError(
            "$insert_id must be up to 36 letters, digits and '-', not"
            f" {given['$insert_id']!r}"
        )

    return given


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
