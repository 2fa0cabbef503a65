"""The app's functions that are asked something in the middle of a call."""

from __future__ import annotations

import collections.abc as c
import contextvars
import typing as t

Answer = t.TypeVar("Answer")


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
            return function(*arguments)
        finally:
            self._is_asked.reset(asked)
