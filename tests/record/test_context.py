"""What is current: each unit of work has its own calls, wherever they are made."""

from __future__ import annotations

import asyncio
import collections.abc as c
import gc
import sys
import threading
import typing as t
import weakref
from collections import Counter
from contextvars import copy_context
from functools import partial

import pytest
from flask import (
    Flask,
    Request,
    Response,
    copy_current_request_context,
    request,
    stream_with_context,
)
from werkzeug.test import create_environ, run_wsgi_app

from agents import CHROME
from flask_mengpaneel import Manager
from sites import ANN, PAGE, Site, balance, names, page_calls


def events(site: Site) -> list[list[str]]:
    """The names of the events that were sent from the server, by flush."""
    return [[call.event for call in one.calls] for one in site.kept.envelopes]


# -- requests


@pytest.mark.parametrize("body", [{"status": "ok"}, PAGE])
def test_a_request_without_calls_waits_for_no_garbage_collector(
    site: Site, body: t.Any
) -> None:
    seen: list[weakref.ref[Request]] = []

    @site.app.get("/")
    def view() -> t.Any:
        seen.append(weakref.ref(request._get_current_object()))  # type: ignore[attr-defined]
        return body

    environ = create_environ(headers={"User-Agent": CHROME, "Cookie": "a=b"})
    gc.disable()

    try:
        # The first one says what is wrong with the app's settings.
        for _ in range(2):
            run_wsgi_app(site.app, environ.copy(), buffered=True)

        assert seen[-1]() is None
    finally:
        gc.enable()


def test_requests_in_one_app_context_don_t_share_their_calls(site: Site) -> None:
    @site.app.post("/<name>")
    def view(name: str) -> dict[str, t.Any]:
        if name != "quiet":
            site.mengpaneel.strategy = "ServerSide" if name == "never" else None
            site.mengpaneel.track(name)

        return {}

    with site.app.app_context():
        client = site.app.test_client()

        for name in ("A", "quiet", "B"):
            client.post(f"/{name}")

        with pytest.raises(RuntimeError):
            site.mengpaneel.track("Outside")

    assert events(site) == [["A"], ["B"]]


def test_a_request_in_one_app_context_that_fails_leaves_nothing_behind(
    site: Site,
) -> None:
    @site.app.post("/<name>")
    def view(name: str) -> dict[str, t.Any]:
        site.mengpaneel.track(name)

        if name == "Broken":
            raise ZeroDivisionError

        return {}

    with site.app.app_context():
        client = site.app.test_client()

        with pytest.raises(ZeroDivisionError):
            client.post("/Broken")

        client.post("/Fine")

    assert events(site) == [["Broken"], ["Fine"]]


def test_a_client_that_keeps_the_context_doesn_t_mix_requests(
    api: Flask, site: Site
) -> None:
    with api.test_client() as client:
        client.post("/A")
        client.post("/B")

    assert events(site) == [["A"], ["B"]]


def test_a_request_inside_of_a_request_has_calls_of_its_own(site: Site) -> None:
    @site.app.post("/outer")
    def outer() -> dict[str, t.Any]:
        site.mengpaneel.track("Before")
        site.app.test_client().post("/inner")
        site.mengpaneel.track("After")
        return {}

    @site.app.post("/inner")
    def inner() -> dict[str, t.Any]:
        site.mengpaneel.track("Inner")
        return {}

    site.app.test_client().post("/outer")
    assert events(site) == [["Inner"], ["Before", "After"]]


def test_a_test_request_context_sends_what_was_recorded(site: Site) -> None:
    with site.app.test_request_context():
        site.mengpaneel.track("A")

    assert events(site) == [["A"]]


def test_requests_in_many_threads_don_t_mix(api: Flask, site: Site) -> None:
    def work(number: int) -> None:
        client = api.test_client()

        for _ in range(25):
            client.post(f"/{number}")

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]

    for thread in threads:
        thread.start()

    for thread in threads:
        thread.join(30)

    assert Counter(name for (name,) in events(site)) == {
        str(number): 25 for number in range(8)
    }
    assert len(site.kept.envelopes) == 200
    people: dict[str, set[str]] = {}

    for envelope in site.kept.envelopes:
        people.setdefault(envelope.calls[0].event, set()).add(
            envelope.identity.distinct_id
        )

    assert [len(ids) for ids in people.values()] == [1] * 8
    assert site.mengpaneel.ledger().recorded == 200


# -- one environment, one context


def test_an_environment_that_is_used_again_is_another_request_s(site: Site) -> None:
    site.view("/", lambda: (site.mengpaneel.track("View"), PAGE)[1])
    environ = create_environ("/", headers={"User-Agent": CHROME})
    pages = [run_wsgi_app(site.app, environ)[0] for _ in range(2)]

    assert [b"View" in b"".join(page) for page in pages] == [True, True]
    assert site.kept.envelopes == []


