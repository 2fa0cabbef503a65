"""Which recorded calls the records come from that arrived."""

from __future__ import annotations

import typing as t

import pytest
from flask import Flask

from flask_mengpaneel.calls import Call
from flask_mengpaneel.inspector import Inspector
from flask_mengpaneel.inspector.matching import may_come_from
from flask_mengpaneel.inspector.store import Arrival
from flask_mengpaneel.signals import failed
from inspector_calls import flush, send
from mixpanel_records import event, people, track, update


def strategies(arrival: Arrival) -> list[str]:
    return [flush["strategy"] for flush in arrival.flushes]


def test_an_event_tells_its_flush(app: Flask, inspector: Inspector) -> None:
    value = event()

    with app.test_request_context("/orders", method="POST"):
        flush(app, "ClientSide", track(value), Delayed="not a redirect")

    assert [call.call for call in inspector.not_arrived()] == [track(value)]

    send(inspector, "track", value)
    (arrival,) = inspector.arrivals()

    assert inspector.not_arrived() == []
    assert arrival.strategy == "ClientSide"
    assert arrival.flushes[0]["declined"] == {"Delayed": "not a redirect"}
    assert arrival.flushes[0]["during"] == "POST /orders"


def test_an_event_may_be_quicker_than_the_news_of_its_flush(
    app: Flask, inspector: Inspector
) -> None:
    value = event()
    send(inspector, "import", value, value)
    flush(app, "ServerSide", track(value))

    assert [arrival.strategy for arrival in inspector.arrivals()] == ["ServerSide"] * 2
    assert inspector.not_arrived() == []


def test_a_delayed_event_tells_each_flush(app: Flask, inspector: Inspector) -> None:
    value = event()
    flush(app, "Delayed", track(value))
    flush(app, "Delayed", track(value))
    flush(app, "ClientSide", track(value))
    send(inspector, "track", value)

    assert strategies(inspector.arrivals()[0]) == ["Delayed", "Delayed", "ClientSide"]


def test_the_group_of_a_page_is_set_by_the_server(
    app: Flask, inspector: Inspector
) -> None:
    """The page has the call too, but only for what goes with every event."""
    identify = Call([["identify"], ["ada"]])
    flush(app, "ClientSide", identify, Call([["set_group"], ["company", "acme"]]))
    flush(app, "AsyncServerSide", identify, people("set", {"company": "acme"}))
    send(inspector, "engage", update(**{"$set": {"company": "acme"}}))

    assert strategies(inspector.arrivals()[0]) == ["AsyncServerSide"]
    assert inspector.not_arrived() == []


def test_an_event_handed_back_tells_both_flushes(
    app: Flask, inspector: Inspector
) -> None:
    value = event()
    flush(app, "ClientSide", track(value))
    flush(app, "AsyncServerSide", track(value))
    send(inspector, "import", value)

    assert strategies(inspector.arrivals()[0]) == ["ClientSide", "AsyncServerSide"]


def test_a_refused_event_tells_its_flush(app: Flask, inspector: Inspector) -> None:
    value = event(distinct_id="undefined")
    flush(app, "AsyncServerSide", track(value))
    send(inspector, "import", value)

    assert inspector.refused()[0].strategy == "AsyncServerSide"
    assert inspector.not_arrived() == []


def test_a_merged_update_comes_from_all_of_its_calls(
    app: Flask, inspector: Inspector
) -> None:
    merged = update(**{"$set": {"Plan": "pro", "Seats": 3}, "$add": {"Orders": 2}})
    calls = (
        people("set", "Plan", "free"),
        people("set", {"Plan": "pro", "Seats": 3}),
        people("increment", "Orders"),
        people("increment", "Orders"),
    )
    flush(app, "AsyncServerSide", *calls)
    send(inspector, "engage", merged)

    assert inspector.not_arrived() == []

    inspector.clear()
    send(inspector, "engage", merged)
    flush(app, "ServerSide", *calls)

    assert inspector.not_arrived() == []
    assert inspector.arrivals()[0].strategy == "ServerSide"


