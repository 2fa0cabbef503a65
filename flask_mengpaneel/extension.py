"""The extension, and its place in an app."""

from __future__ import annotations

import collections.abc as c
import typing as t
import warnings
import weakref
from pathlib import Path

from flask import (
    Blueprint,
    Flask,
    Request,
    Response,
    current_app,
    request,
    send_from_directory,
)

from . import guard, mistakes, process, signals
from .choose import hooks
from .choose.acknowledging import AcknowledgingEndpoint
from .choose.app_state import AppState
from .choose.chain import Chain
from .choose.flusher import Flusher
from .choose.hand_back import HandBackEndpoint
from .choose.handing_over import HandingOver
from .choose.held_calls import HeldCalls
from .choose.late_calls import LateCalls
from .choose.script import SCRIPT, static_folder, version
from .choose.sharing import Sharing
from .choose.sign_in import SignIn
from .choose.signing import Signer
from .choose.strategies import make_strategies
from .choose.uncommitted import Uncommitted
from .choose.unrecorded import Reporter
from .config import NEUTRAL_MODULE, NEUTRAL_SCRIPT, Config, Settings, StrategyName
from .deliver.assembly import (
    celery_of,
    make_delivery,
    make_hand_overs,
    make_transport,
)
from .deliver.inline import InlineTransport
from .deliver.ledger import Ledger
from .proxies import current_request
from .record.context import current_manager, request_state
from .record.current_app import current_app_state
from .record.recorder import Recorder
from .record.running_views import RunningViews
from .setting_checks import InvalidSetting, WrongSetting
from .strategy import Strategy
from .visitor.portable import PortableVisitor

if t.TYPE_CHECKING:
    from .inspector.app import Inspector


#: The scripts that acknowledge what a page was given.
_ACKNOWLEDGING_SCRIPTS = frozenset({"mengpaneel.js", "mengpaneel.mjs"})


class Mengpaneel(Recorder):
    """Calls Mixpanel from views, in the words of its browser library.

    ::

        mengpaneel = Mengpaneel()

        def create_app():
            app = Flask(__name__)
            app.config["MENGPANEEL_TOKEN"] = "..."
            mengpaneel.init_app(app)
            return app

        @app.post("/orders")
        def place_order():
            mengpaneel.track("Place Order", {"Items": 3})
            return redirect(url_for("thanks"))

    The calls of a request go the best way that its response offers: with the page, in
    a header, over a redirect to the next page, or from the server.

    :param app: call :meth:`init_app` with it.
    :param settings: settings in lower case and without their prefix, such as
        ``consent=``; they win over ``app.config``.
    """

    __slots__ = ("__weakref__", "_apps", "_settings")

    def __init__(
        self, app: Flask | None = None, **settings: t.Unpack[Settings]
    ) -> None:
        self._settings = settings
        self._apps: weakref.WeakSet[Flask] = weakref.WeakSet()

        if app is not None:
            self._init_app(app)

    def init_app(self, app: Flask) -> None:
        """Read the ``MENGPANEEL_`` settings of an app and take part in its requests.

        Settings are read once, now. The calls of functions that are registered with
        ``after_request`` before this are sent from the server; Flask runs them last.

        :raises ValueError: a setting is wrong or unknown.
        :raises RuntimeError: the app has a Mengpaneel already.
        """
        self._init_app(app)

    def _init_app(self, app: Flask) -> None:
        # Called by both, and not one by the other: `_warn` counts the calls between.
        if "mengpaneel" in app.extensions:
            raise RuntimeError(
                "This app has a Mengpaneel already. Import and use that one instead of"
                " calling 'init_app' again."
            )

        config = Config.from_app(app, self._settings)
        _refuse_taken_paths(app, config)
        _warn(app, config)
        inspector = _make_inspector(app, config)
        state = app.extensions["mengpaneel"] = _make_state(app, config, inspector)
        app.register_blueprint(_make_blueprint(app, state))

        if inspector is not None:
            app.register_blueprint(inspector.blueprint)
            state.delivery.news.listener = inspector.on_hand_over
            signals.dropped.connect(inspector.on_dropped, app)

        if config.active:
            process.end_in_order()

        if config.celery_visitor:
            from .record.task_visitor import take_along

            take_along(app, config)

        hooks.register(app, state.flusher, state.serve_first, state.sign_in, config)
        self._apps.add(app)

    # A method of one's own that calls it would take a call longer.
    _manager = staticmethod(current_manager)  # pyright: ignore[reportAssignmentType]

    @property
    def strategy(self) -> str | None:
        """Insist on a strategy for this request only, by its name or its class.

        It is asked first; if it declines, the calls are sent from the server.

        :raises ValueError: there is no such strategy.
        """
        return current_manager().strategy

    @strategy.setter
    def strategy(self, strategy: StrategyName | type[Strategy] | None) -> None:
        current_manager().strategy = strategy

    @property
    def visitor(self) -> PortableVisitor:
        """Who the visitor of this request is, to be taken elsewhere: see
        :class:`~flask_mengpaneel.Manager`.

        :raises RuntimeError: this is neither a request nor a ``with Manager():`` block.
        """
        return current_manager().take_visitor()

    @property
    def ack_timeout(self) -> float:
        """Seconds that the client of this request has to acknowledge what it is given:
        then the server sends it. With 0 the client is believed.

        ``MENGPANEEL_ACK_TIMEOUT``, unless the view sets something else.

        :raises RuntimeError: this is no request.
        :raises ValueError: it is set to a negative number, or to an infinite one.
        """
        asked = request_state(current_request()).ack_timeout
        return self._state().config.ack_timeout if asked is None else asked

    @ack_timeout.setter
    def ack_timeout(self, seconds: float) -> None:
        # `not` and not `<`: NaN is refused as well.
        if not 0 <= seconds < float("inf"):
            raise ValueError(
                f"ack_timeout is {seconds!r}; it must be 0 or more seconds"
            )

        request_state(current_request()).ack_timeout = float(seconds)

    def drain(self, timeout: float = 5.0) -> bool:
        """Wait until the background transport of this process has nothing left to send.

        :param timeout: seconds to wait at most.
        :return: whether nothing is left.
        """
        background = self._state().background
        return background is None or background.flush(timeout)

    def flush(self, timeout: float = 5.0) -> bool:
        """Do what :meth:`drain` does, under the name that it has in other analytics
        libraries."""
        return self.drain(timeout)

    def ledger(self) -> Ledger:
        """How many records this process has recorded, delivered, still waiting, and
        dropped by reason.

        One tracked event, one profile or group operation is one record.
        """
        return self._state().ledger

    def _state(self) -> AppState:
        if not current_app and len(self._apps) == 1:
            (app,) = self._apps
            return t.cast(AppState, app.extensions["mengpaneel"])

        return t.cast(AppState, current_app_state())


