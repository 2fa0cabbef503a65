"""Calls that browsers couldn't make, handed back to the app."""

from __future__ import annotations

import concurrent.futures
import http.client
import json
import string
import sys
import textwrap
import time
import types
import typing as t
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit
from urllib.request import Request, urlopen

import pytest
from flask import Flask, Response, request
from flask.testing import FlaskClient
from itsdangerous import TimestampSigner
from werkzeug.test import TestResponse

from agents import CHROME
from flask_mengpaneel import Mengpaneel
from flask_mengpaneel.choose import browser_posts, signing
from flask_mengpaneel.identity import Identity
from ports import free_port
from processes import Process, get_from_all, ledgers, settings_for
from sink import Sink
from sites import (
    ANN,
    CAPABLE,
    COOKIE,
    DEVICE,
    NOBODY,
    PAGE,
    TOKEN,
    Kept,
    Site,
    block,
    library_cookie,
    scripts,
    set_library_cookie,
)
from waiting import Clock

URL = "/_mengpaneel/calls"
DAY = 86_400

Json = t.Any

#: What the library knows of visitors.
BOB = {"distinct_id": "bob", "$device_id": "d1", "$user_id": "bob"}
OTHER_DEVICE = {"distinct_id": "$device:d2", "$device_id": "d2"}
BOB_ELSEWHERE = {"distinct_id": "bob", "$device_id": "d2", "$user_id": "bob"}


def make_site(**settings: t.Any) -> Site:
    """A site with a page and an answer for scripts, each with three calls."""
    site = Site(**settings)

    def record() -> None:
        with site.mengpaneel.setup():
            site.mengpaneel.identify("ann")

        site.mengpaneel.track("View", {"Page": "home"})
        site.mengpaneel.track("Read")

    def page() -> str:
        record()
        return PAGE

    def api() -> Response:
        record()
        return Response("{}", content_type="application/json")

    site.view("/", page)
    site.view("/api", api)
    return site


@pytest.fixture
def site() -> Site:
    return make_site()


def of_page(response: TestResponse, calls: list[Json] | None = None) -> dict[str, Json]:
    """What the script of a page hands back when it can't make these of its calls;
    ``None``: any."""
    return handed_back_of(response.get_data(as_text=True), calls)


def handed_back_of(page: str, calls: list[Json] | None = None) -> dict[str, Json]:
    """The same of a page's own text."""
    ((attributes, text),) = [
        (attributes, text)
        for attributes, text in scripts(page)
        if attributes.get("id") == "mengpaneel"
    ]
    data = json.loads(text)
    total = sum(len(wires) for _, wires in data["calls"])
    return {
        "text": text,
        "signature": attributes.get("data-signature"),
        "handover": data.get("handover"),
        "calls": list(range(total)) if calls is None else calls,
    }


def of_header(response: TestResponse) -> dict[str, Json]:
    """What a script hands back of an answer's calls when it can't make any."""
    text = response.headers["X-Mengpaneel-Calls"]
    return {
        "text": text,
        "signature": response.headers["X-Mengpaneel-Signature"],
        "handover": response.headers.get("X-Mengpaneel-Hand-Over"),
        "calls": list(range(len(json.loads(text)))),
    }


def hand_back(client: FlaskClient, value: Json, **options: t.Any) -> TestResponse:
    """Post as ``navigator.sendBeacon`` does with a text."""
    body = value if isinstance(value, (str, bytes)) else json.dumps(value)
    return client.post(URL, data=body, content_type="text/plain", **options)


def events(site: Site) -> list[dict[str, Json]]:
    """The properties of the events that went to Mixpanel from the server."""
    return [one["properties"] for one in site.messages if one.get("event") == "View"]


def reads(site: Site) -> list[dict[str, Json]]:
    return [one["properties"] for one in site.messages if one.get("event") == "Read"]


# -- what comes back


def test_a_pages_calls_are_sent_with_the_ids_and_times_that_it_had(site: Site) -> None:
    client = site.visitor(distinct_id="$device:1", **{"$device_id": "1"})
    value = of_page(client.get("/"))
    recorded, _ = [
        call[1][1]
        for _, calls in json.loads(value["text"])["calls"]
        for call in calls
        if call[0] == ["track"]
    ]
    assert site.messages == []
    assert hand_back(client, value).status_code == 204
    (event,) = events(site)
    assert {name: event[name] for name in recorded} == recorded
    assert event["Page"] == "home"
    assert abs(event["time"] - time.time()) < 60
    assert len(reads(site)) == 1


def test_an_answers_calls_come_back_by_its_header(site: Site) -> None:
    client = site.visitor(distinct_id="$device:1", **{"$device_id": "1"})
    value = of_header(client.get("/api", headers=CAPABLE))
    assert site.messages == []
    assert hand_back(client, value).status_code == 204
    assert events(site)[0]["$user_id"] == "ann"
    assert len(events(site)) == len(reads(site)) == 1


