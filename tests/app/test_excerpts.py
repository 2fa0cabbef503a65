"""The examples that are part of an app: each runs in one that has what it names.

Those that are an app, or tests, run in the tests of their pages.
"""

from __future__ import annotations

import collections.abc as c
import json
import logging
import pathlib
import re
import subprocess
import sys
import types
import typing as t

import flask
import pytest
from celery import Celery
from flask import Blueprint, Flask, g
from flask.testing import FlaskClient
from flask_debugtoolbar import DebugToolbarExtension
from flask_login import LoginManager, UserMixin, login_user, logout_user
from flask_principal import Identity, Principal, identity_changed
from flask_wtf import CSRFProtect

from agents import CHROME
from flask_mengpaneel import Login, Manager, Mengpaneel
from flask_mengpaneel.testing import RecordedCalls, RecordingTransport, record_calls
from flask_mengpaneel.testing import recording_transport as sent_by
from processes import eager_celery
from sink import Sink
from sites import PAGE

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
#: The pages whose examples run in the tests of these pages.
ELSEWHERE = {
    "events.md": "test_docs",
    "first-quarter.md": "test_docs",
    "metrics.md": "test_metrics",
    "moving.md": "test_moving",
    "recipes.md": "test_recipes",
    "repeated-events.md": "test_docs",
    "strategies.md": "test_docs",
    "testing.md": "test_docs",
}
#: The quick start, in the same way.
QUICK_START = ("README.md", 0)
CURL = {"User-Agent": "curl/8.5.0"}
TOKEN = "0123456789abcdef0123456789abcdef"


class User(UserMixin):
    """A user of an app with Flask-Login."""

    id = "42"
    plan = "pro"
    email = "ann@example.com"
    is_staff = False


class Excerpt:
    """An example, and the app that it is of."""

    def __init__(self, page: str, number: int) -> None:
        (path,) = (one for one in PAGES if one.name == page)
        self.code = examples(path)[number]
        self.app = Flask("excerpt", instance_path=str(pathlib.Path.cwd()))
        self.app.config.update(SECRET_KEY="secret", MENGPANEEL_TOKEN=TOKEN)
        self.app.testing = True
        self.names: dict[str, t.Any] = {
            **vars(flask),
            "__name__": "excerpt",
            "app": self.app,
            "mengpaneel": Mengpaneel(),
            "Manager": Manager,
            "Mengpaneel": Mengpaneel,
        }

    def run(self, **names: t.Any) -> None:
        self.names.update(names)
        exec(self.code, self.names)

    def start(self) -> FlaskClient:
        """Let the app begin, with a page that is tracked; as a browser's user."""
        if "mengpaneel" not in self.app.extensions:
            self.names["mengpaneel"].init_app(self.app)

        self.app.add_url_rule("/page", "page", self._page)
        client = self.app.test_client()
        client.environ_base["HTTP_USER_AGENT"] = CHROME
        return client

    def start_in_production(self) -> FlaskClient:
        self.app.testing = False
        self.app.config["MENGPANEEL_TRANSPORT"] = RecordingTransport()
        return self.start()

    @property
    def waiting(self) -> int:
        """How many records wait to be acknowledged."""
        with self.app.app_context():
            return int(self.names["mengpaneel"].ledger().waiting)

    def _page(self) -> str:
        self.names["mengpaneel"].track("View", {"Plan": "pro", "E-mail": "a@b.example"})
        return PAGE

    def with_login(self) -> None:
        """Let the app have Flask-Login, and a view that signs in."""
        manager = LoginManager(self.app)
        manager.user_loader(lambda id: User())
        self.app.add_url_rule("/in", view_func=lambda: login_user(User()) and PAGE)


def examples(page: pathlib.Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S)


@pytest.fixture(autouse=True)
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def calls() -> t.Iterator[RecordedCalls]:
    with record_calls() as calls:
        yield calls


