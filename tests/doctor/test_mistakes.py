"""Mistakes of all kinds: the doctor finds each, with a line to paste; and nothing is
wrong with apps that make none."""

from __future__ import annotations

import collections.abc as c
import dataclasses
import email.utils
import json
import sys
import time
import types
import typing as t
import warnings
from pathlib import Path

import pytest
from click.testing import CliRunner
from flask import Flask, Response, abort, g, redirect, request
from flask.cli import ScriptInfo
from flask.sessions import SessionInterface, SessionMixin
from flask_compress import Compress
from flask_debugtoolbar import DebugToolbarExtension
from flask_talisman import Talisman
from flask_wtf import CSRFProtect
from werkzeug.middleware.proxy_fix import ProxyFix

from doctor_pages import CDN, HOST, PAGE, TOKEN, under
from flask_mengpaneel import Mengpaneel
from flask_mengpaneel.cli import mengpaneel as commands
from flask_mengpaneel.mistakes import Finding, Level
from session_interfaces import Derived, OwnCookie, Store
from sink import Sink, Status

EU = "https://api-eu.mixpanel.com"
LONG = PAGE.replace("<body>", f"<body>{'<p>Hello' * 500}")
PROXIED = ("--header", "X-Forwarded-For: 203.0.113.7", "--header")

Prepare = c.Callable[[Flask], object]


@dataclasses.dataclass
class Case:
    """An app, as a developer may write it, and what the doctor says of it."""

    what: str
    #: What it says, and the line to paste.
    says: str = ""
    remedy: str = ""
    level: str = "error"
    settings: dict[str, t.Any] = dataclasses.field(default_factory=dict)
    page: str | c.Callable[[], t.Any] = PAGE
    headers: t.Sequence[tuple[str, str]] = ()
    before: Prepare = lambda app: None
    after: Prepare = lambda app: None
    arguments: t.Sequence[str] = ()
    environ: dict[str, str] = dataclasses.field(default_factory=dict)
    #: The command line of the server, and the modules that it brings.
    argv: t.Sequence[str] = ()
    modules: dict[str, t.Any] = dataclasses.field(default_factory=dict)
    #: Whether it is said when the app starts.
    at_start: bool = False

    def create(self, folder: Path) -> Flask:
        app = Flask("shop", instance_path=str(folder))
        settings = {
            "SECRET_KEY": "secret",
            "token": TOKEN,
            "spool": folder / "spool.sqlite3",
            **self.settings,
        }
        app.config.update(
            (name if name.isupper() else f"MENGPANEEL_{name.upper()}", value)
            for name, value in settings.items()
        )
        self.before(app)
        Mengpaneel(app)
        self.after(app)

        def page() -> Response:
            body = self.page() if callable(self.page) else self.page
            response = body if isinstance(body, Response) else Response(body)

            for name, value in self.headers:
                response.headers.add(name, value.replace("NONCE", nonce()))

            return response

        app.add_url_rule("/", view_func=page)
        return app


def nonce() -> str:
    return t.cast(str, g.setdefault("nonce", "bm9uY2U"))


def fails() -> t.Any:
    raise LookupError("no user")


class Later:
    """An answer that has to be awaited, and is no coroutine."""

    def __await__(self) -> t.Any:
        raise AssertionError("nobody awaits it")


async def later() -> bool:
    return True


def policy(text: str) -> dict[str, t.Any]:
    return under(text)


def requires_sign_in(app: Flask) -> None:
    app.before_request(
        lambda: None if request.path == "/sign-in" else redirect("/sign-in")
    )
    app.add_url_rule("/sign-in", "sign_in", lambda: PAGE)


def turns_in_circles(app: Flask) -> None:
    app.before_request(
        lambda: None if "mengpaneel" in request.path else redirect("/?again")
    )


def blocks_the_script(app: Flask) -> None:
    app.before_request(lambda: abort(403) if request.path.endswith(".js") else None)


def minifies(app: Flask) -> None:
    app.after_request(
        lambda response: Response(PAGE) if request.path == "/" else response
    )


