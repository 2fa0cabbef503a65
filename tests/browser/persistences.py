"""The same clicks, wherever the browser library keeps a visitor, whoever loads it, and
whichever way calls go.

What becomes of them is compared with what the library alone would have made of them, in
a page that makes all calls itself: persons, devices and times. The whole table:

    PYTHONPATH=tests python tests/browser/persistences.py

With words, the cells that have all of them: `chromium localStorage untold`. The exit
status is 1 if there is any difference.
"""

from __future__ import annotations

import argparse
import collections.abc as c
import concurrent.futures
import functools
import itertools
import json
import multiprocessing
import os
import sys
import tempfile
import time
import typing as t
from pathlib import Path

from journey import DEVICE, LIBRARY, LOADED, SERVER_ONLY, WAYS, OpenShop, Shop
from merges import Event, original, simplified
from playwright.sync_api import Browser, BrowserContext, sync_playwright
from playwright.sync_api import Page as Tab

from needs import need
from waiting import wait_until

#: Where the library keeps the visitor: options of its ``init``.
PERSISTENCES: dict[str, dict[str, t.Any]] = {
    "cookie": {},
    "localStorage": {"persistence": "localStorage"},
    "disabled": {"disable_persistence": True},
    "named": {"persistence_name": "shop"},
    "named localStorage": {"persistence": "localStorage", "persistence_name": "shop"},
    "one host": {"cross_subdomain_cookie": False},
}

#: What Mixpanel tells everybody to begin with.
QUICKSTART = {
    "autocapture": True,
    "record_sessions_percent": 100,
    "record_heatmap_data": True,
    "recorder_src": "/npm/mixpanel-browser/dist/mixpanel-recorder.min.js",
}
_SNIPPET = LIBRARY.replace("mixpanel.min", "mixpanel-jslib-snippet.min")
_MODULE = LIBRARY.replace("mixpanel.min", "mixpanel.module")

#: Who loads the library: what of it is in the page.
LOADERS = {
    "ours": "",
    "snippet": f"""<script>MIXPANEL_CUSTOM_LIB_URL = "{LIBRARY}"</script>
        <script src="{_SNIPPET}"></script>
        <script>mixpanel.init("TOKEN", OPTIONS)</script>""",
    "bundle": f"""<script type="module">
        import mixpanel from "{_MODULE}";
        mixpanel.init("TOKEN", OPTIONS);
        window.library = mixpanel;
        window.Mengpaneel?.use(library);</script>""",
    "instance": f"""<script type="module">
        import mixpanel from "{_MODULE}";
        window.library = mixpanel.init("TOKEN", OPTIONS, "named");
        window.Mengpaneel?.use(library);</script>""",
}

#: Which way calls go: the shop's options.
CHAINS: dict[str, dict[str, t.Any]] = {
    **WAYS,
    "no Delayed": {
        "strategies": [
            "ClientSide",
            "CapableClientSide",
            "AsyncServerSide",
            "ServerSide",
        ]
    },
}

#: Whose each event is, by Mixpanel's two merges of ids.
MERGES = {"simplified": simplified, "original": original}


class Cell(t.NamedTuple):
    """One way to make the journey."""

    persistence: str
    loader: str
    chain: str = "all ways"
    #: Whether the app knows what the page says to the library.
    is_told: bool = True
    merge: str = "simplified"

    @property
    def has_library(self) -> bool:
        """Whether there is a library in the pages."""
        return self.loader != "ours" or self.chain != "server-only"

    @property
    def is_possible(self) -> bool:
        """Whether the app can see the library's visitor, if there is one.

        Without a script in its pages it sees the library's cookie, and nothing else;
        the doctor says so.
        """
        if self.loader == "ours" and not self.is_told:
            return False

        if self.chain != "server-only":
            return True

        options = PERSISTENCES[self.persistence]
        is_seen = not {"persistence", "disable_persistence"} & options.keys()
        is_known = self.is_told or "persistence_name" not in options
        return is_seen and is_known if self.has_library else not options


READY = "() => (window.library || window.mixpanel)?.__loaded === true"


class Step(t.NamedTuple):
    """A click, and what is tracked by it."""

    path: str
    #: Whether a script of the page asks for it.
    by_fetch: bool = False
    #: How many events happen before the page is left, and after that.
    before: int = 0
    after: int = 1
    #: Who is signed in from then on, if that changes; "": nobody.
    user: str | None = None


