"""A browser that does what ``mengpaneel.js`` and Mixpanel's library do with what is in
pages and headers, and what Mixpanel gets of it."""

from __future__ import annotations

import collections.abc as c
import dataclasses
import typing as t

from werkzeug.test import TestResponse

from simulated import SimulatedBrowser
from sites import CAPABLE, Site, block, header_calls

REDIRECTS = (301, 302, 303, 307, 308)


@dataclasses.dataclass
class Arrival:
    """Something that Mixpanel got."""

    what: str
    distinct_id: str
    device_id: str | None = None
    user_id: str | None = None
    insert_id: str | None = None


class Browser(SimulatedBrowser):
    """A browser that has ``mengpaneel.js`` and Mixpanel's library."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.arrived: list[Arrival] = []
        self.has_library = False
        self._made: set[str] = set()
        self._identified = False
        #: Profile operations wait here until `identify` is called, as the library's.
        self._held: list[dict[str, t.Any]] = []
        self._last: list[t.Any] = []

    # -- what it asks for

    def show(self, path: str, **headers: str) -> None:
        """Go to a page."""
        response = self._follow("GET", path, {"Sec-Fetch-Dest": "document", **headers})
        data = block(response)

        if data is not None:
            self.has_library, self._identified = True, False
            self._cookie()
            self._last = data.get("calls", [])
            self._hand_over()

    def again(self) -> None:
        """Show the last page again: back, reload, a duplicated tab."""
        if self.has_library:
            self._identified = False
            self._hand_over()

    def fetch(self, path: str, *, method: str = "POST", capable: bool = True) -> None:
        """Let a script of the page ask for something."""
        headers = {"Sec-Fetch-Dest": "empty", "Accept": "*/*"}

        if capable and self.has_library:
            headers.update(CAPABLE)

        for call in header_calls(self._follow(method, path, headers)):
            self._make(call)

    def load(self, path: str, destination: str, **headers: str) -> None:
        """Ask for something that isn't shown as a page."""
        self._follow("GET", path, {"Sec-Fetch-Dest": destination, **headers})

    def _follow(self, method: str, path: str, headers: dict[str, str]) -> TestResponse:
        response = self.client.open(path, method=method, headers=headers)

        while response.status_code in REDIRECTS:
            location = response.headers["Location"]

            if location.startswith("https://"):
                break

            response = self.client.get(location, headers=headers)

        return response

    # -- what the scripts do

    def _hand_over(self) -> None:
        for once, calls in self._last:
            if once not in self._made:
                if once is not None:
                    self._made.add(once)

                for call in calls:
                    self._make(call)

    def _make(self, call: list[t.Any]) -> None:
        name = ".".join(call[0])
        cookie = self._cookie()

        if name == "track":
            own = call[1][1]

            if "distinct_id" in own:
                # The script sees to it that it's nobody else's.
                cookie.pop("$user_id", None)

            self._arrive(call[1][0], {**cookie, **own})
        elif name == "identify":
            self._identify(call[1][0])
        elif name == "alias":
            self._arrive(f"alias {call[1][0]}", cookie)
            self._identify(call[1][0])
        elif name == "reset":
            self._new_visitor()
            self._held = []
        elif name.startswith("people."):
            self._held.append(call[1][0])
            self._release()
        else:
            assert name == "register"

    def _identify(self, user: str) -> None:
        self._identified = True
        self._be(user)
        self._release()

    def _release(self) -> None:
        if self._identified:
            for operation in self._held:
                for name in operation:
                    self._arrive(name, {**self._cookie(), "$insert_id": None})

            self._held = []

    def _arrive(self, what: str, properties: dict[str, t.Any]) -> None:
        self.arrived.append(
            Arrival(
                what,
                properties["distinct_id"],
                properties.get("$device_id"),
                properties.get("$user_id"),
                properties.get("$insert_id"),
            )
        )


def arrivals_of(message: dict[str, t.Any]) -> c.Iterator[Arrival]:
    """What Mixpanel gets with a message from the server."""
    if "event" in message:
        properties = message["properties"]
        name = message["event"]
        yield Arrival(
            f"alias {properties['alias']}" if name == "$create_alias" else name,
            properties["distinct_id"],
            properties.get("$device_id"),
            properties.get("$user_id"),
            properties.get("$insert_id"),
        )
        return

    for value in message.values():
        for name in value if isinstance(value, dict) else ():
            if name.startswith("profile"):
                yield Arrival(name, message["$distinct_id"])
