"""Run the test suites of Flask and of extensions with Mengpaneel in every app.

``python -m tests.neighbours``
    all suites
``python -m tests.neighbours Flask Flask-Login``
    these

Each suite is run as it is, then with the extension in every app: *quiet*, where nothing
is tracked, *tracking*, where each request tracks an event, and *last*, where it does so
too and the extension is initialised after everything else. What comes of each test is
compared. The tests come from PyPI's source packages, which pip downloads, and for which
it runs their build back ends. Each suite gets an environment of its own in the folder
given with ``--work``, by default a temporary one.

The exit status is 1 if a test differs for which ``known.py`` has no reason, if an event
was lost, or if the extension logged a warning.

Flask-Caching's tests start Redis and memcached themselves, where these are installed;
for Flask-Session's this script starts Redis. Tests that lack what they need fail in
each mode, and say nothing.
"""

from __future__ import annotations

import argparse
import collections.abc as c
import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import typing as t
import venv

from .known import FLASK, SUITES, Suite

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
MODES = ("as it is", "quiet", "tracking", "last")


def run(*command: str | pathlib.Path, **options: t.Any) -> int:
    return subprocess.run([*map(str, command)], **options).returncode


def prepare(suite: Suite, work: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """Make a suite's environment, and unpack its source package.

    :return: the environment's Python, and the folder of the source package.
    """
    wanted = f"{suite.name}=={suite.version}"
    home = work / wanted
    python = home / "env" / ("Scripts" if os.name == "nt" else "bin") / "python"
    pip = [python, "-m", "pip", "--disable-pip-version-check", "-qq"]

    if not (home / "ready").exists():
        venv.create(home / "env", with_pip=True, clear=True)
        needs = ["pytest<9", FLASK, *suite.needs, wanted, ROOT]
        run(*pip, "install", *needs, check=True)
        source = ["--no-deps", "--no-binary", suite.name, wanted]
        run(*pip, "download", *source, "-d", home / "source", check=True)

        for archive in (home / "source").glob("*.tar.gz"):
            with tarfile.open(archive) as tar:
                tar.extractall(home / "source", filter="data")

        (home / "ready").touch()
    else:
        run(*pip, "install", "--no-deps", "--force-reinstall", ROOT, check=True)

    (source_folder,) = (one for one in (home / "source").iterdir() if one.is_dir())
    return python, source_folder


@contextlib.contextmanager
def running(programs: dict[str, int], work: pathlib.Path) -> c.Iterator[None]:
    """Run servers, those that are installed and don't run already."""
    with contextlib.ExitStack() as stack:
        for program, port in programs.items():
            if shutil.which(program) and not answers(port):
                command = [program, "--port", str(port), "--save", ""]
                server = stack.enter_context(
                    subprocess.Popen(command, cwd=work, stdout=subprocess.DEVNULL)
                )
                stack.callback(server.terminate)

                while server.poll() is None and not answers(port):
                    time.sleep(0.05)

        yield


def answers(port: int) -> bool:
    with contextlib.closing(socket.socket()) as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def results(
    suite: Suite, mode: str, python: pathlib.Path, source: pathlib.Path
) -> dict[str, t.Any]:
    """Run a suite, and read what the plugin has written down."""
    written = source.parent.parent / f"{mode.replace(' ', '-')}.json"
    written.unlink(missing_ok=True)
    environ = {
        **os.environ,
        "NEIGHBOURS_MODE": mode,
        "NEIGHBOURS_RESULTS": str(written),
        "NEIGHBOURS_SETTINGS": json.dumps(suite.settings),
        "PYTHONPATH": str(HERE),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [python, "-m", "pytest", "-q", "-p", "plugin"]

    with written.with_suffix(".log").open("w") as log:
        run(*command, *suite.paths, cwd=source, env=environ, stdout=log, stderr=log)

    if not written.exists():
        raise SystemExit(f"{suite.name} didn't run: see {written.with_suffix('.log')}")

    read: dict[str, t.Any] = json.loads(written.read_text())
    return read


@dataclasses.dataclass
class Comparison:
    """What a suite's tests say without and with the extension."""

    suite: Suite
    by_mode: dict[str, dict[str, t.Any]]

    def passed(self, mode: str) -> int:
        return [*self.by_mode[mode]["outcomes"].values()].count("passed")

    @property
    def row(self) -> str:
        """The suite's row of the table."""
        outcomes = [*self.by_mode[MODES[0]]["outcomes"].values()]
        ran = len(outcomes) - outcomes.count("skipped")
        requests = self.by_mode["tracking"]["tracked"]
        name, version = self.suite.name, self.suite.version
        cells = [name, version, ran, requests, *map(self.passed, MODES)]
        return f"| {' | '.join(map(str, cells))} |"

    @property
    def differing(self) -> dict[str, list[str]]:
        """The tests that say something else with the extension, and in which modes."""
        usual = self.by_mode[MODES[0]]["outcomes"]
        found: dict[str, list[str]] = {}

        for mode in MODES[1:]:
            for test, outcome in self.by_mode[mode]["outcomes"].items():
                if usual.get(test) != outcome:
                    found.setdefault(test, []).append(mode)

            for test in usual.keys() - self.by_mode[mode]["outcomes"].keys():
                found.setdefault(test, []).append(mode)

        return found

    def report(self) -> bool:
        """Print what differs; say whether there is anything new."""
        is_new = False

        for test, modes in self.differing.items():
            name = test.partition("::")[2].partition("[")[0]
            reason = self.suite.known.get(name)
            is_new |= reason is None
            said = self.by_mode[modes[0]]["reasons"].get(test, "it passes")
            print(f"{self.suite.name}: {test} ({', '.join(modes)})")
            print(f"    {reason or f'NEW: {said}'}")

        for mode in MODES[1:]:
            result = self.by_mode[mode]

            if result["tracked"] != result["recorded"] or not result["balanced"]:
                is_new = True
                tracked, recorded = result["tracked"], result["recorded"]
                print(f"{self.suite.name} ({mode}):")
                print(f"    NEW: {tracked} events tracked, {recorded} recorded")

            for complaint in result["complaints"]:
                test = complaint.partition(": ")[0]
                reason = self.suite.known.get(test.partition("::")[2].partition("[")[0])
                is_new |= reason is None
                print(f"{self.suite.name} ({mode}): {complaint[:300]}")
                print(f"    {reason or 'NEW'}")

        return is_new


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.neighbours")
    names = [suite.name for suite in SUITES]
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(names))
    parser.add_argument("--work", type=pathlib.Path, help="a folder to keep")
    arguments = parser.parse_args()

    if unknown := set(arguments.names).difference(names):
        parser.error(f"no such suite: {', '.join(unknown)}")

    with tempfile.TemporaryDirectory() as temporary:
        work = (arguments.work or pathlib.Path(temporary)).resolve()
        comparisons = []

        for suite in SUITES:
            if suite.name in (arguments.names or names):
                print(f"running {suite.name} {suite.version}", file=sys.stderr)
                python, source = prepare(suite, work)

                with running(suite.programs, work):
                    by_mode = {
                        mode: results(suite, mode, python, source) for mode in MODES
                    }

                comparisons.append(Comparison(suite, by_mode))

    print(f"| suite | version | tests | requests | passed {' | '.join(MODES)} |")
    print("|---" * (4 + len(MODES)) + "|")

    for comparison in comparisons:
        print(comparison.row)

    print()
    return int(any([comparison.report() for comparison in comparisons]))


if __name__ == "__main__":
    sys.exit(main())
