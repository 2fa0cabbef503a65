from __future__ import annotations

import json
import typing as t
from urllib.parse import quote

import pytest
from flask import Flask, Response, redirect
from werkzeug.test import EnvironBuilder

from agents import CHROME
from flask_mengpaneel import Mengpaneel
from flask_mengpaneel.testing import RecordingTransport
from sites import ANN, COOKIE, PAGE, CreateApp, library_cookie, sent

OPT = "__mp_opt_in_out_token"


def set_cookies(response: t.Any) -> dict[str, str]:
    """The cookies that a response sets: name -> the whole header."""
    headers = response.headers.getlist("Set-Cookie")
    return {header.partition("=")[0]: header for header in headers}


@pytest.fixture
def shop(app: Flask, mengpaneel: Mengpaneel) -> Flask:
    """An app that tracks on every way."""
    return add_views(app, mengpaneel)


def add_views(app: Flask, mengpaneel: Mengpaneel) -> Flask:
    @app.route("/<way>", methods=["GET", "POST"])
    def view(way: str) -> t.Any:
        if way != "quiet":
            mengpaneel.track(way)

        return {
            "page": PAGE,
            "quiet": PAGE,
            "redirect": redirect("/quiet"),
            "image": Response(b"x", mimetype="image/png"),
            "cached": Response(
                b"x", mimetype="image/png", headers={"Cache-Control": "public"}
            ),
        }.get(way, {})

    return app


# -- who


def test_a_new_visitor_gets_a_device_that_the_browser_goes_on_with(
    shop: Flask, transport: RecordingTransport
) -> None:
    client = shop.test_client()
    client.get("/image")
    client.get("/image")
    first, second = (event["properties"] for event in sent(shop, transport))

    assert first["distinct_id"] == f"$device:{first['$device_id']}"
    assert "$user_id" not in first
    assert second["distinct_id"] == first["distinct_id"]
    assert library_cookie(client)["$device_id"] == first["$device_id"]
    assert library_cookie(client)["distinct_id"] == first["distinct_id"]


def test_the_cookie_can_be_read_by_scripts(shop: Flask) -> None:
    header = set_cookies(shop.test_client().get("/image"))[COOKIE].lower()
    assert "httponly" not in header
    assert "path=/" in header


@pytest.mark.parametrize(
    ("way", "headers"),
    [
        ("quiet", {}),
        ("cached", {}),
        ("image", {"User-Agent": "curl/8.5.0"}),
        ("image", {"DNT": "1"}),
        ("api", {"X-Mengpaneel-Flush-Capable": "true"}),
    ],
    ids=["quiet", "cached", "program", "no consent", "capable"],
)
def test_no_cookie_is_written_where_none_is_due(
    shop: Flask, way: str, headers: dict[str, str]
) -> None:
    response = shop.test_client().get(f"/{way}", headers=headers)
    assert COOKIE not in set_cookies(response)


@pytest.mark.parametrize(
    ("options", "way"),
    [
        ({"persistence": "localStorage"}, "image"),
        ({"persistence": "localStorage"}, "page"),
        # What is no page has no library that could take it up.
        ({"disable_persistence": True}, "page"),
    ],
)
def test_a_library_that_keeps_no_cookie_begins_with_one(
    create_app: CreateApp, mengpaneel: Mengpaneel, options: dict[str, t.Any], way: str
) -> None:
    app = add_views(create_app(client_config=options), mengpaneel)
    response = app.test_client().get(f"/{way}", headers={"Host": "shop.example.com"})
    # The library takes up, and deletes, one of the host alone.
    assert "domain=" not in set_cookies(response)[COOKIE].lower()


def test_a_known_visitor_s_cookie_is_left_alone(shop: Flask) -> None:
    client = shop.test_client()
    client.set_cookie(COOKIE, quote(json.dumps(ANN)))
    assert COOKIE not in set_cookies(client.get("/image"))


@pytest.mark.parametrize(
    "garbage", ["garbage", "%7B", quote("[]"), quote('{"distinct_id": {}}')]
)
def test_garbage_in_the_cookie_is_replaced(
    shop: Flask, transport: RecordingTransport, garbage: str
) -> None:
    client = shop.test_client()
    client.set_cookie(COOKIE, garbage)
    client.get("/image")
    (event,) = sent(shop, transport)
    assert library_cookie(client)["distinct_id"] == event["properties"]["distinct_id"]


