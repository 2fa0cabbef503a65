"""What Flask calls when a request ends: for most requests, this is all that happens."""

from __future__ import annotations

import collections.abc as c
import typing as t

from ..mistakes import of_running_app
from ..proxies import active_request, current_flask, current_g, current_request
from ..record.context import request_state
from ..record.errors import handle_error
from ..record.manager import ON_G
from ..visitor.client import CAPABLE, may_show_page
from .advice import advise, is_proxy_settled
from .explaining import add_header, listen

if t.TYPE_CHECKING:
    from flask import Flask, Response

    from ..config import Config
    from ..record.manager import Manager
    from .flusher import Flusher
    from .sign_in import SignIn

AfterRequest: t.TypeAlias = "c.Callable[[Response], Response]"
Teardown: t.TypeAlias = "c.Callable[[BaseException | None], None]"


# Flask looks into each function that it calls: 9 steps of the 43 that a request without
# a call takes, and for most there is nothing to do at its end. Ours are in these lists
# as all others are, for those who copy them, wrap each, or look what there is.


class _RequestTeardowns(list[t.Any]):
    """The functions that Flask calls when a request ends, the last one first, and ours
    after all others, if it is needed then: they may track as well.

    :param find_own: returns ours, if it has anything to do.
    """

    def __init__(
        self, others: c.Iterable[t.Any], find_own: c.Callable[[], Teardown | None]
    ) -> None:
        def own(error: BaseException | None) -> None:
            found = find_own()

            if found is not None:
                found(error)

        super().__init__((own, *others))
        self._own = own
        self._find_own = find_own

    def __reversed__(self) -> c.Iterator[t.Any]:
        own = self._own

        for function in super().__reversed__():
            if function is not own:
                yield function

        found = self._find_own()

        if found is not None:
            yield found


class _ContextTeardowns(list[t.Any]):
    """The functions that Flask calls when an app context ends, the last one first, and
    ours before all others, if it is needed.

    If one of a request's raises, the others aren't called, ours neither; but these are.
    Ours comes again after those that have tracked, as they may within a view.
    """

    def __init__(self, others: c.Iterable[t.Any], own: Teardown) -> None:
        super().__init__((*others, own))
        self._own = own

    def __reversed__(self) -> c.Iterator[t.Any]:
        functions, own = super().__reversed__(), self._own

        try:
            on_g = current_g().__dict__
        except RuntimeError:
            # None ends: somebody looks which functions there are.
            yield from functions
            return

        if ON_G in on_g:
            yield own

        for function in functions:
            if function is not own:
                yield function

        if ON_G in on_g:
            yield own


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

        # With `app.run(debug=True)` it is after the first request that one knows.
        if app.debug:
            listen(app)

    functions = app.teardown_request_funcs
    functions[None] = _RequestTeardowns(
        functions.get(None, ()), _make_teardown_finder(flusher)
    )
    app.teardown_appcontext_funcs = _ContextTeardowns(
        app.teardown_appcontext_funcs, _make_teardown_appcontext(flusher)
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

        # From now on nothing but the server can send what is tracked. Said first, for
        # a thread that makes the first call at this moment.
        state.is_answered = True
        manager = state.manager

        if manager is not None:
            manager.close()

        if is_first:
            is_first = False
            advise(of_running_app(current_flask(), config))

            if current_flask().debug:
                explains, flusher.explain = True, flusher.explain or add_header
                listen(current_flask())

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


def _make_teardown_finder(flusher: Flusher) -> c.Callable[[], Teardown | None]:
    def find_teardown_request() -> Teardown | None:
        request = active_request()
        state = None if request is None else request_state(request)

        # A manager isn't on `g` any more if the response was made, unless something was
        # tracked after it.
        if (
            state is not None
            and state.response_state is None
            and (state.manager is None or ON_G not in current_g().__dict__)
        ):
            return None

        def teardown_request(_error: BaseException | None) -> None:
            if state is not None:
                response_state, state.response_state = state.response_state, None

                if response_state is not None:
                    flusher.conclude(response_state, state.manager)

                if state.manager is None:
                    return

            manager: Manager | None = current_g().__dict__.get(ON_G)

            if manager is not None and manager.request is request:
                manager.close()

                if manager.calls:
                    flusher.flush_late(manager)

        return teardown_request

    return find_teardown_request


def _make_teardown_appcontext(flusher: Flusher) -> Teardown:
    def teardown_appcontext(_error: BaseException | None) -> None:
        on_g = current_g().__dict__

        # Those of requests that have ended, which may share an app context, and of what
        # ends with this one: a thread of a request, a task.
        while ON_G in on_g:
            manager: Manager = on_g[ON_G]
            request = active_request()
            state = None if request is None else request_state(request)

            if state is not None and state.manager is manager:
                # The request goes on in the app context around this one, unless that
                # has ended before: a thread may take longer.
                manager.leave_context()

                if state.is_answered and manager.calls:
                    flusher.flush_late(manager)

                break

            manager.close()

            if manager.calls:
                flusher.flush_late(manager)

    return teardown_appcontext
