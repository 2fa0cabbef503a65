"""What must not be made twice, and was made."""

from __future__ import annotations

import collections.abc as c
import contextlib
import typing as t

from ..recently_seen import RecentlySeen

if t.TYPE_CHECKING:
    from .spool import Spool

# Ids that a process remembers by itself.
_MAX_IDS = 10_000


class MadeOnce:
    """Remembers what was made: in this process, and by the spool in all that share it,
    over restarts.

    :param spool: ``None``: each process remembers for itself.
    """

    def __init__(self, spool: Spool | None) -> None:
        self._spool = spool
        self._seen = RecentlySeen(_MAX_IDS)

    def leave_spool(self) -> None:
        """Remember in this process only, from now on."""
        self._spool = None

    @contextlib.contextmanager
    def paused(self) -> c.Iterator[None]:
        """Remember nothing of what is claimed for a while."""
        spool, self._spool = self._spool, None

        try:
            with self._seen.paused():
                yield
        finally:
            self._spool = spool

    def claim(self, id: str) -> bool:
        """Whether the caller is to make something now: nobody has before."""
        if self._seen.count(id):
            return False

        return self._spool is None or self._spool.claim(id)
