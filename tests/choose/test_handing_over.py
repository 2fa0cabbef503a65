"""What a page, a header or the session has been given: the server keeps it until it is
known that Mixpanel has it, and else sends the same."""

from __future__ import annotations

import collections.abc as c
import contextlib
import json
import math
import sqlite3
import time
import typing as t
from pathlib import Path

import pytest
from flask import Response, redirect, request, session
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from agents import CHROME, GOOGLEBOT
from sites import (
    ACKNOWLEDGES,
    ANN,
    CAPABLE,
    COOKIE,
    DEVICE,
    NOBODY,
    PAGE,
    Consent,
    Site,
    balance,
    block,
    come,
    header_calls,
    page_calls,
    run_later,
)
from waiting import eventually

PREFETCH = {"Sec-Purpose": "prefetch"}
#: Seconds until a hand-over is overdue, where it is to be.
SOON = 0.05

Json = dict[str, t.Any]


def make_site(
    record: c.Callable[[t.Any], object] | None = None, **settings: t.Any
) -> Site:
    """A site that tracks a View on each way; ``/quiet``, ``/poll`` track nothing."""
    site = Site(**settings)

    def tracked(respond: c.Callable[[], t.Any]) -> c.Callable[[], t.Any]:
        def view() -> t.Any:
            if record is None:
                site.mengpaneel.track("View", {"Page": request.path})
            else:
                record(site.mengpaneel)

            return respond()

        return view

    site.view("/page", tracked(lambda: PAGE))
    site.view("/json", tracked(lambda: {}))
    site.view("/go", tracked(lambda: redirect("/quiet")))
    site.view("/chain", tracked(lambda: redirect("/go")))
    site.view("/quiet", lambda: PAGE)
    site.view("/poll", lambda: {})
    return site


def dropped(site: Site) -> dict[str, int]:
    ledger = site.mengpaneel.ledger().snapshot()
    assert ledger.balanced, ledger
    return dict(ledger.dropped)


def sent(site: Site) -> list[Json]:
    """The events that the server has sent."""
    return [message for message in site.messages if "event" in message]


def same(event: Json) -> Json:
    """What makes an event the same one to Mixpanel, and the person's."""
    properties = event["properties"]
    names = ("distinct_id", "$device_id", "$user_id", "time", "$insert_id")
    return {"event": event["event"], **{name: properties.get(name) for name in names}}


def made(response: TestResponse) -> list[Json]:
    """What the browser would send of the events in a response: what a call says of
    itself wins in the library."""
    calls = [*page_calls(response), *header_calls(response)]
    return [
        same({"event": call[1][0], "properties": call[1][1]})
        for call in calls
        if call[0] == ["track"]
    ]


def token_of(response: TestResponse) -> str:
    data = block(response)
    token = (data or {}).get("handover", response.headers.get("X-Mengpaneel-Hand-Over"))
    assert token
    return str(token)


def acknowledge(client: FlaskClient, *responses: TestResponse) -> None:
    body = " ".join(map(token_of, responses))
    assert client.post("/_mengpaneel/acks", data=body).status_code == 204


def hand_back(client: FlaskClient, response: TestResponse, calls: list[int]) -> None:
    if "X-Mengpaneel-Calls" in response.headers:
        text = response.headers["X-Mengpaneel-Calls"]
        signature = response.headers["X-Mengpaneel-Signature"]
    else:
        start = response.text.index('id="mengpaneel"')
        tag, _, rest = response.text[start:].partition(">")
        text = rest.partition("</script>")[0]
        signature = tag.partition('data-signature="')[2].strip('"')

    value = {
        "text": text,
        "signature": signature,
        "calls": calls,
        "handover": token_of(response),
    }
    answer = client.post("/_mengpaneel/calls", data=json.dumps(value))
    assert answer.status_code == 204


WAYS = {"/page": {}, "/json": ACKNOWLEDGES}
VISITORS = pytest.mark.parametrize(
    "known", [ANN, DEVICE, NOBODY], ids=["Ann", "device", "new"]
)
BOTH = pytest.mark.parametrize("path", WAYS)


