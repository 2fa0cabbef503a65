"""The ids by which Mixpanel knows a person, and random ids."""

from __future__ import annotations

import collections.abc as c
import decimal
import os
import typing as t

from . import process
from .calls import Call, Json
from .values import fault_of

#: The properties of an event that say whose it is.
ID_PROPERTIES = frozenset({"distinct_id", "$device_id", "$user_id"})

#: Those that say which event it is, and whose.
EVENT_IDS = ID_PROPERTIES | {"time", "$insert_id"}

#: Those that would make all events that have them the same one, or another project's.
NEVER_SHARED = frozenset({"token", "time", "$insert_id"})

_DIGITS = 32
_DEVICE = "$device:"


class _RandomIds:
    """Random ids in stock: each call of the system lets other threads run."""

    def __init__(self) -> None:
        self._ids: list[str] = []
        self._pid = os.getpid()
        process.on_fork(self)

    def after_fork(self) -> None:
        # The stock of the parent process is the parent's.
        self._ids.clear()
        self._pid = os.getpid()

    def next(self) -> str:
        """Return 32 random hexadecimal digits, which come once."""
        # Not by all of `process.after_fork`, in the middle of which it may be asked.
        if self._pid != os.getpid():
            self.after_fork()

        try:
            return self._ids.pop()
        except IndexError:
            digits = os.urandom(256 * _DIGITS // 2).hex()
            fresh = [digits[at : at + _DIGITS] for at in range(0, len(digits), _DIGITS)]
            one = fresh.pop()
            self._ids += fresh
            return one


hex_id = _RandomIds().next


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
        """Return the ids of a visitor who was never seen before."""
        # A UUID, version 4, in a quarter of the time that `uuid.uuid4` takes.
        text = hex_id()
        return cls(f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:]}")

    def __bool__(self) -> bool:
        return bool(self.device_id or self.user_id or self.other_id)

    @property
    def is_identified(self) -> bool:
        """Whether it is a person that somebody has named, and not just a device."""
        return bool(self.user_id or self.other_id)

    @property
    def distinct_id(self) -> str:
        """The id that a message is sent under; ``""`` is nobody."""
        anonymous = _DEVICE + self.device_id if self.device_id else ""
        return self.user_id or self.other_id or anonymous

    @property
    def properties(self) -> dict[str, Json]:
        """The ids as properties, in the library's names; what is unknown is absent."""
        properties: dict[str, Json] = {}

        if distinct_id := self.distinct_id:
            properties["distinct_id"] = distinct_id

        if self.device_id:
            properties["$device_id"] = self.device_id

        if self.user_id:
            properties["$user_id"] = self.user_id

        return properties

    def after(self, calls: c.Iterable[Call]) -> Identity:
        """Return the ids that these calls lead to."""
        identity = self

        for call in calls:
            name, arguments = call.wire[0][0], call.wire[1]

            if name == "identify":
                identity = Identity(identity.device_id, arguments[0])
            elif name == "reset":
                identity = Identity()

        return identity

    def to_json(self) -> list[str | None]:
        """Return the ids as plain JSON values."""
        return [self.device_id, self.user_id, self.other_id]

    @classmethod
    def from_json(cls, value: t.Any) -> Identity:
        """Return an identity from what :meth:`to_json` returned.

        :raises ValueError: it isn't an identity.
        """
        if not isinstance(value, list) or len(value) != 3:
            raise ValueError("not an identity")

        return cls(*map(_id, value))

    @classmethod
    def from_ids(cls, device_id: t.Any, user_id: t.Any = None) -> Identity:
        """Return the ids that somebody says to be a visitor's, if they can be."""
        user_id = _id(user_id)
        is_device = user_id is not None and user_id.startswith(_DEVICE)
        return cls(_id(device_id), None if is_device else user_id)

    @classmethod
    def from_cookie(cls, cookie: c.Mapping[str, Json]) -> Identity:
        """Return the ids that the browser library keeps in its cookie."""
        if not cookie:
            return NOBODY

        device_id = _id(cookie.get("$device_id"))
        user_id = _id(cookie.get("$user_id"))

        if user_id and user_id.startswith(_DEVICE):
            user_id = None

        # What it nearly always is needs no look of its own.
        if cookie.get("distinct_id") in (user_id, f"{_DEVICE}{device_id}"):
            return cls(device_id, user_id)

        distinct_id = _id(cookie.get("distinct_id"))

        if distinct_id and distinct_id.startswith(_DEVICE):
            device_id = device_id or _id(distinct_id.removeprefix(_DEVICE))
            distinct_id = None

        return cls(device_id, user_id, None if distinct_id == user_id else distinct_id)


#: A person without ids.
NOBODY = Identity()


def _id(value: t.Any) -> str | None:
    if value is None:
        return None

    text = value if type(value) is str else _written(value)
    return text if text is not None and fault_of(text) is None else None


def _written(value: t.Any) -> str | None:
    """Return an id that isn't a text as a browser writes it."""
    if isinstance(value, float) and value.is_integer():
        # With the fewest digits that tell it from others.
        value = int(decimal.Decimal(repr(value)))

    if isinstance(value, int) and not isinstance(value, bool):
        return str(value) if abs(value) < 2**63 else None

    return value if isinstance(value, str) else None
