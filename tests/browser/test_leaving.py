"""Pages that are left at any moment, in every way that browsers have."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from needs import need, need_npm

ROOT = Path(__file__).parent.parent.parent
#: In each of the two browsers: a hundred in all.
PAGES = 50


# It keeps the machine busy.
@pytest.mark.alone
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("chromium", marks=pytest.mark.chromium),
        pytest.param("firefox", marks=pytest.mark.firefox),
    ],
)
def test_all_that_pages_recorded_arrives_once_however_they_are_left(name: str) -> None:
    need(name)
    need_npm("mixpanel-browser")
    command = ["-m", "tests.soak", "--browser", name, "--pages", str(PAGES)]
    soak = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    # The seed is in there, by which it can be made once more.
    assert soak.returncode == 0, soak.stdout
