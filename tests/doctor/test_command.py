"""What the doctor prints, and when the command fails."""

from __future__ import annotations

import pytest
from flask import Flask

from doctor_pages import CDN, SCRIPT, lines, under
from flask_mengpaneel.cli import mengpaneel as commands
from sites import CreateApp


def test_nothing_is_wrong_with_an_ordinary_app(serve: CreateApp) -> None:
    runner = serve().test_cli_runner()
    result = runner.invoke(commands, ["doctor"])

    assert result.output == "Nothing is wrong.\n"
    assert result.exit_code == 0


def test_it_fails_if_calls_would_be_lost(serve: CreateApp) -> None:
    runner = serve(**under("script-src https://other.test")).test_cli_runner()
    result = runner.invoke(commands, ["doctor", "/"])

    assert result.output == (
        f"error: /: script-src of Content-Security-Policy forbids {SCRIPT} and"
        " https://cdn.mxpnl.com/libs/mixpanel-2-latest.min.js"
        f" -> script-src https://other.test 'self' {CDN}\n"
    )
    assert result.exit_code == 1


def test_a_warning_is_no_failure(serve: CreateApp) -> None:
    runner = serve(body="no page").test_cli_runner()
    result = runner.invoke(commands, ["doctor"])

    assert result.output.startswith("warning: /: the page can't carry calls")
    assert result.exit_code == 0


def test_an_app_without_the_extension_is_found(app: Flask) -> None:
    result = Flask("other").test_cli_runner().invoke(commands, ["doctor"])

    assert "This app has no Mengpaneel." in result.output
    assert result.exit_code == 2


def test_no_token_is_an_error(create_app: CreateApp) -> None:
    with pytest.warns(UserWarning, match="MENGPANEEL_TOKEN"):
        app = create_app(token=None)

    assert lines(app)[0].startswith("error: MENGPANEEL_TOKEN is not set")


def test_an_extension_that_is_off_is_a_note(create_app: CreateApp) -> None:
    (line,) = lines(create_app(enabled=False))

    assert line == "note: MENGPANEEL_ENABLED is False: nothing is tracked"
