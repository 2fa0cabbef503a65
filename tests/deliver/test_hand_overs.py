"""Hand-overs: kept until they are acknowledged, settled, withdrawn or overdue."""

from __future__ import annotations

import ast
import contextlib
import functools
import gc
import sys
import threading
import time
import types
import typing as t
from pathlib import Path

import pytest

from agents import GOOGLEBOT
from flask_mengpaneel.deliver.assembly import make_hand_overs
from flask_mengpaneel.deliver.hand_overs import memory as memories
from flask_mengpaneel.deliver.hand_overs import steps
from flask_mengpaneel.deliver.hand_overs.keeper import HandOvers
from flask_mengpaneel.deliver.hand_overs.memory import (
    BLOCK_SIZE,
    NEVER_SHOWN,
    ROBOT,
    HandOverMemory,
    KeptHandOver,
    PackedHandOvers,
)
from flask_mengpaneel.deliver.ledger import Ledger
from flask_mengpaneel.deliver.spool import Spool
from flask_mengpaneel.envelope import Envelope
from flask_mengpaneel.transport import Transport
from kept import keep, kept_by, new_id
from processes import ledgers, run, started
from rig import PlainEnvelope, event, events, rig
from servers import NOBODY_LISTENS
from sink import Sink
from waiting import eventually


def test_what_is_acknowledged_is_delivered(sink: Sink) -> None:
    with kept_by(sink.url) as (r, hand_overs):
        first, second = keep(hand_overs, records=2), keep(hand_overs)
        r.check(recorded=3, waiting=3)
        hand_overs.acknowledge([first])
        r.check(recorded=3, waiting=1, delivered=2)
        hand_overs.acknowledge([second])
        r.check(recorded=3, waiting=0, delivered=3)
        eventually(lambda: hand_overs.counts().acknowledged == {"page": 2})
        r.check(recorded=3, waiting=0, delivered=3)

    assert sink.ids == set()


def test_what_is_overdue_is_sent(sink: Sink) -> None:
    with kept_by(sink.url) as (r, hand_overs):
        keep(hand_overs, 0.1, records=2)
        keep(hand_overs, 60)
        eventually(lambda: r.ledger.delivered == 2)
        r.check(recorded=3, waiting=1, delivered=2)
        assert hand_overs.counts().sent == {"page": 1}

    assert sink.wait_for(3)


def test_what_is_withdrawn_was_never_kept(sink: Sink) -> None:
    with kept_by(sink.url) as (r, hand_overs):
        id = keep(hand_overs, 0.5)
        assert hand_overs.withdraw(id)
        assert not hand_overs.withdraw(id)
        r.check(recorded=0, waiting=0)
        keep(hand_overs, 0.6)
        eventually(lambda: r.ledger.delivered == 1)

    assert len(sink.ids) == 1


def test_what_is_settled_is_somebody_else_s(sink: Sink) -> None:
    with kept_by(sink.url) as (r, hand_overs):
        id = keep(hand_overs, carrier="session")
        assert hand_overs.settle(id)
        assert not hand_overs.settle(id)
        r.check(recorded=0, waiting=0)

    assert sink.ids == set()


def test_what_is_acknowledged_is_not_settled_as_well(sink: Sink) -> None:
    with kept_by(sink.url) as (r, hand_overs):
        id = keep(hand_overs)
        hand_overs.acknowledge([id])
        assert not hand_overs.settle(id)
        assert not hand_overs.withdraw(id)
        r.check(recorded=1, delivered=1)


def test_a_late_or_doubled_acknowledgement_changes_nothing(sink: Sink) -> None:
    with kept_by(sink.url) as (r, hand_overs):
        sent, acknowledged = keep(hand_overs, 0.0), keep(hand_overs)
        eventually(lambda: r.ledger.delivered == 1)
        hand_overs.acknowledge([sent, acknowledged])
        hand_overs.acknowledge([acknowledged, "nobody's"])
        r.check(recorded=2, delivered=2)
        eventually(lambda: hand_overs.counts().acknowledged == {"page": 1})
        r.check(recorded=2, delivered=2)

    assert len(sink.ids) == 1


