"""The stand-in for Mixpanel: what it keeps, and what it shows."""

from __future__ import annotations

import base64
import collections.abc as c
import gzip
import json
import logging
import multiprocessing
import sqlite3
import threading
import time
import typing as t
import urllib.request
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.serving import make_server

from flask_mengpaneel import Mengpaneel
from flask_mengpaneel.calls import Call
from flask_mengpaneel.config import Config
from flask_mengpaneel.inspector import Inspector, create_inspector_app
from flask_mengpaneel.inspector.app import URL_PREFIX
from flask_mengpaneel.inspector.matching import RECENT, stands_for
from flask_mengpaneel.inspector.rules import Record
from flask_mengpaneel.inspector.store import KEPT, Arrival
from flask_mengpaneel.outcome import Outcome
from flask_mengpaneel.signals import failed, flushed

BASIC = {"Authorization": "Basic " + base64.b64encode(b"token:").decode()}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "instance" / "inspector.sqlite3"


@pytest.fixture
def app(path: Path) -> Flask:
    return create_inspector_app(path)


@pytest.fixture
def inspector(app: Flask) -> Inspector:
    return t.cast(Inspector, app.extensions["mengpaneel_inspector"])


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def event(name: str = "Place Order", **properties: t.Any) -> dict[str, t.Any]:
    found = {
        "token": "token",
        "time": round(time.time(), 3),
        "distinct_id": "ada",
        "$insert_id": "0123456789abcdef",
        **properties,
    }
    return {"event": name, "properties": found}


def track(value: dict[str, t.Any]) -> Call:
    return Call([["track"], [value["event"], dict(value["properties"])]])


def people(method: str, *arguments: t.Any) -> Call:
    return Call([["people", method], list(arguments)])


def update(**operations: t.Any) -> dict[str, t.Any]:
    return {"$token": "token", "$distinct_id": "ada", **operations}


def send(inspector: Inspector, endpoint: str, *records: t.Any) -> int:
    return inspector.post(f"/{endpoint}", json.dumps(records).encode(), BASIC).status


def flush(app: Flask, strategy: str, *calls: Call, **declined: str) -> None:
    flushed.send(app, outcome=Outcome(strategy, declined, calls))


def strategies(arrival: Arrival) -> list[str]:
    return [way["strategy"] for way in arrival.ways]


def test_the_browser_library_is_answered(client: FlaskClient) -> None:
    data = base64.b64encode(json.dumps([event()]).encode()).decode()
    response = client.post(
        f"{URL_PREFIX}/track/?verbose=1&ip=1&_=1790000000000",
        data={"data": data},
        headers={"Origin": "http://other.test"},
    )

    assert response.json == {"status": 1, "error": None}
    assert response.headers["Access-Control-Allow-Origin"] == "http://other.test"
    assert response.headers["Access-Control-Allow-Credentials"] == "true"
    assert "Origin" in response.vary


