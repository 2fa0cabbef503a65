from __future__ import annotations

import collections.abc as c
import os
import pathlib
import re
import subprocess
import sys
import typing as t

import pytest
from flask import Flask
from flask.testing import FlaskClient

from example.app import POLICY, create_app, mengpaneel
from example.outside import HAPPENINGS
from flask_mengpaneel import Outcome, flushed
from flask_mengpaneel.calls import Call
from flask_mengpaneel.inspector.store import Store

ROOT = pathlib.Path(__file__).parent.parent.parent

Flushed = list[tuple[str, list[str]]]


@pytest.fixture
def app(tmp_path: pathlib.Path) -> c.Iterator[Flask]:
    library = tmp_path / "mixpanel.min.js"
    library.touch()
    app = create_app(str(tmp_path), BENCH_PAUSE=0, LIBRARY=library, TESTING=True)
    yield app

    with app.app_context():
        assert mengpaneel.drain(60)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def outcomes(app: Flask) -> c.Iterator[list[Outcome]]:
    outcomes: list[Outcome] = []

    def keep(sender: Flask, outcome: Outcome) -> None:
        outcomes.append(outcome)

    with flushed.connected_to(keep, sender=app):
        yield outcomes


@pytest.fixture
def store(app: Flask, tmp_path: pathlib.Path) -> Store:
    return Store(tmp_path / "mengpaneel-inspector.sqlite3")


def name(call: Call) -> str:
    return call.event if call.tracks else call.name


def ways(outcomes: list[Outcome]) -> Flushed:
    """Which strategy took which calls, in order, but for those of the set-up."""
    return [
        (outcome.strategy, made)
        for outcome in outcomes
        if (
            made := [
                name(call)
                for call in outcome.calls
                if call.name not in {"identify", "people.set"}
            ]
        )
    ]


def sign_in(client: FlaskClient, outcomes: list[Outcome]) -> None:
    client.post("/sign-in", data={"email": "ada@example.com"}, follow_redirects=True)
    outcomes.clear()


def arrived(app: Flask, store: Store, event: str) -> list[tuple[str, str]]:
    """Who did it, and which strategy the event came by, as the inspector has it."""
    with app.app_context():
        assert mengpaneel.drain(60)

    return [
        (arrival.person, arrival.strategy)
        for arrival in store.arrivals()
        if arrival.is_event and t.cast(t.Any, arrival.value)["event"] == event
    ]


def described(value: t.Any) -> set[str]:
    """The names of all that a record says."""
    return {*value, *value.get("properties", {})}


@pytest.mark.parametrize(
    ("path", "event"),
    [("/", "View Parts"), ("/parts/dial", "View Part"), ("/cart", "View Cart")],
)
def test_pages_carry_their_calls(
    client: FlaskClient, outcomes: list[Outcome], path: str, event: str
) -> None:
    page = client.get(path)

    assert ways(outcomes) == [("ClientSide", [event])]
    assert f'"{event}"' in page.text
    assert page.headers["Content-Security-Policy"] == POLICY


def test_sign_up_waits_over_two_redirects(
    client: FlaskClient, outcomes: list[Outcome]
) -> None:
    form = {"name": "Nina", "email": "nina@example.com", "monthly": "on"}
    page = client.post("/sign-up", data=form, follow_redirects=True)

    assert [one.request.path for one in page.history] == ["/sign-up", "/welcome"]
    assert ways(outcomes) == [
        ("Delayed", ["Sign Up"]),
        ("Delayed", ["Welcome"]),
        ("ClientSide", ["Sign Up", "Welcome", "View Parts"]),
    ]
    assert outcomes[-1].calls[0].name == "identify"
    # What it says of her it says once.
    sent = [one for one in outcomes if one.strategy == "AsyncServerSide"]
    assert [[call.name for call in one.calls] for one in sent] == [
        ["identify", "people.set"]
    ]


