"""Importing events of the past, as ``flask mengpaneel import`` does it.

``python -m benchmarks.history [--events N] [--rounds N]``

A command in a process of its own reads a file of the events that ``delivery`` tracks,
and sends them to the same sink. The clock runs from its start to its end, with loading
Flask and the app. In turns with it, ``delivery`` tracks as many events.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
import typing as t
from pathlib import Path

from . import delivery

NAMES = {"JSON lines": "old.jsonl", "CSV": "old.csv"}
TRACKED = "tracked, as delivery does"
APP = """\
import os
from flask import Flask
from flask_mengpaneel import Mengpaneel

app = Flask(__name__)
Mengpaneel(app, token="t", api_host=os.environ["SINK"])
"""


def main(events: int = 1_000_000, rounds: int = 3) -> None:
    """Measure the import of both kinds of file, and print medians and spreads."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, events)
        few = folder / "few"
        few.mkdir()
        write(few, events // 10)

        for latency in delivery.LATENCIES:
            results = delivery.rounds_of(
                [*NAMES, TRACKED],
                rounds,
                lambda name, latency=latency: measured(name, folder, latency, events),
            )
            title = f"{events:,} events, sink at {latency * 1000:.0f} ms"
            delivery.show(title, results)

        tenth = delivery.rounds_of(
            list(NAMES), 1, lambda name: imported(few / NAMES[name], 0.0)
        )
        delivery.show(f"{events // 10:,} events, sink at 0 ms", tenth)


def write(folder: Path, events: int) -> None:
    """Write an app, and a file of each kind."""
    (folder / "app.py").write_text(APP)

    with (
        (folder / NAMES["JSON lines"]).open("w") as lines,
        (folder / NAMES["CSV"]).open("w", newline="") as rows,
    ):
        columns = ["distinct_id", "time", "$insert_id", *delivery.PROPERTIES[0]]
        table = csv.writer(rows)
        table.writerow(["event", *columns])

        for number in range(events):
            own = ["ann", 1_700_000_000 + number / 1000, f"id-{number}"]
            chosen = delivery.PROPERTIES[number % len(delivery.PROPERTIES)]
            values = [*own, *chosen.values()]
            properties = dict(zip(columns, values, strict=True))
            record = {"event": delivery.NAME, "properties": properties}
            lines.write(f"{json.dumps(record)}\n")
            table.writerow([delivery.NAME, *values])


def measured(name: str, folder: Path, latency: float, events: int) -> dict[str, float]:
    if name != TRACKED:
        return imported(folder / NAMES[name], latency)

    seen = delivery.delivered(delivery.OURS, latency, events)
    columns = ("events/s", "CPU s/10,000", "bytes/event", "requests", "lost")
    return {**{column: seen[column] for column in columns}, "MB": float("nan")}


def imported(file: Path, latency: float) -> dict[str, float]:
    """Import a file, from the beginning."""
    lines = sum(1 for _ in file.open("rb")) - (file.suffix == ".csv")
    command = [sys.executable, "-m", "flask", "mengpaneel", "import", file.name]

    with delivery.sink(latency) as (url, counters):
        environ = {
            **os.environ,
            "SINK": url,
            "PYTHONPATH": str(Path(__file__).parent.parent),
        }
        started = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=file.parent, env=environ, stderr=subprocess.DEVNULL
        )
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        assert not status, "the import failed"
        arrived, size, requests = counters

    return t.cast(
        "dict[str, float]",
        {
            "events/s": arrived / seconds,
            "CPU s/10,000": (used.ru_utime + used.ru_stime) / arrived * 10_000,
            "bytes/event": size / arrived,
            "requests": requests,
            "lost": lines - arrived,
            "MB": used.ru_maxrss / 1024,
        },
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    main(**vars(parser.parse_args()))
