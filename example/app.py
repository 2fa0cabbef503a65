"""A small shop that tells Mixpanel what happens in it.

Each view says *what* happened, with ``mengpaneel.track``. None says how Mixpanel gets
to know of it: that follows from the response, and the docstrings say what it is here.
The inspector beside the shop stands in for Mixpanel, and shows each call arrive.

Run it with ``flask --app example/app.py run``, and the job that is in here with
``flask --app example/app.py renew``.
"""

from __future__ import annotations

import collections.abc as c
import csv
import io
import time
import typing as t
from pathlib import Path

from flask import (
    Blueprint,
    Flask,
    Request,
    Response,
    abort,
    current_app,
    flash,
    redirect,
    render_template,
    request,
    send_file,
    session,
    stream_template,
    url_for,
)
from flask.typing import ResponseReturnValue
from flask_login import (
    LoginManager,
    current_user,
    login_required,
    login_user,
    logout_user,
)
from werkzeug.local import LocalProxy

from flask_mengpaneel import Manager, Mengpaneel

from .goods import PARTS, Books, Customer, Part

NPM_PACKAGES = Path(__file__).parent.parent / "node_modules"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " connect-src 'self'; frame-src 'self'; form-action 'self'"
)
POLICY_WITHOUT_NPM = POLICY.replace("'self';", "'self' https://cdn.mxpnl.com;", 1)

mengpaneel = Mengpaneel()
login = LoginManager()
shop = Blueprint("shop", __name__, cli_group=None)
books = t.cast(Books, LocalProxy(lambda: current_app.extensions["books"]))


def create_app(instance_path: str | None = None, **config: t.Any) -> Flask:
    """Make the shop.

    :param instance_path: where the inspector and the spool keep their files.
    :param config: settings that differ.
    """
    from .outside import outside

    app = Flask(__name__, instance_path=instance_path)
    app.config.update(
        SECRET_KEY="an example has no secrets",
        SESSION_COOKIE_SAMESITE="Lax",
        MENGPANEEL_TOKEN="example",
        MENGPANEEL_INSPECTOR=True,
        # Says who it is, in each request, and that it is nobody after a sign-out.
        MENGPANEEL_LOGIN="flask-login",
        MENGPANEEL_LOGIN_PROFILE=profile,
        LIBRARY=NPM_PACKAGES / "mixpanel-browser/dist/mixpanel.min.js",
        PAYMENT_KEY="the payment provider knows it too",
        POLICY=POLICY,
        BENCH_PAUSE=0.7,
    )
    app.config.update(config)

    if app.config["LIBRARY"].is_file():
        app.config["MENGPANEEL_LIBRARY_URL"] = "/library/mixpanel.min.js"
    else:
        # The page loads it from Mixpanel.
        app.config["POLICY"] = POLICY_WITHOUT_NPM

    login.init_app(app)
    mengpaneel.init_app(app)
    app.extensions["books"] = Books()
    app.register_blueprint(shop)
    app.register_blueprint(outside)
    return app


# -- who this is


def profile(customer: Customer) -> dict[str, str]:
    """What Mixpanel's profile of a customer says."""
    return {"$name": customer.name, "$email": customer.email}


@login.user_loader
def customer_of_session(id: str) -> Customer | None:
    return books.customers.get(id)


@login.request_loader
def customer_of_phone(request: Request) -> Customer | None:
    """Whose phone it is: phones sign their requests with a key."""
    if request.authorization and request.authorization.token:
        return books.customer_by_key(request.authorization.token)

    return None


@login.unauthorized_handler
def ask_who_it_is() -> ResponseReturnValue:
    flash("You aren’t signed in, and orders are somebody’s. Who are you?")
    return redirect(url_for("shop.known_customer"))


@shop.get("/sign-up")
def new_customer() -> str:
    return render_template("sign_up.html")


