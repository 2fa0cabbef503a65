"""Calls that wait in the session for a page that can make them."""

from __future__ import annotations

import collections.abc as c
import contextlib
import dataclasses
import json
import logging
import time
import typing as t
import uuid
import weakref
import zlib

from flask import current_app, session
from flask.globals import app_ctx
from flask.sessions import (
    SecureCookieSessionInterface,
    SessionInterface,
    SessionMixin,
)
from werkzeug.http import dump_cookie

from ..calls import CallLog, dumps
from ..identity import Identity, hex_id

if t.TYPE_CHECKING:
    from flask import Flask, Request, Response

logger = logging.getLogger("flask_mengpaneel")

VERSION = 2

# Browsers drop a whole cookie that is larger, and with it all of the session:
# https://datatracker.ietf.org/doc/html/rfc6265#section-6.1
_MAX_COOKIE = 4093


@dataclasses.dataclass(slots=True)
class Entry:
    """The calls of one request whose response couldn't make them."""

    calls: CallLog
    #: Who it was after all of the calls.
    owner: Identity
    #: Whom the browser took the visitor for.
    seen: Identity
    at: float
    id: str

    @classmethod
    def of(cls, calls: CallLog, owner: Identity, seen: Identity) -> Entry:
        """An entry for calls that were recorded just now."""
        return cls(calls, owner, seen, time.time(), hex_id()[:12])

    def is_of(self, now: Identity, calls: CallLog) -> bool:
        """Whether these calls are of the person whom a request is for.

        :param now: whom the browser takes the visitor for.
        :param calls: those of the request, which may say who it is. If they don't, the
            calls that wait may, unless the browser has learnt of somebody else.
        """
        if calls.set_up:
            said = Identity().after([*calls.before_setup, *calls.setup]).user_id
            return self.owner.user_id in (None, said) and _agree(
                self.owner.device_id, now.device_id
            )

        return _agree(self.seen.device_id, now.device_id) and (
            now.user_id in (None, self.owner.user_id, self.seen.user_id)
        )

    @property
    def new_identity(self) -> Identity:
        """A new visitor's ids, for calls of somebody without any."""
        return Identity(str(uuid.uuid5(uuid.NAMESPACE_OID, self.id)))

    @property
    def is_repeatable(self) -> bool:
        """Whether it does no harm if these calls are made twice."""
        return all(call.is_repeatable for call in self.calls)

    def to_json(self) -> list[t.Any]:
        """The entry as plain JSON values, in few bytes: it travels in a cookie."""
        return [
            self.id,
            self.at,
            self.owner.to_json(),
            self.seen.to_json(),
            self.calls.to_json(),
        ]

    @classmethod
    def from_json(cls, value: t.Any) -> Entry:
        """Read what :meth:`to_json` gave.

        :raises ValueError: it isn't an entry.
        """
        if not isinstance(value, list) or len(value) != 5:
            raise ValueError("not an entry")

        id, at, owner, seen, calls = value

        if not isinstance(id, str) or not isinstance(at, int | float):
            raise ValueError("not an entry")

        return cls(
            CallLog.from_json(calls),
            Identity.from_json(owner),
            Identity.from_json(seen),
            at,
            id,
        )


def _agree(one: str | None, other: str | None) -> bool:
    return one is None or other is None or one == other


class Waiting:
    """What waits in the session of a request.

    The session is read only if there is something in it, and then without leaving a
    trace: a response that has nothing to do with it must not vary by cookie.

    :param key: where in the session.
    """

    __slots__ = ("_before", "_key", "_last", "changed", "cleared", "entries")

    def __init__(self, app: Flask, request: Request, key: str) -> None:
        self._key = key
        self._before = (False, False)
        self._last: tuple[c.Sequence[Entry], str] | None = None
        self.entries: list[Entry] = []
        #: Whether the session was changed for these calls.
        self.changed = False
        #: Whether the app has cleared the session, as one does when somebody signs in
        #: or out. What waited in it is here nevertheless.
        self.cleared = False
        header = request.environ.get("HTTP_COOKIE")

        if header is None:
            return

        if app.session_interface.get_cookie_name(app) not in header:
            return

        try:
            kept = _session()
            stored = _peek(kept).get(key)

            if stored is None and kept.modified:
                before = app.session_interface.open_session(app, request)
                stored = None if before is None else before.get(key)
                self.cleared = stored is not None
        except Exception:
            logger.exception("The session can't be read")
            return

        if stored is not None:
            self.entries = _entries(stored)

    def keep(self, entries: c.Sequence[Entry]) -> None:
        """Let these entries wait, and no others."""
        if not entries and not self.entries:
            return

        self.entries = list(entries)

        if not self.changed:
            kept = _session()
            self._before = kept.modified, kept.accessed

        if entries:
            session[self._key] = self._packed(entries)
        else:
            session.pop(self._key, None)

        # Not every kind of session notices.
        session.modified = True
        self.changed = True

    @property
    def own_cookie(self) -> str | None:
        """The name of the session's cookie, if the app itself wouldn't write it."""
        app = current_app
        is_refreshed = (
            _session().permanent and app.config["SESSION_REFRESH_EACH_REQUEST"]
        )

        if self._before[0] or is_refreshed:
            return None

        return app.session_interface.get_cookie_name(app)

    def leave_out(self) -> None:
        """Let nothing wait any more if the session is saved; whether it is, the app
        decides."""
        kept = _session()
        marks = kept.modified, kept.accessed
        kept.pop(self._key, None)
        kept.modified, kept.accessed = marks
        self.entries = []

    def leave_unmarked(self) -> None:
        """Let the session be written only if the app has changed it, since what was
        changed here is as it was."""
        kept = _session()
        kept.modified, kept.accessed = self._before

    def fits(self, entries: c.Sequence[Entry], room: int) -> bool:
        """Whether the session can hold these entries besides what is in it.

        :param room: bytes that its cookie may have beside the other headers.
        """
        interface = current_app.session_interface
        data = _peek(_session()) | {self._key: self._packed(entries)}
        limit = min(current_app.config["MAX_COOKIE_SIZE"] or _MAX_COOKIE, _MAX_COOKIE)

        if isinstance(interface, SecureCookieSessionInterface):
            return _size(interface, data) <= min(limit, room)

        if interface in _ON_A_SERVER:
            return True

        size = _tried(interface, data)

        # Not even random data is packed into less than a compressor needs.
        if size < len(zlib.compress(data[self._key].encode())) // 2:
            _ON_A_SERVER.add(interface)

        return 0 < size <= min(limit, room)

    def _packed(self, entries: c.Sequence[Entry]) -> str:
        """The entries as a text, which every serializer of a session takes: some have
        no room for an integer of more than 64 bits."""
        if self._last is None or self._last[0] is not entries:
            text = dumps([VERSION, *(entry.to_json() for entry in entries)])
            self._last = entries, text

        return self._last[1]

    def cookie_size(self, *, changed: bool) -> int:
        """Bytes of the session's cookie, if the response is going to have it.

        :param changed: whether it will, whatever the app does.
        """
        interface, kept = current_app.session_interface, _session()
        accessed = kept.accessed

        try:
            changed = changed or interface.should_set_cookie(current_app, kept)
        finally:
            kept.accessed = accessed

        if not changed:
            return 0

        if isinstance(interface, SecureCookieSessionInterface):
            return _size(interface, _peek(kept))

        return _SID


