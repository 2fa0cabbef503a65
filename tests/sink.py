"""A stand-in for Mixpanel on loopback, which can be told to misbehave.

    with Sink() as sink:
        sink.script(Status(503), Status(503))      # the next two requests
        ...
        assert sink.wait_for(20)
        assert sink.ids == {...}

What it takes it remembers record by record, so that tests count what arrived, what is
missing and what came twice.
"""

from __future__ import annotations

import collections
import collections.abc as c
import dataclasses
import gzip
import json
import socket
import ssl
import struct
import threading
import time
import typing as t
from urllib.parse import parse_qs, urlsplit

from ports import listen


@dataclasses.dataclass
class Request:
    """One HTTP request that arrived."""

    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    #: The body as it was on the wire, in bytes.
    size: int
    at: float

    @property
    def records(self) -> list[dict[str, t.Any]]:
        """The records in it: from a JSON body, or the ``data`` of a form."""
        body: t.Any = self.body

        if self.body[:1] not in (b"[", b"{"):
            body = parse_qs(self.body.decode())["data"][0]

        found = json.loads(body)
        return found if isinstance(found, list) else [found]


class Fault:
    """What the sink does with a request instead of taking it."""

    #: Whether the records are taken all the same.
    takes = False

    def answer(self, request: Request, connection: socket.socket, sink: Sink) -> None:
        """Write the answer, or don't."""
        raise AssertionError("a fault says how it answers")


@dataclasses.dataclass
class Status(Fault):
    """Answers with this status, and takes nothing."""

    status: int
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    body: t.Any = None

    def answer(self, request: Request, connection: socket.socket, sink: Sink) -> None:
        body = self.body

        if body is None:
            body = {"error": f"status {self.status}", "status": "error"}

        _write(connection, self.status, body, self.headers)


@dataclasses.dataclass
class Silent(Fault):
    """Never answers; takes the records if ``takes``: the reply is lost."""

    takes: bool = False

    def answer(self, request: Request, connection: socket.socket, sink: Sink) -> None:
        sink.freed.wait()
        raise ConnectionError("never answered")


@dataclasses.dataclass
class Late(Fault):
    """Takes the records and answers after some seconds."""

    seconds: float
    takes: bool = True

    def answer(self, request: Request, connection: socket.socket, sink: Sink) -> None:
        sink.closing.wait(self.seconds)
        _write(connection, 200, sink.good_answer(request), {})


@dataclasses.dataclass
class Half(Fault):
    """Takes the records, and breaks off in the middle of the answer."""

    takes: bool = True

    def answer(self, request: Request, connection: socket.socket, sink: Sink) -> None:
        answer = _bytes(200, sink.good_answer(request), {})
        connection.sendall(answer[: len(answer) - 12])
        _reset(connection)


@dataclasses.dataclass
class Html(Fault):
    """An error page of somebody in between, with status 200."""

    takes: bool = False

    def answer(self, request: Request, connection: socket.socket, sink: Sink) -> None:
        page = "<html><body><h1>It works!</h1></body></html>"
        _write(connection, 200, page, {"Content-Type": "text/html"})


@dataclasses.dataclass
class Reset(Fault):
    """Resets the connection without an answer."""

    takes: bool = False

    def answer(self, request: Request, connection: socket.socket, sink: Sink) -> None:
        _reset(connection)


#: Refuses records: says why, or ``None`` if it takes this one.
Refusal = c.Callable[[dict[str, t.Any]], str | None]


