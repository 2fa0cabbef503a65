"""What a page's own requests get is the same with the script as without it."""

from __future__ import annotations

import typing as t

import pytest
from playwright.sync_api import Page as Tab
from script_pages import TOKEN, Page, ScriptSite, track

from waiting import wait_until

# Each gives what the page's code can see of a request.
REQUESTS = {
    "text": "fetch('/api/x').then(seen)",
    "url": "fetch(new URL('/api/x', location)).then(seen)",
    "request": "fetch(new Request('/api/x', {method: 'POST', body: 'b'})).then(seen)",
    "request and init": """fetch(new Request('/api/x', {headers: {A: '1'}}),
        {method: 'POST', body: 'b', headers: {B: '2'}}).then(seen)""",
    "headers": "fetch('/api/x', {headers: [['A', '1']], method: 'PUT'}).then(seen)",
    "request as init": """fetch('/api/x',
        new Request('/elsewhere', {method: 'PUT', body: 'b'}).clone()).then(seen)""",
    "stream": """fetch('/api/x', {method: 'POST', duplex: 'half',
        body: new Blob(['streamed']).stream()}).then(seen)""",
    "keepalive": """fetch('/api/x',
        {method: 'POST', body: 'b', keepalive: true}).then(seen)""",
    "no-cors": "fetch('/api/x', {mode: 'no-cors'}).then(seen)",
    "same-origin": "fetch('/api/x', {mode: 'same-origin'}).then(seen)",
    "navigate": "fetch('/api/x', {mode: 'navigate'}).then(seen)",
    "manual": "fetch('/redirect?to=/api/x', {redirect: 'manual'}).then(seen)",
    "redirected": "fetch('/redirect?to=/api/x').then(seen)",
    "other origin": "fetch(other + '/elsewhere').then(seen)",
    "data": "fetch('data:,hello').then(seen)",
    "blob": "fetch(URL.createObjectURL(new Blob(['b']))).then(seen)",
    "bad url": "fetch('http://[').then(seen)",
    "bad header": "fetch('/api/x', {headers: {'a b': '1'}}).then(seen)",
    "bad method": "fetch('/api/x', {method: 'TRACE'}).then(seen)",
    "no argument": "fetch().then(seen)",
    "aborted": """(() => { const stop = new AbortController();
        const answer = fetch('/api/given-up', {signal: stop.signal}).then(seen);
        stop.abort(); return answer; })()""",
    "unreachable": "fetch('http://127.0.0.1:9/').then(seen)",
    "unbound": "(0, fetch)('/api/x').then(seen)",
    "request kept": """(() => { const request = new Request('/api/x');
        return fetch(request).then(() => [...request.headers].join()); })()""",
    "xhr": "xhr(r => { r.open('GET', '/api/x'); r.send(); })",
    "xhr post": """xhr(r => { r.open('POST', '/api/x'); r.setRequestHeader('A', '1');
        r.send('b'); })""",
    "xhr json": """xhr(r => { r.open('POST', '/api/x'); r.responseType = 'json';
        r.send('[1]'); })""",
    "xhr abort": "xhr(r => { r.open('GET', '/api/given-up'); r.send(); r.abort(); })",
    "xhr unsent": "xhr(r => { r.open('GET', '/api/x'); r.abort(); r.onloadend(); })",
    "xhr again": """xhr(r => { r.open('GET', '/api/x'); r.open('GET', '/api/y');
        r.send(); })""",
    "xhr sync": "xhr(r => { r.open('GET', '/api/x', false); r.send(); })",
    "xhr other": "xhr(r => { r.open('GET', other + '/elsewhere'); r.send(); })",
    "xhr unreachable": "xhr(r => { r.open('GET', 'http://127.0.0.1:9/'); r.send(); })",
    "xhr bad url": "xhr(r => r.open('GET', 'http://['))",
    "xhr bad method": "xhr(r => r.open('TRACE', '/api/x'))",
}

OBSERVE = """
async ([code, other]) => {
  const seen = async (r) =>
    [r.status, r.type, r.ok, r.redirected, r.url.split(':')[0], await r.text()];
  const xhr = (start) => new Promise((resolve, reject) => {
    const r = new XMLHttpRequest(), events = [];
    const names = 'readystatechange loadstart progress load error abort';
    for (const name of names.split(' '))
      r.addEventListener(name, () => events.push(name + r.readyState));
    r.onloadend = () => setTimeout(() => resolve([events, r.status, r.response]));
    try { start(r); } catch (error) { reject(error); }
  });
  try {
    return JSON.stringify(await eval(code));
  } catch (error) {
    return `${error.name}: ${error.message}`;
  }
}
"""


