"""Leave pages in every way that browsers have, and compare what was recorded with what
Mixpanel has in the end.

``python -m tests.soak --pages 2000``
    pages that are left within 600 ms, on a busy machine: by themselves, by the visitor,
    by a crash; with script, library, Mixpanel's API or the app's endpoint out of reach
    from the start or from some request on; without JavaScript; while a request is under
    way, and after a redirect
``python -m tests.soak --ordinary --pages 500``
    pages that are read for two seconds or more: how much is sent twice?

All of it is made on loopback. The exit status is 1 if anything was lost, came twice, or
was somebody else's; or if it shows nothing, as no event came from a browser or
none from the server.
"""

from __future__ import annotations

import argparse
import asyncio
import collections.abc as c
import contextlib
import itertools
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.async_api import async_playwright

from flask_mengpaneel.choose import late_calls, sharing

from .site import Figures, Report, SoakSite, compare
from .visits import PAGES_READ, Visit, Visitors

#: Ends with whoever has started it, however that ends.
BUSY = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: pass"
#: Seconds until the server sends what no browser has acknowledged, and what waits in a
#: session.
SHORT = {"ack_timeout": 2.0, "delayed_max_age": 4.0}
#: The same for operations of a visitor whom nobody has identified: a day, usually.
SHORT_OPERATION_AGE = 6.0
#: Pages of which is told what is wrong.
MAX_SHOWN = 20
#: The share of pages that may be left in another way than was meant: a browser that is
#: told to close a page may have closed it already.
MOST_TROUBLES = 0.05


@contextlib.contextmanager
def busy(processes: int) -> c.Iterator[None]:
    """Keep the machine busy."""
    running = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(processes)]

    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


async def soak(
    arguments: argparse.Namespace, site: SoakSite, browser: str
) -> list[str]:
    """Leave pages in one browser.

    :return: what was wrong.
    """
    visits: dict[int, Visit] = {}
    ways: dict[int, str] = {}

    async with async_playwright() as playwright:
        visitors = Visitors(playwright, browser, site)

        async def leave(number: int) -> None:
            await visitors.leave(visits[number])

        async def read(number: int) -> None:
            await visitors.read(number, arguments.seed)

        if arguments.ordinary:
            numbers = range(arguments.pages // PAGES_READ)
            ways = dict.fromkeys(range(len(numbers) * PAGES_READ), "read")
            await visitors.each(numbers, read, arguments.at_once)
        else:
            numbers = range(arguments.first, arguments.first + arguments.pages)
            visits = {n: Visit.of(n, arguments.seed) for n in numbers}
            ways = {number: visit.way for number, visit in visits.items()}
            await visitors.each(numbers, leave, arguments.at_once)

    await asyncio.to_thread(site.settle, arguments.patience)
    report = compare(site, ways)

    for trouble in visitors.troubles:
        print(f"couldn't be made as meant: {trouble}", file=sys.stderr)

    show(report, site)

    # At the end, of which most is left where a log is cut.
    for number, lines in itertools.islice(report.wrongs.items(), MAX_SHOWN):
        print(f"page {number}: {visits.get(number, 'read')}")
        print(*(f"    {line:.2000}" for line in lines), sep="\n")

    wrongs = [f"{len(report.wrongs)} pages were wrong"] if report.wrongs else []

    # Else nothing is shown by what arrived.
    if len(visitors.troubles) > MOST_TROUBLES * len(ways):
        wrongs.append(f"{len(visitors.troubles)} pages couldn't be made as meant")

    arrived = site.mixpanel.messages
    senders = {sender for message, sender in arrived if "event" in message}
    expected = {"browser"} if arguments.ordinary else {"browser", "server"}

    if not expected <= senders:
        wrongs.append(f"events only came from {senders}")

    return wrongs


def show(report: Report, site: SoakSite) -> None:
    """Print a table, and what else there is to say."""
    print(f"| way | {' | '.join(Figures.NAMES)} |")
    print("|---" * (1 + len(Figures.NAMES)) + "|")

    for way, figures in [*sorted(report.by_way.items()), ("all", report.total)]:
        print(f"| {way} | {' | '.join(figures.row)} |")

    total = report.total
    share = 100 * total.requests_sent_twice / max(total.requests, 1)
    print(f"\n{site.hand_overs}")
    print(
        f"{total.requests} requests recorded events; those of"
        f" {total.requests_sent_twice} were sent twice ({share:.2f} %)"
    )
    print(f"other events: {dict(report.others)}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak")
    parser.add_argument("--pages", type=int, default=100)
    parser.add_argument("--browser", choices=["chromium", "firefox", "both"])
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--first", type=int, default=0, help="number of the first page")
    parser.add_argument("--at-once", type=int, help="visits at a time")
    parser.add_argument("--busy", type=int, help="busy processes; default: as cores")
    parser.add_argument("--patience", type=float, default=300, help="seconds, at most")
    parser.add_argument("--ordinary", action="store_true", help="pages are read")
    parser.set_defaults(browser="chromium")
    arguments = parser.parse_args()
    cores = os.cpu_count() or 1

    if arguments.at_once is None:
        arguments.at_once = 4 * cores if arguments.ordinary else 2 * cores

    if arguments.busy is None:
        arguments.busy = 0 if arguments.ordinary else cores

    chosen = arguments.browser
    sharing.MAX_OPERATION_AGE = late_calls.MAX_OPERATION_AGE = SHORT_OPERATION_AGE
    settings = {} if arguments.ordinary else SHORT
    is_wrong = False

    for browser in ("chromium", "firefox") if chosen == "both" else (chosen,):
        print(f"{browser}, --seed {arguments.seed}", flush=True)

        with tempfile.TemporaryDirectory() as folder, busy(arguments.busy):
            site = SoakSite(Path(folder), **settings)

            try:
                wrongs = asyncio.run(soak(arguments, site, browser))
                wrongs += site.wrongs()
            finally:
                site.close()

        print(*wrongs, sep="\n")
        is_wrong |= bool(wrongs)

    return int(is_wrong)


if __name__ == "__main__":
    sys.exit(main())
