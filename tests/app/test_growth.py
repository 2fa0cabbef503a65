"""What anybody can send costs time in proportion to its size, and no more.

The tests find every regular expression, every recursion and every cache of the package
by themselves: one that is new has no case here, and fails.
"""

from __future__ import annotations

import ast
import collections.abc as c
import dataclasses
import functools
import gc
import importlib
import inspect
import json
import pkgutil
import re
import sys
import time
import tracemalloc
import types
import typing as t
from urllib.parse import quote

import pytest
from flask import Flask, Response, request

import flask_mengpaneel
from flask_mengpaneel import (
    config,
    faulty_values,
    hosts,
    mistakes,
    setting_checks,
    values,
)
from flask_mengpaneel.choose import (
    caching,
    carrier,
    frames,
    injection,
    page_scanner,
    redirects,
    response_headers,
    response_policy,
)
from flask_mengpaneel.deliver import answers
from flask_mengpaneel.doctor import csp
from flask_mengpaneel.doctor.persistence import check_persistence
from flask_mengpaneel.history import events
from flask_mengpaneel.identity import NOBODY, Identity
from flask_mengpaneel.inspector import ingestion, rules
from flask_mengpaneel.plan import declared
from flask_mengpaneel.record import arguments, profile_merging, recorder
from flask_mengpaneel.visitor import (
    attribution,
    client,
    devices,
    mixpanel_cookie,
    persistence,
    visitor,
)
from flask_mengpaneel.visitor.lazy import lazy

MODULES = [
    importlib.import_module(found.name)
    for found in pkgutil.walk_packages(
        flask_mengpaneel.__path__, f"{flask_mengpaneel.__name__}."
    )
]


CACHE = type(functools.lru_cache(len))


def short_name(module: t.Any) -> str:
    return str(module.__name__).rpartition(".")[2]


# -- what there is


def functions_of(tree: ast.Module) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
    """The functions of a module, methods and inner ones too, by qualified name."""
    found = {}

    def visit(node: ast.AST, path: str) -> None:
        for child in ast.iter_child_nodes(node):
            inner = path

            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                found[path + child.name] = child

            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                inner = f"{path}{child.name}."

            visit(child, inner)

    visit(tree, "")
    return found


def has_pattern(value: t.Any) -> bool:
    if isinstance(value, c.Mapping):
        return any(map(has_pattern, value.values()))

    if isinstance(value, tuple | list | set | frozenset):
        return any(map(has_pattern, value))

    return isinstance(value, re.Pattern)


def expressions() -> c.Iterator[str]:
    """Where the package has regular expressions: constants, and functions that call
    :mod:`re`."""
    for module in MODULES:
        name = short_name(module)
        tree = ast.parse(inspect.getsource(module))

        for node in ast.walk(tree):
            assert not (isinstance(node, ast.ImportFrom) and node.module == "re"), (
                f"{name}: without `import re` the calls can't be found"
            )

        for function, node in functions_of(tree).items():
            for one in ast.walk(node):
                if (
                    isinstance(one, ast.Attribute)
                    and isinstance(one.value, ast.Name)
                    and one.value.id == "re"
                    and one.attr not in ("Pattern", "Match", "IGNORECASE", "DOTALL")
                    and not one.attr.isupper()
                ):
                    yield f"{name}.{function}"

        for constant, value in vars(module).items():
            if has_pattern(value) and constant in assigned(tree):
                yield f"{name}.{constant}"


def assigned(tree: ast.Module) -> set[str]:
    """The names that a module assigns itself, and hasn't imported."""
    return {
        node.id
        for statement in tree.body
        if isinstance(statement, ast.Assign | ast.AnnAssign)
        for node in ast.walk(statement)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }


