"""From a view to a server that answers as Mixpanel does, over real sockets."""

from __future__ import annotations

import base64
import time
import typing as t

import pytest
from flask import Flask, redirect
from werkzeug.middleware.proxy_fix import ProxyFix

from flask_mengpaneel import Manager, failed
from flask_mengpaneel.testing import record_flushes
from sink import Reset, Sink, Status
from sites import ANN, COOKIE, PAGE, TOKEN, Site

SERVER_ONLY = ["AsyncServerSide", "ServerSide"]
ANN_WITH_A_PLAN = {**ANN, "Plan": "pro"}
JSON = {"Accept": "*/*"}
IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15"
    " (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1"
)


@pytest.fixture(params=["thread", "inline"])
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class SendingSite(Site):
    """A site that sends to the sink, by one of the transports."""

    def __init__(self, sink: Sink, way: str, **settings: t.Any) -> None:
        super().__init__(api_host=sink.url, transport=way, **settings)
        self.sink = sink

    def tracks(self, path: str = "/", event: str = "Order") -> None:
        self.view(path, lambda: (self.mengpaneel.track(event, {"Items": 3}), {})[1])

    def events(self) -> list[dict[str, t.Any]]:
        """What arrived."""
        assert self.mengpaneel.flush(60)
        return self.sink.events


@pytest.fixture
def site(sink: Sink, way: str) -> SendingSite:
    return SendingSite(sink, way)


def test_an_event_arrives_whole(site: SendingSite, way: str) -> None:
    site.tracks()
    before = time.time()

    with record_flushes(site.app) as outcomes:
        site.visitor(**ANN_WITH_A_PLAN).get(
            "/", headers={**JSON, "Referer": "http://localhost/shop?utm_source=mail"}
        )

    (event,) = site.events()
    properties = event["properties"]

    assert outcomes[0].strategy == (
        "AsyncServerSide" if way == "thread" else "ServerSide"
    )
    assert event["event"] == "Order"
    assert properties["Items"] == 3
    assert properties["token"] == TOKEN
    assert before - 0.01 <= properties["time"] <= time.time()
    assert properties["$insert_id"] == outcomes[0].calls[0].properties["$insert_id"]
    assert properties["distinct_id"] == properties["$user_id"] == "ann"
    assert properties["$device_id"] == "d1"
    assert properties["Plan"] == "pro"
    assert properties["$browser"] == "Chrome"
    assert properties["$browser_version"] == 143
    assert properties["$os"] == "Linux"
    assert properties["ip"] == "127.0.0.1"
    assert properties["$current_url"] == "http://localhost/shop?utm_source=mail"
    assert properties["utm_source"] == "mail"


def test_events_go_to_the_endpoint_for_servers(site: SendingSite) -> None:
    site.tracks()
    site.client().get("/", headers=JSON)
    assert len(site.events()) == 1
    (request,) = site.sink.requests
    user = base64.b64decode(request.headers["authorization"].split()[1]).decode()

    assert request.path == "/import"
    assert request.query["strict"] == "1"
    assert user == f"{TOKEN}:"


def test_a_phone_is_a_phone(site: SendingSite) -> None:
    site.tracks()
    site.client(IPHONE).get("/", headers=JSON)
    (event,) = site.events()

    assert event["properties"]["$os"] == "iOS"
    assert event["properties"]["$device"] == "iPhone"
    assert event["properties"]["$browser"] == "Mobile Safari"


def test_the_address_is_the_visitors_behind_a_proxy(site: SendingSite) -> None:
    site.app.wsgi_app = ProxyFix(site.app.wsgi_app)  # type: ignore[method-assign]
    site.tracks()
    site.client().get("/", headers={**JSON, "X-Forwarded-For": "203.0.113.9"})
    (event,) = site.events()

    assert event["properties"]["ip"] == "203.0.113.9"


@pytest.mark.parametrize(
    ("address", "shortened"),
    [("203.0.113.77", "203.0.113.0"), ("2001:db8:1:2:3::4", "2001:db8:1::")],
)
def test_addresses_are_shortened_on_demand(
    sink: Sink, address: str, shortened: str
) -> None:
    site = SendingSite(sink, "thread", anonymize_ip=True)
    site.tracks()
    site.client().get("/", headers=JSON, environ_overrides={"REMOTE_ADDR": address})
    (event,) = site.events()

    assert event["properties"]["ip"] == shortened
    assert address not in str(sink.requests)


