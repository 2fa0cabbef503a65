"""Mixpanel's hosts: where servers and browsers send to, and which region each is of.

https://docs.mixpanel.com/docs/privacy/eu-residency
"""

from __future__ import annotations

import difflib
import re
from urllib.parse import SplitResult, urlsplit

#: What takes records, by name, and its region: a project is in one of these.
REGIONS = {
    "api.mixpanel.com": "US",
    "api-js.mixpanel.com": "US",
    "api-eu.mixpanel.com": "EU",
    "api-in.mixpanel.com": "IN",
}

#: Those that servers send to.
SERVER_HOSTS = tuple(name for name in REGIONS if name != "api-js.mixpanel.com")

#: Where the browser library sends if its configuration doesn't say
#: (mixpanel-core.js of mixpanel-browser 2.83.0).
CLIENT_HOST = "https://api-js.mixpanel.com"

#: Where the records of a region are shown.
REPORTS = {
    "US": "https://mixpanel.com",
    "EU": "https://eu.mixpanel.com",
    "IN": "https://in.mixpanel.com",
}

#: The paths at which records are taken, which are no part of a host.
ENDPOINTS = ("track", "import", "engage", "groups")

_BY_WORD = {
    "eu": "api-eu.mixpanel.com",
    "in": "api-in.mixpanel.com",
    "us": "api.mixpanel.com",
}

_LOOPBACK = re.compile(r"localhost|.*\.localhost|127\.[0-9.]+|::1")


def region_of(url: str) -> str | None:
    """Return the region of one of Mixpanel's hosts; ``None`` if it isn't Mixpanel's."""
    return REGIONS.get(_name(urlsplit(url)))


def is_regional(url: str) -> bool:
    """Whether browsers and servers of a host's region send to the same one."""
    return region_of(url) not in (None, "US")


def is_loopback(url: str) -> bool:
    """Whether a URL leads to the machine itself, or is a path."""
    name = _name(urlsplit(url))
    return not name or _LOOPBACK.fullmatch(name) is not None


def without_user(url: str) -> str:
    """Return a URL without the name and the password that may be in it."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def meant(url: str) -> str | None:
    """Return the host that is meant by a URL within Mixpanel's domain, as it is to be
    written; ``None`` if the URL isn't there.

    Mixpanel answers other names, paths and ports of it as well, but takes nothing.
    """
    name = _name(urlsplit(url))

    if name != "mixpanel.com" and not name.endswith(".mixpanel.com"):
        return None

    return f"https://{closest(name)}"


def lookalike(url: str) -> str | None:
    """Return the host that was probably meant by a URL that isn't Mixpanel's."""
    close = difflib.get_close_matches(_name(urlsplit(url)), REGIONS, 1, cutoff=0.9)
    return f"https://{close[0]}" if close else None


def closest(name: str) -> str:
    """Return the name of the host that is closest to another name."""
    if name in REGIONS:
        return name

    words = set(re.split(r"[.-]", name))

    for region, host in _BY_WORD.items():
        if region in words:
            return host

    return next(
        iter(difflib.get_close_matches(name, REGIONS, 1, cutoff=0.8)),
        "api.mixpanel.com",
    )


def _name(parts: SplitResult) -> str:
    return (parts.hostname or "").rstrip(".")
