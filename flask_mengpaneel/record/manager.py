"""One unit of work, a request or a job, and the calls that were made in it."""

from __future__ import annotations

import collections.abc as c
import contextlib
import logging
import marshal
import sys
import threading
import time
import typing as t
import weakref

from flask import current_app, g, request

from .. import process
from ..calls import TRACKING, Call, CallLog, Stage, dumps
from ..config import PREFIX, StrategyName
from ..identity import hex_id
from ..visitor.visitor import Visitor
from .recorder import Recorder

if t.TYPE_CHECKING:
    from flask import Flask, Request

    from ..calls import Json
    from ..config import Config
    from ..outcome import Outcome
    from ..strategy import Strategy

logger = logging.getLogger("flask_mengpaneel")

# https://docs.mixpanel.com/reference/track-event#limits
_MAX_RECORD = 1_048_576

_NO_CONTEXT = (
    "Mengpaneel works inside a request, or inside an app context with 'with"
    " Manager():'. There is no app context here: use 'with app.app_context():'."
)

# Calls of a job that are kept until they are flushed: what Mixpanel takes at once.
_MAX_OF_JOB = 2000

#: Seconds for which calls wait for a response; what takes longer gets them late or not.
_MAX_HELD = 5.0
#: Seconds between looks at views that run, and without any until nobody looks.
_LOOK_EVERY = 1.0
_IDLE = 30.0

#: Where a request keeps its manager, also for threads that work for it, and while its
#: body is streamed.
MANAGER = "flask_mengpaneel.manager"
#: In an environment: the request whose response is ready.
ANSWERED = "flask_mengpaneel.answered"


class AppState(t.Protocol):
    """What a manager needs of the app that it works for."""

    @property
    def config(self) -> Config: ...

    @property
    def running_views(self) -> Running: ...

    def default_properties(self) -> dict[str, Json]: ...

    def refuse(self, name: str, error: Exception) -> None: ...

    def flush(self, manager: Manager) -> Outcome | None: ...

    def flush_late(self, manager: Manager) -> None: ...


class Running:
    """The managers of requests that have no response yet.

    What a view tracks waits for its response, which may carry it. Some views have none
    for long: they stream, wait for something, or loop for as long as a visitor is
    there. What such a view tracks is sent while it runs, and at the end of the process.

    :param flush: sends the calls of a manager.
    :param watches: whether a thread may do so while a view runs.
    """

    def __init__(self, flush: c.Callable[[Manager], None], watches: bool) -> None:
        self._flush = flush
        self._watches = watches
        self._reset()
        process.on_fork(self)

    def _reset(self) -> None:
        #: Held while a call is added or calls are taken, as another thread takes some.
        self.lock = threading.RLock()
        #: Since when they run, or were last looked after.
        self._since: dict[Manager, float] = {}
        self._watched = not self._watches

    def after_fork(self) -> None:
        """Start anew in a child process."""
        self._reset()

    def begin(self, manager: Manager) -> None:
        """Look after a manager, from its first call."""
        self._since[manager] = time.monotonic()

        if not self._watched:
            self._watched = True
            process.on_exit(self)

            with contextlib.suppress(RuntimeError):
                threading.Thread(
                    target=_watch,
                    args=(weakref.ref(self), threading.get_native_id()),
                    name="mengpaneel-views",
                    daemon=True,
                ).start()

    def end(self, manager: Manager) -> None:
        """The response is there, or there won't be one."""
        self._since.pop(manager, None)

    def resume_spooled(self) -> bool:
        """Send what waits for too long; whether anything may."""
        if self._since:
            self.send(_MAX_HELD)
            return True

        return False

    def rest(self) -> None:
        """Nobody looks until there is another one."""
        self._watched = False

    def send(self, age: float) -> None:
        """Send what those of that age have."""
        now = time.monotonic()

        for manager, since in list(self._since.items()):
            # In a stage calls belong together.
            if now - since >= age and not manager._stages:
                self._since[manager] = now

                try:
                    if manager.calls:
                        self._flush(manager)
                except Exception:
                    logger.exception("What a view tracked could not be sent.")

    def hurry(self) -> None:
        """Send what they have: the process ends."""
        self.send(0.0)

    def close(self) -> None:
        """Nothing waits here any more."""


