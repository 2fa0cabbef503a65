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
import itertools
import math
import numbers
import re
import typing as t
import uuid

from .foreign_values import UNKNOWN, advice, is_duration, own_value
from .limits import MAX_INTEGER_BITS, MAX_SAFE_INTEGER, MAX_TEXT

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

# Lists and dicts in one another. Mixpanel shows three; what is read and written with
# the calls, sessions too, needs some frames for each.
MAX_NESTING = 32

# Values in all the lists and dicts of one value: no record has room for more.
MAX_VALUES = 500_000

TOO_DEEP = "a value is nested too deeply, or contains itself"
TOO_MANY = f"a value has more than {MAX_VALUES} values in it"

#: A list or dict, and where in it is a value that isn't plain yet, how deep in all.
Pending: t.TypeAlias = "list[tuple[t.Any, t.Any, int]]"

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def plain(value: t.Any) -> Json:
    """Return a value as what JSON knows: ``None``, bool, number, text, list, dict.

    An integer that a browser would round becomes a text, with all its digits.

    :raises TypeError: the value is of a kind that can't be sent.
    :raises ValueError: the value is NaN, infinite or too large, or contains itself.
    """
    pending: Pending = []
    result = plain_outside(value, pending, 0)

    if pending:
        _plain_inside(pending)

    return result


def _plain_inside(pending: Pending) -> None:
    """Make plain what is inside of lists and dicts.

    Step by step and not by recursion: how deep a value may be must not depend on how
    deep its call is.
    """
    left = MAX_VALUES

    while pending:
        place, key, depth = pending.pop()

        if key is SORT:
            # In an order of its own, so that the same set is the same list everywhere.
            place.sort(key=repr)
            continue

        item = place[key] = plain_outside(place[key], pending, depth)

        if type(item) is dict or type(item) is list:
            left -= len(item)

            if depth > MAX_NESTING:
                raise ValueError(TOO_DEEP)

            if left < 0:
                raise ValueError(TOO_MANY)


#: In place of a key: the list is to be sorted when all in it is plain.
SORT = object()


def plain_outside(value: t.Any, pending: Pending, depth: int) -> Json:
    """Return a plain value; what is in it is plain where that takes no more steps.

    :param pending: gets the rest.
    """
    # The exact types first: nearly all values are of these, and five properties would
    # take 43 us without, and not 5.
    kind = type(value)

    if kind is dict:
        # One loop for nearly all the properties there are: 2 us of 7 for five, which
        # would take a function call each.
        items: dict[str, t.Any] = {}

        for key, item in value.items():
            if type(key) is not str or not key.isascii():
                key = _key(key)

            items[key] = item
            kind = type(item)

            if (kind is dict or kind is list) and not item:
                # The caller may fill its own.
                items[key] = kind()
            elif not (
                (kind is str and item.isascii())
                or (kind is int and -MAX_SAFE_INTEGER <= item <= MAX_SAFE_INTEGER)
                or kind is bool
                or item is None
                or (kind is float and item and math.isfinite(item))
            ):
                pending.append((items, key, depth + 1))

        return items

    if kind is list or kind is tuple:
        return _list(value, pending, depth)

    if kind is str:
        return value if value.isascii() else _text(value)

    if kind is bool or value is None:
        return t.cast("Json", value)

    if kind is int:
        return _whole(value)

    if kind is float:
        return _finite(value)

    return _converted(value, pending, depth)


def _list(values: c.Iterable[t.Any], pending: Pending, depth: int) -> list[t.Any]:
    items = few(values)

    for place, item in enumerate(items):
        kind = type(item)

        if not (
            (kind is str and item.isascii())
            or (kind is int and -MAX_SAFE_INTEGER <= item <= MAX_SAFE_INTEGER)
        ):
            pending.append((items, place, depth + 1))

    return items


def few(values: c.Iterable[t.Any]) -> list[t.Any]:
    """Return a list of values, which may be of a kind that never ends."""
    items = list(itertools.islice(values, MAX_VALUES + 1))

    if len(items) > MAX_VALUES:
        raise ValueError(TOO_MANY)

    return items


#: The types that need no look at other libraries, of those that are converted.
_OWN_TYPES = frozenset(
    {dt.datetime, dt.date, uuid.UUID, decimal.Decimal, set, frozenset}
)


