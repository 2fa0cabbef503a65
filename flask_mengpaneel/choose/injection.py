"""A response's body as a page: may it be changed, and how is the script put into it?"""

from __future__ import annotations

import collections.abc as c
import itertools
import re
import typing as t

from werkzeug.wrappers import response as werkzeug_response
from werkzeug.wsgi import ClosingIterator

from .. import reasons
from ..outcome import REDIRECTS, Declined
from .page_scanner import find_place

if t.TYPE_CHECKING:
    from flask import Response

    from .response_headers import ResponseHeaders

# Bytes of a page that are copied at once.
_CHUNK = 262_144

# The code of the generator that yields the parts of a body, each encoded.
_ENCODES = getattr(
    getattr(werkzeug_response, "_iter_encoded", None), "__code__", object()
)

# A character that few pages have. A search for it alone takes 8 us in 1 MB, one for all
# of what begins with it 50 to 60.
_MARK = "^"
_MARK_DATA = _MARK.encode()

#: What begins what is put into a page; `script.py` makes it.
OPENING = f'<script type="application/json" id="mengpaneel" data-mark="{_MARK}"'
_SNIPPET = re.compile(
    re.escape(OPENING.encode()) + rb"""[^<>]*+>[^<]*+</script>"""
    rb"""(?:<script src="(?=[^<>"]*?/memory\.js\?)[^<>"]*+"[^<>]*+></script>)?+"""
    rb"""<script src="[^<>"]*+"[^<>]*+></script>"""
)
_OPENING_DATA = OPENING.encode()


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

        for at in range(self._at, len(page), _CHUNK):
            yield page[at : at + _CHUNK]

        # By what another extension has written to the response's stream since.
        yield from added


def has_snippet(response: Response) -> bool:
    """Whether the page may have been given to somebody already: an app may keep pages
    with all that was put into them."""
    for part in whole_body(response) or ():
        is_text = isinstance(part, str)

        # From its end, twice as fast.
        if (_MARK if is_text else _MARK_DATA) in part and (
            part.rfind(OPENING if is_text else _OPENING_DATA) >= 0
        ):
            return True

    return False


def remove_snippet(response: Response) -> None:
    """Take out of a page what was put into it for somebody else."""
    page = _SNIPPET.sub(b"", _joined(response))
    response.response = [page]
    _set_length(response, len(page))


def insert(response: Response, page: bytes, at: int, snippet: bytes) -> None:
    """Put the snippet into the page, which is the body of the response."""
    former, length = response.response, len(page)

    if length < _CHUNK:
        response.response = [b"".join((page[:at], snippet, memoryview(page)[at:]))]
    else:
        response.response = Parts(page, at, snippet)

    close = getattr(former, "close", None)

    if close is not None:
        response.call_on_close(close)

    _set_length(response, length + len(snippet))


def _set_length(response: Response, length: int) -> None:
    for position, (name, _) in enumerate(response.headers):
        if name.lower() == "content-length":
            response.headers[position] = (name, str(length))


def unfit(response: Response, headers: ResponseHeaders) -> str | None:
    """Say why a response can't be changed, or won't be shown as a page, if so."""
    status = response.status_code

    if status in REDIRECTS or status in (204, 205, 206, 304) or status < 200:
        return f"browsers don't show what comes with {status}"

    if headers.unfit:
        return headers.unfit

    if response.direct_passthrough or whole_body(response) is None:
        return reasons.STREAMED

    return None


def whole_body(response: Response) -> list[t.Any] | tuple[t.Any, ...] | None:
    """Return all of the body, in parts; ``None`` if it is made while it is sent.

    An exception whose response the app didn't make reaches Flask as a WSGI
    application, and its body as an iterator: over a list, so that it is all there.
    """
    body: t.Any = response.response

    # The first is what Flask makes of what a view returns.
    if type(body) is list or isinstance(body, list | tuple):
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
    """Return what is closed first with an iterator of Werkzeug's that closes so
    many."""
    callbacks: list[t.Any] = getattr(iterator, "_callbacks", [])

    if type(iterator) is not ClosingIterator or len(callbacks) != count:
        return None

    return getattr(callbacks[0], "__self__", None)


def locate(response: Response, headers: c.Mapping[str, str]) -> tuple[bytes, int]:
    """Return the page, and where in it the script goes.

    :param headers: those of the response, with names in lower case.
    :raises Declined: there is no place for it.
    """
    page = _joined(response)
    at, is_amp = find_place(page, is_xml="xml" in headers["content-type"])

    if is_amp:
        raise Declined(reasons.AMP)

    if at is None:
        raise Declined(reasons.NO_PLACE)

    return page, at


def _joined(response: Response) -> bytes:
    parts = whole_body(response)
    assert parts is not None, "it is unfit"

    # As Flask makes it of what a view returns.
    if type(parts) is list and len(parts) == 1 and type(parts[0]) is bytes:
        return parts[0]

    return b"".join(part.encode() if isinstance(part, str) else part for part in parts)