def test_requests_are_the_same_with_the_script(site: ScriptSite, page: Tab) -> None:
    site.pages["/with"] = Page(data=site.data())
    site.pages["/without"] = Page(script="")
    other = site.api.url.replace("127.0.0.1", "localhost")
    answers: list[dict[str, str]] = []

    for path in ["/with", "/without"]:
        page.goto(site.url + path)

        if path == "/with":
            page.wait_for_function("window.mixpanel.__loaded")

        answers.append({})

        for name, code in REQUESTS.items():
            site.seen.clear()
            answer = page.evaluate(OBSERVE, [code, other])
            # Whether a request that is given up still leaves is a race, and so is when.
            bodies = [seen[:2] for seen in site.seen if seen[0] != "given-up"]
            answers[-1][name] = f"{answer} {bodies}"

    assert answers[0] == answers[1]


def ready(site: ScriptSite, page: Tab, **attributes: t.Any) -> None:
    site.pages["/home"] = Page(data=site.data(), **attributes)
    page.goto(site.url + "/home")
    page.wait_for_function("window.mixpanel.__loaded")


ANNOUNCED = {
    "fetch('/api/a')": True,
    "fetch(new Request('/api/a'))": True,
    "fetch(new URL('/api/a', location), {method: 'POST'})": True,
    "fetch('api/a')": True,
    "fetch('/api/a', {headers: {'X-Sec-Purpose': 'prefetch'}})": False,
    "fetch('/api/private/a')": False,
    "fetch('/api/private/a', {method: 'POST'})": False,
}


@pytest.mark.parametrize("code", ANNOUNCED)
def test_requests_to_the_own_site_are_announced(
    site: ScriptSite, page: Tab, code: str
) -> None:
    script = '<script src="/mengpaneel.js" data-exclude="/none /api/private"></script>'
    ready(site, page, script=script)
    page.evaluate(f"() => {code}.then(r => r.text())")
    expected = f"true; project={TOKEN}" if ANNOUNCED[code] else None
    assert site.seen[-1][2] == expected


def test_nothing_is_announced_before_the_library_is_there(
    site: ScriptSite, page: Tab
) -> None:
    site.library_delay = 2
    site.pages["/home"] = Page(data=site.data())
    page.goto(site.url + "/home", wait_until="commit")
    page.wait_for_selector("body", state="attached")
    page.evaluate("() => fetch('/api/a').then(r => r.text())")
    assert not site.capable("a")


def test_calls_are_made_before_the_pages_own_code_goes_on(
    site: ScriptSite, page: Tab
) -> None:
    ready(site, page)
    site.calls["a"] = [[["register"], [{"Step": 1}]]]
    step = "() => fetch('/api/a').then(() => mixpanel.get_property('Step'))"
    assert page.evaluate(step) == 1


def test_another_sites_header_is_not_believed(site: ScriptSite, page: Tab) -> None:
    ready(site, page)
    other = site.api.url.replace("127.0.0.1", "localhost").rsplit(":", 1)[0]
    target = f"{other}:{site.url.rsplit(':', 1)[1]}/elsewhere"
    page.evaluate("(url) => fetch(url).then(r => r.text())", target)
    page.evaluate(
        """(url) => new Promise(done => { const r = new XMLHttpRequest();
        r.open('GET', url); r.onloadend = done; r.send(); })""",
        target,
    )
    site.calls["a"] = [track("Own")]
    page.evaluate("() => fetch('/api/a').then(r => r.text())")
    assert wait_until(lambda: site.api.events)
    assert site.api.events == ["Own"]


def test_an_object_that_is_used_again_makes_each_answers_calls_once(
    site: ScriptSite, page: Tab
) -> None:
    ready(site, page)
    site.calls = {"a": [track("A")], "b": [track("B")]}
    page.evaluate(
        """async () => { const r = new XMLHttpRequest();
        r.open('GET', '/api/b'); r.open('GET', '/api/b');
        for (const url of ['/api/a', '/api/b', '/api/none'])
          await new Promise(done => {
            r.open('GET', url); r.onload = done; r.send(); }); }"""
    )
    wait_until(lambda: len(site.api.events) == 2)
    assert site.api.events == ["A", "B"]


@pytest.mark.browsers(
    "chromium", why="Firefox says it on the console, where the others may say nothing"
)
def test_a_rejected_fetch_that_nobody_handles_is_still_reported(
    site: ScriptSite, page: Tab
) -> None:
    ready(site, page)
    count = page.evaluate(
        """() => new Promise(done => { let count = 0;
        window.onunhandledrejection = (e) => { e.preventDefault(); count++; };
        fetch('/api/a', {signal: AbortSignal.abort()});
        setTimeout(() => done(count), 200); })"""
    )
    assert count == 1
