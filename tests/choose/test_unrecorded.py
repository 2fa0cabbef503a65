"""What isn't recorded, or goes nowhere, says why."""

from __future__ import annotations

import collections.abc as c
import logging
import os
import pathlib
import subprocess
import sys
import threading
import typing as t

import pytest
from flask import current_app

from flask_mengpaneel import Envelope, Manager, Unrecorded, unrecorded
from flask_mengpaneel.calls import Call
from flask_mengpaneel.deliver.ledger import Balance
from flask_mengpaneel.identity import NOBODY
from flask_mengpaneel.signals import recorded
from sites import PAGE, Site

if t.TYPE_CHECKING:
    from flask_mengpaneel.choose.app_state import AppState

GPC = {"Sec-GPC": "1"}
BOT = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"


def make_site(**settings: t.Any) -> Site:
    site = Site(testing=False, **settings)

    def view() -> str:
        with site.mengpaneel.setup():
            site.mengpaneel.identify("ann")

        site.mengpaneel.track("View Home")
        return PAGE

    def opt_out() -> str:
        site.mengpaneel.opt_out_tracking()
        return view()

    site.app.add_url_rule("/", "home", view)
    site.app.add_url_rule("/out", "out", opt_out)
    return site


def get(site: Site, path: str = "/", cookie: str = "", **headers: str) -> None:
    client = site.client()

    if cookie:
        client.set_cookie(*cookie.split("="))

    named = {name.replace("_", "-"): value for name, value in headers.items()}
    client.get(path, headers=named)


@pytest.fixture
def told() -> c.Iterator[list[Unrecorded]]:
    """What the signal has told."""
    told: list[Unrecorded] = []

    def receive(_app: object, unrecorded: Unrecorded) -> None:
        told.append(unrecorded)

    with unrecorded.connected_to(receive):
        yield told


OPTED_OUT = "__mp_opt_in_out_token=0"
# Settings, a request, the reason in the ledger, and a word of the log.
REASONS: list[tuple[dict[str, t.Any], dict[str, str], str, str]] = [
    ({}, {"Sec_GPC": "1"}, "no consent: Sec-GPC", "Sec-GPC: 1"),
    ({}, {"Sec_GPC": "1", "DNT": "1"}, "no consent: Sec-GPC", "MENGPANEEL_RESPECT_DNT"),
    ({}, {"DNT": "1"}, "no consent: DNT", "DNT: 1"),
    ({}, {"cookie": OPTED_OUT}, "no consent: opted out", "cookie"),
    ({}, {"cookie": "mp_optout=1"}, "no consent: opted out", "opted out"),
    ({}, {"path": "/out"}, "no consent: opted out", "opted out"),
    (
        {"consent": lambda: True},
        {"cookie": OPTED_OUT, "DNT": "1"},
        "no consent: opted out",
        "opted out",
    ),
    ({"consent": lambda: None}, {"DNT": "1"}, "no consent: DNT", "DNT: 1"),
    (
        {"consent": lambda: False},
        {},
        "no consent: MENGPANEEL_CONSENT",
        "MENGPANEEL_CONSENT says no",
    ),
    (
        {"consent": lambda: 1 / 0},
        {},
        "no consent: MENGPANEEL_CONSENT",
        "MENGPANEEL_CONSENT says no",
    ),
    ({"enabled": False}, {}, "MENGPANEEL_ENABLED is False", "MENGPANEEL_ENABLED"),
    ({"token": None}, {}, "no MENGPANEEL_TOKEN", "MENGPANEEL_TOKEN"),
]


