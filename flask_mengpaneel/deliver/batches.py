"""Messages packed into batches: each is the body of one request to Mixpanel."""

from __future__ import annotations

import collections.abc as c
import dataclasses
import typing as t

from ..calls import dumps
from ..envelope import Envelope, Message
from ..limits import MAX_BATCH_BYTES, MAX_RECORDS

if t.TYPE_CHECKING:
    from .spool import Row

#: The endpoint of a whole envelope that waits in the spool.
ENVELOPE = "envelope"


@dataclasses.dataclass(slots=True, eq=False)
class Batch:
    """Messages for one endpoint that are sent together.

    :param rows: the rows of the spool that they are in, if they are in the spool.
    :param from_spool: whether they waited there before.
    """

    endpoint: str
    messages: list[Message]
    rows: list[int] = dataclasses.field(default_factory=list)
    from_spool: bool = False

    @property
    def records(self) -> int:
        """How many recorded calls it stands for."""
        return sum(message.records for message in self.messages)

    def has_room_for(self, other: Batch) -> bool:
        """Whether the messages of both fit into one request."""
        if bool(self.rows) != bool(other.rows) or self.from_spool != other.from_spool:
            return False

        messages = [*self.messages, *other.messages]
        return (
            len(messages) <= MAX_RECORDS
            and sum(len(message.json) + 1 for message in messages) < MAX_BATCH_BYTES
        )

    def pick(self, indexes: c.Iterable[int]) -> Batch:
        """Return a batch of some of the messages."""
        chosen = list(indexes)
        return Batch(
            self.endpoint,
            [self.messages[i] for i in chosen],
            [self.rows[i] for i in chosen] if self.rows else [],
            self.from_spool,
        )

    def without(self, indexes: c.Container[int]) -> Batch:
        """Return a batch of the other messages."""
        return self.pick(i for i in range(len(self.messages)) if i not in indexes)

    def halves(self) -> list[Batch]:
        """Return the same messages in two batches."""
        middle = len(self.messages) // 2
        return [
            self.pick(range(middle)),
            self.pick(range(middle, len(self.messages))),
        ]


def pack(messages: c.Iterable[Message], rows: c.Sequence[int] = ()) -> list[Batch]:
    """Pack messages into batches that Mixpanel takes, in order by endpoint.

    :param rows: the rows of the spool that they are in, if they are.
    """
    packed: list[Batch] = []
    last: dict[str, tuple[Batch, int]] = {}

    for index, message in enumerate(messages):
        batch, size = last.get(message.endpoint, (None, 0))
        size += len(message.json) + 1

        if (
            batch is None
            or len(batch.messages) == MAX_RECORDS
            or size > MAX_BATCH_BYTES - 2
        ):
            batch, size = Batch(message.endpoint, []), len(message.json) + 1
            packed.append(batch)

        batch.messages.append(message)

        if rows:
            batch.rows.append(rows[index])

        last[message.endpoint] = batch, size

    return packed


def pack_rows(rows: c.Iterable[Row], *, from_spool: bool = False) -> list[Batch]:
    """Pack messages that are in the spool.

    :param from_spool: whether they waited there before.
    """
    rows = list(rows)
    packed = pack((row.message for row in rows), [row.id for row in rows])

    for batch in packed:
        batch.from_spool = from_spool

    return packed


def wrap(envelope: Envelope) -> Message:
    """Return an envelope as it waits in the spool: its messages aren't built yet."""
    return Message(
        ENVELOPE, dumps(envelope.to_json()), envelope.records, repeatable=True
    )
