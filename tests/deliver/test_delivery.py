from __future__ import annotations

import email.utils
import json
import os
import subprocess
import sys
import time
import typing as t

import pytest

from flask_mengpaneel.deliver.answers import Meaning, backoff, read
from flask_mengpaneel.deliver.batches import Batch, pack
from flask_mengpaneel.deliver.http import Reply
from flask_mengpaneel.envelope import Message
from rig import PlainEnvelope, event, events, rig, update
from sink import Half, Html, Late, Reset, Silent, Sink, Status


def batch(count: int = 3, endpoint: str = "events") -> Batch:
    return Batch(endpoint, [Message(endpoint, "{}")] * count)


def reply(status: int, body: t.Any = None, **headers: str) -> Reply:
    text = body if isinstance(body, str) else json.dumps(body)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, named, text.encode())


OK = {"code": 200, "num_records_imported": 3, "status": "OK"}


@pytest.mark.parametrize(
    ("answer", "meaning"),
    [
        (reply(200, OK), Meaning.TAKEN),
        (reply(200, {"status": 1, "error": None}), Meaning.TAKEN),
        (reply(200, {"status": 0, "error": "bad"}), Meaning.REFUSED),
        (reply(200, "<html>"), Meaning.AMBIGUOUS),
        (reply(200, ""), Meaning.AMBIGUOUS),
        (reply(200, "1"), Meaning.AMBIGUOUS),
        (reply(200, "[" * 100_000), Meaning.AMBIGUOUS),
        (reply(302, "<html>", Location="https://login.example"), Meaning.AMBIGUOUS),
        (reply(301, OK, Location="/import/"), Meaning.AMBIGUOUS),
        (reply(200, {"status": 0}), Meaning.AMBIGUOUS),
        (reply(200, {"status": False, "error": "bad"}), Meaning.AMBIGUOUS),
        (reply(200, {"status": 0, "message": "success"}), Meaning.AMBIGUOUS),
        (reply(200, [1]), Meaning.AMBIGUOUS),
        (reply(200, '{"status": ' + "1" * 10_000 + "}"), Meaning.AMBIGUOUS),
        (reply(200, "NaN"), Meaning.AMBIGUOUS),
        (reply(200, '\ufeff{"status": 1}'), Meaning.TAKEN),
        (reply(200, {"status": "OK", "failed_records": [3]}), Meaning.AMBIGUOUS),
        (Reply(200, {}, b'{"status": "\xff"}'), Meaning.AMBIGUOUS),
        (reply(400, {"error": "bad", "status": "Bad Request"}), Meaning.REFUSED),
        (reply(400, {"failed_records": [{"index": 9}]}), Meaning.REFUSED),
        (reply(400, {"failed_records": [{"index": -1}]}), Meaning.REFUSED),
        (reply(400, {"failed_records": [{"index": True}]}), Meaning.REFUSED),
        (reply(400, {"failed_records": [{"index": 1.0}]}), Meaning.REFUSED),
        (reply(400, {"failed_records": [{"index": 1}, {}]}), Meaning.REFUSED),
        (reply(400, {"failed_records": [{"index": 1}, None]}), Meaning.REFUSED),
        (reply(400, {"failed_records": [{"index": 1}]}), Meaning.PARTLY_TAKEN),
        (reply(400, {"failed_records": [{"index": 1}] * 9000}), Meaning.PARTLY_TAKEN),
        (reply(401, {"error": "who?", "status": "error"}), Meaning.FORBIDDEN),
        (reply(403, {"error": "no", "status": "error"}), Meaning.FORBIDDEN),
        (
            reply(404, {"code": 404, "error": "no", "status": "Not Found"}),
            Meaning.FORBIDDEN,
        ),
        # By somebody in between.
        (reply(400, "bad"), Meaning.RETRY),
        (reply(400, {"failed_records": "what"}), Meaning.RETRY),
        (reply(400, {"message": "bad"}), Meaning.RETRY),
        (reply(401, ""), Meaning.RETRY),
        (reply(403, "<html>"), Meaning.RETRY),
        (reply(403, {"message": "Forbidden"}), Meaning.RETRY),
        (
            reply(403, {"error": {"status": "PERMISSION_DENIED"}, "status": "x"}),
            Meaning.RETRY,
        ),
        (reply(404, "<html>"), Meaning.RETRY),
        (reply(404, {"message": "no Route matched"}), Meaning.RETRY),
        (reply(404, {"detail": "Not Found"}), Meaning.RETRY),
        (reply(404, {"status": 404, "error": "Not Found"}), Meaning.RETRY),
        (reply(404, {"code": 5, "error": "no", "status": "error"}), Meaning.RETRY),
        (reply(405, ""), Meaning.RETRY),
        (reply(407, "<html>"), Meaning.RETRY),
        (reply(410, "gone"), Meaning.RETRY),
        (reply(451, "<html>"), Meaning.RETRY),
        (reply(408, ""), Meaning.RETRY),
        (reply(413, ""), Meaning.TOO_LARGE),
        (reply(413, "<html>nginx"), Meaning.TOO_LARGE),
        (reply(429, ""), Meaning.RETRY),
        (reply(500, ""), Meaning.AMBIGUOUS),
        (reply(502, ""), Meaning.AMBIGUOUS),
        (reply(503, ""), Meaning.RETRY),
        (reply(504, ""), Meaning.AMBIGUOUS),
    ],
)
def test_what_an_answer_means(answer: Reply, meaning: Meaning) -> None:
    assert read(answer, batch()).meaning is meaning


