"""What a request costs above that of a plain Flask app, and above it with the peers."""

from __future__ import annotations

import collections.abc as c
import json
import typing as t
from urllib.parse import quote

from flask import Flask

from . import peers, sites
from .pairs import compare, heading
from .sink import sink
from .sites import FETCH, PAGE_VIEW, SIZES, WEBHOOK, get, site

PLAIN = site()

_COLUMNS = f"{'':44}{'plain, us':>10}{'above, us':>11}{'undisturbed':>13}  to reach"


def main() -> None:
    """Measure requests without calls, with events, pages, redirects and fetches."""
    with sink() as url:
        _idle(url)
        _events(url)
        _pages(url)
        _carried(url)


def _idle(url: str) -> None:
    heading("A request without a call", _COLUMNS)
    app, _ = sites.shop(url)

    for path in ("/text", "/json"):
        _row(f"Flask-Mengpaneel, {path}", app, path, FETCH, "at most 3")

    _row("Flask-Mengpaneel, /json, with cookies", app, "/json", returning())
    _row("three empty hooks, /text", _hooked(), "/text", FETCH)


def _hooked() -> Flask:
    app = site()
    app.before_request(lambda: None)
    app.after_request(lambda response: response)
    app.teardown_request(lambda error: None)
    return app


def _events(url: str) -> None:
    heading("A request that tracks, delivered in the background", _COLUMNS)
    clients = {
        "a webhook": WEBHOOK,
        "a returning visitor's fetch": returning(),
        "a new visitor's fetch": FETCH,
    }

    for events, goal in ((1, "at most 20"), (10, "")):
        app, mengpaneel = sites.shop(url, events)

        settled = {"rounds": 300, "settle": mengpaneel.drain}

        for client, headers in clients.items():
            name = f"{events} by {client}"
            _row(name, app, "/json/tracked", headers, goal, **settled)

        name = f"{events} by a webhook, each the first of an envelope"
        _row(name, app, "/json/tracked", WEBHOOK, calls=1, **settled)

    for name, make in peers.TRACKERS.items():
        with make(url) as (track, settle):
            app = site(track)
            _row(
                f"1 with {name}",
                app,
                "/json/tracked",
                WEBHOOK,
                rounds=50,
                settle=settle,
            )


def _pages(url: str) -> None:
    heading("A page without calls of its own", _COLUMNS)
    app, _ = sites.shop(url)
    goals = {"50 KB": "at most 8", "1 MB": "at most 30"}

    for size in SIZES:
        goal = goals.get(size, "")
        _row(f"Flask-Mengpaneel, {size}", app, _path(size), PAGE_VIEW, goal)

    for name, make in peers.INJECTORS.items():
        changed = make(site())

        for size in SIZES:
            _row(f"{name}, {size}", changed, _path(size), PAGE_VIEW, calls=1, rounds=10)

    heading("A page with calls", _COLUMNS)

    for events in (1, 10):
        app, _ = sites.shop(url, events)

        for size in SIZES:
            path = _path(size) + "/tracked"
            _row(f"{events} in {size}", app, path, PAGE_VIEW)


def _carried(url: str) -> None:
    heading("Calls that go elsewhere with the response", _COLUMNS)
    app, _ = sites.shop(url)
    _row("1 over a redirect", app, "/redirect/tracked", PAGE_VIEW)
    moved = sites.response(app, "/redirect/tracked", PAGE_VIEW)
    cookies = (one.partition(";")[0] for one in moved.headers.getlist("Set-Cookie"))
    held = PAGE_VIEW | {"Cookie": "; ".join(cookies)}
    assert b"Place Order" in sites.response(app, "/50KB", held).get_data()
    _row("1 replayed in 50 KB", app, "/50KB", held)
    capable = FETCH | {"X-Mengpaneel-Flush-Capable": "true"}
    _row("1 in the header of a fetch", app, "/json/tracked", capable)


def _path(size: str) -> str:
    return "/" + size.replace(" ", "")


def returning() -> dict[str, str]:
    """A fetch with the session's cookie and that of Mixpanel's browser library."""
    kept = {
        "distinct_id": "$device:18f5e4c6-0a1b-4c2d-9e3f-5a6b7c8d9e0f",
        "$device_id": "18f5e4c6-0a1b-4c2d-9e3f-5a6b7c8d9e0f",
        "$initial_referrer": "$direct",
        "$initial_referring_domain": "$direct",
        "__mps": {},
        "__mpso": {},
        "__mpus": {},
        "__mpa": {},
        "__mpu": {},
        "__mpr": [],
        "__mpap": [],
    }
    mixpanel = quote(json.dumps(kept, separators=(",", ":")))
    session = "eyJ1c2VyX2lkIjo0Mn0.aSDq8A.0Gq7sYh5o2mUOe3bXkZ1Jw9vT5E"
    return FETCH | {
        "Cookie": f"session={session}; mp_{sites.TOKEN}_mixpanel={mixpanel}"
    }


def _row(
    name: str,
    app: Flask,
    path: str,
    headers: c.Mapping[str, str],
    goal: str = "",
    **options: t.Any,
) -> None:
    """Measure a request to the app beside the same one to the plain app."""
    plain = get(PLAIN, path, headers)
    pair = compare(plain, get(app, path, headers), **options)
    print(
        f"{name:44}{pair.base:10.1f}{pair.above:11.1f}{pair.undisturbed:13.1f}  {goal}",
        flush=True,
    )
