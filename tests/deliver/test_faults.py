"""Each fault, in a process of its own, over real sockets: what arrived, what was lost,
what came twice, and whether the ledger says so."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from flask_mengpaneel.deliver import pipeline
from flask_mengpaneel.deliver.spool import Spool
from ports import free_port
from processes import (
    Process,
    get,
    get_from_all,
    ledgers,
    run,
    settings_for,
    started,
)
from rig import event, events, rig
from sink import Late, Silent, Sink, Status

#: Seconds that tracking may add to a request, at the 99th percentiles. The benchmarks
#: measure it; this only tells waiting for Mixpanel from a machine that is busy.
QUICK = 0.5


def spool_of(folder: Path) -> Spool:
    return Spool(folder / "instance" / "mengpaneel-spool.sqlite3", "t")


# The life of a process.


def test_normal_exit(tmp_path: Path) -> None:
    with Sink() as sink:
        ended = run(tmp_path, "visit(app, 1000)", sink.url)

    assert (len(sink.ids), sink.copies) == (1000, 0)
    assert (ended.recorded, ended.delivered, ended.waiting) == (1000, 1000, 0)
    assert ended.slower < QUICK


def test_an_exception_that_ends_the_process(tmp_path: Path) -> None:
    with (
        Sink() as sink,
        started(tmp_path, "visit(app, 20)\nraise SystemExit(3)", sink.url) as process,
    ):
        assert process.wait() == 3

    assert (len(sink.ids), sink.copies) == (20, 0)


def test_sigkill_loses_only_what_was_not_durable(tmp_path: Path) -> None:
    script = """
import os, signal
visit(app, 20)
os.kill(os.getpid(), signal.SIGKILL)
"""

    with Sink() as sink:
        sink.always = Silent()

        with started(tmp_path, script, sink.url) as process:
            assert process.wait() == -signal.SIGKILL

        assert not spool_of(tmp_path).path.exists()

        with started(tmp_path, script, sink.url, durable=True) as process:
            assert process.wait() == -signal.SIGKILL

        assert spool_of(tmp_path).summary().records == 20


AFTER_KILL = """
visit(app)
assert mengpaneel.flush(60)
"""


def end_leases(tmp_path: Path) -> None:
    """Let the leases of a dead process have ended, instead of waiting for it."""
    with contextlib.closing(sqlite3.connect(spool_of(tmp_path).path)) as spool:
        spool.execute("UPDATE messages SET leased_until = 0")
        spool.commit()


def test_what_was_durable_is_sent_by_the_next_process(
    tmp_path: Path,
) -> None:
    killed = "import os, signal; visit(app, 20); os.kill(os.getpid(), signal.SIGKILL)"

    with Sink() as sink:
        # What Mixpanel has taken a killed process can't know.
        sink.always = Silent()

        with started(tmp_path, killed, sink.url, durable=True) as process:
            process.wait()

        sink.always = None
        end_leases(tmp_path)
        ended = run(tmp_path, AFTER_KILL, sink.url)
        assert (len(sink.ids), sink.copies) == (21, 0)
        assert (ended.recorded, ended.delivered, ended.forwarded) == (1, 1, 20)


SHORT_JOB = """
    from flask_mengpaneel import Manager

    with app.app_context(), Manager() as manager:
        manager.track("Job")
"""


@pytest.mark.parametrize("waiting", [1, 5_000])
def test_a_short_job_sends_what_the_spool_holds(tmp_path: Path, waiting: int) -> None:
    spool_of(tmp_path).put([event() for _ in range(waiting)], "an outage")

    with Sink() as sink:
        ended = run(tmp_path, SHORT_JOB, sink.url)
        assert (len(sink.ids), sink.copies) == (waiting + 1, 0)

    assert (ended.delivered, ended.forwarded) == (1, waiting)
    assert spool_of(tmp_path).summary().records == 0


def test_short_jobs_do_not_wait_for_what_the_spool_holds_in_an_outage(
    tmp_path: Path,
) -> None:
    spool_of(tmp_path).put([event() for _ in range(10)], "an outage")

    with Sink() as sink:
        # A pause that Mixpanel asks for isn't waited for by what a job has itself.
        sink.always = Status(503, {"Retry-After": "60"})

        for jobs in (1, 2, 3):
            run(tmp_path, SHORT_JOB, sink.url)
            assert spool_of(tmp_path).summary().records == 10 + jobs

        assert len(sink.requests) <= 6
        sink.always = None
        run(tmp_path, SHORT_JOB, sink.url)
        assert (len(sink.ids), sink.copies) == (14, 0)


@pytest.mark.parametrize("before", [0, 5], ids=["before-use", "after-use"])
def test_fork(tmp_path: Path, before: int) -> None:
    script = f"""
