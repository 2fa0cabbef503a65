"""The Celery task that runs here, and the visitor whom it is for."""

from __future__ import annotations

import collections.abc as c
import typing as t

from .manager import Manager

if t.TYPE_CHECKING:
    from ..config import Config


def header_name(config: Config) -> str:
    """Return the name of the header that has the visitor: apps of several projects may
    share a broker."""
    return f"mengpaneel_visitor_{config.token}"


def passed_on(config: Config) -> c.Mapping[str, t.Any] | None:
    """Return the visitor whom the running task is for; ``None`` if there is no task, or
    nobody whom it is for."""
    from celery._state import _task_stack

    name = header_name(config)

    # One that a task calls or applies has no headers of its own.
    for task in reversed(_task_stack.stack or ()):
        for request in reversed(task.request_stack.stack or ()):
            visitor = request.get(name)

            if isinstance(visitor, c.Mapping):
                return visitor

    return None


def manager_of_task(config: Config) -> Manager | None:
    """Make a manager that is current until the app context ends, for the visitor of the
    running task; ``None`` if there is none."""
    visitor = passed_on(config)

    if visitor is None:
        return None

    manager = Manager(visitor=visitor)
    manager.ends_with_context = True
    manager.make_current()
    return manager
