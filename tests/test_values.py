from __future__ import annotations

import collections
import collections.abc as c
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import inspect
import json
import math
import typing as t
import uuid
from collections import UserList
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup
from werkzeug.datastructures import MultiDict
from werkzeug.local import LocalProxy

from case_ids import case_id
from flask_mengpaneel.calls import dumps
from flask_mengpaneel.values import Id, identifier, plain


class Plan(enum.Enum):
    PRO = "pro"
    LIMITS = (1, 2)


class Size(enum.IntEnum):
    LARGE = 3


class Color(enum.StrEnum):
    RED = "red"


class Snowflake(enum.IntEnum):
    LARGE = 1524831183200260097


class Number(int):
    """What some libraries give for an integer."""


@dataclasses.dataclass
class Address:
    city: str
    since: dt.date


@dataclasses.dataclass
class User:
    name: str
    address: Address


class LazyText:
    """What a translation library gives: a text that is made when it is asked for."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __str__(self) -> str:
        return self._text

    def __getattr__(self, name: str) -> t.Any:
        return getattr(self._text, name)


class Html:
    def __html__(self) -> str:
        return "<b>bold</b>"

    def __str__(self) -> str:
        return "bold"


BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (0, 0),
        (2**53 - 1, 9007199254740991),
        (1 - 2**53, -9007199254740991),
        # An id of a tweet: a browser would make ...260096 of it.
        (1524831183200260097, "1524831183200260097"),
        (-1524831183200260097, "-1524831183200260097"),
        (2**53, "9007199254740992"),
        (20 * 10**18, "20000000000000000000"),
        (-(2**70), "-1180591620717411303424"),
        ([2**53, {"id": 2**64}], ["9007199254740992", {"id": "18446744073709551616"}]),
        (Number(2**60), "1152921504606846976"),
        (Number(7), 7),
        (Snowflake.LARGE, "1524831183200260097"),
        (decimal.Decimal("1524831183200260097"), "1524831183200260097"),
        (decimal.Decimal(7), 7),
        (decimal.Decimal("7.0"), 7.0),
        (decimal.Decimal("1E+3"), 1000.0),
        (2.0**60, 2.0**60),
        (1e22, 1e22),
        (fractions.Fraction(2**60), 2.0**60),
        (1.5, 1.5),
        ("Grüße", "Grüße"),
        ([1, [2]], [1, [2]]),
        ((1, "a"), [1, "a"]),
        ({"a": {"b": 1}}, {"a": {"b": 1}}),
        ({1: "a", None: "b", Plan.PRO: "c"}, {"1": "a", "None": "b", "pro": "c"}),
        ({2, 1, 3}, [1, 2, 3]),
        (frozenset({"b", "a"}), ["a", "b"]),
        (collections.deque([1, 2]), [1, 2]),
        (range(3), [0, 1, 2]),
        (collections.OrderedDict(a=1), {"a": 1}),
        (MultiDict([("a", "1")]), {"a": "1"}),
        (dt.datetime(2026, 11, 21, 9, 30), "2026-11-21T09:30:00"),
        (dt.datetime(2026, 11, 21, 9, 30, 0, 999999), "2026-11-21T09:30:00"),
        (dt.datetime(2026, 11, 21, 9, 30, tzinfo=BERLIN), "2026-11-21T08:30:00"),
        (dt.datetime(2026, 11, 21, 9, 30, tzinfo=dt.UTC), "2026-11-21T09:30:00"),
        (dt.datetime(812, 1, 2, 3, 4, 5), "0812-01-02T03:04:05"),
        (dt.date(2026, 11, 21), "2026-11-21"),
        (decimal.Decimal("19.90"), 19.9),
        (fractions.Fraction(1, 4), 0.25),
        (
            uuid.UUID("12345678-1234-5678-1234-567812345678"),
            "12345678-1234-5678-1234-567812345678",
        ),
        (Plan.PRO, "pro"),
        (Plan.LIMITS, [1, 2]),
        (Size.LARGE, 3),
        (Color.RED, "red"),
        (Markup("<b>bold</b>"), "<b>bold</b>"),
        (Html(), "bold"),
        (LazyText("Hallo"), "Hallo"),
        (LocalProxy(lambda: "Hallo"), "Hallo"),
        (LocalProxy(lambda: 42), 42),
        (
            User("Ann", Address("Rome", dt.date(2020, 1, 1))),
            {"name": "Ann", "address": {"city": "Rome", "since": "2020-01-01"}},
        ),
    ],
    ids=case_id,
)
def test_values_become_plain_json(value: t.Any, expected: t.Any) -> None:
    result = plain(value)

    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize("value", [Number(7), Size.LARGE])
def test_integers_of_other_types_become_plain_integers(value: t.Any) -> None:
    assert type(plain(value)) is int
    assert type(plain([value])[0]) is int


@pytest.mark.parametrize("value", [-0.0, [-0.0], {"a": -0.0}, decimal.Decimal("-0.0")])
def test_zero_has_no_sign(value: t.Any) -> None:
    assert "-" not in dumps(plain(value))


@pytest.mark.parametrize("value", [Color.RED, Markup("text"), LazyText("text")])
def test_texts_of_other_types_become_plain_texts(value: t.Any) -> None:
    assert type(plain(value)) is str


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        math.inf,
        -math.inf,
        decimal.Decimal("NaN"),
        decimal.Decimal("sNaN"),
        decimal.Decimal("-Infinity"),
        [1, {"a": math.nan}],
    ],
    ids=case_id,
)
def test_what_is_no_number_is_refused(value: t.Any) -> None:
    with pytest.raises(ValueError, match=r"(?i)nan|inf"):
        plain(value)


@pytest.mark.parametrize(
    "value",
    [
        10**309,
        -(10**309),
        10**5_000,
        [10**5_000],
        {"a": {"b": 10**5_000}},
        {10**5_000: 1},
        {1: 10**5_000},
        decimal.Decimal("1e400"),
        decimal.Decimal("1e999999999"),
        decimal.Decimal("9" * 5_000),
        fractions.Fraction(10**400),
    ],
    ids=range(11),
)
def test_what_is_too_large_for_a_number_is_refused_where_it_is_written(
    value: t.Any,
) -> None:
    with pytest.raises(ValueError):
        plain(value)


@pytest.mark.parametrize("moment", [dt.datetime.min, dt.datetime.max])
def test_a_time_that_utc_does_not_have_is_refused(moment: dt.datetime) -> None:
    assert plain(moment) == moment.isoformat(timespec="seconds")
    away = 14 if moment == dt.datetime.min else -12
    zone = dt.timezone(dt.timedelta(hours=away))

    with pytest.raises(ValueError, match="in UTC its year"):
        plain({"a": [moment.replace(tzinfo=zone)]})


def test_the_refusal_of_a_large_integer_says_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="an integer of 16610 bits .* too large"):
        plain(10**5_000)


@pytest.mark.parametrize(
    "value",
    [b"bytes", bytearray(b"x"), memoryview(b"x"), object(), 1j, User, len, iter([])],
    ids=case_id,
)
def test_what_cannot_be_sent_is_refused_with_its_type(value: t.Any) -> None:
    with pytest.raises(TypeError, match=type(value).__name__):
        plain({"a": [value]})


def test_a_value_that_contains_itself_is_refused() -> None:
    value: list[t.Any] = []
    value.append(value)

    with pytest.raises(ValueError, match="contains itself"):
        plain(value)


@dataclasses.dataclass
class Node:
    inner: t.Any


class Endless(c.Sequence[t.Any]):
    """One that says that it has nothing in it."""

    def __len__(self) -> int:
        return 0

    def __getitem__(self, index: t.Any) -> t.Any:
        return index


class Within(c.Sequence[t.Any]):
    """One in another in another..."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: t.Any) -> t.Any:
        if index:
            raise IndexError

        return Within()


