"""Whether a site's pages are ever acknowledged."""

from __future__ import annotations

import logging

logger = logging.getLogger("flask_mengpaneel")

#: Pages that the server sent, after which silence is no coincidence.
MIN_SENT_PAGES = 20


class Silence:
    """Notices that a site's pages are never acknowledged, and says so once."""

    def __init__(self) -> None:
        #: Whether anything has been acknowledged.
        self.was_broken = False
        #: Whether a browser has asked this process for the script.
        self.script_was_served = False
        #: Pages that the server sent since they were overdue.
        self.sent_pages = 0
        self._is_told = False

    def check(self) -> None:
        """Say it, if so many pages were overdue that it is no coincidence."""
        if self.sent_pages < MIN_SENT_PAGES or self.was_broken or self._is_told:
            return

        self._is_told = True
        reason = (
            "Browsers have asked for the script, but what it posts doesn't arrive: see"
            " whether a proxy, a policy or a content blocker keeps it from this app."
            if self.script_was_served
            else "No browser has asked this process for the script: see whether a"
            " Content-Security-Policy, a proxy or a content blocker keeps it from them."
        )
        logger.warning(
            "%d pages were sent by the server after MENGPANEEL_ACK_TIMEOUT, and no"
            " browser has acknowledged any. %s 'flask mengpaneel doctor' looks for it.",
            self.sent_pages,
            reason,
        )
