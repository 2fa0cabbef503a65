"""Acknowledgements of hand-overs that another process has."""

from __future__ import annotations

import collections.abc as c
import typing as t

from .hand_overs.news import NEVER_ACKNOWLEDGED

if t.TYPE_CHECKING:
    from .hand_overs.news import HandOverNews
    from .spool import Row, Spool


class AckKind(t.NamedTuple):
    """What an acknowledgement is of."""

    #: Whether it is of operations, which are kept for longer than events.
    of_operations: bool = False
    #: Why nobody is to make them; empty if Mixpanel has them.
    dropped_for: str = ""


DELIVERED = AckKind()


class AckAges(t.NamedTuple):
    """For how many seconds acknowledgements are remembered: as long as a process may
    keep what they are for."""

    events: float
    operations: float

    def of(self, kind: AckKind) -> float:
        """Return how long those of a kind are."""
        return self.operations if kind.of_operations else self.events


class SharedAcknowledgements(t.Protocol):
    """Where processes leave them for each other.

    Neither method raises: an acknowledgement that gets lost costs a second copy of the
    same events.
    """

    def add(self, ids: c.Collection[str], kind: AckKind = DELIVERED) -> None:
        """Leave acknowledgements for the processes that have these hand-overs."""

    def found(self, ids: c.Collection[str]) -> dict[str, str]:
        """Return those of some hand-overs that others have left one of, each with the
        reason why it is dropped; empty if Mixpanel has it."""
        ...


def found_by(
    shared: c.Iterable[SharedAcknowledgements], ids: c.Collection[str]
) -> dict[str, str]:
    """Return what any of these places has of some hand-overs, as
    :meth:`SharedAcknowledgements.found` does."""
    found: dict[str, str] = {}

    if ids:
        for one in shared:
            found |= one.found(ids)

    return found


def rows_to_send(
    rows: list[Row],
    spool: Spool,
    shared: c.Iterable[SharedAcknowledgements],
    news: HandOverNews,
) -> list[Row]:
    """Return the rows that are to be sent, of some that are leased from the spool.

    The others are overdue hand-overs that were acknowledged to another process, or are
    dropped: those are counted.

    :param news: gets what became of them.
    """
    acknowledged = found_by(shared, [row.hand_over for row in rows if row.hand_over])
    done_with: dict[str, list[int]] = {}
    to_send = []

    for row in rows:
        if not row.hand_over:
            to_send.append(row)
        elif (reason := acknowledged.get(row.hand_over)) is not None:
            done_with.setdefault(reason, []).append(row.id)
            news.add_acknowledged(row.hand_over, reason)
        elif row.dropped_for:
            done_with.setdefault(row.dropped_for, []).append(row.id)
            news.add(row.hand_over, "dropped", row.dropped_for)
        elif not spool.claim(row.hand_over, from_spool=True):
            # A request has made it, whose process didn't get to say so.
            done_with.setdefault("", []).append(row.id)
            news.add(row.hand_over, "settled")
        else:
            # From now on a session that comes back with its operations comes too late.
            to_send.append(row)
            news.add(row.hand_over, "sent", NEVER_ACKNOWLEDGED)

    for reason, ids in done_with.items():
        spool.acknowledge(ids, reason)

    return to_send
