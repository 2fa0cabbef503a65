"""What it takes to tell browser, system and device from a user agent."""

from __future__ import annotations

import collections.abc as c
import itertools
import statistics
import time
import typing as t

from user_agents import parse

from flask_mengpaneel.visitor.devices import describe

from .pairs import heading

_TEMPLATES = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko)"
    " Chrome/{0}.0.0.{1} Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS {0}_{1} like Mac OS X) AppleWebKit/605.1.15"
    " (KHTML, like Gecko) Version/{0}.{1} Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (Linux; Android {0}; SM-A{1}B) AppleWebKit/537.36 (KHTML, like Gecko)"
    " Chrome/143.0.0.0 Mobile Safari/537.36",
    "Mozilla/5.0 (X11; Linux x86_64; rv:{0}.{1}) Gecko/20100101 Firefox/{0}.{1}",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like"
    " Gecko) Version/{0}.{1} Safari/605.1.15",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko)"
    " Chrome/{0}.0.0.0 Safari/537.36 Edg/{0}.{1}.0.0",
)


def agents() -> list[str]:
    """Distinct user agents of browsers, phones and tablets."""
    versions = itertools.product(range(100, 110), range(10))
    return [
        template.format(major, minor)
        for major, minor in versions
        for template in _TEMPLATES
    ]


def main() -> None:
    """Ask for each user agent twice."""
    heading("A user agent", f"{'':24}{'new, us':>10}{'again, us':>12}  to reach, new")
    some = agents()

    for name, tell, goal in (
        ("flask_mengpaneel", describe, "at most 50 on average"),
        ("user-agents", parse, ""),
    ):
        # The first one compiles patterns and imports what it needs.
        tell("Mozilla/5.0 (X11; Linux x86_64; rv:99.0) Gecko/20100101 Firefox/99.0")
        times = [(_time(tell, agent), _time(tell, agent)) for agent in some]
        new, again = zip(*times, strict=True)
        print(
            f"{name:24}{statistics.mean(new):10.1f}{statistics.median(again):12.2f}"
            f"  {goal}"
        )


def _time(tell: c.Callable[[str], t.Any], agent: str) -> float:
    started = time.perf_counter_ns()
    tell(agent)
    return (time.perf_counter_ns() - started) / 1000
