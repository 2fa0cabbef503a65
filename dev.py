"""Do one of the project's tasks, having installed what it needs.

``python3 dev.py test``
    lint, types, docs, Python, JavaScript and browser tests; parts of them once more on
    each further version of Python that is here, the first of which has the oldest Flask
``python3 dev.py example``
    serve the example on port 5000; further arguments go to ``flask run``
``python3 dev.py docs``
    build the documentation site in ``site``, and check the links in it
``python3 dev.py bench``
    measure; further arguments go to ``python -m benchmarks``

Needs Python 3.11 or later and pip. Every command is printed before it is run, and
works as well by hand.
"""

from __future__ import annotations

import collections.abc as c
import concurrent.futures
import functools
import hashlib
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import time
import typing as t

ROOT = pathlib.Path(__file__).resolve().parent
PYPROJECT = ROOT / "pyproject.toml"
NPM_PACKAGES = ROOT / "node_modules"

#: What tests need beyond Python, and Debian's packages of it.
PROGRAMS = {
    "chromium": "chromium",
    "firefox": "firefox-esr",
    "nginx": "nginx",
    "node": "nodejs",
    "npm": "npm",
    "redis-server": "redis-server",
    "ruby": "ruby",
}

#: The running Python, as its environments are called.
RUNNING = "{}.{}".format(*sys.version_info)
#: The versions of Python that the package's classifiers name.
PYTHONS: list[str] = re.findall(
    r'Language :: Python :: (3\.\d+)"', PYPROJECT.read_text()
)


# Also of links to headings that aren't there, Sphinx only warns.
DOCS = "sphinx-build -W --keep-going -q -b html -c docs . site"
TWO_AT_A_TIME = "-n 2 --dist worksteal"
# Those that mostly wait: they leave two cores with little to do, and with less to do
# if they aren't traced.
FOUR_AT_A_TIME = "-n 4 --dist worksteal"
SIX_AT_A_TIME = "-n 6 --dist worksteal"


def unit_tests(
    *arguments: str,
    without: str = "",
    folders: str = "",
    distribution: str = SIX_AT_A_TIME,
) -> str:
    """The command for the tests that need no browser.

    :param without: the files left out, below ``tests`` and without their suffix.
    :param folders: those that are left out, there.
    """
    return " ".join(
        [
            f"pytest {distribution} --ignore=tests/browser",
            *arguments,
            *(f"--ignore=tests/{name}.py" for name in without.split()),
            *(f"--ignore=tests/{name}" for name in folders.split()),
        ]
    )


# Its cases are many, and the package's lines that they reach, others reach as well:
# these need not be traced.
NGINX = "choose/test_behind_nginx"
# What takes long and is the same on each version of Python and of Flask, or needs
# packages that follow a new version late.
ELSEWHERE = (
    "app/test_architecture app/test_benchmarks app/test_dev app/test_docs"
    " app/test_excerpts app/test_growth app/test_layout app/test_metrics"
    " app/test_moving app/test_packaging app/test_pytest_plugin app/test_recipes"
    f" choose/test_response_policy history/test_import {NGINX}"
    " deliver/test_celery_transport deliver/test_celery_visitor deliver/test_deadline"
    " deliver/test_faults deliver/test_full_disk deliver/test_green_threads"
    " deliver/test_shared_acks deliver/test_tls doctor/test_mistakes"
    " test_foreign_values visitor/test_devices"
)
# What takes long and has no part of Flask in it.
FLASKLESS = (
    "deliver/test_delivery deliver/test_hand_overs deliver/test_interruptions"
    " deliver/test_serverless deliver/test_spool deliver/test_thread"
    " record/test_profile_merging"
)
# What depends on Flask and Werkzeug, and hardly on Python: two versions of all three
# have it already, where there is another one than the running.
FLASKFUL = "choose doctor inspector visitor"


class Step(t.NamedTuple):
    """A part of ``test``."""

    name: str
    #: The dependency group, or the version of Python, of its environment.
    group: str
    #: Programs that must be there.
    needs: list[str]
    command: str


