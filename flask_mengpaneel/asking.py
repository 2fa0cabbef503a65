"""The app's functions that are asked something in the middle of a view or call."""

from __future__ import annotations

import collections.abc as c
import contextlib
import contextvars
import typing as t

from flask import current_app

Answer = t.TypeVar("Answer")


def undisturbed() -> contextlib.AbstractContextManager[object]:
    """Within the block, write nothing that a view is only about to write.

    SQLAlchemy writes all that is new in a session before it reads anything. A function
    that is asked would read, such as who has signed in, and what the view has half made
    would fail, and the view with it.
    """
    database: t.Any = current_app.extensions.get("sqlalchemy") if current_app else None
    session: t.Any = getattr(database, "session", None)
    registry = getattr(session, "registry", None)

    # Who has no session yet has nothing to write.
    if registry is None or not registry.has():
        return contextlib.nullcontext()

    no_autoflush: contextlib.AbstractContextManager[object] = session.no_autoflush
    return no_autoflush


class Asking:
    """Asks a function of the app's, and doesn't ask it again for what it tracks itself:
    that would have no end.

    :param setting: its name.
    """

    def __init__(self, setting: str) -> None:
        self._setting = setting
        self._is_asked = contextvars.ContextVar(setting, default=False)

    def __call__(self, function: c.Callable[..., Answer], *arguments: t.Any) -> Answer:
        """Return what a function says.

        :raises RuntimeError: it is being asked already.
        """
        if self._is_asked.get():
            raise RuntimeError(f"{self._setting} is being asked already")

        asked = self._is_asked.set(True)

        try:
            with undisturbed():
                return function(*arguments)
        finally:
            self._is_asked.reset(asked)
