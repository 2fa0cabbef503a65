"""How long requests take while something is wrong.

``python -m benchmarks.faults [--seconds N] [--only TEXT]...``

Each fault in a process of its own, with a sink in another: an app that delivers in the
background, with a spool as by default, answers requests one after the other. In turns
they track five events, as webhooks that nobody else could send them for, and nothing;
a request is measured from the call of the WSGI app until its body is read.

The faults are those that a process meets while it serves. Its own end, be it by itself,
by SIGTERM or by SIGKILL, is none: there is no request any more that could wait.
"""

from __future__ import annotations

import argparse
import asyncio
import collections.abc as c
import concurrent.futures
import contextlib
import itertools
import json
import math
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import typing as t
from pathlib import Path

from flask_mengpaneel import Manager, Mengpaneel
from flask_mengpaneel.deliver import pipeline, spool
from flask_mengpaneel.deliver.spool import Spool
from flask_mengpaneel.envelope import Message

from .delivery import (
    EVENTS_PER_REQUEST,
    FINE,
    HANG_UP,
    NAME,
    NOBODY,
    PROPERTIES,
    Answering,
    Numbers,
    always,
    answer,
    http,
    number,
    percentile,
    run,
    server,
    sink,
    unpacked,
)
from .sites import TOKEN, WEBHOOK, get, site

MODULE = "benchmarks.faults"
SECONDS = 4.0
#: Milliseconds that a request may take at the 99th percentile.
MOST = 5.0
COLUMNS = ("requests", "median", "p99", "most", "plain p99", "plain most")
#: To see that there was a fault.
BOOKS = ("recorded", "delivered", "forwarded", "waiting", "dropped")


class Shop:
    """The app, in the process that is measured.

    :param folder: where its spool is.
    :param settings: those of the extension; without a spool if they say so.
    """

    def __init__(
        self,
        url: str,
        folder: Path,
        settings: c.Mapping[str, t.Any],
        events: int = EVENTS_PER_REQUEST,
    ) -> None:
        self.url = url
        self.folder = folder
        self.spool = folder / "spool.sqlite3"
        self._events = events
        self._properties = itertools.cycle(PROPERTIES)
        self.app = site(self._track)
        # What reaches a view ends the measurement.
        self.app.config["PROPAGATE_EXCEPTIONS"] = True
        ours = {"token": TOKEN, "api_host": url, "spool": self.spool}
        self.mengpaneel = Mengpaneel(self.app, **{**ours, **settings})
        self.plain = get(self.app, "/json", WEBHOOK)
        self.visit = get(self.app, "/json/tracked", WEBHOOK)

    def _track(self) -> None:
        for _ in range(self._events):
            self.mengpaneel.track(NAME, next(self._properties))


# Where events go.

Place = c.Callable[[], contextlib.AbstractContextManager[str]]


def answers(answering: Answering, latency: float = 0.0) -> Place:
    @contextlib.contextmanager
    def place() -> c.Iterator[str]:
        with sink(latency, answering) as (url, _):
            yield url

    return place


def at(url: str) -> Place:
    return lambda: contextlib.nullcontext(url)


@contextlib.contextmanager
def without_tls() -> c.Iterator[str]:
    """It is asked for TLS, and says in plain words what it thinks of that."""

    async def refuse(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await reader.read(1)
        writer.write(http(400, "This is HTTP.", HANG_UP))
        writer.close()

    with server(refuse) as url:
        yield url.replace("http:", "https:")


def twice(status: int) -> Answering:
    """Answer so twice, and then as if nothing had been."""
    left = iter([status, status])
    return lambda head, body: answer(head, next(left, 200))


def half(head: bytes, body: bytes) -> bytes:
    return answer(head, 200, HANG_UP)[:-12]


def html(head: bytes, body: bytes) -> bytes:
    return http(200, "<html><body><h1>It works!</h1></body></html>")


def too_many_requests(head: bytes, body: bytes) -> bytes:
    return answer(head, 429, "Retry-After: 2\r\n")


def three_bad(head: bytes, body: bytes) -> bytes:
    """As Mixpanel does with ``strict=1``."""
    failed = [
        {"index": index, "field": "properties.time", "message": "is too old"}
        for index in (0, 2, 4)
    ]
    return http(400, json.dumps({"error": "some failed", "failed_records": failed}))


def never_one(head: bytes, body: bytes) -> bytes:
    """Refuse all that is together with one in a thousand, without saying which."""
    records = json.loads(unpacked(head, body))
    bad = any(r["properties"]["Total"] == PROPERTIES[7]["Total"] for r in records)
    return answer(head, 400 if bad else 200)


def at_most_100(head: bytes, body: bytes) -> bytes:
    records = unpacked(head, body).count(b'"event"')
    return answer(head, 413 if records > 100 else 200)


# What happens in the process that is measured, before the clock starts.

Event = c.Callable[[Shop], None]


def nothing(shop: Shop) -> None:
    return None


def wait_less(shop: Shop) -> None:
    pipeline.REQUEST_TIMEOUT = 0.5


def jump(shop: Shop) -> None:
    """Set the clock an hour forth and back, five times a second."""
    real, ahead = time.time, 0.0

    def change() -> None:
        nonlocal ahead

        while True:
            time.sleep(0.2)
            ahead = random.choice([-3600.0, 0.0, 3600.0])

    time.time = lambda: real() + ahead
    threading.Thread(target=change, daemon=True).start()


def fill_disk(shop: Shop) -> None:
    # From here on no file grows beyond this.
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))