def test_nobody_signs_up_twice(client: FlaskClient, outcomes: list[Outcome]) -> None:
    form = {"name": "Ada", "email": "ada@example.com"}
    page = client.post("/sign-up", data=form, follow_redirects=True)

    assert page.request.path == "/sign-in"
    assert outcomes == []


def test_signing_in_waits_and_signing_out_does_not(
    client: FlaskClient, outcomes: list[Outcome]
) -> None:
    client.post("/sign-in", data={"email": "ada@example.com"}, follow_redirects=True)

    assert ways(outcomes) == [
        ("Delayed", ["Sign In"]),
        ("ClientSide", ["Sign In", "View Parts"]),
    ]
    outcomes.clear()
    client.post("/sign-out", follow_redirects=True)

    assert ways(outcomes) == [
        ("AsyncServerSide", ["Sign Out", "reset"]),
        ("ClientSide", ["View Parts"]),
    ]


def test_nobody_signs_in_with_an_unknown_address(client: FlaskClient) -> None:
    form = {"email": "who@example.com"}
    page = client.post("/sign-in", data=form, follow_redirects=True)

    assert page.request.path == "/sign-in"
    assert "Nobody has signed up" in page.text


def test_a_script_gets_the_calls_of_its_fetch(
    client: FlaskClient, outcomes: list[Outcome]
) -> None:
    response = client.post(
        "/cart",
        data={"part": "glow"},
        headers={
            "Accept": "application/json",
            "Sec-Fetch-Dest": "empty",
            "X-Mengpaneel-Flush-Capable": "true",
        },
    )

    assert response.json == {"part": "Glow", "count": 1}
    assert "Add to Cart" in response.headers["X-Mengpaneel-Calls"]
    assert ways(outcomes) == [("CapableClientSide", ["Add to Cart"])]


def test_the_same_form_without_a_script_is_redirected(
    client: FlaskClient, outcomes: list[Outcome]
) -> None:
    form = {"part": "glow"}
    page = client.post("/cart", data=form, follow_redirects=True)

    assert page.request.path == "/cart"
    assert ways(outcomes) == [
        ("Delayed", ["Add to Cart"]),
        ("ClientSide", ["Add to Cart", "View Cart"]),
    ]


def test_ordering_leads_to_thanks(client: FlaskClient, outcomes: list[Outcome]) -> None:
    sign_in(client, outcomes)
    client.post("/cart", data={"part": "cue"}, follow_redirects=True)
    outcomes.clear()
    page = client.post("/orders", follow_redirects=True)

    assert "Thank you" in page.text
    assert ways(outcomes) == [
        ("Delayed", ["Place Order"]),
        ("AsyncServerSide", ["people.increment"]),
        ("ClientSide", ["Place Order", "View Thanks"]),
    ]


def test_an_order_needs_a_customer(client: FlaskClient) -> None:
    client.post("/cart", data={"part": "cue"})
    page = client.post("/orders", follow_redirects=True)

    assert page.request.path == "/sign-in"
    assert "You aren’t signed in" in page.text


@pytest.mark.parametrize("path", ["/orders", "/orders.csv"])
def test_who_isnt_signed_in_is_told_so(
    client: FlaskClient, outcomes: list[Outcome], path: str
) -> None:
    page = client.get(path, follow_redirects=True)

    assert page.request.path == "/sign-in"
    assert "You aren’t signed in" in page.text
    assert ways(outcomes) == []


BUTTON = re.compile(
    r'<form class="outside" method="post" action="/outside/([^"]+)">'
    r"<button>[\w ]+ <small>[\w ]+</small></button></form>"
)


@pytest.mark.parametrize("signed_in", [False, True])
def test_each_button_says_what_it_shows_and_the_page_whom_mixpanel_sees(
    client: FlaskClient, outcomes: list[Outcome], signed_in: bool
) -> None:
    if signed_in:
        sign_in(client, outcomes)

    page = client.get("/").text

    assert BUTTON.findall(page) == list(HAPPENINGS)
    assert ("You aren’t signed in: Mixpanel sees a device." in page) is not signed_in
    assert ("You are <b>Ada</b>, to Mixpanel <code>ada</code>" in page) is signed_in
    assert ('data-news="Your orders are on their way' in page) is signed_in


