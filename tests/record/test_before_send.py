"""``MENGPANEEL_BEFORE_SEND``: the app changes or drops events that are recorded."""

from __future__ import annotations

import collections.abc as c
import logging
import typing as t

import pytest
from flask import request

from flask_mengpaneel import Manager, TrackedEvent
from flask_mengpaneel.record.context import current_manager
from sites import CAPABLE, DEVICE, PAGE, Site, header_calls, page_calls

BeforeSend = c.Callable[[TrackedEvent], t.Any]
FIXED = ("time", "$insert_id", "distinct_id", "$device_id", "$user_id", "token")


def scrub(event: TrackedEvent) -> TrackedEvent | None:
    """What an app would write."""
    if event.name == "Health Check":
        return None

    event.properties.pop("Address", None)
    event.properties["Scrubbed"] = True
    return event


def site_of(before_send: BeforeSend, **settings: t.Any) -> Site:
    site = Site(before_send=before_send, **settings)

    def track() -> None:
        site.mengpaneel.track("Health Check")
        site.mengpaneel.track("Order", {"Address": "1 Main St", "Total": 3})
        site.mengpaneel.people.set({"Address": "the profile's own"})

    site.view("/", lambda: (track(), PAGE)[1])
    site.view("/data", lambda: (track(), {})[1])
    site.view("/away", lambda: (track(), ("", 302, {"Location": "/page"}))[1])
    site.view("/page", lambda: PAGE)
    return site


def page(site: Site) -> list[t.Any]:
    return page_calls(site.visitor(**DEVICE).get("/"))


def header(site: Site) -> list[t.Any]:
    return header_calls(site.visitor(**DEVICE).get("/data", headers=CAPABLE))


def redirect(site: Site) -> list[t.Any]:
    client = site.visitor(**DEVICE)
    return page_calls(client.get("/away", follow_redirects=True))


def server(site: Site) -> list[t.Any]:
    site.visitor(**DEVICE).get("/data")
    return [call.wire for call in site.kept.calls]


def job(site: Site) -> list[t.Any]:
    with site.app.app_context(), Manager(identify="ann"):
        site.mengpaneel.track("Health Check")
        site.mengpaneel.track("Order", {"Address": "1 Main St", "Total": 3})

    return [call.wire for call in site.kept.calls]


@pytest.mark.parametrize("way", [page, header, redirect, server, job])
def test_events_are_changed_and_dropped_whichever_way_they_go(
    way: c.Callable[[Site], list[t.Any]],
) -> None:
    site = site_of(scrub)
    ((_, (name, properties)),) = [call for call in way(site) if call[0] == ["track"]]

    assert name == "Order"
    assert properties.keys() - {"distinct_id", "$device_id", "$current_url"} == {
        "Total",
        "Scrubbed",
        "time",
        "$insert_id",
    }
    ledger = site.app.extensions["mengpaneel"].ledger.snapshot()
    assert ledger.dropped == {"dropped by MENGPANEEL_BEFORE_SEND": 1}
    assert ledger.balanced


def events(site: Site) -> list[TrackedEvent]:
    return [TrackedEvent(c.event, c.properties) for c in site.kept.calls if c.tracks]


def record(
    before_send: BeforeSend,
    track: c.Callable[[Manager], object] = lambda manager: manager.track("Visit"),
    **settings: t.Any,
) -> Site:
    site = Site(before_send=before_send, **settings)

    with site.app.app_context(), Manager() as manager:
        track(manager)

    return site


@pytest.mark.parametrize(
    "track",
    [
        lambda m: m.track("Visit", {"A": 1}),
        lambda m: m.track_pageview({"A": 1}, {"event_name": "Visit"}),
        lambda m: m.track_with_groups("Visit", {"A": 1}, {"company": "acme"}),
        lambda m: m.call("track", "Visit", {"A": 1}),
    ],
    ids=["track", "track_pageview", "track_with_groups", "call"],
)
def test_each_call_that_tracks_can_be_renamed_and_keeps_the_rest(
    track: c.Callable[[Manager], object],
) -> None:
    def rename(event: TrackedEvent) -> TrackedEvent:
        assert event.name == "Visit"
        assert event.properties["A"] == 1
        return TrackedEvent("Come By", {"B": 2})

    (call,) = record(rename, track).kept.calls
    (plain,) = record(lambda event: event, track).kept.calls

    assert call.event == "Come By"
    assert call.properties.keys() == {"B", "time", "$insert_id"}
    assert call.name == plain.name
    # The groups, and the options.
    assert len(call.arguments) == len(plain.arguments)
    assert call.arguments[2:] == plain.arguments[2:]


def test_a_page_view_gets_a_name_of_its_own() -> None:
    def rename(event: TrackedEvent) -> TrackedEvent:
        assert event.name == "$mp_web_page_view"
        event.name = "View"
        return event

    (call,) = record(rename, lambda manager: manager.track_pageview()).kept.calls

    assert call.arguments[1:] == [{"event_name": "View"}]


def test_only_events_are_asked_about() -> None:
    asked = []

    def note(event: TrackedEvent) -> TrackedEvent:
        asked.append(event.name)
        return event

    def call_all(manager: Manager) -> None:
        manager.register({"A": 1})
        manager.identify("ann")
        manager.people.set("A", 1)
        manager.get_group("company", "acme").set("A", 1)
        manager.time_event("Visit")
        manager.track("Visit")

    record(note, call_all)

    assert asked == ["Visit"]


