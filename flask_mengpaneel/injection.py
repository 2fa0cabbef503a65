"""Where to insert the script into a page, and what."""

from __future__ import annotations

import collections.abc as c
import functools
import hashlib
import re
import typing as t
import weakref
from pathlib import Path
from urllib.parse import quote

from markupsafe import escape
from werkzeug.utils import cached_property

from .calls import dumps
from .config import PREFIX
from .outcomes import REDIRECTS, Declined

if t.TYPE_CHECKING:
    from flask import Flask, Request, Response

    from .config import Config
    from .fallback import Signer

HTML = ("text/html", "application/xhtml+xml")

_SCRIPT_SAFE = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026"}

# The elements whose content is text.
# https://html.spec.whatwg.org/multipage/syntax.html#raw-text-elements
_TEXTS = (b"title", b"script", b"style", b"noscript", b"template", b"textarea")

# Quotes hide a tag only where a value begins.
_ATTRIBUTES = rb"""(?:[^>"'=]|=\s*+(?:"[^"]*+(?:"|\Z)|'[^']*+(?:'|\Z))?|["'])*+"""


def _tokens(text_element: bytes) -> re.Pattern[bytes]:
    """What has to be told apart in a page; a tag may be in a comment or a text."""
    return re.compile(
        rb"<!--(?:-?>|.*?(?:--!?>|\Z))"
        rb"|<!\[CDATA\[.*?(?:\]\]>|\Z)"
        rb"|(?P<head></head\s*>)|(?P<body></body\s*>)|(?P<frameset><frameset[\s>])"
        rb"|<(?P<name>" + b"|".join((*_TEXTS, b"iframe", b"noframes", b"xmp")) + rb")"
        rb"(?=[\s/>])"
        + _ATTRIBUTES
        + text_element
        + rb"|</?[a-z]"
        + _ATTRIBUTES
        + rb"(?:>|\Z)",
        re.IGNORECASE | re.DOTALL,
    )


_TO_ITS_END = rb">.*?(?:</(?P=name)(?=[\s/>])|\Z)"
_HTML = _tokens(_TO_ITS_END)
# In XML an element may be empty.
_XHTML = _tokens(rb"(?:(?<=/)>|" + _TO_ITS_END + rb")")


#: Bytes of a page that are copied at once.
_LARGE = 262_144

#: Larger heads aren't kept to be recognised.
_LARGE_HEAD = 8192

# It is where the body would be.
_FRAMESET = re.compile(rb"\s*(?:<!--.*?-->\s*)*<frameset", re.I | re.DOTALL)


def headers_of(response: Response) -> dict[str, str]:
    """The headers of a response, with names in lower case, to be asked for often."""
    headers: dict[str, str] = {}

    for name, value in response.headers:
        name = name.lower()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value

    return headers


@functools.lru_cache(maxsize=128)
def is_html(content_type: str) -> bool:
    """Whether a response is HTML, and so perhaps a page."""
    return content_type.partition(";")[0].strip().lower() in HTML


def position(page: bytes, is_xml: bool = False) -> int | None:
    """Find where in a page the script goes.

    :return: the offset of ``</head>``, else of the last ``</body>``, or ``None``
        if it has neither, or is a ``<frameset>``.
    """
    end = page.find(b"</head>") + len(b"</head>")

    if end >= len(b"</head>") and not _FRAMESET.match(page, end):
        find = _head_end if end <= _LARGE_HEAD else _searched
        at = find(page[:end], is_xml)

        if at is not None:
            return at

    return _searched(page, is_xml)


def _searched(page: bytes, is_xml: bool) -> int | None:
    head = body = None
    tokens = _XHTML if is_xml else _HTML

    for match in tokens.finditer(page):
        if match["frameset"]:
            return None

        if match["body"]:
            body = match.start()
        elif match["head"] and head is None and body is None:
            head = match.start()

    return body if head is None else head


