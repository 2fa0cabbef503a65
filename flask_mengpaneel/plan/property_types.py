"""The types of properties, as one writes them, and whether a value is of one.

A type is kept as a JSON Schema, of what values of that type are sent as.
"""

from __future__ import annotations

import collections.abc as c
import dataclasses
import datetime as dt
import decimal
import enum
import numbers
import types
import typing as t
import uuid

from ..limits import MAX_SAFE_INTEGER
from ..values import plain

if t.TYPE_CHECKING:
    from ..calls import Json

Schema: t.TypeAlias = "dict[str, Json]"

#: Checked in this order: a bool is an integer as well, a datetime a date.
_SIMPLE: list[tuple[type, Schema]] = [
    (bool, {"type": "boolean"}),
    (numbers.Integral, {"type": "integer"}),
    (numbers.Real, {"type": "number"}),
    (decimal.Decimal, {"type": "number"}),
    (dt.datetime, {"type": "string", "format": "date-time"}),
    (dt.date, {"type": "string", "format": "date"}),
    (uuid.UUID, {"type": "string", "format": "uuid"}),
    (str, {"type": "string"}),
    (types.NoneType, {"type": "null"}),
]

_UNIONS = (t.Union, types.UnionType)


def is_optional(hint: t.Any) -> bool:
    """Whether a value of a type may be ``None``."""
    return t.get_origin(hint) in _UNIONS and types.NoneType in t.get_args(hint)


def without_none(hint: t.Any) -> t.Any:
    """Return a type without ``None``, which isn't sent."""
    if not is_optional(hint):
        return hint

    others = tuple(one for one in t.get_args(hint) if one is not types.NoneType)
    return t.Union[others]  # noqa: UP007


def hints_of(kind: type) -> dict[str, t.Any]:
    """Return the types of a class's attributes, as it writes them; none, if they can't
    be looked up: a name is of a function, or there for type checkers only."""
    try:
        return t.get_type_hints(kind)
    except Exception:
        # An annotation is any expression.
        return {}


def schema_of(hint: t.Any, within: tuple[t.Any, ...] = ()) -> Schema:
    """Return what values of a type are sent as; anything, if that can't be told.

    :param within: the types that it is a part of, perhaps of itself.
    """
    if any(hint is one for one in within):
        return {"type": "object"} if isinstance(hint, type) else {}

    # `type Name = ...`, and NewType.
    if hasattr(hint, "__value__"):
        return schema_of(hint.__value__, (*within, hint))

    if hasattr(hint, "__supertype__"):
        return schema_of(hint.__supertype__, within)

    origin, arguments = t.get_origin(hint), t.get_args(hint)

    if origin in (t.Annotated, t.Required, t.NotRequired):
        return schema_of(arguments[0], within)

    if origin is t.Literal:
        return {"enum": [plain(value) for value in arguments]}

    if origin in _UNIONS:
        return {"anyOf": [schema_of(one, within) for one in arguments]}

    kind = hint if origin is None else origin
    return _schema_of_class(kind, arguments, within) if isinstance(kind, type) else {}


def _schema_of_class(
    kind: type, arguments: tuple[t.Any, ...], within: tuple[t.Any, ...]
) -> Schema:
    if issubclass(kind, enum.Enum):
        return {"enum": [plain(member) for member in kind]}

    for simple, schema in _SIMPLE:
        if issubclass(kind, simple):
            return dict(schema)

    if dataclasses.is_dataclass(kind):
        names = [field.name for field in dataclasses.fields(kind)]
        return _object(kind, names, names, within)

    if t.is_typeddict(kind):
        required: frozenset[str] = getattr(kind, "__required_keys__", frozenset())
        return _object(kind, list(hints_of(kind)), sorted(required), within)

    if issubclass(kind, c.Mapping):
        values = schema_of(arguments[1], within) if len(arguments) == 2 else {}
        return {"type": "object", "additionalProperties": values}

    if issubclass(kind, c.Sequence | c.Set | c.ValuesView):
        # tuple[int, ...], or a tuple of several types.
        items = [schema_of(one, within) for one in arguments if one is not ...]
        one_kind: Json = items[0] if items else {}
        differ = any(other != one_kind for other in items)
        return {"type": "array", "items": {"anyOf": [*items]} if differ else one_kind}

    return {}