def get(client: FlaskClient, path: str) -> TestResponse:
    return client.get(path, headers=WAYS.get(path, {}))


# -- a page, a header


@VISITORS
@BOTH
def test_what_is_acknowledged_is_not_sent(path: str, known: dict[str, str]) -> None:
    site = make_site()
    client = come(site, known)
    response = get(client, path)
    assert balance(site) == (1, 0, 1)

    for _ in range(2):
        acknowledge(client, response)
        assert balance(site) == (1, 1, 0)

    assert site.kept.calls == []


@VISITORS
@BOTH
def test_what_is_overdue_is_sent_as_the_same_event(
    path: str, known: dict[str, str]
) -> None:
    site = make_site(ack_timeout=SOON)
    client = come(site, known)
    response = get(client, path)
    eventually(lambda: balance(site) == (1, 1, 0))
    (event,) = sent(site)

    assert [same(event)] == made(response)
    assert event["properties"]["$insert_id"]
    assert event["properties"]["Page"] == path

    if known:
        assert event["properties"]["distinct_id"] == known["distinct_id"]
    else:
        # The library goes on with the ids that it has.
        cookie = client.get_cookie(COOKIE)
        assert cookie is not None
        assert event["properties"]["$device_id"] in cookie.value

    # Too late: to Mixpanel it is the same event, and here it is delivered.
    acknowledge(client, response)
    assert balance(site) == (1, 1, 0)


@BOTH
def test_an_overdue_page_view_is_sent_as_the_same_event(path: str) -> None:
    site = make_site(lambda mengpaneel: mengpaneel.track_pageview(), ack_timeout=SOON)
    response = get(come(site, ANN), path)
    eventually(lambda: balance(site) == (1, 1, 0))
    (call,) = [
        call
        for call in [*page_calls(response), *header_calls(response)]
        if call[0] == ["track_pageview"]
    ]
    (event,) = [one for one in sent(site) if one["event"] == "$mp_web_page_view"]
    properties = event["properties"]

    for name in ("distinct_id", "$device_id", "time", "$insert_id"):
        assert properties[name] == call[1][0][name], name

    assert properties["distinct_id"] == ANN["distinct_id"]
    # A fetch without a referrer is of no page.
    assert properties.get("current_url_path") == (path if path == "/page" else None)


@BOTH
def test_an_event_is_of_who_it_was_when_it_happened(path: str) -> None:
    def record(mengpaneel: t.Any) -> None:
        with mengpaneel.before_setup():
            mengpaneel.track("Before")

        with mengpaneel.setup():
            mengpaneel.identify("bob")

        mengpaneel.track("View")
        mengpaneel.identify("cay")
        mengpaneel.track("After")

    site = make_site(record, ack_timeout=SOON)
    response = get(come(site, DEVICE), path)
    eventually(lambda: balance(site) == (3, 3, 0))
    events = sent(site)

    assert [same(event) for event in events] == made(response)
    assert [event["properties"]["distinct_id"] for event in events] == [
        "$device:d1",
        "bob",
        "cay",
    ]


def test_a_client_that_is_new_and_keeps_no_cookie_is_believed() -> None:
    site = make_site()
    client = site.client("okhttp/4")
    response = client.get("/json", headers=ACKNOWLEDGES)

    assert "X-Mengpaneel-Calls" in response.headers
    assert "X-Mengpaneel-Hand-Over" not in response.headers
    assert balance(site) == (1, 1, 0)


#: A form that another site posts, and a frame in one: the cookies stay at home.
WITHOUT_COOKIES = {
    "form": {
        "Sec-Fetch-Site": "cross-site",
        "Sec-Fetch-Mode": "navigate",
        "Sec-Fetch-Dest": "document",
    },
    "frame": {"Sec-Fetch-Storage-Access": "none", "Sec-Fetch-Dest": "iframe"},
}


