"""Calls that no response can carry any more, and units of work that are long."""

from __future__ import annotations

import collections.abc as c
import threading
import typing as t

import pytest
from flask import (
    Flask,
    Response,
    current_app,
    redirect,
    request_tearing_down,
    stream_with_context,
)
from flask.sessions import SecureCookieSessionInterface

from agents import CHROME
from flask_mengpaneel import Manager, Mengpaneel
from flask_mengpaneel.deliver.failures import FailureReporter
from flask_mengpaneel.testing import RecordingTransport
from sites import CAPABLE, PAGE, Site, block, header_calls, names, page_calls

WEBHOOK = "Stripe/1.0"


# -- jobs


def test_a_long_job_is_sent_on_the_way() -> None:
    site = Site()

    with site.app.app_context(), Manager() as manager:
        with manager.setup():
            manager.identify("ann")

        for n in range(5_000):
            manager.track("Row", {"n": n})
            assert len(manager.calls.tracking) < 2_000

        assert [envelope.records for envelope in site.kept.envelopes] == [2_000, 2_000]

    events = [message["properties"] for message in site.messages]
    assert [event["n"] for event in events] == list(range(5_000))
    assert {event["distinct_id"] for event in events} == {"ann"}


def test_a_long_stage_is_not_torn_apart() -> None:
    site = Site()

    with site.app.app_context(), Manager() as manager:
        with manager.before_setup():
            for n in range(2_500):
                manager.track("Row", {"n": n})

            with manager.tracking():
                for n in range(2_500):
                    manager.track("Row", {"n": n})

        assert site.kept.envelopes == []

        with manager.setup():
            manager.identify("ann")

    assert len(site.kept.calls) == 5_001


def test_a_manager_that_is_not_in_use_takes_no_calls() -> None:
    site = Site()

    with site.app.app_context():
        manager = Manager()

        with pytest.raises(RuntimeError, match="with Manager"):
            manager.track("Too Early")

        with manager:
            manager.track("In Time")

        with pytest.raises(RuntimeError, match="with Manager"):
            manager.track("Too Late")

    assert [call.event for call in site.kept.calls] == ["In Time"]


# -- after the response


def test_a_stream_hands_over_each_call_when_it_happens() -> None:
    site = Site()
    seen: list[int] = []

    def chunks() -> c.Iterator[str]:
        for n in range(3):
            site.mengpaneel.track("Chunk", {"n": n})
            seen.append(len(site.kept.calls))
            yield f"data: {n}\n\n"

    site.view("/", lambda: Response(stream_with_context(chunks())))
    site.client().get("/", buffered=True)

    assert seen == [1, 2, 3]
    (person,) = {message["properties"]["distinct_id"] for message in site.messages}
    assert person.startswith("$device:")


def test_those_who_tear_down_after_the_extension_may_track() -> None:
    app = Flask(__name__)
    mengpaneel = Mengpaneel()
    transport = RecordingTransport()
    app.config.update(
        TESTING=True,
        MENGPANEEL_TOKEN="token",
        MENGPANEEL_TRANSPORT=transport,
        MENGPANEEL_SPOOL=None,
    )

    @app.teardown_request
    def early(_error: BaseException | None) -> None:
        mengpaneel.track("Registered Early")

    mengpaneel.init_app(app)

    @app.get("/")
    def view() -> str:
        mengpaneel.track("View")
        return "ok"

    def told(_app: Flask, **_extra: object) -> None:
        mengpaneel.track("Told")

    with request_tearing_down.connected_to(told, app):
        app.test_client().get("/")

    events = [call.event for call in transport.calls]
    assert events == ["View", "Registered Early", "Told"]


# -- a response that isn't sent after all


class Discarding:
    """An app in which a function that runs after the extension's may fail."""

    def __init__(self) -> None:
        self.app = Flask(__name__)
        self.app.secret_key = "secret"
        self.transport = RecordingTransport()
        self.fails = True
        self.app.after_request(self._fail)
        self.app.register_error_handler(500, lambda _error: (self.apology, 500))
        self.apology = "sorry"
        self.mengpaneel = Mengpaneel(
            self.app, token="token", transport=self.transport, spool=None
        )
        self.client = self.app.test_client()
        self.client.environ_base["HTTP_USER_AGENT"] = CHROME

    def _fail(self, response: Response) -> Response:
        if self.fails and response.status_code != 500:
            raise RuntimeError("a function that runs late")

        return response

    def view(self, path: str, answer: t.Any) -> None:
        def view() -> t.Any:
            self.mengpaneel.track(f"View {path}")
            return answer

        self.app.add_url_rule(path, path, view)

    @property
    def events(self) -> list[str]:
        return [call.event for call in self.transport.calls]


