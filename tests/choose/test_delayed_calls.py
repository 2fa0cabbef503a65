from __future__ import annotations

import collections.abc as c
import json
import random
import typing as t

import pytest
from flask import Response, redirect, request, session
from flask.testing import FlaskClient
from hypothesis import given, settings
from hypothesis import strategies as st

from agents import CHROME
from sites import (
    ANN,
    CAPABLE,
    DEVICE,
    PAGE,
    Site,
    hand_overs,
    header_calls,
    names,
    page_calls,
    redirect_site,
    set_library_cookie,
)

JSON = {"Accept": "*/*"}
KEY = "_mengpaneel_token"
PREFETCH = {"Sec-Purpose": "prefetch"}


def stored(client: FlaskClient) -> t.Any:
    """What waits in the session."""
    with client.session_transaction() as kept:
        return kept.get(KEY)


def events(calls: c.Iterable[t.Any]) -> list[str]:
    return [call[1][0] for call in calls if call[0] == ["track"] and call[1]]


# -- which redirects


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_is_delayed_until_the_next_page(code: int) -> None:
    site = redirect_site(code=code)
    client = site.client()
    response = client.get("/go")
    page = client.get("/page")

    assert response.status_code == code
    assert events(page_calls(page)) == ["Order"]
    assert [one.strategy for one in site.outcomes] == ["Delayed", "ClientSide"]
    assert stored(client) is None


# -- which clients


@pytest.mark.parametrize(
    ("user_agent", "delayed"),
    [
        (CHROME, True),
        (None, True),
        ("curl/8.5.0", False),
        ("python-requests/2.32.3", False),
        ("Stripe/1.0 (+https://stripe.com/docs/webhooks)", False),
        ("GitHub-Hookshot/044aadd", False),
        ("", False),
    ],
)
def test_browsers_come_back_and_programs_do_not(
    user_agent: str | None, delayed: bool
) -> None:
    site = redirect_site()
    site.client(user_agent).post("/go")

    assert (site.outcome.strategy == "Delayed") is delayed


def test_a_program_with_the_sessions_cookie_comes_back() -> None:
    site = redirect_site()
    site.view("/sign-in", lambda: (session.update(user=1), {})[1])
    client = site.client("python-requests/2.32.3")
    client.get("/sign-in")
    client.get("/go")

    assert site.outcome.strategy == "Delayed"

    client.get("/json", headers=CAPABLE)
    assert [one.strategy for one in site.outcomes] == ["Delayed", "CapableClientSide"]


@pytest.mark.parametrize("key", [None, "", b""], ids=repr)
def test_without_a_secret_key_the_server_sends(key: t.Any) -> None:
    site = redirect_site()
    site.app.secret_key = key
    client = site.client()
    response = client.get("/go")

    assert response.status_code == 302
    assert [call.event for call in site.kept.calls] == ["Order"]
    assert "SECRET_KEY" in site.outcome.declined["Delayed"]


# -- the session's limits


def longest_cookie(client: FlaskClient) -> c.Callable[[Response], int]:
    return lambda response: max(
        (len(line) for line in response.headers.getlist("Set-Cookie")), default=0
    )


def test_what_no_longer_fits_leaves_what_waits_alone() -> None:
    site = redirect_site()
    text = "".join(map(chr, random.Random(0).choices(range(40, 127), k=6000)))
    site.view(
        "/large",
        lambda: (site.mengpaneel.track("Large", {"Text": text}), redirect("/page"))[1],
    )
    client = site.client()
    client.get("/go")
    waiting = stored(client)
    client.get("/large")

    assert stored(client) == waiting
    assert [call.event for call in site.kept.calls] == ["Large"]
    assert events(page_calls(client.get("/page"))) == ["Order"]


