"""Calls that an app gave to somebody are of no use on pages of other sites."""

from __future__ import annotations

import collections.abc as c
import json
import time
import typing as t
from urllib.parse import quote, unquote

import pytest
from flask import Flask, Response, request
from playwright.sync_api import Page as Tab
from werkzeug.test import Client

from agents import CHROME
from servers import Server
from sites import ANN, COOKIE, PAGE, Site, scripts
from waiting import wait_until

ENDPOINT = "/_mengpaneel/calls"
#: What the library has written. Without the attribute, browsers send a cookie of less
#: than two minutes along with a form of another site, and an older one like the last.
KNOWN: dict[str, list[dict[str, t.Any]]] = {
    "a new visitor": [],
    "a young cookie": [{}],
    "an old cookie": [{"sameSite": "Lax"}],
}


class OwnSite(Site):
    """A site, served, and what it was asked by browsers."""

    def __init__(self) -> None:
        super().__init__(testing=False, library_url="/none.js")
        self.statuses: list[int] = []
        self.view("/", self._home)
        self.app.after_request(self._note)
        self.server = Server(self.app)

    def _home(self) -> str:
        with self.mengpaneel.setup():
            self.mengpaneel.identify("eve")

        self.mengpaneel.track("View")
        return PAGE

    def _note(self, response: Response) -> Response:
        if request.path == ENDPOINT:
            self.statuses.append(response.status_code)

        return response

    def copied(self, cookie: str = "") -> str:
        """What somebody else's page has, as it would be handed back."""
        headers = {"User-Agent": CHROME, "Cookie": cookie}
        client = Client(self.app, use_cookies=False)
        page = client.get("/", headers=headers).text
        ((attributes, text),) = [
            found for found in scripts(page) if found[0].get("id") == "mengpaneel"
        ]
        signature = attributes["data-signature"]
        return json.dumps(
            {"text": text, "signature": signature, "calls": [0, 1], "blocked": True}
        )


@pytest.fixture
def own_site() -> c.Iterator[OwnSite]:
    site = OwnSite()

    with site.server:
        yield site


@pytest.fixture
def evil() -> c.Iterator[Server]:
    """A site of somebody else."""
    app = Flask(__name__)
    app.add_url_rule("/", view_func=lambda: "<!doctype html><body></body>")

    with Server(app) as server:
        yield server


# A JSON text in a form of plain text: what comes after the name is in a string.
FORM = """([url, body]) => {
    const form = document.createElement("form"), input = document.createElement("input")
    form.method = "POST"; form.action = url; form.enctype = "text/plain"
    input.name = body.slice(0, -1) + ', "x": "'; input.value = '"}'
    form.append(input); document.body.append(form); form.submit()
}"""
ATTACKS = {
    "form": FORM,
    "form without a referrer": FORM.replace(
        "([url, body]) => {",
        """([url, body]) => {
        const meta = document.createElement("meta")
        meta.name = "referrer"; meta.content = "no-referrer"; document.head.append(meta)
        """,
    ),
    "beacon": "([url, body]) => { navigator.sendBeacon(url, body) }",
    **{
        f"fetch, {mode}, {credentials}": f"""async ([url, body]) => {{
            await fetch(url, {{method: "POST", body, mode: "{mode}",
                credentials: "{credentials}"}}).catch(() => 0) }}"""
        for mode in ("no-cors", "cors")
        for credentials in ("include", "omit")
    },
    "frame without an origin": """([url, body]) => {
        const frame = document.createElement("iframe")
        frame.sandbox = "allow-scripts"
        frame.srcdoc = `<script>fetch(${JSON.stringify(url)}, {method: "POST",
            mode: "no-cors", body: ${JSON.stringify(body).replaceAll("<", "\\\\u003c")}
        })</script>`
        document.body.append(frame)
    }""",
}
HOSTS = {
    "another port": ("127.0.0.1", "127.0.0.1"),
    "another host": ("127.0.0.1", "localhost"),
    "a subdomain": ("localhost", "evil.localhost"),
}


def cookies(page: Tab) -> dict[str, str]:
    return {
        cookie["name"]: unquote(cookie["value"])
        for cookie in page.context.cookies()
        if "m" in cookie["name"]
    }


@pytest.mark.parametrize("known", KNOWN)
@pytest.mark.parametrize("where", HOSTS)
@pytest.mark.parametrize("attack", ATTACKS)
def test_another_sites_page_hands_nothing_back(
    own_site: OwnSite,
    evil: Server,
    page: Tab,
    attack: str,
    where: str,
    known: str,
) -> None:
    own, other = HOSTS[where]
    url = own_site.server.url.replace("127.0.0.1", own)

    page.context.add_cookies(
        [
            {"name": COOKIE, "value": quote(json.dumps(ANN)), "url": url, **more}
            for more in KNOWN[known]
        ]
    )
    before = cookies(page)
    page.goto(evil.url.replace("127.0.0.1", other))
    page.evaluate(ATTACKS[attack], [url + ENDPOINT, own_site.copied()])
    assert wait_until(lambda: own_site.statuses) == [403]
    assert cookies(page) == before
    assert own_site.kept.envelopes == []


@pytest.mark.parametrize("how", ["fetch", "beacon"])
@pytest.mark.parametrize("policy", ["", "no-referrer", "same-origin", "origin"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_the_sites_own_pages_hand_back_under_each_policy(
    own_site: OwnSite, page: Tab, how: str, policy: str, host: str
) -> None:
    own_site.app.add_url_rule(
        "/own",
        view_func=lambda: Response("<body>", headers={"Referrer-Policy": policy}),
    )
    url = own_site.server.url.replace("127.0.0.1", host)
    known = quote(json.dumps({"distinct_id": "$device:d1", "$device_id": "d1"}))
    page.context.add_cookies([{"name": COOKIE, "value": known, "url": url}])
    page.goto(url + "/own")
    code = {
        "fetch": "fetch(url, {method: 'POST', body, keepalive: true})",
        "beacon": "navigator.sendBeacon(url, body)",
    }[how]
    body = own_site.copied(f"{COOKIE}={known}")
    page.evaluate(f"([url, body]) => {{ {code} }}", [url + ENDPOINT, body])
    assert wait_until(lambda: own_site.statuses) == [204]
    assert wait_until(lambda: "mengpaneel_blocked" in cookies(page))
    assert json.loads(cookies(page)[COOKIE])["$user_id"] == "eve"


@pytest.mark.parametrize("policy", ["", "no-referrer"])
@pytest.mark.parametrize("host", ["127.0.0.1", "plain.test"])
def test_a_page_that_is_left_hands_back_under_each_policy(
    own_site: OwnSite, page: Tab, policy: str, host: str
) -> None:
    def leave() -> Response:
        own_site.mengpaneel.track("Leave")
        # It isn't loaded yet when it is left: the library may still come.
        more = "<script>setTimeout(() => location = '/next')</script><img src=/slow>"
        body = PAGE.replace("</body>", f"{more}</body>")
        return Response(body, headers={"Referrer-Policy": policy})

    def slow() -> str:
        time.sleep(2)
        return ""

    own_site.app.add_url_rule("/leave", view_func=leave)
    own_site.app.add_url_rule("/slow", view_func=slow)
    own_site.app.add_url_rule("/next", view_func=lambda: "next")
    url = own_site.server.url.replace("127.0.0.1", host)
    page.goto(url + "/leave", wait_until="commit")
    page.wait_for_url("**/next")
    assert wait_until(lambda: own_site.statuses) == [204]
    assert [call.event for call in own_site.kept.calls] == ["Leave"]
