"""What a page gets: its data, and the script that reads it."""

from __future__ import annotations

import json
import re
import typing as t

import pytest
from flask import Flask, request
from hypothesis import given, settings
from hypothesis import strategies as st

from agents import CHROME
from flask_mengpaneel import Mengpaneel, guard
from flask_mengpaneel.choose import script
from flask_mengpaneel.values import plain
from sites import PAGE, SCRIPT_TAGS, Site, block, page_calls, page_site, scripts, tags


def parsed_event(body: str) -> list[t.Any]:
    found = [data for attributes, data in scripts(body) if "id" in attributes]
    assert len(found) == 1
    (call,) = json.loads(found[0])["calls"][0][1]
    return t.cast("list[t.Any]", call)


TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=40) | (
    st.lists(
        st.sampled_from(
            [
                "</script>",
                "<script>",
                "<!--",
                "-->",
                "]]>",
                "\u2028",
                "\u2029",
                "\\",
                '"',
                "'",
                "&quot;",
                "\n",
                "\r",
                "\0",
                "\x7f",
                "😀",
                "\ud83d",
                "\ude00",
                "\\u003c",
                "</SCRIPT\t>",
                "`${alert(1)}`",
            ]
        ),
        max_size=8,
    ).map("".join)
)


@settings(max_examples=150, deadline=None)
@given(TEXT, st.dictionaries(TEXT, TEXT | st.lists(TEXT, max_size=2), max_size=3))
def test_text_of_any_kind_is_inert_in_the_page_and_comes_back(
    name: str, properties: dict[str, t.Any]
) -> None:
    properties = {
        key: value
        for key, value in properties.items()
        if key not in ("time", "$insert_id")
    }
    _telling.name, _telling.properties = name or "x", properties

    if not (name or "x").strip() or not str(plain(name or "x")).strip():
        return

    body = _telling.client().get("/").text
    call = parsed_event(body)

    assert tags(body) == [
        *("html", "head", "title", "/title", "script", "/script", "script", "/script"),
        *("/head", "body", "p", "/p", "/body", "/html"),
    ]
    assert SCRIPT_TAGS.search(body.encode()) is not None
    assert body.isascii()
    assert call[1][0] == plain(name or "x")
    added = {"time", "$insert_id", "distinct_id", "$device_id"}
    assert call[1][1] == {**call[1][1], **plain(properties)}
    assert call[1][1].keys() - plain(properties).keys() <= added


class Telling(Site):
    name = ""
    properties: dict[str, t.Any] = {}

    def __init__(self) -> None:
        super().__init__()
        self.view("/", self.tell)

    def tell(self) -> str:
        self.mengpaneel.track(self.name, self.properties)
        return PAGE


_telling = Telling()


def test_settings_and_ids_of_any_kind_are_inert_too() -> None:
    hostile = "</script><img src=x onerror=alert(1)>\u2028'\""
    site = Site(client_config={"x": hostile}, library_url=hostile)

    def view() -> str:
        with site.mengpaneel.setup():
            site.mengpaneel.identify(hostile)
            site.mengpaneel.people.set({hostile: hostile})

        return PAGE

    site.view("/", view)
    response = site.client().get("/")
    data = block(response)

    assert "img" not in tags(response.text)
    assert data is not None
    assert data["library"] == data["config"]["x"] == hostile
    assert data["calls"][0][1][0] == [["identify"], [hostile]]


def test_a_hostile_cookie_gets_nothing_into_the_page() -> None:
    hostile = '</script><script>alert(1)</script>"'
    site = page_site()
    client = site.client()
    client.set_cookie("mp_token_mixpanel", json.dumps({"distinct_id": hostile}))
    response = client.get("/", headers={"User-Agent": f"{CHROME} {hostile}"})
    (call,) = page_calls(response)

    # It is the id of the event, which must be the same in the browser.
    assert call[1][1].pop("distinct_id") == hostile
    assert "alert" not in json.dumps(call)
    assert tags(response.text) == tags(site.client().get("/").text)


