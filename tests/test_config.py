from __future__ import annotations

import dataclasses
import importlib.util
import pathlib
import typing as t
import warnings

import pytest
from flask import Flask

from case_ids import case_id
from flask_mengpaneel import Login, Mengpaneel, Strategy, Transport
from flask_mengpaneel.config import KEYS, SERVERLESS, STRATEGIES, Config, Settings
from flask_mengpaneel.testing import RecordingTransport


def read(_overrides: dict[str, t.Any] | None = None, **settings: t.Any) -> Config:
    app = Flask("shop")
    app.config["MENGPANEEL_TOKEN"] = "token"
    app.config.update((f"MENGPANEEL_{k.upper()}", v) for k, v in settings.items())
    return Config.from_app(app, _overrides or {})


def allow() -> bool:
    return True


transport = RecordingTransport()
login = Login(user=allow, user_id=str, signals={})


class Printing(Strategy):
    def flush(self, calls: t.Any, visitor: t.Any, exchange: t.Any) -> None:
        print(*calls)


class ServerSide(Printing):
    pass


def test_the_defaults_are_those_that_are_documented() -> None:
    config = read()

    assert config.token == "token"
    assert config.enabled is True
    assert config.api_host == "https://api.mixpanel.com"
    assert config.client_config == {}
    assert config.library_url is not None
    assert config.library_url.startswith("https://cdn.mxpnl.com/")
    assert config.strategies == STRATEGIES
    assert config.timeout == 3.0
    assert config.durable is False
    assert config.default_properties is None
    assert config.consent is None
    assert config.respect_dnt is True
    assert config.fallback is True
    assert config.max_header == 2048
    assert config.delayed_max_age == 600
    assert config.on_failure is None
    assert config.shutdown_timeout == 2.0
    assert config.id_merge == "simplified"
    assert config.anonymize_ip is False
    assert config.bots == "send"
    assert config.csp_nonce is None
    assert config.ack_timeout == 30
    assert config.acks is None
    assert config.before_send is None
    assert config.events == "off"
    assert config.login is None
    assert config.login_profile is None
    assert config.url_prefix == "/_mengpaneel"
    assert config.inspector is False


def test_there_is_a_key_for_each_field() -> None:
    fields = {f"MENGPANEEL_{f.name.upper()}" for f in dataclasses.fields(Config)}
    assert set(KEYS) == fields


def test_type_checkers_know_of_each_field() -> None:
    fields = [field.name for field in dataclasses.fields(Config)]

    assert list(Settings.__annotations__) == fields
    assert Settings.__optional_keys__ == set(fields)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("token", " abc ", "abc"),
        ("token", "", None),
        ("token", "  ", None),
        ("token", None, None),
        ("api_host", "https://api-eu.mixpanel.com/", "https://api-eu.mixpanel.com"),
        ("api_host", "http://127.0.0.1:5001", "http://127.0.0.1:5001"),
        ("api_host", "https://proxy.test/mixpanel", "https://proxy.test/mixpanel"),
        ("api_host", "HTTPS://API-IN.Mixpanel.com/", "https://api-in.mixpanel.com"),
        ("api_host", "https://api-js.mixpanel.com", "https://api-js.mixpanel.com"),
        ("api_host", "https://mixpanel.shop.test", "https://mixpanel.shop.test"),
        ("api_host", "https://notmixpanel.com", "https://notmixpanel.com"),
        ("client_config", {"api_host": "/mp"}, {"api_host": "/mp"}),
        ("client_config", {"api_host": "//a.test/mp"}, {"api_host": "//a.test/mp"}),
        ("client_config", {"api_host": None}, {"api_host": None}),
        ("client_config", {"api_host": ""}, {"api_host": ""}),
        ("client_config", {"api_host": "HTTP://[::1]"}, {"api_host": "HTTP://[::1]"}),
        ("client_config", {"api_hosts": "x.test"}, {"api_hosts": "x.test"}),
        ("client_config", {"persistence": "cookie"}, {"persistence": "cookie"}),
        ("library_url", None, None),
        ("library_url", "/static/mixpanel.js", "/static/mixpanel.js"),
        ("strategies", ["ServerSide"], ("ServerSide",)),
        ("strategies", ("ServerSide", "Delayed"), ("ServerSide", "Delayed")),
        ("strategies", [Printing, "Delayed"], (Printing, "Delayed")),
        ("transport", "thread", "thread"),
        ("transport", "inline", "inline"),
        ("transport", "celery", "celery"),
        ("transport", transport, transport),
        ("transport", "test_config.transport", transport),
        ("transport", "test_config:transport", transport),
        ("timeout", 1, 1),
        ("spool", None, None),
        ("spool", "waiting.sqlite3", pathlib.Path("waiting.sqlite3")),
        ("spool", pathlib.Path("events.sqlite3"), pathlib.Path("events.sqlite3")),
        ("default_properties", {"Release": "1"}, {"Release": "1"}),
        ("default_properties", allow, allow),
        ("default_properties", "test_config.allow", allow),
        ("default_properties", "test_config:allow", allow),
        ("consent", allow, allow),
        ("consent", "test_config.allow", allow),
        ("consent", None, None),
        ("max_header", 0, 0),
        ("delayed_max_age", 0, 0),
        ("shutdown_timeout", 0, 0),
        ("id_merge", "original", "original"),
        ("bots", "drop", "drop"),
        ("csp_nonce", "test_config.allow", allow),
        ("on_failure", print, print),
        ("url_prefix", "/shop-data", "/shop-data"),
        ("url_prefix", "/a/b.c_d~e", "/a/b.c_d~e"),
        ("before_send", allow, allow),
        ("login", login, login),
        ("login", "test_config.login", login),
        ("login_profile", allow, allow),
        ("before_send", "test_config.allow", allow),
        ("events", "warn", "warn"),
    ],
    ids=case_id,
)
@pytest.mark.filterwarnings("ignore:MENGPANEEL_TOKEN is not set")
def test_what_is_allowed_is_read(key: str, value: t.Any, expected: t.Any) -> None:
    assert getattr(read(**{key: value}), key) == expected


