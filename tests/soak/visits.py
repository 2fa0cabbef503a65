"""Visits whose pages are left, each in a way that its number and the seed give."""

from __future__ import annotations

import asyncio
import collections.abc as c
import contextlib
import dataclasses
import itertools
import json
import os
import random
import signal
import sys
import typing as t
from pathlib import Path
from urllib.parse import urlencode, urlsplit

from playwright.async_api import Browser, BrowserContext, Error, Page, Playwright

from ..agents import CHROME, FIREFOX
from ..needs import need
from .site import PARTS, Network, SoakSite

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]

#: What the page itself does to be left.
BY_PAGE = {
    "window.close": "window.close()",
    "link": "document.querySelector('a').click()",
    "location": "location.href = '/rest'",
    "stop": "window.stop(); location.href = '/rest'",
    "reload": "if (!sessionStorage.again) location.reload(sessionStorage.again = 1)",
}
RELOADED = "performance.getEntriesByType('navigation')[0].type === 'reload'"
#: What the browser does, whatever is on the page.
BY_BROWSER = ("close", "goto", "quit", "offline", "crash")
#: How a page's request is made, and broken off.
FETCHES = (
    "const c = new AbortController(); setTimeout(() => c.abort(), ABORT);"
    "fetch('URL', {signal: c.signal}).catch(() => 0);",
    "const x = new XMLHttpRequest(); x.open('GET', 'URL'); x.send();"
    "setTimeout(() => x.abort(), ABORT);",
    "fetch('URL').catch(() => 0);",
)
#: The parts as Chromium takes them.
GLOBS = {
    "script": ["*/_mengpaneel/static/*"],
    "library": ["*/library.js"],
    "endpoint": ["*/_mengpaneel/acks", "*/_mengpaneel/calls"],
    "API": ["*/track/*", "*/engage/*", "*/groups/*"],
}
#: Firefox takes more memory with each.
VISITS_OF_A_BROWSER = 50
#: How many pages an ordinary visitor reads.
PAGES_READ = 5
#: Seconds that a step of a visit may take on a busy machine.
PATIENCE = 30


@dataclasses.dataclass
class Visit:
    """How a page is visited and left."""

    number: int
    way: str
    #: What is kept from the visitor; by whom.
    blocked: tuple[str, ...]
    by_browser: bool
    has_javascript: bool
    network: Network
    #: Milliseconds after which the page is left.
    after: int
    #: Whether these run from the moment when the page is loaded, or from its start.
    is_loaded: bool
    path: str

    @classmethod
    def of(cls, number: int, seed: int) -> Visit:
        """The visit of this number: always the same."""
        chance = random.Random(f"{seed} {number}")
        ways = [*BY_PAGE, *BY_BROWSER]
        way = ways[number % len(ways)]
        after = chance.choice([0, chance.randint(0, 600)])
        has_javascript = way in BY_PAGE or chance.random() > 0.2
        blocked: tuple[str, ...] = ()

        if chance.random() < 0.5:
            blocked = tuple(chance.sample(list(PARTS), chance.choice([1, 1, 1, 2, 4])))

        # What a page opens, nothing has been told of.
        by_browser = way != "window.close" and chance.random() < 0.5
        network = Network(
            broken=() if by_browser else blocked,
            since=chance.choice([0, 0, 1, 2, 3, 4, 6]),
            delays={part: chance.choice([0, 0, chance.random() / 2]) for part in PARTS},
        )
        options: dict[str, t.Any] = {"events": chance.choice([1, 1, 2, 5])}

        if chance.random() < 0.6:
            options["user"] = f"user-{number}"

        actions = ""

        if chance.random() < 0.5:
            # It says itself whose it is: Firefox removes the cookies of a profile that
            # is closed before its pages are gone.
            query = {"wait": chance.choice([0, 0.2]), "user": options.get("user", "")}
            url = f"/api/{number}?{urlencode(query)}"
            fetch = chance.choice(FETCHES).replace("URL", url)
            fetch = fetch.replace("ABORT", str(chance.randint(0, 400)))
            actions = f"setTimeout(() => {{ {fetch} }}, {chance.randint(0, 400)});"

        if way in BY_PAGE:
            leave = f"setTimeout(() => {{ {BY_PAGE[way]} }}, {after})"
            is_loaded = chance.random() < 0.5
            actions += (
                f"addEventListener('load', () => {leave})" if is_loaded else leave
            )

        start = "go" if chance.random() < 0.3 else "page"
        page = urlencode({**options, "do": actions})
        return cls(
            number,
            way,
            blocked,
            by_browser,
            has_javascript,
            network,
            after,
            chance.random() < 0.5,
            f"/{start}/{number}?{page}",
        )

    def __str__(self) -> str:
        return json.dumps(dataclasses.asdict(self), default=str)


