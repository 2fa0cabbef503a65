"""Peers that take their time, or send too much: a request to Mixpanel ends in time."""

from __future__ import annotations

import collections.abc as c
import contextlib
import gzip
import http.cookiejar
import json
import os
import socket
import ssl
import sys
import threading
import time
import typing as t
from pathlib import Path

import pytest
import trustme

from flask_mengpaneel.deliver import connections, delivery, pipeline, resolver
from processes import Process, ledgers, settings_for
from rig import PlainEnvelope, Rig, events, rig, update
from sink import Sink
from waiting import eventually

#: Seconds that a request may take, so that it leaves on a busy machine too, and those
#: that tell keeping to it from not doing so.
TIMEOUT = 2.0
MUCH_LATER = 8.0
#: Seconds for which a peer goes on.
LONG = 30.0

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"

#: What a peer does with a connection.
Manners = c.Callable[[socket.socket], object]


class Peer:
    """A server that does one thing with whoever connects, and counts what it sent."""

    def __init__(self, manners: Manners, tls: ssl.SSLContext | None = None) -> None:
        self._manners = manners
        self._tls = tls
        self.accepted = 0
        self.sent = 0
        self.ended = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=16)
        self.port = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self._threads: list[threading.Thread] = []
        self._connections: list[socket.socket] = []
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

        for thread in (self._acceptor, *self._threads):
            thread.join(10)

    def _accept(self) -> None:
        while not self.ended.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return

            self.accepted += 1
            thread = threading.Thread(
                target=self._serve, args=(connection,), daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(LONG)

        if self._tls is not None:
            # Hands are shaken with the first read, which may fail.
            connection = self._tls.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )

        self._connections.append(connection)

        with contextlib.suppress(OSError, ValueError), connection:
            self._manners(connection)

    # Manners.

    def drip(self, connection: socket.socket, start: bytes, again: bytes) -> None:
        """Send something at once, and then a little now and then."""
        connection.sendall(start)
        until = time.monotonic() + LONG

        while time.monotonic() < until and not self.ended.wait(0.1):
            connection.sendall(again)

    def flood(self, connection: socket.socket, start: bytes, again: bytes) -> None:
        """Send something at once, and then much as fast as it is taken."""
        connection.sendall(start)

        while not self.ended.is_set() and self.sent < 100_000_000:
            connection.sendall(again)
            self.sent += len(again)

    def wait(self, connection: socket.socket) -> None:
        """Do nothing."""
        self.ended.wait(LONG)


def received(connection: socket.socket) -> bytes:
    if data := connection.recv(65_536):
        return data

    raise ConnectionError("hung up")


