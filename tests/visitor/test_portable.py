from __future__ import annotations

import dataclasses
import json
import typing as t

import pytest
from flask import redirect
from hypothesis import given
from hypothesis import strategies as st

from agents import CHROME
from flask_mengpaneel import Manager, PortableVisitor
from flask_mengpaneel.record.context import current_manager
from sites import CAPABLE, COOKIE, PAGE, Consent, Site

CORS = {"Sec-Fetch-Mode": "cors"}
IDS = {"distinct_id": "ada", "$device_id": "d1", "$user_id": "ada"}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


def taken(site: Site, client: t.Any = None, **headers: str) -> dict[str, str]:
    """What a request says of its visitor."""
    found: list[dict[str, str]] = []

    def view() -> dict[str, t.Any]:
        found.append(site.mengpaneel.visitor.to_json())
        return {}

    if "/take" not in {rule.rule for rule in site.app.url_map.iter_rules()}:
        site.view("/take", view)
    else:
        site.app.view_functions["/take"] = view

    client = client or site.visitor(**IDS)
    client.get("/take", headers=headers, environ_base={"REMOTE_ADDR": "203.0.113.9"})
    (one,) = found
    return one


def track_as(site: Site, visitor: t.Any) -> list[dict[str, t.Any]]:
    with site.app.app_context(), Manager(visitor=visitor) as manager:
        manager.track("Later")

    return [one["properties"] for one in site.messages]


def test_a_visitor_is_the_same_in_a_job(site: Site) -> None:
    def view() -> dict[str, t.Any]:
        site.mengpaneel.track("Now")
        return site.mengpaneel.visitor.to_json()

    site.view("/", view)
    response = site.visitor(**IDS).get(
        "/", headers={"Referer": "https://shop.example/cart", "Sec-Fetch-Mode": "cors"}
    )
    now, later = track_as(site, json.loads(response.data))
    own = {"time", "$insert_id"}
    assert {k: v for k, v in now.items() if k not in own} == {
        k: v for k, v in later.items() if k not in own
    }
    assert (later["distinct_id"], later["$device_id"]) == ("ada", "d1")
    assert later["time"] >= now["time"]


def test_who_signs_in_with_the_request_is_that_person(site: Site) -> None:
    def view() -> dict[str, t.Any]:
        with site.mengpaneel.setup():
            site.mengpaneel.identify(42)

        return site.mengpaneel.visitor.to_json()

    site.view("/", view)
    visitor = site.visitor(**{"distinct_id": "$device:d", "$device_id": "d"})
    value = visitor.get("/").json
    assert value is not None
    assert (value["user_id"], value["device_id"]) == ("42", "d")


@pytest.mark.parametrize("flushes", [0, 1, 2])
def test_a_visitor_is_who_they_are_at_that_moment(site: Site, flushes: int) -> None:
    found: list[PortableVisitor] = []

    def view() -> dict[str, t.Any]:
        with site.mengpaneel.setup():
            site.mengpaneel.identify("bob")

        for event in "AB"[:flushes]:
            site.mengpaneel.track(event)
            current_manager().flush_while_running()

        found.append(site.mengpaneel.visitor)
        return {}

    site.view("/", view)
    site.visitor(**IDS).get("/", headers={"Sec-Fetch-Mode": "cors"})
    (visitor,) = found
    assert (visitor.user_id, visitor.device_id) == ("bob", "d1")


@pytest.mark.parametrize("tracks", [False, True])
@pytest.mark.parametrize("way", ["server", "header", "page", "redirect"])
def test_who_comes_after_a_sign_out_is_the_same_in_a_job(
    way: str, tracks: bool
) -> None:
    site = Site()
    found: list[PortableVisitor] = []

    def sign_out() -> t.Any:
        site.mengpaneel.track("Sign Out")
        site.mengpaneel.reset()
        found.append(site.mengpaneel.visitor)

        if tracks:
            site.mengpaneel.track("After")

        return {"page": PAGE, "redirect": redirect("/page")}.get(way, {})

    site.view("/", sign_out)
    site.view("/page", lambda: PAGE)
    site.view("/next", lambda: (site.mengpaneel.track("Next"), {})[1])
    client = site.visitor(**IDS)
    client.get("/", headers={"header": CAPABLE, "server": CORS}.get(way, {}))
    client.get("/next", headers=CORS)
    (visitor,) = found
    assert visitor.user_id is None

    with site.app.app_context(), Manager(visitor=visitor) as manager:
        manager.track("Later")

    ids = {one["event"]: one["properties"]["distinct_id"] for one in site.messages}
    assert ids["Sign Out"] == "ada"
    assert ids["Later"] == ids["Next"] == f"$device:{visitor.device_id}"
    assert ids.get("After", ids["Next"]) == ids["Next"]