@pytest.mark.filterwarnings("ignore:MENGPANEEL_TOKEN is not set")
@pytest.mark.parametrize(
    ("settings", "request_", "reason", "word"), REASONS, ids=range(len(REASONS))
)
def test_what_isn_t_recorded_says_why(
    settings: dict[str, t.Any],
    request_: dict[str, str],
    reason: str,
    word: str,
    told: list[Unrecorded],
    caplog: pytest.LogCaptureFixture,
) -> None:
    site = make_site(debug=True, **settings)
    caplog.set_level(logging.INFO)

    for _ in range(3):
        get(site, **request_)

    ledger = site.mengpaneel.ledger().snapshot()
    assert ledger.unrecorded == {reason: 3}
    assert (ledger.recorded, ledger.dropped) == (0, {})
    # Once for a visitor: a page with a hundred calls says it once.
    (record,) = [one for one in caplog.records if one.levelno == logging.INFO]
    assert record.message.startswith("mengpaneel.track was not recorded: ")
    assert word in record.message
    assert "event 'View Home'" in record.message
    assert f"{os.path.relpath(__file__)}:" in record.message
    assert "GET '/" in record.message
    assert [(one.call, one.event) for one in told] == [("track", "View Home")] * 3
    assert str(told[0]) == record.message


def test_another_visitor_is_another_reason_to_say_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    site = make_site(debug=True)
    caplog.set_level(logging.INFO)
    get(site, **{"Sec_GPC": "1"})
    get(site, **{"DNT": "1"})

    for _ in range(2):
        site.client("another").get("/", headers=GPC)
        elsewhere = {"REMOTE_ADDR": "203.0.113.9"}
        site.client().get("/", headers=GPC, environ_overrides=elsewhere)

    assert len(caplog.records) == 4


def test_in_production_the_ledger_alone_says_why(
    caplog: pytest.LogCaptureFixture,
) -> None:
    site = make_site()
    caplog.set_level(logging.INFO)
    get(site, **{"Sec_GPC": "1"})

    assert caplog.records == []
    assert site.mengpaneel.ledger().unrecorded == {"no consent: Sec-GPC": 1}


def test_what_waits_for_consent_says_so(
    told: list[Unrecorded], caplog: pytest.LogCaptureFixture
) -> None:
    site = make_site(debug=True, consent=lambda: None)
    caplog.set_level(logging.INFO)
    get(site)
    (record,) = [one for one in caplog.records if one.levelno == logging.INFO]

    assert "was not sent: MENGPANEEL_CONSENT gives None; it waits" in record.message
    assert told[0].insert_id
    assert site.mengpaneel.ledger().unrecorded == {}

    caplog.clear()
    site.app.secret_key = None
    get(site)
    ledger = site.mengpaneel.ledger()

    assert "the session can't keep it" in caplog.text
    assert ledger.dropped == {"no consent yet": 1}


def test_an_operation_that_waits_for_consent_was_recorded(
    told: list[Unrecorded], caplog: pytest.LogCaptureFixture
) -> None:
    site = make_site(debug=True, consent=lambda: None)
    site.view("/visit", lambda: site.mengpaneel.people.increment("Visits") or "done")
    caplog.set_level(logging.INFO)
    get(site, "/visit")
    (record,) = [one for one in caplog.records if one.levelno == logging.INFO]

    assert record.message.startswith("mengpaneel.people.increment was not sent: ")
    assert (told[0].insert_id, told[0].origin) == ("", "")


@pytest.mark.parametrize("ack_timeout", [10, 0])
def test_what_has_waited_for_consent_that_is_refused_says_so(
    told: list[Unrecorded], caplog: pytest.LogCaptureFixture, ack_timeout: int
) -> None:
    answer: list[bool | None] = [None]
    site = make_site(debug=True, consent=lambda: answer[-1], ack_timeout=ack_timeout)
    site.view("/quiet", lambda: "done")
    client = site.client()
    client.get("/")
    assert site.mengpaneel.ledger().recorded == 0

    caplog.set_level(logging.INFO)
    caplog.clear()
    told.clear()
    cookie = client.get_cookie("session")
    assert cookie is not None
    answer.append(False)

    # Another request that was under way had the same cookie.
    for _ in range(2):
        client.set_cookie("session", cookie.value)
        client.get("/quiet")

    ledger = site.mengpaneel.ledger()
    assert (ledger.recorded, ledger.dropped) == (1, {"consent was refused": 1})
    refused = [("View Home", "consent was refused")]
    assert [(one.event, one.reason) for one in told] == refused
    assert "was not sent: consent was refused" in caplog.text


