"""The ledger for Prometheus: of all processes of this machine that share the spool."""

from __future__ import annotations

import collections.abc as c
import logging
import typing as t

from flask import Response, request

from .deliver.shared_ledgers import SharedLedgers
from .deliver.spool import SpoolError

try:
    import prometheus_client as prometheus
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
    from prometheus_client.exposition import choose_encoder
except ImportError as error:
    raise ImportError(
        "flask_mengpaneel.metrics needs prometheus_client: pip install"
        " 'flask-mengpaneel[metrics]'"
    ) from error

if t.TYPE_CHECKING:
    from flask import Flask

    from .choose.app_state import AppState

__all__ = ["LedgerMetrics"]

logger = logging.getLogger("flask_mengpaneel")


class LedgerMetrics:
    """Counts records for Prometheus: recorded, delivered, dropped, and those that wait.

    ::

        metrics = LedgerMetrics(app)  # after Mengpaneel has been set up
        app.add_url_rule("/metrics", view_func=metrics.view)

    Make it where the app is made, so that each process counts.

    :raises RuntimeError: the app has no Mengpaneel.
    """

    def __init__(self, app: Flask) -> None:
        if "mengpaneel" not in app.extensions:
            raise RuntimeError("Set up Mengpaneel for this app before its metrics.")

        state: AppState = app.extensions["mengpaneel"]

        # A second one would wait for the file that the first has locked, for good.
        if "mengpaneel_ledgers" not in app.extensions:
            ledgers = SharedLedgers(state.ledger, state.delivery.spool)
            app.extensions["mengpaneel_ledgers"] = ledgers

        self._ledgers: SharedLedgers = app.extensions["mengpaneel_ledgers"]

    def view(self) -> Response:
        """Show the numbers as a Prometheus server reads them."""
        registry = prometheus.CollectorRegistry()
        registry.register(self)
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        response = Response(encode(registry), content_type=content_type)
        response.cache_control.no_store = True
        return response

    def describe(self) -> c.Iterable[Metric]:
        """Name nothing yet, so that it can be registered before there is anything."""
        return []

    def collect(self) -> c.Iterator[Metric]:
        """Give the numbers to a registry of ``prometheus_client``."""
        try:
            totals = self._ledgers.sum()
        except SpoolError as error:
            # Else the app's other metrics would be gone as well.
            logger.error("There are no metrics: %s", error)
            return

        yield CounterMetricFamily(
            "mengpaneel_records_recorded",
            "Events and operations on profiles and groups that were recorded.",
            totals.recorded,
        )
        yield CounterMetricFamily(
            "mengpaneel_records_delivered",
            "Those of them that Mixpanel has taken.",
            totals.delivered,
        )
        dropped = CounterMetricFamily(
            "mengpaneel_records_dropped",
            "Those of them that are not delivered and never will be.",
            labels=["reason"],
        )

        for reason, records in totals.dropped.items():
            dropped.add_metric([reason], records)

        yield dropped
        waiting = GaugeMetricFamily(
            "mengpaneel_records_waiting",
            "Those of them that wait to be delivered, or to be acknowledged.",
            labels=["place"],
        )
        waiting.add_metric(["memory"], totals.in_memory)
        waiting.add_metric(["spool"], totals.in_spool)
        yield waiting
