from __future__ import annotations

import itertools
import threading
import typing as t
import uuid

import pytest
from flask import copy_current_request_context, redirect, request

from agents import CHROME
from flask_mengpaneel import Manager
from flask_mengpaneel.record.context import current_manager
from sites import PAGE, Site, flush_in_thread, set_library_cookie


def api_site(**settings: t.Any) -> Site:
    site = Site(**settings)

    def view() -> dict[str, t.Any]:
        site.mengpaneel.track("Call")
        site.mengpaneel.track("Again")
        return {}

    site.view("/", view, methods=["GET", "POST"])
    return site


def test_calls_of_a_client_without_cookies_are_nobody_s() -> None:
    site = api_site()

    for _ in range(10):
        site.client("curl/8.5.0").post("/")

    events = [one["properties"] for one in site.messages]
    assert {one["distinct_id"] for one in events} == {""}
    assert all("$device_id" not in one for one in events)


def test_a_browser_keeps_getting_a_device() -> None:
    site = api_site()
    client = site.client()
    client.get("/", headers={"Sec-Fetch-Mode": "cors"})
    client.get("/", headers={"Sec-Fetch-Mode": "cors"})
    ids = {one["properties"]["distinct_id"] for one in site.messages}
    assert len(ids) == 1
    assert ids.pop().startswith("$device:")


def test_nobody_has_no_profile_and_gets_no_alias(site: Site) -> None:
    def view() -> dict[str, t.Any]:
        with site.mengpaneel.before_setup():
            site.mengpaneel.alias("ada")

        site.mengpaneel.people.set("Plan", "pro")
        site.mengpaneel.people.increment("Calls")
        site.mengpaneel.track("Call")
        site.mengpaneel.reset()
        site.mengpaneel.track("After")
        return {}

    site.view("/", view)
    site.client("curl/8.5.0").get("/")
    assert [(m["event"], m["properties"]["distinct_id"]) for m in site.messages] == [
        ("Call", ""),
        ("After", ""),
    ]


def test_a_reset_in_a_job_leaves_nobody(site: Site) -> None:
    with site.app.app_context(), Manager(identify="ada") as manager:
        manager.reset()
        manager.track("After")

    assert [one["properties"]["distinct_id"] for one in site.messages] == [""]


@pytest.mark.parametrize(
    ("named", "id"),
    [
        ("key-7", "key-7"),
        (42, "42"),
        (uuid.UUID(int=7), str(uuid.UUID(int=7))),
        (None, ""),
    ],
)
def test_the_app_names_whoever_has_no_cookie(
    named: object, id: str, caplog: pytest.LogCaptureFixture
) -> None:
    site = api_site(visitor=lambda: named)
    response = site.client("curl/8.5.0").post("/")
    assert [one["properties"]["distinct_id"] for one in site.messages] == [id] * 2
    assert "Set-Cookie" not in response.headers
    assert not caplog.records


@pytest.mark.parametrize(
    "named", ["", " ", "null", "0", "$device:x", "x" * 256, "a\nb", True, [], object()]
)
def test_a_name_that_can_t_be_an_id_is_none(
    named: object, caplog: pytest.LogCaptureFixture
) -> None:
    site = api_site(visitor=lambda: named)
    site.client("curl/8.5.0").post("/")
    assert [one["properties"]["distinct_id"] for one in site.messages] == [""] * 2
    (record,) = caplog.records
    assert "MENGPANEEL_VISITOR" in record.getMessage()


def test_a_callable_that_raises_costs_nobody_a_request(
    caplog: pytest.LogCaptureFixture,
) -> None:
    site = api_site(visitor=lambda: 1 / 0)
    assert site.client("curl/8.5.0").post("/").status_code == 200
    assert [one["properties"]["distinct_id"] for one in site.messages] == [""] * 2
    (record,) = caplog.records
    assert "MENGPANEEL_VISITOR failed" in record.getMessage()


