"""The README's table: what the extension costs, and what its peers do.

``python -m benchmarks --peers`` measures all of them, each in a process of its own, in
rounds in which they take turns. It prints the table, and puts it into ``README.md`` in
the place of the last one.
"""

from __future__ import annotations

import collections.abc as c
import datetime as dt
import importlib.metadata
import importlib.util
import json
import math
import os
import platform
import statistics
import sys
import typing as t
from pathlib import Path

from .delivery import CLIENTS, OURS_WITH_SPOOL, delivered, number, run, troubled
from .pairs import compare
from .request_rows import Actions, rows
from .sink import sink
from .sites import EVENT, WEBHOOK, get, site

README = Path(__file__).parent.parent / "README.md"
BEGIN = "<!-- The output of `python -m benchmarks --peers`: -->\n"
END = "<!-- Until here. -->\n"

#: What each client is called here, and in the other tables.
NAMES = {
    "**Flask-Mengpaneel**": OURS_WITH_SPOOL,
    "mixpanel-py-async": "mixpanel-py-async",
    "posthog": "posthog",
    "segment": "segment",
    "Mixpanel's BufferedConsumer": "mixpanel BufferedConsumer",
    "Mixpanel's Consumer": "mixpanel Consumer",
}

_MODULE = "benchmarks.comparison"
_EVENTS = 20_000
#: Seconds until Mixpanel answers, if it does.
_LATENCY = 0.03
#: What it answers to requests: ``0`` is nothing ever.
_STATUSES = (200, 503, 0)
#: What the numbers depend on; the last two needn't be there.
_DISTRIBUTIONS = (
    "Flask",
    "mixpanel",
    "mixpanel-py-async",
    "posthog",
    "segment-analytics-python",
    "orjson",
    "isal",
)


class Measure(t.NamedTuple):
    """Some columns, and what gives a client's numbers for them."""

    columns: tuple[str, ...]
    numbers: c.Callable[[str], list[float]]
    rounds: int = 3


def _cost(name: str) -> list[float]:
    with sink() as url:
        return [run(_MODULE, name, url)["us"]]


def _delivery(name: str) -> list[float]:
    found = delivered(name, _LATENCY, _EVENTS)

    if found["lost"]:
        sys.exit(f"{name} has lost {found['lost']:.0f} events.")

    return [found["events/s"], found["CPU s/10,000"], found["bytes/event"]]


def _slowest(name: str) -> list[float]:
    return [troubled(name, status, _LATENCY)["p99"] for status in _STATUSES]


MEASURES = (
    Measure(("us of a request",), _cost),
    Measure(("events a second", "CPU s for 10,000", "bytes of one"), _delivery),
    Measure(("p99, ms", "p99 with 503", "p99 without an answer"), _slowest, 1),
)
COLUMNS = [column for measure in MEASURES for column in measure.columns]


def main() -> None:
    """Measure all, print the table, and put it into the README."""
    if missing := [
        name
        for name in NAMES.values()
        if not importlib.util.find_spec(CLIENTS[name][1])
    ]:
        sys.exit(
            f"{', '.join(missing)}: not installed, as `python3 dev.py bench` does."
        )

    conditions = said_of_machine()
    cells: dict[str, list[str]] = {name: [] for name in NAMES}

    for measure in MEASURES:
        found: dict[str, list[list[float]]] = {name: [] for name in NAMES}

        for _ in range(measure.rounds):
            for name, client in NAMES.items():
                found[name].append(measure.numbers(client))

        for name, seen in found.items():
            cells[name] += [
                cell(statistics.median(some)) for some in zip(*seen, strict=True)
            ]

    text = f"{table(cells)}\n{conditions}"
    print(text, end="")
    put_into_readme(text)


def cell(value: float) -> str:
    """Return a number for people; one that has no end is a request that waits still."""
    return number(value) if math.isfinite(value) else "waits"


def table(cells: c.Mapping[str, c.Sequence[str]]) -> str:
    """Return Markdown, with a row for each client."""
    lines = [["", *COLUMNS], ["---"] * (len(COLUMNS) + 1)]
    lines += [[name, *row] for name, row in cells.items()]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def said_of_machine() -> str:
    """Return a sentence on when and with what the numbers are measured."""
    versions = []

    for name in _DISTRIBUTIONS:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            pass

    others = f"a load of {os.getloadavg()[0]:.1f} by others"

    if os.sched_getscheduler(0) != os.SCHED_OTHER:
        others += ", whom `chrt` keeps away"

    return (
        f"Of {dt.date.today()}, medians of three rounds but for p99, on"
        f" {os.cpu_count()} cores ({platform.machine()}, {platform.system()},"
        f" {others}), with Python {platform.python_version()}, {', '.join(versions)}.\n"
    )


def put_into_readme(text: str, readme: Path = README) -> None:
    """Replace the table in the README."""
    before, begin, rest = readme.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin and end, "The README has lost the place of the table."
    readme.write_text(f"{before}{begin}{text}{end}{after}")


def _actions(name: str, url: str) -> Actions:
    """Return a request to a plain app, and one that tracks an event."""
    if name == OURS_WITH_SPOOL:
        ours = next(row for row in rows() if row.name == "1 by a webhook")
        return ours.make(url)

    client = CLIENTS[name][0](url)
    tracking = site(lambda: client.track(dict(EVENT[1])))
    path = "/json/tracked"
    plain, other = (get(app, path, WEBHOOK) for app in (site(), tracking))
    return Actions(plain, other, client.finish)


if __name__ == "__main__":
    plain, other, settle = _actions(*sys.argv[2:])
    pair = compare(plain, other, rounds=60, settle=settle)
    print(json.dumps({"us": pair.undisturbed}), flush=True)
    # Without the end of a process, which some spend on what is left.
    os._exit(0)