@pytest.mark.parametrize("headers", WITHOUT_COOKIES.values(), ids=WITHOUT_COOKIES)
@pytest.mark.parametrize("is_made", [False, True])
def test_a_page_of_whom_the_browser_alone_knows_is_lost_by_nobody(
    is_made: bool, headers: dict[str, str]
) -> None:
    site = Site()
    site.view(
        "/paid", lambda: (site.mengpaneel.track("Pay"), PAGE)[1], methods=["POST"]
    )
    client = site.client()
    response = client.post("/paid", headers=headers)
    (call,) = page_calls(response)

    assert "distinct_id" not in call[1][1]
    assert "Set-Cookie" not in response.headers
    assert balance(site) == (1, 0, 1)

    if is_made:
        acknowledge(client, response)

    site.app.extensions["mengpaneel"].hand_overs.hand_on()
    eventually(lambda: balance(site) == (1, 1, 0))
    # Not one more device's.
    assert [event["properties"]["distinct_id"] for event in sent(site)] == (
        [] if is_made else [""]
    )


@pytest.mark.parametrize("path", ["/page", "/json", "/go"])
def test_what_nobody_makes_of_a_visitor_whom_the_app_names_is_sent(path: str) -> None:
    site = make_site(visitor=lambda: "hash-of-the-day")
    get(site.client(), path)
    site.app.extensions["mengpaneel"].hand_overs.hand_on()
    eventually(lambda: balance(site) == (1, 1, 0))

    (event,) = sent(site)
    assert event["properties"]["distinct_id"] == "hash-of-the-day"


@pytest.mark.parametrize("then", ["/quiet", "/away", "refused"])
@pytest.mark.parametrize("ack_timeout", [None, 0, 10])
def test_what_waits_in_the_session_is_counted_once(
    ack_timeout: float | None, then: str
) -> None:
    site = make_site()

    def begin() -> Response:
        if ack_timeout is not None:
            site.mengpaneel.ack_timeout = ack_timeout

        site.mengpaneel.track("View")
        return redirect("/quiet")

    site.view("/begin", begin)
    site.view("/away", lambda: redirect("https://elsewhere.example/"))
    client = come(site, ANN)
    client.get("/begin")
    assert balance(site) == (1, 0, 1)
    refused = {"DNT": "1"} if then == "refused" else {}
    client.get("/quiet" if refused else then, headers=refused)
    site.app.extensions["mengpaneel"].hand_overs.hand_on()
    eventually(lambda: site.mengpaneel.ledger().snapshot().waiting == 0)

    assert site.mengpaneel.ledger().snapshot().recorded == 1
    assert dropped(site) == ({"consent was refused": 1} if refused else {})
    assert len(sent(site)) == (0 if refused else 1)


def count_acknowledgements(spool: Path) -> int:
    with contextlib.suppress(sqlite3.Error), sqlite3.connect(spool) as connection:
        (count,) = connection.execute(
            "SELECT count(*) FROM acknowledgements"
        ).fetchone()
        return int(count)

    return 0


@pytest.mark.parametrize("way", ["/page", "/go"])
def test_what_is_refused_in_another_process_is_no_delivery(
    way: str, tmp_path: Path
) -> None:
    consent, spool = Consent(), tmp_path / "spool.sqlite3"
    ours = make_site(spool=spool, consent=consent)
    theirs = make_site(spool=spool, consent=consent)
    client, other = come(ours, ANN), come(theirs, ANN)
    response = client.get(way)
    consent.answer = False

    if way == "/page":
        hand_back(other, response, [0])
    else:
        cookie = client.get_cookie("session")
        assert cookie is not None
        other.set_cookie("session", cookie.value)
        other.get("/quiet")

    eventually(lambda: count_acknowledgements(spool) == 1)
    ours.app.extensions["mengpaneel"].hand_overs.hand_on()
    eventually(lambda: dropped(ours) == {"consent was refused": 1})

    assert ours.mengpaneel.ledger().snapshot().delivered == 0
    assert dropped(theirs) == {}
    assert sent(ours) == sent(theirs) == []