@functools.lru_cache(maxsize=128)
def _head_end(page: bytes, is_xml: bool) -> int | None:
    """Where the head ends, in a part of a page that has nothing after it.

    The pages of an app have few different heads.
    """
    return _searched(page, is_xml)


class _Parts(list[bytes]):
    """A page and what is inserted into it: copied bit by bit, as it is sent.

    With two copies of a large page at once, the C library would give memory back to
    the system after each response, and get it anew for the next: thirty times as slow.
    """

    def __init__(self, page: bytes, at: int, snippet: bytes) -> None:
        super().__init__([page[:at], snippet, page])
        self._at = at

    def __iter__(self) -> c.Iterator[bytes]:
        head, snippet, page = self[:]
        yield head + snippet

        for at in range(self._at, len(page), _LARGE):
            yield page[at : at + _LARGE]


def insert(response: Response, page: bytes, at: int, snippet: bytes) -> None:
    """Put the snippet into the page, which is the body of the response."""
    response.response = (
        [page[:at] + snippet, page[at:]]
        if len(page) < _LARGE
        else _Parts(page, at, snippet)
    )

    for position, (name, _) in enumerate(response.headers):
        if name.lower() == "content-length":
            response.headers[position] = (name, str(len(page) + len(snippet)))


def snippet(
    url: str,
    data: c.Mapping[str, t.Any],
    nonce: str | None = None,
    sign: c.Callable[[str], str | None] | None = None,
) -> bytes:
    """The two elements: a block of data and the script that reads it.

    Nothing in the block can end it, and the script's own text is in a file of the
    app, so that the strictest policy lets both through.

    :param url: of the script.
    :param nonce: of this response, where its policy wants one.
    :param sign: gives the signature with which the app will know the data again.
    """
    block = dumps(data).translate(_SCRIPT_SAFE)
    nonce_attribute = f' nonce="{escape(nonce)}"' if nonce else ""
    signature = sign(block) if sign else None
    signed = f' data-signature="{signature}"' if signature else ""
    return (
        f'<script type="application/json" id="mengpaneel"{signed}>{block}</script>'
        f'<script src="{escape(url)}"{nonce_attribute}></script>'
    ).encode("ascii", "xmlcharrefreplace")


def check(response: Response, headers: c.Mapping[str, str]) -> None:
    """Make sure that a response, which is HTML, can be changed and will be shown.

    :param headers: its headers, with names in lower case.
    :raises Declined: it can't, or won't.
    """
    status = response.status_code

    if status in REDIRECTS or status in (204, 205, 206, 304) or status < 200:
        raise Declined(f"browsers don't show what comes with {status}")

    if "content-encoding" in headers:
        raise Declined("the body is encoded")

    if headers.get("content-disposition", "").lower().startswith("attachment"):
        raise Declined("an attachment")

    if response.direct_passthrough or not isinstance(response.response, list | tuple):
        raise Declined("the body is streamed")

    policies = headers.get("content-security-policy")

    if policies and forbids_scripts(policies):
        raise Declined("the page's policy allows no scripts")

    content_type = headers["content-type"].lower()

    if "utf-16" in content_type or "utf-32" in content_type:
        raise Declined("the body isn't in an encoding that has ASCII in it")


def forbids_scripts(policies: str) -> bool:
    """Whether a browser will run no script at all under these policies.

    https://www.w3.org/TR/CSP3/#parse-serialized-policy-list
    """
    for policy in policies.lower().split(","):
        directives = {
            words[0]: words[1:]
            for words in map(str.split, reversed(policy.split(";")))
            if words
        }
        names = ("script-src-elem", "script-src", "default-src")
        ruling = next((name for name in names if name in directives), None)

        if ruling is not None and directives[ruling] in ([], ["'none'"]):
            return True

        if "allow-scripts" not in directives.get("sandbox", ["allow-scripts"]):
            return True

    return False


