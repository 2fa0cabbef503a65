"""The place in a page where a script goes, found as a browser reads the page."""

from __future__ import annotations

import contextlib
import functools
import html
import itertools
import re
import sys
import typing as t

#: Whether a possessive group is right where something in it has another way to match.
#: https://github.com/python/cpython/issues/106052
_CAN_POSSESS = sys.version_info >= (3, 11, 5)

# Around a repeated group that gives nothing back of what it has matched.
_BEGIN, _END = b"\1", b"\2"


def _possessive(loop: bytes) -> bytes:
    return _BEGIN + loop + _END


def _compile(pattern: bytes, flags: re.RegexFlag) -> re.Pattern[bytes]:
    """Compile a pattern with possessive groups in it."""
    if _CAN_POSSESS:
        return re.compile(pattern.replace(_BEGIN, b"").replace(_END, b"+"), flags)

    parts, open_names, numbers = [], [], itertools.count()

    # What is ahead is matched in one way only, and then once more.
    for part in re.split(b"([\1\2])", pattern):
        if part == _BEGIN:
            open_names.append(b"_%d" % next(numbers))
            part = b"(?=(?P<%s>" % open_names[-1]
        elif part == _END:
            part = b"))(?P=%s)" % open_names.pop()

        parts.append(part)

    return re.compile(b"".join(parts), flags)


# The elements whose content is text.
# https://html.spec.whatwg.org/multipage/syntax.html#raw-text-elements
_TEXTS = (b"title", b"style", b"noscript", b"template", b"textarea")

_COMMENT = rb"<!--(?:-?>|" + _possessive(rb"(?:[^-]++|-(?!-!?>))*") + rb"(?:--!?>|\Z))"

# Quotes hide a tag only where a value begins.
_ATTRIBUTES = _possessive(
    rb"""(?:[^>"'=]++|=\s*+(?:"[^"]*+(?:"|\Z)|'[^']*+(?:'|\Z))?|["'])*"""
)

_CDATA = rb"<!\[CDATA\[.*?(?:\]\]>|\Z)"

# In a comment of a script its end is text, if another beginning is before it.
# https://html.spec.whatwg.org/multipage/parsing.html#script-data-escaped-state
_INNER_SCRIPT = _possessive(rb"(?:[^<-]++|-(?!->)|<(?!/script[\s/>]))*")
_SCRIPT_COMMENT = _possessive(
    rb"(?:[^<-]++|-(?!->)|<script(?=[\s/>])"
    + _INNER_SCRIPT
    + rb"(?:</script)?|<(?!/script[\s/>]))*"
)
_SCRIPT = _possessive(
    rb"(?:[^<]++|<!--(?:-?>|" + _SCRIPT_COMMENT + rb")|<(?!/script[\s/>]))*"
)

_XML_SCRIPT = _possessive(
    rb"(?:[^<]++|" + _COMMENT + rb"|" + _CDATA + rb"|<(?!/script[\s/>]))*"
)


def _make_tokens(*first: bytes, empty: bytes, script: bytes) -> re.Pattern[bytes]:
    """Return the pattern of what has to be told apart in a page: a tag may be in a
    comment or a text.

    :param first: what else hides tags.
    :param empty: what else may be after an element's attributes.
    :param script: what is in a script.
    """
    texts = b"|".join((*_TEXTS, b"iframe", b"noframes", b"xmp"))
    return _compile(
        rb"|".join(
            (
                *first,
                _COMMENT,
                # What a browser takes for a comment, too.
                rb"<(?:[!?]|/(?![a-z]))[^>]*+",
                rb"(?P<head></head(?=[\s/>])" + _ATTRIBUTES + rb">)",
                rb"(?P<body></body(?=[\s/>])" + _ATTRIBUTES + rb">)",
                rb"(?P<frameset><frameset[\s/>])",
                rb"(?P<base><base(?=[\s/>])" + _ATTRIBUTES + rb">)",
                rb"<script(?=[\s/>])" + _ATTRIBUTES + rb"(?:" + empty + rb">"
                + script + rb"(?:</script|\Z))",
                rb"<(?P<name>" + texts + rb")(?=[\s/>])" + _ATTRIBUTES + rb"(?:" + empty
                + rb">.*?(?:</(?P=name)(?=[\s/>])|\Z))",
                rb"</?[a-z]" + _ATTRIBUTES + rb"(?:>|\Z)",
            )
        ),
        re.IGNORECASE | re.DOTALL,
    )  # fmt: skip


_HTML = _make_tokens(empty=b"", script=_SCRIPT)