def test_of_what_is_handed_back_in_part_and_refused_since_the_rest_has_arrived() -> (
    None
):
    def record(mengpaneel: t.Any) -> None:
        mengpaneel.track("One")
        mengpaneel.track("Two")

    consent = Consent()
    site = make_site(record, consent=consent)
    client = come(site, ANN)
    response = client.get("/page")
    consent.answer = False
    hand_back(client, response, [1])

    assert dropped(site) == {"consent was refused": 1}
    assert site.mengpaneel.ledger().snapshot().delivered == 1
    assert sent(site) == []


@pytest.mark.parametrize("library", ["localStorage", "disabled"])
def test_a_library_that_keeps_no_cookie_gets_ids_to_begin_with(library: str) -> None:
    options = (
        {"persistence": "localStorage"}
        if library == "localStorage"
        else {"disable_persistence": True}
    )
    site = make_site(client_config=options)
    response = site.client().get("/page")

    assert "handover" in (block(response) or {})
    device = page_calls(response)[0][1][1]["$device_id"]
    assert device in response.headers["Set-Cookie"]
    assert balance(site) == (1, 0, 1)


def test_what_happens_after_a_reset_is_the_servers() -> None:
    def record(mengpaneel: t.Any) -> None:
        mengpaneel.track("Before")
        mengpaneel.reset()
        mengpaneel.track("After")

    site = make_site(record)
    response = come(site, ANN).get("/page")
    before, after = sent(site)

    assert page_calls(response) == []
    assert before["properties"]["distinct_id"] == "ann"
    assert after["properties"]["distinct_id"].startswith("$device:")
    assert after["properties"]["$device_id"] != "d1"
    assert balance(site) == (2, 2, 0)


def test_a_request_may_ask_that_its_client_is_believed() -> None:
    site = make_site(ack_timeout=SOON)

    def view() -> str:
        site.mengpaneel.ack_timeout = 0
        site.mengpaneel.track("View")
        return PAGE

    site.view("/believed", view)
    response = come(site, ANN).get("/believed")

    assert "handover" not in (block(response) or {})
    assert "distinct_id" not in page_calls(response)[0][1][1]
    assert balance(site) == (1, 1, 0)


def test_a_request_may_give_its_client_longer() -> None:
    site = make_site(ack_timeout=SOON)

    def view() -> str:
        site.mengpaneel.ack_timeout = 60
        site.mengpaneel.track("Slow")
        return PAGE

    site.view("/slow", view)
    client = come(site, ANN)
    slow, fast = client.get("/slow"), client.get("/page")
    eventually(lambda: balance(site) == (2, 1, 1))

    assert [event["event"] for event in sent(site)] == ["View"]
    acknowledge(client, slow, fast)
    assert balance(site) == (2, 2, 0)


@pytest.mark.parametrize("seconds", [-1, -0.1, float("nan"), float("inf")])
def test_no_client_has_for_ever(seconds: float) -> None:
    site = make_site()

    def view() -> str:
        with pytest.raises(ValueError, match="seconds"):
            site.mengpaneel.ack_timeout = seconds

        return str(site.mengpaneel.ack_timeout)

    site.view("/never", view)

    assert "30" in site.client().get("/never").text


# -- browsers that come back


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> c.Callable[[float], None]:
    """Moves all clocks, as time does."""
    offset = 0.0

    def jump(seconds: float) -> None:
        nonlocal offset
        offset += seconds

    for name in ("time", "monotonic"):
        real = getattr(time, name)
        monkeypatch.setattr(time, name, lambda real=real: real() + offset)

    return jump


HOUR = 3600.0


def let_the_thread_look(site: Site) -> None:
    """It sleeps by a clock that no test moves."""
    site.app.extensions["mengpaneel"].hand_overs._wake()


def the_thread_sleeps(site: Site) -> bool:
    """Whether it has looked, and waits for what is due next."""
    stepper = site.app.extensions["mengpaneel"].hand_overs._stepper
    return 0 < stepper.wakes_at < math.inf


