"""``MENGPANEEL_LOGIN``: those who have signed in are identified, by the extensions that
apps have for it."""

from __future__ import annotations

import collections.abc as c
import contextlib
import dataclasses
import gc
import logging
import threading
import typing as t
import weakref

import flask_login
import flask_principal
import pytest
from blinker import Namespace
from flask import (
    Flask,
    Response,
    copy_current_request_context,
    current_app,
    g,
    redirect,
    request,
    session,
    stream_with_context,
)
from flask.testing import FlaskClient
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from flask_mengpaneel import Login, Manager
from flask_mengpaneel.record.context import current_manager
from sites import (
    CAPABLE,
    PAGE,
    Site,
    header_calls,
    names,
    page_calls,
    set_library_cookie,
)

DEVICE = "d1"
ANN = {"distinct_id": "ann", "$device_id": DEVICE, "$user_id": "ann"}
NEW = {"distinct_id": f"$device:{DEVICE}", "$device_id": DEVICE}


class User(flask_login.UserMixin):  # type: ignore[misc]
    def __init__(self, id: str) -> None:
        self.id = id
        self.email = f"{id}@example.com"


class Users:
    """An app's users, and how often one was loaded."""

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.manager = flask_login.LoginManager()

        @self.manager.user_loader
        def load(id: str) -> User:
            self.loaded.append(id)
            return User(id)


@dataclasses.dataclass
class Shop:
    """A site with sign-in; what its views do is said by the test."""

    site: Site
    users: Users
    client: FlaskClient

    def do(
        self,
        view: c.Callable[[], object],
        response: t.Any = "ok",
        **options: t.Any,
    ) -> t.Any:
        """Make a request whose view does something."""
        self.view = view
        self.response = response
        return self.client.get("/do", **options)

    def sign_in(self, name: str = "ann", **library: t.Any) -> None:
        """Be signed in, and let the browser library know that or something else."""
        self.do(lambda: flask_login.login_user(User(name)))
        self.users.loaded.clear()
        self.site.kept.envelopes.clear()

        if library:
            set_library_cookie(self.client, **library)

    def expire(self) -> None:
        """Let the session be gone, but not the library's cookie."""
        self.client.delete_cookie("session")

    @property
    def sent(self) -> list[str]:
        """The events that the server has sent, and whose they are."""
        return [
            f"{m['event']} by {who(m['properties'])}"
            for m in self.site.messages
            if "event" in m and m["event"][0] != "$"
        ]


def who(properties: dict[str, t.Any]) -> str:
    user = properties.get("$user_id")
    device = properties.get("$device_id")
    return str(user or ("d1" if device == DEVICE else "somebody new"))


def make_shop(**settings: t.Any) -> Shop:
    users = Users()
    options: dict[str, t.Any] = {"login": "flask-login", **settings}
    site = Site(prepare=users.manager.init_app, **options)
    shop = Shop(site, users, site.client())

    def do() -> t.Any:
        shop.view()
        return shop.response

    site.view("/do", do)
    site.view("/page", lambda: PAGE)
    set_library_cookie(shop.client, **NEW)
    return shop


@pytest.fixture
def shop() -> Shop:
    return make_shop()


def track(shop: Shop, *events: str) -> c.Callable[[], None]:
    return lambda: [shop.site.mengpaneel.track(event) for event in events] and None


# -- signed in


def test_events_of_who_has_signed_in_are_theirs(shop: Shop) -> None:
    shop.do(track(shop, "Before"))
    shop.sign_in()
    shop.do(track(shop, "A", "B"))

    assert shop.sent == ["A by ann", "B by ann"]


def test_a_page_without_calls_tells_the_browser_library(shop: Shop) -> None:
    assert page_calls(shop.client.get("/page")) == []

    shop.sign_in()
    set_library_cookie(shop.client, **NEW)

    assert page_calls(shop.client.get("/page")) == [[["identify"], ["ann"]]]


def test_a_page_tells_nothing_that_the_browser_library_knows(shop: Shop) -> None:
    shop.sign_in(**ANN)

    assert page_calls(shop.client.get("/page")) == []


def test_a_sign_in_over_fetch_reaches_the_browser_with_its_answer(shop: Shop) -> None:
    response = shop.do(lambda: flask_login.login_user(User("ann")), headers=CAPABLE)

    assert header_calls(response) == [[["identify"], ["ann"]]]


