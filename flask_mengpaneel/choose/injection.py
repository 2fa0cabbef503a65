"""Where to insert the script into a page, and what."""

from __future__ import annotations

import collections.abc as c
import functools
import hashlib
import itertools
import os
import re
import typing as t
import weakref
from pathlib import Path
from urllib.parse import quote

from markupsafe import escape
from werkzeug.security import safe_join
from werkzeug.wrappers import response as werkzeug_response
from werkzeug.wsgi import ClosingIterator

from ..calls import dumps
from ..config import PREFIX
from ..identity import NOBODY, Identity
from ..outcome import REDIRECTS, Declined

if t.TYPE_CHECKING:
    from flask import Flask, Request, Response

    from ..config import Config
    from .handover import Signer

HTML = ("text/html", "application/xhtml+xml")

#: Content types are looked at so far, since those that were seen are kept.
_LONGEST_TYPE = 128

_SCRIPT_SAFE = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026"}

# The elements whose content is text.
# https://html.spec.whatwg.org/multipage/syntax.html#raw-text-elements
_TEXTS = (b"title", b"style", b"noscript", b"template", b"textarea")

# None of these patterns takes back what it has matched, so that it goes through
# a page once, whatever is in it: `++` and `*+` are possessive.

_COMMENT = rb"<!--(?:-?>|(?:[^-]++|-(?!-!?>))*+(?:--!?>|\Z))"

# Quotes hide a tag only where a value begins.
_ATTRIBUTES = rb"""(?:[^>"'=]++|=\s*+(?:"[^"]*+(?:"|\Z)|'[^']*+(?:'|\Z))?|["'])*+"""

_CDATA = rb"<!\[CDATA\[.*?(?:\]\]>|\Z)"

# In a comment of a script its end is text, if another beginning is before it.
# https://html.spec.whatwg.org/multipage/parsing.html#script-data-escaped-state
_SCRIPT = (
    rb"(?:[^<]++"
    rb"|<!--(?:-?>|(?:[^<-]++|-(?!->)|<script(?=[\s/>])"
    rb"(?:[^<-]++|-(?!->)|<(?!/script[\s/>]))*+(?:</script)?|<(?!/script[\s/>]))*+)"
    rb"|<(?!/script[\s/>]))*+"
)

_XML_SCRIPT = rb"(?:[^<]++|" + _COMMENT + rb"|" + _CDATA + rb"|<(?!/script[\s/>]))*+"


def _tokens(*first: bytes, empty: bytes, script: bytes) -> re.Pattern[bytes]:
    """What has to be told apart in a page; a tag may be in a comment or a text.

    :param first: what else hides tags.
    :param empty: what else may be after an element's attributes.
    :param script: what is in a script.
    """
    texts = b"|".join((*_TEXTS, b"iframe", b"noframes", b"xmp"))
    return re.compile(
        rb"|".join(
            (
                *first,
                _COMMENT,
                # What a browser takes for a comment, too.
                rb"<(?:[!?]|/(?![a-z]))[^>]*+",
                rb"(?P<head></head(?=[\s/>])" + _ATTRIBUTES + rb">)",
                rb"(?P<body></body(?=[\s/>])" + _ATTRIBUTES + rb">)",
                rb"(?P<frameset><frameset[\s/>])",
                rb"<script(?=[\s/>])" + _ATTRIBUTES + rb"(?:" + empty + rb">"
                + script + rb"(?:</script|\Z))",
                rb"<(?P<name>" + texts + rb")(?=[\s/>])" + _ATTRIBUTES + rb"(?:" + empty
                + rb">.*?(?:</(?P=name)(?=[\s/>])|\Z))",
                rb"</?[a-z]" + _ATTRIBUTES + rb"(?:>|\Z)",
            )
        ),
        re.IGNORECASE | re.DOTALL,
    )  # fmt: skip


_HTML = _tokens(empty=b"", script=_SCRIPT)
# In XML an element may be empty.
_XHTML = _tokens(_CDATA, empty=rb"(?<=/)>|", script=_XML_SCRIPT)


#: Bytes of a page that are copied at once.
_LARGE = 262_144

#: Larger heads aren't kept to be recognised.
_LARGE_HEAD = 8192

# The code of the generator that yields the parts of a body, each encoded.
_ENCODES = getattr(
    getattr(werkzeug_response, "_iter_encoded", None), "__code__", object()
)

