"""Every ``MENGPANEEL_`` key: its default, its check and its error."""

from __future__ import annotations

import collections.abc as c
import dataclasses
import functools
import inspect
import os
import typing as t
from pathlib import Path

from . import hosts
from . import setting_checks as check
from .setting_checks import Check, InvalidSetting, WrongSetting
from .strategy import Strategy
from .transport import Transport

if t.TYPE_CHECKING:
    from flask import Flask

    from .calls import Json
    from .event import TrackedEvent
    from .login import Login

#: Where the extension's own files and pages are, unless the app says otherwise.
PREFIX = "/_mengpaneel"
INSPECTOR_PREFIX = f"{PREFIX}/inspector"

#: The script's names below a prefix of the app's own.
NEUTRAL_SCRIPT = "app.js"
NEUTRAL_MODULE = "app.mjs"

#: The names of the strategies, in the order in which they are asked.
StrategyName: t.TypeAlias = t.Literal[
    "Delayed",
    "ClientSide",
    "CapableClientSide",
    "AsyncServerSide",
    "ServerSide",
]
STRATEGIES: tuple[StrategyName, ...] = t.get_args(StrategyName)
# Those whose classes say that the client makes the calls.
_CLIENT_STRATEGIES = frozenset({"Delayed", "ClientSide", "CapableClientSide"})
TRANSPORTS = ("thread", "inline", "celery")

#: Seconds that the operations of a visitor wait for somebody to be identified.
MAX_OPERATION_AGE = 86_400.0

# The variables by which the platforms say that a process is frozen or ended as
# soon as its response has left:
# https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html
# https://vercel.com/docs/environment-variables/system-environment-variables
# https://cloud.google.com/run/docs/container-contract#env-vars
SERVERLESS = ("AWS_LAMBDA_FUNCTION_NAME", "VERCEL", "K_SERVICE", "FUNCTION_TARGET")


class Unset:
    """The default of a key that depends on where the app runs."""

    def __repr__(self) -> str:
        return "unset"


UNSET = Unset()


class Settings(t.TypedDict, total=False):
    """The values that may be given for the fields of :class:`Config`.

    A text is also what it is the dotted path of, where a callable or a transport is
    allowed.
    """

    token: str | None
    enabled: bool
    api_host: str
    client_config: c.Mapping[str, t.Any]
    library_url: str | None
    strategies: c.Sequence[StrategyName | type[Strategy]]
    transport: (
        Transport | type[Transport] | t.Literal["thread", "inline", "celery"] | str
    )
    timeout: float
    spool: str | os.PathLike[str] | None
    durable: bool
    default_properties: (
        c.Mapping[str, t.Any] | c.Callable[[], c.Mapping[str, t.Any]] | str | None
    )
    consent: c.Callable[[], bool | None] | str | None
    respect_dnt: bool
    fallback: bool
    max_header: int
    delayed_max_age: float
    on_failure: c.Callable[[dict[str, t.Any], str], t.Any] | str | None
    shutdown_timeout: float
    id_merge: t.Literal["simplified", "original"]
    anonymize_ip: bool
    bots: t.Literal["send", "drop"]
    csp_nonce: c.Callable[[], str | None] | str | None
    ack_timeout: float
    visitor: c.Callable[[], object] | str | None
    celery_visitor: bool
    acks: str | None
    before_send: c.Callable[[TrackedEvent], TrackedEvent | None] | str | None
    events: t.Literal["off", "warn", "raise"]
    login: Login | t.Literal["flask-login"] | str | None
    login_profile: c.Callable[[t.Any], c.Mapping[str, t.Any] | None] | str | None
    url_prefix: str
    inspector: bool


