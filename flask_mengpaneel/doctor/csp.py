"""Read Content-Security-Policies, as far as they rule scripts and connections.

The rules are those of https://www.w3.org/TR/CSP3/; comments name its sections.
"""

from __future__ import annotations

import collections.abc as c
import dataclasses
import re
from html.parser import HTMLParser
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from ..choose.response_headers import read_policies

HEADER = "Content-Security-Policy"
REPORT_ONLY = "Content-Security-Policy-Report-Only"

#: The directives that may rule script elements and connections: the first that a
#: policy has does.
FALLBACKS = {
    "script-src": ("script-src-elem", "script-src", "default-src"),
    "connect-src": ("connect-src", "default-src"),
}

_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}

#: The safer schemes that a scheme in a policy allows besides itself.
_SAFER = {
    "http": {"https"},
    "ws": {"wss", "http", "https"},
    "wss": {"https"},
}

_SCHEME_SOURCE = re.compile(r"([a-z][a-z0-9+.-]*):", re.IGNORECASE)
_HOST_SOURCE = re.compile(
    r"(?:(?P<scheme>[a-z][a-z0-9+.-]*)://)?"
    r"(?P<host>\*|(?:\*\.)?[a-z0-9_-]+(?:\.[a-z0-9_-]+)*\.?|\[[0-9a-f:.]+\])"
    r"(?::(?P<port>[0-9]{1,5}|\*))?"
    r"(?P<path>/[^?#]*)?",
    re.IGNORECASE,
)


@dataclasses.dataclass(frozen=True)
class Policy:
    """One policy of a page."""

    directives: c.Mapping[str, list[str]]
    #: The URL of the page.
    page: str
    #: Where the policy is: a header or an element, as findings name it.
    where: str = HEADER

    def governing(self, directive: str) -> str | None:
        """Return the directive that rules in place of another.

        ``None`` if none does, and all is allowed.
        """
        names = FALLBACKS.get(directive, (directive,))
        return next((name for name in names if name in self.directives), None)

    def sources(self, directive: str) -> list[str]:
        """Return the sources of a directive, or of the one that rules in its place."""
        return self.directives.get(self.governing(directive) or "", [])

    def allows_connection(self, url: str) -> bool:
        """Whether the page may send something to a URL."""
        governing = self.governing("connect-src")
        return governing is None or self._lists(self.directives[governing], url)

    def allows_script(self, url: str, nonce: str | None, inserted: bool) -> bool:
        """Whether a script element of the page may load a URL.

        :param nonce: the element's nonce.
        :param inserted: whether another script inserts it; else it is in the page.
        """
        if not self._runs_scripts():
            return False

        if self.governing("script-src") is None:
            return True

        # Section "Script directives pre-request check".
        sources = self.sources("script-src")

        if nonce and any(_nonce(source) == nonce for source in sources):
            return True

        if "'strict-dynamic'" in map(str.lower, sources):
            return inserted

        return self._lists(sources, url)

    def allows_trusted_types_policy(self, name: str) -> bool:
        """Whether the page may make a Trusted Types policy of a name."""
        names = self.directives.get("trusted-types")
        return names is None or name in names or "*" in names

    @property
    def requires_trusted_types(self) -> bool:
        """Whether the page may set a script's URL only through Trusted Types."""
        return "'script'" in self.directives.get("require-trusted-types-for", [])

    def _runs_scripts(self) -> bool:
        flags = self.directives.get("sandbox")
        return flags is None or "allow-scripts" in map(str.lower, flags)

    def _lists(self, sources: list[str], url: str) -> bool:
        target, here = urlsplit(url), urlsplit(self.page)
        return any(_matches(source, target, here) for source in sources)


def parse(text: str, page: str, where: str = HEADER) -> list[Policy]:
    """Read the policies of one header.

    :param text: the header's value; commas separate its policies.
    :param page: the URL of the page.
    """
    return [Policy(one, page, where) for one in read_policies(text) if one]


def parse_page(html: str, page: str) -> list[Policy]:
    """Read the policies of the ``<meta>`` elements in the head of a page.

    :param page: the URL of the page.
    """
    reader = _MetaReader()
    reader.feed(html)
    where = '<meta http-equiv="Content-Security-Policy">'
    policies = [one for text in reader.found for one in parse(text, page, where)]

    # Section "The meta element": three directives don't count there.
    return [
        dataclasses.replace(
            policy,
            directives={
                name: values
                for name, values in policy.directives.items()
                if name not in {"sandbox", "frame-ancestors", "report-uri"}
            },
        )
        for policy in policies
    ]


def find_base(text: str, page: str) -> str:
    """Return to what the addresses of a page are relative, by its ``<base>``.

    :param text: the HTML of the page.
    :param page: its URL.
    """
    reader = _MetaReader()
    reader.feed(text)
    return urljoin(page, reader.base.strip()) if reader.base else page


class _MetaReader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.base: str | None = None
        self._in_head = True

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self._in_head = self._in_head and tag != "body"

        if tag == "base" and self.base is None:
            self.base = given.get("href")

        if (
            self._in_head
            and tag == "meta"
            and given.get("http-equiv", "").lower() == HEADER.lower()
        ):
            self.found.append(given.get("content", ""))


def _nonce(source: str) -> str | None:
    start, _, value = source.partition("-")
    return value[:-1] if start.lower() == "'nonce" and value[-1:] == "'" else None


def _matches(source: str, url: SplitResult, here: SplitResult) -> bool:
    """Section "Does url match expression in origin with redirect count?"."""
    if source == "*":
        return url.scheme in {"http", "https", here.scheme}

    if source.lower() == "'self'":
        return _is_self(url, here)

    if match := _SCHEME_SOURCE.fullmatch(source):
        return _scheme_matches(match[1].lower(), url.scheme)

    match = _HOST_SOURCE.fullmatch(source)
    return match is not None and (
        _scheme_matches((match["scheme"] or here.scheme).lower(), url.scheme)
        and _host_matches(match["host"].lower(), url.hostname or "")
        and _port_matches(match["port"], url)
        and _path_matches(unquote(match["path"] or ""), unquote(url.path or "/"))
    )


def _is_self(url: SplitResult, here: SplitResult) -> bool:
    if url.hostname != here.hostname:
        return False

    ports = _port(url), _port(here)
    defaults = _PORTS.get(url.scheme), _PORTS.get(here.scheme)
    safer = url.scheme == here.scheme or url.scheme in {"https", "wss"}
    return safer and (ports[0] == ports[1] or ports == defaults)


def _port(url: SplitResult) -> int | None:
    return url.port or _PORTS.get(url.scheme)


def _scheme_matches(scheme: str, other: str) -> bool:
    return scheme == other or other in _SAFER.get(scheme, ())


def _host_matches(pattern: str, host: str) -> bool:
    if pattern.startswith("*"):
        return pattern == "*" or host.endswith(pattern[1:])

    return pattern.strip("[]") == host


def _port_matches(port: str | None, url: SplitResult) -> bool:
    if port is None:
        return _port(url) == _PORTS.get(url.scheme)

    return port == "*" or int(port) == _port(url)


def _path_matches(pattern: str, path: str) -> bool:
    if not pattern:
        return True

    return path.startswith(pattern) if pattern.endswith("/") else path == pattern
