"""What Mixpanel takes and refuses of a record, by its documented rules."""

from __future__ import annotations

import json
import typing as t

import pytest

from flask_mengpaneel.calls import Call, dumps
from flask_mengpaneel.inspector.rules import Record, check_record
from flask_mengpaneel.limits import MAX_RECORD_BYTES
from flask_mengpaneel.record.arguments import checked_size
from flask_mengpaneel.values import FORBIDDEN_IDS
from mixpanel_records import NOW, past_event, update, without


def checked(endpoint: str, value: t.Any) -> Record:
    record = Record(value)
    check_record(endpoint, record, NOW)
    return record


def problem(endpoint: str, value: t.Any) -> str:
    return checked(endpoint, value).problem


@pytest.mark.parametrize("name", ["time", "distinct_id", "$insert_id"])
def test_import_requires(name: str) -> None:
    assert problem("import", without(name)).startswith(f"'properties.{name}'")


@pytest.mark.parametrize("name", ["time", "distinct_id", "$insert_id"])
def test_track_does_without(name: str) -> None:
    assert problem("track", without(name)) == ""


def test_ids_of_device_and_user_stand_for_the_distinct_id() -> None:
    value = without("distinct_id")
    value["properties"]["$device_id"] = "d"

    assert problem("import", value) == ""


@pytest.mark.parametrize(
    "value", [*sorted(FORBIDDEN_IDS), 0, -1, True, None, [], {}], ids=repr
)
@pytest.mark.parametrize("name", ["distinct_id", "$insert_id"])
def test_ids_that_are_mistakes_are_refused(name: str, value: t.Any) -> None:
    assert problem("import", past_event(**{name: value})).startswith(
        f"'properties.{name}'"
    )


def test_an_empty_distinct_id_is_nobody() -> None:
    assert problem("import", past_event(distinct_id="")) == ""


@pytest.mark.parametrize("value", ["a" * 37, "a b", "a_b", "é", "", "a\n"])
def test_insert_ids_have_a_form(value: str) -> None:
    assert "$insert_id" in problem("import", past_event(**{"$insert_id": value}))


@pytest.mark.parametrize(
    ("endpoint", "time", "taken"),
    [
        ("track", NOW - 5 * 86_400 + 1, True),
        ("track", NOW - 5 * 86_400 - 1, False),
        ("track", (NOW - 10) * 1000, True),
        ("track", NOW + 3_599, True),
        ("track", NOW + 3_601, False),
        ("import", NOW - 400 * 86_400, True),
        ("import", 31_536_000, True),
        ("import", 31_535_999, False),
        ("import", (NOW + 3_601) * 1000, False),
        ("import", "1790000000", False),
        ("import", True, False),
        ("import", None, False),
        ("import", 10**400, False),
    ],
)
def test_times_have_a_window(endpoint: str, time: t.Any, taken: bool) -> None:
    assert (problem(endpoint, past_event(time=time)) == "") is taken


@pytest.mark.parametrize(
    "value",
    [
        "text",
        [],
        {"properties": {}},
        {"event": "", "properties": {"token": "t"}},
        {"event": 1, "properties": {"token": "t"}},
        {"event": "a"},
        {"event": "a", "properties": []},
    ],
)
def test_what_is_no_event_is_refused(value: t.Any) -> None:
    assert problem("track", [value]) != ""


def nested(depth: int) -> t.Any:
    return {"a": nested(depth - 1)} if depth else 1


@pytest.mark.parametrize(
    ("value", "taken"),
    [
        (nested(3), True),
        (nested(4), False),
        ([nested(3)], True),
        ([nested(4)], False),
        (list(range(254)), True),
        (list(range(255)), False),
        ({str(number): 1 for number in range(254)}, True),
        ({str(number): 1 for number in range(255)}, False),
    ],
)
def test_values_have_a_shape(value: t.Any, taken: bool) -> None:
    assert (problem("import", past_event(value=value)) == "") is taken


@pytest.mark.parametrize(("count", "taken"), [(254, True), (255, False)])
def test_an_event_has_fewer_than_255_properties(count: int, taken: bool) -> None:
    extra = {str(number): number for number in range(count - 4)}

    assert (problem("import", past_event(**extra)) == "") is taken


