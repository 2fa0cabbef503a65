from __future__ import annotations

import collections.abc as c
import contextlib
import email
import email.message
import os
import pathlib
import re
import subprocess
import sys
import sysconfig
import tarfile
import typing as t
import urllib.request
import venv
import zipfile

import pytest
import yaml

from agents import CHROME
from needs import need

ROOT = pathlib.Path(__file__).parent.parent.parent
WORKFLOWS = ROOT / ".github" / "workflows"
APP = """\
import flask_mengpaneel
from flask import Flask

app = Flask(__name__)
app.config["MENGPANEEL_TOKEN"] = "token"
flask_mengpaneel.Mengpaneel(app)


@app.get("/package")
def package():
    return flask_mengpaneel.__file__
"""


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pathlib.Path]:
    """The sdist, the wheel built from the checkout and the one built from the sdist."""
    folder = tmp_path_factory.mktemp("built")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir"]
    run([*build, str(folder / "checkout"), "--wheel"], ROOT)
    run([*build, str(folder / "sdist")], ROOT)
    (wheel,) = (folder / "checkout").glob("*.whl")
    (sdist,) = (folder / "sdist").glob("*.tar.gz")
    (wheel_of_sdist,) = (folder / "sdist").glob("*.whl")
    return {"wheel": wheel, "sdist": sdist, "wheel of sdist": wheel_of_sdist}


def test_a_wheel_holds_the_package_and_its_static_files(
    built: dict[str, pathlib.Path],
) -> None:
    package = {
        path.relative_to(ROOT)
        for path in (ROOT / "flask_mengpaneel").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    static = {
        "flask_mengpaneel" / path.relative_to(ROOT)
        for path in (ROOT / "static").iterdir()
        if path.is_file() and path.name != "build.mjs"
    }
    expected = {path.as_posix() for path in package | static}
    expected.add("pytest_mengpaneel.py")
    names = names_in(built["wheel"])

    assert {name for name in names if ".dist-info/" not in name} == expected
    assert "flask_mengpaneel/py.typed" in names


def test_the_wheel_of_an_sdist_holds_the_same(built: dict[str, pathlib.Path]) -> None:
    assert names_in(built["wheel of sdist"]) == names_in(built["wheel"])


def test_the_page_of_the_package_has_no_link_that_leads_nowhere(
    built: dict[str, pathlib.Path],
) -> None:
    for wheel in (built["wheel"], built["wheel of sdist"]):
        metadata = metadata_of(wheel)
        page = str(metadata.get_payload())

        assert metadata["Description-Content-Type"] == "text/markdown"
        assert page.startswith("# Flask-Mengpaneel\n")
        assert "](https://" in page or "]: https://" in page
        assert re.findall(r"\]\((?!https?:)[^)]*\)", page) == []


def test_an_sdist_can_be_tested(built: dict[str, pathlib.Path]) -> None:
    with tarfile.open(built["sdist"]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}

    assert {
        "CHANGES.md",
        "CONTRIBUTING.md",
        "LICENSE",
        "README.md",
        "dev.py",
        "package-lock.json",
        "pytest_mengpaneel.py",
        "static/build.mjs",
        "static/mengpaneel.js",
        "static/src/main.ts",
        "tests/app/test_packaging.py",
    } <= names


def test_the_package_is_as_the_index_wants_it(built: dict[str, pathlib.Path]) -> None:
    files = [str(built["wheel"]), str(built["sdist"])]
    wheel = str(built["wheel"])

    run([sys.executable, "-m", "twine", "check", "--strict", *files], ROOT)
    run([sys.executable, "-m", "check_wheel_contents", wheel], ROOT)


def test_the_metadata_are_complete(built: dict[str, pathlib.Path]) -> None:
    metadata = metadata_of(built["wheel"])

    assert metadata["Name"] == "Flask-Mengpaneel"
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Summary"]
    assert metadata["Keywords"]
    assert "Typing :: Typed" in metadata.get_all("Classifier", [])
    assert {"celery", "fast", "metrics", "redis"} <= {
        *metadata.get_all("Provides-Extra", [])
    }
    required = [
        one for one in metadata.get_all("Requires-Dist", []) if "extra" not in one
    ]
    assert len(required) == 3


@pytest.mark.parametrize("tag", ["1.2.3", "v1.2.3"])
def test_the_version_is_that_of_the_tag(
    built: dict[str, pathlib.Path], tmp_path: pathlib.Path, tag: str
) -> None:
    folder = unpack(built["sdist"], tmp_path)
    version = [sys.executable, "-m", "hatchling", "version"]
    assert run(version, folder).strip() == metadata_of(built["sdist"])["Version"]

    # As an archive of the repository has it, where nothing tells.
    (folder / "PKG-INFO").unlink()
    assert run(version, folder).strip() == "0.0.0"

    commit_all(folder)
    assert ".dev" in run(version, folder)
    run(["git", "tag", tag], folder)
    assert run(version, folder).strip() == "1.2.3"


def test_the_workflows_are_as_their_schema_wants_them() -> None:
    files = map(str, sorted(WORKFLOWS.glob("*.yml")))
    check = [sys.executable, "-m", "check_jsonschema"]
    run([*check, "--builtin-schema", "vendor.github-workflows", *files], ROOT)


def test_a_release_is_published_once_its_tests_have_passed() -> None:
    jobs = jobs_of("release")

    assert jobs["tests"] == {"uses": "./.github/workflows/tests.yml"}
    assert jobs["publish"]["needs"] == ["tests", "build"]


def test_a_release_is_built_by_its_workflow(
    built: dict[str, pathlib.Path], tmp_path: pathlib.Path
) -> None:
    """Each step that is a shell's, in the order of the workflow."""
    folder = unpack(built["sdist"], tmp_path)
    (folder / "PKG-INFO").unlink()
    commit_all(folder)
    run(["git", "tag", "9.9.9"], folder)

    # That of the job has no more.
    python = make_environment(tmp_path)
    install(python, "pip")
    path = os.pathsep.join([str(pathlib.Path(python).parent), os.environ["PATH"]])

    def shell(step: dict[str, str], tag: str) -> subprocess.CompletedProcess[str]:
        environment = {**environ(), "PATH": path, "GITHUB_REF_NAME": tag}
        command = ["bash", "-e", "-c", step["run"]]
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True
        )

    steps = [step for step in jobs_of("release")["build"]["steps"] if "run" in step]

    for step in steps:
        done = shell(step, "9.9.9")
        assert done.returncode == 0, (step, done.stdout + done.stderr)

    assert {one.name for one in (folder / "dist").iterdir()} == {
        "flask_mengpaneel-9.9.9-py3-none-any.whl",
        "flask_mengpaneel-9.9.9.tar.gz",
    }
    (comparison,) = (step for step in steps if "GITHUB_REF_NAME" in step["run"])
    assert shell(comparison, "9.9.8").returncode == 1