def test_what_is_to_be_shown_is_dropped_if_it_never_was(sink: Sink) -> None:
    with kept_by(sink.url) as (r, hand_overs):
        shown = keep(hand_overs, if_shown=True)
        hand_overs.acknowledge([shown])
        keep(hand_overs, 0.0, records=2, if_shown=True)
        eventually(lambda: r.ledger.waiting == 0)
        r.check(recorded=3, delivered=1, dropped={NEVER_SHOWN: 2})
        assert hand_overs.counts().dropped == {NEVER_SHOWN: 1}

    assert sink.ids == set()


def test_a_robot_s_page_is_dropped_if_it_ran_no_script(sink: Sink) -> None:
    with kept_by(sink.url) as (r, hand_overs):
        # Google's renders pages.
        rendered = keep(hand_overs, user_agent=GOOGLEBOT)
        hand_overs.acknowledge([rendered])
        keep(hand_overs, 0.0, user_agent=GOOGLEBOT)
        keep(hand_overs, 0.0, user_agent=GOOGLEBOT, carrier="header")
        eventually(lambda: r.ledger.waiting == 0)
        r.check(recorded=3, delivered=2, dropped={ROBOT: 1})

    assert len(sink.ids) == 1


class Gate(Transport):
    """A transport that takes something only now and then."""

    def __init__(self) -> None:
        self.is_open = False
        self.error: Exception | None = None
        self.taken: list[Envelope] = []

    def send(self, envelope: Envelope) -> bool:
        if self.error is not None:
            raise self.error

        if self.is_open:
            self.taken.append(envelope)

        return self.is_open


@contextlib.contextmanager
def kept_for(transport: Transport) -> t.Iterator[tuple[t.Any, HandOvers]]:
    with rig(NOBODY_LISTENS, shutdown_timeout=0.5) as r:
        hand_overs = HandOvers(r.delivery, transport)

        try:
            yield r, hand_overs
        finally:
            hand_overs.hand_on()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "RETRY_INTERVAL", 0.1)


@pytest.mark.parametrize("error", [None, OSError("no")], ids=["full", "raises"])
def test_what_the_transport_does_not_take_waits_on(
    impatient: None, error: Exception | None
) -> None:
    gate = Gate()
    gate.error = error

    with kept_for(gate) as (r, hand_overs):
        ids = [keep(hand_overs, 0.0) for _ in range(5)]
        time.sleep(0.5)
        r.check(recorded=5, waiting=5, delivered=0)
        hand_overs.acknowledge(ids[:1])
        assert hand_overs.withdraw(ids[1])
        r.check(recorded=4, waiting=3, delivered=1)
        gate.is_open, gate.error = True, None
        eventually(lambda: r.ledger.waiting == 0)
        # What such a transport takes, counts as delivered.
        r.check(recorded=4, waiting=0, delivered=4)

    assert len(gate.taken) == 3


def test_what_nobody_takes_at_the_end_is_dropped_and_reported(impatient: None) -> None:
    with kept_for(Gate()) as (r, hand_overs):
        keep(hand_overs, records=3)
        hand_overs.hand_on()
        r.check(recorded=3, dropped={"the process ended": 3})
        assert len(r.reported) == 3


def test_what_is_sent_goes_in_the_order_in_which_it_was_kept() -> None:
    gate = Gate()
    gate.is_open = True

    with kept_for(gate) as (r, hand_overs):
        for number in range(3 * BLOCK_SIZE):
            hand_overs.keep(new_id(), PlainEnvelope([event(f"{number}")]), "page", 1.0)

        eventually(lambda: r.ledger.waiting == 0)

    names = [envelope.calls[0].arguments[1] for envelope in gate.taken]
    assert names == [name for name in sorted(names, key=_number)]
    assert len(names) == 3 * BLOCK_SIZE


