"""What headers say to caches: may they give a response to other visitors?"""

from __future__ import annotations

import collections.abc as c
import re
import time

from werkzeug.http import parse_date

# Each cache has a name of its own for what it is told, so that others don't obey:
# CDN-Cache-Control (https://www.rfc-editor.org/rfc/rfc9213) and those of Cloudflare,
# Netlify, Vercel and Akamai, which end so; X-LiteSpeed- and X-LSADC-Cache-Control;
# Surrogate-Control, of Fastly, Varnish and Squid; Edge-Control, of Akamai.
# X-Accel-Expires is of nginx, and of what is built on it.
_TO_NGINX = "x-accel-expires"

TO_CACHES = ("cache-control", "surrogate-control", "edge-control", _TO_NGINX)

# What is between commas; a quote that isn't closed goes on to the end.
_DIRECTIVE = re.compile(r"""(?:[^",]++|"(?:[^"\\]++|\\.)*+(?:"|\\?\Z))++""", re.DOTALL)


def is_shared(headers: c.Mapping[str, str]) -> bool:
    """Whether the app lets a cache give a response to other visitors.

    https://www.rfc-editor.org/rfc/rfc9111#section-3.5

    :param headers: those of the response; names in lower case.
    """
    # A loop, as a generator costs 1 us more, of the 30 that a page without calls takes.
    for name in headers:
        if name.endswith(TO_CACHES) and lets_share(name, headers[name]):
            return True

    return False


def tells_caches(headers: c.Iterable[tuple[str, str]]) -> bool:
    """Whether headers say for how long caches may keep a response, or whom they may
    give it to."""
    for name, _value in headers:
        name = name.lower()

        if name == "expires" or name.endswith(TO_CACHES):
            return True

    return False


def directives(value: str) -> dict[str, str]:
    """Read the directives of a ``Cache-Control`` header, in lower case, and their
    values."""
    found: dict[str, str] = {}

    if not value:
        return found

    value = value.lower()

    for part in _DIRECTIVE.findall(value) if '"' in value else value.split(","):
        name, equals, argument = part.partition("=")
        name = name.strip()
        found[name] = found.get(name) or (argument.strip() if equals else "")

    return found


def lets_share(name: str, value: str) -> bool:
    """Whether a header tells a cache that a response may be given to others."""
    if name == _TO_NGINX:
        return value.strip() != "0"

    control = directives(value)
    return _shares(control) if name == "cache-control" else not _forbids(name, control)


def _shares(control: c.Mapping[str, str]) -> bool:
    """Whether directives let a cache give a response to others.

    With names of headers, ``private`` is about these alone. With ``must-understand``,
    some caches pass over ``no-store``:
    https://www.rfc-editor.org/rfc/rfc9111#section-5.2.2.3
    """
    return (
        "public" in control
        or "s-maxage" in control
        or ("must-understand" in control and "private" not in control)
        or bool(control.get("private") or control.get("no-cache"))
    )


def _forbids(name: str, control: c.Mapping[str, str]) -> bool:
    """Whether a header that is for one kind of cache tells it to keep nothing.

    Any other value lets it keep a response for a while, or for some visitors. So does
    one with directives for one of several caches, which is named after a semicolon:
    https://www.w3.org/TR/edge-arch/
    """
    if _shares(control) or any(";" in value for value in control.values()):
        return False

    # LiteSpeed has a private cache, and finds its visitors by their address.
    return "no-store" in control or (
        name.endswith("cdn-cache-control") and "private" in control
    )


def is_open(headers: c.Mapping[str, str]) -> bool:
    """Whether any cache may give a response to others by default, as the app says
    nothing against it.

    https://www.rfc-editor.org/rfc/rfc9111#section-4.2
    """
    if "cache-control" in headers:
        control = directives(headers["cache-control"])

        if not control.keys().isdisjoint(("private", "no-store", "no-cache")):
            return False

        if "max-age" in control:
            return control["max-age"].strip('"') != "0"

    return "expires" in headers and _is_in_future(headers["expires"])


def _is_in_future(date: str) -> bool:
    try:
        expires = parse_date(date)
        return expires is not None and expires.timestamp() > time.time()
    except (ValueError, OverflowError):
        return False
