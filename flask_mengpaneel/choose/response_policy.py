"""What a response may be given of the visitor whom it is for: asked by every way."""

from __future__ import annotations

import collections.abc as c
import functools
import re
import time
import typing as t
import zlib
from urllib.parse import urlsplit

from flask import current_app
from werkzeug.exceptions import SecurityError
from werkzeug.http import parse_date

from ..outcome import REDIRECTS
from . import injection

if t.TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment
    from flask import Request, Response
    from werkzeug.datastructures import Headers

    from ..config import Config
    from ..visitor.visitor import Visitor

    _AnyResponse = Response
else:
    # Whatever kind of response an app has.
    _AnyResponse = object

# Each cache has a name of its own for what it is told, so that others don't obey:
# CDN-Cache-Control (https://www.rfc-editor.org/rfc/rfc9213) and those of Cloudflare,
# Netlify, Vercel and Akamai, which end so; X-LiteSpeed- and X-LSADC-Cache-Control;
# Surrogate-Control, of Fastly, Varnish and Squid; Edge-Control, of Akamai.
# X-Accel-Expires is of nginx, and of what is built on it.
_TO_NGINX = "x-accel-expires"
_TO_CACHES = ("cache-control", "surrogate-control", "edge-control", _TO_NGINX)

# With these a proxy looks for a response elsewhere. nginx, Apache and lighttpd pass on
# cookies; the body, and most headers, none of them.
# https://github.com/nginx/nginx/blob/master/src/http/ngx_http_upstream.c
_ELSEWHERE = frozenset(
    {
        "x-accel-redirect",
        "x-sendfile",
        "x-sendfile2",
        "x-lighttpd-send-file",
        "x-lighttpd-send-tempfile",
        "x-litespeed-location",
        "x-reproxy-url",
        "x-reproxy-file",
    }
)

# The destinations of what is shown inside of another page.
_FRAMES = frozenset({"iframe", "frame", "embed", "object", "fencedframe"})

# A browser that is to leave a page within these seconds may not come to its calls.
_SOON = 5

# Bytes that all other headers of a response may have without cost to the calls in one
# of them: nginx has room for 4096 in all.
_OTHER_HEADERS = 2048

# What is added to them: by servers the status line, Date, Server, Connection; by
# Werkzeug Content-Length; with what is carried, Cache-Control and Vary.
_ADDED = 224

# The library's cookie of a new visitor, without what has led them here.
_LIBRARY_COOKIE = 500

_DISTRUSTED = "the host that was asked is not trusted"

# What is between commas; a quote that isn't closed goes on to the end.
_DIRECTIVE = re.compile(r"""(?:[^",]++|"(?:[^"\\]++|\\.)*+(?:"|\\?\Z))++""", re.DOTALL)