def test_each_example_runs() -> None:
    text = pathlib.Path(__file__).read_text()
    run = {
        (page, int(number))
        for page, number in re.findall(r'Excerpt\("([\w.-]+)", (\d+)\)', text)
    }
    shown = {
        (page.name, number)
        for page in PAGES
        if page.name not in ELSEWHERE
        for number in range(len(examples(page)))
    }

    assert run == shown - {QUICK_START}


def test_signing_up_with_flask_login(calls: RecordedCalls) -> None:
    one = Excerpt("README.md", 1)
    one.with_login()
    one.run(create_user=User, login_user=login_user, logout_user=logout_user)
    client = one.start()
    one.app.add_url_rule("/welcome", "welcome", lambda: PAGE)
    one.app.add_url_rule("/", "home", lambda: PAGE)
    client.post("/sign-up", follow_redirects=True)
    client.post("/sign-out", follow_redirects=True)

    calls.assert_tracked("Sign Up", Plan="pro")
    calls.assert_identified("42")
    calls.assert_tracked("Sign Out")


@pytest.mark.parametrize(
    ("find", "strategy", "strategies"),
    [
        (
            lambda: Excerpt("README.md", 2),
            "ServerSide",
            ["AsyncServerSide", "ServerSide"],
        ),
        (lambda: Excerpt("security.md", 0), "AsyncServerSide", None),
    ],
    ids=["README", "security"],
)
def test_insisting_on_a_strategy(
    calls: RecordedCalls,
    find: c.Callable[[], Excerpt],
    strategy: str,
    strategies: list[str] | None,
) -> None:
    one = find()
    client = one.start()
    one.app.before_request(one.run)
    client.get("/page")

    assert calls.assert_tracked("View").ways == [strategy]
    assert one.app.config.get("MENGPANEEL_STRATEGIES") == strategies


def test_a_job(calls: RecordedCalls) -> None:
    one = Excerpt("README.md", 3)
    one.start()
    one.run(subscription=types.SimpleNamespace(user_id=42, amount=12))

    calls.assert_identified(42)
    calls.assert_tracked("Renew Subscription", Amount=12)


@pytest.mark.parametrize("is_staff", [True, False])
def test_changing_and_dropping_events(calls: RecordedCalls, is_staff: bool) -> None:
    one = Excerpt("configuration.md", 0)
    user = User()
    user.is_staff = is_staff
    one.run(current_user=user)
    one.start().get("/page")

    if is_staff:
        calls.assert_not_tracked()
    else:
        assert "E-mail" not in calls.assert_tracked("View", Plan="pro").properties


def test_a_transport_of_ones_own() -> None:
    one = Excerpt("delivery.md", 0)
    published: list[str] = []
    topic = types.SimpleNamespace(publish=published.append)
    one.run(topic=topic, json=json)
    one.start().get("/page", headers=CURL)

    assert ['"View"' in text for text in published] == [True]


def test_csrf_leaves_the_extension_s_paths_alone() -> None:
    for one in (Excerpt("doctor.md", 0), Excerpt("neighbours.md", 0)):
        csrf = CSRFProtect(one.app)
        client = one.start()
        assert "CSRF" in client.post("/_mengpaneel/acks", data="none").text
        one.run(csrf=csrf)
        assert "CSRF" not in client.post("/_mengpaneel/acks", data="none").text


def test_a_path_of_ones_own() -> None:
    one = Excerpt("front-ends.md", 0)
    one.run()

    assert 'src="/shop-data/' in one.start().get("/page").text


def test_without_acknowledgements() -> None:
    one = Excerpt("hand-overs.md", 0)
    one.run()
    client = one.start_in_production()
    client.get("/page")
    assert one.waiting == 0

    other = Excerpt("hand-overs.md", 1)
    other.run(render_template=lambda name: PAGE)
    client = other.start_in_production()
    client.get("/catalogue")
    assert other.waiting == 0
    client.get("/page")
    assert other.waiting == 1


def test_the_library_s_storage() -> None:
    one = Excerpt("identity.md", 0)
    one.run()

    assert '"persistence":"localStorage"' in one.start().get("/page").text