def intercepts(app: Flask) -> None:
    app.debug = True
    app.config.update(DEBUG_TB_INTERCEPT_REDIRECTS=True, DEBUG_TB_PANELS=())
    DebugToolbarExtension(app)


class Forgetful(SessionInterface):
    """Keeps nothing, as its store isn't there."""

    def open_session(self, app: Flask, request: t.Any) -> SessionMixin:
        return OwnCookie.session_class()

    def save_session(self, *_: t.Any) -> None:
        pass


class Fails(Forgetful):
    def save_session(self, app: Flask, session: t.Any, response: Response) -> None:
        # Nobody gets it, so that nobody closes the script's file.
        response.close()
        raise ConnectionError("no Redis")


def with_session(interface: c.Callable[[Flask], SessionInterface]) -> Prepare:
    def prepare(app: Flask) -> None:
        app.session_interface = interface(app)

    return prepare


CLIENT = "MENGPANEEL_CLIENT_CONFIG"
NONCE = "MENGPANEEL_CSP_NONCE = a callable that gives the nonce of the response"
TO_EU = f'MENGPANEEL_API_HOST = "{EU}"'
SECURE = "SESSION_COOKIE_SECURE = True"
PROJECT_TOKEN = 'MENGPANEEL_TOKEN = "..."  # Mixpanel: Project Settings'
PROXY_FIX = "app.wsgi_app = ProxyFix(app.wsgi_app)"
WITHOUT_DELAYED = (
    'MENGPANEEL_STRATEGIES = ["ClientSide", "CapableClientSide", "AsyncServerSide",'
    ' "ServerSide"]'
)

#: What says that four processes serve the app.
SERVED: dict[str, dict[str, t.Any]] = {
    "the environment": {"environ": {"WEB_CONCURRENCY": "4"}},
    "gunicorn's environment": {
        "environ": {"GUNICORN_CMD_ARGS": "--bind :80 --workers=4"}
    },
    "gunicorn's short option": {
        "environ": {"GUNICORN_CMD_ARGS": "-w 4", "WEB_CONCURRENCY": "1"}
    },
    "gunicorn's command line": {
        "argv": ["/bin/gunicorn", "-w4", "shop:app"],
        "environ": {"GUNICORN_CMD_ARGS": "-w 1"},
    },
    "gunicorn as a module": {"argv": ["/lib/gunicorn/__main__.py", "--workers", "4"]},
    "uvicorn's command line": {"argv": ["uvicorn", "--workers=4", "shop:app"]},
    "uWSGI": {"modules": {"uwsgi": types.SimpleNamespace(numproc=4, opt={})}},
}

