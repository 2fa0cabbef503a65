"""Front-end libraries, script orders and policies that pages really have."""

from __future__ import annotations

import json
import typing as t

import pytest
from playwright.sync_api import ConsoleMessage
from playwright.sync_api import Page as Tab
from script_pages import LIBRARY, TOKEN, Page, ScriptSite, track

from waiting import wait_until

pytestmark = pytest.mark.browsers(
    "chromium", why="what depends on the browser is marked for both"
)


CALLS = [track("First", 1), [["people", "set"], [{"Plan": "pro"}]], track("Second", 2)]
SNIPPET = """
<script>
(function (f) {{ var b = window.mixpanel = window.mixpanel || []; if (b.__SV) return;
  b._i = []; b.init = function (t, c, n) {{ b._i.push([t, c, n || "mixpanel"]); }};
  b.__SV = 1.2; b.people = [];
  var s = document.createElement("script"); s.async = true; s.src = "{library}";
  document.head.appendChild(s); }})();
mixpanel.init("{token}", {{api_host: "{api}"}});
</script>
"""


def snippet(site: ScriptSite) -> str:
    """What pages have that boot the library themselves."""
    return SNIPPET.format(library=LIBRARY, token=TOKEN, api=site.api.url)


def package(path: str) -> str:
    return f'<script src="/npm/{path}"></script>'


LIBRARIES = {
    "jquery": (
        package("jquery/dist/jquery.min.js"),
        "() => new Promise(done => $.get('/api/cart', done))",
    ),
    "axios": (
        package("axios/dist/axios.min.js"),
        "() => axios.get('/api/cart').then(r => r.data)",
    ),
    "axios fetch": (
        package("axios/dist/axios.min.js"),
        "() => axios.get('/api/cart', {adapter: 'fetch'}).then(r => r.data)",
    ),
    "htmx": (
        package("htmx.org/dist/htmx.min.js"),
        """() => htmx.ajax('GET', '/api/cart', {target: 'main'})
            .then(() => document.querySelector('main').textContent)""",
    ),
}


@pytest.mark.browsers(
    "chromium",
    "firefox",
    why="the others make their requests in the same ways",
    in_firefox={"name": ["axios", "axios fetch", "htmx"], "first": [True]},
)
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("name", LIBRARIES)
def test_libraries_that_make_requests_need_no_adapter(
    site: ScriptSite, page: Tab, name: str, first: bool
) -> None:
    head, code = LIBRARIES[name]
    site.pages["/home"] = Page(data=site.data(), body="<main></main>")
    setattr(site.pages["/home"], "head" if first else "body", head + "<main></main>")
    site.calls["cart"] = [track("Add To Cart", 1)]
    page.goto(site.url + "/home")
    page.wait_for_function("window.mixpanel.__loaded")
    assert page.evaluate(code) == "answer cart"
    assert wait_until(lambda: site.api.events) == ["Add To Cart"]


def test_each_turbo_visit_makes_its_pages_calls_once(
    site: ScriptSite, page: Tab
) -> None:
    turbo = package("@hotwired/turbo/dist/turbo.es2017-umd.js")

    for name in ["one", "two"]:
        site.pages[f"/{name}"] = Page(
            data=site.data([name, [track(name)]]),
            head=turbo,
            body='<a id="one" href="/one">1</a><a id="two" href="/two">2</a>'
            f"<h1>{name}</h1>",
        )

    page.goto(site.url + "/one")
    page.evaluate("window.same = true")

    for name in ["two", "one", "two"]:
        page.click(f"#{name}")
        page.wait_for_selector(f"h1:text-is('{name}')")

    page.go_back()
    page.wait_for_selector("h1:text-is('one')")
    assert page.evaluate("window.same")
    assert wait_until(lambda: len(site.api.events) == 2)
    assert site.api.events == ["one", "two"]


