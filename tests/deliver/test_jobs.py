"""What jobs track arrives, however their process ends."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path

import pytest

from processes import Process, ledgers, run, settings_for, started
from redis_server import Redis
from sink import Sink, Status
from waiting import eventually

JOB = """
    import os, signal, sys, threading, time
    from flask_mengpaneel import Manager

    def job(name, then=lambda: None):
        with app.app_context():
            with Manager(identify="ann"):
                mengpaneel.track(name)
                then()

            ledger = mengpaneel.ledger()
            print("LEDGER", name, ledger.recorded, ledger.waiting, flush=True)
"""
# Outside of the block in which `processes.started` makes the app.
JOB = JOB.replace("\n    ", "\n")

RQ_JOBS = f"""
from processes import create_app, mengpaneel

app = create_app()
{JOB}
def fails():
    job("fails", lambda: 1 / 0)

def too_long():
    job("too_long", lambda: signal.raise_signal(signal.SIGALRM))
"""


def rq_worker(
    folder: Path, redis: Redis, url: str, kind: str, *jobs: str, **settings: object
) -> Process:
    """A worker of RQ that does these jobs, and has ended."""
    from redis import Redis as Client
    from rq import Queue

    (folder / "rq_jobs.py").write_text(RQ_JOBS)

    with Client.from_url(redis.url) as client:
        queue = Queue(kind, connection=client)

        for name in jobs:
            queue.enqueue(f"rq_jobs.{name}", *["job"] * (name == "job"))

    command = [*(sys.executable, "-m", "rq.cli", "worker", kind, "--burst")]
    command += ["--url", redis.url, "--worker-class", f"rq.worker.{kind}"]
    process = Process(folder, command, settings_for(url, **settings))
    assert process.wait() == 0, process.output
    return process


@pytest.mark.parametrize(
    "kind, jobs",
    [("Worker", ["job", "fails", "too_long"]), ("SpawnWorker", ["job"])],
)
def test_each_job_of_rq_is_delivered_when_it_is_over(
    tmp_path: Path, redis: Redis, kind: str, jobs: list[str]
) -> None:
    """Also one that fails, or takes too long: RQ ends its process and tells nobody."""
    with Sink() as sink:
        worker = rq_worker(tmp_path, redis, sink.url, kind, *jobs)

    assert [one["event"] for one in sink.events] == jobs
    assert ("ZeroDivisionError" in worker.output) is ("fails" in jobs)
    assert ("JobTimeoutException" in worker.output) is ("too_long" in jobs)
    assert "LEDGER job 1 0" in worker.output


def test_a_job_of_rq_is_spooled_while_mixpanel_is_not_reached(
    tmp_path: Path, redis: Redis
) -> None:
    with Sink() as sink:
        sink.always = Status(503)
        worker = rq_worker(
            tmp_path, redis, sink.url, "Worker", "job", shutdown_timeout=0.1
        )
        assert "LEDGER job 1 1" in worker.output
        assert not sink.events

        sink.recover()
        run(tmp_path, "visit(app)", sink.url)
        assert sink.wait_for(2), sink.events
        assert sorted(one["event"] for one in sink.events) == ["Visit", "job"]


def test_a_job_is_delivered_before_its_end_where_the_process_may_end_with_it(
    tmp_path: Path,
) -> None:
    """The child of a fork may; one of a server or of multiprocessing tells us."""
    script = f"""{JOB}
import multiprocessing

def child_of_server():
    visit(app)
    app.extensions["mengpaneel"].background.flush(60)
    job("Server's")
    sys.exit()

def child_of_fork():
    # A generator's block is left by Python's garbage collector, wherever that is.
    def generate():
        with Manager():
            mengpaneel.track("Generator's")
            yield

    with app.app_context():
        generator = generate()
        next(generator)

    generator.close()

    # It is one all the same if it forks itself.
    if os.fork() == 0:
        os._exit(0)

    os.wait()
    job("Fork's")
    os._exit(0)

for child in (child_of_server, child_of_fork):
    if os.fork() == 0:
        child()

    os.wait()

