"""What can't be recorded costs no more than itself, and can be found."""

from __future__ import annotations

import collections
import collections.abc as c
import decimal
import inspect
import itertools
import logging
import os
import pathlib
import types
import typing as t
from concurrent.futures import ThreadPoolExecutor

import pytest

from flask_mengpaneel import Manager
from flask_mengpaneel.record import source
from sites import Site

BAD = object()
KIND = "a value of type 'object' can't be sent to Mixpanel"


def endless() -> dict[str, t.Any]:
    value: dict[str, t.Any] = {"Plan": "pro"}
    value["self"] = value
    return value


class Raising:
    def __html__(self) -> str:
        return ""

    def __str__(self) -> str:
        raise LookupError("no translation")


class Endless(collections.UserList[str]):
    """A list whose end nobody sees, as that of some proxies."""

    def __iter__(self) -> c.Iterator[str]:
        return itertools.repeat("a")


class Unreadable(LookupError):
    def __str__(self) -> str:
        raise self

    __repr__ = __str__


class Unshowable(Raising):
    def __str__(self) -> str:
        raise Unreadable

    __repr__ = __str__


class UnshowableName(str):
    __slots__ = ()

    def __str__(self) -> str:
        raise Unreadable

    __repr__ = __str__


Make = c.Callable[[t.Any], t.Any]

# A call, what is left of it, and where in it is what isn't.
PARTS: list[tuple[Make, list[t.Any], list[str]]] = [
    (
        lambda m: m.track("A", {"Items": [{}, {"sku": BAD}], "Plan": "pro"}),
        [["track"], ["A", {"Items": [{}, {}], "Plan": "pro"}]],
        ["Items[1].sku"],
    ),
    (
        lambda m: m.track("A", {"a": BAD, "b": 1, "c": [1, BAD, 3], "$e": {"f": b""}}),
        [["track"], ["A", {"b": 1, "c": [1, 3], "$e": {}}]],
        ["a", "c[1]", "$e.f"],
    ),
    (lambda m: m.track("A", {"a": BAD}), [["track"], ["A", {}]], ["a"]),
    (
        lambda m: m.track("A", {"Tags": {"b", "a", 1j}, 5: BAD, "n": float("nan")}),
        [["track"], ["A", {"Tags": ["a", "b"]}]],
        ["5", "n"],
    ),
    (
        lambda m: m.track("A", {"Plan": "pro", "User": endless()}),
        [["track"], ["A", {"Plan": "pro"}]],
        ["User"],
    ),
    (
        lambda m: m.track("A", {"Title": Raising(), "Amount": decimal.Decimal(3)}),
        [["track"], ["A", {"Amount": 3}]],
        ["Title"],
    ),
    (
        lambda m: m.track("A", {"a": Unshowable(), "b": 1, Unshowable(): 2}),
        [["track"], ["A", {"b": 1}]],
        ["a", "a key of type 'Unshowable'"],
    ),
    (
        lambda m: m.track("A", types.MappingProxyType({"a": BAD, "b": 1})),
        [["track"], ["A", {"b": 1}]],
        ["a"],
    ),
    (
        lambda m: m.track_pageview({"a": BAD}, {"event_name": "Page"}),
        [["track_pageview"], [{}, {"event_name": "Page"}]],
        ["a"],
    ),
    (
        lambda m: m.track_with_groups("A", {"a": BAD, "b": 1}, {"c": None, "d": 2}),
        [["track_with_groups"], ["A", {"b": 1}, {"d": ["2"]}]],
        ["a", "c"],
    ),
    (
        lambda m: m.call("track", "A", {"a": BAD, "b": 1}),
        [["track"], ["A", {"b": 1}]],
        ["a"],
    ),
    (
        lambda m: m.register({"a": BAD, "b": 1}),
        [["register"], [{"b": 1}]],
        ["a"],
    ),
    (
        lambda m: m.people.set({"a": BAD, "b": 1}),
        [["people", "set"], [{"b": 1}]],
        ["a"],
    ),
    (
        lambda m: m.people.set("Items", [{"sku": BAD}, 2]),
        [["people", "set"], [{"Items": [{}, 2]}]],
        ["Items[0].sku"],
    ),
    (
        lambda m: m.people.union("Tags", ["a", BAD]),
        [["people", "union"], [{"Tags": ["a"]}]],
        ["Tags[1]"],
    ),
    (
        lambda m: m.people.increment({"a": "1", "b": 2, "c": decimal.Decimal("0.5")}),
        [["people", "increment"], [{"b": 2, "c": 0.5}]],
        ["a"],
    ),
    (
        lambda m: m.people.track_charge(5, {"sku": BAD}),
        [["people", "track_charge"], [5, {}]],
        ["sku"],
    ),
    (
        lambda m: m.get_group("company", 7).set_once({"a": BAD, "b": 1}),
        [["get_group"], ["company", "7"], ["set_once"], [{"b": 1}]],
        ["a"],
    ),
]


