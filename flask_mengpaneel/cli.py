"""The commands of ``flask mengpaneel``."""

from __future__ import annotations

import datetime as dt
import difflib
import time
import typing as t
from pathlib import Path

import click
from flask import current_app
from flask.cli import with_appcontext

from . import hosts
from .deliver.answers import Meaning, what_to_check
from .deliver.trial_requests import TEST_EVENT, send_test_event
from .doctor.command import doctor, explain
from .history.command import import_
from .plan.declared import declarations
from .plan.documents import WRITERS
from .reasons import why_inactive

if t.TYPE_CHECKING:
    from .config import Config
    from .deliver.inline import InlineTransport
    from .deliver.spool import Spool


_PATH = click.Path(dir_okay=False, path_type=Path)


@click.group()
def mengpaneel() -> None:
    """Check, show and send what this app has for Mixpanel."""


mengpaneel.add_command(doctor)
mengpaneel.add_command(explain)
mengpaneel.add_command(import_)


@mengpaneel.command("send-test")
@with_appcontext
def send_test() -> None:
    """Send one event to Mixpanel, and show what it says.

    Exits with 1 if Mixpanel doesn't take it.
    """
    delivery = _inline().delivery
    config = delivery.config

    if why := why_inactive(config):
        raise click.ClickException(f"Nothing is sent: {why}.")

    trial = send_test_event(delivery)
    host = "the inspector" if config.inspector else config.api_host
    click.echo(f"{host} says: {trial.words}")

    if trial.meaning is not Meaning.TAKEN:
        is_its_own = trial.accepts_token or trial.meaning is Meaning.FORBIDDEN
        advice = what_to_check(trial.words) if is_its_own else ""
        raise click.ClickException(
            f"The event was not taken{f': {advice}' if advice else ''}."
        )

    where = f"{config.url_prefix}/inspector" if config.inspector else _reports(config)
    click.echo(f'The event "{TEST_EVENT}" is in {where}.')


def _reports(config: Config) -> str:
    """Return where the events of a project are shown."""
    region = hosts.region_of(config.api_host)
    shown = f" at {hosts.REPORTS[region]}" if region else ""
    return f"your project{shown}, under Data, Events, within a minute"


@mengpaneel.group(invoke_without_command=True)
@click.pass_context
@with_appcontext
def spool(context: click.Context) -> None:
    """Show what waits in the spool, and why."""
    if context.invoked_subcommand is not None:
        return

    spool_file = _spool()

    if spool_file is None:
        return

    summary = spool_file.summary()
    click.echo(f"{summary.records} records wait in {spool_file.path}")

    for (endpoint, reason), (records, since) in summary.waiting.items():
        moment = dt.datetime.fromtimestamp(since).strftime("%Y-%m-%d %H:%M:%S")
        click.echo(f"{records:>8}  {endpoint:<7} since {moment}  {reason}")


@spool.command()
@click.option("--timeout", default=60.0, help="Seconds after which to give up.")
@with_appcontext
def send(timeout: float) -> None:
    """Send what waits in the spool now.

    Leaves to another process what that one is sending, and to browsers what they may
    still acknowledge. Fails if anything else still waits.
    """
    spool_file = _spool()

    if spool_file is None:
        return

    sent = _inline().sender.send_spooled(time.monotonic() + timeout)
    summary = spool_file.summary()
    waiting = summary.records - summary.unacknowledged - summary.leased
    click.echo(f"{sent} records sent, {waiting} wait.")

    if summary.unacknowledged:
        click.echo(f"{summary.unacknowledged} more wait for a browser's word.")

    if summary.leased:
        click.echo(
            f"{summary.leased} more are another process's, which is sending them. If it"
            " has been killed, they are free within a minute."
        )

    if waiting:
        raise SystemExit(1)


@mengpaneel.command()
@with_appcontext
def status() -> None:
    """Show what became of all records that ever were in the spool.

    All processes that share the spool share these numbers. They leave out what a
    process delivered without the spool, which is in its own ledger only.
    """
    spool_file = _spool()

    if spool_file is None:
        return

    summary = spool_file.summary()
    dropped = sum(summary.dropped.values())
    click.echo(f"spool      {spool_file.path} ({summary.size / 1024:.0f} KB)")
    click.echo(f"spooled    {summary.delivered + summary.records + dropped}")
    click.echo(f"delivered  {summary.delivered}")
    click.echo(f"waiting    {summary.records}")

    if summary.unacknowledged:
        click.echo(f"{summary.unacknowledged:>12}  not acknowledged yet")

    click.echo(f"dropped    {dropped}")

    for reason, records in summary.dropped.items():
        click.echo(f"{records:>12}  {reason}")


@mengpaneel.command()
@click.option(
    "--format",
    type=click.Choice(list(WRITERS)),
    help="Markdown, CSV or JSON Schema; by default as the file is called, else md.",
)
@click.option("--output", type=_PATH, help="The file to write, instead of showing it.")
@click.option("--check", type=_PATH, help="Fail if this file isn't the plan any more.")
@with_appcontext
def plan(format: str | None, output: Path | None, check: Path | None) -> None:
    """Write the tracking plan: the events that the app declares."""
    if check is not None and output is not None:
        raise click.UsageError("Either write a file or check one.")

    path = check or output
    ending = format or (path.suffix[1:] if path is not None else "md")

    if ending not in WRITERS:
        raise click.UsageError(f"What is {path}? Say it with --format.")

    events = declarations()
    text = WRITERS[ending](events)

    if not events:
        hint = "import the modules that declare them where the app is made"
        click.echo(f"This app declares no events: if it has some, {hint}.", err=True)

    if check is not None:
        _compare(check, text)
    elif output is not None:
        output.write_text(text, "utf-8")
    else:
        click.echo(text, nl=False)


def _compare(path: Path, text: str) -> None:
    """Fail if a file has another text, and show the difference."""
    try:
        former = path.read_text("utf-8")
    except FileNotFoundError:
        former = ""

    if former == text:
        return

    lines = (former.splitlines(), text.splitlines())

    for line in difflib.unified_diff(*lines, str(path), "the app", lineterm=""):
        click.echo(line)

    raise click.ClickException(
        f"{path} is not the tracking plan any more. To write it anew: 'flask mengpaneel"
        f" plan --output {path}'."
    )


def _spool() -> Spool | None:
    """Return the app's spool, or say why there is none."""
    delivery = _inline().delivery

    if delivery.spool is None:
        why = why_inactive(delivery.config)
        click.echo(
            f"This app has no spool, as nothing is tracked: {why}."
            if why
            else "This app has no spool."
        )

    return delivery.spool


def _inline() -> InlineTransport:
    if "mengpaneel" not in current_app.extensions:
        raise click.ClickException("This app has no Mengpaneel.")

    return t.cast("InlineTransport", current_app.extensions["mengpaneel"].inline)
