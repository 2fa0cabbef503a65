"""Settings that are allowed, and wrong all the same: one list for the app's start, its
first requests, and the doctor."""

from __future__ import annotations

import collections.abc as c
import dataclasses
import enum
import ipaddress
import json
import re
import typing as t
from urllib.parse import urlsplit

from . import hosts
from .server import number_of_workers
from .session_settings import foreign_domain, securing_setting

if t.TYPE_CHECKING:
    from flask import Flask

    from .config import Config

_TOKEN = re.compile(r"[0-9a-f]{32}")

#: What else there is in a project's settings that may be taken for its token.
_NO_TOKENS = (
    (re.compile(r"[0-9]{4,10}"), "a project's id"),
    (re.compile(r".*\.mp-service-account"), "a service account's name"),
)

# The kinds of records for which the library may be told a host each, and where it is
# told one for the others (mixpanel-core.js of mixpanel-browser 2.83.0).
_KINDS = ("events", "people", "groups")
_ANY_KIND = ("api_host",)

# In an environment: what proxies say of the request that they pass on.
_READ_BY_PROXY_FIX = ("HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO")
_FORWARDED = (*_READ_BY_PROXY_FIX, "HTTP_FORWARDED")

#: https://www.rfc-editor.org/rfc/rfc7239#section-5.4
_FORWARDED_PROTO = re.compile(r'[^,]*?\bproto="?([a-z]+)', re.IGNORECASE)

_LOST_SESSION = "so that browsers refuse the session and the delayed calls in it"


class Level(enum.Enum):
    """How bad a finding is."""

    #: Browsers can't make the calls: they are lost, or the server sends them late.
    ERROR = "error"
    #: Calls reach Mixpanel, but another strategy takes them than is meant to.
    WARNING = "warning"
    #: Good to know.
    NOTE = "note"


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something that the app's developer should know."""

    level: Level
    text: str
    #: What to write where, ready to be pasted.
    remedy: str = ""

    @property
    def advice(self) -> str:
        """What is wrong, and what to write."""
        return f"{self.text} -> {self.remedy}" if self.remedy else self.text

    def __str__(self) -> str:
        return f"{self.level.value}: {self.advice}"


# -- known when the app starts


def of_settings(app: Flask, config: Config) -> c.Iterator[Finding]:
    """Find what is wrong with the settings, whatever the app does."""
    if not config.enabled:
        return

    if config.token is None:
        text = "MENGPANEEL_TOKEN is not set: nothing will be tracked"
        remedy = 'MENGPANEEL_TOKEN = "..."  # or MENGPANEEL_ENABLED = False'
        yield Finding(Level.ERROR, text, remedy)
        return

    # Tests send to whatever they like, and the inspector takes any token.
    if not app.testing and not config.inspector:
        yield from _token(config)
        yield from _server_host(config)
        yield from _plain_http(config)

    if not config.inspector:
        yield from _regions(config)

    if config.serverless and config.transport == "thread":
        text = "this platform stops threads as soon as a response is sent"
        yield Finding(Level.ERROR, text, 'MENGPANEEL_TRANSPORT = "inline"')

    yield from _workers(config)

    if not config.cookie_persistence:
        yield from unseen_visitors(config)


def unseen_visitors(config: Config) -> c.Iterator[Finding]:
    """Find why the server doesn't see a visitor whom the library keeps in no cookie."""
    names = config.strategy_names

    if "ClientSide" not in names:
        text = (
            "Mixpanel's library keeps the visitor in no cookie, and without ClientSide"
            " pages have no script that shows the server who it is: where there is a"
            " library, one visitor is several"
        )
        remedy = f"MENGPANEEL_STRATEGIES = {json.dumps(['ClientSide', *names])}"
        yield Finding(Level.WARNING, text, remedy)


def _token(config: Config) -> c.Iterator[Finding]:
    token = config.token or ""

    if hosts.region_of(config.api_host) is None or _TOKEN.fullmatch(token):
        return

    what = next((what for form, what in _NO_TOKENS if form.fullmatch(token)), None)
    is_what = f"is {what}, and no token" if what else "isn't a project's token"
    text = f"MENGPANEEL_TOKEN {is_what}: a token has 32 of the digits 0-9 and a-f"
    remedy = (
        'MENGPANEEL_TOKEN = "..."  # Mixpanel: Project Settings, Overview, Access Keys,'
        " Project Token"
    )
    yield Finding(Level.WARNING, text, remedy)


