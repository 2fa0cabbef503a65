"""Requests to Mixpanel: over kept connections, each with one deadline for all of it.

``requests`` and ``urllib3`` time out what takes long at once: a connection, a read. A
peer that sends a byte now and then, or one interim answer after the other, keeps them
for ever, and a name that can't be looked up isn't bounded at all. Here the connections
ask, before each step, how much of the request's own time is left.
"""

from __future__ import annotations

import collections.abc as c
import contextlib
import contextvars
import functools
import http.client
import io
import socket
import sys
import time
import typing as t
import zlib

import requests
import requests.adapters
from urllib3.connection import HTTPConnection
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError

from .http import Reply, RequestFailed
from .resolver import look_up

#: Seconds that connecting to one address may take.
CONNECT_TIMEOUT = 5.0
#: Bytes of an answer that are read: a word on each of 2,000 records takes 400 KB.
MAX_ANSWER_BYTES = 1_000_000
#: Bytes that are sent before the time is looked at again.
CHUNK_BYTES = 16_384

TIMED_OUT = "it took too long"
_no_timeout = contextlib.nullcontext()


class RoundTrip:
    """A request and its answer, within one deadline.

    :param seconds: how long all of it may take.
    """

    def __init__(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds
        #: Whether anything of the request has left, so that it may have been taken.
        self.sent = False
        #: Bytes of the answer.
        self.read = 0

    def remaining(self) -> float:
        """Return the seconds that are left.

        :raises TimeoutError: there are none.
        """
        remaining = self._deadline - time.monotonic()

        if remaining <= 0:
            raise TimeoutError(TIMED_OUT)

        return remaining


#: The one that this thread, or what stands for one, is in the middle of.
_round_trip: contextvars.ContextVar[RoundTrip] = contextvars.ContextVar("round_trip")


class HttpConnections:
    """Posts to one host.

    With the library that the official one uses too, so that proxies and certificates
    from the environment are the same for both.
    """

    def __init__(self, host: str) -> None:
        self._host = host
        self._session = requests.Session()
        # Otherwise a machine in a `.netrc` would replace our own credentials.
        self._session.auth = lambda request: request
        self._adapter = _Adapter()

    def post(
        self, path: str, body: bytes, headers: c.Mapping[str, str], timeout: float
    ) -> Reply:
        """Post, and wait for the answer.

        :raises RequestFailed: there was none.
        """
        round_trip = RoundTrip(timeout)
        _round_trip.set(round_trip)

        try:
            with _green_timeout(timeout):
                return self._post(path, body, headers, round_trip)
        except (OSError, HTTPError, http.client.HTTPException) as error:
            raise RequestFailed(_cause(error), ambiguous=round_trip.sent) from error

    def _post(
        self,
        path: str,
        body: bytes,
        headers: c.Mapping[str, str],
        round_trip: RoundTrip,
    ) -> Reply:
        url = self._host + path
        request = self._session.prepare_request(
            requests.Request(
                "POST", url, {**headers, "Accept-Encoding": "identity"}, data=body
            )
        )
        settings = self._session.merge_environment_settings(url, {}, True, None, None)

        # A session would follow where an answer leads, or read all of it to find out,
        # and keep its cookies.
        response = self._adapter.send(
            request, timeout=round_trip.remaining(), **settings
        )

        with contextlib.closing(response):
            return Reply(response.status_code, response.headers, _body(response))


def _body(response: requests.Response) -> bytes:
    body = b""

    while some := response.raw.read(MAX_ANSWER_BYTES, decode_content=False):
        body += some

    if response.headers.get("Content-Encoding", "").strip().lower() not in {
        "gzip",
        "deflate",
    }:
        return body

    # Nobody was asked to, but something in between may compress all the same.
    decoder = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)

    try:
        body = decoder.decompress(body, MAX_ANSWER_BYTES)
    except zlib.error as error:
        raise OSError(f"the answer can't be read: {error}") from None

    if decoder.unconsumed_tail:
        raise OSError("the answer is too long")

    return body


def _green_timeout(seconds: float) -> t.Any:
    """End what waits, where waiting isn't the operating system's.

    There, a step of TLS has all of its time again with each byte that arrives.
    """
    modules: dict[str, t.Any] = sys.modules
    gevent, eventlet = map(modules.get, ("gevent.monkey", "eventlet.patcher"))
    timeout: t.Any = None

    if gevent is not None and gevent.is_module_patched("socket"):
        timeout = modules["gevent"].Timeout
    elif eventlet is not None and eventlet.is_monkey_patched("socket"):
        timeout = modules["eventlet"].Timeout

    return timeout(seconds, TimeoutError(TIMED_OUT)) if timeout else _no_timeout


