"""The tracking plan as documents: Markdown for people, CSV for tables, a JSON Schema
for programs."""

from __future__ import annotations

import collections.abc as c
import csv
import io
import json
import typing as t
from urllib.parse import quote

from .declared import Declaration
from .property_types import type_name

if t.TYPE_CHECKING:
    from ..calls import Json

_COLUMNS = (
    "event",
    "display name",
    "event description",
    "owner",
    "property",
    "type",
    "required",
    "description",
)


def markdown(plan: c.Iterable[Declaration]) -> str:
    """Return the plan as a page of Markdown."""
    lines = ["# Tracking plan"]

    for event in plan:
        lines += ["", f"## {_escaped(event.name)}", ""]
        lines += [_escaped(event.description), ""] if event.description else []
        about = {"Display name": event.display_name, "Owner": event.owner}
        about["Class"] = f"`{event.class_name}`"
        lines += [f"* {what}: {value}" for what, value in about.items() if value]

        if event.properties:
            lines += ["", "| property | type | required | description |"]
            lines += ["|---|---|---|---|"]

        for one in event.properties.values():
            required = "yes" if one.required else ""
            cells = (one.name, type_name(one.schema), required, one.description)
            lines.append(f"| {' | '.join(map(_escaped, cells))} |")

    return "\n".join([*lines, ""])


def _escaped(text: str) -> str:
    for special in "\\|*_`<[":
        text = text.replace(special, f"\\{special}")

    return text


def comma_separated(plan: c.Iterable[Declaration]) -> str:
    """Return the plan as CSV: a row for each property."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)

    for event in plan:
        about = (event.name, event.display_name, event.description, event.owner)
        rows = [
            (
                one.name,
                type_name(one.schema),
                "yes" if one.required else "no",
                one.description,
            )
            for one in event.properties.values()
        ]

        for row in rows or [("", "", "", "")]:
            writer.writerow([*about, *row])

    return text.getvalue()


def json_schema(plan: c.Iterable[Declaration]) -> str:
    """Return the plan as a JSON Schema of events.

    What is below ``$defs`` has the form in which Mixpanel's Lexicon takes it:
    https://developer.mixpanel.com/reference/lexicon-schemas-api
    """
    plan = list(plan)
    # Without events nothing is valid.
    one_of: Json = [_event_schema(event) for event in plan] or [False]
    schema: dict[str, Json] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Tracking plan",
        "oneOf": one_of,
        "$defs": {event.name: event.schema for event in plan},
    }
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _event_schema(event: Declaration) -> dict[str, Json]:
    return {
        "type": "object",
        "properties": {
            "event": {"const": event.name},
            "properties": {"$ref": f"#/$defs/{_pointer(event.name)}"},
        },
        "required": ["event", "properties"],
    }


def _pointer(name: str) -> str:
    """Return a name as a part of a JSON Pointer in a URL."""
    return quote(name.replace("~", "~0").replace("/", "~1"), safe="~")


#: What writes the plan, by the ending of a file's name.
WRITERS: dict[str, c.Callable[[c.Iterable[Declaration]], str]] = {
    "md": markdown,
    "csv": comma_separated,
    "json": json_schema,
}
