"""Hand-overs alone, without responses: their events are those of a page."""

from __future__ import annotations

import collections.abc as c
import contextlib
import itertools
import os
import time
import typing as t

from flask import Flask

from agents import CHROME
from flask_mengpaneel.calls import Call
from flask_mengpaneel.deliver.assembly import make_hand_overs
from flask_mengpaneel.deliver.hand_overs.keeper import HandOvers
from flask_mengpaneel.deliver.hand_overs.memory import CarriedBy
from flask_mengpaneel.envelope import Envelope
from flask_mengpaneel.identity import Identity
from rig import Rig, events, rig

_ids = itertools.count()


def new_id() -> str:
    return f"{os.getpid():06x}{next(_ids):06x}"


def page(id: str, records: int = 1) -> Envelope:
    """The calls of a page: the ids of its events are made of its own."""
    calls = [
        Call(
            [
                ["track"],
                [
                    "Visit",
                    {
                        "time": time.time(),
                        "$insert_id": f"{id}-{number}",
                        "distinct_id": "ann",
                    },
                ],
            ]
        )
        for number in range(records)
    ]
    return Envelope(
        calls,
        Identity(user_id="ann"),
        [],
        time.time(),
        user_agent=CHROME,
        records=records,
        size=100 * records,
    )


def hand_overs_of(app: Flask) -> HandOvers:
    """The hand-overs of an app, made for it."""
    state = app.extensions["mengpaneel"]
    made = make_hand_overs(state.config, state.delivery, state.background)
    assert made is not None
    return made


@contextlib.contextmanager
def kept_by(url: str, **options: t.Any) -> c.Iterator[tuple[Rig, HandOvers]]:
    with rig(url, **options) as r:
        made = make_hand_overs(r.config, r.delivery, r.thread)
        assert made is not None

        try:
            yield r, made
        finally:
            made.hand_on()


def keep(
    hand_overs: HandOvers,
    timeout: float = 60,
    *,
    records: int = 1,
    carrier: CarriedBy = "page",
    user_agent: str = CHROME,
    if_shown: bool = False,
) -> str:
    """Keep the hand-over of some plain events."""
    id = new_id()
    envelope = events(records)
    envelope.user_agent = user_agent
    hand_overs.keep(id, envelope, carrier, timeout, if_shown=if_shown)
    return id
