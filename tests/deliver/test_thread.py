from __future__ import annotations

import collections.abc as c
import contextlib
import gc
import math
import threading
import time
import typing as t
import weakref
from pathlib import Path

import pytest

from flask_mengpaneel import process
from flask_mengpaneel.deliver import endpoints, pipeline
from flask_mengpaneel.deliver import thread as transports
from flask_mengpaneel.deliver.batches import Batch
from flask_mengpaneel.deliver.delivery import Attempt
from flask_mengpaneel.deliver.endpoints import MAX_IN_FLIGHT
from flask_mengpaneel.deliver.queue import MAX_AS_OBJECTS
from flask_mengpaneel.deliver.spool import Spool
from rig import PlainEnvelope, Rig, event, events, rig, update
from servers import NOBODY_LISTENS
from sink import Fault, Late, Silent, Sink, Status


def test_inline_delivers_before_send_returns() -> None:
    with Sink() as sink, rig(sink.url) as r:
        r.send_inline(events(3))

        assert sink.count() == 3
        r.check(recorded=3, delivered=3, waiting=0, dropped={})


def test_thread_delivers_within_a_second() -> None:
    with Sink() as sink, rig(sink.url) as r:
        assert r.send(events(3))
        assert sink.wait_for(3)
        assert r.thread.flush(60)
        r.check(recorded=3, delivered=3)


def test_close_delivers_what_waits() -> None:
    with Sink() as sink, rig(sink.url, shutdown_timeout=60) as r:
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

        assert r.thread.flush(60)
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
        assert sink.wait_for(lambda: len(sink.requests) == MAX_IN_FLIGHT)

        sink.recover()
        assert r.thread.flush(30)
        assert len(sink.ids) == 20_000
        r.check(recorded=20_000, delivered=20_000)


def test_where_many_wait_they_refer_to_nothing() -> None:
    with Sink(latency=0.2) as sink, rig(sink.url) as r:
        for _ in range(MAX_AS_OBJECTS + 10):
            r.send(events(1))

        *_, queued = r.thread._places.queue.envelopes
        gc.collect()

        assert not gc.is_tracked(queued)
        assert r.thread.flush(60)
        assert len(sink.ids) == MAX_AS_OBJECTS + 10


def test_a_worker_without_work_ends_and_another_takes_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pipeline, "IDLE_TIMEOUT", 0.05)

    with Sink() as sink, rig(sink.url) as r:
        for sent in (1, 2):
            r.send(events(1))
            assert r.thread.flush(60)
            assert len(sink.ids) == sent

            for thread in list(r.thread._workers.threads):
                thread.join(60)

            assert not r.thread._workers.threads

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
        ends = [t.cast(float, thread._pipeline.deadline) for thread in both]
        assert max(ends) - min(ends) < first.config.shutdown_timeout

        for r in (first, second):
            r.check(recorded=1, waiting=0, dropped={pipeline.AT_EXIT: 1})


@contextlib.contextmanager
def mixpanel_away(monkeypatch: pytest.MonkeyPatch, **options: t.Any) -> c.Iterator[Rig]:
    """Delivery that has little room, and has found out that nobody listens."""
    monkeypatch.setattr(transports, "MAX_WAITING", 1_000)
    monkeypatch.setattr(transports, "MAX_WAITING_WITH_SPOOL", 1_000)

    with rig(NOBODY_LISTENS, shutdown_timeout=0, **options) as r:
        assert r.send(events(1))
        deadline = time.monotonic() + 60

        while not r.thread._places.endpoints.all_fail:
            assert time.monotonic() < deadline
            time.sleep(0.01)

        yield r


