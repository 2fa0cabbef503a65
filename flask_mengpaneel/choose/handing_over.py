"""Hands the calls of a flush over to a client, and keeps them until it acknowledges."""

from __future__ import annotations

import collections.abc as c
import dataclasses
import typing as t

from ..identity import hex_id
from ..record.context import request_state
from .hand_over import CONSENT_REFUSED, HandOver, Naming
from .operations import riding_records, without_group_operations
from .person import identity_after

if t.TYPE_CHECKING:
    from ..calls import Call, CallLog
    from ..config import Config
    from ..deliver.hand_overs.keeper import HandOvers
    from ..deliver.hand_overs.memory import CarriedBy
    from ..deliver.ledger import Ledger
    from ..identity import Identity
    from ..visitor.visitor import Visitor
    from .delayed_calls import Entry
    from .exchange import Exchange, ResponseState
    from .signing import Signer

#: Seconds for which the server keeps what was fetched in advance, at least: browsers
#: show it within that time or not at all.
#: https://developer.chrome.com/docs/web-platform/prerender-pages
_MAX_ADVANCE = 300.0


class HandingOver:
    """Hands calls over to clients.

    :param hand_overs: keeps them; ``None``: all clients are believed.
    """

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        hand_overs: HandOvers | None,
        signer: Signer,
    ) -> None:
        self._config = config
        self._ledger = ledger
        self._hand_overs = hand_overs
        self._signer = signer

    def turn_off(self) -> None:
        """Believe all clients from now on."""
        self._hand_overs = None

    @property
    def is_on(self) -> bool:
        """Whether clients are asked to acknowledge."""
        return self._hand_overs is not None

    def _timeout(self, exchange: Exchange) -> float:
        """Return for how many seconds a client may take to acknowledge what it is
        given; 0: it is believed."""
        if self._hand_overs is None:
            return 0

        asked = request_state(exchange.request).ack_timeout
        return self._config.ack_timeout if asked is None else asked

    def prepare(
        self, calls: CallLog, exchange: Exchange, *, acknowledges: bool = True
    ) -> HandOver:
        """Prepare to hand over calls, and what is due of those that wait.

        :param acknowledges: whether the client says that it will.
        """
        id, entries = hex_id()[:16], exchange.due_entries
        timeout = self._timeout(exchange) if acknowledges else 0

        if timeout:
            known = exchange.known_identity
            own, due, is_complete = _named(calls, exchange, known)

            # Where the browser alone knows who this is, what the server sends instead
            # is nobody's. An app for phones knows it as well, and makes its calls.
            if is_complete or exchange.visitor.client.is_browser:
                hand_over = HandOver.of(id, own, due)

                if hand_over.records or riding_records(hand_over.calls):
                    hand_over.token = self._signer.token(id)
                    hand_over.timeout = timeout
                    hand_over.browser_identity = known
                    return hand_over

        hand_over = HandOver.of(id, calls, entries)
        hand_over.browser_identity = exchange.visitor.browser_identity
        return hand_over

    def complete(
        self, hand_over: HandOver, exchange: Exchange, carrier: CarriedBy
    ) -> None:
        """Count what the client has got, and keep it if that is to be acknowledged."""
        exchange.handed_over = hand_over

        if hand_over.token is None:
            self.believe(hand_over.records)
            return

        visitor = exchange.visitor

        if hand_over.browser_identity is not visitor.browser_identity:
            # Its events have the ids that a new visitor gets with it.
            visitor.identity_sent = True

        is_advance = visitor.client.is_prefetch

        if is_advance:
            hand_over.timeout = max(hand_over.timeout, _MAX_ADVANCE)

        self._keep(hand_over, visitor, carrier, if_shown=is_advance)

    def to_session(
        self, entry: Entry, exchange: Exchange, carrier: CarriedBy, timeout: float
    ) -> HandOver:
        """Count what waits in the session, and keep it until that is taken up.

        :param timeout: seconds after which the server sends it itself.
        """
        hand_over = HandOver.to_session(entry)

        if self._hand_overs is None:
            self.believe(hand_over.records)
        elif hand_over.records:
            hand_over.token = self._signer.token(entry.id)
            hand_over.timeout = timeout
            hand_over.browser_identity = exchange.known_identity
            self._keep(hand_over, exchange.visitor, carrier)

        return hand_over

    def _keep(
        self,
        hand_over: HandOver,
        visitor: Visitor,
        carrier: CarriedBy,
        *,
        if_shown: bool = False,
    ) -> None:
        """Keep calls until somebody says what has become of them."""
        assert self._hand_overs is not None, "somebody keeps them"
        calls = without_group_operations(hand_over.calls, visitor)
        # A device of which the browser will never know would be one more.
        known = hand_over.browser_identity or visitor.known_identity
        envelope = visitor.envelope(calls, known)
        self._hand_overs.keep(
            hand_over.id, envelope, carrier, hand_over.timeout, if_shown=if_shown
        )

    def withdraw(self, hand_over: HandOver) -> None:
        """Take calls back that the client or the session doesn't get after all."""
        if hand_over.token is None:
            self.believe(-hand_over.records)
        elif self._hand_overs is not None:
            self._hand_overs.withdraw(hand_over.id)

    def take_up(self, former: ResponseState) -> None:
        """Keep what has waited in the session no longer, as a response has it."""
        hand_over = former.handed_over

        if self._hand_overs is None or hand_over is None:
            return

        for entry in hand_over.entries:
            if hand_over.token is None:
                self._hand_overs.acknowledge([entry.id])
            else:
                self._hand_overs.settle(entry.id)

    def take_over(self, entry: Entry) -> bool:
        """Keep no longer what waits in the session: the server sends it, and counts it.

        :return: ``False`` if it has sent it already, since it was overdue.
        """
        if self._hand_overs is not None:
            return self._hand_overs.take_over(
                entry.id, has_operations=entry.is_operations
            )

        if not entry.is_held:
            self.believe(-entry.records)

        return True

    def discard_entry(self, entry: Entry) -> None:
        """Drop what waits in the session of a visitor who has refused since."""
        if self._hand_overs is not None:
            self._hand_overs.discard(
                entry.id,
                entry.records,
                CONSENT_REFUSED,
                has_operations=entry.is_operations,
            )
        else:
            self.believe(-entry.records)
            self._ledger.record_dropped(CONSENT_REFUSED, entry.records)

    def settle_returned(
        self, token: t.Any, calls: c.Sequence[Call], positions: c.Iterable[int]
    ) -> None:
        """Keep calls no longer of which a client hands some back, for the server.

        :param token: of their hand-over, as the client says.
        :param positions: of those that are handed back; the others have arrived.
        """
        id = self._signer.id_of(token) if isinstance(token, str) else None

        if id is not None and self._hand_overs and self._hand_overs.settle(id):
            returned = riding_records(calls[position] for position in positions)
            self.believe(riding_records(calls) - returned)

    def discard(
        self, token: t.Any, calls: c.Sequence[Call], positions: c.Iterable[int]
    ) -> None:
        """Drop calls that a client hands back whose visitor has refused since.

        :param token: of their hand-over, as the client says.
        :param positions: of those that are handed back; the others have arrived.
        """
        id = self._signer.id_of(token) if isinstance(token, str) else None

        if id is None or not self._hand_overs:
            return

        returned = riding_records(calls[position] for position in positions)
        arrived = riding_records(calls) - returned

        if not arrived:
            self._hand_overs.discard(id, returned, CONSENT_REFUSED)
        elif self._hand_overs.settle(id):
            self.believe(arrived)
            self._ledger.record_dropped(CONSENT_REFUSED, returned)

    def believe(self, records: int) -> None:
        """Count records as delivered: nobody will say more of them."""
        with self._ledger.transfer():
            self._ledger.record(records)
            self._ledger.deliver(records)


def _named(
    calls: CallLog, exchange: Exchange, known: Identity
) -> tuple[CallLog, list[Entry], bool]:
    """Return calls, and what is due with them, with the ids in each event of which it
    is known whose it is; and whether it is of all of them.

    :param known: the ids that the browser has with the response.
    """
    entries = exchange.due_entries

    if exchange.before:
        # What is due is made first, and changes what it changes.
        earlier = [entry for entry in exchange.before if entry not in entries]
        known = identity_after(earlier, known)

    naming = Naming(known)
    *others, own = naming.name([*[entry.calls for entry in entries], calls])
    named = [
        dataclasses.replace(entry, calls=log)
        for entry, log in zip(entries, others, strict=True)
    ]
    return own, named, naming.is_complete
