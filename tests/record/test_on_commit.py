"""Calls that leave when a database commits, and are dropped when it doesn't."""

from __future__ import annotations

import asyncio
import collections.abc as c
import contextlib
import contextvars
import gc
import os
import pathlib
import pkgutil
import sqlite3
import threading
import typing as t

import pytest
from flask import Flask, Response, g, request, stream_with_context
from flask_sqlalchemy import SQLAlchemy
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import ForeignKey, create_engine, event, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import (
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Mapped, Session, mapped_column, scoped_session, sessionmaker
from sqlalchemy.pool import Pool, StaticPool
from werkzeug.local import LocalProxy

from agents import CHROME
from flask_mengpaneel import Login, Manager
from processes import eager_celery
from sites import (
    ANN,
    CAPABLE,
    DEVICE,
    NOBODY,
    PAGE,
    Site,
    come,
    header_calls,
    library_cookie,
    names,
    page_calls,
)

#: A database in memory, which all of its sessions share.
IN_MEMORY: dict[str, t.Any] = {
    "poolclass": StaticPool,
    "connect_args": {"check_same_thread": False},
}


class Shop(Site):
    """A site with a database."""

    work: c.Callable[[Shop], t.Any]

    def __init__(self, **settings: t.Any) -> None:
        self.db = SQLAlchemy(engine_options={"poolclass": StaticPool})

        def prepare(app: Flask) -> None:
            app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite://"
            self.db.init_app(app)

        super().__init__(prepare=prepare, ack_timeout=0, **settings)

        class Order(self.db.Model):  # type: ignore[name-defined,misc]
            id: Mapped[int] = mapped_column(primary_key=True)
            parent: Mapped[int | None] = mapped_column(ForeignKey("order.id"))

        self.order = Order

        with self.app.app_context():
            self.db.create_all()

        # Flask calls the extension's last.
        self.at_teardown: t.Any = None
        self.at_end: t.Any = None
        self.app.teardown_request(lambda _: self._pop("at_teardown"))
        self.app.teardown_appcontext(lambda _: self._pop("at_end"))
        self.other: t.Any = None

    def _pop(self, when: str) -> None:
        function = getattr(self, when)
        setattr(self, when, None)

        if function is not None:
            function()

    def add(self) -> None:
        self.db.session.add(self.order())

    @property
    def on_commit(self) -> t.Any:
        return self.mengpaneel.on_commit(self.db.session)

    @property
    def ledger(self) -> t.Any:
        balance = self.mengpaneel.ledger().snapshot()
        assert balance.balanced, balance
        return balance

    @property
    def events(self) -> list[str]:
        return [call.event for call in self.kept.calls if call.tracks]


@pytest.fixture(scope="module", autouse=True)
def connections() -> c.Iterator[None]:
    """Close the connections of all databases in the end: Python 3.13 and later complain
    of those that nobody has closed."""
    opened: list[sqlite3.Connection] = []

    def keep(connection: t.Any, _record: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            opened.append(connection)

    event.listen(Pool, "connect", keep)
    yield
    event.remove(Pool, "connect", keep)

    for connection in opened:
        connection.close()


@pytest.fixture(scope="module")
def one_shop(connections: None) -> Shop:
    shop = Shop()

    def view() -> t.Any:
        done = shop.work(shop)

        if request.method == "POST":
            return done or {}

        return done or PAGE

    shop.view("/", view, methods=["GET", "POST"])
    return shop


@pytest.fixture
def shop(one_shop: Shop) -> c.Iterator[Shop]:
    """A shop whose ``/`` does what a test says: for a page, or for data."""
    one_shop.mengpaneel.ledger().reset()
    one_shop.kept.envelopes.clear()
    yield one_shop
    assert one_shop.ledger.waiting == 0

    with one_shop.app.app_context():
        one_shop.db.session.execute(text("DELETE FROM 'order'"))
        one_shop.db.session.commit()


def track(shop: Shop) -> None:
    shop.on_commit.track("Order", {"Items": 3})


def commit(shop: Shop) -> None:
    shop.add()
    track(shop)
    shop.db.session.commit()


def roll_back(shop: Shop) -> None:
    shop.add()
    track(shop)
    shop.db.session.rollback()


def commit_without_work(shop: Shop) -> None:
    track(shop)
    shop.db.session.commit()


def begin_later(shop: Shop) -> None:
    track(shop)
    shop.add()
    shop.db.session.commit()


def begin_later_and_roll_back(shop: Shop) -> None:
    track(shop)
    shop.add()
    shop.db.session.flush()
    shop.db.session.rollback()


def leave_open(shop: Shop) -> None:
    shop.add()
    shop.db.session.flush()
    track(shop)


def close(shop: Shop) -> None:
    leave_open(shop)
    shop.db.session.close()


def remove(shop: Shop) -> None:
    leave_open(shop)
    shop.db.session.remove()


def fail_in_flush(shop: Shop) -> None:
    shop.add()
    track(shop)
    shop.db.session.execute(text("INSERT INTO 'order' (id) VALUES (7)"))
    shop.db.session.add(shop.order(id=7))

    with contextlib.suppress(IntegrityError):
        shop.db.session.commit()


def fail_in_commit(shop: Shop) -> None:
    """SQLite checks some keys when it commits."""
    session = shop.db.session
    session.connection().connection.cursor().execute("PRAGMA foreign_keys = ON")
    session.execute(text("PRAGMA defer_foreign_keys = ON"))
    session.add(shop.order(parent=99))
    session.flush()
    track(shop)

    with pytest.raises(IntegrityError):
        session.commit()

    session.rollback()


def release_savepoint(shop: Shop) -> None:
    with shop.db.session.begin_nested():
        shop.add()
        track(shop)

    shop.db.session.commit()


def release_savepoint_and_roll_back(shop: Shop) -> None:
    with shop.db.session.begin_nested():
        shop.add()
        track(shop)

    shop.db.session.rollback()


def commit_through_savepoint(shop: Shop) -> None:
    shop.db.session.begin_nested()
    shop.db.session.begin_nested()
    track(shop)
    shop.db.session.commit()


COMMITTING = [
    commit,
    commit_without_work,
    begin_later,
    release_savepoint,
    commit_through_savepoint,
]
ROLLING_BACK = [
    roll_back,
    begin_later_and_roll_back,
    leave_open,
    track,
    close,
    remove,
    fail_in_flush,
    fail_in_commit,
    release_savepoint_and_roll_back,
]


def page(shop: Shop) -> list[t.Any]:
    return page_calls(shop.visitor(**DEVICE).get("/"))


def header(shop: Shop) -> list[t.Any]:
    return header_calls(shop.visitor(**DEVICE).get("/", headers=CAPABLE))


def server(shop: Shop) -> list[t.Any]:
    shop.visitor(**DEVICE).post("/")
    return [call.wire for call in shop.kept.calls]


def job(shop: Shop) -> list[t.Any]:
    with shop.app.app_context(), Manager(identify="ann"):
        shop.work(shop)

    return [call.wire for call in shop.kept.calls]


WAYS = [page, header, server, job]


def tracked(calls: list[t.Any]) -> list[str]:
    return [one[6:] for one in names(calls) if one.startswith("track ")]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("work", COMMITTING)
def test_what_commits_leaves(
    shop: Shop, way: c.Callable[[Shop], t.Any], work: c.Callable[[Shop], object]
) -> None:
    shop.work = work

    assert tracked(way(shop)) == ["Order"]
    assert shop.ledger.recorded == 1
    assert shop.ledger.dropped == {}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("work", ROLLING_BACK)
def test_what_does_not_commit_is_dropped(
    shop: Shop, way: c.Callable[[Shop], t.Any], work: c.Callable[[Shop], object]
) -> None:
    shop.work = work

    assert tracked(way(shop)) == []
    assert shop.events == []
    assert shop.ledger.recorded == 1
    assert shop.ledger.dropped == {"rolled back": 1}


def test_what_is_left_of_a_wrong_call_waits_too(shop: Shop) -> None:
    def work(shop: Shop) -> None:
        shop.add()
        shop.on_commit.track("Order", {"Items": object(), "Total": 3})
        shop.db.session.rollback()

    shop.work = work
    shop.app.testing = False

    try:
        assert tracked(page(shop)) == []
    finally:
        shop.app.testing = True

    assert shop.ledger.dropped == {"rolled back": 1}


def test_a_savepoint_that_is_rolled_back_drops_its_own(shop: Shop) -> None:
    def work(shop: Shop) -> None:
        mengpaneel, session = shop.mengpaneel, shop.db.session
        mengpaneel.track("1")

        with mengpaneel.on_commit(session):
            mengpaneel.track("2")

            with session.begin_nested():
                mengpaneel.track("3")

                with contextlib.suppress(ZeroDivisionError), session.begin_nested():
                    mengpaneel.track("lost")
                    raise ZeroDivisionError

                with session.begin_nested():
                    mengpaneel.track("4")

            savepoint = session.begin_nested()
            mengpaneel.track("lost as well")
            savepoint.rollback()
            mengpaneel.track("5")

        mengpaneel.track("6")
        session.commit()

        with mengpaneel.on_commit(session):
            mengpaneel.track("lost too")

        session.rollback()

    shop.work = work

    assert tracked(page(shop)) == list("123456")
    assert shop.ledger.dropped == {"rolled back": 3}


def test_all_kinds_of_calls_wait(shop: Shop) -> None:
    outcome = "rollback"

    def work(shop: Shop) -> None:
        mengpaneel = shop.mengpaneel

        with mengpaneel.setup():
            mengpaneel.identify("ann")

        with mengpaneel.on_commit(shop.db.session) as committed:
            with mengpaneel.before_setup():
                mengpaneel.alias("bob")

            with mengpaneel.setup():
                mengpaneel.identify("bob")
                mengpaneel.people.set("Plan", "pro")

            committed.track("Sign Up")
            mengpaneel.people.increment("Orders")
            mengpaneel.get_group("company", "acme").set("Seats", 3)

        with mengpaneel.on_commit(shop.db.session).tracking():
            mengpaneel.track_pageview()

        shop.add()
        getattr(shop.db.session, outcome)()
        mengpaneel.track("View")

    shop.work = work
    calls = server(shop)

    assert names(calls) == ["identify ann", "track View"]
    assert shop.ledger.dropped == {"rolled back": 6}

    shop.kept.envelopes.clear()
    outcome = "commit"

    assert names(server(shop)) == [
        "alias bob",
        "identify bob",
        "people.set",
        "track Sign Up",
        "people.increment",
        "get_group company",
        "track_pageview",
        "track View",
    ]


def test_consent_waits_for_nothing(shop: Shop) -> None:
    def work(shop: Shop) -> None:
        with shop.on_commit:
            shop.mengpaneel.opt_out_tracking()

        shop.db.session.rollback()
        shop.mengpaneel.track("View")

    shop.work = work

    assert tracked(page(shop)) == []


def test_a_set_up_that_waits_leaves_the_one_before_in_place(shop: Shop) -> None:
    def work(shop: Shop) -> None:
        with shop.mengpaneel.setup():
            shop.mengpaneel.identify("ann")

        shop.mengpaneel.track("View")
        shop.other.execute(text("SELECT 1"))

        with shop.mengpaneel.on_commit(shop.other):
            with shop.mengpaneel.setup():
                shop.mengpaneel.identify("bob")

            shop.mengpaneel.track("Sign Up")

        shop.mengpaneel.track("Look")

    shop.work, shop.other = work, plain_session()

    assert names(page(shop)) == ["identify ann", "track View", "track Look"]
    shop.other.commit()
    assert [one["properties"]["$user_id"] for one in shop.messages] == ["bob"]


STEPS = [
    "track",
    "track",
    "plain",
    "savepoint",
    "release",
    "undo",
    "commit",
    "rollback",
]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from(STEPS), min_size=10, max_size=30),
    st.sampled_from([None, 1, 3, 6, 12]),
)
def test_any_order_of_transactions(
    one_shop: Shop, steps: list[str], flush_every: int | None
) -> None:
    one_shop.mengpaneel.ledger().reset()
    one_shop.kept.envelopes.clear()
    session = plain_session()
    #: What is pending, by savepoint; what has to arrive; how many were dropped.
    levels: list[list[str]] = [[]]
    expected: list[str] = []
    dropped = 0

    def end(*, keeps: bool) -> None:
        nonlocal dropped
        ended = levels.pop()

        if not keeps:
            dropped += len(ended)
        elif levels:
            levels[-1] += ended
        else:
            expected.extend(ended)

        levels[:] = levels or [[]]

    savepoints: list[t.Any] = []

    with one_shop.app.app_context(), Manager(identify="ann") as manager:
        for number, step in enumerate(steps):
            if step == "track":
                manager.on_commit(session).track(str(number))
                levels[-1].append(str(number))
            elif step == "plain":
                manager.track(str(number))
                expected.append(str(number))
            elif step == "savepoint":
                savepoints.append(session.begin_nested())
                levels.append([])
            elif step in ("release", "undo") and savepoints:
                is_release = step == "release"
                one = savepoints.pop()
                (one.commit if is_release else one.rollback)()
                end(keeps=is_release)
            elif step in ("commit", "rollback") and session.in_transaction():
                getattr(session, step)()
                savepoints.clear()

                for _ in range(len(levels)):
                    end(keeps=step == "commit")

            if flush_every and number % flush_every == 0:
                manager.flush()

            assert sum(one_shop.ledger.dropped.values()) == dropped

    session.close()
    dropped += sum(map(len, levels))
    arrived = one_shop.events
    assert sorted(arrived, key=int) == sorted(expected, key=int)
    assert flush_every or arrived == sorted(arrived, key=int)
    ledger = one_shop.ledger
    times = [one["properties"]["time"] for one in one_shop.messages]
    assert flush_every or times == sorted(times)
    assert (ledger.delivered, ledger.waiting) == (len(expected), 0)