import os, sys
visit(app, {before})
pid = os.fork()
visit(app, 10)
if pid:
    os.waitpid(pid, 0)
"""

    with Sink() as sink:
        run(tmp_path, script, sink.url)
        assert (len(sink.ids), sink.copies) == (20 + before, 0)

    both = sorted(ledgers(tmp_path), key=lambda ended: ended.recorded)
    assert [ended.recorded for ended in both] == [10, 10 + before]
    assert all(ended.balanced and not ended.waiting for ended in both)


def test_fork_while_events_wait(tmp_path: Path) -> None:
    script = """
import os
visit(app, 50)
pid = os.fork()
visit(app, 10)
if pid:
    os.waitpid(pid, 0)
"""

    with Sink(latency=0.3) as sink:
        run(tmp_path, script, sink.url)
        assert (len(sink.ids), sink.copies) == (70, 0)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_of_multiprocessing(tmp_path: Path, method: str) -> None:
    script = f"""
import multiprocessing

def work():
    visit(app_of(), 10)

def app_of():
    return globals().get("app") or create_app()

if __name__ == "__main__":
    visit(app, 3)
    context = multiprocessing.get_context("{method}")
    children = [context.Process(target=work) for _ in range(2)]
    for child in children: child.start()
    for child in children: child.join()
    assert all(child.exitcode == 0 for child in children)
"""

    with Sink() as sink:
        run(tmp_path, script, sink.url)
        assert (len(sink.ids), sink.copies) == (23, 0)


def test_a_thread_that_outlives_its_request(tmp_path: Path) -> None:
    script = """
import threading, time
from flask_mengpaneel import Manager

def later():
    time.sleep(0.3)
    with app.app_context(), Manager() as manager:
        manager.track("Later")

threading.Thread(target=later).start()
visit(app)
"""

    with Sink() as sink:
        ended = run(tmp_path, script, sink.url)
        assert len(sink.ids) == 2
        assert ended.delivered == 2


def test_an_event_of_another_exit_handler(tmp_path: Path) -> None:
    script = """
import atexit
visit(app)
assert mengpaneel.flush(60)
atexit.register(visit, app, 3)
"""

    with Sink() as sink:
        run(tmp_path, script, sink.url)
        assert len(sink.ids) == 4


# Mixpanel is in trouble.


def test_two_503s_and_exit(tmp_path: Path) -> None:
    with Sink() as sink:
        sink.script(Status(503), Status(503))
        ended = run(tmp_path, "visit(app, 20)", sink.url)

    assert (len(sink.ids), sink.copies) == (20, 0)
    assert (ended.delivered, ended.waiting) == (20, 0)


def test_503_for_ten_seconds(tmp_path: Path) -> None:
    script = """
import time
end = time.monotonic() + 11
while time.monotonic() < end:
    visit(app, 5)
    time.sleep(0.05)
assert mengpaneel.flush(60)
"""

    with Sink() as sink:
        sink.always = Status(503)
        threading.Timer(10, setattr, (sink, "always", None)).start()
        ended = run(tmp_path, script, sink.url)

    assert len(sink.ids) == ended.recorded == ended.delivered
    assert sink.copies == 0
    assert ended.slower < QUICK
    # It didn't hammer.
    assert len(sink.requests) < 40


def test_refused_connections_for_ten_seconds(tmp_path: Path) -> None:
    script = """
import time
end = time.monotonic() + 11
while time.monotonic() < end:
    visit(app, 5)
    time.sleep(0.05)
