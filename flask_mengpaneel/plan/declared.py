"""Events that an app declares as classes, and what they say of themselves.

The words are those of Mixpanel's Lexicon: an event has a *name*, which is sent, a
*display name*, which people read in its place, a *description* and an *owner*; together
they are a *tracking plan*. Names are sent as they are written: what one reads in
Mixpanel one finds in the code.
"""

from __future__ import annotations

import collections.abc as c
import dataclasses
import functools
import inspect
import re
import typing as t
import warnings
import weakref

from .property_types import hints_of, is_optional, schema_of, without_none

if t.TYPE_CHECKING:
    from ..calls import Json

# "PlaceOrder", "HTTPError", "Order2Go"
_WORD = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[^A-Z_]+|[A-Z]+")

#: The class of each declared event, by its name.
_declared: weakref.WeakValueDictionary[str, type[Event]]
_declared = weakref.WeakValueDictionary()


@t.dataclass_transform(
    kw_only_default=True, frozen_default=True, field_specifiers=(dataclasses.field,)
)
class Event:
    """An event that is declared: derive a class from it for each, with its properties.

    ::

        class PlaceOrder(Event, name="Place Order", owner="checkout"):
            \"\"\"Somebody has placed an order.\"\"\"

            items: int
            coupon: str | None = None

        mengpaneel.track(PlaceOrder(items=3))

    Each becomes a frozen dataclass, whose arguments are given by name. What is ``None``
    isn't sent. A property may have another name, and a description:
    ``items: int = field(metadata={"name": "Items", "description": "How many"})``.

    Keywords of the class:

    :param name: what is sent; the name of the class by default.
    :param display_name: what people read; by default the words of the class's name.
    :param description: when it happens; by default the class's docstring.
    :param owner: who answers for it; by default whoever answers for the base.
    :param abstract: whether it is only a base of others, and no event.
    """

    # Users' properties may have any name but this one.
    _declaration: t.ClassVar[Declaration]

    def __init_subclass__(
        cls,
        *,
        name: str | None = None,
        display_name: str | None = None,
        description: str | None = None,
        owner: str | None = None,
        abstract: bool = False,
    ) -> None:
        super().__init_subclass__()
        # Else it would have one that lists its arguments.
        docstring: str = cls.__dict__.get("__doc__") or ""
        cls.__doc__ = docstring
        dataclasses.dataclass(frozen=True, kw_only=True)(cls)
        base: Declaration | None = getattr(super(cls, cls), "_declaration", None)
        name = cls.__name__ if name is None else name

        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"The name of the event {cls.__qualname__} is {name!r}.")

        if display_name is None:
            display_name = " ".join(_WORD.findall(cls.__name__))

        if description is None:
            description = _text(docstring)

        if owner is None:
            owner = base.owner if base else ""

        cls._declaration = Declaration(cls, name, display_name, description, owner)

        if not abstract:
            _declare(cls)

    def __init__(self) -> None:
        # Of its own class nobody makes one: a dataclass has its own.
        raise TypeError("Event is the base of events: derive a class from it")


@dataclasses.dataclass(frozen=True)
class Property:
    """A property of a declared event."""

    name: str
    description: str
    #: What its values are, as a JSON Schema.
    schema: dict[str, Json]
    required: bool


class Declaration:
    """What a declared event says of itself."""

    def __init__(
        self,
        event: type[Event],
        name: str,
        display_name: str,
        description: str,
        owner: str,
    ) -> None:
        self._event = event
        self.name = name
        self.display_name = display_name
        self.description = description
        self.owner = owner
        self._fields = dataclasses.fields(t.cast("t.Any", event))
        #: The name of each attribute, and that of the property that it is sent as.
        self._names = [(field.name, _sent_name(field)) for field in self._fields]

        if len({sent for _, sent in self._names}) < len(self._names):
            raise ValueError(f"Two properties of {name!r} have the same name.")

    @property
    def class_name(self) -> str:
        """The name of its class."""
        return self._event.__name__

    def properties_of(self, event: Event) -> dict[str, t.Any]:
        """Return the properties of one such event."""
        return {
            name: value
            for attribute, name in self._names
            if (value := getattr(event, attribute)) is not None
        }

    @functools.cached_property
    def properties(self) -> dict[str, Property]:
        """Its properties by name, in the order in which they are written."""
        # Read when all modules are there, as they may name what comes later.
        hints = hints_of(self._event)
        return {
            name: Property(
                name,
                _text(field.metadata.get("description") or ""),
                schema_of(without_none(hints.get(field.name, t.Any))),
                _is_required(field, hints.get(field.name)),
            )
            for field, (_, name) in zip(self._fields, self._names, strict=True)
        }

    @property
    def schema(self) -> dict[str, Json]:
        """Its properties as a JSON Schema, as Mixpanel's Lexicon takes it."""
        described: dict[str, Json] = {
            one.name: {
                **one.schema,
                **({"description": one.description} if one.description else {}),
            }
            for one in self.properties.values()
        }
        lexicon: dict[str, Json] = {"displayName": self.display_name}

        if self.owner:
            lexicon["contacts"] = [self.owner]

        return {
            "type": "object",
            "description": self.description,
            "properties": described,
            "required": [one.name for one in self.properties.values() if one.required],
            "metadata": {"com.mixpanel": lexicon},
        }


def name_and_properties(
    event: Event, properties: c.Mapping[str, t.Any] | None
) -> tuple[str, dict[str, t.Any]]:
    """Return what is sent of an event.

    :param properties: others that it has, such as its ``time``.
    """
    declaration = event._declaration
    return declaration.name, {**declaration.properties_of(event), **(properties or {})}


def name_of(event: type[Event]) -> str:
    """Return the name under which a declared event is sent."""
    return event._declaration.name


def declarations() -> list[Declaration]:
    """Return what all declared events say of themselves, by name."""
    events = sorted(_declared.items())
    return [event._declaration for _, event in events]


def declaration_of(name: str) -> Declaration | None:
    """Return what the declared event of a name says of itself, if there is one."""
    event = _declared.get(name)
    return None if event is None else event._declaration


def _declare(event: type[Event]) -> None:
    name = event._declaration.name
    former = _declared.get(name)

    # A module may be loaded again, and that of a script be imported by its name.
    if former is not None and former.__qualname__ != event.__qualname__:
        warnings.warn(
            f"Two events are called {name!r}: {former.__module__}."
            f"{former.__qualname__} and {event.__module__}.{event.__qualname__}.",
            stacklevel=4,
        )

    _declared[name] = event


def _sent_name(field: dataclasses.Field[t.Any]) -> str:
    name = field.metadata.get("name", field.name)

    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"The name of the property {field.name!r} is {name!r}.")

    return name


def _is_required(field: dataclasses.Field[t.Any], hint: t.Any) -> bool:
    return (
        field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
        and not is_optional(hint)
    )


def _text(description: str) -> str:
    """Return a description as one paragraph: what stands before an empty line."""
    return " ".join(inspect.cleandoc(description).partition("\n\n")[0].split())
