"""The layout of the package: imports run downwards, and nothing grows too large."""

from __future__ import annotations

import ast
import collections.abc as c
import functools
import pathlib
import typing as t

import pytest

import flask_mengpaneel

PACKAGE = pathlib.Path(flask_mengpaneel.__file__).parent
NAME = flask_mengpaneel.__name__

#: From top to bottom: a module imports what is in its own package, or below its layer.
LAYERS = (
    ("__init__",),
    ("extension", "cli", "metrics"),
    ("inspector", "doctor", "debug_toolbar", "history"),
    ("testing",),
    ("choose",),
    ("deliver",),
    ("record",),
    ("visitor",),
    ("plan",),
    # The words that all others use.
    (
        "asking",
        "calls",
        "config",
        "envelope",
        "event",
        "faulty_values",
        "foreign_values",
        "guard",
        "hosts",
        "identity",
        "limits",
        "login",
        "mistakes",
        "outcome",
        "process",
        "proxies",
        "reasons",
        "recently_seen",
        "server",
        "session_settings",
        "setting_checks",
        "signals",
        "strategy",
        "transport",
        "values",
    ),
)
WORDS = LAYERS[-1]

MAX_LINES = 400
#: Modules that may have more lines, and why.
LONG_MODULES = {
    "record.recorder": "a table: the methods of Mixpanel's library",
    "deliver.spool": "one machine: the states of a row, and what moves it",
}

MAX_ATTRIBUTES = 15
#: Classes that may have more attributes, and why.
WIDE_CLASSES = {
    "config.Config": "a table: one field for each key",
    "config.Settings": "a table: one field for each key",
}


@functools.cache
def trees() -> dict[str, ast.Module]:
    """The modules of the package, by their names inside of it."""
    return {
        name_of(path): ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")
    }


def name_of(path: pathlib.Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and parts[1:] else parts)


@functools.cache
def imports() -> dict[str, set[str]]:
    """What each module imports of the package: wherever the import stands, also where
    only type checkers see it."""
    return {name: set(imported(name, tree)) for name, tree in trees().items()}


def imported(name: str, tree: ast.Module) -> c.Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] == NAME:
                    yield existing(alias.name.removeprefix(NAME).lstrip("."))
        elif isinstance(node, ast.ImportFrom):
            base = origin(name, node)

            for alias in node.names if base is not None else ():
                inner = f"{base}.{alias.name}".lstrip(".")
                yield inner if inner in trees() else existing(str(base))


def origin(name: str, node: ast.ImportFrom) -> str | None:
    """Where names are imported from, inside of the package; ``None``: elsewhere."""
    if not node.level:
        top, _, rest = (node.module or "").partition(".")
        return rest if top == NAME else None

    is_package = (PACKAGE / name.replace(".", "/")).is_dir()
    parts = [] if name == "__init__" else name.split(".")
    kept = parts[: len(parts) - node.level + is_package] if parts else []
    return ".".join([*kept, *((node.module,) if node.module else ())])


def existing(name: str) -> str:
    found = name or "__init__"
    assert found in trees(), f"what is {name}?"
    return found


def part_of(module: str) -> str:
    """The package or the word that a module is."""
    return module.partition(".")[0]


def layer_of(module: str) -> int:
    (layer,) = [at for at, parts in enumerate(LAYERS) if part_of(module) in parts]
    return layer


def may_import(module: str, other: str) -> bool:
    same = part_of(module) == part_of(other) or part_of(module) in WORDS
    return layer_of(module) < layer_of(other) or (
        same and layer_of(module) == layer_of(other)
    )


def test_every_module_has_its_layer() -> None:
    parts = [part for layer in LAYERS for part in layer]

    assert sorted(parts) == sorted({part_of(module) for module in trees()})


