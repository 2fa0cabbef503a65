from __future__ import annotations

import pathlib
import subprocess
import sys
import typing as t

import pytest

import dev

ROOT = pathlib.Path(dev.__file__).parent


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[t.Any]:
    """Steps to fill in: Python is there, ``unicorn`` is not."""
    steps: list[t.Any] = []
    lacking = {"unicorn": "unicorn is not installed"}
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(dev, "STEPS", steps)
    monkeypatch.setattr(dev, "install_programs", lambda: lacking)
    monkeypatch.setattr(dev, "environment", lambda group: None)
    return steps


def test_every_step_runs_and_one_failure_fails_all(
    steps: list[t.Any], capfd: pytest.CaptureFixture[str]
) -> None:
    steps.append(("broken", "dev", [], f"{sys.executable} no-such-file.py"))
    steps.append(("sound", "dev", [], f"{sys.executable} --version"))

    with pytest.raises(SystemExit) as exit:
        dev.test()

    assert exit.value.code == 1
    assert capfd.readouterr().out.splitlines()[-1] == "1 passed, 1 failed"


def test_a_step_that_lacks_a_program_is_skipped_with_the_reason(
    steps: list[t.Any], capfd: pytest.CaptureFixture[str]
) -> None:
    steps.append(("horned", "dev", ["unicorn"], "unicorn --gallop"))
    steps.append(("sound", "dev", [], f"{sys.executable} --version"))

    with pytest.raises(SystemExit) as exit:
        dev.test()

    output = capfd.readouterr().out
    assert exit.value.code == 0
    assert "unicorn is not installed" in output
    assert output.splitlines()[-1] == "1 passed, 0 failed, 1 skipped"


def test_nothing_is_skipped_in_continuous_integration(
    steps: list[t.Any],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CI", "true")
    steps.append(("horned", "dev", ["unicorn"], "unicorn --gallop"))

    with pytest.raises(SystemExit) as exit:
        dev.test()

    output = capfd.readouterr().out
    assert exit.value.code == 1
    assert "unicorn is not installed" in output
    assert output.splitlines()[-1] == "0 passed, 1 failed"


def test_a_folder_is_filled_again_only_when_its_source_changed(
    tmp_path: pathlib.Path,
) -> None:
    source = tmp_path / "source"
    filled = []

    for text in ["one", "one", "two", "two", "one"]:
        source.write_text(text)
        dev.fill(tmp_path, source, lambda: filled.append(source.read_text()))

    assert filled == ["one", "two", "one"]


def test_a_folder_is_filled_again_after_a_failure(tmp_path: pathlib.Path) -> None:
    source = tmp_path / "source"
    source.write_text("one")
    filled = []

    def fail() -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        dev.fill(tmp_path, source, fail)

    dev.fill(tmp_path, source, lambda: filled.append("one"))

    assert filled == ["one"]


def test_a_group_includes_the_groups_it_names() -> None:
    requirements = set(dev.requirements("dev"))

    assert set(dev.requirements("tests")) < requirements
    assert set(dev.requirements("lint")) < requirements


@pytest.mark.parametrize("arguments", [[], ["--help"], ["no-such-task"]])
def test_without_a_task_it_lists_the_tasks(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "dev.py", *arguments], cwd=ROOT, capture_output=True, text=True
    )

    assert done.returncode == 1
    assert all(f"python3 dev.py {task}" in done.stderr for task in ["test", "example"])
