"""An app in a process of its own, for tests of what becomes of its events.

``run`` starts a script that has ``app``, ``visit`` and ``mengpaneel``; its ledger is
written to a file when it ends. ``create_app`` is for servers.
"""

from __future__ import annotations

import atexit
import collections.abc as c
import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
import typing as t
from pathlib import Path
from urllib.request import Request, urlopen

from flask import Flask
from flask.testing import FlaskClient

from agents import CHROME
from flask_mengpaneel import Mengpaneel

TESTS = Path(__file__).parent
FOLDER = "MENGPANEEL_TEST_FOLDER"
SETTINGS = "MENGPANEEL_TEST_SETTINGS"
#: Seconds: on a busy machine two are less than they are elsewhere.
SHUTDOWN_TIMEOUT = 20
#: What starts to measure coverage in a process.
COVERAGE = ("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG")

mengpaneel = Mengpaneel()
#: Alive until the ledger is written.
apps: list[Flask] = []
#: Seconds that each request took.
durations: list[float] = []
#: The same of a view that tracks nothing, on the same machine at the same time.
plain: list[float] = []


def create_app() -> Flask:
    """The app under test; its settings come from the environment."""
    folder = Path(os.environ[FOLDER])
    atexit.register(write_ledger, os.getpid())
    app = Flask(__name__, instance_path=str(folder / "instance"))
    apps.append(app)
    app.config.from_mapping(json.loads(os.environ[SETTINGS]))

    if app.config.get("CELERY"):
        celery_init_app(app)

    mengpaneel.init_app(app)

    @app.get("/plain")
    def plain() -> dict[str, int]:
        return {"pid": os.getpid()}

    @app.get("/visit")
    def visit() -> dict[str, int]:
        mengpaneel.track("Visit")
        return {"pid": os.getpid()}

    @app.get("/visits/<int:count>")
    def visits(count: int) -> dict[str, int]:
        for _ in range(count):
            mengpaneel.track("Visit")

        return {"pid": os.getpid()}

    return app


def celery_init_app(app: Flask) -> None:
    """Set Celery up as Flask's documentation says."""
    from celery import Celery

    celery = Celery(app.name, task_cls=task_in_context(app))
    celery.config_from_object(app.config["CELERY"])
    celery.set_default()
    app.extensions["celery"] = celery


def task_in_context(app: Flask) -> type:
    """The class of tasks that run in an app context, as Flask's documentation says."""
    from celery import Task

    class FlaskTask(Task):  # type: ignore[misc, unused-ignore]
        def __call__(self, *args: object, **kwargs: object) -> object:
            with app.app_context():
                return self.run(*args, **kwargs)

    return FlaskTask


def eager_celery(app: Flask) -> t.Any:
    """Celery whose tasks run where they are called, and which no other test finds."""
    from celery import Celery

    celery = Celery("shop", task_cls=task_in_context(app), set_as_current=False)
    celery.conf.task_always_eager = True
    celery.conf.task_eager_propagates = True
    return celery


def visit(app: Flask, count: int = 1) -> None:
    """Make requests that track one event each."""
    client = app.test_client()
    client.environ_base["HTTP_USER_AGENT"] = CHROME

    for _ in range(count):
        plain.append(timed(client, "/plain"))
        durations.append(timed(client, "/visit"))


def timed(client: FlaskClient, path: str) -> float:
    started = time.perf_counter()
    client.get(path)
    return time.perf_counter() - started


def slow(of: list[float]) -> float:
    """The 99th percentile."""
    return sorted(of)[int(len(of) * 0.99) - 1] if of else 0.0


def write_ledger(pid: int) -> None:
    """Write down what the process ended with. A child writes its own."""
    balance = apps[-1].extensions["mengpaneel"].ledger.snapshot()
    path = Path(os.environ[FOLDER]) / f"ledger-{os.getpid()}.json"
    path.write_text(
        json.dumps(
            dataclasses.asdict(balance)
            | {"slower": slow(durations) - slow(plain), "forked": pid}
        )
    )


@dataclasses.dataclass
class Ended:
    """What a process left behind."""

    recorded: int
    delivered: int
    waiting: int
    dropped: dict[str, int]
    forwarded: int
    incomplete: int
    unrecorded: dict[str, int]
    #: Seconds by which its requests took longer than those of the plain view, at the
    #: 99th percentiles.
    slower: float
    forked: int

    @property
    def balanced(self) -> bool:
        return self.recorded == self.delivered + self.waiting + sum(
            self.dropped.values()
        )


