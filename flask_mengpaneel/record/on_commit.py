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
for the next one; it is dropped if there is none when the app context ends in which the
block began, or when nobody has the session any more. A call within the blocks of
several sessions waits for all of them.

A scope has one session in each app context, thread or task: Flask-SQLAlchemy's
``db.session``, a ``scoped_session``. A block is about the one where it begins: what is
recorded in another, in an eager Celery task for one, or where no scope is, leaves as if
there were no block, as it does from a worker.

If the unit of work flushes first, since the response is there or a job has many calls,
its pending calls stay behind: ``choose/uncommitted.py`` has them then, each with the
person whom it was recorded for.
"""

from __future__ import annotations

import collections.abc as c
import contextlib
import contextvars
import itertools
import threading
import typing as t
import weakref

from flask import appcontext_tearing_down, current_app
from werkzeug.local import LocalProxy

from ..proxies import current_g

if t.TYPE_CHECKING:
    from sqlalchemy.orm import Session, SessionTransaction

    from ..calls import Call, Stage
    from ..visitor.visitor import Visitor

#: Where a session has its pending calls.
_KEY = "flask_mengpaneel"
#: Where an app context has those for which no transaction had begun.
_ON_G = "_mengpaneel_not_begun"

#: What visitors say of being tracked; it waits for nothing.
_CONSENT = frozenset({"opt_in_tracking", "opt_out_tracking"})


class DatabaseSession(t.Protocol):
    """A session of SQLAlchemy: of its own class, ``scoped_session``,
    Flask-SQLAlchemy's ``db.session``, ``AsyncSession``."""

    def expunge(self, instance: object) -> None:
        """Take an object out of the session."""


class OnCommitBlock:
    """Lets what is recorded in it wait for a session.

    It is about the session of the scope in which it begins: Flask-SQLAlchemy has one
    for each app context, others have one for each thread or task.

    :raises Exception: no scope is active that could have the session.
    """

    __slots__ = ("_given", "_scope", "is_open", "on_g")

    def __init__(self, given: DatabaseSession) -> None:
        self._given = given
        self._scope = _scope_of(given)
        #: Other contexts may have it when it has ended, and others may end it: a
        #: thread's copy, or a generator's.
        self.is_open = True
        #: What lasts as long as the app context in which it begins, if there is one.
        self.on_g = current_g().__dict__ if current_app else None

    @property
    def is_here(self) -> bool:
        """Whether the scope here and now is its own."""
        try:
            return bool(self._scope == _scope_of(self._given))
        except Exception:
            # No scope is active that could have the session, or commit it.
            return False

    def transactions(self) -> _Transactions:
        """Return the pending calls of the session."""
        session = _session_of(self._given)
        transactions: _Transactions | None = session.info.get(_KEY)

        if transactions is None or not transactions.is_of(session):
            transactions = session.info[_KEY] = _Transactions(session)

        return transactions


#: The blocks that have begun here.
_blocks: contextvars.ContextVar[tuple[OnCommitBlock, ...]]
_blocks = contextvars.ContextVar("mengpaneel_on_commit", default=())


def begin_waiting(session: DatabaseSession) -> OnCommitBlock:
    """Let what is recorded here from now on wait for a session."""
    block = OnCommitBlock(session)
    _blocks.set((*_open(), block))
    return block


def end_waiting(block: OnCommitBlock) -> None:
    """End a block, wherever it has begun."""
    block.is_open = False
    _blocks.set(_open())


def last_block(entered: list[OnCommitBlock]) -> OnCommitBlock:
    """Take out the last of some blocks that began here, or else the last of them all:
    Python's garbage collector ends a generator wherever it is."""
    here = _blocks.get()
    last = next((one for one in reversed(here) if one in entered), entered[-1])
    entered.remove(last)
    return last


@contextlib.contextmanager
def outside_blocks() -> c.Iterator[None]:
    """Let what is recorded within wait for nothing."""
    before = _blocks.set(())

    try:
        yield
    finally:
        _blocks.reset(before)


def _open() -> tuple[OnCommitBlock, ...]:
    return tuple(block for block in _blocks.get() if block.is_open)


def awaited_blocks() -> list[OnCommitBlock]:
    """Return the blocks that a call is in which is recorded here and now."""
    blocks = _blocks.get()

    # Each call asks, and hardly any is in one.
    if not blocks:
        return []

    return [block for block in blocks if block.is_open and block.is_here]


def _current(given: t.Any) -> t.Any:
    """Return what is meant here, where it is one of Werkzeug's proxies."""
    return given._get_current_object() if isinstance(given, LocalProxy) else given


