"""Where a redirect leads: back to this app, and with the session, or away."""

from __future__ import annotations

import typing as t
from urllib.parse import SplitResult, urljoin, urlsplit

from flask import current_app
from werkzeug.exceptions import SecurityError

if t.TYPE_CHECKING:
    from flask import Request


def is_internal(location: str, request: Request) -> bool:
    """Whether a browser that follows a redirect comes back to this app."""
    # Browsers read a backslash as a slash, and leave out white space.
    if "\\" in location or any(char <= " " for char in location):
        return False

    try:
        target = urlsplit(location)
        here = urlsplit(request.host_url)
        base = request.base_url

        if target.netloc:
            same = _host(target, here.scheme) == _host(here, here.scheme)
        else:
            # They take any number of slashes for two, and need none after a scheme.
            same = not target.scheme and not location.startswith("//")

        path = urlsplit(urljoin(base, target.path)).path or "/"
    except (ValueError, KeyError, SecurityError):
        return False

    return (
        same
        # Beside an app that is mounted at a path there are others.
        and _is_below(path, request.root_path)
        and _cookie_goes_along(path, target.scheme, request)
    )


def _host(url: SplitResult, default_scheme: str) -> tuple[str | None, int | None]:
    """Host and port, where the default ports of http and https are the same."""
    scheme = url.scheme or default_scheme
    port = url.port if url.port != {"http": 80, "https": 443}[scheme] else None
    return url.hostname, port


def _cookie_goes_along(path: str, scheme: str, request: Request) -> bool:
    """Whether the session's cookie is taken from here and goes to a URL of this site.

    https://www.rfc-editor.org/rfc/rfc6265#section-5.1.4
    """
    interface = current_app.session_interface

    # Over plain HTTP a browser takes no cookie that is secure either.
    if interface.get_cookie_secure(current_app) and "http" in (request.scheme, scheme):
        return False

    return _is_below(path, interface.get_cookie_path(current_app))


def _is_below(path: str, root: str) -> bool:
    root = root.rstrip("/")
    return path == root or path.startswith(f"{root}/")
