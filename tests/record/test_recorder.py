from __future__ import annotations

import collections.abc as c
import datetime as dt
import decimal
import json
import logging
import re
import typing as t
import uuid
from urllib.parse import quote

import pytest
from flask import Flask

from flask_mengpaneel import Manager, Mengpaneel
from flask_mengpaneel.calls import Call
from flask_mengpaneel.identity import Identity
from flask_mengpaneel.record.recorder import Group, People, Recorder
from flask_mengpaneel.testing import RecordingTransport
from flask_mengpaneel.values import FORBIDDEN_IDS
from flask_mengpaneel.visitor import mixpanel_cookie
from flask_mengpaneel.visitor.persistence import Persistence
from sites import CreateApp

Make = c.Callable[[t.Any], t.Any]
ID = uuid.UUID("12345678-1234-5678-1234-567812345678")


@pytest.fixture
def record(app: Flask) -> c.Callable[[Make], list[Call]]:
    """Makes calls in a job, and gives what was recorded."""

    def make(calls: Make) -> list[Call]:
        with app.app_context(), Manager() as manager:
            calls(manager)
            return list(manager.drain())

    return make


# Each method in each form, and what it is on the wire.
METHODS: list[tuple[Make, list[t.Any]]] = [
    (lambda m: m.identify("ann"), [["identify"], ["ann"]]),
    (lambda m: m.identify(unique_id="ann"), [["identify"], ["ann"]]),
    (lambda m: m.identify(42), [["identify"], ["42"]]),
    (lambda m: m.identify(ID), [["identify"], [str(ID)]]),
    (lambda m: m.alias("ann"), [["alias"], ["ann"]]),
    (lambda m: m.alias(42), [["alias"], ["42"]]),
    (lambda m: m.alias("ann", "bob"), [["alias"], ["ann", "bob"]]),
    (lambda m: m.alias(1, original=2), [["alias"], ["1", "2"]]),
    (lambda m: m.reset(), [["reset"], []]),
    (lambda m: m.register({"a": 1}), [["register"], [{"a": 1}]]),
    (lambda m: m.register({"a": 1}, 7), [["register"], [{"a": 1}, 7]]),
    (
        lambda m: m.register({"a": 1}, {"persistent": False}),
        [["register"], [{"a": 1}, {"persistent": False}]],
    ),
    (lambda m: m.register_once({"a": 1}), [["register_once"], [{"a": 1}]]),
    (lambda m: m.register_once({"a": 1}, "x"), [["register_once"], [{"a": 1}, "x"]]),
    (
        lambda m: m.register_once({"a": 1}, options={"days": 7}),
        [["register_once"], [{"a": 1}, None, {"days": 7}]],
    ),
    (lambda m: m.unregister("a"), [["unregister"], ["a"]]),
    (
        lambda m: m.unregister("a", {"persistent": False}),
        [["unregister"], ["a", {"persistent": False}]],
    ),
    (lambda m: m.set_group("company", "acme"), [["set_group"], ["company", ["acme"]]]),
    (lambda m: m.set_group("company", 7), [["set_group"], ["company", ["7"]]]),
    (
        lambda m: m.set_group("company", ["acme", 7]),
        [["set_group"], ["company", ["acme", "7"]]],
    ),
    (lambda m: m.add_group("company", 7), [["add_group"], ["company", "7"]]),
    (lambda m: m.remove_group("company", "a"), [["remove_group"], ["company", "a"]]),
    (lambda m: m.disable(), [["disable"], []]),
    (lambda m: m.disable(["A", "B"]), [["disable"], [["A", "B"]]]),
    (lambda m: m.enable(), [["enable"], []]),
    (lambda m: m.enable(["A"]), [["enable"], [["A"]]]),
    (lambda m: m.set_config({"debug": True}), [["set_config"], [{"debug": True}]]),
    (lambda m: m.opt_in_tracking(), [["opt_in_tracking"], []]),
    (
        lambda m: m.opt_in_tracking({"track": None}),
        [["opt_in_tracking"], [{"track": None}]],
    ),
    (lambda m: m.opt_out_tracking(), [["opt_out_tracking"], []]),
    (
        lambda m: m.opt_out_tracking({"delete_user": False}),
        [["opt_out_tracking"], [{"delete_user": False}]],
    ),
    (lambda m: m.people.set("a", 1), [["people", "set"], [{"a": 1}]]),
    (lambda m: m.people.set("a", None), [["people", "set"], [{"a": None}]]),
    (lambda m: m.people.set({"a": 1}), [["people", "set"], [{"a": 1}]]),
    (
        lambda m: m.people.set("a", dt.date(2026, 1, 2)),
        [["people", "set"], [{"a": "2026-01-02"}]],
    ),
    (lambda m: m.people.set_once("a", 1), [["people", "set_once"], [{"a": 1}]]),
    (lambda m: m.people.set_once({"a": 1}), [["people", "set_once"], [{"a": 1}]]),
    (lambda m: m.people.unset("a"), [["people", "unset"], [["a"]]]),
    (lambda m: m.people.unset(["a", "b"]), [["people", "unset"], [["a", "b"]]]),
    (lambda m: m.people.unset(("a",)), [["people", "unset"], [["a"]]]),
    (lambda m: m.people.increment("a"), [["people", "increment"], [{"a": 1}]]),
    (lambda m: m.people.increment("a", -2.5), [["people", "increment"], [{"a": -2.5}]]),
    (
        lambda m: m.people.increment({"a": 1, "b": 2}),
        [["people", "increment"], [{"a": 1, "b": 2}]],
    ),
    (lambda m: m.people.append("a", 1), [["people", "append"], [{"a": 1}]]),
    (lambda m: m.people.append({"a": 1}), [["people", "append"], [{"a": 1}]]),
    (lambda m: m.people.union("a", 1), [["people", "union"], [{"a": [1]}]]),
    (lambda m: m.people.union("a", [1, 2]), [["people", "union"], [{"a": [1, 2]}]]),
    (lambda m: m.people.union({"a": "x"}), [["people", "union"], [{"a": ["x"]}]]),
    (lambda m: m.people.remove("a", 1), [["people", "remove"], [{"a": 1}]]),
    (lambda m: m.people.remove({"a": 1}), [["people", "remove"], [{"a": 1}]]),
    (lambda m: m.people.track_charge(5), [["people", "track_charge"], [5, {}]]),
    (
        lambda m: m.people.track_charge(5.5, {"sku": 1}),
        [["people", "track_charge"], [5.5, {"sku": 1}]],
    ),
    (lambda m: m.people.clear_charges(), [["people", "clear_charges"], []]),
    (lambda m: m.people.delete_user(), [["people", "delete_user"], []]),
    (
        lambda m: m.get_group("company", 7).set("a", 1),
        [["get_group"], ["company", "7"], ["set"], [{"a": 1}]],
    ),
    (
        lambda m: m.get_group("company", "acme").set({"a": 1}),
        [["get_group"], ["company", "acme"], ["set"], [{"a": 1}]],
    ),
    (
        lambda m: m.get_group("company", "acme").set_once("a", 1),
        [["get_group"], ["company", "acme"], ["set_once"], [{"a": 1}]],
    ),
    (
        lambda m: m.get_group("company", "acme").unset("a"),
        [["get_group"], ["company", "acme"], ["unset"], [["a"]]],
    ),
    (
        lambda m: m.get_group("company", "acme").union("a", 1),
        [["get_group"], ["company", "acme"], ["union"], [{"a": [1]}]],
    ),
    (
        lambda m: m.get_group("company", "acme").remove({"a": 1}),
        [["get_group"], ["company", "acme"], ["remove"], [{"a": 1}]],
    ),
    (
        lambda m: m.get_group("company", "acme").delete(),
        [["get_group"], ["company", "acme"], ["delete"], []],
    ),
    (
        lambda m: m.call("people.brand_new", {"a": dt.date(2026, 1, 2)}, 1),
        [["people", "brand_new"], [{"a": "2026-01-02"}, 1]],
    ),
    (lambda m: m.call("brand_new"), [["brand_new"], []]),
    (lambda m: m.call("identify", 42), [["identify"], ["42"]]),
    (lambda m: m.call("people.set", "a", 1), [["people", "set"], [{"a": 1}]]),
]