@pytest.mark.parametrize("has_tracked", [False, True])
def test_what_a_view_tracks_that_signs_in_is_the_user_s(
    shop: Shop, has_tracked: bool
) -> None:
    def sign_in() -> None:
        track(shop, *["Try"] * has_tracked)()
        flask_login.login_user(User("ann"))
        shop.site.mengpaneel.track("Sign In")

    shop.do(sign_in)

    assert shop.sent == ["Try by ann"] * has_tracked + ["Sign In by ann"]


def test_over_a_redirect_the_page_identifies(shop: Shop) -> None:
    def sign_in() -> None:
        flask_login.login_user(User("ann"))
        shop.site.mengpaneel.track("Sign In")

    shop.do(sign_in, redirect("/page"))

    assert names(page_calls(shop.client.get("/page"))) == [
        "identify ann",
        "track Sign In",
    ]
    assert shop.sent == []


def test_the_id_is_what_get_id_says() -> None:
    class ByToken(User):
        def get_id(self) -> str:
            return f"token-{self.id}"

    shop = make_shop()
    shop.do(lambda: (flask_login.login_user(ByToken("ann")), track(shop, "A")()))

    assert shop.sent == ["A by token-ann"]


def test_the_id_may_be_another_one() -> None:
    shop = make_shop(login=Login.flask_login(user_id=lambda user: user.email))
    shop.sign_in()
    shop.do(track(shop, "A"))

    assert shop.sent == ["A by ann@example.com"]


def test_the_app_s_own_set_up_has_the_last_word(shop: Shop) -> None:
    def impersonate() -> None:
        with shop.site.mengpaneel.setup():
            shop.site.mengpaneel.identify("bob")

        shop.site.mengpaneel.track("A")

    shop.sign_in()
    shop.do(impersonate)

    assert shop.sent == ["A by bob"]


def test_a_page_on_which_nobody_is_signed_in_may_track_as_it_ends(shop: Shop) -> None:
    """Who looks at it was asked, and forgotten since there was nothing to say."""
    ends: list[str] = []

    @shop.site.app.teardown_request
    def end(_error: BaseException | None) -> None:
        ends.append(request.path)
        shop.site.mengpaneel.track("End")

    assert shop.client.get("/page").status_code == 200
    assert ends == ["/page"]
    assert shop.sent == ["End by d1"]


@pytest.mark.parametrize("to_sign_in", [False, True])
def test_a_set_up_of_the_app_that_names_nobody_is_of_who_has_signed_in(
    shop: Shop, to_sign_in: bool
) -> None:
    mengpaneel = shop.site.mengpaneel

    def add() -> None:
        if to_sign_in:
            flask_login.login_user(User("ann"))

        with mengpaneel.setup():
            mengpaneel.register({"Plan": "pro"})

        mengpaneel.track("A")

    if not to_sign_in:
        shop.sign_in()

    shop.do(add)

    assert shop.sent == ["A by ann"]
    assert shop.site.messages[-1]["properties"]["Plan"] == "pro"


def test_the_last_set_up_of_the_app_that_names_nobody_replaces_the_others() -> None:
    shop = make_shop(login_profile=lambda user: {"$email": user.email})
    mengpaneel = shop.site.mengpaneel

    def add_twice() -> None:
        for plan in ("free", "pro"):
            with mengpaneel.setup():
                mengpaneel.register({"Plan": plan})

        mengpaneel.track("A")

    shop.sign_in()
    page = shop.do(add_twice, PAGE)
    assert names(page_calls(page)) == ["identify ann", "register", "track A"]
    assert '"free"' not in page.text
    assert [m["$set"]["$email"] for m in shop.site.messages if "$set" in m] == [
        "ann@example.com"
    ]


@pytest.mark.parametrize("commits", [True, False])
def test_who_has_signed_in_stays_set_up_whatever_a_database_does(
    shop: Shop, commits: bool
) -> None:
    mengpaneel = shop.site.mengpaneel
    session = Session(create_engine("sqlite://"))

    def add() -> None:
        session.begin()

        with mengpaneel.on_commit(session), mengpaneel.setup():
            mengpaneel.register({"Plan": "pro"})

        session.commit() if commits else session.rollback()
        mengpaneel.track("A")

    shop.sign_in()
    shop.do(add)

    assert shop.sent == ["A by ann"]
    assert ("Plan" in shop.site.messages[-1]["properties"]) is commits


