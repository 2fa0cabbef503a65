"""What of an app's settings and pages would keep calls from reaching Mixpanel."""

from __future__ import annotations

import collections.abc as c
import dataclasses
import gzip
import json
import typing as t
import urllib.error
import urllib.request
from urllib.parse import urljoin, urlsplit

import click
from flask import Flask, request, request_finished
from flask.cli import ScriptInfo, pass_script_info

from ..choose import injection
from ..choose.response_policy import ResponsePolicy
from ..config import CLIENT_STRATEGIES
from ..outcome import REDIRECTS, Declined
from ..testing import RecordingTransport
from ..visitor.visitor import Visitor
from .csp import HEADER, REPORT_ONLY, parse, parse_page
from .findings import Finding, Level, Page, judge

if t.TYPE_CHECKING:
    from flask import Response
    from flask.testing import FlaskClient

    from ..choose.app_state import AppState
    from ..config import Config

#: Where the browser library sends if its configuration doesn't say, and on which paths
#: (mixpanel-core.js of mixpanel-browser 2.83.0).
_CLIENT_HOST = "https://api-js.mixpanel.com"
_ROUTES = {"events": "track/", "people": "engage/", "groups": "groups/"}

_MAX_REDIRECTS = 20

#: What a browser says of itself when somebody opens a page.
_BROWSER = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"
    " (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Accept-Encoding": "gzip",
    "Accept-Language": "en",
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Site": "none",
}

# Why calls don't go with a page, in the words of the strategy.
_NO_CONSENT = "this visitor hasn't consented"
_SHARED = "shared caches may keep the page"
_NO_SCRIPTS = "the page's policy allows no scripts"

_REMEDIES = {
    "the body is encoded": "initialise what compresses before Mengpaneel: Flask runs"
    " last what was registered first",
    "the body is streamed": "render the page whole, or leave it to the server",
    _SHARED: "Cache-Control: private",
    "no </head> or </body>, or a frameset": "close the head of the page with </head>",
}


@click.command()
@click.argument("urls", metavar="[URL-PATH]...", nargs=-1)
@click.option("--online", is_flag=True, help="Also try to reach MENGPANEEL_API_HOST.")
@pass_script_info
def doctor(info: ScriptInfo, urls: tuple[str, ...], online: bool) -> None:
    """Say what would keep calls from reaching Mixpanel.

    Asks the app for pages, / unless others are named, as a browser on
    https://localhost would. Name a page with scheme and host if they matter. Nothing is
    sent to Mixpanel. Fails if calls would be lost.
    """
    app = info.load_app()

    if "mengpaneel" not in app.extensions:
        raise click.ClickException("This app has no Mengpaneel.")

    findings = examine(app, urls or ("/",), online)

    for finding in findings:
        click.echo(str(finding))

    if not findings:
        click.echo("Nothing is wrong.")

    if any(finding.level is Level.ERROR for finding in findings):
        raise SystemExit(1)


def examine(
    app: Flask, urls: c.Iterable[str] = ("/",), online: bool = False
) -> list[Finding]:
    """Look for what would keep calls from reaching Mixpanel.

    :param urls: pages of the app; paths, or with scheme and host.
    :param online: also try to reach Mixpanel.
    """
    state: AppState = app.extensions["mengpaneel"]
    config = state.config

    if not config.enabled:
        return [Finding(Level.NOTE, "MENGPANEEL_ENABLED is False: nothing is tracked")]

    if config.token is None:
        text = "there is no token, so that all calls are dropped"
        return [Finding(Level.ERROR, text, 'MENGPANEEL_TOKEN = "..."')]

    findings = [*_settings(app, state)]

    if online:
        findings += _reach(config)

    if "ClientSide" in config.strategies:
        base = f"https://{app.config['SERVER_NAME'] or 'localhost'}/"
        pages = [urljoin(base, url) for url in urls]

        if "Delayed" in config.strategies:
            findings += [one for page in pages for one in _cookies(app, page)]

        # Views track what they track, but nobody has opened these pages.
        with state.chain.diverted(RecordingTransport()), app.test_client() as client:
            visit = _Visit(app, state, client, urljoin([*pages, base][0], "/"))
            findings += visit.script()
            findings += [one for page in pages for one in visit.look_at(page)]

    return list(dict.fromkeys(findings))


# -- Settings


def _settings(app: Flask, state: AppState) -> c.Iterator[Finding]:
    config = state.config

    if config.inspector and not app.debug:
        text = "everything goes to the inspector, and nothing to Mixpanel"
        yield Finding(Level.WARNING, text, "MENGPANEEL_INSPECTOR = False")

    if config.serverless and config.transport == "thread":
        text = "this platform stops threads as soon as a response has left"
        yield Finding(Level.ERROR, text, 'MENGPANEEL_TRANSPORT = "inline"')

    if config.transport == "celery" and "celery" not in app.extensions:
        text = 'MENGPANEEL_TRANSPORT is "celery", but the app has no Celery'
        yield Finding(Level.ERROR, text, 'app.extensions["celery"] = celery_app')

    yield from _spool(state)
    yield from _regions(config)

    if not app.secret_key and not CLIENT_STRATEGIES.isdisjoint(config.strategies):
        text = (
            "without a secret key, calls before a redirect are sent from the server,"
            " and a page whose library is blocked can't hand its calls back"
        )
        yield Finding(Level.WARNING, text, 'SECRET_KEY = "..."')


