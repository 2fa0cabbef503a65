"""What was seen lately, by a process that can't remember everything."""

from __future__ import annotations

import collections
import collections.abc as c
import contextlib
import threading
import typing as t

from . import process

Value = t.TypeVar("Value")


class Memory(t.Generic[Value]):
    """What is remembered of things; those seen longest ago are to be forgotten.

    :param max_things: how many things are remembered.
    """

    def __init__(self, max_things: int) -> None:
        self._seen: collections.OrderedDict[t.Any, Value] = collections.OrderedDict()
        self._max_things = max_things
        self._lock = threading.Lock()
        process.on_fork(self)

    def after_fork(self) -> None:
        """Go on in a child process: another thread of the parent may have the lock."""
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def paused(self) -> c.Iterator[None]:
        """Forget afterwards what is seen within the block."""
        with self._lock:
            seen = self._seen.copy()

        try:
            yield
        finally:
            with self._lock:
                self._seen = seen


class RecentlySeen(Memory[int]):
    """Counts how often things were seen."""

    def count(self, thing: t.Any) -> int:
        """Count a thing as seen once more; return how often it was seen before."""
        with self._lock:
            before = self._seen.pop(thing, 0)
            self._seen[thing] = before + 1

            if len(self._seen) > self._max_things:
                self._seen.popitem(last=False)

            return before

    def __contains__(self, thing: object) -> bool:
        """Whether a thing was seen, as far as that is remembered."""
        with self._lock:
            return thing in self._seen