@dataclasses.dataclass(frozen=True)
class Config:
    """The settings of one app, read once and checked.

    Each field is the key of the same name: ``max_header`` is
    ``MENGPANEEL_MAX_HEADER``.
    """

    token: str | None = None
    enabled: bool = True
    api_host: str = "https://api.mixpanel.com"
    client_config: c.Mapping[str, Json] = dataclasses.field(default_factory=dict)
    library_url: str | None = "https://cdn.mxpnl.com/libs/mixpanel-2-latest.min.js"
    strategies: tuple[StrategyName | type[Strategy], ...] = STRATEGIES
    transport: t.Any = UNSET
    timeout: float = 3.0
    spool: Path | Unset | None = UNSET
    durable: bool = False
    default_properties: c.Mapping[str, t.Any] | c.Callable[[], t.Any] | None = None
    consent: c.Callable[[], bool | None] | None = None
    respect_dnt: bool = True
    fallback: bool = True
    max_header: int = 2048
    delayed_max_age: float = 600.0
    on_failure: c.Callable[[dict[str, t.Any], str], t.Any] | None = None
    shutdown_timeout: float = 2.0
    id_merge: str = "simplified"
    anonymize_ip: bool = False
    bots: str = "send"
    csp_nonce: c.Callable[[], str | None] | None = None
    ack_timeout: float = 30.0
    visitor: c.Callable[[], object] | None = None
    celery_visitor: bool = False
    acks: str | None = None
    before_send: c.Callable[[TrackedEvent], TrackedEvent | None] | None = None
    events: str = "off"
    login: Login | None = None
    login_profile: c.Callable[[t.Any], t.Any] | None = None
    url_prefix: str = PREFIX
    inspector: bool = False

    @functools.cached_property
    def active(self) -> bool:
        """Whether calls go anywhere at all."""
        return self.enabled and self.token is not None

    @functools.cached_property
    def examines_events(self) -> bool:
        """Whether an event is looked at before it is kept."""
        return self.before_send is not None or self.events != "off"

    @functools.cached_property
    def own_paths(self) -> str:
        """What the path of each request for the extension itself begins with."""
        return f"{self.url_prefix}/"

    @functools.cached_property
    def script_path(self) -> str:
        """Where the script is, below the prefix: under a name that tells nothing, if
        the app's own prefix does."""
        return "static/mengpaneel.js" if self.url_prefix == PREFIX else NEUTRAL_SCRIPT

    @functools.cached_property
    def strategy_names(self) -> tuple[str, ...]:
        """The names of the strategies that are asked, in their order."""
        return tuple(map(_name, self.strategies))

    @functools.cached_property
    def gives_to_browsers(self) -> bool:
        """Whether a strategy of the extension's gives calls to browsers, and keeps
        copies: one of the app's own keeps none."""
        return not _CLIENT_STRATEGIES.isdisjoint(self.strategies)

    def named_strategy(self, strategy: str | type[Strategy]) -> str:
        """Return the name of a strategy that a unit of work may insist on: any of the
        extension's, and those of the app's own that are in its setting.

        :raises ValueError: there is no such strategy.
        """
        name = _name(strategy)
        known = (*STRATEGIES, *self.strategy_names)

        if name not in known:
            there_are = ", ".join(dict.fromkeys(known))
            raise ValueError(f"There is no strategy {name!r}; there are {there_are}.")

        return name

    @functools.cached_property
    def consent_varies(self) -> bool:
        """Whether one visitor may be tracked where another may not."""
        return self.consent is not None or self.respect_dnt

    @property
    def init_options(self) -> dict[str, Json]:
        """The options that the page gives to the browser library's ``init``."""
        # Where the server can see it: by default it is in localStorage.
        options: dict[str, Json] = {"opt_out_tracking_persistence_type": "cookie"}
        options |= self.client_config

        # The library would look at the browser's signal by itself. A page has it only
        # where there is consent, which a callable has given in spite of the signal.
        if self.consent is not None or not self.respect_dnt:
            options.setdefault("ignore_dnt", True)

        if self.inspector:
            # Also in the place of hosts that the app has for Mixpanel itself.
            options["api_host"] = f"{self.url_prefix}/inspector"
            options.pop("api_hosts", None)
        elif hosts.is_regional(self.api_host):
            options.setdefault("api_host", self.api_host)

        return options

    @functools.cached_property
    def cookie_name(self) -> str:
        """The name of the cookie in which the browser library keeps the visitor.

        From ``persistence_name`` in :data:`MENGPANEEL_CLIENT_CONFIG` if it is
        there, else the token (mixpanel-persistence.js of mixpanel-browser 2.83.0).
        """
        name = self.client_config.get("persistence_name")
        return f"mp_{name}" if name else f"mp_{self.token}_mixpanel"

    @functools.cached_property
    def shown_cookie_name(self) -> str:
        """The name of the cookie in which the script shows what the library knows,
        where that isn't in a cookie of the library's own."""
        return f"mp_{self.token}_mengpaneel"

    @functools.cached_property
    def session_key(self) -> str:
        """Where in the session calls wait: the apps of one site may share a session,
        and track for different projects."""
        return f"_mengpaneel_{(self.token or '')[:8]}"

    @functools.cached_property
    def opt_cookie_name(self) -> str:
        """The name of the cookie in which the library keeps a visitor's opt-out."""
        prefix = self.client_config.get("opt_out_tracking_cookie_prefix")
        return f"{prefix or '__mp_opt_in_out_'}{self.token}"

    @functools.cached_property
    def cookie_persistence(self) -> bool:
        """Whether the browser library keeps the visitor in a cookie, as far as the app
        says."""
        return self.persistence == "cookie" and not self.forgets_with_page

    @functools.cached_property
    def persistence(self) -> str:
        """Where the browser library keeps the visitor: in a cookie, if it doesn't know
        what it is told."""
        told = self.client_config.get("persistence")
        return "localStorage" if told == "localStorage" else "cookie"

    @functools.cached_property
    def forgets_with_page(self) -> bool:
        """Whether the browser library remembers nothing beyond the page."""
        return bool(self.client_config.get("disable_persistence"))

    @classmethod
    def from_app(cls, app: Flask, overrides: c.Mapping[str, object]) -> Config:
        """Read and check the ``MENGPANEEL_`` keys of an app.

        :param overrides: constructor arguments of the extension; they win.
        :raises ValueError: a wrong value or an unknown key; the message names the
            key, the value and what is allowed.
        """
        given = {key: value for key, value in app.config.items() if check.is_ours(key)}
        given |= {
            f"MENGPANEEL_{key.upper()}": value for key, value in overrides.items()
        }
        values: dict[str, t.Any] = {}

        for key, value in given.items():
            field = key.partition("_")[2].lower()

            if key not in KEYS:
                raise WrongSetting.unknown(key, field, _CHECKS)

            try:
                values[field] = _CHECKS[field](value)
            except InvalidSetting as error:
                raise WrongSetting.of(key, value, error) from None

        return cls(**values)

    @property
    def serverless(self) -> bool:
        """Whether this process may be frozen once the response has left."""
        return any(os.environ.get(name) for name in SERVERLESS)