@pytest.mark.parametrize(
    ("leave", "who_is_it"),
    [
        (lambda mengpaneel: mengpaneel.reset(), "somebody new"),
        (lambda mengpaneel: mengpaneel.identify("bob"), "bob"),
    ],
    ids=["reset", "identify"],
)
def test_a_set_up_that_names_nobody_brings_nobody_back(
    shop: Shop, leave: c.Callable[[t.Any], None], who_is_it: str
) -> None:
    mengpaneel = shop.site.mengpaneel

    def change() -> None:
        mengpaneel.track("A")
        leave(mengpaneel)

        with mengpaneel.setup():
            mengpaneel.register({"Plan": "pro"})

        mengpaneel.track("B")

    shop.sign_in()
    shop.do(change)

    assert shop.sent == ["A by ann", f"B by {who_is_it}"]


def test_a_profile_is_what_the_app_makes_of_the_user() -> None:
    shop = make_shop(login_profile=lambda user: {"$email": user.email})
    shop.sign_in()
    shop.do(track(shop, "A"))

    (profile,) = [m for m in shop.site.messages if "$set" in m]
    assert profile["$distinct_id"] == "ann"
    assert profile["$set"]["$email"] == "ann@example.com"


@pytest.mark.parametrize(
    "profile", [lambda user: None, lambda user: 1 / 0], ids=["none", "fails"]
)
def test_an_event_needs_no_profile(profile: c.Callable[[User], t.Any]) -> None:
    shop = make_shop(login_profile=profile)
    shop.sign_in()
    shop.do(track(shop, "A"))

    assert shop.sent == ["A by ann"]


# -- what it costs


def test_no_user_is_loaded_where_nothing_is_tracked_and_no_page_shown(
    shop: Shop,
) -> None:
    shop.sign_in(**ANN)

    shop.client.get("/page", headers={"Sec-Fetch-Dest": "image"})
    shop.do(lambda: None, {"items": []})
    shop.do(lambda: None, redirect("/page"))
    shop.do(lambda: None, (PAGE, 500))
    shop.do(lambda: None, (PAGE, {"Cache-Control": "public, max-age=60"}))
    shop.client.get("/_mengpaneel/static/mengpaneel.js").close()

    assert shop.users.loaded == []


def test_the_user_is_loaded_once(shop: Shop) -> None:
    shop.sign_in(**ANN)
    shop.do(track(shop, "A", "B"))
    assert shop.users.loaded == ["ann"]

    shop.client.get("/page")
    assert shop.users.loaded == ["ann", "ann"]


def test_nobody_is_loaded_without_consent(shop: Shop) -> None:
    shop.sign_in(**ANN)
    shop.do(track(shop, "A"), headers={"DNT": "1"})
    shop.client.get("/page", headers={"DNT": "1"})

    assert shop.users.loaded == []


def test_the_page_of_an_anonymous_visitor_is_as_if_nobody_had_asked() -> None:
    def headers(shop: Shop) -> list[tuple[str, str]]:
        shop.do(lambda: session.update(theme="dark"), {"theme": "dark"})
        return list(shop.client.get("/page").headers)

    assert headers(make_shop()) == headers(make_shop(login=None))


# -- signed out


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_sign_out_is_of_the_user_who_leaves(shop: Shop, when: str) -> None:
    def sign_out() -> None:
        if when == "before":
            shop.site.mengpaneel.track("Sign Out")

        flask_login.logout_user()

        if when == "after":
            shop.site.mengpaneel.track("Sign Out")

    shop.sign_in(**ANN)
    shop.do(sign_out)
    shop.do(track(shop, "Later"))

    assert shop.sent == ["Sign Out by ann", "Later by somebody new"]


def test_a_sign_out_without_an_event_is_one(shop: Shop) -> None:
    shop.sign_in(**ANN)
    shop.do(flask_login.logout_user)
    shop.do(track(shop, "A", "B"))

    assert shop.sent == ["A by somebody new", "B by somebody new"]
    assert len({m["properties"]["$device_id"] for m in shop.site.messages}) == 1


def test_the_page_that_a_sign_out_leads_to_is_a_new_visitor_s(shop: Shop) -> None:
    def sign_out() -> None:
        flask_login.logout_user()
        shop.site.mengpaneel.track("Sign Out")

    shop.sign_in(**ANN)
    shop.do(sign_out, redirect("/page"))

    assert shop.sent == ["Sign Out by ann"]
    # The response has told the library.
    assert page_calls(shop.client.get("/page")) == []
    shop.do(track(shop, "A"))
    assert shop.sent == ["Sign Out by ann", "A by somebody new"]


