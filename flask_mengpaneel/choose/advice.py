"""What is wrong around the app, said in the log when its requests show it."""

from __future__ import annotations

import collections.abc as c
import logging
import typing as t

from .. import mistakes
from ..mistakes import Finding, Level

if t.TYPE_CHECKING:
    from flask import Flask

    from ..config import Config

logger = logging.getLogger("flask_mengpaneel")


def advise(findings: c.Iterable[Finding]) -> bool:
    """Log what is wrong, but for notes.

    :return: whether anything was.
    """
    try:
        wrong = [one for one in findings if one.level is not Level.NOTE]
    except Exception:
        # Of the app's own session interface, for one.
        logger.exception("The settings could not be checked.")
        return True

    for finding in wrong:
        logger.warning("%s", finding.advice)

    return bool(wrong)


def is_proxy_settled(
    app: Flask, config: Config, environ: c.Mapping[str, t.Any]
) -> bool:
    """Say that the app doesn't know of a proxy that a request has come through.

    :return: whether no other request needs to be looked at, as it is said, or as the
        app knows.
    """
    if not mistakes.lacks_proxy_fix(environ):
        return mistakes.has_proxy_fix(environ)

    return advise(mistakes.of_request(app, config, environ))
