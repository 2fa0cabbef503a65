"""The command ``flask mengpaneel doctor``."""

from __future__ import annotations

import collections.abc as c
import contextlib
import typing as t
from urllib.parse import urljoin

import click
from flask import Flask
from flask.cli import ScriptInfo, pass_script_info

from ..testing import RecordingTransport
from .findings import Finding, Level
from .settings import check_reach, check_session_cookie, check_settings
from .visit import Visit

if t.TYPE_CHECKING:
    from ..choose.app_state import AppState


@click.command()
@click.argument("urls", metavar="[URL-PATH]...", nargs=-1)
@click.option("--online", is_flag=True, help="Also try to reach MENGPANEEL_API_HOST.")
@pass_script_info
def doctor(info: ScriptInfo, urls: tuple[str, ...], online: bool) -> None:
    """Find what would keep calls from reaching Mixpanel.

    Asks the app for pages, / unless you name others, as a browser on https://localhost
    would. Name a page with scheme and host if they matter. Sends nothing to Mixpanel.
    Fails if calls would be lost.
    """
    app = info.load_app()

    if "mengpaneel" not in app.extensions:
        raise click.ClickException("This app has no Mengpaneel.")

    findings = examine(app, urls or ("/",), online)

    for finding in findings:
        click.echo(str(finding))

    if not findings:
        click.echo("Nothing is wrong.")

    if any(finding.level is Level.ERROR for finding in findings):
        raise SystemExit(1)


def examine(
    app: Flask, urls: c.Iterable[str] = ("/",), online: bool = False
) -> list[Finding]:
    """Find what would keep calls from reaching Mixpanel.

    :param urls: pages of the app: paths, or URLs with scheme and host.
    :param online: whether to try to reach Mixpanel too.
    """
    state: AppState = app.extensions["mengpaneel"]
    config = state.config

    if not config.enabled:
        return [Finding(Level.NOTE, "MENGPANEEL_ENABLED is False: nothing is tracked")]

    if config.token is None:
        text = "there is no token: all calls are dropped"
        return [Finding(Level.ERROR, text, 'MENGPANEEL_TOKEN = "..."')]

    findings = [*check_settings(app, state)]

    if online:
        findings += check_reach(config)

    if "ClientSide" in config.strategies:
        base = f"https://{app.config['SERVER_NAME'] or 'localhost'}/"
        pages = [urljoin(base, url) for url in urls]

        if "Delayed" in config.strategies:
            for page in pages:
                findings += check_session_cookie(app, page)

        with _opened_by_nobody(state), app.test_client() as client:
            visit = Visit(app, state, client, urljoin([*pages, base][0], "/"))
            findings += visit.check_app()

            for page in pages:
                findings += visit.check_page(page)

    return list(dict.fromkeys(findings))


@contextlib.contextmanager
def _opened_by_nobody(state: AppState) -> c.Iterator[None]:
    """Send nothing of what the views track, neither at once nor because no browser
    acknowledges it."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(state.chain.diverted(RecordingTransport()))

        if state.hand_overs is not None:
            stack.enter_context(state.hand_overs.paused())

        yield
