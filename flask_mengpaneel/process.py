"""The life of a process: its forks, and its end."""

from __future__ import annotations

import _thread
import atexit
import collections.abc as c
import contextlib
import os
import signal
import sys
import threading
import time
import types
import typing as t
import weakref


class Forked(t.Protocol):
    """Something that starts anew in a child process."""

    def after_fork(self) -> None:
        """Leave to the parent what is the parent's."""


class Closed(t.Protocol):
    """Something that has to finish before the process ends."""

    def begin_shutdown(self) -> None:
        """Begin to finish, while others do the same."""

    def close(self) -> None:
        """Finish."""


class HandedOn(t.Protocol):
    """Something that has to leave to others what it has before these finish."""

    def hand_on(self) -> None:
        """Leave it to them."""


class ThreadKind:
    """The kind of threads that there was: green threads may take the place of others
    when an app was made already, and a lock of one kind doesn't keep out the other."""

    def __init__(self) -> None:
        self._lock = threading.Lock

    @property
    def is_current(self) -> bool:
        """Whether it is still that kind."""
        return self._lock is threading.Lock


#: The process that has started anew last. Where it isn't this one, a server has forked
#: without telling Python, as uWSGI does: what a child may do first then calls
#: :func:`after_fork`.
pid = os.getpid()

_forked: weakref.WeakSet[Forked] = weakref.WeakSet()
_closed: weakref.WeakSet[Closed] = weakref.WeakSet()
_handed_on: weakref.WeakSet[HandedOn] = weakref.WeakSet()
#: The processes (this one, or none) in which the end is looked after.
_watched: set[int] = set()


def on_fork(thing: Forked) -> None:
    """Call ``after_fork`` of it in each child, unless it is gone by then."""
    _forked.add(thing)


def on_exit(thing: Closed) -> None:
    """Call ``close`` of it at the end of this process, unless it is gone by then."""
    _closed.add(thing)
    _ensure_watched()


def before_exit(thing: HandedOn) -> None:
    """Call ``hand_on`` of it before anything is closed, unless it is gone by then."""
    _handed_on.add(thing)
    _ensure_watched()


def _ensure_watched() -> None:
    if os.getpid() not in _watched:
        _watch_exit()
        _watched.add(os.getpid())


def _watch_exit() -> None:
    atexit.register(_at_exit)

    # The children of multiprocessing, and of its fork billiard, end without atexit;
    # they have finalizers instead.
    for name in ("multiprocessing", "billiard"):
        if f"{name}.util" in sys.modules:
            finalize = sys.modules[f"{name}.util"].Finalize
            finalize(None, _close_all, exitpriority=100)

    # Those of Celery's pool end without either.
    if "celery.signals" in sys.modules:
        ends = sys.modules["celery.signals"].worker_process_shutdown
        ends.connect(_on_worker_process_shutdown)


#: The process that this one was forked from, and that which is being forked.
_forker: int | None = None
_forking: int | None = None
#: What multiprocessing said of the parent of the former, before it was forked.
_inherited: object = None
#: That in which a request was answered.
_server: int | None = None
#: Whether RQ does one job in this process; ``None``: no job has asked yet.
_is_rq_job: bool | None = None


def begin_serving() -> None:
    """This process answers requests, so a server looks after its end."""
    global _server
    _server = os.getpid()


def may_vanish() -> bool:
    """Whether this process may end with a job, without telling us.

    RQ ends the process of each job by ``os._exit``, and names the job in its
    environment. Python's documentation tells everybody to end the child of a fork like
    that: https://docs.python.org/3/library/os.html#os._exit. It isn't so where a server
    has forked; for those who have finalizers; and for a daemon, whose parent has gone.
    """
    global _is_rq_job

    # To ask the environment takes 1 us of the 30 of a job that tracks one event.
    if _is_rq_job is None:
        _is_rq_job = "RQ_JOB_ID" in os.environ

    if _is_rq_job:
        return True

    # A fork that Python isn't told of is a server's.
    if _forker is None or _forker != os.getppid() or _server == os.getpid():
        return False

    return not _has_finalizers()


def _has_finalizers() -> bool:
    """Whether this process is a child of multiprocessing or billiard."""
    # Its own children say who their parent is after the fork: not who has forked, which
    # may be its server of forks.
    if _parent_of_multiprocessing() is not _inherited:
        return True

    if "billiard.process" in sys.modules:
        own = sys.modules["billiard.process"].current_process()
        return bool(own._parent_pid == _forker)

    return False


def _parent_of_multiprocessing() -> object:
    if "multiprocessing.process" not in sys.modules:
        return None

    return sys.modules["multiprocessing.process"].parent_process()


#: Those that close everything at the moment: the end may come from two sides at once.
_closing: list[object] = []


def is_ending() -> bool:
    """Whether everything finishes: it may be that no thread can be started."""
    return bool(_closing)