@pytest.mark.parametrize(
    ("make", "wire"),
    METHODS,
    ids=[f"{number}-{wire[0][-1]}" for number, (_, wire) in enumerate(METHODS)],
)
def test_each_method_has_its_form_on_the_wire(
    record: c.Callable[[Make], list[Call]], make: Make, wire: list[t.Any]
) -> None:
    (call,) = record(make)

    assert call.wire == wire


EVENTS: list[tuple[Make, list[t.Any]]] = [
    (lambda m: m.track("A"), [["track"], ["A", {}]]),
    (lambda m: m.track(" A "), [["track"], [" A ", {}]]),
    (lambda m: m.track("A", {"x": 1}), [["track"], ["A", {"x": 1}]]),
    (lambda m: m.track("A", properties={"x": 1}), [["track"], ["A", {"x": 1}]]),
    (lambda m: m.track_pageview(), [["track_pageview"], [{}]]),
    (lambda m: m.track_pageview({"x": 1}), [["track_pageview"], [{"x": 1}]]),
    (
        lambda m: m.track_pageview({"x": 1}, {"event_name": "Page"}),
        [["track_pageview"], [{"x": 1}, {"event_name": "Page"}]],
    ),
    (
        lambda m: m.track_with_groups("A", {"x": 1}, {"company": 7}),
        [["track_with_groups"], ["A", {"x": 1}, {"company": ["7"]}]],
    ),
    (
        lambda m: m.track_with_groups("A", {}, {"company": ["acme", 7]}),
        [["track_with_groups"], ["A", {}, {"company": ["acme", "7"]}]],
    ),
    (lambda m: m.call("track", "A", {"x": 1}), [["track"], ["A", {"x": 1}]]),
    (lambda m: m.call("track_pageview"), [["track_pageview"], [{}]]),
]


