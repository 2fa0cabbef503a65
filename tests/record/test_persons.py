"""Whose events are, where one unit of work is about several persons."""

from __future__ import annotations

import collections.abc as c
import threading
import typing as t

import pytest
from flask import copy_current_request_context, redirect

from agents import CHROME
from flask_mengpaneel import Manager, PortableVisitor
from flask_mengpaneel.record.context import current_manager
from sites import PAGE, Site, page_calls

ADA = PortableVisitor("d1", "ada", "203.0.113.9", CHROME, "https://shop.example/")
SOMEBODY = PortableVisitor("d1", ip="203.0.113.9", user_agent=CHROME)


def set_up(recorder: t.Any, *ids: str) -> None:
    with recorder.setup():
        for id in ids:
            recorder.identify(id)


def flush() -> None:
    """Send what a view has recorded that runs for long."""
    current_manager().flush_while_running()


def visit(record: c.Callable[[t.Any], object], **settings: t.Any) -> Site:
    """A site whose visitor, a new one, has been at a view."""
    site = Site(**settings)

    def view() -> dict[str, t.Any]:
        record(site.mengpaneel)
        return {}

    site.view("/", view)
    site.client().get("/", headers={"Sec-Fetch-Mode": "cors"})
    return site


def persons(site: Site) -> dict[str, str]:
    """Whose each event is."""
    return {
        one["event"]: one["properties"]["distinct_id"]
        for one in site.messages
        if "event" in one
    }


# -- loops


@pytest.mark.parametrize("flushes", [False, True])
@pytest.mark.parametrize("staged", [False, True])
def test_a_loop_gives_each_person_their_own(
    site: Site, staged: bool, flushes: bool
) -> None:
    users = ["ada", "bob", "eve", "ada"]

    with site.app.app_context(), Manager() as manager:
        for user in users:
            set_up(manager, user)

            if staged:
                with manager.tracking():
                    manager.track(f"of {user}")
            else:
                manager.track(f"of {user}")

            manager.people.increment("Mails")

            if flushes:
                manager.flush()
                manager.track(f"again {user}")

    events = [one for one in site.messages if "event" in one]
    whose = [(one["event"], one["properties"]["distinct_id"]) for one in events]
    kinds = ["of", "again"] if flushes else ["of"]
    assert sorted(whose) == sorted(
        (f"{kind} {user}", user) for user in users for kind in kinds
    )
    updates = [one["$distinct_id"] for one in site.messages if "$add" in one]
    assert updates == users


def test_what_was_tracked_before_anybody_was_set_up_is_the_first_one_s(
    site: Site,
) -> None:
    with site.app.app_context(), Manager() as manager:
        manager.track("Begin")

        for user in ("ada", "bob"):
            set_up(manager, user)
            manager.track(user)

    assert persons(site) == {"Begin": "ada", "ada": "ada", "bob": "bob"}


def test_the_same_person_again_is_flushed_once(site: Site) -> None:
    with site.app.app_context(), Manager() as manager:
        for event in "ABC":
            set_up(manager, "ada")
            manager.track(event)

    assert len(site.kept.envelopes) == 1
    assert set(persons(site).values()) == {"ada"}


def test_who_can_t_be_identified_is_not_the_one_before() -> None:
    site = Site(testing=False)

    with site.app.app_context(), Manager() as manager:
        for user in ("ada", "null", "bob"):
            set_up(manager, user)
            manager.track(f"of {user}")

    assert persons(site) == {"of ada": "ada", "of null": "", "of bob": "bob"}


@pytest.mark.parametrize("identifies", [False, True])
def test_a_set_up_that_raises_leaves_the_events_before_it_alone(
    site: Site, identifies: bool
) -> None:
    with site.app.app_context(), Manager() as manager:
        set_up(manager, "ada")
        manager.track("A")

        with pytest.raises(ZeroDivisionError), manager.setup():
            if identifies:
                manager.identify("bob")

            raise ZeroDivisionError

        manager.track("B")

    assert persons(site) == {"A": "ada", "B": "bob" if identifies else ""}


def test_a_person_who_was_identified_without_a_set_up_keeps_their_events(
    site: Site,
) -> None:
    with site.app.app_context(), Manager() as manager:
        manager.identify("ada")
        manager.track("A")
        set_up(manager, "bob")
        manager.track("B")

    assert persons(site) == {"A": "ada", "B": "bob"}


def test_what_was_tracked_after_a_reset_in_a_job_is_nobody_s(site: Site) -> None:
    with site.app.app_context(), Manager() as manager:
        set_up(manager, "ada")
        manager.track("A")
        manager.reset()
        manager.track("N")
        set_up(manager, "bob")
        manager.track("B")

    assert persons(site) == {"A": "ada", "N": "", "B": "bob"}


