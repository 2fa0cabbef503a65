"""What the documentation says is tried: its examples run, its links lead somewhere."""

from __future__ import annotations

import collections.abc as c
import json
import os
import pathlib
import re
import subprocess
import sys
import textwrap
import time
import urllib.request

import pytest

from agents import CHROME
from flask_mengpaneel.config import KEYS

ROOT = pathlib.Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ENVIRON = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


def examples(page: pathlib.Path) -> list[str]:
    """The blocks of Python on a page."""
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S)


@pytest.fixture
def quick_start(tmp_path: pathlib.Path) -> c.Iterator[str]:
    """The address of the quick start, which runs as its reader would run it."""
    (tmp_path / "app.py").write_text(examples(ROOT / "README.md")[0])
    run = ["run", "--debug", "--no-reload", "--port", "0"]
    command = [sys.executable, "-m", "flask", *run]

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

    with urllib.request.urlopen(request, timeout=60) as response:
        text: str = response.read().decode()
        return text


def test_the_quick_start_has_its_event_on_the_page(quick_start: str) -> None:
    page = fetch(quick_start, Accept="text/html", **{"User-Agent": CHROME})

    assert "<h1>Hello</h1>" in page
    assert '"View Home"' in page
    assert "<title>Inspector" in fetch(f"{quick_start}/_mengpaneel/inspector")

    # With a browser that asks not to be tracked, the inspector has the reason.
    headers = {"Accept": "text/html", "User-Agent": CHROME, "Sec-GPC": "1"}
    assert '"View Home"' not in fetch(quick_start, **headers)
    news = json.loads(fetch(f"{quick_start}/_mengpaneel/inspector/arrivals?after=0"))
    (said,) = news["unrecorded"]
    assert "Sec-GPC: 1" in said["reason"]
    assert "MENGPANEEL_RESPECT_DNT" in said["reason"]


def test_the_quick_start_shows_in_its_inspector_what_the_server_sends(
    quick_start: str,
) -> None:
    fetch(quick_start, **{"User-Agent": "curl/8.5.0"})
    arrivals = f"{quick_start}/_mengpaneel/inspector/arrivals?after=0"
    deadline = time.monotonic() + 60

    while '"AsyncServerSide"' not in (news := fetch(arrivals)):
        assert time.monotonic() < deadline, news
        time.sleep(0.1)

    assert "View Home" in news


@pytest.mark.parametrize("page", ["repeated-events.md", "strategies.md", "testing.md"])
def test_the_tests_of_a_page_pass(tmp_path: pathlib.Path, page: str) -> None:
    code = "\n\n".join(examples(ROOT / "docs" / page))
    tests = code.count("\ndef test_")

    assert tests > 0
    assert_tests_pass(tmp_path, code, tests)


def assert_tests_pass(folder: pathlib.Path, code: str, tests: int) -> None:
    (folder / "test_shop.py").write_text(code)
    options = ["-q", "-W", "error", "-p", "pytest_mengpaneel"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "test_shop.py"],
        cwd=folder,
        env=ENVIRON,
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert f"{tests} passed" in done.stdout, done.stdout


# What the examples of docs/events.md take for granted, and what they are to do.
EVENTS = """
from flask import Flask, redirect, url_for
from flask_mengpaneel import Mengpaneel
from flask_sqlalchemy import SQLAlchemy

app = Flask(__name__)
app.config.update(
    SECRET_KEY="secret",
    TESTING=True,
    MENGPANEEL_TOKEN="token",
    SQLALCHEMY_DATABASE_URI="sqlite://",
)
mengpaneel = Mengpaneel(app)
db = SQLAlchemy(app)


class Order(db.Model):
    id = db.Column(db.Integer, primary_key=True)
    items = db.Column(db.Integer)


with app.app_context():
    db.create_all()


@app.get("/thanks")
def thanks():
    return "Thank you"


{committed}

def test_a_declared_event_is_tracked(mengpaneel_calls):
    with app.test_request_context():
{declared}

        expected = {{"items": 3, "Total": 19.9, "channel": "web"}}
        mengpaneel_calls.assert_tracked("Place Order", expected)


def test_an_order_is_tracked_when_it_is_committed(mengpaneel_calls):
    app.test_client().post("/orders", follow_redirects=True)

    mengpaneel_calls.assert_tracked("Place Order", Items=3)
    assert mengpaneel.ledger().dropped == {{}}
"""


def test_the_examples_of_the_page_of_events_do_what_it_says(
    tmp_path: pathlib.Path,
) -> None:
    declared, committed = examples(ROOT / "docs/events.md")
    declared = textwrap.indent(declared, " " * 8)
    code = EVENTS.format(declared=declared, committed=committed)

    assert_tests_pass(tmp_path, code, 2)


def test_the_app_of_the_first_quarter_of_an_hour_does_what_its_tests_say(
    tmp_path: pathlib.Path,
) -> None:
    *app, tests = examples(ROOT / "docs/first-quarter.md")
    (tmp_path / "app.py").write_text("\n\n".join(app))

    assert_tests_pass(tmp_path, tests, 3)

    # What its reader is told to run in the end.
    doctor = subprocess.run(
        [sys.executable, "-m", "flask", "mengpaneel", "doctor"],
        cwd=tmp_path,
        env=ENVIRON,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert doctor.returncode == 0, doctor.stdout + doctor.stderr


@pytest.mark.parametrize(
    "page", [page for page in PAGES if examples(page)], ids=lambda page: page.name
)
def test_examples_are_python(page: pathlib.Path) -> None:
    for example in examples(page):
        compile(example, str(page), "exec")


def test_no_example_calls_alias_which_has_no_effect_by_default() -> None:
    shown = [example for page in PAGES for example in examples(page)]
    shop = [path.read_text() for path in (ROOT / "example").glob("*.py")]

    assert shown and shop
    assert [code for code in [*shown, *shop] if re.search(r"\balias\(", code)] == []


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
