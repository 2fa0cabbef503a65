"""The ledger for Prometheus: of several real processes, summed."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import typing as t
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
import yaml
from flask import Flask
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from flask_mengpaneel import Manager, Mengpaneel
from flask_mengpaneel.deliver import shared_ledgers
from flask_mengpaneel.metrics import LedgerMetrics
from ports import free_port
from processes import Process, get, get_from_all, settings_for
from sink import Sink, Status
from waiting import eventually

APP = """\
from flask_mengpaneel.metrics import LedgerMetrics
from processes import create_app as create


def create_app():
    app = create()
    app.add_url_rule("/metrics", view_func=LedgerMetrics(app).view)
    return app
"""
DIED = shared_ledgers.PROCESS_DIED


def read(text: str) -> dict[str, float]:
    """The numbers, by their names and what tells them apart."""
    return {
        "".join([sample.name.removeprefix("mengpaneel_records_"), *labels]): value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        for labels, value in [
            ([f":{label}" for label in sample.labels.values()], sample.value)
        ]
    }


def scrape(port: int, **headers: str) -> dict[str, float]:
    request = Request(f"http://127.0.0.1:{port}/metrics", headers=headers)

    with urlopen(request, timeout=60) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        return read(answer.read().decode())


def is_balanced(seen: dict[str, float]) -> bool:
    return seen["recorded_total"] == sum(seen.values()) - seen["recorded_total"]


def serve(folder: Path, sink: Sink, port: int, **settings: t.Any) -> Process:
    (folder / "counted.py").write_text(APP)
    command = [sys.executable, "-m", "gunicorn", f"--bind=127.0.0.1:{port}"]
    return Process(
        folder,
        [*command, "--workers=2", "counted:create_app()"],
        settings_for(sink.url, **settings),
    )


def test_the_numbers_are_those_of_all_processes_and_outlive_them(
    tmp_path: Path, sink: Sink
) -> None:
    port = free_port()
    server = serve(tmp_path, sink, port)

    try:
        get_from_all(port, 2)
        arrived = 0

        def is_settled() -> bool:
            nonlocal arrived
            arrived = len(sink.ids)
            seen = scrape(port)
            assert is_balanced(seen), seen
            return seen["recorded_total"] == seen["delivered_total"] == arrived

        eventually(is_settled)
        assert arrived >= 20

        # Whichever process is asked.
        assert all(scrape(port)["delivered_total"] == arrived for _ in range(6))
        assert server.terminate() == 0, server.output
    finally:
        server.kill()

    # Mixpanel is down now, and a process is killed with what it has in memory.
    sink.always = Status(503)
    server = serve(tmp_path, sink, port, shutdown_timeout=0.1)

    try:
        get(port, 1)
        eventually(lambda: scrape(port)["recorded_total"] == arrived + 1)
        (pid,) = get(port, 1)
        eventually(lambda: scrape(port)["waiting:memory"] == 2)
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: scrape(port).get(f"dropped_total:{DIED}"))
        seen = scrape(port)
        assert seen["delivered_total"] == arrived
        assert seen["recorded_total"] == arrived + 2
        assert is_balanced(seen), seen
        lost = seen[f"dropped_total:{DIED}"]
        get_from_all(port, 2)
        assert server.terminate() == 0, server.output
    finally:
        server.kill()

    # What they left in the spool is delivered by another, who counts it for them.
    sink.recover()
    app, _ = make_app(tmp_path / "instance", sink)
    track(app, "Visit")

    def is_delivered() -> bool:
        seen = read(app.test_client().get("/metrics").text)
        assert is_balanced(seen), seen
        assert seen[f"dropped_total:{DIED}"] == lost
        delivered = seen["delivered_total"]
        return seen["recorded_total"] - lost == delivered == len(sink.ids) > arrived

    eventually(is_delivered)


def make_app(folder: Path, sink: Sink, **settings: t.Any) -> tuple[Flask, t.Any]:
    app = Flask(__name__, instance_path=str(folder))
    Mengpaneel(app, token="t", api_host=sink.url, **settings)
    metrics = LedgerMetrics(app)
    app.add_url_rule("/metrics", view_func=metrics.view)
    return app, metrics


def track(app: Flask, *names: str) -> None:
    with app.app_context(), Manager() as manager:
        for name in names:
            manager.track(name)


@pytest.mark.parametrize("settings", [{}, {"spool": None}, {"transport": "inline"}])
def test_what_is_dropped_is_told_apart_by_kinds_of_reasons(
    tmp_path: Path, sink: Sink, settings: dict[str, t.Any]
) -> None:
    sink.refuse = lambda record: record["event"] if record["event"] != "Good" else None
    app, _ = make_app(tmp_path, sink, **settings)
    track(app, *(f"Bad {n}" for n in range(5)), "Good")

    def seen() -> dict[str, float]:
        return read(app.test_client().get("/metrics").text)

    eventually(lambda: seen()["delivered_total"] == 1)
    assert seen()["dropped_total:properties"] == 5
    assert is_balanced(seen())


def test_kinds_of_reasons_are_not_without_number() -> None:
    totals = shared_ledgers.Totals()

    for number in range(1000):
        totals.drop(f"{number}{'x' * 100}: for this reason", 1)

    assert len(totals.dropped) == shared_ledgers.MAX_REASONS + 1
    assert totals.dropped[shared_ledgers.OTHER_REASONS] == 950
    assert all(len(kind) <= shared_ledgers.MAX_REASON for kind in totals.dropped)


def test_it_can_be_one_of_the_metrics_of_a_registry(tmp_path: Path, sink: Sink) -> None:
    app, metrics = make_app(tmp_path, sink)
    registry = CollectorRegistry(auto_describe=True)
    registry.register(metrics)
    track(app, "Visit")
    eventually(lambda: len(sink.ids) == 1)

    assert read(generate_latest(registry).decode())["recorded_total"] == 1


def test_the_other_metrics_of_a_registry_do_not_suffer(
    tmp_path: Path, sink: Sink, caplog: pytest.LogCaptureFixture
) -> None:
    _, metrics = make_app(tmp_path, sink)
    registry = CollectorRegistry()
    registry.register(metrics)
    Counter("orders", "Orders.", registry=registry).inc()
    (tmp_path / "mengpaneel-spool.sqlite3.ledgers").mkdir()

    assert read(generate_latest(registry).decode())["orders_total"] == 1
    assert "There are no metrics: the ledgers can't be summed" in caplog.text


def test_prometheus_may_ask_for_its_newer_format(tmp_path: Path, sink: Sink) -> None:
    app, _ = make_app(tmp_path, sink)
    newer = {"Accept": "application/openmetrics-text; version=1.0.0"}
    answer = app.test_client().get("/metrics", headers=newer)

    assert answer.mimetype == "application/openmetrics-text"
    assert answer.text.endswith("# EOF\n")
    assert answer.cache_control.no_store


def test_the_app_of_the_docs_has_metrics_and_a_health_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    app_block, _, health_block = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    names: dict[str, t.Any] = {"__name__": "app"}
    exec(app_block, names)
    names["app"] = names["create_app"]()
    exec(health_block, names)
    client = names["app"].test_client()

    assert read(client.get("/metrics").text)["recorded_total"] == 0
    assert client.get("/health/tracking").json == {"waiting": 0, "dropped": {}}


def test_the_alerts_of_the_docs_ask_for_numbers_that_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    (block,) = re.findall(r"^```yaml\n(.*?)^```", page, re.M | re.S)
    (group,) = yaml.safe_load(block)["groups"]
    asked = {
        name
        for rule in group["rules"]
        for name in re.findall(r"mengpaneel_\w+", rule["expr"])
    }
    app = Flask("app")
    Mengpaneel(app, token="t")
    app.add_url_rule("/metrics", view_func=LedgerMetrics(app).view)
    text = app.test_client().get("/metrics").text

    assert asked
    assert asked <= set(re.findall(r"^# TYPE (\S+)", text, re.M))


def test_metrics_that_are_made_twice_are_the_same(tmp_path: Path, sink: Sink) -> None:
    app, _ = make_app(tmp_path, sink)
    registry = CollectorRegistry()
    registry.register(LedgerMetrics(app))

    track(app, "A")
    seen = [read(app.test_client().get("/metrics").text)]
    # It would wait for good, if it did.
    other = threading.Thread(
        target=lambda: seen.append(read(generate_latest(registry).decode())),
        daemon=True,
    )
    other.start()
    other.join(60)

    assert [one["recorded_total"] for one in seen] == [1, 1]


def test_an_app_without_mengpaneel_has_no_metrics() -> None:
    with pytest.raises(RuntimeError, match="Set up Mengpaneel"):
        LedgerMetrics(Flask(__name__))


def test_files_of_processes_that_are_gone_do_not_pile_up(
    tmp_path: Path, sink: Sink
) -> None:
    script = tmp_path / "job.py"
    script.write_text(
        f"import os\n{APP}\nfrom flask_mengpaneel import Manager\n"
        "app = create_app()\n"
        "with app.app_context(), Manager() as manager:\n    manager.track('Job')\n"
        # A child has a ledger of its own.
        "app.extensions['mengpaneel'].background.flush(60)\n"
        "if not (child := os.fork()):\n"
        "    with app.app_context(), Manager() as manager:\n"
        "        manager.track('Child')\n"
        "else:\n    os.waitpid(child, 0)\n"
    )
    jobs = [
        Process(tmp_path, [sys.executable, str(script)], settings_for(sink.url))
        for _ in range(3)
    ]
    assert [job.wait() for job in jobs] == [0, 0, 0], [job.output for job in jobs]
    app, _ = make_app(tmp_path / "instance", sink)

    for _ in range(2):
        seen = read(app.test_client().get("/metrics").text)
        assert seen["recorded_total"] == seen["delivered_total"] == 6
        assert is_balanced(seen)
        assert not list((tmp_path / "instance").glob("*.ledger-*"))

    (past,) = (tmp_path / "instance").glob("*.ledgers")
    assert past.stat().st_mode & 0o077 == 0