def _server_host(config: Config) -> c.Iterator[Finding]:
    host = config.api_host

    if hosts.region_of(host) is not None:
        return

    if lookalike := hosts.lookalike(host):
        text = f"MENGPANEEL_API_HOST is {host!r}, which isn't one of Mixpanel's hosts"
        remedy = f"MENGPANEEL_API_HOST = {json.dumps(lookalike)}"
        yield Finding(Level.WARNING, text, remedy)
        return

    path = urlsplit(host).path.strip("/").rpartition("/")[2]

    if path in hosts.ENDPOINTS:
        text = f"MENGPANEEL_API_HOST ends in /{path}, to which paths are added"
        remedy = f"MENGPANEEL_API_HOST = {json.dumps(host.removesuffix(f'/{path}'))}"
        yield Finding(Level.WARNING, text, remedy)

    is_told = "api_host" in config.init_options

    if (
        is_told
        or not config.gives_to_browsers
        or _ANY_KIND not in _client_hosts(config)
    ):
        return

    # One on this machine mostly stands in for Mixpanel while developing.
    level = Level.NOTE if hosts.is_loopback(host) else Level.WARNING
    # What it may have to say who the server is, is nothing for browsers.
    shown = hosts.without_user(host)
    text = f"the server sends to {shown}, but browsers send to {hosts.CLIENT_HOST}"
    remedy = f'MENGPANEEL_CLIENT_CONFIG = {{"api_host": "{shown}"}}'
    yield Finding(level, text, remedy)


def _client_hosts(config: Config) -> dict[tuple[str, ...], str]:
    """Return where browsers send to, by where in the library's options that is said."""
    options = config.init_options
    by_kind = options.get("api_hosts")
    own = by_kind if isinstance(by_kind, dict) else {}
    found: dict[tuple[str, ...], str] = {}

    if not all(own.get(kind) for kind in _KINDS):
        found[_ANY_KIND] = str(options.get("api_host") or hosts.CLIENT_HOST)

    found.update((("api_hosts", kind), str(host)) for kind, host in own.items() if host)
    return found


def _plain_http(config: Config) -> c.Iterator[Finding]:
    """Find what browsers load into no page that comes over HTTPS.

    https://www.w3.org/TR/mixed-content/
    """
    if not config.gives_to_browsers:
        return

    for (key, *within), url in {
        ("MENGPANEEL_LIBRARY_URL",): config.library_url or "",
        **{
            ("MENGPANEEL_CLIENT_CONFIG", *path): host
            for path, host in _client_hosts(config).items()
        },
    }.items():
        if url.lower().startswith("http:") and not hosts.is_loopback(url):
            safe = json.dumps(f"https:{url[5:]}")

            for name in reversed(within):
                safe = f'{{"{name}": {safe}}}'

            what = " in ".join([*reversed(within), key])
            text = f"{what} is over http:, which browsers block on pages over https:"
            yield Finding(Level.ERROR, text, f"{key} = {safe}")


def _regions(config: Config) -> c.Iterator[Finding]:
    if not config.gives_to_browsers:
        return

    region = hosts.region_of(config.api_host)
    there = config.api_host if region != "US" else hosts.CLIENT_HOST

    for client in dict.fromkeys(_client_hosts(config).values()):
        if region is not None and hosts.region_of(client) not in (None, region):
            text = (
                f"the server sends to {config.api_host}, browsers send to {client}: a"
                " project is in one region, and what another one gets is lost"
            )
            remedy = f'MENGPANEEL_CLIENT_CONFIG = {{"api_host": "{there}"}}'
            yield Finding(Level.ERROR, text, remedy)


def _workers(config: Config) -> c.Iterator[Finding]:
    workers = number_of_workers()

    if (
        workers > 1
        and config.spool is None
        and config.acks is None
        and config.ack_timeout
        and config.gives_to_browsers
    ):
        text = (
            f"{workers} workers without a spool: what one of them has given to a"
            " browser is acknowledged to another, and sent again"
        )
        remedy = 'MENGPANEEL_SPOOL = "/path/of/a/file.sqlite3"'
        yield Finding(Level.WARNING, text, remedy)


# -- known when the app has its first request


def of_running_app(app: Flask, config: Config) -> c.Iterator[Finding]:
    """Find what is wrong with settings that may come after the extension."""
    if config.inspector and not app.debug and not app.testing:
        text = (
            "MENGPANEEL_INSPECTOR is True outside of debug: everything goes to the"
            " inspector, which everybody can read, and nothing to Mixpanel"
        )
        yield Finding(Level.WARNING, text, "MENGPANEEL_INSPECTOR = False")

    if "Delayed" in config.strategy_names:
        yield from _session_cookie(app)