def test_only_the_calls_that_were_not_made_are_sent(site: Site) -> None:
    client = site.client()
    value = of_page(client.get("/"), [2])
    assert hand_back(client, value).status_code == 204
    assert len(reads(site)) == 1
    assert events(site) == []


def test_text_of_any_kind_comes_back(site: Site) -> None:
    text = "</script><!-- \u2028 \"' é 🎉 . 1.5"

    def page() -> str:
        site.mengpaneel.track("View", {"Text": text})
        return PAGE

    site.view("/text", page)
    client = site.client()
    assert hand_back(client, of_page(client.get("/text"))).status_code == 204
    assert events(site)[0]["Text"] == text


# -- whose it is


def test_a_visitor_without_a_cookie_gets_a_device_that_stays(site: Site) -> None:
    site.view("/anonymous", lambda: (site.mengpaneel.track("View"), PAGE)[1])
    client = site.client()
    value = of_page(client.get("/anonymous"))
    before = library_cookie(client)
    hand_back(client, value)
    assert library_cookie(client)["distinct_id"] == before["distinct_id"]
    cookie = client.get_cookie(COOKIE)
    assert cookie is not None
    assert not cookie.http_only
    (event,) = events(site)
    assert json.loads(unquote(cookie.value))["distinct_id"] == event["distinct_id"]
    assert event["distinct_id"].startswith("$device:")


@pytest.mark.parametrize("given", [DEVICE, ANN, BOB])
def test_calls_go_on_where_those_are_that_the_library_has_made(
    site: Site, given: dict[str, str]
) -> None:
    """It has made `identify`, and then Mixpanel didn't take the rest."""
    client = site.visitor(**given)
    value = of_page(client.get("/"), [1, 2])
    known = {**given, "distinct_id": "ann", "$user_id": "ann"}
    set_library_cookie(client, **known)
    before = library_cookie(client)
    hand_back(client, value)
    assert [event["distinct_id"] for event in events(site)] == ["ann"]
    assert events(site)[0]["$device_id"] == known["$device_id"]
    assert [one["distinct_id"] for one in reads(site)] == ["ann"]
    assert library_cookie(client) == before


@pytest.mark.parametrize("now", [NOBODY, DEVICE, ANN, BOB, OTHER_DEVICE, BOB_ELSEWHERE])
@pytest.mark.parametrize("given", [DEVICE, ANN, BOB])
@pytest.mark.parametrize("calls", [None, [1, 2]])
def test_calls_stay_with_whom_they_were_given_to(
    site: Site,
    given: dict[str, str],
    now: dict[str, str],
    calls: list[int] | None,
) -> None:
    client = site.visitor(**given)
    value = of_page(client.get("/"), calls)
    client.delete_cookie(COOKIE)

    if now:
        set_library_cookie(client, **now)

    assert hand_back(client, value).status_code == 204
    (event,) = events(site)
    assert (event["$user_id"], event["$device_id"]) == ("ann", given["$device_id"])
    assert [one["distinct_id"] for one in reads(site)] == ["ann"]


@pytest.mark.parametrize("now", [BOB, OTHER_DEVICE, BOB_ELSEWHERE, NOBODY])
@pytest.mark.parametrize("given", [DEVICE, ANN])
def test_a_browser_that_is_somebody_elses_learns_nothing(
    site: Site, given: dict[str, str], now: dict[str, str]
) -> None:
    client = site.visitor(**given)
    value = {**of_page(client.get("/")), "blocked": True}
    client.delete_cookie(COOKIE)

    if now:
        set_library_cookie(client, **now)

    response = hand_back(client, value)
    assert response.status_code == 204
    assert response.headers.getlist("Set-Cookie") == []


@pytest.mark.parametrize("now", [DEVICE, BOB])
def test_what_a_stranger_got_tells_nobody_who_they_are(
    site: Site, now: dict[str, str]
) -> None:
    value = {**of_page(site.client().get("/")), "blocked": True}
    victim = site.visitor(**now)
    assert hand_back(victim, value).headers.getlist("Set-Cookie") == []
    (event,) = events(site)
    assert event["$user_id"] == "ann"
    assert event.get("$device_id") != now["$device_id"]


