"""Events that are declared as classes, and the tracking plan that they make."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import json
import logging
import typing as t
import uuid
import warnings
from dataclasses import field

import jsonschema
import pytest

from case_ids import case_id
from flask_mengpaneel import Event, Manager
from flask_mengpaneel.plan.declared import declaration_of, declarations
from flask_mengpaneel.plan.documents import WRITERS
from flask_mengpaneel.plan.property_types import fits, schema_of, type_name
from flask_mengpaneel.values import plain
from sites import Site


class Card(enum.Enum):
    VISA = "visa"
    AMEX = "amex"


class CheckoutEvent(Event, owner="checkout", abstract=True):
    """What happens at the till."""

    channel: str = "web"


class PayOrder(CheckoutEvent, name="Pay Order"):
    """Somebody has paid.

    The rest is for developers.
    """

    items: int = field(metadata={"name": "Items", "description": "How many | pieces"})
    total: decimal.Decimal
    card: Card | None = None
    coupons: list[str] = field(default_factory=list)


class HTMLPageView2(Event, description="A page.", display_name="View", owner="web"):
    pass


def test_an_event_is_a_frozen_dataclass_whose_arguments_have_names() -> None:
    event = PayOrder(items=3, total=decimal.Decimal("9.90"))

    assert event == PayOrder(items=3, total=decimal.Decimal("9.90"))
    assert dataclasses.asdict(event)["channel"] == "web"

    with pytest.raises(dataclasses.FrozenInstanceError):
        event.items = 4  # type: ignore[misc]

    with pytest.raises(TypeError):
        PayOrder(3, 9)  # type: ignore[misc,call-arg,arg-type]

    with pytest.raises(TypeError, match="derive a class"):
        Event()


def test_what_an_event_says_of_itself() -> None:
    pay, view = PayOrder._declaration, HTMLPageView2._declaration

    assert (pay.name, pay.display_name) == ("Pay Order", "Pay Order")
    assert (pay.description, pay.owner) == ("Somebody has paid.", "checkout")
    assert (view.name, view.display_name) == ("HTMLPageView2", "View")
    assert (view.description, view.owner) == ("A page.", "web")
    assert {"Pay Order", "HTMLPageView2"} <= {one.name for one in declarations()}
    assert declaration_of("CheckoutEvent") is None
    assert [(one.name, one.required) for one in pay.properties.values()] == [
        ("channel", False),
        ("Items", True),
        ("total", True),
        ("card", False),
        ("coupons", False),
    ]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("PlaceOrder", "Place Order"),
        ("HTMLPageView2", "HTML Page View2"),
        ("signup", "signup"),
        ("Sign_Up", "Sign Up"),
        ("SMS", "SMS"),
    ],
)
def test_a_display_name_has_the_words_of_the_class(name: str, words: str) -> None:
    event = type(name, (Event,), {}, abstract=True)

    assert event._declaration.display_name == words  # type: ignore[attr-defined]


def test_what_is_no_name_is_refused() -> None:
    for keywords in ({"name": ""}, {"name": 3}):
        with pytest.raises(ValueError, match="name of the event"):
            type("Wrong", (Event,), {}, **keywords)

    with pytest.raises(ValueError, match="name of the property 'a'"):

        class Nameless(Event, abstract=True):
            a: int = field(metadata={"name": " "})

    with pytest.raises(ValueError, match="the same name"):

        class Twice(Event, abstract=True):
            a: int
            b: int = field(metadata={"name": "a"})


def test_two_events_of_one_name_are_told() -> None:
    # One that is gone isn't told. The second is as if the module were loaded again.
    with warnings.catch_warnings(action="error"):
        kept = [type("First", (Event,), {}, name="Once") for _ in range(2)]

    with pytest.warns(UserWarning, match="'Once': .*First and .*Second"):
        kept.append(type("Second", (Event,), {}, name="Once"))


# -- recorded


def record(event: t.Any, *more: t.Any, **settings: t.Any) -> Site:
    site = Site(**settings)

    with site.app.app_context(), Manager() as manager:
        manager.track(event, *more)

    return site


def test_what_is_sent_is_what_is_written() -> None:
    event = PayOrder(items=3, total=decimal.Decimal("9.90"), card=Card.VISA)
    (call,) = record(event, {"time": 1_700_000_000}).kept.calls

    assert call.event == "Pay Order"
    assert call.properties.pop("$insert_id")
    assert call.properties == {
        "channel": "web",
        "Items": 3,
        "total": 9.9,
        "card": "visa",
        "coupons": [],
        "time": 1_700_000_000,
    }


def test_what_is_none_is_not_sent() -> None:
    (call,) = record(PayOrder(items=3, total=decimal.Decimal(1))).kept.calls

    assert "card" not in call.properties


def test_an_event_has_groups() -> None:
    site = Site()

    with site.app.app_context(), Manager() as manager:
        manager.track_with_groups(HTMLPageView2(), {"A": 1}, {"company": "acme"})

    (message,) = site.messages
    assert message["event"] == "HTMLPageView2"
    assert message["properties"]["A"] == 1
    assert message["properties"]["company"] == ["acme"]


PAID = {"Items": 3, "total": 9.9}
FITTING = [
    ("Pay Order", PAID),
    ("Pay Order", {**PAID, "total": 9, "card": "amex", "coupons": ["a"]}),
    ("Pay Order", {**PAID, "card": None, "time": 5, "$user_id": "x", "$city": "y"}),
    ("$mp_web_page_view", {"anything": 1}),
    (HTMLPageView2(), None),
]
MISFITTING = [
    ("Pay Ordr", PAID, "'Pay Ordr' is not in the tracking plan; the nearest is 'Pay O"),
    ("pay_order", PAID, "the nearest is 'Pay Order'"),
    ("Zzz", {}, "'Zzz' is not in the tracking plan"),
    ("Pay Order", {"Items": 3}, "must have the property 'total'"),
    ("Pay Order", {**PAID, "Items": None}, "must have the property 'Items'"),
    ("Pay Order", {**PAID, "Items": "3 pieces"}, "'Items' .*must be integer, not '3 p"),
    ("Pay Order", {**PAID, "Items": "3"}, "must be integer, not '3'"),
    ("Pay Order", {**PAID, "Items": True}, "must be integer, not True"),
    ("Pay Order", {**PAID, "Items": 1.5}, "must be integer, not 1.5"),
    ("Pay Order", {**PAID, "card": "cash"}, "must be 'visa' or 'amex', not 'cash'"),
    ("Pay Order", {**PAID, "coupons": [1]}, "must be list of string"),
    (
        "Pay Order",
        {**PAID, "item": 1},
        "no property 'item'; the nearest is 'Items'",
    ),
    (PayOrder(items=t.cast(int, "x"), total=decimal.Decimal(1)), None, "integer"),
]


def test_a_declared_event_is_recorded_without_what_can_t_be() -> None:
    site = Site(testing=False)
    wrong: t.Any = object()

    with site.app.app_context(), Manager(identify="ann") as manager:
        manager.track(PayOrder(items=3, total=wrong), {"Time zone": "UTC"})
        manager.track_with_groups(PayOrder(items=4, total=wrong), {}, {"company": 7})

    tracked = [call for call in site.kept.calls if call.tracks]
    assert [(call.event, call.properties["Items"]) for call in tracked] == [
        ("Pay Order", 3),
        ("Pay Order", 4),
    ]
    ledger = site.mengpaneel.ledger().snapshot()
    assert (ledger.dropped, ledger.incomplete) == ({}, 2)


@pytest.mark.parametrize("mode", ["off", "warn", "raise"])
@pytest.mark.parametrize(("event", "properties"), FITTING)
def test_what_is_in_the_plan_is_recorded(
    event: t.Any, properties: t.Any, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert len(record(event, properties, events=mode).kept.calls) == 1
    assert not [one for one in caplog.records if one.levelno >= logging.WARNING]


@pytest.mark.parametrize(("event", "properties", "problem"), MISFITTING)
def test_what_is_not_in_the_plan_is_refused_or_told(
    event: t.Any, properties: t.Any, problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ValueError, match=problem):
        record(event, properties, events="raise")

    assert len(record(event, properties, events="off").kept.calls) == 1
    assert not caplog.records

    assert len(record(event, properties, events="warn").kept.calls) == 1
    (told,) = caplog.records
    caplog.clear()

    site = record(event, properties, events="raise", testing=False)
    assert site.kept.calls == []
    assert site.mengpaneel.ledger().dropped == {"refused when recorded": 1}

    for line in (told, caplog.records[0]):
        with pytest.raises(ValueError, match=problem):
            raise ValueError(line.getMessage())


def test_the_default_properties_of_an_app_are_no_part_of_the_plan() -> None:
    settings = {"default_properties": {"total": 9.9, "Release": 3}, "events": "raise"}

    assert len(record("Pay Order", {"Items": 3}, **settings).kept.calls) == 1


def test_before_send_has_the_last_word() -> None:
    def rename(event: t.Any) -> t.Any:
        event.name = "Something Else"
        return event

    site = record("Pay Order", PAID, events="raise", before_send=rename)
    assert [call.event for call in site.kept.calls] == ["Something Else"]


# -- types


@dataclasses.dataclass
class Size:
    width: int
    unit: str


class Place(t.TypedDict, total=False):
    city: str


@dataclasses.dataclass
class Shelf:
    name: str
    above: Shelf | None = None


class Folder(t.TypedDict):
    name: str
    folders: list[Folder]


@dataclasses.dataclass
class Unknown:
    #: As what is imported for type checkers alone.
    price: Price  # noqa: F821


UserId = t.NewType("UserId", int)


@pytest.mark.parametrize(
    ("hint", "name", "right", "wrong"),
    [
        (bool, "boolean", [True], [1, "yes"]),
        (int, "integer", [1, 2**70, enum.IntEnum("N", "a")(1)], [True, 1.5, "x"]),
        (float, "number", [1, 1.5], [True, "x"]),
        (decimal.Decimal, "number", [decimal.Decimal("1.5")], ["x"]),
        (str, "string", ["x"], [1]),
        (dt.datetime, "date-time", [dt.datetime(2026, 1, 2)], ["soon", 5]),
        (dt.date, "date", [dt.date(2026, 1, 2)], ["2026"]),
        (uuid.UUID, "uuid", [uuid.UUID(int=1)], ["x"]),
        (Card, "'visa' or 'amex'", list(Card), ["cash"]),
        (t.Literal["a", 1], "'a' or 1", ["a", 1], ["b", True]),
        (int | str, "integer or string", [1, "a"], [1.5, None]),
        (t.Optional[int], "integer or null", [1, None], ["x"]),  # noqa: UP045
        (list[int], "list of integer", [[], [1]], [["a"], 1]),
        (set[str], "list of string", [{"a"}], [{1}]),
        (tuple[int, str], "list of integer or string", [(1, "a")], [(1.5,)]),
        (tuple[int, ...], "list of integer", [(1, 2)], [("a",)]),
        (list, "list", [[1, "a"]], [1]),
        (dict[str, int], "object", [{"a": 1}], [{"a": "b"}, 1]),
        (Size, "object", [Size(1, "m")], [{"width": 1}, {"width": "1", "unit": "m"}]),
        (Place, "object", [{}, {"city": "x"}], [{"city": 1}]),
        (
            Shelf,
            "object",
            [Shelf("a", Shelf("b", Shelf("c")))],
            [{"name": 1, "above": None}, {"name": "a"}, Shelf("a", t.cast("t.Any", 1))],
        ),
        (
            Folder,
            "object",
            [{"name": "a", "folders": [{"name": "b", "folders": []}]}],
            [{"name": "a"}, {"name": "a", "folders": 1}],
        ),
        (Unknown, "object", [Unknown(1), Unknown("a")], [1, {}]),
        (UserId, "integer", [1], ["x"]),
        (t.Annotated[int, "any"], "integer", [1], ["x"]),
        (t.Any, "anything", [1, "a", None], []),
        (object, "anything", [1], []),
    ],
    ids=case_id,
)
def test_each_type_is_what_its_values_are_sent_as(
    hint: t.Any, name: str, right: list[t.Any], wrong: list[t.Any]
) -> None:
    schema = schema_of(hint)

    assert type_name(schema) == name
    assert [value for value in right if not fits(plain(value), schema)] == []
    assert [value for value in wrong if fits(plain(value), schema)] == []


def test_a_type_that_nobody_can_look_up_is_anything() -> None:
    class Local:
        pass

    class OfLocal(Event, abstract=True):
        a: Local

    assert OfLocal._declaration.properties["a"].schema == {}
    assert OfLocal._declaration.properties["a"].required

    class OfNonsense(Event, abstract=True):
        a: int[3]

    assert OfNonsense._declaration.properties["a"].schema == {}


# -- documents


def test_the_plan_is_written_as_markdown() -> None:
    assert (
        WRITERS["md"]([PayOrder._declaration])
        == """\
