"""What docs/recipes.md says: each recipe is an app that does what it is for."""

from __future__ import annotations

import collections.abc as c
import contextlib
import functools
import hashlib
import hmac
import json
import os
import pathlib
import re
import subprocess
import sys
import time
import types
import typing as t
import urllib.request

import pytest
from flask import Flask
from flask.testing import FlaskClient

from agents import CHROME
from flask_mengpaneel import Outcome
from flask_mengpaneel.testing import RecordingTransport, record_flushes
from needs import NPM_PACKAGES, need
from ports import free_port
from redis_server import Redis
from sink import Sink
from sites import sent
from waiting import wait_until

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "recipes.md"


@functools.cache
def sections() -> dict[str, str]:
    parts = re.split(r"^## (.*)\n", PAGE.read_text(), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def block(heading: str, language: str = "python") -> str:
    (code,) = re.findall(
        rf"^```{language}\n(.*?)^```", sections()[heading], re.M | re.S
    )
    return str(code)


class Recipe:
    """The app of a recipe, which sends nothing."""

    def __init__(self, heading: str) -> None:
        self.transport = RecordingTransport()
        self.names: dict[str, t.Any] = {"__name__": "recipe"}
        # In the place of a setting that none of the recipes has.
        code = block(heading).replace(
            "Mengpaneel(app", "Mengpaneel(app, transport=transport"
        )
        self.names["transport"] = self.transport
        exec(code, self.names)
        self.app: Flask = self.names["app"]
        self.app.testing = True

    @contextlib.contextmanager
    def visited(self) -> c.Iterator[tuple[FlaskClient, list[Outcome]]]:
        client = self.app.test_client()
        client.environ_base["HTTP_USER_AGENT"] = CHROME

        with record_flushes(self.app) as outcomes:
            yield client, outcomes

    @property
    def sent(self) -> list[str]:
        return [call.event or call.name for call in self.transport.calls]


@pytest.fixture(autouse=True)
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def events(outcome: Outcome) -> list[str | None]:
    return [call.event for call in outcome.calls if call.tracks]


def data_of(page: str) -> dict[str, t.Any]:
    """The block of data of a page."""
    found = re.search(r'id="mengpaneel"[^>]*>([^<]*)<', page)
    assert found is not None, page
    return t.cast("dict[str, t.Any]", json.loads(found[1]))


def test_each_recipe_is_tried() -> None:
    tried = re.findall(r'(?:Recipe|block)\("(.*?)"', pathlib.Path(__file__).read_text())

    assert set(sections()) - set(tried) == {"Metrics and health"}


def test_flask_login() -> None:
    with Recipe("Flask-Login").visited() as (client, outcomes):
        client.post("/sign-in")
        client.post("/sign-out")

    calls = [call for one in outcomes for call in one.calls]
    assert outcomes[0].strategy == "Delayed"
    assert ["42"] in [call.arguments for call in calls if call.name == "identify"]
    assert {"Sign In", "Sign Out"} <= {call.event for call in calls if call.tracks}
    assert "reset" in [call.name for call in calls]


def test_flask_talisman() -> None:
    with Recipe("Flask-Talisman").visited() as (client, _):
        answer = client.get("/", base_url="https://localhost")

    nonce = re.search(r"'nonce-([^']+)'", answer.headers["Content-Security-Policy"])
    assert nonce is not None
    assert f'nonce="{nonce[1]}"' in answer.text
    assert '"View Home"' in answer.text

    from flask_mengpaneel.doctor.command import examine

    found = examine(Recipe("Flask-Talisman").app)
    assert [str(one) for one in found if one.level.name == "ERROR"] == []


def test_flask_wtf() -> None:
    with Recipe("Flask-WTF").visited() as (client, _):
        answer = client.post("/_mengpaneel/acks", data="none")

    assert "CSRF" not in answer.text


def test_flask_socketio() -> None:
    recipe = Recipe("Flask-SocketIO")

    with recipe.visited() as (client, outcomes):
        client.post("/sign-in")
        socket = recipe.names["socketio"].test_client(
            recipe.app, flask_test_client=client, headers={"User-Agent": CHROME}
        )
        socket.send("Hi")
        assert [received["args"] for received in socket.get_received()] == ["Hi"]
        socket.emit("export")
        assert wait_until(lambda: len(sent(recipe.app, recipe.transport)) == 2, 10)

    assert [events(one) for one in outcomes] == [
        ["Sign In"],
        ["Send Message"],
        ["Export"],
    ]
    people = [m["properties"] for m in sent(recipe.app, recipe.transport)]
    assert {one["$user_id"] for one in people} == {"42"}
    assert len({one["$device_id"] for one in people}) == 1


def test_sqlalchemy() -> None:
    recipe = Recipe("SQLAlchemy")
    recipe.app.testing = False

    with recipe.visited() as (client, outcomes):
        assert client.post("/orders/3").json == {"order": 1}
        assert client.post("/orders/0").status_code == 500

    assert [events(one) for one in outcomes] == [["Place Order"]]

    with recipe.app.app_context():
        assert recipe.names["mengpaneel"].ledger().dropped == {"rolled back": 1}


def test_celery() -> None:
    recipe = Recipe("Celery")
    recipe.names["celery"].conf.task_always_eager = True

    with recipe.visited() as (client, _):
        assert client.post("/videos/7").json == {"rendering": 7}

    assert recipe.sent == ["Render Video"]


def test_rq(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from redis import Redis as Client
    from rq import Queue

    need("redis-server")
    server = Redis(folder)
    recipe = Recipe("RQ")

    try:
        with Client.from_url(server.url) as connection:
            queue = recipe.names["queue"] = Queue(connection=connection)
            # A worker would import it.
            module = types.SimpleNamespace(**recipe.names)
            monkeypatch.setitem(sys.modules, "recipe", module)

            with recipe.visited() as (client, _):
                assert client.post("/videos/7").json == {"rendering": 7}
                (job,) = queue.jobs
                job.perform()
    finally:
        server.stop()

    assert recipe.sent == ["Render Video"]


def test_flask_caching() -> None:
    with Recipe("Flask-Caching").visited() as (client, outcomes):
        pages = [client.get("/articles/one").text for _ in range(2)]

    assert [events(one) for one in outcomes] == [["View Article"]] * 2
    ids = [re.findall(r'"\$insert_id":"(\w+)"', page) for page in pages]
    assert [len(some) for some in ids] == [1, 1]
    assert ids[0] != ids[1]


def test_stripe() -> None:
    recipe = Recipe("Stripe, and other webhooks")
    created: list[dict[str, t.Any]] = []

    def create(**given: t.Any) -> types.SimpleNamespace:
        created.append(given)
        return types.SimpleNamespace(url="https://pay.example.com/1")

    stripe = recipe.names["stripe"]
    recipe.names["stripe"] = types.SimpleNamespace(
        Webhook=stripe.Webhook,
        checkout=types.SimpleNamespace(Session=types.SimpleNamespace(create=create)),
    )

    with recipe.visited() as (client, _):
        assert client.post("/checkout").status_code == 303

    now = int(time.time())
    paid = {
        "id": "evt_1",
        "object": "event",
        "created": now,
        "type": "checkout.session.completed",
        "data": {
            "object": {
                "object": "checkout.session",
                "amount_total": 1200,
                "metadata": created[0]["metadata"],
            }
        },
    }
    body = json.dumps(paid)
    signature = hmac.new(b"whsec_...", f"{now}.{body}".encode(), hashlib.sha256)
    headers = {"Stripe-Signature": f"t={now},v1={signature.hexdigest()}"}
    recipe.transport.envelopes.clear()
    provider = recipe.app.test_client()

    assert provider.post("/stripe", data=body, headers=headers).json == {
        "received": True
    }
    (envelope,) = recipe.transport.envelopes
    assert envelope.identity.device_id == created[0]["metadata"]["device_id"]
    assert envelope.user_agent == CHROME
    assert recipe.sent == ["Pay Order"]
    properties = recipe.transport.calls[0].properties
    same = hashlib.sha256(b"evt_1").hexdigest()[:32]
    assert (properties["$insert_id"], properties["time"]) == (same, now)


def test_links_in_emails() -> None:
    recipe = Recipe("Links in e-mails")

    with recipe.visited() as (client, outcomes):
        answer = client.get(recipe.names["newsletter_link"]("42"))
        assert answer.location == "/news?utm_source=newsletter&utm_medium=email"
        assert '"Open Newsletter"' in client.get(answer.location).text
        assert client.get("/newsletter/forged").location == "/news"

    assert [one.strategy for one in outcomes] == ["Delayed", "ClientSide"]
    assert [call.name for call in outcomes[-1].calls] == ["identify", "track"]


def test_a_consent_banner() -> None:
    recipe = Recipe("A consent banner")

    with recipe.visited() as (client, outcomes):
        first = client.get("/").text
        assert "May we count" in first and data_of(first)["unasked"]
        assert not outcomes
        client.post("/consent", data={"answer": "yes"})
        page = client.get("/").text
        assert "May we count" not in page
        assert str(data_of(page)["calls"]).count("View Home") == 2

    with recipe.visited() as (client, outcomes):
        client.get("/")
        client.post("/consent", data={"answer": "no"})
        assert data_of(client.get("/").text)["refused"]
        assert not outcomes


def test_a_first_party_proxy_with_nginx(tmp_path: pathlib.Path, sink: Sink) -> None:
    with Recipe("A first-party proxy with nginx").visited() as (client, _):
        page = client.get("/").text

    assert 'src="/shop-data/app.js?' in page
    assert "/shop-lib.js" in page and "/shop-api" in page
    assert "mixpanel.com" not in page and "mxpnl" not in page

    port = free_port()
    conf = block("A first-party proxy with nginx", "nginx")
    conf = re.sub(r"https://(api-js|cdn)\.[\w.]+", sink.url, conf)
    # As another user its workers couldn't write where tests do.
    user = "user root;" if os.geteuid() == 0 else ""
    (tmp_path / "nginx.conf").write_text(
        f"daemon off; {user} pid {tmp_path}/pid; error_log stderr; events {{}}\n"
        f"http {{ access_log off; client_body_temp_path {tmp_path}/body;"
        f" proxy_temp_path {tmp_path}/proxy;\n"
        f"server {{ listen 127.0.0.1:{port};\n{conf}\n}} }}\n"
    )
    command = [need("nginx"), "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")]

    with subprocess.Popen([*command, "-e", "stderr"], stderr=subprocess.PIPE) as nginx:
        try:
            event = {"event": "Visit", "properties": {"$insert_id": "id-1"}}
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/shop-api/track",
                json.dumps([event]).encode(),
                {"Cookie": "session=secret"},
            )
            wait_until(lambda: nginx.poll() is not None or answers(request))
        finally:
            nginx.terminate()

        assert sink.ids == {"id-1"}, nginx.stderr and nginx.stderr.read()

    headers = sink.requests[0].headers
    assert headers["host"] == "api-js.mixpanel.com"
    assert headers["x-forwarded-for"] == "127.0.0.1"
    assert "cookie" not in headers


