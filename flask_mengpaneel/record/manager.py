"""One unit of work, a request or a job, and the calls that were made in it."""

from __future__ import annotations

import collections.abc as c
import contextlib
import marshal
import sys
import time
import typing as t

from flask import current_app

from ..calls import TRACKING, Call, CallLog, Stage, dumps
from ..config import PREFIX, StrategyName
from ..identity import hex_id
from ..limits import MAX_RECORD_BYTES, MAX_RECORDS
from ..visitor.visitor import Visitor
from .proxies import active_request, current_flask, current_g
from .recorder import Recorder

if t.TYPE_CHECKING:
    from flask import Request

    from ..calls import Json
    from ..config import Config
    from ..outcome import Outcome
    from ..strategy import Strategy
    from .running_views import RunningViews

NO_CONTEXT = (
    "Mengpaneel works inside a request, or inside an app context with 'with"
    " Manager():'. There is no app context here: use 'with app.app_context():'."
)


class AppState(t.Protocol):
    """The part of an app's state that its managers need."""

    @property
    def config(self) -> Config:
        """The app's settings."""
        ...

    @property
    def running_views(self) -> RunningViews:
        """The managers of requests that have no response yet."""
        ...

    def default_properties(self) -> dict[str, Json]:
        """Return the properties that the app adds to every event, as they are now."""
        ...

    def refuse(self, name: str, error: Exception) -> None:
        """Drop a call that can't be sent."""

    def flush(self, manager: Manager) -> Outcome | None:
        """Send the calls that no response can carry."""

    def flush_late(self, manager: Manager) -> None:
        """Send the calls of a manager where nobody waits for the outcome."""

    def flush_running(self, manager: Manager) -> None:
        """Send the calls of a view that runs, from a thread that has no context."""


def current_app_state() -> AppState:
    """Return the state of the current app.

    :raises RuntimeError: there is no app context, or its app has no Mengpaneel.
    """
    try:
        app = current_flask()
    except RuntimeError:
        raise RuntimeError(NO_CONTEXT) from None

    app_state: AppState | None = app.extensions.get("mengpaneel")

    if app_state is None:
        raise RuntimeError(
            "This app has no Mengpaneel: call 'mengpaneel.init_app(app)'."
        )

    return app_state