def _strategies(value: t.Any) -> tuple[StrategyName | type[Strategy], ...]:
    allowed = (
        f"a list of some of {', '.join(STRATEGIES)} and of classes derived from"
        " Strategy, each once"
    )

    if not isinstance(value, list | tuple) or not value:
        raise InvalidSetting(allowed)

    for one in value:
        if isinstance(one, type) and issubclass(one, Strategy):
            _check_own(one, allowed)
        elif not isinstance(one, str) or one not in STRATEGIES:
            raise InvalidSetting(allowed)

    if len(set(map(_name, value))) != len(value):
        raise InvalidSetting(allowed)

    return tuple(value)


def _check_own(strategy: type[Strategy], allowed: str) -> None:
    if strategy.name in STRATEGIES:
        raise InvalidSetting(f"{allowed}; {strategy.name} is the extension's own")

    if inspect.isabstract(strategy):
        raise InvalidSetting(f"{allowed}; {strategy.__name__} has no method 'flush'")


def _name(strategy: t.Any) -> str:
    return str(getattr(strategy, "name", strategy))


def _transport(value: t.Any) -> t.Any:
    allowed = "'thread', 'inline', 'celery', a Transport or its dotted path"

    if isinstance(value, str) and value not in TRANSPORTS:
        if "." not in value and ":" not in value:
            raise InvalidSetting(allowed)

        value = check.imported(value, allowed)

    if isinstance(value, type) and issubclass(value, Transport):
        value = value()

    if value not in TRANSPORTS and not isinstance(value, Transport):
        raise InvalidSetting(allowed)

    return value


_CHECKS: dict[str, Check] = {
    "token": check.token,
    "enabled": check.boolean,
    "api_host": check.host,
    "client_config": check.client_config,
    "library_url": check.library_url,
    "strategies": _strategies,
    "transport": _transport,
    "timeout": check.number(0.001, "seconds"),
    "spool": check.spool,
    "durable": check.boolean,
    "default_properties": check.default_properties,
    "consent": check.callable_or_path("a callable without arguments"),
    "respect_dnt": check.boolean,
    "fallback": check.boolean,
    "max_header": check.byte_count,
    "delayed_max_age": check.number(0, "seconds"),
    "on_failure": check.callable_or_path("a callable that takes a record and a reason"),
    "shutdown_timeout": check.number(0, "seconds"),
    "id_merge": check.choice("simplified", "original"),
    "anonymize_ip": check.boolean,
    "bots": check.choice("send", "drop"),
    "csp_nonce": check.callable_or_path("a callable without arguments"),
    "ack_timeout": check.number(0, "seconds"),
    "visitor": check.callable_or_path("a callable without arguments"),
    "celery_visitor": check.boolean,
    "acks": check.acks,
    "before_send": check.callable_or_path("a callable that takes an event"),
    "events": check.choice("off", "warn", "raise"),
    "login": check.login,
    "login_profile": check.callable_or_path("a callable that takes a user"),
    "url_prefix": check.url_prefix,
    "inspector": check.boolean,
}

#: The keys of ``app.config`` that are read.
KEYS = tuple(f"MENGPANEEL_{name.upper()}" for name in _CHECKS)
