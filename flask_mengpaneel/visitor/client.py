"""The client that made the request: which program it is, where, what it can do."""

from __future__ import annotations

import collections.abc as c
import functools
import ipaddress
import typing as t
from urllib.parse import quote

from ..identity import NOBODY, Identity
from ..limits import MAX_URL, MAX_USER_AGENT
from .lazy import lazy

if t.TYPE_CHECKING:
    from flask import Request

    from ..config import Config

#: The cookie of a browser in which the library was found blocked.
BLOCKED_COOKIE = "mengpaneel_blocked"

#: The destinations of requests whose response is shown as a page.
#: https://fetch.spec.whatwg.org/#concept-request-destination
PAGE_DESTINATIONS = frozenset(
    {"document", "iframe", "frame", "embed", "object", "fencedframe"}
)

#: In an environment: what a client says that can make calls.
CAPABLE = "HTTP_X_MENGPANEEL_FLUSH_CAPABLE"

# In an environment: the ids of new visitors, by those of the ones before, as text,
# since apps log environments as JSON.
_NEW_VISITORS = "flask_mengpaneel.new_visitors"

# The last three are Turbo's and those of older browsers.
_PREFETCH = ("HTTP_SEC_PURPOSE", "HTTP_X_SEC_PURPOSE", "HTTP_PURPOSE", "HTTP_X_MOZ")

# Characters of a list of addresses that are read: the first is within that.
_MAX_ADDRESSES = 128

# Characters of what a client says that can make calls which is kept to be recognised.
_MAX_CAPABILITY = 128

# In an environment: the parts of the URL.
_URL = (
    "wsgi.url_scheme",
    "HTTP_HOST",
    "SCRIPT_NAME",
    "PATH_INFO",
    "QUERY_STRING",
)


class Client:
    """The program that made the request: a browser, an app, a webhook's sender.

    :param request: ``None`` for a job, which has no client.
    """

    def __init__(self, config: Config, request: Request | None) -> None:
        self._config = config
        self._request = request
        environ: dict[str, t.Any] = request.environ if request else {}
        #: The environment of the request (:pep:`3333`); empty for a job.
        self.environ = environ
        #: The path that the request is for, below the one where the app is.
        self.path: str = environ.get("PATH_INFO", "")
        #: The ``User-Agent`` header.
        self.user_agent: str = environ.get("HTTP_USER_AGENT", "")[:MAX_USER_AGENT]
        #: Whether the client is a browser, and not a program. Every browser names
        #: itself; what goes without a name, or with another, is a webhook, a
        #: command-line client or an app. The third is Flask's test client.
        self.is_browser = (
            "Mozilla/" in self.user_agent
            or "Opera/" in self.user_agent
            or "Werkzeug/" in self.user_agent
            or environ.get("HTTP_SEC_FETCH_MODE") == "navigate"
        )
        #: Whether the client keeps cookies, as far as one can tell.
        self.keeps_cookies = "HTTP_COOKIE" in environ or self.is_browser

    # -- who may sit in front of it

    def visitor_after(self, last: Identity | None) -> Identity:
        """Return the ids of a new visitor, the same for all that is made of one
        environment: Flask-SocketIO makes a request of it for each event.

        With a client that keeps no cookies, each request would be a new person's.

        :param last: whom the browser knew before a reset; ``None``: there was none.
        """
        if not self.keeps_cookies:
            return NOBODY

        known: dict[str, Identity] = self.environ.setdefault(_NEW_VISITORS, {})
        return known.setdefault("" if last is None else str(last), Identity.new())

    def name_visitor(self) -> None:
        """Somebody has a name now: who comes after a reset from now on is another one,
        though it be the same socket."""
        if _NEW_VISITORS in self.environ:
            known: dict[str, Identity] = self.environ[_NEW_VISITORS]
            kept = {last: new for last, new in known.items() if not last}
            self.environ[_NEW_VISITORS] = kept

    # -- what it is going to do with the response

    @lazy
    def is_page_view(self) -> bool:
        """Whether the client is going to show the response as a page.

        https://www.w3.org/TR/fetch-metadata/ where the browser sends it.
        """
        environ = self.environ
        destination = environ.get("HTTP_SEC_FETCH_DEST")

        if destination is not None:
            return destination in PAGE_DESTINATIONS

        mode = environ.get("HTTP_SEC_FETCH_MODE")

        if mode is not None:
            return bool(mode == "navigate")

        if (
            self._capability is not None
            or is_socket(environ)
            or environ.get("HTTP_X_REQUESTED_WITH", "").lower() == "xmlhttprequest"
            or "HTTP_HX_REQUEST" in environ
            or "HTTP_TURBO_FRAME" in environ
        ):
            return False

        # A browser that asks for a page names HTML; a script asks for anything.
        accept = environ.get("HTTP_ACCEPT")
        return not accept or "text/html" in accept or "application/xhtml" in accept

    @lazy
    def _capability(self) -> c.Mapping[str, str] | None:
        header = self.environ.get(CAPABLE)

        if header is None:
            return None

        # Most say the same, but for those that say who the visitor is: 4 us of 74, an
        # event by a returning visitor's fetch.
        is_short = len(header) <= _MAX_CAPABILITY
        return (_cached_capability if is_short else capability)(header)

    @property
    def acknowledges(self) -> bool:
        """Whether the client says that it acknowledges the calls that it has made."""
        return "ack" in (self._capability or ())

    @property
    def said_visitor(self) -> str:
        """What the script says of the visitor where the browser keeps no cookies."""
        return (self._capability or {}).get("visitor", "")

    @property
    def incapable(self) -> str | None:
        """Why the client can't make calls itself; ``None`` if it says that it can."""
        # Most don't.
        parameters = self._capability if CAPABLE in self.environ else None

        if parameters is None:
            return "the client doesn't say that it can"

        # On one origin there may be several apps, which track for different projects.
        if parameters.get("project", self._config.token) != self._config.token:
            return "the client makes the calls of another project"

        return None

    @property
    def is_prefetch(self) -> bool:
        """Whether the response may never be shown."""
        environ = self.environ

        # Most have none of them.
        for name in _PREFETCH:
            if name in environ and environ[name].startswith("prefetch"):
                return True

        return False

    @lazy
    def is_blocked(self) -> bool:
        """Whether the browser library was found blocked in this browser."""
        header = self.environ.get("HTTP_COOKIE", "")
        return self._request is not None and (
            BLOCKED_COOKIE in header and BLOCKED_COOKIE in self._request.cookies
        )

    # -- where it is

    @property
    def is_cross_site(self) -> bool:
        """Whether another site has led to the request, or made it."""
        return self.environ.get("HTTP_SEC_FETCH_SITE") == "cross-site"

    @lazy
    def may_lack_cookies(self) -> bool:
        """Whether the browser may have cookies that didn't come with the request.

        Those that are ``SameSite=Lax``, as they are by default, come from another site
        with links only, and not into frames.
        https://datatracker.ietf.org/doc/html/draft-ietf-httpbis-rfc6265bis#section-5.2
        """
        environ = self.environ
        is_link = (
            environ.get("REQUEST_METHOD") in ("GET", "HEAD")
            and environ.get("HTTP_SEC_FETCH_MODE") == "navigate"
            and environ.get("HTTP_SEC_FETCH_DEST") == "document"
        )
        return environ.get("HTTP_SEC_FETCH_STORAGE_ACCESS") == "none" or (
            self.is_cross_site and not is_link
        )

    @property
    def ip(self) -> str | None:
        """The address that the request came from, shortened if so configured.

        Behind a proxy it is right when the app uses Werkzeug's ``ProxyFix``.
        """
        return sent_address(self.environ.get("REMOTE_ADDR"), self._config)

    @lazy
    def page(self) -> tuple[list[str], str]:
        """The parts of the URL of the page that the visitor is on, and its referrer.

        See :func:`join_url`. On a fetch the page is what the browser calls the
        referrer, and who referred to that isn't known.
        """
        referrer = self.environ.get("HTTP_REFERER", "")[:MAX_URL]

        if self.environ and self.is_browser and self.is_page_view:
            environ = self.environ
            # Nearly all are there: 5 steps less than to get each, of 399, a page with a
            # call.
            url = [environ[name][:MAX_URL] if name in environ else "" for name in _URL]
            # HTTP/1.0 has no host.
            url[1] = url[1] or environ["SERVER_NAME"]
            return url, referrer

        return [referrer] if referrer else [], ""

    @property
    def page_url(self) -> str:
        """The URL of that page; empty if it isn't known."""
        return join_url(self.page[0])