def test_mixpanel_is_away_also_while_it_is_noticed_once_more() -> None:
    queues = endpoints.EndpointQueues(10, has_spool=False)
    queue = queues.by_name["people"]
    queue.put(Batch("people", []), 0.0)
    away = []

    for _ in range(2):
        batch = queue.next_batch(math.inf)
        assert batch is not None
        queue.answered(batch, 0.0)
        away.append(queues.all_fail)
        queue.apply(Attempt([batch], failed=True))

    assert away == [False, True]
    assert queues.all_fail


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
    monkeypatch.setattr(transports, "MAX_WAITING", 1_000)

    # Made before: Mixpanel is there as long as it may still answer.
    envelopes = [events(1_000) for _ in range(40)]

    with Sink() as sink, rig(sink.url) as r:
        sink.always = Silent()
        assert not all([r.send(envelope) for envelope in envelopes])
        assert r.reported == {}
        sink.recover()


def test_what_a_spool_refuses_waits_in_memory_while_there_is_room(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spool = Spool(tmp_path / "spool.sqlite3", "t", max_bytes=0)

    with mixpanel_away(monkeypatch, spool=spool) as r:
        for _ in range(9):
            assert r.send(events(100))

        r.check(recorded=901, waiting=901, dropped={})


# No endpoint waits for another.


def both(count: int = 1) -> PlainEnvelope:
    """Events, and as many updates of profiles."""
    return PlainEnvelope(
        [update("$set", {"n": number}) for number in range(count)]
        + [event() for _ in range(count)]
    )


TROUBLES: dict[str, Fault] = {
    "slow": Late(8.0),
    "silent": Silent(),
    "failing": Status(503),
    "pausing": Status(503, {"Retry-After": "86400"}),
    "a gateway's": Status(404, body={"message": "no Route matched"}),
}
#: Seconds that tell going on from waiting for an endpoint in trouble.
SOON = 6.0


@pytest.fixture(params=["memory", "spool", "durable"])
def options(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, t.Any]:
    """Where what waits is."""
    if request.param == "memory":
        return {}

    spool = Spool(tmp_path / "spool.sqlite3", "t")
    return {"spool": spool, "durable": request.param == "durable"}


@pytest.mark.parametrize("fault", TROUBLES.values(), ids=TROUBLES)
def test_events_go_on_while_profiles_are_in_trouble(
    fault: Fault, options: dict[str, t.Any]
) -> None:
    with Sink() as sink, rig(sink.url, shutdown_timeout=0, **options) as r:
        sink.always_at["/engage"] = fault
        r.send(both())
        assert sink.wait_for(lambda: len(sink.events) == 1, SOON)
        started = time.monotonic()

        # More rounds than batches that may wait.
        for sent in range(2, 20):
            r.send(both())
            assert sink.wait_for(lambda sent=sent: len(sink.events) == sent, SOON)

        # Each of them soon, and all of them together.
        assert time.monotonic() - started < 2 * SOON
        r.check(recorded=38)


@pytest.mark.parametrize("fault", TROUBLES.values(), ids=TROUBLES)
def test_profiles_go_on_while_events_are_in_trouble(
    fault: Fault, options: dict[str, t.Any]
) -> None:
    with Sink() as sink, rig(sink.url, shutdown_timeout=0, **options) as r:
        sink.always_at["/import"] = fault

        # The requests with events that may be under way, and more.
        for sent in range(1, 12):
            r.send(both())
            assert sink.wait_for(lambda sent=sent: len(sink.updates) == sent, SOON)

        r.check(recorded=22)


def test_much_for_an_endpoint_in_trouble_is_kept_and_sent_in_order(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(endpoints, "MAX_BUILT", 2)
    monkeypatch.setattr(endpoints, "STALL_TIMEOUT", 0.1)
    monkeypatch.setattr("flask_mengpaneel.deliver.batches.MAX_RECORDS", 10)
    spool = Spool(tmp_path / "spool.sqlite3", "t")

    with Sink() as sink, rig(sink.url, spool=spool) as r:
        sink.always_at["/engage"] = Silent()

        for number in range(10):
            envelope = [update("$set", {"n": 10 * number + i}) for i in range(10)]
            r.send(PlainEnvelope([*envelope, event()]))
            assert sink.wait_for(lambda n=number: len(sink.events) > n, SOON)

        assert spool.summary().records > 0
        r.check(recorded=110)
        sink.recover()
        assert r.thread.flush(60)
        assert [u["$set"]["n"] for u in sink.updates] == list(range(100))
        r.check(recorded=110, delivered=110, waiting=0)


def test_without_a_spool_much_for_an_endpoint_in_trouble_costs_no_events(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transports, "MAX_WAITING", 20)
    monkeypatch.setattr(endpoints, "MAX_BUILT", 2)
    monkeypatch.setattr("flask_mengpaneel.deliver.batches.MAX_RECORDS", 10)

    with Sink() as sink, rig(sink.url, shutdown_timeout=0) as r:
        sink.always_at["/engage"] = Status(503, {"Retry-After": "300"})

        for number in range(10):
            envelope = [update("$set", {"n": 10 * number + i}) for i in range(10)]
            assert r.send(PlainEnvelope([*envelope, event()]))
            assert sink.wait_for(lambda n=number: len(sink.events) > n, SOON)

        r.thread.flush(0.5)
        assert {reason for _, reason in r.reports} == {pipeline.FULL}
        r.check(recorded=110, delivered=10)


def test_what_is_put_into_the_spool_while_it_is_read_is_sent_at_once(
    sink: Sink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path / "spool")
    spool.put([event()], "down")

    with rig(sink.url, spool=spool) as made:
        lease, has_come = made.delivery.lease_batches, threading.Event()

        def read(*args: t.Any, **kwargs: t.Any) -> t.Any:
            found = lease(*args, **kwargs)

            if not found and not has_come.is_set():
                has_come.set()
                spool.put([event()], "down")
                made.thread.poll_spool()

            return found

        monkeypatch.setattr(made.delivery, "lease_batches", read)
        made.thread.resume_spooled()
        assert has_come.wait(60)
        assert made.thread.flush(60)
        assert sink.count() == 2


@pytest.mark.parametrize(
    "headers", [{}, {"Retry-After": "300"}], ids=["trouble", "a pause"]
)
def test_the_spool_is_drained_for_those_who_are_not_in_trouble(
    tmp_path: Path, headers: dict[str, str]
) -> None:
    path = tmp_path / "spool.sqlite3"
    # Profiles first: they alone are sent at the beginning.
    Spool(path, "t").put([update("$set", {"n": 1})] * 2100 + [event()] * 100, "down")

    with Sink() as sink, rig(sink.url, spool=Spool(path, "t"), shutdown_timeout=0) as r:
        sink.always_at["/engage"] = Status(503, headers)
        r.thread.resume_spooled()
        assert sink.wait_for(lambda: len(sink.events) == 100, SOON)


@pytest.mark.parametrize("fault", TROUBLES.values(), ids=TROUBLES)
def test_in_the_request_too_no_endpoint_waits_for_another(
    fault: Fault, tmp_path: Path
) -> None:
    with Sink() as sink, rig(sink.url, timeout=2) as r:
        sink.always_at["/engage"] = fault
        r.send_inline(both())
        assert len(sink.events) == 1
        sink.always_at.clear()
        sink.always_at["/import"] = fault
        r.send_inline(both())
        assert r.ledger.waiting == 0
        assert [u for u in sink.updates if u] != []


def test_a_far_retry_after_is_over_soon_enough(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, t.Any]
) -> None:
    monkeypatch.setattr("flask_mengpaneel.deliver.answers.MAX_RETRY_AFTER", 0.5)

    with Sink() as sink, rig(sink.url, **options) as r:
        sink.script(Status(503, {"Retry-After": "86400"}))
        r.send(events(5))
        assert sink.wait_for(5, SOON)
        assert r.thread.flush(60)
        r.check(delivered=5, waiting=0)


def test_what_a_gateway_refuses_is_tried_again() -> None:
    refusal = Status(404, body={"message": "no Route matched"})

    with Sink() as sink, rig(sink.url) as r:
        sink.script(refusal, Status(403, body="<html>"), Status(407, body=""))
        adds_up = update("$add", {"n": 1}, repeatable=False)
        r.send(PlainEnvelope([adds_up]))
        r.send(events(3))
        assert r.thread.flush(60)
        r.check(recorded=4, delivered=4, dropped={})
        assert (sink.copies, len(sink.updates)) == (0, 1)


@pytest.mark.parametrize(
    "answer",
    [
        Status(429, {"Retry-After": "9" * 5000}),
        Status(429, {"Retry-After": "Fri, 99 Foo 9999999 99:99:99 GMT"}),
        Status(400, body="[" * 100_000),
        Status(200, body='{"status": ' + "9" * 10_000 + "}"),
        Status(301, {"Location": "http://["}),
        Status(302, {"Location": "//"}),
        Status(200, {"Set-Cookie": "a=" + "b" * 60_000}, {"status": 1}),
    ],
    ids=lambda answer: str(answer)[:60],
)
def test_no_answer_stops_what_comes_after(
    answer: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_mengpaneel.deliver.answers.MAX_RETRY_AFTER", 0.1)

    with Sink() as sink, rig(sink.url) as r:
        sink.script(answer)
        r.send(events(2))
        assert sink.wait_for(lambda: sink.requests)
        r.send(events(2))
        assert r.thread.flush(60)
        r.check(recorded=4, delivered=4)


def test_envelopes_in_the_spool_are_sent_in_order_past_an_endpoint_in_trouble(
    tmp_path: Path,
) -> None:
    path = tmp_path / "spool.sqlite3"

    with rig("http://127.0.0.1:9", spool=Spool(path, "t"), shutdown_timeout=0) as gone:
        for number in range(5):
            gone.send(PlainEnvelope([update("$set", {"n": number}), event()]))

    with Sink() as sink, rig(sink.url, spool=Spool(path, "t")) as r:
        sink.always_at["/engage"] = Status(503)
        r.send(PlainEnvelope([update("$set", {"n": -1})]))
        assert sink.wait_for(lambda: len(sink.requests) > 1)
        assert sink.wait_for(lambda: len(sink.events) == 5, SOON)
        sink.recover()
        assert r.thread.flush(60)
        sent = [u["$set"]["n"] for u in sink.updates]
        assert [n for n in sent if n >= 0] == list(range(5))
        r.check(recorded=1, delivered=1, forwarded=10)


def test_what_was_being_built_when_a_job_settled_is_neither_sent_twice_nor_lost(
    sink: Sink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main, begun, goes_on = threading.main_thread(), 0, threading.Semaphore(0)

    with rig(sink.url, spool=Spool(tmp_path / "spool"), shutdown_timeout=0.05) as made:
        translate = made.delivery.translate

        def slow(envelope: t.Any) -> t.Any:
            nonlocal begun
            found = translate(envelope)

            if threading.current_thread() is not main:
                begun += 1
                assert goes_on.acquire(timeout=60)

            return found

        def wait_for(count: int) -> None:
            deadline = time.monotonic() + 60

            while begun < count:
                assert time.monotonic() < deadline
                made.thread.flush(0.01)

        monkeypatch.setattr(made.delivery, "translate", slow)
        made.send(events(1))
        wait_for(1)
        made.thread.deliver_or_spool()
        made.send(events(1))
        wait_for(2)
        # The first one goes on, and then the second.
        goes_on.release()
        made.thread.flush(0.3)
        goes_on.release(10)
        made.thread.poll_spool()
        assert made.thread.flush(60)
        assert (sink.count(), sink.copies) == (2, 0)
        made.check(recorded=2, delivered=2)
