"""The referrer, the campaign and the search engine that brought the visitor.

The properties have the names that Mixpanel's browser library gives them. All is
computed from the two URLs that a request has: that of the page and that of its
referrer. Either may be anything that somebody typed into a terminal, so nothing here
fails on what isn't a URL, and no more of it is read than a URL can have.

What the rules are, and where they are crude, was read from ``_.info`` in utils.js and
``update_referrer_info`` in mixpanel-persistence.js of mixpanel-browser 2.83.0.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from ..limits import MAX_HOST, MAX_URL, MAX_URL_PROPERTY

CAMPAIGN = (
    "utm_source",
    "utm_medium",
    "utm_campaign",
    "utm_content",
    "utm_term",
    "utm_id",
    "utm_source_platform",
    "utm_campaign_id",
    "utm_creative_format",
    "utm_marketing_tactic",
)

CLICK_IDS = (
    "dclid",
    "fbclid",
    "gclid",
    "ko_click_id",
    "li_fat_id",
    "msclkid",
    "sccid",
    "ttclid",
    "twclid",
    "wbraid",
)

#: The name of a search engine, what its address looks like, and its parameter.
SEARCH_ENGINES = (
    ("google", re.compile(r"https?://.*google."), "q"),
    ("bing", re.compile(r"https?://.*bing.com"), "q"),
    ("yahoo", re.compile(r"https?://.*yahoo.com"), "p"),
    ("duckduckgo", re.compile(r"https?://.*duckduckgo.com"), "q"),
)

_MARKETING = (*CAMPAIGN, *CLICK_IDS)

_PARAMETERS = {
    name: re.compile(rf"[?&]{name}=([^&#]*)") for name in (*_MARKETING, "q", "p")
}

_DIRECT = "$direct"

_SIMPLE_DOMAIN = re.compile(r"[a-z0-9][a-z0-9-]*\.[a-z]+\Z")
_DOMAIN = re.compile(r"[a-z0-9][a-z0-9-]+\.[a-z.]{2,6}\Z")

#: Scheme, user, host, port, path and query, as far as there are any.
_URL = re.compile(
    r"([A-Za-z][A-Za-z0-9+.-]*:)//(?:[^/?#@]*@)?(\[[^/?#\]]*\]|[^/?#:]*)[^/?#]*"
    r"([^?#]*)(\?[^#]*)?"
)

_HALF_PERCENT = re.compile("%(?![0-9A-Fa-f]{2})")


def page_properties(url: str, referrer: str | None = None) -> dict[str, str]:
    """Return the properties of the page that something happened on, and what led there.

    They are ``$current_url``, ``$referrer``, ``$referring_domain``, the utm parameters
    and the click ids. What is empty is left out.

    :param url: of the page.
    :param referrer: of the page.
    """
    url, referrer = _clean(url), _clean(referrer)
    found = {
        "$current_url": url,
        "$referrer": referrer,
        "$referring_domain": _referring_domain(referrer),
        **_marketing(url),
    }
    return _without_empty(found)


def search_properties(referrer: str | None) -> dict[str, str]:
    """Return ``$search_engine`` and ``mp_keyword`` if a search engine led to the page.

    The library keeps them as super properties.
    """
    referrer = _clean(referrer)

    for name, address, parameter in SEARCH_ENGINES:
        if address.match(referrer):
            return _without_empty(
                {
                    "$search_engine": name,
                    "mp_keyword": _parameter(referrer, parameter),
                }
            )

    return {}


def initial_referrer(referrer: str | None) -> dict[str, str]:
    """Return ``$initial_referrer`` and ``$initial_referring_domain``.

    Both are ``$direct`` where nothing led to the page. The library keeps them as super
    properties from the first visit on.
    """
    referrer = _clean(referrer)
    return {
        "$initial_referrer": _cut(referrer) or _DIRECT,
        "$initial_referring_domain": _cut(_referring_domain(referrer)) or _DIRECT,
    }


def pageview_properties(url: str, title: str | None = None) -> dict[str, str]:
    """Return the properties that ``track_pageview`` adds to those of every event.

    :param url: of the page.
    :param title: of the page, where it is known.
    """
    url = _clean(url)
    scheme, host, path, query = _parts(url)
    found = {
        "current_page_title": _clean(title),
        "current_domain": host,
        "current_url_path": path,
        "current_url_protocol": scheme,
        "current_url_search": query,
        **_marketing(url),
    }
    return _without_empty(found)


def cookie_domain(host: str) -> str | None:
    """Return the ``Domain`` attribute that the library's cookie has on a host.

    It is a guess at the part of the name that was registered, which the library makes
    without a list of public suffixes. ``None``, and so a cookie of the host alone,
    where it finds none: on ``localhost`` and on addresses.

    :param host: with or without a port.
    """
    name = _clean(host).partition(":")[0].lower()

    if len(name) > MAX_HOST:
        return None

    top = name.rpartition(".")[2]
    simple = len(top) > 4 or top in {"com", "org"}
    match = (_SIMPLE_DOMAIN if simple else _DOMAIN).search(name)
    return f".{match[0]}" if match else None


def _marketing(url: str) -> dict[str, str]:
    return {name: _parameter(url, name) for name in _MARKETING if name in url}


def _parameter(url: str, name: str) -> str:
    match = _PARAMETERS[name].search(url)
    # In this order: the library makes a space even of a plus that was encoded.
    return _decoded(match[1]).replace("+", " ") if match else ""


def _decoded(text: str) -> str:
    """Return a text without percent codes, or as it is if one of them is wrong, as
    JavaScript does."""
    if _HALF_PERCENT.search(text):
        return text

    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        return text


def _referring_domain(referrer: str) -> str:
    parts = referrer.split("/", 3)
    return parts[2] if len(parts) > 2 else ""


def _parts(url: str) -> tuple[str, str, str, str]:
    match = _URL.match(url)

    if match is None:
        return "", "", "", ""

    scheme, host, path, query = match.groups("")
    # JavaScript's `location` has no lone question mark.
    return scheme.lower(), host.lower(), path or "/", query if query != "?" else ""


def _clean(text: str | None) -> str:
    """Return a text without what is too long, and without halves of characters, which
    no JSON takes."""
    text = (text or "")[:MAX_URL]
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _without_empty(properties: dict[str, str]) -> dict[str, str]:
    return {name: _cut(value) for name, value in properties.items() if value}


def _cut(value: str) -> str:
    if value.isascii():
        return value[:MAX_URL_PROPERTY]

    units = value.encode("utf-16-le")[: 2 * MAX_URL_PROPERTY]
    return units.decode("utf-16-le", "ignore")
