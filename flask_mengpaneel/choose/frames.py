"""Whether a browser shows a page inside of another one."""

from __future__ import annotations

import collections.abc as c
import typing as t
from urllib.parse import urlsplit

from ..visitor.client import PAGE_DESTINATIONS
from .response_headers import read_policies

# The destinations of what is shown inside of another page.
_FRAMES = PAGE_DESTINATIONS - {"document"}


def forbids_frame(environ: c.Mapping[str, t.Any], headers: c.Mapping[str, str]) -> bool:
    """Whether a browser asks for a page to show it inside of another one, and won't.

    https://www.w3.org/TR/CSP3/#frame-ancestors-and-frame-options

    :param environ: of the request.
    :param headers: those of the response; names in lower case.
    """
    if environ.get("HTTP_SEC_FETCH_DEST") not in _FRAMES:
        return False

    is_own = environ.get("HTTP_SEC_FETCH_SITE") == "same-origin"
    policies = read_policies(headers.get("content-security-policy", "").lower())
    lists = [one["frame-ancestors"] for one in policies if "frame-ancestors" in one]

    if lists:
        embedder = environ.get("HTTP_REFERER", "")
        return not all(_admits(sources, is_own, embedder) for sources in lists)

    options = {
        one.strip() for one in headers.get("x-frame-options", "").lower().split(",")
    }
    return "deny" in options or ("sameorigin" in options and not is_own)


def _admits(sources: c.Sequence[str], is_own: bool, embedder: str) -> bool:
    """Whether a page with these ``frame-ancestors`` may be shown inside of another.

    :param is_own: whether the embedder is of the same origin.
    :param embedder: its address, as far as the browser tells.
    """
    if "*" in sources or (is_own and "'self'" in sources):
        return True

    try:
        host, scheme = urlsplit(embedder).hostname or "", urlsplit(embedder).scheme
    except ValueError:
        return False

    for source in sources:
        if source.endswith(":"):
            if source == f"{scheme}:":
                return True

            continue

        name = source.partition("://")[2] or source
        name = name.partition("/")[0].partition(":")[0]

        if host and (name == host or (name[:2] == "*." and host.endswith(name[1:]))):
            return True

    return False