@pytest.mark.parametrize(
    ("answer", "headers"),
    [
        pytest.param(PAGE, {}, id="page"),
        pytest.param({}, CAPABLE, id="header"),
        pytest.param(redirect("/next"), {}, id="redirect"),
        pytest.param({}, {}, id="server"),
    ],
)
def test_a_response_that_is_discarded_loses_no_call(
    answer: t.Any, headers: dict[str, str]
) -> None:
    site = Discarding()
    site.view("/", answer)
    site.view("/next", PAGE)
    response = site.client.get("/", headers=headers)
    carried = [*page_calls(response), *header_calls(response)]
    ledger = site.mengpaneel.ledger()

    assert response.status_code == 500
    assert [*names(carried), *site.events] in (["View /"], ["track View /"])
    assert (ledger.recorded, ledger.delivered) == (1, 1)

    site.fails = False
    assert names(page_calls(site.client.get("/next"))) == ["track View /next"]
    assert len(site.events) + len(carried) == 1


def test_an_error_page_has_the_calls_of_the_page_in_its_place() -> None:
    site = Discarding()
    site.apology = PAGE
    site.view("/", PAGE)
    response = site.client.get("/")

    assert response.status_code == 500
    assert names(page_calls(response)) == ["track View /"]
    assert site.events == []
    assert site.mengpaneel.ledger().recorded == 1


def test_what_a_discarded_page_has_taken_out_of_the_session_waits_again() -> None:
    site = Discarding()
    site.fails = False
    site.view("/moved", redirect("/"))
    site.view("/", PAGE)
    site.app.add_url_rule("/silent", "/silent", lambda: PAGE)
    site.client.get("/moved")
    site.fails = True
    assert page_calls(site.client.get("/silent")) == []
    site.fails = False
    found = names(page_calls(site.client.get("/")))

    assert found == ["track View /moved", "track View /"]
    assert site.events == []


class Unsaved(SecureCookieSessionInterface):
    """A session that can't be saved the first time, as with a store that is down."""

    def __init__(self) -> None:
        self.has_failed = False

    def save_session(self, app: Flask, session: t.Any, response: Response) -> None:
        # A response that is only tried has no body.
        if response.data and not self.has_failed:
            self.has_failed = True
            raise ConnectionError("the store is down")

        super().save_session(app, session, response)


@pytest.mark.parametrize("answer", [PAGE, redirect("/next")], ids=["page", "redirect"])
def test_a_session_that_cannot_be_saved_loses_no_call(answer: t.Any) -> None:
    site = Discarding()
    site.fails = False
    site.app.session_interface = Unsaved()
    site.view("/", answer)
    site.view("/next", PAGE)

    assert site.client.get("/").status_code == 500
    assert site.events == ["View /"]
    assert names(page_calls(site.client.get("/next"))) == ["track View /next"]
    assert site.mengpaneel.ledger().recorded == 2


# -- what is not the app's


def test_what_tracks_all_requests_leaves_those_of_the_extension_alone() -> None:
    site = Site()
    site.app.before_request(lambda: site.mengpaneel.track("Request"))
    client = site.client(WEBHOOK)
    client.get("/_mengpaneel/static/mengpaneel.js").close()
    client.post("/_mengpaneel/calls", data="{}")

    assert site.kept.envelopes == []
    assert site.app.extensions["mengpaneel"].ledger.recorded == 0


# -- stages


@pytest.mark.parametrize("agent", [CHROME, WEBHOOK])
def test_an_event_in_setup_is_an_event(agent: str) -> None:
    site = Site()

    def view() -> str:
        with site.mengpaneel.setup():
            site.mengpaneel.identify("ann")
            site.mengpaneel.track("Sign In")

        with site.mengpaneel.setup():
            site.mengpaneel.register({"Plan": "pro"})

        return PAGE

    site.view("/", view)
    response = site.client(agent).get("/")

    if block(response):
        assert "track Sign In" in names(page_calls(response))
    else:
        assert [message["event"] for message in site.messages] == ["Sign In"]


def test_a_stage_is_no_method_that_can_be_called_by_name() -> None:
    site = Site(testing=False)

    with site.app.app_context(), Manager() as manager:
        manager.call("setup")
        manager.call("people.set", {"Plan": "pro"})

    assert [call.name for call in site.kept.calls] == ["setup", "people.set"]


def test_who_is_told_of_a_failure_has_the_app_at_hand() -> None:
    told: list[tuple[str, str]] = []
    site = Site(
        on_failure=lambda record, reason: told.append((current_app.name, reason))
    )
    report = FailureReporter(site.app, site.app.extensions["mengpaneel"].config)
    thread = threading.Thread(target=report, args=([{"event": "A"}], "refused"))
    thread.start()
    thread.join()

    assert told == [(site.app.name, "refused")]
