"""What was dropped, reported to the app: log, signal, ``MENGPANEEL_ON_FAILURE``."""

from __future__ import annotations

import collections.abc as c
import json
import logging
import typing as t
import weakref

from .. import signals
from ..envelope import Envelope, Message
from .answers import what_to_do

if t.TYPE_CHECKING:
    from flask import Flask

    from ..config import Config
    from .batches import Batch

logger = logging.getLogger("flask_mengpaneel")

#: A batch that won't be delivered, and why.
DroppedBatch = tuple["Batch", str]
#: The same, or an envelope of which nothing is sent, and why.
Dropped = DroppedBatch | tuple[Envelope, str]
#: Is told of records that won't be delivered, and why.
Report = c.Callable[[list[dict[str, t.Any]], str], None]
#: Is told of an envelope of which nothing is sent, and why.
ReportEnvelope = c.Callable[[Envelope, str], None]


def unsent(
    envelope: Envelope, messages: list[Message], dropped: c.Iterable[str]
) -> list[Dropped]:
    """Return an envelope to be reported, if nothing of what it has is sent.

    :param messages: those that were built of it.
    :param dropped: the reasons why some weren't.
    """
    reasons = ", ".join(dropped)
    return [(envelope, reasons)] if reasons and not messages else []


def report_drops(
    dropped: c.Iterable[Dropped],
    report: Report,
    report_envelope: ReportEnvelope | None,
) -> None:
    """Report what was dropped.

    Never inside :meth:`Ledger.transfer`, nor with a lock: an app's functions are
    called, which may track and may read the ledger.
    """
    for what, reason in dropped:
        try:
            if not isinstance(what, Envelope):
                report([json.loads(message.json) for message in what.messages], reason)
            elif report_envelope is not None:
                report_envelope(what, reason)
        except Exception:
            logger.exception("Reporting what was dropped failed.")


class FailureReporter:
    """Tells an app which records could not be delivered."""

    def __init__(self, app: Flask, config: Config) -> None:
        # Else an app would be freed by Python's garbage collector only.
        self._reference = weakref.ref(app)
        self._on_failure = config.on_failure

    def __call__(self, records: list[dict[str, t.Any]], reason: str) -> None:
        """Report records, unless the app is gone."""
        app = self._reference()

        if app is None:
            return

        advice = what_to_do(reason)
        said = f"{reason}; {advice}" if advice else reason
        logger.error("%d records were not delivered: %s", len(records), said)

        # Mostly called by a background thread.
        with app.app_context():
            self._report(app, records, reason)

    def _report(self, app: Flask, records: list[dict[str, t.Any]], reason: str) -> None:
        try:
            signals.failed.send(app, records=records, reason=reason)
        except Exception:
            logger.exception("A receiver of the signal 'failed' failed")

        if self._on_failure is None:
            return

        for record in records:
            try:
                self._on_failure(record, reason)
            except Exception:
                logger.exception("MENGPANEEL_ON_FAILURE failed")