class Sink:
    """A server that answers ``/import``, ``/track``, ``/engage`` and ``/groups``.

    :param port: 0 takes a free one.
    :param latency: seconds that each answer takes.
    :param tls: with a certificate: it speaks HTTPS.
    """

    def __init__(
        self,
        port: int = 0,
        latency: float = 0.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.latency = latency
        self._tls = tls
        self.requests: list[Request] = []
        #: What was taken, in order, by path (``"/import"``).
        self.taken: dict[str, list[dict[str, t.Any]]] = collections.defaultdict(list)
        #: Answers each request that the script doesn't answer, while it is set.
        self.always: Fault | None = None
        #: As `always`, for the requests to a path.
        self.always_at: dict[str, Fault] = {}
        #: Records that are never taken.
        self.refuse: Refusal = lambda record: None
        #: Whether a 400 says which records were refused.
        self.names_refused = True
        #: Envelopes with more records than this get a 413.
        self.most: int | None = None
        self.closing = threading.Event()
        #: Set when those that were never answered are hung up on.
        self.freed = threading.Event()
        self._script: collections.deque[Fault] = collections.deque()
        self._changed = threading.Condition()
        self._connections: set[socket.socket] = set()
        self._listener = (
            socket.create_server(("127.0.0.1", port), backlog=128) if port else listen()
        )
        self.port = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Sink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def script(self, *faults: Fault) -> None:
        """Answer the next requests with these, in order."""
        self._script.extend(faults)

    def close(self) -> None:
        """Refuse connections from now on, and break off those there are."""
        self.closing.set()
        self.freed.set()
        # Unlike `close`, this also wakes the thread that waits in `accept`.
        self._shut(self._listener)

        for connection in list(self._connections):
            self._shut(connection)

    def recover(self) -> None:
        """Misbehave no more, and hang up on those that were not answered."""
        self.always = None
        self.always_at.clear()
        self._script.clear()
        self.freed.set()

    @staticmethod
    def _shut(socket_: socket.socket) -> None:
        try:
            socket_.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

        socket_.close()

    # What arrived.

    @property
    def events(self) -> list[dict[str, t.Any]]:
        """The events that were taken, copies included."""
        return self.taken["/import"] + self.taken["/track"]

    @property
    def ids(self) -> set[str]:
        """The ``$insert_id`` of each event that was taken."""
        return {event["properties"]["$insert_id"] for event in self.events}

    @property
    def copies(self) -> int:
        """How many events arrived again under the id of an earlier one."""
        return len(self.events) - len(self.ids)

    @property
    def updates(self) -> list[dict[str, t.Any]]:
        """The profile updates that were taken."""
        return self.taken["/engage"]

    def count(self) -> int:
        """How many records were taken, copies included."""
        return sum(map(len, self.taken.values()))

    def wait_for(
        self, what: int | c.Callable[[], t.Any], timeout: float = 60.0
    ) -> bool:
        """Wait until that many records were taken, or until it is true."""
        check = what if callable(what) else lambda: self.count() >= what

        with self._changed:
            return bool(self._changed.wait_for(check, timeout))

    # The server.

    def _accept(self) -> None:
        while not self.closing.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return

            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

            if self._tls is not None:
                # Hands are shaken with the first read, which may fail.
                connection = self._tls.wrap_socket(
                    connection, server_side=True, do_handshake_on_connect=False
                )

            self._connections.add(connection)
            threading.Thread(
                target=self._converse, args=(connection,), daemon=True
            ).start()

    def _converse(self, connection: socket.socket) -> None:
        try:
            with connection, connection.makefile("rb") as stream:
                while request := _read(stream):
                    self._answer(request, connection)
        except (OSError, ValueError, LookupError):
            # Gone, or not speaking HTTP.
            pass
        finally:
            self._connections.discard(connection)

    def _answer(self, request: Request, connection: socket.socket) -> None:
        # Whoever sends it may have gone when it is answered.
        with self._changed:
            fault = self._next_fault(request)

        if self.latency:
            time.sleep(self.latency)

        with self._changed:
            self.requests.append(request)
            answer = None

            if fault is None:
                answer = self._take(request)
            elif fault.takes:
                self.taken[request.path].extend(request.records)

            self._changed.notify_all()

        if answer is not None:
            _write(connection, *answer, {})
        elif fault is not None:
            fault.answer(request, connection, self)

    def _next_fault(self, request: Request) -> Fault | None:
        if self._script:
            return self._script.popleft()

        return self.always_at.get(request.path, self.always)

    def _take(self, request: Request) -> tuple[int, dict[str, t.Any]]:
        records = request.records

        if self.most is not None and len(records) > self.most:
            return 413, {"code": 413, "error": "request too large", "status": "error"}

        refused = {i: why for i, r in enumerate(records) if (why := self.refuse(r))}
        good = [r for i, r in enumerate(records) if i not in refused]

        if request.path != "/import":
            if refused:
                return 200, {"status": 0, "error": next(iter(refused.values()))}

            self.taken[request.path].extend(records)
            return 200, self.good_answer(request)

        if refused and not self.names_refused:
            return 400, {"code": 400, "error": "bad request", "status": "error"}

        self.taken[request.path].extend(good)

        if refused:
            return 400, {
                "code": 400,
                "error": "some data points in the request failed validation",
                "failed_records": [
                    {
                        "index": i,
                        "$insert_id": records[i]["properties"].get("$insert_id"),
                        "field": "properties",
                        "message": why,
                    }
                    for i, why in refused.items()
                ],
                "num_records_imported": len(good),
                "status": "Bad Request",
            }

        return 200, self.good_answer(request)

    def good_answer(self, request: Request) -> dict[str, t.Any]:
        """What Mixpanel says when it took all of a request."""
        if request.path == "/import":
            n = len(request.records)
            return {"code": 200, "num_records_imported": n, "status": "OK"}

        return {"error": None, "status": 1}


def _read(stream: t.BinaryIO) -> Request | None:
    line = stream.readline()

    if not line:
        return None

    target = urlsplit(line.split()[1].decode())
    headers = {}

    while (line := stream.readline()) not in (b"\r\n", b""):
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()

    wire = stream.read(int(headers.get("content-length", 0)))
    body = gzip.decompress(wire) if headers.get("content-encoding") == "gzip" else wire

    return Request(
        path=target.path,
        query={name: values[0] for name, values in parse_qs(target.query).items()},
        headers=headers,
        body=body,
        size=len(wire),
        at=time.time(),
    )


def _bytes(status: int, body: t.Any, headers: dict[str, str]) -> bytes:
    text = body if isinstance(body, str) else json.dumps(body)
    given = {
        "Content-Type": "application/json",
        **headers,
        "Content-Length": str(len(text.encode())),
    }
    lines = [f"HTTP/1.1 {status} Whatever"]
    lines += [f"{name}: {value}" for name, value in given.items()]
    return "\r\n".join([*lines, "", text]).encode()


def _write(
    connection: socket.socket, status: int, body: t.Any, headers: dict[str, str]
) -> None:
    connection.sendall(_bytes(status, body, headers))


def _reset(connection: socket.socket) -> None:
    # A lingering time of 0 makes `close` send a reset.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.shutdown(socket.SHUT_RD)
    connection.close()
