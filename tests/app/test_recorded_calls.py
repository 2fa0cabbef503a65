"""What a test sees of the calls of its apps: all of them, each once."""

from __future__ import annotations

import collections.abc as c
import datetime as dt
import decimal
import typing as t
import urllib.request
from dataclasses import field

import pytest
from flask import Flask, Response, redirect, request, stream_with_context
from flask.testing import FlaskClient
from sqlalchemy import create_engine
from sqlalchemy.orm import Session
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from agents import CHROME
from flask_mengpaneel import Event, Manager, Mengpaneel
from flask_mengpaneel.testing import RecordedCalls, record_calls
from servers import Server
from sites import CAPABLE, PAGE, Site

CURL = {"User-Agent": "curl/8.5.0"}


@pytest.fixture
def calls() -> c.Iterator[RecordedCalls]:
    with record_calls() as calls:
        yield calls


def make_shop(**settings: t.Any) -> Flask:
    """Make an app that tracks in each way in which a view can."""
    mengpaneel = Mengpaneel()
    # To where nobody listens the server tries for so long.
    app = Site(mengpaneel=mengpaneel, timeout=0.05, **settings).app
    app.config["mengpaneel"] = mengpaneel

    @app.route("/page", methods=["GET", "POST"])
    def page() -> str:
        properties = {"Items": 3, "At": dt.date(2026, 1, 2), "Paid": True}
        mengpaneel.track("View", properties)
        return PAGE

    @app.post("/orders")
    def order() -> t.Any:
        mengpaneel.track("Order")
        return redirect("/page")

    @app.get("/insisting")
    def insisting() -> str:
        mengpaneel.strategy = "ServerSide"
        mengpaneel.track("View")
        return PAGE

    @app.get("/async")
    async def async_view() -> str:
        mengpaneel.track("View")
        return PAGE

    @app.get("/stream")
    def stream() -> Response:
        def body() -> c.Iterator[str]:
            yield "a"
            mengpaneel.track("View")

        return Response(stream_with_context(body()))

    @app.get("/error")
    def error() -> t.NoReturn:
        mengpaneel.track("View")
        raise LookupError

    @app.post("/sign-in")
    def sign_in() -> dict[str, str]:
        with mengpaneel.setup():
            mengpaneel.identify(request.args["id"])

        return {}

    @app.get("/plan")
    def plan() -> str:
        mengpaneel.people.set({"Plan": "pro"})
        mengpaneel.people.set_once({"Since": 2026})
        return PAGE

    return app


@pytest.fixture
def client() -> FlaskClient:
    return make_shop().test_client()


def mengpaneel_of(app: Flask) -> Mengpaneel:
    return t.cast(Mengpaneel, app.config["mengpaneel"])


def work(client: FlaskClient) -> None:
    with client.application.app_context(), Manager() as manager:
        manager.track("View")


@pytest.mark.parametrize(
    ("visit", "way", "during"),
    [
        (lambda client: client.get("/page"), "ClientSide", "GET /page"),
        (
            lambda client: client.get("/page", headers=CAPABLE),
            "CapableClientSide",
            "GET /page",
        ),
        (
            lambda client: client.get("/page", headers=CURL),
            "AsyncServerSide",
            "GET /page",
        ),
        (lambda client: client.get("/insisting"), "ServerSide", "GET /insisting"),
        (lambda client: client.get("/async"), "ClientSide", "GET /async"),
        (
            lambda client: client.get("/stream", buffered=True),
            "AsyncServerSide",
            "GET /stream",
        ),
        (work, "AsyncServerSide", None),
    ],
)
def test_a_call_is_there_whichever_way_it_goes(
    client: FlaskClient,
    calls: RecordedCalls,
    visit: c.Callable[[FlaskClient], object],
    way: str,
    during: str | None,
) -> None:
    visit(client)

    (call,) = calls
    assert calls.events == ["View"]
    assert (call.ways, call.request, call.app) == ([way], during, client.application)
    assert call is calls.assert_tracked("View")


def test_a_call_of_a_view_that_raises_is_there(
    client: FlaskClient, calls: RecordedCalls
) -> None:
    with pytest.raises(LookupError):
        client.get("/error")

    assert [call.ways for call in calls] == [["AsyncServerSide"]]


