"""User agents in Mixpanel's words: browser, version, operating system, device.

The rows are what the browser library looks for in the same user agent (``_.info`` in
utils.js of mixpanel-browser 2.83.0), in its order. Reports stay whole only if both
use the same words, so a row is right when it says what the library says, even where
the library is wrong about the browser.
"""

from __future__ import annotations

import collections.abc as c
import importlib
import re
import sys
import types
import typing as t
from functools import lru_cache

from .. import process
from ..limits import MAX_USER_AGENT

_REMEMBERED = 1024


class Rule(t.NamedTuple):
    """A row of a table: what a user agent that has these signs is called."""

    name: str
    #: One of these is in it.
    signs: tuple[str, ...]
    #: And one of these, if there are any.
    also: tuple[str, ...] = ()
    #: And none of these.
    unless: tuple[str, ...] = ()
    #: The signs are in lower case, and match both.
    any_case: bool = False


# The library asks ``window.opera`` and ``navigator.vendor`` as well, which no header
# carries. Presto's Opera, which had the one, says so in its user agent. The other is
# Apple's wherever WebKit runs that isn't Blink or Android's old browser.
_PRESTO = ("Opera", " OPR/")
_APPLE = ("AppleWebKit",)
_NOT_APPLE = ("Android",)
_BLACKBERRY = ("blackberry", "playbook", "bb10")

BROWSERS = (
    Rule("Opera Mini", _PRESTO, also=("Mini",)),
    Rule("Opera", _PRESTO),
    Rule("BlackBerry", _BLACKBERRY, any_case=True),
    Rule("Internet Explorer Mobile", ("IEMobile", "WPDesktop")),
    Rule("Samsung Internet", ("SamsungBrowser/",)),
    Rule("Microsoft Edge", ("Edge", "Edg/")),
    Rule("Facebook Mobile", ("FBIOS",)),
    Rule("Whale Browser", ("Whale/",)),
    Rule("Chrome", ("Chrome",)),
    Rule("Chrome iOS", ("CriOS",)),
    Rule("UC Browser", ("UCWEB", "UCBrowser")),
    Rule("Firefox iOS", ("FxiOS",)),
    Rule("Mobile Safari", _APPLE, also=("Mobile",), unless=_NOT_APPLE),
    Rule("Safari", _APPLE, unless=_NOT_APPLE),
    Rule("Android Mobile", ("Android",)),
    Rule("Konqueror", ("Konqueror",)),
    Rule("Firefox", ("Firefox",)),
    Rule("Internet Explorer", ("MSIE", "Trident/")),
    Rule("Mozilla", ("Gecko",)),
)

SYSTEMS = (
    Rule("Windows Phone", ("windows",), also=("Phone", "WPDesktop"), any_case=True),
    Rule("Windows", ("windows",), any_case=True),
    Rule("iOS", ("iPhone", "iPad", "iPod")),
    Rule("Android", ("Android",)),
    Rule("BlackBerry", _BLACKBERRY, any_case=True),
    Rule("Mac OS X", ("mac",), any_case=True),
    Rule("Linux", ("Linux",)),
    Rule("Chrome OS", ("CrOS",)),
)

DEVICES = (
    Rule("Windows Phone", ("windows phone",), any_case=True),
    Rule("Windows Phone", ("WPDesktop",)),
    Rule("iPad", ("iPad",)),
    Rule("iPod Touch", ("iPod",)),
    Rule("iPhone", ("iPhone",)),
    Rule("BlackBerry", _BLACKBERRY, any_case=True),
    Rule("Android", ("Android",)),
)

#: What comes before the version, by browser. Those that are not here have none.
VERSIONS = {
    browser: re.compile(rf"(?:{before})([0-9]+(?:\.[0-9]+)?)")
    for browser, before in {
        "Android Mobile": r"android\s",
        "BlackBerry": "BlackBerry ",
        "Chrome": "Chrome/",
        "Chrome iOS": "CriOS/",
        "Firefox": "Firefox/",
        "Firefox iOS": "FxiOS/",
        "Internet Explorer": "rv:|MSIE ",
        "Internet Explorer Mobile": "rv:",
        "Konqueror": "Konqueror:",
        "Microsoft Edge": "Edge?/",
        "Mobile Safari": "Version/",
        "Mozilla": "rv:",
        "Opera": "(?:Opera|OPR)/",
        "Safari": "Version/",
        "Samsung Internet": "SamsungBrowser/",
        "UC Browser": "(?:UCBrowser|UCWEB)/",
        "Whale Browser": "Whale/",
    }.items()
}

