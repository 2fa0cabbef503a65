"""The calls of a request come after those of others that wait in the session, of which
the browser doesn't know yet."""

from __future__ import annotations

import json
import threading
import typing as t
from urllib.parse import quote

import pytest
from flask import (
    Response,
    copy_current_request_context,
    redirect,
    stream_with_context,
)

from agents import CHROME
from flask_mengpaneel import Manager
from flask_mengpaneel.record.context import current_manager
from sites import (
    ACKNOWLEDGES,
    ANN,
    CAPABLE,
    COOKIE,
    DEVICE,
    PAGE,
    Site,
    come,
    header_calls,
    library_cookie,
    names,
    page_calls,
    sent,
)

OFFSITE = "https://pay.example/"
BROWSER = {"User-Agent": CHROME}

Record = t.Callable[[t.Any], object]


def switch_in_setup(mengpaneel: t.Any) -> None:
    with mengpaneel.setup():
        mengpaneel.identify("bob")

    mengpaneel.track("First")


def switch(mengpaneel: t.Any) -> None:
    mengpaneel.identify("bob")
    mengpaneel.track("First")


def site_of(first: Record, second: Record, **settings: t.Any) -> Site:
    """A site whose ``/first`` records something and redirects; the others record
    something else, and answer in different ways."""
    site = Site(**settings)

    def answer(record: Record, response: t.Any) -> t.Callable[[], t.Any]:
        return lambda: (record(site.mengpaneel), response)[1]

    site.view("/first", answer(first, redirect("/second")))
    site.view("/second", answer(second, redirect("/page")))
    site.view("/api", answer(second, {"ok": True}))
    site.view("/off", answer(second, redirect(OFFSITE)))
    site.view("/page", lambda: PAGE)
    site.view("/view", answer(second, PAGE))
    return site


def distinct_ids(calls: list[t.Any]) -> dict[str, str | None]:
    """By event."""
    return {
        call[1][0]: call[1][1].get("distinct_id")
        for call in calls
        if call[0] == ["track"]
    }


def second(mengpaneel: t.Any) -> None:
    mengpaneel.track("Second")


@pytest.mark.parametrize("first", [switch_in_setup, switch])
@pytest.mark.parametrize("cookie", [ANN, DEVICE], ids=["switch", "sign-in"])
def test_over_two_redirects_an_event_is_of_whom_the_first_identified(
    first: Record, cookie: dict[str, str]
) -> None:
    client = come(site_of(first, second), cookie)
    client.get("/first", headers=BROWSER)
    client.get("/second", headers=BROWSER)
    found = distinct_ids(page_calls(client.get("/page", headers=BROWSER)))
    assert found["Second"] == "bob"


@pytest.mark.parametrize("first", [switch_in_setup, switch])
@pytest.mark.parametrize("cookie", [ANN, DEVICE], ids=["switch", "sign-in"])
def test_what_the_server_sends_is_of_whom_a_redirect_identified(
    first: Record, cookie: dict[str, str]
) -> None:
    site = site_of(first, second)
    client = come(site, cookie)
    client.get("/first", headers=BROWSER)
    client.get("/api", headers={**BROWSER, "Accept": "application/json"})
    (event,) = [one for one in sent(site.app, site.kept) if one["event"] == "Second"]
    assert event["properties"]["distinct_id"] == "bob"
    assert event["properties"]["$device_id"] == "d1"

    # The browser learns it of the page.
    found = page_calls(client.get("/page", headers=BROWSER))
    assert [call[0] for call in found].count(["identify"]) == 1


def test_a_header_has_what_waits_first() -> None:
    client = come(site_of(switch, second), ANN)
    client.get("/first", headers=BROWSER)
    calls = header_calls(client.get("/api", headers={**BROWSER, **CAPABLE}))
    # A client that is believed names them itself.
    assert names(calls) == ["identify bob", "track First", "track Second"]


@pytest.mark.parametrize("first", [switch_in_setup, switch])
@pytest.mark.parametrize("path", ["/second", "/api", "/view"])
def test_an_operation_is_made_for_whom_a_redirect_identified(
    first: Record, path: str
) -> None:
    def operate(mengpaneel: t.Any) -> None:
        mengpaneel.people.set({"Plan": "pro"})
        mengpaneel.track("Second")

    site = site_of(first, operate)
    client = come(site, ANN)
    client.get("/first", headers=BROWSER)
    client.get(path, headers=BROWSER)
    (update,) = [one for one in sent(site.app, site.kept) if "$set" in one]
    assert update["$distinct_id"] == "bob"