def make_read_only(shop: Shop) -> None:
    shop.folder.chmod(0o555)

    # Root writes all the same.
    if os.geteuid() == 0:
        os.seteuid(65534)


def corrupt(shop: Shop) -> None:
    """Write nonsense into the spool, twice a second."""

    def write() -> None:
        while True:
            with contextlib.suppress(OSError), shop.spool.open("r+b") as file:
                file.write(random.randbytes(8192))

            time.sleep(0.5)

    shop.spool.write_bytes(random.randbytes(8192))
    threading.Thread(target=write, daemon=True).start()


def fill_queue(shop: Shop) -> None:
    """Track until there is no room, or all goes to the spool for want of it."""
    places = shop.app.extensions["mengpaneel"].background._places
    queue, overflow = places.queue, places.overflow

    with shop.app.app_context():
        while not overflow.is_active and queue.weight + 100 <= queue.capacity:
            with Manager() as manager:
                for properties in PROPERTIES[:100]:
                    manager.track(NAME, properties)


def fork(shop: Shop) -> None:
    """Go on in a child of a process that has used the extension."""
    for _ in range(100):
        shop.visit()

    if pid := os.fork():
        os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


#: What waits in the spool when the other process begins to send it.
SPOOLED = 40_000


def drain_beside(shop: Shop) -> None:
    """Let another process send what is in the spool, and kill it after a second."""
    waiting = [
        Message("events", json.dumps({"event": NAME, "properties": p}), 1, True)
        for p in itertools.islice(itertools.cycle(PROPERTIES), SPOOLED)
    ]
    Spool(shop.spool, TOKEN).put(waiting, "the process ended")
    spool.LEASE = 1.0
    other = subprocess.Popen(
        [sys.executable, "-m", MODULE, "--drain", shop.url, shop.folder],
        stdout=subprocess.PIPE,
    )
    assert other.stdout is not None
    other.stdout.readline()
    threading.Timer(1.0, other.kill).start()


def drain(url: str, folder: str) -> None:
    """Send what is in a spool, until somebody kills this process."""
    spool.LEASE = 1.0
    shop = Shop(url, Path(folder), {})
    # The first request looks what others left.
    shop.visit()
    print("draining", flush=True)
    time.sleep(10 * SECONDS)


# The faults.


class Fault(t.NamedTuple):
    """Something that is wrong.

    :param threads: which make requests at once.
    :param pause: seconds between two requests of a thread.
    :param events: of a request.
    """

    place: Place = answers(FINE)
    event: Event = nothing
    settings: dict[str, t.Any] = {}
    threads: int = 1
    pause: float = 0.0
    events: int = EVENTS_PER_REQUEST


