"""The panel, and what it sees of a request.

It looks on from outside: without it, nothing is done for it.
"""

from __future__ import annotations

import collections.abc as c
import time
import typing as t
from pathlib import Path

from flask import Flask, Response, current_app
from flask_debugtoolbar.panels import DebugPanel
from markupsafe import Markup

from ..choose import hooks
from ..choose.explaining import withheld
from ..choose.response_headers import headers_of
from ..choose.response_policy import ResponsePolicy
from ..identity import hex_id
from ..proxies import active_request, current_flask, current_request
from ..reasons import why_inactive
from ..record.context import request_state
from ..record.errors import handle_error
from ..signals import dropped, flushed, recorded
from ..testing import RecordedCalls
from ..visitor.visitor import Visitor

if t.TYPE_CHECKING:
    from jinja2 import Environment
    from werkzeug import Request as WerkzeugRequest

    from ..calls import Call
    from ..choose.app_state import AppState
    from ..outcome import Outcome
    from ..testing.recorded_call import Unit

#: Where an environment has the panel of its request.
_PANEL = "flask_mengpaneel.debug_toolbar"

_TEMPLATE = Path(__file__).with_name("panel.html")

# What the toolbar shows in the place of a redirect.
_INTERCEPTED = b"<title>Redirect intercepted</title>"

#: What a response may be given calls in, as the panel shows it.
_WAYS = {
    "page": "calls in the page",
    "header": "calls in a header",
    "session": "calls in the session",
    "library's cookie": "the visitor's ids in a cookie",
}

_CONSENT = {True: "given", False: "refused", None: "not asked yet"}


class MengpaneelPanel(DebugPanel):
    """Shows what a request has recorded, and what became of that.

    For ``DEBUG_TB_PANELS``.
    """

    name = "Mengpaneel"
    has_content = True

    def __init__(
        self, jinja_env: Environment, context: dict[str, t.Any] | None = None
    ) -> None:
        super().__init__(jinja_env, context)
        self._calls = RecordedCalls()
        #: What the response may be given, and why not, before it is given anything.
        self._withheld: dict[str, str | None] = {}
        self._consent = ""
        self._status = ""
        #: Whether the toolbar has taken a redirect away before the extension was asked.
        self._is_intercepted = False
        #: What the end of the request took; ``None``: it isn't there yet.
        self._seconds: float | None = None
        # It is in the page twice: in the toolbar, and in the panel.
        self._mark = hex_id()

    # -- what the toolbar asks for

    @classmethod
    def init_app(cls, app: Flask) -> None:
        """Listen to what an app records."""
        recorded.connect(_on_recorded, app)
        flushed.connect(_on_flushed, app)
        dropped.connect(_on_dropped, app)

    def process_request(self, request: WerkzeugRequest) -> None:
        """Begin with a request."""
        request.environ[_PANEL] = self
        _watch(current_app)

    def nav_title(self) -> str:
        """Return the title in the toolbar."""
        return "Mengpaneel"

    def title(self) -> str:
        """Return the title of the panel."""
        return "Mengpaneel"

    def url(self) -> str:
        """Return nothing: it is no link."""
        return ""

    def nav_subtitle(self) -> str:
        """Return in a few words what became of the calls."""
        return self._marked("subtitle", self._summary())

    def content(self) -> str:
        """Return the panel."""
        return self._marked("content", self._render())

    # -- what it sees

    def watch(
        self, response: Response, respond: c.Callable[[Response], Response]
    ) -> Response:
        """Look on while the extension gives a response what it may carry."""
        try:
            self._look(response)
        except Exception as error:
            # It asks more of the app than the extension does.
            handle_error(current_flask(), "the toolbar's panel can't look on", error)

        begin = time.perf_counter()
        response = respond(response)
        self._seconds = time.perf_counter() - begin
        self._renew(response)
        return response

    def _look(self, response: Response) -> None:
        state: AppState = current_app.extensions["mengpaneel"]
        request = current_request()
        manager = request_state(request).manager
        visitor = manager.visitor if manager else Visitor(state.config, request)
        headers = headers_of(response)
        policy = ResponsePolicy(state.config, request, response, headers, visitor)
        self._status = response.status
        self._is_intercepted = (
            response.is_sequence and _INTERCEPTED in response.get_data()
        )
        self._consent = _CONSENT[visitor.consent.given]
        found = withheld(policy, visitor, response, headers)
        self._withheld = {_WAYS[way]: reason for way, reason in found.items()}
        self._withheld["the browser library"] = policy.boot

    def _renew(self, response: Response) -> None:
        """Write what is known now into a toolbar that is in the page already: what was
        initialised after the extension, Flask asks first."""
        if not response.is_sequence:
            return

        body = response.get_data()

        for part, text in (("subtitle", self._summary()), ("content", self._render())):
            sign = self._sign(part).encode()

            if sign not in body:
                return

            before, _, rest = body.partition(sign)
            after = rest.partition(sign)[2]
            body = before + self._marked(part, text).encode() + after

        response.set_data(body)

    # -- how it shows it

    def _marked(self, part: str, text: str) -> Markup:
        sign = Markup(self._sign(part))
        return sign + text + sign

    def _sign(self, part: str) -> str:
        return f"<!--{part} {self._mark}-->"

    def _summary(self) -> str:
        number = len(self._calls)
        ways = dict.fromkeys(one.strategy for one in self._calls.outcomes)
        calls = "1 call" if number == 1 else f"{number or 'no'} calls"
        return f"{calls}: {', '.join(ways)}" if ways else calls

    def _render(self) -> Markup:
        state: AppState | None = current_app.extensions.get("mengpaneel")
        template = self.jinja_env.from_string(_TEMPLATE.read_text())
        text = template.render(
            has_state=state is not None,
            why_inactive=state and why_inactive(state.config),
            calls=self._calls,
            outcomes=self._calls.outcomes,
            withheld=self._withheld,
            consent=self._consent,
            status=self._status,
            is_intercepted=self._is_intercepted,
            seconds=self._seconds,
        )
        return Markup(text)


def _panel() -> MengpaneelPanel | None:
    """Return the panel of this request, if it is shown."""
    request = active_request()

    if request is None:
        return None

    return t.cast("MengpaneelPanel | None", request.environ.get(_PANEL))


def _on_recorded(app: Flask, call: Call, unit: Unit) -> None:
    if (panel := _panel()) is not None:
        panel._calls.on_recorded(app, call, unit)


def _on_flushed(app: Flask, outcome: Outcome) -> None:
    if (panel := _panel()) is not None:
        panel._calls.on_flushed(app, outcome)


def _on_dropped(app: Flask, calls: c.Sequence[Call], reason: str) -> None:
    if (panel := _panel()) is not None:
        panel._calls.on_dropped(app, calls, reason)


def _watch(app: Flask) -> None:
    """Stand in the place of what the extension does with the responses of an app."""
    functions = app.after_request_funcs.get(None, [])

    for index, function in enumerate(functions):
        if function.__module__ == hooks.__name__:
            functions[index] = _watched(t.cast("hooks.AfterRequest", function))


def _watched(respond: hooks.AfterRequest) -> hooks.AfterRequest:
    def after_request(response: Response) -> Response:
        panel = _panel()
        return respond(response) if panel is None else panel.watch(response, respond)

    return after_request