def may_show_page(environ: c.Mapping[str, t.Any]) -> bool:
    """Whether a client may show the response as a page; else it isn't one, and nothing
    but the environment of the request needs to be asked."""
    return environ.get("HTTP_SEC_FETCH_DEST", "document") in PAGE_DESTINATIONS


def is_socket(environ: c.Mapping[str, t.Any]) -> bool:
    """Return whether a request asks for a WebSocket: no response of that is a page, or
    could carry calls."""
    return "HTTP_UPGRADE" in environ and environ["HTTP_UPGRADE"].lower() == "websocket"


def capability(header: str) -> dict[str, str] | None:
    """Return what a client says of making calls: ``true; ack; project=abc``.

    :return: the parameters, with names in lower case; ``None`` if it can't make any.
    """
    # What is said twice, by a page and by the script, arrives in one line.
    item, *parameters = header.replace(",", ";").split(";")

    if item.strip().lower() not in ("true", "1"):
        return None

    pairs = (parameter.partition("=") for parameter in parameters)
    return {name.strip().lower(): value.strip().strip('"') for name, _, value in pairs}


@functools.lru_cache(maxsize=64)
def _cached_capability(header: str) -> c.Mapping[str, str] | None:
    return capability(header)


def is_page_url(url: c.Sequence[str]) -> bool:
    """Return whether these are the parts of the URL of a page that is viewed."""
    return len(url) == len(_URL)


def join_url(url: c.Sequence[str]) -> str:
    """Return a URL from its parts, encoded as a browser shows it to scripts."""
    if not is_page_url(url):
        return "".join(url)

    scheme, host, root, path, query = url
    # WSGI has the bytes of a path in a text (PEP 3333).
    path = quote((root + path).encode("latin-1", "replace"), safe="/!$&'()*+,:;=@%~|")
    return f"{scheme}://{host}{path}{'?' if query else ''}{query}"


def sent_address(text: object, config: Config) -> str | None:
    """Return the address that is sent of the one where a client is: shortened if so
    configured."""
    found = parse_address(text)
    return _shortened(found) if found and config.anonymize_ip else found


def parse_address(text: object) -> str | None:
    """Return the IP address in what is said of where a client is.

    Servers and proxies add ports, brackets and zones, or a list of those that the
    request came through, the client first.

    :return: the address as it is usually written; ``None`` where there is none.
    """
    return _address(text[:_MAX_ADDRESSES]) if isinstance(text, str) else None


@functools.lru_cache(maxsize=1024)
def _address(text: str) -> str | None:
    text = text.partition(",")[0].strip(' \t"')

    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]

    try:
        parsed = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None

    # What an IPv6 socket says of an IPv4 client: ::ffff:192.0.2.7.
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)


def _shortened(address: str) -> str:
    prefix = 48 if ":" in address else 24
    network = ipaddress.ip_network((address, prefix), strict=False)
    return str(network.network_address)
