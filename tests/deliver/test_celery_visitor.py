from __future__ import annotations

import collections
import collections.abc as c
import contextlib
import itertools
import sqlite3
import sys
import typing as t
from pathlib import Path

import pytest
from celery import Celery
from celery.app.trace import build_tracer
from celery.signals import task_failure, task_postrun, task_success

from flask_mengpaneel import Manager
from flask_mengpaneel.record.running_task import header_name
from processes import (
    Process,
    celery_options,
    celery_worker,
    eager_celery,
    ledgers,
    run,
    settings_for,
)
from redis_server import Redis
from sink import Sink, Status
from sites import Site, balance


@pytest.fixture(scope="module")
def sink() -> c.Iterator[Sink]:
    with Sink() as sink:
        yield sink


def settings(
    redis: Redis, sink: Sink, *, celery: c.Mapping[str, t.Any] = {}, **options: t.Any
) -> dict[str, t.Any]:
    options = {
        "celery_visitor": True,
        "SQLALCHEMY_DATABASE_URI": "sqlite://",
        "CELERY": {
            **celery_options(redis.url),
            "task_ignore_result": True,
            **celery,
        },
        **options,
    }
    return settings_for(sink.url, **options)


@pytest.fixture(scope="module")
def worker(
    tmp_path_factory: pytest.TempPathFactory, redis: Redis, sink: Sink
) -> c.Iterator[Process]:
    folder = tmp_path_factory.mktemp("worker")
    made = settings(redis, sink)

    with celery_worker(folder, "visitor_tasks:celery", made) as process:
        yield process


@contextlib.contextmanager
def site(
    folder: Path, redis: Redis, sink: Sink, script: str, **options: t.Any
) -> c.Iterator[Process]:
    """A process of the site, which makes requests."""
    process = Process(
        folder,
        [sys.executable, "-c", f"from visitor_tasks import *\n{script}"],
        settings(redis, sink, **options),
    )

    try:
        assert process.wait() == 0, process.output
        yield process
    finally:
        process.kill()


def arrived(sink: Sink, user: str, count: int) -> list[dict[str, t.Any]]:
    """The events of one person, when there are so many."""

    def found() -> list[dict[str, t.Any]]:
        return [one for one in sink.events if one["properties"]["distinct_id"] == user]

    assert sink.wait_for(lambda: len(found()) >= count, 20), sink.events
    return found()


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("plain", ["Task", "Again"]),
        ("retried", ["Try 0", "Try 1"]),
        ("fails", ["Fails"]),
        ("starts", ["Task", "Again"]),
        ("starts_group", ["Task", "Task", "Again", "Again"]),
        ("chain", ["First", "Task", "Again"]),
        ("calls", ["First"]),
        ("applies", ["Task", "Task", "Again", "Again"]),
        ("block", ["Before", "After"]),
    ],
)
def test_a_task_knows_the_visitor_of_the_request_that_started_it(
    tmp_path: Path,
    redis: Redis,
    sink: Sink,
    worker: Process,
    task: str,
    expected: list[str],
) -> None:
    script = f"post('/start/{task}', 'of-{task}', **{{'User-Agent': {CHROME!r}}})"

    with site(tmp_path, redis, sink, script):
        events = arrived(sink, f"of-{task}", len(expected))

    assert sorted(one["event"] for one in events) == sorted(expected)
    properties = events[0]["properties"]
    assert properties["$device_id"] == f"d-of-{task}"
    assert properties["$browser"] == "Chrome"
    assert len({one["properties"]["$insert_id"] for one in events}) == len(expected)


CHROME = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)"
    " Chrome/143.0.0.0 Safari/537.36"
)


def test_a_block_in_a_task_is_a_unit_of_its_own(
    tmp_path: Path, redis: Redis, sink: Sink, worker: Process
) -> None:
    with site(tmp_path, redis, sink, "post('/start/block', 'blocked')"):
        arrived(sink, "blocked", 2)
        events = [one["event"] for one in arrived(sink, "bob", 2)]

    assert {"Block", "In it"} == set(events)


