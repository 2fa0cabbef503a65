"""The stand-in for Mixpanel: what it answers, and what it shows."""

from __future__ import annotations

import base64
import collections.abc as c
import gzip
import json
import threading
import time
import typing as t
import urllib.request
from pathlib import Path

import pytest
from flask import Flask, Response
from flask.testing import FlaskClient

from flask_mengpaneel import Event, Mengpaneel
from flask_mengpaneel.calls import Call
from flask_mengpaneel.config import INSPECTOR_PREFIX
from flask_mengpaneel.inspector import Inspector
from flask_mengpaneel.inspector.matching import MATCH_WINDOW, may_come_from
from flask_mengpaneel.inspector.rules import Record
from flask_mengpaneel.signals import failed
from inspector_calls import flush, send
from mixpanel_records import BASIC, event, people, track, update
from servers import Server


def test_the_browser_library_is_answered(client: FlaskClient) -> None:
    data = base64.b64encode(json.dumps([event()]).encode()).decode()
    response = client.post(
        f"{INSPECTOR_PREFIX}/track/?verbose=1&ip=1&_=1790000000000",
        data={"data": data},
        headers={"Origin": "http://other.test"},
    )

    assert response.json == {"status": 1, "error": None}
    assert response.headers["Access-Control-Allow-Origin"] == "http://other.test"
    assert response.headers["Access-Control-Allow-Credentials"] == "true"
    assert "Origin" in response.vary


def test_a_preflight_is_answered(client: FlaskClient) -> None:
    response = client.options(
        f"{INSPECTOR_PREFIX}/engage/",
        headers={
            "Origin": "http://other.test",
            "Access-Control-Request-Headers": "content-type",
        },
    )

    assert response.status_code == 204
    assert response.headers["Access-Control-Allow-Headers"] == "content-type"


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("endpoint", ["track", "import", "engage", "groups"])
def test_endpoints_answer_with_and_without_a_slash(
    client: FlaskClient, endpoint: str, slash: str
) -> None:
    response = client.post(
        f"{INSPECTOR_PREFIX}/{endpoint}{slash}", json=[{}], headers=BASIC
    )

    assert response.status_code == 200
    assert response.get_data() != b""


def test_a_beacon_is_taken(client: FlaskClient, inspector: Inspector) -> None:
    data = base64.b64encode(json.dumps([event()]).encode()).decode()
    client.post(
        f"{INSPECTOR_PREFIX}/track/",
        data=f"data={data.replace('=', '%3D').replace('+', '%2B')}",
        content_type="text/plain;charset=UTF-8",
    )

    assert inspector.events() == [
        event(time=inspector.events()[0]["properties"]["time"])
    ]


def test_events_are_read_from_a_query(
    client: FlaskClient, inspector: Inspector
) -> None:
    data = base64.b64encode(json.dumps(event()).encode()).decode()

    assert (
        client.get(f"{INSPECTOR_PREFIX}/track", query_string={"data": data}).data
        == b"1"
    )
    assert len(inspector.events()) == 1


def test_import_over_http_and_in_process_answer_the_same(
    client: FlaskClient, inspector: Inspector
) -> None:
    body = gzip.compress(json.dumps([event(), {}]).encode())
    headers = {
        **BASIC,
        "Content-Encoding": "gzip",
        "Content-Type": "application/json",
    }
    over_http = client.post(
        f"{INSPECTOR_PREFIX}/import?strict=1", data=body, headers=headers
    )
    lower = {name.lower(): value for name, value in headers.items()}
    in_process = inspector.post("/import?strict=1", body, lower, timeout=1.0)

    assert over_http.status_code == in_process.status == 400
    assert over_http.data == in_process.body


def test_an_unknown_path_is_not_found(
    client: FlaskClient, inspector: Inspector
) -> None:
    assert client.post(f"{INSPECTOR_PREFIX}/decide").status_code == 404
    assert inspector.post("/decide", b"", {}).status == 404


