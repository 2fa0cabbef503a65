from __future__ import annotations

import typing as t

import pytest

from flask_mengpaneel.calls import Call
from flask_mengpaneel.identity import Identity
from flask_mengpaneel.visitor.persistence import Persistence


def call(name: str, *arguments: t.Any) -> Call:
    return Call([[name], list(arguments)])


def test_a_new_visitor_s_cookie_is_one_that_the_library_adopts() -> None:
    cookie = Persistence({}, Identity("d1")).to_cookie()

    assert cookie["distinct_id"] == "$device:d1"
    assert cookie["$device_id"] == "d1"
    assert "$user_id" not in cookie


def test_the_cookie_begins_with_the_device_of_a_new_visitor_only() -> None:
    new = Persistence({}, Identity("d1")).to_cookie()
    known = Persistence(new, Identity("d1")).to_cookie()
    assert list(new) == ["$device_id", "distinct_id"]
    assert list(known) == ["distinct_id", "$device_id"]


def test_what_the_library_keeps_for_itself_survives() -> None:
    kept: dict[str, t.Any] = {
        "distinct_id": "ann",
        "$device_id": "d1",
        "$user_id": "ann",
        "__mps": {},
        "__mpap": [{"a": 1}],
        "utm_source": "news",
    }
    remembered = Persistence(kept, Identity.from_cookie(kept))
    remembered.apply(call("register", {"Plan": "pro"}), 1.0)

    assert remembered.to_cookie() == {**kept, "Plan": "pro"}


def test_identify_and_reset_are_remembered() -> None:
    kept: dict[str, t.Any]
    kept = {"distinct_id": "$device:d1", "$device_id": "d1", "a": 1, "__mps": {"b": 2}}
    remembered = Persistence(kept, Identity("d1"), successors=[Identity("d2")])
    remembered.apply(call("identify", "ann"), 1.0)
    cookie = remembered.to_cookie()
    assert cookie["distinct_id"] == cookie["$user_id"] == "ann"
    assert cookie["$device_id"] == "d1"
    assert cookie["a"] == 1

    remembered.apply(call("reset"), 1.0)
    cookie = remembered.to_cookie()
    assert cookie["distinct_id"] == "$device:d2"
    assert cookie["$device_id"] == "d2"
    assert not {"$user_id", "a"} & cookie.keys()
    assert not cookie.get("__mps")


def test_clocks_are_remembered_in_milliseconds_as_the_library_does() -> None:
    remembered = Persistence({"__timers": {"B": 5_000}}, Identity("d1"))
    remembered.apply(call("time_event", "A"), 1_700_000_000.5)
    assert remembered.to_cookie()["__timers"] == {"A": 1_700_000_000_500, "B": 5_000}

    remembered.apply(call("track", "A", {}), 1_700_000_001.0)
    assert remembered.to_cookie()["__timers"] == {"B": 5_000}


@pytest.mark.parametrize(
    ("default", "held", "expected"),
    [
        ([], None, "new"),
        ([], "None", "new"),
        ([], "held", "held"),
        ([], 0, 0),
        (["held"], "held", "new"),
        (["other"], "held", "held"),
    ],
    ids=range(6),
)
def test_register_once_registers_what_has_no_value(
    default: list[t.Any], held: t.Any, expected: t.Any
) -> None:
    kept = {} if held is None else {"a": held}
    remembered = Persistence(kept, Identity("d1"))
    remembered.apply(call("register_once", {"a": "new"}, *default), 1.0)
    assert remembered.super_properties["a"] == expected


def test_remembering_changes_nothing_of_what_was_read() -> None:
    kept: dict[str, t.Any] = {"c": ["x"], "__timers": {"A": 1}}
    remembered = Persistence(kept, Identity("d1"))
    remembered.apply(call("add_group", "c", "y"), 1.0)
    remembered.apply(call("track", "A", {}), 1.0)
    remembered.to_cookie()

    assert kept == {"c": ["x"], "__timers": {"A": 1}}
