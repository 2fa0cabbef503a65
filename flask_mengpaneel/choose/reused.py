"""Responses that the app has kept of a request, and gives as the answer to another."""

from __future__ import annotations

import collections.abc as c
import typing as t

from ..proxies import current_flask
from . import injection
from .carrier import (
    CALLS_HEADER,
    OWN_HEADERS,
    Carrier,
    copy_response,
    forget_rules,
    lines_of_cookie,
    name_of_cookie,
)

if t.TYPE_CHECKING:
    from flask import Response

    from ..config import Config

_CALLS_HEADER = CALLS_HEADER.lower()

#: How the cookie of a visitor begins that the extension writes: JSON, quoted. What an
#: app deletes has no value.
_JSON = "%7B"


def is_reused(
    response: Response,
    headers: c.Container[str],
    config: Config,
    may_have_snippet: bool,
) -> bool:
    """Whether a response has something that the visitor of another request was given.

    :param headers: those of the response; names in lower case.
    :param may_have_snippet: whether it is a page that loads the browser library.
    """
    return (
        _CALLS_HEADER in headers
        or ("set-cookie" in headers and _has_cookie(response, config))
        or (may_have_snippet and injection.has_snippet(response))
    )


def _has_cookie(response: Response, config: Config) -> bool:
    """Whether a response sets a cookie for the extension: its own, or a session's for
    what waits in it."""
    return isinstance(response, Carrier) or any(
        line.partition("=")[2].startswith(_JSON)
        for name in (config.cookie_name, config.shown_cookie_name)
        for line in lines_of_cookie(response, name)
    )


def without_carried(response: Response, config: Config) -> Response:
    """Return a copy of a response without what somebody else was given with it."""
    copied = copy_response(response)
    forget_rules(copied)

    for name in OWN_HEADERS:
        del copied.headers[name]

    cookies = copied.headers.getlist("Set-Cookie")
    app = current_flask()
    # The session is theirs as well: it may have been written for the calls in it.
    theirs = (
        config.cookie_name,
        config.shown_cookie_name,
        app.session_interface.get_cookie_name(app),
    )
    kept = [line for line in cookies if name_of_cookie(line) not in theirs]

    if len(kept) < len(cookies):
        copied.headers.setlist("Set-Cookie", kept)

    if injection.has_snippet(copied):
        injection.remove_snippet(copied)

    return copied