def test_a_refused_request_is_kept_with_the_reason(inspector: Inspector) -> None:
    inspector.post("/engage", b"nonsense", {})

    assert inspector.refused()[0].problem == "data, missing or empty"


def test_wait_for_returns_when_everything_is_there(inspector: Inspector) -> None:
    sender = threading.Timer(0.05, send, (inspector, "track", event()))
    sender.start()
    inspector.wait_for(events=1)
    sender.join()

    assert len(inspector.events()) == 1


def test_wait_for_says_what_has_arrived(inspector: Inspector) -> None:
    send(inspector, "track", event("Sign Up"))

    with pytest.raises(TimeoutError, match=r"1 and 0 arrived: \['Sign Up'\]"):
        inspector.wait_for(events=2, timeout=0)


def test_an_update_may_come_from_what_was_flushed_lately(inspector: Inspector) -> None:
    store, now = inspector.store, time.time()
    calls = [Call([["identify"], ["ada"]]), people("increment", "Orders")]
    record = Record(update(**{"$add": {"Orders": 1}}))
    store.add_flush("AsyncServerSide", {}, calls, "lost", at=now - MATCH_WINDOW - 1)
    store.add_flush("AsyncServerSide", {}, calls, "first", at=now - 2)
    store.add_flush("AsyncServerSide", {}, calls, "second", at=now - 1)

    for _ in range(3):
        store.add_arrivals("engage", [record], "", at=now)

    found = [arrival.flushes[0]["during"] for arrival in inspector.arrivals()]
    assert found == ["first", "second", "lost"]


@pytest.mark.parametrize(
    ("changes", "call"),
    [
        ({"$set": {"a": 1, "b": 2}}, people("set", "b", 2)),
        ({"$set_once": {"a": 1}}, people("set_once", {"a": 1})),
        ({"$unset": ["a", "b"]}, people("unset", ["a"])),
        ({"$unset": ["a"]}, people("unset", "a")),
        ({"$add": {"a": 3}}, people("increment", "a", 1)),
        ({"$set": {"a": 3}}, people("increment", "a")),
        ({"$append": {"a": 1}}, people("append", "a", 1)),
        ({"$set": {"a": [1]}}, people("append", "a", 1)),
        ({"$union": {"a": [1, 2]}}, people("union", "a", [1])),
        ({"$remove": {"a": 1}}, people("remove", "a", 1)),
        ({"$delete": ""}, people("delete_user")),
        ({"$append": {"$transactions": {}}}, people("track_charge", 9.5)),
        ({"$set": {"$transactions": []}}, people("clear_charges")),
        ({"$set": {"company": "acme"}}, Call([["set_group"], ["company", "acme"]])),
        ({"$union": {"company": ["a"]}}, Call([["add_group"], ["company", "a"]])),
    ],
)
def test_an_update_may_come_from_a_call(changes: dict[str, t.Any], call: Call) -> None:
    assert may_come_from(update(**changes), call)


@pytest.mark.parametrize(
    "call",
    [
        people("set", "b", 2),
        people("append", "list", "other"),
        people("delete_user"),
        Call([["get_group"], ["company", "acme"], ["set"], [{"a": 1}]]),
        Call([["alias"], ["a"]]),
    ],
)
def test_an_update_may_come_from_no_other_call(call: Call) -> None:
    value = update(**{"$set": {"a": 1}, "$append": {"list": "one"}})

    assert not may_come_from(value, call)


def test_other_apps_flushes_are_not_its_business(inspector: Inspector) -> None:
    flush(Flask("other"), "ClientSide", track(event()))

    assert inspector.not_arrived() == []


