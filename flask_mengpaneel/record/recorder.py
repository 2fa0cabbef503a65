"""Mixpanel's browser library, method by method: each call is recorded, not made."""

from __future__ import annotations

import collections.abc as c
import contextlib
import functools
import re
import typing as t
from abc import ABC, abstractmethod
from decimal import Decimal

from ..calls import Stage
from ..plan.declared import Event, name_and_properties
from ..values import Id, identifier, plain
from . import arguments as checked
from .arguments import MISSING, Properties, Value
from .on_commit import (
    DatabaseSession,
    OnCommitBlock,
    begin_waiting,
    check_session,
    end_waiting,
    last_block,
)
from .refusals import Refusal

P = t.ParamSpec("P")
Recording = t.TypeVar("Recording", bound="HasManager")

_NAME = re.compile(r"[A-Za-z_$][\w$]*")


class RecordsCalls(t.Protocol):
    """The keeper of recorded calls: the manager of a unit of work."""

    def record(self, wire: list[t.Any]) -> None:
        """Keep a call, in the form of :class:`~flask_mengpaneel.calls.Call`."""

    def refuse(self, refusal: Refusal) -> None:
        """Raise what is wrong with a call, or record what is left of it."""

    def stage(self, stage: Stage) -> t.ContextManager[None]:
        """Keep calls in another stage for a while."""
        ...


#: The methods that `recorded` has made.
_RECORDED: set[t.Any] = set()


def recorded(
    method: c.Callable[t.Concatenate[Recording, P], list[t.Any]],
) -> c.Callable[t.Concatenate[Recording, P], None]:
    """Record the call that a method returns.

    A wrong argument is the mistake of the caller, never the visitor's: the manager
    decides whether it is raised.
    """

    @functools.wraps(method)
    def record(self: Recording, /, *args: P.args, **kwargs: P.kwargs) -> None:
        manager = self._manager()

        try:
            manager.record(method(self, *args, **kwargs))
        except Exception as error:
            manager.refuse(Refusal(method, (self, *args), kwargs, error))

    _RECORDED.add(record)
    return record


class HasManager(ABC):
    """An object that knows the manager to which its calls go."""

    # Without a dict, so that also a misspelt attribute fails at once.
    __slots__ = ()

    @abstractmethod
    def _manager(self) -> RecordsCalls: ...


