from __future__ import annotations

import random
import re
import typing as t
from datetime import UTC, datetime

import pytest
from flask import Flask, Response, redirect, request, session
from flask.sessions import SecureCookieSessionInterface
from flask.testing import FlaskClient
from markupsafe import Markup
from werkzeug.test import TestResponse

from flask_mengpaneel import Manager
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
    flush_in_thread,
    header_calls,
    library_cookie,
    loads_library,
    names,
    page_calls,
)

OPT_COOKIE = "__mp_opt_in_out_token"
JSON = {"Accept": "*/*"}
# What the browser says, in headers and in cookies.
NO: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "DNT": ({"DNT": "1"}, {}),
    "Sec-GPC": ({"Sec-GPC": "1"}, {}),
    "opted out": ({}, {OPT_COOKIE: "0"}),
    "opted out of all": ({}, {"mp_optout": "1"}),
}
NO_REFUSAL: list[tuple[dict[str, str], dict[str, str]]] = [
    ({}, {}),
    ({"DNT": "0"}, {}),
    ({"DNT": ""}, {}),
    ({"DNT": "x"}, {}),
    ({"Sec-GPC": "0"}, {}),
    ({}, {"mp_optout": ""}),
    ({}, {"__mp_opt_in_out_other": "0"}),
    *(({}, {OPT_COOKIE: value}) for value in ("1", "", "2", "x" * 3000, "%ff")),
]
SIGNALS = [NO["DNT"][0], NO["Sec-GPC"][0]]
CALLS = ["alias ann", "identify ann", "track Act"]


def make_site(**settings: t.Any) -> Site:
    """Each response that could carry calls, and ``/quiet``."""
    site = Site(**settings)

    def act() -> None:
        with site.mengpaneel.before_setup():
            site.mengpaneel.alias("ann")

        with site.mengpaneel.setup():
            site.mengpaneel.identify("ann")

        site.mengpaneel.track("Act")

    site.view("/page", lambda: (act(), PAGE)[1])
    site.view("/json", lambda: (act(), {})[1])
    site.view("/go", lambda: (act(), redirect("/quiet"))[1])
    site.view("/image", lambda: (act(), Response(b"x", mimetype="image/png"))[1])
    site.view("/quiet", lambda: PAGE)
    return site


def ask(
    site: Site, path: str, headers: dict[str, str], cookies: dict[str, str]
) -> TestResponse:
    client = site.client()

    for name, value in cookies.items():
        client.set_cookie(name, value)

    return client.get(path, headers=headers)


def refuse() -> t.NoReturn:
    raise ZeroDivisionError("who knows")


async def later() -> bool:
    return False


class Undecided:
    def __bool__(self) -> bool:
        raise ValueError("neither yes nor no")


@pytest.mark.parametrize("path", ["/page", "/json", "/go", "/quiet", "/image"])
@pytest.mark.parametrize("capable", [{}, CAPABLE], ids=["", "capable"])
@pytest.mark.parametrize("reason", [*NO, "app"])
def test_without_consent_nothing_is_recorded_stored_injected_or_sent(
    path: str, capable: dict[str, str], reason: str
) -> None:
    headers, cookies = NO.get(reason, ({}, {}))
    site = make_site(**({"consent": lambda: False} if reason == "app" else {}))
    response = ask(site, path, {**capable, **headers}, cookies)
    plain = ask(make_site(enabled=False), path, {**capable, **headers}, cookies)

    assert page_calls(response) == []
    assert not loads_library(response)
    unequal = set(response.headers) ^ set(plain.headers)
    # What stands in for the library does nothing.
    assert {name for name, _ in unequal} <= {"Content-Length"}

    if path not in ("/page", "/quiet"):
        assert response.data == plain.data

    assert site.outcomes == []
    assert site.kept.envelopes == []
    assert site.mengpaneel.ledger().recorded == 0


@pytest.mark.parametrize(("headers", "cookies"), NO_REFUSAL, ids=range(len(NO_REFUSAL)))
def test_what_is_no_refusal_is_none(
    headers: dict[str, str], cookies: dict[str, str]
) -> None:
    assert names(page_calls(ask(make_site(), "/page", headers, cookies))) == CALLS