class AsMapping(c.Mapping[str, t.Any]):
    def __init__(self, value: t.Any) -> None:
        self._value = value

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> c.Iterator[str]:
        return iter("a")

    def __getitem__(self, name: str) -> t.Any:
        return self._value


def within(wrap: c.Callable[[t.Any], t.Any], depth: int) -> t.Any:
    value: t.Any = 1

    for _ in range(depth):
        value = wrap(value)

    return value


WRAPS: list[c.Callable[[t.Any], t.Any]] = [
    lambda value: [value],
    lambda value: (value,),
    lambda value: {"a": value},
    lambda value: frozenset([value]) if isinstance(value, int) else (value,),
    lambda value: collections.deque([value]),
    Node,
    AsMapping,
]


def at_depth(depth: int, use: c.Callable[[], t.Any]) -> t.Any:
    return use() if depth == 0 else at_depth(depth - 1, use)


@pytest.mark.parametrize("stack", [0, 900])
@pytest.mark.parametrize("wrap", WRAPS, ids=range(len(WRAPS)))
def test_how_deep_a_value_may_be_is_the_same_everywhere(
    wrap: c.Callable[[t.Any], t.Any], stack: int
) -> None:
    stack -= min(stack, len(inspect.stack()))
    result = at_depth(stack, lambda: plain(within(wrap, 32)))
    assert dumps(result).count("1") == 1

    for depth in (34, 500, 5_000):
        value = within(wrap, depth)

        with pytest.raises(ValueError, match="nested too deeply"):
            at_depth(stack, lambda value=value: plain(value))