def test_an_installed_wheel_serves_the_script_and_does_what_the_first_pages_say(
    built: dict[str, pathlib.Path], tmp_path: pathlib.Path
) -> None:
    """Into an environment that is empty: what the wheel needs, it names."""
    python = make_environment(tmp_path)
    install(python, str(built["wheel"]))

    assert_serves_the_script(python, tmp_path, tmp_path)

    readme = (ROOT / "README.md").read_text()
    first = re.search(r"^```python\n(.*?)^```", readme, re.M | re.S)
    assert first is not None

    with serve(python, tmp_path, first[1]) as url:
        home = urllib.request.Request(url, headers={"User-Agent": CHROME})

        with urllib.request.urlopen(home, timeout=60) as response:
            assert '"View Home"' in response.read().decode()

    # And, typed from its page, what the first quarter of an hour makes.
    install(python, "pytest")
    page = (ROOT / "docs" / "first-quarter.md").read_text()
    *app, tests = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    quarter = tmp_path / "quarter"
    quarter.mkdir()
    (quarter / "app.py").write_text("\n\n".join(app))
    (quarter / "test_app.py").write_text(tests)
    programs = pathlib.Path(python).parent

    assert "3 passed" in run([str(programs / "pytest"), "-q"], quarter)
    run([str(programs / "flask"), "mengpaneel", "doctor"], quarter)


def test_an_installed_sdist_serves_the_script(
    built: dict[str, pathlib.Path], tmp_path: pathlib.Path
) -> None:
    python = make_environment(tmp_path)
    install(python, "--no-deps", str(built["sdist"]))
    borrow_dependencies(python)

    assert_serves_the_script(python, tmp_path, tmp_path)
    assert_gives_the_fixture(python, tmp_path)