def test_who_signs_out_while_calls_are_under_way_stays_signed_out(site: Site) -> None:
    def sign_out() -> str:
        site.mengpaneel.track("View", {"Page": "out"})
        site.mengpaneel.reset()
        return PAGE

    site.view("/out", sign_out)
    client = site.visitor(**ANN)
    first, last = of_page(client.get("/")), of_page(client.get("/out"))
    hand_back(client, last)
    after = library_cookie(client)
    assert "$user_id" not in after
    assert after["$device_id"] != ANN["$device_id"]
    hand_back(client, first)
    assert library_cookie(client) == after
    out, home = events(site)
    assert (out["Page"], home["Page"]) == ("out", "home")
    assert out["$user_id"] == home["$user_id"] == "ann"


def test_a_new_visitor_of_a_library_that_signed_out_has_its_ids(site: Site) -> None:
    text = json.dumps([[["reset"], []], [["track"], ["View", {"time": 1.0}]]])
    signer = site.app.extensions["mengpaneel"].signer
    signature = signer.sign(text, Identity("d1", "ann"))
    client = site.visitor(**ANN)
    value = {"text": text, "signature": signature, "calls": [0, 1]}
    set_library_cookie(client, **OTHER_DEVICE)
    hand_back(client, value)
    assert events(site)[0]["distinct_id"] == OTHER_DEVICE["distinct_id"]


def test_super_properties_of_the_same_visitor_are_kept(site: Site) -> None:
    client = site.visitor(**DEVICE, Plan="pro")
    value = of_page(client.get("/"))
    hand_back(client, value)
    assert events(site)[0]["Plan"] == "pro"
    assert library_cookie(client)["Plan"] == "pro"
    assert library_cookie(client)["$user_id"] == "ann"


def test_whoever_signed_in_on_the_page_stays_signed_in(site: Site) -> None:
    client = site.client()
    hand_back(client, of_page(client.get("/")))
    assert events(site)[0]["$user_id"] == "ann"
    cookie = client.get_cookie(COOKIE)
    assert cookie is not None
    assert json.loads(unquote(cookie.value))["$user_id"] == "ann"


# -- only from the site's own pages

OWN = "https://shop.example"
ORIGINS = [
    # Where the app is, from where it says that the request is, whether it is taken.
    (OWN, {"Sec-Fetch-Site": "same-origin"}, True),
    (OWN, {"Sec-Fetch-Site": "same-origin", "Origin": OWN}, True),
    # A proxy has given the app another name; the browser knows better.
    ("http://127.0.0.1:8000", {"Sec-Fetch-Site": "same-origin", "Origin": OWN}, True),
    (OWN, {"Sec-Fetch-Site": "same-origin", "Origin": "null"}, True),
    (OWN, {"Sec-Fetch-Site": "same-site"}, False),
    (OWN, {"Sec-Fetch-Site": "cross-site"}, False),
    (OWN, {"Sec-Fetch-Site": "none"}, False),
    (OWN, {"Sec-Fetch-Site": ""}, False),
    (OWN, {"Sec-Fetch-Site": "cross-site", "Origin": OWN}, False),
    # Browsers without it, and all of them without encryption.
    (OWN, {"Origin": OWN}, True),
    (OWN, {"Origin": OWN + ":443"}, True),
    (OWN + ":443", {"Origin": OWN}, True),
    ("http://shop.example", {"Origin": "http://shop.example"}, True),
    ("http://shop.example:80", {"Origin": "http://shop.example"}, True),
    ("http://shop.example:5000", {"Origin": "http://shop.example:5000"}, True),
    ("http://SHOP.example", {"Origin": "http://shop.example"}, True),
    ("http://[::1]:5000", {"Origin": "http://[::1]:5000"}, True),
    ("http://[::1]", {"Origin": "http://[::1]"}, True),
    ("http://127.0.0.1:5000", {"Origin": "http://127.0.0.1:5000"}, True),
    # A proxy has taken the encryption off.
    ("http://shop.example", {"Origin": OWN}, True),
    ("http://shop.example:443", {"Origin": OWN}, True),
    ("http://shop.example:8443", {"Origin": OWN + ":8443"}, True),
    (OWN, {"Origin": "https://evil.example"}, False),
    (OWN, {"Origin": "null"}, False),
    (OWN, {"Origin": ""}, False),
    (OWN, {"Origin": "null", "Referer": OWN + "/"}, False),
    (OWN, {"Origin": OWN + ":8443"}, False),
    (OWN, {"Origin": "https://other.shop.example"}, False),
    (OWN, {"Origin": "https://example"}, False),
    (OWN, {"Origin": OWN + ".evil.example"}, False),
    (OWN, {"Origin": "https://evil.example/" + OWN}, False),
    (OWN, {"Origin": "https://shop.example@evil.example"}, False),
    (OWN, {"Origin": f"{OWN}, https://evil.example"}, False),
    (OWN, {"Origin": "chrome-extension://shop.example"}, False),
    (OWN, {"Origin": "shop.example"}, False),
    (OWN, {"Origin": "https://["}, False),
    (OWN, {"Origin": "https://shop.example:x"}, False),
    (OWN, {"Origin": "https://[::1]"}, False),
    ("http://[::1]:5000", {"Origin": "http://[::1]:5001"}, False),
    ("http://[::1]:5000", {"Origin": "http://[::2]:5000"}, False),
    ("http://127.0.0.1:5000", {"Origin": "http://localhost:5000"}, False),
    ("http://127.0.0.1:5000", {"Origin": "http://127.0.0.1:5001"}, False),
    # Browsers that are older still say it like this; programs say nothing.
    (OWN, {"Referer": OWN + "/page?x=1"}, True),
    (OWN, {"Referer": "https://evil.example/" + OWN}, False),
    (OWN, {"Referer": ""}, False),
    (OWN, {}, True),
]


