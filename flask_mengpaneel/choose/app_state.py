"""The parts that belong to one app."""

from __future__ import annotations

import dataclasses
import logging
import typing as t

from ..values import plain

if t.TYPE_CHECKING:
    from ..calls import Json
    from ..config import Config
    from ..deliver.delivery import Delivery
    from ..deliver.hand_overs import HandOvers
    from ..deliver.ledger import Ledger
    from ..outcome import Outcome
    from ..record.manager import Manager
    from ..record.running_views import RunningViews
    from ..transport import Transport
    from .chain import Chain
    from .flusher import Flusher
    from .handing_over import HandingOver
    from .signing import Signer

logger = logging.getLogger("flask_mengpaneel")

# What each event has for itself.
_OWN = frozenset({"time", "$insert_id", "token"})


@dataclasses.dataclass(frozen=True, slots=True)
class AppState:
    """The parts of one app, at ``app.extensions["mengpaneel"]``."""

    config: Config
    ledger: Ledger
    delivery: Delivery
    #: Delivers after the response, by a thread or somewhere else; ``None``: nothing.
    background: Transport | None
    #: Delivers in the request.
    inline: Transport
    #: Of what browsers are given.
    signer: Signer
    #: What clients have been given and haven't acknowledged yet; ``None``: they are
    #: believed.
    hand_overs: HandOvers | None
    handing_over: HandingOver
    chain: Chain
    flusher: Flusher
    running_views: RunningViews

    def default_properties(self) -> dict[str, Json]:
        """Return the properties that the app adds to every event, as they are now."""
        properties = self.config.default_properties

        if properties is None:
            return {}

        try:
            given = plain(properties() if callable(properties) else properties)

            if not isinstance(given, dict):
                raise TypeError(f"it gave {given!r}, which is no dict")
        except Exception:
            logger.exception(
                "MENGPANEEL_DEFAULT_PROPERTIES failed: the event is without"
            )
            return {}

        return {name: given[name] for name in given if name not in _OWN}

    def refuse(self, name: str, error: Exception) -> None:
        """Drop a call that can't be sent."""
        logger.error("mengpaneel.%s was not recorded: %s", name, error, exc_info=error)
        self.ledger.record(1)
        self.ledger.drop("refused when recorded", 1)

    def flush(self, manager: Manager) -> Outcome | None:
        """Send the calls that no response can carry."""
        return self.flusher.flush(manager)

    def flush_late(self, manager: Manager) -> None:
        """Send the calls of a manager where nobody waits for the outcome."""
        self.flusher.flush_late(manager)

    def flush_running(self, manager: Manager) -> None:
        """Send the calls of a view that runs, from a thread that has no context."""
        self.flusher.flush_running(manager)
