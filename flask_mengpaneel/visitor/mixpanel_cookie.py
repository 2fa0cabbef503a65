"""The cookie in which the browser library keeps a visitor, read and written."""

from __future__ import annotations

import binascii
import collections.abc as c
import json
import logging
import math
import re
import time
import typing as t
from urllib.parse import quote, unquote

from werkzeug.http import http_date

from ..calls import Json, dumps
from ..identity import ID_PROPERTIES
from ..limits import MAX_COOKIE_BYTES, MAX_DEPTH, MAX_REQUEST_HEADER_BYTES
from ..values import plain
from .attribution import cookie_domain
from .persistence import RESERVED

if t.TYPE_CHECKING:
    from flask import Request, Response

    from ..config import Config

logger = logging.getLogger("flask_mengpaneel")

# Bytes that the cookie may have however large the others are.
_MIN_BYTES = 1024

# Lists and dicts in one another that are read: the library's own bookkeeping is one
# deeper than what Mixpanel takes.
_MAX_DEPTH = MAX_DEPTH + 1


def read(value: str) -> dict[str, Json]:
    """Return what the library's cookie has in it; nothing if it isn't one."""
    if not value or len(value) > 2 * MAX_COOKIE_BYTES:
        return {}

    try:
        text = _unquoted(value)
    except ValueError:
        return {}

    # As nearly every cookie is.
    if (sane := _sane_cookie(text)) is not None:
        return sane

    try:
        cookie = _parsed(text)
    except ValueError:
        return {}

    if not isinstance(cookie, dict):
        return {}

    return {
        name: kept
        for name, kept in ((plain(name), _sane(kept)) for name, kept in cookie.items())
        if kept is not _INSANE and isinstance(name, str)
    }


def _unquoted(value: str) -> str:
    """Return a text as it was before it was escaped.

    :raises ValueError: it isn't UTF-8.
    """
    # Of e-mails an escape at the end of a line means more.
    if value.isascii() and "\n" not in value and "\r" not in value:
        # By what undoes the escapes of e-mails, which have another sign and are the
        # same: 1.5 us for 400 bytes, where `unquote` takes 29, of 74, an event by a
        # returning visitor's fetch.
        text = binascii.a2b_qp(value.replace("=", "=3D").replace("%", "="))

        # Else there is a sign that escapes nothing, which each of both reads its way.
        if len(text) == len(value) - 2 * value.count("%"):
            return text.decode()

    return unquote(value, errors="strict")


def _integer(text: str) -> float:
    """Return an integer as the browser that has written it reads it."""
    return int(text) if len(text) < 16 else float(text)


_decode = json.JSONDecoder(parse_int=_integer).decode


def _finite(text: str) -> float:
    """Return a number with a fraction, an exponent or many digits.

    :raises ValueError: it is infinite, or none.
    """
    # Without the sign of a zero, as `plain` gives it.
    number = float(text) + 0.0

    if not math.isfinite(number):
        raise ValueError("not a number that a message can carry")

    return number


# Reads what a text begins with.
_decode_first = json.JSONDecoder(
    parse_int=lambda text: int(text) if len(text) < 16 else _finite(text),
    parse_float=_finite,
    parse_constant=_finite,
).raw_decode


def _sane_cookie(text: str) -> dict[str, Json] | None:
    """Return a cookie of which one sees by its text that all in it is plain; ``None``
    if one doesn't.

    To look at each value takes 30 steps of the 309 that an event of a visitor's fetch
    does: it has no half of a surrogate pair, no number that only Python has, and is not
    nested too deeply.
    """
    if "\\u" in text:
        return None

    try:
        if not text.isascii():
            text.encode()

        cookie, end = _decode_first(text)
    except (ValueError, RecursionError):
        return None

    if type(cookie) is not dict or end != len(text):
        return None

    for value in cookie.values():
        # Nearly all are texts, or empty.
        if value and type(value) is not str and _is_deeper(value, _MAX_DEPTH):
            return None

    return cookie


def _parsed(text: str) -> t.Any:
    try:
        return _decode(text)
    except RecursionError:
        return _decode(_without_depths(text))


# What tells how deep one is in a JSON text; brackets in a text don't.
_BRACKETS = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)


