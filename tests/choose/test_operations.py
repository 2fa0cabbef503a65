"""Operations on profiles and groups: the server makes them, each once, in order, for
the person whom they happened to."""

from __future__ import annotations

import collections.abc as c
import contextlib
import json
import random
import sqlite3
import time
import typing as t
from pathlib import Path

import pytest
from flask import Response, redirect, session
from werkzeug.test import TestResponse

from flask_mengpaneel.choose import sharing
from flask_mengpaneel.deliver.translation import Translator
from sites import (
    ANN,
    CAPABLE,
    COOKIE,
    DEVICE,
    NOBODY,
    PAGE,
    Consent,
    Site,
    balance,
    come,
    header_calls,
    library_cookie,
    page_calls,
    run_later,
)
from waiting import eventually

Record = c.Callable[[t.Any], object]

#: Operations on a profile, and what Mixpanel is to get of each.
PROFILE: dict[str, tuple[Record, dict[str, t.Any]]] = {
    "set": (lambda m: m.people.set("a", 1), {"$set": {"a": 1}}),
    "set_once": (lambda m: m.people.set_once("a", 1), {"$set_once": {"a": 1}}),
    "unset": (lambda m: m.people.unset("a"), {"$unset": ["a"]}),
    "increment": (lambda m: m.people.increment("a"), {"$add": {"a": 1}}),
    "append": (lambda m: m.people.append("a", 1), {"$append": {"a": 1}}),
    "union": (lambda m: m.people.union("a", [1]), {"$union": {"a": [1]}}),
    "remove": (lambda m: m.people.remove("a", 1), {"$remove": {"a": 1}}),
    "clear_charges": (
        lambda m: m.people.clear_charges(),
        {"$unset": ["$transactions"]},
    ),
    "delete": (lambda m: m.people.delete_user(), {"$delete": ""}),
    "set_group": (lambda m: m.set_group("c", "x"), {"$set": {"c": ["x"]}}),
    "add_group": (lambda m: m.add_group("c", "x"), {"$union": {"c": ["x"]}}),
    "remove_group": (lambda m: m.remove_group("c", "x"), {"$remove": {"c": "x"}}),
}
#: Operations on a group's profile: it is known whose they are.
GROUP: dict[str, tuple[Record, dict[str, t.Any]]] = {
    "set": (lambda m: m.get_group("c", "x").set("a", 1), {"$set": {"a": 1}}),
    "set_once": (
        lambda m: m.get_group("c", "x").set_once("a", 1),
        {"$set_once": {"a": 1}},
    ),
    "unset": (lambda m: m.get_group("c", "x").unset("a"), {"$unset": ["a"]}),
    "union": (lambda m: m.get_group("c", "x").union("a", [1]), {"$union": {"a": [1]}}),
    "remove": (lambda m: m.get_group("c", "x").remove("a", 1), {"$remove": {"a": 1}}),
    "delete": (lambda m: m.get_group("c", "x").delete(), {"$delete": ""}),
}
WAYS = ["page", "header", "redirect", "server"]
STAGES = ["before_setup", "setup", "tracking"]


def answer(way: str) -> t.Any:
    """What a view returns whose calls are to go this way."""
    return {"page": PAGE, "redirect": redirect("/next")}.get(way, {})


def request_headers(way: str) -> dict[str, str]:
    if way == "header":
        return {**CAPABLE, "X-Mengpaneel-Flush-Capable": "true; ack"}

    return {} if way in ("page", "redirect") else {"Accept": "*/*"}


def in_stage(operate: Record, stage: str) -> Record:
    """Record an operation in a stage, and an event beside it."""

    def record(mengpaneel: t.Any) -> None:
        with getattr(mengpaneel, stage)():
            operate(mengpaneel)

        mengpaneel.track("View")

    return record


