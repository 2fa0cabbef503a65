"""Mixpanel's certificate is wrong, or the connection breaks under the encryption."""

from __future__ import annotations

import datetime
import os
import socket
import ssl
import typing as t
from pathlib import Path

import pytest
import trustme

from flask_mengpaneel.deliver.spool import Spool
from processes import run
from rig import PlainEnvelope, rig, update
from sink import Fault, Request, Sink

YESTERDAY = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)

#: What makes a certificate one that nobody should trust.
CERTIFICATES: dict[str, tuple[bool, str, dict[str, t.Any]]] = {
    "by nobody known": (False, "127.0.0.1", {}),
    "of another host": (True, "example.org", {}),
    "expired": (True, "127.0.0.1", {"not_after": YESTERDAY}),
}


def certified(
    authority: trustme.CA, host: str = "127.0.0.1", **options: t.Any
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(host, **options).configure_cert(context)
    return context


@pytest.mark.parametrize("what", CERTIFICATES)
def test_events_wait_until_there_is_a_certificate_to_trust(
    tmp_path: Path, authority: trustme.CA, what: str
) -> None:
    known, host, options = CERTIFICATES[what]
    wrong = certified(authority if known else trustme.CA(), host, **options)

    with Sink(tls=wrong) as sink:
        ended = run(tmp_path, "visit(app, 20)", sink.url, shutdown_timeout=1)
        assert (ended.recorded, ended.waiting, ended.dropped) == (20, 20, {})
        assert sink.count() == 0

    spool = Spool(tmp_path / "instance" / "mengpaneel-spool.sqlite3", "t")
    assert spool.summary().records == 20

    with Sink(tls=certified(authority)) as sink:
        ended = run(tmp_path, "visit(app); assert mengpaneel.flush(60)", sink.url)
        assert (len(sink.ids), sink.copies) == (21, 0)
        assert (ended.recorded, ended.delivered, ended.forwarded) == (1, 1, 20)


class Garbled(Fault):
    """Takes the records; the answer can't be decrypted."""

    takes = True

    def answer(self, request: Request, connection: socket.socket, sink: Sink) -> None:
        # Beneath the encryption, as something in between would.
        with socket.socket(fileno=os.dup(connection.fileno())) as beneath:
            beneath.sendall(b"HTTP/1.1 502 Bad Gateway")


def test_an_operation_whose_answer_is_garbled_is_not_made_twice(
    authority: trustme.CA,
) -> None:
    with Sink(tls=certified(authority)) as sink, rig(sink.url) as r:
        sink.script(Garbled())
        message = update("$add", {"Visits": 1}, repeatable=False)
        r.send(PlainEnvelope([message]))
        assert r.thread.flush(60)
        assert len(sink.updates) == 1
        r.check(recorded=1, waiting=0)
