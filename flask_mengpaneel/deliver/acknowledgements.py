"""Acknowledgements of hand-overs that another process has."""

from __future__ import annotations

import collections.abc as c
import typing as t

from .hand_over_news import NEVER_ACKNOWLEDGED

if t.TYPE_CHECKING:
    from .hand_over_news import HandOverNews
    from .spool import Row, Spool


class SharedAcknowledgements(t.Protocol):
    """Where processes leave them for each other.

    Neither method raises: an acknowledgement that gets lost costs a second copy of the
    same events.
    """

    def add(self, ids: c.Collection[str]) -> None:
        """Leave acknowledgements for whoever has these hand-overs."""

    def found(self, ids: c.Collection[str]) -> set[str]:
        """Return those of some hand-overs that others have left one of."""


def found_by(
    shared: c.Iterable[SharedAcknowledgements], ids: c.Collection[str]
) -> set[str]:
    """Return those of some hand-overs that are acknowledged in any of these places."""
    return set[str]().union(*(one.found(ids) for one in shared)) if ids else set()


def without_settled(
    rows: list[Row],
    spool: Spool,
    shared: c.Iterable[SharedAcknowledgements],
    news: HandOverNews,
) -> list[Row]:
    """Count overdue hand-overs, leased from the spool, that were acknowledged to
    another process or aren't sent; return the other rows.

    :param news: gets what became of them.
    """
    acknowledged = found_by(shared, [row.hand_over for row in rows if row.hand_over])
    settled: dict[str, list[int]] = {}
    others = []

    for row in rows:
        id = row.hand_over

        if id in acknowledged:
            settled.setdefault("", []).append(row.id)
            news.add(id, "acknowledged")
        elif row.dropped_for:
            settled.setdefault(row.dropped_for, []).append(row.id)
            news.add(id or "", "dropped", row.dropped_for)
        else:
            others.append(row)

            if id:
                news.add(id, "sent", NEVER_ACKNOWLEDGED)

    for reason, ids in settled.items():
        spool.acknowledge(ids, reason)

    return others