YEAR = "max-age=31536000"


def test_the_script_is_kept_for_ever_under_its_own_hash_only() -> None:
    site = page_site()
    client = site.client()
    (url,) = re.findall(r'src="([^"]*)"', client.get("/quiet").text)
    folder = script.static_folder()
    files = [path.name for path in folder.iterdir() if path.is_file()]
    assert {"mengpaneel.js", "mengpaneel.js.map"} <= set(files)

    with client.get(url) as response:
        assert YEAR in response.headers["Cache-Control"]

    for name in files:
        place = f"/_mengpaneel/static/{name}"
        own = script.version(name)
        others = [script.version(other) for other in files if other != name]
        wrong = ["0" * 12, "", own[:-1], own.upper() + "x", *others]

        for query in [f"?v={value}" for value in wrong] + ["", "?w=" + own]:
            with client.get(place + query) as response:
                assert response.status_code == 200
                assert YEAR not in response.headers["Cache-Control"]
                assert "no-cache" in response.headers["Cache-Control"]

        with client.get(f"{place}?v={own}") as response:
            assert YEAR in response.headers["Cache-Control"]


def test_a_stale_hash_is_not_kept_though_the_app_keeps_its_files() -> None:
    site = page_site()
    site.app.config["SEND_FILE_MAX_AGE_DEFAULT"] = 31_536_000
    place = "/_mengpaneel/static/mengpaneel.js?v=000000000000"

    with site.client().get(place) as response:
        assert response.cache_control.max_age == 0


def test_in_debug_the_script_is_asked_for_again() -> None:
    site = page_site()
    site.app.debug = True
    place = "/_mengpaneel/static/mengpaneel.js"

    with site.client().get(f"{place}?v={script.version('mengpaneel.js')}") as answer:
        assert answer.headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize(
    "name", ["none.js", "../pyproject.toml", "%2e%2e/pyproject.toml", "a%00b", "/etc/x"]
)
def test_there_are_no_other_files(name: str) -> None:
    response = page_site().client().get(f"/_mengpaneel/static/{name}?v=1")
    assert response.status_code in (404, 308)


def test_the_data_names_the_token_the_options_and_the_library() -> None:
    site = page_site(
        client_config={"api_host": "https://api-eu.mixpanel.com"},
        library_url="/static/mixpanel.js",
    )
    data = block(site.client().get("/quiet"))

    assert data is not None
    assert data["token"] == "token"
    assert data["config"]["api_host"] == "https://api-eu.mixpanel.com"
    assert data["library"] == "/static/mixpanel.js"
    assert not data.get("calls")


def test_there_is_no_inline_code() -> None:
    for attributes, text in scripts(page_site().client().get("/").text):
        assert attributes.get("type") == "application/json" or not text
        assert attributes.get("src") or attributes.get("type") == "application/json"


def test_the_script_is_served() -> None:
    site = page_site()
    client = site.client()
    (source,) = [
        attributes["src"]
        for attributes, _ in scripts(client.get("/").text)
        if "src" in attributes
    ]
    assert source is not None

    with site.app.test_request_context():
        url = site.app.url_for("mengpaneel.static", filename="mengpaneel.js")

    for address in (source, url):
        with client.get(address) as response:
            assert response.status_code == 200
            assert "javascript" in response.headers["Content-Type"]
            assert "Set-Cookie" not in response.headers
            assert "Vary" not in response.headers


def test_under_a_script_root_the_script_is_served_there() -> None:
    site = page_site()
    client = site.client()

    for root in ("", "/shop", "/shop", "/other"):
        page = client.get("/quiet", environ_overrides={"SCRIPT_NAME": root}).text
        assert f'src="{root}/_mengpaneel/static/mengpaneel.js' in page


def test_a_hostile_script_root_gets_nothing_into_the_page() -> None:
    site = page_site()
    page = site.client().get(
        "/quiet", environ_overrides={"SCRIPT_NAME": '/"><img src=x>'}
    )

    assert "img" not in tags(page.text)