class People(HasManager):
    """Profile operations on the person whom the calls are about.

    https://docs.mixpanel.com/docs/tracking-methods/sdks/javascript#storing-user-profiles
    """

    __slots__ = ("_parent",)

    def __init__(self, parent: HasManager) -> None:
        self._parent = parent

    def _manager(self) -> RecordsCalls:
        return self._parent._manager()

    @recorded
    def set(self, prop: str | Properties, to: Value = MISSING) -> list[t.Any]:
        """Set properties of the profile: ``set("Plan", "pro")`` or a dict.

        :param prop: the name of a property, or several with their values.
        :param to: the value, when ``prop`` is a name.
        """
        return [["people", "set"], [checked.pairs(prop, to)]]

    @recorded
    def set_once(self, prop: str | Properties, to: Value = MISSING) -> list[t.Any]:
        """Set properties that the profile doesn't have yet.

        :param prop: the name of a property, or several with their values.
        :param to: the value, when ``prop`` is a name.
        """
        return [["people", "set_once"], [checked.pairs(prop, to)]]

    @recorded
    def unset(self, prop: str | c.Sequence[str]) -> list[t.Any]:
        """Remove one property of the profile, or several.

        :param prop: its name, or a list of names.
        """
        return [["people", "unset"], [checked.names(prop)]]

    @recorded
    def increment(self, prop: str | Properties, by: float | Decimal = 1) -> list[t.Any]:
        """Add to a number of the profile, or to several: ``{"Logins": 1}``.

        :param prop: the name of a property, or several, each with what is added to it.
        :param by: what is added, when ``prop`` is a name; less than 0 subtracts.
        """
        return [["people", "increment"], [checked.amounts(prop, by)]]

    @recorded
    def append(self, prop: str | Properties, value: Value = MISSING) -> list[t.Any]:
        """Append a value to a list of the profile.

        :param prop: the name of a property, or several with their values.
        :param value: the value, when ``prop`` is a name.
        """
        return [["people", "append"], [checked.pairs(prop, value)]]

    @recorded
    def union(self, prop: str | Properties, values: Value = MISSING) -> list[t.Any]:
        """Add values to a list of the profile, those that it doesn't have yet.

        :param prop: the name of a property, or several, each with a value or a list.
        :param values: a value or a list of values, when ``prop`` is a name.
        """
        return [["people", "union"], [checked.lists(prop, values)]]

    @recorded
    def remove(self, prop: str | Properties, value: Value = MISSING) -> list[t.Any]:
        """Remove a value from a list of the profile.

        :param prop: the name of a property, or several with their values.
        :param value: the value, when ``prop`` is a name.
        """
        return [["people", "remove"], [checked.pairs(prop, value)]]

    @recorded
    def track_charge(
        self, amount: float | Decimal, properties: Properties | None = None
    ) -> list[t.Any]:
        """Record that the person was charged an amount of money.

        The browser library has made this a no-op; server-side it still appends to
        ``$transactions``, as Mixpanel's Python library does.

        :param amount: how much, without its currency.
        :param properties: what else is to be said of the charge.
        """
        return [
            ["people", "track_charge"],
            [checked.number(amount, "an amount"), checked.properties(properties)],
        ]

    @recorded
    def clear_charges(self) -> list[t.Any]:
        """Remove all charges of the person."""
        return [["people", "clear_charges"], []]

    @recorded
    def delete_user(self) -> list[t.Any]:
        """Delete the profile of the person."""
        return [["people", "delete_user"], []]


class Group(HasManager):
    """Profile operations on a group, such as a company.

    https://docs.mixpanel.com/docs/data-structure/group-analytics
    """

    __slots__ = ("_id", "_key", "_parent")

    def __init__(self, parent: HasManager, key: str, id: Id) -> None:
        self._parent = parent
        self._key = key
        self._id = id

    def _manager(self) -> RecordsCalls:
        return self._parent._manager()

    @property
    def _wire(self) -> list[t.Any]:
        # Checked here and not in `get_group`, so that a wrong id is refused together
        # with the call, and breaks no page.
        return [
            ["get_group"],
            [checked.text(self._key, "a group key"), checked.group_id(self._id)],
        ]

    @recorded
    def set(self, prop: str | Properties, to: Value = MISSING) -> list[t.Any]:
        """Set properties of the group's profile.

        :param prop: the name of a property, or several with their values.
        :param to: the value, when ``prop`` is a name.
        """
        return [*self._wire, ["set"], [checked.pairs(prop, to)]]

    @recorded
    def set_once(self, prop: str | Properties, to: Value = MISSING) -> list[t.Any]:
        """Set properties that the group's profile doesn't have yet.

        :param prop: the name of a property, or several with their values.
        :param to: the value, when ``prop`` is a name.
        """
        return [*self._wire, ["set_once"], [checked.pairs(prop, to)]]

    @recorded
    def unset(self, prop: str | c.Sequence[str]) -> list[t.Any]:
        """Remove one property of the group's profile, or several.

        :param prop: its name, or a list of names.
        """
        return [*self._wire, ["unset"], [checked.names(prop)]]

    @recorded
    def union(self, prop: str | Properties, values: Value = MISSING) -> list[t.Any]:
        """Add values to a list of the group's profile, those it doesn't have yet.

        :param prop: the name of a property, or several, each with a value or a list.
        :param values: a value or a list of values, when ``prop`` is a name.
        """
        return [*self._wire, ["union"], [checked.lists(prop, values)]]

    @recorded
    def remove(self, prop: str | Properties, value: Value = MISSING) -> list[t.Any]:
        """Remove a value from a list of the group's profile.

        :param prop: the name of a property, or several with their values.
        :param value: the value, when ``prop`` is a name.
        """
        return [*self._wire, ["remove"], [checked.pairs(prop, value)]]

    @recorded
    def delete(self) -> list[t.Any]:
        """Delete the group's profile."""
        return [*self._wire, ["delete"], []]