def test_an_editable_install_serves_the_script(tmp_path: pathlib.Path) -> None:
    python = make_environment(tmp_path)
    install(python, "--no-deps", "--editable", str(ROOT))
    borrow_dependencies(python)

    assert_serves_the_script(python, tmp_path, ROOT)
    assert_gives_the_fixture(python, tmp_path)


def assert_serves_the_script(
    python: str, folder: pathlib.Path, home: pathlib.Path
) -> None:
    """Ask a running app for the script.

    :param home: where the package is to be imported from.
    """
    with serve(python, folder) as url:
        with urllib.request.urlopen(f"{url}/package", timeout=60) as response:
            package = pathlib.Path(response.read().decode())

        script = f"{url}/_mengpaneel/static/mengpaneel.js"

        with urllib.request.urlopen(script, timeout=60) as response:
            body = response.read()
            content_type = response.headers.get_content_type()

    assert package.is_relative_to(home)
    assert content_type == "text/javascript"
    assert body == (ROOT / "static" / "mengpaneel.js").read_bytes()


def assert_gives_the_fixture(python: str, folder: pathlib.Path) -> None:
    """Run a test that says nothing of the plugin for pytest."""
    path = folder / "test_app.py"
    path.write_text(
        "def test_app(mengpaneel_calls): mengpaneel_calls.assert_not_tracked()"
    )
    options = ["-q", "-p", "no:cacheprovider"]

    assert "1 passed" in run([python, "-m", "pytest", *options, str(path)], folder)


@contextlib.contextmanager
def serve(python: str, folder: pathlib.Path, app: str = APP) -> c.Iterator[str]:
    (folder / "app.py").write_text(app)
    server = subprocess.Popen(
        [python, "-m", "flask", "run", "--port", "0"],
        cwd=folder,
        env=environ(),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert server.stderr is not None
    log = []

    try:
        for line in server.stderr:
            log.append(line)

            if match := re.search(r"Running on (http://\S+)", line):
                yield match[1]
                break
        else:
            pytest.fail("".join(log))
    finally:
        server.terminate()
        server.wait()
        server.stderr.close()


def make_environment(folder: pathlib.Path) -> str:
    venv.create(folder / "venv")
    programs = "Scripts" if os.name == "nt" else "bin"
    return str(folder / "venv" / programs / "python")


def install(python: str, *arguments: str) -> None:
    pip = [sys.executable, "-m", "pip", "--python", python]
    run([*pip, "install", "--quiet", *arguments], ROOT)


def borrow_dependencies(python: str) -> None:
    """Let an environment use the packages of this one, after its own."""
    query = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = pathlib.Path(run(query, ROOT).strip())
    (packages / "zz_borrowed.pth").write_text(sysconfig.get_path("purelib"))


def unpack(sdist: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """Unpack a source distribution, and return the folder that was in it."""
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "sdist", filter="data")

    (found,) = (folder / "sdist").iterdir()
    return found


def commit_all(folder: pathlib.Path) -> None:
    """Make a repository of a folder."""
    git = [need("git"), "-c", "user.name=Ann", "-c", "user.email=ann@example.com"]

    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "Release"]):
        run([*git, *command], folder)


def jobs_of(workflow: str) -> dict[str, t.Any]:
    text = (WORKFLOWS / f"{workflow}.yml").read_text()
    return t.cast("dict[str, t.Any]", yaml.safe_load(text)["jobs"])


def metadata_of(path: pathlib.Path) -> email.message.Message:
    if path.suffix == ".whl":
        (name,) = (one for one in names_in(path) if one.endswith(".dist-info/METADATA"))

        with zipfile.ZipFile(path) as archive:
            return email.message_from_bytes(archive.read(name))

    with tarfile.open(path) as archive:
        info = archive.extractfile(f"{path.name.removesuffix('.tar.gz')}/PKG-INFO")
        assert info is not None
        return email.message_from_bytes(info.read())


def names_in(wheel: pathlib.Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def run(command: list[str], folder: pathlib.Path) -> str:
    done = subprocess.run(
        command, cwd=folder, env=environ(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def environ() -> dict[str, str]:
    """The environment without what would lead to this checkout's package."""
    return {name: os.environ[name] for name in os.environ if name != "PYTHONPATH"}
