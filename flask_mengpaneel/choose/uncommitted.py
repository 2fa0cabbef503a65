"""The calls that wait for a database longer than their unit of work for its flush: the
server sends them when it has committed, and drops them when it hasn't."""

from __future__ import annotations

import collections.abc as c
import contextlib
import copy
import itertools
import logging
import typing as t
import weakref

from flask import current_app

from .. import process, signals
from ..calls import CallLog, count
from ..proxies import current_flask
from ..record.errors import handle_error
from ..record.staged_calls import set_up_again
from ..visitor.persistence import CHANGING_CALLS
from .person import person_of

if t.TYPE_CHECKING:
    from flask import Flask

    from ..calls import Call
    from ..config import Config
    from ..deliver.ledger import Balance, Ledger
    from ..record.manager import Manager
    from ..record.on_commit import Pending
    from ..record.running_views import RunningViews
    from ..visitor.visitor import Visitor
    from .flusher import Flusher

logger = logging.getLogger("flask_mengpaneel")

ROLLED_BACK = "rolled back"


class Uncommitted:
    """Keeps the pending calls of an app: those that have stayed behind when their unit
    was flushed, and a note of the others.

    The ledger has them from the flush on: recorded, and waiting here.
    """

    def __init__(
        self,
        app: Flask,
        config: Config,
        ledger: Ledger,
        flusher: Flusher,
        running_views: RunningViews,
    ) -> None:
        self._app = weakref.ref(app)
        self._config = config
        self._ledger = ledger
        self._flusher = flusher
        # There is one lock for where a call is: a session may be freed at any moment,
        # by a thread that has it already.
        self._running_views = running_views
        #: Those in their units of work, by the `id` of the call.
        self.pending: dict[int, Pending] = {}
        self._reset()
        ledger.add_source(self._count)
        process.on_fork(self)

    def _reset(self) -> None:
        #: Those that have stayed behind.
        self._kept: set[Pending] = set()
        self._records = 0

    def after_fork(self) -> None:
        """Leave what waits to the parent."""
        for one in self._kept:
            one.leave_to_parent()

        self._reset()

    def _count(self, balance: Balance) -> None:
        records = self._records
        balance.recorded += records
        balance.waiting += records

    def keep(self, calls: CallLog, pending: dict[int, Pending]) -> list[Pending]:
        """Take over those of drained calls that are pending.

        :param pending: what was pending when the calls were drained.
        """
        staying = [pending[id(call)] for call in calls if id(call) in pending]
        records = _records_of(staying)

        with self._running_views.lock:
            self._kept.update(staying)
            self._records += records

        for one in staying:
            self.pending.pop(id(one.call), None)

        # Drop those whose session was freed meanwhile.
        self._take([one for one in staying if one.is_dropped])
        return staying

    def leave(
        self, manager: Manager, calls: CallLog, staying: list[Pending]
    ) -> CallLog:
        """Return drained calls without those that stay here.

        Each of these keeps the person it is about: the visitor after the calls before
        it. Asking the app who that is may take long, record calls, and commit, so it
        isn't done with the lock.
        """
        rest = _without(calls, staying)
        person = person_of(manager, rest, current_flask(), self._config.session_key)
        # A new visitor's browser has to hear of the ids that they are sent with.
        manager.visitor.take_elsewhere()
        _ = person.identity

        with self._running_views.lock:
            committed = self._take([one for one in staying if one.has_committed])

            for one in committed:
                set_up_again(one, calls)

            gone = set(committed)
            staying = [one for one in staying if one not in gone]
            _name_persons(calls, staying, person, manager.strategy)
            return _without(calls, staying)

    def _take(self, pending: c.Iterable[Pending]) -> list[Pending]:
        """Take those out that are here."""
        with self._running_views.lock:
            taken = [one for one in pending if one in self._kept]
            self._kept.difference_update(taken)
            records = _records_of(taken)
            self._records -= records

        return taken

    def send(self, pending: c.Iterable[Pending]) -> None:
        """Send calls whose database has committed."""
        if (app := self._app()) is None:
            return

        is_current = current_app and current_flask() is app

        try:
            with contextlib.nullcontext() if is_current else app.app_context():
                for person, group in itertools.groupby(pending, lambda one: one.person):
                    taken = self._take(group)

                    if taken and person is not None:
                        self._send(taken, person)
        except Exception as error:
            handle_error(app, "what was committed could not be sent", error)

    def _send(self, pending: list[Pending], person: Visitor) -> None:
        calls = CallLog(size=sum(one.size for one in pending))

        for one in pending:
            calls.of(one.stage).append(one.call)

        calls.was_set_up = bool(calls.setup)
        self._flusher.send_late(calls, person, pending[0].strategy)

    def drop(self, pending: list[Pending]) -> None:
        """Drop calls whose database was rolled back, wherever they are."""
        calls = [one.call for one in pending]
        records = count(calls)

        with self._ledger.transfer():
            for one in pending:
                one.is_dropped = True

            self._take(pending)
            self._ledger.record(records)
            self._ledger.drop(ROLLED_BACK, records)

        logger.debug("%d calls were dropped: %s", len(calls), ROLLED_BACK)

        if signals.dropped.receivers and (app := self._app()) is not None:
            try:
                signals.dropped.send(app, calls=calls, reason=ROLLED_BACK)
            except Exception as error:
                handle_error(app, "a receiver of the signal 'dropped' failed", error)


def _without(calls: CallLog, staying: list[Pending]) -> CallLog:
    ids = {id(one.call) for one in staying}
    return calls.filtered(lambda call: id(call) not in ids)


def _name_persons(
    calls: CallLog, staying: list[Pending], person: Visitor, strategy: str | None
) -> None:
    """Note for each call that stays behind the person it is about.

    :param person: the visitor before all of the calls.
    """
    pending = {id(one.call): one for one in staying}
    before: list[Call] = []
    latest: Visitor | None = None

    for call in calls:
        one = pending.get(id(call))

        if one is None:
            before.append(call)
            changes = call.wire[0][0] in CHANGING_CALLS
            latest = None if changes else latest
            continue

        latest = latest or _person_after(before, person)
        one.person, one.strategy = latest, strategy


def _person_after(calls: list[Call], person: Visitor) -> Visitor:
    # The ids of a new visitor are made when they are first needed, which is now; and
    # the visitor of a unit of work changes with what it goes on to do.
    _ = person.identity
    return copy.copy(person.to_take_elsewhere(calls))


def _records_of(pending: c.Iterable[Pending]) -> int:
    return count(one.call for one in pending)
