"""Where a request's steps go: the calls of functions, by the file that makes them.

``python -m benchmarks --steps``. What is left out of a request costs no more than the
steps that it takes.
"""

from __future__ import annotations

import collections
import collections.abc as c
import logging
import os
import sys
import textwrap
import types

from flask import Flask

import flask_mengpaneel

from .pairs import Action
from .request_rows import Actions, rows
from .sink import sink

_PACKAGE = os.path.dirname(flask_mengpaneel.__file__) + os.sep

#: Who makes the steps that no file of the package makes: Flask does, which looks into
#: each hook that it calls.
OUTSIDE = "Flask"


def main() -> None:
    """Print the steps of each request that has a goal, the files with most first."""
    logging.disable()

    with sink() as url:
        for row in rows():
            if row.goal:
                parts = steps_above(row.make(url))
                most = ", ".join(f"{part} {count}" for part, count in parts.items())
                print(f"\n{row.table}: {row.name}: {sum(parts.values())}")
                print(textwrap.fill(most, 86, break_on_hyphens=False), flush=True)


def steps_above(actions: Actions) -> dict[str, int]:
    """Return the steps that a request makes more than the one to the plain app, by the
    file of the package that makes them, or lets others make them."""
    plain, other, _ = actions
    left = collections.Counter(name for name, _ in _usual(plain))
    parts: collections.Counter[str] = collections.Counter()

    for name, part in _usual(other):
        # Both make it, perhaps one of them by way of the package.
        if left[name]:
            left[name] -= 1
        else:
            parts[part] += 1

    parts[OUTSIDE] -= left.total()
    return dict(parts.most_common())


#: What is called, and the file of the package that is at work then.
_Step = tuple[c.Hashable, str]


def _usual(action: Action) -> list[_Step]:
    """Return the steps of an action, when it is made often."""
    # The first ones fill caches.
    made = sorted([_steps(action) for _ in range(25)][10:], key=len)
    return made[len(made) // 2]


def _steps(action: Action) -> list[_Step]:
    steps: list[_Step] = []

    def note(frame: types.FrameType, event: str, argument: object) -> None:
        if event == "call":
            steps.append((frame.f_code, _part(frame)))
        elif event == "c_call":
            name = getattr(argument, "__qualname__", "")
            steps.append(((frame.f_code, frame.f_lineno, name), _part(frame)))

    sys.setprofile(note)

    try:
        action()
    finally:
        sys.setprofile(None)

    return steps


def _part(at_work: types.FrameType) -> str:
    frame: types.FrameType | None = at_work

    # What is called in front of Flask isn't at work while Flask is.
    while frame is not None and frame.f_code is not Flask.wsgi_app.__code__:
        if frame.f_code.co_filename.startswith(_PACKAGE):
            return frame.f_code.co_filename.removeprefix(_PACKAGE)

        frame = frame.f_back

    return OUTSIDE
