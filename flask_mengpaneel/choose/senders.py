"""Who may post to the extension's endpoints: the app's own pages, and not too often."""

from __future__ import annotations

import ipaddress
import time
import typing as t
from urllib.parse import urlsplit

from flask import Response

from ..recently_seen import RecentlySeen
from .carrier import carrier_class

if t.TYPE_CHECKING:
    from flask import Request

#: The class of the endpoints' answers.
Answer: type[Response] = carrier_class(Response)

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


def refusal(request: Request, max_bytes: int) -> Response | None:
    """Return the answer to a request that isn't looked at; ``None`` if it is.

    :param max_bytes: that its body may have.
    """
    if not is_from_own_page(request):
        return Answer(status=403)

    if request.content_length is None or request.content_length > max_bytes:
        return Answer(status=413)

    return None


def is_from_own_page(request: Request) -> bool:
    """Whether a page of this very origin has sent a request, or a program.

    Browsers say where a request comes from; no page can keep them from it, or have
    them say something else. Old ones, and all of them over plain HTTP, have no
    ``Sec-Fetch-Site`` but an ``Origin``: https://www.w3.org/TR/fetch-metadata/
    """
    site = request.headers.get("Sec-Fetch-Site")

    if site is not None:
        return site == "same-origin"

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
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return None

    if parsed.version == 4:
        return int(parsed)

    # What an IPv6 socket says of an IPv4 client: ::ffff:192.0.2.7.
    mapped = parsed.ipv4_mapped
    return int(mapped) if mapped else -(int(parsed) >> 64) - 1
