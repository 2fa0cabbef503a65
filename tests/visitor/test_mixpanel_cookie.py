from __future__ import annotations

import datetime as dt
import inspect
import json
import typing as t
from email.utils import parsedate_to_datetime
from http.cookies import SimpleCookie
from urllib.parse import quote, unquote

import pytest
from flask import Flask, Response, request
from hypothesis import assume, given
from hypothesis import strategies as st

from flask_mengpaneel.calls import Call
from flask_mengpaneel.config import Config
from flask_mengpaneel.identity import Identity
from flask_mengpaneel.values import plain
from flask_mengpaneel.visitor import mixpanel_cookie
from flask_mengpaneel.visitor.persistence import Persistence
from sites import ANN, COOKIE

# As the library writes it after `identify("user-1")`, made shorter.
REAL = (
    "%7B%22distinct_id%22%3A%22user-1%22%2C%22%24device_id%22%3A%22b6beb46a-0714-453f-"
    "a48c-2799ae4f12c6%22%2C%22__mps%22%3A%7B%7D%2C%22__mpso%22%3A%7B%7D%2C%22utm_"
    "source%22%3A%22news%22%2C%22%24initial_referrer%22%3A%22%24direct%22%2C%22%24user"
    "_id%22%3A%22user-1%22%7D"
)
DEVICE = "b6beb46a-0714-453f-a48c-2799ae4f12c6"


def call(name: str, *arguments: t.Any) -> Call:
    return Call([[name], list(arguments)])


# -- reading


def test_the_library_s_cookie_is_read() -> None:
    cookie = mixpanel_cookie.read(REAL)

    assert cookie["utm_source"] == "news"
    assert Identity.from_cookie(cookie) == Identity(DEVICE, "user-1")


@given(st.text('%=0123456789aAbBcCdDeEfF "{}[]:,$/\u00e9\r\n', max_size=60))
def test_what_is_escaped_is_read_as_any_other_library_reads_it(text: str) -> None:
    value = "%7B%22a%22%3A%22" + text + "%22%7D"

    try:
        right = json.loads(unquote(value, errors="strict"))
    except ValueError:
        right = {}

    assert mixpanel_cookie.read(value) == plain(right)


@pytest.mark.parametrize(
    ("value", "is_kept"),
    [
        ([[[[]]]], True),
        ([[[[1]]]], True),
        ([[[[[]]]]], False),
        ({"[]": [[[["{}"]]]]}, False),
        ({"{}{}[]": [[["[[[["]]]}, True),
    ],
)
def test_how_deep_a_value_is_doesn_t_depend_on_brackets_in_texts(
    value: t.Any, is_kept: bool
) -> None:
    others = {"{}{}{}{}{}": "[][][][][]", "__mps": {}, "$user_id": "ada"}
    cookie = mixpanel_cookie.read(quote(json.dumps({**others, "deep": value})))

    assert cookie == others | ({"deep": value} if is_kept else {})


@pytest.mark.parametrize(
    "value",
    [
        "",
        "garbage",
        "%7B",
        "%FF%FE",
        "%",
        "[]",
        "null",
        "1",
        '"text"',
        "{'a': 1}",
        quote('{"a": NaN}'),
        quote('{"a": Infinity}'),
        quote("{" * 5_000),
        quote("[" * 8_000),
        quote('{"a": 1' + "0" * 9_000 + "}"),
        quote(json.dumps({"a": "x" * 10_000})),
        "\udcff\udcfe",
        "\0",
    ],
    ids=range(18),
)
def test_what_is_no_cookie_of_the_library_is_empty(value: str) -> None:
    assert mixpanel_cookie.read(value) == {}


def at_depth(depth: int, use: t.Callable[[], t.Any]) -> t.Any:
    return use() if depth == 0 else at_depth(depth - 1, use)


DEEP = {
    "lists": "[" * 500 + "]" * 500,
    "dicts": '{"a":' * 500 + "1" + "}" * 500,
    "wide": "[1," * 500 + "[],[]" + ",2]" * 500,
    "texts": '["}]\\"[{",' * 150 + "1" + "]" * 150,
    "just too deep": "[" * 5 + "]" * 5,
}