@pytest.mark.parametrize(
    ("make", "wire"),
    EVENTS,
    ids=[f"{number}-{wire[0][-1]}" for number, (_, wire) in enumerate(EVENTS)],
)
def test_each_event_has_its_form_on_the_wire_with_time_and_id(
    record: c.Callable[[Make], list[Call]], make: Make, wire: list[t.Any]
) -> None:
    (call,) = record(make)

    assert isinstance(call.properties.pop("time"), float)
    assert isinstance(call.properties.pop("$insert_id"), str)
    assert call.wire == wire


# Each with the exception and a word of its message.
MISTAKES: list[tuple[Make, t.Any, str]] = [
    (lambda m: m.track(), TypeError, "event_name"),
    (lambda m: m.track(""), ValueError, "event name"),
    (lambda m: m.track("  "), ValueError, "event name"),
    (lambda m: m.track(None), TypeError, "event name"),
    (lambda m: m.track(42), TypeError, "event name"),
    (lambda m: m.track(b"A"), TypeError, "bytes"),
    (lambda m: m.track("A", "x"), TypeError, "properties"),
    (lambda m: m.track("A", [("x", 1)]), TypeError, "properties"),
    (lambda m: m.track("A", x=1), TypeError, "x"),
    (lambda m: m.track("A", {"$insert_id": " "}), ValueError, "insert_id"),
    (lambda m: m.track("A", {"$insert_id": "x" * 256}), ValueError, "insert_id"),
    (lambda m: m.track("A", {"$insert_id": None}), TypeError, "insert_id"),
    (lambda m: m.track("A", {"$insert_id": ["x"]}), TypeError, "insert_id"),
    (lambda m: m.track("A", {"time": "yesterday"}), (TypeError, ValueError), "time"),
    (lambda m: m.track("A", {"time": None}), (TypeError, ValueError), "time"),
    (lambda m: m.track("A", {"x": "y" * 1_100_000}), ValueError, "bytes"),
    (lambda m: m.track_pageview("x"), TypeError, "properties"),
    (lambda m: m.track_pageview({}, "Page"), TypeError, "options"),
    (lambda m: m.track_pageview({}, {"event_name": ""}), ValueError, "event name"),
    (lambda m: m.track_pageview({}, {"event_name": 1}), TypeError, "event name"),
    (lambda m: m.track_with_groups("A", {}, None), TypeError, "groups"),
    (lambda m: m.track_with_groups("A", {}, "acme"), TypeError, "groups"),
    (lambda m: m.time_event(""), ValueError, "event name"),
    (lambda m: m.identify(None), TypeError, "id"),
    (lambda m: m.identify(""), ValueError, "empty"),
    (lambda m: m.identify(True), TypeError, "id"),
    (lambda m: m.identify({}), TypeError, "id"),
    (lambda m: m.identify("$device:x"), ValueError, "device"),
    (lambda m: m.identify(0), ValueError, "0"),
    (lambda m: m.identify("Anonymous"), ValueError, "Anonymous"),
    (lambda m: m.alias(None), TypeError, "id"),
    (lambda m: m.alias("null"), ValueError, "null"),
    (lambda m: m.alias("ann", []), TypeError, "id"),
    (lambda m: m.register("a"), TypeError, "properties"),
    (lambda m: m.register_once(["a"]), TypeError, "properties"),
    (lambda m: m.unregister(""), ValueError, "property name"),
    (lambda m: m.unregister(1), TypeError, "property name"),
    (lambda m: m.set_group("", "acme"), ValueError, "group key"),
    (lambda m: m.set_group("company", None), TypeError, "group"),
    (lambda m: m.set_group("company", [None]), TypeError, "group"),
    (lambda m: m.add_group("company", ["acme"]), TypeError, "group"),
    (lambda m: m.remove_group(1, "acme"), TypeError, "group key"),
    (lambda m: m.disable([1]), TypeError, "name"),
    (lambda m: m.disable(5), TypeError, "names"),
    (lambda m: m.enable(""), ValueError, "name"),
    (lambda m: m.set_config("debug"), TypeError, "dict"),
    (lambda m: m.people.set("a"), TypeError, "value"),
    (lambda m: m.people.set({"a": 1}, 2), TypeError, "dict"),
    (lambda m: m.people.set(None), TypeError, "."),
    (lambda m: m.people.set("", 1), ValueError, "property name"),
    (lambda m: m.people.set({"a": object()}), TypeError, "object"),
    (lambda m: m.people.set_once(1, 2), TypeError, "property name"),
    (lambda m: m.people.unset(None), TypeError, "name"),
    (lambda m: m.people.unset([1]), TypeError, "name"),
    (lambda m: m.people.increment("a", "1"), TypeError, "number"),
    (lambda m: m.people.increment({"a": True}), TypeError, "number"),
    (lambda m: m.people.append("a"), TypeError, "value"),
    (lambda m: m.people.union(["a"], 1), TypeError, "property name"),
    (lambda m: m.people.remove("a"), TypeError, "value"),
    (lambda m: m.people.track_charge("5"), TypeError, "amount"),
    (lambda m: m.people.track_charge(float("inf")), ValueError, "inf"),
    (lambda m: m.people.delete_user(1), TypeError, "."),
    (lambda m: m.get_group("", "acme").set("a", 1), ValueError, "group key"),
    (lambda m: m.get_group("company", None).delete(), TypeError, "group"),
    (lambda m: m.get_group("company", "acme").set("a"), TypeError, "value"),
    (lambda m: m.get_group("company", "acme").union(1, 2), TypeError, "property"),
    (lambda m: m.call(""), ValueError, "method"),
    (lambda m: m.call("a..b"), ValueError, "name"),
    (lambda m: m.call("people set"), ValueError, "name"),
    (lambda m: m.call("eval('x')"), ValueError, "name"),
    (lambda m: m.call("track"), TypeError, "event_name"),
    (lambda m: m.call("time_event"), TypeError, "."),
    (lambda m: m.call("identify"), TypeError, "."),
    (lambda m: m.call("people.increment", "a", "x"), TypeError, "number"),
    (lambda m: m.call("x", object()), TypeError, "object"),
]

