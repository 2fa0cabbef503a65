"""The ``with Manager():`` blocks around the code that runs.

They aren't on ``g``: the tasks of a request share that, and each may have a block of
its own, which it leaves when it likes.
"""

from __future__ import annotations

import typing as t
from contextvars import ContextVar

from .proxies import active_request, current_g

if t.TYPE_CHECKING:
    from flask import Request


class BlockManager(t.Protocol):
    """The manager of a block."""

    #: The request that the block is in, if any.
    request: Request | None

    @property
    def is_current(self) -> bool:
        """Whether it is in use."""
        ...


class _Block(t.NamedTuple):
    """A block, the app context that it was begun in, and the block around it."""

    manager: BlockManager
    on_g: dict[str, t.Any]
    outer: _Block | None


_innermost: ContextVar[_Block | None] = ContextVar("mengpaneel_block", default=None)


def enter_block(manager: BlockManager) -> None:
    """Let a manager get the calls that are made by this code from now on."""
    manager.request = active_request()
    _innermost.set(_Block(manager, current_g().__dict__, _innermost.get()))


def leave_block(manager: BlockManager) -> None:
    """Let the block around it go on."""
    block = _innermost.get()

    # A generator's may be left where it wasn't begun.
    if block is not None and block.manager is manager:
        _innermost.set(block.outer)


def manager_of_block(on_g: dict[str, t.Any], request: Request | None) -> t.Any:
    """Return the manager of the block that this code is in, if any.

    An app context that is pushed in a block, and a request that is made in it, are no
    parts of it. What was started in a block may outlast it.
    """
    block = _innermost.get()

    while block is not None:
        manager = block.manager

        if block.on_g is on_g and manager.request is request and manager.is_current:
            return manager

        block = block.outer

    return None
