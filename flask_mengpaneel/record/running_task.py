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
    from celery import current_task

    if not current_task:
        return None

    # Celery has no types of its own.
    request: t.Any = current_task.request
    visitor = request.get(header_name(config))
    return visitor if isinstance(visitor, c.Mapping) else None


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
