"""The extension: its place in an app, and the two hooks of a request."""

from __future__ import annotations

import collections.abc as c
import typing as t
import warnings
import weakref
from pathlib import Path

from flask import (
    Blueprint,
    Flask,
    Response,
    current_app,
    request,
    send_from_directory,
)

from . import process
from .choose.flusher import Flusher
from .choose.handover import Fallback, Signer
from .choose.injection import static_folder, version
from .config import PREFIX, Config, Settings, StrategyName
from .deliver.inline import InlineTransport
from .deliver.ledger import Ledger
from .deliver.setup import celery_of, make_delivery, make_transport
from .record.context import current_manager, request_state
from .record.manager import Manager, current_app_state
from .record.proxies import active_request, current_g, current_request
from .record.recorder import Recorder
from .visitor.client import PAGE_DESTINATIONS

if t.TYPE_CHECKING:
    from .inspector.app import Inspector


Teardown = c.Callable[[BaseException | None], None]


class _Last(list[t.Any]):
    """Functions, the last of which stays the last: Flask calls that one first."""

    def append(self, function: t.Any) -> None:
        """Add a function before the last."""
        self.insert(-1, function)


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
        if "mengpaneel" in app.extensions:
            raise RuntimeError(
                "This app has a Mengpaneel already. Import and use that one instead of"
                " calling 'init_app' again."
            )

        config = Config.from_app(app, self._settings)

        if config.enabled and config.token is None:
            warnings.warn(
                "MENGPANEEL_TOKEN is not set: nothing will be tracked. Set it to your"
                " project's token, or MENGPANEEL_ENABLED to False.",
                stacklevel=3,
            )

        inspector = _inspector(app, config)
        flusher = app.extensions["mengpaneel"] = _flusher(app, config, inspector)
        app.register_blueprint(_blueprint(app, flusher if config.active else None))

        if inspector is not None:
            app.register_blueprint(inspector.blueprint)

        after_request, teardown_request, teardown_appcontext = _hooks(flusher)

        if config.active:
            process.end_in_order()
            app.after_request(after_request)

        # As if it was registered first, since Flask calls the last one first: the
        # others may track as well.
        app.teardown_request_funcs.setdefault(None, []).insert(0, teardown_request)
        # If one of them raises, the others aren't called, ours neither; but these are.
        app.teardown_appcontext_funcs = _Last(
            [*app.teardown_appcontext_funcs, teardown_appcontext]
        )
        self._apps.add(app)

    # A method of one's own that calls it would take a call longer.
    _manager = staticmethod(current_manager)  # pyright: ignore[reportAssignmentType]

    @property
    def strategy(self) -> StrategyName | None:
        """Insist on a strategy, by name, for this request only.

        It is asked first; if it declines, the calls are sent from the server.

        :raises ValueError: there is no such strategy.
        """
        return current_manager().strategy

    @strategy.setter
    def strategy(self, name: StrategyName | None) -> None:
        current_manager().strategy = name

    def drain(self, timeout: float = 5.0) -> bool:
        """Wait until the background transport of this process has nothing left to send.

        :param timeout: seconds to wait at most.
        :return: whether nothing is left.
        """
        background = self._flusher().background
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
        return self._flusher().ledger

    def _flusher(self) -> Flusher:
        if not current_app and len(self._apps) == 1:
            (app,) = self._apps
            return t.cast(Flusher, app.extensions["mengpaneel"])

        return t.cast(Flusher, current_app_state())


def _hooks(
    flusher: Flusher,
) -> tuple[c.Callable[[Response], Response], Teardown, Teardown]:
    """What Flask calls when a request ends: for most, this is all that happens.

    Plain functions, since Flask looks into what it calls each time.
    """
    boots, has_looked = flusher.boots, False

    def after_request(response: Response) -> Response:
        nonlocal has_looked
        request = current_request()
        environ, state = request.environ, request_state(request)
        manager = state.manager
        state.is_answered = True

        if manager is not None:
            manager.close()

        if not has_looked:
            has_looked = True
            flusher.resume_spooled()

        # Else there are no calls, nothing can wait for it, and it is no page.
        if (
            manager is not None
            or "HTTP_COOKIE" in environ
            or "HTTP_X_MENGPANEEL_FLUSH_CAPABLE" in environ
            or (
                boots
                and environ.get("HTTP_SEC_FETCH_DEST", "document") in PAGE_DESTINATIONS
            )
        ):
            try:
                return flusher.respond(manager, request, response)
            except Exception as error:
                flusher.give_up(manager, error)

        return response

    def teardown_request(_error: BaseException | None) -> None:
        on_g = current_g().__dict__
        manager: Manager | None = on_g.get("_mengpaneel")

        if "_mengpaneel_held" in on_g:
            request = current_request()
            flusher.send_unheld(
                on_g.pop("_mengpaneel_held"), request, request_state(request).manager
            )

        # It isn't there any more if the response was made, unless something was
        # tracked after it.
        if manager is not None and manager.request is active_request():
            manager.close()

            if manager.calls:
                flusher.flush_late(manager)

    def teardown_appcontext(_error: BaseException | None) -> None:
        on_g = current_g().__dict__

        # Those of requests that have ended; requests may share an app context.
        while (manager := on_g.get("_mengpaneel")) is not None:
            if manager.request in (None, active_request()):
                break

            manager.close()

            if manager.calls:
                flusher.flush_late(manager)

    return after_request, teardown_request, teardown_appcontext


def _flusher(app: Flask, config: Config, inspector: Inspector | None) -> Flusher:
    ledger = Ledger()
    delivery = make_delivery(
        app, config, ledger, post=inspector.post if inspector else None
    )
    return Flusher(
        app,
        config,
        ledger,
        make_transport(config, delivery, celery_of(app)),
        InlineTransport(delivery),
        Signer(app, config.token) if config.fallback else None,
    )


def _inspector(app: Flask, config: Config) -> Inspector | None:
    if not config.inspector:
        return None

    from .inspector.app import Inspector

    return Inspector(config, Path(app.instance_path) / "mengpaneel-inspector.sqlite3")


def _blueprint(app: Flask, flusher: Flusher | None) -> Blueprint:
    """The extension's files, and the place where browsers hand calls back."""
    blueprint = Blueprint("mengpaneel", __name__, url_prefix=PREFIX)
    fallback = None

    if flusher is not None and flusher.signer is not None:
        fallback = Fallback(flusher, flusher.signer)

    def calls() -> Response:
        assert fallback is not None, "there is no rule for it"
        return fallback.take(request)

    for place in _places(app, blueprint):
        blueprint.add_url_rule("/static/<path:filename>", "static", _static, **place)

        if fallback is not None:
            blueprint.add_url_rule("/calls", "calls", calls, methods=["POST"], **place)

    return blueprint


def _places(app: Flask, blueprint: Blueprint) -> list[dict[str, t.Any]]:
    """The hosts of the app, as options of a rule: a page asks the one it is from."""
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


def _static(filename: str) -> Response:
    named, max_age = request.args.get("v"), None

    # Pages name the script by its hash. While processes are replaced, one of the old
    # version may be asked for the new one's, and must not be believed for a year.
    if named is not None and not current_app.debug:
        max_age = 31_536_000 if named == version(filename) else 0

    return send_from_directory(static_folder(), filename, max_age=max_age)
