"""Acknowledgements that arrive in another process, and hand-overs that change it."""

from __future__ import annotations

import collections
import collections.abc as c
import concurrent.futures
import contextlib
import json
import re
import sqlite3
import sys
import tempfile
import textwrap
import threading
import time
import typing as t
from email.message import Message
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)

from agents import CHROME, GOOGLEBOT
from flask_mengpaneel.deliver import spool as spools
from flask_mengpaneel.deliver import spool_tables
from flask_mengpaneel.deliver.acknowledgements import AckAges, AckKind
from flask_mengpaneel.deliver.answers import Answer, Meaning
from flask_mengpaneel.deliver.delivery import SENDER_DIED
from flask_mengpaneel.deliver.hand_overs import keeper, memory, steps
from flask_mengpaneel.deliver.hand_overs import spooled as spooled_ones
from flask_mengpaneel.deliver.hand_overs.keeper import HandOvers
from flask_mengpaneel.deliver.hand_overs.memory import NEVER_SHOWN, ROBOT
from flask_mengpaneel.deliver.hand_overs.news import HandOverNews
from flask_mengpaneel.deliver.hand_overs.spooled import SpooledHandOvers
from flask_mengpaneel.deliver.redis_acknowledgements import RedisAcknowledgements
from flask_mengpaneel.deliver.spool import Spool
from flask_mengpaneel.deliver.spooling import SpoolingTransport
from flask_mengpaneel.envelope import Envelope
from kept import keep, kept_by, new_id
from needs import need
from ports import free_port
from processes import (
    Process,
    get_from_all,
    ledgers,
    run,
    settings_for,
    started,
)
from redis_server import Redis
from rig import PlainEnvelope, Rig, event, events, update
from servers import NOBODY_LISTENS
from sink import Sink
from waiting import Clock, eventually

