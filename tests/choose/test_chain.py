"""Who is asked, in which order, and what becomes of the calls."""

from __future__ import annotations

import collections.abc as c
import typing as t

import pytest
from flask import (
    Response,
    abort,
    redirect,
    stream_with_context,
)

from flask_mengpaneel import Envelope, Manager, Transport, flushed
from flask_mengpaneel.config import STRATEGIES
from sink import Sink
from sites import DEVICE, PAGE, Site, balance, block, header_calls, names, page_calls


class Broken(Transport):
    """A transport with a fault."""

    def send(self, envelope: Envelope) -> bool:
        raise OSError("no queue")


class Full(Transport):
    """A transport without room."""

    def send(self, envelope: Envelope) -> bool:
        return False


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    ("transport", "reason"),
    [(Broken(), "no queue"), (Full(), "no room")],
    ids=["broken", "full"],
)
def test_a_transport_that_takes_nothing_leaves_the_calls_to_the_next_strategy(
    sink: Sink, transport: Transport, reason: str, method: str
) -> None:
    site = Site(testing=False, api_host=sink.url, transport=transport)
    site.view("/", lambda: (site.mengpaneel.track("Order"), {})[1], methods=[method])
    headers = {"Accept": "application/json"}
    response = site.client().open("/", method=method, headers=headers)

    assert response.status_code == 200
    assert response.json == {}
    assert site.outcome.strategy == "ServerSide"
    assert reason in site.outcome.declined["AsyncServerSide"]
    assert [event["event"] for event in sink.events] == ["Order"]
    assert balance(site) == (1, 1, 0)


def tracking_site(respond: c.Callable[[], t.Any], **settings: t.Any) -> Site:
    site = Site(**settings)
    site.view("/", lambda: (site.mengpaneel.track("Order"), respond())[1])
    return site


def test_the_strategies_are_asked_in_their_order() -> None:
    site = tracking_site(lambda: {})
    site.client().get("/", headers={"Accept": "*/*"})

    assert list(site.outcome.declined) == ["Delayed", "ClientSide", "CapableClientSide"]
    assert site.outcome.strategy == "AsyncServerSide"


@pytest.mark.parametrize(
    ("strategies", "taker"),
    [
        (["CapableClientSide", "ClientSide", "ServerSide"], "CapableClientSide"),
        (["ClientSide", "CapableClientSide", "ServerSide"], "ClientSide"),
        (["AsyncServerSide", "ClientSide"], "AsyncServerSide"),
    ],
)
def test_the_setting_says_which_strategies_and_in_which_order(
    strategies: list[str], taker: str
) -> None:
    site = tracking_site(lambda: PAGE, strategies=strategies)
    headers = {"X-Mengpaneel-Flush-Capable": "1", "Sec-Fetch-Dest": "document"}
    site.client().get("/", headers=headers)

    assert site.outcome.strategy == taker
    assert site.outcome.declined == {}


def test_the_first_that_takes_the_calls_has_them_all_and_nobody_else_any() -> None:
    site = tracking_site(lambda: PAGE)
    headers = {"X-Mengpaneel-Flush-Capable": "true", "Sec-Fetch-Dest": "document"}
    response = site.client().get("/", headers=headers)

    assert names(page_calls(response)) == ["track Order"]
    assert header_calls(response) == []
    assert site.kept.envelopes == []


def test_without_the_client_strategies_there_is_no_javascript_at_all() -> None:
    site = tracking_site(lambda: PAGE, strategies=["AsyncServerSide", "ServerSide"])
    site.view("/quiet", lambda: PAGE)
    site.view("/go", lambda: (site.mengpaneel.track("Go"), redirect("/"))[1])
    client = site.client()

    assert client.get("/").text == PAGE
    assert client.get("/quiet").text == PAGE
    assert "<script" not in client.get("/go").text
    assert [call.event for call in site.kept.calls] == ["Order", "Go"]


@pytest.mark.parametrize(
    "strategies",
    [
        ["ClientSide"],
        ["Delayed", "ClientSide", "CapableClientSide"],
        ["CapableClientSide"],
    ],
)
def test_calls_that_no_strategy_takes_are_in_the_ledger_as_dropped(
    strategies: list[str],
) -> None:
    site = tracking_site(lambda: {}, strategies=strategies)
    site.client().get("/", headers={"Accept": "*/*"})
    balance = site.mengpaneel.ledger().snapshot()

    assert balance.recorded == 1
    assert sum(balance.dropped.values()) == 1
    assert balance.balanced


def insisting_site(strategy: str, respond: c.Callable[[], t.Any]) -> Site:
    site = Site()

    def view() -> t.Any:
        site.mengpaneel.strategy = strategy
        site.mengpaneel.track("Order")
        return respond()

    site.view("/", view)
    site.view("/plain", lambda: (site.mengpaneel.track("View"), PAGE)[1])
    return site