def test_the_feed_gives_what_is_new_or_changed(
    app: Flask, client: FlaskClient, inspector: Inspector
) -> None:
    def feed(after: int) -> t.Any:
        return client.get(f"{INSPECTOR_PREFIX}/arrivals?after={after}").get_json()

    value = event()
    send(inspector, "track", value, event("Other", **{"$insert_id": "other"}))
    first = feed(0)
    flush(app, "ClientSide", track(value))
    second = feed(first["after"])

    assert [arrival["id"] for arrival in first["arrivals"]] == [1, 2]
    assert [arrival["id"] for arrival in second["arrivals"]] == [1]
    assert second["arrivals"][0]["flushes"][0]["strategy"] == "ClientSide"
    assert second["calls"] == [{"id": 1, "arrival": 1}]
    assert feed(second["after"])["arrivals"] == []


def test_the_feed_starts_again_after_clear(
    client: FlaskClient, inspector: Inspector
) -> None:
    send(inspector, "track", event())
    before = client.get(f"{INSPECTOR_PREFIX}/arrivals").get_json()
    response = client.post(f"{INSPECTOR_PREFIX}/clear", json={})
    send(inspector, "track", event("New"))
    after = client.get(
        f"{INSPECTOR_PREFIX}/arrivals?after={before['after']}"
    ).get_json()

    assert response.status_code == 204
    assert after["cleared"] > before["cleared"]
    assert [arrival["record"]["event"] for arrival in after["arrivals"]] == ["New"]


def test_other_sites_can_neither_read_nor_clear(client: FlaskClient) -> None:
    origin = {"Origin": "http://other.test"}
    feed = client.get(f"{INSPECTOR_PREFIX}/arrivals", headers=origin)
    form = client.post(f"{INSPECTOR_PREFIX}/clear", data={"a": "b"}, headers=origin)

    assert "Access-Control-Allow-Origin" not in feed.headers
    assert form.status_code == 415


@pytest.mark.parametrize("slash", ["", "/"])
def test_the_page_has_no_inline_code_and_a_strict_policy(
    client: FlaskClient, slash: str
) -> None:
    response = client.get(f"{INSPECTOR_PREFIX}{slash}")
    html = response.get_data(as_text=True)

    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert "<style" not in html
    assert " style=" not in html
    assert html.count("<script") == html.count("<script defer src=")


@pytest.mark.parametrize(
    "header", ["Content-Security-Policy", "Content-Security-Policy-Report-Only"]
)
def test_the_page_keeps_its_policy_whatever_the_app_has(
    app: Flask, client: FlaskClient, header: str
) -> None:
    @app.after_request
    def be_strict(response: Response) -> Response:
        response.headers[header] = "default-src 'none'; script-src 'nonce-abc'"
        return response

    answer = client.get(f"{INSPECTOR_PREFIX}/")
    policies = [
        value
        for name, value in answer.headers
        if name.startswith("Content-Security-Policy")
    ]

    assert len(policies) == 1
    assert "script-src 'self'" in policies[0]


@pytest.mark.parametrize("name", ["inspector.js", "inspector.css", "inspector.svg"])
def test_the_page_finds_its_files(client: FlaskClient, name: str) -> None:
    with client.get(f"/_mengpaneel/static/{name}") as response:
        assert response.status_code == 200


def test_an_app_tracks_everything_to_its_inspector(tmp_path: Path) -> None:
    app = Flask(__name__, instance_path=str(tmp_path))
    app.secret_key = "secret"
    app.config.update(MENGPANEEL_TOKEN="token", MENGPANEEL_INSPECTOR=True)
    mengpaneel = Mengpaneel(app)

    @app.get("/api")
    def api() -> dict[str, str]:
        mengpaneel.identify("ada")
        mengpaneel.track("Ask")
        mengpaneel.people.set({"Plan": "pro"})
        return {}

    client = app.test_client()
    client.get("/api")

    with app.app_context():
        assert mengpaneel.flush(60)

    feed = client.get(f"{INSPECTOR_PREFIX}/arrivals").get_json()
    flushes = [arrival["flushes"][0] for arrival in feed["arrivals"]]

    assert [arrival["problem"] for arrival in feed["arrivals"]] == ["", ""]
    assert [flush["strategy"] for flush in flushes] == ["AsyncServerSide"] * 2
    assert [flush["during"] for flush in flushes] == ["GET /api"] * 2
    assert all(call["arrival"] for call in feed["calls"])