child = multiprocessing.get_context("fork").Process(target=job, args=("Child's",))
child.start()
child.join()
job("Own")
"""

    with Sink(latency=0.2) as sink:
        with started(tmp_path, script, sink.url) as process:
            assert process.wait() == 0, process.output

    names = sorted(one["event"] for one in sink.events)
    assert names == ["Child's", "Fork's", "Generator's", "Own", "Server's", "Visit"]
    # Recorded, and waiting.
    assert re.findall("LEDGER (.*)", process.output) == [
        "Server's 2 1",
        "Fork's 2 0",
        "Child's 1 1",
        "Own 1 1",
    ]


def test_a_job_of_a_server_of_forks_is_not_waited_for(tmp_path: Path) -> None:
    """Multiprocessing tells us of the end, though another process has forked."""
    script = f"""{JOB}
import multiprocessing

if __name__ == "__main__":
    multiprocessing.set_forkserver_preload(["processes"])
    context = multiprocessing.get_context("forkserver")
    child = context.Process(target=job, args=("Child's",))
    child.start()
    child.join()
else:
    app = create_app()
"""

    with Sink(latency=0.2) as sink:
        with started(tmp_path, script, sink.url) as process:
            assert process.wait() == 0, process.output

    assert [one["event"] for one in sink.events] == ["Child's"]
    assert re.findall("LEDGER (.*)", process.output) == ["Child's 1 1"]


def test_a_child_that_is_forked_while_its_parent_ends_comes_to_an_end(
    tmp_path: Path,
) -> None:
    script = f"""{JOB}
from flask_mengpaneel.process import is_ending

job("Parent's")
os.kill(os.getpid(), signal.SIGTERM)

while not is_ending():
    time.sleep(0.01)

if os.fork() == 0:
    job("Child's")
    sys.exit()

time.sleep(60)
"""

    with Sink(latency=0.5) as sink:
        with started(tmp_path, script, sink.url) as process:
            assert process.wait() == -signal.SIGTERM, process.output
            # The child writes its own in the end.
            eventually(lambda: ledgers(tmp_path))

    assert sorted(one["event"] for one in sink.events) == ["Child's", "Parent's"]


def test_only_the_end_of_the_outermost_block_waits_for_delivery(tmp_path: Path) -> None:
    """Also of those in app contexts of their own, as helpers push them."""
    script = f"""{JOB}
if os.fork() == 0:
    background = app.extensions["mengpaneel"].background
    deliver, times = background.deliver_or_spool, []
    background.deliver_or_spool = lambda: times.append(deliver())

    with app.app_context(), Manager(identify="ann") as manager:
        manager.track("Outer")

        for number in range(3):
            job(f"Inner {{number}}")

        print("SETTLED", len(times), flush=True)

    print("SETTLED", len(times), flush=True)
    os._exit(0)

os.wait()
"""

    with Sink() as sink:
        with started(tmp_path, script, sink.url) as process:
            assert process.wait() == 0, process.output

    assert re.findall("SETTLED (.*)", process.output) == ["0", "1"]
    names = sorted(one["event"] for one in sink.events)
    assert names == ["Inner 0", "Inner 1", "Inner 2", "Outer"]


@pytest.mark.parametrize(
    "ends_by", ["signal", "in a view", "in a thread of a view", "return", "pool"]
)
def test_what_a_job_has_tracked_is_delivered_if_its_process_ends_before_it(
    tmp_path: Path, ends_by: str
) -> None:
    ends = {
        "signal": "job('Job', wait)",
        "in a view": """
@app.get("/view")
def view():
    with Manager():
        mengpaneel.track("Job")
        wait()

app.test_client().get("/view")
""",
        "in a thread of a view": """
from flask import copy_current_request_context

@app.get("/view")
def view():
    mengpaneel.identify("ann")

    @copy_current_request_context
    def work():
        mengpaneel.track("Job")
        wait()

    threading.Thread(target=work, daemon=True).start()
    time.sleep(60)

app.test_client().get("/view")
""",
        "return": """
threading.Thread(target=job, args=("Job", wait), daemon=True).start()
started.wait()
""",
        # Its children are forked by a thread, and are sent a SIGTERM in the end.
        "pool": """