def site_of(record: Record, way: str = "page", **settings: t.Any) -> Site:
    """A site whose ``/`` records something, and whose other pages don't; ``/in`` is
    where Ann signs in, ``/out`` where she signs out."""
    site = Site(**settings)

    def view() -> t.Any:
        record(site.mengpaneel)
        return answer(way)

    def sign_in() -> str:
        with site.mengpaneel.setup():
            site.mengpaneel.identify("ann")

        site.mengpaneel.track("Sign In")
        return PAGE

    site.view("/", view)
    site.view("/next", lambda: PAGE)
    site.view("/json", lambda: {})
    site.view("/in", sign_in)
    site.view("/out", lambda: (site.mengpaneel.reset(), PAGE)[1])
    return site


def operations(site: Site) -> list[dict[str, t.Any]]:
    """What went to Mixpanel of profiles and groups, in order."""
    return [message for message in site.messages if "event" not in message]


def changes(site: Site) -> list[dict[str, t.Any]]:
    """What the operations do, without who does it."""
    return [
        {
            name: {
                key: value
                for key, value in change.items()
                if key not in ("$browser", "$browser_version", "$os")
            }
            if isinstance(change, dict)
            else change
            for name, change in message.items()
            if name[1:]
            in "set set_once unset add append union remove delete transactions".split()
        }
        for message in operations(site)
    ]


def persons(site: Site) -> list[str]:
    return [message["$distinct_id"] for message in operations(site)]


def ridden(response: TestResponse) -> list[str]:
    """The names of the calls in a page or a header."""
    calls = [*page_calls(response), *header_calls(response)]
    return [".".join(call[0]) for call in calls]


# -- somebody who is known


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", PROFILE)
def test_an_operation_goes_from_the_server_for_who_it_is(
    name: str, way: str, stage: str
) -> None:
    operate, change = PROFILE[name]
    site = site_of(in_stage(operate, stage), way)
    client = come(site, ANN)
    response = client.get("/", headers=request_headers(way))

    assert changes(site) == [change]
    assert persons(site) == ["ann"]
    assert not any(one.startswith("people") for one in ridden(response))

    page = client.get("/next")
    assert changes(site) == [change]
    assert not any(one.startswith("people") for one in ridden(page))