def test_whose_ids_were_taken_keeps_them_though_others_wait() -> None:
    """The library's cookie is lost, the session with a call in it isn't."""
    site = Site(strategies=["Delayed", "AsyncServerSide"])
    found: list[PortableVisitor] = []

    def view() -> dict[str, t.Any]:
        found.append(site.mengpaneel.visitor)
        site.mengpaneel.track("Now")
        return {}

    def go() -> t.Any:
        site.mengpaneel.track("Go")
        return redirect("/")

    site.view("/go", go)
    site.view("/", view)
    client = site.client()
    client.get("/go")
    client.delete_cookie(COOKIE)
    client.get("/", headers=CORS)
    (visitor,) = found
    ids = {one["event"]: one["properties"]["distinct_id"] for one in site.messages}
    assert ids["Now"] == f"$device:{visitor.device_id}"


def test_a_new_visitor_s_browser_gets_the_device_that_was_taken(site: Site) -> None:
    client = site.client()
    first = taken(site, client, **{"Sec-Fetch-Mode": "cors"})
    assert taken(site, client)["device_id"] == first["device_id"]


def test_each_text_fits_into_notes_of_500_characters(site: Site) -> None:
    value = taken(site, **{"User-Agent": "Mozilla/5.0 " + "x" * 2_000})
    assert all(isinstance(one, str) and 0 < len(one) <= 500 for one in value.values())


@pytest.mark.parametrize("how", ["DNT", "Sec-GPC", "refused", "not asked", "opted out"])
def test_who_may_not_be_tracked_is_nobody_in_a_job_either(how: str) -> None:
    consent = Consent()
    consent.answer = {"refused": False, "not asked": None}.get(how)
    asks = {"consent": consent} if how in ("refused", "not asked") else {}
    site = Site(**asks)
    client = site.visitor(**IDS)

    if how == "opted out":
        client.set_cookie("__mp_opt_in_out_token", "0")

    value = taken(site, client, **({how: "1"} if how in ("DNT", "Sec-GPC") else {}))
    assert value == {"consent": "no"}
    assert track_as(site, value) == []

    with site.app.app_context(), Manager(visitor=value, identify="ada") as manager:
        manager.track("Later")
        manager.people.set("Plan", "pro")

    assert site.messages == []
    assert site.mengpaneel.ledger().recorded == 0


@pytest.mark.parametrize("anonymize_ip", [False, True])
def test_a_visitor_can_be_taken_on_from_job_to_job(anonymize_ip: bool) -> None:
    site = Site(anonymize_ip=anonymize_ip)
    page, search = "https://shop.example/", "https://search.example/"
    visitor = PortableVisitor("d1", None, "203.0.113.9", CHROME, page, search)

    with site.app.app_context(), Manager(visitor=visitor, identify="ada"):
        taken = site.mengpaneel.visitor

    assert taken == dataclasses.replace(
        visitor, user_id="ada", ip="203.0.113.0" if anonymize_ip else "203.0.113.9"
    )


@pytest.mark.parametrize("when", ["taken", "used"])
def test_an_address_is_shortened_when_it_is_taken_and_when_it_is_used(
    when: str,
) -> None:
    value = taken(Site(anonymize_ip=when == "taken"))
    (event,) = track_as(Site(anonymize_ip=when == "used"), value)
    assert event["ip"] == "203.0.113.0"


def test_a_visitor_may_be_among_other_notes(site: Site) -> None:
    (event,) = track_as(site, {"order": "7", **taken(site)})
    assert event["distinct_id"] == "ada"
    assert "order" not in event


@pytest.mark.parametrize("id", ["", "null", "0", "$device:x", "x" * 256, "a\x00b", []])
def test_an_id_that_mixpanel_wouldn_t_take_is_left_out(site: Site, id: t.Any) -> None:
    value = {"user_id": id, "device_id": "d1"}
    (event,) = track_as(site, value)
    assert event["distinct_id"] == "$device:d1"
    site.kept.envelopes.clear()
    (event,) = track_as(site, PortableVisitor(**value))
    assert event["distinct_id"] == "$device:d1"


@pytest.mark.parametrize("visitor", ["ada", 42, ["ada"], object()])
def test_what_is_no_visitor_is_an_error(site: Site, visitor: t.Any) -> None:
    with site.app.app_context(), pytest.raises(TypeError, match="not a visitor"):
        Manager(visitor=visitor)


@given(
    st.dictionaries(
        st.sampled_from(
            ["device_id", "user_id", "ip", "user_agent", "url", "referrer", "consent"]
        ),
        JSON | st.just("http://[") | st.just("\ud800"),
    )
)
def test_whatever_it_is_in_strange_hands_the_event_is_sent(value: t.Any) -> None:
    (event,) = track_as(Site(), value)
    json.dumps(event, allow_nan=False).encode()
    assert all(
        isinstance(event.get(name, ""), str)
        for name in ("distinct_id", "$device_id", "$user_id", "ip", "$current_url")
    )