def test_it_sees_the_event_as_it_would_have_gone() -> None:
    seen: dict[str, t.Any] = {}

    def look(event: TrackedEvent) -> TrackedEvent:
        seen.update(event.properties)
        return event

    def track(manager: Manager) -> None:
        manager.time_event("Visit")
        manager.track("Visit", {"A": 1, "$user_id": "bob"})

    record(look, track, default_properties={"Release": 3})

    assert seen.keys() == {
        "A",
        "Release",
        "$user_id",
        "time",
        "$insert_id",
        "$duration",
    }


def meddle(event: TrackedEvent) -> TrackedEvent:
    event.properties.update(dict.fromkeys(FIXED, "x"))
    return event


def replace(event: TrackedEvent) -> TrackedEvent:
    return TrackedEvent(event.name, dict.fromkeys(FIXED, "x"))


def clear(event: TrackedEvent) -> TrackedEvent:
    event.properties.clear()
    return event


@pytest.mark.parametrize("before_send", [meddle, replace, clear])
@pytest.mark.parametrize("own", [{}, {"$user_id": "bob", "time": 1_700_000_000}])
def test_whose_it_is_and_when_it_was_stays(
    before_send: BeforeSend, own: dict[str, t.Any]
) -> None:
    seen: dict[str, t.Any] = {}

    def before(event: TrackedEvent) -> TrackedEvent:
        seen.update(event.properties)
        return t.cast(TrackedEvent, before_send(event))

    (event,) = events(record(before, lambda manager: manager.track("Visit", own)))

    assert event.properties == seen
    assert seen.keys() == {"time", "$insert_id", *own}


def test_what_it_keeps_and_changes_later_changes_nothing() -> None:
    kept: list[TrackedEvent] = []

    def keep(event: TrackedEvent) -> TrackedEvent:
        kept.append(event)
        return event

    def track(manager: Manager) -> None:
        manager.track("Visit", {"Items": [1]})
        kept[0].name = "Later"
        kept[0].properties["Items"].append(2)
        kept[0].properties["A"] = 1

    (event,) = events(record(keep, track))

    assert event.name == "Visit"
    assert event.properties["Items"] == [1]
    assert "A" not in event.properties


def fail(event: TrackedEvent) -> TrackedEvent:
    raise ZeroDivisionError("boom")


def track_too(event: TrackedEvent) -> TrackedEvent:
    current_manager().track("Another")
    return event


def with_value(value: t.Any) -> BeforeSend:
    def before_send(event: TrackedEvent) -> TrackedEvent:
        event.properties["A"] = value
        return event

    return before_send


WRONG = [
    pytest.param(fail, ZeroDivisionError, id="raises"),
    pytest.param(lambda event: {"A": 1}, TypeError, id="dict"),
    pytest.param(lambda event: True, TypeError, id="true"),
    pytest.param(lambda event: (event.name, event.properties), TypeError, id="tuple"),
    pytest.param(lambda event: TrackedEvent("", {}), ValueError, id="empty name"),
    pytest.param(
        lambda event: TrackedEvent(t.cast(str, None), {}), TypeError, id="no name"
    ),
    pytest.param(
        lambda event: TrackedEvent("A", t.cast(t.Any, [1])), TypeError, id="list"
    ),
    pytest.param(with_value(object()), TypeError, id="object"),
    pytest.param(with_value(float("nan")), ValueError, id="nan"),
    pytest.param(with_value("x" * 1_100_000), ValueError, id="large"),
]


@pytest.mark.parametrize(("before_send", "error"), WRONG)
def test_what_goes_wrong_is_raised_in_tests(
    before_send: BeforeSend, error: type[Exception]
) -> None:
    with pytest.raises(error):
        record(before_send)


@pytest.mark.parametrize(("before_send", "error"), WRONG)
def test_what_goes_wrong_drops_the_event_and_is_logged(
    before_send: BeforeSend, error: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    site = record(before_send, testing=False)

    assert not events(site)
    ledger = site.app.extensions["mengpaneel"].ledger.snapshot()
    assert ledger.balanced
    assert set(ledger.dropped) == {"refused when recorded"}
    messages = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert "mengpaneel.track was not recorded" in messages[-1].getMessage()
    assert messages[-1].exc_info is not None


def test_what_it_tracks_itself_is_refused() -> None:
    with pytest.raises(RuntimeError, match="MENGPANEEL_BEFORE_SEND is being asked"):
        record(track_too)

    site = record(track_too, testing=False)

    assert [event.name for event in events(site)] == ["Visit"]
    assert site.app.extensions["mengpaneel"].ledger.dropped == {
        "refused when recorded": 1
    }


def test_a_failure_says_where_it_was() -> None:
    with pytest.raises(ZeroDivisionError) as raised:
        record(fail)

    assert any("MENGPANEEL_BEFORE_SEND" in note for note in raised.value.__notes__)


def test_an_internal_user_is_dropped_by_what_the_request_says() -> None:
    site = site_of(
        lambda event: None if request.args.get("internal") else event, testing=True
    )
    client = site.visitor(**DEVICE)

    client.get("/data?internal=1")
    assert not events(site)

    client.get("/data")
    assert [event.name for event in events(site)] == ["Health Check", "Order"]


def test_nobody_without_consent_is_asked_about() -> None:
    def never(event: TrackedEvent) -> TrackedEvent:
        raise AssertionError(event)

    site = site_of(never)

    site.visitor(**DEVICE).get("/data", headers={"DNT": "1"})

    assert not events(site)
