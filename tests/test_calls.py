from __future__ import annotations

import json
import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_mengpaneel.calls import Call, CallLog, Stage, dumps

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
    max_leaves=5,
)
names = st.lists(st.text(min_size=1), min_size=1, max_size=2)
pairs = st.tuples(names, st.lists(values, max_size=2)).map(list)
wires = st.lists(pairs, min_size=1, max_size=2).map(lambda wire: sum(wire, []))
calls = st.builds(Call, wires)
logs = st.builds(
    CallLog,
    st.lists(calls, max_size=2),
    st.lists(calls, max_size=2),
    st.lists(calls, max_size=2),
    st.just(True),
)


@given(values | st.floats(allow_nan=False, allow_infinity=False))
def test_calls_are_written_as_the_standard_library_writes_json(value: t.Any) -> None:
    assert dumps(value) == json.dumps(value, separators=(",", ":"))


@pytest.mark.parametrize(
    ("wire", "name", "arguments", "tracks", "is_record"),
    [
        ([["track"], ["A", {}]], "track", ["A", {}], True, True),
        ([["track_pageview"], [{}]], "track_pageview", [{}], True, True),
        (
            [["track_with_groups"], ["A", {}, {"company": ["acme"]}]],
            "track_with_groups",
            ["A", {}, {"company": ["acme"]}],
            True,
            True,
        ),
        ([["people", "set"], [{"a": 1}]], "people.set", [{"a": 1}], False, True),
        (
            [["get_group"], ["company", "acme"], ["set"], [{"a": 1}]],
            "get_group.set",
            [{"a": 1}],
            False,
            True,
        ),
        ([["alias"], ["ann"]], "alias", ["ann"], False, True),
        ([["set_group"], ["c", ["a"]]], "set_group", ["c", ["a"]], False, True),
        ([["add_group"], ["c", "a"]], "add_group", ["c", "a"], False, True),
        ([["remove_group"], ["c", "a"]], "remove_group", ["c", "a"], False, True),
        ([["identify"], ["ann"]], "identify", ["ann"], False, False),
        ([["reset"], []], "reset", [], False, False),
        ([["register"], [{"a": 1}]], "register", [{"a": 1}], False, False),
        ([["time_event"], ["A"]], "time_event", ["A"], False, False),
        ([["disable"], []], "disable", [], False, False),
        ([["set_config"], [{}]], "set_config", [{}], False, False),
        ([["opt_out_tracking"], []], "opt_out_tracking", [], False, False),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_call_tells_what_it_is(
    wire: list[t.Any], name: str, arguments: list[t.Any], tracks: bool, is_record: bool
) -> None:
    call = Call.from_json(json.loads(dumps(wire)))

    assert call.name == name
    assert call.arguments == arguments
    assert call.tracks is tracks
    assert call.is_record is is_record


@pytest.mark.parametrize(
    ("wire", "event"),
    [
        ([["track"], ["A", {"x": 1}]], "A"),
        ([["track_pageview"], [{"x": 1}]], "$mp_web_page_view"),
        ([["track_pageview"], [{"x": 1}, {"event_name": "Page"}]], "Page"),
        ([["track_with_groups"], ["A", {"x": 1}, {}]], "A"),
    ],
    ids=["track", "pageview", "named pageview", "groups"],
)
def test_an_event_has_a_name_and_properties(wire: list[t.Any], event: str) -> None:
    call = Call(wire)

    assert call.event == event
    assert call.properties == {"x": 1}

    changed = call.with_defaults({"x": 2, "y": 3})
    assert changed.event == event
    assert changed.properties == {"x": 1, "y": 3}
    assert call.properties == {"x": 1}


@pytest.mark.parametrize(
    "value",
    [
        None,
        "track",
        {},
        [],
        [[]],
        [["track"]],
        [["track"], "A"],
        [["track"], {}],
        ["track", ["A"]],
        [[], []],
        [[1], []],
        [["track"], ["A"], ["set"]],
        [["track"], ["A"], [], []],
    ],
    ids=repr,
)
def test_what_is_no_call_is_refused(value: t.Any) -> None:
    with pytest.raises(ValueError, match="not a call"):
        Call.from_json(value)


@given(calls)
def test_a_call_is_the_same_after_a_journey(call: Call) -> None:
    written = dumps(call.wire)

    assert written.isascii()
    assert Call.from_json(json.loads(written)) == call


def test_calls_are_compared_by_what_they_do() -> None:
    assert Call([["reset"], []]) == Call([["reset"], []])
    assert Call([["reset"], []]) != Call([["disable"], []])
    assert Call([["reset"], []]) != [["reset"], []]


def test_a_log_gives_its_calls_by_stage_whatever_the_order_of_recording() -> None:
    log = CallLog()
    log.of(Stage.TRACKING).append(Call([["track"], ["A", {}]]))
    log.of(Stage.SETUP).append(Call([["identify"], ["ann"]]))
    log.of(Stage.BEFORE_SETUP).append(Call([["alias"], ["ann"]]))

    assert [call.name for call in log] == ["alias", "identify", "track"]
    assert len(log) == 3
    assert log
    assert not CallLog()


@given(logs)
def test_a_log_is_the_same_after_a_journey(log: CallLog) -> None:
    assert CallLog.from_json(json.loads(dumps(log.to_json()))) == log


@pytest.mark.parametrize("set_up", [True, False])
def test_that_somebody_said_who_it_is_survives_without_a_call(set_up: bool) -> None:
    log = CallLog(was_set_up=set_up)
    assert CallLog.from_json(log.to_json()).was_set_up is set_up


@pytest.mark.parametrize(
    "value",
    [None, [], "x", {"tracking": {}}, {"setup": [1]}, {"before_setup": [["x"]]}],
    ids=repr,
)
def test_what_is_no_log_is_refused(value: t.Any) -> None:
    with pytest.raises(ValueError):
        CallLog.from_json(value)
