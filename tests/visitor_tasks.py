"""Tasks that know the visitor of the request that started them: for ``celery -A
visitor_tasks``, and for the site that starts them."""

from __future__ import annotations

import typing as t

from celery import chain, group, shared_task, signals
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import text

from flask_mengpaneel import Manager
from processes import create_app, mengpaneel, write_ledger


@shared_task(name="plain")
def plain(*_: object) -> str:
    mengpaneel.track("Task")
    mengpaneel.track("Again")
    return "done"


@shared_task(name="block")
def block() -> None:
    mengpaneel.track("Before")

    with Manager(identify="bob") as manager:
        manager.track("Block")
        mengpaneel.track("In it")

    mengpaneel.track("After")


@shared_task(name="retried", bind=True, max_retries=1)
def retried(self: t.Any) -> None:
    mengpaneel.track(f"Try {self.request.retries}")

    if not self.request.retries:
        raise self.retry(countdown=0)


@shared_task(name="fails")
def fails() -> None:
    mengpaneel.track("Fails")
    raise ZeroDivisionError


@shared_task(name="starts")
def starts() -> None:
    plain.delay()


@shared_task(name="starts_group")
def starts_group() -> None:
    group(plain.si(), plain.si()).apply_async()


@shared_task(name="chained")
def chained() -> None:
    mengpaneel.track("First")


@shared_task(name="calls")
def calls() -> None:
    chained()


@shared_task(name="applies", bind=True)
def applies(self: t.Any, depth: int = 1) -> None:
    if depth:
        self.apply((depth - 1,))
    else:
        plain.apply()
        starts.apply()


@shared_task(name="place_order")
def place_order(end: str) -> None:
    mengpaneel.track("Task begins")

    with mengpaneel.on_commit(db.session):
        mengpaneel.track("Order of the task")
        place("task", end)

    mengpaneel.track("Task ends")


def place(by: str, end: str) -> None:
    """Add a row, and call a method of the session, or raise."""
    db.session.execute(
        text("INSERT INTO orders VALUES (:by, :end)"), {"by": by, "end": end}
    )

    if end == "raise":
        raise ZeroDivisionError

    getattr(db.session, end)()


app = create_app()
celery = app.extensions["celery"]
db = SQLAlchemy(app)
# A child of Celery's pool ends without what Python does at an exit.
signals.worker_process_shutdown.connect(lambda pid, **_: write_ledger(pid), weak=False)


@app.post("/start/<name>")
def start(name: str) -> dict[str, str]:
    if name == "chain":
        chain(chained.si(), plain.si()).apply_async()
    else:
        celery.tasks[name].delay()

    return {}


@app.post("/order/<end>/<end_of_task>")
def order(end: str, end_of_task: str) -> dict[str, str]:
    with mengpaneel.on_commit(db.session):
        mengpaneel.track("Order of the request")
        place_order.delay(end_of_task)
        place("request", end)

    return {}


def post(path: str, user_id: str = "ada", **headers: str) -> None:
    """Make a request, as a visitor whom the browser's library knows."""
    import json
    from urllib.parse import quote

    client = app.test_client()
    ids = {"distinct_id": user_id, "$device_id": f"d-{user_id}", "$user_id": user_id}
    client.set_cookie("mp_t_mixpanel", quote(json.dumps(ids)))
    assert client.post(path, headers=headers).status_code == 200
