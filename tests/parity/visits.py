"""Visits made twice: by the real browser library, and as this package sees them."""

from __future__ import annotations

import functools
import importlib.util
import json
import pathlib
import re
import subprocess
import typing as t

import needs

BROWSER = pathlib.Path(__file__).with_name("browser.js")

#: Of Matomo's 37,000 user agents, one in this many: a visit takes 2 ms.
EVERY = 6


class Agent(t.NamedTuple):
    """A user agent that somebody's browser had."""

    user_agent: str
    #: ``navigator.vendor``; recorded with it, or what its engine says.
    vendor: str
    recorded: bool


def sent_by_library(visits: list[dict[str, t.Any]]) -> list[dict[str, t.Any]]:
    """What mixpanel-browser sends on each visit: its ``events``, its ``cookie``."""
    done = subprocess.run(
        [needs.need("node"), str(BROWSER), str(needs.need_npm("mixpanel-browser"))],
        input=json.dumps(visits),
        stdout=subprocess.PIPE,
        encoding="utf-8",
        check=True,
    )
    return t.cast("list[dict[str, t.Any]]", json.loads(done.stdout))


def visit(
    agent: Agent,
    url: str = "https://shop.example.com/",
    referrer: str = "",
    title: str = "",
) -> dict[str, t.Any]:
    """A visit, as the stand-in for a browser takes it."""
    return {
        "userAgent": agent.user_agent,
        "vendor": agent.vendor,
        "presto": bool(re.search(r"Presto/|^Opera/| Opera [0-9]", agent.user_agent)),
        "url": url,
        "referrer": referrer,
        "title": title,
    }


@functools.cache
def agents() -> list[Agent]:
    """Distinct real user agents.

    Those of npm's ``user-agents`` were recorded together with the vendor. Those of
    Matomo's device-detector (its Python port installs them) add thousands of phones,
    tablets and in-app browsers; their vendor is that of their engine.
    """
    found = {agent.user_agent: agent for agent in _matomo()}
    found.update((agent.user_agent, agent) for agent in _recorded())
    return list(found.values())


def _recorded() -> t.Iterator[Agent]:
    file = needs.need_npm("user-agents") / "dist" / "user-agents.json"

    for entry in json.loads(file.read_bytes()):
        yield Agent(entry["userAgent"], entry["vendor"], True)


def _matomo() -> t.Iterator[Agent]:
    # Found without importing it: only its lists are wanted.
    spec = importlib.util.find_spec("device_detector")
    assert spec is not None and spec.origin is not None, "install device-detector"
    lists = pathlib.Path(spec.origin).parent / "tests" / "fixtures" / "upstream"
    files = [file for file in lists.rglob("*.yml") if file.stem != "bots"]
    lines = re.findall(
        r"^[ -]+user_agent: (.*)$",
        "\n".join(file.read_text("utf-8") for file in sorted(files)),
        re.MULTILINE,
    )
    user_agents = [re.sub(r"""^(['"])(.*)\1$""", r"\2", line) for line in lines]

    for user_agent in user_agents[::EVERY]:
        # No browser says otherwise of itself, and the library runs in browsers.
        if user_agent.startswith(("Mozilla/", "Opera/")):
            yield Agent(user_agent, _vendor(user_agent), False)


def _vendor(user_agent: str) -> str:
    if re.search(r"Presto/|^Opera/|AppleWebKit", user_agent) is None:
        return ""

    if "Chrome/" in user_agent or "Android" in user_agent:
        return "Google Inc."

    return "Apple Computer, Inc." if "AppleWebKit" in user_agent else ""
