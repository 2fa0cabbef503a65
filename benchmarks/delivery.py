"""Delivery beside its peers: events per second, CPU, bytes, memory, hand-over, faults.

``python -m benchmarks.delivery [--events N] [--rounds N] [--only NAME]...``

Each client runs in a process of its own, one after the other in each round, against a
sink in another process. All track the same events, a name and five properties, at the
settings that make them fastest; the clock runs from the first call until the sink has
answered for the last event. A client that isn't installed is left out.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import collections.abc as c
import contextlib
import datetime as dt
import gzip
import importlib.util
import json
import math
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import typing as t
from pathlib import Path

from flask import Flask

MODULE = "benchmarks.delivery"
#: Where this revision is; another one may be measured beside it.
ROOT = Path(__file__).parent.parent
NAME = "Place Order"
#: One after the other, so that no two neighbours are the same to a compressor.
PROPERTIES = [
    {
        "Plan": ("free", "team", "pro")[number % 3],
        "Items": number % 7,
        "Total": number * 37 % 10_000 / 100,
        "Currency": ("EUR", "USD", "JPY", "GBP")[number % 4],
        "New": number % 5 == 0,
    }
    for number in range(1000)
]
EVENTS_PER_REQUEST = 5
LATENCIES = (0.0, 0.03)
OURS = "flask-mengpaneel"
OURS_WITH_SPOOL = "flask-mengpaneel + spool"
#: One request for each event, or nearly: a few are enough.
SLOW = {"mixpanel Consumer": 50, "segment": 4, "posthog": 2}
#: What waits in the memory test.
WAITING = 100_000
#: Seconds for which requests come while Mixpanel is in trouble.
TROUBLE = 5.0
#: Where nobody listens.
NOBODY = "http://127.0.0.1:9"


# The sink.


#: A connection that was made to a server.
Converse = c.Callable[[asyncio.StreamReader, asyncio.StreamWriter], c.Awaitable[None]]
#: What is written for the head and the body of a request; ``None``: nothing ever.
Answering = c.Callable[[bytes, bytes], bytes | None]
HANG_UP = "Connection: close\r\n"


def conversation(latency: float, answering: Answering, counters: t.Any) -> Converse:
    """Count what arrives by the marks of events in it, without reading it."""

    async def converse(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                size = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
                body = await reader.readexactly(size)
                reply = answering(head, body)

                if reply is None:
                    continue

                await asyncio.sleep(latency)

                if reply.startswith(b"HTTP/1.1 200"):
                    counters[0] += events_in(head, body)
                    counters[1] += size
                    counters[2] += 1

                writer.write(reply)

                if HANG_UP.encode() in reply:
                    break

        writer.close()

    return converse


def events_in(head: bytes, body: bytes) -> int:
    data = unpacked(head, body)
    # Quoted as in JSON, and as in a form.
    return data.count(b'"Place Order"') + data.count(b"%22Place+Order%22")


def unpacked(head: bytes, body: bytes) -> bytes:
    return gzip.decompress(body) if b"content-encoding: gzip" in head else body


def always(status: int) -> Answering:
    """Answer all with this status; 0 never answers."""
    return lambda head, body: answer(head, status) if status else None


FINE = always(200)


def answer(head: bytes, status: int, headers: str = "") -> bytes:
    ok = "OK" if b" /import" in head else 1
    return http(status, json.dumps({"status": ok, "error": None}), headers)


def http(status: int, body: str, headers: str = "") -> bytes:
    """An answer as it is on the wire.

    :param headers: further ones, each with the end of its line.
    """
    return (
        f"HTTP/1.1 {status} Whatever\r\nContent-Type: application/json\r\n"
        f"{headers}Content-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


async def serve(converse: Converse, ready: t.Any) -> None:
    server = await asyncio.start_server(converse, "127.0.0.1", 0, limit=2**24)
    ready.put(server.sockets[0].getsockname()[1])
    await server.serve_forever()


@contextlib.contextmanager
def server(converse: Converse) -> c.Iterator[str]:
    """Run a server in a process of its own, and give its URL."""
    ready: t.Any = multiprocessing.Queue()
    process = multiprocessing.Process(
        target=lambda: asyncio.run(serve(converse, ready)), daemon=True
    )
    process.start()

    try:
        yield f"http://127.0.0.1:{ready.get()}"
    finally:
        process.kill()
        process.join()


@contextlib.contextmanager
def sink(
    latency: float = 0.0, answering: Answering = FINE
) -> c.Iterator[tuple[str, t.Any]]:
    counters = multiprocessing.Array("q", 3)

    with server(conversation(latency, answering, counters)) as url:
        yield url, counters


# The clients. Each gives what tracks an event, and what waits for the end.


class Client(t.NamedTuple):
    track: c.Callable[[dict[str, t.Any]], object]
    finish: c.Callable[[], object]
    #: At the end of a request.
    flush: c.Callable[[], object] = lambda: None


def mengpaneel(url: str) -> Client:
    return _mengpaneel(url, None)


def mengpaneel_spool(url: str) -> Client:
    return _mengpaneel(url, new_spool())


def new_spool() -> str:
    return os.path.join(tempfile.mkdtemp(), "spool")


def app_of_ours(url: str, spool: str | None) -> t.Any:
    """An app with the extension, in whose context this thread is from now on."""
    # Loaded before the clock starts, as by all others.
    import requests  # noqa: F401

    from flask_mengpaneel import Mengpaneel

    app = Flask(__name__)
    Mengpaneel(app, token="t", api_host=url, spool=spool)
    app.app_context().push()
    return app.extensions["mengpaneel"]


def _mengpaneel(url: str, spool: str | None) -> Client:
    from flask_mengpaneel import Manager

    background = app_of_ours(url, spool).background
    manager = Manager().__enter__()

    def track(properties: dict[str, t.Any]) -> None:
        manager.track(NAME, {"distinct_id": "ann", **properties})

    def flush() -> None:
        # A unit of work ends, as a request would, and another begins.
        nonlocal manager
        manager.__exit__()
        manager = Manager().__enter__()

    def finish() -> None:
        flush()
        background.flush(120)

    return Client(track, finish, flush)


def mixpanel_buffered(url: str) -> Client:
    import mixpanel

    # It takes no larger buffer than that.
    consumer = mixpanel.BufferedConsumer(max_size=50, events_url=f"{url}/track")
    client = mixpanel.Mixpanel("t", consumer)
    return Client(lambda p: client.track("ann", NAME, p), consumer.flush)


def mixpanel_consumer(url: str) -> Client:
    import mixpanel

    client = mixpanel.Mixpanel("t", mixpanel.Consumer(events_url=f"{url}/track"))
    return Client(lambda p: client.track("ann", NAME, p), lambda: None)


def mixpanel_async(url: str) -> Client:
    import mixpanel
    from mixpanel_async import AsyncBufferedConsumer

    consumer = AsyncBufferedConsumer(
        events_url=f"{url}/track",
        max_size=2000,
        flush_after=dt.timedelta(seconds=1),
        flush_first=False,
    )
    client = mixpanel.Mixpanel("t", consumer)

    def finish() -> None:
        thread = consumer.flushing_thread

        # Else both would send what it has under way.
        if thread is not None and thread.is_alive():
            thread.join()

        consumer.flush(async_=False)

    return Client(lambda p: client.track("ann", NAME, p), finish)


def posthog(url: str) -> Client:
    from posthog import Posthog

    client = Posthog(
        "t", host=url, flush_at=1000, max_queue_size=1_000_000, thread=4, gzip=True
    )
    return Client(
        lambda p: client.capture(NAME, distinct_id="ann", properties=dict(p)),
        client.flush,
    )


def segment(url: str) -> Client:
    from segment.analytics.client import Client as Segment

    client = Segment(
        "t", host=url, max_queue_size=1_000_000, upload_size=1000, thread=4, gzip=True
    )
    return Client(lambda p: client.track("ann", NAME, dict(p)), client.flush)


CLIENTS: dict[str, tuple[c.Callable[[str], Client], str]] = {
    OURS: (mengpaneel, "flask_mengpaneel"),
    OURS_WITH_SPOOL: (mengpaneel_spool, "flask_mengpaneel"),
    "mixpanel Consumer": (mixpanel_consumer, "mixpanel"),
    "mixpanel BufferedConsumer": (mixpanel_buffered, "mixpanel"),
    "mixpanel-py-async": (mixpanel_async, "mixpanel_async"),
    "posthog": (posthog, "posthog"),
    "segment": (segment, "segment"),
}


# What is measured, in a process of its own each time.

Numbers = dict[str, float]


def deliver(name: str, url: str, events: int) -> Numbers:
    """Track events, and wait until they are delivered."""
    client = CLIENTS[name][0](url)
    client.track(PROPERTIES[0])
    client.finish()
    cpu, started = time.process_time(), time.perf_counter()
    track_all(client, events)
    client.finish()
    return {
        "seconds": time.perf_counter() - started,
        "cpu": time.process_time() - cpu,
    }


def track_all(client: Client, events: int) -> None:
    for number in range(events):
        client.track(PROPERTIES[number % len(PROPERTIES)])

        if number % EVENTS_PER_REQUEST == 0:
            client.flush()


def hand_over(name: str, url: str, events: int) -> Numbers:
    """What one event costs the thread that tracks it."""
    client = CLIENTS[name][0](url)
    client.track(PROPERTIES[0])
    client.finish()
    recording, handing = [], []

    for first in range(0, events, EVENTS_PER_REQUEST):
        started = time.perf_counter()

        for number in range(first, first + EVENTS_PER_REQUEST):
            client.track(PROPERTIES[number % len(PROPERTIES)])

        recorded = time.perf_counter()
        client.flush()
        recording.append((recorded - started) / EVENTS_PER_REQUEST * 1e6)
        handing.append((time.perf_counter() - recorded) / EVENTS_PER_REQUEST * 1e6)

    client.finish()
    return {
        "track()": statistics.median(recording),
        "at p99": percentile(recording),
        "hand over": statistics.median(handing),
        "at p99 ": percentile(handing),
    }


def end_unit(name: str, url: str, events: int) -> Numbers:
    """What a unit of work with one event costs its thread when it ends."""
    from flask_mengpaneel import Manager

    def unit() -> float:
        manager = Manager().__enter__()
        manager.track(NAME, PROPERTIES[0])
        return timed(manager.__exit__)

    return with_pauses("unit", unit, background_of(name, url), events)


def accept(name: str, url: str, events: int) -> Numbers:
    """What the transport has of that."""
    from flask_mengpaneel import Manager

    background = background_of(name, url)

    with Manager() as manager:
        manager.track(NAME, PROPERTIES[0])
        envelope = manager.visitor.envelope(manager.calls)

    def transport() -> float:
        return timed(lambda: background.send(envelope))

    return with_pauses("transport", transport, background, events)


def background_of(name: str, url: str) -> t.Any:
    return app_of_ours(url, new_spool() if name == OURS_WITH_SPOOL else None).background


def with_pauses(
    title: str, action: c.Callable[[], float], background: t.Any, events: int
) -> Numbers:
    """What an action takes right after others, and after a pause for delivery."""
    numbers = {}

    # So few at once that none has to be serialized, and one alone.
    for name, at_once in ((title, 50), (f"{title}, paused", 1)):
        seen = []

        for number in range(events if at_once > 1 else events // 20):
            if number % at_once == 0:
                background.flush(120)

            seen.append(action())

        numbers[name] = statistics.median(seen)

    return numbers


def timed(action: c.Callable[[], object]) -> float:
    """The microseconds of this thread's processor time that an action takes."""
    started = time.thread_time_ns()
    action()
    return (time.thread_time_ns() - started) / 1000


