"""A job, which is about one person after the other."""

from __future__ import annotations

import collections.abc as c
import copy
import typing as t

from ..calls import GROUP_CALLS, Call
from ..identity import Identity
from ..visitor.persistence import RESERVED
from ..visitor.visitor import Visitor

if t.TYPE_CHECKING:
    from ..config import Config
    from ..values import Id


class Job:
    """Whom the calls of a ``with Manager():`` block are about.

    :param given: the visitor that it goes on with; ``None``: nobody.
    :param identify: the person whom it is about from the beginning.
    """

    __slots__ = ("_config", "_given", "identify")

    def __init__(
        self, config: Config, given: Visitor | None, identify: Id | None
    ) -> None:
        self._config = config
        # As it was given: what the job does changes the one that it works with.
        self._given = None if given is None else copy.copy(given)
        self.identify = identify

    @property
    def given(self) -> Visitor:
        """The visitor that it goes on with, as that one was at the beginning."""
        # Nobody is made only here: most jobs have no other visitor, and are about one
        # person. A copy took each of them 1.6 us, as much as all else that begins one.
        if self._given is None:
            self._given = Visitor(self._config, None)

        return self._given

    def next_visitor(
        self, person: Identity, last: Visitor, set_up: c.Iterable[Call]
    ) -> Visitor:
        """Return the visitor to go on with: somebody else has neither the device nor
        the page of the one before, nor what was set up for them.

        :param person: who comes next.
        :param last: the one before.
        :param set_up: the set-up of that one.
        """
        is_given = person.user_id == self.given.identity.user_id
        visitor = Visitor(self._config, None)

        if is_given:
            visitor = self.given.as_person(self.given.identity)

        # What was registered outside of a set-up is the job's.
        own = {name for call in set_up for name in _registered(call)}
        visitor.cookie = {
            name: value
            for name, value in last.cookie.items()
            if name not in RESERVED and name not in own
        }
        return visitor


def is_same(calls: c.Iterable[Call], person: object, first: object) -> bool:
    """Return whether calls are of one person all the time.

    :param first: whose they are before one of them says so.
    """
    for call in calls:
        if call.says_who:
            first = person_after(call)
        elif call.tracks and first != person:
            return False

    return first == person


def person_after(call: Call) -> object:
    """Return who it is after a call that says so: an id, or somebody new."""
    return call.arguments[0] if call.name == "identify" else object()


def last_word(*parts: c.Sequence[Call]) -> Call | None:
    """Return the last of the calls that say who it is, if there is one."""
    for calls in reversed(parts):
        for call in reversed(calls):
            if call.says_who:
                return call

    return None


def _registered(call: Call) -> c.Iterable[str]:
    if call.name in GROUP_CALLS:
        return call.arguments[:1]

    is_register = call.name in ("register", "register_once")
    return call.arguments[0] if is_register else ()