assert mengpaneel.flush(60)
"""
    port = free_port()

    with started(tmp_path, script, f"http://127.0.0.1:{port}") as process:
        time.sleep(10)

        with Sink(port) as sink:
            assert process.wait() == 0, process.output
            (ended,) = ledgers(tmp_path)
            assert len(sink.ids) == ended.recorded == ended.delivered
            assert sink.copies == 0
            assert ended.balanced
            assert ended.slower < QUICK


def test_an_outage_that_outlasts_the_process(tmp_path: Path) -> None:
    with Sink() as sink:
        sink.always = Status(503)
        ended = run(tmp_path, "visit(app, 20)", sink.url, shutdown_timeout=1)
        assert (ended.recorded, ended.waiting, ended.dropped) == (20, 20, {})

        sink.always = None
        ended = run(tmp_path, "visit(app); assert mengpaneel.flush(60)", sink.url)
        assert (len(sink.ids), sink.copies) == (21, 0)
        assert (ended.recorded, ended.delivered, ended.forwarded) == (1, 1, 20)


def test_without_a_spool_the_end_of_an_outage_is_not_awaited_and_said(
    tmp_path: Path,
) -> None:
    with Sink() as sink:
        sink.always = Status(503)

        with started(
            tmp_path, "visit(app, 20)", sink.url, spool=None, shutdown_timeout=0.5
        ) as process:
            assert process.wait() == 0

        assert "records were not delivered: the process ended" in process.output
        (ended,) = ledgers(tmp_path)
        assert ended.balanced
        assert ended.dropped == {"the process ended": 20}


def test_a_sink_that_never_answers(tmp_path: Path) -> None:
    with Sink() as sink:
        sink.always = Silent()
        ended = run(tmp_path, "visit(app, 300)", sink.url, shutdown_timeout=1)
        assert ended.slower < QUICK
        assert (ended.recorded, ended.waiting) == (300, 300)

        sink.always = None
        run(tmp_path, "visit(app); assert mengpaneel.flush(60)", sink.url)
        assert (len(sink.ids), sink.copies) == (301, 0)


def test_an_answer_after_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "REQUEST_TIMEOUT", 0.5)

    with Sink() as sink, rig(sink.url) as r:
        sink.script(Late(1.5))
        r.send(events(20))
        assert r.thread.flush(60)

        # Twice on the wire, once by id.
        assert (len(sink.ids), sink.copies) == (20, 20)
        r.check(recorded=20, delivered=20, waiting=0)


def test_a_name_that_is_not_found(tmp_path: Path) -> None:
    ended = run(
        tmp_path, "visit(app, 20)", "http://mixpanel.invalid", shutdown_timeout=1
    )
    assert (ended.recorded, ended.waiting) == (20, 20)
    assert ended.slower < QUICK


def test_a_server_without_tls(tmp_path: Path) -> None:
    with Sink() as sink:
        url = sink.url.replace("http:", "https:")
        ended = run(tmp_path, "visit(app, 20)", url, shutdown_timeout=1)
        assert (ended.recorded, ended.waiting, sink.count()) == (20, 20, 0)

        run(tmp_path, "visit(app); assert mengpaneel.flush(60)", sink.url)
        assert (len(sink.ids), sink.copies) == (21, 0)


def test_clock_jumps(tmp_path: Path) -> None:
    script = """
import time
real = time.time
for jump in (0, 86400, -86400, 10 * 86400, 0):
    time.time = lambda jump=jump: real() + jump
    visit(app, 20)
    time.sleep(0.3)
assert mengpaneel.flush(60)
"""

    with Sink() as sink:
        sink.script(Status(503))
        ended = run(tmp_path, script, sink.url, durable=True)
        assert (len(sink.ids), sink.copies) == (100, 0)
        assert (ended.delivered, ended.waiting) == (100, 0)


# The disk is in trouble.


@pytest.mark.parametrize("durable", [True, False])
def test_a_disk_that_is_full(tmp_path: Path, durable: bool) -> None:
    script = """
