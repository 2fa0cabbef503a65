"""How many bytes a response's headers have room for, with what is in them already."""

from __future__ import annotations

import typing as t

from ..limits import MAX_OTHER_HEADERS

if t.TYPE_CHECKING:
    from flask import Request, Response

    from ..config import Config
    from ..visitor.visitor import Visitor

# What is added to them: by servers the status line, Date, Server, Connection; by
# Werkzeug Content-Length; with what is carried, Cache-Control and Vary.
_ADDED_LATER = 224

# The library's cookie of a new visitor, without what has led them here.
_LIBRARY_COOKIE = 500


def room_for_calls(
    config: Config,
    request: Request,
    response: Response,
    beside: int,
    *,
    library_cookie: bool,
) -> int:
    """Return the bytes that a header with calls may have beside the others.

    :param beside: bytes of what goes with it: the session's cookie, if it will be
        written, and what says whose calls they are.
    :param library_cookie: whether the library's may be written as well.
    """
    others = beside + _others(config, request, response, library_cookie=library_cookie)
    return config.max_header - max(0, others - MAX_OTHER_HEADERS)


def room_for_session(
    config: Config, request: Request, response: Response, visitor: Visitor
) -> int:
    """Return the bytes that the session's cookie may have beside the other headers."""
    # One who is new gets ids with it.
    introduces = visitor.may_write_cookie and not visitor.browser_identity
    library_cookie = introduces or visitor.consent.choice is not None
    others = _others(config, request, response, library_cookie=library_cookie)
    return MAX_OTHER_HEADERS + max(MAX_OTHER_HEADERS, config.max_header) - others


def _others(
    config: Config, request: Request, response: Response, *, library_cookie: bool
) -> int:
    others = _ADDED_LATER

    for name, value in response.headers:
        others += len(name) + len(value) + 4

    if library_cookie:
        cookie = request.cookies.get(config.shown_cookie_name) or request.cookies.get(
            config.cookie_name, ""
        )
        # What has led to a page is remembered.
        referrer = request.environ.get("HTTP_REFERER", "")
        others += _LIBRARY_COOKIE + len(cookie) + 2 * len(referrer)

    return others
