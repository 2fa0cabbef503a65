"""What the browser library remembers of a visitor: its cookie, read and written."""

from __future__ import annotations

import collections.abc as c
import json
import logging
import re
import time
import typing as t
from urllib.parse import quote, unquote

from werkzeug.http import http_date

from ..calls import Call, Json, dumps
from ..identity import Identity
from ..values import plain
from .attribution import cookie_domain, initial_referrer, search_properties

if t.TYPE_CHECKING:
    from flask import Request, Response

    from ..config import Config

logger = logging.getLogger("flask_mengpaneel")

# A browser refuses a cookie of more than 4 KB, and a larger one isn't the library's.
# https://www.rfc-editor.org/rfc/rfc6265#section-6.1
_MAX_COOKIE = 4096

# nginx, Apache and gunicorn refuse a request with more in one header, so that whoever
# has that many cookies can't visit the site any more.
_MAX_COOKIES = 8000

# Other cookies leave no room for less.
_MIN_COOKIE = 1024

# https://docs.mixpanel.com/reference/track-event#limits has 3 for what is in an event;
# the library's own bookkeeping is one deeper.
_MAX_DEPTH = 4

_IDS = frozenset({"distinct_id", "$device_id", "$user_id"})

# What the library keeps for itself and sends with no event (mixpanel-persistence.js).
_RESERVED = _IDS.union(
    "__mps __mpso __mpus __mpa __mpap __mpr __mpu $people_distinct_id __alias"
    " __timers".split()
)

# What would make all events of a visitor the same one, or another project's.
_NEVER = frozenset({"token", "time", "$insert_id"})

#: The calls that change what is remembered.
CHANGING = frozenset(
    {
        "identify",
        "reset",
        "register",
        "register_once",
        "unregister",
        "set_group",
        "add_group",
        "remove_group",
        "time_event",
    }
)


class Persistence:
    """What is remembered of a visitor while calls are made on the server.

    The methods do what those of the library's ``MixpanelPersistence`` do.

    :param cookie: what the library's cookie has in it.
    :param identity: who the calls are of.
    :param referrer: of the page that is viewed; ``None`` if no page is, or who
        referred to it isn't known.
    :param successors: who there is after each ``reset()``.
    """

    def __init__(
        self,
        cookie: c.Mapping[str, Json],
        identity: Identity,
        referrer: str | None = None,
        successors: c.Iterable[Identity] = (),
    ) -> None:
        self._kept = cookie
        self._referrer = referrer
        self._successors = iter(successors)
        self.identity = identity
        self.super_properties = _super_properties(cookie)
        self.timers = _timers(cookie.get("__timers"))

    def make(self, call: Call, at: float) -> None:
        """Remember what a call says.

        :param at: when it was recorded, in seconds, if the call doesn't say it.
        """
        name = call.name

        if name in _REMEMBERED:
            getattr(self, name)(*call.arguments)
        elif name == "identify":
            self.identity = self.identity.after([call])
        elif name == "reset":
            self.identity = next(self._successors, Identity())
            self._kept = {}
            self.super_properties = {}
            self.timers = {}
        elif name == "time_event":
            self.timers[call.event] = call.at or at
        elif call.tracks:
            self.timers.pop(call.event, None)
            self._refer()

    def _refer(self) -> None:
        """Remember what led the visitor here, as the library does when it tracks."""
        if self._referrer is not None:
            self.register_once(dict(initial_referrer(self._referrer)))
            self.register(dict(search_properties(self._referrer)))

    def register(self, properties: dict[str, Json], *_options: object) -> None:
        """Add properties to every event."""
        self.super_properties.update(_super_properties(properties))

    def register_once(
        self, properties: dict[str, Json], default: Json = None, *_options: object
    ) -> None:
        """Add properties to every event, unless they have a value."""
        for name, value in _super_properties(properties).items():
            # "None" is the library's own word for "no value".
            if self.super_properties.get(name, "None") in ("None", default or "None"):
                self.super_properties[name] = value

    def unregister(self, name: str, *_options: object) -> None:
        """Stop adding a property to every event."""
        self.super_properties.pop(name, None)

    def set_group(self, key: str, ids: list[str]) -> None:
        """Add groups to every event."""
        self.super_properties[key] = list(ids)

    def add_group(self, key: str, id: str) -> None:
        """Add one more group to every event."""
        ids = self._groups(key)
        self.super_properties[key] = ids if id in ids else [*ids, id]

    def remove_group(self, key: str, id: str) -> None:
        """Stop adding a group to every event, as the documentation says; the library
        itself misses it."""
        left = [one for one in self._groups(key) if one != id]

        if left:
            self.super_properties[key] = left
        else:
            self.super_properties.pop(key, None)

    def _groups(self, key: str) -> list[Json]:
        held = self.super_properties.get(key)
        return held if isinstance(held, list) else []

    def to_cookie(self) -> dict[str, Json]:
        """What the library's cookie is to have in it."""
        cookie: dict[str, Json] = dict(self.identity.properties)
        cookie.update(
            (name, value)
            for name, value in self._kept.items()
            if name in _RESERVED and name not in cookie and name != "$user_id"
        )
        cookie.update(self.super_properties)

        if self.timers or "__timers" in cookie:
            cookie["__timers"] = {
                event: round(started * 1000) for event, started in self.timers.items()
            }

        return cookie