def test_a_nested_set_up_is_a_part_of_the_outer_one(site: Site) -> None:
    with site.app.app_context(), Manager() as manager:
        set_up(manager, "ada")
        manager.track("A")

        with manager.setup():
            set_up(manager, "eve", "bob")

        manager.track("B")

    assert persons(site) == {"A": "ada", "B": "bob"}


def test_what_is_registered_in_a_set_up_is_that_person_s(site: Site) -> None:
    with site.app.app_context(), Manager() as manager:
        manager.register({"Job": "nightly"})

        for user in ("ada", "bob", "eve"):
            with manager.setup():
                manager.identify(user)

                if user == "ada":
                    manager.register({"Plan": "pro"})
                    manager.set_group("company", "acme")

            manager.track(user)

    events = [one["properties"] for one in site.messages if "event" in one]
    assert [one["Job"] for one in events] == ["nightly"] * 3
    assert ["Plan" in one for one in events] == [True, False, False]
    assert ["company" in one for one in events] == [True, False, False]


def test_two_persons_of_one_job_are_never_linked() -> None:
    site = Site(id_merge="original")

    with site.app.app_context(), Manager(visitor=SOMEBODY) as manager:
        for user in ("ada", "bob"):
            set_up(manager, user)
            manager.track(user)

    linked = [one for one in site.messages if one.get("event") == "$identify"]
    assert [one["properties"]["$identified_id"] for one in linked] == ["ada"]
    bob = next(one for one in site.messages if one.get("event") == "bob")
    assert "$device_id" not in bob["properties"]


def test_a_job_of_a_visitor_sets_up_somebody_else(site: Site) -> None:
    with site.app.app_context(), Manager(visitor=ADA) as manager:
        manager.track("Buy")
        set_up(manager, "bob")
        manager.track("Sell")
        set_up(manager)
        manager.track("Rate")

    buy, sell, rate = (one["properties"] for one in site.messages)
    assert (buy["distinct_id"], buy["$device_id"]) == ("ada", "d1")
    assert sell["distinct_id"] == "bob"
    # Bob sits in front of another device, somewhere else.
    assert {"$device_id", "ip", "$browser", "$current_url"}.isdisjoint(sell)
    assert {k: v for k, v in rate.items() if k not in ("time", "$insert_id")} == {
        k: v for k, v in buy.items() if k not in ("time", "$insert_id")
    }


def test_whom_a_job_identified_without_a_set_up_keeps_what_is_recorded_later(
    site: Site,
) -> None:
    with site.app.app_context(), Manager() as manager:
        manager.identify("ada")

        for event in "ABC":
            manager.track(event)
            manager.flush()

        manager.track("D")
        set_up(manager, "bob")
        manager.track("E")

    assert persons(site) == {**dict.fromkeys("ABCD", "ada"), "E": "bob"}


# -- the short forms


def test_a_manager_identifies(site: Site) -> None:
    with site.app.app_context(), Manager(identify=42) as manager:
        manager.track("A")

        for user in ("bob", "eve"):
            set_up(manager, user)
            manager.track(user)

    assert persons(site) == {"A": "42", "bob": "bob", "eve": "eve"}


def test_a_manager_that_identifies_can_be_entered_again(site: Site) -> None:
    with site.app.app_context():
        manager = Manager(identify="ada")

        for event in "AB":
            with manager:
                manager.track(event)

    assert persons(site) == {"A": "ada", "B": "ada"}


@pytest.mark.parametrize("id", ["", "null", "$device:x", None, True])
def test_a_manager_refuses_what_is_no_id(site: Site, id: t.Any) -> None:
    with site.app.app_context():
        if id is None:
            # Nobody was named.
            with Manager(identify=id) as manager:
                manager.track("A")

            assert persons(site) == {"A": ""}
        else:
            with pytest.raises((TypeError, ValueError)), Manager(identify=id):
                pass


def test_a_manager_that_fails_to_begin_is_not_current(site: Site) -> None:
    with site.app.app_context():
        with pytest.raises(ValueError), Manager(identify="null"):
            pass

        with pytest.raises(RuntimeError, match="outside of a request"):
            site.mengpaneel.track("A")


def test_who_signs_up_in_a_job_goes_on_with_the_device(site: Site) -> None:
    with site.app.app_context(), Manager(visitor=SOMEBODY, identify="ada") as manager:
        manager.track("Confirm")

    (event,) = (one["properties"] for one in site.messages)
    assert (event["distinct_id"], event["$device_id"]) == ("ada", "d1")
    assert event["$browser"] == "Chrome"


# -- requests


