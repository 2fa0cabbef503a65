"""Calls in which something can't be sent: what is left of them, and what is said of it.

Nothing of this is on the way of other calls.
"""

from __future__ import annotations

import collections.abc as c
import functools
import inspect
import typing as t

from ..calls import TRACKING, Call
from ..faulty_values import Fault, path_to, without_faults
from ..identity import EVENT_IDS
from ..limits import MAX_PROFILE_PROPERTIES
from ..outcome import Unrecorded
from ..plan.declared import Event, name_and_properties
from ..values import plain
from .arguments import MISSING
from .source import place_of_call

#: The arguments that are properties, each of which may be missing, and those that are
#: the value of the one property that is named.
_PROPERTIES = ("properties", "prop", "groups")
_VALUES = ("to", "value", "values")

#: The methods that make a record without properties, too.
_COMPLETE_WITHOUT = TRACKING | {"track_charge"}

#: As one writes it, where a method is of another object than the recorder.
_OWNERS = {"People": "people.", "Group": "get_group."}

# Of what a message repeats.
_MAX_FAULTS = 3
_MAX_ERROR = 500

_Method: t.TypeAlias = "c.Callable[..., t.Any]"


class Refusal:
    """What can't be recorded of a call.

    :param method: that makes the call.
    :param args: its arguments, the first of which is the object that it is of.
    :param error: what it has raised, or what came after it.
    """

    def __init__(
        self,
        method: _Method,
        args: tuple[t.Any, ...],
        kwargs: c.Mapping[str, t.Any],
        error: Exception,
    ) -> None:
        self.error = error
        #: The call without what can't be recorded; ``None`` if nothing is left of it.
        self.wire: list[t.Any] | None = None
        #: What can't be recorded; the whole call, if that is empty.
        self.faults: list[Fault] = []
        #: Where the app makes the call.
        self.origin = place_of_call()
        owner, _, name = method.__qualname__.rpartition(".")
        #: The call, as one writes it.
        self.name = _OWNERS.get(owner, "") + name.strip("_")
        #: The event that it tracks, if it does.
        self.event = ""
        #: What is wrong with the arguments if they don't fit the method. Python's own
        #: words name what nobody writes, and count the object as one of them.
        self._misfit = ""

        try:
            bound = _signature(method).bind(*args, **kwargs)
        except TypeError as misfit:
            self._misfit = f"{misfit}; it is {self.name}{_form(method)}"
            return

        try:
            event = bound.arguments.get("event_name", "")

            if isinstance(event, Event):
                event, properties = name_and_properties(
                    event, bound.arguments.get("properties")
                )
                bound.arguments |= {"event_name": event, "properties": properties}

            self.event = str(plain(event)) if isinstance(event, str) else ""
            self.wire, self.faults = _without_faults(method, bound)
        except Exception:
            # Then there is no more to say than what was raised.
            pass

    @property
    def reason(self) -> str:
        """What is wrong with the call."""
        if not self.faults:
            return self._misfit or _words(self.error)

        # Else that is said of the whole call.
        lost = " was not recorded" if self.wire is not None else ""
        said = [
            f"{fault.path}{lost}: {_words(fault.error)}"
            for fault in self.faults[:_MAX_FAULTS]
        ]
        more = len(self.faults) - len(said)
        return "; ".join([*said, f"and {more} more"] if more else said)

    def raise_(self, during: str) -> t.NoReturn:
        """Raise the error, in the words of the log."""
        text = self.text(during)

        if type(self.error) in (TypeError, ValueError):
            self.error.args = (text,)
        else:
            self.error.add_note(text)

        raise self.error

    def text(self, during: str) -> str:
        """Return what is said of the call.

        :param during: the request in which it is made.
        """
        return str(self.unrecorded(during))

    def unrecorded(self, during: str) -> Unrecorded:
        """Return what the app's signal says of the call."""
        call = Call(self.wire) if self.wire is not None else None
        return Unrecorded(
            self.name,
            self.event,
            self.reason,
            self.origin,
            during,
            tuple(fault.path for fault in self.faults) if call else (),
            str((call and call.insert_id) or ""),
        )


