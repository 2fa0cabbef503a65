"""What tests need that pip doesn't install."""

from __future__ import annotations

import os
import pathlib
import shutil
import typing as t

import pytest

NPM_PACKAGES = pathlib.Path(__file__).parent.parent / "node_modules"


def need(program: str) -> str:
    """The path of a program, such as ``"chromium"``; without it, the test is
    skipped."""
    # Debian has servers where only root looks for programs.
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"])
    found = shutil.which(program, path=path)
    return found or _do_without(f"{program} is not installed")


def need_npm(package: str) -> pathlib.Path:
    """The folder of an npm package, such as ``"mixpanel-browser"``; without it, the
    test is skipped."""
    folder = NPM_PACKAGES / package

    if not (folder / "package.json").is_file():
        _do_without(f"npm's {package} is not installed: npm ci")

    return folder


def _do_without(reason: str) -> t.NoReturn:
    # A build that skips what it can't run would pass while nothing was tested.
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)

    pytest.skip(reason)
