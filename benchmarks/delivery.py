"""Delivery beside its peers: events per second, CPU, bytes, memory, hand-over.

    python benchmarks/delivery.py [--events 20000] [--rounds 3]

Each client runs in a process of its own, one after the other in each round, against a
sink in another process that takes 0 or 30 ms to answer. A client that isn't installed
is left out. The events are the same for all: a name and five properties.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import gzip
import importlib.util
import json
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import typing as t

EVENTS_PER_REQUEST = 5
PROPERTIES = {"Plan": "pro", "Items": 3, "Total": 19.9, "Currency": "EUR", "New": True}
GOOD = {"status": 1, "error": None, "code": 200, "num_records_imported": 1}


# The sink.


async def serve(latency: float, counters: t.Any, ready: t.Any) -> None:
    """Count what arrives by the marks of events in it, without reading it."""

    async def converse(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                size = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
                body = await reader.readexactly(size)
                data = (
                    gzip.decompress(body) if b"content-encoding: gzip" in head else body
                )
                # Quoted as in JSON, and as in a form.
                events = data.count(b'"Place Order"') + data.count(b"%22Place+Order%22")
                await asyncio.sleep(latency)
                counters[0] += events
                counters[1] += size
                counters[2] += 1
                text = json.dumps(GOOD | {"status": status(head)}).encode()
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                    b"Content-Length: %d\r\n\r\n%s" % (len(text), text)
                )

    server = await asyncio.start_server(converse, "127.0.0.1", 0, limit=2**24)
    ready.put(server.sockets[0].getsockname()[1])
    await server.serve_forever()


def status(head: bytes) -> int | str:
    return "OK" if b" /import" in head else 1


@contextlib.contextmanager
def sink(latency: float) -> t.Iterator[tuple[str, t.Any]]:
    counters = multiprocessing.Array("q", 3)
    ready: t.Any = multiprocessing.Queue()
    process = multiprocessing.Process(
        target=lambda: asyncio.run(serve(latency, counters, ready)), daemon=True
    )
    process.start()

    try:
        yield f"http://127.0.0.1:{ready.get()}", counters
    finally:
        process.kill()
        process.join()


# The clients. Each gives a function that tracks an event, and one that waits for the
# end; at the settings that make it fastest.

Client = tuple[t.Callable[[int], object], t.Callable[[], object]]


def mengpaneel(url: str) -> Client:
    return _mengpaneel(url, None)


def mengpaneel_spool(url: str) -> Client:
    return _mengpaneel(url, os.path.join(tempfile.mkdtemp(), "spool"))


def _mengpaneel(url: str, spool: str | None) -> Client:
    from flask import Flask

    from flask_mengpaneel import Manager, Mengpaneel

    app = Flask(__name__)
    extension = Mengpaneel(app, token="t", api_host=url, spool=spool)
    app.app_context().push()
    # Loaded before the clock starts, as by all others.
    import mixpanel  # noqa: F401
    import requests  # noqa: F401

    manager = Manager()

    def track(number: int) -> None:
        # As the requests of a page do: some events each.
        nonlocal manager
        manager.track("Place Order", PROPERTIES)

        if number % EVENTS_PER_REQUEST == 0:
            manager.flush()
            manager = Manager()

    def flush() -> None:
        manager.flush()
        extension.flush(120)

    return track, flush


def mixpanel_buffered(url: str) -> Client:
    import mixpanel

    consumer = mixpanel.BufferedConsumer(
        max_size=50, events_url=f"{url}/track", people_url=f"{url}/engage"
    )
    client = mixpanel.Mixpanel("t", consumer)
    return (
        lambda number: client.track("ann", "Place Order", PROPERTIES),
        consumer.flush,
    )


def mixpanel_consumer(url: str) -> Client:
    import mixpanel

    client = mixpanel.Mixpanel("t", mixpanel.Consumer(events_url=f"{url}/track"))
    return lambda number: client.track("ann", "Place Order", PROPERTIES), lambda: None


def mixpanel_async(url: str) -> Client:
    import mixpanel
    from mixpanel_async import AsyncBufferedConsumer

    consumer = AsyncBufferedConsumer(
        events_url=f"{url}/track",
        max_size=2000,
        flush_after=_seconds(1),
        flush_first=False,
    )
    client = mixpanel.Mixpanel("t", consumer)

    def flush() -> None:
        thread = consumer.flushing_thread

        if thread is not None and thread.is_alive():
            thread.join()

        consumer.transfer_buffers()
        consumer.flush(async_=False)

    return lambda number: client.track("ann", "Place Order", PROPERTIES), flush


def _seconds(seconds: int) -> t.Any:
    import datetime

    return datetime.timedelta(seconds=seconds)


def posthog(url: str) -> Client:
    from posthog import Posthog

    client = Posthog(
        "t", host=url, flush_at=1000, max_queue_size=1_000_000, thread=4, gzip=True
    )
    return (
        lambda number: client.capture(
            "Place Order", distinct_id="ann", properties=dict(PROPERTIES)
        ),
        client.flush,
    )


def segment(url: str) -> Client:
    from segment.analytics.client import Client as Segment

    client = Segment(
        "t", host=url, max_queue_size=1_000_000, upload_size=1000, thread=4, gzip=True
    )
    return (
        lambda number: client.track("ann", "Place Order", dict(PROPERTIES)),
        client.flush,
    )


CLIENTS: dict[str, tuple[t.Callable[[str], Client], str]] = {
    "flask-mengpaneel": (mengpaneel, "flask_mengpaneel"),
    "flask-mengpaneel + spool": (mengpaneel_spool, "flask_mengpaneel"),
    "mixpanel Consumer": (mixpanel_consumer, "mixpanel"),
    "mixpanel BufferedConsumer": (mixpanel_buffered, "mixpanel"),
    "mixpanel-py-async": (mixpanel_async, "mixpanel_async"),
    "posthog": (posthog, "posthog"),
    "segment": (segment, "segment"),
}
#: One request for each event: a few are enough.
SLOW = {"mixpanel Consumer": 200}


def deliver(name: str, url: str, events: int) -> dict[str, float]:
    """In a process of its own: track events and wait until they are delivered."""
    track, flush = CLIENTS[name][0](url)
    track(0)
    flush()
    cpu, started = time.process_time(), time.perf_counter()

    for number in range(events):
        track(number)

    tracked = time.perf_counter()
    flush()
    ended = time.perf_counter()
    return {
        "track": (tracked - started) / events,
        "seconds": ended - started,
        "cpu": time.process_time() - cpu,
    }


def hand_over(name: str, url: str, events: int) -> dict[str, float]:
    """In a process of its own: batches of five events that are recorded already."""
    from flask import Flask

    from flask_mengpaneel import Manager, Mengpaneel
    from flask_mengpaneel.tracker import Batch

    app = Flask(__name__)
    extension = Mengpaneel(app, token="t", api_host=url, spool=None)
    app.app_context().push()
    transport = app.extensions["mengpaneel"].background
    ledger = extension.ledger()
    batches = []

    for _ in range(events // EVENTS_PER_REQUEST + 1):
        manager = Manager()

        for _ in range(EVENTS_PER_REQUEST):
            manager.track("Place Order", PROPERTIES)

        batches.append(Batch.of(list(manager.take()), manager.visitor))

    durations = []

    # Everything that is heavy is loaded by the first.
    ledger.record(EVENTS_PER_REQUEST)
    transport.send(batches.pop())
    extension.flush(30)
    cpu, started = time.process_time(), time.perf_counter()

    for batch in batches:
        before = time.perf_counter()
        ledger.record(batch.records)
        transport.send(batch)
        durations.append((time.perf_counter() - before) / EVENTS_PER_REQUEST)

    extension.flush(120)
    return {
        "us/hand-over": statistics.median(durations) * 1e6,
        "us at p99": sorted(durations)[int(len(durations) * 0.99)] * 1e6,
        "events/s": events / (time.perf_counter() - started),
        "cpu s/10,000": (time.process_time() - cpu) / events * 10_000,
    }


def hold(name: str, url: str, events: int) -> dict[str, float]:
    """In a process of its own: how much memory events take that can't be delivered."""
    track, _ = CLIENTS[name][0]("http://127.0.0.1:9")
    track(0)
    before = memory()

    for number in range(events):
        track(number)

    return {"memory": memory() - before}