@pytest.mark.parametrize(
    "attributes", ["", "defer", "async", 'type="module"', "twice", "body"]
)
def test_the_script_works_wherever_it_stands(
    site: ScriptSite, page: Tab, attributes: str
) -> None:
    data = site.data(["once", CALLS])
    script = f'<script src="/mengpaneel.js" {attributes}></script>'

    if attributes == "twice":
        script *= 2
    elif "module" in attributes:
        script = '<script type="module" src="/mengpaneel.mjs"></script>'

    if attributes == "body":
        block = Page(data=data, script="").render()
        block = block[block.index("<script") : block.index("</head>")]
        site.pages["/home"] = Page(script=script, body=block)
    else:
        site.pages["/home"] = Page(data=data, script=script)

    page.goto(site.url + "/home")
    assert wait_until(lambda: len(site.api.events) == 2)
    assert site.api.events == ["First", "Second"]


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("library", [None, LIBRARY])
def test_the_pages_own_snippet_is_used(
    site: ScriptSite, page: Tab, before: bool, library: str | None
) -> None:
    data = site.data(["once", CALLS], library=library)
    own = snippet(site)
    site.pages["/home"] = Page(
        data=data, head=own if before else "", body="" if before else own
    )
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(site.url + "/home")
    assert wait_until(lambda: len(site.api.events) == 2)
    assert site.api.events == ["First", "Second"]
    assert len([url for url in requests if LIBRARY in url]) == 1


def test_a_bundled_instance_is_used(site: ScriptSite, page: Tab) -> None:
    bundle = f"""<script type="module">
        import mixpanel from "/npm/mixpanel-browser/dist/mixpanel.module.js";
        mixpanel.init("{TOKEN}", {{api_host: "{site.api.url}"}});
        Mengpaneel.use(mixpanel);
    </script>"""
    site.pages["/home"] = Page(
        data=site.data(["once", CALLS], library=None), body=bundle
    )
    site.calls["cart"] = [track("Add To Cart", 3)]
    page.goto(site.url + "/home")
    assert wait_until(lambda: len(site.api.events) == 2)
    page.evaluate("() => fetch('/api/cart').then(r => r.text())")
    assert wait_until(lambda: len(site.api.events) == 3)


# What a page's elements are called, browsers find in its window and its document.
NAMED = {
    "a div": '<div id="mixpanel"></div><div id="Mengpaneel"></div>',
    "many": '<i id="mixpanel"></i><i id="mixpanel"></i><i id="Mengpaneel"></i>',
    "a form": '<form name="mixpanel"></form><form name="Mengpaneel"></form>',
    "an image": '<img id="mixpanel" name="mixpanel"><img name="Mengpaneel">',
    "a frame": '<iframe name="mixpanel"></iframe><iframe name="Mengpaneel"></iframe>',
    "the data": '<div id="mengpaneel">{}</div><form name="mengpaneel"></form>'
    '<template><script id="mengpaneel"></script></template>',
    "the document": "".join(
        f'<form name="{name}"></form><img name="{name}">'
        for name in (
            "currentScript",
            "documentElement",
            "head",
            "baseURI",
            "prerendering",
            "scripts",
        )
    ),
    "the window": "".join(
        f'<a id="{name}"></a>'
        for name in (
            "localStorage",
            "fetch",
            "origin",
            "navigator",
            "Document",
            "Reflect",
            "trustedTypes",
            "addEventListener",
            "XMLHttpRequest",
        )
    ),
}


@pytest.mark.browsers("chromium", "firefox")
@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("head", [True, False])
def test_what_elements_are_called_is_of_no_matter(
    site: ScriptSite, page: Tab, name: str, head: bool
) -> None:
    block = Page(data=site.data(["once", CALLS])).render()
    block = block[block.index("<script type") : block.index("</head>")]
    script = block.replace("<script src", '<script data-exclude="/api/no" src')
    # Without a head the elements come first, and the script where the body ends.
    site.pages["/home"] = Page(
        script="",
        head=NAMED[name] + script if head else "",
        body="" if head else NAMED[name] + script,
    )
    site.calls = {"cart": [track("Add To Cart", 3)], "no": [track("Never", 4)]}
    page.goto(site.url + "/home")
    assert wait_until(lambda: len(site.api.events) == 2)
    page.evaluate("() => fetch('/api/no').then(() => fetch('/api/cart'))")
    assert wait_until(lambda: len(site.api.events) == 3)
    assert site.api.events == ["First", "Second", "Add To Cart"]