DURABLE = {"durable": True}
NO_SPOOL = {"spool": None}
FAULTS = {
    "Mixpanel answers": Fault(),
    "two 503s, then fine": Fault(answers(twice(503))),
    "503 to everything": Fault(answers(always(503))),
    "nobody listens": Fault(at(NOBODY)),
    "no answer ever": Fault(answers(always(0))),
    "answers after the read timeout": Fault(answers(FINE, 1.0), wait_less),
    "half an answer": Fault(answers(half)),
    "an HTML page with status 200": Fault(answers(html)),
    "429 with Retry-After: 2": Fault(answers(too_many_requests)),
    "400, three bad in each envelope": Fault(answers(three_bad)),
    "400 while one in 1,000 is there": Fault(answers(never_one)),
    "413 to more than 100": Fault(answers(at_most_100)),
    "413 to everything": Fault(answers(always(413))),
    "no such name": Fault(at("http://mixpanel.invalid")),
    "no TLS": Fault(without_tls),
    "the clock jumps": Fault(event=jump),
    "503, disk full": Fault(answers(always(503)), fill_disk),
    "503, disk read-only": Fault(answers(always(503)), make_read_only),
    "durable": Fault(settings=DURABLE),
    "durable, 503": Fault(answers(always(503)), settings=DURABLE),
    "durable, nobody listens": Fault(at(NOBODY), settings=DURABLE, pause=0.002),
    "durable, disk full": Fault(event=fill_disk, settings=DURABLE),
    "durable, 503, disk full": Fault(answers(always(503)), fill_disk, DURABLE),
    "durable, spool corrupt": Fault(event=corrupt, settings=DURABLE),
    "queue full, spool": Fault(at(NOBODY), fill_queue),
    "queue full, no spool": Fault(at(NOBODY), fill_queue, NO_SPOOL),
    "after a fork": Fault(event=fork),
    "another drains, is killed": Fault(event=drain_beside),
    "the same, durable": Fault(event=drain_beside, settings=DURABLE),
    "8 threads (1)": Fault(threads=8),
    "8 threads that track nothing (1)": Fault(threads=8, events=0),
    "8 threads, 20 ms between (1)": Fault(threads=8, pause=0.02),
    "8 threads, 20 ms, nothing (1)": Fault(threads=8, pause=0.02, events=0),
}
NOTE = (
    "(1) They share one interpreter, so that a request also waits for its turn while"
    " other threads have theirs, of up to 5 ms each."
)


# What is measured, in a process of its own each time.


def suffer(name: str, url: str, folder: str, seconds: str) -> Numbers:
    """How long requests take while something is wrong."""
    fault = FAULTS[name]
    shop = Shop(url, Path(folder), fault.settings, fault.events)
    fault.event(shop)
    shop.plain()
    shop.visit()
    end = time.monotonic() + float(seconds)

    with concurrent.futures.ThreadPoolExecutor(fault.threads) as pool:
        futures = [
            pool.submit(durations, shop, fault.pause, end) for _ in range(fault.threads)
        ]
        pairs = [pair for future in futures for pair in future.result()]

    plain, visits = (list(some) for some in zip(*pairs, strict=True))
    balance = shop.mengpaneel.ledger().snapshot()
    return {
        "requests": len(visits),
        "median": statistics.median(visits),
        "p99": percentile(visits),
        "most": max(visits),
        "plain p99": percentile(plain),
        "plain most": max(plain),
        "recorded": balance.recorded,
        "delivered": balance.delivered,
        "forwarded": balance.forwarded,
        "waiting": balance.waiting,
        "dropped": sum(balance.dropped.values()),
    }


def durations(shop: Shop, pause: float, end: float) -> list[tuple[float, float]]:
    """What requests took that track nothing and that track, in ms, until the end."""
    pairs = []

    while time.monotonic() < end:
        pairs.append((timed(shop.plain), timed(shop.visit)))

        if pause:
            time.sleep(pause)

    return pairs


def timed(action: c.Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return (time.perf_counter() - started) * 1e3


def measure(name: str, seconds: float) -> Numbers:
    with FAULTS[name].place() as url, tempfile.TemporaryDirectory() as folder:
        try:
            return run(MODULE, name, url, folder, seconds, timeout=10 * seconds + 20)
        except subprocess.TimeoutExpired:
            # A request waits still.
            return dict.fromkeys((*COLUMNS, *BOOKS), math.inf)


def main(seconds: float = SECONDS, only: c.Sequence[str] = ()) -> None:
    """Measure all faults, and say in which requests took too long."""
    columns = (*COLUMNS, *BOOKS)
    print(f"\nRequests of {EVENTS_PER_REQUEST} events each, ms")
    print(f"{'':<36}" + "".join(f"{column:>11}" for column in columns))
    slow = []

    for name in FAULTS:
        if only and not any(text in name for text in only):
            continue

        numbers = measure(name, seconds)
        cells = "".join(f"{number(numbers[column]):>11}" for column in columns)
        print(f"{name:<36}{cells}", flush=True)

        if numbers["p99"] > MOST:
            slow.append(name)

    print(f"\n{NOTE}\n")
    print(f"Above {MOST:.0f} ms at p99: {'; '.join(slow) or 'none'}.")


if __name__ == "__main__":
    if "--drain" in sys.argv:
        drain(*sys.argv[2:])
    elif "--child" in sys.argv:
        print(json.dumps(suffer(*sys.argv[2:])), flush=True)
        # Without the end of a process, which would deliver what is left.
        os._exit(0)
    else:
        parser = argparse.ArgumentParser(description=__doc__)
        parser.add_argument("--seconds", type=float, default=SECONDS)
        parser.add_argument("--only", nargs="*", default=[])
        main(**vars(parser.parse_args()))