def test_the_task_of_a_visitor_without_consent_records_nothing(
    tmp_path: Path, redis: Redis, sink: Sink, worker: Process
) -> None:
    before = worker.output.count("succeeded")
    count = len(sink.events)

    with site(
        tmp_path,
        redis,
        sink,
        "post('/start/plain', 'refused', **{'Sec-GPC': '1'})\n"
        "post('/start/plain', 'after')",
    ):
        arrived(sink, "after", 2)
        worker.wait_for("succeeded", before + 2)

    assert len(sink.events) == count + 2


def test_a_task_that_no_request_started_has_no_visitor(
    tmp_path: Path, redis: Redis, sink: Sink, worker: Process
) -> None:
    before = worker.output.count("outside of a request")

    with site(
        tmp_path, redis, sink, "with app.app_context(): plain.delay()\nplain.delay()"
    ):
        worker.wait_for("RuntimeError: Mengpaneel was called outside", before + 2)


@pytest.mark.parametrize("header", ["'x'", "[1]", "7", "None", "'{}'"])
def test_a_header_that_is_no_visitor_is_ignored(
    tmp_path: Path, redis: Redis, sink: Sink, worker: Process, header: str
) -> None:
    before = worker.output.count("RuntimeError: Mengpaneel was called outside")
    script = f"plain.apply_async(headers={{'mengpaneel_visitor_t': {header}}})"

    with site(tmp_path, redis, sink, script):
        worker.wait_for("RuntimeError: Mengpaneel was called outside", before + 1)


def test_what_is_wrong_in_a_header_is_left_out(
    tmp_path: Path, redis: Redis, sink: Sink, worker: Process
) -> None:
    header = {
        "user_id": "partly",
        "device_id": [],
        "ip": {"a": 1},
        "url": "http://[",
        "user_agent": 7,
        "of a later version": "x",
    }
    script = f"plain.apply_async(headers={{'mengpaneel_visitor_t': {header!r}}})"

    with site(tmp_path, redis, sink, script):
        events = arrived(sink, "partly", 2)

    assert {"$device_id", "ip", "$browser"}.isdisjoint(events[0]["properties"])


def test_a_visitor_of_another_project_is_not_this_one_s(
    tmp_path: Path, redis: Redis, sink: Sink, worker: Process
) -> None:
    before = worker.output.count("RuntimeError: Mengpaneel was called outside")

    with site(tmp_path, redis, sink, "post('/start/plain', 'x')", token="other"):
        worker.wait_for("RuntimeError: Mengpaneel was called outside", before + 1)


@pytest.mark.parametrize("tracks", [False, True])
def test_a_task_that_runs_in_the_request_is_a_part_of_it(
    tmp_path: Path, redis: Redis, sink: Sink, tracks: bool
) -> None:
    user = f"eager-{tracks}"
    script = (
        f"app.before_request(lambda: {tracks} and mengpaneel.track('View') or None)\n"
        f"post('/start/plain', {user!r})"
    )

    with site(tmp_path, redis, sink, script, celery={"task_always_eager": True}):
        events = arrived(sink, user, 2 + tracks)

    expected = ["Task", "Again"] + ["View"] * tracks
    assert sorted(one["event"] for one in events) == sorted(expected)