@pytest.mark.browsers("chromium", "firefox")
@pytest.mark.parametrize("name", ["currentScript", "head"])
def test_a_nonce_is_passed_on_whatever_elements_are_called(
    site: ScriptSite, page: Tab, name: str
) -> None:
    policy = f"default-src 'none'; connect-src 'self' {site.api.url}; {{}}"
    site.pages["/home"] = Page(
        data=site.data(["once", CALLS]),
        head=f'<form name="{name}"></form>',
        headers={"Content-Security-Policy": policy.format("script-src 'nonce-abc'")},
        script='<script src="/mengpaneel.js" nonce="abc"></script>',
    )
    page.goto(site.url + "/home")
    assert wait_until(lambda: len(site.api.events) == 2)


def test_inline_calls_before_the_library_are_made_in_order(
    site: ScriptSite, page: Tab
) -> None:
    inline = """<script>
        mixpanel.track("Inline 1");
        mixpanel.get_group("company", "acme").set("Seats", 3);
        mixpanel.people.set("Inline", 1);
        mixpanel.no_such_method();
        mixpanel.track("Inline 2");
        mixpanel.init("OTHER", {api_host: mixpanel._i[0][1].api_host}, "named");
        mixpanel.named.track("Named");
    </script>"""
    site.pages["/home"] = Page(data=site.data(["once", CALLS]), body=inline)
    page.goto(site.url + "/home")
    assert wait_until(lambda: len(site.api.events) == 5)
    assert set(site.api.events) == {"First", "Second", "Inline 1", "Inline 2", "Named"}
    assert site.api.named("Named")["token"] == "OTHER"
    assert any(record.endpoint == "groups" for record in site.api.records)


def test_order_of_identity_is_kept(site: ScriptSite, page: Tab) -> None:
    calls = [
        [["identify"], ["7"]],
        track("Logged out", 1),
        [["reset"], []],
        track("Anonymous", 2),
    ]
    site.pages["/home"] = Page(data=site.data(["once", calls]))
    page.goto(site.url + "/home")
    assert wait_until(lambda: len(site.api.events) == 2)
    assert site.api.named("Logged out")["distinct_id"] == "7"
    assert site.api.named("Anonymous")["distinct_id"].startswith("$device:")


@pytest.mark.browsers(
    "chromium",
    "firefox",
    why="back shows a page there that was kept: see test_identity.py",
    in_firefox={"how": ["reload", "tab"]},
)
@pytest.mark.parametrize("how", ["reload", "back", "tab"])
def test_a_pages_calls_are_made_once(site: ScriptSite, page: Tab, how: str) -> None:
    site.pages["/home"] = Page(data=site.data(["once", CALLS]))
    site.pages["/next"] = Page(data=site.data())
    page.goto(site.url + "/home")
    assert wait_until(lambda: len(site.api.events) == 2)

    if how == "reload":
        page.reload()
    elif how == "back":
        page.goto(site.url + "/next")
        page.go_back()
    else:
        page = page.context.new_page()
        page.goto(site.url + "/home")

    page.wait_for_function("window.mixpanel.__loaded")
    page.goto(site.url + "/next")
    page.wait_for_function("window.mixpanel.__loaded")
    assert site.api.events == ["First", "Second"]


POLICIES = {
    "self": "script-src 'self'",
    "nonce": "script-src 'nonce-abc'",
    "dynamic": "script-src 'nonce-abc' 'strict-dynamic'",
    "types": "script-src 'self'; require-trusted-types-for 'script'",
    "all": "script-src 'nonce-abc' 'strict-dynamic';"
    " require-trusted-types-for 'script'; trusted-types mengpaneel",
}


@pytest.mark.parametrize("name", POLICIES)
def test_strict_policies_let_everything_through(
    site: ScriptSite, page: Tab, name: str
) -> None:
    violations: list[str] = []

    def note(message: ConsoleMessage) -> None:
        if "Security Policy" in message.text or "Trusted" in message.text:
            violations.append(message.text)

    page.on("console", note)
    policy = f"default-src 'none'; connect-src 'self' {site.api.url}; {POLICIES[name]}"
    nonce = ' nonce="abc"' if "nonce" in policy else ""
    site.pages["/home"] = Page(
        data=site.data(["once", CALLS]),
        headers={"Content-Security-Policy": policy},
        script=f'<script src="/mengpaneel.js"{nonce}></script>',
    )
    page.goto(site.url + "/home")
    assert wait_until(lambda: len(site.api.events) == 2)
    assert violations == []


