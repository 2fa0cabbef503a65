"""Views that run for long: what they track doesn't wait for their end; and jobs, which
the end of the process doesn't wait for."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import typing as t
import weakref

from .. import process

logger = logging.getLogger("flask_mengpaneel")

#: Seconds for which calls wait for a response; what takes longer gets them late or not.
_MAX_WAIT = 5.0
#: Seconds between two searches for calls that have waited for so long.
_CHECK_INTERVAL = 1.0
#: Seconds without a running view after which the thread ends.
_MAX_IDLE = 30.0


class RunningView(t.Protocol):
    """The manager of a request that has no response yet, or of a job."""

    @property
    def can_flush(self) -> bool:
        """Whether there are calls that may be sent on the way."""
        ...

    def flush_while_running(self, *, is_last: bool) -> None:
        """Send the calls, from a thread that has no context.

        :param is_last: whether the process ends.
        """

    def leave_to_parent(self) -> None:
        """Leave the calls to the process that this one is a copy of."""


class RunningViews:
    """The managers of the requests of an app that have no response yet.

    What a view tracks waits for its response, which may carry it. Some views have none
    for long: they stream, wait for something, or loop for as long as a visitor is
    there. What such a view tracks is sent while it runs, and at the end of the process.

    :param in_background: whether a thread may send it while the view runs.
    :param shutdown_timeout: seconds for which the end of the process waits for what
        that thread is sending.
    """

    def __init__(self, in_background: bool, shutdown_timeout: float) -> None:
        self._in_background = in_background
        self._shutdown_timeout = shutdown_timeout
        self._reset()
        process.on_fork(self)

    def _reset(self) -> None:
        #: Held while a call is added or calls are drained, as another thread may do so.
        self.lock = threading.RLock()
        #: Held while a thread has calls that are neither here nor sent.
        self._sending = threading.Lock()
        #: When each of them began, or was last sent.
        self._since: dict[RunningView, float] = {}
        #: Those of jobs, and of a request's threads and blocks. They flush themselves,
        #: unless the process ends before.
        self._jobs: set[RunningView] = set()
        #: Those that the parent of this process has gone on with.
        self._inherited: tuple[RunningView, ...] = ()
        self._has_jobs = False
        self._has_thread = not self._in_background

    def after_fork(self) -> None:
        """Start anew in a child process."""
        running: tuple[RunningView, ...] = ()

        if process.is_new_child():
            running = (*self._since, *self._jobs, *self._inherited)

        self._reset()
        # A child of this one leaves to it what they get until then.
        self._inherited = running

        for view in running:
            view.leave_to_parent()

    def stay_in_foreground(self) -> None:
        """Start no thread from now on."""
        self._in_background, self._has_thread = False, True

    def begin(self, view: RunningView) -> None:
        """Look after a view, from its first call."""
        self._since[view] = time.monotonic()

        if not self._has_thread:
            self._has_thread = True
            process.on_exit(self)

            with contextlib.suppress(RuntimeError):
                threading.Thread(
                    target=_look_after,
                    args=(weakref.ref(self), threading.get_native_id()),
                    name="mengpaneel-views",
                    daemon=True,
                ).start()

    def end(self, view: RunningView) -> None:
        """The response is there, or there won't be one; the job is over."""
        self._since.pop(view, None)

        # A step of each request, and most have none.
        if self._jobs:
            self._jobs.discard(view)

    def begin_job(self, job: RunningView) -> None:
        """Look after a job, should the process end in the middle of it."""
        if not self._has_jobs:
            self._has_jobs = True
            process.on_exit(self)

        self._jobs.add(job)

    def is_running(self, job: object) -> bool:
        """Whether something is a job of this app, and began in this process."""
        return job in self._jobs

    def send_waiting(self) -> bool:
        """Send what has waited for too long.

        :return: whether any view runs.
        """
        if self._since:
            with self._sending:
                self._send(_MAX_WAIT, is_last=False)

            return True

        return False

    def leave_thread(self) -> None:
        """Start another thread for the next view: this one ends."""
        self._has_thread = False

    def _send(self, age: float, *, is_last: bool) -> None:
        """Send the calls of the views that began that many seconds ago."""
        now = time.monotonic()

        for view, since in list(self._since.items()):
            if now - since >= age and view.can_flush:
                self._since[view] = now
                _flush(view, is_last=is_last)

    def begin_shutdown(self) -> None:
        """Send what they have: the process ends."""
        self._send(0.0, is_last=True)

        for job in list(self._jobs):
            if job.can_flush:
                _flush(job, is_last=True)

        if self._sending.acquire(timeout=self._shutdown_timeout):
            self._sending.release()

    def close(self) -> None:
        """Finish; nothing waits here any more."""


def _flush(view: RunningView, *, is_last: bool) -> None:
    try:
        view.flush_while_running(is_last=is_last)
    except Exception:
        logger.exception("What a view or a job tracked could not be sent.")


def _look_after(reference: weakref.ref[RunningViews], started_by: int) -> None:
    """Send what waits, until no view runs for some time, or the app is gone."""
    process.leave_signals_to(started_by)
    idle = 0.0

    while True:
        time.sleep(_CHECK_INTERVAL)

        if (views := reference()) is None:
            return

        idle = 0.0 if views.send_waiting() else idle + _CHECK_INTERVAL

        if idle >= _MAX_IDLE:
            views.leave_thread()
            return

        del views