MISTAKES = [
    # The settings of the extension.
    Case(
        "a host with a dot",
        "must be one of Mixpanel's hosts",
        TO_EU,
        settings={"api_host": "https://api.eu.mixpanel.com"},
    ),
    Case(
        "the host of the web site",
        "must be one of Mixpanel's hosts",
        TO_EU,
        settings={"api_host": "https://eu.mixpanel.com"},
    ),
    Case(
        "a path in the host",
        "must be one of Mixpanel's hosts and no more",
        'MENGPANEEL_API_HOST = "https://api.mixpanel.com"',
        settings={"api_host": "https://api.mixpanel.com/track"},
    ),
    Case(
        "http in the host",
        "must be one of Mixpanel's hosts",
        TO_EU,
        settings={"api_host": "http://api-eu.mixpanel.com"},
    ),
    Case(
        "a host for browsers that isn't there",
        "must be a dict whose 'api_host' is one of Mixpanel's hosts",
        f'{CLIENT} = {{"debug": true, "api_host": "{EU}"}}',
        settings={
            "client_config": {"debug": True, "api_host": "https://data-eu.mixpanel.com"}
        },
    ),
    Case(
        "a host for browsers without a scheme",
        "a URL with its scheme",
        f'{CLIENT} = {{"api_host": "{EU}"}}',
        settings={"client_config": {"api_host": "api-eu.mixpanel.com"}},
    ),
    Case(
        "a path in a host for events",
        "must be a dict whose 'events' is one of Mixpanel's hosts",
        f'{CLIENT} = {{"api_hosts": {{"events": "{EU}"}}}}',
        settings={"client_config": {"api_hosts": {"events": f"{EU}/track"}}},
    ),
    Case(
        "a proxy for the server alone",
        "the server sends to https://proxy.test, but browsers send to",
        f'{CLIENT} = {{"api_host": "https://proxy.test"}}',
        level="warning",
        settings={"api_host": "https://proxy.test"},
        at_start=True,
    ),
    Case(
        "a host that looks like Mixpanel's",
        "which isn't one of Mixpanel's hosts",
        TO_EU,
        level="warning",
        settings={"api_host": "https://api-eu.mixpanell.com"},
        at_start=True,
    ),
    Case(
        "the path of an endpoint in the host of a proxy",
        "ends in /track",
        'MENGPANEEL_API_HOST = "https://proxy.test/mp"',
        level="warning",
        settings={
            "api_host": "https://proxy.test/mp/track",
            "client_config": {"api_host": "https://proxy.test/mp"},
        },
        at_start=True,
    ),
    Case(
        "two regions",
        "a project is in one region",
        f'{CLIENT} = {{"api_host": "{EU}"}}',
        settings={"api_host": EU, "client_config": {"api_host": HOST}},
        at_start=True,
    ),
    Case(
        "two regions, for groups alone",
        f"browsers send to {HOST}",
        f'{CLIENT} = {{"api_host": "{EU}"}}',
        settings={"api_host": EU, "client_config": {"api_hosts": {"groups": HOST}}},
        at_start=True,
    ),
    *(
        Case(
            f"{token} as token",
            says,
            PROJECT_TOKEN,
            level="warning",
            settings={"token": token},
            at_start=True,
        )
        for token, says in (
            ("abc", "isn't a project's token"),
            ("2195193", "is a project's id, and no token: a token has 32"),
            ("shop.1a2b3c.mp-service-account", "is a service account's name"),
            (TOKEN[:-1], "isn't a project's token"),
        )
    ),
    Case(
        "no token",
        "MENGPANEEL_TOKEN is not set",
        'MENGPANEEL_TOKEN = "..."',
        settings={"token": ""},
        at_start=True,
    ),
    Case(
        "a key that isn't there",
        "MENGPANEEL_TOKN is not a setting",
        "MENGPANEEL_TOKEN = ...",
        settings={"tokn": TOKEN},
    ),
    Case(
        "a key that nobody knows",
        "MENGPANEEL_SOMETHING_ELSE_ALTOGETHER is not a setting of Flask-Mengpaneel",
        "del app.config['MENGPANEEL_SOMETHING_ELSE_ALTOGETHER']",
        settings={"something_else_altogether": 1},
    ),
    Case(
        "the library over http",
        "MENGPANEEL_LIBRARY_URL is over http:",
        'MENGPANEEL_LIBRARY_URL = "https://cdn.test/mixpanel.js"',
        settings={"library_url": "http://cdn.test/mixpanel.js"},
        at_start=True,
    ),
    Case(
        "browsers send over http",
        "api_host in MENGPANEEL_CLIENT_CONFIG is over http:",
        f'{CLIENT} = {{"api_host": "https://proxy.test"}}',
        settings={"client_config": {"api_host": "http://proxy.test"}},
        at_start=True,
    ),
    *(
        Case(
            f"browsers send {kind} over http",
            f"{kind} in api_hosts in MENGPANEEL_CLIENT_CONFIG is over http:",
            f'{CLIENT} = {{"api_hosts": {{"{kind}": "https://proxy.test"}}}}',
            settings={"client_config": {"api_hosts": {kind: "http://proxy.test"}}},
            at_start=True,
        )
        for kind in ("events", "people", "groups")
    ),
    Case(
        "a proxy for the server and events alone",
        "the server sends to https://proxy.test, but browsers send to",
        f'{CLIENT} = {{"api_host": "https://proxy.test"}}',
        level="warning",
        settings={
            "api_host": "https://proxy.test",
            "client_config": {"api_hosts": {"events": "https://proxy.test"}},
        },
        at_start=True,
    ),
    Case(
        "a password in the host of a proxy",
        "the server sends to https://proxy.test, but",
        f'{CLIENT} = {{"api_host": "https://proxy.test"}}',
        level="warning",
        settings={"api_host": "https://me:secret@proxy.test"},
        at_start=True,
    ),
    Case(
        "the inspector left on",
        "MENGPANEEL_INSPECTOR is True outside of debug",
        "MENGPANEEL_INSPECTOR = False",
        level="warning",
        settings={"inspector": True},
    ),
    Case(
        "threads that are stopped",
        "this platform stops threads",
        'MENGPANEEL_TRANSPORT = "inline"',
        settings={"transport": "thread"},
        environ={"VERCEL": "1"},
        at_start=True,
    ),
    Case(
        "Celery that isn't there",
        "the app has no Celery",
        'app.extensions["celery"] = celery_app',
        settings={"transport": "celery"},
    ),
    Case(
        "a folder as spool",
        "it must be a file that can be written",
        "MENGPANEEL_SPOOL = ",
        settings={"spool": "/"},
    ),
    *(
        Case(
            f"workers without a spool, by {how}",
            "4 workers without a spool",
            "MENGPANEEL_SPOOL = ",
            level="warning",
            settings={"spool": None},
            at_start=True,
            **served,
        )
        for how, served in SERVED.items()
    ),
    Case(
        "a prefix that is filtered",
        "filter lists look for 'track'",
        'MENGPANEEL_URL_PREFIX = "/shop-data"',
        level="warning",
        settings={"url_prefix": "/tracking"},
    ),
    Case(
        "a view below the prefix",
        "is below /shop-data",
        "MENGPANEEL_URL_PREFIX = ",
        settings={"url_prefix": "/shop-data"},
        after=lambda app: app.add_url_rule("/shop-data/x", "x", lambda: ""),
    ),
    Case(
        "a consent callable that fails",
        "MENGPANEEL_CONSENT raises LookupError('no user')",
        "MENGPANEEL_CONSENT = a callable",
        settings={"consent": fails},
    ),
    Case(
        "a consent callable that nobody waits for",
        "MENGPANEEL_CONSENT gives something to await",
        "MENGPANEEL_CONSENT = a callable",
        settings={"consent": later},
    ),
    Case(
        "a consent callable that gives what a cookie says",
        "MENGPANEEL_CONSENT gives a text, which counts as no",
        "MENGPANEEL_CONSENT = a callable",
        settings={"consent": lambda: "no"},
    ),
    Case(
        "a consent callable that gives a future",
        "MENGPANEEL_CONSENT gives something to await",
        "MENGPANEEL_CONSENT = a callable",
        settings={"consent": Later},
    ),
    # The app's session.
    Case(
        "no secret key",
        "without a secret key",
        'SECRET_KEY = "..."',
        level="warning",
        settings={"SECRET_KEY": None},
    ),
    Case(
        "the cookie of another domain",
        "SESSION_COOKIE_DOMAIN is 'shop.test', but the page is on 'localhost'",
        "SESSION_COOKIE_DOMAIN = None",
        settings={"SESSION_COOKIE_DOMAIN": "shop.test"},
    ),
    Case(
        "the cookie of a domain that there can't be",
        "SESSION_COOKIE_DOMAIN is 'shop..test', but the page is on 'localhost'",
        "SESSION_COOKIE_DOMAIN = None",
        settings={"SESSION_COOKIE_DOMAIN": "shop..test"},
    ),
    Case(
        "a cookie for all sites that isn't secure",
        'SESSION_COOKIE_SAMESITE is "None"',
        SECURE,
        settings={"SESSION_COOKIE_SAMESITE": "None"},
    ),
    Case(
        "a host's cookie that isn't secure",
        "SESSION_COOKIE_NAME is '__Host-s'",
        SECURE,
        settings={"SESSION_COOKIE_NAME": "__Host-s"},
    ),
    Case(
        "a secure cookie on a page over http",
        "the app is asked over http:",
        "SESSION_COOKIE_SECURE = False",
        level="warning",
        settings={"SESSION_COOKIE_SECURE": True},
        arguments=["http://localhost/"],
    ),
    Case(
        "a session that keeps nothing",
        "the session of Forgetful can't hold delayed calls (it doesn't keep them)",
        WITHOUT_DELAYED,
        level="warning",
        before=with_session(lambda app: Forgetful()),
    ),
    Case(
        "a session that fails",
        "can't hold delayed calls (ConnectionError('no Redis'))",
        WITHOUT_DELAYED,
        level="warning",
        before=with_session(lambda app: Fails()),
    ),
    # What is in front of the app.
    Case(
        "a proxy that the app doesn't know of",
        "events have the proxy's address, and links and cookies are made for the wrong",
        PROXY_FIX,
        level="warning",
        arguments=["http://localhost/", *PROXIED, "X-Forwarded-Proto: https"],
    ),
    Case(
        "a proxy whose address events get",
        "events have the proxy's address",
        PROXY_FIX,
        level="warning",
        arguments=PROXIED[:2],
    ),
    Case(
        "a host that isn't trusted",
        "localhost isn't one of TRUSTED_HOSTS",
        "flask mengpaneel doctor https://shop.test/",
        level="warning",
        settings={"TRUSTED_HOSTS": ["shop.test"]},
    ),
    # Policies.
    Case(
        "Talisman's defaults",
        "default-src of Content-Security-Policy forbids https://cdn.mxpnl.com",
        f"script-src 'self' {CDN}",
        level="warning",
        settings={"SESSION_COOKIE_SAMESITE": "Lax"},
        before=Talisman,
    ),
    Case("no nonce", "forbids /_m", NONCE, **policy("script-src 'nonce-NONCE'")),
    Case(
        "another nonce",
        "script-src of Content-Security-Policy forbids",
        NONCE,
        settings={"csp_nonce": lambda: "other"},
        **policy("script-src 'nonce-NONCE' 'strict-dynamic'"),
    ),
    Case(
        "a nonce that fails",
        "MENGPANEEL_CSP_NONCE raises",
        "MENGPANEEL_CSP_NONCE = a callable",
        settings={"csp_nonce": fails},
    ),
    Case(
        "no scripts at all",
        "script-src of Content-Security-Policy forbids",
        f"script-src 'self' {CDN}",
        level="warning",
        **policy("script-src 'none'"),
    ),
    Case(
        "a policy of the page that forbids the API",
        "connect-src of <meta",
        f"connect-src 'self' {HOST}",
        level="warning",
        page=PAGE.replace(
            "<title>",
            '<meta http-equiv="Content-Security-Policy"'
            " content=\"connect-src 'self'\"><title>",
        ),
    ),
    Case(
        "connect-src without the API",
        f"forbids sending to {HOST}",
        f"connect-src 'self' {HOST}",
        level="warning",
        **policy("connect-src 'self'"),
    ),
    Case(
        "trusted types",
        "trusted-types of Content-Security-Policy forbids loading the library",
        "trusted-types other mengpaneel",
        level="warning",
        **policy("require-trusted-types-for 'script'; trusted-types other"),
    ),
    Case(
        "a sandbox",
        "sandbox of Content-Security-Policy forbids all scripts",
        "sandbox allow-scripts allow-same-origin",
        level="warning",
        **policy("sandbox"),
    ),
    # Pages.
    Case(
        "compression registered later",
        "the body is encoded",
        "initialise what compresses before Mengpaneel",
        level="warning",
        page=LONG,
        after=Compress,
    ),
    Case(
        "a page that is streamed",
        "the body is streamed",
        "render the page whole",
        level="warning",
        page=lambda: Response(iter([PAGE])),
    ),
    Case("no head", "no </head>", "close the head", "warning", page="<h1>Hello"),
    Case(
        "AMP",
        "an AMP page",
        "<amp-analytics>",
        level="warning",
        page=PAGE.replace("<html>", "<html amp>"),
    ),
    Case(
        "plain text",
        "(not HTML)",
        "Content-Type: text/html",
        level="warning",
        page=lambda: Response(PAGE, content_type="text/plain"),
    ),
    Case(
        "a page for everybody",
        "shared caches may keep the page",
        "Cache-Control: private",
        level="warning",
        headers=[("Cache-Control", "public, max-age=60")],
    ),
    Case(
        "a page that nginx keeps",
        "shared caches may keep the page",
        "Cache-Control: private",
        level="warning",
        headers=[("X-Accel-Expires", "60")],
    ),
    Case(
        "a base that leads elsewhere",
        "its <base> leads what the library sends to https://cdn.test/",
        f'{CLIENT} = {{"api_host": "https://localhost/mp"}}',
        settings={"client_config": {"api_host": "/mp"}},
        page=PAGE.replace("<title>", '<base href="https://cdn.test/"><title>'),
    ),
    Case(
        "a page whose own library keeps the visitor elsewhere",
        "its own code gives Mixpanel's library",
        f'{CLIENT} = {{"persistence": "localStorage"}}',
        level="warning",
        page=PAGE.replace(
            "<title>",
            f"<script>mixpanel.init('{TOKEN}', {{persistence: 'localStorage'}})"
            "</script><title>",
        ),
    ),
    Case(
        "a library in localStorage, and no script",
        "pages have no script that shows the server who it is",
        'MENGPANEEL_STRATEGIES = ["ClientSide", "AsyncServerSide", "ServerSide"]',
        level="warning",
        settings={
            "strategies": ["AsyncServerSide", "ServerSide"],
            "client_config": {"persistence": "localStorage"},
        },
        at_start=True,
    ),
    Case(
        "a page whose own library keeps nothing, and no script",
        "pages have no script that shows the server who it is",
        'MENGPANEEL_STRATEGIES = ["ClientSide", "ServerSide"]',
        level="warning",
        settings={"strategies": ["ServerSide"]},
        page=PAGE.replace(
            "<title>",
            f"<script>mixpanel.init('{TOKEN}', {{disable_persistence: true}})"
            "</script><title>",
        ),
    ),
    Case(
        "nobody but pages makes the calls",
        "no other strategy takes them",
        "close the head",
        settings={"strategies": ["ClientSide"]},
        page="<h1>Hello",
    ),
    Case(
        "a page that is replaced",
        "something that runs after the extension replaces the page",
        "initialise it after Mengpaneel",
        before=minifies,
    ),
    Case(
        "a toolbar that intercepts redirects",
        "Flask-DebugToolbar shows a page in place of each redirect",
        "DEBUG_TB_INTERCEPT_REDIRECTS = False",
        level="note",
        before=intercepts,
    ),
    # The app.
    Case(
        "CSRF protection",
        "the app answers /_mengpaneel/calls with 400",
        'csrf.exempt(app.blueprints["mengpaneel"])',
        after=CSRFProtect,
    ),
    Case(
        "a sign-in on everything",
        "mengpaneel.js with 302",
        'let everybody get what is in the blueprint "mengpaneel"',
        after=requires_sign_in,
    ),
    Case(
        "a sign-in that the doctor is led to",
        "/: redirects to /sign-in: this is examined",
        '--cookie "session=..." of somebody who may see it',
        level="note",
        after=requires_sign_in,
    ),
    Case(
        "a script that is blocked",
        "mengpaneel.js with 403",
        'let everybody get what is in the blueprint "mengpaneel"',
        after=blocks_the_script,
    ),
    Case(
        "a circle",
        "redirects in a circle",
        '--cookie "session=..."',
        after=turns_in_circles,
    ),
    Case(
        "a view that fails",
        "the view raises LookupError",
        "flask mengpaneel explain GET /",
        page=fails,
    ),
    Case(
        "an extension that fails",
        "the extension has failed",
        "see the log",
        after=lambda app: setattr(
            app.extensions["mengpaneel"].flusher, "respond", fails
        ),
    ),
    Case(
        "middleware that answers",
        "middleware answers in the app's place, with 503",
        "name a page that the app answers",
        level="warning",
        after=lambda app: setattr(app, "wsgi_app", Response("Later", 503)),
    ),
    Case(
        "a page that isn't there",
        "the app answers with 404",
        "name a page that exists",
        level="warning",
        arguments=["/nowhere"],
    ),
    Case(
        "a page for some",
        "the app answers with 403",
        '--cookie "session=..."',
        level="warning",
        page=lambda: abort(403),
    ),
]

