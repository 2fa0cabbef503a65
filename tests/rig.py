"""Delivery alone, without an app: plain events go in, a sink takes them."""

from __future__ import annotations

import collections.abc as c
import contextlib
import dataclasses
import itertools
import json
import typing as t

from flask_mengpaneel.calls import Call
from flask_mengpaneel.config import Config
from flask_mengpaneel.deliver.assembly import LazyHttpClient
from flask_mengpaneel.deliver.delivery import Delivery
from flask_mengpaneel.deliver.inline import InlineTransport
from flask_mengpaneel.deliver.ledger import Ledger
from flask_mengpaneel.deliver.thread import ThreadTransport
from flask_mengpaneel.envelope import Envelope, Message
from flask_mengpaneel.identity import NOBODY

_ids = itertools.count()


class PlainEnvelope(Envelope):
    """An envelope whose messages are built already."""

    def __init__(self, messages: list[Message]) -> None:
        calls = [Call([["message"], list(dataclasses.astuple(m))]) for m in messages]
        records = sum(message.records for message in messages)
        size = sum(len(message.json) for message in messages)
        super().__init__(calls, NOBODY, [], 0.0, records=records, size=size)


class PlainTranslator:
    def messages(self, envelope: Envelope) -> tuple[list[Message], dict[str, int]]:
        return [Message(*call.arguments) for call in envelope.calls], {}


def event(name: str = "Visit", **properties: t.Any) -> Message:
    number = next(_ids)
    record = {
        "event": name,
        "properties": {
            "time": 1_700_000_000 + number / 1000,
            "distinct_id": "ann",
            "$insert_id": f"id-{number}",
            "token": "t",
            **properties,
        },
    }
    return Message("events", json.dumps(record), 1, True)


def update(operation: str, properties: t.Any, repeatable: bool = True) -> Message:
    record = {"$token": "t", "$distinct_id": "ann", operation: properties}
    return Message("people", json.dumps(record), 1, repeatable)


def events(count: int) -> PlainEnvelope:
    return PlainEnvelope([event() for _ in range(count)])


class Rig:
    """Delivery to a sink, and what it told of."""

    def __init__(self, url: str, *, spool: t.Any = None, **config: t.Any) -> None:
        self.config = Config(token="t", api_host=url, **config)
        self.ledger = Ledger()
        self.reports: list[tuple[list[dict[str, t.Any]], str]] = []
        self.delivery = Delivery(
            self.config,
            t.cast(t.Any, PlainTranslator()),
            self.ledger,
            lambda records, reason: self.reports.append((records, reason)),
            post=LazyHttpClient(url),
            spool=spool,
        )
        self.inline = InlineTransport(self.delivery)
        self.thread = ThreadTransport(self.delivery)

    def send(self, envelope: Envelope) -> bool:
        return self.thread.send(envelope)

    def send_inline(self, envelope: Envelope) -> None:
        self.inline.send(envelope)

    @property
    def reported(self) -> dict[str, str]:
        """What was reported: ``$insert_id`` -> reason."""
        return {
            record["properties"]["$insert_id"]: reason
            for records, reason in self.reports
            for record in records
        }

    def check(self, **expected: t.Any) -> None:
        """The ledger balances, and says this."""
        balance = self.ledger.snapshot()
        assert balance.balanced, balance

        for name, value in expected.items():
            assert getattr(balance, name) == value, (name, balance)


@contextlib.contextmanager
def rig(url: str, **options: t.Any) -> c.Iterator[Rig]:
    made = Rig(url, **options)

    try:
        yield made
    finally:
        made.thread.close()
