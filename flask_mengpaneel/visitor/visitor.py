"""Who is asking: with which ids, from where, with which device, and may we track it."""

from __future__ import annotations

import collections.abc as c
import copy
import functools
import ipaddress
import json
import logging
import time
import typing as t
from urllib.parse import quote

from ..calls import Call, CallLog, Json, count
from ..envelope import Envelope
from ..identity import NOBODY, Identity
from . import mixpanel_cookie as persistence
from .attribution import LONGEST_URL
from .devices import LONGEST_USER_AGENT
from .mixpanel_cookie import Persistence

if t.TYPE_CHECKING:
    from flask import Request, Response

    from ..config import Config

logger = logging.getLogger("flask_mengpaneel")

#: The cookie of a browser in which the library was found blocked.
BLOCKED_COOKIE = "mengpaneel_blocked"

#: In an environment: what a client says that can make calls.
CAPABLE = "HTTP_X_MENGPANEEL_FLUSH_CAPABLE"

#: The destinations of requests whose response is shown as a page.
#: https://fetch.spec.whatwg.org/#concept-request-destination
PAGES = frozenset({"document", "iframe", "frame", "embed", "object", "fencedframe"})

# The last three are Turbo's and those of older browsers.
_PREFETCH = ("HTTP_SEC_PURPOSE", "HTTP_X_SEC_PURPOSE", "HTTP_PURPOSE", "HTTP_X_MOZ")

#: In a list of addresses, the first is within that.
_LONGEST_ADDRESS = 128

_URL = (
    "wsgi.url_scheme",
    "HTTP_HOST",
    "SCRIPT_NAME",
    "PATH_INFO",
    "QUERY_STRING",
)