def test_server_only_operation_carries_the_visitor_from_anonymous_to_known(
    create_app: CreateApp, mengpaneel: Mengpaneel, transport: RecordingTransport
) -> None:
    app = create_app(strategies=["AsyncServerSide", "ServerSide"])

    @app.get("/<step>")
    def view(step: str) -> t.Any:
        if step == "Sign in":
            with mengpaneel.setup():
                mengpaneel.identify("ann")
                mengpaneel.register({"Plan": "pro"})

        mengpaneel.track(step)

        if step == "Sign out":
            mengpaneel.reset()

        return PAGE

    client = app.test_client()

    for step in ("Visit", "Sign in", "Order", "Sign out", "Again"):
        client.get(f"/{step}")

    events = {e["event"]: e["properties"] for e in sent(app, transport)}
    device = events["Visit"]["$device_id"]
    assert events["Visit"]["distinct_id"] == f"$device:{device}"

    for step in ("Sign in", "Order", "Sign out"):
        assert events[step]["distinct_id"] == "ann"
        assert events[step]["$user_id"] == "ann"
        assert events[step]["$device_id"] == device
        assert events[step]["Plan"] == "pro"

    assert events["Again"]["distinct_id"] == f"$device:{events['Again']['$device_id']}"
    assert events["Again"]["$device_id"] != device
    assert not {"$user_id", "Plan"} & events["Again"].keys()


def test_each_reset_is_a_new_visitor(
    app: Flask, mengpaneel: Mengpaneel, transport: RecordingTransport
) -> None:
    @app.post("/")
    def view() -> dict[str, t.Any]:
        for event in "ABC":
            mengpaneel.track(event)
            mengpaneel.reset()

        return {}

    app.test_client().post("/")
    people = {event["properties"]["distinct_id"] for event in sent(app, transport)}
    assert len(people) == 3


@pytest.mark.parametrize("known", [ANN, {}], ids=["Ann", "nobody"])
@pytest.mark.parametrize("in_set_up", [True, False])
@pytest.mark.parametrize(
    "answer", [{}, ("", 204), redirect("/quiet")], ids=["json", "204", "redirect"]
)
def test_who_signs_out_without_an_event_is_somebody_else_from_then_on(
    answer: t.Any,
    in_set_up: bool,
    known: dict[str, str],
    app: Flask,
    mengpaneel: Mengpaneel,
    transport: RecordingTransport,
) -> None:
    @app.get("/out")
    def out() -> t.Any:
        if in_set_up:
            with mengpaneel.setup():
                mengpaneel.reset()
        else:
            mengpaneel.reset()

        return answer

    add_views(app, mengpaneel)
    client = app.test_client()

    if known:
        client.set_cookie(COOKIE, quote(json.dumps(known)))

    client.get("/out")
    client.get("/image")
    client.get("/out")
    client.get("/image")
    people = [event["properties"]["distinct_id"] for event in sent(app, transport)]

    assert ANN["distinct_id"] not in people
    # Of nobody a set-up says nothing new: else each request would be a new visitor.
    assert len(set(people)) == (1 if in_set_up else 2)


def test_a_clock_runs_on_over_requests(
    create_app: CreateApp, mengpaneel: Mengpaneel, transport: RecordingTransport
) -> None:
    app = create_app(strategies=["AsyncServerSide"])

    @app.get("/<step>")
    def view(step: str) -> str:
        if step == "start":
            mengpaneel.time_event("Checkout")
        else:
            mengpaneel.track("Checkout")

        return PAGE

    client = app.test_client()
    client.get("/start")
    (started,) = library_cookie(client)["__timers"].values()
    client.get("/stop")
    client.get("/stop")
    first, second = (event["properties"] for event in sent(app, transport))
    assert first["$duration"] == pytest.approx(
        first["time"] - started / 1000, abs=0.002
    )
    assert "$duration" not in second


def test_two_requests_without_cookies_are_two_visitors(
    shop: Flask, transport: RecordingTransport
) -> None:
    for _ in range(2):
        shop.test_client(use_cookies=False).get("/api")

    first, second = (event["properties"] for event in sent(shop, transport))
    assert first["distinct_id"] != second["distinct_id"]


@pytest.mark.parametrize("known", [{}, ANN], ids=["unknown", "known"])
def test_whatever_is_made_of_one_request_is_one_visitor_s(
    shop: Flask,
    mengpaneel: Mengpaneel,
    transport: RecordingTransport,
    known: dict[str, str],
) -> None:
    headers = {"User-Agent": CHROME, "Cookie": f"{COOKIE}={quote(json.dumps(known))}"}
    environ = EnvironBuilder("/socket", headers=headers).get_environ()

    # As Flask-SocketIO does for each event, with that of the handshake.
    for _ in range(2):
        with shop.request_context(environ):
            for _ in range(3):
                mengpaneel.track("Message")
                mengpaneel.reset()

    found = [event["properties"]["distinct_id"] for event in sent(shop, transport)]
    assert len(set(found)) == 3
    assert found[:3] == found[3:]


