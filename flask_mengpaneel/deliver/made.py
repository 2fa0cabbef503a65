"""What must not be made twice, and was made."""

from __future__ import annotations

import collections
import threading
import typing as t

if t.TYPE_CHECKING:
    from .spool import Spool

# Ids that a process remembers by itself.
_MAX_IDS = 10_000


class Made:
    """Remembers what was made: in this process, and by the spool in all that share it,
    over restarts.

    :param spool: ``None``: each process remembers for itself.
    """

    def __init__(self, spool: Spool | None) -> None:
        self._spool = spool
        self._ids: collections.OrderedDict[str, None] = collections.OrderedDict()
        self._lock = threading.Lock()

    def claim(self, id: str) -> bool:
        """Whether something is to be made now by whoever asks: nobody has before."""
        with self._lock:
            if id in self._ids:
                return False

            self._ids[id] = None

            if len(self._ids) > _MAX_IDS:
                self._ids.popitem(last=False)

        return self._spool is None or self._spool.claim(id)
