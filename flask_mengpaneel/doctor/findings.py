"""What the policies of a page forbid of what it needs."""

from __future__ import annotations

import collections.abc as c
import dataclasses
from urllib.parse import urlsplit

from ..mistakes import Finding, Level
from .csp import Policy

#: The Trusted Types policy with which the script loads the library.
_TRUSTED_TYPES_POLICY = "mengpaneel"


@dataclasses.dataclass(frozen=True)
class Page:
    """What a page that carries calls needs: the URLs that it loads or sends to."""

    script_url: str
    #: ``None`` if the page loads the library itself.
    library_url: str | None
    #: The nonce that both scripts get.
    nonce: str | None
    #: Where the library sends.
    api_urls: list[str]
    #: Where the page hands calls back; ``None`` if it can't.
    hand_back_url: str | None
    #: Where the page says what has arrived; ``None`` if it doesn't.
    ack_url: str | None


def check_policies(
    name: str, page: Page, policies: list[Policy]
) -> c.Iterator[Finding]:
    """Find what the policies of a page forbid, each of which has to allow it.

    :param name: the page, as the findings name it.
    """
    hands_back = page.hand_back_url is not None and all(
        policy.allows_connection(page.hand_back_url) for policy in policies
    )
    # Where the library is blocked, the page hands its calls back, if it can.
    if_blocked = Level.WARNING if hands_back else Level.ERROR

    for policy in policies:
        yield from _check_scripts(name, page, policy, if_blocked)
        yield from _check_connections(name, page, policy, if_blocked)

    yield from _check_trusted_types(name, page, policies, if_blocked)


def _check_scripts(
    name: str, page: Page, policy: Policy, if_blocked: Level
) -> c.Iterator[Finding]:
    own = policy.allows_script(page.script_url, page.nonce, inserted=False)
    library = page.library_url is None or policy.allows_script(
        page.library_url, page.nonce, inserted=True
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
            (urlsplit(page.script_url).path, own),
            (page.library_url, library),
        )
        if not allowed and label
    )
    needed = [] if own else ["'self'"]
    needed += (
        [] if library or not page.library_url else [_source(page.library_url, policy)]
    )
    yield Finding(
        if_blocked if own else Level.ERROR,
        _forbids(name, policy, "script-src", what),
        _script_remedy(policy, needed),
    )


def _script_remedy(policy: Policy, needed: list[str]) -> str:
    sources = [source.lower() for source in policy.sources("script-src")]

    # With 'strict-dynamic' browsers ignore hosts. A policy with nonces means to give
    # its scripts one.
    if any(one.startswith(("'strict-dynamic'", "'nonce-")) for one in sources):
        return "MENGPANEEL_CSP_NONCE = a callable that gives the nonce of the response"

    return _directive(policy, "script-src", needed)


def _check_connections(
    name: str, page: Page, policy: Policy, if_blocked: Level
) -> c.Iterator[Finding]:
    blocked = [url for url in page.api_urls if not policy.allows_connection(url)]
    needed = list(dict.fromkeys(_source(url, policy) for url in blocked))
    own = {
        "handing calls back": page.hand_back_url,
        "acknowledging them": page.ack_url,
    }
    own = {
        what: url
        for what, url in own.items()
        if url and not policy.allows_connection(url)
    }
    what = f"sending to {' '.join(needed)}" if blocked else " and ".join(own)

    if own:
        needed.append("'self'")

    if not blocked:
        # Nothing has to be handed back as long as nothing else is blocked, and what
        # isn't acknowledged arrives twice under the same ids.
        level = Level.WARNING
    else:
        level = Level.ERROR if "handing calls back" in own else if_blocked

    if needed:
        text = _forbids(name, policy, "connect-src", what)
        remedy = _directive(policy, "connect-src", list(dict.fromkeys(needed)))
        yield Finding(level, text, remedy)


def _check_trusted_types(
    name: str, page: Page, policies: list[Policy], if_blocked: Level
) -> c.Iterator[Finding]:
    if page.library_url is None or not any(
        one.requires_trusted_types for one in policies
    ):
        return

    for policy in policies:
        if not policy.allows_trusted_types_policy(_TRUSTED_TYPES_POLICY):
            names = policy.directives["trusted-types"]
            kept = [one for one in names if one.lower() != "'none'"]
            text = _forbids(name, policy, "trusted-types", "loading the library")
            remedy = " ".join(["trusted-types", *kept, _TRUSTED_TYPES_POLICY])
            yield Finding(if_blocked, text, remedy)


def _forbids(name: str, policy: Policy, directive: str, what: str) -> str:
    governing = policy.governing(directive) or directive
    return f"{name}: {governing} of {policy.where} forbids {what}"


def _directive(policy: Policy, directive: str, needed: list[str]) -> str:
    """Return a directive that allows what is needed, and all that it allows now.

    One that the policy lacks begins as the one that rules in its place.
    """
    governing = policy.governing(directive) or directive
    written = directive if governing == "default-src" else governing
    kept = [one for one in policy.sources(directive) if one.lower() != "'none'"]
    return " ".join([written, *kept, *(one for one in needed if one not in kept)])


def _source(url: str, policy: Policy) -> str:
    """Return the source that allows the origin of a URL in a policy."""
    parts, here = urlsplit(url), urlsplit(policy.page)

    if parts[:2] == here[:2]:
        return "'self'"

    return f"{parts.scheme}://{parts.netloc}"
