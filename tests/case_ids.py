"""Names for the cases of a test that are the same in each process that runs them."""

from __future__ import annotations

import re


def case_id(value: object) -> str:
    """What a value is, without where in memory it is, or in which order."""
    if isinstance(value, set | frozenset):
        return f"{type(value).__name__}({sorted(value)})"

    return re.sub(r" at 0x\w+", "", ascii(value))
