"""The calls of one flush on their way, and the messages that become of them."""

from __future__ import annotations

import collections.abc as c
import dataclasses
import json
import marshal
import typing as t

from .calls import Call, Json, count, dumps
from .identity import Identity


@dataclasses.dataclass(slots=True)
class Message:
    """A record for Mixpanel, as the official library writes it.

    :param endpoint: the library's name of where it goes: events, people or groups.
    :param json: the record.
    :param records: how many recorded calls it stands for.
    :param repeatable: whether Mixpanel takes it for the same one if it comes twice.
    """

    endpoint: str
    json: str
    records: int = 1
    repeatable: bool = True


@dataclasses.dataclass(slots=True)
class Envelope:
    """The calls of one flush, and what is known of their visitor."""

    calls: list[Call]
    identity: Identity
    #: The new visitor after each ``reset()``.
    successors: c.Sequence[Identity]
    #: When they were flushed, in seconds since the epoch.
    at: float
    ip: str | None = None
    user_agent: str = ""
    #: The page: parts of its URL, which ``visitor.client.join_url`` joins, and its
    #: referrer.
    url: list[str] = dataclasses.field(default_factory=list)
    referrer: str = ""
    cookie: c.Mapping[str, Json] = dataclasses.field(default_factory=dict)
    records: int = 0
    #: About how many bytes its calls have, if they were recorded in this process.
    size: int = 0

    def to_json(self) -> dict[str, t.Any]:
        """Return the envelope as plain JSON values."""
        return {
            "calls": [call.wire for call in self.calls],
            "identity": self.identity.to_json(),
            "successors": [one.to_json() for one in self.successors],
            "at": self.at,
            "ip": self.ip,
            "user_agent": self.user_agent,
            "url": self.url,
            "referrer": self.referrer,
            "cookie": dict(self.cookie),
        }

    @classmethod
    def from_json(cls, value: c.Mapping[str, t.Any]) -> Envelope:
        """Return an envelope from what :meth:`to_json` returned."""
        calls = [Call.from_json(wire) for wire in value["calls"]]
        return cls(
            calls,
            Identity.from_json(value["identity"]),
            [Identity.from_json(one) for one in value["successors"]],
            value["at"],
            value["ip"],
            value["user_agent"],
            value["url"],
            value["referrer"],
            value["cookie"],
            count(calls),
        )

    def to_bytes(self) -> bytes:
        """Return the envelope as it waits in memory: one object, whatever is in it.

        Python's garbage collector goes through all that waits again and again, except
        what can't refer to anything.
        """
        try:
            return marshal.dumps(
                (
                    [call.wire for call in self.calls],
                    tuple(self.identity),
                    [tuple(one) for one in self.successors],
                    self.at,
                    self.ip,
                    self.user_agent,
                    self.url,
                    self.referrer,
                    dict(self.cookie),
                    self.records,
                    self.size,
                )
            )
        except ValueError:
            # Middleware may put a text into the environment that is more than that.
            return Envelope.from_json(json.loads(dumps(self.to_json()))).to_bytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> Envelope:
        """Return an envelope from what :meth:`to_bytes` returned in this process."""
        wires, identity, successors, *others = marshal.loads(data)
        return cls(
            [Call(wire) for wire in wires],
            Identity(*identity),
            [Identity(*one) for one in successors],
            *others,
        )