def _refuse_taken_paths(app: Flask, config: Config) -> None:
    for rule in app.url_map.iter_rules():
        if f"{rule.rule}/".startswith(config.own_paths):
            allowed = f"a path below which the app has nothing, as {rule.rule!r}"
            raise WrongSetting.of(
                "MENGPANEEL_URL_PREFIX", config.url_prefix, InvalidSetting(allowed)
            )


def _warn(app: Flask, config: Config) -> None:
    """Say what is wrong with the settings to the one who starts the app."""
    for finding in mistakes.of_settings(app, config):
        if finding.level is not mistakes.Level.NOTE:
            # It names the line that calls the constructor or `init_app`.
            warnings.warn(finding.advice, stacklevel=4)


def _make_state(app: Flask, config: Config, inspector: Inspector | None) -> AppState:
    """Make the parts of an app, each of those that it needs."""
    ledger = Ledger()
    delivery = make_delivery(
        app, config, ledger, post=inspector.post if inspector else None
    )
    reporter = Reporter(app, config, ledger)
    delivery.on_drop = reporter.drop
    background = make_transport(config, delivery, celery_of(app))
    inline = InlineTransport(delivery)
    signer = Signer(app, config.token)
    hand_overs = make_hand_overs(config, delivery, background)
    handing_over = HandingOver(config, ledger, hand_overs, signer)
    strategies = make_strategies(
        config,
        signer if config.fallback else None,
        handing_over,
        background,
        inline,
        ledger,
    )
    chain = Chain(app, ledger, strategies, config.strategy_names)
    held_calls = HeldCalls(config, ledger, reporter)
    late_calls = LateCalls(config, chain, handing_over, delivery.made_once, held_calls)
    sharing = Sharing(config, handing_over, late_calls)
    flusher = Flusher(app, config, chain, handing_over, late_calls, sharing, held_calls)
    running_views = RunningViews(background is not None, config.shutdown_timeout)
    sign_in = None

    if config.login is not None and config.active:
        sign_in = SignIn(config, config.login, boots=flusher.boots)
        sign_in.connect(app)

    return AppState(
        config=config,
        ledger=ledger,
        delivery=delivery,
        background=background,
        inline=inline,
        signer=signer,
        hand_overs=hand_overs,
        handing_over=handing_over,
        chain=chain,
        flusher=flusher,
        uncommitted=Uncommitted(app, config, ledger, flusher, running_views),
        running_views=running_views,
        sign_in=sign_in,
        reporter=reporter,
    )


