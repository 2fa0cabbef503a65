"""The threads of a background transport: they start and end as there is work."""

from __future__ import annotations

import collections.abc as c
import logging
import threading
import time

from .. import process
from .delivery import REQUEST_TIMEOUT
from .endpoints import MAX_IN_FLIGHT
from .pipeline import Pipeline, Step
from .places import AT_WORK

logger = logging.getLogger("flask_mengpaneel")

#: While as many as there may be wait for the answers of each endpoint, another builds
#: messages.
MAX_WORKERS = MAX_IN_FLIGHT + 3
#: Seconds between two looks of a thread that stands in for them.
PAUSE = 0.01


class Workers:
    """Threads that do the steps of a pipeline, under the monitor it has now.

    When green threads take the place of others, the pipeline gets another monitor, and
    these end.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self.threads: set[threading.Thread] = set()
        #: Those of them that are in the middle of a step.
        self._busy: set[threading.Thread] = set()
        self._pipeline = pipeline
        self._monitor = pipeline.monitor

    def ensure(self, owner: process.Closed) -> bool:
        """Start a thread if there is none, with the lock; ``False`` if none can be.

        :param owner: is closed at the end of the process.
        """
        if self.threads:
            return True

        process.on_exit(owner)
        return self.start()

    def start(self) -> bool:
        """Start a thread, with the lock; ``False`` if there can't be any more."""
        worker = threading.Thread(
            target=self._work,
            args=(threading.get_native_id(),),
            name="mengpaneel",
            daemon=True,
        )

        try:
            self.threads.add(worker)
            worker.start()
        except BaseException as error:
            # If it runs all the same, it comes back by itself.
            self.threads.discard(worker)

            if isinstance(error, RuntimeError):
                # No more threads, as at the very end of a process.
                return False

            raise

        return True

    def await_steps(self) -> None:
        """Wait until those that are under way are done, for as long as one may take."""
        deadline = time.monotonic() + REQUEST_TIMEOUT
        places = self._pipeline.places

        while places.occupied() & AT_WORK and time.monotonic() < deadline:
            time.sleep(0.01)

    @property
    def _goes_on(self) -> bool:
        pipeline = self._pipeline
        return (
            not pipeline.is_closed
            and pipeline.monitor is self._monitor
            and self._monitor.threads.is_current
        )

    def _work(self, started_by: int) -> None:
        process.leave_signals_to(started_by)
        thread = threading.current_thread()

        with self._monitor.lock:
            self.threads.add(thread)

        while step := self._next(thread):
            try:
                _do(step)
            finally:
                with self._monitor.lock:
                    self._busy.discard(thread)

    def _next(self, thread: threading.Thread) -> Step | None:
        pipeline = self._pipeline

        with self._monitor.lock:
            while self._goes_on:
                now = time.monotonic()

                if step := pipeline.next_step(now):
                    self._busy.add(thread)

                    # Somebody is to be there for what comes while others wait.
                    if len(self._busy) == len(self.threads) < MAX_WORKERS:
                        self.start()

                    return step

                # One is enough.
                if len(self.threads) - len(self._busy) > 1:
                    break

                if not pipeline.wait(now) and pipeline.is_empty:
                    break

            self.threads.discard(thread)
            return None

    def stand_in(self, is_over: c.Callable[[], bool], deadline: float) -> None:
        """Do the steps in this thread, at the end, when no worker can be started.

        :param is_over: whether nothing is left to do.
        :param deadline: by the monotonic clock.
        """
        while (now := time.monotonic()) < deadline:
            with self._monitor.lock:
                if is_over():
                    return

                step = self._pipeline.next_step(now)

            if step:
                _do(step)
            else:
                time.sleep(PAUSE)


def _do(step: Step) -> None:
    try:
        step()
    except Exception:
        logger.exception("Delivering failed in an unexpected way.")
