"""A plugin of pytest: puts Mengpaneel into every app of a suite, and writes down what
became of each test.

The environment says how: ``NEIGHBOURS_MODE``, ``NEIGHBOURS_SETTINGS``, of the
extension, and ``NEIGHBOURS_RESULTS``, a file.
"""

from __future__ import annotations

import collections.abc as c
import functools
import json
import logging
import os
import pathlib
import typing as t

import flask
import pytest

MODE = os.environ["NEIGHBOURS_MODE"]
SETTINGS: dict[str, t.Any] = json.loads(os.environ["NEIGHBOURS_SETTINGS"])
#: One of which no warning says that it is none: most suites make errors of warnings.
TOKEN = "0123456789abcdef" * 2
RESULTS = pathlib.Path(os.environ["NEIGHBOURS_RESULTS"])

outcomes: dict[str, str] = {}
reasons: dict[str, str] = {}
#: What the extension had to say while the tests ran.
complaints: list[str] = []
#: The parts of each app's extension.
states: list[t.Any] = []
tracked = 0


class Complaints(logging.Handler):
    """Keeps what the extension logs, and in which test."""

    def emit(self, record: logging.LogRecord) -> None:
        test = os.environ.get("PYTEST_CURRENT_TEST", "?").rpartition(" ")[0]
        error = record.exc_info[1] if record.exc_info else None
        said = record.getMessage() + (f": {error!r}" if error else "")
        complaints.append(f"{test}: {said}")


def extend(app: flask.Flask) -> None:
    """Put the extension into an app."""
    from flask_mengpaneel import Mengpaneel
    from flask_mengpaneel.testing import RecordingTransport

    mengpaneel = Mengpaneel(
        app, token=TOKEN, spool=None, transport=RecordingTransport(), **SETTINGS
    )
    states.append(app.extensions["mengpaneel"])

    if MODE == "quiet":
        return

    def track() -> None:
        global tracked
        mengpaneel.track("Request")
        tracked += 1

    app.before_request_funcs.setdefault(None, []).insert(0, track)


def extend_first() -> None:
    """Put the extension into each app when it is made, before all others."""
    init = flask.Flask.__init__

    @functools.wraps(init)
    def extended(self: flask.Flask, *args: t.Any, **kwargs: t.Any) -> None:
        init(self, *args, **kwargs)
        extend(self)

    flask.Flask.__init__ = extended  # type: ignore[method-assign]


def extend_last() -> None:
    """Put the extension into each app before its first request, after all others."""
    dispatch: c.Callable[..., flask.Response] = flask.Flask.full_dispatch_request

    @functools.wraps(dispatch)
    def extended(self: flask.Flask, *args: t.Any) -> flask.Response:
        if not self._got_first_request and "mengpaneel" not in self.extensions:
            extend(self)

        return dispatch(self, *args)

    flask.Flask.full_dispatch_request = extended  # type: ignore[method-assign]


def pytest_configure() -> None:
    logging.getLogger("flask_mengpaneel").addHandler(Complaints(logging.WARNING))

    if MODE in ("quiet", "tracking"):
        extend_first()
    elif MODE == "last":
        extend_last()


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.failed:
        outcomes[report.nodeid] = "failed"
        reasons[report.nodeid] = _last_line(report)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    before = outcomes.get(report.nodeid, "passed")

    if report.failed or (report.skipped and before == "passed"):
        outcomes[report.nodeid] = report.outcome
        reasons[report.nodeid] = _last_line(report)
    else:
        outcomes[report.nodeid] = before


def _last_line(report: pytest.CollectReport | pytest.TestReport) -> str:
    errors = [line for line in report.longreprtext.splitlines() if line[:2] == "E "]
    return (errors or ["?"])[0].removeprefix("E").strip()


def pytest_sessionfinish() -> None:
    for state in states:
        if state.hand_overs is not None:
            # As at the end of a process: nobody has acknowledged them.
            state.hand_overs.hand_on()

    balances = [state.ledger.snapshot() for state in states]
    RESULTS.write_text(
        json.dumps(
            {
                "outcomes": outcomes,
                "reasons": reasons,
                "complaints": complaints,
                "tracked": tracked,
                "recorded": sum(balance.recorded for balance in balances),
                "balanced": all(
                    balance.balanced and not balance.waiting for balance in balances
                ),
            }
        )
    )
