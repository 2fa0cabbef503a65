"""Acknowledgements of hand-overs that another process has."""

from __future__ import annotations

import collections.abc as c
import typing as t


class SharedAcknowledgements(t.Protocol):
    """Where processes leave them for each other.

    Neither method raises: an acknowledgement that gets lost costs a second copy of the
    same events.
    """

    def add(self, ids: c.Collection[str]) -> None:
        """Leave acknowledgements for whoever has these hand-overs."""

    def found(self, ids: c.Collection[str]) -> set[str]:
        """Return those of some hand-overs that others have left one of."""