def test_a_transport_class_is_made_an_object() -> None:
    assert isinstance(read(transport=RecordingTransport).transport, RecordingTransport)
    assert isinstance(
        read(transport="flask_mengpaneel.testing.RecordingTransport").transport,
        RecordingTransport,
    )


class Unprintable:
    """A value of no use."""


WRONG = [
    ("token", 42, "text"),
    ("token", b"abc", "text"),
    ("token", "abc;def", "letters"),
    ("token", "a b", "letters"),
    ("token", "schlüssel", "letters"),
    ("enabled", "false", "True or False"),
    ("enabled", 1, "True or False"),
    ("enabled", None, "True or False"),
    ("api_host", "api-eu.mixpanel.com", "https://"),
    ("api_host", "ftp://api.mixpanel.com", "https://"),
    ("api_host", "https://", "https://"),
    ("api_host", "http://127.0.0.1:port", "https://"),
    ("api_host", "http://127.0.0.1:99999", "https://"),
    ("api_host", "https://[::1", "https://"),
    ("api_host", "https://api.mixpanel.com?x=1", "query"),
    ("api_host", "https://api mixpanel.com", "https://"),
    ("api_host", "https://api.mixpanel.com/\r\nX: y", "https://"),
    ("api_host", None, "https://"),
    *(
        ("api_host", url, f"Did you mean 'https://{meant}.mixpanel.com'?")
        for url, meant in (
            ("https://api.eu.mixpanel.com", "api-eu"),
            ("https://eu.mixpanel.com", "api-eu"),
            ("https://api-eu.mixpanel.com.", "api-eu"),
            ("https://api-europe.mixpanel.com", "api-eu"),
            ("https://data-in.mixpanel.com", "api-in"),
            ("https://api-us.mixpanel.com", "api"),
            ("https://api-jss.mixpanel.com", "api-js"),
            ("https://mixpanel.com", "api"),
            ("https://MIXPANEL.com/api", "api"),
            ("https://api.mixpanel.com/import", "api"),
            ("https://api.mixpanel.com:8443", "api"),
            ("https://token@api.mixpanel.com", "api"),
            ("api.eu.mixpanel.com/track", "api-eu"),
            ("http://api-in.mixpanel.com", "api-in"),
        )
    ),
    ("client_config", {"api_host": "mp.test:80/a"}, "mean {'api_host': 'https://mp."),
    ("client_config", {"api_host": "//[::1"}, "a URL, or a path"),
    *(
        ("client_config", {"api_host": url}, "a path that begins with '/'")
        for url in ("mp", "./mp", "localhost:8080/mp", "ftp://mp.test", "//", "http:mp")
    ),
    ("client_config", {"api_host": "//eu.mixpanel.com"}, "https://api-eu.mixpanel.com"),
    ("client_config", [], "dict"),
    ("client_config", "{}", "dict"),
    ("client_config", {"a": object()}, "JSON"),
    ("client_config", {"a": float("nan")}, "JSON"),
    ("library_url", "", "URL"),
    ("library_url", 1, "URL"),
    ("strategies", [], "ServerSide"),
    ("strategies", "ServerSide", "list"),
    ("strategies", ["serverside"], "ServerSide"),
    ("strategies", ["ServerSide", "ServerSide"], "once"),
    ("strategies", [["ServerSide"]], "ServerSide"),
    ("strategies", {"ServerSide"}, "list"),
    ("strategies", [Printing, "ServerSide", Printing], "once"),
    ("strategies", [Printing()], "classes derived from Strategy"),
    ("strategies", [Transport], "classes derived from Strategy"),
    ("strategies", [Strategy], "Strategy has no method 'flush'"),
    ("strategies", [ServerSide], "ServerSide is the extension's own"),
    ("transport", "threads", "'thread'"),
    ("transport", "nowhere.transport", "'thread'"),
    ("transport", "test_config.missing", "'thread'"),
    ("transport", "test_config.allow", "'thread'"),
    ("transport", None, "'thread'"),
    ("transport", object, "'thread'"),
    ("transport", ["thread"], "'thread'"),
    ("timeout", "3", "number"),
    ("timeout", True, "number"),
    ("timeout", 0, "number"),
    ("timeout", -1, "number"),
    ("timeout", float("nan"), "number"),
    ("timeout", float("inf"), "number"),
    ("spool", "", "path"),
    ("spool", 1, "path"),
    ("durable", "yes", "True or False"),
    ("default_properties", "Release", "dict"),
    ("default_properties", "nowhere.release", "failed: No module named 'nowhere')"),
    ("default_properties", "test_config.transport", "dict"),
    ("default_properties", [("a", 1)], "dict"),
    ("default_properties", {"Release": object()}, "dict"),
    ("default_properties", {"Release": float("nan")}, "dict"),
    ("consent", True, "callable"),
    ("consent", "nowhere.allow", "callable"),
    ("consent", "allow", "callable"),
    ("consent", "test_config.transport", "callable"),
    ("respect_dnt", 0, "True or False"),
    ("fallback", "no", "True or False"),
    ("max_header", "4096", "bytes"),
    ("max_header", 4096.0, "bytes"),
    ("max_header", -1, "bytes"),
    ("max_header", True, "bytes"),
    ("delayed_max_age", "600", "seconds"),
    ("delayed_max_age", -1, "seconds"),
    ("on_failure", "x", "callable"),
    ("on_failure", 1, "callable"),
    ("shutdown_timeout", None, "seconds"),
    ("id_merge", "simple", "'original'"),
    ("id_merge", ["original"], "'original'"),
    ("anonymize_ip", "False", "True or False"),
    ("bots", True, "'drop'"),
    ("events", True, "'off' or 'warn' or 'raise'"),
    ("events", "error", "'raise'"),
    ("csp_nonce", "abc", "callable"),
    ("ack_timeout", "30", "seconds"),
    ("ack_timeout", -1, "seconds"),
    ("ack_timeout", float("nan"), "seconds"),
    ("ack_timeout", float("inf"), "seconds"),
    ("ack_timeout", None, "seconds"),
    ("acks", True, "redis://"),
    ("acks", "", "redis://"),
    ("acks", "10.0.0.5:6379", "redis://"),
    ("acks", "http://10.0.0.5", "redis://"),
    ("acks", "redis://", "redis://"),
    ("acks", "redis://10.0.0.5:port", "redis://"),
    ("acks", "unix://", "redis://"),
    ("before_send", True, "callable that takes an event"),
    ("before_send", "nowhere.scrub", "dotted path"),
    ("login", "flask-principal", "'flask-login', a Login"),
    ("login", "nowhere.login", "dotted path"),
    ("login", "test_config.allow", "'flask-login', a Login"),
    ("login", True, "'flask-login', a Login"),
    ("login_profile", "profile", "callable that takes a user"),
    ("url_prefix", "", "begins with '/'"),
    ("url_prefix", "/", "begins with '/'"),
    ("url_prefix", "shop", "begins with '/'"),
    ("url_prefix", "/shop/", "doesn't end with it"),
    ("url_prefix", "//shop", "begins with '/'"),
    ("url_prefix", "/a//b", "begins with '/'"),
    ("url_prefix", "/a/../b", "begins with '/'"),
    ("url_prefix", "/.", "begins with '/'"),
    ("url_prefix", "/a b", "letters"),
    ("url_prefix", "/a?b", "letters"),
    ("url_prefix", "/<name>", "letters"),
    ("url_prefix", "/é", "letters"),
    ("url_prefix", "/a\n", "letters"),
    ("url_prefix", "https://shop.test/a", "begins with '/'"),
    ("url_prefix", None, "begins with '/'"),
    ("inspector", "1", "True or False"),
]


