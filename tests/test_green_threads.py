"""Threads that aren't: what waits for Mixpanel must not hold up all the others."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from shop import Process, ledgers, settings_for
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
from shop import create_app, mengpaneel, visit
app = create_app()
joinall([spawn(visit, app, 10) for _ in range(20)])
turns = 0
def turn():
    global turns
    while True:
        sleep(0.01)
        turns += 1
spawn(turn)
assert mengpaneel.flush(20)
print("turns", turns)
"""


@pytest.mark.parametrize("library", PATCHED)
def test_others_go_on_while_an_answer_is_awaited(tmp_path: Path, library: str) -> None:
    script = tmp_path / "patched.py"
    script.write_text(PATCHED[library] + SCRIPT)

    with Sink() as sink:
        sink.script(Late(1))
        process = Process(
            tmp_path, [sys.executable, str(script)], settings_for(sink.url)
        )
        assert process.wait() == 0, process.output
        assert (len(sink.ids), sink.copies) == (200, 0), process.output

    # The answer took a second; whoever waits for it with all the others takes none.
    assert int(process.output.split("turns")[1]) > 5
    (ended,) = ledgers(tmp_path)
    assert ended.balanced
    assert (ended.recorded, ended.delivered) == (200, 200)
