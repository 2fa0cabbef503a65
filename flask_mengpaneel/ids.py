"""Random ids, taken from a stock: each call of the system lets other threads run."""

from __future__ import annotations

import os

_SIZE = 32

_stock: list[str] = []
_pid = 0


def hex_id() -> str:
    """Give 32 random hexadecimal digits that nobody has had before."""
    global _pid

    if _pid != os.getpid():
        # What the parent process has in stock is the parent's.
        _stock.clear()
        _pid = os.getpid()

    try:
        return _stock.pop()
    except IndexError:
        digits = os.urandom(256 * _SIZE // 2).hex()
        fresh = [digits[at : at + _SIZE] for at in range(0, len(digits), _SIZE)]
        one = fresh.pop()
        _stock.extend(fresh)
        return one