@pytest.mark.parametrize("known", [{}, ANN], ids=["unknown", "known"])
@pytest.mark.parametrize("tracks", [False, True], ids=["", "tracks before"])
@pytest.mark.parametrize("name_by", ["identify", "alias"])
def test_whoever_comes_after_one_who_has_a_name_is_somebody_else(
    shop: Flask,
    mengpaneel: Mengpaneel,
    transport: RecordingTransport,
    known: dict[str, str],
    tracks: bool,
    name_by: str,
) -> None:
    headers = {
        "User-Agent": CHROME,
        "Cookie": f"{COOKIE}={quote(json.dumps(known))}",
        "Upgrade": "websocket",
    }
    environ = EnvironBuilder("/till", headers=headers).get_environ()

    # One customer after the other, by the socket of one till.
    for who in ("bob", "carol", None):
        with shop.request_context(environ):
            mengpaneel.reset()

            if tracks:
                mengpaneel.track("Come")

            if who is not None:
                getattr(mengpaneel, name_by)(who)

            mengpaneel.track("Buy")
            # As an app may log it.
            assert json.dumps(environ, default=str)

    devices = {
        event["properties"]["$device_id"]
        for event in sent(shop, transport)
        if event.get("event") == "Buy"
    }
    assert len(devices) == 3


# -- robots


@pytest.mark.parametrize("way", ["api", "page"])
def test_a_webhook_is_no_robot(
    create_app: CreateApp,
    mengpaneel: Mengpaneel,
    transport: RecordingTransport,
    way: str,
) -> None:
    app = add_views(create_app(bots="drop"), mengpaneel)
    headers = {"User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)"}
    app.test_client().post(f"/{way}", headers=headers)
    assert len(sent(app, transport)) == 1


# -- what there is no room for


def test_whoever_has_more_properties_than_a_cookie_stays_one_person(
    create_app: CreateApp, mengpaneel: Mengpaneel, transport: RecordingTransport
) -> None:
    app = create_app(strategies=["AsyncServerSide", "ServerSide"])

    @app.route("/<path:name>")
    def view(name: str) -> str:
        mengpaneel.register({name: name * 5_000, "Plan": "pro"})
        mengpaneel.track("View")
        return PAGE

    client = app.test_client()

    for name in "abc":
        client.get(f"/{name}")

    events = [event["properties"] for event in sent(app, transport)]
    assert len({event["distinct_id"] for event in events}) == 1
    # What is too much for the cookie is a part of the event all the same.
    assert [event[name] for event, name in zip(events, "abc", strict=True)] == [
        name * 5_000 for name in "abc"
    ]
    assert library_cookie(client)["Plan"] == "pro"


@pytest.mark.parametrize(
    "id", ["👩\u200d💻", "a\xa0b", "a\u3000b", "\u200fשלום", "e\u0301", "漢" * 255]
)
def test_whoever_has_an_unusual_id_is_believed(
    create_app: CreateApp,
    mengpaneel: Mengpaneel,
    transport: RecordingTransport,
    id: str,
) -> None:
    app = create_app(strategies=["AsyncServerSide", "ServerSide"])

    @app.route("/in")
    def sign_in() -> str:
        mengpaneel.identify(id)
        mengpaneel.track("In")
        return PAGE

    @app.route("/")
    def view() -> str:
        mengpaneel.track("View")
        return PAGE

    client = app.test_client()
    client.get("/in")
    client.get("/")

    events = [event["properties"] for event in sent(app, transport)]
    assert [event["distinct_id"] for event in events] == [id, id]


@pytest.mark.parametrize("stack", [0, 500])
@pytest.mark.parametrize("depth", [5, 300, 500, 2_000])
def test_a_cookie_that_is_nested_deeply_costs_its_sender_no_call(
    shop: Flask, transport: RecordingTransport, depth: int, stack: int
) -> None:
    text = json.dumps(ANN)[:-1] + ', "deep": ' + "[" * depth + "]" * depth + "}"
    headers = {"Cookie": f"{COOKIE}={quote(text, safe='[]')}"}

    def ask(depth: int) -> None:
        if depth:
            ask(depth - 1)
        else:
            shop.test_client(use_cookies=False).post("/buy", headers=headers)

    ask(stack)
    (event,) = sent(shop, transport)
    assert event["properties"]["distinct_id"] == "ann"
    assert event["properties"]["$device_id"] == "d1"


def test_no_more_is_kept_of_a_request_than_a_request_needs(
    shop: Flask, transport: RecordingTransport
) -> None:
    large = "x" * 60_000
    headers = {"User-Agent": f"Mozilla/5.0 {large}", "Referer": f"https://a/{large}"}
    shop.test_client().get(f"/buy?{large}", headers=headers)
    shop.test_client().post("/buy", headers={**headers, "Sec-Fetch-Mode": "cors"})

    assert transport.envelopes
    assert all(len(one.to_bytes()) < 30_000 for one in transport.envelopes)