@pytest.mark.parametrize(("make", "wire", "paths"), PARTS, ids=range(len(PARTS)))
def test_the_rest_of_a_call_is_recorded_without_what_can_t_be(
    make: Make, wire: list[t.Any], paths: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    site = Site(testing=False)

    with site.app.app_context(), Manager(identify="ann") as manager:
        make(manager)
        (call,) = [call for call in manager.calls if not call.says_who]

        if call.tracks:
            assert call.properties.pop("time") and call.properties.pop("$insert_id")

        assert call.wire == wire

    (record,) = caplog.records

    for path in paths:
        assert f"{path} was not recorded: " in record.message

    ledger = site.mengpaneel.ledger().snapshot()
    assert ledger.balanced
    assert (ledger.dropped, ledger.incomplete) == ({}, 1)


# What nothing is left of, or nothing that is the same.
WHOLE: list[tuple[Make, str]] = [
    (lambda m: m.people.set({"a": BAD}), "a: "),
    (lambda m: m.people.set("a", BAD), "a: "),
    (lambda m: m.people.increment({"a": "1"}), "a: "),
    (lambda m: m.register({"a": BAD}), "a: "),
    (lambda m: m.track("A", {"time": "yesterday", "b": 1}), "time: "),
    (lambda m: m.track("A", {"$insert_id": None, "b": 1}), "$insert_id: "),
    (lambda m: m.track("A", {"distinct_id": BAD, "b": 1}), "distinct_id: "),
    (lambda m: m.track("A", {"$user_id": BAD, "b": 1}), "$user_id: "),
    (lambda m: m.track("", {"a": BAD}), ""),
    (lambda m: m.track("A", "x"), ""),
    (lambda m: m.track(), ""),
    (lambda m: m.identify(None), ""),
    (lambda m: m.identify(Unshowable()), ""),
    (lambda m: m.track(UnshowableName("A"), {"a": 1}), ""),
    (lambda m: m.people.increment(Unshowable()), ""),
    (lambda m: m.set_group("company", Endless("a")), ""),
    (lambda m: m.people.unset(itertools.repeat("a")), ""),
    (lambda m: m.track("A", {"a": BAD, "b": "y" * 1_100_000}), ""),
    (lambda m: m.track("A", {"a": BAD} | dict.fromkeys(range(5_000))), ""),
]


@pytest.mark.parametrize(("make", "path"), WHOLE, ids=range(len(WHOLE)))
def test_a_call_of_which_nothing_is_left_is_dropped(
    make: Make, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site(testing=False)

    with site.app.app_context(), Manager() as manager:
        make(manager)
        assert list(manager.calls) == []

    (record,) = caplog.records
    assert f" was not recorded: {path}" in record.message
    ledger = site.mengpaneel.ledger().snapshot()
    assert ledger.balanced
    assert (ledger.dropped, ledger.incomplete) == ({"refused when recorded": 1}, 0)


def order_site(**settings: t.Any) -> tuple[Site, int]:
    """A site with a view that tracks something wrong, and the line in which it does."""
    site = Site(**settings)

    def place(id: str) -> dict[str, t.Any]:
        site.mengpaneel.track("Place Order", {"Items": [{}, {"sku": BAD}], "Id": id})
        return {}

    site.app.add_url_rule("/orders/<id>", "orders.place", place, methods=["POST"])
    return site, place.__code__.co_firstlineno + 1


def test_what_can_t_be_recorded_can_be_found(caplog: pytest.LogCaptureFixture) -> None:
    site, line = order_site(testing=False)
    site.client("curl/8.5.0").post("/orders/7%0AERROR?secret=1")
    (record,) = caplog.records

    assert record.levelno == logging.ERROR
    assert record.message == (
        f"mengpaneel.track: Items[1].sku was not recorded: {KIND};"
        " turn it into a text, a number, a date, a list or a dict"
        f" (event 'Place Order', {os.path.relpath(__file__)}:{line},"
        " endpoint 'orders.place',"
        " POST '/orders/7\\nERROR')"
    )
    (call,) = site.kept.calls
    assert call.properties["Items"] == [{}, {}]


def test_a_test_is_told_in_the_same_words(caplog: pytest.LogCaptureFixture) -> None:
    site, _ = order_site(testing=False)
    site.client("curl/8.5.0").post("/orders/7")
    site.app.testing = True

    with pytest.raises(TypeError) as raised:
        site.client("curl/8.5.0").post("/orders/7")

    assert str(raised.value) == caplog.records[0].message


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (
            lambda mengpaneel: mengpaneel.track("42", "Sign Up", {"Plan": "pro"}),
            "too many positional arguments; it is track(event_name, properties=None)",
        ),
        (
            lambda mengpaneel: mengpaneel.track("Sign Up", Plan="pro"),
            "got an unexpected keyword argument 'Plan'; it is track(event_name,"
            " properties=None)",
        ),
        (
            lambda mengpaneel: mengpaneel.identify("42", {"Plan": "pro"}),
            "too many positional arguments; it is identify(unique_id)",
        ),
        (
            lambda mengpaneel: mengpaneel.people.set({}, meta={}),
            "got an unexpected keyword argument 'meta'; it is people.set(prop, to)",
        ),
        (
            lambda mengpaneel: mengpaneel.people.track_charge(),
            "missing a required argument: 'amount'; it is"
            " people.track_charge(amount, properties=None)",
        ),
    ],
)
def test_arguments_that_do_not_fit_are_told_the_form_of_the_call(
    call: c.Callable[[t.Any], None], says: str
) -> None:
    site = Site(testing=True)
    site.view("/", lambda: call(site.mengpaneel))

    with pytest.raises(TypeError) as error:
        site.client().get("/")

    assert f" was not recorded: {says} (" in str(error.value)


