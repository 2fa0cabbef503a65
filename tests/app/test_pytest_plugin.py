"""The plugin for pytest, in test runs of its own."""

from __future__ import annotations

import os
import pathlib
import socket
import typing as t

import pytest

import pytest_mengpaneel
from flask_mengpaneel import guard
from sink import Sink

pytest_plugins = ["pytester"]

ROOT = pathlib.Path(pytest_mengpaneel.__file__).parent
WITH_PLUGIN = ("-p", "pytest_mengpaneel")

#: An app as in production: nothing says that it is tested.
SHOP = """
from flask import Flask, redirect
from flask_mengpaneel import Mengpaneel

mengpaneel = Mengpaneel()


def create_app(**settings):
    app = Flask("shop", root_path=settings.pop("root", None))
    app.config.update(SECRET_KEY="secret", MENGPANEEL_TOKEN="token", **settings)
    mengpaneel.init_app(app)

    @app.get("/page")
    def page():
        mengpaneel.track("View", {"Items": 3})
        return "<!doctype html><title>x</title><body></body>"

    @app.post("/orders")
    def order():
        mengpaneel.identify("42")
        mengpaneel.people.set("Plan", "pro")
        mengpaneel.track("Order", {"Total": 44})
        return redirect("/page")

    @app.get("/now")
    def now():
        mengpaneel.strategy = "ServerSide"
        mengpaneel.track("Now")
        return {}

    return app
"""


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makepyfile(shop=SHOP)
    return pytester


def test_nothing_is_imported_until_the_fixture_is_used(run: pytest.Pytester) -> None:
    run.makepyfile(
        """
        import sys

        def ours():
            return [name for name in sys.modules if name.startswith("flask")]

        def test_without():
            assert ours() == []

        def test_with(mengpaneel_calls):
            assert "flask_mengpaneel.testing" in ours()
        """
    )

    run.runpytest_subprocess(*WITH_PLUGIN).assert_outcomes(passed=2)


def test_the_fixture_has_the_calls_of_a_test(run: pytest.Pytester) -> None:
    """Over a redirect, of several apps, of none; and says what is near."""
    run.makepyfile(
        """
        import pytest
        from shop import create_app, mengpaneel
        from flask_mengpaneel import Manager

        # Before there is a fixture.
        app = create_app()

        def test_a_redirect(mengpaneel_calls):
            app.test_client().post("/orders", follow_redirects=True)
            mengpaneel_calls.assert_tracked("Order", Total=44)
            mengpaneel_calls.assert_identified(42)
            mengpaneel_calls.assert_profile(Plan="pro")
            assert mengpaneel_calls.events == ["Order", "View"]

        def test_another(mengpaneel_calls):
            mengpaneel_calls.assert_not_tracked()

        def test_apps_and_jobs(mengpaneel_calls):
            apps = [create_app(), create_app(TESTING=True)]

            for one in apps:
                with one.app_context(), Manager():
                    mengpaneel.track("Work")

            assert [call.app for call in mengpaneel_calls] == apps

        def test_failing(mengpaneel_calls):
            app.test_client().get("/page")
            mengpaneel_calls.assert_tracked("View", Items=4)
        """
    )

    result = run.runpytest_inprocess(*WITH_PLUGIN)
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(
        [
            ">*mengpaneel_calls.assert_tracked*",
            "E*no event 'View' with {'Items': 4}; the nearest calls:",
            "E*<GET /page: track('View', {'Items': 3}), by ClientSide>",
            "E*Items is 3",
        ]
    )
    result.stdout.no_fnmatch_line("*raise AssertionError*")


def test_the_workers_of_a_run_have_their_own_calls(run: pytest.Pytester) -> None:
    run.makepyfile(
        """
        import pytest
        from shop import create_app

        @pytest.mark.parametrize("number", range(4))
        def test_one(mengpaneel_calls, number):
            client = create_app().test_client()

            for _ in range(number):
                client.get("/page")

            assert mengpaneel_calls.events == ["View"] * number
        """
    )

    run.runpytest_subprocess(*WITH_PLUGIN, "-n1").assert_outcomes(passed=4)


def test_what_an_app_would_send_stays_in_the_run(run: pytest.Pytester) -> None:
    """Whether or not the fixture is used, and also in processes that tests start: no
    thread delivers, nothing is spooled, no browser sends."""
    run.makepyfile(
        """
        import pathlib, subprocess, sys, threading
        import pytest
        from shop import create_app, mengpaneel
        from flask_mengpaneel import Manager

        folder = pathlib.Path(__file__).parent
        before = threading.enumerate()
        HEADERS = {"User-Agent": "curl/8.5.0"}

        def ask(**settings):
            app = create_app(root=str(folder), **settings)
            client = app.test_client()
            client.get("/page", headers=HEADERS)
            client.get("/now")

            with app.app_context(), Manager(strategy="ServerSide"):
                mengpaneel.track("Work")

            with app.app_context():
                assert mengpaneel.drain(0)
                assert mengpaneel.ledger().delivered == 3

            return client

        @pytest.mark.parametrize("kind", ["thread", "inline", "celery"])
        def test_a_transport(kind):
            ask(MENGPANEEL_TRANSPORT=kind, MENGPANEEL_SPOOL=str(folder / "spool"))

        def test_a_host_of_ones_own():
            host = "https://t.shop.example"
            own = {"api_host": host}
            ask(MENGPANEEL_API_HOST=host, MENGPANEEL_CLIENT_CONFIG=own)

        def test_a_process():
            text = "import test_what_an_app_would_send_stays_in_the_run as it; it.ask()"
            subprocess.run([sys.executable, "-c", text], check=True, cwd=folder)

        def test_a_page():
            hosts = [{}, {"MENGPANEEL_API_HOST": "https://api-eu.mixpanel.com"}]
            hosts += [{"MENGPANEEL_CLIENT_CONFIG": {"api_host": "https://t.example"}}]

            for settings in hosts:
                client = ask(**settings)
                assert '"api_host":"/_mengpaneel/guard"' in client.get("/page").text

            answer = client.post("/_mengpaneel/guard/track/?verbose=1")
            assert answer.text == '{"status":1}'
            assert client.get("/_mengpaneel/guard/track").text == "1"

        def test_nothing_is_left():
            assert not list(folder.glob("**/*spool*"))
            new = set(threading.enumerate()).difference(before)
            assert "mengpaneel" not in [one.name for one in new]
        """
    )

    # Apart, as an app of another test may have a thread that sends.
    run.runpytest_subprocess(*WITH_PLUGIN).assert_outcomes(passed=7)