class Recorder(HasManager):
    """The methods of the ``mixpanel`` object of Mixpanel's browser library.

    What is called here is recorded with its arguments as they are now, and reaches
    Mixpanel when the request or job is over. Wrong arguments raise
    :exc:`TypeError` or :exc:`ValueError` while debugging and testing, and are logged
    in production, where the rest of the call is recorded. Outside of a request and of
    ``with Manager():`` a call raises :exc:`RuntimeError`.

    https://docs.mixpanel.com/docs/tracking-methods/sdks/javascript
    """

    __slots__ = ()

    @property
    def people(self) -> People:
        """Operations on the profile of the person whom the calls are about."""
        return People(self)

    def get_group(self, group_key: str, group_id: Id) -> Group:
        """Return the operations on the profile of a group: ``get_group("company",
        "acme")``.

        :param group_key: which kind of group, as the project names it.
        :param group_id: which one.
        """
        return Group(self, group_key, group_id)

    # -- events

    @recorded
    def track(
        self, event_name: str | Event, properties: Properties | None = None
    ) -> list[t.Any]:
        """Track an event.

        :param event_name: what happened: ``"Place Order"``, or a declared event:
            ``PlaceOrder(items=3)``.
        :param properties: under what circumstances.
        """
        if type(event_name) is not str and isinstance(event_name, Event):
            event_name, properties = name_and_properties(event_name, properties)

        return [
            ["track"],
            [checked.event_name(event_name), checked.event_properties(properties)],
        ]

    @recorded
    def track_pageview(
        self,
        properties: Properties | None = None,
        options: Properties | None = None,
    ) -> list[t.Any]:
        """Track that a page is viewed.

        :param properties: under what circumstances.
        :param options: ``{"event_name": ...}`` to name the event otherwise than
            ``$mp_web_page_view``.
        """
        arguments = [checked.event_properties(properties)]

        if options is not None:
            given = checked.mapping(options, "options")

            if "event_name" in given:
                checked.event_name(given["event_name"])

            arguments.append(given)

        return [["track_pageview"], arguments]

    @recorded
    def track_with_groups(
        self,
        event_name: str | Event,
        properties: Properties | None,
        groups: Properties,
    ) -> list[t.Any]:
        """Track an event of one or more groups: ``{"company": "acme"}``.

        :param event_name: what happened, as for :meth:`track`.
        :param properties: under what circumstances.
        :param groups: the ids of the groups, one or a list, by their keys.
        """
        if isinstance(event_name, Event):
            event_name, properties = name_and_properties(event_name, properties)

        return [
            ["track_with_groups"],
            [
                checked.event_name(event_name),
                checked.event_properties(properties),
                {
                    checked.text(key, "a group key"): checked.group_ids(ids)
                    for key, ids in checked.mapping(groups, "groups").items()
                },
            ],
        ]

    @recorded
    def time_event(self, event_name: str) -> list[t.Any]:
        """Start the clock for an event: its next ``track`` gets ``$duration``, in
        seconds.

        :param event_name: what is going to happen.
        """
        return [["time_event"], [checked.event_name(event_name)]]

    # -- who it is

    @recorded
    def identify(self, unique_id: Id) -> list[t.Any]:
        """Say who the visitor is.

        :param unique_id: the id of the user in your database; numbers and UUIDs
            become texts.
        """
        return [["identify"], [checked.person_id(unique_id)]]

    @recorded
    def alias(self, alias: Id, original: Id | None = None) -> list[t.Any]:
        """Give the visitor a second id: the id of the user who has just signed up.

        Under the simplified ID merge Mixpanel does nothing with it.

        :param alias: the id that is new.
        :param original: the id that the visitor has; by default the one they have now.
        """
        arguments = [checked.person_id(alias)]

        if original is not None:
            arguments.append(identifier(original, "the original id"))

        return [["alias"], arguments]

    @recorded
    def reset(self) -> list[t.Any]:
        """Start a new, anonymous visitor: someone has signed out."""
        return [["reset"], []]

    # -- properties of every event

    @recorded
    def register(
        self, properties: Properties, options: Properties | int | None = None
    ) -> list[t.Any]:
        """Add properties to every event of this visitor from now on.

        :param properties: with their values.
        :param options: days after which they are forgotten, or
            ``{"persistent": False}``, which forgets them with the page.
        """
        return [["register"], [checked.mapping(properties), *checked.options(options)]]

    @recorded
    def register_once(
        self,
        properties: Properties,
        default_value: Value = None,
        options: Properties | int | None = None,
    ) -> list[t.Any]:
        """Add properties to every event unless they are there already.

        :param properties: with their values.
        :param default_value: a value that counts as not being there.
        :param options: as for :meth:`register`.
        """
        arguments: list[t.Any] = [checked.mapping(properties)]

        if default_value is not None or options is not None:
            arguments += [plain(default_value), *checked.options(options)]

        return [["register_once"], arguments]

    @recorded
    def unregister(
        self, property_name: str, options: Properties | None = None
    ) -> list[t.Any]:
        """Stop adding a property to every event.

        :param property_name: the property.
        :param options: ``{"persistent": False}`` if it was registered so.
        """
        return [
            ["unregister"],
            [checked.text(property_name, "a property name"), *checked.options(options)],
        ]

    # -- groups

    @recorded
    def set_group(
        self, group_key: str, group_ids: Id | c.Sequence[Id] | c.Set[Id]
    ) -> list[t.Any]:
        """Say which groups the visitor belongs to: ``set_group("company", "acme")``.

        :param group_key: which kind of group, as the project names it.
        :param group_ids: the id of the group, or several.
        """
        return [
            ["set_group"],
            [checked.text(group_key, "a group key"), checked.group_ids(group_ids)],
        ]

    @recorded
    def add_group(self, group_key: str, group_id: Id) -> list[t.Any]:
        """Add the visitor to a group.

        :param group_key: which kind of group, as the project names it.
        :param group_id: which one.
        """
        return [
            ["add_group"],
            [checked.text(group_key, "a group key"), checked.group_id(group_id)],
        ]

    @recorded
    def remove_group(self, group_key: str, group_id: Id) -> list[t.Any]:
        """Remove the visitor from a group.

        :param group_key: which kind of group, as the project names it.
        :param group_id: which one.
        """
        return [
            ["remove_group"],
            [checked.text(group_key, "a group key"), checked.group_id(group_id)],
        ]

    # -- what is tracked at all

    @recorded
    def disable(self, events: c.Sequence[str] | None = None) -> list[t.Any]:
        """Stop tracking the named events, or all, for the rest of the request.

        :param events: their names; ``None``: all events.
        """
        return [["disable"], [] if events is None else [checked.names(events)]]

    @recorded
    def enable(self, events: c.Sequence[str] | None = None) -> list[t.Any]:
        """Track the named events, or all, again.

        :param events: their names; ``None``: all events.
        """
        return [["enable"], [] if events is None else [checked.names(events)]]

    @recorded
    def set_config(self, config: Properties) -> list[t.Any]:
        """Change settings of the browser library on this page.

        :param config: options of its ``init``, with their values.
        """
        return [["set_config"], [checked.mapping(config, "the configuration")]]

    @recorded
    def opt_in_tracking(self, options: Properties | None = None) -> list[t.Any]:
        """Track this visitor, who has agreed to it.

        :param options: those of the browser library's method.
        """
        return [["opt_in_tracking"], checked.options(options)]

    @recorded
    def opt_out_tracking(self, options: Properties | None = None) -> list[t.Any]:
        """Stop tracking this visitor, who has refused it.

        :param options: those of the browser library's method.
        """
        return [["opt_out_tracking"], checked.options(options)]

    def call(self, name: str, /, *arguments: Value) -> None:
        """Call a method of the browser library that this class doesn't know.

        :param name: with dots where JavaScript has them: ``"people.brand_new"``.
        :param arguments: what it is called with: anything that JSON can have in it.
        """
        known = self._known(name)

        # What has rules of its own (event names, ids, time) keeps them.
        if known is not None:
            known(*arguments)
        else:
            self._call(name, *arguments)

    def _known(self, name: t.Any) -> c.Callable[..., None] | None:
        """Return the method of this name, where this class has it."""
        owner: HasManager = self

        if isinstance(name, str) and name.startswith("people."):
            owner, name = self.people, name.removeprefix("people.")

        if not isinstance(name, str) or not name.isidentifier() or name[0] == "_":
            return None

        method = getattr(owner, name, None)
        return method if getattr(method, "__func__", None) in _RECORDED else None

    @recorded
    def _call(self, name: str, /, *arguments: Value) -> list[t.Any]:
        names = checked.text(name, "a method").split(".")

        if not all(map(_NAME.fullmatch, names)):
            raise ValueError(f"{name!r} is not the name of a method")

        return [names, [plain(argument) for argument in arguments]]

    # -- stages

    @contextlib.contextmanager
    def before_setup(self) -> c.Iterator[Recorder]:
        """Record calls that reach Mixpanel before those that set up.

        For ``alias`` on sign-up, which has to come before ``identify``.
        """
        with self._manager().stage(Stage.BEFORE_SETUP):
            yield self

    @contextlib.contextmanager
    def setup(self) -> c.Iterator[Recorder]:
        """Say who this is and what goes with every event.

        What is called inside replaces what was set up before, in this request or in
        the one that redirected to it.
        """
        with self._manager().stage(Stage.SETUP):
            yield self

    @contextlib.contextmanager
    def tracking(self) -> c.Iterator[Recorder]:
        """Track from within :meth:`setup` or :meth:`before_setup`."""
        with self._manager().stage(Stage.TRACKING):
            yield self

    # -- with a database

    def on_commit(self, session: DatabaseSession) -> OnCommit:
        """Record calls that leave when a session of SQLAlchemy commits, and are dropped
        when it rolls back::

            with mengpaneel.on_commit(db.session):
                mengpaneel.track("Place Order", {"Items": 3})

            mengpaneel.on_commit(db.session).track("Place Order", {"Items": 3})

        Their time, their place among the others and whom they are about are those of
        when they were recorded.

        :param session: ``db.session`` of Flask-SQLAlchemy, a session of one's own, a
            ``scoped_session`` or an ``AsyncSession``.
        :raises TypeError: it is no session.
        """
        check_session(session)
        return OnCommit(self, session)