@functools.cache
def _signature(method: _Method) -> inspect.Signature:
    return inspect.signature(method)


def _form(method: _Method) -> str:
    """Return the arguments of a method as one writes them."""
    _, *parameters = _signature(method).parameters.values()
    written = [
        one.name if one.default in (one.empty, MISSING) else f"{one.name}={one.default}"
        for one in parameters
    ]
    return f"({', '.join(written)})"


def _words(error: Exception) -> str:
    try:
        words = " ".join([str(error), *getattr(error, "__notes__", ())])
    except Exception:
        # It may say so by the value that can't be shown.
        words = f"{type(error).__name__}, of which nothing can be read"

    return words[:_MAX_ERROR]


def _without_faults(
    method: _Method, bound: inspect.BoundArguments
) -> tuple[list[t.Any] | None, list[Fault]]:
    """Return a call without what can't be recorded of it, and what that is."""
    given = {
        name: bound.arguments[name]
        for name in _PROPERTIES
        if isinstance(bound.arguments.get(name), c.Mapping)
    }

    if not given:
        return _without_faults_of_value(method, bound)

    # Else the fault isn't in the properties.
    nothing: dict[str, t.Any] = {name: {} for name in given}
    _made(method, bound, nothing)
    rest: dict[str, t.Any] = {}
    faults: list[Fault] = []

    for name, properties in given.items():
        if len(properties) > MAX_PROFILE_PROPERTIES:
            return None, []

        check = functools.partial(_check, method, bound, nothing, name)
        rest[name] = _right_properties(properties, check, faults)

    is_event = method.__name__ in TRACKING
    # Without, it would be another event, or somebody else's.
    essential = [one for one in faults if is_event and one.path in EVENT_IDS]

    if essential:
        return None, essential

    if not any(rest.values()) and method.__name__ not in _COMPLETE_WITHOUT:
        return None, faults

    return (_made(method, bound, rest) if faults else None), faults


def _right_properties(
    properties: c.Mapping[t.Any, t.Any],
    check: c.Callable[[t.Any], None],
    faults: list[Fault],
) -> dict[t.Any, t.Any]:
    """Return the properties that can be recorded.

    :param check: raises what is wrong with properties.
    :param faults: gets what is wrong.
    """
    right = {}

    for key, value in properties.items():
        try:
            check({key: value})
            right[key] = value
        except Exception as error:
            path = _path(key)
            rest, found = without_faults(value, path)

            if rest is None or not found:
                faults += found or [Fault(path, error)]
                continue

            try:
                check({key: rest})
            except Exception:
                faults.append(Fault(path, error))
            else:
                right[key] = rest
                faults += found

    return right


def _without_faults_of_value(
    method: _Method, bound: inspect.BoundArguments
) -> tuple[list[t.Any] | None, list[Fault]]:
    prop = bound.arguments.get("prop")
    name = next((one for one in _VALUES if one in bound.arguments), None)

    if not isinstance(prop, str) or name is None:
        return None, []

    rest, faults = without_faults(bound.arguments[name], path_to("", prop))

    if rest is None or not faults:
        return None, faults

    return _made(method, bound, {name: rest}), faults


def _made(
    method: _Method, bound: inspect.BoundArguments, arguments: dict[str, t.Any]
) -> list[t.Any]:
    """Return the call with other arguments."""
    wire: list[t.Any] = method(**{**bound.arguments, **arguments})
    return wire


def _check(
    method: _Method,
    bound: inspect.BoundArguments,
    nothing: dict[str, t.Any],
    name: str,
    properties: t.Any,
) -> None:
    """Raise what is wrong with these properties, without any others."""
    _made(method, bound, {**nothing, name: properties})


def _path(key: t.Any) -> str:
    try:
        (name,) = t.cast("dict[str, t.Any]", plain({key: None}))
    except Exception:
        name = f"a key of type {type(key).__name__!r}"

    return path_to("", name)