def recursions() -> c.Iterator[str]:
    """The functions of the package that call themselves, also by way of others of
    their module, and also where they are given to something like ``map``."""
    for module in MODULES:
        functions = functions_of(ast.parse(inspect.getsource(module)))
        calls = {
            name: set(called(name, node, functions)) for name, node in functions.items()
        }

        for name in functions:
            reached: set[str] = set()
            pending = [name]

            while pending:
                for other in calls[pending.pop()] - reached:
                    reached.add(other)
                    pending.append(other)

            if name in reached:
                yield f"{short_name(module)}.{name}"


def called(name: str, node: ast.AST, functions: c.Container[str]) -> c.Iterator[str]:
    owner = name.rpartition(".")[0]
    own = {one.id for one in ast.walk(node) if is_stored(one)}
    own |= {one.arg for one in ast.walk(node) if isinstance(one, ast.arg)}

    for call in ast.walk(node):
        if not isinstance(call, ast.Call):
            continue

        for used in (call.func, *call.args):
            if isinstance(used, ast.Name) and used.id not in own:
                for known in (f"{name}.{used.id}", used.id):
                    if known in functions:
                        yield known
            elif (
                isinstance(used, ast.Attribute)
                and isinstance(used.value, ast.Name)
                and used.value.id in ("self", "cls")
                and used is call.func
                and f"{owner}.{used.attr}" in functions
            ):
                yield f"{owner}.{used.attr}"


def is_stored(node: ast.AST) -> t.TypeGuard[ast.Name]:
    return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)


def caches() -> c.Iterator[str]:
    for module in MODULES:
        for name, value in vars(module).items():
            if isinstance(value, CACHE) and value.__module__ == module.__name__:
                yield f"{short_name(module)}.{name}"


# -- what it is fed with


