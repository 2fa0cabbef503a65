"""A transport of the app's own, at the end of its process."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

APP = """
import os, signal, sys
from flask import Flask
from flask_mengpaneel import Mengpaneel, Transport

class Own(Transport):
    def __init__(self):
        self.kept = []

    def send(self, envelope):
        self.kept += envelope.calls
        return True

    def close(self):
        print(name, "closes with", len(self.kept), flush=True)
        {in_close}

name = "parent"
own = Own()
apps = [Flask(__name__) for _ in range(2)]
mengpaneels = [Mengpaneel(app, token="t", transport=own, spool=None) for app in apps]

for app, mengpaneel in zip(apps, mengpaneels):
    @app.get("/")
    def view(mengpaneel=mengpaneel):
        mengpaneel.track("View")
        return {{}}

    app.test_client().get("/")
"""
ENDS = {
    "the last line": "",
    "SIGTERM": "os.kill(os.getpid(), signal.SIGTERM); signal.pause()",
    "an exception": "raise SystemExit(3)",
}
FORK = """
child = os.fork()

if child == 0:
    name = "child"
    apps[0].test_client().get("/")
    sys.exit()

os.waitpid(child, 0)
"""


def closes(script: str, in_close: str = "") -> list[str]:
    program = APP.format(in_close=in_close or "pass") + textwrap.dedent(script)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert ("failed to close" in done.stderr) is bool(in_close), done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
@pytest.mark.parametrize("in_close", ["", "raise ValueError('no')"])
def test_it_is_closed_once_whatever_ends_the_process(end: str, in_close: str) -> None:
    assert closes(end, in_close) == ["parent closes with 2"]


def test_a_child_closes_it_as_well() -> None:
    assert closes(FORK) == ["child closes with 3", "parent closes with 2"]
