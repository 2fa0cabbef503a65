"""The guard of a test run: nothing that is recorded in it gets to Mixpanel.

The plugin for pytest sets it up, by a variable of the environment, so that processes
which tests start have it too.
"""

from __future__ import annotations

import collections.abc as c
import os
import typing as t

from flask import Blueprint, Response, request

from . import hosts

if t.TYPE_CHECKING:
    from .calls import Json
    from .config import Config

#: Where a test run says that it is one.
VARIABLE = "PYTEST_MENGPANEEL"

#: Where the app stands in for Mixpanel, below the prefix of the extension's paths.
STAND_IN = "guard"


def keeps_calls(config: Config) -> bool:
    """Whether the server sends nothing.

    What is for this machine or the inspector is sent: that is a test's own stand-in.
    """
    return is_up() and not config.inspector and not hosts.is_loopback(config.api_host)


def guarded(options: dict[str, Json], base: str) -> dict[str, Json]:
    """Return the browser library's options without where it is kept from sending.

    :param base: where the app has the extension's paths.
    """
    if not is_up():
        return options

    changed: dict[str, Json] = {}

    if not hosts.is_loopback(str(options.get("api_host") or hosts.CLIENT_HOST)):
        changed["api_host"] = f"{base}/{STAND_IN}"

    # Each kind of record may have a host of its own; without, it goes to the other one.
    if isinstance(by_kind := options.get("api_hosts"), dict):
        changed["api_hosts"] = {
            kind: host for kind, host in by_kind.items() if hosts.is_loopback(str(host))
        }

    return {**options, **changed}


def add_stand_in(blueprint: Blueprint, options: c.Iterable[dict[str, t.Any]]) -> None:
    """Let the app answer the browser library as Mixpanel does.

    :param options: of the rule for each host of the app.
    """

    def stand_in(**_: str) -> Response:
        is_verbose = request.args.get("verbose") == "1"
        return Response('{"status":1}' if is_verbose else "1", mimetype="text/plain")

    for host in options:
        rule = f"/{STAND_IN}/<path:endpoint>"
        blueprint.add_url_rule(
            rule, "stand_in", stand_in, methods=["GET", "POST"], **host
        )


def is_up() -> bool:
    """Whether this is a test run that is guarded."""
    return VARIABLE in os.environ
