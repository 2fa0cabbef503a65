"""The calls in the session that no page will make: they are another visitor's, or have
waited too long; the server sends them."""

from __future__ import annotations

import collections.abc as c
import time
import typing as t

from ..calls import CallLog
from .recently_seen import RecentlySeen

if t.TYPE_CHECKING:
    from ..config import Config
    from ..visitor.visitor import Visitor
    from .chain import Chain
    from .delayed_calls import Entry
    from .exchange import Exchange

# Entries that a process remembers to have sent.
_MAX_SENT = 10_000


class LateCalls:
    """Tells the delayed calls that the server sends from those that are due."""

    def __init__(self, config: Config, chain: Chain) -> None:
        self._config = config
        self._chain = chain
        self._sent = RecentlySeen(_MAX_SENT)

    def sort(
        self, calls: CallLog, exchange: Exchange
    ) -> tuple[list[Entry], list[Entry]]:
        """Find out what of that which waits is due with this response.

        :param calls: those of the request itself, which may say who it is.
        :return: what the server sends instead: what has waited too long, and what is
            other visitors'.
        """
        visitor, delayed, policy = exchange.visitor, exchange.delayed, exchange.policy
        may_change = policy.session is None
        # It won't be there for another request.
        ends = policy.session_ends is not None or (delayed.cleared and not may_change)

        if visitor.consent.given is False:
            # What this request recorded it recorded before it opted out.
            if may_change:
                delayed.store([])

            return [], []

        if not may_change and not ends:
            return [], []

        due: list[Entry] = []
        late: list[Entry] = []
        foreign: list[Entry] = []
        oldest = time.time() - self._config.delayed_max_age
        # Who is sent to another site may not come back.
        is_last = (
            ends
            or not self._chain.replays
            or visitor.client.is_blocked
            or exchange.redirects_offsite
        )

        for entry in delayed.entries:
            if not entry.is_of(visitor.browser_identity, calls):
                foreign.append(entry)
            elif is_last or entry.at < oldest:
                late.append(entry)
            else:
                due.append(entry)

        if ends:
            delayed.remove_if_saved()
        elif not visitor.client.is_prefetch:
            exchange.due_entries = due

        return late, foreign

    def send(self, late: list[Entry], foreign: list[Entry], exchange: Exchange) -> None:
        """Send calls from the server, and take them out of the session."""
        visitor = exchange.visitor

        for entry in self._unsent(late):
            earlier = visitor.as_browser_identity(entry.browser_identity)
            outcome = self._chain.send_from_server(entry.calls, earlier)
            exchange.sent_by_server = [
                *(outcome.calls if outcome else ()),
                *exchange.sent_by_server,
            ]

        for entry in self._unsent(foreign):
            self._send_foreign(entry, visitor)

        if exchange.policy.session is None:
            exchange.delayed.remove([*late, *foreign])

    def send_lost(self, entries: list[Entry], visitor: Visitor) -> None:
        """Send calls from the server whose session is gone."""
        for entry in self._unsent(entries):
            if entry.is_of(visitor.browser_identity, CallLog()):
                earlier = visitor.as_browser_identity(entry.browser_identity)
                self._chain.send_from_server(entry.calls, earlier)
            else:
                self._send_foreign(entry, visitor)

    def _send_foreign(self, entry: Entry, visitor: Visitor) -> None:
        # The calls themselves say who it became.
        person = visitor.as_person(entry.browser_identity or entry.new_identity)
        self._chain.send_from_server(entry.calls, person)

    def _unsent(self, entries: c.Iterable[Entry]) -> c.Iterator[Entry]:
        """Give the entries that this process hasn't sent yet: requests that are under
        way at once have the same session."""
        return (entry for entry in entries if not self._sent.count(entry.id))