@pytest.mark.parametrize("stack", [0, 300, 600, 900])
@pytest.mark.parametrize("deep", DEEP.values(), ids=list(DEEP))
def test_what_is_nested_deeply_costs_nobody_the_ids(deep: str, stack: int) -> None:
    text = f'{{"distinct_id":"ann","deep":{deep},"$user_id":"ann","a":{{"b":[1]}}}}'
    stack -= min(stack, len(inspect.stack()))
    cookie = at_depth(stack, lambda: mixpanel_cookie.read(quote(text)))

    assert cookie == {"distinct_id": "ann", "$user_id": "ann", "a": {"b": [1]}}


def test_a_cookie_that_never_comes_back_from_the_depth_is_none() -> None:
    text = '{"distinct_id":"ann","deep":' + "[" * 3_000

    assert mixpanel_cookie.read(quote(text)) == {}


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("1524831183200260000", 1524831183200260096.0),
        ("-1524831183200260097", -1524831183200260096.0),
        ("9007199254740991", 9007199254740991.0),
        ("1700000000000", 1700000000000),
    ],
)
def test_a_number_of_the_cookie_is_the_browser_s(written: str, expected: float) -> None:
    cookie = mixpanel_cookie.read(quote(f'{{"a":{written},"b":[{written}]}}'))

    assert cookie == {"a": expected, "b": [expected]}


def test_a_number_that_no_browser_has_costs_only_itself() -> None:
    text = '{"a":1' + "0" * 5_000 + ',"b":-1' + "0" * 400 + ',"distinct_id":"ann"}'

    assert mixpanel_cookie.read(quote(text)) == {"distinct_id": "ann"}


@given(
    st.dictionaries(
        st.text("a\u00e9\\\ud800{}[]", max_size=4),
        st.recursive(
            st.sampled_from(
                ["1", "-0", "-0.0", "1e999", "-1e999", "NaN", "-Infinity", "1" * 16]
                + [
                    "9" * 400,
                    "true",
                    "null",
                    "{}",
                    "[]",
                    '"\u00e9"',
                    '"[{"',
                    '"\\ud800"',
                ]
            ),
            lambda values: (
                values.map(lambda value: f"[1,{value}]")
                | values.map(lambda value: f'{{"a":{value}}}')
            ),
        ),
        max_size=4,
    )
)
def test_a_cookie_s_values_are_those_of_a_cookie_that_is_looked_at_one_by_one(
    written: dict[str, str],
) -> None:
    items = (f"{json.dumps(name)}:{value}" for name, value in written.items())
    text = "{" + ",".join(items) + "}"
    cookie = mixpanel_cookie.read(quote(text))

    # The library writes no space, so that this one can't be seen to be its own.
    assert repr(cookie) == repr(mixpanel_cookie.read(quote(f" {text}")))
    assert repr(cookie) == repr(plain(cookie))


@given(st.text() | st.binary().map(lambda value: quote(value)))
def test_reading_never_raises(value: str) -> None:
    cookie = mixpanel_cookie.read(value)

    assert isinstance(cookie, dict)
    Identity.from_cookie(cookie)
    Persistence(cookie, Identity())


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
    max_leaves=4,
)


@given(
    st.dictionaries(
        st.sampled_from(["distinct_id", "$device_id", "$user_id", "__timers", "a"]),
        values,
    )
)
def test_forged_ids_are_texts_of_sane_size_or_nothing(cookie: dict[str, t.Any]) -> None:
    identity = Identity.from_cookie(cookie)

    for id in (identity.device_id, identity.user_id, identity.other_id):
        assert id is None or (isinstance(id, str) and 0 < len(id) <= 255)

    assert Identity.from_json(json.loads(json.dumps(identity.to_json()))) == identity