class Visitor:
    """Whoever sent the request.

    What a browser says of its visitor is untrusted: ids and super properties of sane
    size are believed, nothing else.

    :param request: ``None`` for a job, which has no visitor.
    """

    #: What the visitor has chosen in this request: to be tracked, or not to be.
    opted: bool | None = None
    #: Whether calls that the browser is going to make have the ids of `identity`.
    identity_sent = False
    #: The new visitors with the same browser, one after each ``reset()``.
    successors: tuple[Identity, ...] = ()
    #: What was in the library's cookie, if more is known by now.
    _came_with: c.Mapping[str, Json] | None = None

    def __init__(self, config: Config, request: Request | None) -> None:
        self._config = config
        self._request = request
        environ: dict[str, t.Any] = request.environ if request else {}
        self._environ = environ
        #: The path that the request is for, below the one where the app is.
        self.path: str = environ.get("PATH_INFO", "")

        # What a visitor without cookies has to be asked for isn't much.
        if "HTTP_COOKIE" not in environ:
            self.cookie, self.known, self.is_blocked = {}, NOBODY, False

            if config.consent is None:
                self.consents = not self._signals_no()

        #: The ``User-Agent`` header.
        self.user_agent: str = environ.get("HTTP_USER_AGENT", "")[:LONGEST_USER_AGENT]
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
        self._identity: Identity | None = None

    # -- with what

    @property
    def is_page_view(self) -> bool:
        """Whether the client is going to show the response as a page.

        https://www.w3.org/TR/fetch-metadata/ where the browser sends it.
        """
        environ = self._environ
        destination = environ.get("HTTP_SEC_FETCH_DEST")

        if destination is not None:
            return destination in PAGES

        mode = environ.get("HTTP_SEC_FETCH_MODE")

        if mode is not None:
            return bool(mode == "navigate")

        if (
            (CAPABLE in environ and capability(environ[CAPABLE]) is not None)
            or environ.get("HTTP_X_REQUESTED_WITH", "").lower() == "xmlhttprequest"
            or "HTTP_HX_REQUEST" in environ
            or "HTTP_TURBO_FRAME" in environ
        ):
            return False

        # A browser that asks for a page names HTML; a script asks for anything.
        accept = environ.get("HTTP_ACCEPT")
        return not accept or "text/html" in accept or "application/xhtml" in accept

    @property
    def incapable(self) -> str | None:
        """Why the client can't make calls itself; ``None`` if it says that it can."""
        header = self._environ.get(CAPABLE)
        parameters = None if header is None else capability(header)

        if parameters is None:
            return "the client doesn't say that it can"

        # On one origin there may be several apps, which track for different projects.
        if parameters.get("project", self._config.token) != self._config.token:
            return "the client makes the calls of another project"

        return None

    @property
    def is_prefetch(self) -> bool:
        """Whether the response may never be shown."""
        return any(
            self._environ.get(name, "").startswith("prefetch") for name in _PREFETCH
        )

    @property
    def is_cross_site(self) -> bool:
        """Whether another site has led to the request, or made it."""
        return self._environ.get("HTTP_SEC_FETCH_SITE") == "cross-site"

    @property
    def may_lack_cookies(self) -> bool:
        """Whether the browser may have cookies that didn't come with the request.

        Those that are ``SameSite=Lax``, as they are by default, come from another site
        with links only, and not into frames.
        https://datatracker.ietf.org/doc/html/draft-ietf-httpbis-rfc6265bis#section-5.2
        """
        environ = self._environ
        is_link = (
            environ.get("REQUEST_METHOD") in ("GET", "HEAD")
            and environ.get("HTTP_SEC_FETCH_MODE") == "navigate"
            and environ.get("HTTP_SEC_FETCH_DEST") == "document"
        )
        return environ.get("HTTP_SEC_FETCH_STORAGE_ACCESS") == "none" or (
            self.is_cross_site and not is_link
        )

    @functools.cached_property
    def is_blocked(self) -> bool:
        """Whether the browser library was found blocked in this browser."""
        header = self._environ.get("HTTP_COOKIE", "")
        return self._request is not None and (
            BLOCKED_COOKIE in header and BLOCKED_COOKIE in self._request.cookies
        )

    # -- from where

    @property
    def ip(self) -> str | None:
        """The address that the request came from, shortened if so configured.

        Behind a proxy it is right when the app uses Werkzeug's ``ProxyFix``.
        """
        found = address(self._environ.get("REMOTE_ADDR"))
        return _shortened(found) if found and self._config.anonymize_ip else found

    @property
    def page(self) -> tuple[list[str], str]:
        """Parts of the URL of the page that the visitor is on, and its referrer.

        See :func:`joined`. On a fetch the page is what the browser calls the referrer,
        and who referred to that isn't known.
        """
        referrer = self._environ.get("HTTP_REFERER", "")[:LONGEST_URL]

        if self._environ and self.is_browser and self.is_page_view:
            url = [self._environ.get(name, "")[:LONGEST_URL] for name in _URL]
            # HTTP/1.0 has no host.
            url[1] = url[1] or self._environ["SERVER_NAME"]
            return url, referrer

        return [referrer] if referrer else [], ""

    # -- who

    @functools.cached_property
    def cookie(self) -> c.Mapping[str, Json]:
        """What the browser library keeps in its cookie; empty if there is none."""
        name = self._config.cookie_name

        if self._request is None or name not in self._environ["HTTP_COOKIE"]:
            return {}

        return persistence.read(self._request.cookies.get(name, ""))

    @functools.cached_property
    def known(self) -> Identity:
        """The ids that the browser library has for this visitor."""
        return Identity.from_cookie(self.cookie)

    @property
    def identity(self) -> Identity:
        """The ids for what the server sends: the known ones, else a new device's."""
        if self._identity is None:
            known = self.known
            is_known = (known is not NOBODY and known) or self._request is None
            self._identity = known if is_known else Identity.new()

        return self._identity

    @identity.setter
    def identity(self, identity: Identity) -> None:
        self._identity = identity

    def as_person(self, person: Identity) -> Visitor:
        """The same browser, when somebody else may have sat in front of it."""
        visitor = copy.copy(self)
        visitor.successors = ()

        if person != self.identity:
            visitor.known = visitor.identity = person
            visitor.cookie = {}

        return visitor

    def as_seen(self, seen: Identity) -> Visitor:
        """The same visitor, when the browser took them for somebody: they may have
        signed in since."""
        visitor = copy.copy(self)

        if seen:
            visitor.known = visitor.identity = seen

        return visitor

    def apply(self, made: c.Sequence[Call]) -> None:
        """Know what calls have said of this visitor."""
        if made:
            self._came_with = self._came_with or self.cookie
            self.cookie = self._after(made)
            self.known = self.identity = Identity.from_cookie(self.cookie)
            self.successors = ()

    def start_new_visitor(self) -> None:
        """Make place for a new visitor with the same browser: this one signs out."""
        self.successors += (Identity.new(),)

    def envelope(self, log: CallLog) -> Envelope:
        """Put calls that are flushed now into an envelope of this visitor's."""
        calls = [*log.before_setup, *log.setup, *log.tracking]
        url, referrer = self.page
        says_who = (log.setup or log.before_setup) and log.identifies
        # A program that says whom it is about is no new device of theirs each time.
        is_device = not says_who or self.keeps_cookies

        return Envelope(
            calls,
            self.identity if is_device else self.known,
            self.successors,
            round(time.time() * 1000) / 1000,
            self.ip,
            self.user_agent,
            url,
            referrer,
            self.cookie,
            count(calls),
            log.size,
        )

    # -- may we

    @functools.cached_property
    def consents(self) -> bool | None:
        """Whether the visitor may be tracked; ``None``: not asked yet.

        ``DNT`` is of https://www.w3.org/TR/tracking-dnt/, ``Sec-GPC`` of
        https://www.w3.org/TR/gpc/.
        """
        if self._request is None:
            return True

        answer = self._asked() if self._config.consent else None

        if answer is not True and self._signals_no():
            return False

        if "HTTP_COOKIE" in self._environ and self._opted_out():
            return False

        return answer if self._config.consent else True

    def _signals_no(self) -> bool:
        environ = self._environ
        return self._config.respect_dnt and (
            environ.get("HTTP_DNT") == "1" or environ.get("HTTP_SEC_GPC") == "1"
        )

    def _asked(self) -> bool | None:
        if self._config.consent is None:
            return None

        try:
            answer = self._config.consent()
        except Exception:
            logger.exception("MENGPANEEL_CONSENT failed, which counts as no")
            return False

        return None if answer is None else bool(answer)

    def _opted_out(self) -> bool:
        """Whether the library's own cookies say so (gdpr-utils.js)."""
        assert self._request is not None
        cookies = self._request.cookies
        return cookies.get(self._config.opt_cookie_name) == "0" or bool(
            cookies.get("mp_optout")
        )

    def opt_out(self) -> None:
        """Don't track this visitor any more."""
        self.opted = self.consents = False

    def opt_in(self) -> bool:
        """Track this visitor from now on, unless the app or the browser says no.

        :return: whether calls may be recorded from now on.
        """
        answer = self._asked()

        if answer is True or (answer is None and not self._signals_no()):
            self.opted = self.consents = True

        return bool(self.opted)

    # -- what the browser has to know

    def cookie_is_stale(self, sent: c.Sequence[Call]) -> bool:
        """Whether the browser library would know something else by now.

        :param sent: the calls that the server has sent for it.
        """
        if not self.keeps_cookies or self.opted is not None:
            return self.opted is not None

        if not (sent or self.identity_sent) or not self.can_remember:
            return False

        timers = self.cookie.get("__timers")
        timed = timers if isinstance(timers, dict) else {}
        return not self.known or any(
            call.wire[0][0] in persistence.CHANGING
            or (bool(timed) and call.tracks and call.event in timed)
            for call in sent
        )

    def write_cookie(
        self,
        response: Response,
        sent: c.Sequence[Call],
        *,
        ids: bool = True,
        choice: bool = True,
    ) -> bool:
        """Tell the browser library what it would know if it had made the calls itself,
        by cookies whose value is another one than before.

        :param sent: the calls that the server has sent for it.
        :param ids: whether it may be told who the visitor is.
        :param choice: whether it may be told of what the visitor has chosen.
        :return: whether there was anything to tell.
        """
        request, config = self._request, self._config
        assert request is not None, "a job has no response"
        told = False

        if self.opted is not None and choice:
            chosen = request.cookies.get(config.opt_cookie_name)

            if chosen != ("1" if self.opted else "0"):
                persistence.write_choice(response, request, config, self.opted)
                told = True

        if self.opted is False:
            has_one = config.cookie_name in request.cookies or self.may_lack_cookies

            if ids and has_one and config.cookie_persistence:
                persistence.forget(response, request, config)
                told = True
        elif ids and self.can_remember and (sent or self.identity_sent):
            kept = self._after(sent)
            before = self.cookie if self._came_with is None else self._came_with

            if not _same(kept, before):
                persistence.write(response, request, config, kept)
                told = True

        return told

    @property
    def can_remember(self) -> bool:
        """Whether the response may tell the browser library who the visitor is.

        If it may have told it before, but its cookie didn't come along, it may not.
        """
        return (
            self.keeps_cookies
            and self._config.cookie_persistence
            and self.consents is True
            and (bool(self.known) or not self.may_lack_cookies)
        )

    def _after(self, sent: c.Sequence[Call]) -> dict[str, Json]:
        url, referrer = self.page
        kept = Persistence(
            self.cookie,
            self.identity,
            referrer if is_whole(url) else None,
            self.successors,
        )

        for call in sent:
            kept.make(call, time.time())

        return kept.to_cookie()


