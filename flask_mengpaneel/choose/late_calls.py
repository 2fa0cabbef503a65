"""The calls in the session that no page will make: they are another visitor's, or have
waited too long; the server sends them."""

from __future__ import annotations

import collections.abc as c
import contextlib
import time
import typing as t

from ..calls import Call, CallLog
from ..config import MAX_OPERATION_AGE
from ..recently_seen import RecentlySeen
from .hand_over import CONSENT_REFUSED
from .operations import is_of_group, without_group_operations

if t.TYPE_CHECKING:
    from ..config import Config
    from ..deliver.made_once import MadeOnce
    from ..outcome import Outcome
    from ..visitor.client import Client
    from ..visitor.visitor import Visitor
    from .chain import Chain
    from .delayed_calls import Entry
    from .exchange import Exchange
    from .handing_over import HandingOver
    from .held_calls import HeldCalls

# Entries that a process remembers.
_MAX_SETTLED = 10_000


class Sorted(t.NamedTuple):
    """What waits in the session, but what is due with the response."""

    #: What the server sends, as it has waited too long.
    late: c.Sequence[Entry] = ()
    #: What the server sends, as it is other visitors'.
    foreign: c.Sequence[Entry] = ()
    #: What goes on waiting until somebody is identified.
    operations: c.Sequence[Entry] = ()


#: What there is nearly always.
NOTHING_WAITS = Sorted()


class LateCalls:
    """Tells the delayed calls that the server sends from those that are due."""

    def __init__(
        self,
        config: Config,
        chain: Chain,
        handing_over: HandingOver,
        made: MadeOnce,
        held_calls: HeldCalls,
    ) -> None:
        self._config = config
        self._chain = chain
        self._handing_over = handing_over
        self._made = made
        self._held_calls = held_calls
        #: Those that were sent or dropped. A session comes back with them all the same
        #: if no response could change it.
        self._settled = RecentlySeen(_MAX_SETTLED)

    def paused(self) -> contextlib.AbstractContextManager[None]:
        """Remember nothing of what is sent or dropped for a while."""
        return self._settled.paused()

    def sort(self, calls: CallLog, exchange: Exchange) -> Sorted:
        """Find out what of that which waits is due with this response.

        :param calls: those of the request itself, which may say who it is.
        """
        visitor, delayed, policy = exchange.visitor, exchange.delayed, exchange.policy
        may_change = policy.session is None
        # It won't be there for another request.
        ends = policy.session_ends is not None or (delayed.cleared and not may_change)
        late: list[Entry] = []
        foreign: list[Entry] = []
        operations: list[Entry] = []
        due: list[Entry] = []
        result = Sorted(late, foreign, operations)

        if visitor.consent.given is False:
            self._discard(delayed.entries, visitor.client)

            # What this request recorded it recorded before it opted out.
            if may_change:
                delayed.store([])

            return result

        if not may_change and not ends:
            return result

        now = time.time()
        # A visitor who is sent to another site may not come back.
        is_last = (
            not self._chain.replays
            or visitor.client.is_blocked
            or exchange.departure is not None
        )

        for entry in delayed.entries:
            if not entry.is_of(visitor.browser_identity, calls):
                foreign.append(entry)
            elif entry.is_operations:
                # Those that say whose they are, or don't mind, waited for consent.
                is_late = (
                    ends
                    or entry.identity_after.is_identified
                    or all(map(is_of_group, entry.calls))
                    or now - entry.at > MAX_OPERATION_AGE
                )
                (late if is_late else operations).append(entry)
            elif (
                ends
                or is_last
                or now - entry.at > self._config.delayed_max_age
                or entry.id in self._settled
            ):
                late.append(entry)
            else:
                due.append(entry)

        if ends:
            delayed.remove_if_saved()
        elif not visitor.client.is_prefetch:
            exchange.due_entries = due

        return result

    def _discard(self, entries: list[Entry], client: Client) -> None:
        """See to it that nobody sends what its visitor doesn't want to be sent."""
        for entry in self.unsent(one for one in entries if one.is_held):
            self._held_calls.drop(entry.calls, client, CONSENT_REFUSED)

        for entry in entries:
            if not entry.is_held and not self._settled.count(entry.id):
                self._handing_over.discard_entry(entry)

    def send_operations(self, entries: Sorted, exchange: Exchange) -> None:
        """Send late operations, which come before those of the request itself."""
        self._send_late([one for one in entries.late if one.is_operations], exchange)

    def send(self, entries: Sorted, exchange: Exchange) -> None:
        """Send the other calls from the server, and take all out of the session."""
        others = [one for one in entries.late if not one.is_operations]
        self._send_late(others, exchange)

        for entry in self.unsent(entries.foreign):
            self._send_foreign(entry, exchange.visitor)

        if exchange.policy.session is None:
            exchange.delayed.remove([*entries.late, *entries.foreign])

    def _send_late(self, entries: c.Sequence[Entry], exchange: Exchange) -> None:
        visitor = exchange.visitor
        sent: list[Call] = []

        for entry in self.unsent(entries):
            if outcome := self._send_own(entry, visitor):
                sent += outcome.calls
                visitor = visitor.after_unseen(entry.calls, visitor.identity)

        # They were before those of the request itself.
        exchange.sent_by_server = [*sent, *exchange.sent_by_server]

    def send_lost(self, entries: list[Entry], visitor: Visitor) -> None:
        """Send calls from the server whose session is gone."""
        for entry in self.unsent(entries):
            if entry.is_of(visitor.browser_identity, CallLog()):
                self._send_own(entry, visitor)
            else:
                self._send_foreign(entry, visitor)

    def _send_own(self, entry: Entry, visitor: Visitor) -> Outcome | None:
        return self._send(entry, visitor.as_browser_knew(entry.browser_identity))

    def _send_foreign(self, entry: Entry, visitor: Visitor) -> None:
        # The calls themselves say who it became.
        identity = entry.browser_identity or entry.new_identity
        self._send(entry, visitor.as_person(identity))

    def _send(self, entry: Entry, visitor: Visitor) -> Outcome | None:
        calls = without_group_operations(entry.calls, visitor)
        return self._chain.send_from_server(calls, visitor)

    def unsent(self, entries: c.Iterable[Entry]) -> c.Iterator[Entry]:
        """Give the entries that are still to be sent, each once.

        Requests that are under way at once have the same session, and an old cookie
        may come back. What adds up is remembered by all processes.
        """
        for entry in entries:
            if self._settled.count(entry.id):
                continue

            if not entry.is_repeatable and not self._made.claim(entry.id):
                continue

            # What sends them counts them.
            if self._handing_over.take_over(entry):
                yield entry
