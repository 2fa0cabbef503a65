"""What was dropped, reported to whoever wants to know."""

from __future__ import annotations

import collections.abc as c
import json
import logging
import typing as t

if t.TYPE_CHECKING:
    from .batches import Batch

logger = logging.getLogger("flask_mengpaneel")

#: A batch that won't be delivered, and why.
Dropped = tuple["Batch", str]
#: Is told of records that won't be delivered, and why.
Report = c.Callable[[list[dict[str, t.Any]], str], None]


def report_drops(dropped: c.Iterable[Dropped], report: Report) -> None:
    """Report what was dropped.

    Never inside :meth:`Ledger.transfer`, nor with a lock: an app's functions are
    called, which may track and may read the ledger.
    """
    for batch, reason in dropped:
        try:
            report([json.loads(message.json) for message in batch.messages], reason)
        except Exception:
            logger.exception("Reporting what was dropped failed.")
