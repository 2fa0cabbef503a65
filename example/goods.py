"""What the shop knows, in memory: parts, customers, orders."""

from __future__ import annotations

import collections.abc as c
import dataclasses
import secrets

from flask_login import UserMixin


@dataclasses.dataclass(frozen=True)
class Part:
    id: str
    name: str
    price: int
    line: str
    about: str


@dataclasses.dataclass(eq=False)
class Customer(UserMixin):
    id: str
    name: str
    email: str
    monthly: bool = False
    #: What the customer's phone signs its requests with.
    key: str = dataclasses.field(default_factory=lambda: secrets.token_urlsafe(16))


@dataclasses.dataclass
class Order:
    id: str
    customer: Customer
    parts: list[Part]
    paid: bool = False

    @property
    def total(self) -> int:
        return sum(part.price for part in self.parts)


PARTS = {
    part.id: part
    for part in (
        Part(
            "dial",
            "Dial",
            9,
            "The knob for the one sound you always touch.",
            "Turned from one piece of bakelite, weighted below, with a line that you"
            " can read from across the room. Fits every 6 mm shaft.",
        ),
        Part(
            "glide",
            "Glide",
            24,
            "A fader with a hundred millimetres of patience.",
            "Oil-damped, so that a fade-out takes as long as you meant it to. The cap"
            " is rubber where your finger is and steel where it isn’t.",
        ),
        Part(
            "needle",
            "Needle",
            38,
            "A meter that leans in when it gets loud.",
            "A true VU movement behind glass, lit from the side. It lags by 300"
            " milliseconds, as ears do.",
        ),
        Part(
            "lead",
            "Lead",
            6,
            "Sixty centimetres from here to there.",
            "Woven sleeve, turned plugs, and a bend that keeps the shape you gave it."
            " Comes in one colour, so that you’ll find it again.",
        ),
        Part(
            "glow",
            "Glow",
            17,
            "The lamp that says: quiet, please.",
            "Jewelled glass over a filament that takes its time to come on. Also works"
            " in kitchens.",
        ),
        Part(
            "cue",
            "Cue",
            12,
            "A button that tells you it was pressed.",
            "Forty millimetres of travel-and-click. People have bought it for nothing"
            " but the click.",
        ),
    )
}


class Books:
    """The customers and the orders of one shop."""

    def __init__(self) -> None:
        # Known to every process: the job renews what they have subscribed to.
        ada = Customer("ada", "Ada", "ada@example.com", monthly=True)
        miles = Customer("miles", "Miles", "miles@example.com", monthly=True)
        self.customers = {customer.id: customer for customer in (ada, miles)}
        self.orders: dict[str, Order] = {}
        self.add_order(ada, [PARTS["needle"], PARTS["lead"]])

    def add_customer(self, name: str, email: str, monthly: bool = False) -> Customer:
        # Not the next number: the inspector remembers those of the last run.
        id = f"{email.partition('@')[0]}-{secrets.token_hex(2)}"
        self.customers[id] = Customer(id, name, email, monthly)
        return self.customers[id]

    def customer_by_email(self, email: str) -> Customer | None:
        return self._customer(lambda one: one.email == email)

    def customer_by_key(self, key: str) -> Customer | None:
        return self._customer(
            lambda one: secrets.compare_digest(one.key.encode(), key.encode())
        )

    def _customer(self, fits: c.Callable[[Customer], bool]) -> Customer | None:
        return next(filter(fits, self.customers.values()), None)

    def add_order(self, customer: Customer, parts: list[Part]) -> Order:
        # Not Flask-Login's proxy, which is somebody else in the next request.
        customer = self.customers[customer.id]
        order = Order(f"{1001 + len(self.orders)}", customer, parts)
        self.orders[order.id] = order
        return order

    def orders_of(self, customer: Customer) -> list[Order]:
        return [order for order in self.orders.values() if order.customer == customer]

    def unpaid(self) -> Order | None:
        """The latest order that waits for its payment."""
        orders = reversed(self.orders.values())
        return next((order for order in orders if not order.paid), None)