def _object(
    kind: type, names: list[str], required: list[str], within: tuple[t.Any, ...]
) -> Schema:
    hints, within = hints_of(kind), (*within, kind)
    return {
        "type": "object",
        "properties": {
            name: schema_of(hints.get(name, t.Any), within) for name in names
        },
        "required": [*required],
    }


def type_name(schema: c.Mapping[str, t.Any]) -> str:
    """Return what a schema says in a few words: ``integer``, ``list of string``."""
    if "anyOf" in schema:
        return " or ".join(map(type_name, schema["anyOf"]))

    if "enum" in schema:
        return " or ".join(repr(value) for value in schema["enum"])

    if schema.get("type") == "array":
        items = schema["items"]
        return f"list of {type_name(items)}" if items else "list"

    return str(schema.get("format", schema.get("type", "anything")))


def fits(value: Json, schema: c.Mapping[str, t.Any]) -> bool:
    """Whether a plain value is as a schema says."""
    if "anyOf" in schema:
        return any(fits(value, one) for one in schema["anyOf"])

    if "enum" in schema:
        # 1 is no True.
        return any(type(value) is type(one) and value == one for one in schema["enum"])

    check = _CHECKS.get(schema.get("type", ""))
    return check is None or check(value, schema)


def _is_number(value: Json, _schema: object) -> bool:
    if isinstance(value, bool):
        return False

    return isinstance(value, int | float) or _is_large(value)


def _is_integer(value: Json, _schema: object) -> bool:
    return (isinstance(value, int) and not isinstance(value, bool)) or _is_large(value)


def _is_large(value: Json) -> bool:
    """Whether it is a whole number that a browser would round: it is sent as text."""
    return (
        isinstance(value, str)
        and value.removeprefix("-").isdecimal()
        # Python reads no integer of thousands of digits.
        and (len(value) > 20 or abs(int(value)) > MAX_SAFE_INTEGER)
    )


def _is_array(value: Json, schema: c.Mapping[str, t.Any]) -> bool:
    items = schema["items"]
    return isinstance(value, list) and all(fits(one, items) for one in value)


def _is_object(value: Json, schema: c.Mapping[str, t.Any]) -> bool:
    if not isinstance(value, dict):
        return False

    properties, others = (
        schema.get("properties", {}),
        schema.get("additionalProperties", {}),
    )
    return all(name in value for name in schema.get("required", ())) and all(
        fits(one, properties.get(name, others)) for name, one in value.items()
    )


def _is_of(format: c.Callable[[str], object]) -> c.Callable[[str], bool]:
    def check(value: str) -> bool:
        try:
            format(value)
        except ValueError:
            return False

        return True

    return check


_FORMATS: dict[str, c.Callable[[str], bool]] = {
    "date-time": _is_of(dt.datetime.fromisoformat),
    "date": _is_of(dt.date.fromisoformat),
    "uuid": _is_of(uuid.UUID),
}


def _is_string(value: Json, schema: c.Mapping[str, t.Any]) -> bool:
    format = _FORMATS.get(schema.get("format", ""))
    return isinstance(value, str) and (format is None or format(value))


_CHECKS: dict[str, c.Callable[[Json, c.Mapping[str, t.Any]], bool]] = {
    "boolean": lambda value, _: isinstance(value, bool),
    "integer": _is_integer,
    "number": _is_number,
    "string": _is_string,
    "null": lambda value, _: value is None,
    "array": _is_array,
    "object": _is_object,
}