def test_one_visitor_stays_one_from_anonymous_to_known(sink: Sink) -> None:
    site = SendingSite(sink, "inline", strategies=SERVER_ONLY)
    site.tracks("/browse", "Browse")

    def sign_up() -> dict[str, str]:
        with site.mengpaneel.before_setup():
            site.mengpaneel.alias("ann")

        with site.mengpaneel.setup():
            site.mengpaneel.identify("ann")

        site.mengpaneel.track("Sign Up")
        site.mengpaneel.people.set({"$email": "ann@example.com"})
        return {}

    def sign_out() -> dict[str, str]:
        site.mengpaneel.track("Sign Out")
        site.mengpaneel.reset()
        return {}

    site.view("/sign-up", sign_up)
    site.view("/sign-out", sign_out)
    client = site.client()

    for path in ("/browse", "/browse", "/sign-up", "/browse", "/sign-out", "/browse"):
        client.get(path, headers=JSON)

    found = [
        (
            event["event"],
            event["properties"].get("$device_id"),
            event["properties"].get("$user_id"),
        )
        for event in site.events()
        if event["event"] != "$create_alias"
    ]
    first, last = found[0][1], found[-1][1]
    (alias,) = [one for one in sink.events if one["event"] == "$create_alias"]
    (update,) = sink.updates

    assert found == [
        ("Browse", first, None),
        ("Browse", first, None),
        ("Sign Up", first, "ann"),
        ("Browse", first, "ann"),
        ("Sign Out", first, "ann"),
        ("Browse", last, None),
    ]
    assert first and last and first != last
    assert alias["properties"]["distinct_id"] == f"$device:{first}"
    assert alias["properties"]["alias"] == "ann"
    assert update["$distinct_id"] == "ann"
    assert update["$set"]["$email"] == "ann@example.com"
    assert client.get_cookie(COOKIE) is not None


def test_profiles_and_groups_go_to_their_endpoints(site: SendingSite) -> None:
    def view() -> dict[str, str]:
        mengpaneel = site.mengpaneel

        with mengpaneel.setup():
            mengpaneel.identify("ann")

        mengpaneel.people.set({"Plan": "pro"})
        mengpaneel.people.increment("Orders")
        mengpaneel.get_group("company", "acme").set({"Seats": 12})
        return {}

    site.view("/", view)
    site.client().get("/", headers=JSON)
    site.events()
    people, groups = site.sink.taken["/engage"], site.sink.taken["/groups"]

    assert {update["$distinct_id"] for update in people} == {"ann"}
    assert any(update.get("$set", {}).get("Plan") == "pro" for update in people)
    assert any(update.get("$add") == {"Orders": 1} for update in people)
    assert groups[0]["$group_key"] == "company"
    assert groups[0]["$group_id"] == "acme"
    assert groups[0]["$set"]["Seats"] == 12


def test_text_of_any_kind_arrives(site: SendingSite) -> None:
    text = "Größe </script> <!-- \u2028 \x00 \" ' 😀 雪 \ud83d"
    expected = text.replace("\ud83d", "\ufffd")
    site.view("/", lambda: (site.mengpaneel.track(text, {text: [text]}), {})[1])
    site.client().get("/", headers=JSON)
    (event,) = site.events()

    assert event["event"] == expected
    assert event["properties"][expected] == [expected]


def test_an_outage_reaches_no_visitor_and_is_told(sink: Sink) -> None:
    site = SendingSite(sink, "inline", timeout=0.3)
    site.tracks()
    sink.always = Status(503)
    told: list[str] = []

    def receive(_app: Flask, *, records: list[t.Any], reason: str) -> None:
        told.extend([reason] * len(records))

    with failed.connected_to(receive, site.app):
        response = site.client().get("/", headers=JSON)

    balance = site.mengpaneel.ledger().snapshot()

    assert response.status_code == 200
    assert len(told) == 1
    assert balance.balanced
    assert sum(balance.dropped.values()) == 1


def test_a_passing_outage_loses_and_doubles_nothing(sink: Sink) -> None:
    site = SendingSite(sink, "thread")
    site.tracks()
    sink.script(Status(503), Reset(), Status(500))
    client = site.client()

    for _ in range(5):
        client.get("/", headers=JSON)

    assert site.mengpaneel.flush(60)
    assert len(sink.ids) == 5
    assert sink.copies == 0
    assert site.mengpaneel.ledger().delivered == 5


def test_a_webhook_over_a_redirect_is_not_delayed(site: SendingSite) -> None:
    site.view("/", lambda: (site.mengpaneel.track("Paid"), redirect("/x"))[1])
    response = site.client("Stripe/1.0").get("/")

    assert [event["event"] for event in site.events()] == ["Paid"]
    assert "session" not in str(response.headers)


def test_a_job_sends_for_whom_it_names(site: SendingSite) -> None:
    with site.app.app_context(), Manager() as manager:
        with manager.setup():
            manager.identify(42)

        manager.track("Renew")
        site.mengpaneel.track("Bill")

    renewed, billed = site.events()

    for event in (renewed, billed):
        assert event["properties"]["distinct_id"] == "42"
        assert "ip" not in event["properties"]
        assert "$current_url" not in event["properties"]

    assert renewed["properties"]["time"] < billed["properties"]["time"]


def test_a_job_for_nobody_is_nobodys(site: SendingSite) -> None:
    with site.app.app_context(), Manager() as manager:
        manager.track("Clean Up")

    (event,) = site.events()

    assert event["properties"]["distinct_id"] == ""


def test_pages_send_nothing_from_the_server(site: SendingSite) -> None:
    site.view("/", lambda: (site.mengpaneel.track("View"), PAGE)[1])
    site.client().get("/")

    assert site.events() == []
    assert site.sink.requests == []


def test_a_background_delivery_does_not_hold_up_the_response(sink: Sink) -> None:
    site = SendingSite(sink, "thread")
    site.tracks()
    sink.latency = 0.5
    site.client().get("/", headers=JSON)

    # The answer to the delivery isn't there yet when the response is.
    assert sink.events == []
    assert len(site.events()) == 1
