"""What is remembered, and what is forgotten."""

from __future__ import annotations

import os
import threading

import pytest

from flask_mengpaneel.recently_seen import RecentlySeen


def test_what_was_seen_longest_ago_is_forgotten_first() -> None:
    seen = RecentlySeen(2)
    assert [seen.count(thing) for thing in "abacab"] == [0, 0, 1, 0, 2, 0]


class Slow:
    """Something that takes its time to be looked for, with the lock held."""

    def __init__(self) -> None:
        self.is_looked_for, self.may_be_found = threading.Event(), threading.Event()

    def __hash__(self) -> int:
        self.is_looked_for.set()
        self.may_be_found.wait(60)
        return 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks")
# It is what is tested.
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_child_goes_on_that_was_forked_while_another_thread_counted() -> None:
    seen, slow = RecentlySeen(2), Slow()
    seen.count("a")
    thread = threading.Thread(target=seen.count, args=(slow,))
    thread.start()
    assert slow.is_looked_for.wait(60)

    if (pid := os.fork()) == 0:
        # It doesn't come back to the tests.
        threading.Timer(20, os._exit, [2]).start()
        os._exit(0 if seen.count("a") == 1 else 1)

    slow.may_be_found.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
