"""Platforms that freeze or end a process as soon as its response has left."""

from __future__ import annotations

import types
import typing as t
from pathlib import Path

import pytest

from flask_mengpaneel.config import SERVERLESS, Config
from flask_mengpaneel.deliver.assembly import make_transport
from flask_mengpaneel.deliver.thread import ThreadTransport
from processes import started
from rig import events, rig
from sink import Silent, Sink

#: Answers one request over a socket, and is gone when the last byte has left.
FREEZE = """
import os, signal, socket, threading
from wsgiref.handlers import SimpleHandler

server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(server.getsockname())
connection, _ = server.accept()
environ = {{
    "REQUEST_METHOD": "GET", "PATH_INFO": "/visits/5", "wsgi.url_scheme": "http",
    "SERVER_NAME": "x", "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1",
    "REMOTE_ADDR": "10.0.0.1",
}}

class Handler(SimpleHandler):
    def close(self):
        pass

with connection.makefile("wb", 0) as out:
    Handler(open(os.devnull, "rb"), out, open(os.devnull, "w"), environ).run(app)

assert client.recv(1000).startswith(b"HTTP/1.0 200")
print("threads:", threading.active_count(), flush=True)
os.kill(os.getpid(), signal.{signal})
"""


@pytest.mark.parametrize("how", ["SIGKILL", "SIGSTOP"])
@pytest.mark.parametrize("variable", SERVERLESS)
def test_all_is_delivered_before_the_response_has_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, how: str
) -> None:
    monkeypatch.setenv(variable, "1")

    with (
        Sink() as sink,
        started(tmp_path, FREEZE.format(signal=how), sink.url) as process,
    ):
        process.wait_for("threads: 1")
        assert (len(sink.ids), sink.copies) == (5, 0)
        assert not (tmp_path / "instance").exists()


def test_a_deadline_is_kept_and_what_misses_it_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "shop")

    with Sink() as sink:
        sink.always = Silent()

        with started(
            tmp_path, FREEZE.format(signal="SIGKILL"), sink.url, timeout=0.5
        ) as process:
            process.wait_for("threads: 1")
            assert "5 records were not delivered" in process.output


def test_the_default_is_inline_and_another_is_a_choice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("K_SERVICE", "shop")

    with Sink() as sink, rig(sink.url) as r:
        assert make_transport(r.config, r.delivery) is None
        chosen = make_transport(Config(transport="thread"), r.delivery)
        assert isinstance(chosen, ThreadTransport)


def test_vercel_does_it_after_the_response_where_it_offers_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from contextvars import ContextVar

    later: list[t.Any] = []
    offered: ContextVar[t.Any] = ContextVar("offered", default=None)
    module = types.ModuleType("vercel.wait_until")
    module._cv_wait_until = offered  # type: ignore[attr-defined]
    module.wait_until = lambda work: offered.get()(work)  # type: ignore[attr-defined]
    monkeypatch.setitem(__import__("sys").modules, "vercel", types.ModuleType("vercel"))
    monkeypatch.setitem(__import__("sys").modules, "vercel.wait_until", module)
    monkeypatch.setenv("VERCEL", "1")

    with Sink() as sink, rig(sink.url) as r:
        # A runtime that doesn't offer it.
        r.send_inline(events(1))
        assert sink.count() == 1

        token = offered.set(later.append)
        r.send_inline(events(2))
        offered.reset(token)
        assert sink.count() == 1
        r.check(recorded=3, delivered=1, waiting=2)

        later.pop()()
        assert sink.count() == 3
        r.check(recorded=3, delivered=3, waiting=0)
