"""How far a file was imported: kept beside the spool, over the ends of processes."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import typing as t
from pathlib import Path

from .lines import FilePlace, Lines

if t.TYPE_CHECKING:
    from ..config import Config
    from ..deliver.spool import Spool

logger = logging.getLogger("flask_mengpaneel")


@dataclasses.dataclass(slots=True)
class Position:
    """How far a file was imported, and what became of it until there."""

    place: FilePlace | None = None
    #: Events that Mixpanel took, and lines that were refused.
    taken: int = 0
    refused: int = 0


class PositionFile:
    """The position of one file in the import into one project.

    What it says is checked against the file, so that a wrong one does no harm; nor does
    one that is behind, as events that are sent again have the same ids.

    :param path: where it is; ``None``: it isn't kept.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path

    @classmethod
    def of(cls, lines: Lines, config: Config, spool: Spool | None) -> PositionFile:
        """Return the place beside the spool for the position of a file.

        What comes through a pipe has none, as it can't be read again.
        """
        if lines.name is None or spool is None:
            return cls(None)

        # Another project, or the inspector, has nothing of what this one has.
        goal = [config.token, config.api_host, config.inspector, lines.name]
        key = hashlib.blake2b(json.dumps(goal).encode(), digest_size=8).hexdigest()
        return cls(spool.path.with_name(f"{spool.path.name}.import-{key}"))

    def load(self) -> Position:
        """Return the position that was kept last."""
        try:
            kept = json.loads(self.path.read_bytes()) if self.path else {}
            place = FilePlace(
                int(kept["offset"]), int(kept["lines"]), str(kept["digest"])
            )
            return Position(place, int(kept["taken"]), int(kept["refused"]))
        except (OSError, ValueError, LookupError, TypeError):
            return Position()

    def keep(self, position: Position) -> None:
        """Keep a position in the place of the one before."""
        if self.path is None or position.place is None:
            return

        kept = {
            **position.place._asdict(),
            "taken": position.taken,
            "refused": position.refused,
        }
        new = self.path.with_name(f"{self.path.name}.{os.getpid()}")

        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            new.write_text(json.dumps(kept))
            new.chmod(0o600)
            # Whenever the process is killed, one of the two is there as a whole.
            os.replace(new, self.path)
        except OSError as error:
            logger.error("The position of the import can't be kept: %s", error)
            self.path = None