def test_a_session_on_the_server_has_no_limit_of_a_cookies() -> None:
    from flask.sessions import SessionInterface, SessionMixin

    class Kept(dict, SessionMixin):  # type: ignore[type-arg]
        pass

    class Interface(SessionInterface):
        def __init__(self) -> None:
            self.kept: dict[str, t.Any] = {}

        def open_session(self, app: t.Any, request: t.Any) -> Kept:
            return Kept(self.kept if "session" in request.cookies else {})

        def save_session(self, app: t.Any, session: t.Any, response: Response) -> None:
            self.kept = json.loads(json.dumps(dict(session)))
            response.set_cookie("session", "1")

    site = redirect_site()
    site.app.session_interface = Interface()
    site.view(
        "/large",
        lambda: (
            site.mengpaneel.track("Large", {"Text": "x" * 50_000}),
            redirect("/page"),
        )[1],
    )
    client = site.client()
    page = client.get("/large", follow_redirects=True)

    assert events(page_calls(page)) == ["Large"]


@pytest.mark.parametrize("fails", ["open", "save"])
def test_a_session_that_fails_costs_no_call(fails: str) -> None:
    from flask.sessions import SecureCookieSessionInterface

    class Dead(dict):  # type: ignore[type-arg]
        accessed = modified = False
        permanent = new = False

        def __iter__(self) -> t.NoReturn:
            raise ConnectionError("Redis is away")

        keys = items = __getitem__ = __setitem__ = get = __iter__  # type: ignore

    class Interface(SecureCookieSessionInterface):
        def open_session(self, app: t.Any, request: t.Any) -> t.Any:
            return Dead()

        def save_session(self, app: t.Any, session: t.Any, response: Response) -> None:
            return None

    site = redirect_site(testing=False)
    site.app.session_interface = Interface()
    client = site.client()
    client.set_cookie("session", "x")

    assert client.get("/go").status_code == 302
    assert [call.event for call in site.kept.calls] == ["Order"]
    assert client.get("/page").status_code == 200


# -- chains


@pytest.mark.parametrize("length", [1, 2, 5, 12])
def test_chains_of_any_length_accumulate(length: int) -> None:
    site = Site()

    def hop(number: int) -> Response | str:
        site.mengpaneel.track(f"Hop {number}")
        return redirect(f"/{number + 1}") if number < length else PAGE

    site.app.add_url_rule("/<int:number>", "hop", hop)
    page = site.client().get("/0", follow_redirects=True)

    assert events(page_calls(page)) == [f"Hop {i}" for i in range(length + 1)]
    assert site.kept.envelopes == []


def staged(site: Site, name: str, *, setup: bool = True) -> None:
    site.mengpaneel.track(f"Track {name}")

    if setup:
        with site.mengpaneel.setup():
            site.mengpaneel.register({"from": name})

    with site.mengpaneel.before_setup():
        site.mengpaneel.track(f"Before {name}")


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        (True, ["B1", "B2", "register two", "T1", "T2"]),
        (False, ["B1", "B2", "register one", "T1", "T2"]),
    ],
)
def test_each_call_replays_in_its_stage(second: bool, expected: list[str]) -> None:
    site = Site()
    site.view("/go", lambda: (staged(site, "one"), redirect("/page"))[1])
    site.view("/page", lambda: (staged(site, "two", setup=second), PAGE)[1])
    calls = page_calls(site.client().get("/go", follow_redirects=True))
    found = [
        {"Before one": "B1", "Before two": "B2", "Track one": "T1", "Track two": "T2"}[
            call[1][0]
        ]
        if call[0] == ["track"]
        else f"register {call[1][0]['from']}"
        for call in calls
    ]

    assert found == expected


def test_a_set_up_that_says_nothing_replaces_too() -> None:
    site = Site()
    site.view("/go", lambda: (staged(site, "one"), redirect("/page"))[1])

    def page() -> str:
        with site.mengpaneel.setup():
            pass

        return PAGE

    site.view("/page", page)
    calls = page_calls(site.client().get("/go", follow_redirects=True))

    assert names(calls) == ["track Before one", "track Track one"]


