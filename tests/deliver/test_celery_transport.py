from __future__ import annotations

import collections.abc as c
import contextlib
import os
import signal
import typing as t
from pathlib import Path

import pytest

from flask_mengpaneel.deliver.spool import Spool
from needs import need
from processes import (
    Process,
    celery_options,
    celery_worker,
    ledgers,
    run,
    settings_for,
    started,
)
from redis_server import Redis
from sink import Late, Silent, Sink, Status


@pytest.fixture
def redis(tmp_path: Path) -> c.Iterator[Redis]:
    need("redis-server")
    server = Redis(tmp_path)
    yield server
    server.stop()


def settings(redis: Redis, url: str, **celery: t.Any) -> dict[str, t.Any]:
    return settings_for(url, transport="celery") | {
        "CELERY": celery_options(redis.url) | celery
    }


def worker(
    folder: Path, redis: Redis, url: str, *options: str, **celery: t.Any
) -> contextlib.AbstractContextManager[Process]:
    return celery_worker(folder, "worker", settings(redis, url, **celery), *options)


def visits(
    folder: Path, redis: Redis, url: str, script: str = "visit(app, 20)"
) -> t.Any:
    # A busy machine makes the broker slower than a request would wait for.
    patient = (
        "import flask_mengpaneel.deliver.celery as tasks; tasks.BROKER_TIMEOUT = 5.0\n"
    )
    return run(folder, patient + script, url, **settings(redis, url))


def test_a_worker_delivers(tmp_path: Path, redis: Redis) -> None:
    with Sink() as sink, worker(tmp_path, redis, sink.url):
        ended = visits(tmp_path, redis, sink.url)
        assert sink.wait_for(20)
        assert (len(sink.ids), sink.copies) == (20, 0)
        # Delivered means taken by the broker.
        assert (ended.recorded, ended.delivered) == (20, 20)


def test_what_is_sent_before_there_is_a_worker_waits(
    tmp_path: Path, redis: Redis
) -> None:
    with Sink() as sink:
        visits(tmp_path, redis, sink.url)

        with worker(tmp_path, redis, sink.url):
            assert sink.wait_for(20)
            assert sink.copies == 0


def test_tasks_are_tried_again(tmp_path: Path, redis: Redis) -> None:
    with Sink() as sink, worker(tmp_path, redis, sink.url) as process:
        sink.script(*[Status(503)] * 5)
        visits(tmp_path, redis, sink.url)
        assert sink.wait_for(20, 20), process.output
        assert (len(sink.ids), sink.copies) == (20, 0)


def test_a_killed_worker_loses_nothing(tmp_path: Path, redis: Redis) -> None:
    with (
        Sink() as sink,
        worker(tmp_path, redis, sink.url, "--concurrency=1") as process,
    ):
        sink.script(Silent())
        visits(tmp_path, redis, sink.url)
        assert sink.wait_for(lambda: sink.requests)
        (child,) = children(process.process.pid)
        os.kill(child, signal.SIGKILL)
        assert sink.wait_for(20, 20), process.output
        assert (len(sink.ids), sink.copies) == (20, 0)


@pytest.mark.parametrize("pool", ["prefork", "solo"])
@pytest.mark.parametrize("taken", [False, True], ids=["in vain", "unheard"])
def test_another_worker_takes_over_from_a_whole_one_that_was_killed(
    tmp_path: Path, redis: Redis, pool: str, taken: bool
) -> None:
    options = ("--concurrency=1", f"--pool={pool}")
    # Redis gives a task to another worker when it has heard nothing for this long.
    quickly = {
        "visibility_timeout": 2,
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
    }
    celery = {"broker_transport_options": quickly}

    with Sink() as sink:
        sink.script(Silent(takes=taken))

        with worker(tmp_path, redis, sink.url, *options, **celery) as killed:
            visits(tmp_path, redis, sink.url)
            assert sink.wait_for(lambda: sink.requests)
            killed.kill()

        with worker(tmp_path, redis, sink.url, *options, **celery) as other:
            assert sink.wait_for(20 + taken, 40), other.output

        # Twice on the wire, once by id.
        assert (len(sink.ids), sink.copies) == (20, taken)

    assert all(ended.balanced and not ended.waiting for ended in ledgers(tmp_path))


