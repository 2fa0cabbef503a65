"""What the headers of a response say: read once for all that have the same."""

from __future__ import annotations

import re
import typing as t

from .. import reasons
from ..visitor.lazy import lazy
from . import caching

if t.TYPE_CHECKING:
    from flask import Response

_HTML = ("text/html", "application/xhtml+xml")

# Of what the body is without the script. https://www.rfc-editor.org/rfc/rfc9530
_DIGESTS = frozenset({"content-digest", "repr-digest", "digest", "content-md5"})

# With these a proxy looks for a response elsewhere. nginx, Apache and lighttpd pass on
# cookies; the body, and most headers, none of them.
# https://github.com/nginx/nginx/blob/master/src/http/ngx_http_upstream.c
_ELSEWHERE = frozenset(
    {
        "x-accel-redirect",
        "x-sendfile",
        "x-sendfile2",
        "x-sendfile-temporary",
        "x-lighttpd-send-file",
        "x-lighttpd-send-tempfile",
        "x-litespeed-location",
        "x-reproxy-url",
        "x-reproxy-file",
    }
)

# A browser that is to leave a page within these seconds may not come to its calls.
_SOON = 5

# Each response has its own, and all that counts is whether it has any.
_OWN = frozenset(
    {"Content-Length", "Date", "ETag", "Last-Modified", "Set-Cookie", "X-Request-ID"}
)

# How many are kept to be recognised, and the characters of one.
_MAX_KEPT = 128
_MAX_LENGTH = 4096


class ResponseHeaders(dict[str, str]):
    """The headers of a response, with names in lower case, and what they say.

    Nobody changes it, since responses share it. Of some headers, which each response
    has of its own, it has no more than the names.
    """

    @lazy
    def is_html(self) -> bool:
        """Whether it is HTML, and so perhaps a page."""
        return self.get("content-type", "").partition(";")[0].strip().lower() in _HTML

    @lazy
    def unfit(self) -> str | None:
        """Why the body can't be changed, or won't be shown as a page."""
        if not self.is_html:
            return reasons.NOT_HTML

        if "content-encoding" in self:
            return reasons.ENCODED

        if not _DIGESTS.isdisjoint(self):
            return "a digest of the body goes with it"

        disposition = self.get("content-disposition")

        # https://www.rfc-editor.org/rfc/rfc6266#section-4.2
        if disposition and disposition.partition(";")[0].strip().lower() != "inline":
            return "an attachment"

        policies = self.get("content-security-policy")

        if policies and forbids_scripts(policies):
            return reasons.NO_SCRIPTS

        content_type = self["content-type"].lower()

        if "utf-16" in content_type or "utf-32" in content_type:
            return "the body isn't in an encoding that has ASCII in it"

        return None

    @lazy
    def elsewhere(self) -> str | None:
        """Why the client gets another response than this one."""
        if _ELSEWHERE.isdisjoint(self):
            return None

        return "a proxy answers with something else"

    @lazy
    def hasty(self) -> str | None:
        """Why the browser won't stay on the page.

        https://html.spec.whatwg.org/multipage/document-lifecycle.html#the-refresh-header
        """
        if "refresh" not in self:
            return None

        match = re.match(r"\s*+(?=[\d.])(\d*+)", self["refresh"])
        leaves = match is not None and int(match[1][:6] or 0) < _SOON
        return "the browser leaves the page at once" if leaves else None

    @lazy
    def is_shared(self) -> bool:
        """Whether a cache may give the response to other visitors."""
        return caching.is_shared(self)

    @lazy
    def kept(self) -> str | None:
        """Why a later request may be answered with these very headers, by what the app
        has decided: else the client is told to keep nothing.

        https://www.rfc-editor.org/rfc/rfc9111#section-4.2
        """
        control = caching.directives(self.get("cache-control", ""))

        if "no-store" in control:
            return None

        keeps = (
            "etag" in self
            or "last-modified" in self
            or "expires" in self
            or control.get("max-age", "0") != "0"
            or "stale-while-revalidate" in control
        )

        if keeps:
            return "the client may keep the response, and make its calls again"

        return None


def headers_of(response: Response) -> ResponseHeaders:
    """Return what the headers of a response say."""
    # With what is asked of a page's headers 0.6 us if they are known, and 3.4 if they
    # aren't; 1.6 in any case if none were kept. A page without calls takes 27.
    given = response.headers
    lines = tuple([(name, "" if name in _OWN else value) for name, value in given])

    try:
        known = _recent.get(lines)
    except TypeError:
        # A class of text that compares in its own way has no hash.
        lines = tuple([(str.__str__(name), str.__str__(text)) for name, text in lines])
        known = _recent.get(lines)

    return known or _read(lines)


_Lines: t.TypeAlias = "tuple[tuple[str, str], ...]"

_recent: dict[_Lines, ResponseHeaders] = {}


def _read(lines: _Lines) -> ResponseHeaders:
    headers, length = ResponseHeaders(), 0

    for name, value in lines:
        name = name.lower()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
        length += len(name) + len(value)

    if length <= _MAX_LENGTH:
        if len(_recent) >= _MAX_KEPT:
            _recent.clear()

        _recent[lines] = headers

    return headers


def forbids_scripts(policies: str) -> bool:
    """Whether a browser will run no script at all under these policies."""
    for directives in read_policies(policies.lower()):
        names = ("script-src-elem", "script-src", "default-src")
        ruling = next((name for name in names if name in directives), None)

        if ruling is not None and directives[ruling] in ([], ["'none'"]):
            return True

        if "allow-scripts" not in directives.get("sandbox", ["allow-scripts"]):
            return True

    return False


def read_policies(text: str) -> list[dict[str, list[str]]]:
    """Read a Content-Security-Policy: of each of its policies the values of each
    directive, whose name is in lower case.

    https://www.w3.org/TR/CSP3/#parse-serialized-policy-list
    """
    return [
        {
            words[0].lower(): words[1:]
            # The first directive of a name counts.
            for words in map(str.split, reversed(policy.split(";")))
            if words
        }
        for policy in text.split(",")
    ]
