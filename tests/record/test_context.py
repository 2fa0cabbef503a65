"""What is current: each unit of work has its own calls, wherever they are made."""

from __future__ import annotations

import collections.abc as c
import threading
import typing as t
from collections import Counter

import pytest
from flask import Flask, Response, copy_current_request_context, stream_with_context
from flask.testing import FlaskClient
from werkzeug.test import create_environ, run_wsgi_app

from flask_mengpaneel import Manager, Mengpaneel
from flask_mengpaneel.testing import RecordingTransport
from sites import CHROME, PAGE, Site, names, page_calls


def events(transport: RecordingTransport) -> list[list[str]]:
    """The names of the events that were sent from the server, by flush."""
    return [[call.event for call in one.calls] for one in transport.envelopes]


# -- requests


def test_requests_in_one_app_context_don_t_share_their_calls(
    app: Flask, mengpaneel: Mengpaneel, transport: RecordingTransport
) -> None:
    @app.post("/<name>")
    def view(name: str) -> dict[str, t.Any]:
        if name != "quiet":
            mengpaneel.strategy = "ServerSide" if name == "never" else None
            mengpaneel.track(name)

        return {}

    with app.app_context():
        client = app.test_client()

        for name in ("A", "quiet", "B"):
            client.post(f"/{name}")

        with pytest.raises(RuntimeError):
            mengpaneel.track("Outside")

    assert events(transport) == [
        ["A"],
        ["B"],
    ]


def test_a_request_in_one_app_context_that_fails_leaves_nothing_behind(
    app: Flask, mengpaneel: Mengpaneel, transport: RecordingTransport
) -> None:
    @app.post("/<name>")
    def view(name: str) -> dict[str, t.Any]:
        mengpaneel.track(name)

        if name == "Broken":
            raise ZeroDivisionError

        return {}

    with app.app_context():
        client = app.test_client()

        with pytest.raises(ZeroDivisionError):
            client.post("/Broken")

        client.post("/Fine")

    assert events(transport) == [
        ["Broken"],
        ["Fine"],
    ]


def test_a_client_that_keeps_the_context_doesn_t_mix_requests(
    api: Flask, transport: RecordingTransport
) -> None:
    with api.test_client() as client:
        client.post("/A")
        client.post("/B")

    assert events(transport) == [
        ["A"],
        ["B"],
    ]


def test_a_request_inside_of_a_request_has_calls_of_its_own(
    app: Flask, mengpaneel: Mengpaneel, transport: RecordingTransport
) -> None:
    @app.post("/outer")
    def outer() -> dict[str, t.Any]:
        mengpaneel.track("Before")
        app.test_client().post("/inner")
        mengpaneel.track("After")
        return {}

    @app.post("/inner")
    def inner() -> dict[str, t.Any]:
        mengpaneel.track("Inner")
        return {}

    app.test_client().post("/outer")
    assert events(transport) == [
        ["Inner"],
        ["Before", "After"],
    ]


def test_a_test_request_context_sends_what_was_recorded(
    app: Flask, mengpaneel: Mengpaneel, transport: RecordingTransport
) -> None:
    with app.test_request_context():
        mengpaneel.track("A")

    assert events(transport) == [["A"]]


def test_requests_in_many_threads_don_t_mix(
    api: Flask, transport: RecordingTransport, mengpaneel: Mengpaneel
) -> None:
    def work(number: int) -> None:
        client = api.test_client()

        for _ in range(25):
            client.post(f"/{number}")

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]

    for thread in threads:
        thread.start()

    for thread in threads:
        thread.join(30)

    assert Counter(name for (name,) in events(transport)) == {
        str(number): 25 for number in range(8)
    }
    assert len(transport.envelopes) == 200
    people: dict[str, set[str]] = {}

    for envelope in transport.envelopes:
        people.setdefault(envelope.calls[0].event, set()).add(
            envelope.identity.distinct_id
        )

    assert [len(ids) for ids in people.values()] == [1] * 8
    assert mengpaneel.ledger().recorded == 200


# -- one environment, one context


def test_an_environment_that_is_used_again_is_another_request_s() -> None:
    site = Site()
    site.view("/", lambda: (site.mengpaneel.track("View"), PAGE)[1])
    environ = create_environ("/", headers={"User-Agent": CHROME})
    pages = [run_wsgi_app(site.app, environ)[0] for _ in range(2)]

    assert [b"View" in b"".join(page) for page in pages] == [True, True]
    assert site.kept.envelopes == []


