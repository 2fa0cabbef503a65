"""The outcome of a flush: which strategy took the calls, why the others declined."""

from __future__ import annotations

import collections.abc as c
import typing as t

if t.TYPE_CHECKING:
    from .calls import Call

#: The statuses of redirects: 304 is none, and 300 doesn't say where to.
REDIRECTS = frozenset({301, 302, 303, 307, 308})


class Declined(Exception):
    """Raised by a strategy that can't take the calls; the message says why."""


class Outcome(t.NamedTuple):
    """The outcome of one flush.

    :param strategy: the name of the strategy that took them.
    :param declined: the reason of each strategy that was asked before, by name.
    :param calls: the calls that were taken, in the order in which they are made.
    :param hand_over: the id under which the server keeps them until a client
        acknowledges them; ``None`` if it doesn't.
    """

    strategy: str
    declined: c.Mapping[str, str]
    calls: c.Sequence[Call]
    hand_over: str | None = None
