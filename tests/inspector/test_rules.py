"""Mixpanel's documented rules."""

from __future__ import annotations

import base64
import gzip
import json
import typing as t
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_mengpaneel.inspector.rules import (
    FORBIDDEN_IDS,
    MAX_RECORDS,
    MAX_REQUEST,
    Answer,
    ingest,
)

NOW = 1_790_000_000.0
BASIC = {"Authorization": "Basic " + base64.b64encode(b"token:").decode()}


def event(**properties: t.Any) -> dict[str, t.Any]:
    found = {
        "token": "token",
        "time": NOW - 1,
        "distinct_id": "ada",
        "$insert_id": "0123456789abcdef",
        **properties,
    }
    return {"event": "Place Order", "properties": found}


def without(name: str) -> dict[str, t.Any]:
    made = event()
    del made["properties"][name]
    return made


def update(**operations: t.Any) -> dict[str, t.Any]:
    return {"$token": "token", "$distinct_id": "ada", **operations}


def send(
    endpoint: str,
    value: t.Any,
    query: dict[str, str] | None = None,
    headers: dict[str, str] | None = None,
) -> Answer:
    headers = {**(BASIC if endpoint == "import" else {}), **(headers or {})}
    return ingest(endpoint, query or {}, headers, json.dumps(value).encode(), NOW)


def encoded(value: t.Any) -> str:
    return base64.b64encode(json.dumps(value).encode()).decode()


def problem(endpoint: str, value: t.Any) -> str:
    return send(endpoint, value).records[0].problem


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (json.dumps([event()]), "application/json"),
        (json.dumps(event()), "application/json"),
        ("data=" + quote(encoded([event()]), safe=""), "text/plain;charset=UTF-8"),
        ("data=" + encoded([event()]), "application/x-www-form-urlencoded"),
        ("data=" + quote(json.dumps(event())), "application/x-www-form-urlencoded"),
        (json.dumps([event()]), "text/plain"),
        (json.dumps(event()) + "\n", "application/x-ndjson"),
    ],
)
def test_every_encoding_that_the_libraries_use_is_read(
    body: str, content_type: str
) -> None:
    answer = ingest("track", {}, {"Content-Type": content_type}, body.encode(), NOW)

    assert [record.value for record in answer.records] == [event()]
    assert answer.body == b"1"


def test_data_in_the_query_is_read() -> None:
    answer = ingest("track", {"data": encoded(event())}, {}, b"", NOW)

    assert answer.records[0].value == event()


def test_gzip_is_read_for_events() -> None:
    body = gzip.compress(json.dumps([event()]).encode())

    for endpoint in ("track", "import"):
        headers = {"Content-Encoding": "gzip", **BASIC}
        assert ingest(endpoint, {}, headers, body, NOW).records[0].problem == ""


def test_gzip_is_refused_for_profiles() -> None:
    body = gzip.compress(json.dumps([update(**{"$set": {"a": 1}})]).encode())
    answer = ingest("engage", {}, {"Content-Encoding": "gzip"}, body, NOW)

    assert (answer.status, answer.body, answer.records) == (200, b"0", [])
    assert "gzip" in answer.problem


@pytest.mark.parametrize("body", [b"not gzip", gzip.compress(b"[" * 900, mtime=0)[:-9]])
def test_broken_gzip_is_refused(body: bytes) -> None:
    answer = ingest("import", {}, {"Content-Encoding": "gzip", **BASIC}, body, NOW)

    assert answer.status == 400
    assert "gzip" in answer.problem


def test_a_small_body_that_unpacks_to_a_huge_one_is_too_large() -> None:
    body = gzip.compress(b" " * 50_000_000)
    answer = ingest("import", {}, {"Content-Encoding": "gzip", **BASIC}, body, NOW)

    assert answer.status == 413


