"""Asks an app for pages as a browser would, and finds out what becomes of a call."""

from __future__ import annotations

import collections.abc as c
import contextlib
import dataclasses
import gzip
import inspect
import time
import typing as t
import zlib
from urllib.parse import urljoin, urlsplit

from flask import Flask, got_request_exception, request, request_finished
from werkzeug.http import parse_cookie

from .. import mistakes
from ..calls import Call
from ..choose.explaining import Explanation, add_header
from ..identity import hex_id
from ..mistakes import Finding, Level
from ..outcome import REDIRECTS
from ..record.context import current_manager
from ..visitor.consent import no_answer

if t.TYPE_CHECKING:
    from flask import Response

    from ..choose.app_state import AppState
    from ..choose.exchange import Exchange
    from ..outcome import Outcome

#: The event that is tracked where a view tracks nothing.
PROBE = "Probe"

#: As many as browsers follow.
_MAX_REDIRECTS = 20

_PAGE = {
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Accept-Encoding": "gzip",
    "Accept-Language": "en",
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Site": "none",
}

#: The headers with which a program opens a page.
BROWSERS = {
    "chrome": {
        "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"
        " (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
        **_PAGE,
    },
    "firefox": {
        "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101"
        " Firefox/140.0",
        **_PAGE,
    },
    "safari": {
        "User-Agent": "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7)"
        " AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.4 Safari/605.1.15",
        **_PAGE,
    },
    "none": {"User-Agent": "curl/8.5.0", "Accept": "*/*"},
}


class AnsweredElsewhere(Exception):
    """Middleware has answered in the app's place; the message is the status."""


@dataclasses.dataclass(frozen=True)
class Person:
    """Whom the app is asked as.

    :param cookies: names and values.
    :param headers: names and values; they win over the browser's. An empty one takes
        the browser's away.
    :param browser: one of :data:`BROWSERS`.
    :param consents: whether they have consented, whatever the app would say.
    """

    cookies: c.Sequence[tuple[str, str]] = ()
    headers: c.Sequence[tuple[str, str]] = ()
    browser: str = "chrome"
    consents: bool = True

    @property
    def all_cookies(self) -> list[tuple[str, str]]:
        """The cookies, those of a header included."""
        lines = [value for name, value in self.headers if name.lower() == "cookie"]
        sent = [one for line in lines for one in parse_cookie(line).items(multi=True)]
        return [*self.cookies, *sent]

    def with_headers(self, own: c.Mapping[str, str]) -> list[tuple[str, str]]:
        """Return the headers of a request.

        :param own: those that this kind of request has.
        """
        told = {name.lower() for name, _ in self.headers}
        usual = {**BROWSERS[self.browser], **own}.items()
        kept = [(name, value) for name, value in usual if name.lower() not in told]
        return [*kept, *((name, value) for name, value in self.headers if value)]


@dataclasses.dataclass(frozen=True)
class Examined:
    """An app's answer to a request, and what has become of the calls of that."""

    url: str
    #: As the app sends it.
    response: Response
    body: bytes
    #: ``None``: the extension has left the response alone.
    explanation: Explanation | None
    #: What has become of the calls of the view that go by themselves: those of a
    #: ``with Manager():`` block, operations, and what comes after the response.
    others: c.Sequence[Outcome]
    #: What ``MENGPANEEL_CSP_NONCE`` has given, or raised.
    nonce: str | Exception | None
    #: What the request shows of what is around the app.
    findings: c.Sequence[Finding]
    #: Where the app is, as the request shows it.
    root_url: str

    @property
    def path(self) -> str:
        """The path that was asked for, as findings name it."""
        return urlsplit(self.url).path

    @property
    def target(self) -> str | None:
        """Where a redirect leads to."""
        if self.response.status_code not in REDIRECTS:
            return None

        return urljoin(self.url, self.response.headers.get("Location", self.url))

    @property
    def stays(self) -> bool:
        """Whether a redirect leads to the same host."""
        target = urlsplit(self.target or self.url)
        return target.hostname == urlsplit(self.url).hostname

    @property
    def html(self) -> str:
        """The body as text."""
        return self.body.decode("utf-8", "replace")


