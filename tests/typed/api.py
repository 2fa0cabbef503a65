"""The public API, as type checkers see it: not to be run, but to be checked."""

from __future__ import annotations

import collections.abc as c
import dataclasses
import datetime as dt
import decimal
import os
import pathlib
import typing as t
import uuid

from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Session, scoped_session, sessionmaker

from flask_mengpaneel import (
    Declined,
    Envelope,
    Event,
    Ledger,
    Login,
    Manager,
    Mengpaneel,
    Outcome,
    Strategy,
    TrackedEvent,
    Transport,
    failed,
    flushed,
)
from flask_mengpaneel.config import STRATEGIES
from flask_mengpaneel.strategy import Call, CallLog, Exchange, Visitor
from flask_mengpaneel.testing import (
    RecordedCall,
    RecordedCalls,
    RecordingTransport,
    record_calls,
    record_flushes,
)

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
    before_send="shop.tracking.before_send",
    url_prefix="/shop-data",
    login="flask-login",
    login_profile=lambda user: {"$email": user.email},
)
read_elsewhere: dict[str, t.Any] = {"token": "abc"}
Mengpaneel(app, **read_elsewhere)
Mengpaneel(transport=RecordingTransport)
Mengpaneel(transport=RecordingTransport(), strategies=STRATEGIES)


def before_send(event: TrackedEvent) -> TrackedEvent | None:
    if event.name == "Health Check":
        return None

    event.properties["Release"] = 3
    return event


Mengpaneel(app, login=Login.flask_login(user_id=lambda user: user.id))
Mengpaneel(
    app,
    login=Login(
        user=lambda: None,
        user_id=lambda user: 42,
        signals={flushed: lambda outcome: None},
    ),
)


class ShopEvent(Event, abstract=True):
    """What every event of the shop has."""

    channel: str = "web"


class PlaceOrder(ShopEvent, name="Place Order", owner="checkout"):
    """A declared event."""

    items: int
    total: decimal.Decimal | None = None
    coupons: list[str] = dataclasses.field(
        default_factory=list, metadata={"name": "Coupons"}
    )


class SignUp(
    Event, display_name="Sign-up", description="Somebody has signed up.", owner="web"
):
    """Without properties."""


def declared() -> None:
    order = PlaceOrder(items=3, coupons=["a"])
    t.assert_type(order.items, int)
    t.assert_type(order.total, decimal.Decimal | None)
    mengpaneel.track(order)
    mengpaneel.track(SignUp(), {"time": 1_700_000_000})
    mengpaneel.track_with_groups(order, None, {"company": "acme"})


Mengpaneel(app, events="raise")


class Base(DeclarativeBase):
    """Of the tables of an app."""


db = SQLAlchemy(model_class=Base)
engine = create_engine("sqlite://")


def place_order() -> None:
    with mengpaneel.on_commit(db.session) as committed:
        mengpaneel.track("Order")
        committed.people.increment("Orders")

    mengpaneel.on_commit(db.session).track("Order")

    with Manager() as manager, Session(engine) as session:
        manager.on_commit(session).track("Order")
        manager.on_commit(scoped_session(sessionmaker(engine))).track(SignUp())

        with manager.on_commit(session).setup():
            manager.identify("ann")


def place_async(session: AsyncSession) -> None:
    mengpaneel.on_commit(session).track("Order")


Mengpaneel(app, before_send=before_send)
Mengpaneel(app, before_send=lambda event: event)


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
    mengpaneel.people.track_charge(decimal.Decimal("9.90"))
    mengpaneel.people.increment("Spent", decimal.Decimal("9.90"))
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


def check_calls(mengpaneel_calls: RecordedCalls) -> None:
    with record_calls(app) as calls:
        t.assert_type(calls, RecordedCalls)

    call = mengpaneel_calls.assert_tracked("Order", {"Order id": 7}, Total=44)
    t.assert_type(call, RecordedCall)
    t.assert_type(call.ways, list[str])
    t.assert_type(call.request, str | None)
    t.assert_type(mengpaneel_calls[0], RecordedCall)
    t.assert_type(mengpaneel_calls.events, list[str])
    t.assert_type(mengpaneel_calls.by_request, list[list[RecordedCall]])
    mengpaneel_calls.assert_not_tracked()
    mengpaneel_calls.assert_not_tracked("Order", Total=44)
    mengpaneel_calls.assert_tracked(PlaceOrder, items=3)
    mengpaneel_calls.assert_tracked(PlaceOrder(items=3))
    mengpaneel_calls.assert_not_tracked(PlaceOrder)
    t.assert_type(mengpaneel_calls.assert_identified(42), RecordedCall)
    mengpaneel_calls.assert_profile({"Plan name": "pro"}, Seats=3)
