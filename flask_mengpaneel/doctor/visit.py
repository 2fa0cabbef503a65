"""What in an app's pages would keep calls from reaching Mixpanel."""

from __future__ import annotations

import collections.abc as c
import dataclasses
import json
import typing as t
from urllib.parse import urljoin, urlsplit

from flask import Flask

from .. import reasons
from ..hosts import CLIENT_HOST
from ..mistakes import Finding, Level
from .csp import HEADER, REPORT_ONLY, find_base, parse, parse_page
from .examiner import AnsweredElsewhere
from .findings import Page, check_policies
from .persistence import check_persistence

if t.TYPE_CHECKING:
    from ..choose.app_state import AppState
    from ..choose.explaining import Explanation
    from .examiner import Examined, Examiner

#: The browser library's name, and path, for each kind of record
#: (mixpanel-core.js of mixpanel-browser 2.83.0).
_ROUTES = {"events": "track", "people": "engage", "groups": "groups"}

#: How the reason begins when the visitor may not be tracked.
_UNTRACKED = (reasons.NOT_CONSENTED, reasons.NOT_ASKED)

#: Of what ClientSide puts into a page, whatever has given its element attributes since.
_SNIPPET = b' id="mengpaneel"'

#: How a script of the page's own asks.
_FETCH = {
    "Sec-Fetch-Mode": "cors",
    "Sec-Fetch-Dest": "empty",
    "Sec-Fetch-Site": "same-origin",
    "Accept": "*/*",
}


