"""Transports of apps' own: they are closed at the end of the process."""

from __future__ import annotations

import logging
import typing as t
import weakref

from .. import process

if t.TYPE_CHECKING:
    from ..transport import Transport

logger = logging.getLogger("flask_mengpaneel")


class _End:
    """Closes a transport when the process ends, also a child that goes on with it."""

    def __init__(self, transport: Transport) -> None:
        self._reference = weakref.ref(transport)
        process.on_fork(self)
        self.after_fork()

    def after_fork(self) -> None:
        """Close it at the end of this process."""
        self._is_closed = False
        process.on_exit(self)

    def begin_shutdown(self) -> None:
        """Wait for ``close``: the transport knows nothing of a beginning."""

    def close(self) -> None:
        """Close it, once."""
        if self._is_closed:
            return

        self._is_closed = True
        transport = self._reference()

        try:
            if transport is not None:
                transport.close()
        except Exception:
            # Others have to finish as well.
            logger.exception("MENGPANEEL_TRANSPORT failed to close")


#: One for each, however many apps it is of.
_ends: weakref.WeakKeyDictionary[Transport, _End] = weakref.WeakKeyDictionary()


def close_at_exit(transport: Transport) -> None:
    """Call ``close`` of a transport at the end of this process, if it is there then."""
    if transport not in _ends:
        _ends[transport] = _End(transport)
