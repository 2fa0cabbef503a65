"""Whether an event is as the tracking plan has it."""

from __future__ import annotations

import collections.abc as c
import difflib
import typing as t

from ..identity import EVENT_IDS
from .declared import declaration_of, declarations
from .property_types import fits, type_name

if t.TYPE_CHECKING:
    from ..calls import Json

#: What an event says of itself, and needn't be in a plan.
_OWN = EVENT_IDS | {"token"}


def undeclared(name: str) -> str:
    """Say that no event of a name is declared, and which is the nearest; empty if one
    is, or if the name is Mixpanel's own."""
    if name.startswith("$") or declaration_of(name) is not None:
        return ""

    return f"{name!r} is not in the tracking plan{_nearest(name, _names())}"


def misfits(
    name: str, properties: c.Mapping[str, Json], own: c.Iterable[str]
) -> list[str]:
    """Say what in an event isn't as the tracking plan has it.

    :param properties: all that it has.
    :param own: the names of those that it was given, and not the app's defaults.
    """
    declaration = declaration_of(name)

    if declaration is None:
        return list(filter(None, [undeclared(name)]))

    planned = declaration.properties
    problems = [
        f"{name!r} has no property {one!r}{_nearest(one, planned)}"
        for one in own
        if one not in planned and one not in _OWN and one[:1] != "$"
    ]

    for one, declared in planned.items():
        value = properties.get(one)

        if value is None:
            if declared.required:
                problems.append(f"{name!r} must have the property {one!r}")
        elif not fits(value, declared.schema):
            kind = type_name(declared.schema)
            problems.append(f"{one!r} of {name!r} must be {kind}, not {value!r}")

    return problems


def _names() -> list[str]:
    return [one.name for one in declarations()]


def _nearest(name: str, names: c.Iterable[str]) -> str:
    # As people misspell: also "place_order" is near to "Place Order".
    folded = {_folded(one): one for one in names}
    close = difflib.get_close_matches(_folded(name), folded, 1)
    return f"; the nearest is {folded[close[0]]!r}" if close else ""


def _folded(name: str) -> str:
    return "".join(filter(str.isalnum, name)).casefold() or name