@pytest.mark.parametrize("headers", SIGNALS)
def test_the_signals_may_be_ignored(headers: dict[str, str]) -> None:
    response = make_site(respect_dnt=False).client().get("/page", headers=headers)

    assert names(page_calls(response)) == CALLS


@pytest.mark.parametrize(
    ("consent", "headers", "tracked"),
    [
        (lambda: True, {}, True),
        (lambda: True, {"DNT": "1"}, True),
        (lambda: True, {"Sec-GPC": "1"}, True),
        (lambda: False, {}, False),
        (lambda: 0, {}, False),
        (lambda: None, {"DNT": "1"}, False),
        (refuse, {}, False),
        (later, {}, False),
        (lambda: later(), {}, False),
        (Undecided, {}, False),
        # As cookies have it, and Redis.
        (lambda: "no", {}, False),
        (lambda: "", {}, False),
        (lambda: Markup("0"), {}, False),
        (lambda: b"no", {}, False),
    ],
    ids=range(14),
)
@pytest.mark.parametrize("testing", [True, False])
@pytest.mark.filterwarnings("ignore:coroutine 'later' was never awaited")
def test_the_app_is_asked_for_consent(
    caplog: pytest.LogCaptureFixture,
    consent: t.Any,
    headers: dict[str, str],
    tracked: bool,
    testing: bool,
) -> None:
    site = make_site(consent=consent, testing=testing)
    client = site.client()

    for path in ("/page", "/quiet"):
        assert loads_library(client.get(path, headers=headers)) is tracked

    client.get("/json", headers=headers)
    assert len(site.kept.envelopes) == tracked
    # Nor does it wait for an answer.
    assert client.get_cookie("session") is None
    assert ("who knows" in caplog.text) is (consent is refuse)


def test_the_librarys_opt_out_outweighs_the_app() -> None:
    site = make_site(consent=lambda: True)

    assert not loads_library(ask(site, "/page", {}, {OPT_COOKIE: "0"}))


def test_the_callable_is_called_inside_the_request() -> None:
    site = make_site(consent=lambda: request.args.get("ok") == "1")
    client = site.client()

    assert loads_library(client.get("/quiet?ok=1"))
    assert not loads_library(client.get("/quiet?ok=0"))


def test_consent_is_of_one_request() -> None:
    answers = [True, False, True]
    site = make_site(consent=lambda: answers[-1])
    client = site.client()

    while answers:
        client.get("/json")
        answers.pop()

    assert len(site.kept.envelopes) == 2