import resource
# From here on no file grows beyond this.
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
visit(app, 300)
"""

    with Sink() as sink:
        sink.always = Status(503)

        with started(
            tmp_path, script, sink.url, durable=durable, shutdown_timeout=0.5
        ) as process:
            assert process.wait() == 0, process.output

        (ended,) = ledgers(tmp_path)
        assert ended.balanced, ended
        assert ended.recorded == 300
        assert ended.waiting == spool_of(tmp_path).summary().records
        assert sum(ended.dropped.values()) == 300 - ended.waiting > 0
        assert "can't be used" in process.output


def test_a_full_disk_holds_up_nothing_while_mixpanel_is_there(tmp_path: Path) -> None:
    script = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
visit(app, 300)
"""

    with Sink() as sink, started(tmp_path, script, sink.url, durable=True) as process:
        assert process.wait() == 0, process.output
        (ended,) = ledgers(tmp_path)
        assert ended.balanced, ended
        assert (ended.recorded, ended.dropped) == (300, {})
        assert ended.waiting == spool_of(tmp_path).summary().records
        assert len(sink.ids) >= ended.delivered > 200


def test_two_processes_drain_one_spool_while_one_is_killed(tmp_path: Path) -> None:
    drain = """
import flask_mengpaneel.deliver.spool as spool
spool.LEASE = 2.0
visit(app)
assert mengpaneel.flush(30)
"""

    with Sink(latency=0.05) as sink:
        sink.always = Status(503)
        run(
            tmp_path,
            "import itertools; app.test_client().get('/visits/9000')",
            sink.url,
        )
        assert spool_of(tmp_path).summary().records == 9000
        sink.always = None

        with started(tmp_path, drain, sink.url) as killed:
            assert sink.wait_for(1000)
            killed.kill()
            taken = len(sink.ids)
            run(tmp_path, "import time; time.sleep(2.1)\n" + drain, sink.url)

        summary = spool_of(tmp_path).summary()
        assert summary.records == 0
        assert taken < 9000
        # What the killed one had under way may be there twice, under one id.
        assert len(sink.ids) in {9001, 9002}
        assert sink.copies <= 4000


# There is too much.


def test_eight_threads(tmp_path: Path) -> None:
    script = """
import threading
threads = [threading.Thread(target=visit, args=(app, 1000)) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""

    with Sink() as sink:
        ended = run(tmp_path, script, sink.url)
        assert (len(sink.ids), sink.copies) == (8000, 0)
        assert (ended.recorded, ended.delivered) == (8000, 8000)


def test_hundreds_of_events_in_a_request(tmp_path: Path) -> None:
    with Sink() as sink:
        run(tmp_path, "app.test_client().get('/visits/900')", sink.url)
        assert (len(sink.ids), sink.copies) == (900, 0)


def test_a_request_of_five_megabytes(tmp_path: Path) -> None:
    script = """
with app.test_request_context("/"):
    for _ in range(10):
        mengpaneel.track("Large", {f"Text {n}": "x" * 50_000 for n in range(10)})
    app.process_response(app.response_class("{}", mimetype="application/json"))
"""

    with Sink() as sink:
        run(tmp_path, script, sink.url)
        assert (len(sink.ids), sink.copies) == (10, 0)
        assert all(len(request.body) < 2_097_152 for request in sink.requests)


def test_memory_is_bounded_by_a_queue_that_is_full(tmp_path: Path) -> None:
    script = """
from flask_mengpaneel import Manager
background = app.extensions["mengpaneel"].background
app.app_context().push()
for _ in range(300):
    with Manager() as manager:
        manager.track("Large", {f"Text {n}": str(n) * 20_000 for n in range(10)})
queue = background._places.queue
queued = sum(records for _, records, _, _ in queue.envelopes)
assert queue.weight <= queue.capacity, queue.weight
assert queued < 300, queued
"""

    with Sink() as sink:
        sink.always = Silent()
        ended = run(tmp_path, script, sink.url, shutdown_timeout=0.5)
        assert (ended.recorded, ended.waiting) == (300, 300)


def test_a_queue_that_is_full_for_ten_seconds(tmp_path: Path) -> None:
    script = """
import time
app.extensions["mengpaneel"].background._places.queue.capacity = 100
end = time.monotonic() + 10
while time.monotonic() < end:
    visit(app, 20)
    time.sleep(0.02)