def test_refused_records_come_with_mixpanels_words() -> None:
    answer = reply(
        400,
        {"failed_records": [{"index": 1, "field": "properties.time", "message": "no"}]},
    )

    assert read(answer, batch()).refused == {1: "properties.time: no"}


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("2", 2.0),
        (" 2 ", 2.0),
        ("0", 0.0),
        ("300", 300.0),
        ("86400", 300.0),
        ("9" * 10_000, 300.0),
        ("-3", None),
        ("1e3", None),
        ("\u0663", None),
        ("2, 3", None),
        ("soon", None),
        ("", None),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0.0),
        ("Sun Nov  6 08:49:37 1994", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 300.0),
        ("Fri, 31 Dec 9999999 23:59:59 GMT", None),
        ("Fri, 99 Foo 2026 99:99:99 GMT", None),
    ],
)
def test_retry_after(value: str, seconds: float | None) -> None:
    verdict = read(reply(429, "", Retry_After=value), batch())
    assert verdict.retry_after == seconds


def test_retry_after_as_a_date() -> None:
    date = email.utils.formatdate(time.time() + 100, usegmt=True)
    retry_after = read(reply(503, "", Retry_After=date), batch()).retry_after
    assert retry_after == pytest.approx(100, abs=5)


@pytest.mark.parametrize("status", [301, 404, 429, 500, 503])
def test_no_status_is_believed_a_longer_pause(status: int) -> None:
    verdict = read(reply(status, "", Retry_After="86400"), batch())
    assert verdict.retry_after == 300


@pytest.mark.parametrize(
    "word",
    ["x" * 1_000_000, "a\r\nERROR: b", "\x1b[2J", "\u2028", "\u202e", "\ud800", "\x00"],
    ids=["long", "lines", "escape", "separator", "reversed", "surrogate", "null"],
)
def test_what_an_answer_says_is_short_and_in_one_line(word: str) -> None:
    record = {"index": 0, "field": word, "message": word}
    said = {"error": word, "status": "error", "failed_records": [record]}
    verdict = read(reply(400, said), batch())

    for words in (verdict.reason, verdict.refused[0]):
        assert words.isprintable()
        assert len(words) < 500
        words.encode()