def test_who_is_signed_in_by_flask_login(calls: RecordedCalls) -> None:
    for one in (Excerpt("identity.md", 1), Excerpt("identity.md", 2)):
        calls.clear()
        one.with_login()
        one.run()
        client = one.start()
        client.get("/in")
        client.get("/page")

        calls.assert_identified("42")

        if "PROFILE" in one.code:
            calls.assert_profile({"$email": "ann@example.com"})


def test_who_is_signed_in_by_flask_principal(calls: RecordedCalls) -> None:
    one = Excerpt("identity.md", 3)
    Principal(one.app)
    one.run(Login=Login)
    client = one.start()

    @one.app.get("/in")
    def sign_in() -> str:
        identity_changed.send(one.app, identity=Identity("7"))
        return PAGE

    client.get("/in")
    client.get("/page")
    calls.assert_identified("7")


def test_saying_who_it_is(calls: RecordedCalls) -> None:
    one = Excerpt("identity.md", 4)
    shop = Blueprint("shop", __name__)
    one.app.before_request(lambda: setattr(g, "plan", "pro"))
    one.run(current_user=User(), shop=shop)
    shop.add_url_rule("/shop", view_func=one._page)
    one.app.register_blueprint(shop)
    one.start().get("/shop")

    calls.assert_identified("42")
    assert [["register"], [{"Plan": "pro"}]] in [call.call.wire for call in calls]


def test_a_payment(calls: RecordedCalls) -> None:
    one = Excerpt("identity.md", 5)
    order = types.SimpleNamespace(customer_id="ann", total=12)
    one.run(paid_order=lambda request: order)

    assert one.start().post("/payments").json == {"status": "paid"}
    calls.assert_identified("ann")
    calls.assert_tracked("Pay Order", Total=12)
    assert "people.track_charge" in [call.name for call in calls]


def test_a_job_about_several_persons() -> None:
    one = Excerpt("identity.md", 6)
    one.start()

    with one.app.app_context():
        one.run(users=[types.SimpleNamespace(id=id) for id in ("ann", "bob")])

    envelopes = sent_by(one.app).envelopes
    people = [
        call.arguments[0]
        for envelope in envelopes
        for call in envelope.calls
        if call.name == "identify"
    ]
    assert people == ["ann", "bob"]
    assert [len(envelope.calls) for envelope in envelopes] == [2, 2]


def test_taking_the_visitor_along(calls: RecordedCalls) -> None:
    one = Excerpt("identity.md", 7)
    given: list[t.Any] = []

    def start_payment(metadata: t.Any) -> str:
        given.append(metadata)
        return "https://pay.example.com/"

    one.run(
        start_payment=start_payment,
        paid_order=lambda request: types.SimpleNamespace(metadata=given[0]),
    )
    client = one.start()
    client.post("/checkout")
    client.post("/payments", headers=CURL)

    calls.assert_tracked("Pay Order")
    (envelope,) = sent_by(one.app).envelopes
    assert envelope.user_agent == CHROME


def test_a_visitor_without_a_cookie() -> None:
    one = Excerpt("identity.md", 8)
    one.app.before_request(
        lambda: setattr(g, "api_key", types.SimpleNamespace(owner_id="ann"))
    )
    one.run()
    one.start().get("/page", headers=CURL)

    (envelope,) = sent_by(one.app).envelopes
    assert envelope.identity.distinct_id == "ann"


def test_consent(calls: RecordedCalls) -> None:
    one = Excerpt("identity.md", 9)
    one.run()
    client = one.start()

    for answer, events in {"": [], "no": [], "yes": ["View"]}.items():
        calls.clear()
        client.set_cookie("consent", answer)
        client.get("/page")
        assert calls.events == events


def test_the_inspector() -> None:
    one = Excerpt("inspector.md", 0)
    one.run()

    assert one.start().get("/_mengpaneel/inspector").status_code == 200


