"""Whose each event is, by the ids of all: as Mixpanel's two merges of ids say."""

from __future__ import annotations

import collections.abc as c
import typing as t

Event = dict[str, t.Any]


def simplified(events: c.Iterable[Event], by: str = "Number") -> dict[int, str]:
    """Whose each event is, as the simplified merge says: a message with a device and a
    user links the two; the first user of a device owns what it did without one.

    :param by: the property that has an event's number.
    """
    messages = [event["properties"] for event in events]
    owners: dict[str, str] = {}

    for properties in sorted(messages, key=lambda message: message["time"]):
        device, user = properties.get("$device_id"), properties.get("$user_id")

        if device and user:
            owners.setdefault(device, user)

    return {
        properties[by]: _person(properties, owners)
        for properties in messages
        if by in properties
    }


def _person(properties: dict[str, t.Any], owners: dict[str, str]) -> str:
    device = properties.get("$device_id")
    anonymous = owners.get(device, f"$device:{device}") if device else None
    person = properties.get("$user_id") or anonymous or properties["distinct_id"]
    return t.cast(str, person)


def original(events: c.Iterable[Event], by: str = "Number") -> dict[int, str]:
    """Whose each event is, as the original merge says; who has several names, has all
    of them.

    :param by: the property that has an event's number.
    """
    events = list(events)
    clusters = Clusters(events)
    return {
        event["properties"][by]: clusters.person(event["properties"]["distinct_id"])
        for event in events
        if by in event["properties"]
    }


class Clusters:
    """Which ids are one person, as the original merge says: by the messages that link
    two of them. The id of a device is linked once, and no other id is one that an
    ``identify`` may link; an alias is of one id only.

    Mixpanel takes the id of a device with and without its prefix.

    :param events: in order of arrival.
    """

    def __init__(self, events: c.Iterable[Event]) -> None:
        events = list(events)
        self._ids: dict[str, set[str]] = {}
        self._devices = {event["properties"].get("$device_id") for event in events}
        linked: set[str] = set()

        for event in events:
            for new, old in self._links(event["event"], event["properties"]):
                if new not in linked:
                    linked.add(new)
                    self._join(new, old)

    def _links(
        self, event: str, properties: dict[str, t.Any]
    ) -> c.Iterator[tuple[str, str]]:
        """The ids that a message links; the first may be linked only once."""
        id = properties["distinct_id"]

        if event == "$identify":
            anonymous = properties.get("$anon_id") or properties["$anon_distinct_id"]
            anonymous = anonymous.removeprefix("$device:")

            if anonymous in self._devices:
                yield anonymous, properties.get("$identified_id", id)
        elif event == "$create_alias":
            yield properties["alias"], id.removeprefix("$device:")

    def _join(self, one: str, other: str) -> None:
        both = self.of(one) | self.of(other)
        self._ids.update(dict.fromkeys(both, both))

    def of(self, id: str) -> set[str]:
        """All ids of the person that has this one."""
        plain = id.removeprefix("$device:")
        return self._ids.get(plain, {plain})

    def person(self, id: str) -> str:
        """The names of the person that has this id; else one of a device."""
        ids = self.of(id)
        names = ids - self._devices
        return "+".join(sorted(names)) if names else f"$device:{min(ids)}"