@pytest.mark.parametrize("known", [ANN, DEVICE, NOBODY], ids=["Ann", "device", "new"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", GROUP)
def test_an_operation_on_a_group_goes_from_the_server_whoever_it_is(
    name: str, way: str, known: dict[str, str]
) -> None:
    operate, change = GROUP[name]
    site = site_of(operate, way)
    response = come(site, known).get("/", headers=request_headers(way))

    assert changes(site) == [change]
    assert operations(site)[0]["$group_id"] == "x"
    assert ridden(response) == []
    assert balance(site) == (1, 1, 0)


@pytest.mark.parametrize("way", WAYS)
def test_operations_keep_their_order(way: str) -> None:
    def record(mengpaneel: t.Any) -> None:
        mengpaneel.people.increment("a", 3)
        mengpaneel.track("View")

        with mengpaneel.setup():
            mengpaneel.identify("ann")
            mengpaneel.people.append("a", 2)

        with mengpaneel.before_setup():
            mengpaneel.people.union("a", [1])

        mengpaneel.get_group("c", "x").set("a", 4)
        mengpaneel.people.remove("a", 5)

    site = site_of(record, way)
    come(site, ANN).get("/", headers=request_headers(way))

    # Each profile is another one; those of one are in order.
    assert [change for change in changes(site) if change != {"$set": {"a": 4}}] == [
        {"$union": {"a": [1]}},
        {"$append": {"a": 2}},
        {"$add": {"a": 3}},
        {"$remove": {"a": 5}},
    ]
    assert len(changes(site)) == 5


@pytest.mark.parametrize("way", ["page", "header", "redirect"])
def test_groups_ride_as_properties_of_events(way: str) -> None:
    def record(mengpaneel: t.Any) -> None:
        mengpaneel.set_group("c", "x")
        mengpaneel.track("View")

    site = site_of(record, way)
    client = come(site, ANN)
    response = client.get(
        "/", headers=request_headers(way), follow_redirects=way == "redirect"
    )

    assert ridden(response) == ["set_group", "track"]
    assert changes(site) == [{"$set": {"c": ["x"]}}]
    # The event is with the client; the operation was made.
    assert balance(site) == (2, 1, 1)


@pytest.mark.parametrize("timeout", [30, 0])
@pytest.mark.parametrize("way", WAYS)
def test_each_call_is_counted_once(way: str, timeout: float) -> None:
    def record(mengpaneel: t.Any) -> None:
        mengpaneel.track("View")
        mengpaneel.people.increment("a")
        mengpaneel.add_group("c", "x")

    site = site_of(record, way, ack_timeout=timeout)
    come(site, ANN).get("/", headers=request_headers(way))
    waiting = int(timeout > 0 and way != "server")

    assert balance(site) == (3, 3 - waiting, waiting)


# -- somebody whom nobody has identified yet


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("known", [DEVICE, NOBODY], ids=["device", "new"])
@pytest.mark.parametrize("name", PROFILE)
def test_an_operation_waits_until_somebody_is_identified(
    name: str, known: dict[str, str], way: str, stage: str
) -> None:
    operate, change = PROFILE[name]
    site = site_of(in_stage(operate, stage), way)
    client = come(site, known)
    response = client.get("/", headers=request_headers(way))

    assert operations(site) == []
    assert not any(one.startswith("people") for one in ridden(response))

    for path in ("/next", "/json"):
        client.get(path)
        assert operations(site) == []

    client.get("/in")
    assert changes(site) == [change]
    assert persons(site) == ["ann"]
    assert operations(site)[0]["$device_id"] == library_cookie(client)["$device_id"]

    for path in ("/next", "/in", "/json"):
        client.get(path)

    assert changes(site) == [change]


def test_operations_of_many_requests_are_made_in_their_order() -> None:
    numbers = iter(range(100))
    site = site_of(lambda m: m.people.append("n", next(numbers)), "server")
    client = site.client()

    def sign_in() -> str:
        site.mengpaneel.people.append("n", "before")
        site.mengpaneel.identify("ann")
        site.mengpaneel.people.append("n", "after")
        return PAGE

    site.view("/sign", sign_in)

    for _ in range(5):
        client.get("/")
        client.get("/next")

    assert operations(site) == []
    client.get("/sign")

    assert [change["$append"]["n"] for change in changes(site)] == [
        *range(5),
        "before",
        "after",
    ]
    assert set(persons(site)) == {"ann"}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("how", ["before_setup", "setup", "tracking"])
def test_signing_in_makes_what_has_waited_whatever_the_answer(
    way: str, how: str
) -> None:
    site = site_of(lambda m: m.people.increment("a"), "server")

    def sign_in() -> t.Any:
        with getattr(site.mengpaneel, how)():
            site.mengpaneel.identify("ann")

        site.mengpaneel.people.increment("b")
        return answer(way)

    site.view("/sign", sign_in, methods=["POST"])
    client = site.client()
    client.get("/")
    client.post("/sign", headers=request_headers(way), follow_redirects=True)

    assert changes(site) == [{"$add": {"a": 1}}, {"$add": {"b": 1}}] or (
        # Those of one profile are merged.
        changes(site) == [{"$add": {"a": 1, "b": 1}}]
    )
    assert set(persons(site)) == {"ann"}


def test_whoever_the_library_has_identified_needs_no_other() -> None:
    """A script of the page's own has called `identify`."""
    site = site_of(lambda m: m.people.increment("a"), "server")
    client = come(site, DEVICE)
    client.get("/")
    assert operations(site) == []
    client.set_cookie(COOKIE, json.dumps(ANN))
    client.get("/json")

    assert changes(site) == [{"$add": {"a": 1}}]
    assert persons(site) == ["ann"]


def test_what_happened_before_a_reset_is_of_the_device() -> None:
    site = site_of(lambda m: m.people.increment("a"), "server")
    client = come(site, DEVICE)
    client.get("/")
    client.get("/out")

    assert persons(site) == ["$device:d1"]
    client.get("/in")
    assert persons(site) == ["$device:d1"]


def test_who_comes_after_a_reset_is_somebody_else() -> None:
    def record(mengpaneel: t.Any) -> None:
        mengpaneel.people.increment("a")
        mengpaneel.reset()
        mengpaneel.people.increment("b")

    site = site_of(record)
    client = come(site, ANN)
    client.get("/")

    assert changes(site) == [{"$add": {"a": 1}}]
    assert persons(site) == ["ann"]


@pytest.mark.parametrize("user", ["bob", None])
def test_what_waits_for_somebody_is_not_given_to_another_device(
    user: str | None,
) -> None:
    site = site_of(lambda m: m.people.increment("a"), "server")
    client = come(site, DEVICE)
    client.get("/")
    other = {"$device_id": "d2", "distinct_id": user or "$device:d2"}
    client.set_cookie(
        COOKIE, json.dumps({**other, "$user_id": user} if user else other)
    )
    client.get("/in")

    assert persons(site) == ["$device:d1"]


# -- where they can't wait


@pytest.mark.parametrize("why", ["no key", "full", "shared", "another cookie"])
def test_what_can_not_wait_is_of_the_device(why: str) -> None:
    record = (lambda m: m.people.increment("a")) if why != "full" else fill
    site = site_of(record, "server")

    def view() -> Response:
        record(site.mengpaneel)
        response = Response("{}", content_type="application/json")

        if why == "shared":
            response.headers["Cache-Control"] = "public"
        elif why == "another cookie":
            response.set_cookie("session", "mine")

        return response

    site.view("/once", view)

    if why == "no key":
        site.app.secret_key = None

    client = come(site, DEVICE)
    client.get("/once")
    assert len(operations(site)) == 1
    assert persons(site) == ["$device:d1"]
    assert balance(site) == (1, 1, 0)


def test_what_nobody_does_to_a_profile_is_dropped() -> None:
    """A client that keeps no cookies has no device."""
    site = site_of(lambda m: m.people.increment("a"))
    response = site.client("curl/8").get("/")
    assert "Set-Cookie" not in response.headers
    assert operations(site) == []
    (envelope,) = site.kept.envelopes
    config = site.app.extensions["mengpaneel"].config
    assert Translator(config).messages(envelope)[1] == {
        "there is nobody to update: nobody was identified": 1
    }


def fill(mengpaneel: t.Any) -> None:
    # No compressor makes it small.
    mengpaneel.people.set("a", random.Random(1).randbytes(4000).hex())


def test_what_waits_in_a_session_that_is_cleared_is_not_lost() -> None:
    site = site_of(lambda m: m.people.increment("a"), "server")
    site.view("/clear", lambda: (session.clear(), PAGE)[1])
    client = come(site, DEVICE)
    client.get("/")
    client.get("/clear")
    client.get("/in")

    assert changes(site) == [{"$add": {"a": 1}}]
    assert persons(site) == ["ann"]


def test_who_signs_in_by_a_new_session_keeps_what_waited() -> None:
    site = site_of(lambda m: m.people.increment("a"), "server")

    def sign_in() -> Response:
        session.clear()
        session["user"] = "ann"

        with site.mengpaneel.setup():
            site.mengpaneel.identify("ann")

        site.mengpaneel.track("Sign In")
        return redirect("/next")

    site.view("/sign", sign_in)
    client = come(site, DEVICE)
    client.get("/")
    client.get("/sign", follow_redirects=True)

    assert changes(site) == [{"$add": {"a": 1}}]
    assert persons(site) == ["ann"]


def test_a_session_that_is_lost_after_the_response_loses_nothing() -> None:
    site = site_of(lambda m: m.people.increment("a"), "server")
    interface = site.app.session_interface
    save = interface.save_session
    # An interface that decides against its cookie.
    interface.save_session = lambda *_args: None  # type: ignore[method-assign]
    client = come(site, DEVICE)
    client.get("/")
    interface.save_session = save  # type: ignore[method-assign]

    assert changes(site) == [{"$add": {"a": 1}}]
    assert persons(site) == ["$device:d1"]


# -- once


@pytest.mark.parametrize("fails", ["once", "always"])
@pytest.mark.parametrize("known", [ANN, DEVICE, NOBODY], ids=["Ann", "device", "new"])
@pytest.mark.parametrize("way", ["page", "header", "redirect"])
def test_an_error_page_makes_each_operation_once(
    way: str, known: dict[str, str], fails: str
) -> None:
    times = iter([True, fails == "always"])

    def record(mengpaneel: t.Any) -> None:
        mengpaneel.track("View")
        mengpaneel.people.increment("a")
        mengpaneel.add_group("c", "x")
        mengpaneel.get_group("c", "x").union("m", [1])

    site = site_of(record, way, testing=False)

    def fail(_response: Response) -> None:
        if next(times, False):
            raise RuntimeError("too late")

    run_later(site, "/", fail)
    client = come(site, known)
    assert client.get("/", headers=request_headers(way)).status_code == 500
    client.get("/in")
    expected = [{"$add": {"a": 1}}, {"$union": {"c": ["x"]}}, {"$union": {"m": [1]}}]

    assert sorted(map(str, changes(site))) == sorted(map(str, expected))


def test_parallel_requests_make_what_has_waited_once() -> None:
    site = site_of(lambda m: m.people.increment("a"), "server")
    client = come(site, DEVICE)
    client.get("/")
    cookie = client.get_cookie("session")
    assert cookie is not None

    for _ in range(3):
        client.set_cookie("session", cookie.value)
        client.get("/in")

    assert changes(site) == [{"$add": {"a": 1}}]


def test_another_process_makes_nothing_again_that_adds_up(tmp_path: Path) -> None:
    """They share the spool; the session's cookie comes from before."""
    options = {"spool": tmp_path / "spool.sqlite3"}
    first = site_of(lambda m: m.people.increment("a"), "server", **options)
    second = site_of(lambda m: m.people.increment("a"), "server", **options)
    client, other = come(first, DEVICE), come(second, DEVICE)
    client.get("/")
    cookie = client.get_cookie("session")
    assert cookie is not None
    client.get("/in")
    other.set_cookie("session", cookie.value)
    other.get("/in")

    assert changes(first) == [{"$add": {"a": 1}}]
    assert changes(second) == []


def test_what_nobody_was_identified_for_in_time_is_of_the_device_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The session comes back once more, although its time was over."""
    monkeypatch.setattr(sharing, "MAX_OPERATION_AGE", 0.05)
    site = site_of(lambda m: m.people.increment("a"), "server")
    client = come(site, DEVICE)
    client.get("/")
    cookie = client.get_cookie("session")
    assert cookie is not None
    eventually(lambda: operations(site))

    for _ in range(2):
        client.set_cookie("session", cookie.value)
        client.get("/in")

    assert changes(site) == [{"$add": {"a": 1}}]
    assert persons(site) == ["$device:d1"]
    # The increment, and two sign-ins that wait for the browser.
    assert balance(site) == (3, 1, 2)


@pytest.mark.parametrize("way", ["page", "header"])
@pytest.mark.parametrize("timeout", [0, 30])
def test_an_operation_does_not_ride_with_what_is_due(way: str, timeout: float) -> None:
    site = Site(ack_timeout=timeout)

    def go() -> Response:
        site.mengpaneel.track("Go")
        return t.cast(Response, redirect("/next"))

    def view() -> t.Any:
        site.mengpaneel.people.increment("a")
        return answer(way)

    site.view("/go", go)
    site.view("/next", view)
    site.view("/in", lambda: (site.mengpaneel.identify("ann"), PAGE)[1])
    client = site.visitor(**DEVICE)
    client.get("/go")
    headers = CAPABLE if way == "header" else {}

    assert ridden(client.get("/next", headers=headers)) == ["track"]
    client.get("/in")
    assert changes(site) == [{"$add": {"a": 1}}]
    assert persons(site) == ["ann"]


# -- sessions that don't come back


def _delete(response: Response) -> None:
    response.delete_cookie("session")


def _share(response: Response) -> None:
    response.headers["Cache-Control"] = "public, max-age=60"


@pytest.mark.parametrize("change", [_delete, _share])
@pytest.mark.parametrize("timeout", [0, 30])
@pytest.mark.parametrize("known", [DEVICE, NOBODY], ids=["device", "new"])
def test_an_error_page_says_itself_whether_operations_may_wait(
    change: c.Callable[[Response], None], timeout: float, known: dict[str, str]
) -> None:
    site = site_of(
        lambda m: m.people.increment("a"), testing=False, ack_timeout=timeout
    )
    times = iter([1])

    def fail(_response: Response) -> None:
        if next(times, 0):
            raise RuntimeError("too late")

    def apologise(_error: Exception) -> Response:
        response = Response("Sorry", 500)
        change(response)
        return response

    run_later(site, "/", fail)
    site.app.register_error_handler(500, apologise)
    response = come(site, known).get("/")
    ledger = site.mengpaneel.ledger().snapshot()

    assert response.text == "Sorry"
    cookies = response.headers.getlist("Set-Cookie")
    assert not any(
        line.startswith("session=") and "Max-Age=0" not in line for line in cookies
    )
    assert changes(site) == [{"$add": {"a": 1}}]
    assert (ledger.recorded, ledger.delivered, ledger.waiting) == (1, 1, 0)


@pytest.mark.parametrize("timeout", [0, 30])
def test_operations_wait_with_the_error_page_that_may_write_the_session(
    timeout: float,
) -> None:
    site = site_of(
        lambda m: m.people.increment("a"), testing=False, ack_timeout=timeout
    )
    times = iter([1])

    def fail(_response: Response) -> None:
        if next(times, 0):
            raise RuntimeError("too late")

    run_later(site, "/", fail)
    client = come(site, DEVICE)
    assert client.get("/").status_code == 500
    assert changes(site) == []
    assert site.mengpaneel.ledger().recorded == 1
    client.get("/in")

    assert changes(site) == [{"$add": {"a": 1}}]
    assert persons(site) == ["ann"]
    assert site.mengpaneel.ledger().snapshot().balanced


@pytest.mark.parametrize("timeout", [0, 30])
def test_operations_do_not_wait_in_a_session_that_was_filled_anew(
    timeout: float,
) -> None:
    site = site_of(lambda m: m.people.increment("a"), ack_timeout=timeout)

    def refill(_response: Response) -> None:
        session.clear()
        session["theirs"] = 1

    run_later(site, "/", refill)
    come(site, DEVICE).get("/")

    assert changes(site) == [{"$add": {"a": 1}}]
    assert persons(site) == ["$device:d1"]


@pytest.mark.parametrize("spool", [False, True])
def test_a_process_that_ends_leaves_them_to_whoever_comes_back(
    spool: bool, tmp_path: Path
) -> None:
    options = {"spool": tmp_path / "spool.sqlite3" if spool else None}
    first = site_of(lambda m: m.people.increment("a"), "server", **options)
    client = come(first, DEVICE)
    client.get("/")
    cookie = client.get_cookie("session")
    assert cookie is not None
    first.app.extensions["mengpaneel"].hand_overs.hand_on()
    assert balance(first)[1:] in [(1, 0), (0, 1)]

    second = site_of(lambda m: m.people.increment("a"), "server", **options)
    other = come(second, DEVICE)
    other.set_cookie("session", cookie.value)
    other.get("/in")

    assert changes(first) == []
    assert changes(second) == [{"$add": {"a": 1}}]
    assert persons(second) == ["ann"]


@pytest.mark.parametrize("refuses", [False, True])
@pytest.mark.parametrize("operation", ["set", "increment"])
def test_another_worker_hears_of_operations_as_long_as_it_keeps_them(
    operation: str, refuses: bool, tmp_path: Path
) -> None:
    record, made = PROFILE[operation]
    spool = tmp_path / "spool.sqlite3"
    first, second = (site_of(record, "server", spool=spool) for _ in range(2))
    client = come(first, DEVICE)
    client.get("/")
    cookie = client.get_cookie("session")
    assert cookie is not None
    other = come(second, DEVICE)
    other.set_cookie("session", cookie.value)
    other.get("/in", headers={"DNT": "1"} if refuses else {})

    def remembered() -> list[float]:
        with contextlib.suppress(sqlite3.Error), sqlite3.connect(spool) as connection:
            rows = connection.execute("SELECT until FROM acknowledgements")
            return [until for (until,) in rows]

        return []

    eventually(lambda: bool(remembered()))
    assert min(remembered()) > time.time() + 86_400
    assert changes(second) == ([] if refuses else [made])


def test_operations_that_were_sent_are_not_made_by_the_session_that_comes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flask_mengpaneel.choose.sharing.MAX_OPERATION_AGE", 0.05)
    site = site_of(lambda m: m.people.increment("a"), spool=None)
    client = come(site, DEVICE)
    client.get("/")
    eventually(lambda: site.messages)

    client.get("/in")

    assert changes(site) == [{"$add": {"a": 1}}]


def test_operations_are_made_once_while_the_transport_has_no_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flask_mengpaneel.choose.sharing.MAX_OPERATION_AGE", 0.05)
    monkeypatch.setattr(
        "flask_mengpaneel.deliver.hand_overs.steps.RETRY_INTERVAL", 0.05
    )
    site = site_of(lambda m: m.people.increment("a"))
    asked: list[object] = []
    send = site.kept.send
    monkeypatch.setattr(
        site.kept, "send", lambda envelope: (asked.append(1), send(envelope))[1]
    )
    client = come(site, DEVICE)
    client.get("/")
    site.kept.has_room = False
    eventually(lambda: len(asked) >= 2)

    site.kept.has_room = True

    eventually(lambda: site.messages)

    client.get("/in")

    assert changes(site) == [{"$add": {"a": 1}}]
    assert site.mengpaneel.ledger().snapshot().balanced


# -- consent


@pytest.mark.parametrize("known", [ANN, DEVICE, NOBODY], ids=["Ann", "device", "new"])
def test_operations_wait_for_consent_with_the_others(known: dict[str, str]) -> None:
    consent = Consent()
    consent.answer = None

    def record(mengpaneel: t.Any) -> None:
        mengpaneel.track("View")
        mengpaneel.people.append("a", 1)
        mengpaneel.add_group("c", "x")

    site = site_of(record, "page", consent=consent)
    client = come(site, known)
    client.get("/")
    assert site.messages == []
    consent.answer = True
    page = client.get("/next")
    assert ridden(page) == ["track", "add_group"]
    client.get("/in")
    client.get("/next")

    assert changes(site) == [{"$append": {"a": 1}}, {"$union": {"c": ["x"]}}]
    assert set(persons(site)) == {"ann"}


def test_what_consent_was_asked_for_is_older_than_what_it_is_given_with() -> None:
    consent = Consent()
    consent.answer = None
    numbers = iter(range(9))

    def record(mengpaneel: t.Any) -> None:
        with mengpaneel.setup():
            mengpaneel.identify("ann")

        mengpaneel.people.append("n", next(numbers))

    site = site_of(record, "page", consent=consent)
    client = come(site, DEVICE)
    client.get("/")
    client.get("/")
    consent.answer = True
    client.get("/")

    assert [change["$append"]["n"] for change in changes(site)] == [0, 1, 2]
    assert set(persons(site)) == {"ann"}


def test_a_set_up_that_was_held_is_made_for_its_person() -> None:
    consent = Consent()
    consent.answer = None

    def record(mengpaneel: t.Any) -> None:
        with mengpaneel.setup():
            mengpaneel.identify("ann")
            mengpaneel.people.set("Plan", "pro")

        mengpaneel.track("View")

    site = site_of(record, "page", consent=consent)
    client = come(site, DEVICE)
    client.get("/")
    consent.answer = True
    client.get("/next")

    assert changes(site) == [{"$set": {"Plan": "pro"}}]
    assert persons(site) == ["ann"]


def test_refused_operations_are_never_made() -> None:
    consent = Consent()
    consent.answer = None
    site = site_of(lambda m: m.people.increment("a"), consent=consent)
    client = come(site, ANN)
    client.get("/")
    consent.answer = False
    client.get("/next")
    consent.answer = True
    client.get("/in")

    assert operations(site) == []


def test_what_is_held_of_a_group_comes_before_what_is_newer() -> None:
    consent = Consent()
    consent.answer = None
    numbers = iter(range(9))

    def record(mengpaneel: t.Any) -> None:
        mengpaneel.people.increment("a")
        mengpaneel.get_group("company", "acme").set("Seats", next(numbers))

    site = site_of(record, "page", consent=consent)
    client = come(site, DEVICE)
    client.get("/")
    client.get("/")
    consent.answer = True
    client.get("/")

    assert [change["$set"]["Seats"] for change in changes(site)] == [0, 1, 2]
    client.get("/in")
    added = [change["$add"]["a"] for change in changes(site)[3:]]
    assert sum(added) == 3


@pytest.mark.parametrize("way", ["the app", "the view"])
def test_what_waits_is_never_made_once_its_visitor_has_refused(way: str) -> None:
    consent = Consent()

    def record(mengpaneel: t.Any) -> None:
        mengpaneel.track("View")
        mengpaneel.people.increment("a")
        mengpaneel.people.increment("b")

    site = site_of(record, "redirect", consent=consent)
    site.view("/no", lambda: (site.mengpaneel.opt_out_tracking(), PAGE)[1])
    client = come(site, DEVICE)
    client.get("/")
    assert site.mengpaneel.ledger().waiting == 3

    if way == "the app":
        consent.answer = False
        client.get("/next")
    else:
        client.get("/no")

    ledger = site.mengpaneel.ledger().snapshot()
    assert ledger.balanced
    assert (ledger.waiting, ledger.dropped) == (0, {"consent was refused": 3})
    assert site.messages == []


# -- what rides isn't taken for an operation


@pytest.mark.parametrize("call", ["identify", "reset"])
def test_who_it_is_rides_alone(call: str) -> None:
    """Where no cookie tells the library, the next page has to."""

    def record(mengpaneel: t.Any) -> None:
        if call == "identify":
            mengpaneel.identify("ann")
        else:
            mengpaneel.reset()

    site = site_of(record, "redirect", client_config={"persistence": "localStorage"})
    page = site.client().get("/", follow_redirects=True)

    assert ridden(page) == [call]


def test_a_late_event_brings_no_operation_of_its_group() -> None:
    def record(mengpaneel: t.Any) -> None:
        mengpaneel.set_group("c", "x")
        mengpaneel.track("View")

    site = site_of(record, "redirect", delayed_max_age=0, ack_timeout=0)
    client = come(site, ANN)
    client.get("/")
    client.get("/json")

    assert changes(site) == [{"$set": {"c": ["x"]}}]
    (event,) = [one for one in site.messages if "event" in one]
    assert event["properties"]["c"] == ["x"]
    assert balance(site) == (2, 2, 0)