def test_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Excerpt("inspector.md", 1)
    logger = logging.getLogger("flask_mengpaneel")
    # Gives it back in the end.
    monkeypatch.setattr(logger, "level", logger.level)
    one.run()

    assert logger.getEffectiveLevel() == logging.DEBUG


def test_another_app_s_inspector() -> None:
    one = Excerpt("inspector.md", 2)
    one.run()
    address = one.names["MENGPANEEL_API_HOST"]
    one.app.config.update(
        MENGPANEEL_API_HOST=address, MENGPANEEL_CLIENT_CONFIG={"api_host": address}
    )

    assert f'"api_host":"{address}"' in one.start().get("/page").text


def test_an_inspector_in_a_test(folder: pathlib.Path) -> None:
    one = Excerpt("inspector.md", 3)
    (folder / "test_inspector.py").write_text(
        "import threading\n"
        "import urllib.request\n"
        "import pytest\n"
        "from flask_mengpaneel.inspector import create_inspector_app\n"
        "from werkzeug.serving import make_server\n\n\n"
        f"{one.code}\n\n"
        "def test_it(mixpanel):\n"
        "    url, inspector = mixpanel\n"
        "    assert urllib.request.urlopen(url, timeout=60).status == 200\n"
        "    assert inspector.events() == []\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert "1 passed" in done.stdout, done.stdout


def test_the_toolbar_s_panel() -> None:
    one = Excerpt("neighbours.md", 1)
    one.app.debug = True
    one.run(DebugToolbarExtension=DebugToolbarExtension)

    assert "ClientSide took 1 call" in one.start().get("/page").text


def test_operations_are_merged(sink: Sink) -> None:
    one = Excerpt("properties.md", 0)
    one.app.testing = False
    host, client = sink.url, {"api_host": sink.url}
    one.app.config.update(MENGPANEEL_API_HOST=host, MENGPANEEL_CLIENT_CONFIG=client)
    one.app.config.update(MENGPANEEL_TRANSPORT="inline")
    one.start()
    merged = one.code.splitlines()[-1].removeprefix("# ")

    with one.app.app_context(), Manager(identify="42") as manager:
        one.run(mengpaneel=manager)

    methods = {"$set": "people.set", "$add": "people.increment"}
    written = [
        f"{methods[operation]}({json.dumps(record[operation])})"
        for request in sink.requests
        for record in request.records
        for operation in methods
        if operation in record
    ]
    assert ", ".join(written) == merged


def test_celery_delivers() -> None:
    one = Excerpt("scaling.md", 0)
    one.app.testing = False
    one.app.extensions["celery"] = Celery("excerpt", set_as_current=False)
    one.run()
    one.start()

    background = one.app.extensions["mengpaneel"].background
    assert type(background).__name__ == "CeleryTransport"


def test_a_task_knows_its_visitor(calls: RecordedCalls) -> None:
    one, other = Excerpt("scaling.md", 1), Excerpt("scaling.md", 2)

    celery = eager_celery(one.app)
    one.run()
    client = one.start()
    # In the place of Celery's, which other tests would find.
    task = celery.task(name="excerpt", shared=False)
    other.run(mengpaneel=one.names["mengpaneel"], shared_task=task)

    @one.app.post("/videos")
    def upload() -> str:
        other.names["render_video"].delay(7)
        return PAGE

    client.post("/videos")
    calls.assert_tracked("Render Video")


def test_a_job_goes_through_many_persons(calls: RecordedCalls) -> None:
    one = Excerpt("scaling.md", 3)
    one.start()
    users = [types.SimpleNamespace(id=id) for id in ("ann", "bob")]
    one.run(User=types.SimpleNamespace(query=users))

    calls.assert_identified("ann")
    calls.assert_identified("bob")
    assert [call.event for call in calls if call.name == "track"] == ["Get Digest"] * 2


def test_processes_tell_each_other_what_is_acknowledged() -> None:
    one = Excerpt("scaling.md", 4)
    one.run()

    assert one.start().get("/page").status_code == 200