class Process:
    """A script or server in a process of its own."""

    def __init__(
        self,
        folder: Path,
        command: list[str],
        settings: dict[str, t.Any],
        *,
        covered: bool = True,
    ) -> None:
        self.folder = folder
        self.log = folder / f"log-{time.time_ns()}"
        environment = os.environ | {
            FOLDER: str(folder),
            SETTINGS: json.dumps(settings),
            "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]),
            "PYTHONUNBUFFERED": "1",
            # One that crashes says where.
            "PYTHONFAULTHANDLER": "1",
        }

        if not covered:
            for name in COVERAGE:
                environment.pop(name, None)

        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                env=environment,
                stdout=log,
                stderr=log,
                cwd=folder,
                # The tests themselves may have been started so that it is ignored.
                preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
                # To be ended with its children: uWSGI that is killed leaves them alone.
                start_new_session=True,
            )

    def wait(self, timeout: float = 90) -> int:
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(self.output) from None

    def terminate(self, timeout: float = 90) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.wait(timeout)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

        self.process.wait()

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, text: str, times: int = 1) -> None:
        """Wait until it has said something."""
        deadline = time.monotonic() + 60

        while self.output.count(text) < times:
            assert time.monotonic() < deadline, self.output
            time.sleep(0.02)


def ledgers(folder: Path) -> list[Ended]:
    """What the processes that ended left behind."""
    return [
        Ended(**json.loads(path.read_text())) for path in folder.glob("ledger-*.json")
    ]


@contextlib.contextmanager
def started(
    folder: Path, script: str, url: str, *, covered: bool = True, **settings: t.Any
) -> c.Iterator[Process]:
    """A script that runs while the block does.

    :param covered: ``False`` for one that is sent many signals. In Python 3.11 a thread
        that is traced doesn't get into a function while a signal waits for the main
        thread, which may wait for a lock that this thread has.
    """
    path = folder / f"script_{time.time_ns()}.py"
    path.write_text(
        "from processes import create_app, visit, mengpaneel\n"
        "if __name__ == '__main__':\n    app = create_app()\n" + script
    )
    process = Process(
        folder,
        [sys.executable, str(path)],
        settings_for(url, **settings),
        covered=covered,
    )

    try:
        yield process
    finally:
        process.kill()


def settings_for(url: str, **settings: t.Any) -> dict[str, t.Any]:
    named = {
        name if name.isupper() else f"MENGPANEEL_{name.upper()}": value
        for name, value in settings.items()
    }
    return {
        "MENGPANEEL_TOKEN": "t",
        "MENGPANEEL_API_HOST": url,
        "MENGPANEEL_SHUTDOWN_TIMEOUT": SHUTDOWN_TIMEOUT,
    } | named


def run(
    folder: Path, script: str, url: str, *, code: int = 0, **settings: t.Any
) -> Ended:
    """Run a script to its end; what its process left behind."""
    known = set(folder.glob("ledger-*.json"))

    with started(folder, script, url, **settings) as process:
        assert process.wait(120) == code, process.output

    (path,) = set(folder.glob(f"ledger-{process.process.pid}.json")) - known
    ended = Ended(**json.loads(path.read_text()))
    assert ended.balanced, ended
    assert "Traceback" not in process.output, process.output
    return ended


def get(port: int, count: int) -> set[int]:
    """Make requests, once somebody answers; the processes that did."""
    pids = set()
    url = f"http://127.0.0.1:{port}/visit"
    request = Request(url, headers={"User-Agent": CHROME})

    for _ in range(count):
        deadline = time.monotonic() + 60

        while True:
            try:
                with urlopen(request, timeout=60) as answer:
                    pids.add(json.load(answer)["pid"])
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.05)

    return pids


def get_from_all(port: int, processes: int) -> None:
    """Make requests until each process has answered some."""
    pids: set[int] = set()
    deadline = time.monotonic() + 60

    def ask() -> None:
        pids.update(get(port, 10))

    while len(pids) < processes:
        assert time.monotonic() < deadline
        threads = [threading.Thread(target=ask) for _ in range(3 * processes)]

        for thread in threads:
            thread.start()

        for thread in threads:
            thread.join()


@contextlib.contextmanager
def celery_worker(
    folder: Path, app: str, settings: dict[str, t.Any], *options: str
) -> c.Iterator[Process]:
    """A Celery worker that is ready.

    :param app: where its Celery app is, as the command line has it.
    """
    command = [*(sys.executable, "-m", "celery", "-A", app, "worker")]
    command += ["--loglevel=INFO", "--without-gossip", "--without-mingle"]
    process = Process(folder, [*command, *(options or ("--concurrency=2",))], settings)

    try:
        process.wait_for("ready.")
        yield process
    finally:
        if process.process.poll() is None:
            # A child of its pool waits 30 s for its last result to be read, which
            # nobody does if the result comes when the pool ends.
            process.terminate(60)


def celery_options(broker_url: str) -> dict[str, t.Any]:
    """Celery's own settings for a broker that comes and goes."""
    return {
        "broker_url": broker_url,
        "broker_connection_retry_on_startup": True,
        "worker_hijack_root_logger": False,
    }
