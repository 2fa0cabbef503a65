"""What is behind Flask's proxies, which look it up again at each use."""

from __future__ import annotations

import collections.abc as c
import typing as t

from flask import current_app, g, request

if t.TYPE_CHECKING:
    from flask import Flask, Request

current_request: c.Callable[[], Request]
current_request = request._get_current_object  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
current_flask: c.Callable[[], Flask]
current_flask = current_app._get_current_object  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
current_g: c.Callable[[], t.Any]
current_g = g._get_current_object


def active_request() -> Request | None:
    """Return the request, if there is one."""
    try:
        return current_request()
    except RuntimeError:
        return None
