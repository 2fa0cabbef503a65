from __future__ import annotations

import collections.abc as c
import contextlib
import copy
import gc
import json
import logging
import os
import re
import subprocess
import sys
import typing as t
import warnings
import weakref
from pathlib import Path

import pytest
from flask import (
    Blueprint,
    Flask,
    Response,
    abort,
    has_request_context,
    redirect,
    request,
    session,
    stream_with_context,
)
from flask.sessions import SecureCookieSessionInterface
from flask.testing import FlaskClient
from werkzeug.test import create_environ, run_wsgi_app

import flask_mengpaneel
from flask_mengpaneel import Ledger, Manager, Mengpaneel, Outcome, failed, flushed
from flask_mengpaneel.testing import RecordingTransport, record_flushes
from flask_mengpaneel.transport import Transport
from sink import Sink
from sites import PAGE, CreateApp, Site, balance, page_calls, sent


def names(transport: RecordingTransport) -> list[str]:
    """The names of the events that were sent from the server."""
    return [call.event for call in transport.calls if call.tracks]


# -- apps


def test_the_package_has_what_it_says() -> None:
    assert sorted(flask_mengpaneel.__all__) == flask_mengpaneel.__all__

    for name in flask_mengpaneel.__all__:
        assert getattr(flask_mengpaneel, name).__doc__ or name in {"failed", "flushed"}


