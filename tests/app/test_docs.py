"""What the documentation says is tried: its examples run, its links lead somewhere."""

from __future__ import annotations

import collections.abc as c
import os
import pathlib
import re
import subprocess
import sys
import time
import urllib.request

import pytest

from flask_mengpaneel.config import KEYS

ROOT = pathlib.Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ENVIRON = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}

BROWSER = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)"
    " Chrome/140.0.0.0 Safari/537.36"
)


def examples(page: pathlib.Path) -> list[str]:
    """The blocks of Python on a page."""
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S)


@pytest.fixture
def quick_start(tmp_path: pathlib.Path) -> c.Iterator[str]:
    """The address of the quick start, which runs as its reader would run it."""
    (tmp_path / "app.py").write_text(examples(ROOT / "README.md")[0])
    command = [sys.executable, "-m", "flask", "run", "--port", "0"]

    with subprocess.Popen(
        command, cwd=tmp_path, env=ENVIRON, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        lines = iter(process.stderr.readline, "")
        found = (re.search(r"Running on (http://\S+)", line) for line in lines)

        try:
            yield next(one[1] for one in found if one)
        finally:
            process.terminate()


def fetch(url: str, **headers: str) -> str:
    request = urllib.request.Request(url, headers=headers)

    with urllib.request.urlopen(request, timeout=10) as response:
        text: str = response.read().decode()
        return text


def test_the_quick_start_has_its_event_on_the_page(quick_start: str) -> None:
    page = fetch(quick_start, Accept="text/html", **{"User-Agent": BROWSER})

    assert "<h1>Hello</h1>" in page
    assert '"View Home"' in page
    assert "<title>Inspector" in fetch(f"{quick_start}/_mengpaneel/inspector")


def test_the_quick_start_shows_in_its_inspector_what_the_server_sends(
    quick_start: str,
) -> None:
    fetch(quick_start, **{"User-Agent": "curl/8.5.0"})
    arrivals = f"{quick_start}/_mengpaneel/inspector/arrivals?after=0"
    deadline = time.monotonic() + 20

    while '"AsyncServerSide"' not in (news := fetch(arrivals)):
        assert time.monotonic() < deadline, news
        time.sleep(0.1)

    assert "View Home" in news


@pytest.mark.parametrize("page", ["strategies.md", "testing.md"])
def test_the_tests_of_a_page_pass(tmp_path: pathlib.Path, page: str) -> None:
    blocks = examples(ROOT / "docs" / page)
    module = tmp_path / "test_shop.py"
    module.write_text("\n\n".join(blocks))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", str(module)],
        cwd=tmp_path,
        env=ENVIRON,
        capture_output=True,
        text=True,
        timeout=120,
    )
    tests = "".join(blocks).count("\ndef test_")

    assert tests > 0
    assert f"{tests} passed" in done.stdout, done.stdout


@pytest.mark.parametrize(
    "page", [page for page in PAGES if examples(page)], ids=lambda page: page.name
)
def test_examples_are_python(page: pathlib.Path) -> None:
    for example in examples(page):
        compile(example, str(page), "exec")


def anchors(page: pathlib.Path) -> set[str]:
    """Where on a page a link may lead to."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w -]", "", one).lower().replace(" ", "-") for one in headings}


def links(page: pathlib.Path) -> list[str]:
    """The links of a page to others, and to its own headings."""
    return re.findall(r"\]\((?!https?:)([^)]*)\)", page.read_text())


@pytest.mark.parametrize(
    "page", [page for page in PAGES if links(page)], ids=lambda page: page.name
)
def test_links_lead_somewhere(page: pathlib.Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page

        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_each_setting_is_documented_once() -> None:
    page = (ROOT / "docs/configuration.md").read_text()
    table = page.partition("| key |")[2].partition("\n\n")[0]

    assert re.findall(r"^\| `(\w+)`", table, re.M) == list(KEYS)