@pytest.mark.parametrize("agent", ["curl/8.5.0", CHROME])
@pytest.mark.parametrize("testing", [False, True])
def test_the_app_can_t_track_while_it_is_asked(
    agent: str, testing: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def visitor() -> str:
        site.mengpaneel.track("Ask")
        return "key-7"

    site = api_site(visitor=visitor, testing=testing)
    headers = {"Sec-Fetch-Mode": "cors"}
    assert site.client(agent).post("/", headers=headers).status_code == 200
    assert [m["event"] for m in site.messages] == ["Call", "Again"]
    assert "MENGPANEEL_VISITOR can't make a call itself" in caplog.text
    assert site.mengpaneel.ledger().snapshot().balanced


def test_threads_of_one_request_are_about_the_same() -> None:
    ids = itertools.count()
    barrier = threading.Barrier(4)

    def visitor() -> str:
        barrier.wait(60)
        return f"key-{next(ids)}"

    site = Site(visitor=visitor)

    def view() -> dict[str, t.Any]:
        def work() -> None:
            site.mengpaneel.track("Work")

        site.mengpaneel.track("Call")
        threads = [
            threading.Thread(target=copy_current_request_context(work))
            for _ in range(4)
        ]

        for thread in threads:
            thread.start()

        for thread in threads:
            thread.join()

        return {}

    site.view("/", view)
    site.client("curl/8.5.0").get("/")
    (id,) = {one["properties"]["distinct_id"] for one in site.messages}
    assert id.startswith("key-")
    assert len(site.messages) == 5


def test_the_app_may_ask_for_the_visitor_of_whom_it_is_asked(
    caplog: pytest.LogCaptureFixture,
) -> None:
    site = Site(visitor=lambda: site.mengpaneel.visitor.ip)
    site.view("/", lambda: site.mengpaneel.visitor.to_json())
    value = site.client("curl/8.5.0").get("/").json
    assert value is not None
    assert value["user_id"] == value["ip"] == "127.0.0.1"
    assert not caplog.records


def test_the_app_is_asked_once_and_only_if_nobody_else_knows() -> None:
    asked: list[int] = []

    def visitor() -> str:
        asked.append(1)
        return "key-7"

    site = api_site(visitor=visitor)
    site.client("curl/8.5.0").post("/")
    assert len(asked) == 1
    site.client("curl/8.5.0").get("/nothing")
    assert len(asked) == 1
    known = site.client()
    set_library_cookie(known, distinct_id="$device:d", **{"$device_id": "d"})
    known.get("/", headers={"Sec-Fetch-Mode": "cors"})
    assert len(asked) == 1
    ids = [one["properties"]["distinct_id"] for one in site.messages]
    assert ids == ["key-7", "key-7", "$device:d", "$device:d"]


def test_a_browser_with_a_name_in_the_app_gets_no_cookie() -> None:
    site = api_site(visitor=lambda: "day-hash")
    response = site.client().get("/", headers={"Sec-Fetch-Mode": "cors"})
    assert {one["properties"]["distinct_id"] for one in site.messages} == {"day-hash"}
    assert "Set-Cookie" not in response.headers


def test_who_is_identified_is_not_whom_the_app_names() -> None:
    site = Site(visitor=lambda: "key-7")

    def view() -> dict[str, t.Any]:
        with site.mengpaneel.setup():
            site.mengpaneel.identify("ada")

        site.mengpaneel.track("Call")
        return {}

    site.view("/", view)
    site.client("curl/8.5.0").get("/")
    assert [one["properties"]["distinct_id"] for one in site.messages] == ["ada"]


def test_a_job_asks_no_request_for_a_name() -> None:
    site = Site(visitor=lambda: "key-7")

    with site.app.app_context(), Manager() as manager:
        manager.track("Job")

    assert [one["properties"]["distinct_id"] for one in site.messages] == [""]


# -- whom the app names, in a browser without the library's cookie


def named_site(**settings: t.Any) -> Site:
    """A site whose views track something and change the visitor's profile."""
    site = Site(visitor=lambda: "key-7", **settings)

    def view(path: str, answer: t.Any) -> None:
        def respond() -> t.Any:
            site.mengpaneel.track(path)
            site.mengpaneel.people.increment(path)
            return answer

        site.view(path, respond)

    view("/go", redirect("/page"))
    view("/api", {})
    site.view("/page", lambda: PAGE)
    return site


def persons(site: Site) -> list[str]:
    return [
        one["properties"]["distinct_id"] if "event" in one else one["$distinct_id"]
        for one in site.messages
    ]


def test_what_a_visitor_with_a_name_does_to_a_profile_waits_for_nobody() -> None:
    site = named_site()
    response = site.client().get("/api", headers={"Sec-Fetch-Mode": "cors"})
    assert persons(site) == ["key-7", "key-7"]
    assert "Set-Cookie" not in response.headers


@pytest.mark.parametrize("max_age", [0, 600])
def test_what_a_visitor_with_a_name_did_before_a_redirect_has_that_name(
    max_age: int,
) -> None:
    site = named_site(
        delayed_max_age=max_age, strategies=["Delayed", "AsyncServerSide"]
    )
    client = site.client()
    client.get("/go")
    client.get("/api", headers={"Sec-Fetch-Mode": "cors"})
    client.get("/page")
    assert set(persons(site)) == {"key-7"}
    assert len(persons(site)) == 4


@pytest.mark.parametrize("goes_on", [False, True])
def test_the_app_is_asked_in_the_request_though_its_view_runs_long(
    goes_on: bool, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site(visitor=lambda: request.headers["X-Key"])

    def view() -> dict[str, t.Any]:
        site.mengpaneel.track("A")
        flush_in_thread()
        assert persons(site) == []

        if goes_on:
            site.mengpaneel.track("B")
            # They don't wait for the end.
            assert persons(site) == ["key-7"] * 2

        return {}

    site.view("/", view)
    site.client("curl/8.5.0").get("/", headers={"X-Key": "key-7"})
    assert persons(site) == ["key-7"] * (2 if goes_on else 1)
    assert not caplog.records


def test_what_a_view_has_tracked_that_runs_at_the_end_of_the_process_is_sent() -> None:
    site = Site(visitor=lambda: request.headers["X-Key"])

    def view() -> dict[str, t.Any]:
        site.mengpaneel.track("A")
        views = site.app.extensions["mengpaneel"].running_views
        thread = threading.Thread(target=views.begin_shutdown)
        thread.start()
        thread.join()
        assert len(site.messages) == 1
        return {}

    site.view("/", view)
    site.client("curl/8.5.0").get("/", headers={"X-Key": "key-7"})
    assert len(site.messages) == 1


def test_a_visitor_with_a_name_gets_no_cookie_after_a_view_that_runs_long() -> None:
    site = Site(visitor=lambda: "key-7")

    def view() -> dict[str, t.Any]:
        for event in "ABC":
            site.mengpaneel.track(event)
            current_manager().flush_while_running()

        return {}

    site.view("/", view)
    response = site.client().get("/", headers={"Sec-Fetch-Mode": "cors"})
    assert persons(site) == ["key-7"] * 3
    assert "Set-Cookie" not in response.headers