@pytest.mark.parametrize(
    "value",
    [Endless(), Within(), {"a": Endless()}, range(10**12), [range(10**12)]],
    ids=range(5),
)
def test_what_never_ends_is_refused(value: t.Any) -> None:
    with pytest.raises(ValueError, match="values in it|nested too deeply"):
        plain(value)


def test_what_is_twice_as_much_with_each_list_is_refused() -> None:
    with pytest.raises(ValueError, match="more than 500000 values"):
        plain(within(lambda value: [value, value], 30))


@pytest.mark.parametrize("value", [Node(1), AsMapping(1), UserList([1])], ids=case_id)
def test_what_contains_itself_by_way_of_another_kind_is_refused(value: t.Any) -> None:
    if isinstance(value, Node):
        value.inner = {"a": [value]}
    elif isinstance(value, AsMapping):
        value._value = (value,)
    else:
        value.append([value])

    with pytest.raises(ValueError, match="contains itself"):
        plain(value)


def test_much_that_is_not_deep_is_taken() -> None:
    value = {f"name{number}": number for number in range(100_000)}
    assert plain(value) == value
    assert plain({"a": value, "b": "x" * 5_000_000})["a"] == value


class Failing:
    def __html__(self) -> str:
        raise LookupError("no translation")

    __str__ = __html__


def test_what_an_object_raises_comes_through() -> None:
    with pytest.raises(LookupError, match="no translation"):
        plain({"a": [Failing()]})


def test_the_result_is_a_copy() -> None:
    inner = {"a": 1}
    value = {"inner": inner, "list": [inner]}
    result = plain(value)
    inner["a"] = 2

    assert result == {"inner": {"a": 1}, "list": [{"a": 1}]}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\ud800b", "a\ufffdb"),
        ("\udc00", "\ufffd"),
        ("\ud83d\ude00", "😀"),
        ("😀", "😀"),
        ("\u2028</script><!--", "\u2028</script><!--"),
        ("\0", "\0"),
    ],
    ids=ascii,
)
def test_every_text_has_an_encoding_afterwards(text: str, expected: str) -> None:
    assert plain(text) == expected
    assert plain({text: [text]}) == {expected: [expected]}


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(1 - 2**53, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
)


