"""The cookie of the app's session: how large it gets, and whether it comes back.

Flask's own session is known; what other extensions put in its place is tried.
"""

from __future__ import annotations

import collections.abc as c
import contextlib
import time
import typing as t
import weakref
import zlib

import flask.globals
from flask import current_app
from flask.globals import app_ctx
from flask.sessions import (
    SecureCookieSessionInterface,
    SessionInterface,
    SessionMixin,
    session_json_serializer,
)
from werkzeug.http import dump_cookie

from ..asking import undisturbed
from ..limits import MAX_SESSION_COOKIE_BYTES
from ..proxies import current_flask, current_request
from ..session_settings import is_partitioned
from .carrier import lines_of_cookie, name_of_cookie

if t.TYPE_CHECKING:
    from flask import Flask, Request, Response

# What keeps the session: newer versions of Flask have no context for the request alone.
_current_context: c.Callable[[], t.Any]
_current_context = vars(flask.globals).get("request_ctx", app_ctx)._get_current_object

#: Bytes of a cookie that says where a session is.
_SESSION_ID = 256

#: Bytes of a signature of any length, and of the attributes whose values don't vary.
_MAX_BESIDE = 512

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
    app = current_flask()
    interface = app.session_interface
    name = interface.get_cookie_name(app)

    line = None

    # One pass: each question to the headers themselves would be one more.
    for key, value in response.headers:
        key = key.lower()

        if key == "clear-site-data" and clears_cookies(value):
            return False

        if key == "set-cookie" and name_of_cookie(value) == name:
            line = value

    if line is None:
        return not is_written or (interface in _SERVER_SIDE and name in request.cookies)

    return line.partition("=")[2].partition(";")[0].strip('" ') != ""


def clears_cookies(site_data: str) -> bool:
    """Whether a ``Clear-Site-Data`` header lets the browser delete its cookies.

    https://www.w3.org/TR/clear-site-data/#header
    """
    return '"cookies"' in site_data or "*" in site_data


def is_strict() -> bool:
    """Whether browsers leave the session's cookie out where another site has led them
    to the app."""
    app = current_app
    samesite = app.session_interface.get_cookie_samesite(app)
    return str(samesite).lower() == "strict"


def has_session() -> bool:
    """Whether the app has sessions: by default they need ``SECRET_KEY``."""
    return not current_flask().session_interface.is_null_session(current_session())


def is_session_unread(request: Request) -> bool:
    """Whether the cookie of the session came along and nothing could be read from it.

    It may be the session of another app on this host, for which a new cookie in its
    place would be the end. If this app has changed its session, that writes one anyway.
    """
    app, stored = current_flask(), current_session()
    name = app.session_interface.get_cookie_name(app)
    return name in request.cookies and not stored.modified and not read_session(stored)


def is_session_emptied(request: Request) -> bool:
    """Whether the app has emptied the session, and it ends with that: an interface that
    keeps it on a server deletes it there, and makes a new one with an id of its own.

    With calls in it, it would go on under the id of who has signed out.
    """
    stored = current_session()

    if not stored.modified:
        return False

    app = current_flask()
    interface = app.session_interface

    if (
        _is_flasks_own(interface)
        or interface.get_cookie_name(app) not in request.cookies
        # It says itself whether it is empty: some keep marks of their own in it.
        or stored
    ):
        return False

    # For some interfaces each session is modified, a new one as well.
    return bool(stored_session(app, request))


def commits_database(interface: SessionInterface) -> bool:
    """Whether to save a session commits what a view has left uncommitted.

    Flask-Session's SQLAlchemy interface keeps it by the app's own database session.
    """
    return hasattr(interface, "sql_session_model")


def _is_flasks_own(
    interface: SessionInterface,
) -> t.TypeGuard[SecureCookieSessionInterface]:
    # Many interfaces are derived from Flask's and write a cookie of their own.
    kind = SecureCookieSessionInterface
    return (
        isinstance(interface, kind)
        and type(interface).save_session is kind.save_session
    )


