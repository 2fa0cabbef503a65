"""The lines of a file, and how far it was read."""

from __future__ import annotations

import gzip
import hashlib
import os
import stat
import typing as t

from ..limits import MAX_REQUEST_BYTES

#: Bytes of a line: a record is smaller, however many spaces and escapes are in it.
MAX_LINE_BYTES = MAX_REQUEST_BYTES
_PIECE = 1 << 20
_GZIP = b"\x1f\x8b"


class FilePlace(t.NamedTuple):
    """A place between two lines of a file."""

    #: Bytes before it, after decompression.
    offset: int
    #: Lines before it.
    lines: int
    #: Of all that is before it.
    digest: str


class Lines:
    """The lines of a file, which may be compressed with gzip.

    :param file: what is read.
    """

    def __init__(self, file: t.BinaryIO) -> None:
        self._file = file
        self._is_regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
        self._stream = _decompressed(file)
        self._start()

    def _start(self) -> None:
        self._offset = 0
        self._digest = hashlib.blake2b(digest_size=16)
        #: The number of the last line, from 1 on.
        self.number = 0

    @property
    def name(self) -> str | None:
        """The path of the file; ``None`` if it is none that can be read again."""
        name = getattr(self._file, "name", None)
        is_named = self._is_regular and isinstance(name, str) and name != "<stdin>"
        return os.path.realpath(str(name)) if is_named else None

    @property
    def size(self) -> int | None:
        """The bytes of the file; ``None`` if it has no end yet, such as a pipe."""
        return os.fstat(self._file.fileno()).st_size if self._is_regular else None

    @property
    def bytes_read(self) -> int:
        """How many of these were read, or of what came through a pipe."""
        return self._file.tell() if self._is_regular else self._offset

    @property
    def place(self) -> FilePlace:
        """The place after the last line."""
        return FilePlace(self._offset, self.number, self._digest.hexdigest())

    def next(self) -> bytes | None:
        """Return the next line; ``None``: there is none.

        Of one that is too long the beginning, as many bytes as a line may not have.
        """
        line = self._stream.readline(MAX_LINE_BYTES)

        if not line:
            return None

        self._count(line)
        self.number += 1
        rest = line

        while len(line) == MAX_LINE_BYTES and not rest.endswith(b"\n"):
            if not (rest := self._stream.readline(_PIECE)):
                break

            self._count(rest)

        return line

    def go_to(self, place: FilePlace) -> bool:
        """Go on after a place further on, where the file was read before.

        :return: whether what is before it is what was there. If not, this is at the
            beginning again.
        """
        while (left := place.offset - self._offset) > 0:
            if not (piece := self._stream.read(min(left, _PIECE))):
                break

            self._count(piece)

        if self._offset == place.offset and self._digest.hexdigest() == place.digest:
            self.number = place.lines
            return True

        self._stream.seek(0)
        self._start()
        return False

    def _count(self, piece: bytes) -> None:
        self._offset += len(piece)
        self._digest.update(piece)


def _decompressed(file: t.BinaryIO) -> t.BinaryIO:
    peek = getattr(file, "peek", None)

    if peek is None or peek(2)[:2] != _GZIP:
        return file

    return t.cast(t.BinaryIO, gzip.GzipFile(fileobj=file, mode="rb"))