def test_stages_replay_in_a_header_as_in_a_page() -> None:
    site = Site()
    site.view("/go", lambda: (staged(site, "one"), redirect("/json"))[1])
    site.view("/json", lambda: (staged(site, "two", setup=False), {})[1])
    calls = header_calls(
        site.client().get("/go", headers=CAPABLE, follow_redirects=True)
    )

    assert names(calls) == [
        "track Before one",
        "track Before two",
        "register",
        "track Track one",
        "track Track two",
    ]


def test_what_waited_keeps_its_time_and_id() -> None:
    site = redirect_site()
    client = site.client()
    client.get("/go")
    recorded = site.outcomes[0].calls[0].properties
    (call,) = page_calls(client.get("/page"))

    assert call[1][1]["time"] == recorded["time"]
    assert call[1][1]["$insert_id"] == recorded["$insert_id"]
    assert call[1][1]["Items"] == 3


def test_it_says_where_it_happened() -> None:
    site = redirect_site()
    client = site.client()
    client.get(
        "/go?utm_source=mail", headers={"Referer": "https://search.example/?q=x"}
    )
    (call,) = page_calls(client.get("/page"))

    assert call[1][1]["$current_url"] == "http://localhost/go?utm_source=mail"
    assert call[1][1]["$referrer"] == "https://search.example/?q=x"
    assert call[1][1]["utm_source"] == "mail"


def test_the_same_waiting_calls_have_the_same_id_on_every_page() -> None:
    site = redirect_site()
    client = site.client()
    client.get("/go")
    cookie = client.get_cookie("session")
    first = hand_overs(client.get("/page"))
    assert cookie is not None
    client.set_cookie("session", cookie.value)
    second = hand_overs(client.get("/page"))

    assert first == second
    assert first[0][0]


def test_each_hand_over_of_a_page_has_an_id_of_its_own() -> None:
    site = Site()
    site.view("/go", lambda: (staged(site, "one"), redirect("/page"))[1])
    site.view("/page", lambda: (staged(site, "two"), PAGE)[1])
    parts = hand_overs(site.client().get("/go", follow_redirects=True))
    ids = [once for once, _ in parts]

    assert all(ids)
    assert len(set(ids)) == len(ids) == 5
    assert [names(calls) for _, calls in parts].count(["register"]) == 1


# -- requests that can't carry them


@pytest.mark.parametrize(
    ("path", "headers", "method"),
    [
        ("/image", {"Sec-Fetch-Dest": "image"}, "GET"),
        ("/image", {}, "GET"),
        ("/json", {"Accept": "application/json"}, "GET"),
        ("/json", {"Sec-Fetch-Dest": "empty"}, "POST"),
        ("/page", {"Sec-Fetch-Dest": "empty"}, "GET"),
        ("/page", {"HX-Request": "true"}, "GET"),
        ("/page", {}, "HEAD"),
        ("/nowhere", {}, "GET"),
        ("/page", PREFETCH, "GET"),
        ("/page", {"Sec-Purpose": "prefetch;prerender"}, "GET"),
        ("/page", {"X-Sec-Purpose": "prefetch"}, "GET"),
        ("/page", {"Purpose": "prefetch"}, "GET"),
        ("/json", {**CAPABLE, **PREFETCH}, "GET"),
        ("/cached", {}, "GET"),
        ("/streamed", {}, "GET"),
    ],
)
def test_a_request_that_cannot_carry_them_leaves_them(
    path: str, headers: dict[str, str], method: str
) -> None:
    site = redirect_site()
    site.view("/cached", lambda: Response(PAGE, headers={"Cache-Control": "public"}))
    site.view("/streamed", lambda: Response(iter([PAGE])))
    quiet = site.client().open(path, method=method, headers=headers)
    client = site.client()
    client.get("/go")
    response = client.open(path, method=method, headers=headers)

    assert response.data == quiet.data
    assert list(response.headers) == list(quiet.headers)
    assert events(page_calls(client.get("/page"))) == ["Order"]
    assert site.kept.envelopes == []


