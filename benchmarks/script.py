"""What the script costs a page: ``python -m benchmarks script``.

Prints the gzipped size; the main-thread time of 20 calls with the CPU throttled 4x,
beside the same calls made on the library alone, and how much of it the profiler finds
in the script itself; and what is added to a fetch, and by the header alone.
"""

from __future__ import annotations

import gzip
import logging
import pathlib
import shutil
import statistics
import sys
import typing as t

ROOT = pathlib.Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "browser")]

from playwright.sync_api import CDPSession, sync_playwright  # noqa: E402
from playwright.sync_api import Page as Tab  # noqa: E402
from script_pages import Api, Page, ScriptSite, track  # noqa: E402

CALLS = 20

#: What gives a page clocks of some microseconds.
ISOLATED = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
}

# A page that Turbo shows is read at once, when the event comes.
PREPARE = """
(data) => {
  let tokens = 0;
  const timed = run => {
    const start = performance.now();
    run();
    return performance.now() - start;
  };
  const alone = options => {
    for (const [[name], [event, properties]] of data.calls[0][1])
      mixpanel[name](event, {...properties}, options);
  };
  window.ways = {
    script: () => {
      data.handover = `token-${tokens++}`;
      const element = document.createElement("script");
      element.type = "application/json";
      element.id = "mengpaneel";
      element.textContent = JSON.stringify(data);
      document.head.append(element);
      return timed(() => dispatchEvent(new Event("turbo:load")));
    },
    beacons: () =>
      timed(() => alone({send_immediately: true, transport: "sendBeacon"})),
    batched: () => timed(() => alone()),
  };
}
"""

ROUNDS = """
async ([names, rounds]) => {
  const times = Object.fromEntries(names.map(name => [name, []]));
  for (let round = 0; round < rounds; round++)
    for (let turn = 0; turn < names.length; turn++) {
      const name = names[(round + turn) % names.length];
      times[name].push(window.ways[name]());
      await new Promise(done => setTimeout(done, 50));
    }
  return times;
}
"""

FETCHES = """
async () => {
  const frame = document.createElement("iframe");
  document.body.append(frame);
  const plain = frame.contentWindow.fetch.bind(window);
  const headers = {"X-Mengpaneel-Flush-Capable": "true"};
  const options = {method: "POST", body: "x", headers: {"Content-Type": "text/plain"}};
  const ways = {
    plain: () => plain("/api/none"),
    control: () => plain("/api/none"),
    header: () => plain("/api/none", {headers}),
    script: () => fetch("/api/none"),
    "plain POST": () => plain("/api/none", options),
    "script POST": () => fetch("/api/none", options),
  };
  const times = Object.fromEntries(Object.keys(ways).map(name => [name, []]));
  // In any order, since what one leaves to be done the next has to bear.
  const order = () => Object.keys(ways).map(name => [Math.random(), name]).sort();
  for (let round = 0; round < 1000; round++)
    for (const [, name] of order()) {
      const start = performance.now();
      await (await ways[name]()).text();
      times[name].push(performance.now() - start);
    }
  return times;
}
"""

Times = dict[str, list[float]]


def in_script(profile: dict[str, t.Any]) -> tuple[float, float]:
    """The milliseconds for which the script was on top of the stack, and those of
    them in the browser's `fetch`; what it calls of the browser's else is its own."""
    nodes = {node["id"]: node for node in profile["nodes"]}
    callers = {
        child: node["id"]
        for node in profile["nodes"]
        for child in node.get("children", ())
    }
    own = sending = 0.0

    for sample, duration in zip(profile["samples"], profile["timeDeltas"], strict=True):
        frame, called = nodes[sample]["callFrame"], ""

        if not frame["url"] and sample in callers:
            called = frame["functionName"]
            frame = nodes[callers[sample]]["callFrame"]

        if frame["url"].endswith("mengpaneel.js"):
            sending += duration / 1000 if called == "fetch" else 0
            own += duration / 1000 if called != "fetch" else 0

    return own, sending


def profiled(session: CDPSession, tab: Tab) -> tuple[float, float]:
    """The same of one page's calls."""
    session.send("Profiler.start")
    tab.evaluate(ROUNDS, [["script"], 1])
    return in_script(session.send("Profiler.stop")["profile"])


def time_calls(tab: Tab, site: ScriptSite, rounds: int = 30) -> None:
    """Print the time that a page's calls take, in turns with the library alone.

    Each page is acknowledged, which the profiler sees as well.
    """
    session = tab.context.new_cdp_session(tab)
    session.send("Emulation.setCPUThrottlingRate", {"rate": 4})
    calls = [track(f"Event {number}", number) for number in range(CALLS)]
    tab.evaluate(PREPARE, site.data([None, calls], acks="/acks"))
    ways = ["script", "beacons", "batched"]
    tab.evaluate(ROUNDS, [ways, 5])
    times: Times = tab.evaluate(ROUNDS, [ways, rounds])
    medians = {name: statistics.median(times[name]) for name in ways}
    session.send("Profiler.enable")
    session.send("Profiler.setSamplingInterval", {"interval": 100})
    profiles = [profiled(session, tab) for _ in range(rounds)]
    own, sending = map(statistics.median, zip(*profiles, strict=True))
    session.send("Profiler.disable")
    # Let nothing be measured but what is right.
    shown = 5 + 2 * rounds
    tab.wait_for_timeout(1000)
    assert len(set(site.acknowledged)) == shown, site.acknowledged
    session.send("Emulation.setCPUThrottlingRate", {"rate": 1})
    print(f"{CALLS} calls, CPU 4x slower, median of {rounds} rounds:")
    print(f"  {medians['script']:6.1f} ms with the script")
    print(f"  {medians['beacons']:6.1f} ms on the library alone, sent at once")
    print(f"  {medians['batched']:6.1f} ms on the library alone, batched")
    print(f"  {own:6.1f} ms of the script's are its own, by the profiler,")
    print(f"  {sending:6.1f} ms are in fetch(), the rest in the library")


def time_fetches(tab: Tab) -> None:
    """Print what is added to a fetch."""
    times: Times = tab.evaluate(FETCHES)
    print("fetch, median of the differences in 1,000 rounds:")

    for name, *bases in [
        ("control", "plain"),
        ("header", "plain", "control"),
        ("script", "plain", "control"),
        ("script POST", "plain POST"),
    ]:
        base = statistics.median(time for one in bases for time in times[one])
        added = statistics.mean(more(times[name], times[one]) for one in bases)
        print(
            f"  {added * 1000:+4.0f} us, {added / base:+6.1%} of {base:.2f} ms, {name}"
        )


def more(some: list[float], others: list[float]) -> float:
    return statistics.median(a - b for a, b in zip(some, others, strict=True))


def main() -> None:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    source = (ROOT / "static" / "mengpaneel.js").read_bytes()
    print(f"mengpaneel.js: {len(gzip.compress(source, 9))} bytes gzipped")
    api = Api()
    site = ScriptSite(api)
    site.pages["/calls"] = Page(data=site.data(), headers=ISOLATED)

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        tab = browser.new_page()
        tab.goto(site.url + "/calls")
        tab.wait_for_function("window.mixpanel.__loaded")
        time_calls(tab, site)
        time_fetches(tab)
        browser.close()

    site.close()
    api.close()


if __name__ == "__main__":
    main()
