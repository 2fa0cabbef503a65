"""Which way the calls of a request go, and why no other: as lines to be printed."""

from __future__ import annotations

import collections.abc as c
import typing as t
from urllib.parse import urlsplit

from flask import Flask

from .. import reasons
from ..config import STRATEGIES
from .examiner import PROBE, Examined, Examiner, Person

if t.TYPE_CHECKING:
    from ..choose.app_state import AppState
    from ..choose.explaining import Explanation
    from ..outcome import Outcome

#: As wide as the longest name of a strategy of the extension's.
_WIDTH = max(map(len, STRATEGIES))


def explain_request(
    app: Flask,
    state: AppState,
    person: Person,
    method: str,
    url: str,
    data: str | None = None,
) -> str:
    """Explain what becomes of the calls of a request.

    :param data: the body: as a form sends it, unless a header says what it is.
    """
    if why := reasons.why_inactive(state.config):
        return f"Nothing is tracked: {why}."

    body: dict[str, t.Any] = {}

    if data is not None:
        body["data"] = data

        if all(name.lower() != "content-type" for name, _ in person.headers):
            body["content_type"] = "application/x-www-form-urlencoded"

    with Examiner(app, state, person) as examiner:
        answer = examiner.ask(url, method, **body)

    return "\n".join(_lines(answer, method, state.config.strategy_names))


def _lines(
    answer: Examined, method: str, strategies: c.Sequence[str]
) -> c.Iterator[str]:
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

        if (
            explanation.nothing == reasons.NOT_ASKED
            and explanation.withheld["session"] is None
        ):
            yield "What it calls waits in the session until then."
    else:
        yield from _ways(explanation, answer.others, strategies)

    yield ""
    yield "The response may be given calls in:"

    for what, reason in explanation.withheld.items():
        yield _row(what, f"no: {reason}{_remedy(reason)}" if reason else "yes")


def _ways(
    explanation: Explanation, others: c.Sequence[Outcome], strategies: c.Sequence[str]
) -> c.Iterator[str]:
    taker, declined = explanation.strategy, explanation.declined

    if explanation.events == [PROBE]:
        what = "nothing else is tracked" if others else "the view tracks nothing"
        yield f"{what}; an event goes by {taker or 'no strategy'}:"
    else:
        yield f"{_named(explanation.calls)} by {taker or 'no strategy'}:"

    yield from _asked(taker, declined, [*declined, *strategies])

    for one in others:
        yield f"{_named([call.name for call in one.calls])} by {one.strategy}:"
        yield from _asked(one.strategy, one.declined, [*one.declined, one.strategy])


def _named(calls: c.Iterable[str]) -> str:
    return f"{', '.join(calls)}: they go"


def _asked(
    taker: str | None, declined: c.Mapping[str, str], names: c.Iterable[str]
) -> c.Iterator[str]:
    """Say what strategies answer that are asked, or aren't."""
    for name in dict.fromkeys(names):
        if reason := declined.get(name):
            yield _row(name, f"declines: {reason}{_remedy(reason)}")
        elif name == taker:
            yield _row(name, "takes them")
        else:
            yield _row(name, "isn't asked")


def _row(name: str, text: str) -> str:
    return f"  {name:<{_WIDTH}}  {text}"


def _remedy(reason: str) -> str:
    remedy = reasons.REMEDIES.get(reason)
    return f" -> {remedy}" if remedy else ""
