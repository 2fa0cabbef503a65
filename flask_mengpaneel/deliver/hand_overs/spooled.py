"""Hand-overs that wait in the spool, and acknowledgements of them.

A row that waits to be acknowledged is leased by nobody, and taken by nobody before it
is overdue. Then it is a row as all others: the first that leases it sends it.
"""

from __future__ import annotations

import collections.abc as c
import dataclasses
import json
import sqlite3
import time
import typing as t

from .. import spool_tables as tables
from ..acknowledgements import DELIVERED, AckAges, AckKind
from ..batches import wrap
from ..spool import LEASE, WRITE_TIMEOUT, Spool, Waiting
from .memory import KeptHandOver

if t.TYPE_CHECKING:
    from .news import HandOverNews

#: Why such a row is in the spool.
UNACKNOWLEDGED = "not acknowledged yet"


@dataclasses.dataclass(slots=True, eq=False)
class Withdrawal:
    """What a request takes out of the spool again, and what became of that.

    It is right even if an exception from outside ends the request.
    """

    #: The row that it is in, if the ledger counts it by that.
    rows: list[int] = dataclasses.field(default_factory=list)
    #: The records that were in the spool.
    records: int = 0
    done: bool = False


class SpooledHandOvers:
    """The hand-overs in a spool.

    :param ages: how long acknowledgements are remembered.
    :param news: gets what became of them.
    """

    def __init__(self, spool: Spool, ages: AckAges, news: HandOverNews) -> None:
        self._spool = spool
        self._ages = ages
        self._news = news

    def put(
        self,
        hand_overs: c.Sequence[tuple[str, KeptHandOver, str | None]],
        *,
        rows: list[int] | None = None,
        timeout: float = WRITE_TIMEOUT,
    ) -> bool:
        """Put hand-overs in; ``False`` if that isn't possible.

        :param hand_overs: their ids, and why they are dropped when they are overdue, if
            they are.
        :param rows: as with :meth:`Spool.put`.
        """
        now = time.monotonic()
        stored = self._spool.put(
            [wrap(hand_over.envelope) for _, hand_over, _ in hand_overs],
            UNACKNOWLEDGED,
            rows=rows,
            timeout=timeout,
            waiting=[
                Waiting(id, max(hand_over.due - now, 0.0), reason)
                for id, hand_over, reason in hand_overs
            ],
        )
        return bool(stored)

    def withdraw(self, id: str, withdrawal: Withdrawal) -> None:
        """Take a hand-over of this process out, as if it had never been in, unless
        somebody is sending it."""
        rows = list(withdrawal.rows)

        def delete(connection: sqlite3.Connection) -> None:
            for _, _, records in self._delete(connection, [id], self._spool.process_id):
                withdrawal.records = records
                withdrawal.rows.clear()

        def undo() -> None:
            withdrawal.records = 0
            withdrawal.rows[:] = rows

        if self._spool.exists():
            self._spool.write(delete, None, undo=undo)

    # What processes share.

    def add(self, ids: c.Collection[str], kind: AckKind = DELIVERED) -> None:
        """Leave acknowledgements for the processes that have these hand-overs; those
        that are in the spool are delivered, or dropped."""
        age = self._ages.of(kind)

        def acknowledge(connection: sqlite3.Connection) -> set[str]:
            here: set[str] = set()

            for id, origin, records in self._delete(connection, ids):
                tables.tally(connection, origin, kind.dropped_for, records)
                here.add(id)

            if not self._spool.is_full(connection):
                others = [id for id in ids if id not in here]
                longest = self._ages.operations
                tables.add_acknowledgements(
                    connection, others, kind.dropped_for, age, longest
                )

            return here

        for id in self._spool.write(acknowledge, set[str]()):
            self._news.add_acknowledged(id, kind.dropped_for)

    def found(self, ids: c.Collection[str]) -> dict[str, str]:
        """Return those of some hand-overs that others have left one of, each with the
        reason why it is dropped; empty if Mixpanel has it."""
        if not self._spool.exists():
            return {}

        return self._spool.read(
            lambda connection: tables.acknowledgements(connection, ids),
            dict[str, str](),
        )

    @staticmethod
    def _delete(
        connection: sqlite3.Connection,
        ids: c.Collection[str],
        origin: str | None = None,
    ) -> list[tuple[str, str, int]]:
        """Take hand-overs out that nobody is sending."""
        deleted = connection.execute(
            "DELETE FROM messages"
            " WHERE hand_over IN (SELECT value FROM json_each(:ids))"
            " AND (:origin IS NULL OR origin = :origin)"
            " AND NOT (leased_until BETWEEN :now AND :now + :lease)"
            " RETURNING hand_over, origin, records",
            {
                "ids": json.dumps(list(ids)),
                "origin": origin,
                "now": time.monotonic(),
                "lease": LEASE,
            },
        )
        return t.cast("list[tuple[str, str, int]]", deleted.fetchall())
