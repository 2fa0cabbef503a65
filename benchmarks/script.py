"""What the script costs a page: ``python benchmarks/script.py``.

Prints the gzipped size, the main-thread time of 20 calls with the CPU throttled 4x
(beside the same calls made on the library directly), and what is added to a fetch.
"""

from __future__ import annotations

import gzip
import pathlib
import shutil
import statistics
import sys

ROOT = pathlib.Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests" / "browser")]

from playwright.sync_api import Page as Tab  # noqa: E402
from playwright.sync_api import sync_playwright  # noqa: E402
from script_pages import Api, Page, Site, track  # noqa: E402

CALLS = """
async ([calls, direct]) => {
  const times = [];
  for (let round = 0; round < 30; round++) {
    const start = performance.now();
    if (direct)
      for (const [[name], args] of calls) mixpanel[name](...args);
    else
      await fetch("/api/calls").then(() => performance.now());
    times.push(performance.now() - start);
    await new Promise(done => setTimeout(done, 30));
  }
  return times;
}
"""

FETCHES = """
async () => {
  const frame = document.createElement("iframe");
  document.body.append(frame);
  const plain = frame.contentWindow.fetch.bind(window);
  const times = [[], []];
  for (let round = 0; round < 1000; round++)
    for (const which of round % 2 ? [0, 1] : [1, 0]) {
      const start = performance.now();
      await (await (which ? fetch : plain)("/api/none")).text();
      times[which].push(performance.now() - start);
    }
  return times;
}
"""


def trace(tab: Tab, site: Site) -> None:
    """Print the time in the script for 20 calls, by the profiler."""
    session = tab.context.new_cdp_session(tab)
    session.send("Emulation.setCPUThrottlingRate", {"rate": 4})
    site.pages["/calls"] = Page(data=site.data())
    tab.goto(site.url + "/calls")
    tab.wait_for_function("window.mixpanel.__loaded")
    calls = [track(f"Event {number}", number) for number in range(20)]
    direct = statistics.median(tab.evaluate(CALLS, [calls, True]))
    site.calls["calls"] = []
    empty = statistics.median(tab.evaluate(CALLS, [calls, False]))
    site.calls["calls"] = calls
    ours = statistics.median(tab.evaluate(CALLS, [calls, False]))
    print(f"20 calls, CPU 4x slower: library alone {direct:.1f} ms,")
    print(f"  with the script {ours - empty:.1f} ms (a response with, less without)")
    session.send("Emulation.setCPUThrottlingRate", {"rate": 1})


def main() -> None:
    source = (ROOT / "static" / "mengpaneel.js").read_bytes()
    print(f"mengpaneel.js: {len(gzip.compress(source, 9))} bytes gzipped")
    api = Api()
    site = Site(api)

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        tab = browser.new_page()
        trace(tab, site)
        tab.goto(site.url + "/calls")
        tab.wait_for_function("window.mixpanel.__loaded")
        plain, wrapped = map(statistics.median, tab.evaluate(FETCHES))
        added = wrapped / plain - 1
        print(f"fetch, median of 1,000 pairs: {plain:.3f} ms plain, {added:+.1%}")
        browser.close()

    site.close()
    api.close()


if __name__ == "__main__":
    main()