@pytest.mark.parametrize(("base", "headers", "is_taken"), ORIGINS)
def test_only_the_sites_own_pages_hand_calls_back(
    site: Site, base: str, headers: dict[str, str], is_taken: bool
) -> None:
    client = site.client()
    # Werkzeug's client keeps none of those that are for a whole domain.
    known = quote(json.dumps(DEVICE))
    client.set_cookie(COOKIE, known, domain=urlsplit(base).hostname or "")
    value = {**of_page(client.get("/", base_url=base)), "blocked": True}
    response = hand_back(client, value, headers=headers, base_url=base)
    assert response.status_code == (204 if is_taken else 403)
    assert len(response.headers.getlist("Set-Cookie")) == (2 if is_taken else 0)
    assert len(events(site)) == is_taken


@pytest.mark.parametrize("matching", ["host_matching", "subdomain_matching"])
def test_a_host_of_the_app_is_not_the_others(matching: str) -> None:
    app = Flask(__name__, static_folder=None, **{matching: True})
    app.secret_key = "secret"
    app.config["SERVER_NAME"] = "shop.example"
    Mengpaneel(app, token=TOKEN, transport=Kept(), spool=None)
    client = app.test_client()
    signature = app.extensions["mengpaneel"].signer.sign("[]")
    value = {"text": "[]", "signature": signature, "calls": []}

    for ours in ["https://shop.example", "https://a.shop.example"]:
        for origin in ["https://shop.example", "https://a.shop.example"]:
            answer = hand_back(client, value, headers={"Origin": origin}, base_url=ours)
            assert answer.status_code == (204 if ours == origin else 403)


def test_another_site_can_not_use_up_what_a_visitor_may_send(site: Site) -> None:
    client = site.client()
    value = of_page(client.get("/"))

    for _ in range(130):
        headers = {"Sec-Fetch-Site": "cross-site"}
        assert hand_back(client, value, headers=headers).status_code == 403

    assert hand_back(client, value).status_code == 204


# -- only what the app gave


def tampered(value: dict[str, Json], old: str, new: str) -> dict[str, Json]:
    assert old in value["text"]
    return {**value, "text": value["text"].replace(old, new)}


def test_another_text_is_refused(site: Site) -> None:
    client = site.client()
    value = of_page(client.get("/"))
    assert hand_back(client, tampered(value, "home", "away")).status_code == 403
    assert hand_back(client, tampered(value, "ann", "eve")).status_code == 403
    assert hand_back(client, {**value, "signature": ""}).status_code == 403
    assert hand_back(client, {**value, "signature": None}).status_code == 403
    assert site.messages == []


def test_what_a_page_and_a_header_say_is_not_mixed(site: Site) -> None:
    client = site.client()
    page = of_page(client.get("/"))
    header = of_header(client.get("/api", headers=CAPABLE))
    mixed = {**page, "signature": header["signature"]}
    assert hand_back(client, mixed).status_code == 403
    assert site.messages == []


def test_a_part_of_what_was_signed_is_refused(site: Site) -> None:
    client = site.client()
    value = of_page(client.get("/"))
    text, signature = value["text"], value["signature"]

    for at in [at for at, letter in enumerate(text) if letter == "."]:
        part = {"text": text[:at], "signature": f"{text[at + 1 :]}.{signature}"}
        assert hand_back(client, {**value, **part}).status_code == 400

    assert site.messages == []


def test_what_another_app_signed_is_refused(site: Site) -> None:
    other = make_site()
    other.app.secret_key = "another"
    client = other.client()
    value = of_page(client.get("/"))
    assert hand_back(site.client(), value).status_code == 403
    assert hand_back(client, value).status_code == 204
    assert site.messages == []


def test_what_an_app_of_another_project_signed_is_refused(site: Site) -> None:
    """It may have the same secret key."""
    other = make_site(token="another")

    for client in [other.client(), other.visitor(**ANN)]:
        page = of_page(client.get("/"))
        header = of_header(client.get("/api", headers=CAPABLE))

        for value in [page, header]:
            assert hand_back(site.client(), value).status_code == 403
            assert hand_back(client, value).status_code == 204

    assert site.messages == []