@pytest.mark.parametrize("packed", [[0, 1], [1], [0, 2], [2, 0, 1], [3, 1, 0, 2]])
def test_what_is_packed_is_due_in_its_turn(packed: list[int]) -> None:
    memory = HandOverMemory()
    kept = {
        f"{number}": KeptHandOver(b"", ("page", 1), float(number), False)
        for number in range(4 * BLOCK_SIZE)
    }

    for id, hand_over in kept.items():
        memory.add(id, hand_over)

    for place in packed:
        part = list(kept.items())[place * BLOCK_SIZE :][:BLOCK_SIZE]
        memory.replace([id for id, _ in part], PackedHandOvers(part))
        # The first of it is acknowledged: the others are due later than it begins.
        memory.remove(part[0][0])

    gone = {str(place * BLOCK_SIZE) for place in packed}
    sent = []

    while due := memory.unpack_due(float("inf")):
        for id, _ in due:
            memory.remove(id)
            sent.append(id)

    assert sent == [id for id in kept if id not in gone]
    assert not memory


def _number(message: str) -> int:
    return int(message.split('"')[3])


def test_many_that_wait_are_the_same_as_few(sink: Sink) -> None:
    with kept_by(sink.url) as (r, hand_overs):
        ids = [keep(hand_overs, 300.0, records=2) for _ in range(5 * BLOCK_SIZE + 9)]
        overdue = [keep(hand_overs, 2.0) for _ in range(2 * BLOCK_SIZE)]
        memory = hand_overs._memory
        eventually(lambda: len(memory.recent) < BLOCK_SIZE)
        assert len(memory) == len(ids) + len(overdue)
        total = 2 * len(ids) + len(overdue)
        r.check(recorded=total, waiting=total)

        hand_overs.acknowledge(ids[:100])
        r.check(recorded=total, delivered=200, waiting=total - 200)
        assert all(hand_overs.settle(id) for id in ids[100:200])
        assert all(hand_overs.withdraw(id) for id in ids[200:300])
        total -= 400
        r.check(recorded=total, delivered=200, waiting=total - 200)
        eventually(lambda: r.ledger.delivered == 200 + len(overdue))
        r.check(recorded=total, waiting=total - 200 - len(overdue))
        hand_overs.acknowledge(ids[300:])
        eventually(lambda: not memory)
        r.check(recorded=total, delivered=total, waiting=0)

    assert len(sink.ids) == len(overdue)
    assert sink.copies == 0


@pytest.mark.parametrize("bound", ["MAX_WAITING", "MAX_WAITING_BYTES"])
def test_what_is_too_much_is_sent_early_the_oldest_first(
    monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    monkeypatch.setattr(memories, bound, 2 * BLOCK_SIZE)
    gate = Gate()
    gate.is_open = True

    with kept_for(gate) as (r, hand_overs):
        for number in range(6 * BLOCK_SIZE):
            envelope = PlainEnvelope([event(f"{number}")])
            hand_overs.keep(new_id(), envelope, "page", 60.0 + number / 100)

        eventually(lambda: r.ledger.waiting <= 3 * BLOCK_SIZE)
        r.check(recorded=6 * BLOCK_SIZE)
        sent = {_number(one.calls[0].arguments[1]) for one in gate.taken}
        assert sent == set(range(len(sent)))


def test_threads_lose_and_double_nothing(sink: Sink) -> None:
    with kept_by(sink.url) as (r, hand_overs):

        def work(share: int) -> None:
            for number in range(400):
                id = keep(hand_overs, [0.2, 60.0][number % 2])
                what = (number + share) % 4

                if what == 0:
                    hand_overs.acknowledge([id])
                elif what == 1:
                    assert hand_overs.withdraw(id)

                if number % 50 == 0:
                    assert r.ledger.snapshot().balanced

        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]

        for thread in threads:
            thread.start()

        for thread in threads:
            thread.join()

        hand_overs.hand_on()
        assert r.thread.flush(60)
        # A quarter was withdrawn, at most a quarter acknowledged.
        r.check(recorded=1200, delivered=1200, waiting=0)
        assert 800 <= len(sink.ids) < 1200
        assert sink.copies == 0