def _cause(error: Exception) -> str:
    reason = getattr(error.args[0], "reason", None) if error.args else None
    # urllib3 puts the object beside what happened, or in front of it.
    said = (reason or error).args[-1:] or (error,)
    return str(said[0]).split(">: ")[-1]


# Connections that keep to the time.


class _Adapter(requests.adapters.HTTPAdapter):
    """Opens connections that keep to the time, to proxies too, and reads no cookies."""

    def build_response(self, req: t.Any, resp: t.Any) -> requests.Response:
        """Make the answer of what has arrived of it."""
        # Nobody needs its cookies, and for those in 1 MB of headers Python's own parser
        # takes seconds, which no deadline ends. They are looked for in here, which the
        # connection needs afterwards.
        original, resp._original_response = resp._original_response, None

        try:
            return super().build_response(req, resp)
        finally:
            resp._original_response = original

    def init_poolmanager(self, *args: t.Any, **options: t.Any) -> None:
        """Make the pools of connections to Mixpanel itself."""
        super().init_poolmanager(*args, **options)
        _bound_pools(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **options: t.Any) -> t.Any:
        """Make the pools of connections by way of a proxy, once."""
        return _bound_pools(super().proxy_manager_for(proxy, **options))


def _bound_pools(manager: t.Any) -> t.Any:
    manager.pool_classes_by_scheme = {
        scheme: _bounded_pool(pool)
        for scheme, pool in manager.pool_classes_by_scheme.items()
    }
    return manager


@functools.cache
def _bounded_pool(pool: t.Any) -> t.Any:
    connection = pool.ConnectionCls

    if issubclass(connection, _BoundedConnection):
        return pool

    # To a SOCKS proxy its own library connects.
    plain = connection._new_conn is HTTPConnection._new_conn
    bases = (_ConnectsItself if plain else _BoundedConnection, connection)
    name = connection.__name__
    return type(pool.__name__, (pool,), {"ConnectionCls": type(name, bases, {})})


class _Answer(io.RawIOBase):
    """The bytes that arrive, while there is time for them and they aren't too many."""

    def __init__(self, sock: t.Any, raw: io.RawIOBase) -> None:
        self._socket = sock
        self._raw = raw
        self._round_trip = _round_trip.get()

    def readable(self) -> bool:
        """Whether it can be read."""
        return True

    def readinto(self, buffer: t.Any) -> int | None:
        """Read what is there, or wait until something is."""
        self._socket.settimeout(self._round_trip.remaining())
        size = self._raw.readinto(buffer)
        self._round_trip.read += size or 0

        if self._round_trip.read > MAX_ANSWER_BYTES:
            raise OSError("the answer is too long")

        return size

    def close(self) -> None:
        """Let go of the connection."""
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: t.Any, *args: t.Any, **options: t.Any) -> None:
        super().__init__(sock, *args, **options)
        answer = _Answer(sock, t.cast(t.Any, self.fp).detach())
        self.fp = io.BufferedReader(answer)


class _BoundedConnection(HTTPConnection):
    """Sends and reads while there is time."""

    response_class = _Response
    _is_ready = False

    def connect(self) -> None:
        """Connect, also through a proxy and with TLS."""
        self._is_ready = False
        super().connect()
        self._is_ready = True

    def _tunnel(self) -> None:
        super()._tunnel()
        # For the handshake that follows.
        self.sock.settimeout(_round_trip.get().remaining())

    def send(self, data: t.Any) -> None:
        """Send some of a request."""
        round_trip = _round_trip.get()

        if self.sock is None:
            self.connect()

        assert self.sock is not None, "it is connected"
        # Else it is for a proxy, while connecting.
        round_trip.sent = round_trip.sent or self._is_ready

        for start in range(0, len(data), CHUNK_BYTES):
            # A socket with TLS has all of its time for each piece.
            self.sock.settimeout(round_trip.remaining())
            super().send(data[start : start + CHUNK_BYTES])


class _ConnectsItself(_BoundedConnection):
    """Looks the name up itself, and has time left for a second address."""

    def _new_conn(self) -> socket.socket:
        round_trip = _round_trip.get()
        name = self._dns_host
        error: HTTPError = NewConnectionError(self, f"{name} has no address")

        try:
            addresses = look_up(name, self.port, round_trip.remaining())
        except TimeoutError:
            raise ConnectTimeoutError(
                self, f"there was too little time to look {name} up"
            ) from None
        except OSError as failed:
            raise NewConnectionError(self, f"{name} is not found: {failed}") from None

        for index, address in enumerate(addresses):
            share = round_trip.remaining() / (len(addresses) - index)
            self.timeout = min(share, CONNECT_TIMEOUT)
            self._dns_host = address

            try:
                connected = super()._new_conn()
            except (NewConnectionError, ConnectTimeoutError) as failed:
                error = failed
            else:
                connected.settimeout(round_trip.remaining())
                return connected
            finally:
                self._dns_host = name

        raise error