def _spool(state: AppState) -> c.Iterator[Finding]:
    from ..deliver.spool import SpoolError
    from ..deliver.thread import InlineTransport

    inline = state.inline

    if not isinstance(inline, InlineTransport) or inline.delivery.spool is None:
        return

    try:
        inline.delivery.spool.check()
    except SpoolError as error:
        text = f"what can't be delivered at once has nowhere to wait: {error}"
        yield Finding(Level.ERROR, text, 'MENGPANEEL_SPOOL = "/path/of/a/file.sqlite3"')


def _regions(config: Config) -> c.Iterator[Finding]:
    if CLIENT_STRATEGIES.isdisjoint(config.strategies) or config.inspector:
        return

    client = str(config.init_options.get("api_host") or _CLIENT_HOST)
    regions = [_region(host) for host in (config.api_host, client)]

    if None not in regions and regions[0] != regions[1]:
        text = (
            f"the server sends to {config.api_host}, browsers send to {client}: a"
            " project lives in one of them, and the other one takes its calls for"
            " nothing"
        )
        suffix = "" if regions[0] == "US" else f"-{str(regions[0]).lower()}"
        host = _CLIENT_HOST if not suffix else f"https://api{suffix}.mixpanel.com"
        remedy = f'MENGPANEEL_CLIENT_CONFIG = {{"api_host": "{host}"}}'
        yield Finding(Level.ERROR, text, remedy)


def _region(url: str) -> str | None:
    """Where Mixpanel keeps what it gets there; ``None``: it isn't Mixpanel's."""
    regions = {"api": "US", "api-js": "US", "api-eu": "EU", "api-in": "IN"}
    name, _, domain = (urlsplit(url).hostname or "").partition(".")
    return regions.get(name) if domain == "mixpanel.com" else None


def _cookies(app: Flask, url: str) -> c.Iterator[Finding]:
    """What makes browsers refuse the session's cookie, and the delayed calls in it.

    https://httpwg.org/http-extensions/draft-ietf-httpbis-rfc6265bis.html
    """
    interface = app.session_interface
    name, secure = interface.get_cookie_name(app), interface.get_cookie_secure(app)
    domain = (interface.get_cookie_domain(app) or "").lstrip(".")
    host = urlsplit(url).hostname or ""
    lost = "so that browsers refuse the session, and with it the calls that it carries"

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


def _reach(config: Config) -> c.Iterator[Finding]:
    try:
        urllib.request.urlopen(config.api_host, timeout=10).close()
    except urllib.error.HTTPError as error:
        # It answered.
        error.close()
    except OSError as error:
        text = f"{config.api_host} can't be reached from here: {error}"
        yield Finding(Level.ERROR, text, "let the server connect to it")


# -- Pages