@pytest.mark.parametrize(
    ("cookie", "identity"),
    [
        ({}, Identity()),
        ({"distinct_id": f"$device:{DEVICE}"}, Identity(DEVICE)),
        (
            {"distinct_id": f"$device:{DEVICE}", "$device_id": DEVICE},
            Identity(DEVICE),
        ),
        # `identify(42)` of a page keeps the number.
        ({"distinct_id": 42, "$user_id": 42}, Identity(None, "42")),
        # Of 1524831183200260097, which it has rounded.
        (
            mixpanel_cookie.read(quote('{"distinct_id":1524831183200260000}')),
            Identity(None, None, "1524831183200260000"),
        ),
        ({"distinct_id": "x" * 255}, Identity(None, None, "x" * 255)),
        ({"distinct_id": "😀" * 127}, Identity(None, None, "😀" * 127)),
        ({"distinct_id": "😀" * 128}, Identity()),
        ({"$user_id": "👩\u200d💻"}, Identity(None, "👩\u200d💻")),
        ({"$user_id": "a\xa0b\u3000c\u200f"}, Identity(None, "a\xa0b\u3000c\u200f")),
        ({"$user_id": "\u3000"}, Identity()),
        ({"$user_id": "a\x85b"}, Identity()),
        # After `alias("ann")` the old id stays.
        (
            {"distinct_id": "$device:d1", "$device_id": "d1", "$user_id": "ann"},
            Identity("d1", "ann"),
        ),
        # A library from before there were device ids.
        ({"distinct_id": "16a2b"}, Identity(None, None, "16a2b")),
        ({"distinct_id": "x" * 256}, Identity()),
        ({"distinct_id": ""}, Identity()),
        ({"distinct_id": None, "$device_id": [], "$user_id": {}}, Identity()),
        ({"distinct_id": True}, Identity()),
        ({"distinct_id": 2**100}, Identity()),
        ({"$user_id": "a\r\nb"}, Identity()),
        ({"$user_id": "a\0b"}, Identity()),
        ({"$user_id": "\ud800"}, Identity()),
        ({"distinct_id": "$device:"}, Identity()),
        ({"distinct_id": "Anonymous", "$user_id": "null"}, Identity()),
    ],
    ids=range(24),
)
def test_ids_are_read_from_the_cookie(
    cookie: dict[str, t.Any], identity: Identity
) -> None:
    assert Identity.from_cookie(cookie) == identity


def test_whoever_is_identified_keeps_the_device() -> None:
    identity = Identity("d1")

    assert identity.after([call("identify", "ann")]) == Identity("d1", "ann")
    assert identity.after([call("identify", "ann"), call("reset")]) == Identity()
    assert identity.after([call("track", "A", {})]) == identity


def test_nobody_has_no_ids() -> None:
    assert not Identity()
    assert Identity().properties == {}
    assert Identity().distinct_id == ""


# -- writing


def written(
    cookie: dict[str, t.Any],
    host: str = "shop.example.com",
    cookies: str | None = None,
    **options: t.Any,
) -> t.Any:
    config = Config(token="token", client_config=options)
    response = Response()

    headers = {} if cookies is None else {"Cookie": cookies}
    url = f"https://{host}/"

    with Flask("shop").test_request_context(base_url=url, headers=headers):
        mixpanel_cookie.write(
            response,
            request._get_current_object(),  # type: ignore[attr-defined]
            config,
            cookie,
        )

    header = response.headers.get("Set-Cookie")
    return SimpleCookie(header)[COOKIE] if header else None


def test_the_cookie_is_written_as_the_library_would() -> None:
    cookie = {"distinct_id": "$device:d1", "a": "ä😀;,\"'() \\%", "n": [1, None, True]}
    morsel = written(cookie)

    assert json.loads(unquote(morsel.value)) == cookie
    assert mixpanel_cookie.read(morsel.value) == cookie
    assert morsel["path"] == "/"
    assert morsel["domain"].lstrip(".") == "example.com"
    assert not morsel["httponly"]
    assert not morsel["secure"]
    assert not morsel["samesite"]
    days = parsedate_to_datetime(morsel["expires"]) - dt.datetime.now(dt.UTC)
    assert dt.timedelta(days=364.9) < days <= dt.timedelta(days=365)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:5000", "[::1]:5000"])
def test_a_host_without_a_domain_gets_a_cookie_of_its_own(host: str) -> None:
    assert not written({"a": 1}, host)["domain"]


def test_the_options_of_the_library_s_cookie_are_followed() -> None:
    assert not written({}, cross_subdomain_cookie=False)["domain"]
    assert written({}, cookie_domain="shop.example.com")["domain"].lstrip(".") == (
        "shop.example.com"
    )
    assert written({}, secure_cookie=True)["secure"]
    cross_site = written({}, cross_site_cookie=True)
    assert cross_site["secure"]
    assert cross_site["samesite"].lower() == "none"
    assert not written({}, cookie_expiration=0)["expires"]
    soon = parsedate_to_datetime(written({}, cookie_expiration=1)["expires"])
    assert soon - dt.datetime.now(dt.UTC) <= dt.timedelta(days=1)


@pytest.mark.parametrize("days", ["365", None, [], -5, 1e300])
def test_odd_options_break_nothing(days: t.Any) -> None:
    assert written({"a": 1}, cookie_expiration=days) is not None


def test_a_cookie_with_room_for_all_has_all() -> None:
    full = {**ANN, "a": "x" * 3_900}

    assert mixpanel_cookie.read(written(full).value) == full


