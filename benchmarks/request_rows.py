"""The requests whose cost is measured, each beside the same one to a plain app."""

from __future__ import annotations

import collections.abc as c
import dataclasses
import typing as t

from . import sites
from .pairs import Action
from .sites import (
    FETCH,
    PAGE_VIEW,
    RETURNING,
    SIZES,
    WEBHOOK,
    get,
    shop,
    signed_in,
    site,
)


class Actions(t.NamedTuple):
    """What is measured in turns, and what is done between the rounds."""

    plain: Action
    other: Action
    settle: Action


@dataclasses.dataclass(frozen=True)
class Row:
    """A request to the app with the extension, and the same to a plain one.

    :param goal: microseconds to reach, above the plain app.
    :param beside: the path at the plain app, if it is another one.
    :param settings: of the extension.
    """

    table: str
    name: str
    path: str
    headers: c.Mapping[str, str]
    goal: str = ""
    beside: str | None = None
    events: int = 1
    signs_in: bool = False
    settings: c.Mapping[str, t.Any] = dataclasses.field(default_factory=dict)

    def make(self, url: str) -> Actions:
        """Make what is measured.

        :param url: where events go.
        """
        app, mengpaneel = shop(
            url, self.events, signs_in=self.signs_in, **self.settings
        )
        plain = site(identify=(lambda _: None) if self.signs_in else None)
        headers = self.headers

        if self.name.startswith("1 replayed"):
            headers = _with_waiting(app, headers)

        return Actions(
            get(plain, self.beside or self.path, headers),
            get(app, self.path, headers),
            mengpaneel.drain,
        )


def _with_waiting(app: t.Any, headers: c.Mapping[str, str]) -> dict[str, str]:
    """Return the headers of a visitor in whose session a call waits."""
    moved = sites.response(app, "/redirect/tracked", headers)
    cookies = [line.partition(";")[0] for line in moved.headers.getlist("Set-Cookie")]
    held = {**headers, "Cookie": "; ".join([*cookies, headers["Cookie"]])}
    assert b"Place Order" in sites.response(app, "/50KB", held).get_data()
    return held


def path_of(size: str) -> str:
    """Return the path of a page."""
    return "/" + size.replace(" ", "")


_SERVER_ONLY = {"strategies": ["AsyncServerSide", "ServerSide"]}
_FETCHER = {**FETCH, **RETURNING}
_VIEWER = {**PAGE_VIEW, **RETURNING}
_ANNOUNCED = {"X-Mengpaneel-Flush-Capable": f"true; ack; project={sites.TOKEN}"}
_CAPABLE = {**_FETCHER, **_ANNOUNCED}

IDLE = "A request without a call"
TRACKED = "A request that tracks, delivered in the background"
PAGES = "A page without calls of its own"
WITH_CALLS = "A page with calls"
ELSEWHERE = "Calls that go elsewhere with the response"


def rows() -> list[Row]:
    """Return all, in the order of their tables."""
    user = signed_in()
    goals = {"2 KB": ("12", "55"), "50 KB": ("13", "57"), "1 MB": ("40", "95")}
    found = [
        Row(IDLE, "text, a client without cookies", "/text", WEBHOOK, "3.5"),
        Row(IDLE, "JSON, a client without cookies", "/json", WEBHOOK, "3.5"),
        Row(IDLE, "JSON, a new visitor", "/json", FETCH, "3.5"),
        Row(IDLE, "JSON, a returning visitor", "/json", _FETCHER, "4"),
        Row(IDLE, "JSON, signed in", "/json", {**FETCH, **user}, "4"),
        Row(IDLE, "JSON, signed in, set up", "/json", {**FETCH, **user}, signs_in=True),
        Row(IDLE, "a fragment of HTML", "/fragment", _FETCHER, "8"),
    ]

    for events, goal in ((1, ("25", "45", "45")), (10, ("", "", ""))):
        tracked = (
            ("by a webhook", WEBHOOK, {}, goal[0]),
            ("by a returning visitor's fetch", _FETCHER, {}, goal[1]),
            ("by a new visitor's fetch", FETCH, {}, ""),
            ("in an app without JavaScript", _VIEWER, _SERVER_ONLY, goal[2]),
            ("by a signed-in visitor's fetch", {**FETCH, **user}, {}, ""),
        )
        found += [
            Row(
                TRACKED,
                f"{events} {name}",
                "/json/tracked",
                headers,
                to_reach,
                events=events,
                settings=settings,
            )
            for name, headers, settings, to_reach in tracked
        ]

    for size in SIZES:
        found.append(Row(PAGES, size, path_of(size), _VIEWER, goals[size][0]))

    found.append(Row(PAGES, "2 KB, a new visitor", path_of("2 KB"), PAGE_VIEW))
    found.append(
        Row(
            PAGES,
            "2 KB, signed in, set up",
            path_of("2 KB"),
            {**PAGE_VIEW, **user},
            signs_in=True,
        )
    )

    for size in SIZES:
        path = f"{path_of(size)}/tracked"
        found.append(Row(WITH_CALLS, f"1 in {size}", path, _VIEWER, goals[size][1]))

    path = f"{path_of('2 KB')}/tracked"
    return [
        *found,
        Row(WITH_CALLS, "1 in 2 KB, a new visitor", path, PAGE_VIEW),
        Row(
            WITH_CALLS,
            "1 in 2 KB, signed in, set up",
            path,
            {**PAGE_VIEW, **user},
            signs_in=True,
        ),
        Row(WITH_CALLS, "10 in 2 KB", path, _VIEWER, events=10),
        Row(
            ELSEWHERE,
            "1 over a redirect",
            "/redirect/tracked",
            _VIEWER,
            "110",
            "/remembered",
        ),
        Row(ELSEWHERE, "1 replayed in 50 KB", path_of("50 KB"), _VIEWER),
        Row(ELSEWHERE, "1 in the header of a fetch", "/json/tracked", _CAPABLE, "60"),
        Row(
            ELSEWHERE,
            "1 over a redirect, signed in",
            "/redirect/tracked",
            {**PAGE_VIEW, **user},
            beside="/remembered",
        ),
        Row(
            ELSEWHERE,
            "1 in the header of a fetch, signed in",
            "/json/tracked",
            {**FETCH, **user, **_ANNOUNCED},
        ),
    ]