def test_a_thread_of_the_view_tracks_for_the_same_person(site: Site) -> None:
    @site.app.before_request
    def set_up() -> None:
        with site.mengpaneel.setup():
            site.mengpaneel.identify("ann")

    def view() -> str:
        @copy_current_request_context
        def work() -> None:
            site.mengpaneel.track("In Thread")

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        site.mengpaneel.track("In View")
        return PAGE

    site.view("/", view)
    page = site.client().get("/")

    (message,) = site.messages
    assert message["event"] == "In Thread"
    assert message["properties"]["distinct_id"] == "ann"
    assert names(page_calls(page)) == ["identify ann", "track In View"]


@pytest.fixture
def short_turns() -> c.Iterator[None]:
    """Threads take each other's place at any moment."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    try:
        yield
    finally:
        sys.setswitchinterval(usual)


#: How a thread may get what is current in its request.
COPIES: dict[str, c.Callable[[c.Callable[[], None]], c.Callable[[], None]]] = {
    "a context of its own": copy_current_request_context,
    "the same one": lambda work: partial(copy_context().run, work),
}


@pytest.mark.usefixtures("short_turns")
@pytest.mark.parametrize("is_set_up", [False, True])
@pytest.mark.parametrize("copied", COPIES)
def test_threads_that_track_as_the_request_ends_lose_nothing(
    copied: str, is_set_up: bool
) -> None:
    """Not even the first call of the request, and whom it is about."""
    site = Site()
    threads: list[threading.Thread] = []
    visitors = iter(range(1000))

    def view() -> dict[str, str]:
        begin = threading.Barrier(4)
        number = next(visitors)

        def work() -> None:
            begin.wait(60)

            for _ in range(5):
                site.mengpaneel.track(f"Thread {number}")

        if is_set_up:
            with site.mengpaneel.setup():
                site.mengpaneel.identify(f"user {number}")

        for _ in range(4):
            threads.append(threading.Thread(target=COPIES[copied](work)))
            threads[-1].start()

        if not is_set_up:
            site.mengpaneel.track(f"View {number}")

        return {}

    site.view("/", view)

    for _ in range(40):
        site.client().get("/")

        while threads:
            threads.pop().join(60)

    people: dict[str, set[str]] = {}

    for message in site.messages:
        number = message["event"].partition(" ")[2]
        properties = message["properties"]
        person = properties.get("$user_id") if is_set_up else properties["distinct_id"]
        people.setdefault(number, set()).add(person)

    assert Counter(message["event"] for message in site.messages) == {
        f"{where} {number}": count
        for number in range(40)
        for where, count in [("Thread", 20), *[("View", 1)] * (not is_set_up)]
    }
    assert balance(site) == (len(site.messages), len(site.messages), 0)

    for number, found in people.items():
        assert found == {f"user {number}"} if is_set_up else len(found) == 1


def test_a_first_call_in_an_app_context_inside_loses_no_later_ones(site: Site) -> None:
    def view() -> str:
        for event in ("In a task", "In another"):
            with site.app.app_context():
                site.mengpaneel.track(event)

        site.mengpaneel.track("In the view")
        return PAGE

    site.view("/", view)

    assert names(page_calls(site.visitor().get("/"))) == [
        "track In a task",
        "track In another",
        "track In the view",
    ]


def test_a_first_call_in_a_thread_loses_no_later_ones(site: Site) -> None:
    has_tracked, is_answered = threading.Event(), threading.Event()
    threads: list[threading.Thread] = []

    def work() -> None:
        site.mengpaneel.track("In a thread")
        has_tracked.set()
        assert is_answered.wait(60)

    def view() -> str:
        threads.append(threading.Thread(target=copy_current_request_context(work)))
        threads[0].start()
        assert has_tracked.wait(60)
        site.mengpaneel.track("In the view")
        return PAGE

    site.view("/", view)
    response = site.visitor().get("/")
    is_answered.set()
    threads[0].join(60)
    sent = [call.wire for call in site.kept.calls]

    assert sorted(names([*page_calls(response), *sent])) == [
        "track In a thread",
        "track In the view",
    ]


def test_a_threads_own_app_context_may_end_after_the_response(site: Site) -> None:
    has_tracked, is_answered = threading.Event(), threading.Event()
    failed: list[BaseException] = []
    threads: list[threading.Thread] = []

    def work() -> None:
        try:
            with site.app.app_context():
                site.mengpaneel.track("In a thread")
                has_tracked.set()
                assert is_answered.wait(60)

                with site.mengpaneel.before_setup():
                    site.mengpaneel.people.increment({"Threads": 1})
        except BaseException as error:
            failed.append(error)

    def view() -> str:
        run = copy_context().run
        threads.append(threading.Thread(target=run, args=(work,)))
        threads[0].start()
        assert has_tracked.wait(60)
        return PAGE

    site.view("/", view)
    response = site.visitor().get("/")
    is_answered.set()
    threads[0].join(60)
    sent = [call.wire for call in site.kept.calls]

    assert not failed
    assert sorted(names([*page_calls(response), *sent])) == [
        "people.increment",
        "track In a thread",
    ]


def test_a_stream_goes_on_when_its_environment_is_used_again(site: Site) -> None:
    def chunks() -> c.Iterator[str]:
        for name in "ABC":
            site.mengpaneel.track(name)
            yield name

    site.view("/", lambda: Response(stream_with_context(chunks())))
    environ = create_environ("/", headers={"User-Agent": CHROME})
    first, *_ = run_wsgi_app(site.app, environ)
    second, *_ = run_wsgi_app(site.app, environ)
    assert [b"".join(body) for body in (second, first)] == [b"ABC", b"ABC"]

    for body in (second, first):
        body.close()  # type: ignore[attr-defined]

    people: dict[str, list[str]] = {}

    for message in site.messages:
        people.setdefault(message["properties"]["distinct_id"], []).append(
            message["event"]
        )

    assert list(people.values()) == [["A", "B", "C"], ["A", "B", "C"]]


# -- a job inside a request


@pytest.mark.parametrize("name", ["PATH_INFO", "SCRIPT_NAME", "QUERY_STRING"])
def test_a_server_may_leave_out_what_is_empty(site: Site, name: str) -> None:
    """:pep:`3333` has it so, and some do it for an app that is mounted at a path."""
    site.view("/", lambda: (site.mengpaneel.track("View"), PAGE)[1])
    environ = create_environ("/", headers={"User-Agent": CHROME})
    del environ[name]
    body, status, _ = run_wsgi_app(site.app, environ)
    assert status == "200 OK"
    assert b'"View"' in b"".join(body)


def test_a_manager_in_a_request_is_a_unit_of_its_own(site: Site) -> None:
    @site.app.post("/")
    def view() -> dict[str, t.Any]:
        site.mengpaneel.strategy = "AsyncServerSide"
        site.mengpaneel.track("Before")

        with Manager() as manager:
            assert site.mengpaneel.strategy is None
            manager.identify("bob")
            site.mengpaneel.track("Job")

        site.mengpaneel.track("After")
        assert site.mengpaneel.strategy == "AsyncServerSide"
        return {}

    site.visitor(**{"$user_id": "ann", "distinct_id": "ann"}).post("/")
    job, request = site.kept.envelopes
    assert [call.name for call in job.calls] == ["identify", "track"]
    assert [call.event for call in request.calls] == ["Before", "After"]
    assert request.identity.user_id == "ann"
    assert job.identity.distinct_id == ""
    assert job.ip is None
    assert job.user_agent == ""


def test_a_manager_before_the_first_call_of_a_request(site: Site) -> None:
    @site.app.post("/")
    def view() -> dict[str, t.Any]:
        with Manager():
            site.mengpaneel.track("Job")

        site.mengpaneel.track("Request")
        return {}

    site.client().post("/")
    assert events(site) == [["Job"], ["Request"]]


def test_an_error_in_a_manager_in_a_request_leaves_the_request_s_calls(
    site: Site,
) -> None:
    @site.app.post("/")
    def view() -> dict[str, t.Any]:
        site.mengpaneel.track("Before")

        with pytest.raises(ZeroDivisionError), Manager() as manager:
            manager.track("Job")
            raise ZeroDivisionError

        site.mengpaneel.track("After")
        return {}

    site.client().post("/")
    assert events(site) == [["Job"], ["Before", "After"]]


def test_a_request_within_a_manager_is_a_unit_of_its_own(site: Site) -> None:
    @site.app.post("/")
    def view() -> dict[str, t.Any]:
        site.mengpaneel.track("Request")
        return {}

    with site.app.app_context(), Manager() as manager:
        site.mengpaneel.track("Before")
        site.client().post("/")
        site.mengpaneel.track("After")
        assert len(manager.calls) == 2

    assert events(site) == [["Request"], ["Before", "After"]]


async def work_for(site: Site, user: str, turns: int) -> None:
    with Manager(identify=user):
        # Whoever begins first ends last.
        for _ in range(turns):
            await asyncio.sleep(0)
            site.mengpaneel.track(f"For {user}")

    await asyncio.sleep(0)


async def work_for_several(site: Site) -> None:
    await asyncio.gather(
        *(
            work_for(site, user, turns)
            for user, turns in {"x": 4, "y": 3, "z": 2}.items()
        )
    )


def whose_events(site: Site) -> set[tuple[str, str]]:
    return {
        (message["event"], message["properties"]["distinct_id"])
        for message in site.messages
        if "event" in message
    }


FOR_EACH = {("For x", "x"), ("For y", "y"), ("For z", "z")}


def test_managers_of_tasks_that_run_at_the_same_time_don_t_mix(site: Site) -> None:
    @site.app.post("/")
    async def view() -> dict[str, t.Any]:
        site.mengpaneel.track("Before")
        await work_for_several(site)
        site.mengpaneel.track("After")
        return {}

    site.visitor(**ANN).post("/")
    assert whose_events(site) == {*FOR_EACH, ("Before", "ann"), ("After", "ann")}
    assert balance(site) == (11, 11, 0)


def test_managers_of_tasks_in_one_app_context_don_t_mix(site: Site) -> None:
    with site.app.app_context(), Manager(identify="ann"):
        asyncio.run(work_for_several(site))
        site.mengpaneel.track("After")

    assert whose_events(site) == {*FOR_EACH, ("After", "ann")}


def test_what_outlasts_the_block_that_started_it_loses_nothing(site: Site) -> None:
    async def late(block_ends: asyncio.Event) -> None:
        await block_ends.wait()
        site.mengpaneel.track("Late")

    @site.app.post("/")
    async def view() -> dict[str, t.Any]:
        block_ends = asyncio.Event()

        with Manager(identify="bob"):
            task = asyncio.create_task(late(block_ends))

        block_ends.set()
        await task
        return {}

    site.visitor(**ANN).post("/")
    assert whose_events(site) == {("Late", "ann")}


def test_a_generator_s_manager_is_left_wherever_it_ends(site: Site) -> None:
    def generate() -> c.Iterator[None]:
        with Manager(identify="bob") as manager:
            manager.track("First")
            yield
            manager.track("Last")

    with site.app.app_context():
        generator = generate()
        copy_context().run(next, generator)
        assert next(generator, "done") == "done"

        with pytest.raises(RuntimeError, match="outside of a request"):
            site.mengpaneel.track("Outside")

    assert whose_events(site) == {("First", "bob"), ("Last", "bob")}


def managers(site: Site) -> int:
    """How many an app has."""
    state = site.app.extensions["mengpaneel"]
    gc.collect()
    return sum(
        # To ask what it is an instance of would open other tests' lazy modules.
        type(thing) is Manager and thing._app_state is state
        for thing in gc.get_objects()
    )


def test_a_job_that_starts_the_next_one_leaves_nothing_to_it(site: Site) -> None:
    seen: list[int] = []

    def job(left: int, done: asyncio.Event) -> None:
        with site.app.app_context(), Manager(identify="ann") as manager:
            manager.track("Tick")
            seen.append(managers(site))

            if left:
                # With a copy of the context.
                asyncio.get_running_loop().call_soon(job, left - 1, done)
            else:
                done.set()

    async def run() -> None:
        done = asyncio.Event()
        job(10, done)
        await done.wait()

    before = managers(site)
    asyncio.run(run())
    assert max(seen) == before + 1
    assert balance(site) == (11, 11, 0)


def test_blocks_that_are_left_in_another_order_than_begun_leave_nothing(
    site: Site,
) -> None:
    def generate(user: str) -> c.Iterator[None]:
        with Manager(identify=user) as manager:
            manager.track(f"For {user}")
            yield

    before = managers(site)

    with site.app.app_context():
        last = generate("x")
        next(last)

        for user in "yz" * 5:
            generator = generate(user)
            next(generator)
            next(last, None)
            last = generator
            assert managers(site) == before + 1

        next(last, None)

    assert managers(site) == before
    assert whose_events(site) == FOR_EACH


def test_what_outlasts_a_block_keeps_nothing_of_it(site: Site) -> None:
    before = managers(site)

    with site.app.app_context(), Manager(identify="ann") as manager:
        manager.track("Job")
        context = copy_context()

    del manager
    assert managers(site) == before
    assert len(context) > 0


def test_a_manager_that_is_used_in_its_own_block_again(site: Site) -> None:
    """In a request that the block makes, too, as a helper may do it."""
    views = site.app.extensions["mengpaneel"].running_views
    tracked = []

    def track(event: str) -> None:
        site.mengpaneel.track(event)
        tracked.append((event, "bob"))

    with site.app.app_context(), Manager(identify="bob") as manager:
        track("First")

        with manager:
            track("Inside")

        with site.app.test_request_context():
            with manager:
                track("In a request")

            site.mengpaneel.track("Request")

        track("Last")

    assert {one for one in whose_events(site) if one[0] != "Request"} == set(tracked)
    assert balance(site) == (5, 5, 0)
    assert not views._jobs
