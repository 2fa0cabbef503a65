"""The app's own functions, and its session, which are asked while a view is at work."""

from __future__ import annotations

import collections.abc as c
import contextvars
import typing as t

import pytest
from flask import Flask, redirect, session
from flask_login import LoginManager, UserMixin, login_user, logout_user
from flask_session import Session
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import select
from sqlalchemy.orm import Mapped, mapped_column

from flask_mengpaneel import Login, TrackedEvent
from sites import Site

db = SQLAlchemy()


class Order(db.Model):  # type: ignore[name-defined, misc, unused-ignore]
    """What the view is about to write."""

    id: Mapped[int] = mapped_column(primary_key=True)
    total: Mapped[int]


def asked_of_the_database(answer: t.Any) -> t.Any:
    """Read, before which SQLAlchemy writes what is new, and then answer."""
    db.session.scalars(select(Order)).all()
    return answer


def login() -> Login:
    return Login(
        user=lambda: asked_of_the_database("ann"),
        user_id=asked_of_the_database,
        signals={},
    )


def before_send(event: TrackedEvent) -> TrackedEvent:
    return t.cast("TrackedEvent", asked_of_the_database(event))


@pytest.mark.parametrize(
    "settings",
    [
        {"consent": lambda: asked_of_the_database(True)},
        {"visitor": lambda: asked_of_the_database("ann")},
        {"default_properties": lambda: asked_of_the_database({"Plan": "pro"})},
        {"before_send": before_send},
        {"login": login()},
        {"login": login(), "login_profile": lambda _: asked_of_the_database({"A": 1})},
    ],
    ids=lambda settings: " ".join(settings),
)
def test_what_a_view_is_about_to_write_stays_unwritten(
    settings: dict[str, t.Any],
) -> None:
    site = Site(
        SQLALCHEMY_DATABASE_URI="sqlite://",
        prepare=db.init_app,
        testing=False,
        strategies=["AsyncServerSide"],
        **settings,
    )

    def place_order() -> str:
        order = Order()
        db.session.add(order)
        site.mengpaneel.track("Begin Order")
        order.total = 44
        db.session.commit()
        return "done"

    site.view("/order", place_order)

    with site.app.app_context():
        db.create_all()

    response = site.client(None).get("/order")

    assert response.text == "done"
    assert [call.event for call in site.kept.calls if call.tracks] == ["Begin Order"]

    with site.app.app_context():
        assert db.session.scalars(select(Order.total)).all() == [44]
        # Else its connection is open until the garbage collector finds it.
        db.session.remove()
        db.engine.dispose()


def test_what_a_view_leaves_uncommitted_is_not_committed_with_the_session() -> None:
    site = Site(
        SQLALCHEMY_DATABASE_URI="sqlite://", prepare=prepare_session, testing=False
    )
    database = site.app.extensions["sqlalchemy"]

    class Order(database.Model):  # type: ignore[name-defined, misc, unused-ignore]
        id: Mapped[int] = mapped_column(primary_key=True)

    def place_order() -> t.Any:
        database.session.add(Order())
        site.mengpaneel.track("Attempt Order")
        return redirect("/sorry")

    site.view("/order", place_order)
    site.view(
        "/sorry", lambda: {"orders": len(database.session.scalars(select(Order)).all())}
    )

    with site.app.app_context():
        database.create_all()

    client = site.client()
    client.get("/order")

    assert client.get("/sorry").json == {"orders": 0}
    assert [call.event for call in site.kept.calls] == ["Attempt Order"]

    with site.app.app_context():
        database.session.remove()
        database.engine.dispose()


class User(UserMixin):  # type: ignore[misc, unused-ignore]
    id = "ann"


def prepare_session(app: Flask) -> None:
    """Let the database have the session, too."""
    database = SQLAlchemy(app)
    app.config.update(SESSION_TYPE="sqlalchemy", SESSION_SQLALCHEMY=database)
    Session(app)
    LoginManager(app).user_loader(lambda _: User())


@pytest.mark.parametrize("use", ["visitor", "sign-out"])
def test_a_session_in_the_database_is_read_before_the_view_has_written(
    use: str,
) -> None:
    is_sign_out = use == "sign-out"
    site = Site(
        SQLALCHEMY_DATABASE_URI="sqlite://",
        prepare=prepare_session,
        testing=False,
        login="flask-login" if is_sign_out else None,
    )
    database = site.app.extensions["sqlalchemy"]

    class Order(database.Model):  # type: ignore[name-defined, misc, unused-ignore]
        id: Mapped[int] = mapped_column(primary_key=True)
        total: Mapped[int]

    def start() -> str:
        session["cart"] = 1
        login_user(User())
        return "done"

    def place_order() -> str:
        order = Order()
        database.session.add(order)

        if is_sign_out:
            logout_user()
        else:
            assert site.mengpaneel.visitor.to_json()

        order.total = 44
        database.session.commit()
        return "done"

    site.view("/start", start)
    site.view("/order", place_order)

    with site.app.app_context():
        database.create_all()

    client = site.client()
    client.get("/start")
    response = client.get("/order")

    assert response.text == "done"

    with site.app.app_context():
        assert database.session.scalars(select(Order.total)).all() == [44]
        database.session.remove()
        database.engine.dispose()


ANSWERS: dict[str, c.Callable[..., t.Any]] = {
    "consent": lambda: True,
    "visitor": lambda: "ann",
    "default_properties": lambda: {"Plan": "pro"},
    "before_send": lambda event: event,
}


def tracked(site: Site) -> list[tuple[str, bool]]:
    """The events of a site, and whether they have the properties of each."""
    return [
        (call.event, "Plan" in call.properties)
        for call in site.kept.calls
        if call.tracks
    ]


@pytest.mark.parametrize("setting", ANSWERS)
def test_what_has_begun_while_the_app_was_asked_goes_on_after_the_answer(
    setting: str,
) -> None:
    contexts: list[contextvars.Context] = []

    def answer(*asked: t.Any) -> t.Any:
        # As a green thread has one that it starts, and a task of asyncio's.
        contexts.append(contextvars.copy_context())
        return ANSWERS[setting](*asked)

    site = Site(strategies=["AsyncServerSide"], testing=False, **{setting: answer})

    def track_later() -> None:
        site.mengpaneel.track("Later")

        with site.app.test_request_context("/"):
            site.mengpaneel.track("In Another Request")
            site.app.process_response(site.app.response_class())

    def view() -> str:
        site.mengpaneel.track("View")
        assert site.mengpaneel.visitor.to_json()
        contexts[0].run(track_later)
        return "done"

    site.view("/", view)
    site.client(None).get("/")
    has_properties = setting == "default_properties"

    assert sorted(tracked(site)) == [
        (event, has_properties) for event in ("In Another Request", "Later", "View")
    ]


@pytest.mark.parametrize("setting", ANSWERS)
def test_an_app_is_asked_though_another_is_asked_already(setting: str) -> None:
    def track_and_answer(*asked: t.Any) -> t.Any:
        assert inner.client(None).get("/").text == "done"
        return ANSWERS[setting](*asked)

    def make_site(answer: c.Callable[..., t.Any]) -> Site:
        settings = {setting: answer}
        site = Site(strategies=["AsyncServerSide"], testing=False, **settings)
        site.view("/", lambda: (site.mengpaneel.track("View"), "done")[1])
        return site

    outer, inner = make_site(track_and_answer), make_site(ANSWERS[setting])
    outer.client(None).get("/")
    view = ("View", setting == "default_properties")

    assert tracked(outer) == [view]
    assert set(tracked(inner)) == {view}