def _started_by(process: int) -> c.Iterator[tuple[int, list[bytes]]]:
    """The processes that one has started, and that those have: ids, and the words of
    their commands."""
    tasks = Path(f"/proc/{process}/task")

    try:
        threads = os.listdir(tasks)
    except (FileNotFoundError, ProcessLookupError):
        # It has ended meanwhile.
        return

    for thread in threads:
        for child in map(int, _read(tasks / thread / "children").split()):
            # Firefox's write theirs anew, as one text.
            command = _read(Path(f"/proc/{child}/cmdline")).replace(b"\0", b" ")
            yield child, command.split()
            yield from _started_by(child)


def _read(path: Path) -> bytes:
    """What is told of a process: nothing if it has ended meanwhile."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def _firefoxes() -> c.Iterator[int]:
    """The Firefoxes that this process has under control."""
    for pid, command in _started_by(os.getpid()):
        if any(b"--remote-debugging-port" in option for option in command):
            yield pid


class Visitors:
    """Browsers' visitors, some of them at a time.

    :param browser: ``"chromium"`` or ``"firefox"``.
    """

    def __init__(self, playwright: Playwright, browser: str, site: SoakSite) -> None:
        self.name = browser
        #: What went wrong with the means of leaving: not with what is tested.
        self.troubles: list[str] = []
        self._playwright = playwright
        self._site = site
        self._browser: Browser | None = None
        self._lock = asyncio.Lock()

    async def browser(self) -> Browser:
        """The browser; another one, if it has died."""
        async with self._lock:
            if self._browser is None or not self._browser.is_connected():
                self._browser = await self._launch()

            return self._browser

    async def close(self) -> None:
        if self._browser is not None:
            await self._browser.close()
            self._browser = None

    async def _launch(self) -> Browser:
        if self.name == "firefox":
            return await self._playwright.firefox.launch(
                channel="moz-firefox",
                executable_path=need("firefox"),
                # Else a page can't close itself.
                firefox_user_prefs={"dom.allow_scripts_to_close_windows": True},
            )

        return await self._playwright.chromium.launch(
            executable_path=need("chromium"), args=FLAGS
        )

    async def context(
        self, number: int, browser: Browser | None = None, **options: t.Any
    ) -> BrowserContext:
        """A browser profile without history."""
        agent = FIREFOX if self.name == "firefox" else CHROME
        context = await (browser or await self.browser()).new_context(
            user_agent=f"{agent} Visitor/{number}", **options
        )
        context.set_default_timeout(PATIENCE * 1000)
        return context

    async def each(
        self, numbers: c.Iterable[int], visit: c.Callable[[int], t.Any], at_once: int
    ) -> None:
        """Make visits, some of them at a time, in one browser after another."""
        waiting = iter(numbers)

        while some := list(itertools.islice(waiting, VISITS_OF_A_BROWSER)):
            await self._each(some, visit, at_once)
            await self.close()
            print(f"visit {some[-1]} is over", file=sys.stderr)

    async def _each(
        self, numbers: c.Iterable[int], visit: c.Callable[[int], t.Any], at_once: int
    ) -> None:
        waiting = iter(numbers)

        async def go_on() -> None:
            for number in waiting:
                try:
                    await asyncio.wait_for(visit(number), 4 * PATIENCE)
                except (Error, TimeoutError) as error:
                    self.troubles.append(f"{number}: {error!r:.300}")

        await asyncio.gather(*(go_on() for _ in range(at_once)))

    async def leave(self, visit: Visit) -> None:
        """Make a visit whose page is left."""
        self._site.networks.of[visit.number] = visit.network

        if visit.way == "crash" and self.name == "firefox":
            async with self._firefox_to_crash() as (browser, crash):
                await self._leave_in(browser, visit, crash)
        else:
            await self._leave_in(None, visit)

    @contextlib.asynccontextmanager
    async def _firefox_to_crash(
        self,
    ) -> c.AsyncIterator[tuple[Browser, c.Callable[[], None]]]:
        """A Firefox of its own, and what kills the processes of its pages: those of
        several pages are often in one, and nothing tells which."""
        async with self._lock:
            before = set(_firefoxes())
            browser = await self._launch()
            (process,) = set(_firefoxes()) - before

        def crash() -> None:
            pages = [
                pid
                for pid, command in _started_by(process)
                if b"-contentproc" in command and command[-1] == b"tab"
            ]

            if not pages:
                raise Error("no process of pages was found to be killed")

            for pid in pages:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

        try:
            yield browser, crash
        finally:
            await browser.close()

    async def _leave_in(
        self,
        browser: Browser | None,
        visit: Visit,
        crash: c.Callable[[], None] | None = None,
    ) -> None:
        context = await self.context(
            visit.number, browser, java_script_enabled=visit.has_javascript
        )

        try:
            page = await self._new_page(context)

            if visit.by_browser:
                await self._block(context, page, visit.blocked)

            url = self._site.url + visit.path

            if visit.way == "window.close":
                await self._open(page, url)
            elif visit.way in BY_PAGE:
                await self._go(page, url, "commit")
            else:
                until = "load" if visit.is_loaded else "commit"
                await self._go(page, url, until)
                await asyncio.sleep(visit.after / 1000)

            if crash is not None:
                crash()
            else:
                await self._leave(context, page, visit)
        finally:
            await context.close()

    @staticmethod
    async def _new_page(context: BrowserContext) -> Page:
        for _ in range(5):
            try:
                return await context.new_page()
            except Error as error:
                # Firefox, where another window is closed at that moment.
                if "selectedTab" not in str(error):
                    raise

                await asyncio.sleep(0.1)

        return await context.new_page()

    @staticmethod
    async def _go(page: Page, url: str, until: t.Any) -> None:
        try:
            await page.goto(url, wait_until=until)
        except Error as error:
            # Pages that are left before they are there.
            known = ("interrupted", "ABORTED", "detached", "closed", "crashed")
            if not any(word in str(error) for word in (*known, "NS_BINDING")):
                raise

    async def _open(self, opener: Page, url: str) -> None:
        """Open a page that can close itself, and wait until it has."""
        await opener.goto(f"{self._site.url}/rest")

        async with opener.expect_popup() as popup:
            await opener.evaluate("url => { window.open(url) }", url)

        opened = await popup.value

        if not opened.is_closed():
            await opened.wait_for_event("close")

    async def _leave(self, context: BrowserContext, page: Page, visit: Visit) -> None:
        way = visit.way

        if way == "close":
            await page.close()
        elif way == "goto":
            await self._go(page, f"{self._site.url}/rest", "commit")
        elif way == "offline":
            await context.set_offline(True)
            await page.close()
        elif way == "crash":
            session = await context.new_cdp_session(page)

            async with page.expect_event("crash"):
                # It is never answered.
                crash = asyncio.ensure_future(session.send("Page.crash"))

            crash.cancel()
        elif way == "reload":
            # Chromium sometimes never closes a page in the middle of it.
            await page.wait_for_function(RELOADED)
            await asyncio.sleep(visit.after / 1000)
        elif way in BY_PAGE and way != "window.close":
            await page.wait_for_url("**/rest")

    async def _block(
        self, context: BrowserContext, page: Page, parts: c.Sequence[str]
    ) -> None:
        """Have the browser block parts, as its extensions do."""
        if self.name == "chromium":
            urls = [glob for part in parts for glob in GLOBS[part]]
            session = await context.new_cdp_session(page)
            await session.send("Network.enable")
            await session.send("Network.setBlockedURLs", {"urls": urls})
        elif parts:
            patterns = [PARTS[part] for part in parts]
            await context.route(
                lambda url: any(one.match(urlsplit(url).path) for one in patterns),
                lambda route: route.abort(),
            )

    async def read(self, number: int, seed: int) -> None:
        """Make an ordinary visit: some pages are read and gone on from."""
        chance = random.Random(f"{seed} {number}")
        context = await self.context(number)

        try:
            page = await self._new_page(context)
            user = chance.choice(["", f"user-{number}"])

            for step in range(PAGES_READ):
                start = "go" if chance.random() < 0.2 else "page"
                query = {"events": chance.choice([1, 1, 2]), "user": user}
                path = f"/{start}/{number * PAGES_READ + step}"
                url = f"{self._site.url}{path}?{urlencode(query)}"

                if step:
                    # As a click does.
                    await page.evaluate("url => { location.href = url }", url)
                    await page.wait_for_url(f"**/page/{number * PAGES_READ + step}?**")
                else:
                    await page.goto(url)

                await page.wait_for_load_state("load")
                read_for = chance.uniform(2, 4)

                if chance.random() < 0.4:
                    await asyncio.sleep(read_for / 4)
                    api = f"/api/{number * PAGES_READ + step}"
                    await page.evaluate("url => { fetch(url) }", api)
                    read_for *= 3 / 4

                await asyncio.sleep(max(read_for, 2))

            await page.close(run_before_unload=True)
        finally:
            await context.close()