assert mengpaneel.flush(60)
"""

    with Sink() as sink:
        sink.always = Silent()
        threading.Timer(9, sink.recover).start()
        ended = run(tmp_path, script, sink.url)
        assert len(sink.ids) == ended.recorded == ended.delivered > 200
        assert ended.slower < QUICK


# Servers.


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--preload", "--workers=2"],
        ["--threads=4"],
        ["--max-requests=10"],
        ["--worker-class=gevent"],
    ],
    ids=" ".join,
)
def test_gunicorn(tmp_path: Path, port: int, options: list[str]) -> None:
    command = [sys.executable, "-m", "gunicorn", f"--bind=127.0.0.1:{port}"]

    with Sink() as sink:
        server = Process(
            tmp_path,
            [*command, *options, "processes:create_app()"],
            settings_for(sink.url),
        )

        try:
            pids = get(port, 45)
            assert server.terminate() == 0, server.output
        finally:
            server.kill()

        assert (len(sink.ids), sink.copies) == (45, 0), server.output

    served = [ended for ended in ledgers(tmp_path) if ended.recorded]
    assert sum(ended.recorded for ended in served) == 45
    assert all(ended.balanced and not ended.waiting for ended in served)
    assert len(served) == len(pids)


def test_waitress(tmp_path: Path, port: int) -> None:
    with Sink() as sink:
        server = Process(
            tmp_path,
            [
                sys.executable,
                "-c",
                "import signal, sys, waitress\n"
                "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n"
                "from processes import create_app\n"
                f"waitress.serve(create_app(), port={port}, host='127.0.0.1')",
            ],
            settings_for(sink.url),
        )

        try:
            get(port, 20)
            server.terminate()
        finally:
            server.kill()

        assert (len(sink.ids), sink.copies) == (20, 0), server.output


SERVED = "from processes import create_app\napp = create_app()\n"
SERVERS: dict[str, tuple[str, list[str]]] = {
    "waitress-serve": (SERVED, ["{bin}/waitress-serve", "--port={port}", "served:app"]),
    "waitress.serve": (
        SERVED + "import waitress\nwaitress.serve(app, port={port})\n",
        ["{python}", "served.py"],
    ),
    "flask run": (SERVED, ["{bin}/flask", "--app=served", "run", "--port={port}"]),
    "flask --debug run --no-reload": (
        SERVED,
        ["{bin}/flask", "--app=served", "--debug", "run", "--no-reload"]
        + ["--port={port}"],
    ),
    "app.run": (SERVED + "app.run(port={port})\n", ["{python}", "served.py"]),
    "gevent.pywsgi": (
        "from gevent import monkey\nmonkey.patch_all()\n"
        + SERVED
        + "from gevent.pywsgi import WSGIServer\n"
        + "WSGIServer(('127.0.0.1', {port}), app).serve_forever()\n",
        ["{python}", "served.py"],
    ),
    "eventlet.wsgi": (
        "import eventlet\neventlet.monkey_patch()\n"
        + SERVED
        + "from eventlet import wsgi\n"
        + "wsgi.server(eventlet.listen(('127.0.0.1', {port})), app)\n",
        ["{python}", "served.py"],
    ),
    "uvicorn": (
        SERVED + "from asgiref.wsgi import WsgiToAsgi\nasgi = WsgiToAsgi(app)\n",
        ["{python}", "-m", "uvicorn", "served:asgi", "--port={port}"],
    ),
    "uvicorn.run": (
        SERVED
        + "import uvicorn\nfrom asgiref.wsgi import WsgiToAsgi\n"
        + "uvicorn.run(WsgiToAsgi(app), port={port})\n",
        ["{python}", "served.py"],
    ),
}


def serve(folder: Path, server: str, port: int, url: str) -> Process:
    module, command = SERVERS[server]
    names = {
        "bin": Path(sys.executable).parent,
        "port": port,
        "python": sys.executable,
    }
    (folder / "served.py").write_text(module.format(**names))
    return Process(
        folder, [part.format(**names) for part in command], settings_for(url)
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=str)
@pytest.mark.parametrize("server", SERVERS)
def test_servers_that_leave_signals_to_the_default_end_in_order(
    tmp_path: Path, port: int, server: str, number: signal.Signals
) -> None:
    with Sink() as sink:
        process = serve(tmp_path, server, port, sink.url)

        try:
            get(port, 20)
            process.process.send_signal(number)
            # As it did before there was anything to finish.
            assert process.wait() == -number, process.output
        finally:
            process.kill()

        assert (len(sink.ids), sink.copies) == (20, 0), process.output


def test_a_program_that_is_over_before_the_thread_ends_by_its_signal(
    tmp_path: Path,
) -> None:
    # uvicorn sends itself the signal as the last that it does; the thread gets no
    # processor before the program is over.
    script = """
