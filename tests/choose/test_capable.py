from __future__ import annotations

import http.client
import json
import pathlib
import typing as t

import pytest
from flask import Response
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_mengpaneel.calls import Call, dumps
from flask_mengpaneel.values import plain
from servers import Server
from sites import ANN, CAPABLE, DEVICE, TOKEN, Site, header_calls, names

ROOT = pathlib.Path(__file__).parent.parent.parent


def make_site(**settings: t.Any) -> Site:
    site = Site(**settings)
    site.view("/", lambda: (site.mengpaneel.track("Order", {"a": 1}), {})[1])
    return site


# -- the wire format


def test_the_header_is_a_list_of_calls_in_their_order() -> None:
    site = Site()

    def view() -> dict[str, str]:
        mengpaneel = site.mengpaneel
        mengpaneel.track("Order", {"time": 1.5, "$insert_id": "i1"})
        mengpaneel.get_group("company", "acme").set({"Seats": 12})
        mengpaneel.people.set({"$email": "a@example.com"})
        mengpaneel.set_group("company", "acme")
        return {}

    site.view("/", view)
    response = site.visitor(**ANN).get("/", headers=CAPABLE)
    assert '"track"' in response.headers["X-Mengpaneel-Calls"]

    assert header_calls(response) == [
        [["track"], ["Order", {"time": 1.5, "$insert_id": "i1"}]],
        [["set_group"], ["company", ["acme"]]],
    ]
    # The rest the server makes.
    assert [call.wire for call in site.kept.calls] == [
        [["get_group"], ["company", "acme"], ["set"], [{"Seats": 12}]],
        [["people", "set"], [{"$email": "a@example.com"}]],
        [["people", "set"], [{"company": ["acme"]}]],
    ]


@pytest.mark.parametrize("value", ["true", "True", "TRUE", "1", " true "])
def test_a_client_announces_itself(value: str) -> None:
    response = (
        make_site()
        .client()
        .get("/", headers={"X-Mengpaneel-Flush-Capable": value, "Accept": "*/*"})
    )

    assert names(header_calls(response)) == ["track Order"]


@pytest.mark.parametrize(
    "value",
    [
        f"true; project={TOKEN}",
        f"true;project={TOKEN}",
        f"1 ; Project = {TOKEN} ",
        f'true; project="{TOKEN}"',
        f"true; ack; project={TOKEN}",
        f"true; project={TOKEN}; ack",
        f"true, true; project={TOKEN}",
        f"true; project={TOKEN}, true; project={TOKEN}",
        "true; ack",
        "true;",
    ],
)
def test_a_client_of_this_project_announces_itself(value: str) -> None:
    headers = {**CAPABLE, "X-Mengpaneel-Flush-Capable": value}
    response = make_site().client().get("/", headers=headers)

    assert names(header_calls(response)) == ["track Order"]
    assert response.headers["X-Mengpaneel-Project"] == TOKEN


@pytest.mark.parametrize(
    "value",
    [
        "true; project=other",
        f"true; project={TOKEN}r",
        "true; project=",
        "true; project",
        "true, true; project=other",
        "1;ack;project=other",
    ],
)
def test_a_client_of_another_project_gets_no_calls(value: str) -> None:
    site = make_site()
    headers = {**CAPABLE, "X-Mengpaneel-Flush-Capable": value}
    response = site.client().get("/", headers=headers)

    assert not [name for name, _ in response.headers if "Mengpaneel" in name]
    assert site.outcome.strategy == "AsyncServerSide"
    assert "another project" in site.outcome.declined["CapableClientSide"]
    assert [call.event for call in site.kept.calls] == ["Order"]


@pytest.mark.parametrize("value", ["", "false", "0", "yes", "truer", "; true", "=1"])
def test_what_says_anything_else_announces_nothing(value: str) -> None:
    site = make_site()
    headers = {**CAPABLE, "X-Mengpaneel-Flush-Capable": value}

    assert header_calls(site.client().get("/", headers=headers)) == []
    assert "doesn't say" in site.outcome.declined["CapableClientSide"]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "GET"])
@pytest.mark.parametrize("status", [200, 201, 204, 400, 404, 422, 500])
def test_calls_go_with_any_status_and_method(method: str, status: int) -> None:
    site = Site()
    site.view(
        "/",
        lambda: (site.mengpaneel.track("Order"), Response("", status))[1],
        methods=[method],
    )
    response = site.client().open("/", method=method, headers=CAPABLE)

    assert names(header_calls(response)) == ["track Order"]


