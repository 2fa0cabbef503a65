"""What Mixpanel reads in a request, and how it answers."""

from __future__ import annotations

import base64
import gzip
import json
import typing as t
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_mengpaneel.inspector.ingestion import IngestionAnswer, ingest
from flask_mengpaneel.limits import MAX_RECORDS, MAX_REQUEST_BYTES
from mixpanel_records import BASIC, NOW, past_event, update, without


def send(
    endpoint: str,
    value: t.Any,
    query: dict[str, str] | None = None,
    headers: dict[str, str] | None = None,
) -> IngestionAnswer:
    headers = {**(BASIC if endpoint == "import" else {}), **(headers or {})}
    return ingest(endpoint, query or {}, headers, json.dumps(value).encode(), NOW)


def encoded(value: t.Any) -> str:
    return base64.b64encode(json.dumps(value).encode()).decode()


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (json.dumps([past_event()]), "application/json"),
        (json.dumps(past_event()), "application/json"),
        ("data=" + quote(encoded([past_event()]), safe=""), "text/plain;charset=UTF-8"),
        ("data=" + encoded([past_event()]), "application/x-www-form-urlencoded"),
        (
            "data=" + quote(json.dumps(past_event())),
            "application/x-www-form-urlencoded",
        ),
        (json.dumps([past_event()]), "text/plain"),
        (json.dumps(past_event()) + "\n", "application/x-ndjson"),
    ],
)
def test_every_encoding_that_the_libraries_use_is_read(
    body: str, content_type: str
) -> None:
    answer = ingest("track", {}, {"Content-Type": content_type}, body.encode(), NOW)

    assert [record.value for record in answer.records] == [past_event()]
    assert answer.body == b"1"


def test_data_in_the_query_is_read() -> None:
    answer = ingest("track", {"data": encoded(past_event())}, {}, b"", NOW)

    assert answer.records[0].value == past_event()


def test_gzip_is_read_for_events() -> None:
    body = gzip.compress(json.dumps([past_event()]).encode())

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
    body = f"data={quote(json.dumps(past_event()))}&verbose=1&ip=0".encode()
    answer = ingest("track", {}, {}, body, NOW)

    assert json.loads(answer.body) == {"status": 1, "error": None}


def test_the_short_answer_is_one_or_zero() -> None:
    assert send("track", [past_event()]).body == b"1"
    assert send("track", [without("token")]).body == b"0"


def test_one_good_record_is_enough_for_a_one() -> None:
    assert send("track", [without("token"), past_event()]).body == b"1"


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
    answer = ingest("track", {"data": encoded(past_event()), "img": "1"}, {}, b"", NOW)

    assert answer.content_type == "image/gif"
    assert answer.body.startswith(b"GIF89a")


def test_a_callback_is_called_and_nothing_else_is_run() -> None:
    assert send("track", past_event(), {"callback": "done"}).body == b"done(1);"
    assert send("track", past_event(), {"callback": "alert(1)//"}).body == b"1"


def test_import_counts_what_it_took() -> None:
    answer = send("import", [past_event(), past_event()], {"strict": "1"})

    assert answer.status == 200
    assert json.loads(answer.body) == {
        "code": 200,
        "num_records_imported": 2,
        "status": "OK",
    }


def test_strict_names_each_failed_record_and_takes_the_others() -> None:
    answer = send(
        "import",
        [past_event(), past_event(time="today"), past_event()],
        {"strict": "1"},
    )

    assert answer.status == 400
    assert json.loads(answer.body) == {
        "code": 400,
        "error": "some data points in the request failed validation",
        "failed_records": [
            {
                "index": 1,
                "$insert_id": past_event()["properties"]["$insert_id"],
                "field": "properties.time",
                "message": "'properties.time' is invalid: must be specified as seconds"
                " since epoch",
            }
        ],
        "num_records_imported": 2,
        "status": "Bad Request",
    }


def test_import_that_is_not_strict_answers_200_all_the_same() -> None:
    answer = send("import", [past_event(), past_event(time="today")])

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
    answer = ingest("import", query, headers, json.dumps([past_event()]).encode(), NOW)

    assert answer.status == 401
    assert json.loads(answer.body)["error"] == "Invalid credentials"


def test_a_service_account_names_its_project() -> None:
    headers = {"Authorization": "Basic " + base64.b64encode(b"user:secret").decode()}

    assert send("import", [past_event()], {"project_id": "1"}, headers).status == 200


def test_a_request_over_the_limit_is_too_large() -> None:
    many = [past_event(filler="x" * 500_000) for _ in range(5)]

    for endpoint in ("track", "import"):
        answer = send(endpoint, many)
        assert answer.status == 413
        assert json.loads(answer.body)["error"].endswith(f"{MAX_REQUEST_BYTES} bytes")


@pytest.mark.parametrize(("count", "status"), [(MAX_RECORDS, 200), (2_001, 413)])
def test_a_request_has_2000_records_at_most(count: int, status: int) -> None:
    small = {"event": "a", "properties": {"token": "t", "distinct_id": "b"}}

    assert send("track", [small] * count).status == status


def test_nesting_without_end_is_refused() -> None:
    body = json.dumps(past_event(value=1)).replace(
        '"value": 1', '"value": ' + "[" * 900
    )
    body = body[:-2] + "]" * 900 + "}}"
    answer = ingest("track", {"verbose": "1"}, {}, body.encode(), NOW)

    assert json.loads(answer.body)["status"] in {0, 1}


def test_half_a_surrogate_pair_is_refused_by_field() -> None:
    answer = send("import", [past_event(utm_source="\ud83d")], {"strict": "1"})
    failed = json.loads(answer.body)["failed_records"][0]

    assert failed["field"] == "properties.utm_source"
    assert "valid utf8" in failed["message"]


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
def test_what_is_not_json_is_refused(word: str) -> None:
    body = f'[{{"event": "a", "properties": {{"token": "t", "x": {word}}}}}]'

    assert ingest("track", {}, {}, body.encode(), NOW).body == b"0"


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
