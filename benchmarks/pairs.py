"""Two things measured in turns, so that what disturbs the one disturbs the other."""

from __future__ import annotations

import collections.abc as c
import dataclasses
import gc
import statistics
import time

Action = c.Callable[[], object]


@dataclasses.dataclass(frozen=True)
class Pair:
    """What two actions take, in microseconds.

    :param base: the one, in the median.
    :param above: what the other takes more, in the median of the rounds.
    :param low: the first quartile of it.
    :param high: the third.
    """

    base: float
    above: float
    low: float
    high: float


def compare(base: Action, other: Action, *, calls: int = 20, rounds: int = 400) -> Pair:
    """Measure two actions in many short rounds, each of which has both.

    Rounds of a few milliseconds are mostly not interrupted, and medians forget those
    that were.

    :param calls: how often each is called in a round.
    """
    for _ in range(100):
        base()
        other()

    gc.collect()
    gc.freeze()
    times: list[float] = []
    differences: list[float] = []

    for number in range(rounds):
        # The second in a row is not the same one always.
        if number % 2:
            first, second = _time(base, calls), _time(other, calls)
        else:
            second, first = _time(other, calls), _time(base, calls)

        times.append(first)
        differences.append(second - first)

    low, above, high = statistics.quantiles(differences, n=4)
    return Pair(statistics.median(times), above, low, high)


def _time(action: Action, calls: int) -> float:
    started = time.perf_counter_ns()

    for _ in range(calls):
        action()

    return (time.perf_counter_ns() - started) / calls / 1000


def heading(title: str, columns: str) -> None:
    """Print the head of a table."""
    print(f"\n{title}\n{columns}\n{'-' * len(columns)}", flush=True)
