"""A strategy of an app's own is one class."""

from __future__ import annotations

import collections.abc as c
import json
import typing as t

import pytest
from flask import Response, redirect, request

from flask_mengpaneel import Declined, Manager, Strategy
from flask_mengpaneel.calls import Call, CallLog
from flask_mengpaneel.strategy import Exchange, Visitor
from flask_mengpaneel.testing import RecordingTransport
from sites import COOKIE, PAGE, Site, block, page_calls, set_library_cookie

LINES: list[dict[str, t.Any]] = []


class LogFile(Strategy):
    """Writes what the server would send, unless the log is full."""

    def flush(
        self, calls: CallLog, visitor: Visitor, exchange: Exchange | None
    ) -> None:
        if len(LINES) >= 2:
            raise Declined("the log is full")

        LINES.append(visitor.envelope(calls).to_json())


class ServerTiming(Strategy):
    """Tells the names of events in a header that scripts can read."""

    is_client_side = True

    def flush(
        self, calls: CallLog, visitor: Visitor, exchange: Exchange | None
    ) -> c.Sequence[Call]:
        if exchange is None or not exchange.request.path.startswith("/timed"):
            raise Declined("not asked for")

        response = exchange.private_response()
        names = [call.event.replace(" ", "-") for call in calls.tracking]
        response.headers["Server-Timing"] = ", ".join(names)
        return calls.tracking


class Failing(Strategy):
    def flush(
        self, calls: CallLog, visitor: Visitor, exchange: Exchange | None
    ) -> None:
        raise OSError("no space left on device")


@pytest.fixture(autouse=True)
def lines() -> c.Iterator[list[dict[str, t.Any]]]:
    LINES.clear()
    yield LINES


def make_site(*strategies: t.Any, **settings: t.Any) -> Site:
    site = Site(strategies=strategies, **settings)

    def view() -> t.Any:
        with site.mengpaneel.setup():
            site.mengpaneel.identify("ann")

        site.mengpaneel.track("Place Order", {"Items": 3})

        if "headers" in request.args:
            return Response("{}", headers=json.loads(request.args["headers"]))

        return request.args.get("body", PAGE)

    for path in ("/", "/timed"):
        site.view(path, view)

    site.view("/page", lambda: PAGE)
    site.view("/go", lambda: (site.mengpaneel.track("Go"), redirect("/page"))[1])
    return site


def test_it_takes_the_calls_of_a_request() -> None:
    site = make_site("Delayed", LogFile, "AsyncServerSide")
    site.client().get("/")

    assert site.outcome.strategy == "LogFile"
    assert site.outcome.declined == {"Delayed": "not a redirect"}
    assert [call.name for call in site.outcome.calls] == ["identify", "track"]
    assert [line["calls"][1][1][0] for line in LINES] == ["Place Order"]
    assert site.kept.envelopes == []


def test_what_it_takes_is_delivered_for_the_ledger() -> None:
    site = make_site(LogFile)
    site.client().get("/")
    balance = site.app.extensions["mengpaneel"].ledger.snapshot()

    assert (balance.recorded, balance.delivered, balance.waiting) == (1, 1, 0)


def test_the_browser_learns_what_the_server_has_taken_over() -> None:
    client = make_site(LogFile).client()
    client.get("/")

    assert "%22%24user_id%22%3A%22ann%22" in client.get_cookie(COOKIE).value


@pytest.mark.parametrize("testing", [False, True])
def test_the_next_one_takes_what_it_declines(testing: bool) -> None:
    site = make_site(LogFile, "AsyncServerSide", testing=testing)
    client = site.client()

    for _ in range(3):
        client.get("/")

    assert [outcome.strategy for outcome in site.outcomes] == [
        "LogFile",
        "LogFile",
        "AsyncServerSide",
    ]
    assert site.outcomes[-1].declined == {"LogFile": "the log is full"}
    assert len(site.kept.envelopes) == 1


def test_the_next_one_takes_the_calls_if_it_fails() -> None:
    site = make_site(Failing, "AsyncServerSide", testing=False)
    site.client().get("/")

    assert site.outcome.strategy == "AsyncServerSide"
    assert "no space left" in site.outcome.declined["Failing"]


def test_a_job_uses_it_too() -> None:
    site = make_site(ServerTiming, LogFile)

    with site.app.app_context(), Manager() as manager:
        manager.track("Renew")

    assert site.outcome.declined == {"ServerTiming": "not asked for"}
    assert len(LINES) == 1


def test_set_up_calls_alone_are_no_news_for_the_server() -> None:
    site = make_site(LogFile)

    with site.app.app_context(), Manager() as manager, manager.setup():
        manager.identify("ann")

    assert LINES == []
    assert site.outcomes == []