def test_the_thread_ends_when_nothing_waits(
    sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_mengpaneel.deliver.hand_overs.stepper.IDLE_TIMEOUT", 0.1)

    with kept_by(sink.url) as (r, hand_overs):
        stepper = hand_overs._stepper
        assert stepper._thread is None

        for _ in range(3):
            id = keep(hand_overs)
            assert stepper._thread is not None
            hand_overs.acknowledge([id])
            eventually(lambda: stepper._thread is None)

        keep(hand_overs, 0.2)
        eventually(lambda: r.ledger.delivered == 4)


def test_a_thread_that_waits_for_long_is_woken_by_what_is_due_soon(sink: Sink) -> None:
    with kept_by(sink.url) as (r, hand_overs):
        keep(hand_overs, 600.0)
        time.sleep(0.5)
        keep(hand_overs, 0.1)
        eventually(lambda: r.ledger.delivered == 1, 5)


# What arrives from outside.


class Stop(BaseException):
    pass


#: What files of it are interrupted in: the delivery, and context managers of Python's.
INTERRUPTED = ("flask_mengpaneel/deliver", "contextlib.py")


@functools.cache
def with_lines(path: str) -> set[int]:
    """The lines of what is entered by ``with`` in a file."""
    tree = ast.parse(Path(path).read_text())
    statements = [node for node in ast.walk(tree) if isinstance(node, ast.With)]
    return {item.context_expr.lineno for one in statements for item in one.items}


def is_end_of_with(frame: types.FrameType) -> bool:
    """Whether a frame is about to leave a ``with``, in whose line it is once more.

    Python traces that line as any other, but lets nothing arrive before it has called
    what leaves: it looks for signals and the like where a call is made or a loop goes
    on.
    """
    code, line = frame.f_code, frame.f_lineno
    entry = min(start for start, _, number in code.co_lines() if number == line)
    return line in with_lines(code.co_filename) and frame.f_lasti > entry


def lines_of(
    function: t.Callable[[], object], stop_at: int, act: t.Callable[[], object]
) -> int:
    """How many lines of delivery a call goes through; at one of them something else
    happens."""
    lines = 0

    def trace(frame: types.FrameType, what: str, _: object) -> t.Any:
        nonlocal lines

        if not any(part in frame.f_code.co_filename for part in INTERRUPTED):
            return None

        if what == "line" and not is_end_of_with(frame):
            lines += 1

            if lines == stop_at:
                sys.settrace(None)
                act()
                sys.settrace(trace)

        return trace

    sys.settrace(trace)

    try:
        function()
    finally:
        sys.settrace(None)

    return lines


def interrupted(
    function: t.Callable[[], object],
    stop_at: int,
    error: type[BaseException],
    kept: list[BaseException] | None = None,
) -> bool:
    """Whether a call goes through that many lines, at the last of which an exception
    arrives.

    :param kept: whoever gets the exception keeps it, and so its traceback, here.
    """
    is_stopped = False

    def stop() -> None:
        nonlocal is_stopped
        is_stopped = True
        raise error("from outside")

    try:
        lines_of(function, stop_at, stop)
    except error as raised:
        if kept is not None:
            kept.append(raised)

    return is_stopped


@pytest.fixture
def collected() -> t.Iterator[None]:
    """Collect at the end what exceptions left open, such as a connection that nobody
    was told of: else Python warns of it in another test."""
    yield
    gc.collect()


@pytest.mark.parametrize("durable", [False, True], ids=["memory", "durable"])
@pytest.mark.parametrize("error", [Stop, OSError])
@pytest.mark.parametrize("what", ["keep", "withdraw", "settle", "acknowledge"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.usefixtures("collected")
def test_the_ledger_is_right_wherever_an_exception_arrives(
    sink: Sink, tmp_path: Path, durable: bool, error: type[BaseException], what: str
) -> None:
    spool = Spool(tmp_path / "spool.sqlite3") if durable else None
    stop_at = recorded = 0
    goes_on = True

    with kept_by(sink.url, spool=spool, durable=durable) as (r, hand_overs):
        while goes_on:
            stop_at += 1
            id = new_id()

            def act(id: str = id) -> None:
                if what == "keep":
                    hand_overs.keep(id, events(1), "page", 300.0)
                elif what == "acknowledge":
                    hand_overs.acknowledge([id])
                else:
                    getattr(hand_overs, what)(id)

            if what != "keep":
                hand_overs.keep(id, events(1), "page", 300.0)

            goes_on = interrupted(act, stop_at, error)
            balance = r.ledger.snapshot()
            assert balance.balanced, (stop_at, balance)
            assert balance.recorded - recorded in (0, 1)
            recorded = balance.recorded

        assert stop_at > 5
        eventually(lambda: r.ledger.snapshot().balanced)
        hand_overs.hand_on()
        balance = r.ledger.snapshot()
        assert balance.balanced
        assert balance.recorded == recorded


def test_wherever_an_exception_arrives_the_transfer_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else readers of the ledger wait for it, for as long as the exception is kept."""
    ledger = Ledger()
    stop_at = 0
    goes_on = True
    # How a reader waits.
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("a transfer goes on"))

    def move() -> None:
        with ledger.transfer():
            ledger.record()

    while goes_on:
        stop_at += 1
        kept: list[BaseException] = []
        goes_on = interrupted(move, stop_at, Stop, kept)
        assert ledger.snapshot().recorded <= stop_at

    assert stop_at > 5


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.usefixtures("collected")
@pytest.mark.parametrize("durable", [False, True], ids=["memory", "durable"])
def test_an_exception_that_comes_too_late_stops_nothing(
    sink: Sink, tmp_path: Path, durable: bool
) -> None:
    """Who gets it would send the same calls another way."""
    spool = Spool(tmp_path / "spool.sqlite3") if durable else None
    stop_at = kept = raised = 0
    goes_on = True

    with kept_by(sink.url, spool=spool, durable=durable) as (r, hand_overs):
        while goes_on:
            stop_at += 1
            before = r.ledger.recorded
            outcome: list[str] = []

            def act(outcome: list[str] = outcome) -> None:
                hand_overs.keep(new_id(), events(1), "page", 300.0)
                outcome.append("kept")

            goes_on = interrupted(act, stop_at, OSError)
            kept += bool(outcome)
            raised += not outcome

            # Somewhere at the end, when all is done, it is raised to the caller.
            if outcome:
                assert r.ledger.recorded == before + 1

    assert kept > 2
    assert raised > 2


@pytest.mark.parametrize("durable", [False, True], ids=["memory", "durable"])
def test_at_each_line_of_a_hand_over_another_may_be_kept(
    sink: Sink, tmp_path: Path, durable: bool
) -> None:
    """By the handler of a signal, or a finalizer."""
    spool = Spool(tmp_path / "spool.sqlite3") if durable else None
    stop_at = lines = 0

    with kept_by(sink.url, spool=spool, durable=durable) as (r, hand_overs):

        def outer() -> None:
            assert hand_overs.withdraw(keep(hand_overs))

        def inner() -> None:
            outer()
            hand_overs.acknowledge([keep(hand_overs)])

        while lines >= stop_at:
            stop_at += 1
            lines = lines_of(outer, stop_at, inner)

        eventually(lambda: r.ledger.waiting == 0)
        # The last time there was no such line.
        r.check(recorded=stop_at - 1, delivered=stop_at - 1)
        assert stop_at > 20

    assert sink.ids == set()


# The end.


def test_what_comes_after_the_end_is_handed_on_at_once(sink: Sink) -> None:
    with kept_by(sink.url) as (r, hand_overs):
        hand_overs.hand_on()
        keep(hand_overs, 300.0)
        assert sink.wait_for(1)
        assert r.thread.flush(60)
        r.check(recorded=1, delivered=1)


def test_what_became_of_them_is_logged_at_the_end(
    sink: Sink, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    with kept_by(sink.url) as (_, hand_overs):
        acknowledged = [keep(hand_overs, 300.0) for _ in range(2)]
        keep(hand_overs, 300.0, carrier="header")
        keep(hand_overs, 300.0, if_shown=True)
        hand_overs.acknowledge(acknowledged)
        hand_overs.hand_on()

    assert (
        "4 hand-overs = 0 waiting + 2 acknowledged (page: 2) + 1 sent by the server"
        f" (header: 1) + 0 left to the spool + 1 dropped ({NEVER_SHOWN}: 1)"
    ) in caplog.text


# Processes.

PRELUDE = """
    import os, signal, sys, time
    from kept import hand_overs_of, page
    hand_overs = hand_overs_of(app)

    def keep(id, timeout=60.0, **options):
        hand_overs.keep(id, page(id), "page", timeout, **options)
"""


def test_at_the_end_of_a_process_without_a_spool_all_is_sent(tmp_path: Path) -> None:
    script = (
        PRELUDE
        + """
    for number in range(300):
        keep(f"id{number}")

    hand_overs.acknowledge([f"id{number}" for number in range(100)])
    keep("prefetched", if_shown=True)
"""
    )

    with Sink() as sink:
        ended = run(tmp_path, script, sink.url, spool=None)
        assert sink.ids == {f"id{number}-0" for number in range(100, 300)}
        assert sink.copies == 0

    assert (ended.recorded, ended.delivered, ended.waiting) == (301, 300, 0)
    assert ended.dropped == {NEVER_SHOWN: 1}


@pytest.mark.parametrize("how", ["SIGTERM", "multiprocessing"])
def test_a_process_may_end_in_other_ways(tmp_path: Path, how: str) -> None:
    if how == "SIGTERM":
        script = (
            PRELUDE
            + """
    keep("a")
    print("kept", flush=True)
    time.sleep(60)
"""
        )
    else:
        script = (
            PRELUDE
            + """
    import multiprocessing
    context = multiprocessing.get_context("fork")

    def work():
        keep("a")

    child = context.Process(target=work)
    child.start()
    child.join()
    os._exit(0)
"""
        )

    with Sink() as sink, started(tmp_path, script, sink.url, spool=None) as process:
        if how == "SIGTERM":
            process.wait_for("kept")
            process.terminate()
        else:
            assert process.wait() == 0, process.output

        assert sink.wait_for(1), process.output
        assert sink.ids == {"a-0"}


@pytest.mark.parametrize("before", [0, 3, 400])
def test_a_child_starts_with_nothing(tmp_path: Path, before: int) -> None:
    script = (
        PRELUDE
        + f"""
    for number in range({before}):
        keep(f"parent{{number}}")

    time.sleep(0.3)
    pid = os.fork()

    if pid == 0:
        assert not hand_overs.withdraw("parent0")
        keep("child", 0.1)
        keep("child's other")
        sys.exit(0)

    assert os.waitpid(pid, 0)[1] == 0
    assert {before} == 0 or hand_overs.withdraw("parent0")
"""
    )

    with Sink() as sink, started(tmp_path, script, sink.url, spool=None) as process:
        assert process.wait() == 0, process.output
        expected = {f"parent{number}-0" for number in range(1, before)}
        assert sink.ids == {"child-0", "child's other-0"} | expected
        assert sink.copies == 0

    assert sorted(one.recorded for one in ledgers(tmp_path)) == sorted(
        [2, max(before - 1, 0)]
    )
    assert all(one.balanced for one in ledgers(tmp_path))


LATE_PATCH = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    "eventlet": "import eventlet; eventlet.monkey_patch()",
}


@pytest.mark.parametrize("library", LATE_PATCH)
@pytest.mark.parametrize("order", ["first", "after the app", "while some wait"])
def test_green_threads_may_take_the_place_of_others(
    tmp_path: Path, library: str, order: str
) -> None:
    patch = f"    {LATE_PATCH[library]}\n"
    # What eventlet replaces must not be in use meanwhile, which takes it a second where
    # the machine is busy: it can't have threads of both kinds wait for one lock.
    due = 4.0 if order == "while some wait" else 1.0
    use = f"""
    keep("a", {due})
    keep("b", 300.0)
    time.sleep(0.3)
"""
    rest = """
    keep("c", 0.2)
    hand_overs.acknowledge(["b"])
    deadline = time.monotonic() + 60

    while mengpaneel.ledger().waiting and time.monotonic() < deadline:
        time.sleep(0.05)

    ledger = mengpaneel.ledger().snapshot()
    assert ledger.delivered == ledger.recorded == 3, ledger
    assert mengpaneel.flush(60)
"""
    script = {
        "first": patch + PRELUDE + use + rest,
        "after the app": PRELUDE + patch + use + rest,
        "while some wait": PRELUDE + use + patch + rest,
    }[order]

    with Sink() as sink, started(tmp_path, script, sink.url, spool=None) as process:
        assert process.wait(60) == 0, process.output
        assert sink.ids == {"a-0", "c-0"}
        assert sink.copies == 0

    (ended,) = ledgers(tmp_path)
    assert ended.balanced
    assert ended.delivered == 3


@pytest.mark.parametrize("library", LATE_PATCH)
@pytest.mark.parametrize("spool", [None, "spool"])
def test_the_end_is_looked_after_when_green_threads_came_before_the_first(
    tmp_path: Path, library: str, spool: str | None
) -> None:
    script = f"""{PRELUDE}
    {LATE_PATCH[library]}
    # gevent has started what it looks names up with: at its end Python 3.12 doesn't.
    visit(app)
    assert mengpaneel.flush(60)
    keep('a', 300.0)
"""
    spool = spool and str(tmp_path / "spool.sqlite3")

    with Sink() as sink, started(tmp_path, script, sink.url, spool=spool) as process:
        # It says much of what it couldn't patch.
        assert process.wait() == 0, process.output
        assert ("a-0" in sink.ids) is (spool is None)

    (ended,) = ledgers(tmp_path)
    assert ended.balanced
    assert (ended.recorded, ended.delivered) == (2, 1 if spool else 2)
    assert spool is None or Spool(Path(spool), "t").summary().unacknowledged == 1


#: At its end Python 3.12 starts no threads, others don't where the system has no more.
WITHOUT_THREADS = """
    import atexit, threading
    from flask_mengpaneel.deliver import pipeline
    pipeline.IDLE_TIMEOUT = 0.05
    visit(app)
    assert mengpaneel.flush(60)

    while "mengpaneel" in [thread.name for thread in threading.enumerate()]:
        time.sleep(0.01)

    for number in range(5):
        keep(f"a{number}", 300.0)

    def start(self):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    atexit.register(lambda: setattr(threading.Thread, "start", start))
"""


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"transport": "celery", "CELERY": {"broker_url": "redis://127.0.0.1:1/0"}},
    ],
    ids=["thread", "celery"],
)
def test_what_waits_is_sent_at_the_end_where_no_thread_can_be_started(
    tmp_path: Path, settings: dict[str, t.Any]
) -> None:
    with Sink() as sink:
        script = PRELUDE + WITHOUT_THREADS
        ended = run(tmp_path, script, sink.url, spool=None, **settings)
        assert ended.balanced
        assert ended.delivered == ended.recorded == 6
        assert {f"a{number}-0" for number in range(5)} < sink.ids
        assert sink.copies == 0


# When there are none, and when nobody acknowledges.


@pytest.mark.parametrize(
    "settings",
    [
        {"ack_timeout": 0},
        {"strategies": ("AsyncServerSide", "ServerSide")},
        {"enabled": False},
    ],
    ids=str,
)
def test_there_are_none_where_nothing_is_to_be_acknowledged(
    settings: dict[str, t.Any],
) -> None:
    with rig(NOBODY_LISTENS, **settings) as r:
        assert make_hand_overs(r.config, r.delivery, r.thread) is None


def test_there_are_none_without_a_background() -> None:
    with rig(NOBODY_LISTENS) as r:
        assert make_hand_overs(r.config, r.delivery, None) is None


@pytest.mark.parametrize("was_served", [False, True])
def test_a_site_that_never_acknowledges_is_told_once(
    sink: Sink, caplog: pytest.LogCaptureFixture, was_served: bool
) -> None:
    with kept_by(sink.url) as (r, hand_overs):
        hand_overs.silence.script_was_served = was_served

        for _ in range(45):
            keep(hand_overs, 0.0)

        keep(hand_overs, 0.0, user_agent=GOOGLEBOT)
        eventually(lambda: r.ledger.waiting == 0)
        assert caplog.text.count("no browser has acknowledged any") == 1
        reason = "asked for the script, but" if was_served else "No browser has asked"
        assert reason in caplog.text


@pytest.mark.parametrize("carrier", ["page", "session"])
def test_a_site_is_not_told_without_need(
    sink: Sink, caplog: pytest.LogCaptureFixture, carrier: t.Any
) -> None:
    with kept_by(sink.url) as (r, hand_overs):
        if carrier == "page":
            hand_overs.acknowledge([keep(hand_overs)])

        for _ in range(45):
            keep(hand_overs, 0.0, carrier=carrier)

        eventually(lambda: r.ledger.waiting == 0)
        assert "acknowledged any" not in caplog.text
