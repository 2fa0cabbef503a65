"""The plugin for pytest: the fixture ``mengpaneel_calls``, and a guard by which no test
reaches Mixpanel.

It isn't in the package, since who imports from there imports all of it: a test run
that tracks nothing doesn't pay for that.
"""

from __future__ import annotations

import collections.abc as c
import functools
import os
import socket
import traceback
import typing as t

import pytest

if t.TYPE_CHECKING:
    from flask_mengpaneel.testing import RecordedCalls

# The same as in `flask_mengpaneel.guard`.
_VARIABLE = "PYTEST_MENGPANEEL"

_HOST = "mixpanel.com"
#: Where it is said what is reached without a proxy; some programs read only one.
_NO_PROXY = ("no_proxy", "NO_PROXY")
#: What of `socket` looks names up.
_LOOK_UPS = ("getaddrinfo", "gethostbyname", "gethostbyname_ex")
#: Lines of a call stack in a message.
_MAX_FRAMES = 6

P = t.ParamSpec("P")
R = t.TypeVar("R")

_GUARD = pytest.StashKey["Guard"]()


@pytest.fixture
def mengpaneel_calls() -> c.Iterator[RecordedCalls]:
    """The calls that Flask apps with Mengpaneel record in this test, in order,
    whichever way they go; with assertions."""
    from flask_mengpaneel.testing import record_calls

    with record_calls() as calls:
        yield calls


class ReachedForMixpanel(RuntimeError):
    """Something in a test looked for Mixpanel's address."""


class Guard:
    """Sees to it that nothing in a test run gets to Mixpanel."""

    def __init__(self) -> None:
        #: What was refused, and hasn't failed a test yet.
        self.refused: list[str] = []
        self._former_environ = {
            name: os.environ.get(name) for name in (_VARIABLE, *_NO_PROXY)
        }
        self._is_up = False
        #: What looks names up while it is up, and what did before, by name.
        self._guarded: dict[str, t.Any] = {}
        self._former: dict[str, t.Any] = {}

    def set_up(self) -> None:
        """Let the extension keep its calls, and refuse what others would send."""
        # The extension's apps record, also those of servers that tests start.
        os.environ[_VARIABLE] = "1"
        # A proxy would look the name up, where nothing refuses it.
        direct = next(filter(None, map(self._former_environ.get, _NO_PROXY)), None)
        direct = f"{direct},{_HOST}" if direct else _HOST
        os.environ |= dict.fromkeys(_NO_PROXY, direct)
        self._is_up = True

        # What patches sockets, such as gevent, may have come after the first time.
        for name in _LOOK_UPS:
            look_up = getattr(socket, name)

            if look_up is not self._guarded.get(name):
                self._former[name] = look_up
                self._guarded[name] = self._guard(look_up)
                setattr(socket, name, self._guarded[name])

    def take_down(self) -> None:
        """Leave everything as it was."""
        # Others may go on with a function that they have found here.
        self._is_up = False

        for name, former in self._former.items():
            if getattr(socket, name) is self._guarded[name]:
                setattr(socket, name, former)

        for name, value in self._former_environ.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    def _guard(self, look_up: c.Callable[P, R]) -> c.Callable[P, R]:
        @functools.wraps(look_up)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            # Only the first of them takes its host by name.
            self._refuse(args[0] if args else kwargs.get("host"))
            return look_up(*args, **kwargs)

        return guarded

    def _refuse(self, host: object) -> None:
        name = host.decode("ascii", "replace") if isinstance(host, bytes) else host

        if not self._is_up or not isinstance(name, str):
            return

        if f".{name.lower().rstrip('.')}".endswith(f".{_HOST}"):
            message = (
                f"This test reached for {name}, not by the transports of Flask-"
                "Mengpaneel. Nothing was sent: its plugin for pytest lets no test"
                " reach Mixpanel. Put a stand-in in the place of what would have sent."
            )
            # Without this function and the one that called it.
            frames = traceback.extract_stack()[:-2][-_MAX_FRAMES:]
            stack = "".join(traceback.format_list(frames))
            self.refused.append(f"{message}\n\n{stack}")
            raise ReachedForMixpanel(message)

    def check(self) -> None:
        """Fail the test that is running if something was refused in it."""
        if self.refused:
            message = self.refused[0]
            self.refused.clear()
            pytest.fail(message, pytrace=False)


def _set_up(config: pytest.Config) -> None:
    guard = config.stash.get(_GUARD, None)

    if guard is None:
        guard = config.stash[_GUARD] = Guard()
        config.add_cleanup(guard.take_down)

    guard.set_up()


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    # Those may make apps.
    _set_up(early_config)


def pytest_configure(config: pytest.Config) -> None:
    _set_up(config)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> c.Generator[None]:
    guard = item.config.stash[_GUARD]

    try:
        yield
    except BaseException as error:
        # It fails already.
        for message in guard.refused:
            error.add_note(message)

        guard.refused.clear()
        raise

    guard.check()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> c.Generator[None]:
    yield
    item.config.stash[_GUARD].check()
