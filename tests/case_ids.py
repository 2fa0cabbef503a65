"""Names for the cases of a test that are the same in each process that runs them."""

from __future__ import annotations

import re


def case_id(value: object) -> str:
    """What a value is, without where in memory it is."""
    return re.sub(r" at 0x\w+", "", ascii(value))