# -- one whose calls the client makes


def test_it_changes_a_copy_of_the_response_that_no_cache_keeps() -> None:
    site = make_site(ServerTiming, "AsyncServerSide")
    shared = Response("{}", mimetype="application/json")
    site.view("/timed/shared", lambda: (site.mengpaneel.track("Open"), shared)[1])
    response = site.client().get("/timed/shared")

    assert response.headers["Server-Timing"] == "Open"
    assert response.headers["Cache-Control"] == "no-store"
    assert "Server-Timing" not in shared.headers
    assert site.kept.envelopes == []


def test_the_outcome_has_what_it_says_that_it_needed() -> None:
    site = make_site(ServerTiming)
    site.client().get("/timed")
    balance = site.app.extensions["mengpaneel"].ledger.snapshot()

    assert [call.name for call in site.outcome.calls] == ["track"]
    assert (balance.recorded, balance.delivered) == (1, 1)


def test_a_page_loads_the_library_besides() -> None:
    site = make_site(ServerTiming, "ClientSide")
    response = site.client().get("/timed")

    assert response.headers["Server-Timing"] == "Place-Order"
    assert "calls" not in (block(response) or {"calls": []})


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"Cache-Control": "public"}, "shared caches may keep the response"),
        ({"ETag": '"1"'}, "the client may keep the response, and make its calls again"),
        ({"X-Accel-Redirect": "/there"}, "a proxy answers with something else"),
    ],
)
def test_it_declines_where_others_could_get_what_it_gives(
    headers: dict[str, str], reason: str
) -> None:
    site = make_site(ServerTiming, "AsyncServerSide")
    response = site.client().get(
        "/timed", query_string={"headers": json.dumps(headers)}
    )

    assert site.outcome.declined == {"ServerTiming": reason}
    assert "Server-Timing" not in response.headers


def test_what_waits_in_the_session_goes_on_waiting_for_a_page() -> None:
    site = make_site("Delayed", ServerTiming, "ClientSide")
    client = site.client()
    set_library_cookie(client, distinct_id="$device:d1", **{"$device_id": "d1"})
    client.get("/go")
    client.get("/timed?body=text")
    response = client.get("/page")

    assert [outcome.strategy for outcome in site.outcomes] == [
        "Delayed",
        "ServerTiming",
        "ClientSide",
    ]
    assert [call[1][0] for call in page_calls(response)] == ["Go"]


# -- insisting on it


@pytest.mark.parametrize("strategy", [LogFile, "LogFile"], ids=["class", "name"])
def test_a_request_insists_on_it(strategy: t.Any) -> None:
    site = make_site("ClientSide", "AsyncServerSide", LogFile)

    def view() -> str:
        site.mengpaneel.strategy = strategy
        assert site.mengpaneel.strategy == "LogFile"
        site.mengpaneel.track("Sign In")
        return PAGE

    site.view("/insist", view)
    site.client().get("/insist")

    assert (site.outcome.strategy, site.outcome.declined) == ("LogFile", {})


@pytest.mark.parametrize("strategy", [LogFile, "Nope", ""])
def test_one_that_the_app_has_not_is_an_error(strategy: t.Any) -> None:
    site = make_site("ClientSide", ServerTiming)

    with site.app.app_context(), pytest.raises(ValueError) as error:
        Manager(strategy=strategy)

    assert str(error.value).endswith("AsyncServerSide, ServerSide, ServerTiming.")


# -- what else there is


def test_the_inspector_expects_an_operation_of_the_server_alone() -> None:
    site = make_site(ServerTiming, "AsyncServerSide", inspector=True)
    mengpaneel = site.mengpaneel

    def view() -> str:
        mengpaneel.track("Join")
        # The client's copy is for what goes with every event.
        mengpaneel.set_group("company", "acme")
        return PAGE

    site.view("/timed/group", view)
    site.client().get("/timed/group")
    inspector = site.app.extensions["mengpaneel_inspector"]

    assert [outcome.strategy for outcome in site.outcomes] == ["ServerTiming"]
    assert [call.call.name for call in inspector.not_arrived()] == ["track"]


def test_the_doctor_asks_pages_and_writes_nothing() -> None:
    site = make_site(LogFile)
    chain = site.app.extensions["mengpaneel"].chain
    transport = RecordingTransport()

    with chain.diverted(transport):
        site.client().get("/")

    assert len(transport.envelopes) == 1
    # Nobody is told either, such as the inspector.
    assert (LINES, site.outcomes) == ([], [])
    site.client().get("/")
    assert len(LINES) == 1
    assert site.outcome.strategy == "LogFile"