import signal, types
from flask_mengpaneel import process

visit(app, 20)
process._thread = types.SimpleNamespace(start_new_thread=lambda *_: None)
signal.raise_signal(signal.SIGTERM)
"""

    with Sink() as sink:
        with started(tmp_path, script, sink.url) as process:
            assert process.wait() == -signal.SIGTERM, process.output

        assert (len(sink.ids), sink.copies) == (20, 0), process.output


def test_a_second_signal_ends_the_process_at_once(tmp_path: Path, port: int) -> None:
    with Sink() as sink:
        sink.always = Silent()
        process = serve(tmp_path, "app.run", port, sink.url)

        try:
            get(port, 1)
            process.process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            process.process.send_signal(signal.SIGTERM)
            # Else it waits for 20 seconds.
            assert process.wait(10) == -signal.SIGTERM, process.output
        finally:
            process.kill()


HANDLER = """
    import os, signal, sys, time
    from pathlib import Path

    former = signal.SIG_DFL

    def handle(number, frame):
        print("handled", flush=True)

        if callable(former):
            former(number, frame)
        else:
            sys.exit(3)
"""


@pytest.mark.parametrize(
    ("before", "after", "code"),
    [
        ("signal.signal(signal.SIGTERM, handle)", "", 3),
        ("", "signal.signal(signal.SIGTERM, handle)", 3),
        ("", "former = signal.signal(signal.SIGTERM, handle)", -signal.SIGTERM),
    ],
    ids=["set-before", "set-after", "set-after-and-hands-on"],
)
def test_an_app_s_own_handler_runs(
    tmp_path: Path, before: str, after: str, code: int
) -> None:
    script = tmp_path / "handled.py"
    script.write_text(
        textwrap.dedent(HANDLER)
        + f"{before}\nfrom processes import create_app, visit\n"
        f"app = create_app()\n{after}\n"
        "visit(app, 20)\nprint('ready', flush=True)\nwhile True: time.sleep(0.01)\n"
    )

    with Sink() as sink:
        process = Process(
            tmp_path, [sys.executable, str(script)], settings_for(sink.url)
        )

        try:
            process.wait_for("ready")
            assert process.terminate() == code, process.output
        finally:
            process.kill()

        assert "handled" in process.output
        assert (len(sink.ids), sink.copies) == (20, 0), process.output


def test_an_ignored_signal_stays_ignored_and_children_inherit_nothing(
    tmp_path: Path,
) -> None:
    script = """
    import signal, subprocess, sys
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    create_app()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    signal.signal(signal.SIGHUP, former)
    code = "import signal; print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)"
    assert subprocess.check_output([sys.executable, "-c", code]).strip() == b"True"
    child = subprocess.Popen(["sleep", "60"])
    child.terminate()
    assert child.wait() == -signal.SIGTERM
    """

    with Sink() as sink:
        run(tmp_path, script, sink.url)


def test_what_the_reloader_kills_is_sent_by_the_next_process(
    tmp_path: Path, port: int
) -> None:
    command = [sys.executable, "-m", "flask", "--app=reloaded", "--debug", "run"]
    (tmp_path / "reloaded.py").write_text(SERVED)

    with Sink() as sink:
        server = Process(tmp_path, [*command, f"--port={port}"], settings_for(sink.url))

        try:
            get(port, 20)
            server.terminate()
        finally:
            server.kill()

        end_leases(tmp_path)
        run(tmp_path, AFTER_KILL, sink.url)
        assert len(sink.ids) == 21


@pytest.mark.parametrize("threads", [True, False], ids=["threads", "no-threads"])
def test_uwsgi(tmp_path: Path, port: int, threads: bool) -> None:
    uwsgi = Path(sys.executable).with_name("uwsgi")
    command = [str(uwsgi), f"--http-socket=127.0.0.1:{port}", "--master"]
    command += ["--workers=2", "--die-on-term", "--module=processes:create_app()"]
    command += [f"--pythonpath={path}" for path in sys.path[::-1] if path]

    with Sink() as sink:
        server = Process(
            tmp_path,
            [*command, *(["--enable-threads"] if threads else [])],
            settings_for(sink.url),
        )

        try:
            get(port, 20)
            # uWSGI runs no exit handlers in a worker that is busy.
            server.wait_for("GET /visit", 20)
            server.terminate()
        finally:
            server.kill()

        assert (len(sink.ids), sink.copies) == (20, 0), server.output
        assert ("enable-threads = true" in server.output) is not threads


# At a fork of which Python isn't told, a thread that waits for its interpreter lock
# would leave that as it is then to the others, and they would wait for ever; one that
# imports something, half a module. So there are none.
WARM = """
import threading, time
from flask_mengpaneel.deliver import pipeline
from flask_mengpaneel.record import running_views
from processes import create_app, mengpaneel, visit

