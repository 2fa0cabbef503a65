"""How Sphinx makes the site of these pages: ``python3 dev.py docs``.

The source is the whole checkout, so that the links between pages are the same on the
site as in the repository.
"""

from __future__ import annotations

import importlib.metadata

project = "Flask-Mengpaneel"
author = "Flask-Mengpaneel contributors"
release = importlib.metadata.version(project)
version = ".".join(release.split(".")[:2])

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinxcontrib.mermaid",
]
root_doc = "docs/index"
include_patterns = [
    "docs/*.md",
    "README.md",
    "CHANGES.md",
    "CONTRIBUTING.md",
    "benchmarks/README.md",
]
exclude_patterns = [".*", "node_modules", "site"]

# Anchors of headings as GitHub makes them.
myst_heading_anchors = 4
myst_fence_as_directive = ["mermaid"]

autodoc_typehints = "description"
autodoc_member_order = "bysource"

html_theme = "furo"
html_title = f"Flask-Mengpaneel {release}"
html_extra_path = ["_extra"]
html_copy_source = False
