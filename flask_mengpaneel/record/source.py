"""Where in the app a call is recorded."""

from __future__ import annotations

import collections.abc as c
import contextlib
import os
import sys
import sysconfig
import types

from ..calls import Source

_PACKAGE = __name__.partition(".")[0]
#: The modules that record calls of their own accord: no line of the app's made those.
_CHOOSE = f"{_PACKAGE}.choose."
#: What calls the app.
_FRAMEWORKS = frozenset({"celery", "flask", "werkzeug"})
#: Where the code of others is.
_LIBRARIES = tuple(
    f"{path}{os.sep}"
    for name in ("stdlib", "platstdlib", "purelib", "platlib")
    if (path := sysconfig.get_path(name))
)


def find_sources(frame: types.FrameType | None = None) -> list[Source]:
    """Return the lines of the app that record a call: the one that makes it, and then
    that of the view or the job, where it is another.

    :param frame: where to begin; by default here.
    """
    found = list(_frames_of_app(frame or sys._getframe(1)))
    # An app may be installed as libraries are.
    own = [frame for frame in found if not _is_library(frame)] or found
    return [_source(frame) for frame in (own if len(own) < 2 else [own[0], own[-1]])]


def place_of_call() -> str:
    """Return the file and the line of the app that makes the call which is going on;
    empty: none does."""
    frame: types.FrameType | None = sys._getframe(1)

    # The function that asks hasn't made the call, nor has any other of the package.
    while frame is not None and _root(frame) == _PACKAGE:
        frame = frame.f_back

    sources = find_sources(frame)
    return sources[0].place if sources else ""


def _frames_of_app(frame: types.FrameType | None) -> c.Iterator[types.FrameType]:
    """Return what has called the extension, up to where the framework has called it."""
    while frame is not None:
        root = _root(frame)

        if root in _FRAMEWORKS or _module(frame).startswith(_CHOOSE):
            return

        if root != _PACKAGE:
            yield frame

        frame = frame.f_back


def _module(frame: types.FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _root(frame: types.FrameType) -> str:
    return _module(frame).partition(".")[0]


def _is_library(frame: types.FrameType) -> bool:
    return frame.f_code.co_filename.startswith(_LIBRARIES)


def _source(frame: types.FrameType) -> Source:
    path = frame.f_code.co_filename

    # An old release may be deleted while its processes go on.
    with contextlib.suppress(OSError):
        # As short as an editor takes it that was opened in this folder.
        path = path.removeprefix(f"{os.getcwd()}{os.sep}")

    name = frame.f_code.co_qualname.rpartition("<locals>.")[2]
    return Source(f"{path}:{frame.f_lineno}", name)