class OnCommit(Recorder):
    """Records calls that wait for a database session: its own, and in a ``with`` block
    all that are recorded there."""

    __slots__ = ("_entered", "_parent", "_session")

    def __init__(self, parent: HasManager, session: DatabaseSession) -> None:
        self._parent = parent
        self._session = session
        self._entered: list[OnCommitBlock] = []

    def _manager(self) -> RecordsCalls:
        return _Waiting(self._parent._manager(), self._session)

    def __enter__(self) -> Recorder:
        self._entered.append(begin_waiting(self._session))
        return self

    def __exit__(self, *exc_info: object) -> None:
        end_waiting(last_block(self._entered))


class _Waiting:
    """Gives calls to a manager that wait for a session."""

    def __init__(self, manager: RecordsCalls, session: DatabaseSession) -> None:
        self._manager = manager
        self._session = session

    def record(self, wire: list[t.Any]) -> None:
        with self._waiting():
            self._manager.record(wire)

    def refuse(self, refusal: Refusal) -> None:
        with self._waiting():
            self._manager.refuse(refusal)

    @contextlib.contextmanager
    def stage(self, stage: Stage) -> c.Iterator[None]:
        with self._waiting(), self._manager.stage(stage):
            yield

    @contextlib.contextmanager
    def _waiting(self) -> c.Iterator[None]:
        block = begin_waiting(self._session)

        try:
            yield
        finally:
            end_waiting(block)