def test_an_app_of_the_same_project_elsewhere_on_the_site_takes_it(site: Site) -> None:
    """A page hands all back to its own app, also what came with answers of others."""
    value = of_header(make_site().visitor(**ANN).get("/api", headers=CAPABLE))
    assert hand_back(site.visitor(**ANN), value).status_code == 204
    assert len(events(site)) == 1


@pytest.mark.parametrize("name", ["text", "signature"])
@pytest.mark.parametrize("value", [None, 1, True, [], ["[]"], {}, {"a": 1}])
def test_text_and_signature_are_texts(site: Site, name: str, value: Json) -> None:
    client = site.client()
    good = of_page(client.get("/"))
    assert hand_back(client, {**good, name: value}).status_code == 403
    assert site.messages == []


def test_whom_calls_were_given_to_is_signed_too(site: Site) -> None:
    """Another visitor can't be named, nor left out."""
    value = of_page(site.visitor(**ANN).get("/"))
    others = [
        of_page(client.get("/"))["signature"].split(".")[0]
        for client in [site.visitor(**BOB), site.client()]
    ]
    visitor, *rest = value["signature"].split(".")

    for start in [*others, "", visitor[:-1], visitor + "="]:
        forged = {**value, "signature": ".".join([start, *rest])}
        assert hand_back(site.visitor(**ANN), forged).status_code == 403

    forged = {**value, "signature": ".".join(rest)}
    assert hand_back(site.visitor(**ANN), forged).status_code == 403
    assert site.messages == []


def test_a_value_of_the_apps_session_is_no_signature(site: Site) -> None:
    """Whatever else the app signs with its key can't be passed off as calls."""
    text = json.dumps([[["track"], ["Forged"]]])
    signed = TimestampSigner("secret", salt="cookie-session").sign(text).decode()
    signature = signed[len(text) + 1 :]
    value = {"text": text, "signature": signature, "calls": [0]}
    assert hand_back(site.client(), value).status_code == 403


@pytest.mark.parametrize(("days", "status"), [(6.9, 204), (7.1, 403)])
def test_calls_are_taken_back_for_a_week(
    site: Site, monkeypatch: pytest.MonkeyPatch, days: float, status: int
) -> None:
    client = site.client()
    value = of_page(client.get("/"))
    later = time.time() + days * DAY
    monkeypatch.setattr(signing, "time", types.SimpleNamespace(time=lambda: later))
    assert hand_back(client, value).status_code == status
    assert len(events(site)) == (status == 204)


@pytest.mark.parametrize("name", ["text", "signature"])
def test_half_a_character_is_signed_by_nobody(site: Site, name: str) -> None:
    value = {"text": "[]", "signature": "a.b.c.d", "calls": [], name: "\ud800"}
    assert hand_back(site.client(), value).status_code == 403


def test_a_key_that_was_rotated_out_still_counts_as_long_as_it_is_named(
    site: Site,
) -> None:
    client = site.client()
    value = of_page(client.get("/"))
    site.app.secret_key = "new"
    assert hand_back(client, value).status_code == 403
    site.app.config["SECRET_KEY_FALLBACKS"] = ["older", "secret"]
    assert hand_back(client, value).status_code == 204
    fresh = of_page(client.get("/"))
    site.app.config["SECRET_KEY_FALLBACKS"] = None
    assert hand_back(client, fresh).status_code == 204
    assert len(events(site)) == 2


def test_without_a_secret_key_nothing_is_signed_or_taken(site: Site) -> None:
    client = site.client()
    value = of_page(client.get("/"))
    site.app.secret_key = None
    assert of_page(client.get("/"))["signature"] is None
    assert hand_back(client, value).status_code == 403
    assert site.messages == []


# -- once


def test_operations_that_the_server_has_made_come_back_as_nothing(site: Site) -> None:
    def page() -> str:
        site.mengpaneel.track("View")
        site.mengpaneel.set_group("company", "acme")
        site.mengpaneel.people.increment("Views")
        site.mengpaneel.add_group("team", "red")
        site.mengpaneel.track("Read")
        return PAGE

    site.view("/grouped", page)
    client = site.visitor(**ANN)
    value = of_page(client.get("/grouped"))
    operations = list(site.messages)
    assert len(operations) == 3
    assert not any("event" in one for one in operations)
    assert hand_back(client, value).status_code == 204
    assert [one for one in site.messages if "event" not in one] == operations
    (view,), (read,) = events(site), reads(site)
    assert "company" not in view
    assert (read["company"], read["team"]) == (["acme"], ["red"])
    assert (library_cookie(client)["company"], library_cookie(client)["team"]) == (
        ["acme"],
        ["red"],
    )