# Those that cost no more than themselves.
FAULTS: list[tuple[Make, t.Any, str]] = [
    (lambda m: m.track("A", {"x": object()}), TypeError, "object"),
    (lambda m: m.track("A", {"x": b"x"}), TypeError, "bytes"),
    (lambda m: m.track("A", {"x": float("nan")}), ValueError, "nan"),
    (lambda m: m.track_with_groups("A", {}, {"c": None}), TypeError, "group"),
]


def ids(mistakes: list[tuple[t.Any, ...]]) -> list[str]:
    return [f"{n}-{'-'.join(m[0].__code__.co_names)}" for n, m in enumerate(mistakes)]


@pytest.mark.parametrize(
    ("make", "error", "word"), [*MISTAKES, *FAULTS], ids=ids([*MISTAKES, *FAULTS])
)
@pytest.mark.parametrize("mode", ["testing", "debug"])
def test_a_mistake_is_raised_in_testing_and_debug(
    create_app: CreateApp,
    mengpaneel: Mengpaneel,
    mode: str,
    make: Make,
    error: type[Exception],
    word: str,
) -> None:
    app = create_app(testing=mode == "testing", debug=mode == "debug")

    with app.app_context(), Manager(), pytest.raises(error, match=word):
        make(mengpaneel)

    ledger = mengpaneel.ledger()
    assert (ledger.recorded, ledger.dropped) == (0, {})


