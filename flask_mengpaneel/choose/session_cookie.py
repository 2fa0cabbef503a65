"""The cookie of the app's session: how large it gets, and whether it comes back.

Flask's own session is known; what other extensions put in its place is tried.
"""

from __future__ import annotations

import contextlib
import time
import typing as t
import weakref
import zlib

from flask import current_app
from flask.globals import app_ctx
from flask.sessions import (
    SecureCookieSessionInterface,
    SessionInterface,
    SessionMixin,
)
from werkzeug.http import dump_cookie

from ..limits import MAX_SESSION_COOKIE_BYTES

if t.TYPE_CHECKING:
    from flask import Request, Response

#: Bytes of a cookie that says where a session is.
_SESSION_ID = 256

#: The interfaces that are known to keep no data in the cookie.
_SERVER_SIDE: weakref.WeakSet[SessionInterface] = weakref.WeakSet()


def session_comes_back(
    request: Request, response: Response, *, is_written: bool
) -> bool:
    """Whether the next request comes with the session as it is now, after a response
    whose headers are complete.

    The session's interface may have decided against its cookie, and what runs after
    the extension may have deleted it.

    :param is_written: whether the session was changed in this request, and so doesn't
        come back without a new cookie.
    """
    app = current_app
    interface = app.session_interface
    name = interface.get_cookie_name(app)

    lines = [
        line
        for line in response.headers.getlist("Set-Cookie")
        if line.partition("=")[0].strip() == name
    ]
    cleared = response.headers.get("Clear-Site-Data", "")

    if '"cookies"' in cleared or "*" in cleared:
        return False

    if not lines:
        return not is_written or (interface in _SERVER_SIDE and name in request.cookies)

    value = lines[-1].partition("=")[2].partition(";")[0]
    return value.strip('" ') != ""


def has_session() -> bool:
    """Whether the app has sessions: by default they need ``SECRET_KEY``."""
    return not current_app.session_interface.is_null_session(current_session())


def fits_session(name: str, text: str, room: int) -> bool:
    """Whether the session has room for a text beside what is in it.

    :param name: of the text in the session.
    :param room: bytes that its cookie may have beside the other headers.
    """
    interface = current_app.session_interface
    data = read_session(current_session()) | {name: text}
    largest = current_app.config["MAX_COOKIE_SIZE"] or MAX_SESSION_COOKIE_BYTES
    limit = min(largest, MAX_SESSION_COOKIE_BYTES, room)

    if isinstance(interface, SecureCookieSessionInterface):
        return _signed_size(interface, data) <= limit

    if interface in _SERVER_SIDE:
        return True

    size = _try_size(interface, data)

    # Not even random data is packed into less than a compressor needs.
    if size < len(zlib.compress(text.encode())) // 2:
        _SERVER_SIDE.add(interface)

    return 0 < size <= limit


def expected_size(*, is_changed: bool) -> int:
    """Return the bytes that the session's cookie adds to the response.

    :param is_changed: whether the session was changed in the extension's own matters,
        so that the response has its cookie, whatever the app does.
    """
    interface, stored = current_app.session_interface, current_session()
    accessed = stored.accessed

    try:
        has_cookie = is_changed or interface.should_set_cookie(current_app, stored)
    finally:
        stored.accessed = accessed

    if not has_cookie:
        return 0

    if isinstance(interface, SecureCookieSessionInterface):
        return _signed_size(interface, read_session(stored))

    return _SESSION_ID


def _signed_size(
    interface: SecureCookieSessionInterface, data: dict[str, t.Any]
) -> int:
    serializer = interface.get_signing_serializer(current_app)

    if serializer is None:
        return 0

    return len(_cookie(interface, str(serializer.dumps(data))))


def _cookie(interface: SecureCookieSessionInterface, value: str) -> str:
    """Return the line that Flask writes, with every attribute that it has there."""
    app = current_app
    # Since Flask 3.1.
    partitions = getattr(interface, "get_cookie_partitioned", None)
    options = {"partitioned": True} if partitions and partitions(app) else {}
    return dump_cookie(
        interface.get_cookie_name(app),
        value,
        expires=time.time(),
        domain=interface.get_cookie_domain(app),
        path=interface.get_cookie_path(app),
        secure=interface.get_cookie_secure(app),
        httponly=interface.get_cookie_httponly(app),
        samesite=interface.get_cookie_samesite(app),
        max_size=0,
        **options,
    )


def _try_size(interface: SessionInterface, data: dict[str, t.Any]) -> int:
    """Measure the cookie that an interface would write for a session with this data:
    it writes one, for a response that isn't sent.

    Afterwards the session is as before, also where the interface keeps it.

    :return: its bytes; 0 if it writes none.
    """
    stored = current_session()
    before = read_session(stored), stored.modified, stored.accessed
    response = current_app.response_class()
    name = interface.get_cookie_name(current_app)

    try:
        _refill(stored, data)
        interface.save_session(current_app, stored, response)
        lines = [
            line
            for line in response.headers.getlist("Set-Cookie")
            if line.partition("=")[0].strip() == name
        ]
        return max(map(len, lines), default=0)
    finally:
        _refill(stored, before[0])

        # What it keeps on a server would wait there for good.
        with contextlib.suppress(Exception):
            interface.save_session(current_app, stored, current_app.response_class())

        stored.modified, stored.accessed = before[1:]


def _refill(session: SessionMixin, data: dict[str, t.Any]) -> None:
    session.clear()
    session.update(data)
    session.modified = True


def read_session(session: SessionMixin) -> dict[str, t.Any]:
    """Return what is in a session, without marking it as accessed."""
    accessed = session.accessed

    try:
        return dict(session)
    finally:
        session.accessed = accessed


def current_session() -> SessionMixin:
    """Return the session itself, not what is before it.

    :data:`flask.session` marks it as accessed since Flask 3.1.3, for which Flask adds
    ``Vary: Cookie``. Where the context keeps it depends on Flask's version.
    """
    context = app_ctx._get_current_object()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    session = getattr(context, "_session", None)

    if session is None:
        from flask.globals import request_ctx

        context = request_ctx._get_current_object()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
        session = getattr(context, "_session", None)

        if session is None:
            session = context.session

    return t.cast(SessionMixin, session)