class ResponsePolicy:
    """Says of a response what it may be given: each answer is the reason why not, or
    ``None``.

    Nothing is worked out before it is asked for.

    :param headers: the response's, as the app has set them; names in lower case.
    """

    def __init__(
        self,
        config: Config,
        request: Request,
        response: Response,
        headers: c.Mapping[str, str],
        visitor: Visitor,
    ) -> None:
        self._config = config
        self._request = request
        self._response = response
        self._headers = headers
        self._visitor = visitor
        self._shared: bool | None = None

    # -- the carriers

    @property
    def page(self) -> str | None:
        """Why there are no calls in its body."""
        return (
            self._not_shown or self._not_private("page") or self._clears or self._hasty
        )

    @property
    def boot(self) -> str | None:
        """Why the browser library isn't loaded by its body, which says nothing of the
        visitor but that there may be one to track."""
        if self.consent_varies:
            reason = self._not_private("page")

            if reason:
                return reason

            if _is_open(self._headers):
                return "shared caches may keep the page"

        return self._not_shown

    @property
    def consent_varies(self) -> bool:
        """Whether one visitor may be tracked where another may not."""
        return self._config.consent is not None or self._config.respect_dnt

    @property
    def header(self) -> str | None:
        """Why there are no calls in a header."""
        status = self._response.status_code

        if status in REDIRECTS or status == 304:
            return f"clients don't see the headers of {status}"

        return (
            self._not_private("response")
            or self._is_challenge
            or self._is_elsewhere
            or self._clears
            or self._client_may_keep
        )

    @property
    def session(self) -> str | None:
        """Why nothing is changed in the session."""
        return (
            self.session_ends
            or self._not_private("response")
            or self._is_elsewhere
            or self._renews
        )

    @property
    def session_ends(self) -> str | None:
        """Why what is in the session may not come back: the app has seen to that."""
        if "clear-site-data" in self._headers:
            return self._clears

        if "set-cookie" in self._headers:
            name = current_app.session_interface.get_cookie_name(current_app)

            if name in set_cookies(self._response):
                return "the app writes the session's cookie itself"

        return None

    @property
    def new_session_data(self) -> str | None:
        """Why calls can't wait in the session."""
        if not self._session_comes_back:
            return "the client won't come back with the session"

        return self.session

    @property
    def cookie(self) -> str | None:
        """Why the browser library isn't told by its cookie who the visitor is."""
        if "clear-site-data" in self._headers:
            cleared = self._headers["clear-site-data"]

            if '"cookies"' in cleared or "*" in cleared:
                return self._clears

        return self._fixed_cookie(self._config.cookie_name)

    @property
    def choice(self) -> str | None:
        """Why the visitor's choice, to be tracked or not, isn't kept in a cookie."""
        return self._fixed_cookie(self._config.opt_cookie_name)

    # -- the reasons

    def _fixed_cookie(self, name: str) -> str | None:
        if "set-cookie" in self._headers and name in set_cookies(self._response):
            return "the app writes the cookie itself"

        return self._not_private("response") or self._renews

    @property
    def is_shared(self) -> bool:
        """Whether a cache may give the response to other visitors.

        https://www.rfc-editor.org/rfc/rfc9111#section-3.5
        """
        if self._shared is None:
            self._shared = any(
                name.endswith(_TO_CACHES) and _lets_share(name, value)
                for name, value in self._headers.items()
            )

        return self._shared

    @property
    def _distrusted(self) -> bool:
        """Whether the app doesn't answer to the name by which it was asked."""
        if not self._request.trusted_hosts:
            return False

        try:
            return not self._request.host
        except SecurityError:
            return True

    def _not_private(self, what: str) -> str | None:
        if self.is_shared:
            return f"shared caches may keep the {what}"

        return _DISTRUSTED if self._distrusted else None

    @property
    def _renews(self) -> str | None:
        # A cache has the response, and takes over the headers of this one.
        # https://www.rfc-editor.org/rfc/rfc9111#section-3.2
        return "it renews what a cache has" if self._status == 304 else None

    @property
    def _clears(self) -> str | None:
        clears = "clear-site-data" in self._headers
        return "the browser clears the site's data" if clears else None

    @property
    def _hasty(self) -> str | None:
        """Why the browser won't stay on the page.

        https://html.spec.whatwg.org/multipage/document-lifecycle.html#the-refresh-header
        """
        if "refresh" not in self._headers:
            return None

        match = re.match(r"\s*(\d+)", self._headers["refresh"])
        leaves = match is not None and int(match[1][:6]) < _SOON
        return "the browser leaves the page at once" if leaves else None

    @property
    def _is_challenge(self) -> str | None:
        # Asked for a password, nobody sees what comes with the question.
        headers = self._headers
        asks = (self._status == 401 and "www-authenticate" in headers) or (
            self._status == 407 and "proxy-authenticate" in headers
        )
        return "the browser asks for a password instead" if asks else None

    @property
    def _is_elsewhere(self) -> str | None:
        if _ELSEWHERE.isdisjoint(self._headers):
            return None

        return "a proxy answers with something else"

    @property
    def _status(self) -> int:
        return self._response.status_code

    @property
    def _not_shown(self) -> str | None:
        """Why this isn't a page that a browser will show, or can't be changed."""
        request, visitor = self._request, self._visitor
        reason = injection.unfit(self._response, self._headers)

        if reason:
            return reason

        if request.method not in ("GET", "POST"):
            return f"a {request.method} request"

        if not visitor.client.is_browser:
            return "the client is not a browser"

        if visitor.client.is_blocked:
            return "the browser library is blocked in this browser"

        if not visitor.client.is_page_view:
            return "fetched by a script, not shown as a page"

        if self._distrusted:
            return _DISTRUSTED

        return self._is_challenge or self._is_elsewhere or self._is_refused_frame

    @property
    def _is_refused_frame(self) -> str | None:
        """Why a browser won't show the page inside of another one.

        https://www.w3.org/TR/CSP3/#frame-ancestors-and-frame-options
        """
        environ, headers = self._request.environ, self._headers

        if environ.get("HTTP_SEC_FETCH_DEST") not in _FRAMES:
            return None

        is_own = environ.get("HTTP_SEC_FETCH_SITE") == "same-origin"
        lists = _ancestors(headers.get("content-security-policy", ""))

        if lists:
            around = environ.get("HTTP_REFERER", "")
            shown = all(_admits(sources, is_own, around) for sources in lists)
        else:
            options = {
                one.strip()
                for one in headers.get("x-frame-options", "").lower().split(",")
            }
            shown = "deny" not in options and (is_own or "sameorigin" not in options)

        return None if shown else "the page's policy forbids the frame"

    @property
    def _client_may_keep(self) -> str | None:
        """Why a later request may be answered with these very headers, by what the app
        has decided: else the client is told to keep nothing.

        https://www.rfc-editor.org/rfc/rfc9111#section-4.2
        """
        headers = self._headers

        if self._request.method != "GET":
            return None

        control = directives(headers.get("cache-control", ""))

        if "no-store" in control:
            return None

        keeps = (
            "etag" in headers
            or "last-modified" in headers
            or "expires" in headers
            or control.get("max-age", "0") != "0"
            or "stale-while-revalidate" in control
        )

        if keeps:
            return "the client may keep the response, and make its calls again"

        return None

    @property
    def _session_comes_back(self) -> bool:
        """Whether the client will bring what is put into the session now.

        Where its cookie may have stayed at home, a new one would replace it, with all
        that is in it.
        """
        interface, visitor = current_app.session_interface, self._visitor

        if interface.get_cookie_name(current_app) in self._request.cookies:
            return True

        if interface.get_cookie_samesite(current_app) == "Strict":
            return visitor.client.is_browser and not visitor.client.is_cross_site

        return visitor.client.is_browser and not visitor.client.may_lack_cookies

    # -- how much

    def room_for_header(self, beside: int, *, library_cookie: bool) -> int:
        """Bytes that a header with calls may have beside the others.

        :param beside: bytes of what goes with it: the session's cookie, if it will be
            written, and what says whose calls they are.
        :param library_cookie: whether the library's may be written as well.
        """
        others = beside + self._others(library_cookie=library_cookie)
        return self._config.max_header - max(0, others - _OTHER_HEADERS)

    @property
    def room_for_session(self) -> int:
        """Bytes that the session's cookie may have beside the other headers."""
        visitor = self._visitor
        # One who is new gets ids with it.
        tells = visitor.may_write_cookie and not visitor.browser_identity
        others = self._others(
            library_cookie=tells or visitor.consent.choice is not None
        )
        return _OTHER_HEADERS + max(_OTHER_HEADERS, self._config.max_header) - others

    def _others(self, *, library_cookie: bool) -> int:
        others = _ADDED

        for name, value in self._response.headers:
            others += len(name) + len(value) + 4

        if library_cookie:
            cookie = self._request.cookies.get(self._config.cookie_name, "")
            # What has led to a page is remembered.
            referrer = self._request.environ.get("HTTP_REFERER", "")
            others += _LIBRARY_COOKIE + len(cookie) + 2 * len(referrer)

        return others