def test_what_is_heavy_is_imported_when_it_is_needed() -> None:
    program = """
import sys
import flask_mengpaneel
heavy = "celery redis sqlite3 sqlalchemy user_agents playwright".split()
heavy.append("flask_mengpaneel.testing")
print([name for name in heavy if name in sys.modules])
"""
    # What measures the coverage of tests imports some of it.
    environ = {name: os.environ[name] for name in os.environ if "COVERAGE" not in name}
    result = subprocess.run(
        [sys.executable, "-c", program],
        env=environ,
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == "[]\n"


def test_no_thread_is_started_before_it_is_needed() -> None:
    program = """
import threading
from flask import Flask
from flask_mengpaneel import Mengpaneel
app = Flask("shop")
app.config.update(MENGPANEEL_TOKEN="token", MENGPANEEL_SPOOL=None)
Mengpaneel(app)
print(threading.active_count())
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout == "1\n"


def test_init_app_may_come_later_or_at_once() -> None:
    def make() -> Flask:
        app = Flask("shop")
        app.config.update(MENGPANEEL_TOKEN="token", MENGPANEEL_SPOOL=None)
        return app

    later, at_once = make(), make()
    Mengpaneel().init_app(later)
    Mengpaneel(at_once)
    assert "mengpaneel" in later.extensions
    assert "mengpaneel" in at_once.extensions


@pytest.mark.parametrize("same", [True, False])
def test_a_second_init_app_on_the_same_app_is_an_error(
    app: Flask, mengpaneel: Mengpaneel, same: bool
) -> None:
    with pytest.raises(RuntimeError, match="already"):
        (mengpaneel if same else Mengpaneel()).init_app(app)


def test_apps_in_one_process_don_t_mix(
    create_app: CreateApp, mengpaneel: Mengpaneel
) -> None:
    transports = [RecordingTransport(), RecordingTransport()]
    apps = [
        create_app(token=f"token{n}", transport=transport)
        for n, transport in enumerate(transports)
    ]

    for number, app in enumerate(apps):

        @app.post("/")
        def view(number: int = number) -> dict[str, t.Any]:
            mengpaneel.track(f"App {number}")

            if number == 0:
                # One app asks the other, as behind a dispatcher.
                apps[1].test_client().post("/")
                mengpaneel.track("App 0 again")

            return {}

    apps[0].test_client().post("/")
    assert names(transports[0]) == ["App 0", "App 0 again"]
    assert names(transports[1]) == ["App 1"]

    for number, app in enumerate(apps):
        tokens = {
            event["properties"]["token"] for event in sent(app, transports[number])
        }
        assert tokens == {f"token{number}"}

        with app.app_context():
            assert mengpaneel.ledger().recorded == 2 - number


def test_an_app_can_be_forgotten() -> None:
    mengpaneel = Mengpaneel()
    app = Flask("shop")
    app.config.update(MENGPANEEL_TOKEN="t", MENGPANEEL_SPOOL=None)
    mengpaneel.init_app(app)
    reference = weakref.ref(app)
    del app
    gc.collect()

    assert reference() is None


def test_drain_and_ledger_work_without_a_context_when_there_is_one_app(
    api: Flask, mengpaneel: Mengpaneel
) -> None:
    api.test_client().post("/A")

    assert mengpaneel.drain() is True
    assert isinstance(mengpaneel.ledger(), Ledger)
    assert mengpaneel.ledger().recorded == 1


def test_drain_and_flush_wait_for_the_background_transport(
    create_app: CreateApp, mengpaneel: Mengpaneel
) -> None:
    waited = []

    class Slow(RecordingTransport):
        def flush(self, timeout: float) -> bool:
            waited.append(timeout)
            return False

    create_app(transport=Slow())
    assert mengpaneel.drain(timeout=1.5) is False
    assert mengpaneel.flush() is False
    assert waited == [1.5, 5.0]


def test_drain_and_ledger_need_a_context_when_there_are_several_apps(
    create_app: CreateApp, mengpaneel: Mengpaneel
) -> None:
    for app in (create_app(), create_app()):
        with app.app_context():
            assert mengpaneel.ledger().recorded == 0

    for method in (mengpaneel.drain, mengpaneel.ledger):
        with pytest.raises(RuntimeError, match="app context"):
            method()


def test_drain_and_ledger_need_an_app() -> None:
    for method in (Mengpaneel().drain, Mengpaneel().ledger):
        with pytest.raises(RuntimeError):
            method()


def test_a_request_of_an_app_without_the_extension_says_so(
    mengpaneel: Mengpaneel,
) -> None:
    with Flask("bare").test_request_context(), pytest.raises(RuntimeError) as info:
        mengpaneel.track("A")

    assert "init_app" in str(info.value)


def test_blueprints_and_before_request_functions_track(
    app: Flask, mengpaneel: Mengpaneel, transport: RecordingTransport
) -> None:
    blueprint = Blueprint("orders", __name__)

    @blueprint.before_request
    def before() -> None:
        mengpaneel.track("Before")

    @blueprint.post("/orders")
    def view() -> dict[str, t.Any]:
        mengpaneel.track("Order")
        return {}

    @blueprint.after_request
    def after(response: Response) -> Response:
        mengpaneel.track("After")
        return response

    app.register_blueprint(blueprint, url_prefix="/shop")
    app.test_client().post("/shop/orders")
    assert names(transport) == ["Before", "Order", "After"]


def test_async_views_track(
    app: Flask, mengpaneel: Mengpaneel, transport: RecordingTransport
) -> None:
    @app.post("/")
    async def view() -> dict[str, t.Any]:
        with mengpaneel.setup():
            mengpaneel.identify("ann")

        mengpaneel.track("Async")
        return {}

    app.test_client().post("/")
    assert [
        (e["event"], e["properties"]["$user_id"]) for e in sent(app, transport)
    ] == [("Async", "ann")]


def test_the_page_s_script_is_found_by_apps_that_match_hosts(
    mengpaneel: Mengpaneel, transport: RecordingTransport
) -> None:
    app = Flask("shop", host_matching=True, static_host="shop.test")
    app.config.update(
        MENGPANEEL_TOKEN="token", MENGPANEEL_SPOOL=None, MENGPANEEL_TRANSPORT=transport
    )
    mengpaneel.init_app(app)

    @app.get("/", host="shop.test")
    def view() -> str:
        mengpaneel.track("A")
        return PAGE

    client = app.test_client()
    found = re.search(
        r'src="([^"]*)"', client.get("/", base_url="http://shop.test").text
    )

    if found is None:
        assert names(transport) == ["A"]
        return

    with client.get(found[1], base_url="http://shop.test") as response:
        assert response.status_code == 200
        assert "javascript" in response.content_type


def test_the_extension_s_own_blueprint_tracks_nothing(
    app: Flask, client: FlaskClient, transport: RecordingTransport
) -> None:
    with client.get("/_mengpaneel/static/mengpaneel.js"):
        pass

    assert transport.envelopes == []


# -- nothing to do


@pytest.mark.parametrize("setting", [{"token": None}, {"enabled": False}], ids=str)
@pytest.mark.filterwarnings("ignore:MENGPANEEL_TOKEN is not set")
@pytest.mark.parametrize("testing", [True, False])
def test_without_a_token_or_when_disabled_everything_is_a_no_op(
    create_app: CreateApp,
    mengpaneel: Mengpaneel,
    transport: RecordingTransport,
    setting: dict[str, t.Any],
    testing: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = create_app(testing=testing, **setting)
    plain = Flask("plain")

    @app.get("/")
    def view() -> str:
        with mengpaneel.setup() as mixpanel:
            mixpanel.identify("ann")

        with mengpaneel.before_setup():
            mengpaneel.alias("ann")

        mengpaneel.strategy = "ServerSide"
        mengpaneel.track("A")
        mengpaneel.reset()
        mengpaneel.opt_in_tracking()
        mengpaneel.opt_out_tracking()
        mengpaneel.track("B")
        return PAGE

    @plain.get("/")
    def plain_view() -> str:
        return PAGE

    response = app.test_client().get("/")
    expected = plain.test_client().get("/")
    assert response.data == expected.data
    assert list(response.headers) == list(expected.headers)

    with app.app_context(), Manager(strategy="ServerSide") as manager:
        manager.track("Job")

    assert transport.envelopes == []
    assert mengpaneel.ledger().recorded == 0
    assert mengpaneel.drain() is True
    assert caplog.records == []


def test_what_is_disabled_is_silent(create_app: CreateApp) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        create_app(enabled=False, token=None)

    assert caught == []


@pytest.mark.parametrize("setting", [{"token": None}, {"enabled": False}], ids=str)
@pytest.mark.filterwarnings("ignore:MENGPANEEL_TOKEN is not set")
def test_misuse_is_an_error_where_nothing_is_tracked_as_well(
    create_app: CreateApp, mengpaneel: Mengpaneel, setting: dict[str, t.Any]
) -> None:
    app = create_app(**setting)

    with app.test_request_context(), pytest.raises(ValueError, match="event name"):
        mengpaneel.track("")

    with app.app_context():
        with pytest.raises(RuntimeError):
            mengpaneel.track("A")

        with Manager() as manager:
            with pytest.raises(TypeError):
                manager.track("A", {"x": object()})

            with pytest.raises(ValueError):
                manager.strategy = "nope"


def test_a_response_that_carries_nothing_is_untouched(
    create_app: CreateApp, mengpaneel: Mengpaneel
) -> None:
    app = create_app(strategies=["AsyncServerSide"])
    plain = Flask("plain")

    for one in (app, plain):

        @one.get("/")
        def view() -> str:
            return PAGE

    response = app.test_client().get("/")
    expected = plain.test_client().get("/")
    assert response.data == expected.data
    assert list(response.headers) == list(expected.headers)


def test_an_api_answer_says_nothing_of_cookies(api: Flask) -> None:
    response = api.test_client().post("/A", headers={"User-Agent": "curl/8.5.0"})

    assert "Set-Cookie" not in response.headers
    assert "Vary" not in response.headers
    assert response.json == {"ok": True}


# -- errors of views and of others


def test_what_a_view_recorded_before_it_raised_is_sent_with_flask_s_own_error_page(
    create_app: CreateApp, mengpaneel: Mengpaneel, transport: RecordingTransport
) -> None:
    app = create_app(testing=False)

    @app.get("/<int:code>")
    def view(code: int) -> str:
        mengpaneel.track("A")

        if code == 500:
            raise ZeroDivisionError

        abort(code)

    for code in (500, 404):
        assert app.test_client().get(f"/{code}").status_code == code

    assert names(transport) == ["A", "A"]


def test_calls_of_functions_that_run_after_ours_are_sent_from_the_server(
    mengpaneel: Mengpaneel, transport: RecordingTransport
) -> None:
    app = Flask("shop")
    app.testing = True
    app.secret_key = "secret"
    app.config.update(
        MENGPANEEL_TOKEN="token",
        MENGPANEEL_SPOOL=None,
        MENGPANEEL_TRANSPORT=transport,
    )

    @app.after_request
    def registered_before(response: Response) -> Response:
        mengpaneel.track("Registered before")
        return response

    mengpaneel.init_app(app)

    @app.after_request
    def registered_after(response: Response) -> Response:
        mengpaneel.track("Registered after")
        return response

    @app.teardown_request
    def teardown(_error: BaseException | None) -> None:
        mengpaneel.track("Teardown")

    @app.get("/")
    def view() -> str:
        mengpaneel.track("View")
        return PAGE

    response = app.test_client().get("/")
    assert [call[1][0] for call in page_calls(response)] == [
        "View",
        "Registered after",
    ]
    # Flask runs the last teardown function first.
    assert names(transport) == ["Registered before", "Teardown"]


def test_functions_that_run_after_ours_see_the_page_as_it_is_sent(
    mengpaneel: Mengpaneel,
) -> None:
    app = Flask("shop")
    app.config.update(MENGPANEEL_TOKEN="token", MENGPANEEL_SPOOL=None, TESTING=True)
    lengths = []

    @app.after_request
    def count(response: Response) -> Response:
        lengths.append((len(response.get_data()), response.content_length))
        return response

    mengpaneel.init_app(app)

    @app.get("/")
    def view() -> str:
        mengpaneel.track("View")
        return PAGE

    response = app.test_client().get("/")
    assert lengths == [(len(response.data), len(response.data))]


@pytest.mark.parametrize("with_context", [True, False])
def test_a_body_that_tracks_while_it_streams(
    app: Flask,
    mengpaneel: Mengpaneel,
    transport: RecordingTransport,
    with_context: bool,
) -> None:
    @app.get("/")
    def view() -> Response:
        with mengpaneel.setup():
            mengpaneel.identify("ann")

        mengpaneel.track("View")

        def rows() -> c.Iterator[str]:
            for number in range(3):
                if with_context:
                    mengpaneel.track(f"Row {number}")

                yield f"{number}\n"

        body = stream_with_context(rows()) if with_context else rows()
        return Response(body, mimetype="text/csv")

    response = app.test_client().get("/")
    assert response.text == "0\n1\n2\n"
    response.close()
    rows = ["Row 0", "Row 1", "Row 2"] if with_context else []
    assert names(transport) == ["View", *rows]

    # The person and the device are the same before and after the response.
    events = [event["properties"] for event in sent(app, transport)]
    assert {event["distinct_id"] for event in events} == {"ann"}
    assert len({event["$device_id"] for event in events}) == 1


@pytest.mark.parametrize("way", ["page", "header", "redirect", "server"])
def test_what_is_tracked_after_the_response_is_of_the_same_person(
    app: Flask,
    client: FlaskClient,
    mengpaneel: Mengpaneel,
    transport: RecordingTransport,
    way: str,
) -> None:
    @app.get("/")
    def view() -> t.Any:
        with mengpaneel.setup():
            mengpaneel.identify("ann")
            mengpaneel.people.increment("Visits")

        mengpaneel.track("View")
        return {"page": PAGE, "redirect": redirect("/next")}.get(way, {})

    @app.teardown_request
    def teardown(_error: BaseException | None) -> None:
        if request.path == "/":
            mengpaneel.track("Teardown")

    headers = {"X-Mengpaneel-Flush-Capable": "true"} if way == "header" else {}
    response = client.get("/", headers=headers)
    messages = sent(app, transport)
    events = [one["properties"] for one in messages if "event" in one]
    assert {event["distinct_id"] for event in events} == {"ann"}
    assert [name for name in names(transport) if name] == (
        ["View", "Teardown"] if way == "server" else ["Teardown"]
    )
    # Nothing is done twice.
    assert sum("$add" in one for one in messages) == 1
    assert response.status_code in (200, 302)


def test_a_stream_that_is_broken_off_sends_what_it_tracked(
    app: Flask, mengpaneel: Mengpaneel, transport: RecordingTransport
) -> None:
    @app.get("/")
    def view() -> Response:
        def rows() -> c.Iterator[str]:
            mengpaneel.track("First")
            yield "1"
            mengpaneel.track("Second")
            yield "2"

        return Response(stream_with_context(rows()), mimetype="text/plain")

    response = app.test_client().get("/", buffered=False)
    assert next(iter(response.response)) in ("1", b"1")
    response.close()
    assert names(transport) == ["First"]


def test_anonymous_calls_before_and_after_the_response_are_of_one_visitor(
    app: Flask, mengpaneel: Mengpaneel, transport: RecordingTransport
) -> None:
    @app.get("/")
    def view() -> Response:
        mengpaneel.track("View")

        def rows() -> c.Iterator[str]:
            mengpaneel.track("Row")
            yield "1"

        return Response(stream_with_context(rows()), mimetype="text/plain")

    app.test_client().get("/").close()
    ids = [event["properties"]["distinct_id"] for event in sent(app, transport)]
    assert len(ids) == 2
    assert len(set(ids)) == 1
    assert ids[0].startswith("$device:")


# -- errors of ours


class Broken(Transport):
    """A transport with a fault."""

    def send(self, envelope: t.Any) -> bool:
        raise ZeroDivisionError("no transport")


def test_trouble_is_raised_in_testing(
    create_app: CreateApp, mengpaneel: Mengpaneel
) -> None:
    app = create_app(transport=Broken())

    @app.post("/")
    def view() -> dict[str, t.Any]:
        mengpaneel.track("A")
        return {}

    with pytest.raises(ZeroDivisionError):
        app.test_client().post("/")


class BrokenSession(SecureCookieSessionInterface):
    """A session that can't be read, as when its server is down."""

    def open_session(self, *_: t.Any) -> t.Any:
        session = super().open_session(*_)

        class Unreadable(type(session)):  # type: ignore[misc]
            def __getitem__(self, key: str) -> t.NoReturn:
                raise ConnectionError("no session")

            get = keys = __iter__ = items = __setitem__ = __getitem__

        return Unreadable()


@pytest.mark.parametrize("way", ["redirect", "page", "json"])
def test_a_broken_session_costs_no_page_and_no_call(
    create_app: CreateApp,
    mengpaneel: Mengpaneel,
    transport: RecordingTransport,
    way: str,
) -> None:
    app = create_app(testing=False)
    app.session_interface = BrokenSession()

    @app.get("/")
    def view() -> t.Any:
        mengpaneel.track("A")
        return {"redirect": redirect("/next"), "page": PAGE, "json": {}}[way]

    client = app.test_client()
    client.set_cookie("session", "x")
    response = client.get("/")
    assert response.status_code == (302 if way == "redirect" else 200)
    carried = [call[1][0] for call in page_calls(response)]
    assert carried + names(transport) == ["A"]


@pytest.mark.parametrize(
    "stored",
    [
        None,
        "text",
        5,
        {},
        [],
        [99, "x"],
        [1, None, [], {}, "x", [1, 2, 3, 4, 5]],
        [1, ["id", 1.0, [], [], {"tracking": [["track"]]}]],
        [1, ["id", "now", [], [], {}]],
        [1, ["id", 1e300, None, None, {"tracking": [[["track"], ["A", {}]]]}]],
        [1, ["id", 1.0, [{}, [], 5], {}, {"tracking": [[["track"], []]]}]],
        [1, ["id", 4e9, [None] * 3, [None] * 3, {"tracking": [[["track"], []]]}]],
        [1, ["id", 4e9, [None] * 3, [None] * 3, {"setup": [[["identify"], []]]}]],
        [1, ["id", 4e9, [None] * 3, [None] * 3, {"tracking": [[["track"], [1, 2]]]}]],
    ],
    ids=str,
)
@pytest.mark.parametrize("way", ["page", "json", "redirect"])
def test_what_another_version_left_in_the_session_costs_no_page_and_no_call(
    create_app: CreateApp,
    mengpaneel: Mengpaneel,
    transport: RecordingTransport,
    stored: t.Any,
    way: str,
) -> None:
    app = create_app(testing=False)

    @app.get("/")
    def view() -> t.Any:
        mengpaneel.track("A")
        return {"redirect": redirect("/next"), "page": PAGE, "json": {}}[way]

    @app.get("/next")
    def next_page() -> str:
        return PAGE

    client = app.test_client()

    with client.session_transaction() as kept:
        kept["_mengpaneel_token"] = stored
        kept["user"] = "ann"

    response = client.get("/", follow_redirects=True)
    assert response.status_code == 200
    carried = [call[1][0] for call in page_calls(response) if call[1]]
    events = [event["event"] for event in sent(app, transport)]
    assert (carried + events).count("A") == 1

    with client.session_transaction() as kept:
        assert kept["user"] == "ann"


TEXTS = [
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "\u2028\u2029",
    "\"'\\",
    "\r\nX-Injected: yes",
    "\0\x07",
    "😀",
    "\ud83d",
    "&lt;&amp;",
    "]]>",
    "' onerror='x",
]


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
@pytest.mark.parametrize("way", ["page", "header", "server", "session"])
def test_hostile_texts_arrive_as_they_are_on_every_way(
    app: Flask,
    client: FlaskClient,
    mengpaneel: Mengpaneel,
    transport: RecordingTransport,
    text: str,
    way: str,
) -> None:
    expected = text.replace("\ud83d", "\ufffd")

    @app.get("/")
    def view() -> t.Any:
        mengpaneel.track(f"Event {text}", {text: [text]})
        mengpaneel.identify("ann")
        mengpaneel.people.set(f"Name {text}", text)
        return {"page": PAGE, "session": redirect("/next")}.get(way, {})

    @app.get("/next")
    def next_page() -> str:
        return PAGE

    headers = {"X-Mengpaneel-Flush-Capable": "true"} if way == "header" else {}
    response = client.get("/", headers=headers, follow_redirects=True)

    *events, update = sent(app, transport)
    assert update["$set"][f"Name {expected}"] == expected
    assert update["$distinct_id"] == "ann"

    if way == "server":
        (event,) = events
        assert event["event"] == f"Event {expected}"
        assert event["properties"][expected] == [expected]
        return

    if way == "header":
        value = response.headers["X-Mengpaneel-Calls"]
        assert value.isascii()
        assert value.isprintable()
        assert "X-Injected" not in response.headers
        calls = json.loads(value)
    else:
        assert response.text.count("</script>") == 2
        assert "<!--" not in response.text
        assert "\u2028" not in response.text
        calls = page_calls(response)

    event, identify = calls
    assert event[1][0] == f"Event {expected}"
    assert event[1][1][expected] == [expected]
    assert identify == [["identify"], ["ann"]]


@pytest.mark.parametrize(
    "headers",
    [
        {"User-Agent": "\xff" * 100},
        {"User-Agent": "Mozilla/5.0 " + "x" * 10_000},
        {"Referer": "\xff\x00://[::1"},
        {"Referer": "http://[::1"},
        {"Referer": "javascript:alert(1)"},
        {"Referer": "x" * 10_000},
        {"Cookie": "\xff=\xff; ;;=;session=x; mp_token_mixpanel"},
        {"Cookie": "mp_token_mixpanel=%7B; mp_token_mixpanel=%00"},
        {"Accept": "\xff, ;q=x"},
        {"Sec-Fetch-Dest": "", "Sec-Fetch-Mode": ""},
        {"Sec-Purpose": "\xff"},
        {"DNT": "x", "Sec-GPC": "\xff"},
        {"X-Mengpaneel-Flush-Capable": "\xff"},
        {"X-Forwarded-For": "x"},
    ],
    ids=lambda headers: ascii(headers)[:40],
)
@pytest.mark.parametrize("way", ["page", "json", "redirect"])
def test_hostile_requests_never_raise_and_lose_nothing(
    app: Flask,
    mengpaneel: Mengpaneel,
    transport: RecordingTransport,
    headers: dict[str, str],
    way: str,
) -> None:
    @app.get("/")
    def view() -> t.Any:
        mengpaneel.track("A")
        return {"page": PAGE, "json": {}, "redirect": redirect("/next")}[way]

    @app.get("/next")
    def next_page() -> str:
        return PAGE

    client = app.test_client(use_cookies=False)
    response = client.get("/", headers=headers)
    carried = [call[1][0] for call in page_calls(response)]

    for cookie in response.headers.getlist("Set-Cookie"):
        if cookie.startswith("session="):
            kept = {"Cookie": cookie.partition(";")[0]}
            page = client.get("/next", headers=kept)
            carried += [call[1][0] for call in page_calls(page)]

    events = [event["event"] for event in sent(app, transport)]
    assert carried + events == ["A"]


@pytest.mark.parametrize("host", ["a b", "[::1", "x:y", "<script>", "\xff"], ids=ascii)
def test_hostile_hosts_never_raise(
    app: Flask, mengpaneel: Mengpaneel, transport: RecordingTransport, host: str
) -> None:
    @app.get("/")
    def view() -> t.Any:
        mengpaneel.track("A")
        return redirect("/next")

    @app.get("/json")
    def json_view() -> t.Any:
        mengpaneel.track("A")
        return {}

    for path in ("/", "/json"):
        environ = create_environ(path)
        environ["HTTP_HOST"] = host
        # The test client would look at the host itself.
        run_wsgi_app(app, environ)

    assert sent(app, transport)


# -- signals


def test_flushed_tells_the_outcome(api: Flask) -> None:
    received: list[tuple[t.Any, Outcome]] = []

    def receive(sender: t.Any, outcome: Outcome) -> None:
        received.append((sender, outcome))

    with flushed.connected_to(receive):
        api.test_client().post("/A", headers={"Accept": "application/json"})

    ((sender, outcome),) = received
    assert sender is api
    assert outcome.strategy == "AsyncServerSide"
    assert list(outcome.declined) == ["Delayed", "ClientSide", "CapableClientSide"]
    assert all(outcome.declined.values())
    assert [call.event for call in outcome.calls] == ["A"]


def test_each_flush_is_one_line_in_the_debug_log(
    api: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "flask_mengpaneel"):
        api.test_client().post("/A")

    (line,) = [
        r.getMessage() for r in caplog.records if "AsyncServerSide" in r.getMessage()
    ]
    assert "not a redirect" in line


def test_failed_and_the_callback_tell_what_could_not_be_delivered(
    create_app: CreateApp, mengpaneel: Mengpaneel
) -> None:
    told: list[tuple[dict[str, t.Any], str]] = []
    received: list[tuple[t.Any, list[dict[str, t.Any]], str]] = []

    def on_failure(record: dict[str, t.Any], reason: str) -> None:
        told.append((record, reason))
        raise ZeroDivisionError

    def receive(sender: t.Any, records: list[dict[str, t.Any]], reason: str) -> None:
        received.append((sender, records, reason))
        raise ZeroDivisionError

    with Sink() as sink:
        sink.refuse = lambda record: "bad" if record["event"] == "Bad" else None
        app = create_app(
            transport="inline",
            api_host=sink.url,
            on_failure=on_failure,
            testing=False,
            timeout=60,
        )

        @app.post("/")
        def view() -> dict[str, t.Any]:
            mengpaneel.track("Good")
            mengpaneel.track("Bad")
            return {}

        with failed.connected_to(receive, app):
            assert app.test_client().post("/").json == {}

        assert [event["event"] for event in sink.events] == ["Good"]

    ((sender, records, reason),) = received
    assert sender is app
    assert [record["event"] for record in records] == ["Bad"]
    assert "bad" in reason
    ((record, why),) = told
    assert record["properties"]["$insert_id"]
    assert "bad" in why
    ledger = mengpaneel.ledger().snapshot()
    assert ledger.balanced, ledger
    assert (ledger.recorded, ledger.delivered) == (2, 1)


def test_record_flushes_sees_one_app_only(
    create_app: CreateApp, mengpaneel: Mengpaneel
) -> None:
    apps = [create_app(), create_app()]

    for app in apps:

        @app.post("/")
        def view() -> dict[str, t.Any]:
            mengpaneel.track("A")
            return {}

    with record_flushes(apps[0]) as outcomes:
        for app in apps:
            app.test_client().post("/")

    apps[0].test_client().post("/")
    assert len(outcomes) == 1


# -- the ledger


def test_the_ledger_balances_on_every_way(
    app: Flask, client: FlaskClient, mengpaneel: Mengpaneel
) -> None:
    @app.get("/<way>")
    def view(way: str) -> t.Any:
        with mengpaneel.setup():
            mengpaneel.identify("ann")
            mengpaneel.people.set("Plan", "pro")

        if way != "next":
            mengpaneel.track("A")
            mengpaneel.people.increment("Visits")
            mengpaneel.people.increment("Visits")

        return {"page": PAGE, "redirect": redirect("/next"), "next": PAGE}.get(way, {})

    for way in ("page", "redirect", "next", "json"):
        client.get(f"/{way}")

    client.get("/json", headers={"X-Mengpaneel-Flush-Capable": "1"})
    assert mengpaneel.drain(60)
    ledger = mengpaneel.ledger().snapshot()
    assert ledger.recorded == 4 + 8 + 1
    assert ledger.balanced, ledger
    # What the two pages have; the last client acknowledges nothing.
    assert ledger.waiting == 2
    assert ledger.dropped == {}


# -- default properties


def test_default_properties_are_those_of_the_moment_and_the_call_s_own_win(
    create_app: CreateApp, mengpaneel: Mengpaneel, transport: RecordingTransport
) -> None:
    def properties() -> dict[str, t.Any]:
        return {"path": request.path, "number": next(numbers), "own": "default"}

    numbers = iter(range(10))
    app = create_app(default_properties=properties)

    @app.post("/orders")
    def view() -> dict[str, t.Any]:
        mengpaneel.track("A")
        mengpaneel.track("B", {"own": "mine"})
        mengpaneel.track_pageview()
        mengpaneel.track_with_groups("C", {}, {"company": "acme"})
        mengpaneel.identify("ann")
        mengpaneel.people.set("Plan", "pro")
        return {}

    app.test_client().post("/orders")
    *events, update = sent(app, transport)
    assert [
        (e["properties"]["path"], e["properties"]["number"], e["properties"]["own"])
        for e in events
    ] == [
        ("/orders", 0, "default"),
        ("/orders", 1, "mine"),
        ("/orders", 2, "default"),
        ("/orders", 3, "default"),
    ]
    assert "own" not in update["$set"]


def test_default_properties_may_be_a_mapping(
    create_app: CreateApp, transport: RecordingTransport
) -> None:
    app = create_app(default_properties={"Release": "1.2"})

    with app.app_context(), Manager() as manager:
        manager.track("A")

    assert sent(app, transport)[0]["properties"]["Release"] == "1.2"


@pytest.mark.parametrize(
    "properties",
    [lambda: 1 / 0, lambda: "text", lambda: {"x": object()}, lambda: request.path],
    ids=["raises", "text", "object", "outside"],
)
@pytest.mark.parametrize("testing", [True, False])
def test_an_event_goes_without_default_properties_that_fail(
    create_app: CreateApp,
    transport: RecordingTransport,
    properties: t.Any,
    testing: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = create_app(default_properties=properties, testing=testing)

    with app.app_context(), Manager() as manager:
        manager.track("A")

    assert names(transport) == ["A"]
    assert "MENGPANEEL_DEFAULT_PROPERTIES" in caplog.text


def test_default_properties_that_track_don_t_run_for_ever(
    create_app: CreateApp,
    mengpaneel: Mengpaneel,
    transport: RecordingTransport,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def properties() -> dict[str, t.Any]:
        mengpaneel.track("Inner")
        return {}

    app = create_app(default_properties=properties)

    with app.app_context(), Manager() as manager:
        manager.track("Outer")

    assert names(transport) == ["Inner", "Outer"]
    assert "MENGPANEEL_DEFAULT_PROPERTIES is being asked already" in caplog.text


# -- strategies by request


def test_a_strategy_can_be_chosen_that_is_not_among_the_configured(
    create_app: CreateApp, mengpaneel: Mengpaneel
) -> None:
    app = create_app(strategies=["AsyncServerSide", "ServerSide"])

    @app.get("/")
    def view() -> str:
        mengpaneel.strategy = "ClientSide"
        mengpaneel.track("A")
        return PAGE

    assert len(page_calls(app.test_client().get("/"))) == 1


def test_constructor_settings_win(create_app: CreateApp) -> None:
    app = Flask("shop")
    app.config.update(MENGPANEEL_TOKEN="other", MENGPANEEL_SPOOL=None)
    Mengpaneel(app, token="mine", default_properties={"a": 1})
    config = app.extensions["mengpaneel"].config

    assert config.token == "mine"
    assert config.default_properties == {"a": 1}


def test_the_session_of_the_app_is_kept_over_a_delayed_call(
    app: Flask, client: FlaskClient, mengpaneel: Mengpaneel
) -> None:
    @app.get("/")
    def view() -> t.Any:
        session["user"] = "ann"
        mengpaneel.track("A")
        return redirect("/next")

    @app.get("/next")
    def next_page() -> str:
        return PAGE

    response = client.get("/", follow_redirects=True)
    assert [call[1][0] for call in page_calls(response)] == ["A"]

    with client.session_transaction() as kept:
        assert dict(kept) == {"user": "ann"}


def _raise(*_args: t.Any) -> t.NoReturn:
    raise RuntimeError("of the app")


def _failing_teardown(site: Site) -> None:
    site.app.teardown_request(_raise)


def _failing_teardowns(site: Site) -> None:
    site.app.teardown_request(_raise)
    site.app.teardown_appcontext(_raise)


def _failing_teardown_of_a_blueprint(site: Site) -> None:
    blueprint = Blueprint("failing", __name__)
    blueprint.teardown_app_request(_raise)
    site.app.register_blueprint(blueprint)


def _failing_after_request(site: Site) -> None:
    site.app.after_request(_raise)
    site.app.teardown_request(_raise)


@pytest.mark.parametrize("propagate", [True, False], ids=["propagate", "answer"])
@pytest.mark.parametrize("error", [None, RuntimeError, SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("early", [False, True], ids=["view", "before-request"])
@pytest.mark.parametrize(
    "fails",
    [
        _failing_teardown,
        _failing_teardowns,
        _failing_teardown_of_a_blueprint,
        _failing_after_request,
    ],
)
def test_what_the_app_raises_at_the_end_of_a_request_loses_nothing(
    fails: t.Callable[[Site], None],
    early: bool,
    error: type[BaseException] | None,
    propagate: bool,
) -> None:
    site = Site(testing=False)
    site.app.config["PROPAGATE_EXCEPTIONS"] = propagate
    fails(site)

    def work() -> str | None:
        if request.endpoint == "/" and not site.messages:
            site.mengpaneel.track("Visit")

        if error is not None:
            raise error

        return None if early else "done"

    if early:
        site.app.before_request(work)

    site.view("/", work if not early else lambda: "done")

    with contextlib.suppress(RuntimeError, SystemExit, KeyboardInterrupt):
        site.client().get("/")

    assert [message["event"] for message in site.messages] == ["Visit"]
    ledger = site.mengpaneel.ledger().snapshot()
    assert (ledger.recorded, ledger.delivered) == (1, 1)


@pytest.mark.parametrize("used", [False, True], ids=["unused", "used"])
@pytest.mark.parametrize(
    "settings",
    [{}, {"inspector": True}, {"transport": "inline"}, {"transport": "thread"}],
    ids=str,
)
def test_an_app_is_freed_when_nobody_refers_to_it(
    tmp_path: Path, settings: dict[str, t.Any], used: bool
) -> None:
    gc.collect()
    gc.disable()

    try:
        app = Flask(__name__, instance_path=str(tmp_path))
        app.secret_key = "secret"
        mengpaneel = Mengpaneel(app, token="token", spool=None, **settings)

        if used:
            app.add_url_rule("/", "page", lambda: PAGE)
            app.test_client().get("/").close()

        reference = weakref.ref(app)
        del app
        assert reference() is None
        assert mengpaneel is not None
    finally:
        gc.enable()


# -- what the app and other extensions do with Flask's functions for the end


def _wrapped(function: t.Any) -> t.Any:
    return lambda error: function(error)


def _as_a_list(functions: list[t.Any]) -> list[t.Any]:
    return list(functions)


def _sliced(functions: list[t.Any]) -> list[t.Any]:
    return functions[:]


def _added_to(functions: list[t.Any]) -> list[t.Any]:
    return [*functions, lambda error: None]


def _each_wrapped(functions: list[t.Any]) -> list[t.Any]:
    return [_wrapped(function) for function in functions]


def _each_wrapped_in_place(functions: list[t.Any]) -> list[t.Any]:
    functions[:] = [_wrapped(function) for function in functions]
    return functions


def _backwards(functions: list[t.Any]) -> list[t.Any]:
    return functions[::-1]


def _backwards_in_place(functions: list[t.Any]) -> list[t.Any]:
    functions.reverse()
    return functions


def _as_called(functions: list[t.Any]) -> list[t.Any]:
    """As who measures them finds them: in Flask's order, before there is a context."""
    return list(reversed(functions))[::-1]


@pytest.mark.parametrize("fails", [False, True], ids=["", "teardown fails"])
@pytest.mark.parametrize(
    "change",
    [
        _as_a_list,
        _sliced,
        _added_to,
        _each_wrapped,
        _each_wrapped_in_place,
        _backwards,
        _backwards_in_place,
        _as_called,
        copy.copy,
        copy.deepcopy,
    ],
)
def test_who_changes_the_functions_that_end_a_request_keeps_ours(
    change: c.Callable[[list[t.Any]], list[t.Any]], fails: bool
) -> None:
    site = Site(testing=False, PROPAGATE_EXCEPTIONS=True)
    app = site.app

    if fails:
        _failing_teardown(site)

    app.teardown_request_funcs = {
        name: change(functions)
        for name, functions in app.teardown_request_funcs.items()
    }
    app.teardown_appcontext_funcs = change(app.teardown_appcontext_funcs)

    def fail() -> str:
        site.mengpaneel.track("Visit")
        raise RuntimeError

    site.view("/", fail)

    with pytest.raises(RuntimeError):
        site.client().get("/")

    assert [message["event"] for message in site.messages] == ["Visit"]
    assert balance(site) == (1, 1, 0)


@pytest.mark.parametrize("before", [False, True], ids=["", "before"])
@pytest.mark.parametrize("within", [False, True], ids=["", "within"])
@pytest.mark.parametrize("early", [False, True], ids=["late", "early"])
def test_what_ends_an_app_context_inside_of_a_view_may_track(
    before: bool, within: bool, early: bool
) -> None:
    def register(app: Flask) -> None:
        @app.teardown_appcontext
        def teardown(_error: BaseException | None) -> None:
            if has_request_context():
                site.mengpaneel.track("Teardown")

    site = Site(prepare=register if early else lambda app: None)

    if not early:
        register(site.app)

    def view() -> dict[str, str]:
        if before:
            site.mengpaneel.track("Before")

        with site.app.app_context():
            if within:
                site.mengpaneel.track("Within")

        site.mengpaneel.track("After")
        return {}

    site.view("/", view)
    site.client().get("/")
    expected = {"Teardown", "After"}
    expected |= {"Before"} if before else set()
    expected |= {"Within"} if within else set()
    events = [message["event"] for message in site.messages]
    assert sorted(events) == sorted(expected)
    assert balance(site) == (len(events), len(events), 0)
