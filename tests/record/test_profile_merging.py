from __future__ import annotations

import copy
import dataclasses
import itertools
import time
import typing as t

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flask_mengpaneel.calls import Call
from flask_mengpaneel.record.profile_merging import merge

Profile = dict[str, t.Any]


@dataclasses.dataclass(frozen=True)
class ProfileModel:
    """A model of Mixpanel's profiles, with a choice wherever the docs leave one."""

    #: What ``$append`` and ``$union`` make of a value that isn't a list.
    not_a_list: str
    removes_all: bool
    #: Whether a property that is null is there.
    null_is_a_value: bool
    empty_union_creates: bool
    adds_to_bools: bool

    def apply(self, profile: Profile, calls: t.Iterable[Call]) -> Profile:
        """The profile after some calls were made on it."""
        profile = copy.deepcopy(profile)

        for call in calls:
            method = call.wire[-2][-1]

            if method in {"delete_user", "delete"}:
                profile = {}
            else:
                self._update(profile, method, call.arguments)

        return profile

    def _update(self, profile: Profile, method: str, arguments: list[t.Any]) -> None:
        if method == "unset":
            names = arguments[0]

            for name in [names] if isinstance(names, str) else names:
                profile.pop(name, None)
        elif method == "clear_charges":
            profile["$transactions"] = []
        elif method == "track_charge":
            self._append(profile, "$transactions", arguments)
        else:
            for name, value in self._pairs(method, arguments).items():
                getattr(self, f"_{method}")(profile, name, copy.deepcopy(value))

    def _pairs(self, method: str, arguments: list[t.Any]) -> dict[str, t.Any]:
        if isinstance(arguments[0], dict):
            return arguments[0]

        return {arguments[0]: arguments[1] if len(arguments) == 2 else 1}

    def _set(self, profile: Profile, name: str, value: t.Any) -> None:
        profile[name] = value

    def _get(self, profile: Profile, name: str, default: t.Any) -> t.Any:
        return profile[name] if self._has(profile, name) else default

    def _has(self, profile: Profile, name: str) -> bool:
        return name in profile and (profile[name] is not None or self.null_is_a_value)

    def _set_once(self, profile: Profile, name: str, value: t.Any) -> None:
        if not self._has(profile, name):
            profile[name] = value

    def _increment(self, profile: Profile, name: str, value: float) -> None:
        old = self._get(profile, name, 0)

        if type(old) in {int, float} or (self.adds_to_bools and type(old) is bool):
            profile[name] = old + value

    def _list(self, profile: Profile, name: str) -> list[t.Any] | None:
        value = self._get(profile, name, [])

        if isinstance(value, list):
            return value

        return {"ignored": None, "replaced": [], "wrapped": [value]}[self.not_a_list]

    def _append(self, profile: Profile, name: str, value: t.Any) -> None:
        old = self._list(profile, name)

        if old is not None:
            profile[name] = [*old, value]

    def _union(self, profile: Profile, name: str, values: t.Any) -> None:
        values = values if isinstance(values, list) else [values]
        old = self._list(profile, name)

        if old is None or (
            not values and not self._has(profile, name) and not self.empty_union_creates
        ):
            return

        for value in values:
            if canonical(value) not in map(canonical, old):
                old = [*old, value]

        profile[name] = old

    def _remove(self, profile: Profile, name: str, value: t.Any) -> None:
        old = profile.get(name)

        if not isinstance(old, list):
            return

        same = [i for i, one in enumerate(old) if canonical(one) == canonical(value)]
        gone = same if self.removes_all else same[:1]
        profile[name] = [one for i, one in enumerate(old) if i not in gone]


def canonical(value: t.Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(canonical, value))}]"

    if isinstance(value, dict):
        return repr(sorted((key, canonical(item)) for key, item in value.items()))

    if isinstance(value, float) and value.is_integer():
        return repr(int(value))

    return repr(value)