def test_the_app_can_t_track_while_it_is_asked(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def consent() -> bool:
        site.mengpaneel.track("Ask")
        return True

    site = make_site(consent=consent)
    site.client().get("/json")

    assert [call.event for call in site.kept.calls if call.tracks] == ["Act"]
    assert "MENGPANEEL_CONSENT is being asked already" in caplog.text


def test_jobs_do_not_ask() -> None:
    def consent() -> bool:
        raise AssertionError("asked")

    site = make_site(consent=consent)

    with site.app.app_context(), Manager() as manager:
        manager.track("Renew")

    assert [call.event for call in site.kept.calls] == ["Renew"]


# -- not asked yet


class Asking:
    """A site that asks; the session knows the answer."""

    def __init__(self, **settings: t.Any) -> None:
        self.site = make_site(consent=lambda: session.get("ok"), **settings)
        self.site.view("/say", self.say)
        self.client: FlaskClient = self.site.visitor(**DEVICE)

    def say(self) -> str:
        session["ok"] = request.args["ok"] == "yes"
        return PAGE

    @property
    def kept(self) -> t.Any:
        with self.client.session_transaction() as kept:
            return kept.get("_mengpaneel_token")


@pytest.mark.parametrize("answer", ["yes", "no"])
@pytest.mark.parametrize("path", ["/page", "/json", "/go"])
def test_until_the_visitor_is_asked_calls_are_held_in_the_session(
    path: str, answer: str
) -> None:
    asking = Asking()
    response = asking.client.get(path, headers=CAPABLE)

    assert not loads_library(response)
    assert "X-Mengpaneel-Calls" not in response.headers
    assert COOKIE not in str(response.headers)
    assert asking.site.kept.envelopes == []
    assert asking.kept

    page = asking.client.get(f"/say?ok={answer}")
    again = asking.client.get("/quiet")

    assert names(page_calls(page)) == (CALLS if answer == "yes" else [])
    assert page_calls(again) == []
    assert asking.kept is None
    assert asking.site.kept.envelopes == []


@pytest.mark.parametrize("response", [PAGE, {}, redirect("/quiet")], ids=str)
def test_until_then_calls_of_a_new_visitor_wait_without_ids(response: t.Any) -> None:
    asking = Asking()
    mengpaneel = asking.site.mengpaneel
    asking.site.view("/look", lambda: (mengpaneel.track("Look"), response)[1])
    asking.client = asking.site.client()
    asking.client.get("/look")

    assert '"Look"' in asking.kept
    assert not re.search("distinct_id|device_id|user_id", asking.kept)
    assert asking.client.get_cookie(COOKIE) is None

    asking.client.get("/say?ok=yes")
    assert library_cookie(asking.client)["distinct_id"].startswith("$device:")


def test_until_then_calls_of_a_view_that_runs_long_wait_for_its_response() -> None:
    asking = Asking()
    site = asking.site

    def look() -> str:
        site.mengpaneel.track("Look")
        flush_in_thread()
        site.mengpaneel.track("Look Again")
        return PAGE

    site.view("/look", look)
    asking.client.get("/look")
    page = asking.client.get("/say?ok=yes")

    assert names(page_calls(page)) == ["track Look", "track Look Again"]


def test_until_then_the_library_is_not_even_loaded() -> None:
    asking = Asking()

    assert not loads_library(asking.client.get("/quiet"))
    assert not loads_library(asking.client.get("/page"))


def test_when_consent_comes_what_was_held_goes_out_once_and_in_order() -> None:
    asking = Asking()
    asking.client.get("/page")
    asking.client.get("/json", headers=JSON)
    page = asking.client.get("/say?ok=yes")
    again = asking.client.get("/quiet")
    calls = page_calls(page)

    assert names(calls) == [
        "alias ann",
        "alias ann",
        "identify ann",
        "track Act",
        "track Act",
    ]
    assert page_calls(again) == []
    assert asking.kept is None
    times = [call[1][1]["time"] for call in calls if call[0] == ["track"]]
    assert times == sorted(times)


def test_when_consent_is_refused_what_was_held_is_gone() -> None:
    asking = Asking()
    asking.client.get("/page")
    page = asking.client.get("/say?ok=no")

    assert not loads_library(page)
    assert asking.kept is None

    with asking.client.session_transaction() as kept:
        kept["ok"] = True

    assert page_calls(asking.client.get("/quiet")) == []
    assert asking.site.kept.envelopes == []


def test_consent_that_comes_late_sends_from_the_server() -> None:
    asking = Asking(delayed_max_age=0)
    asking.client.get("/page")
    asking.client.get("/say?ok=yes")

    assert "Act" in [call.event for call in asking.site.kept.calls if call.tracks]


def test_more_than_the_session_holds_is_in_the_ledger() -> None:
    asking = Asking()
    asking.site.view(
        "/much",
        lambda: (
            [
                asking.site.mengpaneel.track(
                    f"Act {i}", {"x": random.Random(i).randbytes(80).hex()}
                )
                for i in range(60)
            ],
            PAGE,
        )[1],
    )
    response = asking.client.get("/much")
    balance = asking.site.mengpaneel.ledger().snapshot()

    assert page_calls(response) == []
    assert balance.balanced
    assert sum(balance.dropped.values()) == 60
    assert asking.site.kept.envelopes == []


def test_what_can_not_wait_for_consent_is_dropped_and_counted() -> None:
    site = make_site(consent=lambda: None)
    site.app.secret_key = None
    site.client().get("/json")
    ledger = site.mengpaneel.ledger().snapshot()

    assert site.kept.envelopes == []
    assert ledger.balanced
    assert sum(ledger.dropped.values()) == 2


def test_what_was_held_and_then_discarded_is_no_hole_in_the_ledger() -> None:
    asking = Asking()
    asking.client.get("/page")
    asking.client.get("/say?ok=no")

    assert asking.site.mengpaneel.ledger().snapshot().balanced


TIMEOUTS = pytest.mark.parametrize("timeout", [0, 30])


@TIMEOUTS
@pytest.mark.parametrize("known", [NOBODY, DEVICE, ANN], ids=["new", "device", "ann"])
@pytest.mark.parametrize("announced", [{}, CAPABLE, ACKNOWLEDGES], ids=repr)
@pytest.mark.parametrize("answered", ["/page", "/json", "/quiet", "/go"])
def test_what_was_held_is_in_the_ledger_once_somebody_has_it(
    answered: str, announced: dict[str, str], known: dict[str, str], timeout: float
) -> None:
    consent = Consent()
    consent.answer = None
    site = make_site(consent=consent, ack_timeout=timeout)
    client = come(site, known)

    for path in ("/page", "/json"):
        client.get(path, headers=announced)
        assert balance(site) == (0, 0, 0)

    consent.answer = True
    responses = [client.get(answered, headers=announced), client.get("/quiet")]
    recorded, delivered, waiting = balance(site)
    found = [
        call for one in responses for call in (*page_calls(one), *header_calls(one))
    ]
    given = [call for call in found if call[0][0] in ("track", "alias")]
    # A redirect is believed, or taken up by the page that comes after it.
    assert recorded == len(given) + 2 * len(site.kept.envelopes) > 0
    assert waiting == (recorded - delivered if timeout else 0)


def read_only(app: Flask, patch: pytest.MonkeyPatch) -> None:
    """Let no session be saved."""

    class ReadOnly(SecureCookieSessionInterface):
        def save_session(self, *_: t.Any) -> None:
            pass

    patch.setattr(app, "session_interface", ReadOnly())


def without_cookies(app: Flask, patch: pytest.MonkeyPatch) -> None:
    """Let something in front of the app take the cookies away."""
    original = app.wsgi_app

    def wsgi_app(environ: t.Any, start_response: t.Any) -> t.Any:
        def start(status: str, headers: t.Any, *rest: t.Any) -> t.Any:
            kept = [one for one in headers if one[0] != "Set-Cookie"]
            return start_response(status, kept, *rest)

        return original(environ, start)

    patch.setattr(app, "wsgi_app", wsgi_app)


def declared_public(app: Flask, patch: pytest.MonkeyPatch) -> None:
    def declare(response: Response) -> Response:
        response.cache_control.public = True
        return response

    # Flask calls first what was registered last.
    functions = [*app.after_request_funcs[None], declare]
    patch.setitem(app.after_request_funcs, None, functions)


@TIMEOUTS
@pytest.mark.parametrize("fix", [read_only, without_cookies, declared_public])
@pytest.mark.parametrize("at_first", [None, True], ids=["held", "delayed"])
@pytest.mark.parametrize("path", ["/quiet", "/image"])
def test_what_was_refused_stays_so_though_the_session_brings_it_again(
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    at_first: bool | None,
    fix: t.Callable[[Flask, pytest.MonkeyPatch], None],
    timeout: float,
) -> None:
    consent = Consent()
    consent.answer = at_first
    site = make_site(consent=consent, ack_timeout=timeout)
    client = site.visitor(**ANN)
    client.get("/go")
    consent.answer = False

    with monkeypatch.context() as patch:
        fix(site.app, patch)

        for _ in range(3):
            client.get(path)
            ledger = site.mengpaneel.ledger().snapshot()
            assert ledger.balanced, ledger
            assert ledger.dropped == {"consent was refused": 2}, ledger

    consent.answer = True
    pages = [client.get("/quiet"), client.get("/quiet")]
    assert [page_calls(page) for page in pages] == [[], []]
    assert site.kept.envelopes == []
    assert site.mengpaneel.ledger().snapshot() == ledger


# -- opting out and in from a view


WAYS: list[dict[str, t.Any]] = [
    {},
    {"client_config": {"persistence": "localStorage"}},
    {"strategies": ["AsyncServerSide", "ServerSide"]},
]


def choosing_site(**settings: t.Any) -> Site:
    site = Site(**settings)
    mengpaneel = site.mengpaneel

    def out() -> str:
        mengpaneel.track("Before")
        mengpaneel.opt_out_tracking()
        mengpaneel.track("After")
        mengpaneel.people.set({"a": 1})
        return PAGE

    def back() -> str:
        mengpaneel.track("Before")
        mengpaneel.opt_in_tracking()
        mengpaneel.track("After")
        return PAGE

    site.view("/out", out)
    site.view("/in", back)
    site.view("/page", lambda: (mengpaneel.track("View"), PAGE)[1])
    site.view("/json", lambda: (mengpaneel.track("View"), {})[1])
    return site


def arrived(site: Site, *responses: t.Any) -> list[str]:
    calls = [
        *(call for response in responses for call in page_calls(response)),
        *(call for response in responses for call in header_calls(response)),
        *(call.wire for call in site.kept.calls),
    ]
    return [call[1][0] for call in calls if call[0] == ["track"]]


@pytest.mark.parametrize("settings", WAYS, ids=str)
def test_opting_out_takes_effect_at_once(settings: dict[str, t.Any]) -> None:
    site = choosing_site(**settings)
    client = site.visitor(**DEVICE)
    out = client.get("/out")
    later = [client.get("/page"), client.get("/json", headers=CAPABLE)]

    assert "After" not in arrived(site, out, *later)
    assert "View" not in arrived(site, out, *later)
    assert not any(map(loads_library, later))
    choice = client.get_cookie(OPT_COOKIE)
    assert choice is not None and choice.value == "0"
    # The library reads it.
    assert not choice.http_only


def test_who_opts_out_loses_the_librarys_cookie() -> None:
    site = choosing_site(strategies=["AsyncServerSide", "ServerSide"])
    client = site.visitor(**DEVICE)
    client.get("/out")
    cookie = client.get_cookie(COOKIE)

    assert cookie is None or (
        cookie.value == "" and cookie.expires and cookie.expires < datetime.now(UTC)
    )


@pytest.mark.parametrize("settings", WAYS, ids=str)
def test_opting_in_takes_effect_at_once(settings: dict[str, t.Any]) -> None:
    site = choosing_site(**settings)
    client = site.visitor(**DEVICE)
    client.set_cookie(OPT_COOKIE, "0")
    back = client.get("/in")

    assert arrived(site, back) == ["After"]
    choice = client.get_cookie(OPT_COOKIE)
    assert choice is not None and choice.value == "1"
    assert "View" in arrived(site, client.get("/page"))


@pytest.mark.parametrize(
    ("settings", "headers"),
    [({"consent": lambda: False}, {}), *(({}, headers) for headers in SIGNALS)],
    ids=["app", "DNT", "GPC"],
)
def test_opting_in_outweighs_neither_the_app_nor_the_browser(
    settings: dict[str, t.Any], headers: dict[str, str]
) -> None:
    site = choosing_site(**settings)
    back = site.client().get("/in", headers=headers)

    assert arrived(site, back) == []
    assert not loads_library(back)
    assert OPT_COOKIE not in str(back.headers)


def test_what_waits_is_discarded_when_the_visitor_opts_out() -> None:
    site = choosing_site()
    site.view("/go", lambda: (site.mengpaneel.track("Go"), redirect("/json"))[1])
    client = site.visitor(**DEVICE)
    client.get("/go")
    out = client.get("/out")

    with client.session_transaction() as kept:
        assert "_mengpaneel_token" not in kept

    assert "Go" not in arrived(site, out)


def test_the_library_keeps_the_choice_where_the_server_sees_it() -> None:
    data = block(make_site().client().get("/quiet"))

    assert data is not None
    assert data["config"]["opt_out_tracking_persistence_type"] == "cookie"


def test_a_prefix_of_the_librarys_own_is_known() -> None:
    site = make_site(client_config={"opt_out_tracking_cookie_prefix": "choice_"})
    client = site.client()
    client.set_cookie("choice_token", "0")

    assert not loads_library(client.get("/page"))
