"""What Flask calls when a request ends: for most requests, this is all that happens."""

from __future__ import annotations

import collections.abc as c
import typing as t

from ..record.context import request_state
from ..record.proxies import active_request, current_g, current_request
from ..visitor.client import CAPABLE, PAGE_DESTINATIONS

if t.TYPE_CHECKING:
    from flask import Flask, Response

    from ..record.manager import Manager
    from ..transport import Transport
    from .flusher import Flusher

AfterRequest: t.TypeAlias = "c.Callable[[Response], Response]"
Teardown: t.TypeAlias = "c.Callable[[BaseException | None], None]"


class _KeepsLast(list[t.Any]):
    """Functions, the last of which stays the last: Flask calls that one first."""

    def append(self, function: t.Any) -> None:
        """Add a function before the last."""
        self.insert(-1, function)


def register(
    app: Flask, flusher: Flusher, background: Transport | None, *, is_active: bool
) -> None:
    """Take part in the end of an app's requests.

    :param background: is told of the first request.
    :param is_active: whether calls go anywhere at all.
    """
    if is_active:
        app.after_request(_make_after_request(flusher, background))

    teardown_request, teardown_appcontext = _make_teardowns(flusher)
    # As if it was registered first, since Flask calls the last one first: the others
    # may track as well.
    app.teardown_request_funcs.setdefault(None, []).insert(0, teardown_request)
    # If one of them raises, the others aren't called, ours neither; but these are.
    app.teardown_appcontext_funcs = _KeepsLast(
        [*app.teardown_appcontext_funcs, teardown_appcontext]
    )


# Plain functions, since Flask looks into what it calls each time.


def _make_after_request(flusher: Flusher, background: Transport | None) -> AfterRequest:
    boots, is_first = flusher.boots, True

    def after_request(response: Response) -> Response:
        nonlocal is_first
        request = current_request()
        environ, state = request.environ, request_state(request)
        manager = state.manager
        # From now on nothing but the server can send what is tracked.
        state.is_answered = True

        if manager is not None:
            manager.close()

        if is_first:
            is_first = False

            if background is not None:
                flusher.resume_spooled(background)

        # Else there are no calls, nothing can wait for it, and it is no page.
        if (
            manager is not None
            or "HTTP_COOKIE" in environ
            or CAPABLE in environ
            or (
                boots
                and environ.get("HTTP_SEC_FETCH_DEST", "document") in PAGE_DESTINATIONS
            )
        ):
            former, state.response_state = state.response_state, None

            try:
                response, state.response_state = flusher.respond(
                    manager, request, response, former
                )
            except Exception as error:
                flusher.abandon_response(manager, error)

        return response

    return after_request


def _make_teardowns(flusher: Flusher) -> tuple[Teardown, Teardown]:
    def teardown_request(_error: BaseException | None) -> None:
        request = active_request()

        if request is not None:
            state = request_state(request)
            response_state, state.response_state = state.response_state, None

            if response_state is not None:
                flusher.conclude(response_state, state.manager)

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
        while (manager := on_g.get("_mengpaneel")) is not None:
            if manager.request in (None, active_request()):
                break

            manager.close()

            if manager.calls:
                flusher.flush_late(manager)

    return teardown_request, teardown_appcontext
