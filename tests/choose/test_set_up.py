"""The operations of a set-up: made with something tracked or a page, if it is news."""

from __future__ import annotations

import typing as t

import pytest
from flask import request, session

from flask_mengpaneel.choose import set_up
from sites import ANN, CAPABLE, DEVICE, PAGE, Site, page_calls
from waiting import Clock

BOB = {"distinct_id": "bob", "$device_id": "d2", "$user_id": "bob"}
SCRIPT = {"Accept": "*/*"}
FETCH = {"Sec-Fetch-Dest": "empty", "Accept": "*/*"}
DAY = 86_400.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(set_up, "time", clock)
    return clock


class SetUp(Site):
    """Sets up who it is with each request: ``user``, with the profile ``profile``."""

    def __init__(self, **settings: t.Any) -> None:
        self.user: str | None = "ann"
        self.profile: dict[str, t.Any] = {"Plan": "pro"}
        super().__init__(**settings)
        self.app.before_request(self.set_up)
        self.view("/quiet", lambda: PAGE)
        self.view("/view", lambda: (self.mengpaneel.track("View"), PAGE)[1])
        self.view("/poll", lambda: {})
        self.view("/act", lambda: (self.mengpaneel.track("Act"), {})[1])
        self.view("/session", lambda: (session.setdefault("seen", 1), PAGE)[1])

    def set_up(self) -> None:
        with self.mengpaneel.setup():
            if self.user is not None:
                self.mengpaneel.identify(self.user)

            self.mengpaneel.people.set(self.profile)

    @property
    def said(self) -> list[tuple[str, dict[str, t.Any]]]:
        """What was set of whom, in order."""
        return [
            (
                message["$distinct_id"],
                {k: v for k, v in message["$set"].items() if k in self.profile},
            )
            for message in self.messages
            if "$set" in message
        ]


PRO = ("ann", {"Plan": "pro"})
FREE = ("ann", {"Plan": "free"})


@pytest.mark.parametrize("path", ["/quiet", "/view", "/act"])
def test_it_is_made_once(path: str, clock: Clock) -> None:
    site = SetUp()
    client = site.visitor(**ANN)

    for _ in range(5):
        client.get(path, headers=SCRIPT if path == "/act" else {})

    assert site.said == [PRO]


@pytest.mark.parametrize("first", ["/quiet", "/view", "/act"])
@pytest.mark.parametrize("second", ["/quiet", "/view", "/act"])
def test_a_change_is_made_at_once(first: str, second: str, clock: Clock) -> None:
    site = SetUp()
    client = site.visitor(**ANN)
    client.get(first)
    site.profile = {"Plan": "free"}
    client.get(second)
    client.get(first)
    assert site.said == [PRO, FREE]
    site.profile = {"Plan": "pro"}
    client.get(second)
    assert site.said == [PRO, FREE, PRO]


@pytest.mark.parametrize("path", ["/quiet", "/view", "/act"])
def test_it_is_made_again_after_a_day(path: str, clock: Clock) -> None:
    site = SetUp()
    client = site.visitor(**ANN)
    client.get(path)

    for _ in range(3):
        clock.passed += DAY / 4
        client.get(path)

    assert site.said == [PRO]
    clock.passed += DAY / 4 + 1
    client.get(path)
    # Looking again doesn't put it off.
    assert site.said == [PRO, PRO]
    clock.passed += DAY - 1
    client.get(path)
    assert site.said == [PRO, PRO]


def test_each_person_has_their_own(clock: Clock) -> None:
    site = SetUp()
    ann, bob = site.visitor(**ANN), site.visitor(**BOB)

    for _ in range(3):
        for client, user in ((ann, "ann"), (bob, "bob")):
            site.user = user
            client.get("/view")

    assert site.said == [PRO, ("bob", {"Plan": "pro"})]


def test_a_person_with_two_devices_is_one(clock: Clock) -> None:
    site = SetUp()
    other = {**ANN, "$device_id": "d3"}

    for client in (site.visitor(**ANN), site.visitor(**other)):
        client.get("/quiet")

    assert site.said == [PRO]


@pytest.mark.parametrize(
    "headers", [FETCH, SCRIPT, CAPABLE], ids=["fetch", "xhr", "us"]
)
def test_a_poll_alone_makes_nothing(headers: dict[str, str], clock: Clock) -> None:
    site = SetUp()
    client = site.visitor(**ANN)

    for _ in range(3):
        response = client.get("/poll", headers=headers)
        assert "X-Mengpaneel-Calls" not in response.headers

    assert site.kept.envelopes == []
    client.get("/quiet")
    assert site.said == [PRO]


