"""What Flask calls when a request ends: for most requests, this is all that happens."""

from __future__ import annotations

import collections.abc as c
import itertools
import typing as t

from ..mistakes import of_running_app
from ..record.context import request_state
from ..record.errors import handle_error
from ..record.proxies import active_request, current_flask, current_g, current_request
from ..visitor.client import CAPABLE, may_show_page
from .advice import advise, is_proxy_settled
from .explaining import add_header

if t.TYPE_CHECKING:
    from flask import Flask, Response

    from ..config import Config
    from ..record.context import RequestState
    from ..record.manager import Manager
    from .flusher import Flusher
    from .sign_in import SignIn

AfterRequest: t.TypeAlias = "c.Callable[[Response], Response]"
Teardown: t.TypeAlias = "c.Callable[[BaseException | None], None]"


class _ContextTeardowns(list[t.Any]):
    """The functions that Flask calls when an app context ends, the last one first.

    Ours is the first of all, and only called where it has something to do: Flask looks
    into each function that it calls, which is 12 of the 43 steps of a request without a
    call.
    """

    def __init__(self, functions: c.Iterable[t.Any], own: Teardown) -> None:
        super().__init__(functions)
        self._own = own

    def __reversed__(self) -> c.Iterator[t.Any]:
        functions = super().__reversed__()

        if "_mengpaneel" in current_g().__dict__:
            return itertools.chain((self._own,), functions)

        return functions


def register(
    app: Flask,
    flusher: Flusher,
    serve_first: c.Callable[[], None],
    sign_in: SignIn | None,
    config: Config,
) -> None:
    """Take part in the end of an app's requests.

    :param serve_first: is called with the first request.
    :param sign_in: says who it is, before the response is given anything.
    """
    if config.active:
        app.after_request(_make_after_request(flusher, serve_first, sign_in, config))

    teardown_request, teardown_appcontext = _make_teardowns(flusher)
    # As if it was registered first, since Flask calls the last one first: the others
    # may track as well.
    app.teardown_request_funcs.setdefault(None, []).insert(0, teardown_request)
    # If one of them raises, the others aren't called, ours neither; but these are.
    app.teardown_appcontext_funcs = _ContextTeardowns(
        app.teardown_appcontext_funcs, teardown_appcontext
    )


# Plain functions, since Flask looks into what it calls each time.


def _make_after_request(
    flusher: Flusher,
    serve_first: c.Callable[[], None],
    sign_in: SignIn | None,
    config: Config,
) -> AfterRequest:
    boots, is_first, watches_proxies, explains = flusher.boots, True, True, False

    def after_request(response: Response) -> Response:
        nonlocal is_first, watches_proxies, explains
        request = current_request()
        environ, state = request.environ, request_state(request)

        if sign_in is not None:
            sign_in.before_response(request, state, response)

        manager = state.manager
        # From now on nothing but the server can send what is tracked.
        state.is_answered = True

        if manager is not None:
            manager.close()

        if is_first:
            is_first = False
            advise(of_running_app(current_flask(), config))

            if current_flask().debug:
                explains, flusher.explain = True, flusher.explain or add_header

            _serve_first(serve_first)

        # Else there are no calls, nothing can wait for it, and it is no page.
        if (
            manager is not None
            or "HTTP_COOKIE" in environ
            or CAPABLE in environ
            or explains
            or (boots and may_show_page(environ))
        ):
            former, state.response_state = state.response_state, None

            try:
                if watches_proxies and (
                    "HTTP_X_FORWARDED_FOR" in environ
                    or "HTTP_X_FORWARDED_PROTO" in environ
                    or "HTTP_FORWARDED" in environ
                ):
                    app = current_flask()
                    watches_proxies = not is_proxy_settled(app, config, environ)

                response, state.response_state = flusher.respond(
                    manager, request, response, former
                )
            except Exception as error:
                flusher.abandon_response(manager, error)

        return response

    return after_request


def _serve_first(serve_first: c.Callable[[], None]) -> None:
    try:
        serve_first()
    except Exception as error:
        what = "what other processes left could not be sent"
        handle_error(current_flask(), what, error)


def _make_teardowns(flusher: Flusher) -> tuple[Teardown, Teardown]:
    def teardown_request(_error: BaseException | None) -> None:
        request = active_request()

        if request is not None:
            state = request_state(request)
            response_state, state.response_state = state.response_state, None

            if response_state is not None:
                flusher.conclude(response_state, state.manager)

            if state.manager is None:
                return

        manager: Manager | None = current_g().__dict__.get("_mengpaneel")

        # It isn't there any more if the response was made, unless something was
        # tracked after it.
        if manager is not None and manager.request is request:
            manager.close()

            if manager.calls:
                flusher.flush_late(manager)

    def teardown_appcontext(_error: BaseException | None) -> None:
        on_g = current_g().__dict__

        # Those of requests that have ended; requests may share an app context.
        while "_mengpaneel" in on_g:
            manager: Manager = on_g["_mengpaneel"]
            request = active_request()

            if manager.request in (None, request) and not manager.ends_with_context:
                if request is not None:
                    _leave_context(manager, request_state(request), flusher)

                break

            manager.close()

            if manager.calls:
                flusher.flush_late(manager)

    return teardown_request, teardown_appcontext


def _leave_context(manager: Manager, state: RequestState, flusher: Flusher) -> None:
    """Let a request go on in the app context around one that ends."""
    if state.manager is not manager:
        return

    manager.leave_context()

    # Unless that one has ended before: a thread may take longer.
    if state.is_answered and manager.calls:
        flusher.flush_late(manager)
