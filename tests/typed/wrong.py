"""What is wrong is an error in the editor already: not to be run, but to be checked.

Each checker has a comment of its own on each line, and reports those that it doesn't
need: a mistake that is no error any more is one here.
"""

from __future__ import annotations

from flask import Flask

from flask_mengpaneel import Event, Manager, Mengpaneel, Transport

app = Flask(__name__)
mengpaneel = Mengpaneel()

# Settings
Mengpaneel(app, tokn="abc")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
Mengpaneel(app, MENGPANEEL_TOKEN="abc")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
Mengpaneel("abc")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Mengpaneel(app, token=b"abc")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Mengpaneel(app, enabled="no")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Mengpaneel(app, client_config="{}")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Mengpaneel(app, strategies="ServerSide")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Mengpaneel(app, strategies=["Nope"])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
Mengpaneel(app, transport=None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Mengpaneel(app, transport=object())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Mengpaneel(app, timeout="3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Mengpaneel(app, spool=False)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Mengpaneel(app, default_properties=["Release"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Mengpaneel(app, consent=True)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Mengpaneel(app, consent=len)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Mengpaneel(app, on_failure=len)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Mengpaneel(app, max_header=4096.5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Mengpaneel(app, id_merge="simple")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Mengpaneel(app, bots=True)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Mengpaneel(app, csp_nonce="abc", inspector=None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

Mengpaneel(app, before_send=lambda event: {"A": event.name})  # type: ignore[arg-type,return-value]  # pyright: ignore[reportArgumentType]
Mengpaneel(app, before_send=lambda: None)  # type: ignore[arg-type,misc]  # pyright: ignore[reportArgumentType]
Mengpaneel(app, login=True)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

# Strategies
mengpaneel.strategy = 1  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
mengpaneel.strategy = "Nope"  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
mengpaneel.strategy = "serverside"  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
mengpaneel.strategy = Transport  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
Manager("ServerSide")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
Manager(strategy="Nope")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

# Ids
mengpaneel.identify(None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
mengpaneel.identify(["ann"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
mengpaneel.identify(b"ann")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
mengpaneel.identify(4.2)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
mengpaneel.alias(None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
mengpaneel.set_group("company", None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
mengpaneel.set_group("company", [None])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
mengpaneel.add_group("company", None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
mengpaneel.get_group("company", None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
mengpaneel.get_group("acme")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]

# Calls
mengpaneel.trakc("Order")  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
mengpaneel.track()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
mengpaneel.track("Order", "properties")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
mengpaneel.track("Order", {}, {})  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
mengpaneel.track(42)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
mengpaneel.people.incremnt("a")  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
mengpaneel.people.increment("a", "1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
mengpaneel.people.set(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
mengpaneel.register("a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
mengpaneel.before_set_up()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
mengpaneel.call()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
mengpaneel.drain("5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# Declared events
class PlaceOrder(Event, name="Place Order"):
    """A declared event."""

    items: int
    coupon: str | None = None


class Misspelt(Event, onwer="web"):  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue, reportGeneralTypeIssues]
    """A keyword that there isn't."""


PlaceOrder()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
PlaceOrder(3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
PlaceOrder(items="3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
PlaceOrder(items=3, itms=4)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
PlaceOrder(items=3).items = 4  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
mengpaneel.track(PlaceOrder)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Mengpaneel(app, events="error")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

# Databases
mengpaneel.on_commit()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
mengpaneel.on_commit("db.session")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
mengpaneel.on_commit(app)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

# Transports
Transport()  # type: ignore[abstract]  # pyright: ignore[reportAbstractUsage]