AGES = AckAges(600.0, 87_000.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool.sqlite3"


@pytest.fixture
def redis(tmp_path: Path) -> c.Iterator[Redis]:
    need("redis-server")
    server = Redis(tmp_path)
    yield server
    server.stop()


# Two processes, by two spools of one file.


def test_an_acknowledgement_may_arrive_in_another_process(
    path: Path, sink: Sink
) -> None:
    with (
        kept_by(sink.url, spool=Spool(path)) as (ours, kept_here),
        kept_by(sink.url, spool=Spool(path)) as (theirs, kept_there),
    ):
        acknowledged = keep(kept_here, 1.5, records=2)
        keep(kept_here, 1.5)
        kept_there.acknowledge([acknowledged])
        eventually(lambda: ours.ledger.waiting == 0)
        ours.check(recorded=3, delivered=3)
        theirs.check(recorded=0, delivered=0)
        assert kept_here.counts().acknowledged == {"page": 1}

    assert len(sink.ids) == 1


def test_what_is_taken_up_in_another_process_is_not_sent(
    path: Path, sink: Sink
) -> None:
    with (
        kept_by(sink.url, spool=Spool(path)) as (ours, kept_here),
        kept_by(sink.url, spool=Spool(path)) as (_, kept_there),
    ):
        id = keep(kept_here, 1.0, carrier="session")
        assert not kept_there.settle(id)
        eventually(lambda: ours.ledger.waiting == 0)

    assert sink.ids == set()


@pytest.mark.parametrize("is_spooled", [False, True])
def test_what_is_dropped_in_another_process_is_dropped_here(
    path: Path, sink: Sink, is_spooled: bool
) -> None:
    with (
        kept_by(sink.url, spool=Spool(path)) as (ours, kept_here),
        kept_by(sink.url, spool=Spool(path)) as (theirs, kept_there),
    ):
        id = keep(kept_here, 300.0 if is_spooled else 2.0, records=2)

        if is_spooled:
            kept_here.hand_on()

        kept_there.discard(id, 2, "refused")
        eventually(lambda: ours.ledger.dropped == {"refused": 2})
        ours.check(recorded=2, delivered=0, waiting=0)
        theirs.check(recorded=0)

    assert sink.ids == set()


def test_what_waits_at_the_end_waits_in_the_spool(path: Path, sink: Sink) -> None:
    with kept_by(sink.url, spool=Spool(path)) as (ours, ended):
        acknowledged = [keep(ended, 300.0) for _ in range(400)]
        overdue = keep(ended, 2.0)
        ended.hand_on()
        ours.check(recorded=401, waiting=401)
        assert ended.counts().spooled == {"page": 401}

        with kept_by(sink.url, spool=Spool(path)) as (theirs, other):
            theirs.thread.resume_spooled()
            other.acknowledge(acknowledged)
            eventually(lambda: ours.ledger.delivered == 400)
            ours.check(recorded=401, waiting=1)
            time.sleep(1)
            assert sink.ids == set(), overdue
            time.sleep(1)
            theirs.thread.poll_spool()
            eventually(lambda: ours.ledger.delivered == 401)

    assert len(sink.ids) == 1
    summary = Spool(path).summary()
    assert (summary.records, summary.delivered) == (0, 401)


def test_an_acknowledgement_may_come_before_the_hand_over_is_in_the_spool(
    path: Path, sink: Sink
) -> None:
    id = new_id()

    with kept_by(sink.url, spool=Spool(path)) as (_, other):
        other.acknowledge([id])
        eventually(lambda: Spool(path).exists())
        spooled = SpooledHandOvers(Spool(path), AGES, HandOverNews())
        eventually(lambda: spooled.found([id]))

    with kept_by(sink.url, spool=Spool(path)) as (r, hand_overs):
        hand_overs.keep(id, events(1), "page", 300.0)
        hand_overs.hand_on()
        r.check(recorded=1, delivered=1, waiting=0)

    assert sink.ids == set()


def test_what_is_not_to_be_sent_is_dropped_out_of_the_spool_too(
    path: Path, sink: Sink
) -> None:
    with kept_by(sink.url, spool=Spool(path)) as (ours, ended):
        shown = keep(ended, 1.0, if_shown=True)
        keep(ended, 1.0, if_shown=True)
        keep(ended, 1.0, user_agent=GOOGLEBOT)
        ended.hand_on()
        ours.check(recorded=3, waiting=3)

        with kept_by(sink.url, spool=Spool(path)) as (theirs, other):
            other.acknowledge([shown])
            eventually(lambda: ours.ledger.delivered == 1)
            time.sleep(1)
            theirs.thread.poll_spool()
            eventually(lambda: ours.ledger.waiting == 0)
            ours.check(recorded=3, delivered=1, dropped={NEVER_SHOWN: 1, ROBOT: 1})

    assert sink.ids == set()


def test_what_the_spool_does_not_take_at_the_end_is_sent(
    tmp_path: Path, sink: Sink
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()

    with kept_by(sink.url, spool=Spool(folder)) as (r, hand_overs):
        keep(hand_overs, 300.0, records=3)
        hand_overs.hand_on()
        assert sink.wait_for(3)
        assert r.thread.flush(60)
        r.check(recorded=3, delivered=3)


# The clock of all machines and restarts.


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> c.Callable[[float], None]:
    real = time.time
    offset = 0.0

    def jump(seconds: float) -> None:
        nonlocal offset
        offset += seconds

    monkeypatch.setattr(time, "time", lambda: real() + offset)
    return jump


def spooled(path: Path, timeout: float) -> str:
    with kept_by(NOBODY_LISTENS, spool=Spool(path)) as (_, ended):
        id = keep(ended, timeout)

    return id


def test_what_is_not_overdue_is_nobody_s(
    path: Path, clock: c.Callable[[float], None]
) -> None:
    spooled(path, 30.0)
    spool = Spool(path)
    assert spool.lease(10) == []
    clock(29)
    assert spool.lease(10) == []
    clock(2)
    assert len(spool.lease(10)) == 1


@pytest.mark.parametrize("jump", [-60, -86_400, -1e9, 31, 1e9])
def test_a_clock_that_is_set_holds_nothing_up(
    path: Path, clock: c.Callable[[float], None], jump: float
) -> None:
    spooled(path, 30.0)
    clock(jump)
    assert len(Spool(path).lease(10)) == 1


def test_a_clock_that_is_set_back_a_little_holds_it_for_one_timeout_at_most(
    path: Path, clock: c.Callable[[float], None]
) -> None:
    spooled(path, 30.0)
    clock(25)
    clock(-24)
    assert Spool(path).lease(10) == []
    clock(30)
    assert len(Spool(path).lease(10)) == 1


@pytest.mark.parametrize("jump", [-1e7, 1e7])
def test_in_memory_nobody_asks_that_clock(
    sink: Sink, clock: c.Callable[[float], None], jump: float
) -> None:
    with kept_by(sink.url) as (r, hand_overs):
        keep(hand_overs, 1.0)
        keep(hand_overs, 300.0)
        clock(jump)
        eventually(lambda: r.ledger.delivered == 1)
        time.sleep(0.3)
        r.check(recorded=2, waiting=1)


@pytest.mark.parametrize("jump", [700, -1_000_000, 1_000_000])
def test_old_acknowledgements_are_forgotten(
    path: Path, clock: c.Callable[[float], None], jump: float
) -> None:
    acks = SpooledHandOvers(Spool(path), AGES, HandOverNews())
    acks.add(["a", "b"])
    assert acks.found(["a", "b", "c"]).keys() == {"a", "b"}
    clock(jump)
    acks.add(["c"])
    assert acks.found(["a", "b", "c"]).keys() == {"c"}


def test_acknowledgements_of_operations_are_remembered_as_long_as_these_wait(
    path: Path, clock: c.Callable[[float], None]
) -> None:
    acks = SpooledHandOvers(Spool(path), AGES, HandOverNews())
    acks.add(["a"])
    acks.add(["o"], AckKind(of_operations=True))
    clock(86_000)
    acks.add(["c"])
    assert acks.found(["a", "o", "c"]).keys() == {"o", "c"}


# Before the response.


def test_what_is_durable_is_in_the_spool_when_it_is_kept(
    path: Path, sink: Sink
) -> None:
    with kept_by(sink.url, spool=Spool(path), durable=True) as (r, hand_overs):
        ids = [keep(hand_overs, 300.0, records=2) for _ in range(4)]
        assert Spool(path).summary().records == 8
        assert Spool(path).summary().unacknowledged == 8
        r.check(recorded=8, waiting=8)
        assert hand_overs.withdraw(ids[0])
        r.check(recorded=6, waiting=6)
        assert Spool(path).summary().records == 6
        # As it is seconds later.
        eventually(lambda: not hand_overs._memory)
        r.check(recorded=6, waiting=6)
        assert hand_overs.settle(ids[1])
        assert not hand_overs.settle(ids[1])
        r.check(recorded=4, waiting=4)
        hand_overs.acknowledge([ids[2]])
        eventually(lambda: r.ledger.delivered == 2)
        r.check(recorded=4, waiting=2)
        overdue = keep(hand_overs, 0.5)
        eventually(lambda: r.ledger.delivered == 3)
        r.check(recorded=5, waiting=2)
        assert not hand_overs.withdraw(overdue)

    assert len(sink.ids) == 1


def test_a_disk_that_takes_nothing_is_no_reason_to_keep_nothing(
    tmp_path: Path, sink: Sink
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()

    with kept_by(sink.url, spool=Spool(folder), durable=True) as (r, hand_overs):
        first, second = keep(hand_overs, 300.0), keep(hand_overs, 300.0)
        keep(hand_overs, 0.5)
        r.check(recorded=3, waiting=3)
        hand_overs.acknowledge([first])
        eventually(lambda: r.ledger.delivered == 2)
        assert hand_overs.withdraw(second)
        r.check(recorded=2, waiting=0)

    assert len(sink.ids) == 1


PRELUDE = """
    import os, signal, sys, time
    from kept import hand_overs_of, page
    hand_overs = hand_overs_of(app)

    def keep(id, timeout=60.0, **options):
        hand_overs.keep(id, page(id), "page", timeout, **options)
"""


def test_what_is_durable_survives_the_death_of_its_process(tmp_path: Path) -> None:
    script = (
        PRELUDE
        + """
    keep("a", 2.0)
    keep("b", 2.0)
    keep("c", 2.0)
    hand_overs.withdraw("c")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    )
    after = (
        PRELUDE
        + """
    assert app.extensions["mengpaneel"].delivery.spool.summary().records == 2
    hand_overs.acknowledge(["b"])
    deadline = time.monotonic() + 60

    while app.extensions["mengpaneel"].delivery.spool.summary().records:
        assert time.monotonic() < deadline
        app.extensions["mengpaneel"].background.poll_spool()
        time.sleep(0.1)

    assert mengpaneel.flush(60)
"""
    )

    with Sink() as sink:
        with started(tmp_path, script, sink.url, durable=True) as process:
            assert process.wait() == -9, process.output

        run(tmp_path, after, sink.url)
        assert sink.ids == {"a-0"}
        assert sink.copies == 0


#: Scripts: one process keeps, another hears what has arrived.
KEEPS = (
    PRELUDE
    + """
    for number in range(100):
        keep(f"id{number}", 6.0)

    print("kept", flush=True)
    deadline = time.monotonic() + 60

    while mengpaneel.ledger().waiting:
        assert time.monotonic() < deadline
        time.sleep(0.1)

    assert hand_overs.counts().acknowledged == {"page": 70}
"""
)
ACKNOWLEDGES = (
    PRELUDE
    + """
    print("ready", flush=True)
    deadline = time.monotonic() + 60

    while not os.path.exists("kept"):
        assert time.monotonic() < deadline
        time.sleep(0.01)

    hand_overs.acknowledge([f"id{number}" for number in range(70)])
"""
)


def share(one: Path, other: Path, **settings: t.Any) -> None:
    """Let a process in one folder keep hand-overs of which one in the other hears."""
    with (
        Sink() as sink,
        started(other, ACKNOWLEDGES, sink.url, **settings) as hears,
    ):
        # The time until they are due is for hearing of them, and not for starting.
        hears.wait_for("ready")

        with started(one, KEEPS, sink.url, **settings) as keeps:
            keeps.wait_for("kept")
            (other / "kept").touch()
            assert hears.wait() == 0, hears.output
            assert keeps.wait() == 0, keeps.output

        assert sink.ids == {f"id{number}-0" for number in range(70, 100)}
        assert sink.copies == 0


def test_two_processes_share_one_spool(tmp_path: Path) -> None:
    share(tmp_path, tmp_path)
    assert sorted(one.recorded for one in ledgers(tmp_path)) == [0, 100]
    assert all(one.balanced for one in ledgers(tmp_path))


#: A shop whose calls each carrier takes: a page, a header, a redirect's session.
SHOP = """
    from flask import redirect, request
    from processes import create_app, mengpaneel

    app = create_app()

    @app.before_request
    def view():
        if "number" in request.args:
            mengpaneel.track("View", {"Number": request.args["number"]})

    @app.get("/page")
    def page():
        return "<!doctype html><html><head></head><body></body></html>"

    @app.get("/header")
    def header():
        return {}

    @app.get("/redirect")
    def leave():
        return redirect("/page")
"""


def ask(
    port: int, path: str, body: str | None = None, cookies: c.Iterable[str] = ()
) -> tuple[Message, str]:
    """A browser's request, whose script would acknowledge: headers and text."""
    known = quote('{"distinct_id": "ann", "$user_id": "ann"}')
    headers = {
        "User-Agent": CHROME,
        "Accept": "application/json" if path.startswith("/header") else "text/html",
        "Cookie": "; ".join([f"mp_t_mixpanel={known}", *cookies]),
        "Sec-Fetch-Site": "same-origin",
    }

    if path.startswith("/header"):
        headers["X-Mengpaneel-Flush-Capable"] = "true; ack; project=t"

    connection = HTTPConnection("127.0.0.1", port, timeout=60)

    with contextlib.closing(connection):
        connection.request("GET" if body is None else "POST", path, body, headers)
        answer = connection.getresponse()
        return answer.headers, answer.read().decode()


def arrives(port: int, carrier: str, headers: Message, text: str) -> None:
    """Do what a browser does that has made a response's calls."""
    if carrier == "redirect":
        cookie = headers["Set-Cookie"].partition(";")[0]
        _, text = ask(port, "/page", cookies=[cookie])

    if carrier == "header":
        token = headers["X-Mengpaneel-Hand-Over"]
    else:
        (token,) = re.findall(r'"handover":"([^"]+)"', text)

    ask(port, "/_mengpaneel/acks", token)


@pytest.mark.parametrize("carrier", ["page", "header", "redirect"])
def test_workers_hear_by_http_of_what_durable_ones_that_were_killed_have_given(
    tmp_path: Path, carrier: str
) -> None:
    (tmp_path / "shop.py").write_text(textwrap.dedent(SHOP))
    path = tmp_path / "instance" / "mengpaneel-spool.sqlite3"

    @contextlib.contextmanager
    def workers(port: int, sink: Sink) -> c.Iterator[Process]:
        server = Process(
            tmp_path,
            [sys.executable, "-m", "gunicorn", "--workers=3"]
            + [f"--bind=127.0.0.1:{port}", "shop:app"],
            settings_for(
                sink.url, SECRET_KEY="secret", durable=True, ack_timeout=3_600
            ),
        )

        try:
            get_from_all(port, 3)
            yield server
        finally:
            server.kill()

    def viewed(sink: Sink) -> list[int]:
        return sorted(
            int(one["properties"]["Number"])
            for one in sink.events
            if one["event"] == "View"
        )

    with Sink() as sink:
        with workers(port := free_port(), sink):
            given = [ask(port, f"/{carrier}?number={n}") for n in range(30)]

        assert viewed(sink) == []

        with workers(port := free_port(), sink) as server:
            for headers, text in given[:20]:
                arrives(port, carrier, headers, text)

            assert server.terminate() == 0, server.output

        # As if an hour had passed.
        with contextlib.closing(sqlite3.connect(path)) as spool:
            spool.execute("UPDATE messages SET not_before = 0, leased_until = 0")
            spool.commit()

        with workers(free_port(), sink) as server:
            eventually(lambda: len(viewed(sink)) >= 10, 60)
            assert server.terminate() == 0, server.output

        assert viewed(sink) == [*range(20, 30)]


# What is made once.


def test_what_is_made_is_claimed_once_by_all(
    path: Path, clock: c.Callable[[float], None]
) -> None:
    ours, theirs = Spool(path), Spool(path)
    assert ours.claim("a")
    assert not ours.claim("a")
    assert not theirs.claim("a")
    assert theirs.claim("b")
    clock(30 * 86_400)
    assert not Spool(path).claim("a")
    clock(2 * 86_400)
    assert Spool(path).claim("a")


def test_a_row_of_the_spool_is_claimed_again_by_all_but_requests(path: Path) -> None:
    spool = Spool(path)
    # Whoever had it may be gone.
    assert spool.claim("a", from_spool=True)
    assert spool.claim("a", from_spool=True)
    assert not spool.claim("a")
    # A request has made it.
    assert spool.claim("b")
    assert not spool.claim("b", from_spool=True)


def test_what_a_request_has_made_is_not_sent_out_of_the_spool(
    path: Path, sink: Sink
) -> None:
    with kept_by(sink.url, spool=Spool(path)) as (_, hand_overs):
        made, left = keep(hand_overs, 1.0), keep(hand_overs, 1.0)
        hand_overs.hand_on()
        # Of a process that was killed before it could acknowledge that.
        assert Spool(path).claim(made)

    with kept_by(sink.url, spool=Spool(path)) as (r, _):
        time.sleep(1.1)
        r.thread.poll_spool()
        eventually(lambda: len(sink.ids) == 1)
        eventually(lambda: not Spool(path).summary().waiting)
        assert not Spool(path).claim(left)


def test_what_many_make_at_once_is_claimed_once(path: Path) -> None:
    ids = [f"id{number}" for number in range(200)]
    spools_of_processes = [Spool(path) for _ in range(4)]
    claimed: collections.Counter[str] = collections.Counter()
    ready = threading.Barrier(8)

    def claim_all(spool: Spool) -> list[str]:
        ready.wait(60)
        return [id for id in ids if spool.claim(id)]

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for claims in pool.map(claim_all, spools_of_processes * 2):
            claimed.update(claims)

    assert claimed == dict.fromkeys(ids, 1)


def test_a_disk_in_trouble_stops_nothing_that_is_made(tmp_path: Path) -> None:
    assert Spool(tmp_path).claim("a")


# The file.


def test_a_file_that_is_half_made_is_made(path: Path) -> None:
    """As by a process that ended in the middle of it."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("BEGIN")
        connection.execute("CREATE TABLE messages (id INTEGER PRIMARY KEY)")

    assert Spool(path).put([event()], "down")


def test_the_file_of_a_later_version_is_left_alone(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")

    assert Spool(path).put([event()], "down") == []
    assert "a newer Flask-Mengpaneel wrote it" in caplog.text


# Redis.


def test_two_processes_share_nothing_but_redis(tmp_path: Path, redis: Redis) -> None:
    folders = tmp_path / "here", tmp_path / "there"

    for folder in folders:
        folder.mkdir()

    share(*folders, acks=redis.url, spool=None)


def test_the_spool_of_a_machine_asks_redis_before_it_sends(
    path: Path, sink: Sink, redis: Redis
) -> None:
    with kept_by(sink.url, spool=Spool(path), acks=redis.url) as (ours, ended):
        acknowledged = keep(ended, 2.0)
        keep(ended, 2.0)
        ended.hand_on()

        with kept_by(sink.url, spool=None, acks=redis.url) as (_, elsewhere):
            elsewhere.acknowledge([acknowledged])

        with kept_by(sink.url, spool=Spool(path), acks=redis.url) as (theirs, _):
            time.sleep(2)
            theirs.thread.poll_spool()
            eventually(lambda: ours.ledger.delivered == 2)

    assert len(sink.ids) == 1


def test_projects_and_times_are_apart_in_redis(redis: Redis) -> None:
    acks = RedisAcknowledgements(redis.url, "a", AckAges(1.0, 600.0))
    acks.add(["x"])
    assert acks.found(["x", "y"]).keys() == {"x"}
    assert RedisAcknowledgements(redis.url, "b", AGES).found(["x"]) == {}
    acks.add(["o"], AckKind(of_operations=True))
    eventually(lambda: acks.found(["x", "o"]).keys() == {"o"})


@pytest.mark.parametrize("options", ["", "?decode_responses=True", "?protocol=3"])
def test_the_url_of_redis_may_have_options(redis: Redis, options: str) -> None:
    acks = RedisAcknowledgements(redis.url + options, "a", AGES)
    acks.add(["x"])
    acks.add(["y"], AckKind(dropped_for="refused"))

    assert acks.found(["x", "y", "z"]) == {"x": "", "y": "refused"}


@pytest.mark.parametrize("trouble", ["down", "frozen", "restarted"])
def test_redis_in_trouble_costs_no_more_than_a_second_copy(
    sink: Sink, redis: Redis, trouble: str
) -> None:
    with (
        contextlib.ExitStack() as stack,
        kept_by(sink.url, spool=None, acks=redis.url) as (r, hand_overs),
    ):
        assert hand_overs._shared[0].found(["x"]) == {}

        if trouble == "frozen":
            stack.enter_context(redis.frozen())
        else:
            redis.stop()

        if trouble == "restarted":
            redis.start()

        id = keep(hand_overs, 300.0)
        keep(hand_overs, 0.0)
        hand_overs.acknowledge([id, "somebody's"])
        eventually(lambda: r.ledger.delivered == 2)

    assert len(sink.ids) == 1


# Journeys.


#: Those that ask for the time.
MODULES = (keeper, memory, steps, spooled_ones, spool_tables, spools)


class Taking(SpoolingTransport):
    """Takes all, and remembers it; a rule sends what is in the spool."""

    def __init__(self, sent: collections.Counter[str]) -> None:
        self._sent = sent

    def send(self, envelope: Envelope) -> bool:
        self._sent[name_of(envelope)] += 1
        return True

    def resume_spooled(self) -> None:
        pass

    def poll_spool(self) -> None:
        pass

    def deliver_or_spool(self) -> None:
        pass


def name_of(envelope: Envelope) -> str:
    return named(envelope.calls[0].arguments[1])


def named(text: str) -> str:
    """The name of an event, or of the property that an operation adds to."""
    record = json.loads(text)
    return str(record["event"] if "event" in record else next(iter(record["$add"])))


class Stepped(HandOvers):
    """Hand-overs without a thread."""

    def _wake(self) -> None:
        pass


class OneProcess:
    """A process of several that share a spool."""

    def __init__(
        self, path: Path, sent: collections.Counter[str], *, durable: bool
    ) -> None:
        self._sent = sent
        self.durable = durable
        self.rig = Rig(NOBODY_LISTENS, spool=Spool(path), durable=durable)
        acks = SpooledHandOvers(
            t.cast(Spool, self.rig.delivery.spool), AGES, HandOverNews()
        )
        self.hand_overs = Stepped(self.rig.delivery, Taking(sent), [acks], acks)

    def step(self) -> None:
        self.hand_overs._steps.step()

    def send_spooled(self) -> None:
        delivery = self.rig.delivery

        for batch in delivery.lease_batches(100):
            assert delivery._renew_lease(batch)
            self._sent.update(named(message.json) for message in batch.messages)

            with delivery.ledger.transfer():
                delivery.apply_answer(batch, Answer(Meaning.TAKEN))


class Journeys(RuleBasedStateMachine):
    """Two processes that share a spool, which end, die and begin, and visitors who
    acknowledge what they like, and come back, when and where they like."""

    #: Events of pages, and operations of sessions.
    kept = Bundle("kept")
    waiting = Bundle("waiting")

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.clock = Clock()

        for module in MODULES:
            self.patch.setattr(module, "time", self.clock)

        self.patch.setattr(memory, "BLOCK_SIZE", 3)

        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "spool.sqlite3"
        self.sent: collections.Counter[str] = collections.Counter()
        #: Of one record each.
        self.all: set[str] = set()
        self.taken_over: set[str] = set()
        self.acknowledged_in_time: set[str] = set()
        self.acknowledged: set[str] = set()
        self.operations: set[str] = set()
        #: What was being sent by a process when it died; and the operations of which
        #: nobody knows whether Mixpanel has them.
        self.in_flight: set[str] = set()
        self.in_doubt: set[str] = set()
        self.ended: list[OneProcess] = []
        self.processes = [self.begin(durable=False), self.begin(durable=True)]

    def begin(self, *, durable: bool) -> OneProcess:
        return OneProcess(self.path, self.sent, durable=durable)

    @initialize(target=kept)
    def begin_with_some(self) -> MultipleResults[str]:
        return multiple(
            *(self.keep_one(at, wait) for at in (0, 1) for wait in (5, 30, 30, 300))
        )

    @rule(target=kept, at=st.integers(0, 1), timeout=st.sampled_from([5, 30, 300]))
    def keep(self, at: int, timeout: float) -> str:
        return self.keep_one(at, timeout)

    def keep_one(self, at: int, timeout: float) -> str:
        id = new_id()
        envelope = PlainEnvelope([event(id)])
        self.processes[at].hand_overs.keep(id, envelope, "page", timeout)
        self.all.add(id)
        return id

    @initialize(target=waiting)
    def begin_with_operations(self) -> MultipleResults[str]:
        return multiple(
            *(self.keep_operation(at, wait) for at in (0, 1) for wait in (5, 30, 300))
        )

    @rule(target=waiting, at=st.integers(0, 1), timeout=st.sampled_from([5, 30, 300]))
    def keep_operations(self, at: int, timeout: float) -> str:
        return self.keep_operation(at, timeout)

    def keep_operation(self, at: int, timeout: float) -> str:
        id = new_id()
        envelope = PlainEnvelope([update("$add", {id: 1}, repeatable=False)])
        self.processes[at].hand_overs.keep(id, envelope, "operations", timeout)
        self.all.add(id)
        self.operations.add(id)
        return id

    @rule(at=st.integers(0, 1), id=waiting)
    def come_back(self, at: int, id: str) -> None:
        """A session comes with operations, perhaps not for the first time, and somebody
        is identified: the request makes them if nobody has."""
        process = self.processes[at]

        if not process.rig.delivery.made_once.claim(id):
            return

        before = process.rig.ledger.recorded

        if process.hand_overs.take_over(id):
            self.sent[id] += 1

        process.step()

        # Whoever makes them counts them; else they are delivered where they were kept.
        if process.rig.ledger.recorded < before:
            self.taken_over.add(id)

    @rule(at=st.integers(0, 1), id=kept, arrives=st.booleans())
    def acknowledge(self, at: int, id: str, arrives: bool) -> None:
        if not arrives:
            return

        was_sent = self.sent[id]
        self.acknowledged.add(id)
        self.processes[at].hand_overs.acknowledge([id])
        self.processes[at].step()

        if not was_sent and id not in self.in_flight:
            self.acknowledged_in_time.add(id)

    @rule(at=st.integers(0, 1), id=consumes(kept))
    def withdraw(self, at: int, id: str) -> None:
        if self.processes[at].hand_overs.withdraw(id):
            self.taken_over.add(id)

    @rule(at=st.integers(0, 1), id=consumes(kept))
    def settle(self, at: int, id: str) -> None:
        if self.processes[at].hand_overs.settle(id):
            self.taken_over.add(id)
        else:
            # That acknowledges it.
            self.acknowledged.add(id)

    @rule(seconds=st.sampled_from([1, 10, 60]))
    def wait(self, seconds: float) -> None:
        self.clock.passed += seconds

    @rule(at=st.integers(0, 1))
    def step(self, at: int) -> None:
        self.processes[at].step()

    @rule(at=st.integers(0, 1))
    def send_spooled(self, at: int) -> None:
        self.processes[at].send_spooled()

    @rule(at=st.integers(0, 1))
    def restart(self, at: int) -> None:
        ended = self.processes[at]
        ended.hand_overs.hand_on()
        assert not ended.hand_overs._memory
        self.ended.append(ended)
        self.processes[at] = self.begin(durable=ended.durable)

    @rule(moment=st.sampled_from(["idle", "leased", "sent", "taken"]))
    def die(self, moment: str) -> None:
        """The durable process is gone, and has handed nothing on.

        :param moment: how far it has got with what was overdue in the spool.
        """
        died = self.processes[1]

        for batch in died.rig.delivery.lease_batches(100) if moment != "idle" else ():
            names = {named(message.json) for message in batch.messages}
            self.in_flight |= names

            if moment != "leased":
                assert died.rig.delivery._renew_lease(batch)
                self.in_doubt |= names & self.operations

            if moment == "taken":
                self.sent.update(names)

        # What it has heard and not seen to yet it has heard in vain.
        died.hand_overs._steps.acknowledged.clear()
        self.ended.append(died)
        self.processes[1] = self.begin(durable=True)

    @invariant()
    def nothing_is_lost_or_invented(self) -> None:
        balances = [one.rig.ledger.snapshot() for one in (*self.ended, *self.processes)]
        assert all(balance.balanced for balance in balances), balances
        recorded = sum(balance.recorded for balance in balances)
        assert recorded == len(self.all - self.taken_over), balances

    def teardown(self) -> None:
        self.clock.passed += 400

        # What acknowledged hand-overs is told to the others before they ask.
        for process in (*self.processes, *self.processes):
            process.step()
            process.send_spooled()

        self.nothing_is_lost_or_invented()
        balances = [one.rig.ledger.snapshot() for one in (*self.ended, *self.processes)]
        assert sum(balance.waiting for balance in balances) == 0
        dropped = collections.Counter[str]()

        for balance in balances:
            dropped.update(balance.dropped)

        assert dropped == ({SENDER_DIED: len(self.in_doubt)} if self.in_doubt else {})
        delivered = sum(balance.delivered for balance in balances)
        assert delivered == len(self.all - self.taken_over - self.in_doubt)
        events_taken_over = self.taken_over - self.operations
        assert not set(self.sent) & (events_taken_over | self.acknowledged_in_time)
        # Mixpanel takes an event that was under way to be sent again for the same.
        again = {name for name, times in self.sent.items() if times > 1}
        assert again <= self.in_flight - self.operations
        assert self.operations - self.in_doubt <= set(self.sent)
        gone = events_taken_over | self.acknowledged
        assert self.all - self.operations - gone <= set(self.sent)
        self.patch.undo()

        for one in (*self.ended, *self.processes):
            one.rig.thread.close()

        self.folder.cleanup()


TestJourneys = Journeys.TestCase
TestJourneys.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