@pytest.mark.parametrize("before", [False, True])
def test_a_task_that_runs_in_a_block_of_a_view_is_for_whom_the_block_is_about(
    before: bool,
) -> None:
    site = Site(celery_visitor=True)
    mengpaneel = site.mengpaneel

    celery = eager_celery(site.app)

    @celery.task(name="inner", shared=False)
    def inner() -> None:
        mengpaneel.track("Inner")

    @celery.task(name="outer", shared=False)
    def outer() -> None:
        mengpaneel.track("Outer")
        inner.delay()

        with Manager(identify="eve"):
            inner.delay()

        # Another request is another visitor's.
        site.visitor(**{"distinct_id": "joe", "$user_id": "joe"}).get("/other")

    def pay() -> str:
        if before:
            mengpaneel.track("Pay")

        inner.delay()

        with Manager(identify="bob") as manager:
            outer.delay()
            manager.track("Block")

        inner.delay()
        mengpaneel.track("Paid")
        return "paid"

    site.view("/other", lambda: mengpaneel.track("Other") or "")
    site.view("/pay", pay)
    site.visitor(**{"distinct_id": "ann", "$user_id": "ann"}).get("/pay")

    whose: dict[str | None, list[str]] = {}

    for message in site.messages:
        person = message["properties"]["$user_id"]
        whose.setdefault(person, []).append(message["event"])

    assert {user: sorted(events) for user, events in whose.items()} == {
        "ann": ["Inner", "Inner", "Paid", *["Pay"] * before],
        "bob": ["Block", "Inner", "Outer"],
        "eve": ["Inner"],
        "joe": ["Other"],
    }
    assert balance(site) == (8 + before, 8 + before, 0)


@pytest.mark.parametrize("fails", [False, True])
def test_tasks_that_share_an_app_context_are_each_for_their_visitor(
    fails: bool,
) -> None:
    """As where a worker pushes one when it starts, and never leaves it."""
    site, celery = Site(celery_visitor=True), celery_of_worker()

    @celery.task(name="work", shared=False)
    def work() -> None:
        site.mengpaneel.track("Work")
        site.mengpaneel.track("Again")

        if fails:
            raise ZeroDivisionError

    assert in_one_app_context(site, work, ["ann", "bob"]) == [
        [("Work", user), ("Again", user)] for user in ("ann", "bob")
    ]
    assert balance(site) == (4, 4, 0)


def in_one_app_context(
    site: Site, task: t.Any, users: c.Iterable[str | None]
) -> list[t.Any]:
    """Let a worker run a task for one visitor after the other, or for nobody; return
    what was sent by the end of each."""
    trace = build_tracer(task.name, task, app=task.app)
    config = site.app.extensions["mengpaneel"].config
    site.view("/visitor", lambda: site.mengpaneel.visitor.to_json())
    sent = []

    with site.app.app_context():
        for user in users:
            passed = {}

            if user is not None:
                visitor = site.visitor(**{"distinct_id": user, "$user_id": user})
                passed = {header_name(config): visitor.get("/visitor").json}

            trace(str(user), (), {}, passed)
            found = [(m["event"], m["properties"]["$user_id"]) for m in site.messages]
            site.kept.envelopes.clear()
            sent.append(found)

    return sent


def celery_of_worker() -> Celery:
    celery = Celery("shop", set_as_current=False)
    celery.conf.update(broker_url="memory://", task_ignore_result=True)
    return celery


def test_a_task_that_another_calls_leaves_nothing_to_the_next() -> None:
    site, celery = Site(celery_visitor=True), celery_of_worker()

    @celery.task(name="inner", shared=False)
    def inner() -> None:
        site.mengpaneel.track("Inner")

    @celery.task(name="outer", shared=False)
    def outer() -> None:
        inner()
        inner.apply()
        site.mengpaneel.track("Outer")

    assert in_one_app_context(site, outer, ["ann", "bob", None]) == [
        [("Inner", user), ("Inner", user), ("Outer", user)] for user in ("ann", "bob")
    ] + [[]]
    assert balance(site) == (6, 6, 0)


@pytest.mark.parametrize("is_first", [False, True])
@pytest.mark.parametrize("fails", [False, True])
def test_who_hears_of_the_end_of_a_task_tracks_for_its_visitor(
    fails: bool, is_first: bool
) -> None:
    """Whether ours has heard of it before or not."""
    site = Site(celery_visitor=not is_first)
    celery = celery_of_worker()

    @celery.task(name="work", shared=False)
    def work() -> None:
        site.mengpaneel.track("Work")

        if fails:
            raise ZeroDivisionError

    def tell(**_: object) -> None:
        site.mengpaneel.track("End")

        with site.mengpaneel.setup():
            site.mengpaneel.identify("eve")

        site.mengpaneel.track("Told")

    heard = [task_postrun, task_failure if fails else task_success]

    for signal in heard:
        signal.connect(tell)

    try:
        if is_first:
            site = Site(celery_visitor=True)

        sent = in_one_app_context(site, work, ["ann", "bob", None])
    finally:
        for signal in heard:
            signal.disconnect(tell)

    assert sent == [
        [("Work", user), *[("End", user), ("Told", "eve")]]
        + [("End", "eve"), ("Told", "eve")]
        for user in ("ann", "bob")
    ] + [[]]
    assert balance(site) == (10, 10, 0)