SIGNALS = {"GPC": "globalPrivacyControl: true", "DNT": "doNotTrack: '1'"}


def refuse(page: Tab, signal: str) -> None:
    """Have the browser say that its visitor isn't to be tracked."""
    page.add_init_script(
        f"""for (const [name, value] of Object.entries({{{signal}}}))
            Object.defineProperty(navigator, name, {{value}})"""
    )


@pytest.mark.parametrize("signal", SIGNALS)
def test_a_page_from_a_cache_loads_no_library_for_those_who_refuse(
    site: ScriptSite, page: Tab, signal: str
) -> None:
    site.pages["/home"] = Page(data=site.data(fallback="/calls"))
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    refuse(page, SIGNALS[signal])
    undelivered = [{"text": "[]", "signature": "signed", "calls": []}]
    page.goto(site.url + "/home")
    page.evaluate(
        f"list => localStorage.{TOKEN}_mengpaneel_undelivered = JSON.stringify(list)",
        undelivered,
    )
    page.goto(site.url + "/home", wait_until="load")
    page.evaluate("() => fetch('/api/cart').then(r => r.text())")
    assert not any(LIBRARY in url for url in requests)
    assert page.evaluate("window.mixpanel.__loaded") == 0
    # What stands in for it does nothing, and throws nothing.
    page.evaluate("mixpanel.track('Click')")
    assert not site.capable("cart")
    assert site.handed_back == []
    assert page.evaluate(f"!!localStorage.{TOKEN}_mengpaneel_undelivered")


@pytest.mark.parametrize("why", ["calls", "the app has decided", "DNT: 0"])
@pytest.mark.parametrize("signal", SIGNALS)
def test_a_page_that_was_made_for_its_visitor_loads_the_library(
    site: ScriptSite, page: Tab, signal: str, why: str
) -> None:
    data = site.data(*[["once", CALLS]] if why == "calls" else [])

    if why == "the app has decided":
        data["config"]["ignore_dnt"] = True

    site.pages["/home"] = Page(data=data)
    signals = "globalPrivacyControl: false, doNotTrack: '0'"
    refuse(page, signals if why == "DNT: 0" else SIGNALS[signal])
    page.goto(site.url + "/home")
    page.wait_for_function("window.mixpanel.__loaded")


def test_it_works_in_a_frame(site: ScriptSite, page: Tab) -> None:
    site.pages["/home"] = Page(data=site.data(["once", CALLS]))
    site.pages["/outer"] = Page(script="", body='<iframe src="/home"></iframe>')
    page.goto(site.url + "/outer")
    assert wait_until(lambda: len(site.api.events) == 2)


@pytest.mark.browsers("chromium", "firefox")
def test_it_is_quiet_unless_asked(site: ScriptSite, page: Tab) -> None:
    lines: list[str] = []
    page.on("console", lambda message: lines.append(message.text))
    site.pages["/home"] = Page(data=site.data(["once", CALLS]))
    site.pages["/plain"] = Page(script="")
    page.goto(site.url + "/plain")
    names = "Object.keys(window).filter(name => !name.startsWith('__pw'))"
    before = set(t.cast("list[str]", page.evaluate(names)))
    page.goto(site.url + "/home")
    page.wait_for_function("window.mixpanel.__loaded")
    after = set(t.cast("list[str]", page.evaluate(names)))
    assert lines == []
    assert after - before == {"Mengpaneel", "mixpanel"}


@pytest.mark.parametrize("how", ["attribute", "data"])
def test_each_call_is_reported_when_asked(
    site: ScriptSite, page: Tab, how: str
) -> None:
    lines: list[str] = []
    page.on("console", lambda message: lines.append(message.text))
    site.pages["/home"] = Page(data=site.data(["once", CALLS]))
    debug: dict[str, t.Any] = {"strategy": "ClientSide", "declined": {"Delayed": "no"}}

    if how == "data":
        site.pages["/home"].data["debug"] = debug
    else:
        site.pages["/home"].script = '<script src="/mengpaneel.js" data-debug></script>'

    page.goto(site.url + "/home")
    page.wait_for_function("window.mixpanel.__loaded")
    assert [line for line in lines if json.dumps("Second") in line]
    assert ("ClientSide" in "".join(lines)) is (how == "data")
