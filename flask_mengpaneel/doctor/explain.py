"""Which way the calls of a request go, and why no other: as lines to be printed."""

from __future__ import annotations

import collections.abc as c
import typing as t
from urllib.parse import urlsplit

from flask import Flask

from .. import reasons
from .examiner import PROBE, Answer, Examiner, Person

if t.TYPE_CHECKING:
    from ..choose.app_state import AppState
    from ..choose.explaining import Explanation

#: As wide as the longest name of a strategy of the extension's.
_WIDTH = len("CapableClientSide")


def explain_request(
    app: Flask,
    state: AppState,
    person: Person,
    method: str,
    url: str,
    data: str | None = None,
) -> str:
    """Explain what becomes of the calls of a request.

    :param data: the body, as a form sends it.
    """
    if why := reasons.why_inactive(state.config):
        return f"Nothing is tracked: {why}."

    body: dict[str, t.Any] = {}

    if data is not None:
        content_type = "application/x-www-form-urlencoded"
        body = {"data": data, "content_type": content_type}

    with Examiner(app, state, person) as examiner:
        answer = examiner.ask(url, method, **body)

    return "\n".join(_lines(answer, method, state.config.strategy_names))


def _lines(answer: Answer, method: str, strategies: c.Sequence[str]) -> c.Iterator[str]:
    path = urlsplit(answer.url)._replace(scheme="", netloc="").geturl()
    target = answer.response.headers.get("Location")
    leads = f", to {target}" if target else ""
    yield f"{method} {path}: {answer.response.status}{leads}"

    for finding in answer.findings:
        yield str(finding)

    explanation = answer.explanation

    if explanation is None:
        yield "The extension leaves this response alone: nothing is recorded here."
        return

    if explanation.nothing:
        yield f"Nothing is tracked: {explanation.nothing}."
    else:
        yield from _ways(explanation, strategies)

    yield ""
    yield "The response may be given calls in:"

    for what, reason in explanation.withheld.items():
        yield _row(what, f"no: {reason}{_remedy(reason)}" if reason else "yes")


def _ways(explanation: Explanation, strategies: c.Sequence[str]) -> c.Iterator[str]:
    is_probe = explanation.events == [PROBE]
    what = "the view tracks nothing; an event goes" if is_probe else "they go"
    names = "" if is_probe else f"{', '.join(explanation.calls)}: "
    yield f"{names}{what} by {explanation.strategy or 'no strategy'}:"

    for name in dict.fromkeys([*explanation.declined, *strategies]):
        if reason := explanation.declined.get(name):
            yield _row(name, f"declines: {reason}{_remedy(reason)}")
        elif name == explanation.strategy:
            yield _row(name, "takes them")
        else:
            yield _row(name, "isn't asked")


def _row(name: str, text: str) -> str:
    return f"  {name:<{_WIDTH}}  {text}"


def _remedy(reason: str) -> str:
    remedy = reasons.REMEDIES.get(reason)
    return f" -> {remedy}" if remedy else ""
