"""An event that is recorded, as the app may look at it and change it."""

from __future__ import annotations

import dataclasses
import typing as t


@dataclasses.dataclass(slots=True)
class TrackedEvent:
    """An event on its way into the record: what ``MENGPANEEL_BEFORE_SEND`` is given,
    and returns.
    """

    #: What happened: ``"Place Order"``.
    name: str
    #: Under what circumstances. Its ids, its ``time``, its ``$insert_id`` and the
    #: ``token`` may be read, but stay as they are.
    properties: dict[str, t.Any] = dataclasses.field(default_factory=dict)
