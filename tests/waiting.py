"""Waiting for something, with a deadline, and clocks that tests set."""

from __future__ import annotations

import collections.abc as c
import time
import typing as t


def wait_until(condition: c.Callable[[], t.Any], seconds: float = 60) -> t.Any:
    """Wait for a condition, and return its value; the last one after the deadline."""
    deadline = time.monotonic() + seconds

    while not (value := condition()) and time.monotonic() < deadline:
        time.sleep(0.01)

    return value


def eventually(condition: c.Callable[[], object], seconds: float = 60) -> None:
    """Wait until something is true, which it has to become."""
    assert wait_until(condition, seconds)


class Clock:
    """In the place of the module ``time``: it stands still unless a test sets it."""

    def __init__(self) -> None:
        self.passed = 0.0

    def monotonic(self) -> float:
        return 1_000_000.0 + self.passed

    def time(self) -> float:
        return 1_700_000_000.0 + self.passed

    def sleep(self, seconds: float) -> None:
        pass