pipeline.IDLE_TIMEOUT = 0.05
running_views._CHECK_INTERVAL = running_views._MAX_IDLE = 0.05
app = create_app()

# So that no process answers all.
@app.before_request
def wait():
    time.sleep(0.02)

visit(app)
assert mengpaneel.flush(60)
deadline = time.monotonic() + 60

while any(one.name.startswith("mengpaneel") for one in threading.enumerate()):
    assert time.monotonic() < deadline, threading.enumerate()
    time.sleep(0.01)
"""


@pytest.mark.parametrize(
    "options",
    [["--master"], ["--master", "--lazy-apps"], ["--master", "--threads=2"], []],
    ids=" ".join,
)
def test_processes_that_uwsgi_forks_share_no_ids(
    tmp_path: Path, port: int, options: list[str]
) -> None:
    (tmp_path / "warm.py").write_text(WARM)
    uwsgi = Path(sys.executable).with_name("uwsgi")
    command = [str(uwsgi), f"--http-socket=127.0.0.1:{port}", "--enable-threads"]
    command += ["--workers=3", "--die-on-term", "--module=warm:app", *options]
    command += [f"--pythonpath={path}" for path in [*sys.path[::-1], tmp_path] if path]

    with Sink() as sink:
        server = Process(tmp_path, command, settings_for(sink.url, spool=None))

        try:
            # The third may stay without work for long.
            get_from_all(port, 2)
            server.terminate()
        finally:
            server.kill()

        devices = [record["properties"]["$device_id"] for record in sink.events]
        assert len(devices) >= 30, server.output
        assert len(set(devices)) == len(devices), server.output
        assert sink.copies == 0


def test_the_reloader(tmp_path: Path, port: int) -> None:
    module = tmp_path / "reloaded.py"
    module.write_text("from processes import create_app\napp = create_app()\n")

    with Sink() as sink:
        server = Process(
            tmp_path,
            [
                sys.executable,
                "-m",
                "flask",
                "--app=reloaded",
                "--debug",
                "run",
                f"--port={port}",
            ],
            settings_for(sink.url),
        )

        try:
            get(port, 5)
            module.touch()
            server.wait_for("Detected change")
            get(port, 5)
            assert sink.wait_for(10), server.output
        finally:
            server.terminate()

        assert (len(sink.ids), sink.copies) == (10, 0)


def test_gevent(tmp_path: Path) -> None:
    script = tmp_path / "patched.py"
    script.write_text(
        "from gevent import monkey; monkey.patch_all()\n"
        "import gevent\n"
        "from processes import create_app, visit\n"
        "app = create_app()\n"
        "gevent.joinall([gevent.spawn(visit, app, 10) for _ in range(20)])\n"
    )

    with Sink() as sink:
        process = Process(
            tmp_path, [sys.executable, str(script)], settings_for(sink.url)
        )
        assert process.wait() == 0, process.output

        assert (len(sink.ids), sink.copies) == (200, 0), process.output

    (ended,) = ledgers(tmp_path)
    assert ended.balanced
    assert ended.delivered == 200