def test_nothing_is_taken_along_unless_it_is_switched_on(
    tmp_path: Path, redis: Redis, sink: Sink, worker: Process
) -> None:
    before = worker.output.count("RuntimeError: Mengpaneel was called outside")
    script = "post('/start/plain', 'off')"

    with site(tmp_path, redis, sink, script, celery_visitor=False):
        worker.wait_for("RuntimeError: Mengpaneel was called outside", before + 1)


def test_what_a_task_records_waits_for_the_commit_of_the_task(
    tmp_path: Path, redis: Redis, sink: Sink
) -> None:
    """Not for that of the request, which started it within a block of its own."""
    database = tmp_path / "orders.sqlite"
    options: dict[str, t.Any] = {
        "SQLALCHEMY_DATABASE_URI": f"sqlite:///{database}",
        # The worker of the other tests takes none of these.
        "celery": {"task_default_queue": "orders"},
    }
    made = settings(redis, sink, **options)
    requests = list(
        itertools.product(
            ("commit", "rollback"), ("commit", "rollback", "close", "raise")
        )
    )
    script = "\n".join(
        f"post('/order/{end}/{end_of_task}', 'order {end} {end_of_task}')"
        for end, end_of_task in requests
    )

    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE orders (placed_by, ended)")

        with celery_worker(tmp_path, "visitor_tasks:celery", made) as worker:
            with site(tmp_path, redis, sink, script, **options):
                worker.wait_for("succeeded in", 6)
                worker.wait_for("raised unexpected: ZeroDivisionError", 2)

        rows = connection.execute("SELECT placed_by, ended FROM orders").fetchall()

    found = collections.defaultdict(set)

    for one in sink.events:
        found[one["properties"]["distinct_id"]].add(one["event"])

    for end, end_of_task in requests:
        assert found[f"order {end} {end_of_task}"] == {
            *["Order of the request"] * (end == "commit"),
            "Task begins",
            *["Order of the task"] * (end_of_task == "commit"),
            *["Task ends"] * (end_of_task != "raise"),
        }

    placed_by = collections.Counter(name for name, _ in rows)
    assert placed_by == {"request": 4, "task": 2}
    dropped = collections.Counter[str]()

    for ended in ledgers(tmp_path):
        assert ended.balanced
        dropped.update(ended.dropped)

    assert dropped == {"rolled back": 4 + 6}


@pytest.mark.parametrize(
    ("options", "reached"), [((), True), (("--max-tasks-per-child=1",), False)]
)
def test_a_child_of_a_pool_delivers_or_spools_what_it_has_before_it_ends(
    tmp_path: Path, redis: Redis, options: tuple[str, ...], reached: bool
) -> None:
    queue = {"task_default_queue": f"{reached} {options}"}

    # Celery itself gives a child that ends a second.
    with Sink(latency=2) as sink:
        made = settings(
            redis, sink, celery=queue, shutdown_timeout=20 if reached else 1
        )

        if not reached:
            sink.always = Status(503)

        pool = ("--concurrency=1", *options)

        with celery_worker(tmp_path, "visitor_tasks:celery", made, *pool) as worker:
            with site(tmp_path, redis, sink, "post('/start/plain')", **made):
                worker.wait_for("succeeded in")

        assert len(sink.events) == 2 * reached
        sink.recover()
        run(tmp_path, "visit(app)", sink.url)
        assert sink.wait_for(3), sink.events
        assert sink.copies == 0
