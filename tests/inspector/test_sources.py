"""Where in the app a call was recorded, as the inspector has it."""

from __future__ import annotations

import collections.abc as c
import sys
from pathlib import Path

import flask_login
import pytest
from flask import Flask, redirect

from flask_mengpaneel import Manager, Mengpaneel, Outcome, flushed
from flask_mengpaneel.calls import Call
from flask_mengpaneel.inspector import Inspector
from flask_mengpaneel.testing import RecordingTransport

HERE = __file__.removeprefix(f"{Path.cwd()}/")


@pytest.fixture
def app(tmp_path: Path) -> Flask:
    app = Flask(__name__, instance_path=str(tmp_path))
    app.secret_key = "secret"
    return app


@pytest.fixture
def mengpaneel(app: Flask) -> Mengpaneel:
    return Mengpaneel(app, token="token", inspector=True)


def line() -> int:
    """The number of the line that calls this."""
    return sys._getframe(1).f_lineno


def found(app: Flask) -> list[list[tuple[str, str]]]:
    """The lines of each record."""
    app.extensions["mengpaneel"].background.flush(60)
    inspector: Inspector = app.extensions["mengpaneel_inspector"]
    return [
        [(place, name) for flush in call.flushes for place, name in flush["sources"]]
        for call in inspector.store.calls()
    ]


@pytest.mark.parametrize(
    "record",
    [
        lambda mengpaneel: mengpaneel.track("Look"),
        lambda mengpaneel: mengpaneel.track_pageview(),
        lambda mengpaneel: mengpaneel.call("track", "Look"),
        lambda mengpaneel: mengpaneel.people.set("Plan", "pro"),
        lambda mengpaneel: mengpaneel.get_group("company", "acme").set("Seats", 12),
        # The operation that it makes is another call than the one that is recorded.
        lambda mengpaneel: mengpaneel.set_group("company", "acme"),
    ],
    ids=["track", "track_pageview", "call", "people", "get_group", "set_group"],
)
def test_a_helper_and_the_view_that_calls_it_are_named(
    app: Flask, mengpaneel: Mengpaneel, record: c.Callable[[Mengpaneel], None]
) -> None:
    lines: list[int] = []

    def helper() -> None:
        mengpaneel.identify("ada")
        lines.append(line() + 1)
        record(mengpaneel)

    @app.post("/")
    def view() -> dict[str, str]:
        lines.append(line() + 1)
        helper()
        return {}

    app.test_client().post("/")
    ((first, last),) = found(app)

    assert first == (f"{HERE}:{record.__code__.co_firstlineno}", "<lambda>")
    assert last == (f"{HERE}:{lines[0]}", "view")


def test_it_is_known_after_a_redirect(app: Flask, mengpaneel: Mengpaneel) -> None:
    lines: list[int] = []

    @app.post("/")
    def view() -> object:
        lines.append(line() + 1)
        mengpaneel.track("Go")
        return redirect("/next")

    @app.get("/next")
    def following() -> str:
        return "<!doctype html><title>Next</title><body></body>"

    app.test_client().post("/", follow_redirects=True)

    assert found(app) == [[(f"{HERE}:{lines[0]}", "view")]]


def test_a_job_is_named(app: Flask, mengpaneel: Mengpaneel) -> None:
    with app.app_context(), Manager() as manager:
        manager.track("Renew")
        made = line() - 1

    assert found(app)[0][0] == (
        f"{HERE}:{made}",
        test_a_job_is_named.__name__,
    )


class Ada(flask_login.UserMixin):
    id = "ada"


def test_what_no_line_of_the_app_records_has_none(app: Flask) -> None:
    flask_login.LoginManager(app).request_loader(lambda request: Ada())
    mengpaneel = Mengpaneel(
        app,
        token="token",
        inspector=True,
        login="flask-login",
        login_profile=lambda user: {"Plan": "pro"},
    )

    @app.post("/")
    def view() -> dict[str, str]:
        mengpaneel.track("Look")
        return {}

    app.test_client().post("/")
    lines = found(app)

    assert [bool(one) for one in lines] == [False, True]


def test_nothing_is_looked_up_without_an_inspector(app: Flask) -> None:
    mengpaneel = Mengpaneel(app, token="token", transport=RecordingTransport())
    outcomes: list[Outcome] = []

    @app.post("/")
    def view() -> dict[str, str]:
        mengpaneel.track("Look")
        return {}

    def keep(sender: Flask, outcome: Outcome) -> None:
        outcomes.append(outcome)

    with flushed.connected_to(keep, sender=app):
        app.test_client().post("/")

    assert [type(call) for call in outcomes[0].calls] == [Call]