def refreshes_cookie() -> bool:
    """Whether the session's cookie is written although nothing has changed in the
    session."""
    app, stored = current_flask(), current_session()
    interface = app.session_interface

    if not stored.permanent or not app.config["SESSION_REFRESH_EACH_REQUEST"]:
        return False

    if _is_flasks_own(interface):
        return True

    marks = stored.modified, stored.accessed
    response = app.response_class()
    stored.modified = False

    # One that fails will fail again, and then the response isn't sent.
    with contextlib.suppress(Exception):
        interface.save_session(app, stored, response)

    stored.modified, stored.accessed = marks
    return bool(lines_of_cookie(response, interface.get_cookie_name(app)))


def fits_session(name: str, text: str, room: int) -> bool:
    """Whether the session has room for a text beside what is in it.

    :param name: of the text in the session.
    :param room: bytes that its cookie may have beside the other headers.
    """
    app = current_flask()
    interface = app.session_interface
    stored = read_session(current_session())
    data = stored | {name: text}
    largest = app.config["MAX_COOKIE_SIZE"] or MAX_SESSION_COOKIE_BYTES
    limit = min(largest, MAX_SESSION_COOKIE_BYTES, room)

    if _is_flasks_own(interface):
        return (
            _is_small(interface, stored, name + text, limit)
            or _signed_size(interface, data) <= limit
        )

    # There are limits on servers too: what is large is tried each time.
    if interface in _SERVER_SIDE and len(text) <= MAX_SESSION_COOKIE_BYTES:
        return True

    size, is_kept = _try_session(interface, data, name)

    # Not even random data is packed into less than a compressor needs.
    if is_kept or 0 < size < len(zlib.compress(text.encode())) // 2:
        _SERVER_SIDE.add(interface)

    return is_kept or 0 < size <= limit


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


def _is_small(
    interface: SecureCookieSessionInterface,
    stored: dict[str, t.Any],
    text: str,
    limit: int,
) -> bool:
    """Whether a cookie has surely no more bytes than that.

    To sign it for that takes 60 us of the 280 that one call over a redirect does, since
    it is compressed before.

    :param stored: what is in the session already.
    :param text: what comes to it, with its name: printable ASCII.
    """
    kind = SecureCookieSessionInterface

    if type(interface).get_signing_serializer is not kind.get_signing_serializer:
        return False

    app = current_flask()
    dumps = interface.serializer.dumps

    # To JSON no character adds more than two: 40 steps less, of 638, a call over a
    # redirect.
    if interface.serializer is session_json_serializer:
        size = 2 * len(text)
    else:
        size = len(dumps(text).encode())

    if stored:
        size += len(dumps(stored).encode())

    name, path = interface.get_cookie_name(app), interface.get_cookie_path(app)
    beside = len(name) + len(path) + len(interface.get_cookie_domain(app) or "")
    # In base64 three bytes are four.
    return 4 * size // 3 + beside + _MAX_BESIDE <= limit


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
    options = {"partitioned": True} if is_partitioned(app) else {}
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


def _try_session(
    interface: SessionInterface, data: dict[str, t.Any], name: str
) -> tuple[int, bool]:
    """Find out how an interface would keep a session with this data: it does so, for a
    response that isn't sent.

    Afterwards the session is as before, also where the interface keeps it.

    :param name: of what is new in the session.
    :return: the bytes of the cookie, 0 if there is none; and whether the session is
        kept without one, since interfaces leave out a cookie that is too large as well.
    """
    stored = current_session()
    before = read_session(stored), stored.modified, stored.accessed
    response = current_app.response_class()
    cookie_name = interface.get_cookie_name(current_app)

    try:
        _refill(stored, data)
        interface.save_session(current_app, stored, response)
        lines = lines_of_cookie(response, cookie_name)

        if lines:
            return max(map(len, lines)), False

        opened = stored_session(current_app, current_request())
        return 0, opened is not None and opened.get(name) == data[name]
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


def stored_session(app: Flask, request: Request) -> SessionMixin | None:
    """Return a request's session as it was when the request came, or was saved since.

    Some interfaces keep it in the database that a view is about to write.
    """
    with undisturbed():
        return app.session_interface.open_session(app, request)


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
    context = _current_context()
    session: SessionMixin | None = getattr(context, "_session", None)
    return context.session if session is None else session
