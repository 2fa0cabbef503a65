"""What apps may use is written down here: to add a name, or to take one away, is a
decision. Each has its place in ``docs/api.md``."""

from __future__ import annotations

import pathlib
import re
import types
import typing as t

import click
import pytest

import flask_mengpaneel
import flask_mengpaneel.debug_toolbar
import flask_mengpaneel.metrics
import flask_mengpaneel.testing
from flask_mengpaneel import (
    Envelope,
    Event,
    Ledger,
    Login,
    Manager,
    Mengpaneel,
    Outcome,
    Strategy,
    TrackedEvent,
    Transport,
    Unrecorded,
)
from flask_mengpaneel.calls import Call, CallLog
from flask_mengpaneel.cli import mengpaneel
from flask_mengpaneel.config import KEYS, STRATEGIES
from flask_mengpaneel.metrics import LedgerMetrics
from flask_mengpaneel.record.recorder import Group, People
from flask_mengpaneel.strategy import Exchange, Visitor
from flask_mengpaneel.testing import RecordedCall, RecordedCalls, RecordingTransport

PAGE = pathlib.Path(__file__).parent.parent.parent / "docs" / "api.md"

RECORDER = """
    add_group alias before_setup call disable enable get_group identify on_commit
    opt_in_tracking opt_out_tracking people register register_once remove_group reset
    set_config set_group setup strategy time_event track track_pageview
    track_with_groups tracking unregister
"""
PUBLIC: dict[type, str] = {
    Mengpaneel: f"{RECORDER} ack_timeout drain flush init_app ledger visitor",
    Manager: f"{RECORDER} flush",
    People: """
        append clear_charges delete_user increment remove set set_once track_charge
        union unset
    """,
    Group: "delete remove set set_once union unset",
    Outcome: "calls declined hand_over is_client_side strategy",
    Call: "arguments event name properties tracks wire",
    Login: "flask_login",
    Event: "",
    TrackedEvent: "name properties",
    Ledger: "delivered dropped forwarded incomplete recorded unrecorded waiting",
    LedgerMetrics: "collect describe view",
    Unrecorded: "call event insert_id missing origin reason during",
    Strategy: "flush is_client_side name",
    CallLog: "before_setup setup tracking",
    Visitor: "envelope identity",
    Exchange: "private_response request response",
    Transport: "close flush reports_delivery send",
    Envelope: """
        at calls cookie from_json identity ip records referrer successors to_json url
        user_agent
    """,
    RecordingTransport: "envelopes calls close flush reports_delivery send",
    RecordedCalls: """
        assert_identified assert_not_tracked assert_profile assert_tracked by_request
        clear events outcomes
    """,
    RecordedCall: """
        app arguments call declined dropped event name outcomes properties request ways
    """,
}

# Without an underscore since other modules of the package use them; apps don't.
INTERNAL: dict[type, str] = {
    Manager: """
        calls can_flush close drain during flush_threshold flush_while_running
        fork_for_thread in_use is_current is_recording leave_context leave_to_parent
        make_current of_request record recorded refuse request resolve restore stage
        take_visitor visitor
    """,
    Call: """
        at become from_json insert_id instead is_record is_repeatable says_who
        with_defaults
    """,
    CallLog: """
        filtered forget_timer from_json identifies in_order of size stages to_json
        was_set_up
    """,
    Strategy: "keeps_ledger",
    Ledger: """
        add_source close deliver drop leave_out paused transfer record record_dropped
        reset skip snapshot
    """,
    Envelope: "from_bytes size to_bytes",
    RecordedCalls: "connected_to on_dropped on_flushed on_recorded",
    RecordedCall: "became goes is_same said",
}


