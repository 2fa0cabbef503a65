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
    # 6 us of the 65 that an acknowledgement takes less than to make one anew.
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

    length = get_content_length(request.environ)

    if length is None or length > max_bytes:
        return answer(413)

    return None


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
