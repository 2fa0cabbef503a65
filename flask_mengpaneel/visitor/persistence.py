"""The browser library's memory of a visitor, for calls that the server makes."""

from __future__ import annotations

import collections.abc as c
import time

from ..calls import Call, Json
from ..identity import ID_PROPERTIES, NEVER_SHARED, Identity
from .attribution import initial_referrer, search_properties

#: What the library keeps for itself and sends with no event (mixpanel-persistence.js).
RESERVED = ID_PROPERTIES.union(
    "__mps __mpso __mpus __mpa __mpap __mpr __mpu $people_distinct_id __alias"
    " __timers".split()
)

# The calls that change which properties go with every event.
_REGISTERING = frozenset(
    {
        "register",
        "register_once",
        "unregister",
        "set_group",
        "add_group",
        "remove_group",
    }
)

#: The calls that change what is remembered.
CHANGING_CALLS = _REGISTERING | {"identify", "reset", "time_event"}


class Persistence:
    """The browser library's memory of a visitor, while calls are made on the server.

    The methods do what those of the library's ``MixpanelPersistence`` do.

    :param cookie: what the library's cookie has in it.
    :param identity: the visitor the calls are from.
    :param referrer: of the page that is viewed; ``None`` if no page is, or who
        referred to it isn't known.
    :param successors: the new visitor after each ``reset()``.
    """

    def __init__(
        self,
        cookie: c.Mapping[str, Json],
        identity: Identity,
        referrer: str | None = None,
        successors: c.Iterable[Identity] = (),
    ) -> None:
        self._kept = cookie
        #: Whether the browser knows nothing of the visitor yet.
        self._is_new = not cookie
        self._referrer = referrer
        self._successors = iter(successors)
        self.identity = identity
        self.super_properties = _super_properties(cookie)
        self.timers = _timers(cookie.get("__timers"))

    def apply(self, call: Call, at: float) -> None:
        """Remember what a call says.

        :param at: when it was recorded, in seconds, if the call doesn't say it.
        """
        name = call.wire[0][0]

        if name in _REGISTERING:
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
            self._remember_referrer()

    def _remember_referrer(self) -> None:
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
        """Return what the library's cookie is to have in it.

        A new visitor's device comes first, and in what the library begins it doesn't:
        so the script knows who has begun it (``follow`` in ``static/src/memory.ts``).
        """
        cookie: dict[str, Json] = {}

        if self._is_new and self.identity.device_id:
            cookie["$device_id"] = self.identity.device_id

        cookie.update(self.identity.properties)
        cookie.update(
            (name, value)
            for name, value in self._kept.items()
            if name in RESERVED and name not in cookie and name != "$user_id"
        )
        cookie.update(self.super_properties)

        if self.timers or "__timers" in cookie:
            cookie["__timers"] = {
                event: round(started * 1000) for event, started in self.timers.items()
            }

        return cookie


def changes(cookie: c.Mapping[str, Json], calls: c.Iterable[Call]) -> bool:
    """Whether any of these calls changes what is remembered."""
    timers = cookie.get("__timers")

    # A loop, as a generator takes 3 steps more, of 252, an event by a returning
    # visitor's fetch.
    for call in calls:
        if call.wire[0][0] in CHANGING_CALLS or (
            isinstance(timers, dict) and call.tracks and call.event in timers
        ):
            return True

    return False


def _super_properties(properties: c.Mapping[str, Json]) -> dict[str, Json]:
    """Return the properties that may go with every event."""
    return {
        name: value
        for name, value in properties.items()
        if name not in RESERVED and name not in NEVER_SHARED
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
