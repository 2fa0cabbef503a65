"""What the browser library remembers of a visitor: its cookie, read and written."""

from __future__ import annotations

import collections.abc as c
import json
import time
import typing as t
from urllib.parse import quote, unquote

from werkzeug.http import http_date

from .calls import Call, Json, dumps
from .ids import hex_id
from .origins import cookie_domain, initial_referrer, search_properties
from .values import FORBIDDEN_IDS, plain

if t.TYPE_CHECKING:
    from flask import Request, Response

    from .config import Config

# A browser refuses a cookie of more than 4 KB, and a larger one isn't the library's.
# https://www.rfc-editor.org/rfc/rfc6265#section-6.1
_MAX_COOKIE = 4096
_MAX_ID = 255
_DEVICE = "$device:"

# https://docs.mixpanel.com/reference/track-event#limits has 3 for what is in an event;
# the library's own bookkeeping is one deeper.
_MAX_DEPTH = 4

# What the library keeps for itself and sends with no event (mixpanel-persistence.js).
_RESERVED = frozenset(
    "distinct_id $device_id $user_id __mps __mpso __mpus __mpa __mpap __mpr __mpu"
    " $people_distinct_id __alias __timers".split()
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


class Identity(t.NamedTuple):
    """The ids by which Mixpanel knows a person.

    https://docs.mixpanel.com/docs/tracking-methods/id-management/identifying-users-simplified
    """

    device_id: str | None = None
    user_id: str | None = None
    #: The library's ``distinct_id``, where the other two don't tell it.
    other_id: str | None = None

    @classmethod
    def new(cls) -> Identity:
        """The ids of a visitor who was never seen before."""
        # A UUID, version 4, in a quarter of the time that `uuid.uuid4` takes.
        text = hex_id()
        return cls(f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:]}")

    def __bool__(self) -> bool:
        return bool(self.device_id or self.user_id or self.other_id)

    @property
    def distinct_id(self) -> str:
        """The id that a message is sent under; ``""`` is nobody."""
        anonymous = _DEVICE + self.device_id if self.device_id else ""
        return self.user_id or self.other_id or anonymous

    @property
    def properties(self) -> dict[str, Json]:
        """The ids as properties, in the library's names; what is unknown is absent."""
        properties: dict[str, Json] = {}

        if self:
            properties["distinct_id"] = self.distinct_id

        if self.device_id:
            properties["$device_id"] = self.device_id

        if self.user_id:
            properties["$user_id"] = self.user_id

        return properties

    def after(self, calls: c.Iterable[Call]) -> Identity:
        """The ids with which one goes on after these calls."""
        identity = self

        for call in calls:
            if call.name == "identify":
                identity = Identity(identity.device_id, call.arguments[0])
            elif call.name == "reset":
                identity = Identity()

        return identity

    def to_json(self) -> list[str | None]:
        """The ids as plain JSON values."""
        return [self.device_id, self.user_id, self.other_id]

    @classmethod
    def from_json(cls, value: t.Any) -> Identity:
        """Read what :meth:`to_json` gave.

        :raises ValueError: it isn't an identity.
        """
        if not isinstance(value, list) or len(value) != 3:
            raise ValueError("not an identity")

        return cls(*map(_id, value))

    @classmethod
    def from_cookie(cls, cookie: c.Mapping[str, Json]) -> Identity:
        """Read the ids that the library keeps."""
        if not cookie:
            return NOBODY

        device_id = _id(cookie.get("$device_id"))
        user_id = _id(cookie.get("$user_id"))
        distinct_id = _id(cookie.get("distinct_id"))

        if user_id and user_id.startswith(_DEVICE):
            user_id = None

        if distinct_id and distinct_id.startswith(_DEVICE):
            device_id = device_id or _id(distinct_id.removeprefix(_DEVICE))
            distinct_id = None

        return cls(device_id, user_id, None if distinct_id == user_id else distinct_id)


#: Whoever hasn't any ids.
NOBODY = Identity()


def _id(value: t.Any) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value) if abs(value) < 2**63 else None

    if (
        not isinstance(value, str)
        or not 0 < len(value) <= _MAX_ID
        or not value.isprintable()
        or not value.strip()
        or value.lower() in FORBIDDEN_IDS
    ):
        return None

    return value


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
        self.super_properties = {
            name: value
            for name, value in cookie.items()
            if name not in _RESERVED and name not in _NEVER
        }
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
        self.super_properties.update(properties)

    def register_once(
        self, properties: dict[str, Json], default: Json = None, *_options: object
    ) -> None:
        """Add properties to every event, unless they have a value."""
        for name, value in properties.items():
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
        cookie = json.loads(unquote(value, errors="strict"))
    except (ValueError, RecursionError):
        return {}

    if not isinstance(cookie, dict):
        return {}

    try:
        # In one go, as nearly every cookie can be taken.
        kept = t.cast("dict[str, Json]", plain(cookie))
    except ValueError:
        kept = None

    if kept is not None and _is_shallow(kept, _MAX_DEPTH + 1):
        return kept

    return {
        name: kept
        for name, kept in ((plain(name), _sane(kept)) for name, kept in cookie.items())
        if kept is not _INSANE and isinstance(name, str)
    }


# As JavaScript's `encodeURIComponent` does; the JSON is ASCII.
_ESCAPED = {code: quote(chr(code), safe="!'()*-._~") for code in range(128)}

_INSANE = object()


def _sane(value: t.Any) -> Json:
    """A value of the cookie, unless no message could carry it."""
    try:
        kept = plain(value)
    except ValueError:
        return t.cast("Json", _INSANE)

    return kept if _is_shallow(kept, _MAX_DEPTH) else t.cast("Json", _INSANE)


def _is_shallow(value: t.Any, levels: int) -> bool:
    """Whether a value has no more levels; it isn't looked at any deeper, since some
    versions of Python read deeper JSON than they can go through."""
    if isinstance(value, dict):
        value = list(value.values())

    if not isinstance(value, list):
        return True

    return levels > 0 and all(_is_shallow(one, levels - 1) for one in value)


def write(
    response: Response, request: Request, config: Config, cookie: dict[str, Json]
) -> None:
    """Set the library's cookie as the library would have written it."""
    value = dumps(cookie).translate(_ESCAPED)

    if len(config.cookie_name) + len(value) < _MAX_COOKIE:
        _set(response, request, config, config.cookie_name, value)


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
