"""What in an app's pages would keep calls from reaching Mixpanel."""

from __future__ import annotations

import collections.abc as c
import dataclasses
import gzip
import json
import typing as t
from urllib.parse import urljoin, urlsplit

from flask import Flask, request, request_finished

from ..choose import injection
from ..choose.response_policy import ResponsePolicy
from ..config import CLIENT_STRATEGIES
from ..identity import hex_id
from ..outcome import REDIRECTS, Declined
from ..visitor.visitor import Visitor
from .csp import HEADER, REPORT_ONLY, find_base, parse, parse_page
from .findings import Finding, Level, Page, check_policies
from .settings import CLIENT_HOST

if t.TYPE_CHECKING:
    from flask import Response
    from flask.testing import FlaskClient

    from ..choose.app_state import AppState

#: The browser library's name, and path, for each kind of record
#: (mixpanel-core.js of mixpanel-browser 2.83.0).
_ROUTES = {"events": "track", "people": "engage", "groups": "groups"}

#: As many as browsers follow.
_MAX_REDIRECTS = 20

#: The headers with which a browser opens a page.
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

# Why a page can't carry calls, as the strategy that declines says it.
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


class Visit:
    """A visit to pages of the app, asked for as a browser would.

    :param client: asks the app.
    :param start: the URL of the app's root.
    """

    def __init__(
        self, app: Flask, state: AppState, client: FlaskClient, start: str
    ) -> None:
        self._app = app
        self._state = state
        self._config = state.config
        self._client = client
        self._start = start
        self._accepts_hand_backs = False
        self._acknowledges = state.hand_overs is not None

    def check_app(self) -> c.Iterator[Finding]:
        """Ask for what each page needs of the app.

        It is the script, and the URL to which a page hands calls back.
        """
        url = urljoin(self._start, self._url_for("static", filename="mengpaneel.js"))
        response = self._client.get(url, headers=_BROWSER, buffered=True)

        if response.status_code != 200 or "javascript" not in response.content_type:
            text = f"the app answers {urlsplit(url).path} with {response.status}"
            remedy = 'let everybody get what is in the blueprint "mengpaneel"'
            yield Finding(Level.ERROR, text, remedy)

        if self._state.config.fallback and self._app.secret_key:
            yield from self._check_hand_back()

        if self._acknowledges:
            yield from self._check_acknowledging()

    def _check_hand_back(self) -> c.Iterator[Finding]:
        signer = self._state.signer
        # It hands back no calls: nothing happens if the app accepts it.
        body: dict[str, t.Any] = {
            "text": "[]",
            "signature": signer.sign("[]"),
            "calls": [],
        }
        refusal = self._refusal("calls", json.dumps(body))
        self._accepts_hand_backs = refusal is None

        if refusal:
            then = (
                "the server sends calls late, after MENGPANEEL_ACK_TIMEOUT,"
                if self._acknowledges
                else "calls are lost"
            )
            text = f"{refusal}, so that {then} where the library is blocked"
            yield Finding(Level.ERROR, text, self._remedy())

    def _check_acknowledging(self) -> c.Iterator[Finding]:
        # Nobody was given anything under this id.
        refusal = self._refusal("acks", str(self._state.signer.token(hex_id()[:16])))

        if refusal:
            text = f"{refusal}, so that the server sends again what pages have sent"
            yield Finding(Level.WARNING, text, self._remedy())

    def _refusal(self, endpoint: str, body: str) -> str | None:
        """Post to the app as the script does; say how it refuses, if it does."""
        url = urljoin(self._start, self._url_for(endpoint))
        origin = "{0.scheme}://{0.netloc}".format(urlsplit(url))
        headers = {**_BROWSER, "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}
        headers |= {"Sec-Fetch-Site": "same-origin", "Origin": origin, "Accept": "*/*"}
        response = self._client.post(
            url,
            data=body,
            content_type="text/plain;charset=UTF-8",
            headers=headers,
            buffered=True,
        )

        if response.status_code == 204:
            return None

        return f"the app answers {urlsplit(url).path} with {response.status}"

    def _remedy(self) -> str:
        if "csrf" in self._app.extensions:
            return 'csrf.exempt(app.blueprints["mengpaneel"])'

        return 'let everybody post to the blueprint "mengpaneel"'

    def check_page(self, url: str) -> c.Iterator[Finding]:
        """Ask for a page, and find what would keep its calls from reaching Mixpanel."""
        name = urlsplit(url).path

        try:
            url, response, body = self._open(url)
        except Exception as error:
            yield Finding(Level.ERROR, f"{name}: the view raises {error!r}")
            return

        if response.status_code in REDIRECTS:
            text = f"{name}: redirects to {response.headers['Location']}"
            yield Finding(Level.NOTE, text, "name a page that doesn't")
            return

        if response.status_code != 200:
            text = f"{name}: the app answers with {response.status}"
            yield Finding(Level.WARNING, text, "name a page that exists")
            return

        reason = self._reason_not_carried(response, body)

        if reason:
            yield self._not_carried(name, reason)

        if reason in ("", _SHARED, _NO_CONSENT):
            yield from self._check_policies(name, url, response, body)
        elif reason == _NO_SCRIPTS:
            # The page doesn't have the script, so that nothing is lost.
            for finding in self._check_policies(name, url, response, body):
                yield dataclasses.replace(finding, level=Level.WARNING)

    def _open(self, url: str) -> tuple[str, Response, bytes]:
        responses: list[Response] = []

        # The client's own response doesn't tell whether the app streams it.
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

    def _reason_not_carried(self, response: Response, body: bytes) -> str:
        """Return why a page can't carry calls; empty if it can."""
        visitor = Visitor(self._config, request)
        headers = injection.headers_of(response)
        policy = ResponsePolicy(self._config, request, response, headers, visitor)

        if visitor.consent.given is not True:
            return _NO_CONSENT

        if policy.is_shared:
            return _SHARED

        # The page carries calls, even if something that ran after the extension has
        # compressed it, or given it a policy.
        if b' id="mengpaneel"' in body:
            return ""

        reason = injection.unfit(response, headers)

        if reason is None:
            try:
                injection.locate(response, headers)
            except Declined as declined:
                reason = str(declined)

        return reason or ""

    def _not_carried(self, name: str, reason: str) -> Finding:
        if reason == _NO_CONSENT:
            return Finding(Level.NOTE, f"{name}: nothing is tracked: {reason}")

        if CLIENT_STRATEGIES.issuperset(self._config.strategies):
            level, then = Level.ERROR, "no other strategy takes them"
        else:
            level, then = Level.WARNING, "the server sends them"

        text = f"{name}: the page can't carry calls ({reason}): {then}"
        return Finding(level, text, _REMEDIES.get(reason, ""))

    def _check_policies(
        self, name: str, url: str, response: Response, body: bytes
    ) -> c.Iterator[Finding]:
        base = find_base(body.decode("utf-8", "replace"), url)
        yield from self._check_base(name, url, base, body)

        try:
            page = self._page(url, base)
        except Exception as error:
            yield Finding(Level.ERROR, f"{name}: MENGPANEEL_CSP_NONCE raises {error!r}")
            return

        headers = response.headers
        policies = [
            *(one for text in headers.getlist(HEADER) for one in parse(text, url)),
            *parse_page(body.decode("utf-8", "replace"), url),
        ]
        yield from check_policies(name, page, policies)

        for text in headers.getlist(REPORT_ONLY):
            for policy in parse(text, url, REPORT_ONLY):
                for finding in check_policies(name, page, [policy]):
                    yield dataclasses.replace(finding, level=Level.NOTE)

    def _check_base(
        self, name: str, url: str, base: str, body: bytes
    ) -> c.Iterator[Finding]:
        """Find what a page's ``<base>`` leads to another site."""
        if urlsplit(base)[:2] == urlsplit(url)[:2]:
            return

        host = self._config.init_options.get("api_host")
        script = body.find(b'<script type="application/json" id="mengpaneel"')

        if (
            isinstance(host, str)
            and urlsplit(urljoin(url, host))[:2] != urlsplit(urljoin(base, host))[:2]
        ):
            text = f"{name}: its <base> leads what the library sends to {base}"
            there = urljoin(url, host)
            remedy = f'MENGPANEEL_CLIENT_CONFIG = {{"api_host": "{there}"}}'
            yield Finding(Level.ERROR, text, remedy)

        if 0 <= body.lower().find(b"<base") < script:
            text = f"{name}: its <base> leads the script to {base}"
            remedy = "put the <base> where the extension sees it, or after the script"
            yield Finding(Level.ERROR, text, remedy)

    def _page(self, url: str, base: str) -> Page:
        """Return what a page needs.

        :param base: to what its addresses are relative.
        :raises Exception: whatever the app's ``MENGPANEEL_CSP_NONCE`` raises.
        """
        config = self._config
        nonce = config.csp_nonce() if config.csp_nonce else None
        library = config.library_url and urljoin(url, config.library_url)
        options = config.init_options
        hosts, routes = (options.get(name) for name in ("api_hosts", "api_routes"))
        hosts = hosts if isinstance(hosts, dict) else {}
        routes = routes if isinstance(routes, dict) else {}
        default = options.get("api_host") or CLIENT_HOST
        return Page(
            script_url=urljoin(url, self._url_for("static", filename="mengpaneel.js")),
            library_url=library,
            nonce=str(nonce) if nonce else None,
            api_urls=[
                urljoin(
                    base, f"{hosts.get(kind, default)}/{routes.get(name, f'{name}/')}"
                )
                for kind, name in _ROUTES.items()
            ],
            hand_back_url=(
                urljoin(url, self._url_for("calls"))
                if self._accepts_hand_backs
                else None
            ),
            ack_url=(
                urljoin(url, self._url_for("acks")) if self._acknowledges else None
            ),
        )

    def _url_for(self, endpoint: str, **values: str) -> str:
        # As the page itself has them, whatever the app's root is.
        with self._app.test_request_context(base_url=self._start):
            return self._app.url_for(
                f"mengpaneel.{endpoint}", _external=False, **values
            )