def _converted(value: t.Any, pending: Pending, depth: int) -> Json:
    if isinstance(value, enum.Enum):
        return plain_outside(value.value, pending, depth)

    if isinstance(value, str):
        # Also a proxy of a text is an instance of one.
        return _text("".join(map(str, [value])))

    if type(value) not in _OWN_TYPES:
        own = own_value(value)

        if own is not UNKNOWN:
            return plain_outside(own, pending, depth)

        if is_duration(value):
            raise _unsendable(value)

    if isinstance(value, dt.datetime):
        if value.tzinfo is not None:
            value = _in_utc(value)

        # Without fraction and zone, as Mixpanel's own libraries write them.
        return t.cast(str, value.strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0"))

    if isinstance(value, dt.date):
        return value.isoformat()

    if isinstance(value, uuid.UUID):
        return str(value)

    if isinstance(value, numbers.Integral):
        return _whole(int(value))

    if isinstance(value, decimal.Decimal) and _is_whole(value):
        return _whole(int(value))

    if isinstance(value, decimal.Decimal | numbers.Real):
        return _finite(value)

    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return plain_outside(
            {field.name: getattr(value, field.name) for field in fields}, pending, depth
        )

    if isinstance(value, c.Mapping):
        return plain_outside(dict(few(value.items())), pending, depth)

    if isinstance(value, c.Set):
        items = few(value)
        pending.append((items, SORT, depth))
        pending += [(items, place, depth + 1) for place in range(len(items))]
        return items

    if isinstance(value, c.Sequence | c.ValuesView) and not isinstance(
        value, bytes | bytearray | memoryview
    ):
        return _list(value, pending, depth)

    # Markup, and the proxies that stand for a text not yet translated.
    if hasattr(value, "__html__") or hasattr(value, "casefold"):
        return _text(str(value))

    raise _unsendable(value)


def _in_utc(value: dt.datetime) -> dt.datetime:
    try:
        return value.astimezone(dt.UTC)
    except OverflowError:
        # As `datetime.min` is, with a zone that is ahead.
        raise ValueError(
            f"{value} can't be sent to Mixpanel: in UTC its year isn't one from 1 to"
            " 9999; write None in its place"
        ) from None


def _unsendable(value: object) -> TypeError:
    return TypeError(f"{_name(value)} can't be sent to Mixpanel; {advice(value)}")


def _name(value: object) -> str:
    """Say of which type a value is."""
    kind = type(value)
    # Several libraries have a `bool` of their own.
    name = kind.__qualname__
    where = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return f"a value of type '{where}{name}'"


def _whole(value: int) -> int | str:
    if -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER:
        return value

    if value.bit_length() > MAX_INTEGER_BITS:
        raise ValueError(
            f"an integer of {value.bit_length()} bits can't be sent to Mixpanel: it is"
            " too large for a number"
        )

    return str(value)


def _is_whole(value: decimal.Decimal) -> bool:
    """Return whether it is an integer, as some databases give them, of sane size."""
    return value.adjusted() < MAX_INTEGER_BITS and value.as_tuple().exponent == 0


def _finite(value: t.Any) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf

    if not math.isfinite(number):
        raise ValueError(
            f"{number!r}, {_name(value)}, can't be sent to Mixpanel: it isn't a number;"
            " write None in its place"
        )

    # Without the sign of a zero, which browsers don't write.
    return number + 0.0


def _key(key: object) -> str:
    # Not as other values: making one plain that has keys again could take for ever.
    while isinstance(key, enum.Enum):
        key = key.value

    # Also a proxy of a text is an instance of one.
    return _text("".join(map(str, [key])))


def _text(text: str) -> str:
    # Half a surrogate pair has no UTF-8: no header, no page and no Mixpanel takes
    # it. Whole pairs, which JSON from elsewhere may bring, are put together.
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    return text


def identifier(value: t.Any, what: str) -> str:
    """Return the id of a person or a group as a text, as Mixpanel compares them.

    ``42`` and ``"42"`` would be two people.

    :raises TypeError: the value is not an id: ``None``, a bool, a list.
    :raises ValueError: the id is empty.
    """
    text = plain(value)

    if isinstance(value, decimal.Decimal):
        # As some databases give them; a float would write 42 as 42.0.
        text = str(value)

    if isinstance(text, bool) or not isinstance(text, str | int | float):
        raise TypeError(f"{what} must be a text or a number, not {value!r}")

    if not str(text).strip():
        raise ValueError(f"{what} is empty")

    return str(text)


def is_number(value: t.Any) -> bool:
    """Return whether a value is a number; to Python, a bool is one as well."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def fault_of(id: str) -> str | None:
    """Return what is wrong with the id of a person; ``None`` if nothing is.

    The same wherever it is from: what is recorded has to be believed when the browser
    says it again.
    """
    if not id.strip():
        return "it is empty"

    if (
        len(id) > MAX_TEXT // 2
        and len(id.encode("utf-16-le", "replace")) > 2 * MAX_TEXT
    ):
        return f"it has more than {MAX_TEXT} characters"

    # Much that isn't printable is a part of names: joiners, marks, spaces.
    if not id.isprintable() and _CONTROL.search(id):
        return "it has control characters in it"

    if id.lower() in FORBIDDEN_IDS:
        return "Mixpanel doesn't take it"

    return None
