"""The commands of ``flask mengpaneel``."""

from __future__ import annotations

import datetime as dt
import time
import typing as t

import click
from flask import current_app
from flask.cli import with_appcontext

from .doctor.command import doctor

if t.TYPE_CHECKING:
    from .deliver.inline import InlineTransport
    from .deliver.spool import Spool


@click.group()
def mengpaneel() -> None:
    """Check, show and send what this app has for Mixpanel."""


mengpaneel.add_command(doctor)


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
    waiting = summary.records - summary.unacknowledged
    click.echo(f"{sent} records sent, {waiting} wait.")

    if summary.unacknowledged:
        click.echo(f"{summary.unacknowledged} more wait for a browser's word.")

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


def _spool() -> Spool | None:
    """Return the app's spool, or say why there is none."""
    delivery = _inline().delivery

    if delivery.spool is None:
        reason = "" if delivery.config.active else ": nothing is tracked here"
        click.echo(f"This app has no spool{reason}.")

    return delivery.spool


def _inline() -> InlineTransport:
    if "mengpaneel" not in current_app.extensions:
        raise click.ClickException("This app has no Mengpaneel.")

    return t.cast("InlineTransport", current_app.extensions["mengpaneel"].inline)
