"""What arrives from outside in the middle of something: signals and exceptions."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from processes import SHUTDOWN_TIMEOUT, ledgers, run, started
from sink import Silent, Sink, Status

#: Exceptions that arrive while something is handed over.
ARRIVALS = 400
#: Hand-overs, each stopped at a random moment, or a little too late, until so many
#: exceptions have arrived.
STOPPED = """
    import collections, random, signal, statistics, time
    from flask_mengpaneel import Manager

    class Stop({base}):
        pass

    arrived = number = 0

    def stop(*_):
        global arrived
        arrived += is_handing_over
        raise Stop

    chance = random.Random(1)
    signal.signal(signal.SIGALRM, stop)
    app.app_context().push()
    manager = Manager().__enter__()
    is_handing_over = False
    usual = collections.deque(maxlen=20)
    deadline = time.monotonic() + 60

    while number < {arrivals} or arrived < {arrivals}:
        assert time.monotonic() < deadline, arrived
        number += 1
        manager.track("Visit")
        # Some are left alone: on a busy machine all others may be stopped.
        is_left_alone = number <= 20 or number % 11 == 0 or not {disturbed}

        try:
            try:
                is_handing_over = True
                started = time.perf_counter()

                if not is_left_alone:
                    delay = statistics.median(usual) * chance.uniform(0.1, 1.3)
                    signal.setitimer(signal.ITIMER_REAL, delay)

                manager.flush()
                is_handing_over = False
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)

            if is_left_alone:
                usual.append(time.perf_counter() - started)
        except Stop:
            is_handing_over = False

        if not {disturbed}:
            arrived += 1

    # A busy sink may have a request repeated, ten seconds later.
    assert mengpaneel.flush(60), "something waits for ever"
    started = time.monotonic()
    ledger = mengpaneel.ledger().snapshot()
    assert time.monotonic() - started < 10, "something moves for ever"
    assert ledger.balanced, ledger
    print(f"arrived: {{arrived}} of {{number}} until", time.monotonic())
"""


def stop(
    folder: Path, url: str, base: str, *, durable: bool, disturbed: bool
) -> tuple[int, int, float]:
    """Run hand-overs until exceptions enough have arrived in them.

    :return: how many have arrived, in how many hand-overs, and the seconds that the
        process took to end.
    """
    folder.mkdir()
    script = STOPPED.format(base=base, arrivals=ARRIVALS, disturbed=disturbed)

    with started(folder, script, url, covered=False, durable=durable) as process:
        assert process.wait(120) == 0, process.output[-3000:]
        ended = time.monotonic()

    lines = process.output.splitlines()
    (said,) = [line for line in lines if line.startswith("arrived: ")]
    print(said)
    _, arrived, _, number, _, until = said.split()
    return int(arrived), int(number), ended - float(until)


@pytest.mark.parametrize("durable", [False, True], ids=["memory", "durable"])
@pytest.mark.parametrize("base", ["Exception", "BaseException"])
def test_exceptions_from_outside_at_random_moments(
    tmp_path: Path, base: str, durable: bool
) -> None:
    folder = tmp_path / "stopped"

    with Sink() as sink:
        arrived, number, took = stop(
            folder, sink.url, base, durable=durable, disturbed=True
        )
        assert arrived >= ARRIVALS
        assert sink.copies == 0
        (ended,) = ledgers(folder)
        assert ended.balanced
        assert (ended.waiting, ended.dropped) == (0, {})
        assert len(sink.ids) == ended.delivered
        # What was stopped before it was handed over isn't recorded.
        assert 20 + number // 11 - 1 <= ended.recorded <= number
        _, _, undisturbed = stop(
            tmp_path / "left alone", sink.url, base, durable=durable, disturbed=False
        )

    # Whoever waited for something that never comes would do so for much longer.
    assert took < undisturbed + SHUTDOWN_TIMEOUT / 2


#: Hand-overs, each stopped at another point: at all of those at which Python looks for
#: signals, one after the other.
STOPPED_EVERYWHERE = """
    import dis, functools, sys, threading, time
    from flask_mengpaneel import Manager
    from flask_mengpaneel.deliver import pipeline, queue

    class Stop({base}):
        pass

    # Else it takes a minute.
    queue.LINGER = 0.01
    app.app_context().push()
    transport = app.extensions["mengpaneel"].background
    steps = points = until = 0
    before = {{}}

    def next_step(self, now, original=pipeline.Pipeline.next_step):
        global steps
        steps += 1
        return original(self, now)

    pipeline.Pipeline.next_step = next_step

    @functools.cache
    def instructions(code):
        return {{one.offset: one for one in dis.get_instructions(code)}}

    def is_point(frame):
        now = instructions(frame.f_code)[frame.f_lasti]
        last, before[frame] = before.get(frame, ""), now.opname
        # What comes out of the last call of a `with` is still inside of it.
        leaves = now.opname == "SWAP" or (
            now.opname == "LOAD_CONST" and now.argval is None
        )
        return last.startswith(("CALL", "RESUME", "JUMP_BACKWARD")) and not leaves

    def trace(frame, event, _):
        global points
        name = frame.f_code.co_filename

        if "deliver" not in name and name != threading.__file__:
            return None

        frame.f_trace_opcodes = True

        if event == "opcode" and is_point(frame):
            points += 1

            if points == until:
                sys.settrace(None)
                raise Stop

        return trace

    def wait_for(condition):
        deadline = time.monotonic() + 60

        while not condition():
            assert time.monotonic() < deadline, (until, transport._places.occupied())
            time.sleep(0.001)

    def is_empty():
        return not transport._places.occupied()

    def is_idle():
        return is_empty() and transport._places.queue.wake_at == 1

    def hand_over():
        with Manager() as manager:
            manager.track("Visit")

    while points >= until:
        {before}
        before.clear()
        steps, points, until = 0, 0, until + 1

        try:
            # Python 3.12 looks here for whether anybody wants to see each point.
            sys._getframe().f_trace_opcodes = True
            sys.settrace(trace)
            {call}
        except Stop:
            pass
        finally:
            sys.settrace(None)

        # By itself, and so does the next one.
        wait_for(is_empty)
        hand_over()
        wait_for(is_idle)
        assert not transport._pipeline.expediting
        assert steps < 50, (steps, until)

    assert until > 20
    ledger = mengpaneel.ledger().snapshot()
    assert until <= ledger.recorded == ledger.delivered, ledger