def _watch(reference: weakref.ref[Running], started_by: int) -> None:
    """Look after running views, until there are none for some time or no app."""
    process.leave_signals_to(started_by)
    idle = 0.0

    while True:
        time.sleep(_LOOK_EVERY)

        if (running := reference()) is None:
            return

        idle = 0.0 if running.resume_spooled() else idle + _LOOK_EVERY

        if idle >= _IDLE:
            running.rest()
            return

        del running


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
        "_flusher",
        "_last_time",
        "_outer",
        "_recording",
        "_request",
        "_stage",
        "_stages",
        "_strategy",
        "_taken",
        "_timers",
        "calls",
        "flush_threshold",
        "visitor",
    )

    def __init__(
        self, *, strategy: StrategyName | type[Strategy] | None = None
    ) -> None:
        self._begin(current_app_state(), None)
        self.flush_threshold = _MAX_OF_JOB
        self.strategy = strategy

    def _begin(self, flusher: AppState, request: Request | None) -> None:
        """Start with nothing.

        :param request: the one whose visitor the calls are of.
        """
        self._flusher = flusher
        #: Whom the calls are from.
        self.visitor = Visitor(flusher.config, request)
        self._request = request
        self._strategy: str | None = None
        self.calls = CallLog()
        self._stage = Stage.TRACKING
        #: How many stages are entered.
        self._stages = 0
        #: How many calls are kept before they are flushed on the way: all of them
        #: while there is a response to come, none when there was one.
        self.flush_threshold = sys.maxsize
        self._outer: list[Manager | None] = []
        self._taken: CallLog | None = None
        self._last_time = 0.0
        self._timers: dict[str, float] = {}
        self._recording: bool | None = None

    def _manager(self) -> Manager:
        if not self._outer:
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
            None if strategy is None else self._flusher.config.named_strategy(strategy)
        )

    # -- recording

    def record(self, wire: list[t.Any]) -> None:
        """Add a call to the stage at hand."""
        name = wire[0][0]
        call = Call(wire)

        if name == "opt_in_tracking" and self._flusher.config.active:
            self._recording = self.visitor.opt_in()

        if self._recording is None:
            self._recording = (
                self._flusher.config.active
                and self.visitor.consents is not False
                # What tracks all requests doesn't mean those of the extension itself.
                and not self.visitor.path.startswith(PREFIX)
            )

        if not self._recording:
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

        if size > _MAX_RECORD // 6 and len(dumps(wire)) > _MAX_RECORD:
            raise ValueError(
                f"{call.name} has more than {_MAX_RECORD} bytes, which is what"
                " Mixpanel takes"
            )

        stage = self._stage

        if stage is Stage.SETUP and name in TRACKING:
            # That something happened is never a part of who it is.
            stage = Stage.TRACKING

        with self._flusher.running_views.lock:
            self.calls.size += size
            self.calls.of(stage).append(call)

        if name == "opt_out_tracking":
            self.visitor.opt_out()
            self._recording = False

        if len(self.calls.tracking) >= self.flush_threshold and not self._stages:
            self._flusher.flush_late(self)

    def _stamp(self, call: Call, properties: dict[str, t.Any]) -> None:
        if self._flusher.config.default_properties is not None:
            for name, value in self._flusher.default_properties().items():
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
        """The time in seconds since the epoch, later than ever before in this unit."""
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

        self._flusher.refuse(name, error)

    @contextlib.contextmanager
    def stage(self, stage: Stage) -> c.Iterator[None]:
        """Record calls in another stage for a while."""
        outer = self._stage

        if stage is Stage.SETUP and outer is not Stage.SETUP:
            self.calls.setup.clear()
            self.calls.set_up = True

        self._stage = stage
        self._stages += 1

        try:
            yield
        finally:
            self._stage = outer
            self._stages -= 1

    def fork_for_thread(self) -> Manager:
        """Another manager for the same visitor: in a thread that has got a copy of the
        context while the view goes on."""
        fork = Manager.__new__(Manager)
        fork._begin(self._flusher, self._request)
        fork.visitor = self.visitor
        fork.calls.setup = list(self.calls.setup)
        fork.calls.set_up = self.calls.set_up
        return fork

    # -- the unit at hand

    def __enter__(self) -> Manager:
        self._outer.append(g.get("_mengpaneel"))
        self._request = active_request()
        g._mengpaneel = self
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._leave()
        self.flush()

    def _leave(self) -> None:
        outer = self._outer.pop()
        held = current_g().__dict__

        if outer is None:
            held.pop("_mengpaneel", None)
        else:
            held["_mengpaneel"] = outer

    def close(self) -> None:
        """Take leave of ``g``, which the next request may share: this one ends.

        What is recorded from now on has no response to wait for.
        """
        self.flush_threshold = 1
        self._flusher.running_views.end(self)

        if self._outer:
            self._leave()

    def flush(self) -> Outcome | None:
        """Send what was recorded until now.

        :return: which strategy took the calls, or ``None`` if there were none.
        """
        return self._flusher.flush(self)

    def take(self) -> CallLog:
        """Hand over the calls; what is recorded from now on is of the next flush."""
        with self._flusher.running_views.lock:
            calls, self.calls = self.calls, CallLog()

        if calls:
            if self._taken is not None:
                # The calls before these have said who it is.
                self.visitor.apply([*self._taken])

            self._taken = calls

        return calls

    def take_back(self, calls: CallLog) -> None:
        """Keep calls for the next flush after all: the response that had them isn't
        sent."""
        self.calls, self._taken = calls, None


