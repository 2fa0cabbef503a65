"""What settings say of the cookie of the app's session."""

from __future__ import annotations

import typing as t

if t.TYPE_CHECKING:
    from flask import Flask


def securing_setting(app: Flask) -> str | None:
    """Return the setting by which the session's cookie is for HTTPS alone, if it is."""
    if app.session_interface.get_cookie_secure(app):
        return "SESSION_COOKIE_SECURE"

    # Werkzeug makes such a cookie secure, as browsers want it.
    return "SESSION_COOKIE_PARTITIONED" if is_partitioned(app) else None


def is_partitioned(app: Flask) -> bool:
    """Whether the session's cookie is kept apart for each site that embeds the app."""
    # Since Flask 3.1.
    partitions = getattr(app.session_interface, "get_cookie_partitioned", None)
    return bool(partitions and partitions(app))


def foreign_domain(app: Flask, host: str) -> str | None:
    """Return the domain of the session's cookie if browsers don't take it from a host.

    https://www.rfc-editor.org/rfc/rfc6265#section-5.1.3

    :param host: perhaps with a port.
    """
    domain = app.session_interface.get_cookie_domain(app)

    if not domain:
        return None

    # As Werkzeug writes it: without a port, and in ASCII, as browsers name a host.
    domain = domain.partition(":")[0].lstrip(".").lower()

    try:
        forms = (f".{domain}", f".{domain.encode('idna').decode()}")
    except UnicodeError:
        # An empty label, or one that is too long: Werkzeug writes no such cookie.
        return domain

    # An address in brackets has no domain.
    name = host.partition(":")[0].lower()
    return None if f".{name}".endswith(forms) else domain