MIXPANEL = "https://api-eu.mixpanel.com"
LOCAL = "http://127.0.0.1:5001"
STAND_IN = "/_mengpaneel/guard"


@pytest.mark.parametrize(
    ("own", "guarded"),
    [
        ({}, {"api_host": STAND_IN}),
        ({"api_host": MIXPANEL}, {"api_host": STAND_IN}),
        ({"api_host": LOCAL}, {"api_host": LOCAL}),
        # The library sends each kind of record to a host of its own, if it has one.
        (
            {"api_hosts": {"events": MIXPANEL, "people": LOCAL}},
            {"api_host": STAND_IN, "api_hosts": {"people": LOCAL}},
        ),
        (
            {"api_host": LOCAL, "api_hosts": {"record": "https://t.example"}},
            {"api_host": LOCAL, "api_hosts": {}},
        ),
    ],
)
def test_in_a_guarded_run_the_library_sends_nothing_to_mixpanel(
    own: dict[str, t.Any], guarded: dict[str, t.Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(guard.VARIABLE, "1")
    data = block(page_site(client_config=own).client().get("/quiet"))

    assert data is not None
    hosts = {name: data["config"].get(name) for name in ("api_host", "api_hosts")}
    assert {name: host for name, host in hosts.items() if host is not None} == guarded


def test_on_a_subdomain_the_script_is_served_where_the_page_can_load_it() -> None:
    app = Flask(__name__, subdomain_matching=True)
    app.config.update(
        SERVER_NAME="shop.example",
        MENGPANEEL_TOKEN="token",
        MENGPANEEL_SPOOL=None,
        SECRET_KEY="secret",
        TESTING=True,
    )
    Mengpaneel(app)
    app.add_url_rule("/", "main", lambda: PAGE)
    app.add_url_rule("/", "sub", lambda name: PAGE, subdomain="<name>")
    client = app.test_client()

    for base in ("http://shop.example", "http://blog.shop.example"):
        page = client.get("/", base_url=base)
        (source,) = [a["src"] for a, _ in scripts(page.text) if "src" in a]
        data = block(page)
        assert data is not None and source is not None
        # Only a page's own host is `'self'` for its policy.
        assert source.startswith("/_mengpaneel/static/")

        with client.get(source, base_url=base) as response:
            assert response.status_code == 200, base

        assert client.post(data["fallback"], base_url=base).status_code == 413


def test_the_script_is_below_the_path_at_which_an_app_is_mounted() -> None:
    site = page_site()
    page = site.client().get("/quiet", base_url="http://localhost/my shop/")
    data = block(page)

    assert data is not None
    assert data["fallback"] == "/my%20shop/_mengpaneel/calls"
    assert 'src="/my%20shop/_mengpaneel/static/mengpaneel.js?v=' in page.text


def test_the_nonce_of_this_response_is_on_the_script() -> None:
    site = page_site(csp_nonce=lambda: request.headers["X-Nonce"])
    client = site.client()

    for path in ("/", "/quiet"):
        for nonce in ("abc", 'q"><b>'):
            page = client.get(path, headers={"X-Nonce": nonce}).text
            assert [a["nonce"] for a, _ in scripts(page) if "src" in a] == [nonce]
            assert "b" not in tags(page)


@pytest.mark.parametrize("nonce", [None, ""])
def test_no_nonce_is_no_attribute(nonce: str | None) -> None:
    site = page_site(csp_nonce=lambda: nonce)

    assert "nonce" not in site.client().get("/").text


def test_in_debug_the_page_says_who_declined_and_why() -> None:
    site = page_site()
    site.app.debug = True
    data = block(site.client().get("/"))

    assert data is not None
    assert data["debug"]["strategy"] == "ClientSide"
    assert data["debug"]["declined"]["Delayed"] == "not a redirect"


def test_outside_debug_it_does_not() -> None:
    assert "debug" not in (block(page_site().client().get("/")) or {})
