"""The current request's state, and the manager that calls made here go to."""

from __future__ import annotations

import collections.abc as c
import typing as t

from flask import has_request_context

from ..proxies import current_g, current_request
from ..visitor.client import is_socket
from .current_app import NO_CONTEXT, current_app_state
from .manager import ON_G, Manager
from .running_task import manager_of_task
from .with_blocks import manager_of_block

if t.TYPE_CHECKING:
    from flask import Request

    from ..outcome import Outcome
    from .current_app import AppState

#: Where a request has its state, also for threads that work for it.
_STATE = "_mengpaneel"


class RequestState:
    """The state of a request, from its first call to the end of its response."""

    # Of the class, so that a request that does nothing sets none of them.

    #: The manager of its calls, from the first one on.
    manager: Manager | None = None
    #: Seconds that its client has to acknowledge what it is given, if the request has
    #: its own rule.
    ack_timeout: float | None = None
    #: Whether its response is ready: only the server can send what is tracked now.
    is_answered = False
    #: What has to be known of its response, for those who give it calls to carry.
    response_state: t.Any = None
    #: What has to be known of who has signed in or out, if the app's login says.
    sign_in: t.Any = None
    #: What waited in its session when it came; ``None``: nobody has asked yet.
    waiting_entries: t.Any = None
    #: What has become of its calls until now, while debugging.
    outcomes: c.Sequence[Outcome] = ()


def request_state(request: Request) -> RequestState:
    """Return the state of a request, a new one if it has none yet.

    It isn't in the environment, with which middleware may ask an app twice. There it
    would have to know its request, and what leads back to itself waits for Python's
    garbage collector.
    """
    on_request = request.__dict__

    if _STATE not in on_request:
        # Threads of a request may come at once.
        on_request.setdefault(_STATE, RequestState())

    state: RequestState = on_request[_STATE]
    return state


def current_manager() -> Manager:
    """Return the manager that calls made here belong to.

    A request's is made when it is first needed.

    :raises RuntimeError: this is neither a request nor a ``with Manager():`` block.
    """
    try:
        on_g = current_g().__dict__
    except RuntimeError:
        raise RuntimeError(NO_CONTEXT) from None

    # Asked, as an exception takes 0.4 us of the 5 for each event of a job.
    request = current_request() if has_request_context() else None
    manager: Manager | None = manager_of_block(on_g, request)

    if manager is not None:
        return manager

    manager = on_g.get(ON_G)

    # An app context that was pushed by hand is shared by the requests inside of it,
    # so what lies on `g` may be another unit's.
    if manager is not None and manager.request is request:
        return manager

    app_state = current_app_state()

    # A block that goes on elsewhere, such as a generator, isn't the task's.
    if manager is None and app_state.config.celery_visitor:
        manager = manager_of_task(app_state.config, request)

        if manager is not None:
            return manager

    if request is None:
        raise RuntimeError(
            "Mengpaneel was called outside of a request. Use 'with Manager():' in"
            " scripts, commands and jobs."
        )

    state = request_state(request)
    first = state.manager

    if first is None:
        made = Manager.of_request(app_state, request)
        # Threads of a request may make their first calls at once.
        kept: Manager = state.__dict__.setdefault("manager", made)

        if kept is made:
            if state.is_answered or is_socket(request.environ):
                made.flush_threshold = 1
            else:
                app_state.running_views.begin(made)

            made.make_current(on_g)
            app_state.begin(made)
            return made

        first = kept

    return _of_thread(app_state, state, first, on_g)


def _of_thread(
    app_state: AppState, state: RequestState, first: Manager, on_g: dict[str, t.Any]
) -> Manager:
    """Return the manager of calls that a request makes in another app context than its
    first ones, such as a thread's.

    :param first: that of the first ones.
    """
    is_fork = first.is_current
    manager = first.fork_for_thread() if is_fork else first

    with app_state.running_views.lock:
        other: Manager | None = on_g.get(ON_G)

        # Another thread in this app context may have been here at this moment.
        if other is not None and other.request is first.request:
            return other

        manager.make_current(on_g)

    if is_fork:
        # It ends with the app context, as that of an eager task.
        app_state.running_views.begin_job(manager)

    if state.is_answered:
        # The app context may have ended: a thread goes on with a copy of what is here.
        manager.flush_threshold = 1

    app_state.begin_thread(manager)
    return manager
