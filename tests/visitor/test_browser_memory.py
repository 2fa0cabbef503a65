"""In which cookie the server sees what the browser library knows."""

from __future__ import annotations

import json
import typing as t
from urllib.parse import quote, unquote

import pytest
from flask import redirect
from werkzeug.test import TestResponse

from sites import COOKIE, Site, header_calls

SHOWN = "mp_token_mengpaneel"
ANN = {"distinct_id": "ann", "$device_id": "d1", "$user_id": "ann"}
D2 = {"distinct_id": "$device:d2", "$device_id": "d2"}
PICTURE = {"Sec-Fetch-Dest": "image", "Sec-Fetch-Mode": "no-cors"}
LOCAL = {"persistence": "localStorage"}


def make_site(client_config: dict[str, t.Any] | None = None, **settings: t.Any) -> Site:
    site = Site(client_config=client_config or {}, **settings)
    mengpaneel = site.mengpaneel

    def out() -> t.Any:
        mengpaneel.track("Leave")
        mengpaneel.reset()
        return {}

    def plan() -> t.Any:
        mengpaneel.register({"Plan": "pro"})
        mengpaneel.track("Upgrade")
        return {}

    def leave() -> t.Any:
        out()
        return redirect("/page")

    site.view("/leave", leave)
    site.view("/json", lambda: (mengpaneel.track("Act"), {})[1])
    site.view("/page", lambda: "<!doctype html><html><head></head></html>")
    site.view("/out", out)
    site.view("/plan", plan)
    return site


def ask(
    site: Site, path: str, cookies: dict[str, str], headers: dict[str, str] = PICTURE
) -> TestResponse:
    client = site.client()

    for name, value in cookies.items():
        client.set_cookie(name, value)

    return client.get(path, headers=headers)


def written(known: dict[str, t.Any]) -> str:
    return quote(json.dumps(known))


def set_by(response: TestResponse) -> dict[str, str]:
    lines = response.headers.getlist("Set-Cookie")
    pairs = [line.partition(";")[0].partition("=") for line in lines]
    return {name: unquote(value) for name, _, value in pairs}


def device(site: Site) -> t.Any:
    (event,) = (one for one in site.messages if "event" in one)
    return event["properties"]["$device_id"]


@pytest.mark.parametrize(
    ("settings", "cookies", "headers", "expected"),
    [
        ({}, {COOKIE: ANN}, PICTURE, "d1"),
        ({}, {SHOWN: D2}, PICTURE, "d2"),
        # The library's own is what it knows, except where it only begins with it.
        ({}, {COOKIE: ANN, SHOWN: D2}, PICTURE, "d1"),
        (LOCAL, {COOKIE: ANN, SHOWN: D2}, PICTURE, "d2"),
        (LOCAL, {COOKIE: ANN}, PICTURE, "d1"),
        ({}, {COOKIE: "garbage", SHOWN: D2}, PICTURE, "d2"),
        (LOCAL, {COOKIE: ANN, SHOWN: "garbage"}, PICTURE, "d1"),
        # What passes with the page is another's on the next one.
        ({}, {SHOWN: {**D2, "passing": True}}, PICTURE, "d2"),
        ({}, {COOKIE: ANN, SHOWN: {**D2, "passing": True}}, PICTURE, "d1"),
        ({}, {SHOWN: {**D2, "passing": True}}, {}, None),
        ({}, {SHOWN: {**D2, "passing": "yes"}}, {}, "d2"),
    ],
)
def test_the_server_knows_whom_the_library_knows(
    settings: dict[str, t.Any],
    cookies: dict[str, t.Any],
    headers: dict[str, str],
    expected: str | None,
) -> None:
    site = make_site(settings)
    texts = {
        name: known if isinstance(known, str) else written(known)
        for name, known in cookies.items()
    }
    ask(site, "/json", texts, headers)

    assert device(site) == expected or (expected is None and device(site) != "d2")
    assert "passing" not in site.messages[0]["properties"]


@pytest.mark.parametrize("mark", ["", "!"])
def test_what_the_server_decides_is_marked(mark: str) -> None:
    site = make_site()
    (name, text), *others = set_by(
        ask(site, "/out", {SHOWN: mark + written(ANN)})
    ).items()

    assert (name, others) == (SHOWN, [])
    assert text[0] == "!"
    assert json.loads(text[1:]).keys() == {"distinct_id", "$device_id"}
    assert site.messages[0]["properties"]["$user_id"] == "ann"


def test_what_the_server_registers_goes_to_the_library_and_nothing_else() -> None:
    site = make_site()
    (text,) = set_by(ask(site, "/plan", {SHOWN: written(ANN)})).values()
    assert json.loads(text[1:]) == {**ANN, "Plan": "pro"}

    # Where nothing has changed, nothing is written.
    again = ask(site, "/plan", {SHOWN: written({**ANN, "Plan": "pro"})})
    assert set_by(again) == {}


def test_who_has_left_is_nobody_s_device_where_each_page_begins_anew() -> None:
    site = make_site({"disable_persistence": True})
    passing = {**ANN, "passing": True}
    begins = set_by(ask(site, "/leave", {SHOWN: written(passing)}, {}))

    assert device(site) not in (None, json.loads(begins[COOKIE])["$device_id"])


def test_a_cookie_of_the_page_alone_stays_one() -> None:
    passing = {**ANN, "passing": True}
    response = ask(make_site(), "/out", {SHOWN: written(passing)})

    assert '"passing": true' in set_by(response)[SHOWN].replace('":', '": ')
    assert "expires" not in response.headers["Set-Cookie"].lower()


@pytest.mark.parametrize("consent", [False, True])
def test_what_is_shown_goes_when_consent_does(consent: bool) -> None:
    site = make_site(consent=lambda: consent)
    response = ask(site, "/page", {SHOWN: written(ANN)}, {})

    assert set_by(response) == ({} if consent else {SHOWN: ""})


def test_a_script_says_who_it_is_where_there_are_no_cookies() -> None:
    said = f"true; ack; project=token; visitor={written(D2)}"
    headers = {"X-Mengpaneel-Flush-Capable": said, "Accept": "*/*"}
    ((_, (_, properties)),) = header_calls(ask(make_site(), "/json", {}, headers))

    assert properties["$device_id"] == "d2"
