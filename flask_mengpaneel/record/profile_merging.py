"""Profile operations of one flush, merged into fewer updates.

The browser library delivers separate updates in any order, and Mixpanel knows no
repetition of an update. So what can be one update is made one, and an operation whose
result is known is made a ``set``: that one may arrive twice, and beside any other.
Two operations stay apart wherever one of them alone could, for some profile, give
another result than both.

https://docs.mixpanel.com/reference/profile-set
"""

from __future__ import annotations

import collections.abc as c
import dataclasses
import math
import typing as t
from collections import Counter, deque

from ..calls import Call, Json
from ..values import is_number

#: Calls that neither change a profile nor say whose it is.
_BESIDE = frozenset(
    {
        "disable",
        "enable",
        "register",
        "register_once",
        "time_event",
        "track",
        "track_pageview",
        "track_with_groups",
        "unregister",
    }
)

#: Calls that say whose profile it is, or change it by themselves; groups don't care.
_PERSONAL = frozenset(
    {"add_group", "alias", "identify", "remove_group", "reset", "set_group"}
)

_DELETE = frozenset({"delete", "delete_user"})

#: The property that charges are kept in.
_CHARGES = "$transactions"


class Step(t.NamedTuple):
    """The effect of one operation on one property."""

    method: str
    value: t.Any = None


_ABSENT = Step("unset")


@dataclasses.dataclass
class _Planned:
    """A step to be made, and the recorded operations that led to it."""

    step: Step
    sources: set[int]


class _Profile:
    """The operations on one person or group, up to the next barrier."""

    def __init__(self, prefix: list[t.Any]) -> None:
        #: What a call of a method of this profile starts with.
        self._prefix = prefix
        self._properties: dict[str, deque[_Planned]] = {}
        self._deleted: tuple[str, set[int]] | None = None
        self._count = 0

    def add(self, method: str, steps: c.Mapping[str, Step]) -> None:
        source = self._count
        self._count += 1

        if method in _DELETE:
            self._properties.clear()
            self._deleted = (method, set(range(self._count)))

        for name, step in steps.items():
            self._plan(name, step, source)

    def _plan(self, name: str, step: Step, source: int) -> None:
        planned = self._properties.setdefault(name, deque())
        sources = {source}

        if step.method in {"set", "unset", "clear_charges"}:
            if planned:
                sources = planned[0].sources
                sources.update({source}, *(one.sources for one in planned))
                planned.clear()
        else:
            # What two steps are together, the one before may take as well.
            while planned and (folded := _folded(planned[-1].step, step)) is not None:
                last = planned.pop()
                last.sources.update(sources)
                step, sources = folded, last.sources

            if not planned and self._deleted is not None:
                step = _folded(_ABSENT, step) or step

        if self._deleted is not None and not planned and step == _ABSENT:
            # What is deleted has nothing to unset.
            self._deleted[1].update(sources)
        else:
            planned.append(_Planned(step, sources))

    def calls(self) -> c.Iterator[tuple[Call, int]]:
        """Yield the calls to make, and how many operations each stands for."""
        counted: set[int] = set()

        for method, arguments, sources in self._updates():
            call = Call(self._wire(method, arguments))
            yield call, len(sources - counted)
            counted |= sources

    def _wire(self, method: str, arguments: list[t.Any]) -> list[t.Any]:
        if self._prefix == ["people"]:
            return [["people", method], arguments]

        return [*self._prefix, [method], arguments]

    def _updates(self) -> c.Iterator[tuple[str, list[t.Any], set[int]]]:
        if self._deleted is not None:
            yield self._deleted[0], [], self._deleted[1]

        waiting = {name: steps.copy() for name, steps in self._properties.items()}

        while waiting := {name: steps for name, steps in waiting.items() if steps}:
            method = _next_method(waiting.values())
            chosen = {
                name: steps.popleft()
                for name, steps in waiting.items()
                if steps[0].step.method == method
            }
            sources = set[int]().union(*(one.sources for one in chosen.values()))
            values = {name: one.step.value for name, one in chosen.items()}
            yield method, _arguments(method, values), sources


def merge(calls: c.Iterable[Call]) -> list[tuple[Call, int]]:
    """Merge the profile operations among some calls into the fewest updates.

    The end result is that of making the calls one after the other. All other calls
    keep their order; the updates of a profile are where its first operation was.

    :return: the calls to make, each with the number of recorded operations that it
        stands for: what :attr:`Call.is_record` counts, so that none is lost.
    """
    slots: list[_Profile | tuple[Call, int]] = []
    pending: dict[str, _Profile] = {}

    for call in calls:
        # Nearly all are, and none of these is a profile operation.
        if call.wire[0][0] in _BESIDE:
            slots.append((call, int(call.tracks)))
            continue

        operation = _operation(call)

        if operation is None:
            _end_profiles(pending, call)
            slots.append((call, int(call.is_record)))
            continue

        prefix, method, steps = operation
        key = repr(prefix)

        if key not in pending:
            slots.append(pending.setdefault(key, _Profile(prefix)))

        pending[key].add(method, steps)

    merged: list[tuple[Call, int]] = []

    for slot in slots:
        if isinstance(slot, _Profile):
            merged += slot.calls()
        else:
            merged.append(slot)

    return merged


def _end_profiles(pending: dict[str, _Profile], call: Call) -> None:
    """Let no operation after a call be merged with one before it."""
    if call.name in _PERSONAL or call.wire[0][0] == "people":
        pending.pop(repr(["people"]), None)
    else:
        pending.clear()


