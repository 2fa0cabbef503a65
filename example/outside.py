"""The world outside of the shop: a payment provider, a phone, a job at night.

It is no part of what the example shows, but makes it happen at the push of a button.
"""

from __future__ import annotations

import collections.abc as c
import concurrent.futures
import json
import random

from flask import (
    Blueprint,
    Flask,
    abort,
    current_app,
    flash,
    redirect,
    request,
    url_for,
)
from flask.testing import FlaskClient
from flask_login import current_user
from werkzeug.wrappers import Response

from .app import books, renew_subscriptions
from .goods import PARTS, Customer

outside = Blueprint("outside", __name__, url_prefix="/outside")


@outside.post("/<what>")
def happen(what: str) -> Response | dict[str, str]:
    """Let something happen that no click on a page is."""
    happening = HAPPENINGS.get(what) or abort(404)
    news = elsewhere(happening, books.customers[current_user.get_id() or "miles"])

    if what in OF_THE_CUSTOMER and not current_user.is_authenticated:
        news = f"You aren’t signed in, so it was Miles. {news}"

    if request.accept_mimetypes.best == "application/json":
        return {"news": news}

    flash(news)
    return redirect(url_for("shop.parts"))


def elsewhere(happening: c.Callable[[Flask, Customer], str], customer: Customer) -> str:
    """Run it in a thread of its own, which knows nothing of this request."""
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]

    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        return executor.submit(happening, app, customer).result()


def pay(app: Flask, customer: Customer) -> str:
    order = app.extensions["books"].unpaid()

    if order is None:
        return "Every order is paid. Place one first."

    client(app, "PaymentProvider/1.0").post(
        "/payments",
        json={"order": order.id},
        headers={"X-Payment-Key": app.config["PAYMENT_KEY"]},
    )
    return (
        f"{order.customer.name} has paid order {order.id}, {order.total} euros. The"
        " request was the bank’s, so the server sends Pay Order, as the customer’s."
    )


def order_by_phone(app: Flask, customer: Customer) -> str:
    part = random.choice(list(PARTS.values()))
    client(app, "Tweak/1.4 (Android 16)").post(
        "/api/orders",
        json={"part": part.id},
        headers={"Authorization": f"Bearer {customer.key}"},
    )
    return (
        f"{customer.name}’s phone has ordered: {part.name}. It can’t make Place Order"
        " itself, so the server sends it."
    )


def order_by_capable_phone(app: Flask, customer: Customer) -> str:
    part = random.choice(list(PARTS.values()))
    phone = client(app, "Tweak/2.0 (iPhone; iOS 20.1)")
    response = phone.post(
        "/api/orders",
        json={"part": part.id},
        headers={
            "Authorization": f"Bearer {customer.key}",
            "X-Mengpaneel-Flush-Capable": "true",
        },
    )
    make_calls(phone, response.headers["X-Mengpaneel-Calls"], customer)
    return (
        f"{customer.name}’s newer phone has ordered: {part.name}. It said that it can"
        " make calls, so it got Place Order in a header, and has sent it itself."
    )


def make_calls(phone: FlaskClient, header: str, customer: Customer) -> None:
    """What Mixpanel's library does on a phone, in short."""
    known = {
        "token": "example",
        "distinct_id": customer.id,
        "$user_id": customer.id,
        "$device_id": f"phone-of-{customer.id}",
        "mp_lib": "swift",
        "$os": "iOS",
    }
    events = [
        {"event": event, "properties": {**known, **properties}}
        for [[_track], [event, properties]] in json.loads(header)
    ]
    phone.post("/_mengpaneel/inspector/track", json=events)


def run_job(app: Flask, customer: Customer) -> str:
    with app.app_context():
        renewed = renew_subscriptions()

    names = ", ".join(one.name for one in renewed)
    return (
        f"Subscriptions are renewed: {names}. There was no request, so each Renew"
        " Subscription comes from the server, under the customer’s own id."
    )


def client(app: Flask, agent: str) -> FlaskClient:
    client = app.test_client()
    client.environ_base["HTTP_USER_AGENT"] = agent
    return client


#: What happens to whoever pushes the button.
OF_THE_CUSTOMER = {"phone", "capable-phone"}

HAPPENINGS: dict[str, c.Callable[[Flask, Customer], str]] = {
    "payment": pay,
    "phone": order_by_phone,
    "capable-phone": order_by_capable_phone,
    "job": run_job,
}