def answers(request: urllib.request.Request) -> bool:
    try:
        urllib.request.urlopen(request, timeout=60).close()
    except OSError:
        return False

    return True


def test_a_library_of_your_own() -> None:
    with Recipe("A library of your own").visited() as (client, _):
        page = client.get("/").text

    assert "/static/mixpanel.min.js" in page
    assert "mxpnl" not in page


def test_what_else_the_browser_library_can_do() -> None:
    with Recipe("What else the browser library can do").visited() as (client, _):
        page = client.get("/").text

    text = json.dumps(data_of(page))
    types = (NPM_PACKAGES / "mixpanel-browser/src/index.d.ts").read_text()

    for option in (
        "autocapture",
        "record_sessions_percent",
        "record_mask_text_selector",
        "flags",
    ):
        assert f'"{option}":' in text
        assert re.search(rf"^  {option}\??:", types, re.M), option


def test_a_project_in_the_eu() -> None:
    recipe = Recipe("A project in the EU")

    with recipe.visited() as (client, _):
        assert "https://api-eu.mixpanel.com" in client.get("/").text


def test_development_testing_production(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPOOL", str(tmp_path / "spool.sqlite3"))
    monkeypatch.setenv("SECRET_KEY", "secret")
    monkeypatch.setenv("MIXPANEL_TOKEN", "real")
    names: dict[str, t.Any] = {"__name__": "recipe"}
    exec(block("Development, testing, production"), names)

    for config, way in (
        (names["Development"], "ClientSide"),
        (names["Testing"], "ClientSide"),
        (names["Production"], "ClientSide"),
    ):
        app = names["create_app"](config)

        with record_flushes(app) as outcomes:
            page = app.test_client().get("/", headers={"User-Agent": CHROME}).text

        assert [one.strategy for one in outcomes] == [way]
        assert ("/_mengpaneel/inspector" in page) is (config is names["Development"])
