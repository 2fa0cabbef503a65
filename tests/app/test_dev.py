from __future__ import annotations

import json
import pathlib
import re
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
    monkeypatch.setattr(dev, "steps", lambda: [dev.Step(*one) for one in steps])
    monkeypatch.setattr(dev, "install_programs", lambda: lacking)
    monkeypatch.setattr(dev, "environment", lambda group: None)
    return steps


def run_steps(capfd: pytest.CaptureFixture[str]) -> tuple[t.Any, str, str]:
    """Run all steps: the exit code, the output, and its last line."""
    with pytest.raises(SystemExit) as exit:
        dev.test()

    output = capfd.readouterr().out
    return exit.value.code, output, output.splitlines()[-1]


def test_every_step_runs_and_one_failure_fails_all(
    steps: list[t.Any], capfd: pytest.CaptureFixture[str]
) -> None:
    steps.append(("broken", "dev", [], f"{sys.executable} no-such-file.py"))
    steps.append(("sound", "dev", [], f"{sys.executable} --version"))

    code, _, last = run_steps(capfd)

    assert (code, last) == (1, "1 passed, 1 failed")


def test_a_step_that_lacks_a_program_is_skipped_with_the_reason(
    steps: list[t.Any], capfd: pytest.CaptureFixture[str]
) -> None:
    steps.append(("horned", "dev", ["unicorn"], "unicorn --gallop"))
    steps.append(("sound", "dev", [], f"{sys.executable} --version"))

    code, output, last = run_steps(capfd)

    assert (code, last) == (0, "1 passed, 0 failed, 1 skipped")
    assert "unicorn is not installed" in output


