"""Tells the app what could not be delivered."""

from __future__ import annotations

import logging
import typing as t
import weakref

from .. import signals

if t.TYPE_CHECKING:
    from flask import Flask

    from ..config import Config

logger = logging.getLogger("flask_mengpaneel")


class FailureReports:
    """Tells an app what could not be delivered: its log, the signal ``failed``, and the
    callable of ``MENGPANEEL_ON_FAILURE``."""

    def __init__(self, app: Flask, config: Config) -> None:
        # Else an app would be freed by Python's garbage collector only.
        self._app = weakref.ref(app)
        self._on_failure = config.on_failure

    def __call__(self, records: list[dict[str, t.Any]], reason: str) -> None:
        """Report records, mostly from a background thread.

        :param reason: in Mixpanel's words or ours.
        """
        app = self._app()

        if app is None:
            return

        logger.error("%d records were not delivered: %s", len(records), reason)

        with app.app_context():
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