def test_an_update_is_not_matched_with_the_call_of_another_person(
    app: Flask, inspector: Inspector
) -> None:
    call = people("set", "Plan", "pro")
    flush(app, "ServerSide", Call([["identify"], ["bob"]]), call)
    flush(app, "AsyncServerSide", Call([["identify"], ["ada"]]), call)
    send(inspector, "engage", update(**{"$set": {"Plan": "pro"}}))

    assert inspector.arrivals()[0].strategy == "AsyncServerSide"
    assert [call.person for call in inspector.not_arrived()] == ["bob"]


@pytest.mark.parametrize("first", ["news", "update"])
@pytest.mark.parametrize("known", ["by its user", "by its device"])
def test_updates_of_a_browser_after_alias_are_the_users(
    app: Flask, inspector: Inspector, known: str, first: str
) -> None:
    # The library goes on with the device as the distinct id.
    device = {"distinct_id": "$device:d1", "$device_id": "d1"}
    user = {"$user_id": "ada"} if known == "by its user" else {}
    value = update(**{"$set": {"Plan": "pro"}, "$distinct_id": "$device:d1"}, **user)
    calls = [Call([["identify"], ["ada"]]), people("set", "Plan", "pro")]
    send(inspector, "track", event("Sign Up", **device, **{"$user_id": "ada"}))

    if first == "news":
        flush(app, "ServerSide", *calls)
        send(inspector, "engage", value)
    else:
        send(inspector, "engage", value)
        flush(app, "ServerSide", *calls)

    (arrival,) = [a for a in inspector.arrivals() if not a.is_event]
    assert arrival.person == "ada"
    assert len(arrival.flushes) == 1
    assert inspector.not_arrived() == []


def test_alias_is_found_in_the_event_that_it_becomes(
    app: Flask, inspector: Inspector
) -> None:
    flush(app, "ClientSide", Call([["alias"], ["ada_%"]]))
    send(inspector, "track", event("$create_alias", alias="ada_%"))

    assert inspector.arrivals()[0].strategy == "ClientSide"


@pytest.mark.parametrize("last", ["ClientSide", "AsyncServerSide"])
def test_a_call_without_an_id_that_was_delayed_is_one_call(
    app: Flask, inspector: Inspector, last: str
) -> None:
    alias = Call([["alias"], ["ada"]])
    flush(app, "Delayed", alias)
    flush(app, last, alias)
    send(inspector, "track", event("$create_alias", alias="ada"))

    assert strategies(inspector.arrivals()[0]) == ["Delayed", last]
    assert inspector.not_arrived() == []


def test_the_same_call_of_another_request_is_another_call(
    app: Flask, inspector: Inspector
) -> None:
    alias = Call([["alias"], ["ada"]])
    flush(app, "AsyncServerSide", alias)
    flush(app, "AsyncServerSide", alias)

    assert len(inspector.not_arrived()) == 2


def test_a_page_view_tells_its_flush(app: Flask, inspector: Inspector) -> None:
    value = event("$mp_web_page_view")
    flush(app, "Delayed", Call([["track_pageview"], [value["properties"]]]))
    flush(app, "ClientSide", Call([["track_pageview"], [value["properties"]]]))
    send(inspector, "track", value)

    assert strategies(inspector.arrivals()[0]) == ["Delayed", "ClientSide"]
    assert inspector.not_arrived() == []


def test_a_group_update_may_come_from_calls_of_that_group() -> None:
    value: dict[str, t.Any] = {
        "$group_key": "company",
        "$group_id": "12",
        "$set": {"Seats": 1},
    }

    def group(name: t.Any) -> Call:
        return Call([["get_group"], ["company", name], ["set"], ["Seats", 1]])

    assert may_come_from(value, group(12))
    assert not may_come_from(value, group("13"))
    assert not may_come_from(value, people("set", "Seats", 1))


def test_what_could_not_be_delivered_is_said(app: Flask, inspector: Inspector) -> None:
    value = event()
    flush(app, "AsyncServerSide", track(value), people("set", "a", 1))
    failed.send(app, records=[value, update()], reason="503 Service Unavailable")

    assert [call.failure for call in inspector.not_arrived()] == [
        "503 Service Unavailable",
        "",
    ]