def memory() -> float:
    """What the process needs at most so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def child(what: str, name: str, url: str, events: int) -> dict[str, float]:
    output = subprocess.run(
        [sys.executable, __file__, "--child", what, name, url, str(events)],
        check=True,
        stdout=subprocess.PIPE,
        # Some complain of each event that waits.
        stderr=subprocess.DEVNULL,
    ).stdout
    return t.cast("dict[str, float]", json.loads(output.splitlines()[-1]))


def measure(name: str, latency: float, events: int) -> dict[str, float]:
    events = SLOW.get(name, events)

    with sink(latency) as (url, counters):
        numbers = child("deliver", name, url, events)
        arrived, size, requests = counters

    # The first event was to warm up.
    return {
        "events/s": events / numbers["seconds"],
        "cpu s/10,000": numbers["cpu"] / events * 10_000,
        "us/track": numbers["track"] * 1e6,
        "bytes/event": size / max(arrived, 1),
        "lost": events + 1 - arrived,
        "requests": requests,
    }


def main(events: int = 20_000, rounds: int = 3, only: t.Sequence[str] = ()) -> None:
    """Measure all clients that are installed, and print the medians."""
    names = [
        name
        for name, (_, module) in CLIENTS.items()
        if importlib.util.find_spec(module) and (not only or name in only)
    ]

    for latency in (0.0, 0.03):
        print(f"\nSink at {latency * 1000:.0f} ms, median of {rounds} rounds")
        results: dict[str, list[dict[str, float]]] = collections.defaultdict(list)

        for _ in range(rounds):
            for name in names:
                results[name].append(measure(name, latency, events))

        columns = list(results[names[0]][0])
        print(f"{'':<26}" + "".join(f"{column:>14}" for column in columns))

        for name in names:
            medians = [statistics.median(r[c] for r in results[name]) for c in columns]
            print(f"{name:<26}" + "".join(f"{value:>14,.2f}" for value in medians))

        name = "flask-mengpaneel"
        print("\nOf this, without recording the events")

        with sink(latency) as (url, _):
            for column, value in child("hand_over", name, url, events).items():
                print(f"{column:<26}{value:>14,.2f}")

    print("\nMemory for 100,000 events that can't be delivered, in MB")

    for name in names:
        if name.startswith("flask-mengpaneel"):
            print(f"{name:<26}{child('hold', name, '', 100_000)['memory']:>14,.0f}")


if __name__ == "__main__":
    if "--child" in sys.argv:
        _, what, name, url, events = sys.argv[1:]
        work = {"deliver": deliver, "hand_over": hand_over, "hold": hold}[what]
        print(json.dumps(work(name, url, int(events))), flush=True)
        os._exit(0)

    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=[])
    main(**vars(parser.parse_args()))