def test_parameters_in_a_form_count() -> None:
    body = f"data={quote(json.dumps(event()))}&verbose=1&ip=0".encode()
    answer = ingest("track", {}, {}, body, NOW)

    assert json.loads(answer.body) == {"status": 1, "error": None}


def test_the_short_answer_is_one_or_zero() -> None:
    assert send("track", [event()]).body == b"1"
    assert send("track", [without("token")]).body == b"0"


def test_one_good_record_is_enough_for_a_one() -> None:
    assert send("track", [without("token"), event()]).body == b"1"


def test_verbose_tells_why() -> None:
    answer = send("track", without("token"), {"verbose": "1"})

    assert answer.status == 200
    assert json.loads(answer.body) == {
        "status": 0,
        "error": "'properties.token' is invalid: missing or empty",
    }


def test_profiles_answer_200_to_invalid_data() -> None:
    answer = ingest("engage", {"verbose": "1"}, {}, b"nonsense", NOW)

    assert answer.status == 200
    assert json.loads(answer.body)["status"] == 0


def test_an_image_is_answered_with_one() -> None:
    answer = ingest("track", {"data": encoded(event()), "img": "1"}, {}, b"", NOW)

    assert answer.content_type == "image/gif"
    assert answer.body.startswith(b"GIF89a")


def test_a_callback_is_called_and_nothing_else_is_run() -> None:
    assert send("track", event(), {"callback": "done"}).body == b"done(1);"
    assert send("track", event(), {"callback": "alert(1)//"}).body == b"1"


def test_import_counts_what_it_took() -> None:
    answer = send("import", [event(), event()], {"strict": "1"})

    assert answer.status == 200
    assert json.loads(answer.body) == {
        "code": 200,
        "num_records_imported": 2,
        "status": "OK",
    }


def test_strict_names_each_failed_record_and_takes_the_others() -> None:
    answer = send("import", [event(), event(time="today"), event()], {"strict": "1"})

    assert answer.status == 400
    assert json.loads(answer.body) == {
        "code": 400,
        "error": "some data points in the request failed validation",
        "failed_records": [
            {
                "index": 1,
                "$insert_id": "0123456789abcdef",
                "field": "properties.time",
                "message": "'properties.time' is invalid: must be specified as seconds"
                " since epoch",
            }
        ],
        "num_records_imported": 2,
        "status": "Bad Request",
    }


def test_import_that_is_not_strict_answers_200_all_the_same() -> None:
    answer = send("import", [event(), event(time="today")])

    assert answer.status == 200
    assert json.loads(answer.body)["num_records_imported"] == 1


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ({}, {}),
        ({"Authorization": "Basic !!"}, {}),
        ({"Authorization": "Bearer token"}, {}),
        ({"Authorization": "Basic " + base64.b64encode(b":").decode()}, {}),
        ({"Authorization": "Basic " + base64.b64encode(b"user:secret").decode()}, {}),
    ],
)
def test_import_wants_credentials(
    headers: dict[str, str], query: dict[str, str]
) -> None:
    answer = ingest("import", query, headers, json.dumps([event()]).encode(), NOW)

    assert answer.status == 401
    assert json.loads(answer.body)["error"] == "Invalid credentials"


def test_a_service_account_names_its_project() -> None:
    headers = {"Authorization": "Basic " + base64.b64encode(b"user:secret").decode()}

    assert send("import", [event()], {"project_id": "1"}, headers).status == 200


def test_a_request_over_the_limit_is_too_large() -> None:
    many = [event(filler="x" * 500_000) for _ in range(5)]

    for endpoint in ("track", "import"):
        answer = send(endpoint, many)
        assert answer.status == 413
        assert json.loads(answer.body)["error"].endswith(f"{MAX_REQUEST} bytes")


@pytest.mark.parametrize(("count", "status"), [(MAX_RECORDS, 200), (2_001, 413)])
def test_a_envelope_has_2000_records_at_most(count: int, status: int) -> None:
    small = {"event": "a", "properties": {"token": "t", "distinct_id": "b"}}

    assert send("track", [small] * count).status == status


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
    assert problem("import", event(**{name: value})).startswith(f"'properties.{name}'")