def test_a_thread_of_the_view_tracks_for_the_same_person() -> None:
    site = Site()

    @site.app.before_request
    def set_up() -> None:
        with site.mengpaneel.setup():
            site.mengpaneel.identify("ann")

    def view() -> str:
        @copy_current_request_context
        def work() -> None:
            site.mengpaneel.track("In Thread")

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        site.mengpaneel.track("In View")
        return PAGE

    site.view("/", view)
    page = site.client().get("/")

    (message,) = site.messages
    assert message["event"] == "In Thread"
    assert message["properties"]["distinct_id"] == "ann"
    assert names(page_calls(page)) == ["identify ann", "track In View"]


def test_a_stream_goes_on_when_its_environment_is_used_again() -> None:
    site = Site()

    def chunks() -> c.Iterator[str]:
        for name in "ABC":
            site.mengpaneel.track(name)
            yield name

    site.view("/", lambda: Response(stream_with_context(chunks())))
    environ = create_environ("/", headers={"User-Agent": CHROME})
    first, *_ = run_wsgi_app(site.app, environ)
    second, *_ = run_wsgi_app(site.app, environ)
    assert [b"".join(body) for body in (second, first)] == [b"ABC", b"ABC"]

    for body in (second, first):
        body.close()  # type: ignore[attr-defined]

    people: dict[str, list[str]] = {}

    for message in site.messages:
        people.setdefault(message["properties"]["distinct_id"], []).append(
            message["event"]
        )

    assert list(people.values()) == [["A", "B", "C"], ["A", "B", "C"]]


# -- a job inside a request


def test_a_manager_in_a_request_is_a_unit_of_its_own(
    app: Flask,
    client: FlaskClient,
    mengpaneel: Mengpaneel,
    transport: RecordingTransport,
) -> None:
    @app.post("/")
    def view() -> dict[str, t.Any]:
        mengpaneel.strategy = "AsyncServerSide"
        mengpaneel.track("Before")

        with Manager() as manager:
            assert mengpaneel.strategy is None
            manager.identify("bob")
            mengpaneel.track("Job")

        mengpaneel.track("After")
        assert mengpaneel.strategy == "AsyncServerSide"
        return {}

    client.set_cookie("mp_token_mixpanel", '{"$user_id":"ann","distinct_id":"ann"}')
    client.post("/")
    job, request = transport.envelopes
    assert [call.name for call in job.calls] == ["identify", "track"]
    assert [call.event for call in request.calls] == ["Before", "After"]
    assert request.identity.user_id == "ann"
    assert job.identity.distinct_id == ""
    assert job.ip is None
    assert job.user_agent == ""


def test_a_manager_before_the_first_call_of_a_request(
    app: Flask,
    client: FlaskClient,
    mengpaneel: Mengpaneel,
    transport: RecordingTransport,
) -> None:
    @app.post("/")
    def view() -> dict[str, t.Any]:
        with Manager():
            mengpaneel.track("Job")

        mengpaneel.track("Request")
        return {}

    client.post("/")
    assert events(transport) == [
        ["Job"],
        ["Request"],
    ]


def test_an_error_in_a_manager_in_a_request_leaves_the_request_s_calls(
    app: Flask,
    client: FlaskClient,
    mengpaneel: Mengpaneel,
    transport: RecordingTransport,
) -> None:
    @app.post("/")
    def view() -> dict[str, t.Any]:
        mengpaneel.track("Before")

        with pytest.raises(ZeroDivisionError), Manager() as manager:
            manager.track("Job")
            raise ZeroDivisionError

        mengpaneel.track("After")
        return {}

    client.post("/")
    assert events(transport) == [
        ["Job"],
        ["Before", "After"],
    ]


def test_a_request_within_a_manager_is_a_unit_of_its_own(
    app: Flask,
    client: FlaskClient,
    mengpaneel: Mengpaneel,
    transport: RecordingTransport,
) -> None:
    @app.post("/")
    def view() -> dict[str, t.Any]:
        mengpaneel.track("Request")
        return {}

    with app.app_context(), Manager() as manager:
        mengpaneel.track("Before")
        client.post("/")
        mengpaneel.track("After")
        assert len(manager.calls) == 2

    assert events(transport) == [
        ["Request"],
        ["Before", "After"],
    ]
