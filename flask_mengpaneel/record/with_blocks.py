"""The ``with Manager():`` blocks around the code that runs.

They aren't on ``g``: the tasks of a request share that, and each may have a block of
its own, which it leaves when it likes.
"""

from __future__ import annotations

import collections.abc as c
import typing as t
from contextvars import ContextVar

from ..proxies import active_request, current_g

if t.TYPE_CHECKING:
    from flask import Request


class Block:
    """A block, in the app context and the request that it was begun in.

    :param manager: gets the calls that are made in it.
    """

    __slots__ = ("manager", "on_g", "request")

    def __init__(self, manager: object) -> None:
        self.manager: t.Any = manager
        self.on_g: dict[str, t.Any] | None = current_g().__dict__
        self.request: Request | None = active_request()

    def leave(self) -> None:
        """Get no more calls, wherever it is left: a generator's may be left where it
        wasn't begun."""
        # What was started in it may outlast it, and would keep all that for as long.
        self.manager = self.on_g = self.request = None
        _blocks.set(_open())


#: Those that were begun here, the innermost last.
_blocks: ContextVar[tuple[Block, ...]] = ContextVar("mengpaneel_blocks", default=())


def enter_block(manager: object) -> Block:
    """Let a manager get the calls that are made by this code from now on."""
    block = Block(manager)
    _blocks.set((*_open(), block))
    return block


def _open() -> tuple[Block, ...]:
    return tuple(block for block in _blocks.get() if block.manager is not None)


def managers_of_jobs() -> c.Iterator[t.Any]:
    """Give the managers of the blocks that this code is in, in any app context, and not
    in a request."""
    return (block.manager for block in _open() if block.request is None)


def manager_of_block(on_g: dict[str, t.Any], request: Request | None) -> t.Any:
    """Return the manager of the block that this code is in, if any.

    An app context that is pushed in a block, and a request that is made in it, are no
    parts of it.
    """
    for block in reversed(_blocks.get()):
        if block.on_g is on_g and block.request is request:
            return block.manager

    return None
