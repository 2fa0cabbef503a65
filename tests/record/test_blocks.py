"""Every event once, with its person, however units of work are nested.

A program is a tree of what apps nest: requests, ``with Manager():`` blocks, set-ups,
``on_commit`` blocks, threads, and children that are forked in the middle. It is run,
and a model says next to it who each event is from, and whether it is sent at all.
"""

from __future__ import annotations

import collections
import collections.abc as c
import contextlib
import json
import os
import threading
import typing as t
from contextvars import copy_context

from flask import copy_current_request_context
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from flask_mengpaneel import Manager
from sites import Site

Step: t.TypeAlias = "tuple[t.Any, ...]"
Program: t.TypeAlias = "list[Step]"


class Unit:
    """A unit of work, as the model knows it.

    :param person: whom it is about now.
    :param request: the unit of the request that it is in, if it isn't that itself.
    """

    def __init__(self, person: str, request: Unit | None = None) -> None:
        self.person = person
        self.request = request


class Run:
    """Runs a program, and notes what has to become of its events."""

    def __init__(self) -> None:
        self.site = Site()
        self.engine = create_engine("sqlite://", poolclass=NullPool)
        self.expected: dict[str, str] = {}
        self.rolled_back = 0
        #: What children have sent.
        self.messages: list[dict[str, t.Any]] = []
        self._units: list[Unit] = []
        #: Whether each of the ``on_commit`` blocks around will be committed.
        self._commits: list[bool] = []
        self._number = 0
        self._failed: list[BaseException] = []
        self._is_child = False
        self._views: list[c.Callable[[], None]] = []
        self.site.view("/", self._answer)

    def run(self, program: Program) -> None:
        with self.site.app.app_context(), Manager(identify="root"):
            self._within(Unit("root"), program)

        if self._failed:
            raise self._failed[0]

    def _within(self, unit: Unit, program: Program) -> None:
        self._units.append(unit)

        try:
            self._body(program)
        finally:
            self._units.pop()

    def _body(self, program: Program) -> None:
        for kind, *arguments in program:
            getattr(self, f"_{kind}")(*arguments)

    def _track(self) -> None:
        self._number += 1
        event = f"event {self._number}"

        if all(self._commits):
            self.expected[event] = self._units[-1].person
        else:
            self.rolled_back += 1

        self.site.mengpaneel.track(event)

    def _setup(self, user: str) -> None:
        # Whose the others are is not known before the commit.
        if self._commits:
            return

        with self.site.mengpaneel.setup():
            self.site.mengpaneel.identify(user)
            self._units[-1].person = user
            self._track()

    def _stage(self, program: Program) -> None:
        with self.site.mengpaneel.tracking():
            self._body(program)

    def _block(self, user: str, program: Program) -> None:
        unit = self._units[-1]

        with Manager(identify=user):
            self._within(Unit(user, unit.request), program)

    def _view(self, user: str, program: Program) -> None:
        unit = Unit(user)
        unit.request = unit

        def view() -> None:
            with self.site.mengpaneel.setup():
                self.site.mengpaneel.identify(user)

            self._within(unit, program)

        self._views.append(view)
        self.site.client().get("/")

    def _answer(self) -> dict[str, str]:
        self._views.pop()()
        return {}

    def _on_commit(self, commits: bool, program: Program) -> None:
        with Session(self.engine) as session:
            session.execute(text("SELECT 1"))
            self._commits.append(commits)

            with self.site.mengpaneel.on_commit(session):
                self._body(program)

            self._commits.pop()
            (session.commit if commits else session.rollback)()

    def _thread(self, program: Program) -> None:
        """A thread that goes on with all that is current here."""
        self._join(copy_context().run, program)

    def _worker(self, program: Program) -> None:
        """A thread that goes on with the request alone: not with blocks in it."""
        request = self._units[-1].request

        if request is None:
            return

        @copy_current_request_context
        def work(program: Program) -> None:
            self._within(Unit(request.person, request), program)

        commits, self._commits = self._commits, []
        self._join(lambda _, program: work(program), program)
        self._commits = commits

    def _join(self, run: c.Callable[..., None], program: Program) -> None:
        def work() -> None:
            try:
                run(self._body, program)
            except BaseException as error:
                self._failed.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()

    def _fork(self, program: Program) -> None:
        """A child that ends in the middle of all that."""
        # Nobody would commit there.
        if self._commits or self._is_child:
            return

        reader, writer = os.pipe()

        if (child := os.fork()) == 0:
            self._is_child = True
            known, failed = len(self.site.messages), 1

            with contextlib.suppress(BaseException):
                self._body(program)
                sent = self.site.messages[known:], self.expected, self._number
                os.write(writer, json.dumps(sent).encode())
                failed = len(self._failed)

            os._exit(failed)

        os.close(writer)

        with open(reader, "rb") as pipe:
            told = pipe.read()

        assert os.waitpid(child, 0)[1] == 0
        messages, self.expected, self._number = json.loads(told)
        self.messages += messages


USERS = st.sampled_from(["ann", "bob", "eve"])
TRACK = st.just(("track",))
SETUP = st.tuples(st.just("setup"), USERS)
PROGRAM = st.recursive(
    st.lists(st.one_of(TRACK, SETUP), max_size=3),
    lambda inner: st.lists(
        st.one_of(
            TRACK,
            SETUP,
            st.tuples(st.sampled_from(["block", "view"]), USERS, inner),
            st.tuples(st.just("on_commit"), st.booleans(), inner),
            st.tuples(st.sampled_from(["thread", "worker", "stage"]), inner),
            st.tuples(st.just("fork"), inner),
        ),
        max_size=4,
    ),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(PROGRAM)
@example([("view", "ann", [("track",), ("worker", [("setup", "bob")]), ("track",)])])
@example([("on_commit", True, [("view", "ann", [("block", "bob", [("track",)])])])])
@example([("block", "ann", [("track",), ("fork", [("stage", [("track",)])])])])
@example([("stage", [("fork", [("track",)])])])
@example([("view", "ann", [("setup", "bob"), ("fork", [("setup", "eve")])])])
def test_every_event_is_sent_once_and_is_from_its_person(program: Program) -> None:
    run = Run()
    run.run(program)
    messages = [*run.site.messages, *run.messages]
    found = [(one["event"], one["properties"]["$user_id"]) for one in messages]

    assert collections.Counter(found) == collections.Counter(run.expected.items())
    ids = {one["properties"]["$insert_id"] for one in messages}
    assert len(ids) == len(messages)

    ledger = run.site.mengpaneel.ledger().snapshot()
    assert ledger.balanced and not ledger.waiting, ledger
    assert ledger.delivered == len(run.site.messages)
    assert sum(ledger.dropped.values()) == run.rolled_back