def test_events_that_wait_are_still_of_who_was_signed_in(shop: Shop) -> None:
    shop.sign_in(**ANN)
    shop.do(track(shop, "Order"), redirect("/do"))
    shop.do(flask_login.logout_user, redirect("/page"))

    assert page_calls(shop.client.get("/page")) == []
    assert shop.sent == ["Order by ann"]


def test_an_app_that_resets_itself_does_so_once(shop: Shop) -> None:
    def sign_out() -> None:
        flask_login.logout_user()
        shop.site.mengpaneel.reset()

    shop.sign_in(**ANN)

    assert names(page_calls(shop.do(sign_out, PAGE))).count("reset") == 1


@pytest.mark.parametrize("flushes", [0, 1, 2])
def test_an_app_that_resets_itself_does_so_once_though_it_runs_long(
    shop: Shop, flushes: int
) -> None:
    def sign_out() -> None:
        shop.site.mengpaneel.track("A")
        flask_login.logout_user()
        shop.site.mengpaneel.reset()

        for event in "BC"[:flushes]:
            shop.site.mengpaneel.track(event)
            current_manager().flush_while_running()

        shop.site.mengpaneel.track("D")

    shop.sign_in(**ANN)
    shop.do(sign_out)
    shop.do(track(shop, "E"))
    found = {
        one["event"]: one["properties"]["distinct_id"] for one in shop.site.messages
    }
    assert found.keys() == {*"ADE", *"BC"[:flushes]}
    assert found.pop("A") == "ann"
    assert len(set(found.values())) == 1
    assert set(found.values()) != {"ann"}


def test_who_signs_out_before_a_page_knew_them_is_gone(shop: Shop) -> None:
    shop.do(lambda: flask_login.login_user(User("ann")), redirect("/page"))
    shop.do(flask_login.logout_user)
    assert page_calls(shop.client.get("/page")) == []
    shop.do(track(shop, "After"))
    assert shop.sent == ["After by somebody new"]


@pytest.mark.parametrize("flushes", [0, 1, 2])
def test_who_switches_accounts_in_a_view_that_runs_long_is_two(
    shop: Shop, flushes: int
) -> None:
    def switch() -> None:
        shop.site.mengpaneel.track("A")
        flask_login.logout_user()

        for event in "BC"[:flushes]:
            shop.site.mengpaneel.track(event)
            current_manager().flush_while_running()

        flask_login.login_user(User("bob"))
        shop.site.mengpaneel.track("D")

    shop.sign_in(**ANN)
    shop.do(switch)
    shop.do(track(shop, "E"))
    assert [one for one in shop.sent if one[0] in "ABC"] == [
        f"{event} by ann" for event in "ABC"[: flushes + 1]
    ]
    assert shop.sent[-2:] == ["D by bob", "E by bob"]


def test_who_was_not_signed_in_can_t_sign_out(shop: Shop) -> None:
    shop.do(lambda: (flask_login.logout_user(), track(shop, "A")()))
    shop.do(track(shop, "B"))

    assert shop.sent == ["A by d1", "B by d1"]


def test_who_was_not_signed_in_can_t_sign_out_while_events_wait(shop: Shop) -> None:
    shop.do(track(shop, "A"), redirect("/page"))
    # Flask-Login makes a note in a session that has something, and takes it away.
    shop.do(lambda: flask_login.current_user.is_authenticated)
    response = shop.do(lambda: flask_login.logout_user(), headers=CAPABLE)

    assert names(header_calls(response)) == ["track A"]


def test_who_was_signed_in_signs_out_by_a_session_that_is_cleared_first(
    shop: Shop,
) -> None:
    shop.sign_in(**NEW)
    assert page_calls(shop.client.get("/page")) == [[["identify"], ["ann"]]]
    # The library's cookie doesn't say so yet.
    shop.do(lambda: (session.clear(), flask_login.logout_user()))
    shop.do(track(shop, "A"))

    assert shop.sent == ["A by somebody new"]


def test_what_was_tracked_before_a_sign_in_that_makes_sure_is_the_user_s(
    shop: Shop,
) -> None:
    def sign_in() -> None:
        shop.site.mengpaneel.track("Try")
        flask_login.logout_user()
        flask_login.login_user(User("ann"))
        shop.site.mengpaneel.track("Sign In")

    shop.do(sign_in)

    assert shop.sent == ["Try by ann", "Sign In by ann"]
    assert {m["properties"]["$device_id"] for m in shop.site.messages} == {DEVICE}


