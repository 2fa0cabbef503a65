"""Records as Mixpanel's endpoints take them, and the calls that they come from."""

from __future__ import annotations

import base64
import time
import typing as t

from flask_mengpaneel.calls import Call

#: The credentials that /import wants: a project's token as Basic user.
BASIC = {"Authorization": "Basic " + base64.b64encode(b"token:").decode()}


def event(name: str = "Place Order", **properties: t.Any) -> dict[str, t.Any]:
    """An event of Ada's, of now; each name has an ``$insert_id`` of its own."""
    found = {
        "token": "token",
        "time": round(time.time(), 3),
        "distinct_id": "ada",
        "$insert_id": name.encode(errors="replace").hex()[-36:],
        **properties,
    }
    return {"event": name, "properties": found}


def update(**operations: t.Any) -> dict[str, t.Any]:
    """A profile update of Ada's."""
    return {"$token": "token", "$distinct_id": "ada", **operations}


def track(value: dict[str, t.Any]) -> Call:
    """The call that an event comes from."""
    return Call([["track"], [value["event"], dict(value["properties"])]])


def people(method: str, *arguments: t.Any) -> Call:
    """A call of a method of ``mixpanel.people``."""
    return Call([["people", method], list(arguments)])


#: The server's clock where it must not move, in seconds since the epoch.
NOW = 1_790_000_000.0


def past_event(**properties: t.Any) -> dict[str, t.Any]:
    """An event of a second before :data:`NOW`."""
    return event(**{"time": NOW - 1, **properties})


def without(name: str) -> dict[str, t.Any]:
    """The same event without one of its properties."""
    value = past_event()
    del value["properties"][name]
    return value