mixpanels = st.builds(
    ProfileModel,
    st.sampled_from(["ignored", "replaced", "wrapped"]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
# Mostly the same one: it is the operations on one property that can go wrong.
names = st.sampled_from(["a", "a", "a", "b", "$transactions"])
# Halves: what adds up exactly in any order.
numbers = st.integers(-2, 2) | st.integers(-3, 3).map(lambda half: half / 2)
scalars = st.sampled_from([None, False, True, 0, 1, 1.0, 2.5, "", "x", "1"])
values = scalars | st.lists(scalars, max_size=3) | st.just({"k": 1})
profiles = st.dictionaries(names, values, max_size=4)


def _of_pairs(
    method: str, values: st.SearchStrategy[t.Any]
) -> st.SearchStrategy[t.Any]:
    dicts = st.dictionaries(names, values, min_size=1, max_size=3).map(lambda d: [d])
    return st.tuples(st.just(method), dicts | st.tuples(names, values).map(list))


shared = st.one_of(
    _of_pairs("set", values),
    _of_pairs("set_once", values),
    _of_pairs("union", values),
    _of_pairs("remove", scalars),
    st.tuples(st.just("unset"), names.map(lambda name: [name])),
    st.tuples(
        st.just("unset"),
        st.lists(names, min_size=1, max_size=3, unique=True).map(lambda some: [some]),
    ),
)
personal = st.one_of(
    shared,
    shared,
    _of_pairs("increment", numbers),
    st.tuples(st.just("increment"), names.map(lambda name: [name])),
    _of_pairs("append", values),
    st.tuples(st.just("track_charge"), numbers.map(lambda amount: [amount])),
    st.tuples(st.just("clear_charges"), st.just([])),
    st.tuples(st.just("delete_user"), st.just([])),
)
people_calls = personal.map(lambda one: Call([["people", one[0]], one[1]]))
group_calls = st.builds(
    lambda id, one: Call([["get_group"], ["company", id], [one[0]], one[1]]),
    st.sampled_from(["acme", "globex"]),
    shared | st.tuples(st.just("delete"), st.just([])),
)
other_calls = st.sampled_from(
    [
        Call([["track"], ["A", {}]]),
        Call([["track"], ["B", {}]]),
        Call([["register"], [{"sp": 1}]]),
        Call([["identify"], ["7"]]),
        Call([["alias"], ["7"]]),
        Call([["reset"], []]),
        Call([["opt_out_tracking"], []]),
        Call([["set_group"], ["a", ["acme"]]]),
        Call([["people", "brand_new"], ["a"]]),
        Call([["brand_new"], []]),
    ]
)


def people(method: str, *arguments: t.Any) -> Call:
    return Call([["people", method], list(arguments)])


def group(id: str, method: str, *arguments: t.Any) -> Call:
    return Call([["get_group"], ["company", id], [method], list(arguments)])


@settings(max_examples=500, deadline=None)
@given(st.lists(people_calls, max_size=8), profiles, mixpanels)
def test_the_merged_updates_end_as_the_operations_one_after_the_other(
    calls: list[Call], profile: Profile, mixpanel: ProfileModel
) -> None:
    merged = [call for call, _ in merge(calls)]
    one_by_one = mixpanel.apply(profile, calls)

    assert canonical(mixpanel.apply(profile, merged)) == canonical(one_by_one)


@settings(max_examples=150, deadline=None)
@given(st.lists(group_calls, max_size=10), profiles, mixpanels)
def test_groups_end_as_they_would_and_do_not_mix(
    calls: list[Call], profile: Profile, mixpanel: ProfileModel
) -> None:
    merged = [call for call, _ in merge(calls)]

    for id in ("acme", "globex"):
        before = [call for call in calls if call.wire[1] == ["company", id]]
        after = [call for call in merged if call.wire[1] == ["company", id]]
        one_by_one = mixpanel.apply(profile, before)

        assert canonical(mixpanel.apply(profile, after)) == canonical(one_by_one)


@settings(max_examples=150, deadline=None)
@given(st.lists(people_calls | group_calls | other_calls, max_size=15))
def test_other_calls_keep_their_order_and_no_operation_goes_uncounted(
    calls: list[Call],
) -> None:
    def others(calls: t.Iterable[Call]) -> list[Call]:
        return [
            call
            for call in calls
            if call.wire[0] == ["people", "brand_new"]
            or call.wire[0][0] not in {"people", "get_group"}
        ]

    merged = merge(calls)

    assert others(call for call, _ in merged) == others(calls)
    assert sum(count for _, count in merged) == sum(call.is_record for call in calls)
    assert all(Call.from_json(call.wire) == call for call, _ in merged)


@settings(max_examples=150, deadline=None)
@given(st.lists(people_calls, max_size=6), st.lists(people_calls, max_size=6))
def test_nothing_is_merged_across_a_call_that_says_whose_profile_it_is(
    first: list[Call], second: list[Call]
) -> None:
    identify = Call([["identify"], ["7"]])

    assert merge([*first, identify, *second]) == [
        *merge(first),
        (identify, 0),
        *merge(second),
    ]


@settings(max_examples=150, deadline=None)
@given(st.lists(people_calls, max_size=5), profiles, mixpanels)
def test_updates_of_different_properties_may_arrive_in_any_order(
    calls: list[Call], profile: Profile, mixpanel: ProfileModel
) -> None:
    merged = [call for call, _ in merge(calls)]
    touched = [name for call in merged for name in touches(call)]
    expected = canonical(mixpanel.apply(profile, calls))

    if len(set(touched)) == len(touched) and len(merged) <= 4:
        for order in itertools.permutations(merged):
            assert canonical(mixpanel.apply(profile, order)) == expected


def touches(call: Call) -> list[str]:
    method = call.wire[-2][-1]

    if method == "delete_user":
        # Everything.
        return ["a", "b", "$transactions"] * 2

    if method in {"track_charge", "clear_charges"}:
        return ["$transactions"]

    return list(call.arguments[0])


@settings(max_examples=150, deadline=None)
@given(st.lists(people_calls, max_size=8))
@example(
    [
        Call([["people", "delete_user"], []]),
        Call([["people", "union"], ["a", []]]),
        Call([["people", "union"], ["a", [1]]]),
    ]
)
def test_what_is_merged_stays_as_it_is_when_merged_again(calls: list[Call]) -> None:
    merged = [call for call, _ in merge(calls)]

    assert [call for call, _ in merge(merged)] == merged


@settings(max_examples=100, deadline=None)
@given(st.lists(people_calls | group_calls, max_size=8))
def test_the_recorded_calls_are_left_as_they_are(calls: list[Call]) -> None:
    before = copy.deepcopy(calls)
    merge(calls)

    assert calls == before


@pytest.mark.parametrize(
    ("calls", "merged"),
    [
        (
            [people("set", "a", 1), people("set", {"a": 2, "b": 3})],
            [people("set", {"a": 2, "b": 3})],
        ),
        (
            [people("increment", "a"), people("increment", {"a": 2, "b": 1})],
            [people("increment", {"a": 3, "b": 1})],
        ),
        (
            [people("set", {"a": 1}), people("increment", "a", 2)],
            [people("set", {"a": 3})],
        ),
        (
            [people("set", {"a": []}), people("append", "a", 1)],
            [people("set", {"a": [1]})],
        ),
        (
            [people("unset", "a"), people("set_once", "a", 1)],
            [people("set", {"a": 1})],
        ),
        (
            [people("union", "a", 1), people("union", "a", [2, 1])],
            [people("union", {"a": [1, 2]})],
        ),
        (
            [people("append", "a", 1), people("append", {"a": 2, "b": 3})],
            [people("append", {"a": 1, "b": 3}), people("append", {"a": 2})],
        ),
        (
            [people("set", "a", 1), people("delete_user"), people("append", "a", 2)],
            [people("delete_user"), people("set", {"a": [2]})],
        ),
        (
            [
                people("increment", "b"),
                people("set_once", "a", 1),
                people("increment", "a"),
            ],
            [people("set_once", {"a": 1}), people("increment", {"b": 1, "a": 1})],
        ),
        (
            [people("track_charge", 5), people("clear_charges")],
            [people("clear_charges")],
        ),
        (
            [group("acme", "set", {"a": 1}), group("acme", "union", "a", [2])],
            [group("acme", "set", {"a": 1}), group("acme", "union", {"a": [2]})],
        ),
        (
            [group("acme", "set", {"a": 1}), group("globex", "set", {"a": 2})],
            [group("acme", "set", {"a": 1}), group("globex", "set", {"a": 2})],
        ),
    ],
)
def test_operations_are_merged_into_the_fewest_updates(
    calls: list[Call], merged: list[Call]
) -> None:
    assert [call for call, _ in merge(calls)] == merged


@pytest.mark.parametrize(
    "calls",
    [
        # Is null a value?
        [people("set", {"a": None}), people("set_once", {"a": 1})],
        [people("set_once", {"a": None}), people("set_once", {"a": 1})],
        [people("set", {"a": None}), people("increment", {"a": 1})],
        # Is a value that is there twice removed twice?
        [people("set", {"a": [1, 1]}), people("remove", {"a": 1})],
        # Does nothing make a list?
        [people("union", {"a": []}), people("set_once", {"a": 1})],
        # What does a text become that something is appended or added to?
        [people("set", {"a": "x"}), people("append", {"a": 1})],
        [people("set", {"a": "x"}), people("union", {"a": [1]})],
        [people("set", {"a": "1"}), people("increment", {"a": 1})],
        # It depends on what was there.
        [people("set_once", {"a": 1}), people("increment", {"a": 1})],
        [people("remove", {"a": 1}), people("set_once", {"a": 1})],
        [people("append", {"a": 1}), people("remove", {"a": 1})],
        [people("union", {"a": [1]}), people("append", {"a": 1})],
        [people("append", {"a": 1}), people("append", {"a": 1})],
        [people("remove", {"a": 1}), people("remove", {"a": 1})],
    ],
)
def test_operations_that_may_give_more_than_one_of_them_alone_stay_apart(
    calls: list[Call],
) -> None:
    assert [call for call, _ in merge(calls)] == calls


@pytest.mark.parametrize(
    ("name", "arguments", "personal"),
    [
        ("identify", ["7"], True),
        ("alias", ["7"], True),
        ("reset", [], True),
        ("set_group", ["a", "acme"], True),
        ("add_group", ["a", "acme"], True),
        ("remove_group", ["a", "acme"], True),
        ("opt_out_tracking", [], False),
        ("opt_in_tracking", [], False),
        ("brand_new", [], False),
    ],
)
def test_calls_that_change_whose_profile_it_is_keep_operations_apart(
    name: str, arguments: list[t.Any], personal: bool
) -> None:
    between = Call([[name], arguments])
    on_person = [people("set", {"a": 1}), between, people("set", {"a": 2})]
    on_group = [group("acme", "set", {"a": 1}), between, group("acme", "unset", "a")]

    assert [call for call, _ in merge(on_person)] == on_person
    assert len(merge(on_group)) == (2 if personal else 3)


@pytest.mark.parametrize(
    "name",
    ["track", "time_event", "register", "register_once", "unregister", "disable"],
)
def test_operations_are_merged_past_calls_that_have_nothing_to_do_with_profiles(
    name: str,
) -> None:
    beside = Call([[name], ["A"]])
    calls = [people("set", {"a": 1}), beside, people("set", {"a": 2})]

    assert [call for call, _ in merge(calls)] == [people("set", {"a": 2}), beside]


def test_true_and_one_are_two_values() -> None:
    calls = [people("set", {"a": [True]}), people("union", {"a": [1, 1.0]})]

    assert [call for call, _ in merge(calls)] == [people("set", {"a": [True, 1]})]


def test_a_call_says_for_how_many_recorded_operations_it_stands() -> None:
    calls = [
        people("set", {"a": 1}),
        Call([["track"], ["A", {}]]),
        people("unset", "b"),
        people("increment", "a"),
        Call([["register"], [{}]]),
    ]

    assert merge(calls) == [
        (people("set", {"a": 2}), 2),
        (people("unset", ["b"]), 1),
        (calls[1], 1),
        (calls[4], 0),
    ]


@pytest.mark.parametrize(
    "call",
    [
        people("set"),
        people("set", {}),
        people("set", 1, 2),
        people("increment", "a", "much"),
        people("increment", {"a": True}),
        people("unset", []),
        people("brand_new", "a"),
        Call([["get_group"], ["company", "acme"]]),
    ],
)
def test_what_is_no_known_operation_is_handed_on(call: Call) -> None:
    around = [people("set", {"a": 1}), call, people("set", {"a": 2})]

    assert [call for call, _ in merge(around)] == around
    assert sum(count for _, count in merge(around)) == 2 + call.is_record


def test_sums_that_json_cannot_hold_stay_apart() -> None:
    calls = [people("increment", {"a": 1e308}), people("increment", {"a": 1e308})]

    assert [call for call, _ in merge(calls)] == calls


def test_values_of_any_kind_are_united_as_json_has_them() -> None:
    one = [1, "1", True, None, [1], {"a": 1}, "x"]
    more = [1.0, False, True, None, [True], [1.0], {"a": True}, {"a": 1}, "1", "y"]
    ((call, _),) = merge([people("union", {"a": one}), people("union", {"a": more})])

    united = [*one, False, [True], {"a": True}, "y"]
    assert [repr(value) for value in call.arguments[0]["a"]] == list(map(repr, united))


def test_uniting_takes_time_in_proportion() -> None:
    def cost(size: int) -> float:
        calls = [
            people("union", {"a": list(range(size))}),
            people("union", {"a": [str(number) for number in range(size)]}),
        ]
        times = []

        for _ in range(3):
            start = time.thread_time()
            list(merge(calls))
            times.append(time.thread_time() - start)

        return min(times)

    # With the square it would be 256 times as much.
    assert cost(16_000) < 64 * cost(1_000)
