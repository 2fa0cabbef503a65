"""The calls of a visitor whom nobody has asked for consent yet."""

from __future__ import annotations

import logging
import typing as t

from ..calls import count
from ..outcome import Declined
from .hand_over import HandOver
from .session_storage import store_in_session
from .unrecorded import NO_CONSENT_YET, WAITING

if t.TYPE_CHECKING:
    from ..calls import CallLog
    from ..config import Config
    from ..deliver.ledger import Ledger
    from ..visitor.client import Client
    from .exchange import Exchange
    from .unrecorded import Reporter

logger = logging.getLogger("flask_mengpaneel")


class HeldCalls:
    """Lets calls wait in the session until there is consent."""

    def __init__(self, config: Config, ledger: Ledger, reporter: Reporter) -> None:
        self._config = config
        self._ledger = ledger
        self._reporter = reporter

    def hold_for_consent(self, calls: CallLog, exchange: Exchange) -> None:
        """Keep calls; drop them if the session can't."""
        if not calls.before_setup and not calls.tracking:
            return

        client = exchange.visitor.client

        try:
            entry = store_in_session(calls, exchange, self._config, is_held=True)
        except Declined as reason:
            self.drop(calls, client)
            logger.debug("Calls without consent were dropped: %s", reason)
        else:
            # The ledger has them when there is consent, or when they are lost.
            exchange.handed_over = HandOver.to_session(entry)
            exchange.handed_over.own = calls
            self._reporter.report(calls, WAITING, client)

    def drop(
        self, calls: CallLog, client: Client, reason: str = NO_CONSENT_YET
    ) -> None:
        """Count and report calls that nothing can keep, or that nobody may send."""
        self._reporter.report(calls, reason, client)
        self._ledger.record_dropped(reason, count(calls))
