"""Commands of ``flask mengpaneel``."""

from __future__ import annotations

import datetime as dt
import time
import typing as t

import click
from flask import current_app
from flask.cli import with_appcontext

from .doctor.command import doctor

if t.TYPE_CHECKING:
    from .deliver.delivery import Delivery


@click.group()
def mengpaneel() -> None:
    """Look after what this app sends to Mixpanel."""


mengpaneel.add_command(doctor)


@mengpaneel.group(invoke_without_command=True)
@click.pass_context
@with_appcontext
def spool(context: click.Context) -> None:
    """Show what waits in the spool, and why."""
    if context.invoked_subcommand is not None:
        return

    kept = _delivery().spool

    if kept is None:
        click.echo("This app has no spool.")
        return

    summary = kept.summary()
    click.echo(f"{summary.records} records wait in {kept.path}")

    for (endpoint, reason), (records, since) in summary.waiting.items():
        moment = dt.datetime.fromtimestamp(since).strftime("%Y-%m-%d %H:%M:%S")
        click.echo(f"{records:>8}  {endpoint:<7} since {moment}  {reason}")


@spool.command()
@click.option("--timeout", default=60.0, help="Seconds to try at most.")
@with_appcontext
def send(timeout: float) -> None:
    """Send what waits in the spool now.

    What another process is sending at the moment is left to it. Fails if something
    could not be sent.
    """
    delivery = _delivery()

    if delivery.spool is None:
        click.echo("This app has no spool.")
        return

    sent = delivery.send_spool(time.monotonic() + timeout)
    left = delivery.spool.summary().records
    click.echo(f"{sent} records sent, {left} wait.")

    if left:
        raise SystemExit(1)


@mengpaneel.command()
@with_appcontext
def status() -> None:
    """Show what became of all records that ever were in the spool.

    Processes that share a spool share these numbers. What a process delivered without
    the spool is in its own ledger only.
    """
    kept = _delivery().spool

    if kept is None:
        click.echo("This app has no spool.")
        return

    summary = kept.summary()
    dropped = sum(summary.dropped.values())
    click.echo(f"spool      {kept.path} ({summary.size / 1024:.0f} KB)")
    click.echo(f"spooled    {summary.delivered + summary.records + dropped}")
    click.echo(f"delivered  {summary.delivered}")
    click.echo(f"waiting    {summary.records}")
    click.echo(f"dropped    {dropped}")

    for reason, records in summary.dropped.items():
        click.echo(f"{records:>12}  {reason}")


def _delivery() -> Delivery:
    if "mengpaneel" not in current_app.extensions:
        raise click.ClickException("This app has no Mengpaneel.")

    return t.cast("Delivery", current_app.extensions["mengpaneel"].delivery)
