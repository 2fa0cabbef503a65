"""The Celery task that runs here, and the visitor whom it is for."""

from __future__ import annotations

import collections.abc as c
import typing as t

from flask import has_app_context

from ..proxies import current_g
from .current_app import current_app_state
from .manager import ON_G, Manager

if t.TYPE_CHECKING:
    from flask import Request

    from ..config import Config
    from ..visitor.portable import PortableVisitor


def header_name(config: Config) -> str:
    """Return the name of the header that has the visitor: apps of several projects may
    share a broker."""
    return f"mengpaneel_visitor_{config.token}"


def _known(name: str) -> c.Iterator[t.Any]:
    """Give what the running task, and those that have called or applied it, have under
    a name."""
    from celery._state import _task_stack

    for task in reversed(_task_stack.stack or ()):
        for task_request in reversed(task.request_stack.stack or ()):
            yield task_request.get(name)


def passed_on(config: Config) -> c.Mapping[str, t.Any] | None:
    """Return the visitor whom the running task is for; ``None`` if there is no task, or
    nobody whom it is for."""
    for visitor in _known(header_name(config)):
        if isinstance(visitor, c.Mapping):
            return visitor

    return None


def pass_to_eager(
    task: t.Any, config: Config, request: Request, visitor: PortableVisitor
) -> None:
    """Let a task that runs in a request be for another visitor than the request's."""
    task.request.update({_eager_name(config): (request, visitor)})


def _passed_in(request: Request, config: Config) -> PortableVisitor | None:
    """Return the visitor whom a task that runs in a request is for, if that isn't the
    request's."""
    for passed in _known(_eager_name(config)):
        # A task may make a request of its own, with a test client.
        if passed is not None and passed[0] is request:
            visitor: PortableVisitor = passed[1]
            return visitor

    return None


def _eager_name(config: Config) -> str:
    return f"{header_name(config)}_eager"


def manager_of_task(config: Config, request: Request | None) -> Manager | None:
    """Make a manager that is current until the app context or the task ends, for the
    visitor of the running task; ``None`` if there is none.

    :param request: that in which the task runs, if it does so in one.
    """
    visitor = passed_on(config) if request is None else _passed_in(request, config)

    if visitor is None:
        return None

    task = _traced_request()
    has_ended = task.get(_end_name(config), False)
    manager: Manager | None = task.get(_manager_name(config)) if has_ended else None

    if manager is None:
        manager = Manager(visitor=visitor)
        manager.request = request
        task.update({_manager_name(config): manager})

    if not has_ended:
        current_app_state().running_views.begin_job(manager)
        manager.make_current(current_g().__dict__)
        return manager

    # Some receiver of the app's tracks after ours. Nobody comes to send that, and in
    # this app context the next task is not to find it.
    manager.flush_threshold = 1

    if not manager.is_current:
        manager.make_current({})

    return manager


def leave_task(task: t.Any, config: Config) -> None:
    """Send what a task has tracked, where the app context goes on after it: the next
    task in it may be another visitor's."""
    manager: Manager | None = task.request.get(_manager_name(config))
    task.request.update({_end_name(config): True})

    if (
        manager is not None
        and has_app_context()
        and current_g().__dict__.get(ON_G) is manager
    ):
        manager.close()
        current_app_state().flush_late(manager)


def _traced_request() -> t.Any:
    """Return the request of the task that runs, whose end Celery tells: it says nothing
    of one that is called like a function."""
    from celery._state import _task_stack

    return next(
        task_request
        for task in reversed(_task_stack.stack)
        for task_request in reversed(task.request_stack.stack)
        if not task_request.called_directly
    )


def _manager_name(config: Config) -> str:
    return f"{header_name(config)}_manager"


def _end_name(config: Config) -> str:
    return f"{header_name(config)}_end"