STEPS = [
    Step("/"),
    Step("/go?to=/products/2", after=2),
    Step("/cart/1", by_fetch=True),
    Step("/api/sign-up?user=ann", by_fetch=True, user="ann"),
    Step("/products/3"),
    Step("/sign-out", before=1, user=""),
    Step("/products/1"),
    Step("/api/sign-in?user=bob", by_fetch=True, user="bob"),
    Step("/cart/2", by_fetch=True),
    Step("/switch/eve?to=/products/2", before=1, user="eve"),
    Step("/api/sign-out", by_fetch=True, before=1, after=0, user=""),
    Step("/cart/3", by_fetch=True),
    Step("/products/3"),
]
#: On another device.
OTHER_STEPS = [
    Step("/products/1"),
    Step("/api/sign-in?user=ann", by_fetch=True, user="ann"),
    Step("/products/2"),
]

#: Whether the app sees whom a library knows of whose options it isn't told.
IS_SHOWN = """isNamed => /mp_TOKEN_mengpaneel/.test(document.cookie)
    || !isNamed && /mp_TOKEN_mixpanel/.test(document.cookie)"""
FETCH = "path => fetch(path, {method: 'POST'}).then(answer => answer.text())"
#: What outlives the page, as the app's events do.
TRACK = """properties => (window.library || window.mixpanel).track(
    "Event", properties, {send_immediately: true, transport: "sendBeacon"},
)"""
LEAVE = """() => {
    const form = document.querySelector("form[action='/sign-out']");
    form.submit();
}"""

#: The property that has the number of an event of the app, and of the page's own.
APP, PAGE = "Number", "Own Number"


class Seen(t.NamedTuple):
    """What Mixpanel knows of an event."""

    #: The property that has its number.
    by: str
    person: str
    device: str
    #: What it says of the device.
    client: tuple[t.Any, ...]
    #: By how many seconds its time misses the moment at which it happened.
    off: float
    #: Whether it happened while a page was left for another.
    is_leaving: bool


Moments = dict[tuple[str, int], tuple[float, float]]


class Clicks:
    """What happened by the clicks: events in order, and when each of them did."""

    def __init__(self) -> None:
        self.moments: Moments = {}
        #: Those that happened while a page was left for another.
        self.leaving: set[tuple[str, int]] = set()

    def leave(self, step: Step, since: int) -> None:
        """Note which events happened while a page was left.

        :param since: how many there were before the click.
        """
        if not step.by_fetch:
            self.leaving |= {*[*self.moments][since:][: step.before]}

    def track(self, tab: Tab, by: str) -> None:
        """Let the page track an event."""
        number = sum(one == by for one, _ in self.moments)
        earliest = time.time()
        tab.evaluate(TRACK, {by: number})
        self.moments[by, number] = earliest, time.time()

    def seen(self, events: list[Event], merge: str) -> list[Seen]:
        """What Mixpanel knows of these events."""
        found = {
            (by, event["properties"][by]): event["properties"]
            for event in events
            for by in (APP, PAGE)
            if by in event["properties"]
        }
        people = {by: MERGES[merge](events, by) for by in (APP, PAGE)}
        return [
            Seen(
                by,
                people[by][number],
                found[by, number].get("$device_id", ""),
                tuple(found[by, number].get(name) for name in DEVICE),
                max(earliest - at, at - latest, 0),
                (by, number) in self.leaving,
            )
            for (by, number), (earliest, latest) in self.moments.items()
            for at in [found[by, number]["time"]]
        ]


Contexts = c.Callable[[], BrowserContext]


def go(shop: Shop, tab: Tab, step: Step) -> None:
    """Make a click."""
    if step.by_fetch:
        tab.evaluate(FETCH, step.path)
    elif step.path == "/sign-out":
        tab.evaluate(LEAVE)
        tab.wait_for_url(f"{shop.url}/")
    else:
        tab.goto(shop.url + step.path)


def made(open_shop: OpenShop, contexts: Contexts, cell: Cell) -> list[Seen]:
    """Make the journey with the extension; what the pages track themselves besides is
    a part of it.

    :param contexts: gives a browser profile.
    """
    options = PERSISTENCES[cell.persistence]
    shop = open_shop(
        client_config=options if cell.is_told else {},
        id_merge=cell.merge,
        **CHAINS[cell.chain],
        **({} if cell.loader == "ours" else {"library_url": None}),
    )
    own = {**QUICKSTART, **options, "api_host": "/_mengpaneel/inspector"}
    shop.head = LOADERS[cell.loader].replace("OPTIONS", json.dumps(own))
    clicks = Clicks()
    first = contexts().new_page()
    # The first that the app sees of the visitor is a picture on a page without the
    # library.
    first.goto(f"{shop.url}/old")
    wait_until(lambda: shop.book)

    for tab, steps in ((first, STEPS), (contexts().new_page(), OTHER_STEPS)):
        for step in steps:
            known, before = len(shop.book), len(clicks.moments)
            go(shop, tab, step)

            if cell.has_library:
                tab.wait_for_function(READY)

            if not cell.is_told:
                # Until then the page's requests have no ids.
                is_named = "persistence_name" in options
                tab.wait_for_function(f"() => ({IS_SHOWN})({json.dumps(is_named)})")

            for entry in shop.book[known:]:
                clicks.moments[APP, entry.number] = entry.earliest, entry.latest

            clicks.leave(step, before)

            if cell.has_library:
                clicks.track(tab, PAGE)

        shop.settle(tab)

    events = _arrived(shop, clicks)
    shop.check()
    picture = MERGES[cell.merge](events)[0]
    seen = clicks.seen(events, cell.merge)
    assert picture == seen[0].person or cell.persistence == "disabled", "whose picture?"
    return seen


