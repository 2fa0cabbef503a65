"""The current request's state, and the manager that calls made here go to."""

from __future__ import annotations

import typing as t

from .manager import NO_CONTEXT, Manager, current_app_state
from .proxies import current_g, current_request

if t.TYPE_CHECKING:
    from flask import Request

#: Where an environment has the state of its request, also for threads that work for
#: it, and while its body is streamed.
_STATE = "flask_mengpaneel"


class RequestState:
    """The state of a request, from its first call to the end of its response."""

    __slots__ = ("ack_timeout", "is_answered", "manager", "request", "response_state")

    def __init__(self, request: Request) -> None:
        self.request = request
        #: The manager of its calls, from the first one on.
        self.manager: Manager | None = None
        #: Seconds that its client has to acknowledge what it is given, if the request
        #: has its own rule.
        self.ack_timeout: float | None = None
        #: Whether its response is ready: only the server can send what is tracked now.
        self.is_answered = False
        #: What has to be known of its response, for those who give it calls to carry.
        self.response_state: t.Any = None


def request_state(request: Request) -> RequestState:
    """Return the state of a request, a new one if it has none yet.

    Middleware may ask an app twice with one environment: the other request's state is
    not this one's.
    """
    state: RequestState | None = request.environ.get(_STATE)

    if state is None or state.request is not request:
        state = request.environ[_STATE] = RequestState(request)

    return state


def current_manager() -> Manager:
    """Return the manager that calls made here belong to.

    A request's is made when it is first needed.

    :raises RuntimeError: this is neither a request nor a ``with Manager():`` block.
    """
    try:
        manager: Manager | None = current_g().__dict__.get("_mengpaneel")
    except RuntimeError:
        raise RuntimeError(NO_CONTEXT) from None

    try:
        request = current_request()
    except RuntimeError:
        request = None

    # An app context that was pushed by hand is shared by the requests inside of it,
    # so what lies on `g` may be another unit's.
    if manager is not None and manager.request is request:
        return manager

    app_state = current_app_state()

    if request is None:
        raise RuntimeError(
            "Mengpaneel was called outside of a request. Use 'with Manager():' in"
            " scripts, commands and jobs."
        )

    state = request_state(request)
    manager = state.manager

    if manager is None:
        manager = state.manager = Manager.of_request(app_state, request)

        if state.is_answered or _is_socket(request):
            manager.flush_threshold = 1
        else:
            app_state.running_views.begin(manager)
    elif manager.is_current:
        manager = manager.fork_for_thread()

    manager.make_current()
    return manager


def _is_socket(request: Request) -> bool:
    """Return whether it asks for a WebSocket: no response of that could carry calls."""
    upgrade: str = request.environ.get("HTTP_UPGRADE", "")
    return bool(upgrade) and upgrade.lower() == "websocket"