RIGHT = [
    Case("as in the README"),
    Case("in Europe", settings={"api_host": EU}),
    Case(
        "in Europe, in capitals", settings={"api_host": "HTTPS://API-EU.mixpanel.com"}
    ),
    Case(
        "by a proxy",
        settings={
            "api_host": "https://proxy.test/mp",
            "client_config": {"api_host": "https://proxy.test/mp"},
        },
    ),
    Case(
        "by a proxy, for each kind of record",
        settings={
            "api_host": "https://proxy.test",
            "client_config": {
                "api_hosts": {
                    kind: f"https://proxy.test/{kind}"
                    for kind in ("events", "people", "groups")
                }
            },
        },
    ),
    Case(
        "by a path",
        settings={"client_config": {"api_host": "/mp"}, "library_url": "/mixpanel.js"},
    ),
    Case("without JavaScript", settings={"strategies": ["ServerSide"]}),
    Case("with a callable for consent", settings={"consent": lambda: None}),
    Case(
        "with a nonce",
        settings={"csp_nonce": nonce},
        **policy("script-src 'nonce-NONCE'"),
    ),
    Case("compressed afterwards", page=LONG, before=Compress),
    Case(
        "with a secure cookie",
        settings={"SESSION_COOKIE_SECURE": True, "SESSION_COOKIE_NAME": "__Host-s"},
    ),
    Case(
        "behind a proxy that it knows of",
        after=lambda app: setattr(app, "wsgi_app", ProxyFix(app.wsgi_app)),
        settings={"SESSION_COOKIE_SECURE": True},
        arguments=["http://localhost/", *PROXIED, "X-Forwarded-Proto: https"],
    ),
    Case(
        "behind a proxy that another layer knows of",
        arguments=["--header", "X-Forwarded-For: 127.0.0.1"],
    ),
    Case(
        "with sessions in a cookie of its own",
        before=with_session(lambda _: OwnCookie()),
    ),
    Case("with a derived session", before=with_session(lambda _: Derived())),
    Case("with sessions on the server", before=with_session(Store)),
    Case("with four workers", environ={"WEB_CONCURRENCY": "4"}),
    *(
        Case(f"without a spool, by {argv[0]}", settings={"spool": None}, argv=argv)
        for argv in (["gunicorn", "-w", "1"], ["celery", "worker", "-w", "4"])
    ),
    Case("inspected in debug", settings={"inspector": True, "DEBUG": True}),
    *(
        Case(f"as {browser}", arguments=["--as-browser", browser])
        for browser in ("firefox", "safari")
    ),
]