def test_after_a_sign_out_that_waits_nothing_is_the_former_user_s() -> None:
    site = site_of(lambda mengpaneel: mengpaneel.reset(), second)
    client = come(site, ANN)
    client.get("/first", headers=BROWSER)
    client.get("/api", headers={**BROWSER, "Accept": "application/json"})
    events = [one for one in sent(site.app, site.kept) if one["event"] == "Second"]
    assert [one["properties"].get("$user_id") for one in events] == [None]
    assert "ann" not in {one["properties"]["distinct_id"] for one in events}
    assert "d1" not in {one["properties"].get("$device_id") for one in events}


def test_super_properties_that_wait_are_those_of_what_the_server_sends() -> None:
    def register(mengpaneel: t.Any) -> None:
        mengpaneel.register({"plan": "pro"})

    site = site_of(register, second)
    client = come(site, DEVICE)
    client.get("/first", headers=BROWSER)
    client.get("/api", headers={**BROWSER, "Accept": "application/json"})
    (event,) = sent(site.app, site.kept)
    assert event["properties"]["plan"] == "pro"


def test_what_is_sent_late_is_known_to_what_comes_after_it() -> None:
    """Who is sent to another site may not come back: all is sent at once."""
    site = Site()

    def view(name: str, plan: str | None, target: str) -> None:
        def respond() -> t.Any:
            if plan is not None:
                site.mengpaneel.register({"plan": plan})

            site.mengpaneel.track(name)
            return redirect(target)

        site.view(f"/{name}", respond)

    view("One", "free", "/Two")
    view("Two", "pro", "/Three")
    view("Three", None, "/Four")
    view("Four", None, OFFSITE)
    client = come(site, DEVICE)

    for name in ("One", "Two", "Three", "Four"):
        client.get(f"/{name}", headers=BROWSER)

    found = {
        one["event"]: one["properties"].get("plan") for one in sent(site.app, site.kept)
    }
    assert found == {"One": "free", "Two": "pro", "Three": "pro", "Four": "pro"}
    assert library_cookie(client)["plan"] == "pro"


@pytest.mark.parametrize("first", [switch_in_setup, switch])
def test_who_is_identified_late_is_who_comes_after_it(first: Record) -> None:
    site = site_of(first, second)
    client = come(site, ANN)
    client.get("/first", headers=BROWSER)
    client.get("/off", headers=BROWSER)
    events = [one for one in sent(site.app, site.kept) if "event" in one]
    assert {one["event"]: one["properties"]["distinct_id"] for one in events} | {
        "$identify": "bob"
    } == {"First": "bob", "Second": "bob", "$identify": "bob"}
    assert library_cookie(client)["$user_id"] == "bob"


def test_whom_the_browser_has_learnt_of_since_counts() -> None:
    site = site_of(switch, second)
    client = come(site, ANN)
    client.get("/first", headers=BROWSER)
    carl = {"distinct_id": "carl", "$device_id": "d1", "$user_id": "carl"}
    client.set_cookie(COOKIE, quote(json.dumps(carl)))
    client.get("/api", headers={**BROWSER, "Accept": "application/json"})
    events = [one for one in sent(site.app, site.kept) if "event" in one]
    found = {one["event"]: one["properties"]["distinct_id"] for one in events}
    assert (found["First"], found["Second"]) == ("bob", "carl")


@pytest.mark.parametrize("first", [switch_in_setup, switch])
def test_what_a_stream_tracks_is_of_whom_a_redirect_identified(first: Record) -> None:
    def stream() -> t.Iterator[str]:
        yield PAGE
        second(site.mengpaneel)
        site.mengpaneel.people.increment("Streams")

    site = site_of(first, second)
    site.view("/stream", lambda: Response(stream_with_context(stream())))
    client = come(site, ANN)
    client.get("/first", headers=BROWSER)
    client.get("/stream", headers=BROWSER).get_data()
    persons = {
        message.get("event", "profile"): message.get("$distinct_id")
        or message["properties"]["distinct_id"]
        for message in sent(site.app, site.kept)
    }

    assert persons == {"Second": "bob", "profile": "bob"}