class _Visit:
    """A browser's visit to pages of the app, without a browser."""

    def __init__(
        self, app: Flask, state: AppState, client: FlaskClient, start: str
    ) -> None:
        self._app = app
        self._state = state
        self._config = state.config
        self._client = client
        self._start = start
        self._takes_back = False

    def script(self) -> c.Iterator[Finding]:
        """Ask for what each page needs of the app: the script, and the place that
        takes calls back."""
        url = urljoin(self._start, self._url_for("static", filename="mengpaneel.js"))
        response = self._client.get(url, headers=_BROWSER, buffered=True)

        if response.status_code != 200 or "javascript" not in response.content_type:
            text = f"{urlsplit(url).path} is answered with {response.status}"
            remedy = 'let everybody get what is in the blueprint "mengpaneel"'
            yield Finding(Level.ERROR, text, remedy)

        if self._state.signer is not None and self._app.secret_key:
            yield from self._hand_back()

    def _hand_back(self) -> c.Iterator[Finding]:
        signer = self._state.signer
        assert signer is not None
        url = urljoin(self._start, self._url_for("calls"))
        # No calls, with a signature: nothing happens if it is let through.
        body: dict[str, t.Any] = {
            "text": "[]",
            "signature": signer.sign("[]"),
            "calls": [],
        }
        origin = "{0.scheme}://{0.netloc}".format(urlsplit(url))
        headers = {**_BROWSER, "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}
        headers |= {"Sec-Fetch-Site": "same-origin", "Origin": origin, "Accept": "*/*"}
        response = self._client.post(
            url,
            data=json.dumps(body),
            content_type="text/plain;charset=UTF-8",
            headers=headers,
            buffered=True,
        )
        self._takes_back = response.status_code == 204

        if not self._takes_back:
            csrf = "csrf" in self._app.extensions
            text = (
                f"{urlsplit(url).path} is answered with {response.status}, so that"
                " calls are lost where the library is blocked"
            )
            remedy = (
                'csrf.exempt(app.blueprints["mengpaneel"])'
                if csrf
                else 'let everybody post to the blueprint "mengpaneel"'
            )
            yield Finding(Level.ERROR, text, remedy)

    def look_at(self, url: str) -> c.Iterator[Finding]:
        """Ask for a page, and say what would keep its calls from reaching Mixpanel."""
        name = urlsplit(url).path

        try:
            url, response, body = self._open(url)
        except Exception as error:
            yield Finding(Level.ERROR, f"{name}: the view raises {error!r}")
            return

        if response.status_code in REDIRECTS:
            text = f"{name}: leads to {response.headers['Location']}"
            yield Finding(Level.NOTE, text, "name a page that doesn't")
            return

        if response.status_code != 200:
            text = f"{name}: is answered with {response.status}"
            yield Finding(Level.WARNING, text, "name a page that exists")
            return

        reason = self._decline(response, body)

        if reason:
            yield self._not_with_the_page(name, reason)

        if reason in ("", _SHARED, _NO_CONSENT):
            yield from self._policies(name, url, response, body)
        elif reason == _NO_SCRIPTS:
            # The script isn't there to be kept from running.
            for finding in self._policies(name, url, response, body):
                yield dataclasses.replace(finding, level=Level.WARNING)

    def _open(self, url: str) -> tuple[str, Response, bytes]:
        responses: list[Response] = []

        # The client's own doesn't tell whether the app streams it.
        def receive(_app: Flask, response: Response) -> None:
            responses.append(response)

        while True:
            with request_finished.connected_to(receive, self._app):
                body = self._client.get(url, headers=_BROWSER, buffered=True).data

            response = responses[-1]
            target = urljoin(url, response.headers.get("Location", url))

            if (
                len(responses) == _MAX_REDIRECTS
                or response.status_code not in REDIRECTS
                or urlsplit(target).hostname != urlsplit(url).hostname
            ):
                break

            url = target

        if response.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)

        return url, response, body

    def _decline(self, response: Response, body: bytes) -> str:
        """Why calls couldn't go with a page; empty if they could."""
        visitor = Visitor(self._config, request)
        headers = injection.headers_of(response)
        policy = ResponsePolicy(self._config, request, response, headers, visitor)

        if visitor.consents is not True:
            return _NO_CONSENT

        if policy.is_shared:
            return _SHARED

        # What runs after the extension may have compressed the page, or given it a
        # policy.
        if b' id="mengpaneel"' in body:
            return ""

        reason = injection.unfit(response, headers)

        if reason is None:
            try:
                injection.locate(response, headers)
            except Declined as declined:
                reason = str(declined)

        return reason or ""

    def _not_with_the_page(self, name: str, reason: str) -> Finding:
        if reason == _NO_CONSENT:
            return Finding(Level.NOTE, f"{name}: nothing is tracked: {reason}")

        if CLIENT_STRATEGIES.issuperset(self._config.strategies):
            level, then = Level.ERROR, "no other strategy is left to take them"
        else:
            level, then = Level.WARNING, "they are sent from the server"

        text = f"{name}: calls can't go with the page ({reason}): {then}"
        return Finding(level, text, _REMEDIES.get(reason, ""))

    def _policies(
        self, name: str, url: str, response: Response, body: bytes
    ) -> c.Iterator[Finding]:
        try:
            page = self._page(url)
        except Exception as error:
            yield Finding(Level.ERROR, f"{name}: MENGPANEEL_CSP_NONCE raises {error!r}")
            return

        headers = response.headers
        policies = [
            *(one for text in headers.getlist(HEADER) for one in parse(text, url)),
            *parse_page(body.decode("utf-8", "replace"), url),
        ]
        yield from judge(name, page, policies)

        for text in headers.getlist(REPORT_ONLY):
            for policy in parse(text, url, REPORT_ONLY):
                for finding in judge(name, page, [policy]):
                    yield dataclasses.replace(finding, level=Level.NOTE)

    def _page(self, url: str) -> Page:
        config = self._config
        nonce = config.csp_nonce() if config.csp_nonce else None
        library = config.library_url and urljoin(url, config.library_url)
        options = config.init_options
        hosts, routes = (options.get(name) for name in ("api_hosts", "api_routes"))
        hosts = hosts if isinstance(hosts, dict) else {}
        routes = routes if isinstance(routes, dict) else {}
        default = options.get("api_host") or _CLIENT_HOST
        names = {"events": "track", "people": "engage", "groups": "groups"}
        return Page(
            script=urljoin(url, self._url_for("static", filename="mengpaneel.js")),
            library=library,
            nonce=str(nonce) if nonce else None,
            api=[
                urljoin(
                    url,
                    f"{hosts.get(kind, default)}/{routes.get(names[kind], route)}",
                )
                for kind, route in _ROUTES.items()
            ],
            back=urljoin(url, self._url_for("calls")) if self._takes_back else None,
        )

    def _url_for(self, endpoint: str, **values: str) -> str:
        # As the page itself has them, under whatever root it is.
        with self._app.test_request_context(base_url=self._start):
            return self._app.url_for(
                f"mengpaneel.{endpoint}", _external=False, **values
            )
