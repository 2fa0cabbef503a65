"""The thread that looks after hand-overs, while there are any."""

from __future__ import annotations

import collections.abc as c
import logging
import threading
import time
import typing as t

from ... import process
from ..delivery import REQUEST_TIMEOUT
from ..pipeline import IDLE_TIMEOUT

if t.TYPE_CHECKING:
    from .memory import HandOverMemory

logger = logging.getLogger("flask_mengpaneel")

#: Seconds for which what woke the thread waits for company.
LINGER = 0.1

_NEVER = float("inf")


class Stepper:
    """Takes steps in a thread that is there while it is needed.

    :param memory: whose lock is this one's as well.
    :param step: does what there is to do.
    :param next_moment: when there is something to do again, by the monotonic clock;
        never, if there is nothing.
    """

    def __init__(
        self,
        memory: HandOverMemory,
        step: c.Callable[[], None],
        next_moment: c.Callable[[], float],
    ) -> None:
        self._memory = memory
        self._step = step
        self._next_moment = next_moment
        #: When the thread goes on by itself: what is due earlier has to wake it.
        self.wakes_at = _NEVER
        self._is_stepping = False
        self._leave_thread()

    def _leave_thread(self) -> None:
        self._woken = threading.Event()
        self._thread: threading.Thread | None = None

    def notice_green_threads(self) -> None:
        """Leave the thread and the lock of the other kind, if there is another now."""
        # The other thread ends when it notices. It isn't woken, as eventlet replaces a
        # lock, but not what a condition knows of it.
        self._await_end_of_step(REQUEST_TIMEOUT)

        if not self._memory.threads.is_current:
            self._memory.renew_lock()
            self._leave_thread()
            self.wakes_at = _NEVER

    def await_step(self, timeout: float) -> None:
        """Let no more steps begin, and wait for the one that is under way."""
        with self._memory.lock:
            self._thread, self.wakes_at = None, 0.0
            self._woken.set()

        self._await_end_of_step(timeout)

    def _await_end_of_step(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout

        while self._is_stepping and time.monotonic() < deadline:
            time.sleep(0.01)

    def wake(self) -> None:
        """Let the thread take a step soon; start it if there is none."""
        self.wakes_at = 0.0

        if self._thread is None:
            self._start()
        elif not self._woken.is_set():
            self._woken.set()

    def _start(self) -> None:
        with self._memory.lock:
            if self._thread is not None:
                self._woken.set()
                return

            thread = threading.Thread(
                target=self._run,
                args=(self._woken, threading.get_native_id()),
                name="mengpaneel-hand-overs",
                daemon=True,
            )
            self._thread = thread

            try:
                thread.start()
            except BaseException as error:
                # If it runs all the same, it notices that it isn't the one.
                self._thread = None
                self.wakes_at = _NEVER

                # No more threads, as at the very end of a process.
                if not isinstance(error, RuntimeError):
                    raise

    def _goes_on(self, woken: threading.Event) -> bool:
        return (
            self._memory.threads.is_current
            and self._woken is woken
            and self._thread is threading.current_thread()
        )

    def _run(self, woken: threading.Event, started_by: int) -> None:
        process.leave_signals_to(started_by)

        while self._goes_on(woken):
            woken.clear()
            self._take_step(woken)

            if not self._wait(woken) and self._may_end():
                return

    def _take_step(self, woken: threading.Event) -> None:
        # Nothing comes in between: a reader that comes after a change sees either.
        self._is_stepping = True

        try:
            if self._goes_on(woken):
                self._step()
        except Exception:
            logger.exception("Looking after hand-overs failed in an unexpected way.")
        finally:
            self._is_stepping = False

    def _wait(self, woken: threading.Event) -> bool:
        """Wait for something to do; ``False`` if nothing has come for long."""
        # What comes from here on wakes the thread, whenever it is due.
        self.wakes_at = _NEVER
        moment = self._next_moment()
        self.wakes_at = moment
        pause = max(moment - time.monotonic(), LINGER)

        if woken.wait(min(pause, IDLE_TIMEOUT)) and self._goes_on(woken):
            # One of many, often.
            time.sleep(LINGER)
            return True

        return moment != _NEVER

    def _may_end(self) -> bool:
        with self._memory.lock:
            if self._thread is not threading.current_thread():
                return True

            self.wakes_at = _NEVER
            self._thread = None

            # What came before this line believed that there was a thread.
            if self._woken.is_set() or self._next_moment() != _NEVER:
                self._thread = threading.current_thread()
                return False

            return True