@pytest.mark.parametrize("handover", [None, 1, [], "", ".", "x", "\ud800.x", "é.é"])
def test_a_token_of_another_kind_hurts_nobody(site: Site, handover: Json) -> None:
    client = site.client()
    value = {**of_page(client.get("/")), "handover": handover}
    assert hand_back(client, value).status_code == 204
    assert len(events(site)) == len(reads(site)) == 1


#: A shop whose pages add up, and where Ann signs in.
SHOP = """
    import os
    from processes import create_app, mengpaneel

    app = create_app()

    @app.get("/page")
    def page():
        mengpaneel.track("View")
        mengpaneel.people.increment("Points")
        return "<!doctype html><html><head></head><body></body></html>"

    @app.get("/sign-in")
    def sign_in():
        with mengpaneel.setup():
            mengpaneel.identify("ann")

        mengpaneel.track("Sign In")
        return "<!doctype html><html><head></head><body></body></html>"

    @app.after_request
    def tell(response):
        response.headers["X-Process"] = str(os.getpid())
        return response
"""


@pytest.mark.parametrize("known", [ANN, DEVICE], ids=["Ann", "device"])
def test_an_increment_is_made_once_by_all_processes_whatever_comes_back(
    tmp_path: Path, known: dict[str, str]
) -> None:
    """The page's calls come back again and again, and the session with what waits."""
    (tmp_path / "shop.py").write_text(textwrap.dedent(SHOP))
    port = free_port()
    cookies = {"mp_t_mixpanel": quote(json.dumps(known))}
    pids: set[str] = set()

    def ask(path: str, body: str | None = None) -> tuple[http.client.HTTPMessage, str]:
        headers = {
            "User-Agent": CHROME,
            "Accept": "text/html",
            "Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items()),
        }
        data = None if body is None else body.encode()
        request = Request(f"http://127.0.0.1:{port}{path}", data, headers)

        with urlopen(request, timeout=60) as answer:
            pids.add(answer.headers["X-Process"])
            return answer.headers, answer.read().decode()

    with Sink() as sink:
        server = Process(
            tmp_path,
            [sys.executable, "-m", "gunicorn", "--workers=4"]
            + [f"--bind=127.0.0.1:{port}", "shop:app"],
            settings_for(sink.url, SECRET_KEY="secret"),
        )

        try:
            get_from_all(port, 4)
            headers, page = ask("/page")

            for line in headers.get_all("Set-Cookie") or []:
                name, _, value = line.partition(";")[0].partition("=")
                cookies[name] = value

            assert ("session" in cookies) == (known is DEVICE)
            returned = json.dumps(handed_back_of(page))
            pids.clear()

            with concurrent.futures.ThreadPoolExecutor(8) as pool:
                # On a busy machine one may be late for all of them; more than 240 would
                # be too many from one address.
                for _ in range(5):
                    list(pool.map(lambda _: ask(URL, returned), range(48)))

                    if len(pids) == 4:
                        break

                assert len(pids) == 4

                for _ in pool.map(lambda _: ask("/sign-in"), range(48)):
                    pass

            assert server.terminate() == 0, server.output
        finally:
            server.kill()

        assert [one["$add"] for one in sink.updates if "$add" in one] == [{"Points": 1}]
        assert [one["$distinct_id"] for one in sink.updates if "$add" in one] == ["ann"]
        views = [one for one in sink.events if one["event"] == "View"]
        # Each process takes each call once; Mixpanel counts all of them once.
        assert 1 <= len(views) <= 4
        assert len({one["properties"]["$insert_id"] for one in views}) == 1

    assert all(one.balanced for one in ledgers(tmp_path))


def test_each_call_is_taken_once(site: Site) -> None:
    client = site.client()
    value = of_page(client.get("/"))

    for calls in [[1], [1, 2], [0, 1, 2], [2], [2, 0]]:
        assert hand_back(client, {**value, "calls": calls}).status_code == 204

    assert len(events(site)) == len(reads(site)) == 1


def test_the_same_calls_of_another_page_are_taken_too(site: Site) -> None:
    client = site.client()

    for _ in range(2):
        hand_back(client, of_page(client.get("/")))

    assert len(events(site)) == len(reads(site)) == 2


def test_a_signature_in_another_spelling_brings_nothing_again(site: Site) -> None:
    client = site.client()
    value = of_page(client.get("/"))
    letters = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
    answers = [
        hand_back(client, {**value, "signature": value["signature"][:-1] + letter})
        for letter in letters
    ]
    assert [answer.status_code for answer in answers].count(204) == 1
    assert len(events(site)) == len(reads(site)) == 1


