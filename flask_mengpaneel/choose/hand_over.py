"""The calls that a client is given at once, and whose they are."""

from __future__ import annotations

import collections.abc as c
import dataclasses
import typing as t

from ..calls import Call, CallLog
from .operations import riding_records

if t.TYPE_CHECKING:
    from ..calls import Json
    from ..identity import Identity
    from .delayed_calls import Entry


#: Why nobody sends what a visitor was given who has refused since.
CONSENT_REFUSED = "consent was refused"


@dataclasses.dataclass(slots=True)
class HandOver:
    """The calls that a client is given at once."""

    id: str
    #: The calls of the request itself.
    own: CallLog
    #: The entries of the session that go with them.
    entries: list[Entry]
    #: All of these calls.
    calls: CallLog
    #: How many records of the request itself there are.
    records: int
    #: With what the client acknowledges it; ``None``: it is believed.
    token: str | None = None
    #: Whether they wait in the session.
    in_session: bool = False

    @classmethod
    def of(cls, id: str, own: CallLog, entries: list[Entry]) -> HandOver:
        """Make one of the calls of a request, and of what is due with them."""
        calls = merged(*(entry.calls for entry in entries), own) if entries else own
        return cls(id, own, entries, calls, riding_records(own))

    @classmethod
    def to_session(cls, entry: Entry) -> HandOver:
        """Make one of calls that wait in the session."""
        records = riding_records(entry.calls)
        return cls(entry.id, entry.calls, [], entry.calls, records, in_session=True)


def merged(*logs: CallLog) -> CallLog:
    """Put logs together in their order, by stage; the last set-up counts."""
    log = CallLog()

    for one in logs:
        log.size += one.size
        log.before_setup += one.before_setup
        log.tracking += one.tracking

        if one.set_up:
            log.setup = one.setup
            log.set_up = True

    return log


class Naming:
    """Names in each event the person whom it happened to.

    What the caller says of an event wins in the browser library. So whoever sends the
    event, and whenever, sends the same one.

    :param identity: the ids of the visitor before the first call.
    :param defaults: further properties of each event.
    """

    def __init__(
        self, identity: Identity, defaults: c.Mapping[str, Json] | None = None
    ) -> None:
        self._identity = identity
        self._defaults = defaults or {}
        #: Whether it is known of each event whose it is.
        self.is_complete = True

    def name(self, logs: c.Sequence[CallLog]) -> list[CallLog]:
        """Return logs anew, with the ids in their events.

        :param logs: in the order in which they were recorded. They are made together,
            stage by stage, and the last set-up is the one that counts.
        """
        before = [self._named(log.before_setup) for log in logs]
        self._identity = self._identity.after(merged(*logs).setup)
        tracking = [self._named(log.tracking) for log in logs]
        return [
            CallLog(first, log.setup, last, log.set_up, log.size)
            for first, log, last in zip(before, logs, tracking, strict=True)
        ]

    def _named(self, calls: c.Iterable[Call]) -> list[Call]:
        named = []

        for call in calls:
            if call.tracks:
                ids = self._identity.properties
                call = call.with_defaults({**self._defaults, **ids})

                if "distinct_id" not in call.properties:
                    self.is_complete = False
            else:
                self._identity = self._identity.after([call])

            named.append(call)

        return named