@pytest.mark.parametrize("signed_in", [False, True])
@pytest.mark.parametrize("what", ["phone", "capable-phone"])
def test_a_button_says_whose_phone_it_was(
    client: FlaskClient, outcomes: list[Outcome], what: str, signed_in: bool
) -> None:
    if signed_in:
        sign_in(client, outcomes)

    headers = {"Accept": "application/json", "Sec-Fetch-Dest": "empty"}
    news = client.post(f"/outside/{what}", headers=headers).get_json()["news"]

    assert ("You aren’t signed in, so it was Miles." in news) is not signed_in
    assert ("Ada’s" in news) is signed_in
    assert "Place Order" in news


@pytest.mark.parametrize("header", ["Sec-GPC", "DNT"])
def test_who_asks_not_to_be_tracked_is_told_why_nothing_arrives(
    client: FlaskClient, outcomes: list[Outcome], header: str
) -> None:
    assert "nothing that you do here is recorded" not in client.get("/").text
    outcomes.clear()
    page = client.get("/", headers={header: "1"})

    assert "nothing that you do here is recorded" in page.text
    assert outcomes == []


def test_what_is_taken_out_of_the_cart_is_gone(client: FlaskClient) -> None:
    client.post("/cart", data={"part": "cue"})
    page = client.post("/cart/cue/remove", follow_redirects=True)

    assert "nothing in it" in page.text
    assert client.post("/cart/cue/remove").status_code == 404


@pytest.mark.parametrize(
    ("header", "strategy"),
    [
        ({}, "AsyncServerSide"),
        ({"X-Mengpaneel-Flush-Capable": "1"}, "CapableClientSide"),
    ],
)
def test_a_phone_gets_the_calls_if_it_can_make_them(
    app: Flask,
    client: FlaskClient,
    outcomes: list[Outcome],
    header: dict[str, str],
    strategy: str,
) -> None:
    key = app.extensions["books"].customers["miles"].key
    response = client.post(
        "/api/orders",
        json={"part": "lead"},
        headers={"User-Agent": "App/1", "Authorization": f"Bearer {key}", **header},
    )

    assert response.status_code == 201
    assert ways(outcomes) == [(strategy, ["Place Order"])]


def test_a_phone_of_nobody_orders_nothing(client: FlaskClient) -> None:
    headers = {"Authorization": "Bearer é"}
    answer = client.post("/api/orders", json={"part": "lead"}, headers=headers)

    assert answer.status_code == 401


def test_a_payment_is_the_event_of_who_ordered(
    app: Flask, client: FlaskClient, outcomes: list[Outcome], store: Store
) -> None:
    answer = client.post(
        "/payments",
        json={"order": "1001"},
        headers={
            "User-Agent": "PaymentProvider/1.0",
            "X-Payment-Key": app.config["PAYMENT_KEY"],
        },
    )

    assert answer.json == {"order": "1001", "status": "paid"}
    assert ways(outcomes) == [
        ("AsyncServerSide", ["people.track_charge", "Pay Order"]),
    ]
    assert arrived(app, store, "Pay Order") == [("ada", "AsyncServerSide")]

    for arrival in store.arrivals():
        # The provider's address and device are not the customer's.
        assert not {"ip", "$ip", "$device_id"} & described(arrival.value)


def test_a_payment_needs_the_key(client: FlaskClient, outcomes: list[Outcome]) -> None:
    assert client.post("/payments", json={"order": "1001"}).status_code == 401
    assert outcomes == []


def test_a_download_is_tracked_by_the_server(
    app: Flask, client: FlaskClient, outcomes: list[Outcome], store: Store
) -> None:
    sign_in(client, outcomes)
    file = client.get("/orders.csv")

    assert file.text.splitlines() == [
        "Order,Parts,Total,Paid",
        "1001,Needle + Lead,44,False",
    ]
    assert ways(outcomes) == [("AsyncServerSide", ["Download Orders"])]
    assert arrived(app, store, "Download Orders") == [("ada", "AsyncServerSide")]