def test_a_sign_out_is_one_where_the_server_doesn_t_see_who_it_is() -> None:
    shop = make_shop(client_config={"persistence": "localStorage"})
    shop.client.delete_cookie("mp_token_mixpanel")
    response = shop.do(flask_login.logout_user, PAGE)

    assert "reset" in names(page_calls(response))


def test_a_page_after_the_session_has_expired_is_a_new_visitor_s(shop: Shop) -> None:
    shop.sign_in(**ANN)
    shop.expire()

    assert names(page_calls(shop.client.get("/page"))) == ["reset"]


def test_events_after_the_session_has_expired_are_a_new_visitor_s(shop: Shop) -> None:
    shop.sign_in(**ANN)
    shop.expire()
    shop.do(track(shop, "A"))
    shop.do(track(shop, "B"))

    assert shop.sent == ["A by somebody new", "B by somebody new"]
    assert len({m["properties"]["$device_id"] for m in shop.site.messages}) == 1


def test_events_after_a_response_whose_session_has_expired_are_a_new_visitor_s(
    shop: Shop,
) -> None:
    def stream() -> c.Iterator[str]:
        track(shop, "A", "B")()
        yield "ok"

    def view() -> None:
        # For a page it is known before.
        shop.response = Response(stream_with_context(stream()), mimetype="text/plain")

    shop.sign_in(**ANN)
    shop.expire()
    assert shop.do(view).text == "ok"

    assert shop.sent == ["A by somebody new", "B by somebody new"]
    assert len({m["properties"]["$device_id"] for m in shop.site.messages}) == 1


def test_who_signs_in_again_after_the_session_has_expired_has_the_same_device(
    shop: Shop,
) -> None:
    shop.sign_in(**ANN)
    shop.expire()
    shop.do(lambda: (track(shop, "Try")(), flask_login.login_user(User("ann"))))

    assert shop.sent == ["Try by ann"]
    (message,) = (m for m in shop.site.messages if m["event"] == "Try")
    assert message["properties"]["$device_id"] == DEVICE


def test_who_the_app_identifies_itself_is_no_new_visitor(shop: Shop) -> None:
    def guest() -> None:
        with shop.site.mengpaneel.setup():
            shop.site.mengpaneel.identify("guest")

        shop.site.mengpaneel.track("A")

    shop.do(guest)
    shop.do(guest)

    assert shop.sent == ["A by guest", "A by guest"]
    assert {m["properties"]["$device_id"] for m in shop.site.messages} == {DEVICE}


def test_a_device_that_was_never_identified_stays_one(shop: Shop) -> None:
    # As old versions of the library have it.
    set_library_cookie(shop.client, distinct_id=DEVICE, **{"$device_id": DEVICE})

    assert page_calls(shop.client.get("/page")) == []


def test_a_request_that_may_lack_the_session_s_cookie_signs_nobody_out(
    shop: Shop,
) -> None:
    set_library_cookie(shop.client, **ANN)
    shop.do(
        track(shop, "Pay"),
        headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"},
    )

    assert shop.sent == ["Pay by ann"]


@pytest.mark.parametrize(
    ("samesite", "person"), [("Strict", "ann"), ("Lax", "somebody new")]
)
def test_a_link_of_another_site_signs_nobody_out_whose_session_it_leaves_behind(
    samesite: str, person: str
) -> None:
    shop = make_shop(SESSION_COOKIE_SAMESITE=samesite)
    set_library_cookie(shop.client, **ANN)
    link = {
        "Sec-Fetch-Site": "cross-site",
        "Sec-Fetch-Mode": "navigate",
        "Sec-Fetch-Dest": "document",
    }
    shop.do(track(shop, "Land"), headers=link)

    assert shop.sent == [f"Land by {person}"]


def test_who_is_taken_elsewhere_is_nobody_whose_session_has_expired(
    shop: Shop,
) -> None:
    taken = []

    def take() -> None:
        taken.append(shop.site.mengpaneel.visitor.user_id)

    shop.sign_in(**ANN)
    shop.do(take)
    shop.expire()
    shop.do(take)

    assert taken == ["ann", None]


# -- switches


