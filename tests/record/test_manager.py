from __future__ import annotations

import re
import threading
import time
import typing as t

import click
import pytest
from flask import Flask

from flask_mengpaneel import Manager
from flask_mengpaneel.signals import recorded
from flask_mengpaneel.testing import record_flushes
from sites import Site


def names(site: Site) -> list[str]:
    """The methods that were sent, and the names of events."""
    return [call.event if call.tracks else call.name for call in site.kept.calls]


# -- stages


def test_stages_reach_mixpanel_in_order_whatever_the_order_of_recording(
    site: Site,
) -> None:
    with site.app.app_context(), Manager() as manager:
        manager.track("A")

        with manager.setup():
            manager.identify("ann")
            manager.people.set("Plan", "pro")

        manager.track("B")

        with manager.before_setup():
            manager.alias("ann")

    assert names(site) == ["alias", "identify", "people.set", "A", "B"]


def test_setup_replaces_what_was_set_up_before(site: Site) -> None:
    with site.app.app_context(), Manager() as manager:
        with manager.setup():
            manager.identify("ann")
            manager.people.set("Plan", "pro")

        with manager.setup():
            manager.identify("bob")

        manager.track("A")

    assert names(site) == ["identify", "A"]
    assert site.kept.calls[0].arguments == ["bob"]


def test_before_setup_and_tracking_replace_nothing(site: Site) -> None:
    with site.app.app_context(), Manager() as manager:
        for event in "AB":
            with manager.before_setup():
                manager.alias(event)

            with manager.tracking():
                manager.track(event)

    assert names(site) == ["alias", "alias", "A", "B"]


def test_tracking_within_setup_is_tracking(site: Site) -> None:
    with site.app.app_context(), Manager() as manager:
        with manager.setup():
            manager.identify("ann")

            with site.mengpaneel.tracking():
                manager.track("A")

            manager.people.set("Plan", "pro")

    assert names(site) == ["identify", "people.set", "A"]


def test_what_was_set_up_before_a_nested_stage_is_kept(site: Site) -> None:
    with site.app.app_context(), Manager() as manager:
        with manager.setup():
            manager.identify("ann")

            with manager.before_setup():
                manager.alias("ann")

            with manager.setup():
                manager.people.set("Plan", "pro")

        manager.track("A")

    assert names(site) == ["alias", "identify", "people.set", "A"]


@pytest.mark.parametrize("stage", ["before_setup", "setup", "tracking"])
def test_a_stage_that_is_left_by_an_exception_is_over(site: Site, stage: str) -> None:
    with site.app.app_context(), Manager() as manager:
        with pytest.raises(ZeroDivisionError):
            with getattr(manager, stage)():
                raise ZeroDivisionError

        manager.track("A")

        with manager.before_setup():
            manager.alias("ann")

    assert names(site) == ["alias", "A"]


@pytest.mark.parametrize("stage", ["before_setup", "setup", "tracking"])
def test_a_stage_gives_the_recorder(site: Site, stage: str) -> None:
    with site.app.app_context(), Manager():
        with getattr(site.mengpaneel, stage)() as mixpanel:
            mixpanel.alias("ann")

        site.mengpaneel.track("A")

    assert names(site) == ["alias", "A"]


def test_nothing_but_setup_is_not_sent(site: Site) -> None:
    with site.app.app_context(), Manager() as manager, manager.setup():
        manager.identify("ann")
        manager.people.set("Plan", "pro")

    assert site.kept.envelopes == []
    assert site.mengpaneel.ledger().recorded == 0


def test_an_alias_before_setup_is_sent_although_nothing_was_tracked(site: Site) -> None:
    with site.app.app_context(), Manager() as manager, manager.before_setup():
        manager.alias("ann", "visitor")

    assert names(site) == ["alias"]


# -- time, id, duration


def test_times_are_strictly_increasing_and_those_of_recording(site: Site) -> None:
    start = time.time()

    with site.app.app_context(), Manager() as manager:
        for _ in range(500):
            manager.track("A")

    times = [t.cast(float, call.properties["time"]) for call in site.kept.calls]
    assert all(a < b for a, b in zip(times, times[1:], strict=False))
    assert start - 0.001 <= times[0]
    assert times[-1] <= time.time() + 0.01
    assert all(isinstance(moment, float) for moment in times)


def test_times_have_milliseconds(site: Site) -> None:
    with site.app.app_context(), Manager() as manager:
        manager.track("A")

    moment = t.cast(float, site.kept.calls[0].properties["time"])
    assert moment == round(moment, 3)