@pytest.mark.parametrize(("make", "error", "word"), MISTAKES, ids=ids(MISTAKES))
def test_a_mistake_is_logged_dropped_and_counted_in_production(
    create_app: CreateApp,
    mengpaneel: Mengpaneel,
    transport: RecordingTransport,
    caplog: pytest.LogCaptureFixture,
    make: Make,
    error: type[Exception],
    word: str,
) -> None:
    app = create_app(testing=False)

    with app.app_context(), Manager():
        make(mengpaneel)
        mengpaneel.track("After")

    assert [call.event for call in transport.calls] == ["After"]
    (message,) = [one for one in caplog.records if one.levelno == logging.ERROR]
    assert message.name.startswith("flask_mengpaneel")
    assert "was not recorded" in message.message
    ledger = mengpaneel.ledger()
    assert sum(ledger.dropped.values()) == 1
    assert ledger.recorded == 2


@pytest.mark.parametrize("id", sorted(FORBIDDEN_IDS))
def test_ids_that_mixpanel_refuses_are_refused_at_once(
    app: Flask, mengpaneel: Mengpaneel, id: str
) -> None:
    with app.app_context(), Manager(), pytest.raises(ValueError, match="id"):
        mengpaneel.identify(id.upper())


@pytest.mark.parametrize("name", ["trakc", "people_set", "track_links", "get_property"])
def test_a_misspelt_name_fails_at_once(mengpaneel: Mengpaneel, name: str) -> None:
    with pytest.raises(AttributeError, match=name):
        getattr(mengpaneel, name)

    with pytest.raises(AttributeError):
        mengpaneel.people.incremnt("a")  # type: ignore[attr-defined]


OUTSIDE: list[Make] = [
    lambda m: m.track("A"),
    lambda m: m.identify("ann"),
    lambda m: m.people.set("a", 1),
    lambda m: m.get_group("c", "a").set("a", 1),
    lambda m: m.call("x"),
    lambda m: m.call("track", "A"),
    lambda m: m.setup().__enter__(),
    lambda m: m.before_setup().__enter__(),
    lambda m: m.tracking().__enter__(),
    lambda m: m.strategy,
    lambda m: setattr(m, "strategy", "ServerSide"),
]


@pytest.mark.parametrize("make", OUTSIDE, ids=range(len(OUTSIDE)))
@pytest.mark.parametrize("testing", [True, False])
def test_a_call_outside_of_any_unit_of_work_says_what_to_do(
    create_app: CreateApp, mengpaneel: Mengpaneel, testing: bool, make: Make
) -> None:
    with pytest.raises(RuntimeError, match="app context"):
        make(mengpaneel)

    with create_app(testing=testing).app_context():
        with pytest.raises(RuntimeError, match=r"with Manager\(\)"):
            make(mengpaneel)