def times(*parts: str) -> list[c.Callable[[int], str]]:
    """Texts that are a part again and again, after what is before the bar."""

    def text(part: str, size: int) -> str:
        start, _, part = part.rpartition("|")
        return start + part * (size // len(part) + 1)

    return [functools.partial(text, part) for part in parts]


PAGE = "<html><head></head></html>"

PAGES = times(
    # As Vue, Lit and Svelte write them.
    "<html><head></head><!-- x --><body>|<!---->",
    "<html><head></head>|<!---->",
    "<html><head></head>|<!-- -->\n ",
    "<html><head></head>|<!--",
    "<html><head></head>|<!-- --!>",
    "<html><head></head>| \n",
    "<html><head></head><!--|-",
    *(
        start + "|" + part
        for start in ("", "<script>", "<script><!--", "<a ", "<a b='", "<title>")
        for part in (
            "<",
            "</",
            "<!",
            "<!-",
            "<!--",
            "-",
            "-->",
            "<!---->",
            "<script",
            "<script ",
            "<script>",
            "<script><!--",
            "<script><!--<script>",
            "</script",
            "</script>",
            "</head",
            "</head ",
            "</body >",
            "<frameset",
            "<title ",
            "<title>",
            "<title></title",
            "<![CDATA[",
            "<![CDATA[]]",
            "<a b='",
            "<a b=\"'",
            "=",
            "= ",
            "='",
            '="',
            "'\"",
            "\0",
            "<?",
        )
    ),
)

URLS = [
    *times(
        "https://|a",
        "https://|a@",
        "https://|@",
        "https://|[",
        "https://|google",
        "https://|google:",
        "http://|http://",
        "https://x/?|utm_source=",
        "https://x/?|&utm_source=%",
        "https://x/?q=|%",
        "https://x/?q=|%4",
        "https://x/?q=|%41",
        "https://x/?q=|%ff",
        "https://x/?|a=b&",
        "https://x/?utm_source=|+",
        "|/",
        "|?",
        "|a:",
        "|\ud800",
    ),
]

HOSTS = times("a", "a-", "-a", "a.", ".", "a.com", "-", "é", "a|a", "|a.co.", "[|:")

AGENTS = times(
    "Mozilla/5.0 |Chrome/",
    "|Chrome/1",
    "Chrome/|1",
    "Chrome/|1.",
    "Opera/|Mini",
    "|rv:",
    "|android ",
    "|Mozilla/5.0 (",
    "|Version/1 Safari",
    "|bot",
    "|;",
    "| ",
    "|a",
    "|A/1 ",
    "|(KHTML, like Gecko) ",
)

COOKIES = times(
    "|[",
    '|{"a":',
    '{"a":|[',
    '{"a": |[[],',
    '{"a": "|\\',
    '{"a": |1',
    '{"a": "|\ud800',
    '{"distinct_id": "ann", "a": |[{"b":',
    "|%",
    "|%7B",
    '|{"a":1,',
    '{|"',
    '|"\\',
)

BASES = times(
    *("<base href=|a", "<base| href", "<base | =", "<base|\t", "<base href='|'"),
    *('<base href="|\n', '<base href="|&amp;', '<base href="|a+.', '<base href="//|a'),
)

ELEMENTS = [
    *PAGES,
    *times(
        "|<html",
        "|<html ",
        "<html |a",
        "|<!---->",
        "|<!-",
        "|<!>",
        "<!--|-",
        "<html |amp=",
        "<html amp|=",
        "<html amp|= ",
        "<html amp=| ",
        "<html amp|='",
        "<html amp|=\"'",
        "<html amp='|\"",
        "<html |amp/",
        "<html |⚡",
        '<html |=">',
    ),
]

_BLOCK = injection.OPENING

SNIPPETS = times(
    f"|{_BLOCK}",
    f"|{_BLOCK}>",
    f"|{_BLOCK}>{{}}</script>",
    f'|{_BLOCK}>{{}}</script><script src="',
    f'|{_BLOCK}>{{}}</script><script src="a"></script>',
    f"{_BLOCK}|a=b ",
    f"{_BLOCK}>|a",
    f'{_BLOCK}></script><script src="|a',
    f'{_BLOCK}></script><script src=""|"',
)

DIRECTIVES = times(
    "|,",
    "|a,",
    "|a",
    "|a=",
    "|=",
    '|"',
    '|""',
    '|"\\',
    '"|\\',
    '"|\\"',
    '"|a',
    '|a="',
    '|a="b",',
    '|"\n',
    "| ",
    "|0",
    " |9",
    "|;",
    "|a b;",
    "|frame-ancestors a,",
    "frame-ancestors |a.b ",
    "|private='a',",
)

PREFIXES = times("|/", "|/a", "/|a", "/|a/", "/a|/!", "/|é", "/|.", "/a|-")

NAMES = times("a", "a.", ".", "$", "é", "a b", "-", "1")

SOURCES = times(
    "|a.", "|a", "|-", "*.|a.", "a://|a.", "a:|1", "|a:", "a/|?", "[|:", "[|f.", "|*."
)

FORWARDED = times(
    "|,",
    "| ",
    "|1, ",
    "|for=",
    '|"[',
    "|for=1;",
    "|a",
    "|proto=",
    'proto=|"',
    "proto=|a",
)

WORDS = times("a", "A", "_", "Aa", "aA", "1")

OPTIONS = times(
    "|persistence",
    "persistence:| ",
    "|persistence:",
    "|persistence: ",
    "|disable_persistence:",
    "persistence:'|a",
    "|persistence_name:'a',",
)

POLICIES = times(
    "|;",
    "|,",
    "|script-src 'none';",
    "|script-src a,",
    "script-src |a ",
    "| ",
    "|sandbox;",
    "|a ;",
)


def nested(size: int) -> t.Any:
    value: t.Any = 1

    for _ in range(size):
        value = [value]

    return value


def nested_objects(size: int) -> t.Any:
    value: t.Any = 1

    for _ in range(size):
        value = {"a": value}

    return value


def wide(size: int) -> t.Any:
    return [[number] for number in range(size)]


def a_set(size: int) -> t.Any:
    return frozenset(range(size))


def itself(_size: int) -> t.Any:
    value: dict[str, t.Any] = {}
    value["a"] = [value, value]
    return value


@dataclasses.dataclass
class Node:
    inner: t.Any


def nodes(size: int) -> t.Any:
    value: t.Any = None

    for _ in range(size):
        value = Node(value)

    return value


def names_with_numbers(size: int) -> t.Any:
    return {f"name{number}": number for number in range(size)}


def names_to_be_read(size: int) -> t.Any:
    return {f"é{number}\ud800": number for number in range(size)}


VALUES: list[c.Callable[[int], t.Any]] = [
    nested,
    nested_objects,
    wide,
    a_set,
    itself,
    nodes,
    names_with_numbers,
    names_to_be_read,
]


# -- what takes it


def read_base(text: str) -> None:
    tag = text.encode(errors="replace")
    page_scanner.base_address(tag)
    look_for_a_place(f'<head>{text}"></head>')


def look_for_a_place(text: str) -> None:
    page = text.encode(errors="replace")
    page_scanner._read_head.cache_clear()
    page_scanner.find_place(page)
    page_scanner.find_place(page, is_xml=True)


def read_urls(text: str) -> None:
    attribution.page_properties(text, text)
    attribution.pageview_properties(text, text)
    attribution.search_properties(text)
    attribution.initial_referrer(text)
    client.join_url(["https", text, text, text, text])


def follow(text: str) -> None:
    app = Flask("shop")
    app.secret_key = "secret"

    with app.test_request_context():
        here = request._get_current_object()  # type: ignore[attr-defined]
        redirects.departure(text, here)


def say_capable(text: str) -> None:
    here: t.Any = types.SimpleNamespace(
        environ={client.CAPABLE: f"true; visitor={text}"}
    )
    assert client.Client(config.Config(token="token"), here).said_visitor


def describe(text: str) -> None:
    devices._described.cache_clear()
    devices._is_bot.cache_clear()
    devices.describe(text)
    devices.is_bot(text)


def read_cookie(text: str) -> None:
    for value in (text, quote(text, errors="replace")):
        kept = mixpanel_cookie.read(value)
        Identity.from_cookie(kept)
        persistence.Persistence(kept, NOBODY)

    mixpanel_cookie._without_depths(text)


def check_policy(text: str) -> None:
    response_headers.forbids_scripts(text)

    for policy in csp.parse(text, "https://shop.example/"):
        policy.allows_script("https://cdn.example/a.js", None, inserted=False)
        policy.allows_connection("https://api.example/")


def look_for_amp(text: str) -> None:
    page_scanner.is_amp(text.encode(errors="replace"))


def look_for_snippets(text: str) -> None:
    response = Response([text])
    assert injection.has_snippet(response)
    injection.remove_snippet(response)


def decide(text: str) -> None:
    """Ask for everything that a response with such headers may have."""
    app = Flask("shop")
    names = (
        "Cache-Control",
        "CDN-Cache-Control",
        "Clear-Site-Data",
        "Content-Disposition",
        "Content-Security-Policy",
        "Content-Type",
        "Expires",
        "Refresh",
        "Set-Cookie",
        "X-Accel-Expires",
        "X-Frame-Options",
    )
    headers = response_headers.ResponseHeaders({name.lower(): text for name in names})
    page = response_headers.ResponseHeaders({**headers, "content-type": "text/html"})
    framed = {"Sec-Fetch-Dest": "iframe", "Referer": "https://shop.example/"}

    with app.test_request_context(headers=framed):
        here = request._get_current_object()  # type: ignore[attr-defined]
        settings = config.Config(token="token")
        response = carrier.carrier_class(Response)(PAGE, content_type="text/html")
        # One that was written anew may not have it.
        response.headers["Cache-Control"] = text.replace("\n", "")

        for given in (headers, page):
            policy = response_policy.ResponsePolicy(
                settings, here, response, given, visitor.Visitor(settings, here)
            )
            assert "header" in ask_all(policy)

            # What comes after another reason is asked for as well.
            caching.is_open(given)
            frames.forbids_frame(here.environ, given)
            ask_all(given)

        carrier.mark_private(response)
        response.get_wsgi_headers(here.environ)


def ask_all(source: object) -> list[str]:
    """Ask for everything that it works out; return the names."""
    properties = vars(type(source)).items()
    names = [name for name, one in properties if isinstance(one, lazy | property)]

    for name in names:
        getattr(source, name)

    return names


def check_source(text: str) -> None:
    csp._SCHEME_SOURCE.fullmatch(text)
    check_policy(f"script-src {text}")


def refuse_or_take(use: c.Callable[[t.Any], t.Any], value: t.Any) -> None:
    try:
        use(value)
    except (TypeError, ValueError, setting_checks.InvalidSetting, rules.Refused):
        pass


def make_plain(value: t.Any) -> None:
    refuse_or_take(values.plain, value)


def compare(value: t.Any) -> None:
    try:
        one, other = values.plain(value), values.plain(value)
    except ValueError:
        return

    profile_merging._same(one, other)


def judge(value: t.Any) -> None:
    try:
        text = json.dumps([{"event": "A", "properties": {"a": value, "token": "t"}}])
    except (TypeError, ValueError, RecursionError):
        return

    ingestion.ingest("track", {}, {}, text.encode(), time.time())


def come_through_a_proxy(text: str) -> None:
    environ = {"REMOTE_ADDR": "127.0.0.1", "wsgi.url_scheme": "http"}
    names = ("HTTP_X_FORWARDED_FOR", "HTTP_FORWARDED", "HTTP_X_FORWARDED_PROTO")
    mistakes.lacks_proxy_fix({**environ, **dict.fromkeys(names, text)})


def be_forwarded(text: str) -> None:
    mistakes.is_scheme_replaced({"wsgi.url_scheme": "http", "HTTP_FORWARDED": text})


def set_token(text: str) -> None:
    app = Flask("shop")
    list(mistakes.of_settings(app, config.Config(token=text)))


def send_browsers_to(text: str) -> None:
    refuse_or_take(hosts.meant, text)
    refuse_or_take(setting_checks.client_config, {"api_host": text})


def look_for_options(text: str) -> None:
    settings = config.Config(token="token")
    list(check_persistence("/", settings, text.encode(errors="replace")))


def answer_to_a_callback(text: str) -> None:
    ingestion.ingest("track", {"callback": text, "data": text}, {}, b"", time.time())


def insert_id(text: str) -> None:
    refuse_or_take(rules._check_insert_id, text)
    refuse_or_take(arguments.event_properties, {"$insert_id": text})


def is_deep(value: t.Any) -> None:
    try:
        mixpanel_cookie._is_deeper(values.plain(value), 5)
    except ValueError:
        pass


@dataclasses.dataclass
class Case:
    """What a piece of code is fed with, by way of what limits its input."""

    use: c.Callable[[t.Any], t.Any]
    makes: c.Sequence[c.Callable[[int], t.Any]]
    largest: int = 16384


def setting(check: c.Callable[[t.Any], t.Any]) -> c.Callable[[t.Any], None]:
    return functools.partial(refuse_or_take, check)


EXPRESSIONS = {
    "answers._REGION": Case(answers.what_to_check, NAMES),
    "declared._WORD": Case(declared._WORD.findall, WORDS),
    "events._NUMBER": Case(events._NUMBER.fullmatch, times("1", "1.", "-", "1e", "e1")),
    "hosts._LOOPBACK": Case(setting(hosts.is_loopback), URLS),
    "hosts.closest": Case(send_browsers_to, URLS),
    "mistakes._FORWARDED_PROTO": Case(be_forwarded, FORWARDED),
    "mistakes._NO_TOKENS": Case(set_token, NAMES),
    "mistakes._TOKEN": Case(set_token, NAMES),
    "mistakes.lacks_proxy_fix": Case(come_through_a_proxy, FORWARDED),
    "persistence._OPTION": Case(look_for_options, OPTIONS),
    "setting_checks._client_host": Case(send_browsers_to, URLS),
    "setting_checks.host": Case(setting(setting_checks.host), URLS),
    "setting_checks.url_prefix": Case(setting(setting_checks.url_prefix), PREFIXES),
    "setting_checks.token": Case(setting(setting_checks.token), NAMES),
    "devices.VERSIONS": Case(describe, AGENTS),
    "devices._guessed": Case(describe, AGENTS),
    "ingestion._short_answer": Case(answer_to_a_callback, NAMES),
    "page_scanner._FRAMESET": Case(look_for_a_place, PAGES),
    "page_scanner._HTML_TAG": Case(look_for_amp, ELEMENTS),
    "page_scanner._HREF": Case(read_base, BASES),
    "page_scanner._SCHEME": Case(read_base, BASES),
    "page_scanner.base_address": Case(read_base, BASES),
    "injection._SNIPPET": Case(look_for_snippets, SNIPPETS),
    "page_scanner._VALUE": Case(look_for_amp, ELEMENTS),
    "page_scanner._HTML": Case(look_for_a_place, PAGES),
    "page_scanner._XHTML": Case(look_for_a_place, PAGES),
    "page_scanner._compile": Case(look_for_a_place, PAGES),
    "attribution.SEARCH_ENGINES": Case(read_urls, URLS),
    "attribution._DOMAIN": Case(attribution.cookie_domain, HOSTS),
    "attribution._HALF_PERCENT": Case(read_urls, URLS),
    "attribution._PARAMETERS": Case(read_urls, URLS),
    "attribution._SIMPLE_DOMAIN": Case(attribution.cookie_domain, HOSTS),
    "attribution._URL": Case(read_urls, URLS),
    "mixpanel_cookie._BRACKETS": Case(read_cookie, COOKIES),
    "csp._HOST_SOURCE": Case(check_source, SOURCES),
    "csp._SCHEME_SOURCE": Case(check_source, SOURCES),
    "limits.INSERT_ID": Case(insert_id, NAMES),
    "recorder._NAME": Case(recorder._NAME.fullmatch, NAMES),
    "response_headers.ResponseHeaders.hasty": Case(decide, DIRECTIVES),
    "caching._DIRECTIVE": Case(decide, DIRECTIVES),
    "values._CONTROL": Case(values.fault_of, NAMES),
}

RECURSIONS = {
    "rules._check_shape": Case(judge, VALUES),
    "rules._texts": Case(judge, VALUES),
    "mixpanel_cookie._is_deeper": Case(is_deep, VALUES),
    "profile_merging._same": Case(compare, VALUES),
    "faulty_values._rest": Case(faulty_values.without_faults, VALUES),
    "values._converted": Case(make_plain, VALUES),
    "values.plain_outside": Case(make_plain, VALUES),
}

#: What else reads headers.
HEADERS = {
    "address": Case(
        client.parse_address, times("1", "1.", ":", "[|:", "%", ",", "1,", '"')
    ),
    "content type": Case(decide, times("a", ";", "/", " ", "text/html;")),
    "location": Case(follow, URLS),
    "policy": Case(check_policy, POLICIES),
    "referrer": Case(read_urls, URLS),
}


# -- the tests


#: What reads only what the app's developers have written: types of properties, which
#: are as deep as they declare them, and how many workers there are.
OF_DEVELOPERS = {
    "server.number_of_workers",
    "property_types._object",
    "property_types._schema_of_class",
    "property_types.fits",
    "property_types.schema_of",
    "property_types.type_name",
}


def test_every_regular_expression_has_a_case() -> None:
    assert set(expressions()) - OF_DEVELOPERS == EXPRESSIONS.keys()


def test_every_recursion_has_a_case() -> None:
    assert set(recursions()) - OF_DEVELOPERS == RECURSIONS.keys()


def cost(use: c.Callable[[t.Any], t.Any], value: t.Any) -> float:
    """Seconds of this thread's time that something takes, at best."""
    best = float("inf")
    # A collection takes time for all that other tests have left in the process.
    gc.disable()

    try:
        for _ in range(3):
            start = time.thread_time()
            use(value)
            best = min(best, time.thread_time() - start)
    finally:
        gc.enable()

    return best


def assert_grows_in_proportion(case: Case, make: c.Callable[[int], t.Any]) -> None:
    """Double the size until it is 2,048 times as large.

    With 16 times the size, what grows in proportion takes 16 times as long, and what
    grows with the square takes 256 times. What takes twice as long for each part more
    is found out while it is still small.
    """
    least = 50e-6
    costs: dict[int, float] = {}
    size = 8

    while size <= case.largest:
        costs[size] = cost(case.use, make(size))
        # The smallest has nothing before it but what each use takes.
        before = max(costs.get(size // 16, costs[8]), least)

        if costs[size] > 64 * before:
            # Once more, should the machine have been busy with something else.
            costs[size] = min(costs[size], cost(case.use, make(size)))

        assert costs[size] <= 64 * before, (
            f"{size} take {costs[size]:.6f} s, a sixteenth takes {before:.6f} s"
        )
        size *= 2


ALL = {**EXPRESSIONS, **RECURSIONS, **HEADERS}


@pytest.mark.parametrize(
    "case",
    # Several pieces are fed by way of the same function.
    {(case.use, id(case.makes)): case for case in ALL.values()}.values(),
    ids=[
        name
        for name, case in {
            (case.use, id(case.makes)): (name, case) for name, case in ALL.items()
        }.values()
    ],
)
def test_work_grows_in_proportion(case: Case) -> None:
    for make in case.makes:
        assert_grows_in_proportion(case, make)


def deep_stack(depth: int, use: c.Callable[[], t.Any]) -> t.Any:
    return use() if depth == 0 else deep_stack(depth - 1, use)


@pytest.mark.parametrize("name", RECURSIONS)
def test_how_deep_a_value_may_be_does_not_depend_on_the_stack(name: str) -> None:
    case = RECURSIONS[name]
    room = sys.getrecursionlimit() - len(inspect.stack()) - 150

    for make in (nested, nested_objects, nodes):
        for size in (30, 32, 33, 34, 500, 5_000):
            value = make(size)
            # What is developed with may refuse sooner, but doesn't fail.
            deep_stack(room, lambda value=value: case.use(value))


FLOODED: dict[str, c.Callable[[str], t.Any]] = {
    "devices._described": devices.describe,
    "devices._is_bot": devices.is_bot,
    "page_scanner._read_head": lambda text: page_scanner.find_place(
        f"<head><!--{text}--></head>".encode()
    ),
    "client._address": client.parse_address,
    "client._cached_capability": say_capable,
}


#: Caches of what an app is made of: nothing that somebody sends is in them.
OF_THE_APP = {
    "connections._bounded_pool",
    "script._hash",
    "acknowledging._answering_class",
    "carrier.carrier_class",
    "carrier._slots",
    "refusals._signature",
    # By its secret keys.
    "signing._derive",
    # By the status, of which there are few.
    "browser_posts._answer",
}


def test_every_cache_has_a_case() -> None:
    assert set(caches()) - OF_THE_APP == FLOODED.keys()


@pytest.mark.parametrize("name", FLOODED)
def test_caches_keep_little_of_what_is_large(name: str) -> None:
    use = FLOODED[name]
    use("warm")
    tracemalloc.start()

    try:
        before = tracemalloc.get_traced_memory()[0]

        for number in range(150):
            use(f"{number} Mozilla/5.0 Chrome/1 " + "x" * 100_000)

        kept = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()

    # Of 15 MB that came by.
    assert kept < 1_500_000