#: The robots for which the browser library tracks nothing, in lower case.
ROBOTS = (
    "adsbot-google",
    "ahrefsbot",
    "ahrefssiteaudit",
    "amazonbot",
    "apis-google",
    "baiduspider",
    "bingbot",
    "bingpreview",
    "chrome-lighthouse",
    "duplexweb-google",
    "facebookexternal",
    "feedfetcher-google",
    "google favicon",
    "google web preview",
    "google-read-aloud",
    "googlebot",
    "googleweblight",
    "mediapartners-google",
    "petalbot",
    "pinterest",
    "screaming frog",
    "storebot-google",
    "yahoo! slurp",
    "yandex",
)

#: What programs in these languages call themselves, unless they are told otherwise.
#: The ``user-agents`` package takes them for robots.
_LANGUAGES = ("Java/", "Python-urllib/")


def describe(user_agent: str) -> c.Mapping[str, str | float]:
    """Return what Mixpanel's browser library would say about a user agent.

    That is ``$browser``, ``$browser_version`` (a number), ``$os`` and ``$device``; what
    the library leaves empty isn't there. An agent in which the library knows no
    browser, such as an app or an HTTP client, is named as the ``user-agents`` package
    names it: its first one takes a tenth of a second, so don't ask within a request.

    :param user_agent: the ``User-Agent`` header.
    """
    return _described(user_agent[:MAX_USER_AGENT])


def is_bot(user_agent: str) -> bool:
    """Return whether a user agent is that of a known robot.

    Mixpanel's browser library tracks nothing for the robots that it knows; the
    ``user-agents`` package knows the others. Clients that somebody runs for a purpose
    (``curl``, webhook senders, apps) are not robots.

    :param user_agent: the ``User-Agent`` header.
    """
    return _is_bot(user_agent[:MAX_USER_AGENT])


@lru_cache(maxsize=_REMEMBERED)
def _described(user_agent: str) -> c.Mapping[str, str | float]:
    folded = user_agent.lower()
    browser = _named(BROWSERS, user_agent, folded)
    found: dict[str, str | float | None] = {
        "$browser": browser,
        "$browser_version": _version(browser, user_agent),
        "$os": _named(SYSTEMS, user_agent, folded),
        "$device": _named(DEVICES, user_agent, folded),
    }

    if browser is None and user_agent:
        found = _guessed(user_agent) | {
            name: value for name, value in found.items() if value is not None
        }

    # Everybody gets the same object out of the cache: nobody may change it.
    return types.MappingProxyType(
        {name: value for name, value in found.items() if value is not None}
    )


def _named(rules: tuple[Rule, ...], user_agent: str, folded: str) -> str | None:
    for name, signs, also, unless, any_case in rules:
        text = folded if any_case else user_agent

        for sign in signs:
            if sign in text:
                break
        else:
            continue

        if (not also or any(sign in user_agent for sign in also)) and not any(
            sign in user_agent for sign in unless
        ):
            return name

    return None


def _version(browser: str | None, user_agent: str) -> float | None:
    pattern = VERSIONS.get(browser or "")
    match = pattern.search(user_agent) if pattern else None
    return _number(match[1]) if match else None


def _number(text: str) -> float | None:
    number = float(text)

    if number == float("inf"):
        return None

    # As JavaScript writes it: 117, and not 117.0.
    return int(number) if number.is_integer() and number < 2**53 else number


def _guessed(user_agent: str) -> dict[str, str | float | None]:
    parsed = _parsed(user_agent)
    version = re.match(r"[0-9]+(?:\.[0-9]+)?", parsed.browser.version_string)
    known = {
        "$browser": parsed.browser.family,
        "$os": parsed.os.family,
    }
    guess: dict[str, str | float | None] = {
        name: family for name, family in known.items() if family != "Other"
    }

    if "$browser" in guess and version:
        guess["$browser_version"] = _number(version[0])

    return guess


@lru_cache(maxsize=_REMEMBERED)
def _is_bot(user_agent: str) -> bool:
    folded = user_agent.lower()

    if any(robot in folded for robot in ROBOTS):
        return True

    # No browser has an address in its name. Robots that pretend to be one have: that
    # of the page that says what they are for.
    if folded.startswith("mozilla/") and "://" in folded:
        return True

    if not user_agent or user_agent.startswith(_LANGUAGES):
        return False

    return bool(_parsed(user_agent).is_bot)


def _parsed(user_agent: str) -> t.Any:
    # It takes longer to import than all else that a request needs: a tenth of a second,
    # for which the thread that delivers would keep the interpreter.
    if "user_agents" not in sys.modules:
        with process.giving_way():
            importlib.import_module("user_agents")

    from user_agents import parse

    return parse(user_agent)
