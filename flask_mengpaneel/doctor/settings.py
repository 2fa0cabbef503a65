"""What in an app's settings would keep calls from reaching Mixpanel."""

from __future__ import annotations

import collections.abc as c
import typing as t
import urllib.error
import urllib.request
from urllib.parse import urlsplit

from flask import Flask

from ..config import CLIENT_STRATEGIES
from .findings import Finding, Level

if t.TYPE_CHECKING:
    from ..choose.app_state import AppState
    from ..config import Config

#: Where the browser library sends if its configuration doesn't say
#: (mixpanel-core.js of mixpanel-browser 2.83.0).
CLIENT_HOST = "https://api-js.mixpanel.com"


def check_settings(app: Flask, state: AppState) -> c.Iterator[Finding]:
    """Find what is wrong with the settings, whatever the page."""
    config = state.config

    if config.inspector and not app.debug:
        text = "everything goes to the inspector, and nothing to Mixpanel"
        yield Finding(Level.WARNING, text, "MENGPANEEL_INSPECTOR = False")

    if config.serverless and config.transport == "thread":
        text = "this platform stops threads as soon as a response is sent"
        yield Finding(Level.ERROR, text, 'MENGPANEEL_TRANSPORT = "inline"')

    if config.transport == "celery" and "celery" not in app.extensions:
        text = 'MENGPANEEL_TRANSPORT is "celery", but the app has no Celery'
        yield Finding(Level.ERROR, text, 'app.extensions["celery"] = celery_app')

    yield from _check_spool(state)
    yield from _check_regions(config)

    if not app.secret_key and not CLIENT_STRATEGIES.isdisjoint(config.strategies):
        text = (
            "without a secret key, the server sends the calls before a redirect, and a"
            " page whose library is blocked can't hand its calls back"
        )
        yield Finding(Level.WARNING, text, 'SECRET_KEY = "..."')


def _check_spool(state: AppState) -> c.Iterator[Finding]:
    from ..deliver.inline import InlineTransport
    from ..deliver.spool import SpoolError

    inline = state.inline

    if not isinstance(inline, InlineTransport) or inline.delivery.spool is None:
        return

    try:
        inline.delivery.spool.check()
    except SpoolError as error:
        text = f"what can't be delivered at once has no spool to wait in: {error}"
        yield Finding(Level.ERROR, text, 'MENGPANEEL_SPOOL = "/path/of/a/file.sqlite3"')


def _check_regions(config: Config) -> c.Iterator[Finding]:
    if CLIENT_STRATEGIES.isdisjoint(config.strategies) or config.inspector:
        return

    client = str(config.init_options.get("api_host") or CLIENT_HOST)
    regions = [_region(host) for host in (config.api_host, client)]

    if None not in regions and regions[0] != regions[1]:
        text = (
            f"the server sends to {config.api_host}, browsers send to {client}: a"
            " project is in one region, and what another one gets is lost"
        )
        suffix = "" if regions[0] == "US" else f"-{str(regions[0]).lower()}"
        host = CLIENT_HOST if not suffix else f"https://api{suffix}.mixpanel.com"
        remedy = f'MENGPANEEL_CLIENT_CONFIG = {{"api_host": "{host}"}}'
        yield Finding(Level.ERROR, text, remedy)


def _region(url: str) -> str | None:
    """Return the region of one of Mixpanel's hosts; ``None`` if it isn't Mixpanel's."""
    regions = {"api": "US", "api-js": "US", "api-eu": "EU", "api-in": "IN"}
    name, _, domain = (urlsplit(url).hostname or "").partition(".")
    return regions.get(name) if domain == "mixpanel.com" else None


def check_session_cookie(app: Flask, url: str) -> c.Iterator[Finding]:
    """Find what makes browsers refuse the session's cookie, and the calls in it.

    https://httpwg.org/http-extensions/draft-ietf-httpbis-rfc6265bis.html
    """
    interface = app.session_interface
    name, secure = interface.get_cookie_name(app), interface.get_cookie_secure(app)
    domain = (interface.get_cookie_domain(app) or "").lstrip(".")
    host = urlsplit(url).hostname or ""
    lost = "so that browsers refuse the session and the delayed calls in it"

    if domain and host != domain and not host.endswith(f".{domain}"):
        text = f"SESSION_COOKIE_DOMAIN is {domain!r}, but the page is on {host!r}, "
        remedy = "SESSION_COOKIE_DOMAIN = None (or name a page of that host)"
        yield Finding(Level.ERROR, text + lost, remedy)

    samesite = str(interface.get_cookie_samesite(app) or "").lower()

    if samesite == "none" and not secure:
        text = 'SESSION_COOKIE_SAMESITE is "None" without SESSION_COOKIE_SECURE, '
        yield Finding(Level.ERROR, text + lost, "SESSION_COOKIE_SECURE = True")

    if samesite == "strict":
        text = (
            'SESSION_COOKIE_SAMESITE is "Strict": after a redirect from another site,'
            " delayed calls wait for the next page"
        )
        yield Finding(Level.NOTE, text, 'SESSION_COOKIE_SAMESITE = "Lax"')

    if name.startswith(("__Host-", "__Secure-")) and not secure:
        text = f"SESSION_COOKIE_NAME is {name!r} without SESSION_COOKIE_SECURE, "
        yield Finding(Level.ERROR, text + lost, "SESSION_COOKIE_SECURE = True")

    if name.startswith("__Host-") and (domain or interface.get_cookie_path(app) != "/"):
        text = f"SESSION_COOKIE_NAME is {name!r}, but it has a domain or a path, "
        yield Finding(Level.ERROR, text + lost, 'SESSION_COOKIE_PATH = "/"')


def check_reach(config: Config) -> c.Iterator[Finding]:
    """Find whether the server can connect to Mixpanel."""
    try:
        urllib.request.urlopen(config.api_host, timeout=10).close()
    except urllib.error.HTTPError as error:
        # An error is an answer too.
        error.close()
    except OSError as error:
        text = f"{config.api_host} can't be reached from here: {error}"
        yield Finding(Level.ERROR, text, "let the server connect to it")
