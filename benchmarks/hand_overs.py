"""What it costs that clients acknowledge what they were given."""

from __future__ import annotations

import gc
import io
import itertools
import re
import resource
import time
import typing as t

from flask import Flask
from werkzeug.test import create_environ

from flask_mengpaneel import Mengpaneel, Transport

from .pairs import Pair, compare, heading
from .sites import EVENT, FETCH, PAGE_VIEW, RETURNING, TOKEN, get, response, site

WAITING = 100_000

_TOKEN = re.compile(r'"handover":"([^"]+)"')
_COLUMNS = f"{'':52}{'plain, us':>10}{'above, us':>11}{'undisturbed':>13}  to reach"


class _Nowhere(Transport):
    """Sends nothing, so that nothing is measured of it."""

    reports_delivery = True

    def send(self, envelope: object) -> bool:
        return True


def main() -> None:
    """Measure pages with a call, acknowledgements, and what waits for them."""
    _requests()
    _waiting()


def _shop(**settings: t.Any) -> Flask:
    mengpaneel = Mengpaneel(token=TOKEN, transport=_Nowhere(), spool=None, **settings)
    app = site(lambda: mengpaneel.track(*EVENT))
    mengpaneel.init_app(app)
    return app


def _requests() -> None:
    heading("A hand-over", _COLUMNS)
    believed, kept = _shop(ack_timeout=0), _shop()
    view, fetch = PAGE_VIEW | RETURNING, FETCH | RETURNING
    acks = fetch | {"X-Mengpaneel-Flush-Capable": f"true; ack; project={TOKEN}"}

    for name, path, headers in (
        ("a page with one call, kept above believed", "/2KB/tracked", view),
        ("a header with one call, kept above believed", "/json/tracked", acks),
    ):
        _print(
            name, compare(get(believed, path, headers), get(kept, path, headers)), "5"
        )

    # As a browser does: a page, and then its acknowledgement.
    tokens = itertools.cycle(_tokens(kept, view, 2000))
    environ = create_environ("/_mengpaneel/acks", method="POST", headers=FETCH)

    def acknowledge() -> None:
        body = next(tokens).encode()
        given = {**environ, "wsgi.input": io.BytesIO(body)}
        given["CONTENT_LENGTH"] = str(len(body))
        given["REMOTE_ADDR"] = next(addresses)
        kept(given, lambda status, _headers: _assert_taken(status))

    addresses = itertools.cycle(
        f"198.51.{a}.{b}" for a in range(250) for b in range(250)
    )
    _print(
        "the request that acknowledges, above a plain view",
        compare(get(site(), "/text", FETCH), acknowledge),
        "60 in all",
    )


def _assert_taken(status: str) -> None:
    """Let nothing be measured but what is right."""
    assert status.startswith("204"), status


def _tokens(app: Flask, headers: dict[str, str], number: int) -> list[str]:
    found = []

    for _ in range(number):
        page = response(app, "/2KB/tracked", headers).get_data(as_text=True)
        found += _TOKEN.findall(page)

    assert len(found) == number
    return found


def _waiting() -> None:
    heading(f"{WAITING:,} hand-overs that wait", f"{'':52}{'seen':>10}  to reach")
    app = _shop(ack_timeout=3600)
    hand_overs = app.extensions["mengpaneel"].hand_overs
    ledger = app.extensions["mengpaneel"].ledger
    view = PAGE_VIEW | RETURNING
    _tokens(app, view, 200)
    gc.collect()
    before = _memory()
    tokens = _tokens(app, view, WAITING)
    _await(lambda: len(hand_overs._memory.recent) < 400)
    gc.collect()
    # What remembers them for this benchmark is no part of it.
    own = sum(map(len, tokens)) + 58 * len(tokens)
    print(f"{'memory, MB':52}{(_memory() - before - own) / 1e6:10.1f}  20")

    signer = app.extensions["mengpaneel"].signer
    started = time.perf_counter()

    for token in tokens:
        hand_overs.acknowledge([signer.id_of(token)])

    _await(lambda: ledger.snapshot().waiting <= 200)
    took = time.perf_counter() - started
    print(f"{'acknowledgements a second, request apart':52}{WAITING / took:10.0f}")


def _await(condition: t.Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300

    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)

    assert condition()


def _memory() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def _print(name: str, pair: Pair, goal: str) -> None:
    print(
        f"{name:52}{pair.base:10.1f}{pair.above:11.1f}{pair.undisturbed:13.1f}  {goal}",
        flush=True,
    )