def test_changing_a_value_later_changes_nothing(
    record: c.Callable[[Make], list[Call]],
) -> None:
    inner = [1]
    properties = {"inner": inner}
    groups = {"company": ["acme"]}
    names = ["a"]

    def make(manager: Manager) -> None:
        manager.track_with_groups("A", properties, groups)
        manager.people.set(properties)
        manager.people.unset(names)
        inner.append(2)
        groups["company"].append("other")
        names.append("b")

    event, update, removal = record(make)
    assert event.properties["inner"] == [1]
    assert event.wire[1][2] == {"company": ["acme"]}
    assert update.arguments == [{"inner": [1]}]
    assert removal.arguments == [["a"]]


def test_recording_doesn_t_change_the_values_of_the_caller(
    record: c.Callable[[Make], list[Call]],
) -> None:
    properties = {"x": (1, 2)}
    record(lambda m: m.track("A", properties))

    assert properties == {"x": (1, 2)}


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        (1_700_000_000, 1_700_000_000),
        (1_700_000_000.5, 1_700_000_000.5),
        (dt.datetime(2023, 11, 14, 22, 13, 20, tzinfo=dt.UTC), 1_700_000_000),
        (dt.datetime(2023, 11, 14, 22, 13, 20), 1_700_000_000),
    ],
    ids=["int", "float", "aware", "naive"],
)
def test_the_caller_s_own_time_and_id_win(
    record: c.Callable[[Make], list[Call]], time: t.Any, expected: float
) -> None:
    (call,) = record(lambda m: m.track("A", {"time": time, "$insert_id": "order-1"}))

    assert call.properties == {"time": expected, "$insert_id": "order-1"}


def test_methods_give_nothing_back(app: Flask, mengpaneel: Mengpaneel) -> None:
    with app.app_context(), Manager():
        results = [make(mengpaneel) for make, _ in [*METHODS, *EVENTS]]

    assert results == [None] * len(results)


def test_every_method_says_what_it_does() -> None:
    undocumented = [
        name
        for recorder in (Recorder, People, Group)
        for name in dir(recorder)
        if not name.startswith("_") and not getattr(recorder, name).__doc__
    ]

    assert undocumented == []


def test_part_of_a_group_may_be_kept_and_used_again(
    app: Flask, mengpaneel: Mengpaneel, transport: RecordingTransport
) -> None:
    company = mengpaneel.get_group("company", "acme")

    for seats in (1, 2):
        with app.app_context(), Manager():
            company.set("Seats", seats)

    assert [call.arguments for call in transport.calls] == [
        [{"Seats": 1}],
        [{"Seats": 2}],
    ]


# -- ids and numbers of any kind


IDS = [
    "👩\u200d💻",
    "a\xa0b",
    "Müller\u3000Ann",
    "e\u0301",
    "שלום\u200f",
    "a\u2028b",
    "😀" * 127,
    "x" * 255,
    "漢" * 255,
    " ann ",
]


@pytest.mark.parametrize("id", IDS, ids=ascii)
def test_an_id_of_any_characters_is_one_everywhere(
    app: Flask, mengpaneel: Mengpaneel, id: str
) -> None:
    with app.test_request_context():
        mengpaneel.identify(id)

    cookie = Persistence({}, Identity("d1", id)).to_cookie()
    assert Identity.from_cookie(mixpanel_cookie.read(quote(json.dumps(cookie)))) in (
        Identity("d1", id),
        # Such a cookie is too large for the browser.
        Identity(),
    )
    assert Identity.from_cookie(cookie) == Identity("d1", id)
    assert Identity.from_json(Identity("d1", id).to_json()) == Identity("d1", id)


@pytest.mark.parametrize(
    "id",
    ["a\nb", "a\0", "\x7f", "a\x85b", "x" * 256, "😀" * 128, "Anonymous", "\u3000"],
    ids=ascii,
)
def test_an_id_that_is_believed_nowhere_is_refused(
    app: Flask, mengpaneel: Mengpaneel, id: str
) -> None:
    with app.test_request_context():
        for method in (mengpaneel.identify, mengpaneel.alias):
            with pytest.raises(ValueError):
                method(id)

    assert Identity.from_cookie({"distinct_id": id, "$user_id": id}) == Identity()