def test_a_poll_delivers_its_own_calls_and_leaves_the_delayed_ones() -> None:
    site = redirect_site()
    client = site.visitor(**DEVICE)
    client.get("/go")
    poll = client.get("/poll", headers=JSON)

    assert [call.event for call in site.kept.calls] == ["Poll"]
    assert "session=" not in str(poll.headers)
    assert events(page_calls(client.get("/page"))) == ["Order"]


def test_a_prefetched_page_that_tracks_is_a_page_and_replays_nothing() -> None:
    site = redirect_site()
    site.view("/tracked", lambda: (site.mengpaneel.track("View"), PAGE)[1])
    client = site.client()
    client.get("/go")

    assert events(page_calls(client.get("/tracked", headers=PREFETCH))) == ["View"]
    assert events(page_calls(client.get("/page"))) == ["Order"]


@pytest.mark.parametrize("value", ["true", "TRUE", "True", "1"])
def test_a_capable_fetch_carries_them(value: str) -> None:
    site = redirect_site()
    client = site.client()
    client.get("/go")
    response = client.get(
        "/json", headers={"X-Mengpaneel-Flush-Capable": value, "Accept": "*/*"}
    )

    assert events(header_calls(response)) == ["Order"]
    assert stored(client) is None


def test_a_header_too_small_for_both_carries_the_requests_own_or_none() -> None:
    site = redirect_site(max_header=400)
    site.view(
        "/go2",
        lambda: (site.mengpaneel.track("Big", {"x": "y" * 300}), redirect("/page"))[1],
    )
    client = site.client()
    client.get("/go2")
    response = client.get("/poll", headers=CAPABLE)
    page = client.get("/page")
    made = events(header_calls(response)) + [call.event for call in site.kept.calls]

    assert made == ["Poll"]
    assert events(page_calls(page)) == ["Big"]


def test_a_redirected_fetch_is_delayed_like_any_redirect() -> None:
    site = redirect_site("/json")
    response = site.client().post("/go", headers=CAPABLE, follow_redirects=True)

    assert events(header_calls(response)) == ["Order"]


def test_an_iframe_is_a_page() -> None:
    site = redirect_site()
    client = site.client()
    client.get("/go")
    frame = client.get(
        "/page", headers={"Sec-Fetch-Dest": "iframe", "Sec-Fetch-Mode": "navigate"}
    )

    assert events(page_calls(frame)) == ["Order"]


# -- age


def test_calls_that_waited_too_long_go_from_the_server_with_any_request() -> None:
    site = redirect_site(delayed_max_age=0, ack_timeout=0)
    client = site.visitor(**DEVICE)
    client.get("/go")
    client.get("/image", headers={"Sec-Fetch-Dest": "image"})

    assert [call.event for call in site.kept.calls] == ["Order"]
    assert stored(client) is None
    assert events(page_calls(client.get("/page"))) == []


def test_the_age_counts_from_the_recording_and_not_from_a_time_of_the_callers() -> None:
    site = Site()
    site.view(
        "/go",
        lambda: (
            site.mengpaneel.track("Order", {"time": 1_700_000_000.5}),
            redirect("/page"),
        )[1],
    )
    site.view("/page", lambda: PAGE)
    (call,) = page_calls(site.client().get("/go", follow_redirects=True))

    assert call[1][1]["time"] == 1_700_000_000.5