def test_what_a_streamed_page_tracks_is_sent_by_the_server(
    client: FlaskClient, outcomes: list[Outcome]
) -> None:
    with client.get("/bench") as page:
        assert page.text.count("Passed") == 6

    assert [
        (strategy, name) for strategy, names in ways(outcomes) for name in names
    ] == [("AsyncServerSide", "Test Part")] * 6


def test_the_inspector_tells_who_took_a_call_and_why_not_the_others(
    app: Flask, client: FlaskClient, outcomes: list[Outcome], store: Store
) -> None:
    sign_in(client, outcomes)
    client.get("/orders.csv")
    arrived(app, store, "Download Orders")
    (event,) = (one for one in store.arrivals() if one.is_event)

    assert event.flushes[-1]["during"] == "GET /orders.csv"
    assert list(event.flushes[-1]["declined"]) == [
        "Delayed",
        "ClientSide",
        "CapableClientSide",
    ]


def test_every_page_has_the_inspector_beside_it(client: FlaskClient) -> None:
    src = 'src="/_mengpaneel/inspector/"'

    for path in ["/", "/cart", "/sign-in", "/sign-up", "/bench"]:
        assert src in client.get(path).text


@pytest.mark.parametrize(
    ("what", "event", "who", "strategy"),
    [
        ("payment", "Pay Order", ["ada"], "AsyncServerSide"),
        ("phone", "Place Order", ["miles"], "AsyncServerSide"),
        ("capable-phone", "Place Order", ["miles"], "CapableClientSide"),
        ("job", "Renew Subscription", ["ada", "miles"], "AsyncServerSide"),
    ],
)
def test_a_button_lets_it_happen_outside(
    app: Flask,
    client: FlaskClient,
    store: Store,
    what: str,
    event: str,
    who: list[str],
    strategy: str,
) -> None:
    headers = {"Accept": "application/json", "Sec-Fetch-Dest": "empty"}
    answer = client.post(f"/outside/{what}", headers=headers)

    assert answer.json["news"]
    assert arrived(app, store, event) == [(person, strategy) for person in who]


def test_a_button_works_without_a_script(client: FlaskClient) -> None:
    page = client.post("/outside/payment", follow_redirects=True)

    assert "Ada has paid order 1001, 44 euros." in page.text


def test_the_job_is_a_command_whose_events_arrive_at_the_running_shop(
    tmp_path: pathlib.Path,
) -> None:
    code = f"example.app:create_app({str(tmp_path)!r})"
    command = [sys.executable, "-m", "flask", "--app", code, "renew"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60
    )
    store = Store(tmp_path / "mengpaneel-inspector.sqlite3")

    assert done.stdout == "Renewed: Ada\nRenewed: Miles\n", done.stderr
    assert {
        (arrival.person, arrival.strategy, arrival.flushes[-1]["during"])
        for arrival in store.arrivals()
        if arrival.is_event
    } == {("ada", "AsyncServerSide", ""), ("miles", "AsyncServerSide", "")}


def test_the_library_is_served_where_npm_has_put_it(tmp_path: pathlib.Path) -> None:
    library = tmp_path / "mixpanel.min.js"
    library.write_text("/* the library */")
    client = create_app(str(tmp_path), LIBRARY=library).test_client()

    assert '"library":"/library/mixpanel.min.js"' in client.get("/").text

    with client.get("/library/mixpanel.min.js") as file:
        assert file.text == "/* the library */"


def test_the_page_tells_when_the_library_is_missing(tmp_path: pathlib.Path) -> None:
    client = create_app(str(tmp_path), LIBRARY=tmp_path / "none.js").test_client()
    page = client.get("/")

    assert "npm ci" in page.text
    assert "https://cdn.mxpnl.com" in page.headers["Content-Security-Policy"]