def _same(one: c.Mapping[str, Json], other: c.Mapping[str, Json]) -> bool:
    # To Python true is 1, to nobody else.
    return one == other and json.dumps(one, sort_keys=True) == json.dumps(
        other, sort_keys=True
    )


def capability(header: str) -> dict[str, str] | None:
    """Read what a client says of making calls: ``true; project=abc``.

    :return: the parameters, with names in lower case; ``None`` if it can't make any.
    """
    # What is said twice, by a page and by the script, arrives in one line.
    item, *parameters = header.replace(",", ";").split(";")

    if item.strip().lower() not in ("true", "1"):
        return None

    pairs = (parameter.partition("=") for parameter in parameters)
    return {name.strip().lower(): value.strip().strip('"') for name, _, value in pairs}


def is_whole(url: c.Sequence[str]) -> bool:
    """Whether these are the parts of the URL of a page that is viewed."""
    return len(url) == len(_URL)


def joined(url: c.Sequence[str]) -> str:
    """Put the parts of a URL together, encoded as a browser shows it to scripts."""
    if not is_whole(url):
        return "".join(url)

    scheme, host, root, path, query = url
    # WSGI has the bytes of a path in a text (PEP 3333).
    path = quote((root + path).encode("latin-1", "replace"), safe="/!$&'()*+,:;=@%~|")
    return f"{scheme}://{host}{path}{'?' if query else ''}{query}"


def address(text: object) -> str | None:
    """The IP address in what is said of where a client is, as it is usually written.

    Servers and proxies add ports, brackets and zones, or a list of those that the
    request came through, the client first. ``None`` where there is no address.
    """
    return _address(text[:_LONGEST_ADDRESS]) if isinstance(text, str) else None


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
