"""The app's own word on each event: it is changed, or dropped, before it is kept."""

from __future__ import annotations

import typing as t

from ..asking import Asking
from ..event import TrackedEvent
from ..identity import EVENT_IDS
from . import arguments as checked

if t.TYPE_CHECKING:
    import collections.abc as c

    from ..calls import Call

#: What an event can't lose, get or change: without them it would be another event, or
#: somebody else's.
_FIXED = EVENT_IDS | {"token"}

_asking = Asking("MENGPANEEL_BEFORE_SEND")


def ask(
    before_send: c.Callable[[TrackedEvent], TrackedEvent | None], call: Call
) -> bool:
    """Let the app change an event.

    :return: whether the event is kept.
    :raises Exception: whatever the app's function raises, and what is wrong with the
        event that it has returned.
    """
    given = call.properties
    fixed = {name: given[name] for name in _FIXED if name in given}

    try:
        event = _asking(before_send, TrackedEvent(call.event, given))

        if event is None:
            return False

        if not isinstance(event, TrackedEvent):
            raise TypeError(f"it must return the event or None, not {event!r}")

        name = checked.event_name(event.name)
        properties = checked.properties(event.properties)
    except Exception as error:
        error.add_note("This was in MENGPANEEL_BEFORE_SEND: the event is dropped.")
        raise

    for one in _FIXED:
        properties.pop(one, None)

    call.become(name, {**properties, **fixed})
    return True
