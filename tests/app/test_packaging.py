from __future__ import annotations

import collections.abc as c
import contextlib
import email
import os
import pathlib
import re
import subprocess
import sys
import sysconfig
import tarfile
import urllib.request
import venv
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent
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
    names = names_in(built["wheel"])

    assert {name for name in names if ".dist-info/" not in name} == expected
    assert "flask_mengpaneel/py.typed" in names


def test_the_wheel_of_an_sdist_holds_the_same(built: dict[str, pathlib.Path]) -> None:
    assert names_in(built["wheel of sdist"]) == names_in(built["wheel"])


def test_the_page_of_the_package_has_no_link_that_leads_nowhere(
    built: dict[str, pathlib.Path],
) -> None:
    for wheel in (built["wheel"], built["wheel of sdist"]):
        (name,) = (
            one for one in names_in(wheel) if one.endswith(".dist-info/METADATA")
        )

        with zipfile.ZipFile(wheel) as archive:
            metadata = email.message_from_bytes(archive.read(name))

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
        "static/build.mjs",
        "static/mengpaneel.js",
        "static/src/main.ts",
        "tests/app/test_packaging.py",
    } <= names


def test_an_installed_wheel_serves_the_script(
    built: dict[str, pathlib.Path], tmp_path: pathlib.Path
) -> None:
    """Into an environment that is empty: what the wheel needs, it names."""
    python = make_environment(tmp_path)
    install(python, str(built["wheel"]))

    assert_serves_the_script(python, tmp_path, tmp_path)


def test_an_installed_sdist_serves_the_script(
    built: dict[str, pathlib.Path], tmp_path: pathlib.Path
) -> None:
    python = make_environment(tmp_path)
    install(python, "--no-deps", str(built["sdist"]))
    borrow_dependencies(python)

    assert_serves_the_script(python, tmp_path, tmp_path)


def test_an_editable_install_serves_the_script(tmp_path: pathlib.Path) -> None:
    python = make_environment(tmp_path)
    install(python, "--no-deps", "--editable", str(ROOT))
    borrow_dependencies(python)

    assert_serves_the_script(python, tmp_path, ROOT)


def assert_serves_the_script(
    python: str, folder: pathlib.Path, home: pathlib.Path
) -> None:
    """Ask a running app for the script.

    :param home: where the package is to be imported from.
    """
    with serve(python, folder) as url:
        with urllib.request.urlopen(f"{url}/package", timeout=10) as response:
            package = pathlib.Path(response.read().decode())

        script = f"{url}/_mengpaneel/static/mengpaneel.js"

        with urllib.request.urlopen(script, timeout=10) as response:
            body = response.read()
            content_type = response.headers.get_content_type()

    assert package.is_relative_to(home)
    assert content_type == "text/javascript"
    assert body == (ROOT / "static" / "mengpaneel.js").read_bytes()


@contextlib.contextmanager
def serve(python: str, folder: pathlib.Path) -> c.Iterator[str]:
    (folder / "app.py").write_text(APP)
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
