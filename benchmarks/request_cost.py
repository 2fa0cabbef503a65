"""What a request costs above that of a plain Flask app, and above it with the peers."""

from __future__ import annotations

import collections.abc as c
import typing as t

from flask import Flask

from . import peers
from .pairs import Pair, compare, heading
from .request_rows import IDLE, PAGES, TRACKED, path_of, rows
from .sink import sink
from .sites import PAGE_VIEW, SIZES, WEBHOOK, get, site

_COLUMNS = f"{'':44}{'plain, us':>10}{'above, us':>11}{'undisturbed':>13}  to reach"

#: Rounds of a row whose calls are delivered between the rounds.
_SETTLED = 300


def main() -> None:
    """Measure requests without calls, with events, pages, redirects and fetches."""
    others = {IDLE: _hooks, TRACKED: _trackers, PAGES: _injectors}

    with sink() as url:
        for table in dict.fromkeys(row.table for row in rows()):
            heading(table, _COLUMNS)

            for row in rows():
                if row.table == table:
                    plain, other, settle = row.make(url)
                    rounds = _SETTLED if table == TRACKED else 1000
                    pair = compare(plain, other, rounds=rounds, settle=settle)
                    _print(row.name, pair, row.goal)

                    if table == TRACKED:
                        pair = compare(plain, other, rounds=rounds)
                        settle()
                        _print("  without pauses for delivery", pair)

            if table in others:
                others[table](url)


def _hooks(url: str) -> None:
    app = site()
    app.before_request(lambda: None)
    app.after_request(lambda response: response)
    app.teardown_request(lambda error: None)
    _compare("three empty hooks", app, "/text", WEBHOOK)


def _trackers(url: str) -> None:
    for name, make in peers.TRACKERS.items():
        with make(url) as (track, settle):
            options = {"rounds": 50, "settle": settle}
            _compare(f"1 with {name}", site(track), "/json/tracked", WEBHOOK, **options)


def _injectors(url: str) -> None:
    for name, make in peers.INJECTORS.items():
        changed = make(site())

        for size in SIZES:
            path, options = path_of(size), {"calls": 1, "rounds": 10}
            _compare(f"{name}, {size}", changed, path, PAGE_VIEW, **options)


def _compare(
    name: str, app: Flask, path: str, headers: c.Mapping[str, str], **options: t.Any
) -> None:
    """Measure a request to the app beside the same one to the plain app."""
    plain = get(site(), path, headers)
    _print(name, compare(plain, get(app, path, headers), **options))


def _print(name: str, pair: Pair, goal: str = "") -> None:
    print(
        f"{name:44}{pair.base:10.1f}{pair.above:11.1f}{pair.undisturbed:13.1f}  {goal}",
        flush=True,
    )