def test_imports_are_found_wherever_they_stand() -> None:
    tree = ast.parse("""
import json
import flask_mengpaneel.signals
from flask import g
from .. import process
from ..visitor import client
from . import arguments as checked
from .recorder import Recorder

if t.TYPE_CHECKING:
    from ..config import Config

def late():
    from flask_mengpaneel.deliver.spool import Spool
    from flask_mengpaneel import Mengpaneel
""")

    assert sorted(imported("record.manager", tree)) == [
        "__init__",
        "config",
        "deliver.spool",
        "process",
        "record.arguments",
        "record.recorder",
        "signals",
        "visitor.client",
    ]


@pytest.mark.parametrize("module", sorted(trees()))
def test_imports_run_downwards_only(module: str) -> None:
    upwards = [other for other in imports()[module] if not may_import(module, other)]

    assert sorted(upwards) == []


def test_no_imports_run_in_a_circle() -> None:
    left = dict(imports())

    # What imports nothing that is left is in no circle; what is never taken away is,
    # or imports what is.
    while free := {name for name, others in left.items() if not others & left.keys()}:
        left = {name: others for name, others in left.items() if name not in free}

    # Nor is what nothing that is left imports.
    while free := left.keys() - set[str]().union(*left.values()):
        left = {name: others for name, others in left.items() if name not in free}

    assert sorted(left) == []


@pytest.mark.parametrize("module", sorted(trees().keys() - LONG_MODULES.keys()))
def test_a_module_is_read_at_one_go(module: str) -> None:
    assert lines_of(module) <= MAX_LINES


def lines_of(module: str) -> int:
    path = PACKAGE / module.replace(".", "/")
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return len(path.read_text().splitlines())


@functools.cache
def classes() -> dict[str, ast.ClassDef]:
    """The classes of the package, by module and name."""
    return {
        f"{module}.{node.name}": node
        for module, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }


def attributes(node: ast.ClassDef) -> set[str]:
    """The state of an instance: what is set on it, its fields and slots, what is
    computed once; and that of the classes that it derives from."""
    found = {name for statement in node.body for name in declared(statement)}

    for one in ast.walk(node):
        if (
            isinstance(one, ast.Attribute)
            and isinstance(one.ctx, ast.Store)
            and isinstance(one.value, ast.Name)
            and one.value.id == "self"
        ):
            found.add(one.attr)

    for base in node.bases:
        for other in classes().values():
            if isinstance(base, ast.Name) and base.id == other.name:
                found |= attributes(other)

    return {name for name in found if not name.startswith("__")}


def declared(statement: ast.stmt) -> c.Iterator[str]:
    targets: list[ast.expr] = []

    if isinstance(statement, ast.AnnAssign):
        targets = [statement.target]
    elif isinstance(statement, ast.Assign):
        targets = statement.targets
    elif isinstance(statement, ast.FunctionDef):
        decorators = map(ast.unparse, statement.decorator_list)

        if any(name.endswith("cached_property") for name in decorators):
            yield statement.name

    for target in targets:
        if isinstance(target, ast.Name) and target.id == "__slots__":
            yield from slots(t.cast(ast.Assign, statement).value)
        elif isinstance(target, ast.Name):
            yield target.id


def slots(value: ast.expr) -> tuple[str, ...]:
    named = ast.literal_eval(value)
    return (named,) if isinstance(named, str) else named


def is_enumeration(node: ast.ClassDef) -> bool:
    return any("Enum" in ast.unparse(base) for base in node.bases)


@pytest.mark.parametrize("name", sorted(classes().keys() - WIDE_CLASSES.keys()))
def test_a_class_has_few_attributes(name: str) -> None:
    node = classes()[name]
    found = set() if is_enumeration(node) else attributes(node)

    assert len(found) <= MAX_ATTRIBUTES, sorted(found)


def test_what_is_an_exception_still_is_one() -> None:
    short = [name for name in LONG_MODULES if lines_of(name) <= MAX_LINES]
    narrow = [
        name
        for name in WIDE_CLASSES
        if len(attributes(classes()[name])) <= MAX_ATTRIBUTES
    ]

    assert short == narrow == []
