"""Which of the calls ride with the visitor, and which the server makes: operations on
profiles and groups.

Only the server knows whether an operation has arrived, and most of them must not be
made twice. So a page, a header and the session get what is tracked, and what says who
it is.
"""

from __future__ import annotations

import collections.abc as c
import dataclasses
import typing as t

from ..calls import GROUP_CALLS, TRACKING, Call, CallLog, Stage, profile_change
from ..visitor.persistence import Persistence

if t.TYPE_CHECKING:
    from ..visitor.visitor import Visitor


def operation_of(call: Call) -> Call | None:
    """Return the operation that a call makes on a profile or group, if it makes one."""
    wire = call.wire
    name = wire[0][0]

    if name in ("people", "get_group"):
        return call

    if name not in GROUP_CALLS:
        return None

    method, properties = profile_change(name, *wire[1])
    return call.instead([["people", method], [properties]])


def operations_of(calls: c.Iterable[Call]) -> list[Call]:
    """Return the operations that these calls make."""
    return [one for call in calls if (one := operation_of(call)) is not None]


def riding_records(calls: c.Iterable[Call]) -> int:
    """Return how many records calls make where a client makes them."""
    # Of those that ride only events are, and what names somebody: 1 us less, of
    # 106, a page with a call.
    records = 0

    for call in calls:
        if call.tracks or (call.is_record and operation_of(call) is None):
            records += 1

    return records


def belongs_to_operations(call: Call) -> bool:
    """Whether a call is an operation, or says whose profile those after it are for."""
    return call.says_who or operation_of(call) is call


def apart(calls: CallLog) -> CallLog:
    """Return the operations that calls make, and what says whose profiles they are
    for."""
    operations = CallLog()

    for stage in Stage:
        # Those of a set-up are made; it alone would be no reason to send anything.
        after = Stage.TRACKING if stage is Stage.SETUP else stage

        for call in calls.of(stage):
            if call.says_who:
                operations.of(stage).append(call)
            elif (operation := operation_of(call)) is not None:
                operations.of(after).append(operation)

    return operations


def is_of_group(call: Call) -> bool:
    """Whether a call is an operation on a group, which is the same whoever it is."""
    return bool(call.wire[0][0] == "get_group")


def riding(calls: CallLog) -> CallLog:
    """Return the calls without those that are operations and nothing else."""
    return calls.filtered(lambda call: operation_of(call) is not call)


@dataclasses.dataclass(slots=True)
class Shares:
    """The calls of a flush, by who makes them."""

    #: What a client makes.
    riding: CallLog
    #: What the server makes if a client makes the others: operations, and what says
    #: whose profiles they are for.
    operations: CallLog
    #: What the server makes if no client makes anything.
    whole: CallLog
    #: Operations on the profile of somebody whom nobody has identified yet.
    waiting_operations: list[Call] = dataclasses.field(default_factory=list)

    def stop_waiting(self) -> None:
        """Let the operations that can't wait go to the profile of the device."""
        self.operations.tracking += self.waiting_operations
        self.whole.tracking += self.waiting_operations
        self.waiting_operations = []


def all_of(calls: CallLog) -> Shares:
    """Return calls that are made all by the same one."""
    return Shares(calls, CallLog(), calls)


def share(calls: CallLog, visitor: Visitor, earlier: c.Sequence[Call] = ()) -> Shares:
    """Divide the calls of a flush among those who make them.

    An operation on the profile of a visitor who isn't identified yet is made when
    somebody is, for that person, as the browser library makes it; when the visitor is
    reset, for the device.

    :param earlier: operations that have waited until now.
    """
    if not earlier and not _has_operations(calls):
        return all_of(calls)

    return _Division(visitor).divide(calls, earlier)


def _has_operations(calls: CallLog) -> bool:
    for call in calls.in_order:
        # Of an event it is known without asking: 1 of 84 function calls at the end of a
        # job with one, and 5 of 628 in a request with ten.
        if call.wire[0][0] not in TRACKING and operation_of(call) is not None:
            return True

    return False