def current_app_state() -> AppState:
    """The flusher of the app at hand.

    :raises RuntimeError: there is no app context, or its app has no Mengpaneel.
    """
    try:
        app = current_flask()
    except RuntimeError:
        raise RuntimeError(_NO_CONTEXT) from None

    flusher: AppState | None = app.extensions.get("mengpaneel")

    if flusher is None:
        raise RuntimeError(
            "This app has no Mengpaneel: call 'mengpaneel.init_app(app)'."
        )

    return flusher


def current_manager() -> Manager:
    """The manager that calls made here belong to.

    A request's is made when it is first needed.

    :raises RuntimeError: this is neither a request nor a ``with Manager():`` block.
    """
    try:
        held = current_g().__dict__
    except RuntimeError:
        raise RuntimeError(_NO_CONTEXT) from None

    try:
        current = current_request()
    except RuntimeError:
        current = None

    manager: Manager | None = held.get("_mengpaneel")

    # An app context that was pushed by hand is shared by the requests inside of it,
    # so what lies on `g` may be another unit's.
    if manager is not None and manager._request is current:
        return manager

    flusher = current_app_state()

    if current is None:
        raise RuntimeError(
            "Mengpaneel was called outside of a request. Use 'with Manager():' in"
            " scripts, commands and jobs."
        )

    outer = manager
    manager = current.environ.get(MANAGER)

    if manager is None or manager._request is not current:
        manager = current.environ[MANAGER] = Manager.__new__(Manager)
        manager._begin(flusher, current)

        if current.environ.get(ANSWERED) is current or _is_socket(current):
            manager.flush_threshold = 1
        else:
            flusher.running_views.begin(manager)
    elif manager._outer:
        manager = manager.fork_for_thread()

    held["_mengpaneel"] = manager
    manager._outer.append(outer)
    return manager


def _is_socket(request: Request) -> bool:
    """Whether it asks for a WebSocket: there is no response that could carry calls."""
    upgrade: str = request.environ.get("HTTP_UPGRADE", "")
    return bool(upgrade) and upgrade.lower() == "websocket"


# What is behind the proxies: looking it up at each use takes longer than the rest.
current_request: c.Callable[[], Request]
current_request = request._get_current_object  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
current_flask: c.Callable[[], Flask]
current_flask = current_app._get_current_object  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
current_g: c.Callable[[], t.Any]
current_g = g._get_current_object


def active_request() -> Request | None:
    """The request, if there is one."""
    try:
        return current_request()
    except RuntimeError:
        return None