def in_memory(site: Site) -> int:
    """The hand-overs that wait."""
    return len(site.app.extensions["mengpaneel"].hand_overs._memory)


@BOTH
def test_who_acknowledges_after_an_hour_is_believed_where_that_is_in_time(
    path: str, clock: c.Callable[[float], None]
) -> None:
    site = make_site(ack_timeout=2 * HOUR)

    def soon() -> str:
        site.mengpaneel.ack_timeout = SOON
        site.mengpaneel.track("Soon")
        return PAGE

    site.view("/soon", soon)
    client = come(site, ANN)
    response = get(client, path)
    clock(HOUR)
    # The thread has looked when it has sent what is overdue by now.
    come(site, DEVICE).get("/soon")
    eventually(lambda: sent(site))
    assert balance(site) == (2, 1, 1)
    acknowledge(client, response)
    eventually(lambda: not in_memory(site))
    assert balance(site) == (2, 2, 0)
    assert [event["event"] for event in sent(site)] == ["Soon"]


@pytest.mark.parametrize("says", ["acknowledged", "handed back", "both"])
@BOTH
def test_what_a_browser_says_after_an_hour_is_of_the_same_event(
    path: str, says: str, clock: c.Callable[[float], None]
) -> None:
    site = make_site()
    client = come(site, ANN)
    response = get(client, path)
    clock(HOUR)
    let_the_thread_look(site)
    eventually(lambda: balance(site) == (1, 1, 0))
    assert [same(event) for event in sent(site)] == made(response)

    if says != "acknowledged":
        hand_back(client, response, [0])

    if says != "handed back":
        acknowledge(client, response)

    again = int(says != "acknowledged")
    eventually(lambda: balance(site) == (1 + again, 1 + again, 0))
    assert [same(event) for event in sent(site)] == made(response) * (1 + again)


@BOTH
def test_who_acknowledges_before_the_thread_has_noticed_the_hour_is_believed(
    path: str, clock: c.Callable[[float], None]
) -> None:
    """As after a machine has slept."""
    site = make_site()
    client = come(site, ANN)
    response = get(client, path)
    # Else it may look for the first time when the hour is over.
    eventually(lambda: the_thread_sleeps(site))
    clock(HOUR)
    acknowledge(client, response)
    eventually(lambda: not in_memory(site))

    assert balance(site) == (1, 1, 0)
    assert sent(site) == []


# -- pages that nobody sees


def test_a_page_that_was_fetched_in_advance_waits_to_be_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flask_mengpaneel.choose.handing_over._MAX_ADVANCE", SOON)
    site = make_site(ack_timeout=SOON)
    client = come(site, ANN)
    client.get("/page", headers=PREFETCH)
    eventually(lambda: dropped(site) == {"fetched in advance and never shown": 1})

    assert sent(site) == []


def test_a_page_that_was_fetched_in_advance_and_shown_is_delivered() -> None:
    site = make_site(ack_timeout=SOON)
    client = come(site, ANN)
    response = client.get("/page", headers=PREFETCH)
    time.sleep(4 * SOON)
    # It has as long as browsers keep it.
    assert balance(site) == (1, 0, 1)
    acknowledge(client, response)
    assert balance(site) == (1, 1, 0)
    assert sent(site) == []


def test_a_robots_page_is_dropped() -> None:
    site = make_site(ack_timeout=SOON)
    site.client(GOOGLEBOT).get("/page")
    eventually(lambda: dropped(site) == {"a robot's page": 1})

    assert sent(site) == []


def test_a_robot_that_runs_scripts_may_say_so() -> None:
    site = make_site()
    client = site.client(GOOGLEBOT)
    acknowledge(client, client.get("/page"))

    assert balance(site) == (1, 1, 0)


# -- a response that isn't sent