@pytest.mark.parametrize(("key", "value", "allowed"), WRONG, ids=case_id)
def test_a_wrong_value_is_an_error_with_key_value_and_what_is_allowed(
    key: str, value: t.Any, allowed: str
) -> None:
    app = Flask("shop")
    app.config["MENGPANEEL_TOKEN"] = "token"
    app.config["MENGPANEEL_SPOOL"] = None
    app.config[f"MENGPANEEL_{key.upper()}"] = value

    with pytest.raises(ValueError) as info:
        Mengpaneel(app)

    message = str(info.value)
    assert f"MENGPANEEL_{key.upper()}" in message
    assert repr(value) in message
    assert allowed in message


@pytest.mark.parametrize(
    "url",
    [
        "redis://10.0.0.5",
        "redis://:secret@10.0.0.5:6379/1",
        "rediss://redis.example.com:6380?ssl_cert_reqs=none",
        "unix:///run/redis.sock?db=1",
    ],
)
def test_acknowledgements_may_be_shared_by_any_redis(url: str) -> None:
    assert read(acks=url).acks == url


def test_acknowledgements_need_the_package_that_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    with pytest.raises(ValueError, match=r"pip install 'flask-mengpaneel\[redis\]'"):
        read(acks="redis://10.0.0.5")


def test_an_unknown_key_is_an_error_that_names_the_one_that_was_meant() -> None:
    with pytest.raises(ValueError, match="MENGPANEEL_TOKN.*MENGPANEEL_TOKEN"):
        read(tokn="abc")