def test_an_empty_distinct_id_is_nobody() -> None:
    assert problem("import", event(distinct_id="")) == ""


@pytest.mark.parametrize("value", ["a" * 37, "a b", "a_b", "é", "", "a\n"])
def test_insert_ids_have_a_form(value: str) -> None:
    assert "$insert_id" in problem("import", event(**{"$insert_id": value}))


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
    assert (problem(endpoint, event(time=time)) == "") is taken


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
    assert (problem("import", event(value=value)) == "") is taken


@pytest.mark.parametrize(("count", "taken"), [(254, True), (255, False)])
def test_an_event_has_fewer_than_255_properties(count: int, taken: bool) -> None:
    extra = {str(number): number for number in range(count - 4)}

    assert (problem("import", event(**extra)) == "") is taken


def test_an_event_is_smaller_than_1_mb() -> None:
    assert "too large" in problem("import", event(filler="x" * 1_000_000))


def test_nesting_without_end_is_refused() -> None:
    body = json.dumps(event(value=1)).replace('"value": 1', '"value": ' + "[" * 900)
    body = body[:-2] + "]" * 900 + "}}"
    answer = ingest("track", {"verbose": "1"}, {}, body.encode(), NOW)

    assert json.loads(answer.body)["status"] in {0, 1}


def test_half_a_surrogate_pair_is_refused_by_field() -> None:
    answer = send("import", [event(utm_source="\ud83d")], {"strict": "1"})
    failed = json.loads(answer.body)["failed_records"][0]

    assert failed["field"] == "properties.utm_source"
    assert "valid utf8" in failed["message"]


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
def test_what_is_not_json_is_refused(word: str) -> None:
    body = f'[{{"event": "a", "properties": {{"token": "t", "x": {word}}}}}]'

    assert ingest("track", {}, {}, body.encode(), NOW).body == b"0"


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
    record = send("import", event(**properties)).records[0]

    assert (record.problem, record.remarks) == ("", [remark])


def test_an_ordinary_event_has_no_remarks() -> None:
    record = send("import", event(note="x" * 255, cart=[{"a": 1}])).records[0]

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
    record = send("engage", [value]).records[0]

    assert record.problem
    assert record.field == field


def test_groups_have_a_key_and_an_id_and_nothing_to_add() -> None:
    group = {"$token": "t", "$group_key": "company", "$group_id": "acme"}

    assert problem("groups", {**group, "$set": {"Seats": 12}}) == ""
    assert "not for groups" in problem("groups", {**group, "$add": {"Seats": 1}})
    assert "$group_id" in problem("groups", {**group, "$group_id": "", "$set": {}})


def test_large_profile_properties_are_remarked_on() -> None:
    record = send("engage", update(**{"$set": {"a": ["x" * 250] * 1_100}})).records[0]

    assert record.remarks == ["a is over 256 KB"]


def test_profiles_can_be_strict_too() -> None:
    answer = send("engage", [update(), update(**{"$set": {}})], {"strict": "1"})

    assert answer.status == 400
    assert json.loads(answer.body)["num_records_imported"] == 1


json_values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(st.sampled_from(["track", "import", "engage", "groups"]), json_values)
def test_any_json_gets_an_answer(endpoint: str, value: t.Any) -> None:
    assert send(endpoint, value).status in {200, 400, 413}


@given(st.sampled_from(["track", "import", "engage", "groups"]), st.binary())
def test_any_bytes_get_an_answer(endpoint: str, body: bytes) -> None:
    for headers in ({}, {"Content-Encoding": "gzip"}):
        answer = ingest(endpoint, {}, {**headers, **BASIC}, body, NOW)
        assert answer.status in {200, 400}