@pytest.mark.parametrize("path", ["/page", "/json", "/go"])
@VISITORS
def test_an_error_page_takes_the_calls_over(path: str, known: dict[str, str]) -> None:
    site = make_site(testing=False)
    times = iter([1])

    def fail(_response: Response) -> None:
        if next(times, 0):
            raise RuntimeError("too late")

    run_later(site, path, fail)
    client = come(site, known)
    response = client.get(path, headers=WAYS.get(path, {}))

    assert response.status_code == 500
    # One, and not that of the page that nobody got.
    assert balance(site) == (1, 0, 1) or (sent(site) and balance(site) == (1, 1, 0))
    client.get("/quiet")
    assert balance(site)[0] == 1
    ids = {one["$insert_id"] for one in made(response)}
    ids |= {event["properties"]["$insert_id"] for event in sent(site)}
    assert len(ids) == 1


@pytest.mark.parametrize("path", ["/page", "/json"])
def test_another_response_in_its_place_gets_the_calls_to_the_server(path: str) -> None:
    site = make_site(testing=False)

    def fail(_response: Response) -> None:
        raise RuntimeError("again and again")

    run_later(site, path, fail)
    assert get(come(site, ANN), path).status_code == 500
    recorded, delivered, waiting = balance(site)

    assert (recorded, delivered + waiting) == (1, 1)


# -- the session


def test_a_redirect_that_is_followed_is_taken_up_by_the_page() -> None:
    site = make_site()
    client = come(site, DEVICE)
    client.get("/go")
    assert balance(site) == (1, 0, 1)
    page = client.get("/quiet")
    assert balance(site) == (1, 0, 1)
    assert [event["event"] for event in made(page)] == ["View"]
    acknowledge(client, page)
    assert balance(site) == (1, 1, 0)
    assert sent(site) == []


def test_it_is_taken_up_by_a_header_of_a_client_that_is_believed() -> None:
    site = make_site()
    client = come(site, DEVICE)
    client.get("/go")
    response = client.get("/json", headers=CAPABLE)
    assert len(made(response)) == 2
    assert balance(site) == (2, 2, 0)


def test_it_is_taken_up_by_a_header() -> None:
    site = make_site()
    client = come(site, DEVICE)
    client.get("/chain", follow_redirects=False)
    client.get("/go")
    assert balance(site) == (2, 0, 2)
    response = client.get("/json", headers=ACKNOWLEDGES)
    assert balance(site) == (3, 0, 3)
    acknowledge(client, response)
    assert balance(site) == (3, 3, 0)
    assert len(made(response)) == 3


@pytest.mark.parametrize("path", ["/poll", "/json"])
def test_a_poll_takes_nothing_up(path: str) -> None:
    site = make_site()
    client = come(site, DEVICE)
    client.get("/go")
    client.get(path, headers={"Sec-Fetch-Dest": "empty"})
    own = int(path == "/json")

    assert balance(site) == (1 + own, own, 1)
    assert len(made(client.get("/quiet"))) == 1


@VISITORS
def test_a_redirect_that_nobody_follows_is_sent(known: dict[str, str]) -> None:
    site = make_site(delayed_max_age=SOON)
    come(site, known).get("/go")
    eventually(lambda: balance(site) == (1, 1, 0))
    (event,) = sent(site)

    assert event["properties"]["Page"] == "/go"
    assert event["properties"]["distinct_id"]


def test_what_is_sent_late_as_well_is_the_same_event() -> None:
    site = make_site(delayed_max_age=SOON)
    client = come(site, DEVICE)
    client.get("/go")
    eventually(lambda: sent(site))
    client.get("/poll")
    page = client.get("/quiet")

    assert made(page) == []
    assert len({json.dumps(same(event)) for event in sent(site)}) == 1
    balance(site)


def test_a_page_that_took_it_up_is_overdue_by_itself() -> None:
    site = make_site(ack_timeout=SOON)
    client = come(site, DEVICE)
    client.get("/go")
    page = client.get("/quiet")
    eventually(lambda: balance(site) == (1, 1, 0))

    assert [same(event) for event in sent(site)] == made(page)


