"""Threads that aren't: what waits for Mixpanel must not hold up all the others."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ports import free_port
from processes import Process, get_from_all, ledgers, settings_for
from sink import Late, Sink

PATCHED = {
    "gevent": """
from gevent import monkey; monkey.patch_all()
from gevent import joinall, sleep, spawn
""",
    "eventlet": """
import eventlet; eventlet.monkey_patch()
from eventlet import sleep, spawn
def joinall(threads):
    for thread in threads: thread.wait()
""",
}

SCRIPT = """
from processes import create_app, mengpaneel, visit
app = create_app()
joinall([spawn(visit, app, 10) for _ in range(20)])
turns = 0
def turn():
    global turns
    while True:
        sleep(0.01)
        turns += 1
spawn(turn)
assert mengpaneel.flush(60)
print("turns", turns)
"""


def patched(folder: Path, script: str, url: str) -> Process:
    """A script with green threads.

    Not covered: of green threads the tracer knows nothing, and crashes now and then.
    """
    path = folder / "patched.py"
    path.write_text(script)
    command = [sys.executable, str(path)]
    return Process(folder, command, settings_for(url), covered=False)


@pytest.mark.parametrize("library", PATCHED)
def test_others_go_on_while_an_answer_is_awaited(tmp_path: Path, library: str) -> None:
    with Sink() as sink:
        sink.script(Late(1))
        process = patched(tmp_path, PATCHED[library] + SCRIPT, sink.url)
        assert process.wait() == 0, process.output
        assert (len(sink.ids), sink.copies) == (200, 0), process.output

    # The answer took a second; whoever waits for it with all the others takes none.
    assert int(process.output.split("turns")[1]) > 5
    (ended,) = ledgers(tmp_path)
    assert ended.balanced
    assert (ended.recorded, ended.delivered) == (200, 200)


HEAD = "from processes import create_app, mengpaneel, visit\n"
APP = "app = create_app()\n"
USE = "visit(app, 5)\n"
#: Where the patches come: first as they want, or later.
ORDERS = {
    "first": "{patch}" + HEAD + APP,
    "after the imports": HEAD + "{patch}" + APP,
    "after the app": HEAD + APP + "{patch}",
    "after a delivery": HEAD + APP + USE + "assert mengpaneel.flush(60)\n{patch}",
    "while events wait": HEAD + APP + USE + "{patch}",
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("library", PATCHED)
def test_patches_may_come_late(tmp_path: Path, library: str, order: str) -> None:
    script = (
        ORDERS[order].format(patch=PATCHED[library])
        + "joinall([spawn(visit, app, 10) for _ in range(20)])\n"
        + "assert mengpaneel.flush(60)\n"
    )

    with Sink() as sink:
        process = patched(tmp_path, script, sink.url)
        assert process.wait() == 0, process.output
        expected = 200 + 5 * ORDERS[order].count(USE)
        assert (len(sink.ids), sink.copies) == (expected, 0), process.output

    (ended,) = ledgers(tmp_path)
    assert ended.balanced
    assert (ended.recorded, ended.delivered) == (expected, expected)


@pytest.mark.parametrize("used", [False, True], ids=["unused", "used"])
@pytest.mark.parametrize("preload", [[], ["--preload"]], ids=["", "preload"])
def test_gunicorn_may_patch_after_the_app_was_made(
    tmp_path: Path, preload: list[str], used: bool
) -> None:
    port = free_port()
    (tmp_path / "served.py").write_text(HEAD + APP + USE * used)
    command = [sys.executable, "-m", "gunicorn", "--worker-class=gevent"]
    command += ["--workers=2", f"--bind=127.0.0.1:{port}", *preload, "served:app"]

    with Sink() as sink:
        server = Process(tmp_path, command, settings_for(sink.url))

        try:
            get_from_all(port, 2)
            assert server.terminate() == 0, server.output
        finally:
            server.kill()

        ended = ledgers(tmp_path)
        assert all(one.balanced and not one.waiting for one in ended), ended
        assert len(sink.ids) == sum(one.recorded for one in ended) > 20
        assert sink.copies == 0