def made_alone(
    open_shop: OpenShop, contexts: Contexts, persistence: str, merge: str = "simplified"
) -> list[Seen]:
    """Make the journey in pages that make all calls themselves, by the library."""
    shop = open_shop(strategies=SERVER_ONLY)
    own = {**PERSISTENCES[persistence], "api_host": "/_mengpaneel/inspector"}
    # What the app tracks is of another project.
    snippet = LOADERS["snippet"].replace("TOKEN", "ALONE")
    shop.head = snippet.replace("OPTIONS", json.dumps(own))
    clicks = Clicks()

    for steps in (STEPS, OTHER_STEPS):
        tab, user = contexts().new_page(), ""

        for step in steps:
            before = len(clicks.moments)

            for _ in range(step.before):
                clicks.track(tab, APP)

            clicks.leave(step, before)

            user = user if step.user is None else step.user

            if step.user == "":
                tab.evaluate("mixpanel.reset()")

            go(shop, tab, step)
            tab.wait_for_function(LOADED)

            if merge == "original" and "sign-up" in step.path:
                tab.evaluate("user => mixpanel.alias(user)", user)

            if user:
                tab.evaluate("user => mixpanel.identify(user)", user)

            for _ in range(step.after):
                clicks.track(tab, APP)

            clicks.track(tab, PAGE)

    return clicks.seen(_arrived(shop, clicks, "ALONE"), merge)


def _arrived(shop: Shop, clicks: Clicks, token: str = "TOKEN") -> list[Event]:
    """Wait for what has happened; all events of the project in order of arrival."""

    def events() -> list[Event]:
        found = shop.inspector.events()
        return [event for event in found if event["properties"]["token"] == token]

    def are_all_there() -> bool:
        found = [event["properties"] for event in events()]
        return all(
            any(properties.get(by) == number for properties in found)
            for by, number in clicks.moments
        )

    assert wait_until(are_all_there), "not all has arrived"
    return events()


def labels(names: c.Iterable[str]) -> list[str]:
    """Persons by their names; those who have none, and devices, by the order in which
    they came."""
    seen: dict[str, str] = {}
    found = []

    for name in names:
        if name not in USERS:
            name = seen.setdefault(name, f"{len(seen) + 1}")

        found.append(name)

    return found


USERS = {step.user for step in STEPS + OTHER_STEPS if step.user}

#: What is compared: what there is of it in a list of events.
ASPECTS: dict[str, c.Callable[[list[Seen]], list[t.Any]]] = {
    "persons": lambda seen: labels(one.person for one in seen),
    "devices": lambda seen: [
        (device, *one.client)
        for device, one in zip(labels(one.device for one in seen), seen, strict=True)
    ],
    # What browsers and servers call a moment isn't the same to the last digit.
    "times": lambda seen: [one.off < 0.05 for one in seen],
}


def compare(found: list[Seen], alone: list[Seen], cell: Cell) -> dict[str, list[t.Any]]:
    """What differs: the number of an event, what is found of it, and what the library
    alone has."""
    if not cell.has_library:
        alone = [one for one in alone if one.by == APP]

    differences = {}

    for name, aspect in ASPECTS.items():
        pair = found, alone

        # A library that forgets with the page has a device for each. What a request
        # does that leaves a page is of the next one; and where what waits in the
        # session is never taken up, the server goes on with the device that waits.
        if name == "devices" and cell.persistence == "disabled":
            waits = cell.chain == "Delayed"
            pair = tuple(
                [one for one in seen if not (one.is_leaving or waits)] for seen in pair
            )

        both = itertools.zip_longest(*map(aspect, pair))
        differences[name] = [
            (number, *two) for number, two in enumerate(both) if two[0] != two[1]
        ]

    return {name: some for name, some in differences.items() if some}


# -- the whole table

#: What apps are tried with that don't know what their pages say to the library: pages
#: with and without calls, and no script.
_UNTOLD_CHAINS = {"all ways", "AsyncServerSide", "server-only"}
#: What the original merge is tried with.
_ORIGINAL_CHAINS = {"all ways", "server-only"}