def test_each_of_a_chain_has_its_own_age(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    site = redirect_site()
    client = site.visitor(**DEVICE)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    client.get("/go")
    monkeypatch.setattr(time, "time", lambda: now + 400)
    client.get("/go")
    monkeypatch.setattr(time, "time", lambda: now + 700)
    page = client.get("/page")

    assert len(events(page_calls(page))) == 1
    assert len(site.kept.calls) == 1
    assert site.kept.calls[0].properties["time"] == round(now, 3)


def test_a_late_sign_up_still_links_the_visitor_to_the_user() -> None:
    site = Site(delayed_max_age=0, ack_timeout=0)

    def go() -> Response:
        with site.mengpaneel.before_setup():
            site.mengpaneel.alias("ann")

        with site.mengpaneel.setup():
            site.mengpaneel.identify("ann")

        site.mengpaneel.track("Sign Up")
        return redirect("/page")

    site.view("/go", go)
    site.view("/page", lambda: PAGE)
    site.visitor(**DEVICE).get("/go", follow_redirects=True)
    alias, sign_up = site.messages

    assert alias["event"] == "$create_alias"
    assert alias["properties"]["distinct_id"] == "$device:d1"
    assert alias["properties"]["alias"] == "ann"
    assert sign_up["properties"]["distinct_id"] == "ann"


# -- whose they are


class Accounts:
    """A site where visitors sign in as whom they like."""

    def __init__(self, *, always_sets_up: bool = True, **settings: t.Any) -> None:
        self.site = Site(**settings)
        self.always_sets_up = always_sets_up
        app = self.site.app
        app.before_request(self.set_up)
        self.site.view("/page", lambda: PAGE)
        self.site.view("/sign-in", self.sign_in)
        self.site.view("/sign-out", self.sign_out)

    def set_up(self) -> None:
        user = session.get("user")

        if user or self.always_sets_up:
            with self.site.mengpaneel.setup():
                if user:
                    self.site.mengpaneel.identify(user)

    def act(self, event: str) -> None:
        self.site.mengpaneel.track(event)

        if session.get("user"):
            self.site.mengpaneel.people.increment(event)

    def sign_in(self) -> Response:
        # Whoever is signed in already is, until now, the one who acts.
        self.act("Leave" if session.get("user") else "Arrive")
        session["user"] = request.args["user"]
        return redirect("/page")

    def sign_out(self) -> Response:
        self.act("Sign Out")
        session.clear()

        if "reset" in request.args:
            self.site.mengpaneel.reset()

        return redirect("/page")


def person_of(message: dict[str, t.Any]) -> str:
    return str(message.get("$distinct_id") or message["properties"]["distinct_id"])


def test_who_signs_in_over_a_redirect_takes_the_visitors_events_along() -> None:
    accounts = Accounts()
    client = accounts.site.visitor(**DEVICE)
    page = client.get("/sign-in?user=ann", follow_redirects=True)
    calls = page_calls(page)

    assert names(calls) == ["identify ann", "track Arrive"]
    assert calls[1][1][1]["$device_id"] == "d1"
    assert calls[1][1][1]["distinct_id"] == "$device:d1"
    assert accounts.site.kept.envelopes == []


@pytest.mark.parametrize("always_sets_up", [True, False])
@pytest.mark.parametrize("library_knows", [True, False])
def test_who_signs_out_keeps_what_they_did(
    always_sets_up: bool, library_knows: bool
) -> None:
    accounts = Accounts(always_sets_up=always_sets_up)
    client = accounts.site.visitor(**(ANN if library_knows else DEVICE))

    with client.session_transaction() as kept:
        kept["user"] = "ann"

    page = client.get("/sign-out?reset", follow_redirects=True)
    messages = accounts.site.messages

    assert "identify ann" not in names(page_calls(page))
    assert {person_of(message) for message in messages} == {"ann"}
    assert len(messages) == 2


def test_who_signs_out_without_reset_gives_the_next_page_no_operation_of_theirs() -> (
    None
):
    accounts = Accounts()
    client = accounts.site.visitor(**DEVICE)

    with client.session_transaction() as kept:
        kept["user"] = "ann"

    page = client.get("/sign-out", follow_redirects=True)
    calls = page_calls(page)

    assert "people.increment" not in [".".join(call[0]) for call in calls]
    assert "identify ann" not in names(calls)
    assert ("Sign Out", "ann") in [
        (message.get("event"), person_of(message)) for message in accounts.site.messages
    ]
    assert {person_of(message) for message in accounts.site.messages} == {"ann"}


@pytest.mark.parametrize("ids", [ANN, DEVICE, {}])
def test_who_switches_accounts_keeps_what_they_did(ids: dict[str, str]) -> None:
    accounts = Accounts()
    client = accounts.site.client()

    if ids:
        set_library_cookie(client, **ids)

    with client.session_transaction() as kept:
        kept["user"] = "ann"

    page = client.get("/sign-in?user=bob", follow_redirects=True)

    assert names(page_calls(page)) == ["identify bob"]
    assert {person_of(message) for message in accounts.site.messages} == {"ann"}
    assert len(accounts.site.messages) == 2


def test_what_happened_to_different_people_goes_different_ways() -> None:
    accounts = Accounts()
    client = accounts.site.visitor(**ANN)

    with client.session_transaction() as kept:
        kept["user"] = "ann"

    # Two redirects in a row, such as to a page that needs another account.
    client.get("/sign-in?user=bob")
    client.get("/sign-in?user=carol")
    page = client.get("/page")
    found = {(message.get("event"), person_of(message)) for message in _s(accounts)}

    assert names(page_calls(page)) == ["identify carol"]
    assert {("Leave", "ann"), ("Leave", "bob")} <= found
    assert {person for _, person in found} == {"ann", "bob"}


def _s(accounts: Accounts) -> list[dict[str, t.Any]]:
    return accounts.site.messages


def test_a_request_without_set_up_keeps_the_replayed_one_for_the_same_person() -> None:
    site = Site()

    def go() -> Response:
        with site.mengpaneel.setup():
            site.mengpaneel.identify("ann")

        site.mengpaneel.track("Sign In")
        return redirect("/page")

    site.view("/go", go)
    site.view("/page", lambda: PAGE)

    for ids in (DEVICE, ANN):
        page = site.visitor(**ids).get("/go", follow_redirects=True)
        assert names(page_calls(page)) == ["identify ann", "track Sign In"]


def test_the_browser_may_have_become_somebody_else_in_the_meantime() -> None:
    site = redirect_site()
    client = site.visitor(**ANN)
    client.get("/go")
    set_library_cookie(
        client, **{"distinct_id": "bob", "$device_id": "d2", "$user_id": "bob"}
    )
    page = client.get("/page")
    (message,) = site.messages

    assert page_calls(page) == []
    assert message["properties"]["distinct_id"] == "ann"
    assert message["properties"]["$device_id"] == "d1"


# -- sessions of another version, or broken


GARBAGE: list[t.Any] = [
    None,
    True,
    7,
    "text",
    [],
    {},
    [1],
    [2, "x"],
    [1, None],
    [1, []],
    [1, ["id", 1.0, None, None, {}]],
    [1, ["id", "now", [], [], {}]],
    [1, ["id", 9e9, [None, None, None], [None, None, None], []]],
    [1, ["id", 9e9, [None, None, None], [None, None, None], {"tracking": [[]]}]],
    [
        1,
        [
            "id",
            9e9,
            [None, None, None],
            [None, None, None],
            {"tracking": [[["track"], []]]},
        ],
    ],
    [
        1,
        [
            "id",
            9e9,
            [None, None, None],
            [None, None, None],
            {"tracking": [[["track"], ["Old", None]]]},
        ],
    ],
    [
        1,
        [
            "id",
            9e9,
            [None, None, None],
            [None, None, None],
            {"setup": [[["identify"], []]], "tracking": [[["people", "set"], [7]]]},
        ],
    ],
    [1, ["id", float("inf"), 1, 2, {"before_setup": [[["alias"], []]]}]],
    {"before_setup": [], "setup": [], "tracking": [["track", "Order"]]},
]


@pytest.mark.parametrize("value", GARBAGE, ids=range(len(GARBAGE)))
@pytest.mark.parametrize("path", ["/tracked", "/go", "/poll", "/image"])
def test_a_session_of_another_version_costs_neither_a_page_nor_a_call(
    path: str, value: t.Any
) -> None:
    site = redirect_site(testing=False)
    site.view("/tracked", lambda: (site.mengpaneel.track("View"), PAGE)[1])
    client = site.client()

    with client.session_transaction() as kept:
        kept[KEY] = json.dumps(value)
        kept["user"] = "ann"

    first = client.get(path, headers={"Accept": "*/*"} if path == "/poll" else {})
    second = client.get("/tracked")
    own = {"/tracked": ["View"], "/go": ["Order"], "/poll": ["Poll"], "/image": []}
    arrived = sorted(
        [one for page in (first, second) for one in events(page_calls(page))]
        + events(call.wire for call in site.kept.calls)
    )

    assert first.status_code in (200, 302)
    assert second.status_code == 200
    assert [one for one in arrived if one != "Old"] == sorted([*own[path], "View"])

    with client.session_transaction() as kept:
        assert kept["user"] == "ann"


@settings(max_examples=40, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4),
        lambda inner: (
            st.lists(inner, max_size=5)
            | st.dictionaries(
                st.sampled_from(["setup", "tracking", "before_setup"]),
                inner,
                max_size=3,
            )
        ),
        max_leaves=12,
    )
)
def test_any_value_in_the_session_is_survived(value: t.Any) -> None:
    site = redirect_site(testing=False)
    site.view("/tracked", lambda: (site.mengpaneel.track("View"), PAGE)[1])
    client = site.client()

    with client.session_transaction() as kept:
        entry = ["id", 9e9, [None] * 3, [None] * 3, value]
        kept[KEY] = json.dumps([1, entry, value])

    page = client.get("/tracked")
    arrived = events(page_calls(page)) + [
        call.event for call in site.kept.calls if call.name == "track"
    ]

    assert page.status_code == 200
    assert arrived.count("View") == 1