def switching(site: Site, answer: c.Callable[[], t.Any]) -> None:
    def switch() -> t.Any:
        set_up(site.mengpaneel, "ada")
        site.mengpaneel.track("of ada")
        set_up(site.mengpaneel, "bob")
        site.mengpaneel.track("of bob")
        return answer()

    site.view("/", switch)
    site.view("/next", lambda: PAGE)


def test_a_switch_in_a_request_leaves_events_with_whom_they_happened_to(
    site: Site,
) -> None:
    switching(site, dict)
    site.client().get("/", headers={"Accept": "*/*", "Sec-Fetch-Mode": "cors"})
    assert persons(site) == {"of ada": "ada", "of bob": "bob"}


@pytest.mark.parametrize("redirects", [False, True])
def test_a_switch_reaches_the_page_in_order(site: Site, redirects: bool) -> None:
    switching(site, lambda: redirect("/next") if redirects else PAGE)
    response = site.visitor(**{"distinct_id": "$device:d", "$device_id": "d"}).get(
        "/", follow_redirects=True
    )
    calls = page_calls(response)
    whose, now = {}, None

    for (name, *_), arguments in calls:
        if name == "identify":
            (now,) = arguments
        elif name == "track":
            whose[arguments[0]] = now
            assert arguments[1].get("distinct_id", now) == now

    assert whose == {"of ada": "ada", "of bob": "bob"}


def test_who_signs_out_and_in_within_a_request_is_two(site: Site) -> None:
    def view() -> dict[str, str]:
        site.mengpaneel.track("of ada")
        site.mengpaneel.reset()
        set_up(site.mengpaneel, "bob")
        site.mengpaneel.track("of bob")
        return {}

    site.view("/", view)
    client = site.visitor(
        **{"distinct_id": "ada", "$device_id": "d", "$user_id": "ada"}
    )
    client.get("/", headers={"Sec-Fetch-Mode": "cors"})
    assert persons(site) == {"of ada": "ada", "of bob": "bob"}


def test_a_set_up_after_the_event_is_still_the_event_s(site: Site) -> None:
    def view() -> dict[str, str]:
        site.mengpaneel.track("Sign In")
        set_up(site.mengpaneel, "ada")
        return {}

    site.view("/", view)
    site.client().get("/", headers={"Sec-Fetch-Mode": "cors"})
    assert persons(site) == {"Sign In": "ada"}


def test_a_job_in_a_request_leaves_the_request_s_person_alone(site: Site) -> None:
    def view() -> dict[str, str]:
        set_up(site.mengpaneel, "ada")
        site.mengpaneel.track("of ada")

        with Manager() as manager:
            for user in ("bob", "eve"):
                set_up(manager, user)
                site.mengpaneel.track(f"of {user}")

        site.mengpaneel.track("again ada")
        return {}

    site.view("/", view)
    site.client().get("/", headers={"Sec-Fetch-Mode": "cors"})
    assert all(event.endswith(person) for event, person in persons(site).items())
    assert len(persons(site)) == 4


@pytest.mark.parametrize("flushes", [1, 2, 3])
def test_what_a_view_tracks_after_it_was_flushed_is_still_that_person_s(
    flushes: int,
) -> None:
    def record(mengpaneel: t.Any) -> None:
        set_up(mengpaneel, "ada")

        for event in "ABC"[:flushes]:
            mengpaneel.track(event)
            flush()

        mengpaneel.track("D")
        set_up(mengpaneel, "bob")
        mengpaneel.track("E")

    found = persons(visit(record))
    assert found == {**dict.fromkeys([*"ABC"[:flushes], "D"], "ada"), "E": "bob"}


@pytest.mark.parametrize("where", ["job", "request"])
def test_who_was_identified_before_the_set_up_keeps_their_events(where: str) -> None:
    def record(recorder: t.Any) -> None:
        with recorder.before_setup():
            recorder.identify("ada")

        recorder.track("A")
        set_up(recorder, "bob")
        recorder.track("B")

    if where == "request":
        site = visit(record)
    else:
        site = Site()

        with site.app.app_context(), Manager() as manager:
            record(manager)

    assert persons(site) == {"A": "ada", "B": "bob"}


def test_a_set_up_that_resets_leaves_events_with_whom_they_happened_to() -> None:
    def record(mengpaneel: t.Any) -> None:
        set_up(mengpaneel, "ada")
        mengpaneel.track("A")

        with mengpaneel.setup():
            mengpaneel.reset()

        mengpaneel.track("B")

    found = persons(visit(record))
    assert found["A"] == "ada"
    assert found["B"].startswith("$device:")


