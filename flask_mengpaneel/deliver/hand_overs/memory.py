"""Hand-overs that wait in the memory of this process."""

from __future__ import annotations

import collections.abc as c
import marshal
import threading
import time
import typing as t
import zlib

from ... import process
from ...envelope import Envelope
from ...visitor.devices import is_bot
from ..queue import SpoolWrite, row_of, unserialized

CarriedBy: t.TypeAlias = t.Literal["page", "header", "session", "operations"]
#: What has to be known of a hand-over to count it: its carrier, and its records.
Kind: t.TypeAlias = "tuple[CarriedBy, int]"

#: Hand-overs that are compressed together: as many as a dict has room for before it
#: grows to twice its size.
BLOCK_SIZE = 170
#: Bytes of calls that wait as objects.
MAX_AS_OBJECTS_BYTES = 1_000_000
#: Hand-overs that may wait, and the bytes that they may take.
MAX_WAITING = 100_000
MAX_WAITING_BYTES = 64 * 1024 * 1024
#: Half the bytes of level 1. The thread does it, not a request.
_LEVEL = 6

NEVER_SHOWN = "fetched in advance and never shown"
ROBOT = "a robot's page"


class KeptHandOver(t.NamedTuple):
    """What a client was given, and when the server sends it."""

    content: Envelope | bytes
    kind: Kind
    #: When it is overdue, by the monotonic clock.
    due: float
    #: Whether it counts only if the page was shown: it was fetched in advance.
    if_shown: bool
    #: How its request writes it into the spool, if it does.
    write: SpoolWrite | None = None

    @property
    def carrier(self) -> CarriedBy:
        """What it went with."""
        return self.kind[0]

    @property
    def records(self) -> int:
        """How many records it has."""
        return self.kind[1]

    @property
    def envelope(self) -> Envelope:
        """The calls, as the transport takes them."""
        return unserialized(self.content)

    def dropped_for(self, envelope: Envelope) -> str | None:
        """Why it isn't sent when it is overdue, if it isn't.

        :param envelope: its own.
        """
        if self.if_shown:
            return NEVER_SHOWN

        if self.carrier == "page" and is_bot(envelope.user_agent):
            return ROBOT

        return None


class PackedHandOvers:
    """Some hand-overs, compressed together: most of what they have is the same."""

    __slots__ = ("data", "first_due", "last_due", "left")

    def __init__(self, hand_overs: c.Sequence[tuple[str, KeptHandOver]]) -> None:
        dues = [hand_over.due for _, hand_over in hand_overs]
        self.first_due = min(dues)
        self.last_due = max(dues)
        #: Those that still wait. The data keeps all until the last is gone.
        self.left: dict[str, Kind] = {}
        self.data = zlib.compress(
            marshal.dumps(
                [
                    (id, _serialized(one.content), one.due, one.if_shown)
                    for id, one in hand_overs
                ]
            ),
            _LEVEL,
        )

    def unpack(self) -> dict[str, KeptHandOver]:
        """Return those that still wait, as they were."""
        return {
            id: KeptHandOver(content, self.left[id], due, if_shown)
            for id, content, due, if_shown in marshal.loads(zlib.decompress(self.data))
            if id in self.left
        }


def _serialized(content: Envelope | bytes) -> bytes:
    return content if isinstance(content, bytes) else content.to_bytes()