def _close_all() -> None:
    me = object()
    _closing.append(me)

    while _closing[0] is not me:
        time.sleep(0.01)

    try:
        for giver in list(_handed_on):
            giver.hand_on()

        # The time that each has is the same time: there may be several apps.
        for thing in list(_closed):
            thing.begin_shutdown()

        # Also those that have got something to do only then.
        for thing in list(_closed):
            thing.close()
    finally:
        # It isn't there in a child that was forked in the middle of this.
        if me in _closing:
            _closing.remove(me)


def _on_worker_process_shutdown(**_: object) -> None:
    _close_all()


#: What ends a process that doesn't say otherwise.
_ENDING = [
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)
]
#: What was in the place of our handler before.
_handlers: dict[int, t.Any] = {}
#: Those by which the process is to end.
_received: list[int] = []


def end_in_order() -> None:
    """Finish before the process ends by a signal, if nobody else looks after that.

    Waitress and the development server leave it to the default, which ends a process
    at once. uvicorn puts the default back when it is done, and sends itself the
    signal again: what there is to do is done before it gets the first.
    """
    # In a server that has Python inside of it ours wouldn't be called, or would take
    # the place of the one that the server needs.
    if not _is_program():
        return

    for number in _ENDING:
        handler = signal.getsignal(number)

        if handler is signal.SIG_DFL or _module(handler) == "uvicorn":
            # Handlers may be set in the main thread only.
            with contextlib.suppress(ValueError):
                signal.signal(number, _on_signal)
                _handlers[number] = handler


def _is_program() -> bool:
    """Whether Python runs a program, rather than a server Python."""
    frame: types.FrameType | None = sys._getframe()

    while frame is not None and frame.f_back is not None:
        frame = frame.f_back

    return frame is not None and frame.f_globals.get("__name__") in {
        "__main__",
        "runpy",
        # The main thread of a child that a thread has forked, as a pool does.
        "threading",
    }


def _module(handler: t.Any) -> str:
    return (getattr(handler, "__module__", None) or "").partition(".")[0]


def _on_signal(number: int, _frame: types.FrameType | None) -> None:
    # A second one does what it did before. Whatever this thread is in the middle of,
    # it can go on: nothing here waits for a lock.
    signal.signal(number, _handlers.get(number, signal.SIG_DFL))
    _received.append(number)

    try:
        _thread.start_new_thread(_end, (number, os.getpid()))
    except RuntimeError:
        os.kill(os.getpid(), number)


def _end(number: int, pid: int) -> None:
    try:
        _close_all()
    finally:
        os.kill(pid, number)


def _at_exit() -> None:
    _close_all()

    # uvicorn sends itself the signal as the last that it does: then the program may be
    # over before the thread, and would have ended as if there had been no signal.
    for number in _received:
        os.kill(os.getpid(), number)


#: Whether Python is just forking this process, the child.
_is_new_child = False


def is_new_child() -> bool:
    """Whether all that is under way in this process is so in its parent as well: a fork
    that Python isn't told of is noticed only when the child has done something."""
    return _is_new_child


def after_fork() -> None:
    """Start anew in a child process. Python calls it, where it knows of the fork."""
    global pid, _is_rq_job
    _is_rq_job = None
    _closed.clear()
    _handed_on.clear()
    _received.clear()

    for thing in list(_forked):
        thing.after_fork()

    # Last: what ends this too early, such as a time limit, has it begin again.
    pid = os.getpid()


#: Held by background threads while they do what may import a module: a child that is
#: forked in the middle of that would have half a module for good.
importing = threading.RLock()

#: Seconds for which a thread that gives way keeps the interpreter.
_SHORT_TURN = 0.0001


@contextlib.contextmanager
def giving_way() -> c.Iterator[None]:
    """Let other threads have the interpreter soon, while this one computes for long.

    Python leaves it to a thread for 5 ms. A request that writes to a disk gives it away
    several times, and would wait for so long each time that it wants it back: 21 ms for
    four times, and 2 with this.
    """
    # Else one thread would take what another has set for what is usual here.
    with importing:
        usual = sys.getswitchinterval()
        sys.setswitchinterval(min(usual, _SHORT_TURN))

        try:
            yield
        finally:
            sys.setswitchinterval(usual)


def _before_fork() -> None:
    global _forking
    importing.acquire()
    _forking = os.getpid()


def _after_fork_in_child() -> None:
    global _forker, _inherited, _is_new_child
    importing.release()
    # It was a thread of the parent's that closed everything.
    _closing.clear()
    _forker, _is_new_child = _forking, True
    _inherited = _parent_of_multiprocessing()

    try:
        after_fork()
    finally:
        _is_new_child = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=importing.release,
        after_in_child=_after_fork_in_child,
    )


def leave_signals_to(native_id: int) -> None:
    """Let no signal arrive in this thread, unless it is that one.

    uWSGI ends a worker in whichever thread its signal arrives, and gets stuck in one
    of ours. A thread of gevent is no thread of its own, and must go on to get them.
    """
    if hasattr(signal, "pthread_sigmask") and threading.get_native_id() != native_id:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