@pytest.mark.parametrize(
    ("more", "left_out"),
    [
        ({"a": "x" * 4_200, "b": 1}, {"a"}),
        ({"b": 1, "a": "ä" * 900}, {"a"}),
        ({"b": 1, "a": "x" * 3_000, "c": "x" * 2_000}, {"a"}),
        ({"b": 1, "a": "x" * 5_000, "c": "x" * 4_200}, {"a", "c"}),
        # Of those that are as large, the oldest.
        ({"c": "x" * 1_500, "d": "x" * 1_500, "a": "x" * 1_500}, {"c"}),
        # Calls that the library has still to make are the last to go.
        ({"a": "x" * 500, "__mpap": [{"b": "x" * 3_600}]}, {"a"}),
        ({"a": "x" * 500, "__mpap": [{"b": "x" * 4_400}]}, {"a", "__mpap"}),
        ({"x" * 4_200: 1, "b": 1}, {"x" * 4_200}),
    ],
    ids=range(8),
)
def test_what_there_is_no_room_for_is_left_out_and_never_the_ids(
    more: dict[str, t.Any], left_out: set[str], caplog: pytest.LogCaptureFixture
) -> None:
    morsel = written({**ANN, **more})
    cookie = mixpanel_cookie.read(morsel.value)

    assert len(COOKIE) + 1 + len(morsel.value) <= 4096
    assert {**ANN, **more}.items() >= {
        name: value for name, value in cookie.items() if name != "__timers"
    }.items()
    assert more.keys() - cookie.keys() == left_out
    assert Identity.from_cookie(cookie) == Identity("d1", "ann")
    assert f"no room for {len(left_out)} properties" in caplog.text


@pytest.mark.parametrize("count", [200, 100_000])
def test_of_many_properties_as_many_are_kept_as_there_is_room_for(count: int) -> None:
    more = {f"name{number:06}": "ä" for number in range(count)}
    morsel = written({**ANN, **more})
    cookie = mixpanel_cookie.read(morsel.value)

    assert ANN.items() <= cookie.items()
    assert f"name{count - 1:06}" in cookie
    assert 4_000 < len(COOKIE) + 1 + len(morsel.value) <= 4096


def test_of_many_clocks_the_latest_are_kept() -> None:
    clocks = {f"Event {number:03}": 1_700_000_000_000 + number for number in range(200)}
    morsel = written({**ANN, "Plan": "pro", "__timers": clocks})
    cookie = mixpanel_cookie.read(morsel.value)
    kept = list(cookie["__timers"])  # type: ignore[arg-type]

    assert ANN.items() <= cookie.items()
    assert cookie["Plan"] == "pro"
    assert kept == list(clocks)[-len(kept) :]
    assert len(kept) > 20


@pytest.mark.parametrize("id", ["x" * 255, "ä" * 255, "漢" * 255, "😀" * 127])
def test_an_id_of_any_size_fits(id: str) -> None:
    cookie = Persistence({"a": "x" * 3_000}, Identity("d1", id)).to_cookie()
    morsel = written(cookie)

    assert len(COOKIE) + 1 + len(morsel.value) <= 4096
    read = Identity.from_cookie(mixpanel_cookie.read(morsel.value))
    assert read.distinct_id == id


@pytest.mark.parametrize("others", [0, 3_000, 5_000, 7_000, 20_000])
def test_all_cookies_of_a_visitor_stay_small_enough_for_servers(others: int) -> None:
    header = f"other={'x' * others}; {COOKIE}={REAL}"
    morsel = written({**ANN, "a": "x" * 900, "b": "x" * 2_500}, cookies=header)
    size = len(morsel.value)

    assert ANN.items() <= mixpanel_cookie.read(morsel.value).items()
    assert others + size < 8_100 or size < 1_100
    assert size > min(1_000, 7_000 - others)


@given(st.dictionaries(st.text(max_size=5), values.filter(lambda v: v == v)))
def test_what_is_written_is_read_again(cookie: dict[str, t.Any]) -> None:
    try:
        text = json.dumps(plain(cookie), allow_nan=False)
        text.encode("utf-8")
        json.dumps(cookie, ensure_ascii=False).encode("utf-8")
    except ValueError:
        return

    # What there is no room for is left out: see above.
    assume(len(quote(text)) < 3_000)
    assert mixpanel_cookie.read(written(json.loads(text)).value) == json.loads(text)
