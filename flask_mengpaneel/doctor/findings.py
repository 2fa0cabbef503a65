"""What is wrong with a page, and what to write where to put it right."""

from __future__ import annotations

import collections.abc as c
import dataclasses
import enum
from urllib.parse import urlsplit

from .csp import Policy

#: The policy of Trusted Types that the script makes to load the library.
_TRUSTED_TYPES = "mengpaneel"


class Level(enum.Enum):
    """How bad it is."""

    #: Calls would be lost.
    ERROR = "error"
    #: Calls arrive, but not by the way that was meant for them.
    WARNING = "warning"
    #: Good to know.
    NOTE = "note"


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something that the app's developer should know."""

    level: Level
    text: str
    #: What to write where, ready to be pasted.
    remedy: str = ""

    def __str__(self) -> str:
        remedy = f" -> {self.remedy}" if self.remedy else ""
        return f"{self.level.value}: {self.text}{remedy}"


@dataclasses.dataclass(frozen=True)
class Page:
    """What a page with the script needs."""

    script: str
    #: ``None``: the page loads the library itself.
    library: str | None
    nonce: str | None
    #: Where the library sends.
    api: list[str]
    #: Where calls are handed back; ``None``: nowhere.
    back: str | None


def judge(name: str, page: Page, policies: list[Policy]) -> c.Iterator[Finding]:
    """Say what the policies of a page forbid, all of which count."""
    back = page.back is not None and all(
        policy.allows_connection(page.back) for policy in policies
    )
    # Without the library its calls come back, if anything takes them.
    detour = Level.WARNING if back else Level.ERROR

    for policy in policies:
        yield from _judged_scripts(name, page, policy, detour)
        yield from _judged_connections(name, page, policy, detour)

    yield from _judged_trusted_types(name, page, policies, detour)


def _judged_scripts(
    name: str, page: Page, policy: Policy, detour: Level
) -> c.Iterator[Finding]:
    own = policy.allows_script(page.script, page.nonce, inserted=False)
    library = page.library is None or policy.allows_script(
        page.library, page.nonce, inserted=True
    )

    if own and library:
        return

    if (
        "sandbox" in policy.directives
        and "allow-scripts" not in policy.directives["sandbox"]
    ):
        text = _forbids(name, policy, "sandbox", "all scripts")
        yield Finding(Level.ERROR, text, "sandbox allow-scripts allow-same-origin")
        return

    what = " and ".join(
        label
        for label, allowed in (
            (urlsplit(page.script).path, own),
            (page.library, library),
        )
        if not allowed and label
    )
    needed = [] if own else ["'self'"]
    needed += [] if library or not page.library else [_source(page.library, policy)]
    yield Finding(
        detour if own else Level.ERROR,
        _forbids(name, policy, "script-src", what),
        _script_remedy(policy, needed),
    )


def _script_remedy(policy: Policy, needed: list[str]) -> str:
    sources = [source.lower() for source in policy.sources("script-src")]

    # With the one, browsers overlook all hosts; the other is for scripts like these.
    if any(one.startswith(("'strict-dynamic'", "'nonce-")) for one in sources):
        return "MENGPANEEL_CSP_NONCE = a callable that gives the nonce of the response"

    return _directive(policy, "script-src", needed)


def _judged_connections(
    name: str, page: Page, policy: Policy, detour: Level
) -> c.Iterator[Finding]:
    blocked = [url for url in page.api if not policy.allows_connection(url)]
    needed = list(dict.fromkeys(_source(url, policy) for url in blocked))
    what = f"sending to {' '.join(needed)}" if blocked else "handing calls back"

    if page.back and not policy.allows_connection(page.back):
        needed.append("'self'")
        # Everything goes well as long as nothing else is blocked.
        level = Level.ERROR if blocked else Level.WARNING
    else:
        level = detour

    if needed:
        text = _forbids(name, policy, "connect-src", what)
        remedy = _directive(policy, "connect-src", list(dict.fromkeys(needed)))
        yield Finding(level, text, remedy)


def _judged_trusted_types(
    name: str, page: Page, policies: list[Policy], detour: Level
) -> c.Iterator[Finding]:
    if page.library is None or not any(one.requires_trusted_types for one in policies):
        return

    for policy in policies:
        if not policy.allows_trusted_types_policy(_TRUSTED_TYPES):
            names = policy.directives["trusted-types"]
            kept = [one for one in names if one.lower() != "'none'"]
            text = _forbids(name, policy, "trusted-types", "loading the library")
            remedy = " ".join(["trusted-types", *kept, _TRUSTED_TYPES])
            yield Finding(detour, text, remedy)


def _forbids(name: str, policy: Policy, directive: str, what: str) -> str:
    governing = policy.governing(directive) or directive
    return f"{name}: {governing} of {policy.where} forbids {what}"


def _directive(policy: Policy, directive: str, needed: list[str]) -> str:
    """The directive as it was, or what it fell back on, with what it lacks."""
    governing = policy.governing(directive) or directive
    written = directive if governing == "default-src" else governing
    kept = [one for one in policy.sources(directive) if one.lower() != "'none'"]
    return " ".join([written, *kept, *(one for one in needed if one not in kept)])


def _source(url: str, policy: Policy) -> str:
    """What names the origin of a URL in a policy."""
    parts, here = urlsplit(url), urlsplit(policy.page)

    if parts[:2] == here[:2]:
        return "'self'"

    return f"{parts.scheme}://{parts.netloc}"