def children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in listed.split()]


def test_operations_of_a_task_that_comes_twice_are_not_made_twice(
    tmp_path: Path, redis: Redis
) -> None:
    script = """
from flask_mengpaneel import Manager
with app.app_context(), Manager() as manager:
    with manager.setup():
        manager.identify("ann")
    manager.people.increment("Visits", 1)
    manager.people.set("Plan", "pro")
"""

    with (
        Sink() as sink,
        worker(tmp_path, redis, sink.url, "--concurrency=1") as process,
    ):
        # Taken, but the worker dies before it knows.
        sink.script(Silent(takes=True))
        visits(tmp_path, redis, sink.url, script)
        assert sink.wait_for(1)
        before = len([u for u in sink.updates if "$add" in u])
        (child,) = children(process.process.pid)
        os.kill(child, signal.SIGKILL)
        process.wait_for("were not delivered")
        # A pool that is ended before its results are there waits long for them.
        process.wait_for("succeeded in")
        assert len([u for u in sink.updates if "$add" in u]) == before <= 1


@pytest.mark.parametrize("how", ["refuses", "is silent"])
def test_the_spool_takes_over_from_a_broker_that_is_down(
    tmp_path: Path, redis: Redis, how: str
) -> None:
    script = """
import processes
visit(app, 1)
for _ in range(20):
    visit(app, 1)
    app.extensions["mengpaneel"].background._not_before = 0
print("slowest", max(processes.durations[1:]))
"""

    with Sink() as sink, contextlib.ExitStack() as stack:
        sink.always = Status(503)

        if how == "refuses":
            redis.stop()
        else:
            stack.enter_context(redis.frozen())

        with started(
            tmp_path,
            script,
            sink.url,
            **settings(redis, sink.url),
            shutdown_timeout=0.5,
        ) as process:
            assert process.wait() == 0, process.output

        (ended,) = ledgers(tmp_path)
        slowest = float(process.output.split("slowest")[1].split()[0])
        assert slowest < 0.4, process.output
        assert ended.balanced
        assert (ended.recorded, ended.waiting, ended.dropped) == (21, 21, {})
        assert (
            Spool(tmp_path / "instance" / "mengpaneel-spool.sqlite3", "t")
            .summary()
            .records
            == 21
        )
        sink.always = None
        run(tmp_path, "visit(app); assert mengpaneel.flush(60)", sink.url)
        assert (len(sink.ids), sink.copies) == (22, 0)


def test_an_outage_of_the_broker_loses_nothing(tmp_path: Path, redis: Redis) -> None:
    with Sink() as sink, worker(tmp_path, redis, sink.url) as process:
        visits(tmp_path, redis, sink.url, "visit(app, 5)")
        assert sink.wait_for(5)
        redis.stop()
        ended = visits(
            tmp_path, redis, sink.url, "visit(app, 5); assert mengpaneel.flush(60)"
        )
        assert len(sink.ids) == 10
        assert ended.delivered == 5
        redis.start()
        visits(tmp_path, redis, sink.url, "visit(app, 5)")
        assert sink.wait_for(15, 90), process.output
        assert sink.copies == 0


def test_what_comes_later_in_an_outage_of_the_broker_goes_out_at_once(
    tmp_path: Path, redis: Redis
) -> None:
    """The thread has found the spool empty meanwhile."""
    redis.stop()
    once = "visit(app); assert mengpaneel.flush(60);"

    with Sink() as sink:
        ended = visits(tmp_path, redis, sink.url, 3 * once)
        assert (ended.recorded, ended.delivered) == (3, 3)
        assert len(sink.ids) == 3


def test_a_worker_gives_its_connections_back(tmp_path: Path, redis: Redis) -> None:
    with Sink() as sink, worker(tmp_path, redis, sink.url, "--pool=threads", "-c4"):
        sink.script(Late(0.2))
        visits(tmp_path, redis, sink.url, "visit(app, 100)")
        assert sink.wait_for(100)
        assert sink.copies == 0