def test_the_same_calls_of_two_answers_within_a_second_are_taken_twice(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def like() -> str:
        site.mengpaneel.track("Like", {"$insert_id": "1", "time": now})
        return "liked"

    site.view("/like", like, methods=["POST"])
    now = int(time.time())
    monkeypatch.setattr(signing, "time", types.SimpleNamespace(time=lambda: now))
    client = site.visitor(distinct_id="ann", **{"$user_id": "ann"})
    answers = [client.post("/like", headers=CAPABLE) for _ in range(2)]
    values = [of_header(answer) for answer in answers]
    assert values[0]["text"] == values[1]["text"]

    for value in [*values, *values]:
        assert hand_back(client, value).status_code == 204

    assert [message["event"] for message in site.messages] == ["Like"] * 2


@pytest.mark.parametrize(
    "calls",
    [
        [-1],
        [1, -2],
        [1, 3],
        [1, "2"],
        [1, [2]],
        [1, 1.0],
        [True],
        [False, 1],
        [1, 1],
        [0, 1, 2, 2],
        [1] * 100_000,
        [10**30],
        [1, None],
        "01",
        {"0": 1},
        {},
        1,
        None,
        True,
    ],
    ids=lambda calls: repr(calls)[:20],
)
def test_positions_that_no_call_has_are_refused_whole(
    site: Site, calls: list[Json]
) -> None:
    client = site.client()
    value = of_page(client.get("/"))
    assert hand_back(client, {**value, "calls": calls}).status_code == 400
    assert site.messages == []
    assert hand_back(client, value).status_code == 204
    assert len(events(site)) == len(reads(site)) == 1


# -- what isn't a hand-back

BODIES = {
    "blank": " ",
    "no JSON": "{",
    "no UTF-8": b"\xff\xfe",
    "null": "null",
    "number": "1",
    "text": '"text"',
    "list": "[]",
    "nothing in it": "{}",
    "no calls": '{"text": "[]", "signature": "x"}',
    "a long number": "9" * 5000,
    "very deep": "[" * 200_000,
}


@pytest.mark.parametrize("name", BODIES)
def test_a_body_of_another_kind_is_refused(site: Site, name: str) -> None:
    assert hand_back(site.client(), BODIES[name]).status_code == 400


@pytest.mark.parametrize(("length", "status"), [(2_000_000, 400), (2_000_001, 413)])
def test_what_is_larger_than_any_page_of_calls_is_refused(
    site: Site, length: int, status: int
) -> None:
    assert hand_back(site.client(), "x" * length).status_code == status


def test_an_address_may_hand_back_so_often_a_minute(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr("flask_mengpaneel.choose.browser_posts.time", clock)
    client = site.client()
    value = of_page(client.get("/"))

    for _ in range(120):
        assert hand_back(client, "{}").status_code == 400

    assert hand_back(client, value).status_code == 429
    assert site.messages == []
    other = {"environ_base": {"REMOTE_ADDR": "192.0.2.1", "HTTP_USER_AGENT": CHROME}}
    assert hand_back(client, {**value, "calls": [2]}, **other).status_code == 204
    clock.passed += 60
    assert hand_back(client, value).status_code == 204
    assert len(events(site)) == len(reads(site)) == 1


@pytest.mark.parametrize("is_late", [False, True])
def test_no_cache_keeps_an_answer(
    site: Site, is_late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_mengpaneel.choose.browser_posts.time", Clock())

    def publish(response: Response) -> Response:
        if is_late and request.path == URL:
            response.headers["Cache-Control"] = "public, max-age=60"

        return response

    # Flask calls first what was registered last.
    site.app.after_request_funcs[None].insert(0, publish)
    client = site.client()
    value = of_page(client.get("/"))
    answers = [
        hand_back(client, value),
        hand_back(client, {**value, "calls": [0, 0]}),
        hand_back(client, {**value, "signature": ""}),
        hand_back(client, value, headers={"Sec-Fetch-Site": "cross-site"}),
        client.post(URL, data=b"x" * 2_000_001),
    ]
    answers += [hand_back(client, value) for _ in range(120)]
    statuses = {response.status_code for response in answers}

    assert statuses == {204, 400, 403, 413, 429}

    for response in answers:
        assert "no-store" in response.headers["Cache-Control"]
        assert "public" not in response.headers["Cache-Control"]


def test_a_sender_with_many_addresses_is_one(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr("flask_mengpaneel.choose.browser_posts.time", clock)
    client = site.client()

    def status(address: str) -> int:
        client.environ_base["REMOTE_ADDR"] = address
        return hand_back(client, "{}").status_code

    for number in range(120):
        assert status(f"2001:db8::{number:x}:{number:x}") == 400
        assert status("192.0.2.7") == 400

    assert status("2001:db8:0:0:ffff::1") == 429
    assert status("2001:DB8::") == 429
    assert status("2001:db8:0:1::1") == 400
    assert status("::ffff:192.0.2.7") == 429
    assert status("::ffff:192.0.2.8") == 400
    assert status("192.0.2.8") == 400
    assert status("::1") == 400
    assert status("fe80::1%eth0") == 400
    # As proxies pass it on.
    assert status("192.0.2.7:51234") == 429
    assert status("192.0.2.7, 198.51.100.1") == 429
    assert status("[2001:db8::7]:443") == 429
    assert status("[::ffff:192.0.2.7]:443") == 429


def test_what_is_no_address_takes_no_memory() -> None:
    """Behind a proxy, whoever sends the request may name it."""
    names = ["", "unix:", "x" * 100_000, "y" * 100_000, "1.2.3", "1.2.3.4:5:6", None]
    assert {browser_posts.network_of(name) for name in names} == {None}


# -- consent


@pytest.mark.parametrize("answer", [False, None])
def test_without_consent_nothing_is_sent_or_set(answer: bool | None) -> None:
    answers: list[bool | None] = [True]
    site = make_site(consent=lambda: answers[0])
    client = site.client()
    value = {**of_page(client.get("/")), "blocked": True}
    answers[0] = answer
    response = hand_back(client, value)
    assert response.status_code == 204
    assert response.headers.getlist("Set-Cookie") == []
    assert site.messages == []


@pytest.mark.parametrize("header", ["DNT", "Sec-GPC"])
def test_a_browser_that_says_no_gets_nothing_sent_or_set(
    site: Site, header: str
) -> None:
    client = site.client()
    value = {**of_page(client.get("/")), "blocked": True}
    response = hand_back(client, value, headers={header: "1"})
    assert response.headers.getlist("Set-Cookie") == []
    assert site.messages == []


def test_who_has_opted_out_since_gets_nothing_sent_or_set(site: Site) -> None:
    client = site.client()
    value = {**of_page(client.get("/")), "blocked": True}
    client.set_cookie("__mp_opt_in_out_token", "0")
    response = hand_back(client, value)
    assert response.headers.getlist("Set-Cookie") == []
    assert site.messages == []


# -- what follows


def test_the_next_pages_of_a_blocked_visitor_are_flushed_on_the_server(
    site: Site,
) -> None:
    client = site.client()
    value = of_page(client.get("/"))
    hand_back(client, {**value, "blocked": True})
    cookie = client.get_cookie("mengpaneel_blocked")
    assert cookie is not None
    assert cookie.max_age == 3600
    assert cookie.same_site == "Lax"
    before = len(events(site))
    data = block(client.get("/"))
    # What lets the page's own calls do nothing.
    assert data is not None and data["refused"] and "calls" not in data
    assert len(events(site)) == before + 1
    assert site.outcomes[-1].strategy == "AsyncServerSide"
    assert "blocked" in site.outcomes[-1].declined["ClientSide"]


@pytest.mark.parametrize("blocked", [None, False, 0, ""])
def test_a_visitor_who_is_not_blocked_stays_with_the_library(
    site: Site, blocked: Json
) -> None:
    client = site.client()
    value = of_page(client.get("/"))
    hand_back(client, {**value, "blocked": blocked})
    assert client.get_cookie("mengpaneel_blocked") is None
    assert of_page(client.get("/"))["calls"] == [0, 1, 2]


def test_what_is_refused_blocks_nobody(site: Site) -> None:
    client = site.client()
    value = {**of_page(client.get("/")), "signature": "x", "blocked": True}
    assert hand_back(client, value).status_code == 403
    assert client.get_cookie("mengpaneel_blocked") is None


def test_it_can_be_switched_off() -> None:
    site = make_site(fallback=False)
    client = site.client()
    page = client.get("/")
    assert of_page(page)["signature"] is None
    assert "fallback" not in json.loads(of_page(page)["text"])
    assert "X-Mengpaneel-Signature" not in client.get("/api", headers=CAPABLE).headers
    assert hand_back(client, of_page(page)).status_code == 404
    assert site.messages == []


def test_every_call_that_comes_back_is_in_the_ledger() -> None:
    site = make_site(strategies=["ClientSide", "AsyncServerSide"])
    client = site.client()
    value = of_page(client.get("/"))
    hand_back(client, value)
    site.kept.has_room = False
    hand_back(client, of_page(client.get("/")))

    with site.app.app_context():
        ledger = site.mengpaneel.ledger()

    # Those that came back and had no room were recorded twice, once by the page.
    assert (ledger.recorded, ledger.delivered) == (4, 2)
    assert ledger.dropped == {"no strategy takes it": 2}
