"""Ports on loopback, none of which is used twice in one run.

What a test's app couldn't deliver it tries again, also when the test is over: to a port
at which the sink of another test would listen by then, if the system chose the ports.
"""

from __future__ import annotations

import os
import random
import socket

#: Those that the system gives to nobody by itself, on Linux and elsewhere.
_PORTS = range(10_000, 32_768)

#: Among how many workers they are divided: more than ever run.
_WORKERS = 8

_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_own = _PORTS[_worker % _WORKERS :: _WORKERS]
# Runs that follow each other begin elsewhere, too.
_last = random.randrange(len(_own))


def listen(backlog: int = 128) -> socket.socket:
    """Listen at a port at which nobody has listened before."""
    global _last

    for _ in _own:
        _last = (_last + 1) % len(_own)

        try:
            return socket.create_server(("127.0.0.1", _own[_last]), backlog=backlog)
        except OSError:
            # Somebody else's.
            pass

    raise OSError("no port is free")


def free_port() -> int:
    """A port at which nobody listens, nor has before."""
    with listen() as server:
        return int(server.getsockname()[1])