def test_a_page_that_no_browser_asks_for_makes_nothing(clock: Clock) -> None:
    site = SetUp()
    site.client("curl/8").get("/quiet")
    site.visitor(**ANN).get("/quiet", headers={"DNT": "1"})

    assert site.kept.envelopes == []


def test_somebody_new_is_identified_and_set_up_by_one_page(clock: Clock) -> None:
    site = SetUp()
    client = site.client()
    page = client.get("/view")

    assert [call[0] for call in page_calls(page)] == [["identify"], ["track"]]
    assert site.said == [PRO]


def test_what_is_set_up_of_nobody_waits_for_somebody(clock: Clock) -> None:
    """A page that is quiet doesn't use it up."""
    site = SetUp()
    site.user = None
    client = site.visitor(**DEVICE)
    client.get("/quiet")
    client.get("/view")
    client.get("/view")
    assert site.said == []
    site.user, site.profile = "ann", {"Mail": "a@b.example"}
    client.get("/view")
    (message,) = (one for one in site.messages if "$set" in one)
    assert message["$distinct_id"] == "ann"
    assert {"Plan": "pro", "Mail": "a@b.example"}.items() <= message["$set"].items()


# -- a page that is quiet


def plain_headers(path: str, **settings: t.Any) -> dict[str, str]:
    """The headers of the same page without the extension."""
    site = SetUp(enabled=False, **settings)
    return dict(site.client().get(path).headers)


@pytest.mark.parametrize("path", ["/quiet", "/session"])
@pytest.mark.parametrize("news", [True, False])
def test_a_quiet_page_is_as_cacheable_as_without_the_extension(
    path: str, news: bool, clock: Clock
) -> None:
    site = SetUp(respect_dnt=False)
    client = site.visitor(**ANN)

    if not news:
        client.get("/quiet")

    response = client.get(path)
    own = dict(response.headers)
    theirs = plain_headers(path)
    del own["Content-Length"], theirs["Content-Length"]

    if path == "/session":
        # Signed with the time.
        assert own.pop("Set-Cookie").split("=")[0] == "session"
        del theirs["Set-Cookie"]

    assert own == theirs
    assert page_calls(response) == []
    assert site.said == [PRO]


def test_a_quiet_page_answers_to_its_validators(clock: Clock) -> None:
    site = SetUp(respect_dnt=False)

    def view() -> t.Any:
        response = site.app.make_response(PAGE)
        response.add_etag()
        return response.make_conditional(request)

    site.view("/etag", view)
    client = site.visitor(**ANN)
    etag = client.get("/etag").headers["ETag"]

    assert client.get("/etag", headers={"If-None-Match": etag}).status_code == 304
    assert site.said == [PRO]


def test_it_costs_a_quiet_page_no_envelope(clock: Clock) -> None:
    site = SetUp()
    client = site.visitor(**ANN)
    client.get("/quiet")
    before = len(site.kept.envelopes)

    for _ in range(20):
        client.get("/quiet")

    assert len(site.kept.envelopes) == before
    ledger = site.mengpaneel.ledger().snapshot()
    assert (ledger.recorded, ledger.delivered, ledger.waiting) == (1, 1, 0)


def test_a_process_remembers_so_many_persons(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    monkeypatch.setattr(set_up, "_MAX_PERSONS", 2)
    site = SetUp()

    for user in ("ann", "bob", "ann", "cay", "ann", "bob"):
        site.user = user
        site.visitor(distinct_id=user, **{"$user_id": user, "$device_id": user}).get(
            "/quiet"
        )

    # Bob, who was there the longest ago, is forgotten.
    assert [person for person, _ in site.said] == ["ann", "bob", "cay", "bob"]


@pytest.mark.parametrize("path", ["/tracks", "/quiet"])
@pytest.mark.parametrize("method", ["set_group", "add_group", "people.set"])
def test_groups_are_told_once_until_they_are_others(path: str, method: str) -> None:
    site = Site()
    plan = ["free"]

    @site.app.before_request
    def set_up() -> None:
        with site.mengpaneel.setup():
            site.mengpaneel.identify("ada")
            site.mengpaneel.call(method, "plan", plan[0])

    site.view("/quiet", lambda: PAGE)
    site.view("/tracks", lambda: (site.mengpaneel.track("Look"), PAGE)[1])
    client = site.client()

    for value in ("free", "pro"):
        plan[0] = value
        told = []

        for _ in range(3):
            client.get(path)
            told.append(sum(call.name.startswith("people") for call in site.kept.calls))
            site.kept.envelopes.clear()

        assert told == [1, 0, 0]
