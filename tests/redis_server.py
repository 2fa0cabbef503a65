"""A Redis server of a test's own, on a port that nobody else has."""

from __future__ import annotations

import collections.abc as c
import contextlib
import signal
import subprocess
import time
from pathlib import Path

from ports import free_port


class Redis:
    """A server that keeps what it is told in a folder."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [
                "redis-server",
                *("--port", str(self.port), "--bind", "127.0.0.1"),
                *("--save", "", "--appendonly", "yes", "--dir", str(self._folder)),
            ],
            stdout=subprocess.DEVNULL,
        )
        self._wait()

    def _wait(self) -> None:
        import redis

        deadline = time.monotonic() + 60

        with redis.Redis(port=self.port) as client:
            while True:
                try:
                    client.ping()
                    return
                except redis.ConnectionError:
                    assert time.monotonic() < deadline
                    time.sleep(0.05)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()

    @contextlib.contextmanager
    def frozen(self) -> c.Iterator[None]:
        """It accepts connections, and answers nothing."""
        self.process.send_signal(signal.SIGSTOP)

        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)