def cells() -> c.Iterator[Cell]:
    """All cells of the table."""
    for merge, chain, persistence, loader, is_told in itertools.product(
        MERGES, CHAINS, PERSISTENCES, LOADERS, (True, False)
    ):
        cell = Cell(persistence, loader, chain, is_told, merge)
        is_tried = is_told or chain in _UNTOLD_CHAINS

        if merge == "original":
            is_tried = is_told and chain in _ORIGINAL_CHAINS

        if is_tried and cell.is_possible:
            yield cell


@functools.cache
def _launch(name: str) -> Browser:
    channel = {"channel": "moz-firefox"} if name == "firefox" else {}
    kind = getattr(_playwright(), name)
    return t.cast(Browser, kind.launch(executable_path=need(name), **channel))


@functools.cache
def _playwright() -> t.Any:
    return sync_playwright().start()


def _try(
    folder: str, browser: str, journey: c.Callable[..., list[Seen]], *arguments: t.Any
) -> list[Seen] | str:
    """Make a journey; the error as a text, if it fails.

    :param folder: in which there is one for each shop, until all are closed for good.
    """
    opened: list[t.Any] = []

    def open_shop(**options: t.Any) -> Shop:
        opened.append(Shop(Path(tempfile.mkdtemp(dir=folder)), **options))
        return t.cast(Shop, opened[-1])

    def contexts() -> BrowserContext:
        opened.append(_launch(browser).new_context())
        return t.cast(BrowserContext, opened[-1])

    try:
        return journey(open_shop, contexts, *arguments)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    finally:
        for one in reversed(opened):
            one.close()


Row = tuple[str, str, str, str]


def _row(browser: str, cell: Cell) -> Row:
    loader = cell.loader if cell.is_told else f"{cell.loader}, untold"
    return browser, cell.merge, cell.persistence, loader


def _names(browser: str, cell: Cell) -> set[str]:
    told = "told" if cell.is_told else "untold"
    return {browser, cell.merge, cell.persistence, cell.loader, cell.chain, told}


def _said(name: str, seen: list[Seen] | str | None) -> str:
    """What a cell of the table says of an aspect."""
    if not seen or isinstance(seen, str):
        return "failed" if seen else ""

    if name == "times":
        return f"{1000 * max(one.off for one in seen):.0f} ms"

    return str(len(set(ASPECTS[name](seen))))


class Results:
    """What has come out."""

    def __init__(self) -> None:
        self.differences: list[str] = []
        self._found: dict[Row, dict[str, list[Seen] | str]] = {}

    def add(
        self,
        browser: str,
        cell: Cell,
        seen: list[Seen] | str,
        alone: list[Seen] | str,
    ) -> None:
        row = _row(browser, cell)
        self._found.setdefault(row, {"alone": alone})[cell.chain] = seen
        name = ", ".join([*row, cell.chain])

        if isinstance(seen, str) or isinstance(alone, str):
            differences = [seen if isinstance(seen, str) else f"alone: {alone}"]
        else:
            differences = [
                f"{aspect}: {some}"
                for aspect, some in compare(seen, alone, cell).items()
            ]

        print(f"{name}: {', '.join(differences) or 'as alone'}", flush=True)
        self.differences += [f"{name}: {one}" for one in differences]

    def print(self, aspect: str) -> None:
        """Print the table of an aspect."""
        columns = ["alone", *CHAINS]
        print(f"\n## {aspect}\n")
        print("|", " | ".join(["browser", "merge", "kept in", "loader", *columns]), "|")
        print("|---" * (4 + len(columns)) + "|")

        for row, found in self._found.items():
            texts = [_said(aspect, found.get(column)) for column in columns]
            print("|", " | ".join([*row, *texts]), "|")


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", help="that the cells' names have")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    options = parser.parse_args()
    chosen = [
        (browser, cell)
        for browser in ("chromium", "firefox")
        for cell in cells()
        if {*options.words} <= _names(browser, cell)
    ]
    results = Results()

    # Processes, since Playwright has one thread.
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        concurrent.futures.ProcessPoolExecutor(
            options.jobs, multiprocessing.get_context("spawn")
        ) as pool,
    ):

        @functools.cache
        def alone(browser: str, *key: str) -> concurrent.futures.Future[t.Any]:
            return pool.submit(_try, folder, browser, made_alone, *key)

        found = [
            (
                browser,
                cell,
                alone(browser, cell.persistence, cell.merge),
                pool.submit(_try, folder, browser, made, cell),
            )
            for browser, cell in chosen
        ]

        for browser, cell, expected, seen in found:
            results.add(browser, cell, seen.result(), expected.result())

    for aspect in ASPECTS:
        results.print(aspect)

    many = len(results.differences)
    print(f"\n{len(chosen)} cells, {many} differences")
    return int(many > 0)


if __name__ == "__main__":
    sys.exit(main())