def test_a_request_may_insist_on_a_strategy() -> None:
    site = insisting_site("AsyncServerSide", lambda: PAGE)
    response = site.client().get("/")

    assert site.outcome.strategy == "AsyncServerSide"
    assert site.outcome.declined == {}
    assert page_calls(response) == []


def test_the_next_request_insists_on_nothing() -> None:
    site = insisting_site("AsyncServerSide", lambda: PAGE)
    client = site.client()

    assert page_calls(client.get("/")) == []
    assert names(page_calls(client.get("/plain"))) == ["track View"]
    assert site.outcomes[1].strategy == "ClientSide"
    assert [call.event for call in site.kept.calls] == ["Order"]


@pytest.mark.parametrize("strategy", ["Delayed", "ClientSide", "CapableClientSide"])
def test_if_the_insisted_one_declines_the_server_follows(strategy: str) -> None:
    site = insisting_site(strategy, lambda: {})
    site.client().get("/")

    assert site.outcome.strategy == "AsyncServerSide"
    assert list(site.outcome.declined) == [strategy]


def test_insisting_on_the_server_goes_past_a_page_that_could(sink: Sink) -> None:
    site = Site(api_host=sink.url)

    def view() -> str:
        site.mengpaneel.strategy = "ServerSide"
        site.mengpaneel.track("Order")
        return PAGE

    site.view("/", view)
    site.client().get("/")

    assert site.outcome.strategy == "ServerSide"
    assert [event["event"] for event in sink.events] == ["Order"]


def test_a_job_may_insist_on_a_strategy(sink: Sink) -> None:
    site = Site(api_host=sink.url)

    with site.app.app_context(), Manager(strategy="ServerSide") as manager:
        manager.track("Renew")

    assert site.outcome.strategy == "ServerSide"
    assert len(sink.events) == 1


def test_an_outcome_has_the_calls_in_the_order_of_the_stages() -> None:
    site = Site()

    def view() -> str:
        site.mengpaneel.track("Order")

        with site.mengpaneel.setup():
            site.mengpaneel.identify("ann")

        with site.mengpaneel.before_setup():
            site.mengpaneel.alias("ann")

        return PAGE

    site.view("/", view)
    response = site.client().get("/")

    assert [call.name for call in site.outcome.calls] == ["alias", "identify", "track"]
    assert names(page_calls(response)) == ["alias ann", "identify ann", "track Order"]


def test_a_server_side_flush_with_nothing_but_set_up_calls_does_nothing() -> None:
    site = Site()

    def view() -> dict[str, str]:
        with site.mengpaneel.setup():
            site.mengpaneel.identify("ann")
            site.mengpaneel.people.set({"Plan": "pro"})

        return {}

    site.view("/", view)
    response = site.client("curl/8.5.0").get("/")

    assert site.kept.envelopes == []
    assert "Set-Cookie" not in response.headers
    assert site.mengpaneel.ledger().recorded == 0


def test_an_alias_goes_from_the_server_even_if_nothing_was_tracked() -> None:
    site = Site()

    def view() -> dict[str, str]:
        with site.mengpaneel.before_setup():
            site.mengpaneel.alias("ann")

        return {}

    site.view("/", view)
    site.visitor(**DEVICE).get("/", headers={"Accept": "*/*"})
    (message,) = site.messages

    assert message["event"] == "$create_alias"
    assert message["properties"]["alias"] == "ann"
    assert message["properties"]["distinct_id"] == "$device:d1"


def test_what_a_view_recorded_before_it_raised_goes_from_the_server() -> None:
    site = Site()

    def view() -> str:
        site.mengpaneel.track("Order")
        raise ZeroDivisionError

    site.view("/", view)

    with pytest.raises(ZeroDivisionError):
        site.client().get("/")

    assert [call.event for call in site.kept.calls] == ["Order"]


def test_an_error_page_is_a_page() -> None:
    site = Site(testing=False)
    site.app.register_error_handler(500, lambda error: (PAGE, 500))

    def view() -> str:
        site.mengpaneel.track("Order")
        raise ZeroDivisionError

    site.view("/", view)
    response = site.client().get("/")

    assert response.status_code == 500
    assert names(page_calls(response)) == ["track Order"]
    assert site.kept.envelopes == []


def test_an_error_handlers_redirect_is_a_redirect() -> None:
    site = Site()
    site.app.register_error_handler(401, lambda error: redirect("/sign-in"))
    site.view("/", lambda: (site.mengpaneel.track("Refused"), abort(401))[1])
    site.view("/sign-in", lambda: PAGE)
    response = site.client().get("/", follow_redirects=True)

    assert names(page_calls(response)) == ["track Refused"]


