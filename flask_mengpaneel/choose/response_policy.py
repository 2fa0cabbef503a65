"""What a response may be given of its visitor: asked by every way."""

from __future__ import annotations

import collections.abc as c
import typing as t

from werkzeug.exceptions import SecurityError

from .. import reasons
from ..outcome import REDIRECTS
from ..proxies import current_flask
from ..visitor.lazy import lazy
from . import caching, injection
from .carrier import set_cookies
from .frames import forbids_frame
from .session_cookie import (
    clears_cookies,
    commits_database,
    current_session,
    is_session_emptied,
    is_session_unread,
    is_strict,
)

if t.TYPE_CHECKING:
    from flask import Request, Response

    from ..config import Config
    from ..visitor.visitor import Visitor
    from .response_headers import ResponseHeaders

_CLEARS = "the browser clears the site's data"


class ResponsePolicy:
    """Says of a response what it may be given: each answer is the reason why not, or
    ``None``.

    Nothing is worked out before it is asked for.

    :param headers: the response's, as the app has set them.
    """

    def __init__(
        self,
        config: Config,
        request: Request,
        response: Response,
        headers: ResponseHeaders,
        visitor: Visitor,
    ) -> None:
        self._config = config
        self._request = request
        self._response = response
        self._headers = headers
        self._visitor = visitor

    # -- the carriers

    @lazy
    def page(self) -> str | None:
        """Why there are no calls in its body."""
        return (
            self._not_shown()
            or self._is_blocked()
            or (reasons.SHARED_PAGE if self._headers.is_shared else None)
            or _clears(self._headers)
            or self._headers.hasty
        )

    @property
    def boot(self) -> str | None:
        """Why the browser library isn't loaded by its body, which says nothing of the
        visitor but that there may be one to track."""
        reason = self._not_shown()

        if reason:
            return reason

        varies = self._config.consent_varies or self._visitor.client.is_blocked
        is_shared = varies and (
            self._headers.is_shared or caching.is_open(self._headers)
        )
        return reasons.SHARED_PAGE if is_shared else None

    @lazy
    def header(self) -> str | None:
        """Why there are no calls in a header."""
        status = self._response.status_code

        if status in REDIRECTS or status == 304:
            return f"clients don't see the headers of {status}"

        return (
            self._not_private(reasons.SHARED_RESPONSE)
            or _challenges(status, self._headers)
            or self._headers.elsewhere
            or _clears(self._headers)
            or (self._headers.kept if self._request.method == "GET" else None)
        )

    @lazy
    def session(self) -> str | None:
        """Why nothing is changed in the session."""
        return (
            self.session_ends
            or self._not_private(reasons.SHARED_RESPONSE)
            or self._headers.elsewhere
            or _renews(self._response)
        )

    @lazy
    def session_ends(self) -> str | None:
        """Why what is in the session may not come back: the app has seen to that."""
        if "clear-site-data" in self._headers:
            return _CLEARS

        if "set-cookie" in self._headers:
            app = current_flask()
            name = app.session_interface.get_cookie_name(app)

            if name in set_cookies(self._response):
                return "the app writes the session's cookie itself"

        is_emptied = is_session_emptied(self._request)
        return "the app has ended the session" if is_emptied else None

    @property
    def new_session_data(self) -> str | None:
        """Why calls can't wait in the session."""
        if not self._session_comes_back():
            return "the client won't come back with the session"

        return self.session or _is_unread(self._request) or _commits()

    @lazy
    def cookie(self) -> str | None:
        """Why the browser library isn't told by its cookie who the visitor is."""
        if clears_cookies(self._headers.get("clear-site-data", "")):
            return _CLEARS

        config = self._config

        # Until a library takes it up, it stays.
        if (
            config.forgets_with_page
            and not self._visitor.browser_identity
            and self._response.status_code not in REDIRECTS
            and self.page is not None
        ):
            return "the library forgets with the page, and this is none"

        return self._fixed_cookie(config.cookie_name, config.shown_cookie_name)

    @lazy
    def choice(self) -> str | None:
        """Why the visitor's choice, to be tracked or not, isn't kept in a cookie."""
        return self._fixed_cookie(self._config.opt_cookie_name)

    # -- the reasons that need more than the headers

    def _not_private(self, shared: str) -> str | None:
        """Why the response may get into other hands than its visitor's.

        :param shared: why, if it does by caches.
        """
        if self._headers.is_shared:
            return shared

        return reasons.DISTRUSTED if _is_distrusted(self._request) else None

    def _fixed_cookie(self, *names: str) -> str | None:
        """Why cookies are left to the app."""
        if "set-cookie" in self._headers and not set_cookies(self._response).isdisjoint(
            names
        ):
            return "the app writes the cookie itself"

        return self._not_private(reasons.SHARED_RESPONSE) or _renews(self._response)

    def _not_shown(self) -> str | None:
        """Why this isn't a page that a browser will show, or can't be changed."""
        request, headers, visitor = self._request, self._headers, self._visitor
        reason = injection.unfit(self._response, headers)

        if reason:
            return reason

        if request.method not in ("GET", "POST"):
            return f"a {request.method} request"

        if not visitor.client.is_browser:
            return "the client is not a browser"

        if not visitor.client.is_page_view:
            return "fetched by a script, not shown as a page"

        if _is_distrusted(request):
            return reasons.DISTRUSTED

        if forbids_frame(request.environ, headers):
            return "the page's policy forbids the frame"

        reason = _challenges(self._response.status_code, headers)
        return reason or headers.elsewhere

    def _is_blocked(self) -> str | None:
        is_blocked = self._visitor.client.is_blocked
        return "the browser library is blocked in this browser" if is_blocked else None

    def _session_comes_back(self) -> bool:
        """Whether the client will bring what is put into the session now.

        Where its cookie may have stayed at home, a new one would replace it, with all
        that is in it.
        """
        app, visitor = current_flask(), self._visitor
        interface = app.session_interface

        if interface.get_cookie_name(app) in self._request.cookies:
            return True

        if is_strict():
            return visitor.client.is_browser and not visitor.client.is_cross_site

        return visitor.client.is_browser and not visitor.client.may_lack_cookies


def _is_distrusted(request: Request) -> bool:
    """Whether the app doesn't answer to the name by which it was asked."""
    if not request.trusted_hosts:
        return False

    try:
        return not request.host
    except SecurityError:
        return True


def _is_unread(request: Request) -> str | None:
    is_unread = is_session_unread(request)
    return "the session that came can't be read by this app" if is_unread else None


def _commits() -> str | None:
    if not commits_database(current_flask().session_interface):
        return None

    # Else it is saved anyway.
    is_saved = current_session().modified
    return None if is_saved else "to save the session would commit the view's changes"


def _renews(response: Response) -> str | None:
    # A cache has the response, and takes over the headers of this one.
    # https://www.rfc-editor.org/rfc/rfc9111#section-3.2
    return "it renews what a cache has" if response.status_code == 304 else None


def _clears(headers: c.Mapping[str, str]) -> str | None:
    return _CLEARS if "clear-site-data" in headers else None


def _challenges(status: int, headers: c.Mapping[str, str]) -> str | None:
    # Asked for a password, nobody sees what comes with the question.
    asks = (status == 401 and "www-authenticate" in headers) or (
        status == 407 and "proxy-authenticate" in headers
    )
    return "the browser asks for a password instead" if asks else None