def _without_depths(text: str) -> str:
    """Return the same JSON with NaN, which nobody takes, for what is nested too deeply.

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
    """Return a value of the cookie, unless no message could carry it."""
    try:
        kept = plain(value)
    except ValueError:
        return t.cast("Json", _INSANE)

    return t.cast("Json", _INSANE) if _is_deeper(kept, _MAX_DEPTH) else kept


def _is_deeper(value: t.Any, most: int) -> bool:
    """Return whether more lists and dicts than that are in one another."""
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list):
        return False

    return most == 0 or any(_is_deeper(item, most - 1) for item in value)


def is_same(one: c.Mapping[str, Json], other: c.Mapping[str, Json]) -> bool:
    """Whether two cookies have the same in them, to JavaScript."""
    if one != other:
        return False

    # To Python true is 1, to nobody else.
    text, other_text = (json.dumps(cookie, sort_keys=True) for cookie in (one, other))
    # And 20.0 is 20, which is how the library writes it.
    return text == other_text or _with_whole_numbers(text) == _with_whole_numbers(
        other_text
    )


def _with_whole_numbers(text: str) -> str:
    return json.dumps(json.loads(text, parse_float=_number))


def _number(digits: str) -> float:
    number = float(digits)
    return int(number) if number.is_integer() else number


def write(
    response: Response,
    request: Request,
    config: Config,
    cookie: c.Mapping[str, Json],
    *,
    name: str = "",
    mark: str = "",
    is_passing: bool = False,
) -> None:
    """Set a cookie of the library's form, as the library would have written it.

    It always has the ids of the visitor. What there is no room for, the browser would
    refuse together with all the rest: the largest properties are left out.

    :param name: the cookie's, if it isn't the library's own.
    :param mark: what the value begins with.
    :param is_passing: whether it ends with the browser's session.
    """
    name = name or config.cookie_name
    header = request.environ.get("HTTP_COOKIE", "")
    # For what isn't there, Werkzeug makes two exceptions: 5 us of 96, an event by a new
    # visitor's fetch.
    others = len(header) - (len(request.cookies.get(name, "")) if name in header else 0)
    room = (
        min(MAX_COOKIE_BYTES, max(MAX_REQUEST_HEADER_BYTES - others, _MIN_BYTES))
        - len(name)
        - 1
        - len(mark)
    )
    value = _written(cookie)

    if len(value) > room:
        value, left_out = _fitted(dict(cookie), room)
        logger.warning(
            "The cookie of Mixpanel's library has no room for %d properties: %.200r",
            len(left_out),
            left_out[:10],
        )

    days = 0 if is_passing else _days(config, name)
    _set(response, request, config, name, mark + value, days)


def _days(config: Config, name: str) -> Json:
    # The library's setting is about its own cookie.
    is_own = name != config.shown_cookie_name
    return config.client_config.get("cookie_expiration", 365) if is_own else 365


def _written(cookie: c.Mapping[str, Json]) -> str:
    return dumps(cookie).translate(_ESCAPED)


def _fitted(cookie: dict[str, Json], room: int) -> tuple[str, list[str]]:
    """Return as much of a cookie as there is room for, and the names left out."""
    clocks = cookie.get("__timers")
    clocks = dict(clocks) if isinstance(clocks, dict) else {}
    cookie = {**cookie, "__timers": clocks}
    size = len(_written(cookie))
    # What the library keeps for itself are calls that it has still to make. Without
    # the ids that come last, what is sent is still this visitor's.
    names = [name for name in cookie if name not in RESERVED]
    queues = [name for name in cookie if name in RESERVED and name not in ID_PROPERTIES]
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
    """Return the largest first, and of several that are as large the oldest."""
    return sorted(items, key=lambda item: -_size(*item))


def _size(held: dict[str, Json], name: str) -> int:
    """Return how many bytes an item has in the cookie, with its comma."""
    return len(_written({name: held[name]})) - len("%7B%7D") + len("%2C")


def write_choice(
    response: Response, request: Request, config: Config, opted_in: bool
) -> None:
    """Set the cookie in which the library keeps whether a visitor has opted out."""
    name = config.opt_cookie_name
    days = _days(config, name)
    _set(response, request, config, name, "1" if opted_in else "0", days)


def forget(response: Response, request: Request, config: Config, name: str) -> None:
    """Delete a cookie."""
    _set(response, request, config, name, "", -1)


def _set(
    response: Response,
    request: Request,
    config: Config,
    name: str,
    value: str,
    days: Json,
) -> None:
    """Set a cookie with the attributes of the library's (utils.js), which has to be
    able to read it: it is not HttpOnly."""
    client = config.client_config
    cookie = [f"{name}={value}"]

    # 0 days are until the browser is closed.
    if isinstance(days, int | float) and days and abs(days) < 36500:
        cookie.append(f"expires={http_date(time.time() + days * 86400)}")

    cookie.append("path=/")
    domain = _domain(request, config, name)

    if domain:
        cookie.append(f"domain={domain}")

    if client.get("cross_site_cookie"):
        cookie.append("SameSite=None")

    if client.get("cross_site_cookie") or client.get("secure_cookie"):
        cookie.append("secure")

    response.headers.add("Set-Cookie", "; ".join(cookie))


def _domain(request: Request, config: Config, name: str) -> str | None:
    # What the library keeps elsewhere is of one host. It wouldn't find any other cookie
    # when it has taken up what is in it.
    if name == config.shown_cookie_name or (
        name == config.cookie_name and not config.cookie_persistence
    ):
        return None

    explicit = config.client_config.get("cookie_domain")

    if isinstance(explicit, str) and explicit:
        return explicit

    if not config.client_config.get("cross_subdomain_cookie", True):
        return None

    return cookie_domain(request.environ.get("HTTP_HOST", ""))