@pytest.mark.parametrize("first", [switch_in_setup, switch])
@pytest.mark.parametrize("kind", ["page", "json"])
@pytest.mark.parametrize("says", ["identify", "setup", "reset"])
def test_what_a_stream_tracks_is_of_whom_its_own_view_identified(
    first: Record, kind: str, says: str
) -> None:
    """That comes after what waited."""

    def stream() -> t.Iterator[str]:
        yield PAGE
        second(site.mengpaneel)

    def view() -> Response:
        if says == "reset":
            site.mengpaneel.reset()
        elif says == "setup":
            with site.mengpaneel.setup():
                site.mengpaneel.identify("carol")
        else:
            site.mengpaneel.identify("carol")

        site.mengpaneel.track("Own")
        mimetype = "text/html" if kind == "page" else "application/json"
        return Response(stream_with_context(stream()), mimetype=mimetype)

    site = site_of(first, second)
    site.view("/stream", view)
    client = come(site, ANN)
    client.get("/first", headers=BROWSER)
    client.get("/stream", headers=BROWSER).get_data()
    found = {
        message["event"]: message["properties"]["distinct_id"]
        for message in sent(site.app, site.kept)
        if "event" in message
    }

    assert found["Second"] == found["Own"]
    assert (found["Second"] == "carol") == (says != "reset")
    assert found["Second"] not in ("ann", "bob", "$device:d1")


@pytest.mark.parametrize("path", ["/view", "/api"])
def test_what_waits_isn_t_of_whom_others_have_identified_since(path: str) -> None:
    """An event that says nothing of a user happened before anybody was signed in."""
    site = site_of(second, switch_in_setup)
    client = come(site, DEVICE)
    client.get("/first", headers=BROWSER)
    client.set_cookie(
        COOKIE, quote(json.dumps({**DEVICE, "distinct_id": "ann", "$user_id": "ann"}))
    )
    headers = BROWSER if path == "/view" else {**BROWSER, **ACKNOWLEDGES}
    response = client.get(path, headers=headers)
    calls = page_calls(response) if path == "/view" else header_calls(response)
    (event,) = [call[1][1] for call in calls if call[1][0] == "Second"]

    assert event["distinct_id"] == DEVICE["distinct_id"]
    assert "$user_id" not in event


# -- where no response carries it


@pytest.mark.parametrize("first", [switch_in_setup, switch])
@pytest.mark.parametrize("cookie", [ANN, DEVICE], ids=["switch", "sign-in"])
@pytest.mark.parametrize("how", ["flushed", "in a thread", "streamed", "in a job"])
def test_what_is_sent_beside_a_response_is_of_whom_a_redirect_identified(
    first: Record, cookie: dict[str, str], how: str
) -> None:
    site = site_of(first, lambda mengpaneel: None)

    def stream() -> t.Iterator[str]:
        yield PAGE
        site.mengpaneel.track("Second")

    def view() -> t.Any:
        if how == "streamed":
            return Response(stream_with_context(stream()))

        if how == "in a job":
            with Manager(visitor=site.mengpaneel.visitor.to_json()):
                site.mengpaneel.track("Second")
        elif how == "in a thread":
            work = copy_current_request_context(lambda: site.mengpaneel.track("Second"))
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
        else:
            site.mengpaneel.track("Second")
            current_manager().flush_while_running()

        return PAGE

    site.view("/long", view)
    client = come(site, cookie)
    client.get("/first", headers=BROWSER)
    client.get("/long", headers=BROWSER, buffered=True)
    (event,) = [one for one in sent(site.app, site.kept) if one["event"] == "Second"]
    assert event["properties"]["distinct_id"] == "bob"
    assert event["properties"]["$device_id"] == "d1"


def test_a_job_in_a_request_has_nothing_to_do_with_what_waits() -> None:
    site = site_of(switch, lambda mengpaneel: None)

    def view() -> str:
        with Manager(identify="eve"):
            site.mengpaneel.track("Second")

        return "done"

    site.view("/job", view)
    client = come(site, ANN)
    client.get("/first", headers=BROWSER)
    client.get("/job", headers=BROWSER)
    (event,) = [one for one in sent(site.app, site.kept) if one["event"] == "Second"]
    assert event["properties"]["distinct_id"] == "eve"


def test_who_has_no_cookie_is_one_whatever_waits() -> None:
    """Two requests redirect before the browser has got any ids."""
    site = site_of(second, second)
    client = site.client()

    for _ in range(2):
        client.get("/first", headers=BROWSER)
        client.delete_cookie(COOKIE)

    client.get("/off", headers=BROWSER)
    found = {one["properties"]["distinct_id"] for one in sent(site.app, site.kept)}
    assert len(found) == 1, found