def _make_inspector(app: Flask, config: Config) -> Inspector | None:
    if not config.inspector:
        return None

    from .inspector.app import Inspector

    return Inspector(config, Path(app.instance_path) / "mengpaneel-inspector.sqlite3")


def _make_blueprint(app: Flask, state: AppState) -> Blueprint:
    """Make the place of the extension's files, and of what browsers hand back and
    acknowledge."""
    config = state.config
    blueprint = Blueprint("mengpaneel", __name__, url_prefix=config.url_prefix)
    options = _host_options(app, blueprint)

    for host in options:
        # The first of both is what `url_for` gives for the script.
        blueprint.add_url_rule(f"/{config.script_path}", "script", _script, **host)
        blueprint.add_url_rule("/static/<path:filename>", "static", _static, **host)

        if config.script_path == NEUTRAL_SCRIPT:
            blueprint.add_url_rule(f"/{NEUTRAL_MODULE}", "module", _module, **host)

    if config.active and config.fallback:
        hand_back = HandBackEndpoint(
            config, state.flusher, state.signer, state.handing_over
        )
        _add_endpoint(blueprint, "calls", hand_back.answer, options)

    if guard.is_up():
        guard.add_stand_in(blueprint, options)

    if state.hand_overs is not None:
        acknowledging = AcknowledgingEndpoint(state.hand_overs, state.signer)
        acknowledging.stand_in_front_of(app, f"{config.url_prefix}/acks")
        _add_endpoint(blueprint, "acks", acknowledging.answer, options)

    return blueprint


def _add_endpoint(
    blueprint: Blueprint,
    name: str,
    answer: c.Callable[[Request], Response],
    options: list[dict[str, t.Any]],
) -> None:
    def view() -> Response:
        # Not the proxy, which looks for it at each use.
        return answer(current_request())

    for host in options:
        blueprint.add_url_rule(f"/{name}", name, view, methods=["POST"], **host)


def _host_options(app: Flask, blueprint: Blueprint) -> list[dict[str, t.Any]]:
    """Return the options of rules for the hosts of the app: a page asks the one that it
    is from."""
    if not app.url_map.host_matching and not app.subdomain_matching:
        return [{}]

    blueprint.url_value_preprocessor(
        lambda _, values: (values or {}).pop("mengpaneel_host", None)
    )

    if not app.url_map.host_matching:
        return [{}, {"subdomain": "<mengpaneel_host>"}]

    blueprint.url_defaults(
        lambda _, values: values.setdefault("mengpaneel_host", request.host)
    )
    return [{"host": "<mengpaneel_host>"}]


def _script() -> Response:
    return _static(SCRIPT)


def _module() -> Response:
    """Return the script as a module, which imports it by its neutral name."""
    path = static_folder() / SCRIPT.replace(".js", ".mjs")
    text = path.read_text().replace(f"./{SCRIPT}", f"./{NEUTRAL_SCRIPT}")
    return Response(text, content_type="text/javascript; charset=utf-8")


def _static(filename: str) -> Response:
    named, max_age = request.args.get("v"), None

    if filename in _ACKNOWLEDGING_SCRIPTS:
        hand_overs = t.cast(AppState, current_app_state()).hand_overs

        if hand_overs is not None:
            hand_overs.silence.script_was_served = True

    # Pages name the script by its hash. While processes are replaced, one of the old
    # version may be asked for the new one's, and must not be believed for a year.
    if named is not None and not current_app.debug:
        max_age = 31_536_000 if named == version(filename) else 0

    response = send_from_directory(static_folder(), filename, max_age=max_age)

    if filename == SCRIPT:
        # For a browser's developer tools: beside the script, or below it.
        folder = "" if request.path.endswith(SCRIPT) else "static/"
        response.headers["SourceMap"] = f"{folder}{SCRIPT}.map"

    return response
