"""The addresses of hosts, looked up within a time limit."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import threading
import time

from urllib3.util.connection import allowed_gai_family

from .. import process

#: Seconds for which a name that was looked up is known.
NAME_CACHE_SECONDS = 30.0


class _Lookup:
    """A name being looked up. It can't be interrupted, so that a thread does it."""

    def __init__(self, name: str, port: int) -> None:
        self.addresses: list[str] = []
        self.error: OSError | None = None
        self.done = threading.Event()
        self.until = float("inf")
        self._name = name
        self._port = port

    def run(self, started_by: int) -> None:
        """Look it up."""
        process.leave_signals_to(started_by)
        self.work()

    def work(self) -> None:
        """Look it up, in this thread."""
        try:
            found = socket.getaddrinfo(
                self._name,
                self._port,
                allowed_gai_family(),
                socket.SOCK_STREAM,
            )
            self.addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        except (OSError, UnicodeError) as error:
            self.error = error if isinstance(error, OSError) else OSError(str(error))
        finally:
            # The next caller is to try again, if this failed.
            known = 0.0 if self.error else NAME_CACHE_SECONDS
            self.until = time.monotonic() + known
            self.done.set()


class _Resolver:
    """What is being looked up, or was a moment ago: all who ask wait for the same."""

    def __init__(self) -> None:
        self.after_fork()
        process.on_fork(self)

    def after_fork(self) -> None:
        """Start anew: the threads are the parent's."""
        self._lock = threading.Lock()
        self._lookups: dict[tuple[str, int], _Lookup] = {}

    def ask(self, name: str, port: int) -> _Lookup:
        """A look-up that is under way, or over not long ago."""
        with self._lock:
            lookup = self._lookups.get((name, port))

            if lookup is None or lookup.until <= time.monotonic():
                lookup = self._lookups[name, port] = self._start(name, port)

        return lookup

    @staticmethod
    def _start(name: str, port: int) -> _Lookup:
        lookup = _Lookup(name, port)
        thread = threading.Thread(
            target=lookup.run,
            args=(threading.get_native_id(),),
            name="mengpaneel-name",
            daemon=True,
        )

        try:
            thread.start()
        except RuntimeError:
            # No more threads, as at the very end of a process.
            lookup.work()

        return lookup


_resolver = _Resolver()


def look_up(name: str, port: int, seconds: float) -> list[str]:
    """The addresses of a host.

    :param seconds: how long it may take.
    :raises TimeoutError: it takes longer.
    :raises OSError: there is no such name.
    """
    with contextlib.suppress(ValueError):
        return [str(ipaddress.ip_address(name.strip("[]")))]

    lookup = _resolver.ask(name, port)

    if not lookup.done.wait(seconds):
        raise TimeoutError

    if lookup.error is not None:
        raise OSError(*lookup.error.args)

    return lookup.addresses
