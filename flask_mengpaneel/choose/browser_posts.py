"""Who may post to the extension's endpoints: the app's own pages, and not too often."""

from __future__ import annotations

import functools
import ipaddress
import time
import typing as t
from urllib.parse import urlsplit

from flask import Response
from werkzeug.wsgi import get_content_length

from ..recently_seen import RecentlySeen
from ..visitor.client import parse_address
from .carrier import carrier_class, copy_response, mark_private

if t.TYPE_CHECKING:
    from flask import Request

    from .carrier import Carrier

# Requests that one sender may send to an endpoint in a minute; a page sends one or two.
_MAX_A_MINUTE = 120

# Senders that a process remembers.
_MAX_SENDERS = 10_000


class Senders:
    """Those who post to an endpoint."""

    def __init__(self) -> None:
        self._seen = RecentlySeen(_MAX_SENDERS)

    def is_too_often(self, request: Request) -> bool:
        """Count a request, and return whether its sender has sent too many lately."""
        sender = network_of(request.remote_addr), int(time.time() // 60)
        return self._seen.count(sender) >= _MAX_A_MINUTE


def answer(status: int) -> Response:
    """Return an answer of an endpoint."""
    # 39 steps less than to make one anew, of 170, an acknowledgement.
    return copy_response(_answer(status))


@functools.cache
def _answer(status: int) -> Carrier:
    response: Carrier = carrier_class(Response)(status=status)
    # There are caches that keep answers to a POST.
    mark_private(response, header=True)
    return response


def refusal(request: Request, max_bytes: int) -> Response | None:
    """Return the answer to a request that isn't looked at; ``None`` if it is.

    :param max_bytes: that its body may have.
    """
    if not is_from_own_page(request):
        return answer(403)

    environ = request.environ
    length = get_content_length(environ)

    # Some servers end a body themselves that comes without a length.
    if length is None and environ.get("wsgi.input_terminated"):
        return None

    return answer(413) if length is None or length > max_bytes else None


def sent_body(request: Request, max_bytes: int) -> bytes | Response:
    """Return the body of a request that isn't refused; if it isn't all there, the
    answer to that.

    :param max_bytes: that it may have.
    """
    try:
        # The app has begun to read it, and may have it.
        if "stream" in vars(request):
            body, length = request.get_data(cache=False), None
        else:
            length = get_content_length(request.environ)
            body = _read(request, max_bytes + 1 if length is None else length)
    except Exception:
        # The sender has gone: each server has an exception of its own for that.
        return answer(400)

    if length is not None and len(body) < length:
        return answer(400)

    return answer(413) if len(body) > max_bytes else body


def _read(request: Request, size: int) -> bytes:
    """Read so many bytes of a body, or until it ends."""
    # 21 steps less, of 170, an acknowledgement: what is behind `get_data` finds out how
    # much may be read, and how much there is.
    read = request.environ["wsgi.input"].read
    body: bytes = read(size)

    # It may come in parts.
    while len(body) < size and (part := read(size - len(body))):
        body += part

    return body


def is_from_own_page(request: Request) -> bool:
    """Whether a page of this very origin has sent a request, or a program.

    Browsers say where a request comes from; no page can keep them from it, or have
    them say something else. Old ones, and all of them over plain HTTP, have no
    ``Sec-Fetch-Site`` but an ``Origin``: https://www.w3.org/TR/fetch-metadata/
    """
    site = request.environ.get("HTTP_SEC_FETCH_SITE")

    if site is not None:
        return bool(site == "same-origin")

    origin = request.headers.get("Origin", request.headers.get("Referer"))

    if origin is None:
        return True

    try:
        theirs, ours = urlsplit(origin), urlsplit(f"//{request.host}")
        # A proxy may have taken the encryption off.
        return theirs.scheme in ("http", "https") and (
            (theirs.hostname, _port(theirs.port)) == (ours.hostname, _port(ours.port))
        )
    except ValueError:
        return False


def _port(port: int | None) -> int | None:
    return None if port in (80, 443) else port


def network_of(address: str | None) -> int | None:
    """Return the network that a single sender has: for IPv6, one of 64 bits.

    What isn't an address, as a proxy may pass it on, has no limit of its own, and so
    takes no memory.
    """
    found = parse_address(address)

    if found is None:
        return None

    parsed = ipaddress.ip_address(found)
    return int(parsed) if parsed.version == 4 else -(int(parsed) >> 64) - 1