def findings_of(
    case: Case, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[dict[str, str]], list[str], int]:
    """What the doctor finds, what is said at the start, and the command's status."""
    for name, value in case.environ.items():
        monkeypatch.setenv(name, value)

    for name, module in case.modules.items():
        monkeypatch.setitem(sys.modules, name, module)

    monkeypatch.setattr(sys, "argv", [*case.argv] or sys.argv)

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        result = CliRunner().invoke(
            commands,
            ["doctor", "--json", *case.arguments],
            obj=ScriptInfo(
                create_app=lambda: case.create(folder), set_debug_flag=False
            ),
        )

    assert isinstance(result.exception, SystemExit | None), result.exception
    return (
        json.loads(result.stdout)["findings"],
        [str(one.message) for one in said if one.category is UserWarning],
        result.exit_code,
    )


@pytest.mark.parametrize("case", MISTAKES, ids=lambda case: case.what)
def test_a_mistake_is_found_with_a_line_to_paste(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, said, status = findings_of(case, tmp_path, monkeypatch)
    (one,) = [one for one in found if case.says in one["text"]][:1] or [found]

    assert one["level"] == case.level
    assert case.remedy in one["remedy"]
    assert status == any(one["level"] == "error" for one in found)
    advice = Finding(Level(one["level"]), one["text"], one["remedy"]).advice
    assert (advice in said) is case.at_start


def in_seconds(seconds: float) -> str:
    """The time then, as HTTP has it."""
    return email.utils.formatdate(time.time() + seconds, usegmt=True)


TAKEN = {"code": 200, "status": "OK"}
REFUSED = {"code": 401, "error": "Invalid credentials", "status": "Unauthorized"}


@pytest.mark.parametrize(
    ("answer", "says", "remedy", "level"),
    [
        (
            lambda: Status(200, {"Date": in_seconds(3600)}, TAKEN),
            "seconds behind Mixpanel's",
            "timedatectl set-ntp true",
            "warning",
        ),
        (
            lambda: Status(200, {"Date": in_seconds(-4000)}, TAKEN),
            "takes no events from the future",
            "timedatectl set-ntp true",
            "error",
        ),
        (
            lambda: Status(401, body=REFUSED),
            "Mixpanel refuses the token: HTTP 401: ",
            "check that MENGPANEEL_TOKEN is the token of your project",
            "error",
        ),
    ],
    ids=["a clock that is late", "a clock that is early", "another project's token"],
)
def test_a_mistake_that_mixpanel_alone_knows_of_is_found_if_it_is_asked(
    answer: c.Callable[[], Status],
    says: str,
    remedy: str,
    level: str,
    sink: Sink,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = {"api_host": sink.url, "TESTING": True}
    case = Case("online", settings=settings, arguments=["--online"])
    sink.always = answer()
    (one,), _, status = findings_of(case, tmp_path, monkeypatch)

    assert says in one["text"]
    assert remedy in one["remedy"]
    assert (one["level"], status) == (level, level == "error")
    offline = dataclasses.replace(case, arguments=())
    assert findings_of(offline, tmp_path, monkeypatch)[0] == []
    assert len(sink.requests) == 1


def of_members(app: Flask) -> None:
    """A page of somebody who has signed in, which has a mistake."""
    app.add_url_rule("/sign-in", "sign_in", lambda: PAGE)
    app.before_request(
        lambda: (
            redirect("/sign-in")
            if request.path == "/" and request.cookies.get("member") != "ann"
            else None
        )
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "/: redirects to /sign-in: this is examined"),
        (("--cookie", "member=bob"), "/: redirects to /sign-in: this is examined"),
        (("--cookie", "member=ann"), "/: the page can't carry calls"),
        (("--header", "Cookie: member=ann"), "/: the page can't carry calls"),
        (("--cookie", "member=ann", "--ask-consent"), "/: nothing is tracked: this"),
    ],
)
def test_the_doctor_sees_what_the_visitor_sees_that_the_options_name(
    arguments: t.Sequence[str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = Case(
        "members",
        settings={"consent": lambda: False},
        page="<h1>Hello",
        after=of_members,
        arguments=arguments,
    )
    (one,), _, _ = findings_of(case, tmp_path, monkeypatch)

    assert one["text"].startswith(says)


@pytest.mark.parametrize("case", RIGHT, ids=lambda case: case.what)
def test_no_mistake_is_found_in_a_right_app(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert findings_of(case, tmp_path, monkeypatch) == ([], [], 0)
