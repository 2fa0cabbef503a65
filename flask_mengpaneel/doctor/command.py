"""The commands ``flask mengpaneel doctor`` and ``flask mengpaneel explain``."""

from __future__ import annotations

import collections.abc as c
import json
import typing as t
from urllib.parse import urljoin

import click
from flask import Flask
from flask.cli import ScriptInfo, pass_script_info

from .. import mistakes, reasons
from ..mistakes import Finding, Level
from ..setting_checks import WrongSetting
from .examiner import BROWSERS, AnsweredElsewhere, Examiner, Person
from .explain import explain_request
from .settings import check_host, check_online, check_session, check_settings
from .visit import Visit

if t.TYPE_CHECKING:
    from ..choose.app_state import AppState
    from ..config import Config

_Command = t.TypeVar("_Command", bound=c.Callable[..., t.Any])

#: The command's status if calls would be lost.
_LOST = 1


class _Unknown(click.ClickException):
    exit_code = 2


class _Pair(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """A name and a value."""

    def __init__(self, separator: str, name: str) -> None:
        self._separator = separator
        self.name = name

    def convert(
        self, value: t.Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        name, separator, text = str(value).partition(self._separator)

        if not separator or not name.strip():
            self.fail(f"{value!r} isn't {self.name}", param, ctx)

        return name.strip(), text.strip()


def _as_visitor(command: _Command) -> _Command:
    """Add the options that say whom the app is asked as."""
    for option in (
        click.option(
            "--ask-consent",
            is_flag=True,
            help="Ask MENGPANEEL_CONSENT. Else the visitor has consented.",
        ),
        click.option(
            "--as-browser",
            "browser",
            type=click.Choice(list(BROWSERS)),
            default="chrome",
            show_default=True,
            help="Whose headers are sent; none: a program's.",
        ),
        click.option(
            "--header",
            "headers",
            multiple=True,
            type=_Pair(":", '"Name: value"'),
            help="A header to send, or without a value one to leave out.",
        ),
        click.option(
            "--cookie",
            "cookies",
            multiple=True,
            type=_Pair("=", "name=value"),
            help="A cookie to send, such as that of somebody who has signed in.",
        ),
    ):
        command = option(command)

    return command


@click.command()
@click.argument("urls", metavar="[URL-PATH]...", nargs=-1)
@click.option("--online", is_flag=True, help="Also ask Mixpanel about the token.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@_as_visitor
@pass_script_info
def doctor(
    info: ScriptInfo,
    urls: tuple[str, ...],
    online: bool,
    as_json: bool,
    cookies: tuple[tuple[str, str], ...],
    headers: tuple[tuple[str, str], ...],
    browser: str,
    ask_consent: bool,
) -> None:
    """Find what would keep calls from reaching Mixpanel.

    Asks the app for pages, / unless you name others, as a browser on https://localhost
    would, and goes where they redirect to. Name a page with scheme and host if they
    matter. Sends nothing to Mixpanel, but with --online an event that it refuses.

    Exits with 1 if calls would be lost, with 2 if it can't tell.
    """
    try:
        app = _load(info)
    except WrongSetting as error:
        findings = [Finding(Level.ERROR, str(error), error.remedy)]
    else:
        person = Person(cookies, headers, browser, not ask_consent)
        findings = examine(app, urls or ("/",), online, person)

    if as_json:
        click.echo(json.dumps({"findings": [_to_json(one) for one in findings]}))
    else:
        for finding in findings:
            click.echo(str(finding))

        if not findings:
            click.echo("Nothing is wrong.")

    if any(finding.level is Level.ERROR for finding in findings):
        raise SystemExit(_LOST)


@click.command()
@click.argument("method")
@click.argument("url", metavar="URL-PATH")
@click.option("--data", help="What is sent: as a form, a=1&b=2, or as --header says.")
@_as_visitor
@pass_script_info
def explain(
    info: ScriptInfo,
    method: str,
    url: str,
    data: str | None,
    cookies: tuple[tuple[str, str], ...],
    headers: tuple[tuple[str, str], ...],
    browser: str,
    ask_consent: bool,
) -> None:
    """Show which way the calls of a request go, and why no other.

    Asks the app, as a browser on https://localhost would, and sends nothing to
    Mixpanel. Where the view tracks nothing, it shows which way an event would go.
    """
    try:
        app = _load(info)
    except WrongSetting as error:
        raise click.ClickException(str(error)) from None

    state: AppState = app.extensions["mengpaneel"]
    person = Person(cookies, headers, browser, not ask_consent)

    full = _full(app, url)

    try:
        click.echo(explain_request(app, state, person, method.upper(), full, data))
    except AnsweredElsewhere as error:
        text = f"middleware answers in the app's place, with {error}"
        raise click.ClickException(text) from None
    except Exception as error:
        raise click.ClickException(f"the view raises {error!r}") from error


def _load(info: ScriptInfo) -> Flask:
    app = info.load_app()

    if "mengpaneel" not in app.extensions:
        raise _Unknown("This app has no Mengpaneel.")

    return app


def _full(app: Flask, url: str) -> str:
    try:
        return urljoin(f"https://{app.config['SERVER_NAME'] or 'localhost'}/", url)
    except ValueError:
        raise click.BadParameter(f"{url!r} isn't a path or a URL") from None


def _to_json(finding: Finding) -> dict[str, str]:
    return {
        "level": finding.level.value,
        "text": finding.text,
        "remedy": finding.remedy,
    }


def examine(
    app: Flask,
    urls: c.Iterable[str] = ("/",),
    online: bool = False,
    person: Person | None = None,
) -> list[Finding]:
    """Find what would keep calls from reaching Mixpanel.

    :param urls: pages of the app: paths, or URLs with scheme and host.
    :param online: whether to ask Mixpanel too.
    :param person: whom the app is asked as; by default by Chrome, and one who has
        consented.
    """
    state: AppState = app.extensions["mengpaneel"]
    config = state.config

    if not config.enabled:
        return [Finding(Level.NOTE, f"{reasons.DISABLED}: nothing is tracked")]

    if config.token is None:
        return list(mistakes.of_settings(app, config))

    findings = [*check_settings(app, state)]

    if online:
        findings += check_online(state)

    pages = []

    for page in (_full(app, url) for url in urls):
        distrusted = list(check_host(app, page))
        findings += distrusted
        pages += [] if distrusted else [page]

    if pages:
        with Examiner(app, state, person or Person()) as examiner:
            visit = Visit(app, state, examiner, examiner.find_root(pages[0]))
            findings += _check_pages(app, config, visit, pages)
            findings += examiner.consent_findings

    return list(dict.fromkeys(findings))


def _check_pages(
    app: Flask, config: Config, visit: Visit, pages: list[str]
) -> c.Iterator[Finding]:
    if "ClientSide" not in config.strategies:
        for page in pages:
            yield from visit.check_own_library(page)

        return

    if "Delayed" in config.strategies:
        for page in pages:
            yield from check_session(app, page, config)

    yield from visit.check_app()

    for page in pages:
        yield from visit.check_page(page)
