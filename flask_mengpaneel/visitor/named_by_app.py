"""The id that the app gives to a visitor without the library's cookie."""

from __future__ import annotations

import collections.abc as c
import logging
import typing as t

from ..asking import Asking
from ..identity import NOBODY, Identity
from ..values import identifier

if t.TYPE_CHECKING:
    from flask import Request

logger = logging.getLogger("flask_mengpaneel")

_asking = Asking("MENGPANEEL_VISITOR")


def is_asked(request: Request | None) -> bool:
    """Return whether the app is being asked who makes a request: until it has said
    so, it is nobody."""
    return request is not None and _asking.is_asked(request)


def ask(visitor: c.Callable[[], object], request: Request) -> Identity:
    """Return who makes a request, as the app says; nobody, if it doesn't.

    :param visitor: the app's callable.
    """
    try:
        named = _asking(visitor, subject=request)
        id = None if named is None else identifier(named, "the id of a visitor")
    except Exception:
        logger.exception("MENGPANEEL_VISITOR failed: the visitor has no name")
        return NOBODY

    identity = Identity.from_ids(None, id)

    if id is not None and not identity:
        logger.error("MENGPANEEL_VISITOR gave %r, which can't be an id", named)

    return identity