def test_what_a_robot_causes_says_so(
    told: list[Unrecorded], caplog: pytest.LogCaptureFixture
) -> None:
    site = make_site(debug=True, bots="drop", strategies=["ServerSide"])
    caplog.set_level(logging.INFO)

    for _ in range(2):
        site.client(BOT).get("/")

    (record,) = [one for one in caplog.records if "MENGPANEEL_BOTS" in one.message]
    assert record.message.startswith("mengpaneel.track was not sent: ")
    assert [one.event for one in told] == ["View Home"] * 2
    assert site.mengpaneel.ledger().dropped["bot"] == 2


def test_a_receiver_has_its_app_also_in_a_thread() -> None:
    site = make_site(bots="drop", strategies=["AsyncServerSide"], transport="thread")
    apps: list[t.Any] = []

    def receive(_app: object, unrecorded: Unrecorded) -> None:
        apps.append((current_app.name, threading.current_thread() is main))

    main = threading.current_thread()

    with unrecorded.connected_to(receive, site.app):
        site.client(BOT).get("/")
        assert site.mengpaneel.drain(60)

    assert apps == [("shop", False)]


@pytest.mark.parametrize("fails", [False, True])
def test_a_receiver_may_read_the_ledger_of_what_is_dropped_as_nobody_takes_it(
    fails: bool,
) -> None:
    site = make_site(
        bots="drop", strategies=["AsyncServerSide"], transport="thread", spool=None
    )
    site.app.testing = fails
    delivery = t.cast("AppState", site.app.extensions["mengpaneel"]).delivery
    ledger = delivery.ledger
    found: list[t.Any] = []

    def receive(_app: object, unrecorded: Unrecorded) -> None:
        # A reader waits until nothing is going on.
        found.append((unrecorded.event, ledger._going_on(), ledger.snapshot()))
        assert not fails

    envelope = Envelope(
        [Call([["track"], ["Visit", {}]])],
        NOBODY,
        [],
        0.0,
        records=1,
        user_agent=BOT,
    )

    with unrecorded.connected_to(receive, site.app):
        with ledger.transfer():
            ledger.record()
            dropped = delivery.spool_envelopes([(envelope, 0)], "too much")

        delivery.report_drops(dropped)

    ((event, going_on, balance),) = found
    assert (event, going_on) == ("Visit", [])
    assert balance.balanced
    assert balance.dropped == {"bot": 1}


def test_a_job_and_what_nobody_misses_say_nothing(told: list[Unrecorded]) -> None:
    site = make_site(debug=True)
    site.app.add_url_rule("/who", "who", lambda: (site.mengpaneel.identify("a"), "")[1])
    get(site, "/who", **{"Sec_GPC": "1"})

    with site.app.app_context(), Manager():
        site.mengpaneel.track("A")

    assert told == []
    assert site.mengpaneel.ledger().unrecorded == {}


def test_what_a_failing_receiver_hears_of_is_recorded_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    site = Site(testing=False)

    with (
        recorded.connected_to(lambda *_, **__: 1 / 0, site.app),
        site.app.app_context(),
        Manager(identify="ann") as manager,
    ):
        manager.track("Look")

    assert "a receiver of the signal 'recorded' failed" in caplog.text
    balance = site.mengpaneel.ledger().snapshot()
    assert (balance.recorded, balance.dropped) == (1, {})


def test_a_receiver_that_fails_costs_no_page(caplog: pytest.LogCaptureFixture) -> None:
    def fail(_app: object, unrecorded: Unrecorded) -> t.NoReturn:
        raise ZeroDivisionError

    site = make_site()

    with unrecorded.connected_to(fail, site.app):
        assert site.client().get("/", headers=GPC).status_code == 200

    assert "a receiver of the signal 'unrecorded' failed" in caplog.text