def directives(value: str) -> dict[str, str]:
    """The directives of a ``Cache-Control`` header, in lower case, and their values."""
    found: dict[str, str] = {}

    if not value:
        return found

    value = value.lower()

    for part in _DIRECTIVE.findall(value) if '"' in value else value.split(","):
        name, equals, argument = part.partition("=")
        name = name.strip()
        found[name] = found.get(name) or (argument.strip() if equals else "")

    return found


def _lets_share(name: str, value: str) -> bool:
    """Whether a header tells a cache that a response may be given to others."""
    if name == _TO_NGINX:
        return value.strip() != "0"

    control = directives(value)
    return _shares(control) if name == "cache-control" else not _forbids(name, control)


def _shares(control: c.Mapping[str, str]) -> bool:
    """Whether one is told that a response may be given to others.

    With names of headers, ``private`` is about these alone.
    """
    return (
        "public" in control
        or "s-maxage" in control
        or bool(control.get("private") or control.get("no-cache"))
    )


def _forbids(name: str, control: c.Mapping[str, str]) -> bool:
    """Whether a cache is told to keep nothing by a header that is for it alone.

    What else there is, it may keep and show for a while, or to some.
    """
    if _shares(control):
        return False

    # LiteSpeed has a private cache, and finds its visitors by their address.
    return "no-store" in control or (
        name.endswith("cdn-cache-control") and "private" in control
    )


