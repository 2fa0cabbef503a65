"""Calls that wait for a database's transaction: they leave when it has committed.

Inside of ``on_commit(session)`` a call is recorded like any other: it is checked, and
has its time, its id and its place among the calls of its unit of work. But it is
*pending*.

A session of SQLAlchemy tells when a transaction has committed, and when one has ended;
a savepoint is a transaction within another. One that ends without having committed was
rolled back, whatever did it: ``rollback()``, an error, ``close()``.

| what ends | has it committed? | its pending calls |
|---|---|---|
| a savepoint | yes | wait for the transaction around it |
| a savepoint | no | are dropped |
| the outermost transaction | yes | are calls like any other |
| the outermost transaction | no | are dropped |

A session begins its transaction when it is first used. What is recorded before waits
for the next one; it is dropped if there is none when the app context ends, or when
nobody has the session any more. A call within the blocks of several sessions waits for
all of them.

Flask-SQLAlchemy's ``db.session`` is another session in another app context. A block is
about the one of the context in which it begins: what a context inside of it records, an
eager Celery task's for one, leaves as if there were no block, as it does from a worker.

If the unit of work flushes first, since the response is there or a job has many calls,
its pending calls stay behind: ``choose/uncommitted.py`` has them then, each with the
person whom it was recorded for.
"""

from __future__ import annotations

import collections.abc as c
import contextvars
import threading
import typing as t
import weakref

from flask import appcontext_tearing_down

from .proxies import current_flask, current_g

if t.TYPE_CHECKING:
    from sqlalchemy.orm import Session, SessionTransaction

    from ..calls import Call, Stage
    from ..visitor.visitor import Visitor

#: Where a session has its pending calls.
_KEY = "flask_mengpaneel"
#: Where an app context has those for which no transaction had begun.
_ON_G = "_mengpaneel_not_begun"
#: In the place of a transaction that has not begun yet.
_NOT_BEGUN = 0

#: What visitors say of being tracked; it waits for nothing.
_CONSENT = frozenset({"opt_in_tracking", "opt_out_tracking"})


class DatabaseSession(t.Protocol):
    """A session of SQLAlchemy: of its own class, ``scoped_session``,
    Flask-SQLAlchemy's ``db.session``, ``AsyncSession``."""

    def expunge(self, instance: object) -> None:
        """Take an object out of the session."""


#: The blocks that go on here: the session of each, and its scope where it began.
_blocks: contextvars.ContextVar[tuple[tuple[DatabaseSession, object], ...]]
_blocks = contextvars.ContextVar("mengpaneel_on_commit", default=())


def begin_waiting(session: DatabaseSession) -> None:
    """Let what is recorded here from now on wait for a session."""
    _blocks.set((*_blocks.get(), (session, _scope_of(session))))


def end_waiting(session: DatabaseSession) -> None:
    """Take back the last :func:`begin_waiting` for this session."""
    blocks = list(_blocks.get())

    for position in reversed(range(len(blocks))):
        if blocks[position][0] is session:
            del blocks[position]
            break

    _blocks.set(tuple(blocks))


def awaited_sessions() -> list[DatabaseSession]:
    """Return the sessions that a call waits for which is recorded here and now."""
    return [session for session, scope in _blocks.get() if scope == _scope_of(session)]


def _scope_of(session: DatabaseSession) -> object:
    """Return what tells a scope's sessions apart: Flask-SQLAlchemy has one for each app
    context, others have one for each thread."""
    registry = getattr(session, "registry", None)

    if registry is None:
        return None

    return getattr(registry, "scopefunc", threading.get_ident)()


class Unit(t.Protocol):
    """The unit of work that has recorded a call."""

    def resolve(self, pending: list[Pending], *, commits: bool) -> None:
        """Let calls go, or drop them: what they waited for has ended."""


class Pending:
    """A call that waits.

    :param size: about how many bytes it has.
    :param awaited: how many sessions it waits for.
    """

    __slots__ = (
        "_awaited",
        "call",
        "has_committed",
        "is_dropped",
        "person",
        "replaced",
        "size",
        "stage",
        "strategy",
        "unit",
    )

    def __init__(
        self, unit: Unit, call: Call, stage: Stage, size: int, awaited: int
    ) -> None:
        self.unit = unit
        self.call = call
        self.stage = stage
        self.size = size
        self._awaited = awaited
        #: Whether it has been dropped.
        self.is_dropped = False
        #: Whether all that it waited for has committed.
        self.has_committed = False
        #: The set-up in whose place it comes, if it begins another.
        self.replaced: list[Call] | None = None
        #: Whom it is about, if it has stayed behind when its unit flushed.
        self.person: Visitor | None = None
        #: The strategy that its unit insisted on then.
        self.strategy: str | None = None

    def resolve(self, *, commits: bool) -> bool:
        """Hear what became of one session.

        :return: whether that resolves it.
        """
        if not self._awaited:
            # Another session was rolled back before.
            return False

        self._awaited = self._awaited - 1 if commits else 0
        return not self._awaited