def test_what_a_body_tracks_while_it_streams_goes_from_the_server() -> None:
    site = Site()

    def view() -> Response:
        site.mengpaneel.track("Export")

        def rows() -> c.Iterator[str]:
            yield "<html><head></head>"
            site.mengpaneel.track("Exported")
            yield "</html>"

        return Response(stream_with_context(rows()))

    site.view("/", view)
    response = site.client().get("/")

    assert response.text == "<html><head></head></html>"
    assert [call.event for call in site.kept.calls] == ["Export", "Exported"]


def test_a_manager_within_a_request_is_a_unit_of_its_own() -> None:
    site = Site()

    def view() -> str:
        site.mengpaneel.track("Before")

        with Manager() as manager:
            manager.track("Inside")
            site.mengpaneel.track("Inside too")

        site.mengpaneel.track("After")
        return PAGE

    site.view("/", view)
    response = site.client().get("/")

    assert names(page_calls(response)) == ["track Before", "track After"]
    assert [call.event for call in site.kept.calls] == ["Inside", "Inside too"]


def test_a_response_of_a_quiet_request_is_untouched() -> None:
    site = Site()
    site.view("/json", lambda: {"a": 1})
    site.view("/go", lambda: redirect("/json"))
    client = site.client()
    client.set_cookie("session", "broken")

    for path in ("/json", "/go"):
        response = client.get(path)
        assert "Vary" not in response.headers
        assert "Set-Cookie" not in response.headers
        assert "Cache-Control" not in response.headers

    assert site.outcomes == []


@pytest.mark.parametrize("tracks", [True, False])
def test_trouble_of_ours_leaves_the_response_as_it_was(
    tracks: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def nonce() -> str:
        raise LookupError("no nonce")

    def view() -> str:
        if tracks:
            site.mengpaneel.track("Order")

        return PAGE

    site = Site(testing=False, csp_nonce=nonce)
    site.view("/", view)
    response = site.client().get("/")

    assert response.status_code == 200
    assert response.text == PAGE
    assert "no nonce" in caplog.text
    assert [call.event for call in site.kept.calls] == ["Order"] * tracks

    if tracks:
        assert "no nonce" in site.outcome.declined["ClientSide"]

    site.app.testing = True

    with pytest.raises(LookupError, match="no nonce"):
        site.client().get("/")


@pytest.mark.parametrize("path", ["/page", "/json"])
def test_a_receiver_that_fails_breaks_nothing(path: str) -> None:
    site = Site(testing=False)
    site.view("/page", lambda: (site.mengpaneel.track("Order"), PAGE)[1])
    site.view("/json", lambda: (site.mengpaneel.track("Order"), {})[1])

    def failing(app: t.Any, **_: t.Any) -> None:
        raise ZeroDivisionError

    with flushed.connected_to(failing, site.app):
        response = site.client().get(path)

    if path == "/page":
        assert names(page_calls(response)) == ["track Order"]
        assert block(response) is not None
    else:
        assert response.json == {}
        assert [call.event for call in site.kept.calls] == ["Order"]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_ledger_balances_with_a_transport_of_ones_own(method: str) -> None:
    site = Site()
    site.view("/", lambda: (site.mengpaneel.track("Order"), {})[1], methods=[method])
    site.client().open("/", method=method, headers={"Accept": "*/*"})

    assert balance(site) == (1, 1, 0)


@pytest.mark.parametrize("timeout", [30, 0])
@pytest.mark.parametrize("path", ["/page", "/json", "/go"])
def test_calls_that_a_response_carries_wait_to_be_acknowledged(
    path: str, timeout: float
) -> None:
    site = Site(ack_timeout=timeout)

    def view(respond: c.Callable[[], t.Any]) -> c.Callable[[], t.Any]:
        def tracked() -> t.Any:
            with site.mengpaneel.setup():
                site.mengpaneel.identify("ann")

            site.mengpaneel.track("Order")
            site.mengpaneel.people.increment("Orders")
            return respond()

        return tracked

    site.view("/page", view(lambda: PAGE))
    site.view("/json", view(lambda: {}))
    site.view("/go", view(lambda: redirect("/quiet")))
    site.client().get(path, headers={"X-Mengpaneel-Flush-Capable": "true; ack"})
    balance = site.mengpaneel.ledger().snapshot()
    events, operations = site.outcomes

    assert operations.strategy == "AsyncServerSide"
    assert [call.name for call in operations.calls] == ["identify", "people.increment"]
    assert events.strategy in STRATEGIES[:3]
    assert events.calls[-1].name == "track"
    waiting = int(timeout > 0)
    assert (balance.recorded, balance.delivered, balance.waiting) == (
        2,
        2 - waiting,
        waiting,
    )