@shop.post("/sign-up")
def sign_up() -> ResponseReturnValue:
    """A redirect: the calls wait in the session for the page it leads to.

    What the visitor has done before is the customer's from now on.
    """
    form = request.form

    if books.customer_by_email(form["email"]):
        flash("You have signed up already. Sign in, please.")
        return redirect(url_for(".known_customer"))

    customer = books.add_customer(form["name"], form["email"], "monthly" in form)
    login_user(customer)
    mengpaneel.track("Sign Up", {"Monthly": customer.monthly})
    return redirect(url_for(".welcome"))


@shop.get("/welcome")
def welcome() -> ResponseReturnValue:
    """A redirect after a redirect: its calls wait behind those of the first."""
    following = ".cart" if session.get("cart") else ".parts"
    mengpaneel.track("Welcome", {"Cart": len(session.get("cart", []))})
    flash("Welcome. It’s good to have you at the desk.")
    return redirect(url_for(following))


@shop.get("/sign-in")
def known_customer() -> str:
    return render_template("sign_in.html", customers=books.customers.values())


@shop.post("/sign-in")
def sign_in() -> ResponseReturnValue:
    """A redirect, and an example: there is no password."""
    customer = books.customer_by_email(request.form["email"])

    if customer is None:
        flash("Nobody has signed up with this address.")
        return redirect(url_for(".known_customer"))

    login_user(customer)
    mengpaneel.track("Sign In")
    flash(f"You are signed in as {customer.name}, and Mixpanel knows.")
    return redirect(url_for(".parts"))


@shop.post("/sign-out")
def sign_out() -> ResponseReturnValue:
    """After a sign-out the browser is a new visitor's, so these calls don't wait for
    its next page: the server sends them."""
    logout_user()
    session.pop("cart", None)
    mengpaneel.track("Sign Out")
    flash("You are signed out. What you do now is a new visitor’s.")
    return redirect(url_for(".parts"))


# -- pages: the calls go along, and the browser library makes them


@shop.get("/")
def parts() -> str:
    mengpaneel.track("View Parts")
    return render_template("parts.html", parts=PARTS.values())


@shop.get("/parts/<id>")
def part(id: str) -> str:
    part = PARTS.get(id) or abort(404)
    mengpaneel.track("View Part", {"Part": part.name, "Price": part.price})
    return render_template("part.html", part=part)


@shop.get("/cart")
def cart() -> str:
    parts = parts_in_cart()
    mengpaneel.track("View Cart", {"Parts": len(parts)})
    return render_template("cart.html", parts=parts, total=total(parts))


@shop.get("/orders")
@login_required
def orders() -> str:
    mengpaneel.track("View Orders")
    return render_template("orders.html", orders=books.orders_of(current_user))


@shop.get("/orders/<id>/thanks")
def thanks(id: str) -> str:
    order = books.orders.get(id)

    if order is None or order.customer != current_user:
        abort(404)

    mengpaneel.track("View Thanks", {"Order": order.id})
    return render_template("thanks.html", order=order)


# -- what pages send


@shop.post("/cart")
def add_to_cart() -> ResponseReturnValue:
    """Answers a script and a form.

    The extension's script tells the server that it can make the calls that come with
    the answer to a ``fetch``. The answer to the form is a redirect.
    """
    part = PARTS.get(request.form["part"]) or abort(404)
    session["cart"] = [*session.get("cart", []), part.id]
    mengpaneel.track("Add to Cart", {"Part": part.name, "Price": part.price})

    if request.accept_mimetypes.best == "application/json":
        return {"part": part.name, "count": len(session["cart"])}

    return redirect(url_for(".cart"))


@shop.post("/cart/<id>/remove")
def remove_from_cart(id: str) -> ResponseReturnValue:
    remaining = session.get("cart", [])

    if id not in remaining:
        abort(404)

    remaining.remove(id)
    session["cart"] = remaining
    mengpaneel.track("Remove from Cart", {"Part": PARTS[id].name})
    return redirect(url_for(".cart"))