MODULES = {
    flask_mengpaneel: """
        Declined Envelope Event Ledger Login Manager Mengpaneel Outcome PortableVisitor
        Strategy TrackedEvent Transport Unrecorded failed flushed unrecorded
    """,
    flask_mengpaneel.debug_toolbar: "MengpaneelPanel",
    flask_mengpaneel.metrics: "LedgerMetrics",
    flask_mengpaneel.testing: """
        RecordedCall RecordedCalls RecordingTransport record_calls record_flushes
        recording_transport
    """,
}
SETTINGS = """
    MENGPANEEL_TOKEN MENGPANEEL_ENABLED MENGPANEEL_API_HOST MENGPANEEL_CLIENT_CONFIG
    MENGPANEEL_LIBRARY_URL MENGPANEEL_STRATEGIES MENGPANEEL_TRANSPORT MENGPANEEL_TIMEOUT
    MENGPANEEL_SPOOL MENGPANEEL_DURABLE MENGPANEEL_DEFAULT_PROPERTIES
    MENGPANEEL_CONSENT MENGPANEEL_RESPECT_DNT MENGPANEEL_FALLBACK MENGPANEEL_MAX_HEADER
    MENGPANEEL_DELAYED_MAX_AGE MENGPANEEL_ON_FAILURE MENGPANEEL_SHUTDOWN_TIMEOUT
    MENGPANEEL_ID_MERGE MENGPANEEL_ANONYMIZE_IP MENGPANEEL_BOTS MENGPANEEL_CSP_NONCE
    MENGPANEEL_ACK_TIMEOUT MENGPANEEL_VISITOR MENGPANEEL_CELERY_VISITOR MENGPANEEL_ACKS
    MENGPANEEL_BEFORE_SEND MENGPANEEL_EVENTS MENGPANEEL_LOGIN MENGPANEEL_LOGIN_PROFILE
    MENGPANEEL_URL_PREFIX MENGPANEEL_INSPECTOR
"""
COMMANDS = {
    "doctor": "urls --online --json --cookie --header --as-browser --ask-consent",
    "explain": "method url --data --cookie --header --as-browser --ask-consent",
    "send-test": "",
    "import": "file --timeout",
    "plan": "--format --output --check",
    "spool": "",
    "spool send": "--timeout",
    "status": "",
}


def names(text: str) -> set[str]:
    return set(text.split())


def attributes(cls: type) -> set[str]:
    # This one sets what it has when it is made.
    is_made = cls in (CallLog, RecordedCalls, RecordingTransport)
    owner = cls() if is_made else cls
    return {name for name in dir(owner) if name[0] != "_" and not hasattr(tuple, name)}


def commands(group: click.Group, path: str = "") -> t.Iterator[tuple[str, set[str]]]:
    """Each command, and its options."""
    for name, command in group.commands.items():
        yield (
            f"{path}{name}",
            {one for option in command.params for one in option.opts},
        )

        if isinstance(command, click.Group):
            yield from commands(command, f"{path}{name} ")


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_a_module_has_the_names_that_are_listed(module: types.ModuleType) -> None:
    assert set(module.__all__) == names(MODULES[module])


@pytest.mark.parametrize("cls", PUBLIC, ids=lambda cls: cls.__name__)
def test_a_class_has_the_attributes_that_are_listed(cls: type) -> None:
    public, internal = names(PUBLIC[cls]), names(INTERNAL.get(cls, ""))

    assert not public & internal
    assert attributes(cls) == public | internal


def test_the_settings_are_those_that_are_listed() -> None:
    assert set(KEYS) == names(SETTINGS)


def test_the_commands_are_those_that_are_listed() -> None:
    expected = {name: names(options) for name, options in COMMANDS.items()}

    assert dict(commands(mengpaneel)) == expected


@pytest.mark.parametrize("cls", PUBLIC, ids=lambda cls: cls.__name__)
def test_what_is_public_is_documented(cls: type) -> None:
    section = sections()[cls.__name__]

    for name in names(PUBLIC[cls]) - (names(RECORDER) - {"strategy"}):
        assert re.search(rf"`{name}\b", section), name


def test_what_mengpaneel_and_manager_share_is_documented() -> None:
    section = sections()["Calls of the browser library"]

    for name in names(RECORDER) - {"strategy"}:
        assert re.search(rf"`{name}\b", section), name


def test_the_names_of_modules_signals_commands_and_strategies_are_documented() -> None:
    page = PAGE.read_text()
    expected = {name for module in MODULES for name in names(MODULES[module])}
    expected |= {f"flask mengpaneel {name}" for name in COMMANDS}
    expected |= {f'"{name}"' for name in STRATEGIES}

    assert [name for name in expected if f"`{name}" not in page] == []


def sections() -> dict[str, str]:
    """What is below each heading of the page."""
    parts = re.split(r"^#+ (.*)\n", PAGE.read_text(), flags=re.M)
    return {
        heading.strip("`"): text
        for heading, text in zip(parts[1::2], parts[2::2], strict=True)
    }