@pytest.mark.parametrize(
    "prefix", ["MENGPANEL", "MENGPANNEL", "MENPANEEL", "MANGPANEEL"]
)
def test_a_key_with_a_misspelt_prefix_is_an_error(prefix: str) -> None:
    app = Flask("shop")
    app.config[f"{prefix}_DURABLE"] = True

    with pytest.raises(ValueError, match="mean MENGPANEEL_DURABLE"):
        Config.from_app(app, {})


def test_an_unknown_constructor_argument_is_an_error() -> None:
    with pytest.raises(ValueError, match="MENGPANEEL_CONSNT.*MENGPANEEL_CONSENT"):
        read({"consnt": allow})


def test_constructor_arguments_win_over_the_config() -> None:
    assert read({"token": "other", "consent": allow}).token == "other"


def test_other_keys_of_the_app_are_none_of_ours() -> None:
    app = Flask("shop")
    app.config.update(MENGPANEEL_TOKEN="token", MIXPANEL_TOKEN="x", mengpaneel_x=1)
    app.config.update(PANEL_TOKEN="x", MIXPANEEL_TOKEN="x", X=1)
    assert Config.from_app(app, {}).token == "token"


def test_after_a_wrong_value_init_app_can_be_called_again() -> None:
    app = Flask("shop")
    app.config.update(MENGPANEEL_TOKEN=1, MENGPANEEL_SPOOL=None)
    mengpaneel = Mengpaneel()

    with pytest.raises(ValueError):
        mengpaneel.init_app(app)

    app.config["MENGPANEEL_TOKEN"] = "token"
    mengpaneel.init_app(app)
    assert "mengpaneel" in app.extensions


@pytest.mark.parametrize("token", [None, "", " "])
def test_without_a_token_there_is_one_warning(token: str | None) -> None:
    app = Flask("shop")
    app.config.update(MENGPANEEL_TOKEN=token, MENGPANEEL_SPOOL=None)

    with pytest.warns(UserWarning, match="MENGPANEEL_TOKEN is not set") as caught:
        Mengpaneel(app)

    assert len(caught) == 1
    assert not app.extensions["mengpaneel"].config.active


def test_the_warning_points_to_the_call_of_init_app() -> None:
    app = Flask("shop")
    app.config["MENGPANEEL_SPOOL"] = None

    with pytest.warns(UserWarning) as caught:
        Mengpaneel().init_app(app)

    assert [pathlib.Path(one.filename).name for one in caught] == ["test_config.py"]

    with pytest.warns(UserWarning) as caught:
        Mengpaneel(Flask("other"), spool=None)

    assert [pathlib.Path(one.filename).name for one in caught] == ["test_config.py"]


