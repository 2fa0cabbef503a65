from __future__ import annotations

import importlib
import subprocess
import sys
import timeit
import typing as t
from collections import Counter

import pytest

from agents import CHROME_ON_WINDOWS, GOOGLEBOT
from flask_mengpaneel.visitor.devices import describe, is_bot
from parity.visits import Agent, agents, sent_by_library, visit

#: Of a hundred agents, this many at least are described as the library does.
AGREEMENT = {"$browser": 99.0, "$browser_version": 98.0, "$os": 99.0, "$device": 99.0}


@pytest.fixture(scope="module")
def compared() -> list[tuple[Agent, dict[str, t.Any] | None]]:
    """Each agent, with what the library sent; ``None`` for the robots it refuses."""
    sent = sent_by_library([visit(agent) for agent in agents()])
    return [
        (agent, visited["events"][0]["properties"] if visited["events"] else None)
        for agent, visited in zip(agents(), sent, strict=True)
    ]


@pytest.mark.parametrize("name", AGREEMENT)
def test_real_user_agents_are_described_as_the_browser_library_does(
    name: str,
    compared: list[tuple[Agent, dict[str, t.Any] | None]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    pairs = [
        (agent.recorded, sent.get(name), describe(agent.user_agent).get(name))
        for agent, sent in compared
        if sent is not None
    ]
    different = Counter(pair for pair in pairs if pair[1] != pair[2])
    agreement = 100 * (1 - different.total() / len(pairs))

    with capsys.disabled():
        print(f"\n{name}: {agreement:.2f} % of {len(pairs)} user agents agree")

        for (recorded, theirs, ours), count in different.most_common(5):
            vendor = "recorded" if recorded else "inferred"
            print(f"  {count} x {theirs!r}, here {ours!r} (vendor {vendor})")

    assert len(pairs) >= 5000
    assert agreement >= AGREEMENT[name]


def test_every_robot_that_the_library_refuses_is_a_bot(
    compared: list[tuple[Agent, dict[str, t.Any] | None]],
) -> None:
    refused = [agent.user_agent for agent, sent in compared if sent is None]

    assert refused
    assert [agent for agent in refused if not is_bot(agent)] == []


def test_the_version_is_a_number_as_javascript_writes_it() -> None:
    safari = (
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML,"
        " like Gecko) Version/18.10.2 Safari/605.1.15"
    )

    assert str(describe(CHROME_ON_WINDOWS)["$browser_version"]) == "143"
    assert str(describe(safari)["$browser_version"]) == "18.1"


def test_what_the_library_leaves_empty_is_left_out() -> None:
    assert dict(describe(CHROME_ON_WINDOWS)) == {
        "$browser": "Chrome",
        "$browser_version": 143,
        "$os": "Windows",
    }


def test_an_empty_user_agent_says_nothing() -> None:
    assert dict(describe("")) == {}
    assert not is_bot("")


def test_a_client_that_is_no_browser_is_named_as_the_user_agents_package_does() -> None:
    assert describe("curl/8.11.0") == {"$browser": "curl", "$browser_version": 8.11}
    assert describe("Shop/3.1 CFNetwork/1568.200.51 Darwin/24.1.0")["$os"] == "iOS"


@pytest.mark.parametrize(
    "user_agent",
    [
        GOOGLEBOT,
        "Mozilla/5.0 (compatible; SemrushBot/7~bl; +http://www.semrush.com/bot.html)",
        "Mozilla/5.0 (compatible; Newcomer/1.0; +https://robots.example.com/)",
        "facebookexternalhit/1.1",
    ],
)
def test_a_robot_is_a_bot(user_agent: str) -> None:
    assert is_bot(user_agent)


@pytest.mark.parametrize(
    "user_agent",
    [
        CHROME_ON_WINDOWS,
        "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
        "Shop/3.1 (com.example.shop; build:7; iOS 18.1.0) Alamofire/5.10.0",
        "okhttp/4.12.0",
        "Java/17.0.2",
        "Python-urllib/3.13",
    ],
)
def test_a_browser_a_webhook_and_an_app_are_no_bots(user_agent: str) -> None:
    assert not is_bot(user_agent)


@pytest.mark.parametrize(
    "user_agent",
    [
        "\x00",
        "Mozilla/5.0 \udcff Chrome/\udcff",
        "Chrome/" + "9" * 900,
        "Mozilla/5.0 Firefox/" * 500_000,
        "(" * 10_000_000,
    ],
    ids=["nul", "surrogates", "huge version", "10 MB", "10 MB of brackets"],
)
def test_hostile_user_agents_do_no_harm(user_agent: str) -> None:
    for value in describe(user_agent).values():
        assert isinstance(value, str | int | float)

    assert is_bot(user_agent) in {True, False}


def test_descriptions_are_shared_and_nobody_can_change_them() -> None:
    assert describe(CHROME_ON_WINDOWS) is describe(CHROME_ON_WINDOWS)

    with pytest.raises(TypeError):
        describe(CHROME_ON_WINDOWS)["$os"] = "Plan 9"  # type: ignore[index]


def test_the_same_user_agent_again_costs_less() -> None:
    fresh = (f"{CHROME_ON_WINDOWS} {number}" for number in range(3000))
    new = min(timeit.repeat(lambda: describe(next(fresh)), number=1000, repeat=3))
    again = min(
        timeit.repeat(lambda: describe(CHROME_ON_WINDOWS), number=1000, repeat=3)
    )

    assert again < new


def test_browsers_are_described_without_the_user_agents_package() -> None:
    code = (
        "import sys; from flask_mengpaneel.visitor.devices import describe;"
        f"describe({CHROME_ON_WINDOWS!r}); sys.exit('user_agents' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_other_threads_have_the_interpreter_soon_while_the_package_is_loaded() -> None:
    # Anew in each of them, in a process of its own.
    script = """
import sys, threading
from flask_mengpaneel.visitor.devices import describe, is_bot

seen = []

def look(event, arguments):
    if event == "import" and arguments[0] == "user_agents.parsers":
        seen.append(sys.getswitchinterval())

sys.addaudithook(look)
usual = sys.getswitchinterval()
asked = [(describe, "Stripe/1.0"), (is_bot, "Hook/2.0"), (describe, "Bank/3.1")]
threads = [threading.Thread(target=ask, args=(of,)) for ask, of in asked]

for thread in threads:
    thread.start()

for thread in threads:
    thread.join()

print(usual / seen[0], sys.getswitchinterval() == usual)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60
    )
    times, is_usual_again = done.stdout.split()

    assert float(times) > 10, done
    assert is_usual_again == "True"


def test_others_have_the_interpreter_while_user_agents_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usual = sys.getswitchinterval()
    turns = []

    def load(name: str) -> None:
        assert name == "user_agents"
        turns.append(sys.getswitchinterval())
        raise ImportError

    monkeypatch.delitem(sys.modules, "user_agents", raising=False)

    with monkeypatch.context() as patched:
        patched.setattr(importlib, "import_module", load)

        # What goes wrong on the way changes nothing for those that come later.
        with pytest.raises(ImportError):
            describe("SomethingNew/1.0 (which nobody has asked for)")

    assert [turn < usual for turn in turns] == [True]
    assert sys.getswitchinterval() == usual