def _operation(call: Call) -> tuple[list[t.Any], str, dict[str, Step]] | None:
    wire = call.wire

    if len(wire) == 2 and wire[0][0] == "people" and len(wire[0]) == 2:
        prefix: list[t.Any] = ["people"]
        method = wire[0][1]
    elif len(wire) == 4 and wire[0] == ["get_group"] and len(wire[2]) == 1:
        prefix = wire[:2]
        method = wire[2][0]
    else:
        return None

    if method in _DELETE:
        return prefix, method, {}

    steps = _steps(method, call.arguments)
    return (prefix, method, steps) if steps else None


def _steps(method: str, arguments: list[t.Any]) -> dict[str, Step]:
    """Return the effect of a call on each property; none if it isn't to be merged."""
    match method, arguments:
        case "clear_charges", []:
            return {_CHARGES: Step(method)}
        case "track_charge", [_] | [_, _]:
            return {_CHARGES: Step(method, arguments)}
        case "unset", [str() as name]:
            return {name: _ABSENT}
        case "unset", [list() as names]:
            return {name: _ABSENT for name in names if isinstance(name, str)}
        case "increment", [str() as name]:
            return {name: Step(method, 1)}
        case "increment", _:
            pairs = _pairs(arguments)
            return (
                {name: Step(method, value) for name, value in pairs.items()}
                if all(map(is_number, pairs.values()))
                else {}
            )
        case "union", _:
            return {
                name: Step(method, _united([], _listed(values)))
                for name, values in _pairs(arguments).items()
            }
        case (("set" | "set_once" | "append" | "remove"), _):
            return {
                name: Step(method, value) for name, value in _pairs(arguments).items()
            }
        case _:
            return {}


def _pairs(arguments: list[t.Any]) -> dict[str, t.Any]:
    match arguments:
        case [dict() as pairs]:
            return pairs
        case [str() as name, value]:
            return {name: value}
        case _:
            return {}


def _arguments(method: str, values: dict[str, t.Any]) -> list[t.Any]:
    if method == "unset":
        return [list(values)]

    if method in {"clear_charges", "track_charge"}:
        return values[_CHARGES] or []

    return [values]


def _next_method(waiting: c.Iterable[c.Sequence[_Planned]]) -> str:
    # The method with the most still to come behind it: then the others, which more
    # properties will have reached by then, are called less often.
    weights: Counter[str] = Counter()

    for steps in waiting:
        weights[steps[0].step.method] += len(steps)

    return max(sorted(weights), key=weights.__getitem__)


def _folded(last: Step, new: Step) -> Step | None:
    """Return the one step that does what two do, on every profile, if there is one.

    :param new: none that makes the earlier ones pointless.
    """
    if new.method == "set_once" and _exists_after(last):
        return last

    match last.method, new.method:
        case "unset", _:
            return _on_absent(new)
        case "set", _:
            return _on_value(last.value, new)
        case "increment", "increment":
            total = last.value + new.value
            return Step("increment", total) if math.isfinite(total) else None
        case "union", "union":
            return Step("union", _united(last.value, new.value))
        case _:
            return None


def _exists_after(step: Step) -> bool:
    match step:
        case Step("set" | "set_once", value):
            # Whether null is a value is not documented.
            return value is not None
        case Step("union", values):
            return bool(values)
        case Step("increment" | "append"):
            return True
        case _:
            return False


def _on_absent(step: Step) -> Step | None:
    """Return what a step is on a property that isn't there."""
    match step:
        case Step("set_once" | "increment", value):
            return Step("set", value)
        case Step("append", value):
            return Step("set", [value])
        case Step("union", [_, *_] as values):
            return Step("set", values)
        case Step("remove"):
            return _ABSENT
        case _:
            return None


def _on_value(value: Json, step: Step) -> Step | None:
    """Return what a step is on a property whose value is known."""
    match step:
        case Step("increment", by) if is_number(value):
            total = t.cast(float, value) + by
            return Step("set", total) if math.isfinite(total) else None
        case Step("append", item) if isinstance(value, list):
            return Step("set", [*value, item])
        case Step("union", items) if isinstance(value, list):
            return Step("set", _united(value, items))
        case Step("remove", item) if isinstance(value, list):
            left = [one for one in value if not _same(one, item)]
            # Whether a value that is there twice is removed twice isn't documented.
            return Step("set", left) if len(value) - len(left) < 2 else None
        case _:
            return None


def _listed(value: t.Any) -> list[Json]:
    return value if isinstance(value, list) else [value]


def _united(values: list[Json], more: list[Json]) -> list[Json]:
    united = list(values)
    # There may be many of these, which one needn't compare one by one.
    known = {(isinstance(one, bool), one) for one in values if _is_scalar(one)}

    for value in more:
        if not _is_scalar(value):
            if not _among(united, value):
                united.append(value)
        elif (isinstance(value, bool), value) not in known:
            known.add((isinstance(value, bool), value))
            united.append(value)

    return united


def _is_scalar(value: Json) -> t.TypeGuard[None | bool | int | float | str]:
    return not isinstance(value, list | dict)


def _among(values: list[Json], value: Json) -> bool:
    # Python's own answer comes fast, and is too wide only.
    return value in values and any(_same(one, value) for one in values)


def _same(one: Json, other: Json) -> bool:
    """Return whether two values are the same in JSON, where ``true`` is not ``1``."""
    match one, other:
        case list(), list():
            return len(one) == len(other) and all(map(_same, one, other))
        case dict(), dict():
            return one.keys() == other.keys() and all(
                _same(value, other[name]) for name, value in one.items()
            )
        case _:
            return one == other and isinstance(one, bool) == isinstance(other, bool)