def test_a_phone_app_without_cookies_gets_the_tracking_calls() -> None:
    client = make_site().client("ShopApp/3.1 (iPhone)")
    response = client.get("/", headers=CAPABLE)

    assert names(header_calls(response)) == ["track Order"]


def test_the_body_and_the_other_headers_stay() -> None:
    site = make_site(fallback=False)
    plain_response = site.client().get("/", headers={"DNT": "1", **CAPABLE})
    response = site.client().get("/", headers=CAPABLE)

    assert response.data == plain_response.data
    assert response.headers["X-Mengpaneel-Project"] == TOKEN
    ours = ("X-Mengpaneel-Calls", "X-Mengpaneel-Project", "Cache-Control")
    assert [pair for pair in response.headers if pair[0] not in ours] == (
        list(plain_response.headers)
    )
    assert response.headers["Cache-Control"] == "no-store"


# -- limits


def header_for(length: int, **settings: t.Any) -> tuple[Site, int]:
    site = Site(**settings)
    site.view(
        "/",
        lambda: (
            site.mengpaneel.track(
                "x", {"time": 1.5, "$insert_id": "i", "p": "y" * length}
            ),
            {},
        )[1],
    )
    response = site.client().get("/", headers=CAPABLE)
    return site, len(response.headers.get("X-Mengpaneel-Calls", ""))


def test_the_limit_is_the_last_length_that_fits() -> None:
    _, empty = header_for(0)
    site, size = header_for(2048 - empty)
    assert size == 2048
    assert site.outcome.strategy == "CapableClientSide"

    site, size = header_for(2048 - empty + 1)
    assert size == 0
    assert site.outcome.strategy == "AsyncServerSide"
    assert len(site.kept.calls[0].properties["p"]) == 2048 - empty + 1


def test_the_limit_is_a_setting() -> None:
    _, size = header_for(6000, max_header=8000)

    assert 6000 < size <= 8000


def test_the_limit_counts_bytes_as_they_are_sent() -> None:
    site = Site()
    site.view("/", lambda: (site.mengpaneel.track("雪" * 1000), {})[1])
    response = site.client().get("/", headers=CAPABLE)

    assert "X-Mengpaneel-Calls" not in response.headers
    assert site.kept.calls[0].event == "雪" * 1000


# -- set-up calls


def set_up_site(*, alias: bool = False) -> Site:
    site = Site()

    def view() -> dict[str, str]:
        if alias:
            with site.mengpaneel.before_setup():
                site.mengpaneel.alias("ann")

        with site.mengpaneel.setup():
            site.mengpaneel.identify("ann")
            site.mengpaneel.register({"Plan": "pro"})

        site.mengpaneel.track("Sign In")
        return {}

    site.view("/", view)
    return site


@pytest.mark.parametrize(
    ("cookie", "alias", "expected"),
    [
        # Known already: nothing to set up.
        (ANN, False, ["track Sign In"]),
        # Signs in over AJAX: the browser has to know at once.
        (DEVICE, False, ["identify ann", "register", "track Sign In"]),
        (
            {"distinct_id": "bob", "$device_id": "d1", "$user_id": "bob"},
            False,
            ["identify ann", "register", "track Sign In"],
        ),
        # Without the library's cookie it isn't a browser.
        (None, False, ["track Sign In"]),
        # Something before set-up: all of it.
        (ANN, True, ["alias ann", "identify ann", "register", "track Sign In"]),
        (None, True, ["alias ann", "identify ann", "register", "track Sign In"]),
    ],
)
def test_set_up_calls_are_there_when_they_are_needed(
    cookie: dict[str, str] | None, alias: bool, expected: list[str]
) -> None:
    site = set_up_site(alias=alias)
    client = site.visitor(**cookie) if cookie else site.client()
    response = client.get("/", headers=CAPABLE)

    assert names(header_calls(response)) == expected
    assert [call.name for call in site.outcome.calls] == [
        name.split()[0] for name in expected
    ]


def test_an_alias_alone_travels_too() -> None:
    site = Site()

    def view() -> dict[str, str]:
        with site.mengpaneel.before_setup():
            site.mengpaneel.alias("ann")

        return {}

    site.view("/", view)
    response = site.visitor(**DEVICE).get("/", headers=CAPABLE)

    assert names(header_calls(response)) == ["alias ann"]


