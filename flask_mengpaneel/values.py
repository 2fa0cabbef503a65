"""Python values turned into plain JSON values, at the moment a call is recorded.

Converting once, where the value was written, means that all ways send the same
thing, that a value which can't be sent fails in the line that has it, and that
changing a dict later changes nothing.
"""

from __future__ import annotations

import collections.abc as c
import dataclasses
import datetime as dt
import decimal
import enum
import math
import numbers
import typing as t
import uuid

if t.TYPE_CHECKING:
    from .calls import Json

#: What the id of a person or a group may be. A bool is none, which its type doesn't
#: say; nor is a float, which writes 42 as 42.0: an id that has come from a table of
#: numbers has to be made whole where it is read.
Id: t.TypeAlias = str | int | decimal.Decimal | uuid.UUID | enum.Enum

#: Ids that Mixpanel refuses:
#: https://docs.mixpanel.com/reference/import-events#propertiesdistinct_id
FORBIDDEN_IDS = frozenset(
    "00000000-0000-0000-0000-000000000000 anon anonymous nil none null n/a na"
    " undefined unknown <nil> 0 -1 true false [] {}".split()
)


def plain(value: t.Any) -> Json:
    """Turn a value into what JSON knows: ``None``, bool, number, text, list, dict.

    :raises TypeError: the value is of a kind that can't be sent.
    :raises ValueError: the value is NaN or infinite, or contains itself.
    """
    try:
        return _plain(value)
    except RecursionError:
        raise ValueError("a value is nested too deeply, or contains itself") from None


def _plain(value: t.Any) -> Json:
    # The exact types first: they are nearly all there is, and this is on the way
    # of every call.
    kind = type(value)

    if kind is str:
        return value if value.isascii() else _text(value)

    if kind is bool or kind is int or value is None:
        return t.cast("Json", value)

    if kind is float:
        return _finite(value)

    if kind is dict:
        # One loop for nearly all the properties there are: what it settles itself
        # costs no call.
        items: dict[str, Json] = {}

        for key, item in value.items():
            if type(key) is not str or not key.isascii():
                key = _key(key)

            kind = type(item)

            if not (
                kind is int
                or kind is bool
                or (kind is str and item.isascii())
                or (kind is float and math.isfinite(item))
            ):
                item = _plain(item)

            items[key] = item

        return items

    if kind is list or kind is tuple:
        return [_plain(item) for item in value]

    return _converted(value)


def _converted(value: t.Any) -> Json:
    if isinstance(value, enum.Enum):
        return _plain(value.value)

    if isinstance(value, str):
        # Also a proxy of a text is an instance of one.
        return _text("".join(map(str, [value])))

    if isinstance(value, dt.datetime):
        if value.tzinfo is not None:
            value = value.astimezone(dt.UTC)

        # Without fraction and zone, as Mixpanel's own libraries write them.
        return t.cast(str, value.strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0"))

    if isinstance(value, dt.date):
        return value.isoformat()

    if isinstance(value, decimal.Decimal):
        return _finite(float(value))

    if isinstance(value, uuid.UUID):
        return str(value)

    if isinstance(value, numbers.Integral):
        return int(value)

    if isinstance(value, numbers.Real):
        return _finite(float(value))

    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: _plain(getattr(value, field.name))
            for field in dataclasses.fields(value)
        }

    if isinstance(value, c.Mapping):
        return {_key(key): _plain(item) for key, item in value.items()}

    if isinstance(value, c.Set):
        # In an order of its own, so that the same set is the same list everywhere.
        return sorted((_plain(item) for item in value), key=repr)

    if isinstance(value, c.Sequence | c.ValuesView) and not isinstance(
        value, bytes | bytearray | memoryview
    ):
        return [_plain(item) for item in value]

    # Markup, and the proxies that stand for a text not yet translated.
    if hasattr(value, "__html__") or hasattr(value, "casefold"):
        return _text(str(value))

    raise TypeError(
        f"{_name(value)} can't be sent to Mixpanel; turn it into a text, a number, a"
        " date, a list or a dict"
    )


def _name(value: object) -> str:
    kind = type(value)
    # Several libraries have a `bool` of their own.
    name = kind.__qualname__
    where = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return f"a value of type '{where}{name}'"


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(f"{value!r} can't be sent to Mixpanel: it isn't a number")

    return float(value)


def _key(key: object) -> str:
    if isinstance(key, str | enum.Enum):
        key = _plain(key)

    return _text(str(key))


def _text(text: str) -> str:
    # Half a surrogate pair has no UTF-8: no header, no page and no Mixpanel takes
    # it. Whole pairs, which JSON from elsewhere may bring, are put together.
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    return text


def identifier(value: t.Any, what: str) -> str:
    """Turn the id of a person or a group into text, as Mixpanel compares them.

    ``42`` and ``"42"`` would be two people.

    :raises TypeError: the value is not an id: ``None``, a bool, a list.
    :raises ValueError: the id is empty.
    """
    # As some databases give them; a float would write 42 as 42.0.
    text = str(value) if isinstance(value, decimal.Decimal) else plain(value)

    if isinstance(text, bool) or not isinstance(text, str | int | float):
        raise TypeError(f"{what} must be a text or a number, not {value!r}")

    if not str(text).strip():
        raise ValueError(f"{what} is empty")

    return str(text)
