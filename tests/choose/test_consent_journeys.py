"""Whatever a visitor answers, and when: each call is in the ledger once, made once or
dropped."""

from __future__ import annotations

import contextlib
import itertools
import typing as t

import pytest
from flask import Response, make_response, redirect, request, session
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sites import (
    ACKNOWLEDGES,
    ANN,
    CAPABLE,
    DEVICE,
    NOBODY,
    PAGE,
    Consent,
    Site,
    block,
    come,
    header_calls,
    page_calls,
)

FETCH = {"Sec-Fetch-Dest": "empty", "Accept": "*/*"}
#: What a request says, by who makes it.
ASKERS = {
    "a browser": {"Sec-Fetch-Dest": "document"},
    "a poll": FETCH,
    "who is believed": {**FETCH, **CAPABLE},
    "who acknowledges": {**FETCH, **ACKNOWLEDGES},
}


def written_by_the_app() -> Response:
    response = make_response(PAGE)
    response.set_cookie("session", request.cookies.get("session", "none"))
    return response


def with_a_session_cleared() -> str:
    session.clear()
    return PAGE


RESPONSES: dict[str, t.Callable[[], t.Any]] = {
    "page": lambda: PAGE,
    "json": lambda: {},
    "go": lambda: redirect("/page"),
    "away": lambda: redirect("https://pay.example/"),
    "public": lambda: Response(PAGE, headers={"Cache-Control": "public"}),
    "image": lambda: Response(b"", mimetype="image/gif"),
    "crash": lambda: 1 / 0,
    "own cookie": written_by_the_app,
    "cleared": with_a_session_cleared,
}


class Step(t.NamedTuple):
    """A request: what it records, and the visitor's answer until then."""

    path: str
    asker: str
    answer: bool | None
    calls: list[str]
    #: Whether the client says that it has made the calls.
    acknowledges: bool


class AskingWorld:
    """A site that asks for consent, and what became of its calls."""

    def __init__(self, known: dict[str, str], **settings: t.Any) -> None:
        self._consent = Consent()
        self._site = Site(consent=self._consent, **settings)
        self._client = come(self._site, known)
        self._numbers = itertools.count()
        self._calls: list[str] = []
        #: The calls that the visitor hasn't refused beforehand, by name.
        self._recorded: list[str] = []
        #: What has reached Mixpanel by the browser.
        self._made: list[str] = []

        for name, respond in RESPONSES.items():
            self._site.view(f"/{name}", self._view(respond))

    def _view(self, respond: t.Callable[[], t.Any]) -> t.Callable[[], t.Any]:
        def view() -> t.Any:
            for call in self._calls:
                self._record(call)

            return respond()

        return view

    def _record(self, call: str) -> None:
        mengpaneel = self._site.mengpaneel

        if call == "identify":
            with mengpaneel.setup():
                mengpaneel.identify("ann")

            return

        name = f"{call} {next(self._numbers)}"

        if self._consent.answer is not False:
            self._recorded.append(name)

        if call == "event":
            mengpaneel.track(name)
        elif call == "early event":
            with mengpaneel.before_setup():
                mengpaneel.track(name)
        elif call == "profile":
            mengpaneel.people.append(name, 1)
        else:
            mengpaneel.get_group("company", "acme").set(name, 1)

    def step(self, step: Step) -> None:
        self._consent.answer, self._calls = step.answer, step.calls

        with contextlib.suppress(ZeroDivisionError):
            response = self._client.get(f"/{step.path}", headers=ASKERS[step.asker])
            calls = [*page_calls(response), *header_calls(response)]
            self._made += [call[1][0] for call in calls if call[0] == ["track"]]
            token = response.headers.get("X-Mengpaneel-Hand-Over")
            token = token or (block(response) or {}).get("handover")

            if token and step.acknowledges:
                self._client.post("/_mengpaneel/acks", data=token)

        balance = self._site.mengpaneel.ledger().snapshot()
        assert balance.balanced, balance
        assert min(balance.recorded, balance.delivered, balance.waiting) >= 0, balance

    def end(self) -> None:
        """Let everything that waits arrive, and see what has."""
        self.step(Step("page", "a browser", True, ["identify", "event"], True))

        if hand_overs := self._site.app.extensions["mengpaneel"].hand_overs:
            hand_overs.hand_on()

        balance = self._site.mengpaneel.ledger().snapshot()
        arrived = {*self._made}

        for message in self._site.messages:
            if "event" in message:
                arrived.add(message["event"])
            else:
                # It isn't made twice, as an event is that has its id.
                names = {*message.get("$append", ()), *message.get("$set", ())}
                assert arrived.isdisjoint(names)
                arrived |= names

        dropped = sum(balance.dropped.values())
        assert arrived <= {*self._recorded}
        assert len(arrived) + dropped == len(self._recorded) == balance.recorded
        assert balance.delivered == len(arrived), balance


STEP = st.builds(
    Step,
    st.sampled_from([*RESPONSES]),
    st.sampled_from([*ASKERS]),
    st.sampled_from([None, None, True, True, False]),
    st.lists(
        st.sampled_from(
            ["event", "event", "early event", "profile", "group", "identify"]
        ),
        max_size=3,
    ),
    st.booleans(),
)
HELD = Step("page", "a browser", None, ["event", "profile", "group"], False)
DELAYED = Step("go", "a browser", True, ["event", "profile"], False)
REFUSED = Step("public", "a browser", False, [], False)


@pytest.mark.parametrize("known", [NOBODY, DEVICE, ANN], ids=["new", "device", "ann"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"ack_timeout": 0},
        {"delayed_max_age": 0},
        {"delayed_max_age": 0, "ack_timeout": 0},
        {"strategies": ["AsyncServerSide"]},
    ],
    ids=str,
)
def test_each_call_is_in_the_ledger_once(
    options: dict[str, t.Any], known: dict[str, str]
) -> None:
    @settings(max_examples=25)
    @given(st.lists(STEP, max_size=7))
    @example([HELD, Step("json", "who is believed", True, [], False)])
    @example([HELD, Step("json", "who acknowledges", True, ["event"], True)])
    @example([HELD, REFUSED])
    @example([DELAYED, REFUSED])
    @example([DELAYED, Step("own cookie", "a browser", True, [], False)])
    def travel(journey: list[Step]) -> None:
        world = AskingWorld(known, **options)

        for step in journey:
            world.step(step)

        world.end()

    travel()
