"""Operations that wait in the session for somebody to be identified, and that the
server has sent in the meantime, since nobody was."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest

from flask_mengpaneel.choose import late_calls, sharing
from sink import Sink
from sites import PAGE, Site, set_library_cookie
from waiting import eventually


@pytest.fixture(autouse=True)
def age(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a day were over soon."""
    for module in (late_calls, sharing):
        monkeypatch.setattr(module, "MAX_OPERATION_AGE", 0.2)


def shop(sink: Sink, **settings: t.Any) -> Site:
    """A site that adds up for a visitor whom nobody has identified."""
    waits = {"ack_timeout": 0.2, "delayed_max_age": 0.2}
    site = Site(transport="thread", api_host=sink.url, **waits, **settings)

    def page() -> str:
        site.mengpaneel.track("View")
        return PAGE

    def sign_in() -> str:
        with site.mengpaneel.setup():
            site.mengpaneel.identify("ann")

        return page()

    def add() -> dict[str, t.Any]:
        site.mengpaneel.people.increment({"Points": 5})
        return {}

    site.view("/page", page)
    site.view("/sign-in", sign_in)
    site.view("/add", add)
    return site


def sums(sink: Sink) -> list[dict[str, t.Any]]:
    return [update["$add"] for update in sink.updates if "$add" in update]


@pytest.mark.parametrize("path", ["/page", "/sign-in", "/add"])
@pytest.mark.parametrize(
    "kept", ["in memory", "in memory and a spool", "durable", "in another process"]
)
def test_are_not_sent_again_when_the_visitor_comes_back(
    sink: Sink, tmp_path: Path, kept: str, path: str
) -> None:
    settings = {
        "spool": None if kept == "in memory" else str(tmp_path / "spool"),
        "durable": kept == "durable",
    }
    site = shop(sink, **settings)
    client = site.client()
    set_library_cookie(client, distinct_id="$device:d1", **{"$device_id": "d1"})
    client.get("/add")
    assert sink.wait_for(lambda: sums(sink))
    session = client.get_cookie("session")
    assert session is not None

    if kept == "in another process":
        site = shop(sink, **settings)
        client = site.client()
        set_library_cookie(client, distinct_id="$device:d1", **{"$device_id": "d1"})
        client.set_cookie("session", session.value)

    client.get(path)
    # What the visitor adds by coming back.
    added = [{"Points": 5}] * (path == "/add")
    eventually(lambda: not site.mengpaneel.ledger().waiting)

    assert site.mengpaneel.drain(60)
    assert sums(sink) == [{"Points": 5}, *added]
    balance = site.mengpaneel.ledger()
    assert balance.recorded == balance.delivered