_HTML_TAG = re.compile(rb"""<html(?=[\s/>])((?:[^>"']|"[^"]*+"?|'[^']*+'?)*+)""", re.I)
_VALUE = re.compile(rb"""=\s*+(?:"[^"]*+"?|'[^']*+'?|[^\s"'>]++)""")
_BOLT = "\u26a1".encode()
_EMOJI = "\ufe0f".encode()
_AMP = frozenset({b"amp", b"amp4ads", b"amp4email"})

# It is where the body would be.
_FRAMESET = re.compile(
    rb"\s*+(?:" + _COMMENT + rb"\s*+)*+<frameset", re.IGNORECASE | re.DOTALL
)


#: What `snippet` makes.
_SNIPPET = re.compile(
    rb"""<script type="application/json" id="mengpaneel"[^<>]*+>[^<]*+</script>"""
    rb"""<script src="[^<>"]*+"[^<>]*+></script>"""
)


def headers_of(response: Response) -> dict[str, str]:
    """The headers of a response, with names in lower case, to be asked for often."""
    headers: dict[str, str] = {}

    for name, value in response.headers:
        name = name.lower()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value

    return headers


def is_html(content_type: str) -> bool:
    """Whether a response is HTML, and so perhaps a page."""
    return _is_html(content_type[:_LONGEST_TYPE])


@functools.lru_cache(maxsize=128)
def _is_html(content_type: str) -> bool:
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


class Parts(list[bytes]):
    """A page and what is inserted into it: copied bit by bit, as it is sent.

    With two copies of a large page at once, the C library would give memory back to
    the system after each response, and get it anew for the next: thirty times as slow.
    """

    def __init__(self, page: bytes, at: int, snippet: bytes) -> None:
        super().__init__([page[:at], snippet, page])
        self._at = at

    def __iter__(self) -> c.Iterator[bytes]:
        # That can't be closed, as a generator can: a test may close a response before
        # it reads it.
        return itertools.chain(self._parts())

    def __reduce_ex__(self, _protocol: t.SupportsIndex) -> t.Any:
        return list, (list(self),)

    def _parts(self) -> c.Iterator[bytes]:
        head, snippet, page, *added = self[:]
        yield head + snippet

        for at in range(self._at, len(page), _LARGE):
            yield page[at : at + _LARGE]

        # By what another extension has written to the response's stream since.
        yield from added


def is_used(response: Response) -> bool:
    """Whether the page may have been given to somebody already: an app may keep pages
    with all that was put into them."""
    return any(
        '"mengpaneel"' in part if isinstance(part, str) else b'"mengpaneel"' in part
        for part in whole(response) or ()
    )


def clean(response: Response) -> None:
    """Take out of a page what was put into it for somebody else."""
    page = _SNIPPET.sub(b"", _joined(response))
    response.response = [page]
    _set_length(response, len(page))


def insert(response: Response, page: bytes, at: int, snippet: bytes) -> None:
    """Put the snippet into the page, which is the body of the response."""
    former = response.response

    if len(page) < _LARGE:
        response.response = [b"".join((page[:at], snippet, memoryview(page)[at:]))]
    else:
        response.response = Parts(page, at, snippet)

    close = getattr(former, "close", None)

    if close is not None:
        response.call_on_close(close)

    _set_length(response, len(page) + len(snippet))


def _set_length(response: Response, length: int) -> None:
    for position, (name, _) in enumerate(response.headers):
        if name.lower() == "content-length":
            response.headers[position] = (name, str(length))


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


def unfit(response: Response, headers: c.Mapping[str, str]) -> str | None:
    """Say why a response can't be changed, or won't be shown as a page, if so.

    :param headers: its headers, with names in lower case.
    """
    status = response.status_code

    if status in REDIRECTS or status in (204, 205, 206, 304) or status < 200:
        return f"browsers don't show what comes with {status}"

    if not is_html(headers.get("content-type", "")):
        return "not HTML"

    if "content-encoding" in headers:
        return "the body is encoded"

    disposition = headers.get("content-disposition")

    # https://www.rfc-editor.org/rfc/rfc6266#section-4.2
    if disposition and disposition.partition(";")[0].strip().lower() != "inline":
        return "an attachment"

    if response.direct_passthrough or whole(response) is None:
        return "the body is streamed"

    policies = headers.get("content-security-policy")

    if policies and forbids_scripts(policies):
        return "the page's policy allows no scripts"

    content_type = headers["content-type"].lower()

    if "utf-16" in content_type or "utf-32" in content_type:
        return "the body isn't in an encoding that has ASCII in it"

    return None


