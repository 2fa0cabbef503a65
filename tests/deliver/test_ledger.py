from __future__ import annotations

import os
import threading

from flask_mengpaneel.deliver.ledger import Balance, Ledger
from rig import PlainEnvelope, event, events, rig
from sink import Silent, Sink, Status


def test_what_nobody_holds_makes_the_ledger_fail() -> None:
    ledger = Ledger()
    ledger.record(3)
    assert not ledger.snapshot().balanced

    ledger.deliver(2)
    ledger.drop("bot", 1)
    assert ledger.snapshot().balanced


def test_the_places_are_asked_what_waits() -> None:
    ledger = Ledger()
    waiting = [3]

    def place(balance: Balance) -> None:
        balance.waiting += waiting[0]

    ledger.add_source(place)
    ledger.record(3)
    assert ledger.waiting == 3

    waiting[0] = 0
    assert not ledger.snapshot().balanced


def test_it_says_it_in_a_line() -> None:
    ledger = Ledger()
    ledger.record(5)
    ledger.deliver(4)
    ledger.drop("bot", 1)

    assert str(ledger) == "5 recorded = 4 delivered + 0 waiting + 1 dropped (bot: 1)"


def test_reasons_are_counted_apart() -> None:
    ledger = Ledger()
    ledger.drop("bot", 1)
    ledger.drop("disabled", 2)
    ledger.drop("bot", 1)
    ledger.drop("never", 0)

    assert ledger.dropped == {"bot": 2, "disabled": 2}


def test_the_ledger_balances_at_each_moment_of_a_delivery() -> None:
    with Sink(latency=0.01) as sink, rig(sink.url) as r:
        sink.script(Status(503), Status(500))
        sink.refuse = lambda record: "no" if record["event"] == "Bad" else None

        for number in range(200):
            envelope = events(5) if number % 7 else PlainEnvelope([event("Bad")])
            r.send(envelope)
            r.check()

        while r.ledger.waiting:
            r.check()

        assert len(sink.ids) == r.ledger.delivered
        assert r.ledger.dropped == {"properties: no": 29}


def test_requests_that_deliver_themselves_are_counted_as_waiting() -> None:
    with Sink() as sink, rig(sink.url) as r:
        sink.always = Silent()
        thread = threading.Thread(target=r.send_inline, args=(events(4),))
        thread.start()
        assert sink.wait_for(lambda: sink.requests)
        r.check(recorded=4, waiting=4)
        sink.recover()
        thread.join()
        r.check(recorded=4, delivered=4, waiting=0)


def test_a_child_starts_with_an_empty_ledger() -> None:
    ledger = Ledger()
    ledger.record(3)
    read, write = os.pipe()
    pid = os.fork()

    if not pid:
        # A server that forks by itself calls no hooks, but all record first.
        from flask_mengpaneel import process

        process.pid = -1
        ledger._recorded = 3
        process.on_fork(Resets(ledger))
        ledger.record(1)
        os.write(write, str(ledger.recorded).encode())
        os._exit(0)

    os.waitpid(pid, 0)
    assert os.read(read, 10) == b"1"
    os.close(read)
    os.close(write)


class Resets:
    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        # Kept alive by whoever is asked to keep it.
        _alive.append(self)

    def after_fork(self) -> None:
        self._ledger.reset()


_alive: list[Resets] = []
