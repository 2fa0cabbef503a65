"""The app's functions that are asked something in the middle of a view or call."""

from __future__ import annotations

import collections.abc as c
import contextlib
import contextvars
import typing as t

from flask import current_app

from .proxies import current_flask

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


class _Question:
    """What the app is being asked, and about what.

    :param subject: what it is about, until there is an answer.
    """

    __slots__ = ("subject",)

    def __init__(self, subject: object) -> None:
        self.subject: object = subject


class Asking:
    """Asks a function of the app's, and doesn't ask it again for what it tracks itself:
    that would have no end.

    :param setting: its name.
    """

    def __init__(self, setting: str) -> None:
        self._setting = setting
        #: Contexts that were copied meanwhile, as for a green thread, have them when
        #: they have been answered, too.
        self._questions: contextvars.ContextVar[tuple[_Question, ...]]
        self._questions = contextvars.ContextVar(setting, default=())

    def is_asked(self, subject: object) -> bool:
        """Return whether a function is being asked about this."""
        questions = self._questions.get()
        return bool(questions) and any(one.subject is subject for one in questions)

    def __call__(
        self,
        function: c.Callable[..., Answer],
        *arguments: t.Any,
        subject: object = None,
    ) -> Answer:
        """Return what a function says.

        :param subject: what it is asked about; ``None``: anything of this app.
        :raises RuntimeError: it is being asked already.
        """
        if subject is None:
            subject = current_flask()

        if self.is_asked(subject):
            raise RuntimeError(f"{self._setting} is being asked already")

        question = _Question(subject)
        before = self._questions.set((*self._questions.get(), question))

        try:
            with undisturbed():
                return function(*arguments)
        finally:
            question.subject = None
            self._questions.reset(before)
