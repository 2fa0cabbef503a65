from __future__ import annotations

import collections.abc as c
import contextlib
import gc
import threading
import time
import typing as t
import weakref
from pathlib import Path

import pytest

from flask_mengpaneel import process, transports
from flask_mengpaneel.spool import Spool
from flask_mengpaneel.transports import WORKERS
from rig import Rig, events, rig
from sink import Silent, Sink

NOBODY = "http://127.0.0.1:9"


def test_inline_delivers_before_send_returns() -> None:
    with Sink() as sink, rig(sink.url) as r:
        r.send_inline(events(3))

        assert sink.count() == 3
        r.check(recorded=3, delivered=3, waiting=0, dropped={})


def test_thread_delivers_within_a_second() -> None:
    with Sink() as sink, rig(sink.url) as r:
        assert r.send(events(3))
        assert sink.wait_for(3)
        assert r.thread.flush(5)
        r.check(recorded=3, delivered=3)


def test_close_delivers_what_waits() -> None:
    with Sink() as sink, rig(sink.url) as r:
        for _ in range(100):
            r.send(events(10))

        r.thread.close()

        assert len(sink.ids) == 1000
        assert sink.copies == 0
        r.check(recorded=1000, delivered=1000)


def test_eight_threads_lose_and_double_nothing() -> None:
    with Sink() as sink, rig(sink.url) as r:

        def produce() -> None:
            for _ in range(1000):
                assert r.send(events(1))

        threads = [threading.Thread(target=produce) for _ in range(8)]

        for thread in threads:
            thread.start()

        for thread in threads:
            thread.join()

        assert r.thread.flush(10)
        assert len(sink.ids) == 8000
        assert sink.copies == 0
        r.check(recorded=8000, delivered=8000)


def test_threads_start_when_there_is_something_to_send() -> None:
    with Sink() as sink, rig(sink.url) as r:
        # Those of other tests' apps may be there still, or be about to end.
        before = set(threading.enumerate())
        r.thread.flush(1)
        assert not set(threading.enumerate()) - before
        r.send(events(1))
        assert {t.name for t in set(threading.enumerate()) - before} == {"mengpaneel"}


def test_several_requests_are_under_way_while_much_is_to_be_sent() -> None:
    with Sink() as sink, rig(sink.url) as r:
        sink.always = Silent()
        r.send(events(20_000))
        assert sink.wait_for(lambda: len(sink.requests) == WORKERS)

        sink.recover()
        assert r.thread.flush(30)
        assert len(sink.ids) == 20_000
        r.check(recorded=20_000, delivered=20_000)


def test_where_many_wait_they_refer_to_nothing() -> None:
    with Sink(latency=0.2) as sink, rig(sink.url) as r:
        for _ in range(transports.FEW + 10):
            r.send(events(1))

        *_, queued = r.thread._queue
        gc.collect()

        assert not gc.is_tracked(queued)
        assert r.thread.flush(5)
        assert len(sink.ids) == transports.FEW + 10


def test_a_worker_without_work_ends_and_another_takes_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transports, "IDLE", 0.05)

    with Sink() as sink, rig(sink.url) as r:
        for sent in (1, 2):
            r.send(events(1))
            assert r.thread.flush(5)
            assert len(sink.ids) == sent

            for thread in threading.enumerate():
                if thread.name == "mengpaneel":
                    thread.join(5)

            assert not r.thread._workers

        r.check(recorded=2, delivered=2)


def test_the_apps_of_a_process_finish_at_the_same_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Sink() as sink, rig(sink.url) as first, rig(sink.url) as second:
        sink.always = Silent()
        both = [first.thread, second.thread]
        monkeypatch.setattr(process, "_closed", weakref.WeakSet(both))

        for r in (first, second):
            r.send(events(1))

        process._close_all()
        # One that began when the other had ended would have its whole time after it.
        ends = [t.cast(float, thread._deadline) for thread in both]
        assert max(ends) - min(ends) < first.config.shutdown_timeout

        for r in (first, second):
            r.check(recorded=1, waiting=0, dropped={transports.AT_EXIT: 1})


@contextlib.contextmanager
def mixpanel_away(monkeypatch: pytest.MonkeyPatch, **options: t.Any) -> c.Iterator[Rig]:
    """Delivery that has little room, and has found out that nobody listens."""
    monkeypatch.setattr(transports, "MOST_WAITING", 1_000)
    monkeypatch.setattr(transports, "MOST_WAITING_WITH_SPOOL", 1_000)

    with rig(NOBODY, shutdown_timeout=0, **options) as r:
        assert r.send(events(1))
        deadline = time.monotonic() + 10

        while not r.thread._in_trouble:
            assert time.monotonic() < deadline
            time.sleep(0.01)

        yield r


def test_no_request_waits_for_mixpanel_when_the_queue_is_full_and_it_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with mixpanel_away(monkeypatch) as r:
        for _ in range(200):
            # Else it would be tried in the request, at once and in vain.
            assert r.send(events(100))

        assert set(r.reported.values()) == {"the queue was full"}
        r.check(recorded=20_001, dropped={"the queue was full": len(r.reported)})
        assert r.ledger.waiting >= 1_000


def test_a_full_queue_lets_others_deliver_while_mixpanel_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transports, "MOST_WAITING", 1_000)

    with Sink() as sink, rig(sink.url) as r:
        sink.always = Silent()
        taken = [r.send(events(1_000)) for _ in range(40)]
        assert not all(taken)
        assert r.reported == {}
        sink.always = None


def test_what_a_spool_refuses_waits_in_memory_while_there_is_room(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spool = Spool(tmp_path / "spool.sqlite3", "t", most_bytes=0)

    with mixpanel_away(monkeypatch, spool=spool) as r:
        for _ in range(9):
            assert r.send(events(100))

        r.check(recorded=901, waiting=901, dropped={})