def _scope_of(given: DatabaseSession) -> object:
    """Return what tells the scope here from others, in each of which what is given is
    another session; ``None`` if it is the same one everywhere."""
    session = _current(given)
    registry = getattr(session, "registry", None)

    if not callable(registry):
        return None if session is given else session

    from sqlalchemy.util import ThreadLocalRegistry

    if isinstance(registry, ThreadLocalRegistry):
        return threading.get_ident()

    scope = getattr(registry, "scopefunc", None)
    return registry() if scope is None else _current(scope())


def _session_of(given: DatabaseSession) -> t.Any:
    session = _current(given)
    registry = getattr(session, "registry", None)
    session = registry() if callable(registry) else session
    # An AsyncSession has one.
    return getattr(session, "sync_session", session)


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
            # Another session was rolled back before, or the call is the parent's.
            return False

        self._awaited = self._awaited - 1 if commits else 0
        return not self._awaited

    def leave_to_parent(self) -> None:
        """Wait for nothing: this process is a copy of the one that has the call, and so
        are its sessions."""
        self._awaited = 0


def until_commit(
    unit: Unit,
    call: Call,
    stage: Stage,
    size: int,
    blocks: c.Iterable[OnCommitBlock],
) -> Pending | None:
    """Let a call wait for the sessions of blocks; ``None`` if it waits for nothing."""
    if call.name in _CONSENT:
        return None

    # As the innermost block says.
    sessions = {block.transactions(): block for block in blocks}
    pending = Pending(unit, call, stage, size, len(sessions))

    for transactions, block in sessions.items():
        transactions.add(pending, block)

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


class _Transactions:
    """The pending calls of one session, by the transaction that they wait for."""

    def __init__(self, session: Session) -> None:
        from sqlalchemy import event

        # The session has this one, and would be kept for good.
        self._session = weakref.ref(session)
        #: By the `id` of the transaction, the oldest calls first.
        self._pending: dict[int, list[Pending]] = {}
        #: Those for the next one, by the `id` of what their app context has.
        self._not_begun: dict[int, list[Pending]] = {}
        #: The `id` of each that has committed and hasn't ended yet.
        self._committed: set[int] = set()
        # First, as another's function may raise.
        event.listen(session, "after_commit", self._on_commit, insert=True)
        event.listen(session, "after_transaction_end", self._on_end, insert=True)
        weakref.finalize(session, self._abandon).atexit = False

    def is_of(self, session: Session) -> bool:
        """Whether it is this session's: ``info`` may be copied."""
        return self._session() is session

    def add(self, pending: Pending, block: OnCommitBlock) -> None:
        """Let a call of a block wait for the transaction that is going on."""
        session = self._session()
        assert session is not None, "it is in use"
        transaction = _innermost(session)

        if transaction is not None:
            self._pending.setdefault(id(transaction), []).append(pending)
            return

        self._not_begun.setdefault(id(block.on_g), []).append(pending)

        if block.on_g is not None:
            block.on_g.setdefault(_ON_G, set()).add(self)
            # It comes after all functions of the app, which may commit.
            appcontext_tearing_down.connect(_end_context)

    def _on_commit(self, session: Session) -> None:
        self._committed.add(id(_innermost(session)))

    def _on_end(self, session: Session, transaction: SessionTransaction) -> None:
        key = id(transaction)
        has_committed = key in self._committed
        self._committed.discard(key)
        pending = self._pending.pop(key, [])

        if transaction.parent is None:
            not_begun, self._not_begun = self._not_begun, {}
            pending = [*itertools.chain.from_iterable(not_begun.values()), *pending]
        elif has_committed and pending:
            outer = self._pending.setdefault(id(_innermost(session)), [])
            outer += pending
            return

        _resolve(pending, commits=has_committed)

    def end_context(self, on_g: dict[str, t.Any]) -> None:
        """Drop what waits for a transaction that nobody has begun: the app context
        ends."""
        session = self._session()

        if session is not None and _innermost(session) is None:
            _resolve(self._not_begun.pop(id(on_g), []), commits=False)

    def _abandon(self) -> None:
        """Drop everything: the session is gone, and nobody has closed it."""
        pending, self._pending = self._pending, {}
        not_begun, self._not_begun = self._not_begun, {}
        groups = itertools.chain(pending.values(), not_begun.values())
        _resolve([*itertools.chain.from_iterable(groups)], commits=False)


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
    on_g = current_g().__dict__
    waiting: set[_Transactions] = on_g.pop(_ON_G, set())

    for one in waiting:
        one.end_context(on_g)