# In XML an element may be empty.
_XHTML = _make_tokens(_CDATA, empty=rb"(?<=/)>|", script=_XML_SCRIPT)

_HEAD_END = b"</head>"

#: Bytes; larger heads aren't kept to be recognised.
_MAX_KEPT_HEAD = 8192

# Before it there may be a mark of the byte order, a doctype, and comments.
_HTML_TAG = _compile(
    _possessive(rb"(?:[\s\xef\xbb\xbf]++|" + _COMMENT + rb"|<[!?][^>]*+>)*")
    + rb"""<html(?=[\s/>])(?P<attributes>"""
    + _possessive(rb"""(?:[^>"']|"[^"]*+"?|'[^']*+'?)*""")
    + rb")",
    re.IGNORECASE | re.DOTALL,
)

_VALUE = re.compile(rb"""=\s*+(?:"[^"]*+"?|'[^']*+'?|[^\s"'>]++)""")

_HREF = re.compile(
    rb"""[\s/"']href\s*+=\s*+("[^"]*+"|'[^']*+'|[^\s"'>]++)""", re.IGNORECASE
)

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)

_BOLT = "\u26a1".encode()

_EMOJI = "\ufe0f".encode()

_AMP = frozenset({b"amp", b"amp4ads", b"amp4email"})

# It is where the body would be.
_FRAMESET = _compile(
    rb"\s*+" + _possessive(rb"(?:" + _COMMENT + rb"\s*+)*") + rb"<frameset",
    re.IGNORECASE | re.DOTALL,
)


class Place(t.NamedTuple):
    """Where in a page the script goes.

    :param at: the offset of ``</head>``, else of the last ``</body>``, or ``None``
        if it has neither, or is a ``<frameset>``. If a ``<base>`` before it leads to
        another site, that of the ``<base>``: addresses before it are the page's own.
    :param is_amp: whether the page is AMP, in which no script may be.
    """

    at: int | None
    is_amp: bool


def find_place(page: bytes, is_xml: bool = False) -> Place:
    """Find where in a page the script goes."""
    at = page.find(_HEAD_END)

    if at >= 0:
        end = at + len(_HEAD_END)

        if not _FRAMESET.match(page, end):
            read = _read_head if end <= _MAX_KEPT_HEAD else _read
            place = read(page[:end], is_xml)

            if place.at is not None:
                return place

    return _read(page, is_xml)


def _read(page: bytes, is_xml: bool) -> Place:
    return Place(_scan(page, is_xml), is_amp(page))


def _scan(page: bytes, is_xml: bool) -> int | None:
    head = body = base = elsewhere = None
    tokens = _XHTML if is_xml else _HTML

    for match in tokens.finditer(page):
        if match["frameset"]:
            return None

        if match["body"]:
            body = match.start()
        elif match["head"] and head is None and body is None:
            head = match.start()
        elif match["base"] and base is None:
            base = base_address(match["base"])
            elsewhere = match.start() if base and _leads_elsewhere(base) else None

    place = body if head is None else head
    return place if place is None or elsewhere is None else min(place, elsewhere)


def base_address(tag: bytes) -> str | None:
    """Return the address in a ``<base>``; ``None`` if it has none, so that the next one
    may have it."""
    match = _HREF.search(tag)

    if match is None:
        return None

    value = match[1].decode("utf-8", "replace").strip("\"'")

    # Of a character's number with more digits than Python reads, no browser makes a
    # part of an address either.
    with contextlib.suppress(ValueError):
        value = html.unescape(value)

    # As browsers read it.
    return re.sub(r"[\t\r\n]", "", value).strip().replace("\\", "/")


def _leads_elsewhere(address: str) -> bool:
    return address.startswith("//") or _SCHEME.match(address) is not None


@functools.lru_cache(maxsize=128)
def _read_head(page: bytes, is_xml: bool) -> Place:
    """Find the place in a part of a page that ends with its head.

    The result is kept, since the pages of an app have few different heads.
    """
    return _read(page, is_xml)


def is_amp(page: bytes) -> bool:
    """Whether the page says by an attribute of its first element that it is AMP.

    https://amp.dev/documentation/guides-and-tutorials/learn/spec/amphtml
    """
    match = _HTML_TAG.match(page, 0, _MAX_KEPT_HEAD)

    if match is None:
        return False

    tag = match["attributes"].lower()

    if b"amp" not in tag and _BOLT not in tag:
        return False

    attributes = _VALUE.sub(b" ", tag).replace(b"/", b" ").split()
    return any(
        name.replace(_BOLT, b"amp").removesuffix(_EMOJI) in _AMP for name in attributes
    )