def hold(name: str, url: str, events: int) -> Numbers:
    """How much memory events take that can't be delivered."""
    client = CLIENTS[name][0](url)
    client.track(PROPERTIES[0])
    client.flush()
    before = memory()
    track_all(client, events)
    return {"MB": memory() - before}


def memory() -> float:
    """What the process needed at most so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def suffer(name: str, url: str, _: int) -> Numbers:
    """How long requests take that track an event while Mixpanel is in trouble."""
    client = CLIENTS[name][0](url)
    app = Flask(__name__)

    @app.get("/visit")
    def visit() -> str:
        for number in range(EVENTS_PER_REQUEST):
            client.track(PROPERTIES[number])

        client.flush()
        return "visit"

    browser = app.test_client()
    durations = []
    browser.get("/visit")
    end = time.monotonic() + TROUBLE

    while time.monotonic() < end:
        started = time.perf_counter()
        browser.get("/visit")
        durations.append((time.perf_counter() - started) * 1e3)

    return {
        "requests": len(durations),
        "median": statistics.median(durations),
        "p99": percentile(durations),
        "most": max(durations),
    }


def percentile(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]


WORK = {
    "accept": accept,
    "deliver": deliver,
    "end_unit": end_unit,
    "hand_over": hand_over,
    "hold": hold,
    "suffer": suffer,
}


def child(
    what: str,
    name: str,
    url: str,
    events: int,
    timeout: float | None = None,
    root: Path = ROOT,
) -> Numbers:
    return run(MODULE, what, name, url, events, timeout=timeout, root=root)


def run(
    module: str, *arguments: object, timeout: float | None = None, root: Path = ROOT
) -> Numbers:
    """What a module prints last, called as ``--child`` in a process of its own."""
    output = subprocess.run(
        [sys.executable, "-m", module, "--child", *map(str, arguments)],
        check=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        timeout=timeout,
        stdout=subprocess.PIPE,
        # Some complain of each event that waits.
        stderr=subprocess.DEVNULL,
    ).stdout
    return t.cast(Numbers, json.loads(output.splitlines()[-1]))


# Rounds, and what is printed of them.

Results = dict[str, list[Numbers]]


def rounds_of(
    names: c.Sequence[str], rounds: int, measure: c.Callable[[str], Numbers]
) -> Results:
    results: Results = collections.defaultdict(list)

    for _ in range(rounds):
        for name in names:
            results[name].append(measure(name))

    return results


def delivered(name: str, latency: float, events: int, root: Path = ROOT) -> Numbers:
    events //= SLOW.get(name, 1)

    with sink(latency) as (url, counters):
        numbers = child("deliver", name, url, events, root=root)
        arrived, size, requests = counters

    # The first event was to warm up.
    return {
        "events/s": (arrived - 1) / numbers["seconds"],
        "CPU s/10,000": numbers["cpu"] / events * 10_000,
        "bytes/event": size / max(arrived, 1),
        "requests": requests,
        "lost": events + 1 - arrived,
    }


def troubled(name: str, status: int | None, latency: float = 0.0) -> Numbers:
    """What requests take while Mixpanel answers so; ``None``: nobody listens."""
    if status is None:
        return child("suffer", name, NOBODY, 0)

    with sink(latency, always(status)) as (url, _):
        try:
            return child("suffer", name, url, 0, timeout=4 * TROUBLE)
        except subprocess.TimeoutExpired:
            # The first request waits still.
            return dict.fromkeys(("requests", "median", "p99", "most"), math.inf)


def median(results: Results, name: str, column: str) -> float:
    return statistics.median(numbers[column] for numbers in results[name])


def show(title: str, results: Results) -> None:
    columns = list(next(iter(results.values()))[0])
    print(f"\n{title}\n{'':<26}" + "".join(f"{column:>24}" for column in columns))

    for name, rounds in results.items():
        cells = [cell([numbers[column] for numbers in rounds]) for column in columns]
        print(f"{name:<26}" + "".join(f"{text:>24}" for text in cells), flush=True)


def cell(values: list[float]) -> str:
    """The median, and from where to where the rounds went."""
    middle, low, high = map(
        number, (statistics.median(values), min(values), max(values))
    )
    return middle if low == high else f"{middle} ({low} - {high})"


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value in {0, 1} else f"{value:.3g}"


class Goal(t.NamedTuple):
    what: str
    seen: float
    reach: str
    #: The best of the others.
    peer: tuple[float, str] | None = None


def show_goals(goals: c.Iterable[Goal]) -> None:
    print(f"\n{'':<42}{'seen':>10}{'to reach':>24}    best peer")

    for what, seen, reach, peer in goals:
        beside = f"{number(peer[0])} ({peer[1]})" if peer else ""
        print(f"{what:<42}{number(seen):>10}{reach:>24}    {beside}")


def best(results: Results, column: str, choose: t.Any) -> tuple[float, str]:
    """The best of those that lost nothing."""
    return t.cast(
        "tuple[float, str]",
        choose(
            (median(results, name, column), name)
            for name in results
            if not name.startswith(OURS) and not median(results, name, "lost")
        ),
    )


def main(events: int = 20_000, rounds: int = 5, only: c.Sequence[str] = ()) -> None:
    """Measure all clients that are installed, and print medians and spreads."""
    names = [
        name
        for name, (_, module) in CLIENTS.items()
        if importlib.util.find_spec(module) and (not only or name in only)
    ]
    goals = []

    for latency in LATENCIES:
        results = rounds_of(
            names, rounds, lambda name, s=latency: delivered(name, s, events)
        )
        show(f"Delivered, sink at {latency * 1000:.0f} ms", results)
        goals += goals_of_delivery(latency, results)

    goals += measure_hand_over(events, rounds)
    goals += measure_memory(rounds)
    goals += measure_trouble([name for name in names if name != OURS])
    show_goals(goals)


def goals_of_delivery(latency: float, results: Results) -> c.Iterator[Goal]:
    if len(results) < 3:
        return

    at = f"sink at {latency * 1000:.0f} ms"
    speed = best(results, "events/s", max)
    reach = f">= {max(25_000, 1.3 * speed[0]):,.0f}" if latency else ">= 35,000"
    cpu = best(results, "CPU s/10,000", min)
    yield Goal(f"events/s, {at}", median(results, OURS, "events/s"), reach, speed)
    yield Goal(
        f"CPU s/10,000, {at}",
        median(results, OURS, "CPU s/10,000"),
        f"<= {min(0.25, cpu[0]):.3g}",
        cpu,
    )
    yield Goal("bytes/event", median(results, OURS, "bytes/event"), "<= 90")


def measure_hand_over(events: int, rounds: int) -> list[Goal]:
    with sink() as (url, _):
        results = rounds_of(
            [OURS], rounds, lambda name: child("hand_over", name, url, events)
        )

        ends = rounds_of(
            [OURS, OURS_WITH_SPOOL],
            rounds,
            lambda name: {
                **child("end_unit", name, url, min(events, 4000)),
                **child("accept", name, url, min(events, 4000)),
            },
        )

    show("On the request's thread, us per event", results)
    show("The end of a unit of work with one event, us; paused: for delivery", ends)
    return [
        Goal("us/hand-over", median(results, OURS, "hand over"), "<= 10"),
        Goal("us/end of a unit", median(ends, OURS_WITH_SPOOL, "unit"), "<= 5"),
    ]


def measure_memory(rounds: int) -> list[Goal]:
    results = rounds_of(
        [OURS, OURS_WITH_SPOOL],
        min(rounds, 3),
        lambda name: child("hold", name, NOBODY, WAITING),
    )
    show(f"Memory for {WAITING:,} events that can't be delivered", results)
    return [
        Goal("MB that wait in memory", median(results, OURS, "MB"), "<= 150"),
        Goal("MB with the spool", median(results, OURS_WITH_SPOOL, "MB"), "<= 60"),
    ]


def measure_trouble(names: c.Sequence[str]) -> c.Iterator[Goal]:
    titles = {
        200: "Mixpanel answers",
        400: "400 to everything",
        413: "413 to everything",
        429: "429 to everything",
        503: "503 to everything",
        0: "no answer ever",
        None: "nobody listens",
    }

    for status, title in titles.items():
        results = rounds_of(names, 1, lambda name, s=status: troubled(name, s))
        show(f"Requests of {EVENTS_PER_REQUEST} events each, ms, {title}", results)

        if OURS_WITH_SPOOL in results:
            p99 = median(results, OURS_WITH_SPOOL, "p99")
            yield Goal(f"ms of a request at p99, {title}", p99, "<= 5")


if __name__ == "__main__":
    if "--child" in sys.argv:
        _, _, what, name, url, events = sys.argv
        print(json.dumps(WORK[what](name, url, int(events))), flush=True)
        # Without the end of a process, which some spend on what is left.
        os._exit(0)

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=[])
    main(**vars(parser.parse_args()))