@shop.post("/orders")
def place_order() -> ResponseReturnValue:
    parts = parts_in_cart()

    if not parts:
        return redirect(url_for(".parts"))

    if not current_user.is_authenticated:
        return ask_who_it_is()

    order = books.add_order(current_user, parts)
    session.pop("cart")
    mengpaneel.track("Place Order", {"Order": order.id, "Total": order.total})
    mengpaneel.people.increment("Orders")
    return redirect(url_for(".thanks", id=order.id))


def parts_in_cart() -> list[Part]:
    return [PARTS[id] for id in session.get("cart", [])]


def total(parts: c.Iterable[Part]) -> int:
    return sum(part.price for part in parts)


# -- what isn't a page: the calls go in a header, or the server sends them


@shop.post("/api/orders")
def order_by_app() -> ResponseReturnValue:
    """For phones. The calls go in a header to an app that says that it can make them,
    so that they have the phone's properties; for other apps the server sends them."""
    if not current_user.is_authenticated:
        abort(401)

    part = PARTS.get(request.get_json()["part"]) or abort(404)
    order = books.add_order(current_user, [part])
    mengpaneel.track("Place Order", {"Order": order.id, "Total": order.total})
    return {"order": order.id, "total": order.total}, 201


@shop.post("/payments")
def receive_payment() -> dict[str, str]:
    """A webhook: the provider's request, but the customer's event.

    The calls are those of a ``Manager``, which knows nothing of the request: the
    provider's address is not where the customer is.
    """
    if request.headers.get("X-Payment-Key") != current_app.config["PAYMENT_KEY"]:
        abort(401)

    order = books.orders.get(request.get_json()["order"]) or abort(404)
    order.paid = True

    with Manager(identify=order.customer.id):
        mengpaneel.people.track_charge(order.total)
        mengpaneel.track("Pay Order", {"Order": order.id, "Total": order.total})

    return {"order": order.id, "status": "paid"}


@shop.get("/orders.csv")
@login_required
def download_orders() -> Response:
    """A download has no place for calls: the server sends them, in the background."""
    orders = books.orders_of(current_user)
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(["Order", "Parts", "Total", "Paid"])

    for order in orders:
        names = " + ".join(part.name for part in order.parts)
        writer.writerow([order.id, names, order.total, order.paid])

    mengpaneel.track("Download Orders", {"Orders": len(orders)})
    response = Response(file.getvalue(), mimetype="text/csv")
    response.headers.set("Content-Disposition", "attachment", filename="orders.csv")
    return response


@shop.get("/bench")
def bench() -> c.Iterator[str]:
    """A streamed page: what is tracked while it streams the server sends."""
    return stream_template("bench.html", tested=tested_parts())


def tested_parts() -> c.Iterator[Part]:
    for part in PARTS.values():
        time.sleep(current_app.config["BENCH_PAUSE"])
        mengpaneel.track("Test Part", {"Part": part.name})
        yield part


@shop.cli.command("renew")
def renew() -> None:
    """Renew the monthly subscriptions."""
    for customer in renew_subscriptions():
        print(f"Renewed: {customer.name}")


def renew_subscriptions() -> list[Customer]:
    """A job: there is no request, and each customer is a unit of work."""
    subscribers = [one for one in books.customers.values() if one.monthly]

    for customer in subscribers:
        with Manager(identify=customer.id):
            mengpaneel.track("Renew Subscription", {"Price": 8})

    return subscribers


# -- what the pages need


@shop.get("/library/mixpanel.min.js")
def library() -> Response:
    """Mixpanel's own library, so that the shop needs no network."""
    return send_file(current_app.config["LIBRARY"], max_age=86400)


@shop.after_app_request
def be_strict(response: Response) -> Response:
    response.headers.setdefault("Content-Security-Policy", current_app.config["POLICY"])
    return response


@shop.app_context_processor
def describe_page() -> dict[str, t.Any]:
    return {
        "cart_size": len(session.get("cart", [])),
        "has_library": current_app.config["LIBRARY"].is_file(),
        "wants_no_tracking": "1"
        in (request.headers.get("Sec-GPC"), request.headers.get("DNT")),
    }