def test_backoff_grows_to_a_limit_and_is_spread() -> None:
    pauses = [backoff(failures, None) for failures in range(40)]

    assert pauses[0] < 0.5
    assert 40 < pauses[-1] < 80
    assert backoff(0, 7.0) == 7.0
    assert len({backoff(9, None) for _ in range(9)}) == 9


FORKS = """
import os
from flask_mengpaneel.deliver.answers import backoff

for _ in range(4):
    if os.fork() == 0:
        print(backoff(9, None), flush=True)
        os._exit(0)

    os.wait()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks")
def test_backoff_is_spread_among_processes_of_one_parent() -> None:
    # A process of its own: no other threads hold a lock when it forks.
    done = subprocess.run(
        [sys.executable, "-c", FORKS], capture_output=True, text=True, check=True
    )
    assert len(set(done.stdout.split())) == 4


def test_batches_keep_to_mixpanels_limits() -> None:
    small = [event() for _ in range(4100)]
    large = [event(text="x" * 900_000) for _ in range(5)]

    packed = pack([*small, *large])

    assert [len(p.messages) for p in packed] == [2000, 2000, 102, 2, 1]
    assert all(sum(len(m.json) + 1 for m in p.messages) < 2_097_152 for p in packed)
    assert [m for p in packed for m in p.messages] == [*small, *large]


def test_events_go_to_import_compressed_with_the_token() -> None:
    with Sink() as sink, rig(sink.url) as r:
        r.send_inline(events(50))

    request = sink.requests[0]
    assert (request.path, request.query) == ("/import", {"strict": "1"})
    assert request.headers["authorization"] == "Basic dDo="
    assert request.headers["content-encoding"] == "gzip"
    assert request.size < len(request.body) / 5


def test_updates_go_to_engage_uncompressed_and_without_our_address() -> None:
    with Sink() as sink, rig(sink.url) as r:
        r.send_inline(PlainEnvelope([update("$set", {"Plan": "pro"})]))

    request = sink.requests[0]
    assert request.path == "/engage"
    assert request.query == {"ip": "0", "verbose": "1"}
    assert "content-encoding" not in request.headers
    assert sink.updates[0]["$set"] == {"Plan": "pro"}


@pytest.mark.parametrize("names", [True, False], ids=["named", "unnamed"])
def test_refused_records_are_reported_and_the_others_delivered(names: bool) -> None:
    envelope = events(2000)
    bad = {
        json.loads(envelope.calls[i].arguments[1])["properties"]["$insert_id"]
        for i in (0, 777, 1999)
    }

    with Sink() as sink, rig(sink.url) as r:
        sink.names_refused = names
        sink.refuse = lambda record: (
            "too old" if record["properties"]["$insert_id"] in bad else None
        )
        r.send(envelope)
        assert r.thread.flush(60)

        assert len(sink.ids) == 1997
        assert sink.copies == 0
        assert set(r.reported) == bad
        r.check(recorded=2000, delivered=1997, waiting=0)


def test_a_record_that_is_refused_for_ever_does_not_hold_up_others() -> None:
    with Sink() as sink, rig(sink.url) as r:
        sink.refuse = lambda record: "no" if record["event"] == "Bad" else None
        r.send(PlainEnvelope([event("Bad")]))
        r.thread.flush(60)
        r.send(events(5))

        assert r.thread.flush(60)
        assert len(sink.ids) == 5
        r.check(recorded=6, delivered=5, dropped={"properties: no": 1})


def test_too_large_is_split() -> None:
    with Sink() as sink, rig(sink.url) as r:
        sink.most = 300
        r.send(events(2000))

        assert r.thread.flush(60)
        assert len(sink.ids) == 2000
        assert sink.copies == 0
        r.check(delivered=2000, dropped={})


def test_a_single_record_that_is_too_large_is_reported() -> None:
    with Sink() as sink, rig(sink.url) as r:
        sink.most = 0
        r.send(events(3))

        assert r.thread.flush(60)
        r.check(delivered=0, dropped={"HTTP 413: request too large": 3})
        assert len(r.reported) == 3


@pytest.mark.parametrize(
    "fault",
    [Status(503), Status(500), Status(429), Status(408), Html(), Reset(), Half()],
    ids=lambda fault: repr(fault),
)
def test_events_are_sent_again_with_the_same_id(fault: t.Any) -> None:
    with Sink() as sink, rig(sink.url) as r:
        sink.script(fault, fault)
        r.send(events(20))

        assert r.thread.flush(60)
        assert len(sink.ids) == 20
        assert len(sink.requests) == 3
        r.check(recorded=20, delivered=20, waiting=0, dropped={})


@pytest.mark.parametrize(
    ("fault", "arrives"),
    [
        (Status(503), 2),
        (Status(429), 2),
        (Status(500), 1),
        (Html(), 1),
        (Reset(takes=True), 1),
        (Half(), 1),
    ],
    ids=lambda value: repr(value),
)
def test_operations_that_add_up_are_not_sent_after_they_may_have_been_taken(
    fault: t.Any, arrives: int
) -> None:
    with Sink() as sink, rig(sink.url) as r:
        sink.script(fault)
        r.send(
            PlainEnvelope(
                [update("$set", {"a": 1}), update("$add", {"n": 1}, repeatable=False)]
            )
        )
        assert r.thread.flush(60)

        added = [u for u in sink.updates if "$add" in u]
        assert len(added) <= 1
        assert [u for u in sink.updates if "$set" in u]
        r.check(recorded=2, delivered=arrives, waiting=0)
        assert sum(r.ledger.dropped.values()) == 2 - arrives


def test_retry_after_is_the_least_pause() -> None:
    with Sink() as sink, rig(sink.url) as r:
        sink.script(Status(429, {"Retry-After": "1"}))
        r.send(events(5))

        assert r.thread.flush(60)
        first, second = sink.requests
        assert second.at - first.at >= 0.95
        r.check(delivered=5)


def test_updates_of_profiles_arrive_in_order_whatever_happens() -> None:
    with Sink() as sink, rig(sink.url) as r:
        sink.script(Status(503), Reset(), Html())

        for number in range(50):
            r.send(PlainEnvelope([update("$set", {"n": number}), event()]))

        assert r.thread.flush(60)
        assert [u["$set"]["n"] for u in sink.updates] == list(range(50))
        r.check(delivered=100)


def test_inline_keeps_to_its_deadline() -> None:
    with Sink() as sink, rig(sink.url, timeout=0.3) as r:
        sink.always = Silent()
        started = time.monotonic()
        r.send_inline(events(2))

        assert time.monotonic() - started < 2
        assert len(r.reported) == 2
        r.check(recorded=2, delivered=0, waiting=0)


def test_inline_tries_again_within_its_deadline() -> None:
    with Sink() as sink, rig(sink.url) as r:
        sink.script(Status(503), Reset())
        r.send_inline(events(2))

        assert len(sink.ids) == 2
        r.check(delivered=2)


def test_a_callback_that_raises_does_not_stop_delivery(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(records: t.Any, reason: str) -> None:
        raise ZeroDivisionError

    with Sink() as sink, rig(sink.url) as r:
        r.delivery._report = broken
        sink.refuse = lambda record: "no" if record["event"] == "Bad" else None
        r.send(PlainEnvelope([event("Bad"), event()]))
        assert r.thread.flush(60)
        r.send(events(3))
        assert r.thread.flush(60)
        assert len(sink.ids) == 4
        r.check(recorded=5, delivered=4)


def test_a_slow_answer_is_waited_for() -> None:
    with Sink() as sink, rig(sink.url) as r:
        sink.script(Late(1.0))
        r.send(events(3))

        assert r.thread.flush(60)
        assert sink.copies == 0
        r.check(delivered=3)