@pytest.mark.parametrize("leaves", [False, True])
def test_each_event_is_of_who_was_signed_in_then(shop: Shop, leaves: bool) -> None:
    def switch() -> None:
        shop.site.mengpaneel.track("A")

        if leaves:
            flask_login.logout_user()

        flask_login.login_user(User("bob"))
        shop.site.mengpaneel.track("B")

    shop.sign_in(**ANN)
    shop.do(switch)
    shop.do(track(shop, "C"))

    assert shop.sent == ["A by ann", "B by bob", "C by bob"]


def test_who_comes_back_at_once_stays(shop: Shop) -> None:
    def change_password() -> None:
        flask_login.logout_user()
        flask_login.login_user(User("ann"))
        shop.site.mengpaneel.track("Change Password")

    shop.sign_in(**ANN)
    shop.do(change_password)
    shop.do(track(shop, "A"))

    assert shop.sent == ["Change Password by ann", "A by ann"]
    assert {m["properties"]["$device_id"] for m in shop.site.messages} == {DEVICE}


# -- in other places


def test_a_job_in_a_view_is_not_the_visitor_s(shop: Shop) -> None:
    def job() -> None:
        with Manager() as manager:
            manager.track("Pay")

    shop.sign_in(**ANN)
    shop.do(job)

    (message,) = shop.site.messages
    assert message["properties"]["distinct_id"] not in ("ann", DEVICE)


@pytest.mark.parametrize("has_tracked", [False, True])
def test_a_sign_in_within_a_job_is_the_visitor_s(shop: Shop, has_tracked: bool) -> None:
    def job() -> None:
        track(shop, *["A"] * has_tracked)()

        with Manager(identify="bob") as manager:
            flask_login.login_user(User("ann"))
            manager.track("Pay")

        shop.site.mengpaneel.track("B")

    shop.do(job)

    assert sorted(shop.sent) == ["A by ann"] * has_tracked + ["B by ann", "Pay by bob"]


def in_a_thread(work: c.Callable[[], object]) -> None:
    thread = threading.Thread(target=copy_current_request_context(work))
    thread.start()
    thread.join()


def in_an_app_context(work: c.Callable[[], object]) -> None:
    with current_app.app_context():
        work()


@pytest.mark.parametrize("has_job", [False, True])
@pytest.mark.parametrize("elsewhere", [in_a_thread, in_an_app_context])
def test_who_signs_in_and_out_after_a_first_call_elsewhere_is_not_overlooked(
    shop: Shop, elsewhere: c.Callable[[c.Callable[[], object]], None], has_job: bool
) -> None:
    """An eager task tracks in an app context of its own, for one."""

    def change(change: c.Callable[[], object]) -> None:
        elsewhere(track(shop, "Thread"))

        with Manager() if has_job else contextlib.nullcontext():
            change()

    shop.do(lambda: change(lambda: flask_login.login_user(User("ann"))))
    shop.do(track(shop, "A"))
    shop.do(lambda: change(flask_login.logout_user))
    shop.do(track(shop, "B"))

    assert [one for one in shop.sent if "Thread" not in one] == [
        "A by ann",
        "B by somebody new",
    ]


def test_nothing_is_reset_while_nobody_has_been_asked_for_consent() -> None:
    shop = make_shop(consent=lambda: None)
    set_library_cookie(shop.client, **ANN)

    for _ in range(3):
        response = shop.client.get("/page")
        assert page_calls(response) == []
        assert "session" not in str(response.headers.getlist("Set-Cookie"))


def test_an_app_goes_with_what_it_has_listened_with() -> None:
    gc.collect()
    before = len(flask_login.user_logged_in.receivers)
    shop = make_shop()
    app = weakref.ref(shop.site.app)
    assert len(flask_login.user_logged_in.receivers) == before + 1

    del shop
    gc.collect()

    assert app() is None
    assert len(flask_login.user_logged_in.receivers) == before


def test_an_id_that_can_t_be_is_logged_and_costs_no_page(
    caplog: pytest.LogCaptureFixture,
) -> None:
    shop = make_shop(testing=False)
    shop.sign_in("0")

    assert shop.do(track(shop, "A")).status_code == 200
    assert shop.sent == ["A by d1"]
    assert "'0' can't be the id of a person" in caplog.text


@pytest.mark.parametrize("enters", [False, True])
def test_who_has_no_id_is_not_whom_the_browser_knows(enters: bool) -> None:
    shop = make_shop(testing=False, login_profile=lambda user: {"$email": user.email})

    def sign_in() -> None:
        if enters:
            flask_login.login_user(User("0"))

        shop.site.mengpaneel.track("A")

    shop.sign_in("ann" if enters else "0", **ANN)
    shop.do(sign_in)
    shop.do(track(shop, "B"))

    assert shop.sent == ["A by somebody new", "B by somebody new"]
    profiles = [m for m in shop.site.messages if "$set" in m]
    assert "0@example.com" not in str(profiles)