def test_what_others_would_send_is_refused_aloud(run: pytest.Pytester) -> None:
    """A transport of one's own, the official library, a thread: each fails its test."""
    run.makepyfile(
        """
        import socket, threading, urllib.request
        import pytest
        from mixpanel import Mixpanel
        from flask_mengpaneel import Manager, Transport
        from shop import create_app, mengpaneel

        class Own(Transport):
            def send(self, envelope):
                urllib.request.urlopen("https://api-eu.mixpanel.com/import")

        def test_own_transport():
            app = create_app(MENGPANEEL_TRANSPORT=Own())
            with app.app_context(), Manager():
                mengpaneel.track("Work")

        def test_official_library():
            Mixpanel("token").track("42", "View")

        def test_proxy(monkeypatch):
            monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")

            try:
                urllib.request.build_opener().open("https://api.mixpanel.com/track")
            except OSError:
                print("The proxy was asked.")

        def test_swallowing():
            with pytest.raises(RuntimeError, match="API.mixpanel.com."):
                socket.create_connection(("API.mixpanel.com.", 443))

        def test_thread():
            def work():
                try:
                    socket.getaddrinfo(b"mixpanel.com", 443)
                except Exception:
                    pass

            thread = threading.Thread(target=work)
            thread.start()
            thread.join()

        @pytest.mark.parametrize("name", ["gethostbyname", "gethostbyname_ex"])
        def test_an_older_look_up(name):
            try:
                getattr(socket, name)("api.mixpanel.com")
            except OSError:
                print("The name was looked up.")

        def test_others():
            for name in ("localhost", "127.0.0.1", None):
                socket.getaddrinfo(name, 80)

            assert socket.gethostbyname("127.0.0.1") == "127.0.0.1"
        """
    )

    former = socket.gethostbyname, socket.gethostbyname_ex
    result = run.runpytest_inprocess(*WITH_PLUGIN)
    result.assert_outcomes(passed=1, failed=7)
    assert former == (socket.gethostbyname, socket.gethostbyname_ex)
    result.stdout.fnmatch_lines(
        ["*This test reached for api-eu.mixpanel.com*Nothing was sent*", "*in send*"]
    )


def test_a_run_leaves_the_process_as_it_was(
    run: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where something else, as gevent does, patches sockets in the meantime."""
    monkeypatch.setattr(socket, "getaddrinfo", socket.getaddrinfo)
    run.makeconftest(
        """
        import socket

        former = socket.getaddrinfo
        socket.getaddrinfo = lambda *args: [former("127.0.0.1", 80), args[0]]
        """
    )
    run.makepyfile(
        """
        import socket

        def test_another():
            for name in ("shop.example", "notmixpanel.com", "mixpanel.com.example"):
                assert socket.getaddrinfo(name, 443)[1] == name

        def test_guarded():
            socket.getaddrinfo("api.mixpanel.com", 443)
        """
    )
    run.runpytest_inprocess(*WITH_PLUGIN).assert_outcomes(passed=1, failed=1)

    found: t.Any = socket.getaddrinfo("api.mixpanel.com", 443)
    assert found[1] == "api.mixpanel.com"
    assert guard.VARIABLE not in os.environ


def test_stand_ins_on_this_machine_are_reached(
    run: pytest.Pytester, sink: Sink
) -> None:
    run.makepyfile(
        f"""
        import os
        from shop import create_app

        SETTINGS = {{"MENGPANEEL_API_HOST": {sink.url!r}, "MENGPANEEL_SPOOL": None}}

        def test_a_server(mengpaneel_calls):
            create_app(**SETTINGS).test_client().get("/now")
            mengpaneel_calls.assert_tracked("Now")

        def test_the_inspector():
            settings = {{"MENGPANEEL_INSPECTOR": True, "MENGPANEEL_ACK_TIMEOUT": 0}}
            app = create_app(root=os.getcwd(), **settings)
            client = app.test_client()
            client.get("/now")
            assert app.extensions["mengpaneel_inspector"].events("Now")
            assert "/_mengpaneel/inspector" in client.get("/page").text
        """
    )

    run.runpytest_inprocess(*WITH_PLUGIN).assert_outcomes(passed=2)

    assert sink.wait_for(1)