# -- responses that have nothing to do with it


def test_what_has_nothing_to_do_with_it_does_not_vary_by_cookie() -> None:
    site = redirect_site()
    site.view("/sign-in", lambda: (session.update(user="ann"), {})[1])
    client = site.client()
    client.get("/sign-in")

    for path in ("/page", "/json", "/image", "/poll"):
        response = client.get(path, headers={"Accept": "text/html"})
        assert "Vary" not in response.headers, path
        assert "session=" not in str(response.headers), path


def test_while_calls_wait_what_cannot_carry_them_does_not_vary_by_cookie() -> None:
    site = redirect_site()
    client = site.client()
    client.get("/go")

    for path in ("/json", "/image"):
        response = client.get(path, headers={"Accept": "*/*"})
        assert "Vary" not in response.headers
        assert "Set-Cookie" not in response.headers


def test_the_page_that_replays_takes_them_out_of_the_session_and_no_more() -> None:
    site = redirect_site()
    site.view("/sign-in", lambda: (session.update(user="ann"), {})[1])
    client = site.client()
    client.get("/sign-in")
    client.get("/go")
    page = client.get("/page")

    assert page.headers["Vary"] == "Cookie"
    assert "private" in page.headers["Cache-Control"]

    with client.session_transaction() as kept:
        assert dict(kept) == {"user": "ann"}


def test_a_session_that_had_nothing_else_in_it_is_gone() -> None:
    site = redirect_site()
    client = site.client()
    client.get("/go", follow_redirects=True)

    assert client.get_cookie("session") is None


def test_two_pages_at_once_make_the_same_hand_over() -> None:
    site = redirect_site()
    one = site.client()
    one.get("/go")
    cookie = one.get_cookie("session")
    assert cookie is not None
    other = site.client()
    other.set_cookie("session", cookie.value)

    assert hand_overs(one.get("/page")) == hand_overs(other.get("/page"))


def test_text_of_any_kind_comes_over_a_redirect() -> None:
    site = Site()
    name = "Größe </script> 😀 \u2028 \x00 \x7f 雪"
    site.view(
        "/go", lambda: (site.mengpaneel.track(name, {name: name}), redirect("/page"))[1]
    )
    site.view("/page", lambda: PAGE)
    (call,) = page_calls(site.client().get("/go", follow_redirects=True))

    assert call[1][0] == name
    assert call[1][1][name] == name


def test_a_client_inside_of_an_app_context_is_delayed_too() -> None:
    site = redirect_site()

    with site.app.app_context():
        client = site.client()
        client.get("/go")
        assert events(page_calls(client.get("/page"))) == ["Order"]