@pytest.mark.parametrize("flushes", [False, True])
def test_a_set_up_that_resets_once_more_is_for_one_more_visitor(flushes: bool) -> None:
    def record(mengpaneel: t.Any) -> None:
        mengpaneel.track("A")
        mengpaneel.reset()

        if flushes:
            flush()

        mengpaneel.track("B")

        with mengpaneel.setup():
            mengpaneel.reset()

        mengpaneel.track("C")

    found = persons(visit(record))
    assert len({found[event] for event in "ABC"}) == 3
    assert all(person.startswith("$device:") for person in found.values())


@pytest.mark.parametrize("flushes", [False, True])
def test_a_job_that_sets_nobody_up_goes_back_to_whom_it_was_given(
    site: Site, flushes: bool
) -> None:
    with site.app.app_context(), Manager(visitor=SOMEBODY) as manager:
        manager.track("A")
        manager.reset()
        manager.track("B")

        if flushes:
            manager.flush()

        set_up(manager)
        manager.track("C")

    assert persons(site) == {"A": "$device:d1", "B": "", "C": "$device:d1"}


def test_who_is_identified_before_a_set_up_takes_no_event_before_that() -> None:
    def record(mengpaneel: t.Any) -> None:
        mengpaneel.track("A")
        mengpaneel.identify("bob")
        mengpaneel.track("B")
        set_up(mengpaneel, "bob")
        mengpaneel.track("C")

    site = Site()
    site.view("/", lambda: (record(site.mengpaneel), {})[1])
    client = site.visitor(
        **{"distinct_id": "ada", "$device_id": "d", "$user_id": "ada"}
    )
    client.get("/", headers={"Sec-Fetch-Mode": "cors"})
    assert persons(site) == {"A": "ada", "B": "bob", "C": "bob"}


def test_an_event_of_a_set_up_is_that_person_s_though_its_clock_ran_before() -> None:
    def record(mengpaneel: t.Any) -> None:
        set_up(mengpaneel, "ada")
        mengpaneel.time_event("Sign In")
        mengpaneel.track("A")

        with mengpaneel.setup():
            mengpaneel.identify("bob")
            mengpaneel.track("Sign In")

    assert persons(visit(record)) == {"A": "ada", "Sign In": "bob"}


def test_whoever_comes_after_a_reset_is_one_however_often_it_is_flushed() -> None:
    def record(mengpaneel: t.Any) -> None:
        mengpaneel.track("A")
        mengpaneel.reset()
        mengpaneel.track("B")
        flush()
        mengpaneel.reset()
        mengpaneel.track("C")
        flush()
        mengpaneel.track("D")

    found = persons(visit(record))
    assert all(person.startswith("$device:") for person in found.values())
    assert len({found[event] for event in "ABC"}) == 3
    assert found["C"] == found["D"]


@pytest.mark.parametrize("flushes", [False, True])
@pytest.mark.parametrize("staged", [False, True])
def test_a_thread_goes_on_with_whom_the_view_has_identified(
    staged: bool, flushes: bool
) -> None:
    def record(mengpaneel: t.Any) -> None:
        if staged:
            set_up(mengpaneel, "ada")
        else:
            mengpaneel.identify("ada")

        mengpaneel.track("A")

        if flushes:
            flush()

        @copy_current_request_context
        def work() -> None:
            mengpaneel.track("B")

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        mengpaneel.track("C")

    assert persons(visit(record)) == dict.fromkeys("ABC", "ada")


def test_a_thread_that_signs_somebody_in_leaves_the_view_s_visitor_alone() -> None:
    def record(mengpaneel: t.Any) -> None:
        mengpaneel.identify("ada")

        @copy_current_request_context
        def work() -> None:
            set_up(mengpaneel, "bob")

            for event in "BCD":
                mengpaneel.track(event)
                flush()

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        mengpaneel.track("A")

    assert persons(visit(record)) == {"A": "ada", **dict.fromkeys("BCD", "bob")}


# -- what the browser learns of it


@pytest.mark.parametrize("events", ["A", "AB", "ABC"])
@pytest.mark.parametrize("user", [None, "ada"])
def test_a_new_visitor_of_a_view_that_is_flushed_is_the_same_next_time(
    user: str | None, events: str
) -> None:
    site = Site()

    def view() -> dict[str, t.Any]:
        if user is not None:
            site.mengpaneel.identify(user)

        for event in events:
            site.mengpaneel.track(event)
            flush()

        return {}

    site.view("/", view)
    site.view("/next", lambda: (site.mengpaneel.track("Next"), {})[1])
    client = site.client()

    for path in ("/", "/next"):
        client.get(path, headers={"Sec-Fetch-Mode": "cors"})

    found = [one["properties"] for one in site.messages if "event" in one]
    assert len({one["distinct_id"] for one in found}) == 1
    assert len({one["$device_id"] for one in found}) == 1
    assert {one.get("$user_id") for one in found} == {user}
