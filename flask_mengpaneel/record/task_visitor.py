"""The visitor of a request, in the Celery tasks that it starts."""

from __future__ import annotations

import collections.abc as c
import typing as t
import weakref

from ..proxies import active_request, current_flask, current_g
from .context import current_manager
from .running_task import header_name, leave_task, pass_to_eager, passed_on
from .with_blocks import manager_of_block

if t.TYPE_CHECKING:
    from flask import Flask

    from ..config import Config

#: The names of the extension's own tasks, which have their visitors inside.
_OWN = "flask_mengpaneel."


def take_along(app: Flask, config: Config) -> None:
    """Let each task that a request of an app starts, or a task of such a request, take
    the visitor along: in a header of its message."""
    from celery.signals import before_task_publish, task_postrun, task_prerun

    reference, name = weakref.ref(app), header_name(config)

    def add_visitor(
        sender: object, headers: dict[str, t.Any] | None = None, **_: object
    ) -> None:
        if headers is None or str(sender).startswith(_OWN):
            return

        if active_request() is None:
            visitor = passed_on(config)
        elif current_flask() is reference():
            visitor = _visitor_here()
        else:
            return

        if visitor is not None:
            headers[name] = dict(visitor)

    def keep_visitor(task: t.Any, **_: object) -> None:
        # One that runs in its request has no message. It is a part of the request, and
        # of a block there.
        if (
            task.request.is_eager
            and (request := active_request()) is not None
            and current_flask() is reference()
            and (block := manager_of_block(current_g().__dict__, request)) is not None
        ):
            pass_to_eager(task, config, request, block.take_visitor())

    def leave_visitor(task: t.Any, **_: object) -> None:
        leave_task(task, config)

    for signal, receiver in (
        (before_task_publish, add_visitor),
        (task_prerun, keep_visitor),
        (task_postrun, leave_visitor),
    ):
        signal.connect(receiver, weak=False)
        weakref.finalize(app, signal.disconnect, receiver)


def _visitor_here() -> c.Mapping[str, str]:
    return current_manager().take_visitor().to_json()