def test_the_line_is_the_app_s_own_wherever_it_calls_from(
    caplog: pytest.LogCaptureFixture,
) -> None:
    site = Site(testing=False)

    with site.app.app_context(), Manager(identify="0") as manager:
        line = inspect.currentframe().f_lineno - 1  # type: ignore[union-attr]
        mapped = list(map(manager.track, [""]))

    assert mapped == [None]
    found = [record.message for record in caplog.records]
    assert [f":{line}" in found[0], f":{line + 2}" in found[1]] == [True, True]
    assert all(os.path.relpath(__file__) in message for message in found)


def test_where_no_line_is_the_app_s_the_library_s_is_told() -> None:
    with ThreadPoolExecutor(1) as pool:
        assert "concurrent" in pool.submit(source.place_of_call).result()


@pytest.mark.parametrize("inspector", [False, True])
def test_a_call_needs_no_working_folder(
    inspector: bool,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    site, line = order_site(testing=False, inspector=inspector)
    release = tmp_path / "release"
    release.mkdir()
    monkeypatch.chdir(release)
    release.rmdir()

    assert site.client("curl/8.5.0").post("/orders/7").status_code == 200
    assert f"{__file__}:{line}" in caplog.text
    assert [call.event for call in site.kept.calls] == ["Place Order"]


def test_a_message_repeats_little_of_what_is_wrong(
    caplog: pytest.LogCaptureFixture,
) -> None:
    site = Site(testing=False)

    with site.app.app_context(), Manager() as manager:
        manager.track("A" * 10_000, {f"{n}" * 1_000: BAD for n in range(1_000)})
        manager.track("A", ["x" * 100_000])
        manager.people.set({"a\nb": BAD, "c": 1})

    assert all(len(record.message) < 2_000 for record in caplog.records)
    assert "and 997 more" in caplog.records[0].message
    assert r"'a\nb' was not recorded" in caplog.records[2].message
