"""What serves an app: a server, which may allow no threads and have other processes
beside this one, or a platform."""

from __future__ import annotations

import collections.abc as c
import importlib
import os
import re
import sys
from pathlib import Path

#: Servers that take the number of their processes as ``-w`` or ``--workers``.
_SERVERS = {"gunicorn", "hypercorn", "uvicorn"}


def may_be_killed() -> bool:
    """Whether this process is ended by force: the development server's reloader does
    so to its child when it gets a SIGTERM itself."""
    return os.environ.get("WERKZEUG_RUN_MAIN") == "true"


def threads_allowed() -> bool:
    """Whether threads run here: uWSGI stops them unless it is told otherwise."""
    try:
        # Exists only inside of uWSGI.
        options = importlib.import_module("uwsgi").opt
    except ImportError:
        return True

    return bool(options.get("enable-threads") or options.get("threads"))


def after_response(work: c.Callable[[], None]) -> bool:
    """Let the platform do work when the response has left; ``False`` if it can't."""
    if not os.environ.get("VERCEL"):
        return False

    try:
        module = importlib.import_module("vercel.wait_until")
        # Where nothing does the work, `wait_until` takes it and forgets it.
        offered = module._cv_wait_until.get() is not None
    except (ImportError, AttributeError):
        return False

    if offered:
        module.wait_until(work)

    return offered


def number_of_workers() -> int:
    """Return how many processes serve the app, as far as the server, its command line
    and the environment tell.

    https://docs.gunicorn.org/en/stable/settings.html#workers
    https://uwsgi-docs.readthedocs.io/en/latest/PythonModule.html
    """
    if (uwsgi := sys.modules.get("uwsgi")) is not None:
        return int(getattr(uwsgi, "numproc", 1))

    arguments = [os.environ.get("GUNICORN_CMD_ARGS", "")]
    program, *own = sys.argv or [""]

    # The program, or the folder of a module that is run.
    if not _SERVERS.isdisjoint(Path(program).parts[-2:]):
        arguments += own

    found = re.findall(r"(?:^|\s)(?:-w|--workers)[ =]?(\d+)", " ".join(arguments))
    told = found[-1] if found else os.environ.get("WEB_CONCURRENCY", "")
    return int(told) if told.isdecimal() else 1