def test_an_event_is_smaller_than_1_mb() -> None:
    assert "too large" in problem("import", past_event(filler="x" * 1_000_000))


def test_what_is_recorded_has_as_few_bytes_as_what_is_taken() -> None:
    empty = len(json.dumps(past_event(filler="")))
    largest = past_event(filler="x" * (MAX_RECORD_BYTES - 1 - empty))
    assert problem("import", largest) == ""
    largest["properties"]["filler"] += "x"
    assert "too large" in problem("import", largest)

    empty = len(dumps([["track"], ["A", {"x": ""}]]))
    filler = "x" * (MAX_RECORD_BYTES - 1 - empty)
    assert checked_size(Call([["track"], ["A", {"x": filler}]]))

    with pytest.raises(ValueError, match="1000000 bytes or more"):
        checked_size(Call([["track"], ["A", {"x": f"{filler}x"}]]))


@pytest.mark.parametrize(
    ("properties", "remark"),
    [
        ({"note": "x" * 256}, "note is cut to 255 bytes"),
        ({"note": "é" * 128}, "note is cut to 255 bytes"),
        ({"cart": {"note": "x" * 256}}, "cart.note is cut to 255 bytes"),
        ({"cart": ["y" * 200] * 50}, "cart is over 8 KB"),
        ({"bucket": 1}, "bucket is a name that Mixpanel keeps for itself"),
        ({"$ignore": True}, "$ignore: Mixpanel drops the event"),
        ({"time": NOW + 60}, "the time is in the future: Mixpanel sets it to now"),
    ],
)
def test_what_mixpanel_changes_is_remarked_on(
    properties: dict[str, t.Any], remark: str
) -> None:
    record = checked("import", past_event(**properties))

    assert (record.problem, record.remarks) == ("", [remark])


def test_an_ordinary_event_has_no_remarks() -> None:
    record = checked("import", past_event(note="x" * 255, cart=[{"a": 1}]))

    assert record.remarks == []


@pytest.mark.parametrize(
    "operations",
    [
        {"$set": {"a": 1}},
        {"$set_once": {"a": 1}},
        {"$add": {"a": 1.5}},
        {"$append": {"a": "b"}},
        {"$union": {"a": ["b"]}},
        {"$remove": {"a": "b"}},
        {"$unset": ["a"]},
        {"$delete": ""},
        {"$set": {"a": 1}, "$add": {"b": 1}, "$ip": "0", "$ignore_time": True},
    ],
)
def test_profile_operations_are_taken(operations: dict[str, t.Any]) -> None:
    assert problem("engage", update(**operations)) == ""


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (update(), ""),
        (update(**{"$set": []}), "$set"),
        (update(**{"$add": {"a": "1"}}), "$add.a"),
        (update(**{"$add": {"a": True}}), "$add.a"),
        (update(**{"$union": {"a": "b"}}), "$union.a"),
        (update(**{"$unset": "a"}), "$unset"),
        (update(**{"$unset": [1]}), "$unset"),
        ({"$token": "t", "$set": {}}, "$distinct_id"),
        ({"$token": "t", "$distinct_id": "", "$set": {}}, "$distinct_id"),
        ({"$token": "t", "$distinct_id": "null", "$set": {}}, "$distinct_id"),
        ({"$distinct_id": "a", "$set": {}}, "$token"),
    ],
)
def test_wrong_profile_operations_are_refused(
    value: dict[str, t.Any], field: str
) -> None:
    record = checked("engage", value)

    assert record.problem
    assert record.field == field


def test_groups_have_a_key_and_an_id_and_nothing_to_add() -> None:
    group = {"$token": "t", "$group_key": "company", "$group_id": "acme"}

    assert problem("groups", {**group, "$set": {"Seats": 12}}) == ""
    assert "not for groups" in problem("groups", {**group, "$add": {"Seats": 1}})
    assert "$group_id" in problem("groups", {**group, "$group_id": "", "$set": {}})


def test_large_profile_properties_are_remarked_on() -> None:
    record = checked("engage", update(**{"$set": {"a": ["x" * 250] * 1_100}}))

    assert record.remarks == ["a is over 256 KB"]