def test_what_is_disabled_needs_no_token_and_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not read(token=None, enabled=False).active


def test_what_is_disabled_is_checked_all_the_same() -> None:
    with pytest.raises(ValueError, match="MENGPANEEL_TIMEOUT"):
        read(enabled=False, timeout="3")


def test_settings_are_read_once() -> None:
    app = Flask("shop")
    app.config.update(MENGPANEEL_TOKEN="token", MENGPANEEL_SPOOL=None)
    Mengpaneel(app)
    app.config["MENGPANEEL_TOKEN"] = "other"

    assert app.extensions["mengpaneel"].config.token == "token"


def test_the_client_config_is_a_copy() -> None:
    given = {"api_hosts": {"events": "https://a.test"}}
    config = read(client_config=given)
    given["api_hosts"]["events"] = "https://b.test"

    assert config.client_config == {"api_hosts": {"events": "https://a.test"}}


@pytest.mark.parametrize("variable", SERVERLESS)
def test_serverless_platforms_are_recognised(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in SERVERLESS:
        monkeypatch.delenv(name, raising=False)

    assert not read().serverless
    monkeypatch.setenv(variable, "1")
    assert read().serverless


def test_the_names_of_the_library_s_cookies() -> None:
    assert read().cookie_name == "mp_token_mixpanel"
    assert read(client_config={"persistence_name": "me"}).cookie_name == "mp_me"
    assert read().opt_cookie_name == "__mp_opt_in_out_token"
    assert (
        read(client_config={"opt_out_tracking_cookie_prefix": "p_"}).opt_cookie_name
        == "p_token"
    )


def test_the_page_keeps_an_opt_out_where_the_server_sees_it() -> None:
    options = read(client_config={"debug": True}).init_options
    assert options == {"debug": True, "opt_out_tracking_persistence_type": "cookie"}


@pytest.mark.parametrize(
    "host", ["https://api-eu.mixpanel.com", "https://api-in.mixpanel.com"]
)
def test_browsers_send_to_the_region_of_the_server(host: str) -> None:
    assert read(api_host=host).init_options["api_host"] == host
    assert read(api_host=f"{host}:443/").init_options["api_host"] == f"{host}:443"


@pytest.mark.parametrize(
    "host",
    [
        "https://api.mixpanel.com",
        "https://proxy.test/mixpanel",
        "https://api-eu.mixpanel.com.test",
        "http://127.0.0.1:5001",
    ],
)
def test_of_other_hosts_browsers_are_told_nothing(host: str) -> None:
    assert "api_host" not in read(api_host=host).init_options


def test_a_client_config_with_a_host_of_its_own_wins_over_the_region() -> None:
    options = read(
        api_host="https://api-eu.mixpanel.com", client_config={"api_host": "/events"}
    ).init_options

    assert options["api_host"] == "/events"


@pytest.mark.parametrize(
    "client_config",
    [
        {},
        {"api_host": "https://api-eu.mixpanel.com"},
        {"api_host": "/events"},
        {"api_hosts": {"people": "https://api-eu.mixpanel.com"}},
    ],
)
def test_with_the_inspector_browsers_send_to_it_wherever_else_they_would(
    client_config: dict[str, t.Any],
) -> None:
    options = read(
        api_host="https://api-eu.mixpanel.com",
        client_config=client_config,
        inspector=True,
    ).init_options

    assert options["api_host"] == "/_mengpaneel/inspector"
    assert "api_hosts" not in options


@pytest.mark.parametrize(
    ("settings", "ignores"),
    [
        ({}, False),
        ({"respect_dnt": True}, False),
        ({"respect_dnt": False}, True),
        ({"consent": lambda: True}, True),
        ({"consent": lambda: True, "respect_dnt": False}, True),
        ({"respect_dnt": False, "client_config": {"ignore_dnt": False}}, False),
    ],
)
def test_browsers_ask_for_no_second_consent(
    settings: dict[str, t.Any], ignores: bool
) -> None:
    assert bool(read(**settings).init_options.get("ignore_dnt")) is ignores


def test_the_app_s_own_client_config_wins() -> None:
    given = {"opt_out_tracking_persistence_type": "localStorage"}
    assert read(client_config=given).init_options == given