def _in_lower_case(headers: Headers) -> dict[str, str]:
    return {name.lower(): value for name, value in headers}


def _is_open(headers: c.Mapping[str, str]) -> bool:
    """Whether any cache may give a response to others, though the app doesn't say so.

    https://www.rfc-editor.org/rfc/rfc9111#section-4.2
    """
    control = directives(headers.get("cache-control", ""))

    if not control.keys().isdisjoint(("private", "no-store", "no-cache")):
        return False

    if "max-age" in control:
        return control["max-age"].strip('"') != "0"

    return "expires" in headers and _is_to_come(headers["expires"])


def _is_to_come(date: str) -> bool:
    try:
        expires = parse_date(date)
        return expires is not None and expires.timestamp() > time.time()
    except (ValueError, OverflowError):
        return False


def set_cookies(response: Response) -> set[str]:
    """The names of the cookies that a response sets or deletes."""
    return set(map(_cookie_name, response.headers.getlist("Set-Cookie")))


def _cookie_name(line: str) -> str:
    return line.partition("=")[0].strip()


class _Said(t.NamedTuple):
    """What was said of a response, to be said again if need be.

    :param is_private: whether it is, or only mustn't be given to others by what the
        app says of it later.
    :param headers: those that it has had then.
    """

    page: bool
    header: bool
    is_private: bool
    headers: list[tuple[str, str]]


class Carrier(_AnyResponse):
    """A response that has something of its visitor's, and says so when it leaves:
    what runs after the extension may have said something else by then."""

    __slots__ = ()

    # What was said of it.
    _mengpaneel_said: _Said | None = None
    #: The session's cookie, if it is written for the extension alone.
    _mengpaneel_cookie: str | None = None
    #: Whether it was left out, since the app writes one itself after all.
    _mengpaneel_is_overruled = False

    def get_wsgi_headers(self, environ: WSGIEnvironment) -> Headers:
        if self._mengpaneel_cookie is not None and _leave_to_app(
            self.headers, self._mengpaneel_cookie
        ):
            self._mengpaneel_is_overruled = True

        headers = super().get_wsgi_headers(environ)

        said = self._mengpaneel_said

        if said is not None and headers.to_wsgi_list() != said.headers:
            was_shared = _unshare(headers)

            if was_shared or said.is_private or _is_open(_in_lower_case(headers)):
                _say_private(headers, page=said.page, header=said.header)

        return headers

    def iter_encoded(self) -> c.Iterator[bytes]:
        body: t.Any = self.response
        return iter(body) if type(body) is injection.Parts else super().iter_encoded()

    def __reduce_ex__(self, protocol: t.SupportsIndex) -> t.Any:
        # Some keep responses, and write down of which class they are.
        reduced: t.Any = super().__reduce_ex__(protocol)
        return _anew, (type(self).__mro__[2],), *reduced[2:]


def _anew(kind: type[Response]) -> Response:
    return kind.__new__(kind)


@functools.lru_cache(maxsize=32)
def carrier(kind: t.Any) -> t.Any:
    """The class of responses of a kind that carry something."""
    if issubclass(kind, Carrier):
        return kind

    names = {"__slots__": (), "__module__": kind.__module__, "__doc__": kind.__doc__}
    return type(kind)(kind.__name__, (Carrier, kind), names)


def keep_private(
    response: Response, *, page: bool = False, header: bool = False
) -> None:
    """Say that a response is its visitor's alone, beside what the app has said of it.

    :param page: whether there are calls in its body.
    :param header: whether there are calls in a header, which no cache may have, the
        browser's own included.
    """
    headers = response.headers
    said = response._mengpaneel_said if isinstance(response, Carrier) else None

    if said is not None:
        page, header = page or said.page, header or said.header

    _say_private(headers, page=page, header=header)

    if page:
        # They are of the page without the calls: a browser that asks again with them
        # would be told to show somebody else's.
        del headers["ETag"]
        del headers["Last-Modified"]

    if isinstance(response, Carrier):
        response._mengpaneel_said = _Said(page, header, True, headers.to_wsgi_list())