class HandOverMemory:
    """The hand-overs themselves, and their lock, which every user holds but the one
    that adds: a request does so by one step that nothing can interrupt."""

    def __init__(self) -> None:
        self.renew_lock()
        self.recent: dict[str, KeptHandOver] = {}
        self._blocks: list[PackedHandOvers] = []
        #: The same tuple for all hand-overs of a kind.
        self._kinds: dict[Kind, Kind] = {}

    def renew_lock(self) -> None:
        """Take a lock of the kind of threads that there is now."""
        self.threads = process.ThreadKind()
        # Its thread may take it again: the handler of a signal may track.
        self.lock = threading.RLock()

    def __bool__(self) -> bool:
        return bool(self.recent or self._blocks)

    def __len__(self) -> int:
        return len(self.recent) + sum(len(block.left) for block in self._blocks)

    def add(self, id: str, hand_over: KeptHandOver) -> None:
        """Add a hand-over; a request puts it into :attr:`recent` itself."""
        self.recent[id] = hand_over

    def get(self, id: str) -> Kind | None:
        """Return the kind of a hand-over that waits here."""
        if hand_over := self.recent.get(id):
            return hand_over.kind

        block = self._block_of(id)
        return block.left[id] if block else None

    def remove(self, id: str) -> Kind | None:
        """Remove a hand-over; return its kind, ``None`` if it doesn't wait here."""
        if hand_over := self.recent.pop(id, None):
            return hand_over.kind

        if block := self._block_of(id):
            kind = block.left.pop(id)

            if not block.left:
                self._blocks.remove(block)

            return kind

        return None

    def _block_of(self, id: str) -> PackedHandOvers | None:
        # Most are soon acknowledged.
        for block in reversed(self._blocks):
            if id in block.left:
                return block

        return None

    def kinds(self) -> c.Iterator[tuple[Kind, bool]]:
        """The kinds of all, and whether the spool has it: then it is counted there."""
        for hand_over in list(self.recent.values()):
            yield hand_over.kind, bool(row_of(hand_over.write))

        # The handler of a signal may settle one meanwhile, with the same lock.
        for block in list(self._blocks):
            for kind in list(block.left.values()):
                yield kind, False

    def write_of(self, id: str) -> SpoolWrite | None:
        """Return how a request writes it into the spool, if it isn't known yet what
        came of that."""
        hand_over = self.recent.get(id)
        return hand_over.write if hand_over is not None else None

    def written(self) -> list[tuple[str, KeptHandOver]]:
        """Those that a request has written into the spool, or has tried to."""
        return [
            (id, hand_over)
            for id, hand_over in list(self.recent.items())
            if hand_over.write is not None and hand_over.write.done
        ]

    def unpack_due(self, moment: float) -> list[tuple[str, KeptHandOver]]:
        """Return some of those that are due then, the oldest first; they stay here.

        Not all, since those that are packed take little room.
        """
        while True:
            due = self._recent_due(moment)
            blocks = [block for block in self._blocks if block.first_due <= moment]

            if not blocks:
                return due

            first = min(blocks, key=lambda block: block.first_due)

            # What was kept after those in a block goes after them.
            if before := [item for item in due if item[1].due <= first.first_due]:
                return before

            self._unpack(first)

    def _recent_due(self, moment: float) -> list[tuple[str, KeptHandOver]]:
        due = [
            (id, hand_over)
            for id, hand_over in list(self.recent.items())
            if hand_over.due <= moment and hand_over.write is None
        ]
        return sorted(due, key=lambda item: item[1].due)

    def _unpack(self, block: PackedHandOvers) -> None:
        # A request adds without the lock, but nothing of the same id.
        self.recent.update(block.unpack())
        self._blocks.remove(block)

    @property
    def next_due(self) -> float:
        """When the next is due, or has to go because there is no room; never, if there
        is none."""
        if self.horizon() > float("-inf"):
            return time.monotonic()

        dues = [block.first_due for block in self._blocks]
        dues += [hand_over.due for hand_over in list(self.recent.values())]
        return min(dues, default=float("inf"))

    def horizon(self) -> float:
        """Until when those have to be due that there is no room for: minus infinity
        if there is room for all."""
        number = len(self) - MAX_WAITING
        size = sum(len(block.data) for block in self._blocks) - MAX_WAITING_BYTES
        until = float("-inf")

        for block in sorted(self._blocks, key=lambda block: block.first_due):
            if number <= 0 and size <= 0:
                break

            number -= len(block.left)
            size -= len(block.data)
            until = max(until, block.last_due)

        return until

    # From objects to blocks, by the thread.

    def to_pack(self) -> list[list[tuple[str, KeptHandOver]]]:
        """Return what is to be packed: the oldest, if many wait as objects."""
        recent = [item for item in list(self.recent.items()) if item[1].write is None]
        size = sum(_size(hand_over) for _, hand_over in recent)

        # Whole blocks only, unless even a few are large.
        count = len(recent)

        if size < MAX_AS_OBJECTS_BYTES:
            count -= count % BLOCK_SIZE

        # What waits for long and what doesn't come into different blocks.
        recent.sort(key=lambda item: item[1].due)
        return [recent[at : at + BLOCK_SIZE] for at in range(0, count, BLOCK_SIZE)]

    def replace(self, hand_overs: c.Iterable[str], block: PackedHandOvers) -> None:
        """Replace hand-overs by the block that they are packed into, but for those
        that are gone meanwhile."""
        for id in hand_overs:
            if hand_over := self.recent.pop(id, None):
                kind = hand_over.kind
                block.left[id] = self._kinds.setdefault(kind, kind)

        if block.left:
            self._blocks.append(block)


def _size(hand_over: KeptHandOver) -> int:
    content = hand_over.content
    return len(content) if isinstance(content, bytes) else content.size