def steps() -> list[Step]:
    """The steps of ``test``."""
    further = [version for version in PYTHONS if version != RUNNING]
    oldest = python_of_oldest()
    # A version of Python that no other step has gets all that may depend on it.
    without = ELSEWHERE if oldest in further else f"{ELSEWHERE} {FLASKLESS}"
    return [
        Step("lint", "dev", [], "ruff check"),
        Step("format", "dev", [], "ruff format --check"),
        Step("mypy", "dev", [], "mypy"),
        Step("pyright", "dev", ["node", "npm"], "npm run --silent pyright"),
        Step("docs", "dev", [], DOCS),
        Step(
            "unit tests",
            "dev",
            [],
            unit_tests("--cov", without=NGINX, distribution=FOUR_AT_A_TIME),
        ),
        Step("nginx", "dev", ["nginx"], f"pytest {TWO_AT_A_TIME} tests/{NGINX}.py"),
        Step(f"oldest Flask, {oldest}", "oldest", [], unit_tests(without=without)),
        *(
            Step(
                f"Python {version}",
                version,
                [],
                unit_tests(without=ELSEWHERE, folders=FLASKFUL),
            )
            for version in further
            if version != oldest
        ),
        Step("script", "dev", ["node", "npm"], "npm run --silent build -- --check"),
        Step("JavaScript", "dev", ["node", "npm"], "npm test"),
        Step("TypeScript", "dev", ["node", "npm"], "npm run types"),
        Step(
            "browser tests",
            "dev",
            ["node", "npm", "chromium"],
            f"pytest {TWO_AT_A_TIME} tests/browser -m 'not firefox and not alone'",
        ),
        Step(
            "Firefox tests",
            "dev",
            ["node", "npm", "firefox"],
            f"pytest {TWO_AT_A_TIME} tests/browser -m 'firefox and not alone'",
        ),
        Step(
            "leaving pages",
            "dev",
            ["node", "npm", "chromium", "firefox"],
            f"pytest {TWO_AT_A_TIME} tests/browser -m alone",
        ),
    ]


class Unavailable(Exception):
    """Something that a step can do without isn't here; the message says what."""


def test() -> t.NoReturn:
    """Run every step, then say how each went."""
    lacking = install_programs()
    lines, results = [], []
    # While some tests run, the environments of others are made, one after the other.
    maker = concurrent.futures.ThreadPoolExecutor(1)
    parts = steps()
    groups = dict.fromkeys(part.group for part in parts)
    environments = {group: maker.submit(environment, group) for group in groups}

    try:
        for name, group, needs, command in parts:
            start = time.monotonic()
            reasons = [lacking[need] for need in needs if need in lacking]

            if reasons:
                result = "failed" if os.environ.get("CI") else "skipped"
            else:
                result, reasons = step(environments[group], command)

            seconds = time.monotonic() - start
            lines.append(
                f"{name:<20}{result:<8}{seconds:>6.1f} s  {', '.join(reasons)}"
            )
            results.append(result)
    finally:
        maker.shutdown(cancel_futures=True)

    print("", *lines, "", sep="\n")
    words = ["passed", "failed"] + ["skipped"] * ("skipped" in results)
    print(", ".join(f"{results.count(word)} {word}" for word in words))
    sys.exit("failed" in results)


def step(
    environment: concurrent.futures.Future[str], command: str
) -> tuple[str, list[str]]:
    """Run the command of a step in its environment, once that is there.

    :return: how it went, and why.
    """
    try:
        path = environment.result()
    except Unavailable as error:
        # Also in continuous integration, which runs on the machine that there is.
        return "skipped", [str(error)]
    except subprocess.CalledProcessError as error:
        return "failed", [f"could not be set up: {error}"]

    passed = run(shlex.split(command), path, check=False)
    return "passed" if passed else "failed", []


def example(*arguments: str) -> t.NoReturn:
    """Serve the example, with Mixpanel's browser library where npm has it."""
    install_npm_packages()
    become(
        ["flask", "--app", "example/app.py", "run", "--debug", *arguments], "example"
    )


def docs() -> t.NoReturn:
    """Build the documentation site."""
    become(shlex.split(DOCS), "dev")


def bench(*arguments: str) -> t.NoReturn:
    """Measure, side by side with the peers."""
    become(["python", "-m", "benchmarks", *arguments], "bench")


@functools.cache
def environment(group: str) -> str:
    """Make the virtual environment of a dependency group, or of a version of Python.

    :return: the ``PATH`` with which its programs are found.
    :raises Unavailable: that version of Python isn't here, or not with the packages
        that tests need.
    """
    folder = ROOT / (".venv" if group == "dev" else f".venv-{group}")
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    is_further = group in PYTHONS
    wanted = python_of_oldest() if group == "oldest" else group
    python, version = sys.executable, ""

    if wanted in PYTHONS and wanted != RUNNING:
        python, version = find_python(wanted)

    def install() -> None:
        # The pip that started this installs into an environment without one: Debian
        # has neither ensurepip nor leave to install outside of environments.
        run([python, "-m", "venv", "--clear", "--without-pip", str(folder)])
        pip = [sys.executable, "-m", "pip", "--python", str(programs / "python")]
        pip += ["install", "-qq"]

        if is_further:
            # Apart from the package: that it can't be installed is a failure.
            try:
                run([*pip, *requirements("unit")])
            except subprocess.CalledProcessError:
                raise Unavailable(f"no packages for tests on Python {group}") from None

            run([*pip, "-e", str(ROOT)])
        else:
            run([*pip, "-e", str(ROOT), *requirements(group)])

    fill(folder, PYPROJECT, install, version)
    return f"{programs}{os.pathsep}{os.environ['PATH']}"