def test_an_apps_own_script_stays_out_of_the_page(tmp_path: Path) -> None:
    app = Flask(__name__, instance_path=str(tmp_path))
    Mengpaneel(app, token="token", inspector=True)
    page = app.test_client().get(INSPECTOR_PREFIX).get_data(as_text=True)

    assert "Inspector" in page
    assert "mengpaneel.js" not in page


def test_what_cannot_be_kept_breaks_nothing(
    app: Flask, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_bytes(b"x" * 4096)
    flush(app, "ClientSide", track(event()))
    failed.send(app, records=[event()], reason="gone")

    assert send(app.extensions["mengpaneel_inspector"], "track", event()) == 503
    assert "couldn't keep a flush" in caplog.text
    assert "couldn't keep a failure" in caplog.text


def test_records_of_any_shape_are_kept_and_shown(
    client: FlaskClient, inspector: Inspector
) -> None:
    for endpoint in ("track", "engage", "groups"):
        send(inspector, endpoint, None, 1, "a", [], {}, {"event": {}, "properties": 1})

    half = "\ud83d"
    send(inspector, "track", event(half), event(distinct_id=half), event("</script>"))
    send(inspector, "groups", {"$group_key": half, "$group_id": half, half: half})
    feed = client.get(f"{INSPECTOR_PREFIX}/arrivals").get_json()

    assert len(feed["arrivals"]) == 22


@pytest.fixture
def server(app: Flask) -> c.Iterator[str]:
    with Server(app) as server:
        yield server.url


def test_it_serves_other_processes_over_http(server: str, inspector: Inspector) -> None:
    request = urllib.request.Request(
        f"{server}{INSPECTOR_PREFIX}/import?strict=1",
        json.dumps([event()]).encode(),
        {**BASIC, "Content-Type": "application/json"},
    )

    with urllib.request.urlopen(request, timeout=60) as response:
        assert json.load(response)["num_records_imported"] == 1

    assert len(inspector.events()) == 1


def test_the_official_library_sends_here(server: str, inspector: Inspector) -> None:
    from mixpanel import Consumer, Mixpanel

    host = server.removeprefix("http://")
    consumer = Consumer(api_host=f"{host}{INSPECTOR_PREFIX}")
    consumer._endpoints = {  # the library speaks https only
        name: url.replace("https://", "http://")
        for name, url in consumer._endpoints.items()
    }
    mixpanel = Mixpanel("token", consumer=consumer)
    mixpanel.track("ada", "Place Order", {"Total": 42})
    mixpanel.people_set("ada", {"Plan": "pro"})
    mixpanel.group_set("company", "acme", {"Seats": 12})

    assert inspector.events()[0]["properties"]["Total"] == 42
    assert len(inspector.updates()) == 2
    assert inspector.refused() == []


def test_an_event_that_nobody_has_declared_is_marked(
    client: FlaskClient, inspector: Inspector
) -> None:
    class PlaceOrder(Event, name="Inspect Order"):
        items: int

    names = ("Inspect Order", "inspect_ordr", "$mp_click")
    send(inspector, "track", *(event(name) for name in names))
    send(inspector, "engage", update(**{"$set": {"Plan": "pro"}}))
    feed = client.get(f"{INSPECTOR_PREFIX}/arrivals").get_json()
    told = [arrival["undeclared"] for arrival in feed["arrivals"]]

    assert told == [
        "",
        "'inspect_ordr' is not in the tracking plan; the nearest is 'Inspect Order'",
        "",
        "",
    ]
    assert PlaceOrder(items=3).items == 3
