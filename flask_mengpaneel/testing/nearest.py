"""What a failed assertion says: the calls that come nearest to the one expected."""

from __future__ import annotations

import collections.abc as c
import difflib
import typing as t

from ..values import plain

if t.TYPE_CHECKING:
    from ..calls import Json
    from .recorded_call import RecordedCall

#: Calls that a failed assertion shows.
_MAX_SHOWN = 5

_MISSING = object()


def differences(
    expected: c.Mapping[str, t.Any], given: c.Mapping[str, Json]
) -> list[str]:
    """Say which properties aren't as they are expected; others may be there too."""
    return [
        f"has no {name}" if name not in given else f"{name} is {given[name]!r}"
        for name, value in expected.items()
        if not _is_equal(value, given.get(name, _MISSING))
    ]


def _is_equal(expected: t.Any, given: object) -> bool:
    # To Python they are the numbers 0 and 1.
    if isinstance(expected, int | float) and (
        isinstance(expected, bool) is not isinstance(given, bool)
    ):
        return False

    # Also what compares itself, such as `pytest.approx`.
    if expected == given:
        return given is not _MISSING

    try:
        return plain(expected) == given
    except (TypeError, ValueError):
        return False


def explain(
    wanted: str,
    name: str,
    expected: c.Mapping[str, t.Any],
    calls: c.Sequence[RecordedCall],
) -> str:
    """Say that there is no such call, and which come near.

    :param wanted: the call, in words.
    :param name: of the event or the method.
    :param calls: all that were recorded.
    """
    if not calls:
        return f"there is no {wanted}; no call was recorded at all"

    ranked = sorted(calls, key=lambda one: _distance(one, name, expected))
    lines = [f"there is no {wanted}; the nearest calls:"]

    for one in ranked[:_MAX_SHOWN]:
        lines.append(f"  {one!r}")
        is_named = name in (one.event, one.name)
        reasons = differences(expected, one.properties) if is_named else []

        if is_named and not one.goes and not one.dropped:
            reasons.append(
                "no strategy has got it: nothing was tracked that it goes with, it"
                " waits for its person or its database, or the visitor hasn't consented"
            )

        lines += [f"    {reason}" for reason in reasons]

    if len(ranked) > _MAX_SHOWN:
        lines.append(f"  and {len(ranked) - _MAX_SHOWN} more")

    return "\n".join(lines)


def _distance(
    one: RecordedCall, name: str, expected: c.Mapping[str, t.Any]
) -> tuple[float, int]:
    own = one.name if one.event is None else one.event
    likeness = difflib.SequenceMatcher(None, own.lower(), name.lower()).ratio()
    return (
        0.0 if name in (one.event, one.name) else 1.0 - likeness,
        len(differences(expected, one.properties)),
    )


def listing(what: str, found: c.Sequence[RecordedCall]) -> str:
    """Say that something is there that isn't to be."""
    return "\n".join([what, *(f"  {one!r}" for one in found)])