@functools.cache
def python_of_oldest() -> str:
    """The version of Python that has the oldest Flask: another one, if one is here, so
    that its tests show both."""
    for version in PYTHONS:
        if version != RUNNING:
            try:
                find_python(version)
            except Unavailable:
                continue

            return version

    return RUNNING


def find_python(version: str) -> tuple[str, str]:
    """Find a version of Python on the path, or where pyenv keeps those that aren't.

    :return: the program and what it says of itself.
    :raises Unavailable: there is none that works.
    """
    name = f"python{version}"
    pyenv = pathlib.Path(os.environ.get("PYENV_ROOT") or "~/.pyenv").expanduser()
    folders = os.environ["PATH"].split(os.pathsep)
    folders += map(str, sorted(pyenv.glob(f"versions/{version}.*/bin")))

    for folder in folders:
        program = shutil.which(name, path=folder)

        # On the path may be a stand-in of pyenv's that doesn't know which one is meant.
        if program:
            script = "import sqlite3, ssl, sys, venv; print(sys.version)"
            done = subprocess.run(
                [program, "-c", script], capture_output=True, text=True
            )

            if done.returncode == 0:
                return program, done.stdout

    raise Unavailable(f"{name} is not installed")


def requirements(group: str) -> c.Iterator[str]:
    """The requirements of a dependency group, which pip reads only since 25.1."""
    # Not there before Python 3.11, of which something is to be said.
    import tomllib

    for entry in tomllib.loads(PYPROJECT.read_text())["dependency-groups"][group]:
        if isinstance(entry, dict):
            yield from requirements(entry["include-group"])
        else:
            yield entry


def install_programs() -> dict[str, str]:
    """Install the programs that tests need, as far as possible.

    :return: for each that isn't there, the reason.
    """
    packages = [PROGRAMS[name] for name in PROGRAMS if not shutil.which(name)]

    if packages and shutil.which("apt-get") and os.geteuid() == 0:
        run(["apt-get", "update", "-q"], check=False)
        apt = ["apt-get", "install", "-q", "-y", "--no-install-recommends"]
        run([*apt, *packages], check=False)

    lacking = {
        name: f"{name} is not installed" for name in PROGRAMS if not shutil.which(name)
    }

    if "npm" not in lacking and not install_npm_packages():
        lacking["npm"] = "npm could not install its packages"

    return lacking


def install_npm_packages() -> bool:
    """Install the npm packages of the lock file.

    :return: whether they are there.
    """
    try:
        fill(NPM_PACKAGES, ROOT / "package-lock.json", lambda: run(["npm", "ci"]))
    except (subprocess.CalledProcessError, FileNotFoundError):
        return False

    return True


def fill(
    folder: pathlib.Path,
    source: pathlib.Path,
    install: c.Callable[[], object],
    version: str = "",
) -> None:
    """Fill a folder unless that was done already, here and from the same source.

    :param version: what else it was made with.
    """
    origin = f"{version or sys.version} {ROOT} {source.read_text()}"
    key = hashlib.sha256(origin.encode()).hexdigest()
    stamp = folder / ".filled"

    if not stamp.is_file() or stamp.read_text() != key:
        install()
        stamp.write_text(key)


def run(command: list[str], path: str | None = None, *, check: bool = True) -> bool:
    """Run a command and wait for it."""
    print("\n$", *command, flush=True)
    environ = {**os.environ, "PATH": path or os.environ["PATH"]}
    program = shutil.which(command[0], path=path) or command[0]
    done = subprocess.run([program, *command[1:]], cwd=ROOT, env=environ, check=check)
    return done.returncode == 0


def become(command: list[str], group: str) -> t.NoReturn:
    """Go on as another program: signals reach it directly."""
    path = environment(group)
    print("\n$", *command, flush=True)
    os.chdir(ROOT)
    os.execvpe(command[0], command, {**os.environ, "PATH": path})


if __name__ == "__main__":
    tasks: dict[str, c.Callable[..., t.NoReturn]] = {
        task.__name__: task for task in (test, example, docs, bench)
    }

    if sys.version_info < (3, 11):  # noqa: UP036
        sys.exit("Flask-Mengpaneel needs Python 3.11 or later.")

    if len(sys.argv) < 2 or sys.argv[1] not in tasks:
        sys.exit(__doc__)

    try:
        tasks[sys.argv[1]](*sys.argv[2:])
    except subprocess.CalledProcessError as error:
        sys.exit(f"Could not be set up: {error}")