def test_the_inspector_says_what_was_rolled_back(tmp_path: pathlib.Path) -> None:
    site = Site(
        inspector=True,
        transport="inline",
        prepare=lambda app: setattr(app, "instance_path", str(tmp_path)),
    )
    inspector = site.app.extensions["mengpaneel_inspector"]

    with site.app.app_context(), Manager(identify="ann") as manager:
        session = plain_session()

        for outcome in (session.rollback, session.commit):
            with manager.on_commit(session):
                manager.track("Order")
                manager.people.set("Plan", "pro")
                manager.alias("bob")

            session.execute(text("SELECT 1"))
            outcome()

    dropped = [call for call in inspector.not_arrived() if call.failure]
    assert [call.call.name for call in dropped] == ["track", "people.set", "alias"]
    assert {call.failure for call in dropped} == {"dropped: rolled back"}
    assert len(inspector.events("Order")) == 1
    # What arrived was the others'.
    assert all(one.flushes for one in inspector.arrivals() if not one.is_event)


# -- several sessions


@pytest.mark.parametrize("first", ["commit", "rollback"])
@pytest.mark.parametrize("second", ["commit", "rollback"])
def test_each_call_waits_for_its_own_sessions(
    shop: Shop, first: str, second: str
) -> None:
    engine = create_engine("sqlite://", **IN_MEMORY)
    mengpaneel = shop.mengpaneel

    def work(shop: Shop) -> None:
        with Session(engine) as one, Session(engine) as two:
            with mengpaneel.on_commit(one):
                mengpaneel.track("one")

                with mengpaneel.on_commit(two):
                    mengpaneel.track("both")

                    with mengpaneel.on_commit(one):
                        mengpaneel.track("both again")

            mengpaneel.on_commit(two).track("two")
            getattr(one, first)()
            getattr(two, second)()

    shop.work = work
    expected = [
        name
        for name, outcomes in {
            "one": {first},
            "both": {first, second},
            "both again": {first, second},
            "two": {second},
        }.items()
        if outcomes == {"commit"}
    ]

    assert tracked(page(shop)) == expected
    assert sum(shop.ledger.dropped.values()) == 4 - len(expected)


