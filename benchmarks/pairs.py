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
    """What two actions take, in microseconds of this thread's processor time.

    :param base: the one, in the median.
    :param above: what the other takes more, in the median of the rounds.
    :param undisturbed: the same between the fastest tenths of either: on a busy
        machine the better number.
    """

    base: float
    above: float
    undisturbed: float


def compare(
    base: Action,
    other: Action,
    *,
    calls: int = 5,
    rounds: int = 1000,
    settle: Action = lambda: None,
) -> Pair:
    """Measure two actions in many short rounds, each of which has both.

    Rounds of less than a millisecond are mostly not interrupted, and medians forget
    those that were.

    :param calls: how often each is called in a round.
    :param settle: called between rounds, and not measured.
    """
    gc.collect()
    gc.freeze()
    # The first ones fill caches.
    measure(base, other, calls=calls, rounds=rounds // 10, settle=settle)
    return pair_of(measure(base, other, calls=calls, rounds=rounds, settle=settle))


def measure(
    base: Action, other: Action, *, calls: int, rounds: int, settle: Action
) -> list[tuple[float, float]]:
    """Return what both take in each of some rounds."""
    times: list[tuple[float, float]] = []

    for number in range(rounds):
        # The second in a row is not the same one always.
        if number % 2:
            one, two = _time(base, calls), _time(other, calls)
        else:
            two, one = _time(other, calls), _time(base, calls)

        settle()
        times.append((one, two))

    return times


def pair_of(times: c.Sequence[tuple[float, float]]) -> Pair:
    """Sum up what some rounds took."""
    ones, twos = zip(*times, strict=True)
    return Pair(
        statistics.median(ones),
        statistics.median(two - one for one, two in times),
        statistics.quantiles(twos, n=10)[0] - statistics.quantiles(ones, n=10)[0],
    )


def _time(action: Action, calls: int) -> float:
    # Not by the clock on the wall, which other processes have a part in.
    started = time.thread_time_ns()

    for _ in range(calls):
        action()

    return (time.thread_time_ns() - started) / calls / 1000


def heading(title: str, columns: str) -> None:
    """Print the head of a table."""
    print(f"\n{title}\n{columns}\n{'-' * len(columns)}", flush=True)