class _Division:
    def __init__(self, visitor: Visitor) -> None:
        identity = visitor.known_identity
        self._is_known = identity.is_identified
        self._persistence = Persistence(visitor.cookie, identity)
        self._shares = Shares(CallLog(), CallLog(), CallLog())
        #: What a part of who it is does to the profile of nobody yet.
        self._set_up: list[Call] = []

    def divide(self, calls: CallLog, earlier: c.Sequence[Call]) -> Shares:
        shares = self._shares
        shares.waiting_operations = list(earlier)
        shares.riding.was_set_up = shares.whole.was_set_up = calls.was_set_up
        shares.riding.size = shares.whole.size = calls.size

        for call in calls.before_setup:
            self._add(call, Stage.BEFORE_SETUP)

        for call in calls.setup:
            self._add(call, Stage.SETUP)

        # Else it is said again when there is something that it goes with.
        if calls.before_setup or calls.tracking:
            shares.waiting_operations += self._set_up

        if self._is_known:
            self._make_waiting(Stage.TRACKING)

        for call in calls.tracking:
            self._add(call, Stage.TRACKING)

        return shares

    def _add(self, call: Call, stage: Stage) -> None:
        shares, operation, name = self._shares, operation_of(call), call.name
        self._persistence.apply(call, 0.0)

        if name == "reset":
            self._make_waiting(stage)
            self._is_known = False

        if operation is not call:
            shares.riding.of(stage).append(call)

        if operation is None:
            shares.whole.of(stage).append(call)

            if call.says_who:
                shares.operations.of(stage).append(call)
        elif self._is_known or operation.wire[0][0] != "people":
            shares.whole.of(stage).append(call)
            self._operations(stage).append(operation)
        else:
            waiting = (
                self._set_up if stage is Stage.SETUP else shares.waiting_operations
            )
            waiting.append(operation)

            if operation is not call:
                call = registered(call, self._persistence)
                shares.whole.of(stage).append(call)

        if name == "identify":
            self._is_known = True
            self._make_waiting(stage)

    def _make_waiting(self, stage: Stage) -> None:
        """Make what has waited for somebody to be identified."""
        shares = self._shares

        if stage is Stage.SETUP:
            # The rest goes with what is tracked.
            waiting, self._set_up = self._set_up, []
        else:
            waiting, shares.waiting_operations = shares.waiting_operations, []

        shares.whole.of(stage).extend(waiting)
        self._operations(stage).extend(waiting)

    def _operations(self, stage: Stage) -> list[Call]:
        # Those of the set-up are made, if anything is: they are here only then.
        after = Stage.TRACKING if stage is Stage.SETUP else stage
        return self._shares.operations.of(after)


def registered(call: Call, persistence: Persistence) -> Call:
    """Return what a call that adds a group to every event leaves of it there, and no
    operation.

    :param persistence: the library's memory after the call.
    """
    key = call.arguments[0]
    value = persistence.super_properties.get(key)

    if value is None:
        return Call([["unregister"], [key]])

    return Call([["register"], [{key: value}]])


def without_group_operations(calls: CallLog, visitor: Visitor) -> CallLog:
    """Return calls that ride as the server makes them itself, should it have to: it has
    made the operations already."""
    for call in calls.in_order:
        if call.wire[0][0] in GROUP_CALLS:
            break
    else:
        return calls

    persistence = Persistence(visitor.cookie, visitor.browser_identity)
    copies = CallLog(was_set_up=calls.was_set_up, size=calls.size)

    for stage in Stage:
        for call in calls.of(stage):
            persistence.apply(call, 0.0)
            is_group = call.name in GROUP_CALLS
            copy = registered(call, persistence) if is_group else call
            copies.of(stage).append(copy)

    return copies