def plain_session() -> t.Any:
    return Session(create_engine("sqlite://", **IN_MEMORY))


def scope() -> t.Any:
    return scoped_session(sessionmaker(create_engine("sqlite://", **IN_MEMORY)))


@pytest.mark.parametrize("make", [plain_session, scope])
def test_each_kind_of_session_will_do(shop: Shop, make: c.Callable[[], t.Any]) -> None:
    session = make()
    later = shop.mengpaneel.on_commit(session)

    def work(shop: Shop) -> None:
        for outcome in ("rollback", "commit", "close", "commit"):
            session.execute(text("SELECT 1"))
            later.track(outcome)

            with later:
                shop.mengpaneel.track(outcome)

            getattr(session, outcome)()

    shop.work = work

    assert tracked(page(shop)) == ["commit"] * 4
    assert shop.ledger.dropped == {"rolled back": 4}


def test_an_async_session_will_do(shop: Shop) -> None:
    async def commit(mengpaneel: t.Any) -> None:
        engine = create_async_engine("sqlite+aiosqlite://")

        async with AsyncSession(engine) as session:
            await session.execute(text("SELECT 1"))
            mengpaneel.on_commit(session).track("1")
            await session.commit()

            with mengpaneel.on_commit(session):
                async with session.begin():
                    mengpaneel.track("2")

                await session.execute(text("SELECT 1"))
                mengpaneel.track("lost")

        await engine.dispose()

    shop.work = lambda shop: asyncio.run(commit(shop.mengpaneel))

    assert tracked(page(shop)) == ["1", "2"]
    assert shop.ledger.dropped == {"rolled back": 1}