def test_a_late_response_that_puts_an_older_session_back_loses_nothing() -> None:
    """Its request has come before the redirect, and knows nothing of what waits."""
    site = make_site(delayed_max_age=1)
    client = come(site, DEVICE)

    def slow() -> Json:
        session["basket"] = "full"
        client.get("/go")
        return {}

    site.view("/slow", slow)
    started = time.monotonic()
    client.get("/slow")
    assert made(client.get("/quiet")) == []
    eventually(lambda: balance(site) == (1, 1, 0))
    assert time.monotonic() - started >= 1
    assert made(client.get("/quiet")) == []
    (event,) = sent(site)
    assert event["properties"]["Page"] == "/go"
    assert event["properties"]["distinct_id"] == "$device:d1"


@pytest.mark.parametrize("arrives", [False, True], ids=["overdue", "acknowledged"])
def test_what_a_late_response_puts_back_into_the_session_is_the_same_event(
    arrives: bool,
) -> None:
    """Its request has come before the page that has taken it up."""
    site = make_site(delayed_max_age=1, ack_timeout=1)
    client = come(site, DEVICE)
    pages = []

    def slow() -> Json:
        session["basket"] = "full"
        pages.append(client.get("/quiet"))

        if arrives:
            acknowledge(client, pages[0])

        return {}

    site.view("/slow", slow)
    client.get("/go")
    client.get("/slow", headers={"Sec-Fetch-Dest": "empty"})
    pages.append(client.get("/quiet"))
    # A browser makes what it has made already no second time.
    first, second = [(block(page) or {})["calls"] for page in pages]
    assert first == second
    eventually(lambda: balance(site)[2] == 0)
    assert made(client.get("/quiet")) == []
    assert all([same(event)] == made(pages[0]) for event in sent(site))
    assert len(sent(site)) == (1 if arrives else 2)


@pytest.mark.parametrize("timeout", [0, 30])
def test_what_the_server_has_sent_no_page_makes_though_its_session_comes_back(
    timeout: float,
) -> None:
    site = make_site(ack_timeout=timeout)
    site.view("/leave", lambda: ({}, {"Clear-Site-Data": '"cookies"'}))
    client = come(site, ANN)
    client.get("/go")
    # Flask's client doesn't clear anything.
    client.get("/leave")
    assert len(sent(site)) == 1
    once = balance(site)
    assert once == (1, 1, 0)
    assert [made(client.get("/quiet")) for _ in range(2)] == [[], []]
    assert balance(site) == once


def test_a_prefetch_takes_nothing_up() -> None:
    site = make_site()
    client = come(site, DEVICE)
    client.get("/go")
    assert made(client.get("/quiet", headers=PREFETCH)) == []
    assert balance(site) == (1, 0, 1)
    assert len(made(client.get("/quiet"))) == 1


def test_a_session_that_could_not_be_saved_has_nothing() -> None:
    site = make_site(testing=False)
    interface = site.app.session_interface
    save = interface.save_session
    interface.save_session = lambda *_: None  # type: ignore[method-assign]
    client = come(site, DEVICE)
    client.get("/go")
    interface.save_session = save  # type: ignore[method-assign]

    assert len(sent(site)) == 1
    assert balance(site) == (1, 1, 0)
    assert made(client.get("/quiet")) == []


def test_another_process_takes_it_up(tmp_path: Path) -> None:
    """They share a spool; one has kept it, the other gives it to a page."""
    options: Json = {"spool": tmp_path / "spool.sqlite3", "delayed_max_age": 1.0}
    first, second = make_site(**options), make_site(**options)
    client, other = come(first, DEVICE), come(second, DEVICE)
    client.get("/go")
    cookie = client.get_cookie("session")
    assert cookie is not None
    other.set_cookie("session", cookie.value)
    page = other.get("/quiet")
    assert len(made(page)) == 1
    acknowledge(other, page)
    eventually(lambda: balance(first) == (1, 1, 0))

    assert sent(first) == []
    assert sent(second) == []


def test_another_process_acknowledges(tmp_path: Path) -> None:
    options: Json = {"spool": tmp_path / "spool.sqlite3", "ack_timeout": 1.0}
    first, second = make_site(**options), make_site(**options)
    client = come(first, DEVICE)
    page = client.get("/page")
    acknowledge(come(second, DEVICE), page)
    eventually(lambda: balance(first) == (1, 1, 0))

    assert sent(first) == []