class Manager(Recorder):
    """Calls outside of a request: in a script, a CLI command, a job.

    Use it inside an app context::

        with Manager() as manager:
            with manager.setup():
                manager.identify(subscription.user_id)
            manager.track("Renew Subscription")

    The calls are flushed when the block is left, also by an exception, and on the way
    whenever there are 2,000 of them, so that a job of any length needs little memory:
    set up first who it is about. The methods of the extension work in the block as
    well.

    :param strategy: insist on one of the strategies: ``"ServerSide"`` delivers before
        the block is left.
    :raises RuntimeError: there is no app context, or its app has no Mengpaneel.
    :raises ValueError: there is no such strategy.
    """

    __slots__ = (
        "_app_state",
        "_drained",
        "_is_recording",
        "_last_time",
        "_open_stages",
        "_outer_managers",
        "_stage",
        "_strategy",
        "_timers",
        "calls",
        "flush_threshold",
        "request",
        "visitor",
    )

    def __init__(
        self, *, strategy: StrategyName | type[Strategy] | None = None
    ) -> None:
        self._begin(current_app_state(), None)
        self.flush_threshold = MAX_RECORDS
        self.strategy = strategy

    @classmethod
    def of_request(cls, app_state: AppState, request: Request) -> Manager:
        """Return a manager for the calls of a request."""
        manager = cls.__new__(cls)
        manager._begin(app_state, request)
        return manager

    def _begin(self, app_state: AppState, request: Request | None) -> None:
        self._app_state = app_state
        #: The request that it works in, if any.
        self.request = request
        #: The visitor whom the calls are from.
        self.visitor = Visitor(app_state.config, request)
        self._strategy: str | None = None
        self.calls = CallLog()
        #: How many tracking calls are kept before they are flushed on the way: all
        #: while there is a response to come, none when there was one.
        self.flush_threshold = sys.maxsize
        #: The stage that calls are recorded in now.
        self._stage = Stage.TRACKING
        self._open_stages = 0
        #: The managers that were current before, one for each time it was entered.
        self._outer_managers: list[Manager | None] = []
        #: The calls that were drained last.
        self._drained: CallLog | None = None
        self._last_time = 0.0
        #: When the clock of each timed event was started.
        self._timers: dict[str, float] = {}
        #: Whether calls are kept at all; ``None`` before the first.
        self._is_recording: bool | None = None

    def _manager(self) -> Manager:
        if not self._outer_managers:
            raise RuntimeError(
                "This Manager is not in use: call its methods inside of 'with"
                " Manager() as manager:'."
            )

        return self

    @property
    def strategy(self) -> str | None:
        """The strategy that is insisted on, by name, for this unit of work only."""
        return self._strategy

    @strategy.setter
    def strategy(self, strategy: StrategyName | type[Strategy] | None) -> None:
        self._strategy = (
            None
            if strategy is None
            else self._app_state.config.named_strategy(strategy)
        )

    # -- recording

    def record(self, wire: list[t.Any]) -> None:
        """Add a call to the current stage."""
        name = wire[0][0]
        call = Call(wire)

        if name == "opt_in_tracking" and self._app_state.config.active:
            self._is_recording = self.visitor.consent.opt_in()

        if self._is_recording is None:
            self._is_recording = (
                self._app_state.config.active
                and self.visitor.consent.given is not False
                # What tracks all requests doesn't mean those of the extension itself.
                and not self.visitor.client.path.startswith(PREFIX)
            )

        if not self._is_recording:
            return

        if name in TRACKING:
            self._stamp(call, call.properties)
        elif name == "time_event":
            self._timers[call.event] = self._now()
            call.arguments.append(self._timers[call.event])
        elif name == "reset":
            self.visitor.start_new_visitor()

        # Several times as fast as JSON, which has at most six bytes for each of these.
        size = len(marshal.dumps(wire, 2))

        if size > MAX_RECORD_BYTES // 6 and len(dumps(wire)) > MAX_RECORD_BYTES:
            raise ValueError(
                f"{call.name} has more than {MAX_RECORD_BYTES} bytes, which is what"
                " Mixpanel takes"
            )

        stage = self._stage

        if stage is Stage.SETUP and name in TRACKING:
            # That something happened is never a part of who it is.
            stage = Stage.TRACKING

        with self._app_state.running_views.lock:
            self.calls.size += size
            self.calls.of(stage).append(call)

        if name == "opt_out_tracking":
            self.visitor.consent.opt_out()
            self._is_recording = False

        if len(self.calls.tracking) >= self.flush_threshold and not self._open_stages:
            self._app_state.flush_late(self)

    def _stamp(self, call: Call, properties: dict[str, t.Any]) -> None:
        if self._app_state.config.default_properties is not None:
            for name, value in self._app_state.default_properties().items():
                properties.setdefault(name, value)

        if "time" not in properties:
            properties["time"] = self._now()

        if "$insert_id" not in properties:
            properties["$insert_id"] = hex_id()

        if self._timers and call.event in self._timers:
            self._stop_clock(call.event, properties)

    def _stop_clock(self, event: str, properties: dict[str, t.Any]) -> None:
        """Measure what began in this unit here, where it happens; the call that
        started the clock has done its work then."""
        seconds = self._now() - self._timers.pop(event)
        properties.setdefault("$duration", round(seconds, 3))

        for stage in Stage:
            self.calls.of(stage)[:] = [
                call
                for call in self.calls.of(stage)
                if call.name != "time_event" or call.event != event
            ]

    def _now(self) -> float:
        """Return the time in seconds since the epoch, later than ever before in this
        unit."""
        now = round(time.time() * 1000) / 1000

        # Mixpanel sorts by time, so two events of one millisecond, or of a clock that
        # was set back a little, must not have the same.
        if now <= self._last_time < now + 1:
            now = round(self._last_time + 1e-6, 6)

        self._last_time = now
        return now

    def refuse(self, name: str, error: Exception) -> None:
        """Raise what is wrong with a call while debugging and testing, else drop it."""
        if current_app.debug or current_app.testing:
            raise error

        self._app_state.refuse(name, error)

    @contextlib.contextmanager
    def stage(self, stage: Stage) -> c.Iterator[None]:
        """Record calls in another stage for a while."""
        outer = self._stage

        if stage is Stage.SETUP and outer is not Stage.SETUP:
            self.calls.setup.clear()
            self.calls.set_up = True

        self._stage = stage
        self._open_stages += 1

        try:
            yield
        finally:
            self._stage = outer
            self._open_stages -= 1

    def fork_for_thread(self) -> Manager:
        """Return another manager for the same visitor: for a thread that has got a
        copy of the context while the view goes on."""
        fork = Manager.__new__(Manager)
        fork._begin(self._app_state, self.request)
        fork.visitor = self.visitor
        fork.calls.setup = list(self.calls.setup)
        fork.calls.set_up = self.calls.set_up
        return fork

    # -- being current

    def __enter__(self) -> Manager:
        self.request = active_request()
        self.make_current()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._leave()
        self.flush()

    def make_current(self) -> None:
        """Get the calls that are made in this app context from now on."""
        on_g = current_g().__dict__
        self._outer_managers.append(on_g.get("_mengpaneel"))
        on_g["_mengpaneel"] = self

    @property
    def is_current(self) -> bool:
        """Whether an app context has it, perhaps another thread's."""
        return bool(self._outer_managers)

    def _leave(self) -> None:
        outer = self._outer_managers.pop()
        on_g = current_g().__dict__

        if outer is None:
            on_g.pop("_mengpaneel", None)
        else:
            on_g["_mengpaneel"] = outer

    def close(self) -> None:
        """Leave ``g``, which the next request may share: this one ends.

        What is recorded from now on has no response to wait for.
        """
        self.flush_threshold = 1
        self._app_state.running_views.end(self)

        if self._outer_managers:
            self._leave()

    # -- sending

    def flush(self) -> Outcome | None:
        """Send what was recorded until now.

        :return: which strategy took the calls, or ``None`` if there were none.
        """
        return self._app_state.flush(self)

    @property
    def can_flush(self) -> bool:
        """Whether there are calls that may be sent on the way: in a stage they belong
        together."""
        return bool(self.calls) and not self._open_stages

    def flush_while_running(self) -> None:
        """Send the calls of a view that runs, from a thread that has no context."""
        self._app_state.flush_running(self)

    def drain(self) -> CallLog:
        """Give the calls away; what is recorded from now on is of the next flush."""
        with self._app_state.running_views.lock:
            calls, self.calls = self.calls, CallLog()

        if calls:
            if self._drained is not None:
                # The calls before these have said who it is.
                self.visitor.apply([*self._drained])

            self._drained = calls

        return calls

    def restore(self, calls: CallLog) -> None:
        """Take drained calls back, for the next flush: the response that had them isn't
        sent."""
        self.calls, self._drained = calls, None
