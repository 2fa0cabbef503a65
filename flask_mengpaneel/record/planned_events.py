"""Events that aren't as the tracking plan has them: refused, or told in the log."""

from __future__ import annotations

import collections.abc as c
import logging
import typing as t

from ..plan.checking import misfits

if t.TYPE_CHECKING:
    from ..calls import Call

logger = logging.getLogger("flask_mengpaneel")


def compare(call: Call, own: c.Iterable[str], *, is_strict: bool) -> None:
    """Compare an event with the tracking plan.

    :param own: the names of its properties without those that the app adds to all.
    :param is_strict: whether what doesn't fit is refused, and not only logged.
    :raises ValueError: it is refused.
    """
    problems = misfits(call.event, call.properties, own)

    if problems and is_strict:
        raise ValueError("; ".join(problems))

    for problem in problems:
        logger.warning("mengpaneel.%s: %s", call.name, problem)
