"""Sessions that aren't Flask's own."""

from __future__ import annotations

import base64
import json
import typing as t

from flask import Flask
from flask.sessions import (
    SecureCookieSession,
    SecureCookieSessionInterface,
    SessionInterface,
    SessionMixin,
)
from flask_session.base import ServerSideSessionInterface

#: The settings that leave the session's cookie to HTTPS, as far as Flask has them.
SECURING = [
    name
    for name in ("SESSION_COOKIE_SECURE", "SESSION_COOKIE_PARTITIONED")
    if name in Flask.default_config
]


class Plain(SecureCookieSession):
    pass


class OwnCookie(SessionInterface):
    """Keeps the data in a cookie, in a way of its own."""

    session_class = Plain

    def open_session(self, app: Flask, request: t.Any) -> Plain:
        value = request.cookies.get("session")
        return Plain(json.loads(base64.b64decode(value)) if value else {})

    def save_session(self, app: Flask, kept: SessionMixin, response: t.Any) -> None:
        if kept.modified:
            value = base64.b64encode(json.dumps(dict(kept)).encode()).decode()
            response.set_cookie("session", value)


class Broken(OwnCookie):
    """Can't say of one cookie how it is to be sent."""

    def get_cookie_samesite(self, app: Flask) -> str:
        raise LookupError("no settings")


class Derived(OwnCookie, SecureCookieSessionInterface):
    """The same, of Flask's own class."""


class Store(ServerSideSessionInterface):
    """Flask-Session's, which packs the data with msgpack, and a dict."""

    def __init__(self, app: Flask) -> None:
        self.kept: dict[str, bytes] = {}
        super().__init__(app, "s:", False, False, 32, "msgpack")

    def _retrieve_session_data(self, store_id: str) -> dict[str, t.Any] | None:
        data = self.kept.get(store_id)
        return None if data is None else self.serializer.decode(data)

    def _delete_session(self, store_id: str) -> None:
        self.kept.pop(store_id, None)

    def _upsert_session(self, _: t.Any, kept: t.Any, store_id: str) -> None:
        self.kept[store_id] = self.serializer.encode(kept)