def find(response: Response, headers: c.Mapping[str, str]) -> tuple[bytes, int]:
    """The page, and where in it the script goes.

    :param headers: those of the response, with names in lower case.
    :raises Declined: there is no place for it.
    """
    parts = response.response
    # As Flask makes it of what a view returns.
    page: bytes = (
        parts[0]
        if type(parts) is list and len(parts) == 1 and type(parts[0]) is bytes
        else response.get_data()
    )
    at = position(page, is_xml="xml" in headers["content-type"])

    if at is None:
        raise Declined("no </head> or </body>, or a frameset")

    return page, at


def keep_private(response: Response) -> None:
    """Say that the page is this visitor's, and of this moment."""
    control = response.cache_control
    control.private = True

    if (
        control.max_age is None
        and not control.no_store
        and "Expires" not in response.headers
    ):
        control.no_cache = True

    # They are of the page without the calls: a browser that asks again with them
    # would be told to show somebody else's.
    del response.headers["ETag"]
    del response.headers["Last-Modified"]


#: The URL of the script, the data of a page without calls, and its snippet.
_Fixed: t.TypeAlias = "tuple[str, dict[str, t.Any], bytes]"


class Script:
    """The part of a page that loads the browser library."""

    def __init__(self, config: Config, app: Flask, signer: Signer | None) -> None:
        self._config = config
        # Else an app would be freed by Python's garbage collector only.
        self._app = weakref.ref(app)
        self._signer = signer
        self._fixed: dict[str, _Fixed] = {}

    def snippet(
        self,
        request: Request,
        calls: list[t.Any] | None = None,
        races: bool = False,
        declined: c.Mapping[str, str] | None = None,
    ) -> bytes:
        """What is inserted into a page.

        :param calls: hand-overs, for a page that has calls.
        :param races: whether another page may have the same calls, and making them
            twice would do harm.
        """
        nonce = self._nonce() if self._config.csp_nonce else None
        root = request.environ.get("SCRIPT_NAME", "")
        url, data, boot = self._fixed.get(root) or self._fix(root)

        if calls is None:
            return snippet(url, data, nonce) if nonce else boot

        data = {**data, "calls": calls}

        if races:
            data["races"] = True

        if (app := self._app()) is not None and app.debug:
            data["debug"] = {"strategy": "ClientSide", "declined": dict(declined or {})}

        sign = self._signer.sign if self._signer else None
        return snippet(url, data, nonce, sign)

    def _fix(self, root: str) -> _Fixed:
        """What is always the same where an app is mounted at a path."""
        # It may be a header that says where that is, and so anybody.
        if len(self._fixed) >= 16:
            self._fixed.clear()

        # Not by `url_for`, which knows of hosts: each of the app's serves the script,
        # and a page asks the one that it is from.
        base = quote(root.encode("latin-1", "replace")).rstrip("/") + PREFIX
        url = f"{base}/static/mengpaneel.js?v={self._version}"
        data = self._data(f"{base}/calls")
        fixed = self._fixed[root] = url, data, snippet(url, data)
        return fixed

    def _data(self, fallback: str) -> dict[str, t.Any]:
        config = self._config
        data = {
            "token": config.token,
            "config": config.init_options,
            "library": config.library_url,
        }

        if self._signer:
            data["fallback"] = fallback

        return data

    @cached_property
    def _version(self) -> str:
        """The hash of the script, so that browsers may keep it for ever."""
        text = (static_folder() / "mengpaneel.js").read_bytes()
        return hashlib.sha256(text).hexdigest()[:12]

    def _nonce(self) -> str | None:
        assert self._config.csp_nonce is not None
        nonce = self._config.csp_nonce()
        return str(nonce) if nonce else None


def static_folder() -> Path:
    """Where the script is: built into the package, but beside it in a checkout."""
    package = Path(__file__).parent
    built = package / "static"
    return built if built.is_dir() else package.parent / "static"