def test_nothing_but_profile_operations_is_nothing_for_a_header() -> None:
    site = Site()

    def view() -> dict[str, str]:
        with site.mengpaneel.setup():
            site.mengpaneel.identify("ann")

        site.mengpaneel.people.increment("Orders")
        return {}

    site.view("/", view)
    response = site.visitor(**ANN).get("/", headers=CAPABLE)

    assert "X-Mengpaneel-Calls" not in response.headers
    assert "Cache-Control" not in response.headers
    (operation,) = site.messages
    assert operation["$distinct_id"] == "ann"
    assert operation["$add"] == {"Orders": 1}


# -- text


HOSTILE = [
    "Größe",
    "雪 Привет 😀",
    "a\r\nSet-Cookie: a=b",
    "\x00\x01\x1f\x7f\x80\x9f",
    "\u2028\u2029\ufeff",
    '"\\/',
    "</script><!--",
    "\ud83d\ude00",
    "half \ud83d",
    "%0d%0a",
    "🏳️‍🌈",
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_any_text_is_ascii_in_the_header_and_comes_back(text: str) -> None:
    site = Site()
    site.view("/", lambda: (site.mengpaneel.track(text, {text: [text]}), {})[1])
    response = site.client().get("/", headers=CAPABLE)
    header = response.headers["X-Mengpaneel-Calls"]
    (call,) = header_calls(response)

    # https://www.rfc-editor.org/rfc/rfc9110#section-5.5: what every server lets through
    assert all(" " <= char <= "~" for char in header)
    assert call[1][0] == plain(text)
    assert call[1][1][str(plain(text))] == [plain(text)]
    assert "a" not in response.headers.get("Set-Cookie", "")


class Telling(Site):
    text = ""

    def __init__(self) -> None:
        super().__init__()
        self.view("/", lambda: (self.mengpaneel.track("x", {"p": self.text}), {})[1])


_telling = Telling()


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(codec=None, exclude_categories=()), max_size=60))
def test_text_of_any_kind_comes_back_from_the_header(text: str) -> None:
    _telling.text = text
    response = _telling.client().get("/", headers=CAPABLE)
    header = response.headers["X-Mengpaneel-Calls"]

    assert all(" " <= char <= "~" for char in header)
    assert header_calls(response)[0][1][1]["p"] == plain(text)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_any_text_comes_over_a_real_socket(text: str) -> None:
    site = Site()
    site.view("/", lambda: (site.mengpaneel.track(text), {})[1])

    with Server(site.app) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        connection.request("GET", "/", headers=CAPABLE)
        response = connection.getresponse()
        header = response.getheader("X-Mengpaneel-Calls")
        body = response.read()
        connection.close()

    assert response.status == 200
    assert body == b"{}\n"
    assert header is not None
    assert json.loads(header)[0][1][0] == plain(text)


# -- the test vectors of the protocol, which the script's tests run as well


VECTORS = {
    vector["name"]: vector
    for vector in json.loads((ROOT / "docs/protocol/calls.json").read_text())["vectors"]
}
WRITTEN = [
    "one event",
    "no argument",
    "in order",
    "every type of value",
    "not ASCII",
    "an emoji is a pair of surrogates",
    "the end of a script",
    "separators and control characters",
]


def without_stamps(calls: list[t.Any]) -> list[t.Any]:
    """Calls without what the server adds to events."""
    for call in calls:
        if call[0] == ["track"]:
            properties = dict(call[1][1]) if len(call[1]) > 1 else {}
            call[1] = [
                call[1][0],
                {
                    name: value
                    for name, value in properties.items()
                    if name not in ("time", "$insert_id")
                },
            ]

    return calls


@pytest.mark.parametrize("name", WRITTEN)
def test_the_header_is_as_the_protocols_test_vectors_say(name: str) -> None:
    vector = VECTORS[name]
    site = Site()

    def view() -> dict[str, str]:
        unit: t.Any = site.mengpaneel

        for call in vector["calls"]:
            method: t.Any = unit

            for part in call["method"].split("."):
                method = getattr(method, part)

            made = method(*call["arguments"])
            unit = made if call["method"] == "get_group" else site.mengpaneel

        return {}

    site.view("/", view)
    # Nobody is signed in, so that no set-up call is added.
    response = site.client().get("/", headers=CAPABLE)

    assert without_stamps(header_calls(response)) == without_stamps(
        json.loads(vector["header"])
    )


@pytest.mark.parametrize("name", WRITTEN)
def test_a_vectors_header_is_in_the_servers_own_words(name: str) -> None:
    header = VECTORS[name]["header"]

    assert dumps([Call.from_json(wire).wire for wire in json.loads(header)]) == header