def asked(connection: socket.socket) -> bytes:
    """Read a whole request."""
    data = b""

    while b"\r\n\r\n" not in data:
        data += received(connection)

    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    size = next(
        (int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0
    )

    while len(body) < size:
        body += received(connection)

    return head


@contextlib.contextmanager
def peer(
    manners: c.Callable[[Peer, socket.socket], object],
    tls: ssl.SSLContext | None = None,
) -> c.Iterator[Peer]:
    made: list[Peer] = []

    with Peer(lambda connection: manners(made[0], connection), tls) as some:
        made.append(some)
        yield some


def dripping(start: bytes, again: bytes) -> c.Callable[[Peer, socket.socket], None]:
    def manners(self: Peer, connection: socket.socket) -> None:
        asked(connection)
        self.drip(connection, start, again)

    return manners


def flooding(start: bytes, again: bytes) -> c.Callable[[Peer, socket.socket], None]:
    def manners(self: Peer, connection: socket.socket) -> None:
        asked(connection)
        self.flood(connection, start, again)

    return manners


CHUNK = b"1\r\nx\r\n"
SLOW = {
    "status": dripping(b"HTTP/1.1", b" "),
    "a header": dripping(OK + b"X-Long: ", b"x"),
    "headers": dripping(OK, b"X-A: b\r\n"),
    "a body": dripping(OK + b"Content-Length: 5000\r\n\r\n", b" "),
    "a body without end": dripping(OK + b"\r\n", b" "),
    "chunks": dripping(OK + b"Transfer-Encoding: chunked\r\n\r\n", CHUNK),
    "the size of a chunk": dripping(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"0"),
    "trailers": dripping(
        OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X-A: b\r\n"
    ),
    "interim answers": dripping(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "a redirect": dripping(
        b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 5000\r\n\r\n", b" "
    ),
    "nothing": lambda self, connection: (asked(connection), self.wait(connection)),
}


@pytest.fixture
def tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


def check_it_ends(
    url: str,
    *,
    sent: bool,
    envelope: PlainEnvelope | None = None,
    transport: str = "inline",
) -> None:
    """Send in a request, or in the background, and see that it ends in time.

    :param sent: whether something of the request leaves, so that what adds up isn't
        sent again.
    """
    envelope = envelope or PlainEnvelope([update("$add", {"n": 1}, repeatable=False)])

    with rig(url, timeout=TIMEOUT, shutdown_timeout=TIMEOUT) as r:
        started = time.monotonic()

        if transport == "inline":
            r.send_inline(envelope)
        else:
            send_in_background(r, envelope)

        assert time.monotonic() - started < MUCH_LATER

        if transport == "thread" and not sent:
            # It is tried again.
            assert r.reports == []
            r.check(delivered=0, waiting=1)
            return

        eventually(lambda: r.reports)
        r.check(delivered=0, waiting=0)
        assert [reason.startswith("may have been") for _, reason in r.reports] == [sent]


def send_in_background(r: Rig, envelope: PlainEnvelope) -> None:
    """Send with the thread, and wait until something has come of the first attempt."""
    attempted = threading.Event()
    apply_answer = r.delivery.apply_answer

    def apply(batch: t.Any, answer: t.Any) -> t.Any:
        attempt = apply_answer(batch, answer)
        attempted.set()
        return attempt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "REQUEST_TIMEOUT", TIMEOUT)
        patch.setattr(r.delivery, "apply_answer", apply)
        assert r.send(envelope)
        assert attempted.wait(LONG)


each_transport = pytest.mark.parametrize("transport", ["inline", "thread"])


@each_transport
@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("manners", SLOW.values(), ids=SLOW)
def test_a_request_ends_in_time_whatever_is_slow(
    manners: t.Any, encrypted: bool, tls: ssl.SSLContext, transport: str
) -> None:
    with peer(manners, tls if encrypted else None) as some:
        check_it_ends(some.url, sent=True, transport=transport)
        assert some.accepted == 1


def large() -> PlainEnvelope:
    """More than the buffers of a connection hold."""
    return PlainEnvelope(
        [update("$add", {"n": 1, "text": "x" * 1_900_000}, repeatable=False)]
    )


@each_transport
@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("reads", [False, True], ids=["never", "little by little"])
def test_a_request_ends_in_time_if_nobody_reads_it(
    reads: bool, encrypted: bool, tls: ssl.SSLContext, transport: str
) -> None:
    def manners(self: Peer, connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)

        if isinstance(connection, ssl.SSLSocket):
            connection.do_handshake()

        while not self.ended.wait(0.1):
            if reads:
                connection.recv(2000)

    with peer(manners, tls if encrypted else None) as some:
        check_it_ends(some.url, sent=True, envelope=large(), transport=transport)


@each_transport
@pytest.mark.parametrize("says", [b"", b"\x16\x03\x03\x10\x00"], ids=["not", "slowly"])
def test_a_request_ends_in_time_if_no_hands_are_shaken(
    says: bytes, transport: str
) -> None:
    def manners(self: Peer, connection: socket.socket) -> None:
        self.drip(connection, says, b"\x02" if says else b"")

    with peer(manners) as some:
        url = some.url.replace("http:", "https:")
        check_it_ends(url, sent=False, transport=transport)


@each_transport
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\n"], ids=["not", "slowly"])
def test_a_request_ends_in_time_if_a_proxy_is_slow(
    answer: bytes, scheme: str, monkeypatch: pytest.MonkeyPatch, transport: str
) -> None:
    def manners(self: Peer, connection: socket.socket) -> None:
        asked(connection)
        self.drip(connection, answer, b"X-A: b\r\n" if answer else b"")

    with peer(manners) as some:
        monkeypatch.setenv(f"{scheme}_proxy", some.url)
        # Only a proxy for HTTP gets the request itself.
        url = f"{scheme}://api.mixpanel.invalid"
        check_it_ends(url, sent=scheme == "http", transport=transport)


def test_a_proxy_that_lets_nobody_through_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def manners(self: Peer, connection: socket.socket) -> None:
        asked(connection)
        connection.sendall(b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n")

    with peer(manners) as some:
        monkeypatch.setenv("https_proxy", some.url)
        check_it_ends("https://api.mixpanel.invalid", sent=False)
        assert some.accepted > 1


@contextlib.contextmanager
def names_that_hang(monkeypatch: pytest.MonkeyPatch) -> c.Iterator[list[str]]:
    """Look no name up while this lasts; those that were asked for."""
    asked_for: list[str] = []
    ended = threading.Event()
    found = socket.getaddrinfo

    def hang(host: str, *rest: t.Any, **options: t.Any) -> t.Any:
        if host.endswith(".test"):
            asked_for.append(host)
            ended.wait(LONG)
            return found("127.0.0.1", *rest, **options)

        return found(host, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    monkeypatch.setattr(resolver, "_resolver", resolver._Resolver())

    try:
        yield asked_for
    finally:
        ended.set()


def test_a_request_ends_in_time_if_a_name_is_not_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with names_that_hang(monkeypatch) as asked_for:
        check_it_ends("http://first.test:9", sent=False)
        # All wait for the same: there are no more threads than names.
        check_it_ends("http://first.test:9", sent=False)
        assert asked_for.count("first.test") == 1


def test_a_name_that_hangs_holds_up_no_other_app(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with (
        names_that_hang(monkeypatch),
        Sink() as sink,
        rig("http://second.test:9", shutdown_timeout=0) as stuck,
        rig(sink.url.replace("127.0.0.1", "localhost")) as other,
    ):
        stuck.send(events(1))
        other.send(events(1))
        assert sink.wait_for(1, MUCH_LATER)


def test_what_was_found_out_too_late_is_known_to_the_next_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Sink() as sink:
        url = sink.url.replace("127.0.0.1", "third.test")

        with names_that_hang(monkeypatch) as asked_for:
            check_it_ends(url, sent=False)

        with rig(url) as r:
            r.send_inline(events(1))
            r.check(delivered=1)

        assert asked_for.count("third.test") == 1


def test_a_dead_address_leaves_time_for_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "look_up", lambda *_: ["127.0.0.2", "127.0.0.1"])
    with Sink() as sink, socket.socket() as full:
        # Nobody accepts, and nobody else may wait to be accepted.
        full.bind(("127.0.0.2", sink.port))
        full.listen(0)

        with contextlib.ExitStack() as waiting:
            for _ in range(3):
                one = waiting.enter_context(socket.socket())
                one.setblocking(False)
                one.connect_ex(("127.0.0.2", sink.port))

            with rig(sink.url.replace("127.0.0.1", "mixpanel.test")) as r:
                r.send_inline(events(1))
                r.check(delivered=1)


# Answers without an end.


GZIP = gzip.compress(b" " * 200_000_000, 1)
LONG_ANSWERS = {
    "2 GB": flooding(OK + b"Content-Length: 2000000000\r\n\r\n", b" " * 65_536),
    "no length": flooding(OK + b"\r\n", b" " * 65_536),
    "an absurd length": flooding(
        OK + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n", b" " * 65_536
    ),
    "chunks": flooding(
        OK + b"Transfer-Encoding: chunked\r\n\r\n",
        b"ffff\r\n" + b" " * 65_535 + b"\r\n",
    ),
    "one chunk": flooding(
        OK + b"Transfer-Encoding: chunked\r\n\r\n7fffffff\r\n", b" " * 65_536
    ),
    "headers": flooding(OK, b"X: " + b"x" * 60_000 + b"\r\n"),
    "trailers": flooding(
        OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n",
        b"X: " + b"x" * 60_000 + b"\r\n",
    ),
    "interim answers": flooding(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
    "a redirect": flooding(
        b"HTTP/1.1 302 Found\r\nLocation: http://[\r\n"
        b"Content-Length: 2000000000\r\n\r\n",
        b" " * 65_536,
    ),
}


@each_transport
@pytest.mark.parametrize("manners", LONG_ANSWERS.values(), ids=LONG_ANSWERS)
def test_a_megabyte_of_an_answer_is_read(manners: t.Any, transport: str) -> None:
    with peer(manners) as some:
        check_it_ends(some.url, sent=True, transport=transport)
        # What the buffers of the connection hold has left as well.
        assert some.sent < 20_000_000


@each_transport
@pytest.mark.parametrize("coding", ["gzip", "deflate", "GZIP", "gzip, gzip", "br"])
def test_an_answer_is_not_unpacked_beyond_a_megabyte(
    coding: str, monkeypatch: pytest.MonkeyPatch, transport: str
) -> None:
    head = f"Content-Encoding: {coding}\r\nContent-Length: {len(GZIP)}\r\n\r\n"
    read: list[int] = []
    monkeypatch.setattr(
        delivery,
        "read",
        lambda reply, batch, find_out=delivery.read: (
            read.append(len(reply.body)),
            find_out(reply, batch),
        )[1],
    )

    def manners(self: Peer, connection: socket.socket) -> None:
        asked(connection)
        connection.sendall(OK + head.encode() + GZIP)

    with peer(manners) as some:
        check_it_ends(some.url, sent=True, transport=transport)

    assert all(size <= 1_000_000 for size in read)


@each_transport
def test_cookies_of_an_answer_are_not_read(
    monkeypatch: pytest.MonkeyPatch, transport: str
) -> None:
    # For a megabyte of them Python's parser takes seconds.
    read: list[object] = []
    monkeypatch.setattr(
        http.cookiejar.CookieJar,
        "extract_cookies",
        lambda self, answer, _request: read.append(answer),
    )
    cookies = b"Set-Cookie: a=b\r\nSet-Cookie2: " + b"a;" * 100 + b"\r\n"

    def manners(self: Peer, connection: socket.socket) -> None:
        asked(connection)
        connection.sendall(OK + cookies + b"Content-Length: 0\r\n\r\n")

    with peer(manners) as some:
        check_it_ends(some.url, sent=True, transport=transport)

    assert read == []


def answering(head: bytes, body: bytes) -> c.Callable[[Peer, socket.socket], None]:
    size = b"Content-Length: %d\r\n\r\n" % len(body)

    def manners(self: Peer, connection: socket.socket) -> None:
        while asked(connection):
            connection.sendall(head + size + body)

    return manners


TAKEN = json.dumps({"code": 200, "num_records_imported": 1, "status": "OK"}).encode()


def test_an_answer_that_was_packed_on_the_way_is_understood() -> None:
    packed = answering(OK + b"Content-Encoding: gzip\r\n", gzip.compress(TAKEN))

    with peer(packed) as some, rig(some.url) as r:
        r.send_inline(events(1))
        r.check(delivered=1)


def test_a_long_word_on_each_record_is_read() -> None:
    failed = [
        {
            "index": i,
            "insert_id": "x" * 36,
            "field": "properties.time",
            "message": "y" * 200,
        }
        for i in range(2000)
    ]
    body = json.dumps(
        {"error": "some", "status": "Bad Request", "failed_records": failed}
    )

    with (
        peer(answering(b"HTTP/1.1 400 Bad Request\r\n", body.encode())) as some,
        rig(some.url) as r,
    ):
        r.send_inline(events(2000))
        r.check(dropped={"properties.time: " + "y" * 200: 2000})


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "tls"])
def test_a_connection_is_kept_and_no_cookie_with_it(
    encrypted: bool, tls: ssl.SSLContext
) -> None:
    heads: list[bytes] = []

    def manners(self: Peer, connection: socket.socket) -> None:
        while head := asked(connection):
            heads.append(head)
            cookie = b"Set-Cookie: seen=%d; Path=/\r\n" % len(heads)
            size = b"Content-Length: %d\r\n\r\n" % len(TAKEN)
            connection.sendall(OK + cookie + size + TAKEN)

    with peer(manners, tls if encrypted else None) as some, rig(some.url) as r:
        for _ in range(3):
            r.send_inline(events(1))

        r.check(delivered=3)
        assert some.accepted == 1
        assert not any(b"cookie" in head.lower() for head in heads)


# Threads that aren't.


PATCHED = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    "eventlet": "import eventlet; eventlet.monkey_patch()",
}
SCRIPT = """
import time
from processes import create_app, visit
app = create_app()
started = time.monotonic()
visit(app, 1)
print("took", time.monotonic() - started)
"""


def between(url: str) -> c.Callable[[Peer, socket.socket], None]:
    """Pass what comes back on byte by byte, which TLS can't read before it is whole."""
    _, _, port = url.rpartition(":")

    def manners(self: Peer, connection: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", int(port))) as behind:
            behind.settimeout(LONG)

            def forward() -> None:
                with contextlib.suppress(OSError):
                    while data := connection.recv(65_536):
                        behind.sendall(data)

            thread = threading.Thread(target=forward, daemon=True)
            thread.start()

            while not self.ended.wait(0.05) and (data := behind.recv(1)):
                connection.sendall(data)

    return manners


@pytest.mark.parametrize("library", [*PATCHED, "threads"])
def test_a_request_ends_in_time_with_threads_that_are_none(
    tmp_path: Path, library: str, tls: ssl.SSLContext
) -> None:
    script = tmp_path / "patched.py"
    script.write_text(PATCHED.get(library, "") + SCRIPT)

    with Sink(tls=tls) as sink, peer(between(sink.url)) as some:
        url = some.url.replace("http:", "https:")
        settings = settings_for(url, transport="inline", timeout=TIMEOUT, spool=None)
        process = Process(tmp_path, [sys.executable, str(script)], settings)
        assert process.wait() == 0, process.output

    assert float(process.output.split("took")[1].split()[0]) < MUCH_LATER
    (ended,) = ledgers(tmp_path)
    assert ended.balanced
    assert (ended.recorded, ended.delivered, ended.waiting) == (1, 0, 0)


def test_a_child_looks_names_up_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    with names_that_hang(monkeypatch) as asked_for:
        check_it_ends("http://forked.test:9", sent=False)
        pid = os.fork()

        if not pid:
            # The thread that asked is the parent's.
            with contextlib.suppress(OSError):
                resolver.look_up("forked.test", 9, 0.1)

            os._exit(asked_for.count("forked.test"))

        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 2
