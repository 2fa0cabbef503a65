"""How the inspector's page is told what is new."""

from __future__ import annotations

import collections.abc as c
import concurrent.futures
import contextlib
import json
import sqlite3
import typing as t
import urllib.request
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from flask_mengpaneel.config import INSPECTOR_PREFIX
from flask_mengpaneel.inspector import Inspector
from flask_mengpaneel.inspector import feed as feed_module
from inspector_calls import flush, send
from mixpanel_records import event, track
from servers import Server
from waiting import eventually, wait_until

Ask = c.Callable[[int], "concurrent.futures.Future[t.Any]"]


@pytest.fixture
def ask(app: Flask) -> c.Iterator[Ask]:
    """Ask a server for what is new after a revision, and wait for it."""

    def answer(url: str) -> t.Any:
        with urllib.request.urlopen(url, timeout=30) as response:
            return json.load(response)

    with Server(app) as server, concurrent.futures.ThreadPoolExecutor() as pool:
        address = f"{server.url}{INSPECTOR_PREFIX}/arrivals?wait=1&after="
        yield lambda after: pool.submit(answer, f"{address}{after}")


def test_a_question_waits_for_news(ask: Ask, inspector: Inspector) -> None:
    latest, _ = inspector.store.revisions()
    question = ask(latest)

    with pytest.raises(TimeoutError):
        question.result(0.3)

    send(inspector, "track", event())
    news = question.result(10)

    assert [one["id"] for one in news["arrivals"]] == [1]


def test_a_question_without_news_is_answered_in_the_end(
    ask: Ask, inspector: Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "MAX_WAIT", 0.2)
    latest, _ = inspector.store.revisions()

    assert ask(latest).result(10)["after"] == latest


def test_pages_that_were_left_keep_no_threads(ask: Ask, inspector: Inspector) -> None:
    latest, _ = inspector.store.revisions()
    questions = [ask(latest) for _ in range(feed_module.MAX_WAITING + 3)]
    assert wait_until(lambda: sum(one.done() for one in questions) == 3)

    with pytest.raises(TimeoutError):
        next(one for one in questions if not one.done()).result(0.2)

    send(inspector, "track", event())
    assert not concurrent.futures.wait(questions, timeout=60).not_done


def test_who_waits_holds_no_lock(ask: Ask, inspector: Inspector, path: Path) -> None:
    latest, _ = inspector.store.revisions()
    questions = [ask(latest) for _ in range(feed_module.MAX_WAITING + 1)]
    # All of the others wait when one doesn't have to.
    assert wait_until(lambda: any(one.done() for one in questions))

    # One who waits looks into the file now and then.
    def is_free() -> bool:
        with contextlib.closing(sqlite3.connect(path, timeout=0)) as other:
            with contextlib.suppress(sqlite3.OperationalError):
                other.execute("BEGIN EXCLUSIVE")

            return other.in_transaction

    eventually(is_free)
    assert sum(one.done() for one in questions) == 1
    send(inspector, "track", event())
    assert all(one.result(10) for one in questions)


def test_a_server_with_one_thread_is_not_kept_waiting(
    client: FlaskClient, inspector: Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise AssertionError("it waits")

    monkeypatch.setattr(inspector.store, "wait_for_change", fail)
    latest, _ = inspector.store.revisions()
    answer = client.get(f"{INSPECTOR_PREFIX}/arrivals?wait=1&after={latest}")

    assert answer.get_json()["after"] == latest


def test_a_page_starts_again_when_the_file_was_made_anew(
    client: FlaskClient, inspector: Inspector, path: Path
) -> None:
    for _ in range(5):
        send(inspector, "track", event())

    before, _ = inspector.store.revisions()
    path.unlink()
    send(inspector, "track", event("New"))
    answer = client.get(f"{INSPECTOR_PREFIX}/arrivals?after={before}").get_json()

    assert answer["after"] < before
    assert [one["record"]["event"] for one in answer["arrivals"]] == ["New"]


def test_a_row_is_given_however_old_it_is(
    app: Flask,
    client: FlaskClient,
    inspector: Inspector,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(feed_module, "MAX_FEED", 1)
    old, new = event("Old"), event("New")
    flush(app, "ClientSide", track(old))
    flush(app, "ClientSide", track(event("Waits")))
    flush(app, "ClientSide", track(new))
    send(inspector, "track", old, new)

    def ids(row: str) -> tuple[list[int], list[int]]:
        url = f"{INSPECTOR_PREFIX}/arrivals?after=0&row={row}"
        answer = client.get(url).get_json()
        return (
            [one["id"] for one in answer["arrivals"]],
            [one["id"] for one in answer["calls"]],
        )

    assert ids("") == ids("a2") == ids("a99") == ([2], [3])
    assert ids("a1") == ([1, 2], [3])
    assert ids("c1") == ([1, 2], [1, 3])
    assert ids("c2") == ([2], [2, 3])

    for nonsense in ("a", "x1", "a-1", "a1e3", "a" + "9" * 99, "%00", "a²"):
        assert ids(nonsense) == ([2], [3])


def test_own_properties_are_told_from_what_went_along(
    app: Flask, client: FlaskClient, inspector: Inspector
) -> None:
    sent = event("Own", Part="Dial", Plan="pro", utm_source="news")
    call = track(sent)
    call.wire[1][1] = {
        name: value
        for name, value in call.wire[1][1].items()
        if name not in {"Plan", "utm_source"}
    }
    flush(app, "ClientSide", call)
    send(inspector, "track", sent, event("Foreign", Part="Dial"))
    answer = client.get(f"{INSPECTOR_PREFIX}/arrivals").get_json()

    assert [one["own"] for one in answer["arrivals"]] == [["token", "Part"], None]
