"""The benchmarks can be started; what they measure is for people to read."""

from __future__ import annotations

import importlib.util
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from benchmarks import against, comparison, delivery
from benchmarks.__main__ import MODULES
from benchmarks.request_rows import rows
from benchmarks.steps import OUTSIDE, steps_above
from processes import COVERAGE

ROOT = pathlib.Path(__file__).parents[2]

#: An address where no Mixpanel is.
NOBODY = "http://127.0.0.1:9"

#: What a benchmark needs that isn't installed for all tests.
NEEDED = {
    "request_cost": "mixpanel_async",
    "hand_overs": "bs4",
    "script": "playwright",
}


@pytest.mark.parametrize("module", [*MODULES.values(), "against", "steps"])
def test_a_benchmark_finds_what_it_measures(module: str) -> None:
    other = NEEDED.get(module)

    if other is not None and importlib.util.find_spec(other) is None:
        pytest.skip(f"{other} isn't installed")

    # In a process of its own, as it may change the path.
    done = subprocess.run(
        [sys.executable, "-c", f"import benchmarks.{module}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 0, done.stderr


def test_steps_are_told_by_the_file_that_makes_them() -> None:
    idle, page = (
        steps_above(next(row for row in rows() if row.name == name).make(NOBODY))
        for name in ("JSON, a new visitor", "50 KB")
    )

    assert {OUTSIDE, "choose/hooks.py"} <= idle.keys() < page.keys()
    assert {"choose/injection.py", "choose/script.py"} <= page.keys() - idle.keys()
    # What both apps do, one of them by way of the package, is nobody's.
    assert all(count > 0 for part, count in page.items() if part != OUTSIDE)
    # A copy of a page's headers spares Flask to write them anew.
    assert page[OUTSIDE] < idle[OUTSIDE]
    assert page["choose/hooks.py"] <= idle["choose/hooks.py"]
    assert sum(page.values()) > sum(idle.values()) > idle[OUTSIDE]


def is_repository() -> bool:
    """Whether the tests run in a repository, and not in what was made of one."""
    git = shutil.which("git")

    if git is None:
        return False

    asked = subprocess.run([git, "rev-parse", "HEAD"], cwd=ROOT, capture_output=True)
    return asked.returncode == 0


@pytest.mark.skipif(not is_repository(), reason="there are no revisions")
def test_two_revisions_are_measured_in_turns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(against, "_TURNS", 1)
    monkeypatch.setattr(against, "rows", lambda: rows()[:2])
    monkeypatch.setattr(against, "_DELIVERIES", 1)
    monkeypatch.setattr(against, "_EVENTS", 100)
    monkeypatch.setattr(delivery, "WAITING", 100)

    # The lines of a revision are gone when coverage looks for them.
    for name in COVERAGE:
        monkeypatch.delenv(name, raising=False)

    against.main("HEAD")

    requests, delivered = capsys.readouterr().out.strip().split("\n\n")
    title, columns, _, *lines = requests.splitlines()
    assert title == "A request without a call, us above a plain view"
    assert "HEAD" in columns
    assert [line[:44].strip() for line in lines] == [row.name for row in rows()[:2]]

    for line, row in zip(lines, rows(), strict=False):
        *times, steps, steps_here, ratio, goal = line[44:].split()
        assert len([float(time) for time in times]) == 3
        assert int(steps) > 0
        assert ratio == f"{int(steps_here) / int(steps):.2f}"
        assert goal == row.goal

    title, columns, _, *lines = delivered.splitlines()
    assert "Delivery" in title
    assert "HEAD" in columns
    numbers = {line[:44].strip(): line[44:].split() for line in lines}
    # So few take no memory, and there is no ratio.
    assert {len(row) for row in numbers.values()} <= {2, 3}
    assert {
        "events/s, sink at 30 ms",
        "us for handing it over",
        "us for the end of a unit",
        "MB for 100 events that wait",
    } <= numbers.keys()


def test_a_revision_is_measured_with_its_own_package(tmp_path: pathlib.Path) -> None:
    shutil.copytree(ROOT / "benchmarks", tmp_path / "benchmarks")
    package = tmp_path / "flask_mengpaneel"
    package.mkdir()
    (package / "__init__.py").write_text("print('that of then'); raise SystemExit")

    with against._started(tmp_path, NOBODY) as process:
        assert process.communicate(timeout=60)[0] == "that of then\n"


def test_the_readme_has_the_table_of_the_peers_with_its_columns_and_rows() -> None:
    _, begin, rest = comparison.README.read_text().partition(comparison.BEGIN)
    shown, end, _ = rest.partition(comparison.END)
    lines = shown.splitlines()
    cells = [line.strip("|").split("|") for line in lines if line.startswith("|")]
    names = [row[0].strip() for row in cells]

    assert begin
    assert end
    assert [one.strip() for one in cells[0]] == ["", *comparison.COLUMNS]
    assert names[2:] == list(comparison.NAMES)
    assert {len(row) for row in cells} == {len(comparison.COLUMNS) + 1}
    # When and on what it was measured.
    assert re.search(
        r"Of \d{4}-\d\d-\d\d, .* on \d+ cores .* Python 3\.\d+\.\d+, Flask \d", shown
    )


def test_the_table_of_the_peers_is_put_in_the_place_of_the_last(
    tmp_path: pathlib.Path,
) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"above\n{comparison.BEGIN}old\n{comparison.END}below\n")
    cells = {"ours": ["51", "waits"], "theirs": ["64", "1,000"]}

    comparison.put_into_readme(comparison.table(cells), readme)

    text = readme.read_text()
    assert text.startswith(f"above\n{comparison.BEGIN}| ")
    assert text.endswith(
        f"| ours | 51 | waits |\n| theirs | 64 | 1,000 |\n{comparison.END}below\n"
    )


def test_a_request_that_waits_for_good_has_no_number() -> None:
    assert comparison.cell(float("inf")) == "waits"
    assert comparison.cell(51.26) == "51.3"