APP = """
from flask import Flask
from flask_mengpaneel import Mengpaneel

app = Flask(__name__)
app.config.update(MENGPANEEL_TOKEN="any", MENGPANEEL_INSPECTOR=True)
mengpaneel = Mengpaneel(app)

@app.get("/")
def home():
    mengpaneel.track("View Home")
    return ""

app.test_client().get("/", headers={"Sec-GPC": "1"})
(call,) = app.extensions["mengpaneel_inspector"].unrecorded()
assert call.told.event == "View Home", call
feed = app.test_client().get("/_mengpaneel/inspector/arrivals").json
assert "Sec-GPC: 1" in feed["unrecorded"][0]["reason"], feed
"""


def test_the_log_and_the_inspector_show_it_without_any_configuration(
    tmp_path: pathlib.Path,
) -> None:
    (tmp_path / "app.py").write_text(APP)
    done = subprocess.run(
        [sys.executable, "app.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 0, done.stderr
    assert "was not recorded: the browser sends 'Sec-GPC: 1'" in done.stderr
    assert "app.py:11, endpoint 'home', GET '/')" in done.stderr


def test_the_inspector_marks_what_is_left_out(tmp_path: pathlib.Path) -> None:
    site = Site(
        testing=False,
        inspector=True,
        prepare=lambda app: setattr(app, "instance_path", str(tmp_path)),
    )

    with site.app.app_context(), Manager(identify="ann"):
        site.mengpaneel.track("Place Order", {"Items": [{"sku": object()}]})
        site.mengpaneel.track("")

    inspector = site.app.extensions["mengpaneel_inspector"]
    (order,) = site.kept.calls[1:]
    first, second = (one.told for one in inspector.unrecorded())
    assert (first.event, first.missing) == ("Place Order", ("Items[0].sku",))
    assert first.insert_id == order.properties["$insert_id"]
    assert (second.call, second.missing, second.insert_id) == ("track", (), "")
    inspector.clear()
    assert inspector.unrecorded() == []


@pytest.mark.parametrize(("merge", "times"), [("simplified", 1), ("original", 0)])
def test_an_alias_without_effect_is_said_where_it_is_called(
    merge: str, times: int, caplog: pytest.LogCaptureFixture
) -> None:
    site = make_site(id_merge=merge)
    site.app.debug = True
    site.view("/sign-up", lambda: site.mengpaneel.alias("ann") or PAGE)
    caplog.set_level(logging.INFO, "flask_mengpaneel")

    for _ in range(2):
        get(site, "/sign-up")

    said = [one.message for one in caplog.records if "alias" in one.message]
    assert len(said) == times
    assert all(f"{os.path.relpath(__file__)}:" in message for message in said)
    assert all("GET '/sign-up'" in message for message in said)


@pytest.mark.parametrize(
    ("settings", "properties"),
    [
        ({"before_send": lambda event: None}, {}),
        ({}, {"$insert_id": object()}),
        ({"consent": lambda: None}, {}),
        ({"strategies": ["Delayed"]}, {}),
    ],
    ids=["unwanted", "wrong", "no consent", "no way"],
)
def test_nobody_reads_of_what_is_dropped_at_once_that_it_is_lost(
    settings: dict[str, t.Any], properties: dict[str, t.Any]
) -> None:
    site = Site(testing=False, **settings)
    # Nothing can wait in a session.
    site.app.secret_key = None
    site.view("/", lambda: (site.mengpaneel.track("Look", properties), {})[1])
    client = site.client()

    with site.app.app_context():
        ledger = site.mengpaneel.ledger()

    balances: list[Balance] = []
    readers: list[threading.Thread] = []

    def read() -> None:
        readers.append(
            threading.Thread(target=lambda: balances.append(ledger.snapshot()))
        )
        readers[-1].start()
        # As long as it takes, if it needn't wait for the end of this.
        readers[-1].join(0.1)

    ledger.on_change = read
    client.get("/")

    for reader in readers:
        reader.join(60)

    assert ledger.snapshot().dropped
    assert [one for one in balances if not one.balanced] == []
