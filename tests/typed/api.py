"""The public API, as type checkers see it: not to be run, but to be checked."""

from __future__ import annotations

import collections.abc as c
import datetime as dt
import decimal
import os
import pathlib
import typing as t
import uuid

from flask import Flask

from flask_mengpaneel import (
    Declined,
    Envelope,
    Ledger,
    Manager,
    Mengpaneel,
    Outcome,
    Strategy,
    Transport,
    failed,
    flushed,
)
from flask_mengpaneel.config import STRATEGIES
from flask_mengpaneel.strategy import Call, CallLog, Exchange, Visitor
from flask_mengpaneel.testing import RecordingTransport, record_flushes

app = Flask(__name__)
mengpaneel = Mengpaneel()
mengpaneel.init_app(app)
Mengpaneel(app, consent=lambda: True)
Mengpaneel(
    app,
    token=os.environ.get("MIXPANEL_TOKEN"),
    enabled=not app.testing,
    client_config={"cookie_domain": "example.com", "debug": True},
    strategies=["AsyncServerSide", "ServerSide"],
    transport="celery",
    timeout=1,
    spool=pathlib.Path("waiting.sqlite3"),
    default_properties=lambda: {"Release": 3},
    consent="shop.tracking.may_track",
    on_failure=lambda record, reason: print(record["event"], reason),
    id_merge="original",
    bots="drop",
    csp_nonce=None,
    ack_timeout=60,
    acks="redis://10.0.0.5:6379/0",
)
read_elsewhere: dict[str, t.Any] = {"token": "abc"}
Mengpaneel(app, **read_elsewhere)
Mengpaneel(transport=RecordingTransport)
Mengpaneel(transport=RecordingTransport(), strategies=STRATEGIES)


class Discarding(Transport):
    """A transport of one's own."""

    def send(self, envelope: Envelope) -> bool:
        again = Envelope.from_json(envelope.to_json())
        return again.records == envelope.records

    def flush(self, timeout: float) -> bool:
        return True

    def close(self) -> None:
        return None


class Printed(Strategy):
    """A strategy of one's own."""

    def flush(
        self, calls: CallLog, visitor: Visitor, exchange: Exchange | None
    ) -> None:
        for call in calls:
            print(call.name, call.arguments, visitor.identity.distinct_id)


class Triggered(Strategy):
    """One whose calls the client makes."""

    is_client_side = True

    def flush(
        self, calls: CallLog, visitor: Visitor, exchange: Exchange | None
    ) -> c.Sequence[Call]:
        if exchange is None or exchange.request.path == "/":
            raise Declined("not in a request")

        exchange.private_response().headers["X-Events"] = str(len(calls))
        return calls.tracking


Mengpaneel(strategies=["Delayed", Triggered, Printed])
Mengpaneel(strategies=[Printed])


def view() -> str:
    mengpaneel.track("Order", {"Items": 3, "At": dt.datetime.now(dt.UTC)})
    mengpaneel.track("Order", properties=None)
    mengpaneel.track_pageview()
    mengpaneel.track_pageview({"a": 1}, {"event_name": "Page"})
    mengpaneel.track_with_groups("Order", {}, {"company": ["acme"]})
    mengpaneel.time_event("Order")
    mengpaneel.identify(uuid.uuid4())
    mengpaneel.identify(decimal.Decimal(42))
    mengpaneel.alias(42, original="visitor")
    mengpaneel.reset()
    mengpaneel.register({"a": 1}, 7)
    mengpaneel.register_once({"a": 1}, "None", {"persistent": False})
    mengpaneel.unregister("a")
    mengpaneel.set_group("company", ["acme", 7])
    mengpaneel.set_group("company", {"acme", "emca"})
    mengpaneel.add_group("company", "acme")
    mengpaneel.remove_group("company", "acme")
    mengpaneel.disable()
    mengpaneel.enable(["Order"])
    mengpaneel.set_config({"debug": True})
    mengpaneel.opt_in_tracking()
    mengpaneel.opt_out_tracking({"delete_user": False})
    mengpaneel.call("people.brand_new", 1, "two")

    mengpaneel.people.set("Plan", "pro")
    mengpaneel.people.set({"Plan": "pro"})
    mengpaneel.people.set_once({"Plan": "pro"})
    mengpaneel.people.unset(["Plan"])
    mengpaneel.people.increment("Visits")
    mengpaneel.people.increment({"Visits": 2})
    mengpaneel.people.append("Orders", 1)
    mengpaneel.people.union("Tags", ["a"])
    mengpaneel.people.remove("Tags", "a")
    mengpaneel.people.track_charge(9.9, {"sku": 1})
    mengpaneel.people.clear_charges()
    mengpaneel.people.delete_user()

    company = mengpaneel.get_group("company", "acme")
    company.set({"Seats": 12})
    company.set_once("Seats", 12)
    company.unset("Seats")
    company.union("Tags", ["a"])
    company.remove("Tags", "a")
    company.delete()

    with mengpaneel.before_setup() as before:
        before.alias("ann")

    with mengpaneel.setup() as setup, mengpaneel.tracking() as tracking:
        setup.identify("ann")
        tracking.people.set("a", 1)

    mengpaneel.strategy = "ServerSide"
    mengpaneel.strategy = Printed
    mengpaneel.strategy = None
    return "done"


def job() -> None:
    with Manager(strategy="ServerSide") as manager:
        t.assert_type(manager, Manager)
        manager.track("Renew")
        t.assert_type(manager.flush(), Outcome | None)

    t.assert_type(mengpaneel.drain(timeout=1), bool)
    t.assert_type(mengpaneel.flush(timeout=1), bool)
    ledger = mengpaneel.ledger()
    t.assert_type(ledger, Ledger)
    t.assert_type(ledger.recorded, int)
    t.assert_type(ledger.delivered, int)
    t.assert_type(ledger.waiting, int)
    t.assert_type(ledger.dropped, dict[str, int])
    t.assert_type(mengpaneel.track("Nothing"), None)


def receive(sender: Flask, outcome: Outcome) -> None:
    t.assert_type(outcome.strategy, str)
    t.assert_type(dict(outcome.declined), dict[str, str])
    t.assert_type([call.name for call in outcome.calls], list[str])


flushed.connect(receive, app)
failed.connect(lambda sender, records, reason: print(reason))


def check() -> None:
    transport = RecordingTransport()
    t.assert_type(transport.envelopes, list[Envelope])

    with record_flushes(app) as outcomes:
        t.assert_type(outcomes, list[Outcome])
