"""What in an app's settings would keep calls from reaching Mixpanel."""

from __future__ import annotations

import collections.abc as c
import json
import typing as t
from urllib.parse import urlsplit

from flask import Flask
from werkzeug.sansio.utils import host_is_trusted

from .. import mistakes
from ..choose.session_cookie import fits_session, has_session
from ..config import PREFIX
from ..deliver.answers import Meaning, what_to_do
from ..deliver.trial_requests import try_token
from ..limits import MAX_AHEAD
from ..mistakes import Finding, Level

if t.TYPE_CHECKING:
    from ..choose.app_state import AppState
    from ..config import Config

# What one event takes in the session, and the room that it has there at least.
_ENTRY = "x" * 400
_ROOM = 2048

# What SQLite needs for a few hundred events, and for its log.
_SPOOL_ROOM = 1_000_000

#: Seconds by which clocks may differ.
_CLOCK_TOLERANCE = 60.0

#: What rules of filter lists look for in a URL, whichever site it is of, among others:
#: https://github.com/easylist/easylist/blob/master/easyprivacy/easyprivacy_general.txt
#: The first two are names of what this is.
_FILTERED = (
    "mengpaneel",
    "mixpanel",
    "analytics",
    "beacon",
    "collect",
    "counter",
    "metric",
    "pixel",
    "stat",
    "telemetry",
    "track",
)


def check_settings(app: Flask, state: AppState) -> c.Iterator[Finding]:
    """Find what is wrong with the settings, whatever the page."""
    config = state.config

    yield from mistakes.of_settings(app, config)
    yield from mistakes.of_running_app(app, config)

    if config.transport == "celery" and "celery" not in app.extensions:
        text = 'MENGPANEEL_TRANSPORT is "celery", but the app has no Celery'
        yield Finding(Level.ERROR, text, 'app.extensions["celery"] = celery_app')

    if (
        app.debug
        and "debugtoolbar" in app.blueprints
        and app.config.get("DEBUG_TB_INTERCEPT_REDIRECTS")
    ):
        text = "Flask-DebugToolbar shows a page in place of each redirect"
        yield Finding(Level.NOTE, text, "DEBUG_TB_INTERCEPT_REDIRECTS = False")

    yield from _check_spool(state)
    yield from _check_url_prefix(app, config)

    if not app.secret_key and config.gives_to_browsers:
        text = (
            "without a secret key, the server sends the calls before a redirect, and a"
            " page whose library is blocked can't hand its calls back"
        )
        yield Finding(Level.WARNING, text, 'SECRET_KEY = "..."')


def _check_spool(state: AppState) -> c.Iterator[Finding]:
    from ..deliver.inline import InlineTransport
    from ..deliver.spool import SpoolError

    inline = state.inline

    if not isinstance(inline, InlineTransport) or inline.delivery.spool is None:
        return

    spool = inline.delivery.spool

    try:
        spool.check()
    except SpoolError as error:
        text = f"what can't be delivered at once has no spool to wait in: {error}"
        yield Finding(Level.ERROR, text, 'MENGPANEEL_SPOOL = "/path/of/a/file.sqlite3"')
        return

    if spool.room < _SPOOL_ROOM:
        text = (
            "the spool's disk is full: what can't be delivered at once waits in memory"
        )
        yield Finding(Level.WARNING, text, f"make room for {spool.path}")


def _check_url_prefix(app: Flask, config: Config) -> c.Iterator[Finding]:
    prefix = config.url_prefix

    for rule in app.url_map.iter_rules():
        is_own = rule.endpoint.startswith(("mengpaneel.", "mengpaneel_inspector."))

        if f"{rule.rule}/".startswith(config.own_paths) and not is_own:
            text = f"{rule.rule} is below {prefix}, where nothing is recorded"
            remedy = "MENGPANEEL_URL_PREFIX = a path below which the app has nothing"
            yield Finding(Level.ERROR, text, remedy)

    # Who hasn't chosen a name hasn't asked for one that isn't filtered.
    inviting = [word for word in _FILTERED if word in prefix.lower()]

    if inviting and prefix != PREFIX:
        text = (
            f"MENGPANEEL_URL_PREFIX is {prefix!r}: filter lists look for"
            f" {inviting[0]!r}, and what is blocked is sent from the server"
        )
        yield Finding(Level.WARNING, text, 'MENGPANEEL_URL_PREFIX = "/shop-data"')


def check_host(app: Flask, url: str) -> c.Iterator[Finding]:
    """Find whether the app answers to the host of a page at all."""
    trusted = app.config.get("TRUSTED_HOSTS")
    host = urlsplit(url).netloc

    if trusted and not host_is_trusted(host, trusted):
        text = f"{host} isn't one of TRUSTED_HOSTS: the app answers nothing there"
        remedy = f"flask mengpaneel doctor https://{str(trusted[0]).lstrip('.')}/"
        yield Finding(Level.WARNING, text, remedy)


def check_session(app: Flask, url: str, config: Config) -> c.Iterator[Finding]:
    """Find whether the session can hold delayed calls, whoever makes it."""
    yield from mistakes.session_domain(app, url)

    if not app.secret_key:
        return

    kind = type(app.session_interface).__name__
    remedy = "MENGPANEEL_STRATEGIES = " + json.dumps(
        [name for name in config.strategy_names if name != "Delayed"]
    )

    try:
        with app.test_request_context(url):
            if has_session() and fits_session(config.session_key, _ENTRY, _ROOM):
                return

        why = "it doesn't keep them"
    except Exception as error:
        why = repr(error)

    text = (
        f"the session of {kind} can't hold delayed calls ({why}): the server sends what"
        " is tracked before a redirect"
    )
    yield Finding(Level.WARNING, text, remedy)


def check_online(state: AppState) -> c.Iterator[Finding]:
    """Find what Mixpanel says of the token, and whether the clock is right."""
    config = state.config

    if config.inspector:
        yield Finding(
            Level.NOTE, "the inspector stands in for Mixpanel: it isn't asked"
        )
        return

    trial = try_token(state.delivery)

    if trial.status is None:
        text = f"{config.api_host} can't be reached from here: {trial.words}"
        yield Finding(Level.ERROR, text, "let the server connect to it")
        return

    yield from _check_clock(trial.clock_ahead)

    if trial.accepts_token:
        return

    if trial.meaning is Meaning.FORBIDDEN:
        text = f"Mixpanel refuses the token: {trial.words}"
        yield Finding(Level.ERROR, text, what_to_do(trial.words))
    elif trial.is_busy:
        text = f"Mixpanel can't say now whether the token is right: {trial.words}"
        yield Finding(Level.WARNING, text, "flask mengpaneel doctor --online")
    else:
        text = f"what answers at {config.api_host} isn't Mixpanel: {trial.words}"
        yield Finding(Level.ERROR, text, 'MENGPANEEL_API_HOST = "https://..."')


def _check_clock(ahead: float | None) -> c.Iterator[Finding]:
    if ahead is None or abs(ahead) < _CLOCK_TOLERANCE:
        return

    way = "ahead of" if ahead > 0 else "behind"
    text = f"the clock of this machine is {abs(ahead):.0f} seconds {way} Mixpanel's"
    level = Level.WARNING

    if ahead > MAX_AHEAD:
        text += ", which takes no events from the future"
        level = Level.ERROR

    yield Finding(level, text, "timedatectl set-ntp true")