def whole(response: Response) -> list[t.Any] | tuple[t.Any, ...] | None:
    """All of the body, in parts, unless it is made while it is sent.

    An exception whose response the app didn't make reaches Flask as a WSGI
    application, and its body as an iterator: over a list, so that it is all there.
    """
    body: t.Any = response.response

    if isinstance(body, list | tuple):
        return body

    # What Werkzeug makes of what it has asked an application for ...
    inner = _closes(body, 1)
    # ... of a response, whose parts a generator encodes.
    parts = _closes(inner, 2)

    if getattr(parts, "gi_code", None) is not _ENCODES:
        return None

    frame = parts.gi_frame
    found = frame.f_locals.get("iterable") if frame else None
    return found if isinstance(found, list | tuple) else None


def _closes(iterator: t.Any, count: int) -> t.Any:
    """What is the first to be closed with an iterator of Werkzeug's, of so many."""
    callbacks: list[t.Any] = getattr(iterator, "_callbacks", [])

    if type(iterator) is not ClosingIterator or len(callbacks) != count:
        return None

    return getattr(callbacks[0], "__self__", None)


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
    page = _joined(response)

    if _is_amp(page):
        raise Declined("an AMP page, which may have no scripts of its own")

    at = position(page, is_xml="xml" in headers["content-type"])

    if at is None:
        raise Declined("no </head> or </body>, or a frameset")

    return page, at


def _joined(response: Response) -> bytes:
    parts = whole(response)
    assert parts is not None, "it is unfit"

    # As Flask makes it of what a view returns.
    if type(parts) is list and len(parts) == 1 and type(parts[0]) is bytes:
        return parts[0]

    return b"".join(part.encode() if isinstance(part, str) else part for part in parts)


def _is_amp(page: bytes) -> bool:
    """Whether the page says that it is AMP, by an attribute of its first element.

    https://amp.dev/documentation/guides-and-tutorials/learn/spec/amphtml
    """
    match = _HTML_TAG.search(page, 0, _LARGE_HEAD)

    if match is None:
        return False

    tag = match[1].lower()

    if b"amp" not in tag and _BOLT not in tag:
        return False

    attributes = _VALUE.sub(b" ", tag).replace(b"/", b" ").split()
    return any(
        name.replace(_BOLT, b"amp").removesuffix(_EMOJI) in _AMP for name in attributes
    )


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
        given_to: Identity = NOBODY,
    ) -> bytes:
        """What is inserted into a page.

        :param calls: hand-overs, for a page that has calls.
        :param races: whether another page may have the same calls, and making them
            twice would do harm.
        :param given_to: whom the browser takes the visitor for who gets the calls.
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

        signer = self._signer
        sign = functools.partial(signer.sign, given_to=given_to) if signer else None
        return snippet(url, data, nonce, sign)

    def _fix(self, root: str) -> _Fixed:
        """What is always the same where an app is mounted at a path."""
        # It may be a header that says where that is, and so anybody.
        if len(self._fixed) >= 16:
            self._fixed.clear()

        # Not by `url_for`, which knows of hosts: each of the app's serves the script,
        # and a page asks the one that it is from.
        base = quote(root.encode("latin-1", "replace")).rstrip("/") + PREFIX
        url = f"{base}/static/mengpaneel.js?v={version('mengpaneel.js')}"
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

    def _nonce(self) -> str | None:
        assert self._config.csp_nonce is not None
        nonce = self._config.csp_nonce()
        return str(nonce) if nonce else None


def static_folder() -> Path:
    """Where the script is: built into the package, but beside it in a checkout."""
    package = Path(__file__).parent.parent
    built = package / "static"
    return built if built.is_dir() else package.parent / "static"


def version(filename: str) -> str | None:
    """The hash of a file of the script's folder, under which browsers may keep it.

    :return: ``None`` if there is no such file.
    """
    path = safe_join(str(static_folder()), filename)

    try:
        # It may be another file after an upgrade, which a process doesn't notice.
        return None if path is None else _hash(path, os.stat(path).st_mtime_ns)
    except (OSError, ValueError):
        return None


@functools.lru_cache(maxsize=16)
def _hash(path: str, _modified: int) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]
