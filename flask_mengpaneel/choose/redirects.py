"""Where a redirect leads: back to this app, and with the session, or away."""

from __future__ import annotations

import typing as t
from urllib.parse import SplitResult, urljoin, urlsplit

from werkzeug.exceptions import SecurityError

from .. import reasons
from ..mistakes import is_scheme_replaced, lacks_proxy_fix
from ..proxies import current_flask
from ..session_settings import foreign_domain, securing_setting

if t.TYPE_CHECKING:
    from flask import Request


def departure(location: str, request: Request) -> str | None:
    """Return why a browser that follows a redirect doesn't come back to this app with
    the session; ``None`` if it does."""
    # Browsers read a backslash as a slash, and leave out white space.
    if (
        "\\" in location
        or " " in location
        # Nearly all are, and needn't be looked at bit by bit.
        or not (location.isprintable() or all(char > " " for char in location))
    ):
        return reasons.ANOTHER_SITE

    try:
        target = urlsplit(location)
        # It raises if the app doesn't answer to that name.
        host = request.host

        if target.netloc:
            here = urlsplit(request.host_url)
            same = _host(target, here.scheme) == _host(here, here.scheme)
        else:
            # They take any number of slashes for two, and need none after a scheme.
            same = not target.scheme and not location.startswith("//")

        # Without a path a URL leads to the root of its host, whatever this one's is.
        path = target.path or ("/" if target.netloc else "")

        if "%" in path:
            # Browsers read an escaped dot as one: https://url.spec.whatwg.org/
            path = path.replace("%2e", ".").replace("%2E", ".")

        # Where a redirect is from says little of where it goes, mostly: 30 us of 152, a
        # call over a redirect.
        if path[:1] != "/" or "/." in path or "//" in path:
            path = urlsplit(urljoin(request.base_url, path)).path or "/"
    except (ValueError, KeyError, SecurityError):
        return reasons.ANOTHER_SITE

    if not same:
        return _other_host(target.hostname, request)

    # Beside an app that is mounted at a path there are others.
    if not _is_below(path, request.root_path):
        return reasons.ANOTHER_APP

    return _cookie_stays(path, target.scheme, host, request)


def _other_host(name: str | None, request: Request) -> str:
    environ = request.environ
    asked = environ.get("HTTP_X_FORWARDED_HOST", "").partition(",")[0].strip()

    if name and asked.partition(":")[0].lower() == name and lacks_proxy_fix(environ):
        return reasons.UNKNOWN_HOST

    return reasons.ANOTHER_SITE


def _host(url: SplitResult, default_scheme: str) -> tuple[str | None, int | None]:
    """Host and port, where the default ports of http and https are the same."""
    scheme = url.scheme or default_scheme
    port = url.port if url.port != {"http": 80, "https": 443}[scheme] else None
    return url.hostname, port


def _cookie_stays(path: str, scheme: str, host: str, request: Request) -> str | None:
    """Why the session's cookie isn't taken from here, or doesn't go to a URL of this
    site.

    https://www.rfc-editor.org/rfc/rfc6265#section-5.1.4

    :param host: of both, with a port.
    """
    app = current_flask()
    interface = app.session_interface

    # Over plain HTTP a browser takes no cookie that is secure either.
    if "http" in (request.scheme, scheme) and securing_setting(app):
        environ = request.environ
        is_replaced = is_scheme_replaced(environ) and lacks_proxy_fix(environ)
        return reasons.INSECURE_BY_PROXY if is_replaced else reasons.INSECURE

    if foreign_domain(app, host):
        return reasons.ANOTHER_DOMAIN

    if not _is_below(path, interface.get_cookie_path(app)):
        return reasons.ANOTHER_APP

    return None


def _is_below(path: str, root: str) -> bool:
    root = root.rstrip("/")
    return path == root or path.startswith(f"{root}/")