import multiprocessing

with multiprocessing.get_context("fork").Pool(1, maxtasksperchild=1) as pool:
    pool.apply(os.getpid)
    pool.apply_async(in_child)

    while not os.path.exists("started"):
        time.sleep(0.01)
""",
    }
    script = f"""{JOB}
started = threading.Event()

def wait():
    started.set()
    open("started", "w").close()
    print("STARTED", flush=True)
    time.sleep(60)

def in_child():
    global app
    app = create_app()
    job("Job", wait)

if {ends_by == "pool"}:
    import signal
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

{ends[ends_by]}
"""

    with Sink() as sink:
        with started(tmp_path, script, sink.url) as process:
            process.wait_for("STARTED")

            if ends_by in ("return", "pool"):
                assert process.wait() == 0, process.output
            else:
                assert process.terminate() == -signal.SIGTERM, process.output

        assert [one["event"] for one in sink.events] == ["Job"]
        assert os.path.exists(tmp_path / "started")


IN_BLOCK = """
def in_block(do):
    with app.app_context(), Manager(identify="ann"):
        do()
"""
IN_REQUEST = """
def in_request(do):
    @app.get("/view")
    def view():
        with mengpaneel.setup():
            mengpaneel.identify("ann")

        do()
        return {}

    app.test_client().get("/view")
"""
#: How a child that was forked in the middle of a unit of work ends.
CHILDREN = {
    "leaves it": """
def do():
    before()
    if os.fork() == 0:
        mengpaneel.track("Child")
        sys.exit()
    os.wait()
    mengpaneel.track("After")
""",
    "multiprocessing": """
def do():
    before()
    child = multiprocessing.get_context("fork").Process(target=track_in_child)
    child.start()
    child.join()
    mengpaneel.track("After")
""",
    "pool": """
def do():
    before()
    with multiprocessing.get_context("fork").Pool(1) as pool:
        pool.apply(track_in_child)
        pool.close()
        pool.join()
    mengpaneel.track("After")
""",
    "in a stage": """
def do():
    before()

    def track_in_stage():
        with mengpaneel.tracking():
            mengpaneel.track("Child")

    child = multiprocessing.get_context("fork").Process(target=track_in_stage)
    child.start()
    child.join()
    mengpaneel.track("After")
""",
    "in a stage that it never leaves": """
def do():
    before()
    with mengpaneel.tracking():
        child = multiprocessing.get_context("fork").Process(target=track_in_child)
        child.start()
        child.join()
    mengpaneel.track("After")
""",
    "forks itself": """
def do():
    before()
    if os.fork() == 0:
        with mengpaneel.tracking():
            mengpaneel.track("Child")
            mengpaneel.people.increment("Children")
            if os.fork() == 0:
                sys.exit()
            os.wait()
        sys.exit()
    os.wait()
    mengpaneel.track("After")
""",
    "billiard": """
def do():
    import billiard
    before()
    child = billiard.Process(target=track_in_child)
    child.start()
    child.join()
    mengpaneel.track("After")
""",
}


@pytest.mark.parametrize("child", CHILDREN)
@pytest.mark.parametrize("unit", ["in_block", "in_request"])
def test_a_child_that_is_forked_in_the_middle_sends_its_own_calls_only(
    tmp_path: Path, unit: str, child: str
) -> None:
    script = f"""{JOB}{IN_BLOCK}{IN_REQUEST}
import multiprocessing

def before():
    mengpaneel.track("Before")
    mengpaneel.people.increment("Jobs")

def track_in_child():
    mengpaneel.track("Child")
{CHILDREN[child]}
{unit}(do)
"""

    with Sink() as sink:
        with started(tmp_path, script, sink.url) as process:
            assert process.wait() == 0, process.output

    people = {(one["event"], one["properties"]["distinct_id"]) for one in sink.events}
    assert people == {(name, "ann") for name in ("Before", "Child", "After")}
    assert len(sink.events) == 3
    added = [name for one in sink.updates for name in one["$add"]]
    assert sorted(added) == ["Children"] * (child == "forks itself") + ["Jobs"]