def test_nothing_is_skipped_in_continuous_integration(
    steps: list[t.Any],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CI", "true")
    steps.append(("horned", "dev", ["unicorn"], "unicorn --gallop"))

    code, output, last = run_steps(capfd)

    assert (code, last) == (1, "0 passed, 1 failed")
    assert "unicorn is not installed" in output


def test_a_step_that_cannot_be_set_up_fails_and_the_others_run(
    steps: list[t.Any],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def environment(group: str) -> None:
        if group == "torn":
            raise subprocess.CalledProcessError(1, ["pip"])

    monkeypatch.setattr(dev, "environment", environment)
    steps.append(("torn", "torn", [], f"{sys.executable} --version"))
    steps.append(("sound", "dev", [], f"{sys.executable} --version"))

    code, output, last = run_steps(capfd)

    assert (code, last) == (1, "1 passed, 1 failed")
    assert "could not be set up" in output


@pytest.mark.parametrize("ci", ["", "true"])
def test_a_version_of_python_that_is_not_there_is_skipped_everywhere(
    ci: str,
    steps: list[t.Any],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def environment(group: str) -> None:
        raise dev.Unavailable("python3.14 is not installed")

    monkeypatch.setenv("CI", ci)
    monkeypatch.setattr(dev, "environment", environment)
    steps.append(("Python 3.14", "3.14", [], f"{sys.executable} --version"))

    code, output, last = run_steps(capfd)

    assert (code, last) == (0, "0 passed, 0 failed, 1 skipped")
    assert "python3.14 is not installed" in output


@pytest.fixture
def pythons(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """The folder of the path; pyenv's versions are in ``pyenv``."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    return tmp_path


def put(program: pathlib.Path, script: str) -> str:
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return str(program)


RUNS = f'exec {sys.executable} "$@"'


def test_a_version_of_python_is_found_on_the_path(pythons: pathlib.Path) -> None:
    program = put(pythons / "bin/python3.14", RUNS)
    put(pythons / "pyenv/versions/3.14.0/bin/python3.14", RUNS)

    assert dev.find_python("3.14") == (program, f"{sys.version}\n")


def test_a_version_of_python_is_found_where_pyenv_keeps_it(
    pythons: pathlib.Path,
) -> None:
    put(pythons / "bin/python3.14", "exit 127")
    program = put(pythons / "pyenv/versions/3.14.0/bin/python3.14", RUNS)

    assert dev.find_python("3.14") == (program, f"{sys.version}\n")


def test_a_version_of_python_that_does_not_run_is_none(pythons: pathlib.Path) -> None:
    put(pythons / "bin/python3.14", "exit 127")
    put(pythons / "pyenv/versions/3.14.0/bin/python3.14", "exit 1")

    with pytest.raises(dev.Unavailable, match="python3.14 is not installed"):
        dev.find_python("3.14")


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> t.Iterator[t.Callable[..., None]]:
    """Lets only these versions of Python be here."""

    def find(version: str) -> tuple[str, str]:
        if version not in here:
            raise dev.Unavailable

        return version, version

    here: list[str] = []
    dev.python_of_oldest.cache_clear()
    monkeypatch.setattr(dev, "find_python", find)
    yield lambda *versions: here.extend(versions)
    dev.python_of_oldest.cache_clear()


@pytest.mark.parametrize("here", [[], ["3.13"], ["3.12", "3.13", "3.14"]])
def test_each_supported_version_of_python_has_its_tests(
    only: t.Callable[..., None], here: list[str]
) -> None:
    only(*here)
    oldest = here[0] if here else dev.RUNNING
    groups = [step.group for step in dev.steps()]

    assert dev.RUNNING in dev.PYTHONS
    assert f"oldest Flask, {oldest}" in [step.name for step in dev.steps()]
    assert {dev.RUNNING, oldest, *groups} >= {*dev.PYTHONS}
    assert oldest not in groups
    assert "oldest" in groups


def test_a_version_of_python_has_all_of_its_tests_if_only_the_oldest_flask_has_it(
    only: t.Callable[..., None],
) -> None:
    only("3.13", "3.14")
    commands = {step.group: set(step.command.split()) for step in dev.steps()}
    folders = {f"--ignore=tests/{name}" for name in dev.FLASKFUL.split()}

    # What the newest Flask has on another version already.
    assert commands["3.14"] - commands["oldest"] == folders
    assert commands["oldest"] < commands["3.14"]


def test_the_public_workflow_runs_on_each_supported_version_of_python() -> None:
    workflow = (ROOT / ".github/workflows/tests.yml").read_text()
    (versions,) = re.findall(r"python: (\[.*\])", workflow)

    assert json.loads(versions) == dev.PYTHONS
    assert "container: python:${{ matrix.python }}-" in workflow
    # What is run there, with the newest Flask and the oldest, is what anybody runs.
    assert re.findall(r"- run: (.*)", workflow) == ["python3 dev.py test"]


def test_what_steps_leave_out_is_there() -> None:
    left_out = {
        word.removeprefix("--ignore=")
        for _, _, _, command in dev.steps()
        for word in command.split()
        if word.startswith("--ignore=")
    }

    assert left_out
    assert [path for path in left_out if not (ROOT / path).exists()] == []


def test_what_the_unit_tests_leave_out_has_a_step_of_its_own() -> None:
    (unit_tests,) = [step for step in dev.steps() if "--cov" in step[3].split()]
    _, group, _, command = unit_tests
    left_out = set(re.findall(r"--ignore=(\S+)", command))
    others = [step[3].split() for step in dev.steps() if step[1] == group]

    assert left_out <= {word for words in others for word in words}


@pytest.mark.parametrize("firefox", [True, False])
@pytest.mark.parametrize("alone", [True, False])
def test_each_test_of_browsers_is_in_one_step(firefox: bool, alone: bool) -> None:
    expressions = [
        found[1]
        for _, _, _, command in dev.steps()
        if (found := re.search(r"tests/browser -m '?([^']+)", command))
    ]
    marks = {"firefox": firefox, "alone": alone}

    assert sum(eval(expression, marks) for expression in expressions) == 1


def test_the_lock_file_names_no_registry() -> None:
    assert '"resolved"' not in (ROOT / "package-lock.json").read_text()


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
    assert all(
        f"python3 dev.py {task}" in done.stderr for task in ["test", "example", "docs"]
    )