def test_a_preflight_is_answered(client: FlaskClient) -> None:
    response = client.options(
        f"{URL_PREFIX}/engage/",
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
    response = client.post(f"{URL_PREFIX}/{endpoint}{slash}", json=[{}], headers=BASIC)

    assert response.status_code == 200
    assert response.get_data() != b""


def test_a_beacon_is_taken(client: FlaskClient, inspector: Inspector) -> None:
    data = base64.b64encode(json.dumps([event()]).encode()).decode()
    client.post(
        f"{URL_PREFIX}/track/",
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

    assert client.get(f"{URL_PREFIX}/track", query_string={"data": data}).data == b"1"
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
    over_http = client.post(f"{URL_PREFIX}/import?strict=1", data=body, headers=headers)
    lower = {name.lower(): value for name, value in headers.items()}
    in_process = inspector.post("/import?strict=1", body, lower, timeout=1.0)

    assert over_http.status_code == in_process.status == 400
    assert over_http.data == in_process.body


def test_an_unknown_path_is_not_found(
    client: FlaskClient, inspector: Inspector
) -> None:
    assert client.post(f"{URL_PREFIX}/decide").status_code == 404
    assert inspector.post("/decide", b"", {}).status == 404


def test_what_arrived_is_kept_apart_by_what_mixpanel_would_do(
    inspector: Inspector,
) -> None:
    first = event("A")
    send(inspector, "track", first, first, event("B"), {"event": ""})
    send(inspector, "engage", update(**{"$set": {"Plan": "pro"}}), update())

    assert [value["event"] for value in inspector.events()] == ["A", "B"]
    assert inspector.events("B")[0]["event"] == "B"
    assert inspector.updates() == [update(**{"$set": {"Plan": "pro"}})]
    assert [arrival.value for arrival in inspector.duplicates()] == [first]
    assert [bool(arrival.problem) for arrival in inspector.refused()] == [True, True]
    assert len(inspector.arrivals()) == 6


def test_duplicates_are_alike_in_name_person_time_and_id(inspector: Inspector) -> None:
    first = event(time=1_000_000_000.5)
    send(
        inspector,
        "import",
        first,
        event(time=1_000_000_000_500),
        event(time=1_000_000_001),
        event(time=1_000_000_000.5, distinct_id="bob"),
        event("Other", time=1_000_000_000.5),
        event(time=1_000_000_000.5, **{"$insert_id": "other"}),
    )

    assert [arrival.duplicate_of for arrival in inspector.arrivals()] == [
        None,
        1,
        None,
        None,
        None,
        None,
    ]


def test_a_refused_request_is_kept_with_the_reason(inspector: Inspector) -> None:
    inspector.post("/engage", b"nonsense", {})

    assert inspector.refused()[0].problem == "data, missing or empty"


def test_clear_forgets_everything(app: Flask, inspector: Inspector) -> None:
    send(inspector, "track", event())
    flush(app, "ClientSide", people("set", "a", 1))
    inspector.clear()

    assert inspector.arrivals() == []
    assert inspector.waiting() == []


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


def test_an_event_tells_the_way_it_came(app: Flask, inspector: Inspector) -> None:
    value = event()

    with app.test_request_context("/orders", method="POST"):
        flush(app, "ClientSide", track(value), Delayed="not a redirect")

    assert [call.call for call in inspector.waiting()] == [track(value)]

    send(inspector, "track", value)
    (arrival,) = inspector.arrivals()

    assert inspector.waiting() == []
    assert arrival.strategy == "ClientSide"
    assert arrival.ways[0]["declined"] == {"Delayed": "not a redirect"}
    assert arrival.ways[0]["during"] == "POST /orders"


def test_an_event_may_be_quicker_than_the_news_of_its_flush(
    app: Flask, inspector: Inspector
) -> None:
    value = event()
    send(inspector, "import", value, value)
    flush(app, "ServerSide", track(value))

    assert [arrival.strategy for arrival in inspector.arrivals()] == ["ServerSide"] * 2
    assert inspector.waiting() == []


def test_a_delayed_event_tells_each_flush(app: Flask, inspector: Inspector) -> None:
    value = event()
    flush(app, "Delayed", track(value))
    flush(app, "Delayed", track(value))
    flush(app, "ClientSide", track(value))
    send(inspector, "track", value)

    assert strategies(inspector.arrivals()[0]) == ["Delayed", "Delayed", "ClientSide"]


def test_a_delayed_update_tells_each_flush(app: Flask, inspector: Inspector) -> None:
    call = people("set", {"Plan": "pro"})
    flush(app, "Delayed", call)
    flush(app, "ClientSide", Call([["identify"], ["ada"]]), call)
    send(inspector, "engage", update(**{"$set": {"Plan": "pro", "$os": "Linux"}}))

    assert strategies(inspector.arrivals()[0]) == ["Delayed", "ClientSide"]
    assert inspector.waiting() == []


def test_an_event_handed_back_tells_both_ways(app: Flask, inspector: Inspector) -> None:
    value = event()
    flush(app, "ClientSide", track(value))
    flush(app, "AsyncServerSide", track(value))
    send(inspector, "import", value)

    assert strategies(inspector.arrivals()[0]) == ["ClientSide", "AsyncServerSide"]


def test_a_refused_event_tells_the_way_it_came(
    app: Flask, inspector: Inspector
) -> None:
    value = event(distinct_id="undefined")
    flush(app, "AsyncServerSide", track(value))
    send(inspector, "import", value)

    assert inspector.refused()[0].strategy == "AsyncServerSide"
    assert inspector.waiting() == []


def test_merged_updates_stand_for_all_of_their_calls(
    app: Flask, inspector: Inspector
) -> None:
    merged = update(**{"$set": {"Plan": "pro", "Seats": 3}, "$add": {"Orders": 2}})
    calls = (
        people("set", "Plan", "free"),
        people("set", {"Plan": "pro", "Seats": 3}),
        people("increment", "Orders"),
        people("increment", "Orders"),
    )
    flush(app, "AsyncServerSide", *calls)
    send(inspector, "engage", merged)

    assert inspector.waiting() == []

    inspector.clear()
    send(inspector, "engage", merged)
    flush(app, "ServerSide", *calls)

    assert inspector.waiting() == []
    assert inspector.arrivals()[0].strategy == "ServerSide"


def test_updates_are_not_taken_for_those_of_another_person(
    app: Flask, inspector: Inspector
) -> None:
    call = people("set", "Plan", "pro")
    flush(app, "ClientSide", Call([["identify"], ["bob"]]), call)
    flush(app, "AsyncServerSide", Call([["identify"], ["ada"]]), call)
    send(inspector, "engage", update(**{"$set": {"Plan": "pro"}}))

    assert inspector.arrivals()[0].strategy == "AsyncServerSide"
    assert [call.person for call in inspector.waiting()] == ["bob"]


@pytest.mark.parametrize("first", ["news", "update"])
@pytest.mark.parametrize("known", ["by its user", "by its device"])
def test_updates_of_a_browser_after_alias_are_the_users(
    app: Flask, inspector: Inspector, known: str, first: str
) -> None:
    # The library goes on with the device as the distinct id.
    device = {"distinct_id": "$device:d1", "$device_id": "d1"}
    user = {"$user_id": "ada"} if known == "by its user" else {}
    value = update(**{"$set": {"Plan": "pro"}, "$distinct_id": "$device:d1"}, **user)
    calls = [Call([["identify"], ["ada"]]), people("set", "Plan", "pro")]
    send(inspector, "track", event("Sign Up", **device, **{"$user_id": "ada"}))

    if first == "news":
        flush(app, "ClientSide", *calls)
        send(inspector, "engage", value)
    else:
        send(inspector, "engage", value)
        flush(app, "ServerSide", *calls)

    (arrival,) = [a for a in inspector.arrivals() if not a.is_event]
    assert arrival.person == "ada"
    assert len(arrival.ways) == 1
    assert inspector.waiting() == []


def test_updates_of_a_device_become_its_users(inspector: Inspector) -> None:
    device = {"distinct_id": "$device:d1", "$device_id": "d1"}
    send(inspector, "engage", update(**{"$set": {}, "$distinct_id": "$device:d1"}))
    assert inspector.arrivals()[0].person == "$device:d1"

    send(inspector, "track", event("Sign Up", **device, **{"$user_id": "ada"}))
    assert inspector.arrivals()[0].person == "ada"


def test_without_merging_an_update_is_with_its_distinct_id(path: Path) -> None:
    inspector = Inspector(Config(id_merge="original"), path)
    of = {"$distinct_id": "$device:d1", "$user_id": "ada"}
    send(inspector, "engage", update(**{"$set": {}, **of}))

    assert inspector.arrivals()[0].person == "$device:d1"


def test_an_update_stands_for_what_was_flushed_lately(inspector: Inspector) -> None:
    store, now = inspector.store, time.time()
    calls = [Call([["identify"], ["ada"]]), people("increment", "Orders")]
    record = Record(update(**{"$add": {"Orders": 1}}))
    store.flush("ClientSide", {}, calls, "lost", at=now - RECENT - 1)
    store.flush("ClientSide", {}, calls, "first", at=now - 2)
    store.flush("ClientSide", {}, calls, "second", at=now - 1)

    for _ in range(3):
        store.add("engage", [record], "", at=now)

    found = [arrival.ways[0]["during"] for arrival in inspector.arrivals()]
    assert found == ["first", "second", "lost"]


def test_alias_is_found_in_the_event_that_it_becomes(
    app: Flask, inspector: Inspector
) -> None:
    flush(app, "ClientSide", Call([["alias"], ["ada_%"]]))
    send(inspector, "track", event("$create_alias", alias="ada_%"))

    assert inspector.arrivals()[0].strategy == "ClientSide"


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
def test_an_update_stands_for_a_call(changes: dict[str, t.Any], call: Call) -> None:
    assert stands_for(update(**changes), call)


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
def test_an_update_stands_for_no_other_call(call: Call) -> None:
    value = update(**{"$set": {"a": 1}, "$append": {"list": "one"}})

    assert not stands_for(value, call)


def test_a_group_update_stands_for_calls_of_that_group() -> None:
    value: dict[str, t.Any] = {
        "$group_key": "company",
        "$group_id": "12",
        "$set": {"Seats": 1},
    }

    def group(name: t.Any) -> Call:
        return Call([["get_group"], ["company", name], ["set"], ["Seats", 1]])

    assert stands_for(value, group(12))
    assert not stands_for(value, group("13"))
    assert not stands_for(value, people("set", "Seats", 1))


def test_what_could_not_be_delivered_is_said(app: Flask, inspector: Inspector) -> None:
    value = event()
    flush(app, "AsyncServerSide", track(value), people("set", "a", 1))
    failed.send(app, records=[value, update()], reason="503 Service Unavailable")

    assert [call.failure for call in inspector.waiting()] == [
        "503 Service Unavailable",
        "",
    ]


def test_other_apps_flushes_are_not_its_business(inspector: Inspector) -> None:
    flush(Flask("other"), "ClientSide", track(event()))

    assert inspector.waiting() == []


def test_a_device_belongs_to_the_user_it_was_seen_with(inspector: Inspector) -> None:
    device = {"$device_id": "d1", "distinct_id": "$device:d1"}
    send(inspector, "track", event("Land", **device))
    send(
        inspector,
        "track",
        event("Land", distinct_id="$device:d2", **{"$device_id": "d2"}),
    )
    send(inspector, "track", event("Sign Up", **{**device, "$user_id": "ada"}))
    send(inspector, "track", event("Look", **device))
    send(inspector, "track", event("Sign In", **{**device, "$user_id": "bob"}))

    people = {
        person: [value["event"] for value in values]
        for person, values in inspector.events_by_person().items()
    }
    assert people == {
        "ada": ["Land", "Sign Up", "Look"],
        "$device:d2": ["Land"],
        "bob": ["Sign In"],
    }


def test_without_merging_each_event_is_with_its_distinct_id(path: Path) -> None:
    inspector = Inspector(Config(id_merge="original"), path)
    device = {"$device_id": "d1", "distinct_id": "$device:d1"}
    send(inspector, "track", event("Land", **device))
    send(inspector, "track", event("Sign Up", **{**device, "$user_id": "ada"}))

    assert list(inspector.events_by_person()) == ["$device:d1"]


def test_the_feed_gives_what_is_new_or_changed(
    app: Flask, client: FlaskClient, inspector: Inspector
) -> None:
    def feed(after: int) -> t.Any:
        return client.get(f"{URL_PREFIX}/arrivals?after={after}").get_json()

    value = event()
    send(inspector, "track", value, event("Other", **{"$insert_id": "other"}))
    first = feed(0)
    flush(app, "ClientSide", track(value))
    second = feed(first["after"])

    assert [arrival["id"] for arrival in first["arrivals"]] == [1, 2]
    assert [arrival["id"] for arrival in second["arrivals"]] == [1]
    assert second["arrivals"][0]["ways"][0]["strategy"] == "ClientSide"
    assert second["calls"][0]["arrived"] is True
    assert feed(second["after"])["arrivals"] == []


def test_the_feed_starts_again_after_clear(
    client: FlaskClient, inspector: Inspector
) -> None:
    send(inspector, "track", event())
    before = client.get(f"{URL_PREFIX}/arrivals").get_json()
    response = client.post(f"{URL_PREFIX}/clear", json={})
    send(inspector, "track", event("New"))
    after = client.get(f"{URL_PREFIX}/arrivals?after={before['after']}").get_json()

    assert response.status_code == 204
    assert after["cleared"] > before["cleared"]
    assert [arrival["record"]["event"] for arrival in after["arrivals"]] == ["New"]


def test_other_sites_can_neither_read_nor_clear(client: FlaskClient) -> None:
    origin = {"Origin": "http://other.test"}
    feed = client.get(f"{URL_PREFIX}/arrivals", headers=origin)
    form = client.post(f"{URL_PREFIX}/clear", data={"a": "b"}, headers=origin)

    assert "Access-Control-Allow-Origin" not in feed.headers
    assert form.status_code == 415


@pytest.mark.parametrize("slash", ["", "/"])
def test_the_page_has_no_inline_code_and_a_strict_policy(
    client: FlaskClient, slash: str
) -> None:
    response = client.get(f"{URL_PREFIX}{slash}")
    html = response.get_data(as_text=True)

    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert "<style" not in html
    assert " style=" not in html
    assert html.count("<script") == html.count("<script defer src=")


@pytest.mark.parametrize("name", ["inspector.js", "inspector.css"])
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
        mengpaneel.track("Ask")
        mengpaneel.people.set({"Plan": "pro"})
        return {}

    client = app.test_client()
    client.get("/api")

    with app.app_context():
        assert mengpaneel.drain()

    feed = client.get(f"{URL_PREFIX}/arrivals").get_json()
    ways = [arrival["ways"][0] for arrival in feed["arrivals"]]

    assert [arrival["problem"] for arrival in feed["arrivals"]] == ["", ""]
    assert [way["strategy"] for way in ways] == ["AsyncServerSide"] * 2
    assert [way["during"] for way in ways] == ["GET /api"] * 2
    assert all(call["arrived"] for call in feed["calls"])


def test_an_apps_own_script_stays_out_of_the_page(tmp_path: Path) -> None:
    app = Flask(__name__, instance_path=str(tmp_path))
    Mengpaneel(app, token="token", inspector=True)
    page = app.test_client().get(URL_PREFIX).get_data(as_text=True)

    assert "Inspector" in page
    assert "mengpaneel.js" not in page


def test_only_the_newest_are_kept(inspector: Inspector) -> None:
    for number in range(3):
        values = [
            event(str(number), **{"$insert_id": f"{number}-{n}"}) for n in range(2_000)
        ]
        send(inspector, "track", *values)

    names = [value["event"] for value in inspector.events()]
    assert len(names) == KEPT
    assert names[0] == "0"
    assert names.count("0") == 1_000


def test_threads_lose_nothing(inspector: Inspector) -> None:
    def post(number: int) -> None:
        for index in range(20):
            send(inspector, "track", event(**{"$insert_id": f"{number}-{index}"}))

    threads = [threading.Thread(target=post, args=(number,)) for number in range(8)]

    for thread in threads:
        thread.start()

    for thread in threads:
        thread.join()

    assert len(inspector.events()) == 160


def _post_from_another_process(path: Path) -> None:
    inspector = Inspector(Config(), path)

    for index in range(20):
        send(inspector, "track", event(**{"$insert_id": f"child-{index}"}))


def test_processes_share_what_arrived(inspector: Inspector, path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    child = context.Process(target=_post_from_another_process, args=(path,))
    child.start()

    for index in range(20):
        send(inspector, "track", event(**{"$insert_id": f"parent-{index}"}))

    child.join()

    assert child.exitcode == 0
    assert len(inspector.events()) == 40


def test_a_file_that_is_no_database_is_left_alone(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.parent.mkdir()
    path.write_bytes(b"precious" * 100)

    with caplog.at_level(logging.WARNING, "flask_mengpaneel"):
        inspector = Inspector(Config(), path)

    send(inspector, "track", event())

    assert path.read_bytes() == b"precious" * 100
    assert str(path) in caplog.text
    assert len(inspector.events()) == 1


def test_a_folder_that_cannot_be_made_is_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    inspector = Inspector(Config(), blocked / "inspector.sqlite3")
    send(inspector, "track", event())

    assert len(inspector.events()) == 1
    assert "can't write" in caplog.text


def test_a_file_of_another_version_is_started_afresh(path: Path) -> None:
    send(Inspector(Config(), path), "track", event())
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    inspector = Inspector(Config(), path)

    assert inspector.events() == []
    assert send(inspector, "track", event()) == 200


def test_a_file_that_vanished_is_made_again(inspector: Inspector, path: Path) -> None:
    path.unlink()

    assert send(inspector, "track", event()) == 200
    assert len(inspector.events()) == 1


@pytest.mark.parametrize("begins", ["new", "of another version", "vanished"])
def test_the_file_is_for_its_owner_alone(path: Path, begins: str) -> None:
    if begins == "of another version":
        path.parent.mkdir()
        path.touch(0o644)

    inspector = Inspector(Config(), path)

    if begins == "vanished":
        path.unlink()

    send(inspector, "track", event())

    for file in path.parent.iterdir():
        assert file.stat().st_mode & 0o077 == 0, file


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
    feed = client.get(f"{URL_PREFIX}/arrivals").get_json()

    assert len(feed["arrivals"]) == 22


@pytest.fixture
def server(app: Flask) -> c.Iterator[str]:
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_it_serves_other_processes_over_http(server: str, inspector: Inspector) -> None:
    request = urllib.request.Request(
        f"{server}{URL_PREFIX}/import?strict=1",
        json.dumps([event()]).encode(),
        {**BASIC, "Content-Type": "application/json"},
    )

    with urllib.request.urlopen(request, timeout=5) as response:
        assert json.load(response)["num_records_imported"] == 1

    assert len(inspector.events()) == 1


def test_the_official_library_sends_here(server: str, inspector: Inspector) -> None:
    from mixpanel import Consumer, Mixpanel

    host = server.removeprefix("http://")
    consumer = Consumer(api_host=f"{host}{URL_PREFIX}")
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


def test_only_the_owner_can_read_what_arrived(tmp_path: Path) -> None:
    path = tmp_path / "arrivals.sqlite3"
    path.touch(0o644)
    app = create_inspector_app(path)
    app.test_client().get(f"{URL_PREFIX}/")
    assert path.stat().st_mode & 0o777 == 0o600
