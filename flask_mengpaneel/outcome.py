"""What becomes of calls: which strategy took them, or why they go nowhere."""

from __future__ import annotations

import collections.abc as c
import typing as t

if t.TYPE_CHECKING:
    from .calls import Call

#: The statuses of redirects: 304 is none, and 300 doesn't say where to.
REDIRECTS = frozenset({301, 302, 303, 307, 308})

# Characters of an event's name that a message repeats.
_MAX_EVENT = 100


class Declined(Exception):
    """Raised by a strategy that can't take the calls; the message says why."""


class Unrecorded(t.NamedTuple):
    """A call that isn't recorded, or doesn't go anywhere; or a part of one.

    :param call: the method: ``track``, ``people.set``.
    :param event: the name of the event, if it tracks one.
    :param reason: why, in words.
    :param origin: the file and the line of the app in which it is made, if known.
    :param during: the request in which it is made.
    :param missing: where in its arguments is what isn't recorded; empty for all of it.
    :param insert_id: the id of the event, if it has one already.
    """

    call: str
    event: str
    reason: str
    origin: str = ""
    during: str = ""
    missing: tuple[str, ...] = ()
    insert_id: str = ""

    def __str__(self) -> str:
        event = f"event {self.event[:_MAX_EVENT]!r}" if self.event else ""
        where = ", ".join(filter(None, (event, self.origin, self.during)))
        # What has an id has been recorded; so has what doesn't know its line any more,
        # such as an operation that waits.
        is_recorded = self.insert_id or not self.origin
        lost = " was not sent:" if is_recorded else " was not recorded:"
        colon = ":" if self.missing else lost
        return f"mengpaneel.{self.call}{colon} {self.reason}" + (
            f" ({where})" if where else ""
        )


class Outcome(t.NamedTuple):
    """The outcome of one flush.

    :param strategy: the name of the strategy that took them.
    :param declined: the reason of each strategy that was asked before, by name.
    :param calls: the calls that were taken, in the order in which they are made.
    :param hand_over: the id under which the server keeps them until a client
        acknowledges them; ``None`` if it doesn't.
    :param is_client_side: whether the client makes them; else the server does.
    """

    strategy: str
    declined: c.Mapping[str, str]
    calls: c.Sequence[Call]
    hand_over: str | None = None
    is_client_side: bool = False
