"""Hand-overs: kept until they are acknowledged, settled, withdrawn or overdue."""

from __future__ import annotations

import collections.abc as c
import contextlib
import itertools
import time
import typing as t

from flask_mengpaneel.deliver.hand_overs import HandOvers
from rig import Rig, events, rig
from sink import Sink

CHROME = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko)"
    " Chrome/131.0.0.0 Safari/537.36"
)
GOOGLEBOT = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"

_ids = itertools.count()


def new_id() -> str:
    return f"{next(_ids):012x}"


@contextlib.contextmanager
def kept_by(url: str, **options: t.Any) -> c.Iterator[tuple[Rig, HandOvers]]:
    with rig(url, **options) as r:
        hand_overs = HandOvers(r.delivery, r.thread)

        try:
            yield r, hand_overs
        finally:
            hand_overs.hand_on()


def eventually(condition: c.Callable[[], object], timeout: float = 10) -> None:
    deadline = time.monotonic() + timeout

    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def keep(
    hand_overs: HandOvers, timeout: float = 60, records: int = 1, **options: t.Any
) -> str:
    id = new_id()
    hand_overs.keep(
        id, events(records), options.pop("carrier", "page"), timeout, **options
    )
    return id


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