@pytest.mark.parametrize("ack_timeout", [0, 30])
def test_a_call_over_a_redirect_is_one_of_the_request_that_recorded_it(
    calls: RecordedCalls, ack_timeout: float
) -> None:
    client = make_shop(ack_timeout=ack_timeout).test_client()
    client.post("/orders", follow_redirects=True)
    client.post("/orders")

    first, second, third = calls.by_request
    assert [(call.event, call.ways) for call in first] == [
        ("Order", ["Delayed", "ClientSide"])
    ]
    assert [(call.event, call.request) for call in second] == [("View", "GET /page")]
    assert [(call.event, call.ways) for call in third] == [("Order", ["Delayed"])]
    assert calls.events == ["Order", "View", "Order"]


def test_what_waited_before_is_there_when_it_is_made(client: FlaskClient) -> None:
    client.post("/orders")

    with record_calls() as calls:
        client.get("/page")

    assert sorted(calls.events) == ["Order", "View"]
    assert calls.assert_tracked("Order").request == "GET /page"


def test_apps_side_by_side_are_told_apart(calls: RecordedCalls) -> None:
    shop, blog = make_shop(), make_shop(token="another")
    both = Flask("both")
    both.wsgi_app = DispatcherMiddleware(  # type: ignore[method-assign]
        shop.wsgi_app, {"/blog": blog.wsgi_app}
    )
    client = both.test_client()

    with record_calls(blog) as own:
        client.get("/page")
        client.get("/blog/page")

    assert [call.app for call in calls] == [shop, blog]
    assert [call.app for call in own] == [blog]


def test_a_server_in_a_thread_is_seen(calls: RecordedCalls) -> None:
    with Server(make_shop()) as server:
        for path in ("page", "stream"):
            url = f"{server.url}/{path}"
            asked = urllib.request.Request(url, headers={"User-Agent": CHROME})

            with urllib.request.urlopen(asked, timeout=60) as response:
                response.read()

    assert [(call.request, call.ways) for call in calls] == [
        ("GET /page", ["ClientSide"]),
        ("GET /stream", ["AsyncServerSide"]),
    ]


def test_nothing_is_tracked_before_there_is_consent(calls: RecordedCalls) -> None:
    answer: bool | None = None
    client = make_shop(consent=lambda: answer).test_client()
    client.get("/page")

    calls.assert_not_tracked()
    assert [(call.name, call.ways) for call in calls] == [("track", [])]

    answer = True
    client.get("/page")

    assert calls.events == ["View", "View"]

    answer = False
    client.get("/page")

    assert len(calls) == 2


def test_a_call_is_tracked_while_its_request_goes_on(calls: RecordedCalls) -> None:
    app = make_shop()

    with app.test_request_context():
        mengpaneel_of(app).track("View")
        call = calls.assert_tracked("View")
        assert call.ways == []

    assert call.ways == ["AsyncServerSide"]


def test_a_profile_that_waits_for_its_person_has_no_way_until_then(
    client: FlaskClient, calls: RecordedCalls
) -> None:
    client.get("/plan")
    assert {tuple(call.ways) for call in calls} == {()}

    client.post("/sign-in?id=7")
    client.get("/page")
    calls.assert_profile(Plan="pro", Since=2026)


@pytest.mark.parametrize(
    "expected",
    [
        {"Items": 3},
        {"Items": pytest.approx(3.0001, rel=0.1)},
        {"Items": decimal.Decimal(3)},
        {"Items": 3, "At": dt.date(2026, 1, 2)},
        {"At": "2026-01-02", "Paid": True},
    ],
)
def test_properties_are_compared_as_they_are_written(
    client: FlaskClient, calls: RecordedCalls, expected: dict[str, t.Any]
) -> None:
    client.get("/page")

    assert calls.assert_tracked("View", **expected).properties["Items"] == 3
    calls.assert_tracked("View", expected)

    with pytest.raises(AssertionError):
        calls.assert_not_tracked("View", **expected)

    calls.assert_not_tracked("View", Items=4)
    calls.assert_not_tracked("View", Paid=1)
    calls.assert_not_tracked("View", Gone=None)
    calls.assert_not_tracked("Order")


def failure(assertion: c.Callable[..., object], *args: t.Any, **more: t.Any) -> str:
    with pytest.raises(AssertionError) as failed:
        assertion(*args, **more)

    return str(failed.value)


