"""Calls that wait in the session for a page that can make them."""

from __future__ import annotations

import collections.abc as c
import dataclasses
import logging
import time
import typing as t
import uuid

from flask import current_app, session
from flask.globals import app_ctx
from flask.sessions import SecureCookieSessionInterface, SessionMixin
from werkzeug.http import dump_cookie

from .calls import CallLog
from .ids import hex_id
from .persistence import Identity

if t.TYPE_CHECKING:
    from flask import Flask, Request

logger = logging.getLogger("flask_mengpaneel")

VERSION = 1

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
    def stranger(self) -> Identity:
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

    __slots__ = ("_key", "entries")

    def __init__(self, app: Flask, request: Request, key: str) -> None:
        self._key = key
        self.entries: list[Entry] = []
        header = request.environ.get("HTTP_COOKIE")

        if header is None:
            return

        if app.session_interface.get_cookie_name(app) not in header:
            return

        try:
            kept = _session()
            stored = _peek(kept).get(key)

            if stored is None and kept.modified:
                stored = _restored(app, request, key)
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

        if entries:
            session[self._key] = _stored(entries)
        else:
            session.pop(self._key, None)

        # Not every kind of session notices.
        session.modified = True

    def fits(self, entries: c.Sequence[Entry]) -> bool:
        """Whether the session can hold these entries besides what is in it."""
        interface = current_app.session_interface

        # What a server keeps has no limit of the browser's.
        if not isinstance(interface, SecureCookieSessionInterface):
            return True

        serializer = interface.get_signing_serializer(current_app)
        assert serializer is not None, "a session that isn't null has a key"
        value = serializer.dumps(_peek(_session()) | {self._key: _stored(entries)})
        limit = current_app.config["MAX_COOKIE_SIZE"] or _MAX_COOKIE
        return len(_cookie(interface, str(value))) <= min(limit, _MAX_COOKIE)


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


def _stored(entries: c.Sequence[Entry]) -> list[t.Any]:
    return [VERSION, *(entry.to_json() for entry in entries)]


def _entries(stored: t.Any) -> list[Entry]:
    """Read what a session holds, which another version may have written."""
    entries = []

    for value in stored[1:] if isinstance(stored, list) else []:
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


def _restored(app: Flask, request: Request, key: str) -> t.Any:
    """What waited in the session until a view has cleared it, as one does when
    somebody signs in or out. It goes on waiting."""
    before = app.session_interface.open_session(app, request)
    stored = None if before is None else before.get(key)

    if stored is not None:
        session[key] = stored

    return stored


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