def test_who_has_no_id_leaves_the_app_s_own_set_up_alone() -> None:
    shop = make_shop(testing=False)

    def guest() -> None:
        with shop.site.mengpaneel.setup():
            shop.site.mengpaneel.identify("guest")

        shop.site.mengpaneel.track("A")

    shop.sign_in("0")
    shop.do(guest)
    shop.do(guest)

    assert shop.sent == ["A by guest", "A by guest"]
    assert {m["properties"]["$device_id"] for m in shop.site.messages} == {DEVICE}


def test_what_is_asked_in_vain_changes_nothing(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(id: str) -> User:
        raise ConnectionError("the database is away")

    shop.sign_in(**ANN)
    shop.users.manager.user_loader(fail)
    shop.do(track(shop, "A"))

    assert shop.sent == ["A by ann"]
    assert "MENGPANEEL_LOGIN failed" in caplog.text


def test_a_user_loader_may_track(shop: Shop) -> None:
    def load(id: str) -> User:
        shop.site.mengpaneel.track("Load")
        return User(id)

    shop.sign_in(**ANN)
    shop.users.manager.user_loader(load)
    shop.do(track(shop, "A"))

    assert shop.sent[-1] == "A by ann"
    assert set(shop.sent[:-1]) == {"Load by ann"}


@pytest.mark.parametrize(
    ("other", "events"),
    [
        ("threads", ["First", "Second", "Third"]),
        ("the view", ["First", "Second"]),
        ("the response", ["First"]),
    ],
)
def test_what_threads_track_while_the_app_says_who_it_is_is_theirs(
    shop: Shop, other: str, events: list[str]
) -> None:
    """The first of them has the app asked, which may take long."""
    is_asked, may_answer = threading.Event(), threading.Event()
    threads: list[threading.Thread] = []

    def load(id: str) -> User:
        if not is_asked.is_set():
            is_asked.set()
            assert may_answer.wait(60)

        return User(id)

    def start(event: str) -> threading.Thread:
        work = copy_current_request_context(track(shop, event))
        threads.append(threading.Thread(target=work))
        threads[-1].start()
        return threads[-1]

    def view() -> None:
        start("First")
        assert is_asked.wait(60)

        if other == "threads":
            start("Second").join(60)
            start("Third").join(60)
        elif other == "the view":
            track(shop, "Second")()

    shop.sign_in()
    shop.users.manager.user_loader(load)
    shop.do(view)
    may_answer.set()

    for thread in threads:
        thread.join(60)

    assert sorted(shop.sent) == [f"{event} by ann" for event in events]


def test_two_apps_don_t_hear_of_each_other(shop: Shop) -> None:
    other = make_shop()
    other.do(lambda: flask_login.login_user(User("bob")))
    shop.do(track(shop, "A"))

    assert shop.sent == ["A by d1"]


def test_who_is_remembered_is_identified(shop: Shop) -> None:
    shop.do(lambda: flask_login.login_user(User("ann"), remember=True))
    shop.expire()
    set_library_cookie(shop.client, **NEW)

    assert page_calls(shop.client.get("/page")) == [[["identify"], ["ann"]]]


def test_who_signs_in_with_each_request_is_identified(shop: Shop) -> None:
    @shop.users.manager.request_loader
    def load(request: t.Any) -> User | None:
        key = request.headers.get("Authorization")
        return User(key.removeprefix("Key ")) if key else None

    shop.do(track(shop, "A"), headers={"Authorization": "Key ann"})
    assert shop.sent == ["A by ann"]

    client = shop.site.client()
    page = client.get("/page", headers={"Authorization": "Key ann"})
    assert page_calls(page) == [[["identify"], ["ann"]]]


def test_without_flask_login_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = "flask_mengpaneel.setting_checks.importlib.util.find_spec"
    monkeypatch.setattr(find_spec, lambda name: None)

    with pytest.raises(ValueError, match="pip install flask-login"):
        make_shop()


# -- other extensions


def principal_login() -> Login:
    def known(identity: t.Any) -> t.Any:
        return None if identity.id is None else identity

    return Login(
        user=lambda: known(g.identity),
        user_id=lambda identity: identity.id,
        signals={flask_principal.identity_changed: known},
    )


def test_flask_principal_says_who_it_is() -> None:
    site = Site(
        login=principal_login(), prepare=lambda app: flask_principal.Principal(app)
    )
    shop = Shop(site, Users(), site.client())
    set_library_cookie(shop.client, **NEW)

    def change(identity: flask_principal.Identity) -> None:
        flask_principal.identity_changed.send(site.app, identity=identity)
        site.mengpaneel.track("Sign In" if identity.id else "Sign Out")

    steps: dict[str, c.Callable[[], None]] = {
        "/in": lambda: change(flask_principal.Identity("ann")),
        "/a": track(shop, "A"),
        "/out": lambda: change(flask_principal.AnonymousIdentity()),
        "/b": track(shop, "B"),
    }

    for path, step in steps.items():
        site.view(path, lambda step=step: (step(), "ok")[1])

    for path in steps:
        shop.client.get(path)

    assert shop.sent == [
        "Sign In by ann",
        "A by ann",
        "Sign Out by ann",
        "B by somebody new",
    ]


def test_signals_of_one_s_own_say_who_it_is() -> None:
    signals = Namespace()
    entered, left = signals.signal("entered"), signals.signal("left")
    login = Login(
        user=lambda: session.get("name"),
        user_id=lambda name: name,
        signals={entered: lambda name: name, left: lambda: None},
    )
    site = Site(login=login)
    shop = Shop(site, Users(), site.client())
    set_library_cookie(shop.client, **NEW)

    def enter() -> str:
        session["name"] = request.args["name"]
        entered.send(site.app, name=session["name"])
        site.mengpaneel.track("Enter")
        return "ok"

    def leave() -> str:
        del session["name"]
        left.send(site.app)
        site.mengpaneel.track("Leave")
        return "ok"

    site.view("/enter", enter)
    site.view("/leave", leave)
    site.view("/a", lambda: (site.mengpaneel.track("A"), "ok")[1])

    for path in ("/a", "/enter?name=ann", "/a", "/enter?name=bob", "/leave", "/a"):
        shop.client.get(path)

    assert shop.sent == [
        "A by d1",
        "Enter by ann",
        "A by ann",
        "Enter by bob",
        "Leave by bob",
        "A by somebody new",
    ]


@pytest.fixture
def security(caplog: pytest.LogCaptureFixture) -> Shop:
    """A site with Flask-Security, which has views of its own for all of it."""
    from flask_security import Security, UserDatastore, UserMixin
    from flask_security.utils import hash_password

    caplog.set_level(logging.ERROR)

    class Account(UserMixin):  # type: ignore[misc]
        roles: list[t.Any] = []
        active = True
        fs_uniquifier = "changes-with-the-password"
        id = 42
        email = "ann@example.com"
        password: str | None = None

    account = Account()

    class Accounts(UserDatastore):  # type: ignore[misc]
        def find_user(self, case_insensitive: bool = False, **query: t.Any) -> t.Any:
            return next(
                (
                    account
                    for name, value in query.items()
                    if getattr(account, name, None) == value
                ),
                None,
            )

        def put(self, model: t.Any) -> t.Any:
            return model

        def commit(self) -> None:
            pass

    def prepare(app: Flask) -> None:
        app.config.update(
            SECURITY_PASSWORD_SALT="salt",
            SECURITY_PASSWORD_HASH="plaintext",
            SECURITY_PASSWORD_SCHEMES=["plaintext"],
            SECURITY_DEPRECATED_PASSWORD_SCHEMES=[],
            WTF_CSRF_ENABLED=False,
        )
        Security(app, Accounts(Account, None))

        with app.app_context():
            account.password = hash_password("a long password")

    site = Site(prepare=prepare, login=Login.flask_login(lambda user: user.id))
    shop = Shop(site, Users(), site.client())
    site.view("/page", lambda: PAGE)
    site.view("/a", lambda: (site.mengpaneel.track("A"), "ok")[1])
    set_library_cookie(shop.client, **NEW)
    return shop


def test_flask_security_signs_in_and_out(security: Shop) -> None:
    client = security.client
    form = {"email": "ann@example.com", "password": "a long password"}

    client.get("/a")
    assert client.post("/login", data=form).status_code == 302
    client.get("/a")
    assert page_calls(client.get("/page")) == []
    assert client.post("/logout").status_code == 302
    client.get("/a")

    assert security.sent == ["A by d1", "A by 42", "A by somebody new"]