def test_a_failure_shows_the_nearest_calls(
    client: FlaskClient, calls: RecordedCalls
) -> None:
    assert "no call was recorded at all" in failure(calls.assert_tracked, "View")

    client.post("/orders", follow_redirects=True)
    client.post("/sign-in?id=7")
    view = "{'Items': 3, 'At': '2026-01-02', 'Paid': True}"

    assert failure(calls.assert_tracked, "View", Items=4, Plan="pro").splitlines() == [
        "there is no event 'View' with {'Items': 4, 'Plan': 'pro'}; the nearest calls:",
        f"  <GET /page: track('View', {view}), by ClientSide>",
        "    Items is 3",
        "    has no Plan",
        "  <POST /sign-in: identify('7'), no way so far>",
        "  <POST /orders: track('Order', {}), by Delayed, then ClientSide>",
    ]
    assert failure(calls.assert_tracked, "order").splitlines()[1:2] == [
        "  <POST /orders: track('Order', {}), by Delayed, then ClientSide>"
    ]
    assert failure(calls.assert_not_tracked, "Order").splitlines() == [
        "there is to be no event 'Order', but there is:",
        "  <POST /orders: track('Order', {}), by Delayed, then ClientSide>",
    ]


def test_who_is_identified_with_nothing_isnt_known_to_mixpanel(
    client: FlaskClient, calls: RecordedCalls
) -> None:
    client.post("/sign-in?id=7")
    assert failure(calls.assert_identified, 7).splitlines() == [
        "there is no identify('7'); the nearest calls:",
        "  <POST /sign-in: identify('7'), no way so far>",
        "    no strategy has got it: nothing was tracked that it goes with, it waits"
        " for its person or its database, or the visitor hasn't consented",
    ]

    with client.application.app_context(), Manager(identify=8) as manager:
        manager.track("Work")

    assert calls.assert_identified(8) is calls.assert_identified()
    assert "identify('9')" in failure(calls.assert_identified, "9")
    assert "<a job: identify('8'), by AsyncServerSide>" in failure(
        calls.assert_profile, Plan="pro"
    )


def test_calls_are_forgotten(client: FlaskClient, calls: RecordedCalls) -> None:
    client.get("/page")
    calls.clear()

    assert (len(calls), calls.by_request, calls.outcomes) == (0, [], [])
    calls.assert_not_tracked()


class Renew(Event, name="Renew Plan"):
    plan: str
    months: int = field(default=1, metadata={"name": "Months"})
    coupon: str | None = None


def test_an_event_of_a_class_is_expected_as_it_is_tracked(
    client: FlaskClient, calls: RecordedCalls
) -> None:
    with client.application.app_context(), Manager() as manager:
        manager.track(Renew(plan="pro", months=3))

    assert calls.assert_tracked(Renew).event == "Renew Plan"
    calls.assert_tracked(Renew, Months=3)
    calls.assert_tracked(Renew(plan="pro", months=3))
    calls.assert_not_tracked(Renew, Months=4)
    calls.assert_not_tracked(Renew(plan="pro"))

    assert failure(calls.assert_tracked, Renew(plan="pro")).splitlines() == [
        "there is no event 'Renew Plan' with {'plan': 'pro', 'Months': 1}; the nearest"
        " calls:",
        "  <a job: track('Renew Plan', {'plan': 'pro', 'Months': 3}),"
        " by AsyncServerSide>",
        "    Months is 3",
    ]
    assert "to be no event 'Renew Plan'" in failure(calls.assert_not_tracked, Renew)


def test_what_is_rolled_back_says_so(client: FlaskClient, calls: RecordedCalls) -> None:
    session = Session(create_engine("sqlite://"))

    with client.application.app_context(), Manager(identify="ann") as manager:
        with manager.on_commit(session):
            manager.track("View")
            manager.people.set({"Plan": "pro"})

        session.rollback()

    session.close()
    calls.assert_not_tracked("View")
    assert failure(calls.assert_tracked, "View").splitlines()[:2] == [
        "there is no event 'View'; the nearest calls:",
        "  <a job: track('View', {}), dropped: rolled back>",
    ]
    assert [one.dropped for one in calls] == ["", "rolled back", "rolled back"]