# Tracking plan

## Pay Order

Somebody has paid.

* Display name: Pay Order
* Owner: checkout
* Class: `PayOrder`

| property | type | required | description |
|---|---|---|---|
| channel | string |  |  |
| Items | integer | yes | How many \\| pieces |
| total | number | yes |  |
| card | 'visa' or 'amex' |  |  |
| coupons | list of string |  |  |
"""
    )


def test_the_plan_is_written_as_csv() -> None:
    about = "Pay Order,Pay Order,Somebody has paid.,checkout"
    lines = WRITERS["csv"]([PayOrder._declaration, HTMLPageView2._declaration])

    assert lines.splitlines()[0].startswith("event,display name,event description,")
    assert f"{about},Items,integer,yes,How many | pieces" in lines
    assert lines.splitlines()[-1] == "HTMLPageView2,View,A page.,web,,,,"


def test_the_plan_is_written_as_a_json_schema() -> None:
    class Odd(Event, name="a/b ~ 100% #"):
        x: int

    plan = [PayOrder._declaration, Odd._declaration]
    schema = json.loads(WRITERS["json"](plan))
    validator = jsonschema.Draft202012Validator(schema)
    jsonschema.Draft202012Validator.check_schema(schema)

    assert validator.is_valid({"event": "Pay Order", "properties": PAID})
    assert validator.is_valid({"event": "a/b ~ 100% #", "properties": {"x": 1}})
    assert not validator.is_valid({"event": "Pay Order", "properties": {"Items": 3}})
    assert not validator.is_valid({"event": "a/b ~ 100% #", "properties": {"x": "1"}})
    assert not validator.is_valid({"event": "Zzz", "properties": {}})
    assert schema["$defs"]["Pay Order"]["metadata"] == {
        "com.mixpanel": {"displayName": "Pay Order", "contacts": ["checkout"]}
    }
    nothing = jsonschema.Draft202012Validator(json.loads(WRITERS["json"]([])))
    assert not nothing.is_valid({"event": "Pay Order", "properties": PAID})