_REMEMBERED = frozenset(
    {
        "register",
        "register_once",
        "unregister",
        "set_group",
        "add_group",
        "remove_group",
    }
)


def _super_properties(properties: c.Mapping[str, Json]) -> dict[str, Json]:
    """Those that may go with every event."""
    return {
        name: value
        for name, value in properties.items()
        if name not in _RESERVED and name not in _NEVER
    }


def _timers(value: Json) -> dict[str, float]:
    if not isinstance(value, dict):
        return {}

    return {
        event: started / 1000
        for event, started in value.items()
        if isinstance(started, int | float)
        and not isinstance(started, bool)
        and 0 < started < 1000 * (time.time() + 86400)
    }


def read(value: str) -> dict[str, Json]:
    """Read the library's cookie; whatever isn't one is empty."""
    if not value or len(value) > 2 * _MAX_COOKIE:
        return {}

    try:
        cookie = _parsed(unquote(value, errors="strict"))
    except ValueError:
        return {}

    if not isinstance(cookie, dict):
        return {}

    try:
        # In one go, as nearly every cookie can be taken.
        kept = t.cast("dict[str, Json]", plain(cookie))
    except ValueError:
        kept = None

    if kept is not None and not _is_deeper(kept, _MAX_DEPTH + 1):
        return kept

    return {
        name: kept
        for name, kept in ((plain(name), _sane(kept)) for name, kept in cookie.items())
        if kept is not _INSANE and isinstance(name, str)
    }


def _integer(text: str) -> float:
    """An integer as the browser that has written it reads it."""
    return int(text) if len(text) < 16 else float(text)


_decode = json.JSONDecoder(parse_int=_integer).decode


def _parsed(text: str) -> t.Any:
    try:
        return _decode(text)
    except RecursionError:
        return _decode(_without_depths(text))


# What tells how deep one is in a JSON text; brackets in a text don't.
_BRACKETS = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)


def _without_depths(text: str) -> str:
    """The same JSON with NaN, which nobody takes, for what is nested too deeply.

    How deep Python reads depends on how deep the stack is already.
    """
    kept: list[str] = []
    depth = since = 0

    for match in _BRACKETS.finditer(text):
        if match[0] in ("[", "{"):
            depth += 1

            if depth == _MAX_DEPTH + 2:
                kept += text[since : match.start()], "NaN"
        elif match[0] in ("]", "}"):
            depth -= 1

            if depth == _MAX_DEPTH + 1:
                since = match.end()

    return "".join(kept) + (text[since:] if depth < _MAX_DEPTH + 2 else "")


# As JavaScript's `encodeURIComponent` does; the JSON is ASCII.
_ESCAPED = {code: quote(chr(code), safe="!'()*-._~") for code in range(128)}

_INSANE = object()


def _sane(value: t.Any) -> Json:
    """A value of the cookie, unless no message could carry it."""
    try:
        kept = plain(value)
    except ValueError:
        return t.cast("Json", _INSANE)

    return t.cast("Json", _INSANE) if _is_deeper(kept, _MAX_DEPTH) else kept