def _session_cookie(app: Flask) -> c.Iterator[Finding]:
    """Find what makes browsers refuse the session's cookie, and the calls in it.

    https://httpwg.org/http-extensions/draft-ietf-httpbis-rfc6265bis.html
    """
    interface = app.session_interface
    name, secure = interface.get_cookie_name(app), securing_setting(app)
    samesite = str(interface.get_cookie_samesite(app) or "").lower()
    remedy = "SESSION_COOKIE_SECURE = True"

    if samesite == "none" and not secure:
        text = 'SESSION_COOKIE_SAMESITE is "None" without SESSION_COOKIE_SECURE'
        yield Finding(Level.ERROR, f"{text}, {_LOST_SESSION}", remedy)

    if samesite == "strict":
        text = (
            'SESSION_COOKIE_SAMESITE is "Strict": after a redirect from another site,'
            " delayed calls wait for the next page"
        )
        yield Finding(Level.NOTE, text, 'SESSION_COOKIE_SAMESITE = "Lax"')

    if name.startswith(("__Host-", "__Secure-")) and not secure:
        text = f"SESSION_COOKIE_NAME is {name!r} without SESSION_COOKIE_SECURE"
        yield Finding(Level.ERROR, f"{text}, {_LOST_SESSION}", remedy)

    if name.startswith("__Host-") and (
        interface.get_cookie_domain(app) or interface.get_cookie_path(app) != "/"
    ):
        text = f"SESSION_COOKIE_NAME is {name!r}, but it has a domain or a path"
        remedy = 'SESSION_COOKIE_PATH = "/"'
        yield Finding(Level.ERROR, f"{text}, {_LOST_SESSION}", remedy)


def session_domain(app: Flask, url: str) -> c.Iterator[Finding]:
    """Find whether browsers take the session's cookie from a page."""
    host = urlsplit(url).hostname or ""

    if domain := foreign_domain(app, host):
        text = f"SESSION_COOKIE_DOMAIN is {domain!r}, but the page is on {host!r}"
        remedy = "SESSION_COOKIE_DOMAIN = None  # or name a page of that host"
        yield Finding(Level.ERROR, f"{text}, {_LOST_SESSION}", remedy)


# -- known of a request


def of_request(
    app: Flask, config: Config, environ: c.Mapping[str, t.Any]
) -> c.Iterator[Finding]:
    """Find what a request shows of what is in front of the app."""
    if lacks_proxy_fix(environ):
        text = (
            "a request came through a proxy, but the app takes the proxy for the"
            " visitor: events have the proxy's address"
        )

        if is_scheme_replaced(environ):
            text += ", and links and cookies are made for the wrong scheme"

        remedy = "app.wsgi_app = ProxyFix(app.wsgi_app)"

        if not any(name in environ for name in _READ_BY_PROXY_FIX):
            remedy += "  # it reads X-Forwarded-For and X-Forwarded-Proto alone"

        yield Finding(Level.WARNING, text, remedy)
    elif (
        environ["wsgi.url_scheme"] == "http"
        and "Delayed" in config.strategy_names
        and (setting := securing_setting(app))
    ):
        text = f"{setting} is True, but the app is asked over http:, {_LOST_SESSION}"
        yield Finding(Level.WARNING, text, f"{setting} = False")


def lacks_proxy_fix(environ: c.Mapping[str, t.Any]) -> bool:
    """Whether a request plainly came through a proxy that the app doesn't know of.

    Anybody may send such headers. The peer is a proxy if it is near by, and isn't named
    in them: then nothing between has put them in order.
    """
    if has_proxy_fix(environ) or not any(name in environ for name in _FORWARDED):
        return False

    # Of a socket that is a file some servers give none, and others `None`.
    peer: str = environ.get("REMOTE_ADDR") or ""

    if not _is_near(peer):
        return False

    told = [
        environ.get(name, "") for name in ("HTTP_X_FORWARDED_FOR", "HTTP_FORWARDED")
    ]
    named = re.split(r'[\s,;="\[\]]+', " ".join(told).strip())
    return (named != [""] and peer not in named) or is_scheme_replaced(environ)


def has_proxy_fix(environ: c.Mapping[str, t.Any]) -> bool:
    """Whether Werkzeug's ``ProxyFix`` has read what a proxy says."""
    return "werkzeug.proxy_fix.orig" in environ


def is_scheme_replaced(environ: c.Mapping[str, t.Any]) -> bool:
    """Whether the browser has asked the proxy over another scheme than the proxy the
    app."""
    scheme: str = environ["wsgi.url_scheme"]
    forwarded = _FORWARDED_PROTO.match(environ.get("HTTP_FORWARDED", ""))
    told: str = forwarded[1] if forwarded else scheme
    told = environ.get("HTTP_X_FORWARDED_PROTO", told)
    return told.partition(",")[0].strip().lower() != scheme


def _is_near(address: str) -> bool:
    try:
        return not ipaddress.ip_address(address.partition("%")[0]).is_global
    except ValueError:
        # Of a socket that is a file.
        return not address or address == "unix:"
