"""The tables of requests on this revision and on another one, in turns.

``python -m benchmarks --against REVISION``. Each revision has a process of its own.
They take turns of some rounds each, in which the extension's app and the plain one take
turns as well, so that what disturbs the one disturbs the other.

The steps are the calls of functions that a request makes more than the one to the plain
app. They are the same on each machine, however busy it is.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import logging
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import typing as t
from pathlib import Path

from .pairs import heading, measure, pair_of
from .request_rows import Actions, rows
from .sink import sink
from .steps import steps_above

_ROOT = Path(__file__).parent.parent
_MODULE = "benchmarks.against"
# What a row of the tables is measured with: turns, and rounds in each.
_TURNS = 8
_ROUNDS = 60

Times: t.TypeAlias = "list[tuple[float, float]]"


def main(revision: str) -> None:
    """Measure each row in turns, and print what it costs there and here."""
    columns = (
        f"{'':44}{revision[:12]:>14}{'here':>8}{'ratio':>8}{'steps':>8}{'here':>8}"
        f"{'ratio':>8}  us to reach"
    )

    with contextlib.ExitStack() as stack:
        there = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        _check_out(revision, there)
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
