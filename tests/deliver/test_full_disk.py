"""The spool on a disk that is full: a small one, which only the test uses."""

from __future__ import annotations

import collections.abc as c
import errno
import subprocess
from pathlib import Path

import pytest
from flask import Flask

from flask_mengpaneel import Manager, Mengpaneel
from flask_mengpaneel.deliver.spool import Spool
from flask_mengpaneel.metrics import LedgerMetrics
from processes import ledgers, run, started
from sink import Sink, Status

LATER = """
import flask_mengpaneel.deliver.spool as spool
# The process that ended may have had no room to give its lease back.
spool.LEASE = 0.0
visit(app)
assert mengpaneel.flush(60)
"""


@pytest.fixture
def disk(tmp_path: Path) -> c.Iterator[Path]:
    """A megabyte for the app's instance folder."""
    folder = tmp_path / "instance"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    if done.returncode:
        pytest.skip(f"a small disk can't be mounted here: {done.stderr.strip()}")

    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def enlarge(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=16m", str(disk)], check=True)


def fill(disk: Path) -> Path:
    """Let something else take all room that is left."""
    filler = disk / "filler"

    with pytest.raises(OSError) as error, filler.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)

    assert error.value.errno == errno.ENOSPC
    return filler


def spool_of(disk: Path) -> Spool:
    return Spool(disk / "mengpaneel-spool.sqlite3", "t")


@pytest.mark.parametrize("durable", [True, False], ids=["durable", "at exit"])
def test_what_finds_no_room_is_counted_and_the_rest_is_sent_when_there_is_some(
    tmp_path: Path, disk: Path, durable: bool
) -> None:
    with Sink() as sink:
        sink.always = Status(503)

        with started(
            tmp_path, "visit(app, 2000)", sink.url, durable=durable, shutdown_timeout=1
        ) as process:
            assert process.wait() == 0, process.output

        (ended,) = ledgers(tmp_path)
        kept = spool_of(disk).summary().records
        assert ended.balanced, ended
        assert (ended.recorded, ended.waiting) == (2000, kept)
        assert sum(ended.dropped.values()) == 2000 - kept > 0
        # Once a minute, and not for each of the requests that it refuses.
        assert 1 <= process.output.count("can't be used: database or disk is full") <= 5
        # At exit there is one transaction for all.
        assert kept or not durable

        sink.always = None
        enlarge(disk)
        ended = run(tmp_path, LATER, sink.url)
        assert (len(sink.ids), sink.copies) == (kept + 1, 0)
        assert (ended.delivered, ended.forwarded) == (1, kept)
        assert spool_of(disk).summary().records == 0


def test_a_disk_that_something_else_has_filled_keeps_nobody_from_mixpanel(
    tmp_path: Path, disk: Path
) -> None:
    with Sink() as sink:
        sink.always = Status(503)
        run(tmp_path, "visit(app, 100)", sink.url, shutdown_timeout=1)
        assert spool_of(disk).summary().records == 100
        filler = fill(disk)

        sink.always = None
        script = "visit(app, 50); assert mengpaneel.flush(60)"
        ended = run(tmp_path, script, sink.url, durable=True)
        assert (ended.recorded, ended.delivered, ended.dropped) == (50, 50, {})
        assert (len(sink.ids), sink.copies) == (50, 0)

        filler.unlink()
        run(tmp_path, LATER, sink.url)
        assert (len(sink.ids), sink.copies) == (151, 0)
        assert spool_of(disk).summary().records == 0


def test_the_metrics_of_a_full_disk_are_right(disk: Path, sink: Sink) -> None:
    app = Flask(__name__, instance_path=str(disk))
    mengpaneel = Mengpaneel(app, token="t", api_host=sink.url)
    metrics = LedgerMetrics(app)

    def seen(records: int) -> list[float]:
        with app.app_context():
            with Manager() as manager:
                for _ in range(records):
                    manager.track("A")

            assert mengpaneel.drain(60)

        recorded, delivered, *_ = metrics.collect()
        return [recorded.samples[0].value, delivered.samples[0].value]

    assert seen(0) == [0, 0]
    filler = fill(disk)
    assert seen(3) == [3, 3]
    assert seen(100) == [103, 103]
    filler.unlink()
    assert seen(1) == [104, 104]