def arrives(request: Request, response: Response, *, is_written: bool) -> bool:
    """Whether what is in the session comes to the next request, after a response whose
    headers are complete.

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
        return not is_written or (interface in _ON_A_SERVER and name in request.cookies)

    value = lines[-1].partition("=")[2].partition(";")[0]
    return value.strip('" ') != ""


#: Bytes of a cookie that says where a session is.
_SID = 256

#: The interfaces of which it is known that they keep no data in the cookie.
_ON_A_SERVER: weakref.WeakSet[SessionInterface] = weakref.WeakSet()


def _size(interface: SecureCookieSessionInterface, data: dict[str, t.Any]) -> int:
    serializer = interface.get_signing_serializer(current_app)

    if serializer is None:
        return 0

    return len(_cookie(interface, str(serializer.dumps(data))))


def _tried(interface: SessionInterface, data: dict[str, t.Any]) -> int:
    """Bytes of the cookie that an interface would write for a session with this data:
    by letting it, for a response that isn't sent.

    The session is as before then, where the interface keeps it as well.

    :return: 0 if it writes none.
    """
    kept = _session()
    before = _peek(kept), kept.modified, kept.accessed
    response = current_app.response_class()
    name = interface.get_cookie_name(current_app)

    try:
        _refill(kept, data)
        interface.save_session(current_app, kept, response)
        lines = [
            line
            for line in response.headers.getlist("Set-Cookie")
            if line.partition("=")[0].strip() == name
        ]
        return max(map(len, lines), default=0)
    finally:
        _refill(kept, before[0])

        # What it keeps on a server would wait there for good.
        with contextlib.suppress(Exception):
            interface.save_session(current_app, kept, current_app.response_class())

        kept.modified, kept.accessed = before[1:]


def _refill(kept: SessionMixin, data: dict[str, t.Any]) -> None:
    kept.clear()
    kept.update(data)
    kept.modified = True


def can_hold() -> bool:
    """Whether there is a session to keep anything in."""
    return not current_app.session_interface.is_null_session(_session())


def _cookie(interface: SecureCookieSessionInterface, value: str) -> str:
    app = current_app
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
    )


def _entries(stored: t.Any) -> list[Entry]:
    """Read what a session holds, which another version may have written."""
    entries = []

    try:
        # Version 1 had them as they are.
        values = json.loads(stored) if isinstance(stored, str) else stored
    except (ValueError, RecursionError):
        values = None

    if not isinstance(values, list):
        logger.warning("Calls in the session can't be read: %.200r", stored)
        values = []

    for value in values[1:]:
        try:
            entries.append(Entry.from_json(value))
        except ValueError:
            logger.warning("Calls in the session can't be read: %.200r", value)

    return entries


def _peek(kept: SessionMixin) -> dict[str, t.Any]:
    """What is in the session, without marking it as accessed."""
    accessed = kept.accessed

    try:
        return dict(kept)
    finally:
        kept.accessed = accessed


def _session() -> SessionMixin:
    """The session itself.

    :data:`flask.session` marks it as accessed since Flask 3.1.3, for which Flask adds
    ``Vary: Cookie``. Where the context keeps it depends on Flask's version.
    """
    context = app_ctx._get_current_object()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    kept = getattr(context, "_session", None)

    if kept is None:
        from flask.globals import request_ctx

        context = request_ctx._get_current_object()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
        kept = getattr(context, "_session", None)

        if kept is None:
            kept = context.session

    return t.cast(SessionMixin, kept)