def test_a_session_that_nobody_has_any_more_was_rolled_back(shop: Shop) -> None:
    def work(shop: Shop) -> None:
        session = plain_session()
        session.execute(text("SELECT 1"))
        shop.mengpaneel.on_commit(session).track("Order")

    shop.work = work

    assert tracked(page(shop)) == []
    gc.collect()
    assert shop.ledger.dropped == {"rolled back": 1}


@pytest.mark.parametrize(
    "moment",
    [
        "record.staged_calls.CallLog",
        "record.staged_calls.StagedCalls._apply_drained",
        "choose.uncommitted.person_of",
        "choose.uncommitted._person_after",
        "choose.uncommitted._records_of",
    ],
)
def test_a_session_may_be_freed_while_its_calls_are_flushed(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Python's garbage collector comes whenever something is made."""
    name = f"flask_mengpaneel.{moment}"
    function = pkgutil.resolve_name(name)

    def collect(*arguments: t.Any, **named: t.Any) -> t.Any:
        gc.collect()
        return function(*arguments, **named)

    def work(shop: Shop) -> None:
        session = plain_session()
        session.execute(text("SELECT 1"))
        shop.mengpaneel.track("View")
        shop.mengpaneel.on_commit(session).track("Order")
        shop.mengpaneel.track("Look")
        # Not before, and at this moment.
        gc.disable()
        monkeypatch.setattr(name, collect)

    shop.work = work

    try:
        assert tracked(page(shop)) == ["View", "Look"]
    finally:
        gc.enable()

    assert shop.ledger.dropped == {"rolled back": 1}
    assert shop.ledger.recorded == 3
    assert shop.ledger.waiting == 0


def test_an_error_in_the_block_decides_nothing(shop: Shop) -> None:
    def work(shop: Shop) -> None:
        with contextlib.suppress(ZeroDivisionError), shop.on_commit:
            shop.add()
            shop.mengpaneel.track("Order")
            raise ZeroDivisionError

        shop.mengpaneel.track("View")
        shop.db.session.commit()

    shop.work = work

    assert tracked(page(shop)) == ["Order", "View"]


def test_a_view_that_fails_has_rolled_back(shop: Shop) -> None:
    def work(shop: Shop) -> None:
        leave_open(shop)
        raise ZeroDivisionError

    shop.work = work

    with pytest.raises(ZeroDivisionError):
        page(shop)

    assert shop.ledger.dropped == {"rolled back": 1}


@pytest.mark.parametrize(
    "wrong", ["db.session", None, SQLAlchemy(), create_engine("sqlite://"), Session]
)
def test_what_is_no_session_is_refused(shop: Shop, wrong: t.Any) -> None:
    with pytest.raises(TypeError, match="db.session"):
        shop.mengpaneel.on_commit(wrong)


# -- a commit after the response


def by_stream(shop: Shop) -> Response:
    long_after(shop)

    def body() -> c.Iterator[str]:
        yield "a"
        assert shop.ledger.waiting == 1
        shop.other.commit()
        yield "b"

    return Response(stream_with_context(body()))


def by_teardown(shop: Shop) -> None:
    leave_open(shop)
    shop.at_teardown = shop.db.session.commit


def by_end_of_context(shop: Shop) -> None:
    leave_open(shop)
    shop.at_end = shop.db.session.commit


def by_end_of_context_without_work(shop: Shop) -> None:
    track(shop)
    shop.at_end = shop.db.session.commit


def long_after(shop: Shop) -> None:
    session = shop.other
    session.execute(text("SELECT 1"))
    shop.mengpaneel.on_commit(session).track("Order", {"Items": 3})


LATE = [
    by_stream,
    by_teardown,
    by_end_of_context,
    by_end_of_context_without_work,
    long_after,
]


@pytest.mark.parametrize("known", [NOBODY, DEVICE, ANN])
@pytest.mark.parametrize("work", LATE)
def test_what_commits_after_the_response_is_sent_by_the_server(
    shop: Shop, work: c.Callable[[Shop], t.Any], known: dict[str, str]
) -> None:
    def track_around(shop: Shop) -> t.Any:
        shop.mengpaneel.register({"Shelf": "A"})
        done = work(shop)
        shop.mengpaneel.register({"Shelf": "B"})
        shop.mengpaneel.reset()

        with shop.mengpaneel.setup():
            shop.mengpaneel.identify("bob")

        shop.mengpaneel.track("View")
        return done

    shop.work = track_around
    shop.other = plain_session()
    client = come(shop, known)
    client.get("/").get_data()
    shop.other.commit()
    sent = {one["event"]: one["properties"] for one in shop.messages}
    mine = sent["Order"]

    assert mine["Items"] == 3
    assert mine["Shelf"] == "A"
    assert mine.get("$user_id") == known.get("$user_id")
    assert mine["$device_id"] == known.get("$device_id", mine["$device_id"])
    assert mine["$browser"] == "Chrome"
    assert mine["time"] < sent["View"]["time"]
    assert len(shop.messages) == len(sent)
    assert shop.ledger.dropped == {}


def test_a_stream_may_do_it_all(shop: Shop) -> None:
    def body() -> c.Iterator[str]:
        for work in (commit, roll_back, commit_without_work, leave_open):
            work(shop)
            yield "a"

    shop.work = lambda shop: Response(stream_with_context(body()))
    shop.visitor(**ANN).get("/").get_data()

    assert [one["properties"]["$user_id"] for one in shop.messages] == ["ann"] * 2
    assert shop.ledger.dropped == {"rolled back": 2}


def test_a_new_visitor_has_the_ids_of_what_is_sent_later(shop: Shop) -> None:
    shop.work = by_end_of_context
    client = shop.client()
    client.post("/")
    (order,) = shop.messages

    assert library_cookie(client)["$device_id"] == order["properties"]["$device_id"]


def test_the_ledger_has_what_waits_after_the_response(shop: Shop) -> None:
    shop.work, shop.other = long_after, plain_session()
    page(shop)

    assert (shop.ledger.recorded, shop.ledger.waiting) == (1, 1)

    shop.other.rollback()

    assert (shop.ledger.recorded, shop.ledger.waiting) == (1, 0)
    assert shop.ledger.dropped == {"rolled back": 1}


# -- where the session can't be told


def test_what_an_inner_app_context_records_waits_for_the_transaction_to_come(
    shop: Shop,
) -> None:
    session = plain_session()

    for outcome in ("commit", "rollback"):
        with shop.app.app_context(), shop.mengpaneel.on_commit(session):
            with shop.app.app_context(), Manager(identify="ann") as manager:
                manager.track(outcome)

            session.execute(text("SELECT 1"))
            getattr(session, outcome)()

    assert shop.events == ["commit"]
    assert shop.ledger.dropped == {"rolled back": 1}


def test_a_block_outside_of_all_app_contexts_waits_for_the_transaction_to_come(
    shop: Shop,
) -> None:
    session = plain_session()

    for outcome in ("commit", "rollback"):
        with shop.mengpaneel.on_commit(session), shop.app.app_context():
            with Manager(identify="ann") as manager:
                manager.track(outcome)

        session.execute(text("SELECT 1"))
        getattr(session, outcome)()

    assert shop.events == ["commit"]
    assert shop.ledger.dropped == {"rolled back": 1}


class PlainRegistry:
    """Has a session for each app context, and says nothing of how it tells them
    apart."""

    def __init__(self, make: c.Callable[[], t.Any]) -> None:
        self._make = make

    def __call__(self) -> t.Any:
        if "plain_session" not in g:
            g.plain_session = self._make()

        return g.plain_session

    def has(self) -> bool:
        return "plain_session" in g


def plain_registry() -> t.Any:
    session = scope()
    session.registry = PlainRegistry(session.session_factory)
    return session


def proxy() -> t.Any:
    registry = PlainRegistry(plain_session)
    return LocalProxy(registry)


def scope_by_proxy() -> t.Any:
    make = sessionmaker(create_engine("sqlite://", **IN_MEMORY))
    return scoped_session(make, scopefunc=lambda: g)


def scope_that_tells_nothing_elsewhere() -> t.Any:
    make = sessionmaker(create_engine("sqlite://", **IN_MEMORY))
    return scoped_session(make, scopefunc=lambda: id(g.unit))


@pytest.mark.parametrize("outcome", ["commit", "rollback"])
@pytest.mark.parametrize(
    "make",
    [plain_registry, proxy, scope_by_proxy, scope_that_tells_nothing_elsewhere],
)
def test_a_block_is_for_its_own_scope(
    shop: Shop, make: c.Callable[[], t.Any], outcome: str
) -> None:
    session = make()

    with shop.app.app_context():
        g.unit = shop

        with Manager(identify="ann") as manager, manager.on_commit(session):
            session.execute(text("SELECT 1"))
            manager.track("Order")

            with shop.app.app_context(), Manager(identify="ann") as inner:
                inner.track("Task")

            assert shop.events == ["Task"]
            getattr(session, outcome)()

    assert shop.events == ["Task", *["Order"] * (outcome == "commit")]
    assert shop.ledger.waiting == 0


def test_a_session_of_each_asyncio_task_will_do(shop: Shop) -> None:
    async def work(mengpaneel: t.Any) -> None:
        engine = create_async_engine("sqlite+aiosqlite://")
        session = async_scoped_session(
            async_sessionmaker(engine), scopefunc=asyncio.current_task
        )

        async def task() -> None:
            mengpaneel.track("Task")
            await session.execute(text("SELECT 1"))
            mengpaneel.on_commit(session).track("lost")
            await session.remove()

        with mengpaneel.on_commit(session):
            mengpaneel.track("Order")
            await asyncio.create_task(task())
            await asyncio.create_task(task())
            await session.commit()

        await session.remove()
        await engine.dispose()

    shop.work = lambda shop: asyncio.run(work(shop.mengpaneel))

    assert tracked(page(shop)) == ["Order", "Task", "Task"]
    assert shop.ledger.dropped == {"rolled back": 2}


@pytest.mark.parametrize("make", [plain_session, scope])
def test_a_block_that_has_ended_holds_nothing_back(
    shop: Shop, make: c.Callable[[], t.Any]
) -> None:
    """Neither in a thread that has been given its context, nor in its own if another
    one has ended it, as Python's garbage collector ends a generator anywhere."""
    session = make()

    def body() -> c.Iterator[None]:
        with shop.mengpaneel.on_commit(session):
            yield

    def in_context() -> None:
        with shop.app.app_context(), Manager(identify="ann") as manager:
            for name in ("1", "2"):
                block = body()
                next(block)
                context = contextvars.copy_context()
                thread = threading.Thread(target=block.close)
                thread.start()
                thread.join()
                manager.track(name)
                context.run(manager.track, name)

    contextvars.copy_context().run(in_context)

    assert shop.events == ["1", "1", "2", "2"]
    assert shop.ledger.dropped == {}


# -- while it is found out whose they are


ENDS = {"commit": 1, "rollback": 0}


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("outcome", ENDS)
def test_who_it_is_may_be_asked_of_the_database_that_is_awaited(
    outcome: str, elsewhere: bool
) -> None:
    """Whoever answers ends the transaction, in this thread or in another."""
    session = plain_session()

    def visitor() -> str:
        end = getattr(session, outcome)

        if elsewhere:
            thread = threading.Thread(target=end)
            thread.start()
            thread.join(60)
            assert not thread.is_alive()
        else:
            end()

        return "ann"

    site = Site(visitor=visitor, ack_timeout=0)

    def view() -> dict[str, str]:
        session.execute(text("SELECT 1"))
        site.mengpaneel.track("View")
        site.mengpaneel.on_commit(session).track("Order")
        return {}

    site.view("/", view, methods=["POST"])
    site.client(None).post("/")
    balance = site.mengpaneel.ledger().snapshot()

    assert sorted(one["event"] for one in site.messages) == sorted(
        ["View", *["Order"] * ENDS[outcome]]
    )
    assert {one["properties"]["distinct_id"] for one in site.messages} == {"ann"}
    assert (balance.waiting, balance.recorded) == (0, 2)
    assert balance.balanced


def test_others_record_while_it_is_asked_whose_the_calls_are() -> None:
    session, others = plain_session(), []

    def visitor() -> str:
        if not others:
            others.append(
                threading.Thread(target=lambda: site.client(None).post("/other"))
            )
            others[0].start()
            others[0].join(60)
            assert not others[0].is_alive()

        return "ann"

    site = Site(visitor=visitor, ack_timeout=0)

    def view() -> dict[str, str]:
        session.execute(text("SELECT 1"))
        site.mengpaneel.on_commit(session).track("Order")
        return {}

    site.view("/", view, methods=["POST"])
    site.view("/other", lambda: site.mengpaneel.track("Other") or {}, methods=["POST"])
    site.client(None).post("/")
    assert [one["event"] for one in site.messages] == ["Other"]
    session.commit()
    assert [one["event"] for one in site.messages] == ["Other", "Order"]
    assert site.mengpaneel.ledger().snapshot().waiting == 0


# -- jobs


def test_a_long_job_keeps_what_is_pending(shop: Shop) -> None:
    session = plain_session()

    with shop.app.app_context(), Manager(identify="ann") as manager:
        for n in range(2_500):
            manager.on_commit(session).track("Row", {"n": n})
            manager.track("Seen")

        with manager.setup():
            manager.identify("bob")

        assert shop.ledger.waiting == 2_500
        manager.track("Seen")
        session.commit()
        assert shop.ledger.waiting == 0

    rows = [one["properties"] for one in shop.messages if one["event"] == "Row"]

    assert [row["n"] for row in rows] == list(range(2_500))
    assert {row["$user_id"] for row in rows} == {"ann"}


def test_a_job_ends_before_its_commit(shop: Shop) -> None:
    session = plain_session()

    with shop.app.app_context():
        with Manager(identify="ann") as manager:
            manager.on_commit(session).track("Order")

        session.execute(text("SELECT 1"))
        assert shop.ledger.waiting == 1

    assert shop.ledger.waiting == 1
    session.commit()
    assert [one["properties"]["$user_id"] for one in shop.messages] == ["ann"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.parametrize("is_flushed", [False, True])
@pytest.mark.parametrize("commits", [False, True])
def test_a_child_leaves_what_waits_to_its_parent(
    shop: Shop, commits: bool, is_flushed: bool
) -> None:
    """Also if it ends the session that it has a copy of."""
    with shop.app.app_context(), Manager(identify="ann") as job:
        with shop.on_commit:
            shop.add()
            shop.db.session.flush()
            job.track("Order")

        if is_flushed:
            job.flush()

        if (child := os.fork()) == 0:
            (shop.db.session.commit if commits else shop.db.session.rollback)()
            os._exit(bool(shop.ledger.recorded))

        assert os.waitpid(child, 0)[1] == 0
        shop.db.session.commit()

    assert shop.events == ["Order"]
    assert shop.ledger.recorded == shop.ledger.delivered == 1


def test_who_a_job_is_about_may_wait(shop: Shop) -> None:
    session = plain_session()

    with shop.app.app_context(), Manager() as manager:
        manager.on_commit(session).identify("bob")
        manager.on_commit(session).track("Order")
        manager.flush()
        assert shop.messages == []
        session.commit()
        manager.track("Later")

    assert [one["properties"]["distinct_id"] for one in shop.messages] == ["bob"] * 2


def test_a_block_is_for_the_managers_in_it(shop: Shop) -> None:
    with shop.app.app_context(), shop.on_commit:
        with Manager(identify="ann") as manager:
            manager.track("Order")

        shop.db.session.commit()

    assert shop.events == ["Order"]


# -- app contexts inside of a block


def test_a_block_is_for_the_app_context_in_which_it_begins(shop: Shop) -> None:
    """Flask-SQLAlchemy has a session for each: an eager task's is another one."""

    def work(shop: Shop) -> None:
        with shop.on_commit:
            shop.add()
            shop.mengpaneel.track("Order")

            with shop.app.app_context():
                shop.mengpaneel.track("Task")

                with shop.on_commit:
                    shop.add()
                    shop.mengpaneel.track("lost")

                shop.db.session.rollback()

            shop.mengpaneel.track("lost as well")
            shop.db.session.rollback()

    shop.work = work

    assert tracked(page(shop)) == []
    assert shop.events == ["Task"]
    assert shop.ledger.dropped == {"rolled back": 3}
    assert shop.ledger.recorded == 4


def test_what_commits_around_an_app_context_leaves(shop: Shop) -> None:
    def work(shop: Shop) -> None:
        with shop.on_commit:
            shop.add()
            shop.mengpaneel.track("Order")

            with shop.app.app_context(), shop.mengpaneel.setup():
                shop.mengpaneel.register({"Shelf": "B"})

            shop.db.session.commit()

    shop.work = work

    assert tracked(page(shop)) == ["Order"]
    assert shop.ledger.dropped == {}


@pytest.mark.parametrize("make", [plain_session, scope])
def test_a_session_that_no_app_context_has_is_awaited_in_all(
    shop: Shop, make: c.Callable[[], t.Any]
) -> None:
    session = make()

    for outcome in (session.rollback, session.commit):
        with shop.mengpaneel.on_commit(session):
            for name in ("ann", "bob"):
                with shop.app.app_context(), Manager(identify=name) as manager:
                    session.execute(text("SELECT 1"))
                    manager.track("Order")

            outcome()

    assert [one["properties"]["$user_id"] for one in shop.messages] == ["ann", "bob"]
    assert shop.ledger.dropped == {"rolled back": 2}


def test_a_thread_that_has_a_session_of_its_own_is_not_in_the_block(
    shop: Shop,
) -> None:
    session = scope()

    with shop.app.app_context(), Manager(identify="ann") as manager:
        with manager.on_commit(session):
            session.execute(text("SELECT 1"))
            manager.track("lost")
            asyncio.run(asyncio.to_thread(manager.track, "Thread"))

        session.rollback()

    assert shop.events == ["Thread"]
    assert shop.ledger.dropped == {"rolled back": 1}


def test_a_block_needs_the_app_context_that_its_session_does(shop: Shop) -> None:
    with pytest.raises(RuntimeError, match="outside of application context"):
        with shop.on_commit:
            pytest.fail("it began")


@pytest.mark.parametrize("outcome", ["commit", "rollback"])
def test_an_eager_task_leaves_as_it_does_from_a_worker(
    shop: Shop, outcome: str
) -> None:
    celery = eager_celery(shop.app)

    @celery.task(name="receipt", shared=False)
    def send_receipt() -> None:
        shop.mengpaneel.track("Send Receipt")

        with shop.on_commit:
            shop.mengpaneel.track("Keep Receipt")
            shop.add()

        getattr(shop.db.session, outcome)()

    def work(shop: Shop) -> None:
        with shop.on_commit:
            shop.add()
            shop.mengpaneel.track("Order")
            send_receipt.delay()
            shop.db.session.commit()

    shop.work = work
    kept = ["Keep Receipt"] if outcome == "commit" else []

    assert tracked(page(shop)) == ["Order"]
    assert shop.events == ["Send Receipt", *kept]
    assert sum(shop.ledger.dropped.values()) == 1 - len(kept)


@pytest.mark.parametrize("client", ["browser", "program"])
def test_who_is_signed_in_waits_for_no_database(client: str) -> None:
    shop = Shop(
        login=Login(user=lambda: "ann", user_id=str, signals={}),
        login_profile=lambda _: {"a": 1},
    )

    def order() -> dict[str, str]:
        shop.add()

        with shop.on_commit:
            shop.mengpaneel.track("Order")

        shop.db.session.rollback()
        shop.mengpaneel.track("Order Failed")
        return {}

    shop.view("/", order, methods=["POST"])
    shop.client(CHROME if client == "browser" else "curl/8.5.0").post("/")

    (envelope,) = shop.kept.envelopes
    assert [call.name for call in envelope.calls] == ["identify", "people.set", "track"]
    assert shop.ledger.dropped == {"rolled back": 1}
