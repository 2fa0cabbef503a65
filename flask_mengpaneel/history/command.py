"""The command ``flask mengpaneel import``."""

from __future__ import annotations

import collections.abc as c
import gc
import sys
import typing as t

import click
from flask import current_app
from flask.cli import with_appcontext

from ..deliver.answers import printable
from ..reasons import why_inactive
from .events import Chunk, RefusedLine, Unreadable, read
from .lines import Lines
from .position import Position, PositionFile
from .sending import Forbidden, OutOfReach, Sending

if t.TYPE_CHECKING:
    from ..choose.app_state import AppState

#: The exit code of what failed for now, and may be tried again: EX_TEMPFAIL.
TRY_AGAIN = 75


@click.command("import")
@click.argument("file", type=click.File("rb"))
@click.option(
    "--timeout",
    default=600.0,
    help="Seconds for which Mixpanel may be out of reach.",
    show_default=True,
)
@with_appcontext
def import_(file: t.BinaryIO, timeout: float) -> None:
    """Import events of the past from FILE, or from - for what comes in.

    FILE has an event as JSON on each line, as Mixpanel exports them, or is a CSV with
    the columns event, distinct_id, time and $insert_id; the others are properties. It
    may be compressed with gzip.

    What is refused is written to the output: line, event and reason, with tabs between
    them. If it was stopped, run it again: it goes on where it was, and no event counts
    twice. Fails with 1 if anything was refused, with 75 if it isn't finished.
    """
    if "mengpaneel" not in current_app.extensions:
        raise click.ClickException("This app has no Mengpaneel.")

    state: AppState = current_app.extensions["mengpaneel"]

    if why := why_inactive(state.config):
        raise click.ClickException(f"Nothing is tracked: {why}.")

    try:
        lines = Lines(file)
        position_file = PositionFile.of(lines, state.config, state.delivery.spool)
        position = position_file.load()
        chunks, goes_on = read(lines, position.place)
    except (Unreadable, OSError) as error:
        raise click.ClickException(f"{file.name}: {error}.") from None

    if goes_on:
        _say(f"It goes on after line {lines.number}.")
    else:
        position = Position()

    # Else what the app has loaded would be looked through again and again: 15 % of the
    # time of an import.
    gc.freeze()

    try:
        fault = _send(
            Sending(state.delivery, timeout), lines, chunks, position, position_file
        )
    except Forbidden as refusal:
        _say_how_far(position)
        raise click.ClickException(f"Mixpanel takes nothing: {refusal}.") from None
    except (OutOfReach, KeyboardInterrupt) as reason:
        _say_how_far(position)
        said = f"Mixpanel can't be reached: {reason}. " if str(reason) else ""
        _say(f"{said}It isn't finished: run it again.")
        raise SystemExit(TRY_AGAIN) from None
    finally:
        gc.unfreeze()

    _say_how_far(position)

    if fault:
        raise click.ClickException(f"{file.name}: {fault}.")

    if position.refused:
        raise SystemExit(1)


def _send(
    sending: Sending,
    lines: Lines,
    chunks: c.Iterator[Chunk],
    position: Position,
    position_file: PositionFile,
) -> str:
    """Send chunks, and keep count; return why not all could be read, if so."""
    began = lines.bytes_read
    size = lines.size
    fault = ""

    with click.progressbar(
        # Without a length it shows that something happens.
        chunks if size is None else (),
        None if size is None else size - began,
        label="Importing",
        item_show_func=lambda _: f"{position.taken:,} events",
        file=sys.stderr,
    ) as bar:
        for chunk in sending.send(chunks):
            for refusal in chunk.refused:
                _report(refusal)

            # Not before what was refused is reported.
            position.place = chunk.end
            position.taken += chunk.taken
            position.refused += len(chunk.refused)
            position_file.keep(position)
            bar.update(chunk.bytes_read - began - bar.pos)
            fault = chunk.fault

    return fault


def _report(refusal: RefusedLine) -> None:
    if sys.stderr.isatty():
        # In the place of the bar, which is drawn again below.
        click.echo("\r\033[K", nl=False, err=True)

    line, event, reason = refusal
    click.echo(f"{line}\t{printable(event)}\t{printable(reason)}")


def _say_how_far(position: Position) -> None:
    events = "event" if position.taken == 1 else "events"
    _say(f"{position.taken:,} {events} taken, {position.refused:,} refused.")


def _say(text: str) -> None:
    click.echo(text, err=True)