def keep_apart(
    response: Carrier,
    request: Request,
    app_headers: c.Mapping[str, str],
    snippet: bytes,
    *,
    is_all: bool,
) -> None:
    """Let a page with the library be no page of those who may not be tracked.

    A browser that has kept it asks with its validators whether it is right still, and
    the app would say so to one who has refused since: it knows those of the page
    without the library.

    :param app_headers: the response's as the app has set them; names in lower case.
    :param is_all: whether nothing else comes with it, so that a browser that has the
        same page may be told so.
    """
    if "last-modified" in app_headers:
        del response.headers["Last-Modified"]

    tag, is_weak = response.get_etag() if "etag" in app_headers else (None, None)

    if tag is not None:
        tag = f"{tag}-{zlib.crc32(snippet):08x}"
        response.set_etag(tag, bool(is_weak))
        is_fresh = is_all and response.status_code == 200

        if is_fresh and request.if_none_match.contains_weak(tag):
            response.make_conditional(request.environ)

    if response._mengpaneel_said is None:
        told = response.headers.to_wsgi_list()
        response._mengpaneel_said = _Said(False, False, False, told)


def _say_private(headers: Headers, *, page: bool, header: bool) -> None:
    told = ", ".join(headers.getlist("Cache-Control"))
    control = directives(told)
    ours = []

    if header:
        ours = ["no-store"]
    elif "private" not in control:
        ours = ["private"]

    if (
        page
        and control.keys().isdisjoint(("max-age", "no-store"))
        and "Expires" not in headers
    ):
        ours.append("no-cache")

    missing = [one for one in ours if one not in control]

    if missing:
        headers["Cache-Control"] = ", ".join([told, *missing] if told else missing)


def _unshare(headers: Headers) -> bool:
    """Take back what lets a cache give a response to others, if anything does."""
    sharing = {}

    for name, value in headers:
        key = name.lower()

        if key.endswith(_TO_CACHES) and _lets_share(key, value):
            sharing[name] = key

    if not sharing:
        return False

    told = ", ".join(headers.getlist("Cache-Control"))

    for name in sharing:
        del headers[name]

    if "cache-control" in sharing.values():
        kept = directives(told)

        for name in ("public", "s-maxage"):
            kept.pop(name, None)

        for name in ("private", "no-cache"):
            # Of the whole response, not of some headers.
            if name in kept:
                kept[name] = ""

        headers["Cache-Control"] = ", ".join(
            f"{name}={value}" if value else name for name, value in kept.items() if name
        )

    return True


def _leave_to_app(headers: Headers, name: str) -> bool:
    """Drop the last line for a cookie if there is one before, by the app."""
    lines = headers.getlist("Set-Cookie")
    found = [at for at, line in enumerate(lines) if _cookie_name(line) == name]

    if len(found) < 2:
        return False

    del lines[found[-1]]
    headers.setlist("Set-Cookie", lines)
    return True


def _ancestors(policies: str) -> list[list[str]]:
    """What each policy says of the pages around this one, if it does."""
    found = []

    for policy in policies.lower().split(","):
        for directive in policy.split(";"):
            words = directive.split()

            if words and words[0] == "frame-ancestors":
                found.append(words[1:])
                break

    return found


def _admits(sources: c.Sequence[str], is_own: bool, around: str) -> bool:
    """Whether the page that says so may be inside of another.

    :param around: the address of that, as far as the browser tells.
    """
    if "*" in sources or (is_own and "'self'" in sources):
        return True

    try:
        host, scheme = urlsplit(around).hostname or "", urlsplit(around).scheme
    except ValueError:
        return False

    for source in sources:
        if source.endswith(":"):
            if source == f"{scheme}:":
                return True

            continue

        name = source.partition("://")[2] or source
        name = name.partition("/")[0].partition(":")[0]

        if host and (name == host or (name[:2] == "*." and host.endswith(name[1:]))):
            return True

    return False