"""


@pytest.mark.parametrize("durable", [False, True], ids=["memory", "durable"])
@pytest.mark.parametrize("base", ["Exception", "BaseException"])
@pytest.mark.parametrize(
    ("before", "call"),
    [
        ("hand_over(); wait_for(is_idle)", "hand_over()"),
        # This one starts a worker.
        ("transport._reset()", "hand_over()"),
        ("hand_over()", "mengpaneel.flush(60)"),
    ],
    ids=["hand-over", "first", "flush"],
)
def test_an_exception_from_outside_at_any_point_holds_nothing_up(
    tmp_path: Path, before: str, call: str, base: str, durable: bool
) -> None:
    script = STOPPED_EVERYWHERE.format(base=base, before=before, call=call)

    with (
        Sink() as sink,
        started(tmp_path, script, sink.url, durable=durable) as process,
    ):
        assert process.wait(60) == 0, process.output[-3000:]
        assert sink.copies == 0

    (ended,) = ledgers(tmp_path)
    assert ended.delivered == ended.recorded == len(sink.ids)


#: Hand-overs, in the middle of which the handler of a signal makes others.
HANDLED = """
    import random, signal, time
    from flask_mengpaneel import Manager

    handled = 0

    def handle(*_):
        global handled
        handled += 1

        with Manager() as inner:
            inner.strategy = {strategy!r}
            inner.track("Signal")

    chance = random.Random(1)
    signal.signal(signal.SIGALRM, handle)
    app.app_context().push()
    manager = Manager().__enter__()
    manager.strategy = {strategy!r}
    usual = []

    for _ in range(20):
        manager.track("Visit")
        started = time.perf_counter()
        manager.flush()
        usual.append(time.perf_counter() - started)

    usual = sorted(usual)[10]

    for _ in range({times}):
        manager.track("Visit")
        signal.setitimer(signal.ITIMER_REAL, usual * chance.uniform(0.1, 1.0))
        manager.flush()
        signal.setitimer(signal.ITIMER_REAL, 0)

    assert handled > {times} / 4
    assert mengpaneel.flush(60)
    ledger = mengpaneel.ledger().snapshot()
    assert ledger.recorded == 20 + {times} + handled, (ledger, handled)
