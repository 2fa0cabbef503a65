"""The tables of requests and of delivery on this revision and on another one, in turns.

``python -m benchmarks --against REVISION``. For requests each revision has a process of
its own. They take turns of some rounds each, in which the extension's app and the plain
one take turns as well, so that what disturbs the one disturbs the other. What delivers
has a new process in each round.

The steps are the calls of functions that a request makes more than the one to the plain
app. They are the same on each machine, however busy it is.
"""

from __future__ import annotations

import collections.abc as c
import contextlib
import functools
import gc
import io
import json
import logging
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import typing as t
from pathlib import Path

from . import delivery
from .pairs import heading, measure, pair_of
from .request_rows import Actions, rows
from .sink import sink
from .steps import steps_above

_ROOT = Path(__file__).parent.parent
_MODULE = "benchmarks.against"
# What a row of the tables is measured with: turns, and rounds in each.
_TURNS = 8
_ROUNDS = 60
# Rounds of delivery, and events in each.
_DELIVERIES = 5
_EVENTS = 20_000

Times: t.TypeAlias = "list[tuple[float, float]]"


def main(revision: str) -> None:
    """Measure each row in turns, and print what it costs there and here."""
    with tempfile.TemporaryDirectory() as folder:
        there = Path(folder)
        _check_out(revision, there)
        _compare_requests(revision, there)
        _compare_delivery(revision, there)


def _compare_requests(revision: str, there: Path) -> None:
    columns = (
        f"{'':44}{revision[:12]:>14}{'here':>8}{'ratio':>8}{'steps':>8}{'here':>8}"
        f"{'ratio':>8}  us to reach"
    )

    with contextlib.ExitStack() as stack:
        url = stack.enter_context(sink())
        sides = [stack.enter_context(_started(root, url)) for root in (there, _ROOT)]
        table = None

        for number, row in enumerate(rows()):
            if row.table != table:
                table = row.table
                heading(f"{table}, us above a plain view", columns)

            times: list[Times] = [[], []]
            steps = [_ask(process, ["steps", number]) for process in sides]

            for turn in range(_TURNS + 1):
                for side, process in enumerate(sides):
                    some = _ask(process, ["times", number])

                    # The first ones fill caches.
                    if turn:
                        times[side] += some

            before, after = (pair_of(one).undisturbed for one in times)
            print(
                f"{row.name:44}{before:14.1f}{after:8.1f}{after / before:8.2f}"
                f"{steps[0]:8}{steps[1]:8}{steps[1] / steps[0]:8.2f}  {row.goal}",
                flush=True,
            )


def _compare_delivery(revision: str, there: Path) -> None:
    heading(
        "Delivery, with a spool, in the median",
        f"{'':44}{revision[:12]:>14}{'here':>12}{'ratio':>8}",
    )

    for measure_at in _deliveries():
        results: list[list[delivery.Numbers]] = [[], []]

        for turn in range(_DELIVERIES):
            # The second in a row is not the same one always.
            sides = list(zip((there, _ROOT), results, strict=True))

            for root, numbers in sides[:: 1 if turn % 2 else -1]:
                numbers.append(measure_at(root))

        for name in results[0][0]:
            before, after = (
                statistics.median(numbers[name] for numbers in side) for side in results
            )
            ratio = f"{after / before:8.2f}" if before else ""
            print(
                f"{name:44}{delivery.number(before):>14}{delivery.number(after):>12}"
                f"{ratio}",
                flush=True,
            )


def _deliveries() -> c.Iterator[c.Callable[[Path], delivery.Numbers]]:
    """Give functions that measure the package in a folder, each once."""

    def delivered(latency: float, root: Path) -> delivery.Numbers:
        numbers = delivery.delivered(delivery.OURS_WITH_SPOOL, latency, _EVENTS, root)
        return {
            f"{column}, sink at {latency * 1000:.0f} ms": numbers[column]
            for column in ("events/s", "CPU s/10,000", "bytes/event")
        }

    def asked(what: str, events: int, root: Path) -> delivery.Numbers:
        with delivery.sink() as (url, _):
            return delivery.child(
                what, delivery.OURS_WITH_SPOOL, url, events, root=root
            )

    def handed_over(root: Path) -> delivery.Numbers:
        numbers = asked("hand_over", _EVENTS, root)
        return {
            "us for recording an event": numbers["track()"],
            "us for handing it over": numbers["hand over"],
        }

    def ended(root: Path) -> delivery.Numbers:
        numbers = asked("end_unit", _EVENTS // 5, root)
        return {f"us for the end of a {name}": numbers[name] for name in numbers}

    def held(root: Path) -> delivery.Numbers:
        name, events = delivery.OURS_WITH_SPOOL, delivery.WAITING
        numbers = delivery.child("hold", name, delivery.NOBODY, events, root=root)
        return {f"MB for {events:,} events that wait": numbers["MB"]}

    yield from (functools.partial(delivered, at) for at in delivery.LATENCIES)
    yield from (handed_over, ended, held)


def _check_out(revision: str, folder: Path) -> None:
    """Put the package as it was into a folder, with the benchmarks of today."""
    command = ["git", "archive", revision, "flask_mengpaneel", "static"]
    archive = subprocess.run(command, cwd=_ROOT, check=True, capture_output=True)

    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(folder, filter="data")

    shutil.copytree(Path(__file__).parent, folder / "benchmarks")


def _started(root: Path, url: str) -> subprocess.Popen[str]:
    """Start the process of a revision, which ends with its input."""
    return subprocess.Popen(
        [sys.executable, "-m", _MODULE, url],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _ask(process: subprocess.Popen[str], what: list[t.Any]) -> t.Any:
    assert process.stdin is not None
    assert process.stdout is not None
    print(json.dumps(what), file=process.stdin, flush=True)
    return json.loads(process.stdout.readline())


def _answer(url: str) -> None:
    """Measure the rows that are asked for, as often as they are."""
    logging.disable()
    made: dict[int, Actions] = {}

    for line in sys.stdin:
        what, number = json.loads(line)

        if number not in made:
            made.clear()
            made[number] = rows()[number].make(url)
            gc.collect()
            gc.freeze()

        plain, other, settle = made[number]
        found: object

        if what == "steps":
            found = sum(steps_above(made[number]).values())
        else:
            found = measure(plain, other, calls=5, rounds=_ROUNDS, settle=settle)

        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    _answer(sys.argv[1])