def until_commit(
    unit: Unit,
    call: Call,
    stage: Stage,
    size: int,
    sessions: c.Iterable[DatabaseSession],
) -> Pending | None:
    """Let a call wait for sessions to commit; ``None`` if it waits for nothing."""
    if call.name in _CONSENT:
        return None

    transactions = dict.fromkeys(map(_transactions_of, sessions))
    pending = Pending(unit, call, stage, size, len(transactions))

    for one in transactions:
        one.add(pending)

    return pending


def check_session(session: object) -> None:
    """Check that something can be waited for.

    :raises TypeError: it is no session of SQLAlchemy.
    """
    # Neither an engine, a connection nor Flask-SQLAlchemy's `db` has that. What a scope
    # passes on to its session it has without making one.
    if isinstance(session, type) or not hasattr(session, "expunge"):
        raise TypeError(
            "on_commit takes a session of SQLAlchemy, such as 'db.session', not"
            f" {session!r}"
        )


def _transactions_of(given: t.Any) -> _Transactions:
    # That of a scope, if there is one session in each; and an AsyncSession's own.
    session = given.registry() if hasattr(given, "registry") else given
    session = getattr(session, "sync_session", session)
    transactions: _Transactions | None = session.info.get(_KEY)

    if transactions is None or not transactions.is_of(session):
        transactions = session.info[_KEY] = _Transactions(session)

    return transactions


class _Transactions:
    """The pending calls of one session, by the transaction that they wait for."""

    def __init__(self, session: Session) -> None:
        from sqlalchemy import event

        # The session has this one, and would be kept for good.
        self._session = weakref.ref(session)
        #: By the `id` of the transaction, the oldest calls first.
        self._pending: dict[int, list[Pending]] = {}
        #: The `id` of each that has committed and hasn't ended yet.
        self._committed: set[int] = set()
        # First, as another's function may raise.
        event.listen(session, "after_commit", self._on_commit, insert=True)
        event.listen(session, "after_transaction_end", self._on_end, insert=True)
        weakref.finalize(session, self._abandon).atexit = False

    def is_of(self, session: Session) -> bool:
        """Whether it is this session's: ``info`` may be copied."""
        return self._session() is session

    def add(self, pending: Pending) -> None:
        """Let a call wait for the transaction that is going on."""
        session = self._session()
        assert session is not None, "it is in use"
        transaction = _innermost(session)

        if transaction is None:
            current_g().__dict__.setdefault(_ON_G, {})[id(self)] = self
            # It comes after all functions of the app, which may commit.
            appcontext_tearing_down.connect(_end_context, current_flask())

        key = _NOT_BEGUN if transaction is None else id(transaction)
        self._pending.setdefault(key, []).append(pending)

    def _on_commit(self, session: Session) -> None:
        self._committed.add(id(_innermost(session)))

    def _on_end(self, session: Session, transaction: SessionTransaction) -> None:
        key = id(transaction)
        has_committed = key in self._committed
        self._committed.discard(key)
        pending = self._pending.pop(key, [])

        if transaction.parent is None:
            pending = [*self._pending.pop(_NOT_BEGUN, ()), *pending]
        elif has_committed and pending:
            outer = self._pending.setdefault(id(_innermost(session)), [])
            outer += pending
            return

        _resolve(pending, commits=has_committed)

    def end_context(self) -> None:
        """Drop what waits for a transaction that nobody has begun: the app context
        ends."""
        session = self._session()

        if session is not None and _innermost(session) is None:
            _resolve(self._pending.pop(_NOT_BEGUN, []), commits=False)

    def _abandon(self) -> None:
        """Drop everything: the session is gone, and nobody has closed it."""
        pending, self._pending = self._pending, {}
        _resolve([one for calls in pending.values() for one in calls], commits=False)


def _innermost(session: Session) -> SessionTransaction | None:
    """Return the savepoint or transaction that commits next. A flush has a transaction
    of its own in it, which never does."""
    return session.get_nested_transaction() or session.get_transaction()


def _resolve(pending: list[Pending], *, commits: bool) -> None:
    units: dict[int, list[Pending]] = {}

    for one in pending:
        if one.resolve(commits=commits):
            units.setdefault(id(one.unit), []).append(one)

    for resolved in units.values():
        resolved[0].unit.resolve(resolved, commits=commits)


def _end_context(_app: object, **_extra: object) -> None:
    """Resolve what can't commit any more, as an app context ends."""
    waiting: dict[int, _Transactions] = current_g().__dict__.pop(_ON_G, {})

    for one in waiting.values():
        one.end_context()