"""


@pytest.mark.parametrize(
    ("strategy", "durable"),
    [("AsyncServerSide", False), ("AsyncServerSide", True), ("ServerSide", False)],
    ids=["memory", "durable", "inline"],
)
def test_the_handler_of_a_signal_may_track(
    tmp_path: Path, strategy: str, durable: bool
) -> None:
    times = 400 if strategy == "AsyncServerSide" else 50

    with Sink() as sink:
        ended = run(
            tmp_path,
            HANDLED.format(strategy=strategy, times=times),
            sink.url,
            covered=False,
            durable=durable,
        )
        assert sink.copies == 0

    assert ended.delivered == ended.recorded == len(sink.ids)


@pytest.mark.parametrize("base", ["Exception", "BaseException"])
def test_what_an_exception_stops_inline_is_kept(tmp_path: Path, base: str) -> None:
    script = f"""
    import signal
    from flask_mengpaneel import Manager

    class Stop({base}):
        pass

    def stop(*_):
        raise Stop

    signal.signal(signal.SIGALRM, stop)

    with app.app_context():
        try:
            with Manager(strategy="ServerSide") as manager:
                manager.track("Visit")
                signal.setitimer(signal.ITIMER_REAL, 0.5)
        except Stop:
            pass
    """

    with Sink() as sink:
        sink.script(Silent())

        with started(tmp_path, script, sink.url) as process:
            assert process.wait() == 0, process.output

        (ended,) = ledgers(tmp_path)
        assert ended.recorded == 1
        assert ended.balanced
        assert ended.dropped == {}
        run(tmp_path, "    visit(app)\n    assert mengpaneel.flush(60)", sink.url)
        assert len(sink.ids) == 2


#: What Python calls in the middle of something else, and which tracks.
CALLED = {
    "a logging handler": """
    import logging

    class Tracking(logging.Handler):
        def emit(self, record):
            track("Logged")

    logging.getLogger("flask_mengpaneel").addHandler(Tracking())
    """,
    "a finalizer": """
    import gc

    class Tracking:
        def __init__(self):
            self.itself = self

        def __del__(self):
            track("Freed")

    # As often as Python may.
    gc.set_threshold(5, 1, 1)
    cycles = [Tracking() for _ in range(100)]
    del cycles
    """,
}


@pytest.mark.parametrize("durable", [False, True], ids=["memory", "durable"])
@pytest.mark.parametrize("called", CALLED)
def test_what_is_called_in_the_middle_of_a_hand_over_may_track(
    tmp_path: Path, called: str, durable: bool
) -> None:
    script = f"""
    from flask_mengpaneel import Manager

    def track(name):
        with app.app_context(), Manager() as manager:
            manager.track(name)
    {CALLED[called]}
    for _ in range(200):
        track("Visit")

    import gc
    gc.collect()
    assert mengpaneel.flush(60)
    """

    with Sink() as sink:
        # Said by a worker, which has the lock.
        sink.script(Status(503), Status(503))

        with started(tmp_path, script, sink.url, durable=durable) as process:
            assert process.wait() == 0, process.output

        assert sink.copies == 0
        assert len(sink.ids) > 200
        (ended,) = ledgers(tmp_path)
        assert ended.balanced
        assert ended.delivered == ended.recorded == len(sink.ids)


@pytest.mark.parametrize("durable", [False, True], ids=["memory", "durable"])
def test_at_each_line_of_a_hand_over_another_may_be_made(
    tmp_path: Path, durable: bool
) -> None:
    script = """
    import sys
    from flask_mengpaneel import Manager

    app.app_context().push()
    lines = 0
    until = 0

    def hand_over(name):
        with Manager() as manager:
            manager.track(name)

    def trace(frame, event, _):
        global lines

        if "flask_mengpaneel" not in frame.f_code.co_filename:
            return None

        if event == "line":
            lines += 1

            if lines == until:
                sys.settrace(None)
                hand_over("Inner")
                sys.settrace(trace)

        return trace

    hand_over("First")

    while lines >= until:
        lines, until = 0, until + 1
        sys.settrace(trace)
        hand_over("Outer")
        sys.settrace(None)

    assert until > 100
    assert mengpaneel.flush(60)
    ledger = mengpaneel.ledger().snapshot()
    assert ledger.recorded == 1 + until + until - 1, (ledger, until)
    """

    with Sink() as sink:
        ended = run(tmp_path, script, sink.url, durable=durable)
        assert sink.copies == 0

    assert ended.delivered == ended.recorded == len(sink.ids)
