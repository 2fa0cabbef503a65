"""The visitor of a request, in the Celery tasks that it starts."""

from __future__ import annotations

import collections.abc as c
import typing as t
import weakref

from .context import current_manager
from .proxies import active_request, current_flask
from .running_task import header_name, passed_on

if t.TYPE_CHECKING:
    from flask import Flask

    from ..config import Config

#: The names of the extension's own tasks, which have their visitors inside.
_OWN = "flask_mengpaneel."


def take_along(app: Flask, config: Config) -> None:
    """Let each task that a request of an app starts, or a task of such a request, take
    the visitor along: in a header of its message."""
    from celery.signals import before_task_publish

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

    before_task_publish.connect(add_visitor, weak=False)
    weakref.finalize(app, before_task_publish.disconnect, add_visitor)


def _visitor_here() -> c.Mapping[str, str]:
    return current_manager().take_visitor().to_json()