class Examiner:
    """Asks an app, and leaves nothing behind of what its views track, nor of what waits
    for a visitor: as long as its block lasts."""

    def __init__(self, app: Flask, state: AppState, person: Person) -> None:
        self._app = app
        self._state = state
        self._person = person
        self._stack = contextlib.ExitStack()
        self._client = app.test_client()
        #: The hosts for which the client has the person's cookies.
        self._known_hosts: set[str] = set()
        self._explanation: Explanation | None = None
        #: What has become of the calls of the request that is made.
        self._outcomes: list[Outcome] = []
        #: What the response was given of it.
        self._outcome: Outcome | None = None
        #: What is wrong with the callable that says who has consented.
        self.consent_findings: list[Finding] = []

    def __enter__(self) -> t.Self:
        state, flusher = self._state, self._state.flusher

        with self._app.app_context():
            # Where it is in testing, it is another from now on.
            state.begin_use()

        self._outcomes = self._stack.enter_context(state.asked())
        # Flask calls first what was registered last; it lets nobody register by now.
        functions = self._app.after_request_funcs.setdefault(None, [])
        functions.append(self._probe)
        self._stack.callback(functions.remove, self._probe)
        former = flusher.explain or (add_header if self._app.debug else None)
        flusher.explain = self._explain
        self._stack.callback(setattr, flusher, "explain", former)

        if self._person.consents and state.config.consent is not None:
            self._take_consent(state.config.consent)

        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _take_consent(self, asked: c.Callable[[], t.Any]) -> None:
        """Take the person for one who has consented."""
        config = self._state.config

        def consent() -> bool:
            self.consent_findings += _check_consent(asked)
            return True

        # All parts of the app have this one.
        object.__setattr__(config, "consent", consent)
        self._stack.callback(object.__setattr__, config, "consent", asked)

    def _probe(self, response: Response) -> Response:
        """Track something, unless the view has."""
        manager = current_manager()

        if manager.is_recording and not manager.calls.tracking:
            stamp = {"time": time.time(), "$insert_id": hex_id()}
            # As the last one, after which the app has no word any more.
            manager.calls.tracking.append(Call([["track"], [PROBE, stamp]]))

        return response

    def _explain(self, exchange: Exchange, outcome: Outcome | None) -> None:
        self._explanation = Explanation.of(exchange, outcome)
        self._outcome = outcome

    # -- asking

    def ask(
        self,
        url: str,
        method: str = "GET",
        headers: c.Mapping[str, str] | None = None,
        **body: t.Any,
    ) -> Examined:
        """Ask the app, and don't follow where it leads.

        :param headers: those that this kind of request has.
        :param body: options of Werkzeug's test client.
        :raises AnsweredElsewhere: the app wasn't asked.
        :raises Exception: whatever the view raises.
        """
        answers: list[tuple[Response, str | Exception | None, list[Finding], str]] = []
        failures: list[Exception] = []
        self._explanation = self._outcome = None
        self._outcomes.clear()

        # The client's own response doesn't tell whether the app streams it.
        def receive(_app: Flask, response: Response) -> None:
            config, environ = self._state.config, request.environ
            around = list(mistakes.of_request(self._app, config, environ))
            answers.append((response, self._nonce(), around, request.root_url))

        self._give_cookies(urlsplit(url).hostname or "localhost")

        def fail(_app: Flask, exception: Exception) -> None:
            failures.append(exception)

        with (
            request_finished.connected_to(receive, self._app),
            got_request_exception.connected_to(fail, self._app),
        ):
            given = self._client.open(
                url,
                method=method,
                headers=self._person.with_headers(headers or {}),
                buffered=True,
                **body,
            )

        # Flask has made an error page of it, if it could.
        if failures:
            raise failures[0]

        if not answers:
            raise AnsweredElsewhere(given.status)

        response, nonce, around, root_url = answers[-1]
        text = given.data

        if response.headers.get("Content-Encoding") == "gzip":
            # If it is something else, browsers can't read it either.
            with contextlib.suppress(OSError, EOFError, zlib.error):
                text = gzip.decompress(text)

        others = [one for one in self._outcomes if one is not self._outcome]
        explanation = self._explanation
        return Examined(
            url, response, text, explanation, others, nonce, around, root_url
        )

    def _give_cookies(self, host: str) -> None:
        """Have the person's cookies for a host, until the app changes them."""
        if host not in self._known_hosts:
            self._known_hosts.add(host)

            for name, value in self._person.all_cookies:
                self._client.set_cookie(name, value, domain=host)

    def _nonce(self) -> str | Exception | None:
        csp_nonce = self._state.config.csp_nonce

        try:
            nonce = csp_nonce() if csp_nonce else None
        except Exception as error:
            return error

        return str(nonce) if nonce else None

    def find_root(self, url: str) -> str:
        """Return the URL of the app's root, below which middleware may have put a
        page."""
        # Else it is at the host's, and no view has to be asked for it.
        if "wsgi_app" in vars(self._app):
            with contextlib.suppress(Exception):
                told = self.ask(url).root_url

                # A proxy's header doesn't say how the app itself is asked.
                if urlsplit(url).path.startswith(urlsplit(told).path.rstrip("/")):
                    return told

        return urljoin(url, "/")

    def visit(self, url: str) -> list[Examined]:
        """Ask for a page, and go where its redirects lead within the site.

        :return: the answers; the last one is a redirect if it leads to another site, or
            in a circle.
        """
        answers = [self.ask(url)]

        while (
            answers[-1].target is not None
            and answers[-1].stays
            and len(answers) < _MAX_REDIRECTS
        ):
            answers.append(self.ask(answers[-1].target))

        return answers


def _check_consent(asked: c.Callable[[], t.Any]) -> c.Iterator[Finding]:
    remedy = "MENGPANEEL_CONSENT = a callable that returns True, False or None"

    try:
        answer = asked()
    except Exception as error:
        text = f"MENGPANEEL_CONSENT raises {error!r}, which counts as no"
        yield Finding(Level.ERROR, text, remedy)
        return

    if inspect.iscoroutine(answer):
        # Else Python says that nobody has awaited it.
        answer.close()

    if found := no_answer(answer):
        text = f"MENGPANEEL_CONSENT gives {found}, which counts as no"
        yield Finding(Level.ERROR, text, remedy)