@pytest.mark.parametrize("amount", [2**60, -(2**60), decimal.Decimal(2**60)])
def test_an_amount_is_a_number_however_large(
    record: c.Callable[[Make], list[Call]], amount: t.Any
) -> None:
    expected = Call([["people", "increment"], [{"Points": float(amount)}]])

    assert record(lambda m: m.people.increment("Points", amount)) == [expected]
    assert record(lambda m: m.people.increment({"Points": amount})) == [expected]
    assert record(lambda m: m.people.track_charge(amount)) == [
        Call([["people", "track_charge"], [float(amount), {}]])
    ]


@pytest.mark.parametrize("amount", ["5", "1" + "0" * 20, True, None, [1]])
def test_what_is_no_amount_is_refused(
    app: Flask, mengpaneel: Mengpaneel, amount: t.Any
) -> None:
    with app.test_request_context():
        with pytest.raises(TypeError, match="must be a number"):
            mengpaneel.people.increment("Points", amount)

        with pytest.raises(TypeError, match="must be a number"):
            mengpaneel.people.increment({"Points": amount})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"distinct_id": 42}, {"distinct_id": "42"}),
        ({"$user_id": 10**20}, {"$user_id": "1" + "0" * 20}),
        ({"distinct_id": decimal.Decimal(42)}, {"distinct_id": "42"}),
        ({"distinct_id": ID}, {"distinct_id": str(ID)}),
        ({"distinct_id": None}, {"distinct_id": None}),
        ({"$insert_id": ID}, {"$insert_id": str(ID)}),
        ({"time": decimal.Decimal("1.5")}, {"time": 1.5}),
        ({"time": 2**60}, {"time": float(2**60)}),
    ],
    ids=range(8),
)
def test_ids_and_times_of_an_event_may_be_of_any_kind(
    record: c.Callable[[Make], list[Call]],
    given: dict[str, t.Any],
    expected: dict[str, t.Any],
) -> None:
    (call,) = record(lambda m: m.track("A", given))
    assert call.properties | expected == call.properties


@pytest.mark.parametrize(
    "given",
    [{"time": True}, {"time": "now"}, {"time": float("nan")}, {"$insert_id": True}],
    ids=range(4),
)
def test_ids_and_times_that_are_none_are_refused(
    app: Flask, mengpaneel: Mengpaneel, given: dict[str, t.Any]
) -> None:
    with app.test_request_context(), pytest.raises((TypeError, ValueError)):
        mengpaneel.track("A", given)


# What is made of others has to stay the same, in all versions and in other programs.
INSERT_IDS: list[tuple[t.Any, t.Any]] = [
    (ID, str(ID)),
    ("0f8f-AB", "0f8f-AB"),
    ("x" * 36, "x" * 36),
    (42, "42"),
    (decimal.Decimal(42), "42"),
    (2**70, "1180591620717411303424"),
    ("evt_1Abc", "90b25cfbf50fd511cf715644440671a4"),
    ("evt_1abc", ...),
    ("x" * 37, ...),
    ("x" * 255, ...),
    ("a b", ...),
    ("order/7/line/2", ...),
    ("漢" * 255, ...),
    (0, ...),
    ("Null", ...),
    (2.5, ...),
]


def test_an_id_of_others_becomes_one_that_mixpanel_takes_the_same_each_time(
    record: c.Callable[[Make], list[Call]],
) -> None:
    made = set()

    for given, expected in INSERT_IDS:
        properties = {"$insert_id": given}
        calls = record(
            lambda m, properties=properties: (
                m.track("A", properties),
                m.call("track", "A", {"$insert_id": str(properties["$insert_id"])}),
                m.track_pageview(properties),
            )
        )
        (id,) = {call.properties["$insert_id"] for call in calls}
        (again,) = record(lambda m, id=id: m.track("A", {"$insert_id": id}))

        assert expected in (..., id)
        assert re.fullmatch("[A-Za-z0-9-]{1,36}", t.cast(str, id))
        assert str(id).lower() not in FORBIDDEN_IDS
        assert again.properties["$insert_id"] == id
        made.add(id)

    # The number and the Decimal are the same id.
    assert len(made) == len(INSERT_IDS) - 1
