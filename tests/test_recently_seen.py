"""What is remembered, and what is forgotten."""

from __future__ import annotations

from flask_mengpaneel.recently_seen import RecentlySeen


def test_what_was_seen_longest_ago_is_forgotten_first() -> None:
    seen = RecentlySeen(2)
    assert [seen.count(thing) for thing in "abacab"] == [0, 0, 1, 0, 2, 0]
