"""A server on loopback that takes whatever it is sent, in a process of its own.

In the same process it would hold the interpreter while requests are measured.
"""

from __future__ import annotations

import asyncio
import collections.abc as c
import contextlib
import subprocess
import sys

_BODY = b'{"status": 1, "error": null}'
_ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(_BODY), _BODY)
)


@contextlib.contextmanager
def sink() -> c.Iterator[str]:
    """Run a sink, and give its URL."""
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.sink"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None

        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            _, found, length = head.partition(b"content-length:")

            if found:
                await reader.readexactly(int(length.split(b"\r\n")[0]))

            writer.write(_ANSWER)

    writer.close()


async def _serve() -> None:
    server = await asyncio.start_server(_answer, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve())
