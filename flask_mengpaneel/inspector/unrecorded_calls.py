"""The calls that the app hasn't recorded, or not as a whole."""

from __future__ import annotations

import dataclasses
import json
import sqlite3

from ..calls import Json, dumps
from ..outcome import Unrecorded


@dataclasses.dataclass(slots=True)
class UnrecordedCall:
    """A call that isn't recorded, or goes nowhere; or a part of one."""

    id: int
    #: When it was made, in seconds since the epoch.
    at: float
    #: What the app has told of it.
    told: Unrecorded

    def to_json(self) -> dict[str, Json]:
        """Return what the page is told."""
        told = self.told
        return {
            "id": self.id,
            "at": self.at,
            "name": told.call,
            "event": told.event,
            "reason": told.reason,
            "origin": told.origin,
            "during": told.during,
            "missing": list(told.missing),
            "insertId": told.insert_id,
        }


def keep_unrecorded_call(
    db: sqlite3.Connection, revision: int, at: float, told: Unrecorded
) -> None:
    """Keep a call that isn't recorded."""
    row = (revision, at, dumps(list(told)), told.insert_id)
    db.execute(
        "INSERT INTO unrecorded (revision, at, told, insert_id) VALUES (?, ?, ?, ?)",
        row,
    )


def read_unrecorded_call(row: sqlite3.Row) -> UnrecordedCall:
    """Return the call in a row of the table."""
    call, event, reason, origin, during, missing, insert_id = json.loads(row["told"])
    told = Unrecorded(call, event, reason, origin, during, tuple(missing), insert_id)
    return UnrecordedCall(row["id"], row["at"], told)
