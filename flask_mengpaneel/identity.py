"""Random ids, taken from a stock: each call of the system lets other threads run."""

from __future__ import annotations

import os

from . import process

_DIGITS = 32


class _Stock:
    def __init__(self) -> None:
        self._ids: list[str] = []
        self._pid = os.getpid()
        process.on_fork(self)

    def after_fork(self) -> None:
        # What the parent process has in stock is the parent's.
        self._ids.clear()
        self._pid = os.getpid()

    def take(self) -> str:
        """Give 32 random hexadecimal digits that nobody has had before."""
        # Some servers, such as uWSGI, fork without telling Python.
        if self._pid != os.getpid():
            self.after_fork()

        try:
            return self._ids.pop()
        except IndexError:
            digits = os.urandom(256 * _DIGITS // 2).hex()
            fresh = [digits[at : at + _DIGITS] for at in range(0, len(digits), _DIGITS)]
            one = fresh.pop()
            self._ids += fresh
            return one


hex_id = _Stock().take
