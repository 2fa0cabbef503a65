"""The calls of one unit of work, by stage, each with the person whom it is about."""

from __future__ import annotations

import collections.abc as c
import contextlib
import sys
import typing as t

from ..calls import Call, CallLog, Stage
from ..visitor.visitor import Visitor
from .job import is_same, last_word, person_after
from .on_commit import Pending, awaited_blocks
from .recorder import Recorder

if t.TYPE_CHECKING:
    from flask import Request

    from .current_app import AppState
    from .job import Job
    from .recorder import RecordsCalls


class StagedCalls(Recorder):
    """Keeps the calls of one unit of work until they are flushed.

    What was recorded for one person stays theirs when another is set up.
    """

    __slots__ = (
        "_app_state",
        "_drained",
        "_is_named",
        "_job",
        "_open_stages",
        "_stage",
        "calls",
        "flush_threshold",
        "visitor",
    )

    #: Whom it is about, if it isn't a request's.
    _job: Job | None

    def _begin_stages(self, app_state: AppState, request: Request | None) -> None:
        self._app_state = app_state
        self._job = None
        #: Whether it was said whom it is about.
        self._is_named = False
        #: The visitor whom the calls are from.
        self.visitor = Visitor(app_state.config, request)
        self.calls = CallLog()
        #: How many tracking calls are kept before they are flushed on the way: all
        #: while there is a response to come, none when there was one.
        self.flush_threshold = sys.maxsize
        #: The stage that calls are recorded in now.
        self._stage = Stage.TRACKING
        self._open_stages = 0
        #: The calls that were drained last: the visitor doesn't know of them yet.
        self._drained: CallLog | None = None

    @property
    def recorded(self) -> list[Call]:
        """The calls since the visitor was as ``visitor`` says."""
        with self._app_state.running_views.lock:
            return [*(self._drained or ()), *self.calls]

    @contextlib.contextmanager
    def stage(self, stage: Stage) -> c.Iterator[None]:
        """Record calls in another stage for a while."""
        outer, calls = self._stage, self.calls
        replaces = stage is Stage.SETUP and outer is not Stage.SETUP
        is_pending = replaces and bool(awaited_blocks())
        was_set_up = calls.was_set_up
        former, earlier = calls.setup, list(calls.tracking) if replaces else []

        if replaces:
            calls.setup = []
            calls.was_set_up = True

        self._stage = stage
        self._open_stages += 1

        try:
            yield
        finally:
            if replaces and self.calls is calls:
                self._separate(former, earlier)

            if is_pending and self.calls is calls:
                calls.was_set_up = was_set_up
                self._restore_set_up(former)
            elif replaces and former and self.calls is calls:
                calls.setup[:0] = self._signed_in(former)

            self._stage = outer
            # In a child that was forked within it, it isn't open any more.
            self._open_stages = max(self._open_stages - 1, 0)

            if (
                self.flush_threshold == 1
                and not self._open_stages
                and (self.calls.before_setup or self.calls.tracking)
            ):
                # No response is to come, nor perhaps another call.
                self._app_state.flush_late(t.cast("RecordsCalls", self))

    def _signed_in(self, former: list[Call]) -> list[Call]:
        """Return what goes on being set up: who has signed in, if the set-up in the
        place of the former one doesn't say who it is."""
        if self._job is not None or last_word(self.calls.setup) is not None:
            return []

        return self._app_state.signed_in(t.cast("RecordsCalls", self), former)

    def _restore_set_up(self, former: list[Call]) -> None:
        """Keep a set-up until the one in its place is committed, if it is."""
        set_up, before = self.calls.setup, self.calls.before_setup
        pending = self._app_state.pending
        first = pending.get(id(set_up[0])) if set_up else None

        # It may have been separated, as another person's.
        if former and any(one is former[0] for one in before):
            former = []

        if first is not None:
            kept = set(map(id, self._signed_in(former)))
            first.replaced = [call for call in former if id(call) not in kept]
            set_up[:0] = former

    # -- one person after the other

    def _separate(self, former: list[Call], earlier: list[Call]) -> None:
        """Let what was recorded for one person stay theirs when another is set up.

        :param former: the set-up before.
        :param earlier: what was tracked under it.
        """
        job = self._job

        if job is None and not earlier:
            return

        calls, known = self.calls, set(map(id, earlier))
        # An event whose clock ran has taken the call away that started it.
        count = sum(id(call) in known for call in calls.tracking)
        before = [*former, *calls.tracking[:count]]
        last = last_word(*(self._drained or CallLog()).stages, calls.before_setup)
        self._is_named = self._is_named or last is not None

        if job is not None:
            return self._go_on(job, former, before, last)

        now = last_word(calls.setup)
        is_named = self._is_named or last_word(before) is not None

        if (
            not count
            or now is None
            or not is_named
            or is_same(before, person_after(now), self._person_after(last))
        ):
            return

        # A response may carry all of it: one after the other.
        with self._app_state.running_views.lock:
            calls.before_setup += before
            calls.tracking = calls.tracking[count:]

    def _go_on(
        self, job: Job, former: list[Call], before: list[Call], last: Call | None
    ) -> None:
        """Flush what a job has recorded for one person, and go on with another.

        :param before: what it has recorded since the former set-up began.
        :param last: what has said before that whom it was about.
        """
        calls, count = self.calls, len(before) - len(former)
        given, word = job.given.identity, last_word(calls.setup)
        now = given.after(calls.setup)
        person = given.distinct_id if word is None else person_after(word)
        was_named = self._is_named or last_word(before) is not None
        self._is_named = was_named or now.is_identified

        if not was_named or is_same(before, person, self._person_after(last)):
            return

        set_up, later = calls.setup, calls.tracking[count:]
        calls.setup, calls.tracking = former, calls.tracking[:count]
        former = former or (self._drained.setup if self._drained else [])
        self._app_state.flush_late(self._manager())
        self._apply_drained()
        self.visitor = job.next_visitor(now, self.visitor, former)
        self.calls.setup, self.calls.tracking = set_up, later
        self.calls.was_set_up = True

    def _person_after(self, last: Call | None) -> object:
        """Return who it was after the last call that has said it."""
        return self.visitor.identity.distinct_id if last is None else person_after(last)

    # -- giving them away

    def drain(self) -> CallLog:
        """Give the calls away; what is recorded from now on is of the next flush."""
        if self._drained:
            # The app may be asked for it, which isn't done with the lock.
            _ = self.visitor.identity

        with self._app_state.running_views.lock:
            # As it is while the calls are here: Python's garbage collector may free a
            # session at any moment, in this thread too.
            pending = self._app_state.pending
            pending = pending.copy() if pending else {}
            calls, self.calls = self.calls, CallLog()
            staying = self._app_state.keep_pending(calls, pending) if pending else []
            # The calls before these have said who it is. At no moment are these neither
            # here nor there: a thread may just ask who it is, or drain as well.
            self._apply_drained()
            self._drained = calls

        if staying:
            manager = t.cast("RecordsCalls", self)
            left = self._app_state.leave_pending(manager, calls, staying)

            if self._drained is calls:
                self._drained = left

            return left

        return calls

    def _apply_drained(self) -> None:
        drained, self._drained = self._drained, None

        if drained is not None:
            self._is_named = self._is_named or last_word(*drained.stages) is not None
            self.visitor.apply_sent(drained.in_order)

    def leave_to_parent(self) -> None:
        """Leave the calls to the process that this one is a copy of, and let those that
        come be sent at once: a child may never get to where they are flushed."""
        calls, self.calls = self.calls, CallLog()
        self._apply_drained()
        self._drained = calls
        self.flush_threshold = 1
        self._open_stages = 0

        for call in calls:
            if (one := self._app_state.pending.pop(id(call), None)) is not None:
                one.leave_to_parent()

    def resolve(self, pending: list[Pending], *, commits: bool) -> None:
        """Let calls go, or drop them: what they waited for has ended."""
        all_pending = self._app_state.pending

        with self._app_state.running_views.lock:
            here = [one for one in pending if all_pending.pop(id(one.call), None)]

            if not commits:
                _remove([one.call for one in here], self.calls)
            else:
                for one in here:
                    set_up_again(one, self.calls)

                for one in pending:
                    # Who finds out whom it is about sends it.
                    one.has_committed = True

            left = [one for one in pending if one.person is not None]

        if not commits:
            self._app_state.drop_pending(pending)
        elif left:
            self._app_state.send_pending(left)
            self._apply_drained()
            last = left[-1].person

            # Unless somebody else has come since.
            if last is not None and last.identity == self.visitor.identity:
                self.visitor.apply_sent([one.call for one in left])

    def restore(self, calls: CallLog) -> None:
        """Take drained calls back, for the next flush: the response that had them isn't
        sent."""
        self.calls, self._drained = calls, None


def set_up_again(committed: Pending, calls: CallLog) -> None:
    """Let a set-up replace the one before it now, if it waited with that."""
    if committed.replaced is not None:
        calls.was_set_up = True
        _remove(committed.replaced, calls)


def _remove(gone: list[Call], calls: CallLog) -> None:
    """Take calls away, and none that are only equal to them."""
    ids = set(map(id, gone))

    for kept in calls.stages:
        kept[:] = [call for call in kept if id(call) not in ids]