def _is_deeper(value: t.Any, most: int) -> bool:
    """Whether more lists and dicts than that are in one another."""
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list):
        return False

    return most == 0 or any(_is_deeper(item, most - 1) for item in value)


def write(
    response: Response, request: Request, config: Config, cookie: dict[str, Json]
) -> None:
    """Set the library's cookie as the library would have written it.

    It always has the ids of the visitor. What there is no room for, the browser would
    refuse together with all the rest: the largest properties are left out.
    """
    name = config.cookie_name
    others = len(request.environ.get("HTTP_COOKIE", ""))
    others -= len(request.cookies.get(name, ""))
    room = min(_MAX_COOKIE, max(_MAX_COOKIES - others, _MIN_COOKIE)) - len(name) - 1
    value = _written(cookie)

    if len(value) > room:
        value, left_out = _fitted(cookie, room)
        logger.warning(
            "The cookie of Mixpanel's library has no room for %d properties: %.200r",
            len(left_out),
            left_out[:10],
        )

    _set(response, request, config, name, value)


def _written(cookie: c.Mapping[str, Json]) -> str:
    return dumps(cookie).translate(_ESCAPED)


def _fitted(cookie: dict[str, Json], room: int) -> tuple[str, list[str]]:
    """As much of a cookie as there is room for, and what it goes without."""
    clocks = cookie.get("__timers")
    clocks = dict(clocks) if isinstance(clocks, dict) else {}
    cookie = {**cookie, "__timers": clocks}
    size = len(_written(cookie))
    # What the library keeps for itself are calls that it has still to make. Without
    # the ids that come last, what is sent is still this visitor's.
    names = [name for name in cookie if name not in _RESERVED]
    queues = [name for name in cookie if name in _RESERVED and name not in _IDS]
    left_out = []

    for held, name in (
        *_largest([(cookie, name) for name in names] + [(clocks, e) for e in clocks]),
        *_largest([(cookie, name) for name in queues if name != "__timers"]),
        *((cookie, name) for name in ("$device_id", "$user_id") if name in cookie),
    ):
        if size <= room:
            break

        size -= _size(held, name)
        del held[name]
        left_out.append(name)

    return _written(cookie), left_out


_Item: t.TypeAlias = "tuple[dict[str, Json], str]"


def _largest(items: list[_Item]) -> list[_Item]:
    """The largest first, and of several that are as large the oldest."""
    return sorted(items, key=lambda item: -_size(*item))


def _size(held: dict[str, Json], name: str) -> int:
    """How many bytes an item has in the cookie, with its comma."""
    return len(_written({name: held[name]})) - len("%7B%7D") + len("%2C")


def write_choice(
    response: Response, request: Request, config: Config, opted_in: bool
) -> None:
    """Set the cookie in which the library keeps whether a visitor has opted out."""
    _set(response, request, config, config.opt_cookie_name, "1" if opted_in else "0")


def forget(response: Response, request: Request, config: Config) -> None:
    """Delete the library's cookie."""
    _set(response, request, config, config.cookie_name, "", days=-1)


def _set(
    response: Response,
    request: Request,
    config: Config,
    name: str,
    value: str,
    days: Json = None,
) -> None:
    """Set a cookie with the attributes of the library's (utils.js), which has to be
    able to read it: it is not HttpOnly."""
    client = config.client_config
    cookie = [f"{name}={value}"]
    days = client.get("cookie_expiration", 365) if days is None else days

    # 0 days are until the browser is closed.
    if isinstance(days, int | float) and days and abs(days) < 36500:
        cookie.append(f"expires={http_date(time.time() + days * 86400)}")

    cookie.append("path=/")
    domain = _domain(request, config)

    if domain:
        cookie.append(f"domain={domain}")

    if client.get("cross_site_cookie"):
        cookie.append("SameSite=None")

    if client.get("cross_site_cookie") or client.get("secure_cookie"):
        cookie.append("secure")

    response.headers.add("Set-Cookie", "; ".join(cookie))


def _domain(request: Request, config: Config) -> str | None:
    explicit = config.client_config.get("cookie_domain")

    if isinstance(explicit, str) and explicit:
        return explicit

    if not config.client_config.get("cross_subdomain_cookie", True):
        return None

    return cookie_domain(request.environ.get("HTTP_HOST", ""))
