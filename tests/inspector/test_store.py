"""What the inspector keeps, and where."""

from __future__ import annotations

import logging
import multiprocessing
import sqlite3
import threading
from pathlib import Path

import pytest
from flask import Flask

from flask_mengpaneel.config import INSPECTOR_PREFIX, Config
from flask_mengpaneel.inspector import Inspector, create_inspector_app
from flask_mengpaneel.inspector.store import MAX_KEPT
from flask_mengpaneel.outcome import Unrecorded
from flask_mengpaneel.signals import unrecorded
from inspector_calls import flush, send
from mixpanel_records import event, people, update


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


def test_clear_forgets_everything(app: Flask, inspector: Inspector) -> None:
    send(inspector, "track", event())
    flush(app, "ServerSide", people("set", "a", 1))
    inspector.clear()

    assert inspector.arrivals() == []
    assert inspector.not_arrived() == []


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


def test_only_the_newest_are_kept(inspector: Inspector) -> None:
    for number in range(3):
        values = [
            event(str(number), **{"$insert_id": f"{number}-{n}"}) for n in range(2_000)
        ]
        send(inspector, "track", *values)

    names = [value["event"] for value in inspector.events()]
    assert len(names) == MAX_KEPT
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


def test_only_the_owner_can_read_what_arrived(tmp_path: Path) -> None:
    path = tmp_path / "arrivals.sqlite3"
    path.touch(0o644)
    app = create_inspector_app(path)
    app.test_client().get(f"{INSPECTOR_PREFIX}/")
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_call_that_was_not_recorded_says_why(
    app: Flask, inspector: Inspector
) -> None:
    told = Unrecorded("track", "Look", "no consent", "shop.py:7", "GET /", ("a",), "id")
    unrecorded.send(app, unrecorded=told)
    feed = app.test_client().get(f"{INSPECTOR_PREFIX}/arrivals").get_json()

    assert [one.told for one in inspector.unrecorded()] == [told]
    assert [one["reason"] for one in feed["unrecorded"]] == ["no consent"]
    assert inspector.not_arrived() == []
    inspector.clear()
    assert inspector.unrecorded() == []
