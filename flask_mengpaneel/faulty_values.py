"""What is left of a value in which something can't be sent.

Apart from :func:`~flask_mengpaneel.values.plain`, which stops at the first fault, since
nearly no value has one.
"""

from __future__ import annotations

import collections.abc as c
import itertools
import typing as t

from .values import MAX_NESTING, MAX_VALUES, SORT, TOO_DEEP, TOO_MANY, plain_outside

if t.TYPE_CHECKING:
    from .values import Pending

# Characters of a property's name that a message repeats.
_MAX_NAME = 100

#: In place of a value that can't be sent.
_LEFT_OUT: t.Any = object()


class Fault(t.NamedTuple):
    """Something in a value that can't be sent."""

    #: Where it is: ``Items[1].sku``; empty for the value itself.
    path: str
    #: What is wrong with it.
    error: Exception


def without_faults(value: t.Any, path: str = "") -> tuple[t.Any, list[Fault]]:
    """Return a value that :func:`plain` refuses without what can't be sent in it.

    :param path: where the value is.
    :return: ``None`` in its place if nothing is left, and all that is wrong with it.
    """
    faults: list[Fault] = []

    try:
        rest = _rest(value, path, 0, faults, itertools.count(MAX_VALUES, -1))
    except Exception as error:
        return None, [Fault(path, error)]

    return None if rest is _LEFT_OUT else rest, faults


def _rest(
    value: t.Any, path: str, depth: int, faults: list[Fault], left: c.Iterator[int]
) -> t.Any:
    if depth > MAX_NESTING:
        raise ValueError(TOO_DEEP)

    if next(left) < 0:
        raise ValueError(TOO_MANY)

    pending: Pending = []

    try:
        result: t.Any = plain_outside(value, pending, depth)
    except Exception as error:
        faults.append(Fault(path, error))
        return _LEFT_OUT

    for place, key, _ in pending:
        if key is not SORT:
            inner = path_to(path, key)
            place[key] = _rest(place[key], inner, depth + 1, faults, left)

    if type(result) is dict:
        return {key: one for key, one in result.items() if one is not _LEFT_OUT}

    if type(result) is list:
        result = [one for one in result if one is not _LEFT_OUT]

        if any(key is SORT for _, key, _ in pending):
            result.sort(key=repr)

        return result

    return result


def path_to(path: str, key: str | int) -> str:
    """Return where something in a value is, as one would write it."""
    if isinstance(key, int):
        return f"{path}[{key}]"

    name = key if key.isprintable() else ascii(key)
    return f"{path}.{name[:_MAX_NAME]}" if path else name[:_MAX_NAME]