def test_a_clock_that_is_set_back_doesn_t_turn_the_order(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([1_800_000_000.0, 1_799_999_999.9, 1_799_999_999.95])

    with site.app.app_context(), Manager() as manager:
        with monkeypatch.context() as patch:
            patch.setattr(
                "flask_mengpaneel.record.clock.time.time", lambda: next(clock)
            )

            for _ in range(3):
                manager.track("A")

    times = [t.cast(float, call.properties["time"]) for call in site.kept.calls]
    assert times[0] < times[1] < times[2] < times[0] + 0.001


def test_each_event_has_an_id_that_mixpanel_takes(site: Site) -> None:
    with site.app.app_context(), Manager() as manager:
        for _ in range(100):
            manager.track("A")

    ids = {str(call.properties["$insert_id"]) for call in site.kept.calls}
    assert len(ids) == 100
    assert all(re.fullmatch(r"[A-Za-z0-9-]{1,36}", id) for id in ids)


def test_a_timed_event_gets_its_duration(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([1_800_000_000.0, 1_800_000_001.0, 1_800_000_002.5, 1_800_000_003.0])

    with site.app.app_context(), Manager() as manager:
        with monkeypatch.context() as patch:
            patch.setattr(
                "flask_mengpaneel.record.clock.time.time", lambda: next(clock)
            )
            manager.time_event("A")
            manager.track("B")
            manager.track("A", {"time": 1_800_000_002.5})
            manager.track("A")

    durations = [call.properties.get("$duration") for call in site.kept.calls]
    assert durations == [None, 2.5, None]


def test_a_clock_that_was_not_stopped_is_kept_with_the_time_of_its_start(
    site: Site,
) -> None:
    before = time.time()

    with site.app.app_context(), Manager() as manager:
        manager.time_event("A")
        manager.track("B")

    timer, _ = site.kept.calls
    assert timer.wire[0] == ["time_event"]
    assert timer.wire[1][0] == timer.event == "A"
    assert timer.at is not None
    assert before - 0.001 <= timer.at <= time.time() + 0.001


def test_each_kind_of_event_can_be_timed(site: Site) -> None:
    with site.app.app_context(), Manager() as manager:
        for event in ("A", "$mp_web_page_view", "Page"):
            manager.time_event(event)

        manager.track_with_groups("A", {}, {})
        manager.track_pageview()
        manager.track_pageview({}, {"event_name": "Page"})

    assert ["$duration" in call.properties for call in site.kept.calls] == [True] * 3


# -- jobs


def test_a_manager_needs_an_app_context() -> None:
    with pytest.raises(RuntimeError, match="app_context"):
        Manager()


def test_a_manager_needs_the_extension_in_the_app() -> None:
    with Flask("bare").app_context(), pytest.raises(RuntimeError, match="init_app"):
        Manager()


def test_the_extension_works_within_a_manager(site: Site) -> None:
    with site.app.app_context():
        with Manager():
            with site.mengpaneel.setup():
                site.mengpaneel.identify("ann")

            site.mengpaneel.track("A")

        with pytest.raises(RuntimeError):
            site.mengpaneel.track("B")

    assert names(site) == ["identify", "A"]


def test_a_manager_works_in_a_command(site: Site) -> None:
    @site.app.cli.command("renew")
    def renew() -> None:
        with Manager() as manager:
            with manager.setup():
                manager.identify("ann")

            site.mengpaneel.track("Renew Subscription")

        click.echo("done")

    result = site.app.test_cli_runner().invoke(args=["renew"])
    assert result.output == "done\n"
    assert names(site) == ["identify", "Renew Subscription"]


def test_a_manager_works_in_threads(site: Site) -> None:
    inside = threading.Barrier(4)

    def work(number: int) -> None:
        with site.app.app_context(), Manager() as manager:
            inside.wait(60)
            site.mengpaneel.track("A", {"number": number})
            manager.track("B", {"number": number})
            inside.wait(60)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]

    for thread in threads:
        thread.start()

    for thread in threads:
        thread.join(60)

    numbers = [
        [call.properties["number"] for call in envelope.calls]
        for envelope in site.kept.envelopes
    ]
    assert sorted(numbers) == [[n, n] for n in range(4)]


def test_leaving_a_manager_by_an_exception_sends(site: Site) -> None:
    with site.app.app_context(), pytest.raises(ZeroDivisionError):
        with Manager() as manager:
            manager.track("A")
            raise ZeroDivisionError

    assert names(site) == ["A"]


def test_managers_can_be_nested(site: Site) -> None:
    with site.app.app_context(), Manager() as outer:
        outer.identify("ann")

        with Manager() as inner, inner.setup():
            site.mengpaneel.identify("bob")

            with site.mengpaneel.tracking():
                site.mengpaneel.track("Inner")
                outer.track("Outer")

        site.mengpaneel.track("After")

    assert [[c.event if c.tracks else c.arguments[0] for c in envelope.calls]
            for envelope in site.kept.envelopes] == [
        ["bob", "Inner"],
        ["ann", "Outer", "After"],
    ]  # fmt: skip


def test_a_manager_can_be_entered_again(site: Site) -> None:
    with site.app.app_context():
        manager = Manager()

        with manager:
            with manager:
                site.mengpaneel.track("A")

            site.mengpaneel.track("B")

        with manager:
            site.mengpaneel.track("C")

        with pytest.raises(RuntimeError):
            site.mengpaneel.track("D")

    assert names(site) == ["A", "B", "C"]


def test_a_manager_may_be_flushed_in_between(site: Site) -> None:
    with site.app.app_context(), Manager() as manager:
        with manager.setup():
            manager.identify("ann")

        manager.track("A")
        outcome = manager.flush()
        assert outcome is not None
        assert outcome.strategy == "AsyncServerSide"
        assert [call.name for call in outcome.calls] == ["identify", "track"]
        assert names(site) == ["identify", "A"]
        assert manager.flush() is None

    assert len(site.kept.envelopes) == 1


def test_who_it_is_holds_after_a_flush(site: Site) -> None:
    with site.app.app_context(), Manager() as manager:
        with manager.setup():
            manager.identify("ann")

        manager.track("A")
        manager.flush()
        manager.track("B")

    assert [
        (event["event"], event["properties"]["distinct_id"]) for event in site.messages
    ] == [("A", "ann"), ("B", "ann")]


def test_what_was_set_up_is_made_once_although_there_are_several_flushes(
    site: Site,
) -> None:
    with site.app.app_context(), Manager() as manager:
        with manager.setup():
            manager.identify("ann")
            manager.people.increment("Jobs")
            manager.register({"Plan": "pro"})

        for event in "ABC":
            manager.track(event)
            manager.flush()

    messages = site.messages
    assert sum("$add" in message for message in messages) == 1
    events = [one["properties"] for one in messages if "event" in one]
    assert [(one["distinct_id"], one["Plan"]) for one in events] == [("ann", "pro")] * 3


def test_the_outcome_names_why_the_others_declined(site: Site) -> None:
    with (
        site.app.app_context(),
        record_flushes(site.app) as outcomes,
        Manager() as manager,
    ):
        manager.track("A")

    (outcome,) = outcomes
    assert outcome.strategy == "AsyncServerSide"
    assert list(outcome.declined) == ["Delayed", "ClientSide", "CapableClientSide"]
    assert set(outcome.declined.values()) == {"no response is to come"}


@pytest.mark.parametrize("strategy", ["Delayed", "ClientSide", "AsyncServerSide"])
def test_a_strategy_is_asked_first_and_then_the_server_side_ones(
    site: Site, strategy: str
) -> None:
    with site.app.app_context(), record_flushes(site.app) as outcomes:
        with Manager(strategy=strategy) as manager:
            assert manager.strategy == strategy
            manager.track("A")

        with Manager() as manager:
            assert manager.strategy is None
            manager.strategy = strategy
            manager.track("B")

    assert names(site) == ["A", "B"]

    for outcome in outcomes:
        assert outcome.strategy == "AsyncServerSide"
        assert set(outcome.declined) <= {strategy}


@pytest.mark.parametrize("testing", [True, False])
def test_a_strategy_that_doesn_t_exist_is_an_error_always(testing: bool) -> None:
    site = Site(testing=testing)

    with site.app.app_context():
        with pytest.raises(ValueError, match="Serverside.*ServerSide"):
            Manager(strategy="Serverside")

        with Manager() as manager:
            with pytest.raises(ValueError, match="nope"):
                manager.strategy = "nope"

            with pytest.raises(ValueError, match="nope"):
                site.mengpaneel.strategy = "nope"

            assert manager.strategy is None

    with site.app.test_request_context():
        with pytest.raises(ValueError, match="ServerSid'.*Delayed, ClientSide"):
            site.mengpaneel.strategy = "ServerSid"

        assert site.mengpaneel.strategy is None


# -- whose calls they are


def test_a_job_asks_nobody_for_consent() -> None:
    site = Site(consent=lambda: False)

    with site.app.app_context(), Manager() as manager:
        manager.track("A")

    assert names(site) == ["A"]


def test_a_record_that_is_too_large_takes_no_other_with_it() -> None:
    site = Site(testing=False)

    with site.app.app_context(), Manager() as manager:
        manager.track("Small")
        manager.track("Large", {"text": "x" * 1_048_576})
        manager.track("Umlauts", {"text": "ä" * 200_000})
        manager.people.set("text", "x" * 1_048_576)

    assert names(site) == ["Small"]
    assert sum(site.mengpaneel.ledger().dropped.values()) == 3


def test_hundreds_of_events_in_one_job_are_all_sent(site: Site) -> None:
    with site.app.app_context(), Manager() as manager:
        for number in range(1_000):
            manager.track("A", {"number": number})

    numbers = [call.properties["number"] for call in site.kept.calls]
    assert numbers == list(range(1_000))


# -- whoever is told


@pytest.mark.parametrize(
    "given", [{}, {"Plan": "pro"}, {"Plan": "pro", "Bad": object()}], ids=len
)
def test_a_receiver_that_fails_changes_nothing_of_what_is_recorded(
    given: dict[str, t.Any], caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_app: object, **_: t.Any) -> t.NoReturn:
        raise ZeroDivisionError

    site = Site(testing=False)

    with recorded.connected_to(fail, site.app), site.app.app_context():
        with Manager(identify="ann") as manager:
            manager.track("A", given)
            manager.people.set("Plan", "pro")
            manager.opt_out_tracking()
            manager.track("B")

    assert names(site) == ["identify", "A", "people.set", "opt_out_tracking"]
    ledger = site.mengpaneel.ledger()
    assert (ledger.recorded, ledger.dropped) == (2, {})
    assert "a receiver of the signal 'recorded' failed" in caplog.text
