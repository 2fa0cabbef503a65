"""One unit of work, a request or a job, and the calls that were made in it."""

from __future__ import annotations

import collections.abc as c
import contextlib
import typing as t

from flask import current_app

from .. import signals
from ..calls import TRACKING, Call, SourcedCall, Stage
from ..config import StrategyName
from ..limits import MAX_RECORDS
from ..proxies import active_request, current_flask, current_g
from ..visitor.named_by_app import is_asked
from ..visitor.portable import PortableVisitor, recall
from .arguments import checked_size
from .before_send import ask
from .clock import Clock
from .current_app import NOT_IN_USE, AppState, current_app_state
from .errors import handle_error
from .job import Job, last_word
from .on_commit import awaited_blocks, until_commit
from .planned_events import compare
from .source import find_sources
from .staged_calls import StagedCalls
from .with_blocks import Block, enter_block

if t.TYPE_CHECKING:
    from flask import Request

    from ..outcome import Outcome
    from ..strategy import Strategy
    from ..values import Id
    from .refusals import Refusal


#: Where ``g`` has the manager that is current in its app context.
ON_G = "_mengpaneel"


class Manager(StagedCalls):
    """Calls outside of a request: in a script, a CLI command, a job.

    Use it inside an app context::

        with Manager() as manager:
            with manager.setup():
                manager.identify(subscription.user_id)
            manager.track("Renew Subscription")

    The calls are flushed when the block is left, also by an exception, and on the way
    whenever there are 2,000 of them, so that a job of any length needs little memory:
    set up first who it is about. The methods of the extension work in the block too.

    Whoever is set up next begins anew: what was recorded for somebody else is flushed.

    :param identify: the id of the person whom the calls are about, if there is no more
        to set up.
    :param visitor: a visitor of an earlier request: its ``mengpaneel.visitor``, or what
        ``to_json()`` of that returned. The calls have their ids, device and page.
    :param strategy: insist on one of the strategies: ``"ServerSide"`` delivers before
        the block is left.
    :raises RuntimeError: there is no app context, or its app has no Mengpaneel.
    :raises TypeError: that is no visitor.
    :raises ValueError: there is no such strategy.
    """

    __slots__ = (
        "_blocks",
        "_clock",
        "_is_recording",
        "_outer_managers",
        "_strategy",
        "request",
    )

    #: The strategy that is insisted on, by name.
    _strategy: str | None

    def __init__(
        self,
        *,
        identify: Id | None = None,
        visitor: PortableVisitor | c.Mapping[str, t.Any] | None = None,
        strategy: StrategyName | type[Strategy] | None = None,
    ) -> None:
        app_state = current_app_state()
        self._begin(app_state, None)
        self.flush_threshold = MAX_RECORDS

        if strategy is not None:
            self._strategy = app_state.config.named_strategy(strategy)

        given = None

        if visitor is not None:
            given = self.visitor = recall(visitor, app_state.config)
            self._is_named = given.identity.is_identified

        self._job = Job(app_state.config, given, identify)

    @classmethod
    def of_request(cls, app_state: AppState, request: Request) -> Manager:
        """Return a manager for the calls of a request."""
        manager = cls.__new__(cls)
        manager._begin(app_state, request)
        return manager

    def _begin(self, app_state: AppState, request: Request | None) -> None:
        if not app_state.is_in_use:
            app_state.begin_use()

        self._begin_stages(app_state, request)
        #: The request that it works in, if any.
        self.request = request
        self._strategy = None
        #: The blocks that it is in use in.
        self._blocks: list[Block] = []
        #: What was on `g` before, for each time that it became current there.
        self._outer_managers: list[Manager | None] = []
        self._clock = Clock()
        #: Whether calls are kept at all; ``None`` before the first.
        self._is_recording: bool | None = None

    def _manager(self) -> Manager:
        if not (self._blocks or self._outer_managers):
            raise RuntimeError(NOT_IN_USE)

        return self

    @property
    def strategy(self) -> str | None:
        """The strategy that is insisted on, by name, for this unit of work only."""
        return self._strategy

    @strategy.setter
    def strategy(self, strategy: StrategyName | type[Strategy] | None) -> None:
        config = self._app_state.config
        self._strategy = None if strategy is None else config.named_strategy(strategy)

    @property
    def is_recording(self) -> bool:
        """Whether calls are kept at all."""
        if self._is_recording is None:
            self._is_recording = self.visitor.may_be_tracked

        return self._is_recording

    # -- recording

    def record(self, wire: list[t.Any]) -> None:
        """Add a call to the current stage."""
        name = wire[0][0]
        shows_source = self._app_state.config.inspector
        call = SourcedCall(wire, find_sources()) if shows_source else Call(wire)

        if name == "opt_in_tracking" and self._app_state.config.active:
            self._is_recording = self.visitor.consent.opt_in()

        if not self.is_recording:
            return self._app_state.skip(self, call)

        # Hardly any app has one: 2 of the 48 function calls that a further event takes.
        if (
            self._app_state.config.visitor is not None
            and self._job is None
            and is_asked(self.request)
        ):
            raise RuntimeError("MENGPANEEL_VISITOR can't make a call itself")

        if name in TRACKING:
            if not self._app_state.config.examines_events:
                self._stamp(call, call.properties)
            elif not self._examine(call):
                return
        elif name == "time_event":
            call.arguments.append(self._clock.start(call.event))
        elif name == "reset":
            self.visitor.start_new_visitor()
        elif name == "identify":
            self.visitor.client.name_visitor()
        elif name == "alias":
            self.visitor.client.name_visitor()
            self._app_state.note_alias(self)

        size = checked_size(call)
        stage = self._stage

        if stage is Stage.SETUP and name in TRACKING:
            # That something happened is never a part of who it is.
            stage = Stage.TRACKING

        blocks = awaited_blocks()
        pending = until_commit(self, call, stage, size, blocks) if blocks else None

        with self._app_state.running_views.lock:
            self.calls.size += size
            self.calls.of(stage).append(call)

            if pending is not None:
                self._app_state.pending[id(call)] = pending

        if signals.recorded.receivers:
            self._report_recorded(call)

        if name == "opt_out_tracking":
            self.visitor.consent.opt_out()
            self._is_recording = False

        if len(self.calls.tracking) >= self.flush_threshold and not self._open_stages:
            self._app_state.flush_late(self)

    def _report_recorded(self, call: Call) -> None:
        """Tell the app's receivers of a call, which is recorded whatever they do."""
        try:
            signals.recorded.send(current_flask(), call=call, unit=self)
        except Exception as error:
            what = "a receiver of the signal 'recorded' failed"
            handle_error(current_flask(), what, error)

    def _examine(self, call: Call) -> bool:
        """Stamp an event, and see whether the app wants it as it is.

        :return: whether it is kept.
        :raises ValueError: it isn't as the tracking plan has it.
        """
        config, own = self._app_state.config, list(call.properties)
        self._stamp(call, call.properties)

        if config.events != "off":
            compare(call, own, is_strict=config.events == "raise")

        if config.before_send is None or ask(config.before_send, call):
            return True

        self._app_state.drop("dropped by MENGPANEEL_BEFORE_SEND")
        return False

    def _stamp(self, call: Call, properties: dict[str, t.Any]) -> None:
        if self._app_state.config.default_properties is not None:
            for name, value in self._app_state.default_properties().items():
                properties.setdefault(name, value)

        self._clock.stamp(properties)

        if self._clock.started and call.event in self._clock.started:
            # It is measured here, where it happens.
            duration = round(self._clock.stop(call.event), 3)
            properties.setdefault("$duration", duration)
            self.calls.forget_timer(call.event)

    def refuse(self, refusal: Refusal) -> None:
        """Raise what is wrong with a call while debugging and testing; else drop that,
        and record the rest."""
        if current_app.debug or current_app.testing:
            refusal.raise_(self.during)

        if refusal.wire is not None:
            try:
                self.record(refusal.wire)
            except Exception as error:
                refusal.wire, refusal.error = None, error

        self._app_state.refuse(refusal, self.during)

    @property
    def during(self) -> str:
        """The request that it works in, for people; empty for a job."""
        request = self.request

        if request is None:
            return ""

        # Whatever the visitor has put into the path.
        return f"endpoint {request.endpoint!r}, {request.method} {request.path!r}"

    def fork_for_thread(self) -> Manager:
        """Return a manager of the same visitor for a thread that copied the context."""
        fork = Manager.__new__(Manager)
        fork._begin(self._app_state, self.request)
        fork.visitor = self.visitor.to_take_elsewhere(self.recorded)
        fork.calls.was_set_up = self.calls.was_set_up

        # Else it isn't about who was set up any more. The visitor knows who it is.
        if last_word(self.calls.tracking) is None:
            fork.calls.setup = [
                call
                for call in self.calls.setup
                if not call.says_who and id(call) not in self._app_state.pending
            ]

        return fork

    # -- being current

    def __enter__(self) -> Manager:
        if not self._blocks:
            self.request = active_request()

        self._blocks.append(enter_block(self))
        self._app_state.running_views.begin_job(self)

        if self._job is not None and self._job.identify is not None:
            try:
                with self.setup():
                    self.identify(self._job.identify)
            except BaseException:
                self._blocks.pop().leave()
                self._app_state.end_job(self)
                raise

        return self

    def __exit__(self, *exc_info: object) -> None:
        self._blocks.pop().leave()

        try:
            self.flush()
        finally:
            self._app_state.end_job(self)

    def make_current(self, on_g: dict[str, t.Any]) -> None:
        """Get the calls that are made from now on in the context of this ``g``."""
        outer = on_g.get(ON_G)
        on_g[ON_G] = self
        self._outer_managers.append(outer)

    @property
    def is_current(self) -> bool:
        """Whether a block or an app context has it, perhaps another thread's."""
        return bool(self._blocks or self._outer_managers)

    def close(self) -> None:
        """Leave ``g``, which the next request may share: this one ends.

        What is recorded from now on has no response to wait for.
        """
        self.flush_threshold = 1
        self._app_state.running_views.end(self)

        if current_g().__dict__.get(ON_G) is self:
            self.leave_context()
        else:
            # The first call was made in another app context than this one, such as a
            # thread's, and this one has what came after.
            del self._outer_managers[-1:]

    @contextlib.contextmanager
    def in_use(self) -> c.Iterator[None]:
        """Let calls be made on it, though no app context has it at this moment: it was
        in use in one that has ended, such as a thread's."""
        if self.is_current:
            yield
            return

        self.make_current(current_g().__dict__)

        try:
            yield
        finally:
            self.leave_context()

    def leave_context(self) -> None:
        """Get no more of the calls that are made in this app context."""
        on_g = current_g().__dict__
        # There is none for a thread whose request has been closed by another.
        outer = self._outer_managers.pop() if self._outer_managers else None

        if outer is None:
            on_g.pop(ON_G, None)
        else:
            on_g[ON_G] = outer

    def take_visitor(self) -> PortableVisitor:
        """Return the visitor as they are at this moment, to be taken elsewhere."""
        return self._app_state.take_visitor(self)

    # -- sending

    def flush(self) -> Outcome | None:
        """Send what was recorded until now.

        :return: which strategy took the calls, or ``None`` if there were none.
        """
        return self._app_state.flush(self)

    @property
    def can_flush(self) -> bool:
        """Whether calls may be sent on the way: those of a stage belong together."""
        return bool(self.calls) and not self._open_stages

    def flush_while_running(self, *, is_last: bool = False) -> None:
        """Send the calls of a view that runs, from a thread that has no context."""
        self._app_state.flush_running(self, is_last=is_last)
