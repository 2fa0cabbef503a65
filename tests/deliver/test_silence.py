"""A site whose pages are never acknowledged is told so once."""

from __future__ import annotations

import logging

import pytest

from flask_mengpaneel.deliver.hand_overs.silence import MIN_SENT_PAGES
from sites import Site, block, page_site
from waiting import eventually

NO_SCRIPT = "No browser has asked this process for the script"
NO_ENDPOINT = "what it posts doesn't arrive"


@pytest.fixture
def site() -> Site:
    return page_site(ack_timeout=0.05)


def look(site: Site, pages: int) -> None:
    """Look at pages, until the server has sent what they track."""
    hand_overs = site.app.extensions["mengpaneel"].hand_overs
    before = hand_overs.counts().sent.get("page", 0)
    client = site.client()

    for _ in range(pages):
        client.get("/")

    eventually(lambda: hand_overs.counts().sent.get("page", 0) >= before + pages)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.message for one in caplog.records if one.levelno == logging.WARNING]


def await_warning(caplog: pytest.LogCaptureFixture) -> str:
    eventually(lambda: warnings(caplog))
    (warning,) = warnings(caplog)
    return warning


def test_silence_is_told_once(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    look(site, MIN_SENT_PAGES)
    assert NO_SCRIPT in await_warning(caplog)

    look(site, MIN_SENT_PAGES)
    assert len(warnings(caplog)) == 1


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("mengpaneel.js", NO_ENDPOINT),
        ("mengpaneel.mjs", NO_ENDPOINT),
        ("mengpaneel.js?v=old", NO_ENDPOINT),
        ("inspector.js", NO_SCRIPT),
        ("mengpaneel.js.map", NO_SCRIPT),
        ("nothing.js", NO_SCRIPT),
    ],
)
def test_the_likely_reason_is_whether_the_script_was_asked_for(
    site: Site, caplog: pytest.LogCaptureFixture, path: str, reason: str
) -> None:
    site.client().get(f"/_mengpaneel/static/{path}").close()
    look(site, MIN_SENT_PAGES)

    assert reason in await_warning(caplog)


def test_a_few_pages_say_nothing(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    look(site, MIN_SENT_PAGES - 1)

    assert warnings(caplog) == []


def test_one_acknowledgement_is_enough(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    client = site.client()
    data = block(client.get("/"))
    assert data is not None
    client.post(
        "/_mengpaneel/acks",
        data=data["handover"],
        headers={"Sec-Fetch-Site": "same-origin"},
    )
    look(site, MIN_SENT_PAGES + 1)

    assert warnings(caplog) == []


def test_the_script_is_served_where_nobody_acknowledges() -> None:
    site = page_site(ack_timeout=0)

    with site.client().get("/_mengpaneel/static/mengpaneel.js") as response:
        assert response.status_code == 200