@given(json_values)
def test_in_a_browser_all_values_are_the_same(value: t.Any) -> None:
    # JavaScript has no other numbers than these.
    written = dumps(plain(value))
    assert json.loads(written, parse_int=float) == json.loads(written)


@given(json_values)
def test_json_values_stay_as_they_are(value: t.Any) -> None:
    assert plain(value) == value


anything = st.recursive(
    st.none()
    | st.floats()
    | st.integers()
    | st.text(st.characters())
    | st.binary()
    | st.decimals()
    | st.datetimes()
    | st.datetimes(timezones=st.timezones())
    | st.dates()
    | st.uuids()
    | st.fractions()
    | st.complex_numbers()
    | st.timedeltas()
    | st.sampled_from(Plan),
    lambda values: (
        st.lists(values)
        | st.tuples(values, values)
        | st.dictionaries(st.text() | st.integers() | st.none(), values)
        | st.frozensets(st.integers() | st.text())
    ),
)


@given(anything)
def test_every_value_is_plain_json_or_refused(value: t.Any) -> None:
    try:
        result = plain(value)
    except (TypeError, ValueError):
        return

    written = dumps(result)
    assert written.isascii()
    assert json.loads(written, parse_constant=pytest.fail) == result
    assert plain(result) == result


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("ann", "ann"),
        (42, "42"),
        (42.5, "42.5"),
        (Size.LARGE, "3"),
        (Color.RED, "red"),
        (
            uuid.UUID("12345678-1234-5678-1234-567812345678"),
            "12345678-1234-5678-1234-567812345678",
        ),
        (LazyText("ann"), "ann"),
        (LocalProxy(lambda: 42), "42"),
        (1524831183200260097, "1524831183200260097"),
        (10**30, "1" + "0" * 30),
    ],
    ids=lambda value: type(value).__name__ + repr(value)[:8],
)
def test_ids_become_texts(value: t.Any, expected: str) -> None:
    assert identifier(value, "an id") == expected


def test_what_is_in_the_name_of_a_property_is_not_made_plain() -> None:
    """It may have such names itself, which would double the work each time."""

    class Opaque(dict[str, int]):
        def items(self) -> t.NoReturn:  # type: ignore[override]
            raise AssertionError("nobody asks what is in it")

    class Key(enum.Enum):
        KEY = Opaque(a=1)

    assert plain({Key.KEY: 2}) == {"{'a': 1}": 2}


def test_type_checkers_know_of_the_kinds_of_ids() -> None:
    class Company(enum.Enum):
        ACME = "acme"

    ids = ["ann", 42, decimal.Decimal(42), uuid.uuid4(), Company.ACME]

    for kind, one in zip(t.get_args(Id), ids, strict=True):
        assert isinstance(one, kind)
        assert identifier(one, "an id")


def test_an_id_of_the_database_s_own_number_type_is_the_integer_s_text() -> None:
    # Oracle and others give all numbers as Decimal; 42 and 42.0 would be two people.
    assert identifier(decimal.Decimal("42"), "an id") == "42"
    assert identifier(decimal.Decimal("9007199254740993"), "an id") == (
        "9007199254740993"
    )


@pytest.mark.parametrize("value", [None, True, [], {}, object(), b"ann"], ids=case_id)
def test_what_is_no_id_is_refused(value: t.Any) -> None:
    with pytest.raises(TypeError):
        identifier(value, "an id")


@pytest.mark.parametrize(
    "value", [math.nan, decimal.Decimal("NaN"), 10**5_000], ids=range(3)
)
def test_what_is_no_number_is_no_id(value: t.Any) -> None:
    with pytest.raises(ValueError):
        identifier(value, "an id")


@pytest.mark.parametrize("value", ["", " ", "\n", "\u3000", "\xa0\u2003"])
def test_an_empty_id_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="an id is empty"):
        identifier(value, "an id")
