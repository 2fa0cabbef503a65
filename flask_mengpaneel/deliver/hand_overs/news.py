"""What became of hand-overs, for a listener that is told of each."""

from __future__ import annotations

import collections
import collections.abc as c
import logging
import typing as t

logger = logging.getLogger("flask_mengpaneel")

What: t.TypeAlias = t.Literal["acknowledged", "sent", "dropped", "settled", "withdrawn"]

#: Why the server has sent one.
NEVER_ACKNOWLEDGED = "never acknowledged"


class HandOverNews:
    """Tells a listener what became of hand-overs, where no lock is held."""

    def __init__(self) -> None:
        #: Is called with the id of a hand-over, what became of it, and why.
        self.listener: c.Callable[[str, What, str], None] | None = None
        self._untold: collections.deque[tuple[str, What, str]] = collections.deque()

    def add(self, id: str, what: What, why: str = "") -> None:
        """Keep the news of a hand-over, if somebody listens."""
        if self.listener is not None:
            self._untold.append((id, what, why))

    def add_acknowledged(self, id: str, dropped_for: str) -> None:
        """Keep the news of an acknowledgement, if somebody listens.

        :param dropped_for: why it is dropped; empty if Mixpanel has it.
        """
        self.add(id, "dropped" if dropped_for else "acknowledged", dropped_for)

    def tell(self) -> None:
        """Tell what there is."""
        while self._untold and self.listener is not None:
            try:
                self.listener(*self._untold.popleft())
            except Exception:
                logger.exception("What became of a hand-over could not be told.")
