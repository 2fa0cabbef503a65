"""What goes wrong in the extension itself: logged, and raised in tests."""

from __future__ import annotations

import logging
import typing as t

if t.TYPE_CHECKING:
    from flask import Flask

logger = logging.getLogger("flask_mengpaneel")


def handle_error(app: Flask, what: str, error: Exception) -> None:
    """Log an error of the extension's own; raise it if the app is in testing."""
    logger.error("Flask-Mengpaneel: %s", what, exc_info=error)

    if app.testing:
        raise error