# -- handed back


@BOTH
def test_what_is_handed_back_is_sent_at_once(path: str) -> None:
    site = make_site(ack_timeout=SOON * 4)
    client = come(site, ANN)
    response = get(client, path)
    hand_back(client, response, [0])
    assert balance(site) == (1, 1, 0)
    time.sleep(SOON * 8)

    assert [same(event) for event in sent(site)] == made(response)
    assert balance(site) == (1, 1, 0)


@BOTH
def test_what_is_handed_back_by_who_is_asked_again_waits_on(path: str) -> None:
    consent = Consent()
    site = make_site(consent=consent)
    client = come(site, ANN)
    response = get(client, path)
    consent.answer = None
    hand_back(client, response, [0])

    assert balance(site) == (1, 0, 1)
    acknowledge(client, response)
    assert balance(site) == (1, 1, 0)


@BOTH
def test_what_is_handed_back_by_who_has_refused_is_dropped(path: str) -> None:
    consent = Consent()
    site = make_site(consent=consent)
    client = come(site, ANN)
    response = get(client, path)
    consent.answer = False
    hand_back(client, response, [0])

    assert dropped(site) == {"consent was refused": 1}
    assert site.mengpaneel.ledger().waiting == 0
    acknowledge(client, response)
    assert sent(site) == []


def test_what_isn_t_among_that_has_arrived() -> None:
    def record(mengpaneel: t.Any) -> None:
        for number in range(4):
            mengpaneel.track("View", {"Number": number})

    site = make_site(record, ack_timeout=60)
    client = come(site, ANN)
    response = client.get("/page")
    assert balance(site) == (4, 0, 4)
    hand_back(client, response, [1, 3])

    assert [event["properties"]["Number"] for event in sent(site)] == [1, 3]
    assert balance(site) == (4, 4, 0)
    hand_back(client, response, [1, 2])
    assert [event["properties"]["Number"] for event in sent(site)] == [1, 3, 2]
    assert balance(site)[2] == 0


# -- what it adds to a response


def test_a_page_of_somebody_known_gets_no_cookie() -> None:
    response = come(make_site(), ANN).get("/page")

    assert "Set-Cookie" not in response.headers
    assert (block(response) or {})["handover"]


@BOTH
def test_somebody_new_gets_the_ids_that_the_events_have(path: str) -> None:
    site = make_site()
    client = site.client()
    response = get(client, path)
    (event,) = made(response)
    cookie = client.get_cookie(COOKIE)

    assert cookie is not None
    assert event["$device_id"] in cookie.value
    assert event["distinct_id"] == f"$device:{event['$device_id']}"
    # And stays the same one.
    (again,) = made(get(client, path))
    assert again["distinct_id"] == event["distinct_id"]


def test_calls_that_say_only_who_it_is_are_not_kept() -> None:
    def record(mengpaneel: t.Any) -> None:
        with mengpaneel.setup():
            mengpaneel.identify("ann")
            mengpaneel.register({"Plan": "pro"})

    site = make_site(record)
    response = come(site, DEVICE).get("/page")

    assert len(page_calls(response)) == 2
    assert "handover" not in (block(response) or {})
    assert balance(site) == (0, 0, 0)


def test_the_user_agent_of_an_overdue_page_is_that_of_its_request() -> None:
    site = make_site(ack_timeout=SOON)
    client = come(site, ANN)
    client.get("/page?x=1", headers={"Referer": "https://search.example/"})
    client.environ_base["HTTP_USER_AGENT"] = "curl/8"
    eventually(lambda: sent(site))
    properties = sent(site)[0]["properties"]

    assert CHROME.rpartition("Chrome/")[2].startswith(
        str(properties["$browser_version"])[:3]
    )
    assert properties["$current_url"] == "http://localhost/page?x=1"
    assert properties["$referrer"] == "https://search.example/"