class Visit:
    """A visit to pages of the app, asked for as a browser would.

    :param examiner: asks the app.
    :param start: the URL of the app's root.
    """

    def __init__(
        self, app: Flask, state: AppState, examiner: Examiner, start: str
    ) -> None:
        self._app = app
        self._state = state
        self._config = state.config
        self._examiner = examiner
        self._start = start
        self._accepts_hand_backs = False
        self._acknowledges = state.hand_overs is not None

    def check_app(self) -> c.Iterator[Finding]:
        """Ask for what each page needs of the app.

        It is the script, and the URL to which a page hands calls back.
        """
        url = urljoin(self._start, self._url_for("script"))
        answer = self._answer(url)

        if answer != "200 OK, text/javascript":
            text = f"the app answers {urlsplit(url).path} with {answer}"
            remedy = 'let everybody get what is in the blueprint "mengpaneel"'
            yield Finding(Level.ERROR, text, remedy)

        if self._state.config.fallback and self._app.secret_key:
            yield from self._check_hand_back()

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

    def _refusal(self, endpoint: str, body: str) -> str | None:
        """Post to the app as the script does; say how it refuses, if it does."""
        url = urljoin(self._start, self._url_for(endpoint))
        origin = "{0.scheme}://{0.netloc}".format(urlsplit(url))
        answer = self._answer(
            url,
            "POST",
            {**_FETCH, "Origin": origin},
            data=body,
            content_type="text/plain;charset=UTF-8",
        )

        if answer.startswith("204"):
            return None

        return f"the app answers {urlsplit(url).path} with {answer}"

    def _answer(self, url: str, *args: t.Any, **body: t.Any) -> str:
        """Return the status and the type of an answer, or what is raised instead."""
        try:
            response = self._examiner.ask(url, *args, **body).response
        except AnsweredElsewhere as error:
            return f"{error}, by middleware"
        except Exception as error:
            return repr(error)

        kind = response.mimetype
        return (
            f"{response.status}, {kind}"
            if response.status_code == 200
            else response.status
        )

    def _remedy(self) -> str:
        if "csrf" in self._app.extensions:
            return 'csrf.exempt(app.blueprints["mengpaneel"])'

        return 'let everybody post to the blueprint "mengpaneel"'

    def check_own_library(self, url: str) -> c.Iterator[Finding]:
        """Ask for a page that has no script of ours, and find what its own code would
        need one for."""
        try:
            answer = self._examiner.visit(url)[-1]
        except Exception:
            # Nobody expects calls of it.
            return

        yield from check_persistence(answer.path or "/", self._config, answer.body)

    def check_page(self, url: str) -> c.Iterator[Finding]:
        """Ask for a page, and find what would keep its calls from reaching Mixpanel."""
        name = urlsplit(url).path or "/"

        try:
            answers = self._examiner.visit(url)
        except AnsweredElsewhere as error:
            text = f"{name}: middleware answers in the app's place, with {error}"
            yield Finding(Level.WARNING, text, "name a page that the app answers")
            return
        except Exception as error:
            text = f"{name}: the view raises {error!r}"
            yield Finding(Level.ERROR, text, f"flask mengpaneel explain GET {name}")
            return

        answer = answers[-1]

        for one in answers:
            yield from one.findings

        if len(answers) > 1 or answer.target is not None:
            yield self._redirects(name, answers)

        if answer.target is not None:
            return

        name = answer.path or "/"
        status = answer.response.status

        if answer.response.status_code != 200:
            text = f"{name}: the app answers with {status}"
            remedy = "name a page that exists"

            if answer.response.status_code in (401, 403):
                remedy = self._cookie_option()
            elif "POST" in answer.response.allow:
                remedy = f"flask mengpaneel explain POST {name}"

            yield Finding(Level.WARNING, text, remedy)
            return

        if isinstance(answer.nonce, Exception):
            text = f"{name}: MENGPANEEL_CSP_NONCE raises {answer.nonce!r}"
            remedy = "MENGPANEEL_CSP_NONCE = a callable that returns a nonce, or None"
            yield Finding(Level.ERROR, text, remedy)
            return

        if answer.explanation is None:
            text = f"{name}: the extension has failed, and left the page as it was"
            yield Finding(Level.ERROR, text, "see the log")
            return

        reason = self._reason_not_carried(answer.explanation)

        if reason:
            yield _not_carried(name, reason, answer.explanation)
        elif _is_replaced(answer):
            text = f"{name}: something that runs after the extension replaces the page"
            remedy = "initialise it after Mengpaneel: Flask runs last what was"
            yield Finding(Level.ERROR, text, f"{remedy} registered first")

        yield from check_persistence(name, self._config, answer.body)

        if reason is None or reason.startswith((reasons.SHARED_PAGE, *_UNTRACKED)):
            yield from self._check_policies(name, answer)
        elif reason == reasons.NO_SCRIPTS:
            # The page doesn't have the script, so that nothing is lost.
            for finding in self._check_policies(name, answer):
                yield dataclasses.replace(finding, level=Level.WARNING)

    def _redirects(self, name: str, answers: list[Examined]) -> Finding:
        last = answers[-1]
        hops = [one.target for one in answers if one.target is not None]

        if last.target is not None and last.stays:
            text = f"{name}: redirects in a circle, to {', '.join(hops[:3])}"
            return Finding(Level.ERROR, text, self._cookie_option())

        there = f"{name}: redirects to {', '.join(map(self._short, hops))}"

        if last.target is not None:
            return Finding(Level.NOTE, there, "name a page that doesn't")

        return Finding(Level.NOTE, f"{there}: this is examined", self._cookie_option())

    def _short(self, url: str) -> str:
        same = urlsplit(url)[:2] == urlsplit(self._start)[:2]
        return urlsplit(url)._replace(scheme="", netloc="").geturl() if same else url

    def _cookie_option(self) -> str:
        name = self._app.session_interface.get_cookie_name(self._app)
        return f'--cookie "{name}=..." of somebody who may see it'

    def _reason_not_carried(self, explanation: Explanation) -> str | None:
        """Return why a page can't carry calls; ``None`` if it can."""
        return explanation.nothing or explanation.declined.get("ClientSide")

    def _check_policies(self, name: str, answer: Examined) -> c.Iterator[Finding]:
        url = answer.url
        base = find_base(answer.html, url)
        yield from self._check_base(name, url, base, answer.body)

        page = self._page(url, base, t.cast("str | None", answer.nonce))
        headers = answer.response.headers
        policies = [
            *(one for text in headers.getlist(HEADER) for one in parse(text, url)),
            *parse_page(answer.html, url),
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
        script = body.find(_SNIPPET)

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

    def _page(self, url: str, base: str, nonce: str | None) -> Page:
        """Return what a page needs.

        :param base: to what its addresses are relative.
        """
        config = self._config
        options = config.init_options
        hosts, routes = (options.get(name) for name in ("api_hosts", "api_routes"))
        hosts = hosts if isinstance(hosts, dict) else {}
        routes = routes if isinstance(routes, dict) else {}
        default = options.get("api_host") or CLIENT_HOST
        return Page(
            script_url=urljoin(url, self._url_for("script")),
            library_url=config.library_url and urljoin(url, config.library_url),
            nonce=nonce,
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

    def _url_for(self, endpoint: str) -> str:
        # As the page itself has them, whatever the app's root is.
        with self._app.test_request_context(base_url=self._start):
            return self._app.url_for(f"mengpaneel.{endpoint}", _external=False)


def _not_carried(name: str, reason: str, explanation: Explanation) -> Finding:
    if reason.startswith(_UNTRACKED):
        return Finding(Level.NOTE, f"{name}: nothing is tracked: {reason}")

    level, then = Level.WARNING, "the server sends them"

    if explanation.strategy is None:
        level, then = Level.ERROR, "no other strategy takes them"
    elif explanation.is_client_side:
        then = f"{explanation.strategy} takes them"

    text = f"{name}: the page can't carry calls ({reason}): {then}"
    return Finding(level, text, reasons.REMEDIES.get(reason, ""))


def _is_replaced(answer: Examined) -> bool:
    """Whether what the extension has put into the page isn't there any more."""
    explanation = answer.explanation
    is_given = explanation is not None and explanation.strategy == "ClientSide"
    return is_given and _SNIPPET not in answer.body
