"""How is the documentation site made of these pages? See scripts/docs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

project = "Drivetrain"
author = "the Drivetrain authors"
project_copyright = f"2026, {author}"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = "Drivetrain"
exclude_patterns = ["adr/README.md"]
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "description"
# Types of torch and of the interior are named in signatures, and documented elsewhere or nowhere.
nitpick_ignore_regex = [("py:.*", r".*")]

_PAGE = re.compile(r"`(?:docs/)?((?:reference/|adr/)?[a-z0-9-]+)\.md`")
_PARAMETER = re.compile(r"^([a-z_]+): (.+)")
_HERE = Path(__file__).parent


def _linked(_: Any, name: str, source: list[str]) -> None:
    """A page that is named as a file, as it is read on disk, is a link on the site."""
    depth = name.count("/")

    def link(match: re.Match[str]) -> str:
        if not (_HERE / f"{match[1]}.md").exists():
            return match[0]  # tests/unit/docs says so, for all pages
        return f"[{match[1]}]({'../' * depth}{match[1]}.md)"

    source[0] = _PAGE.sub(link, source[0])


def _described(_: Any, __: str, ___: str, ____: Any, _____: Any, lines: list[str]) -> None:
    """`name: what it is` in our docstrings is a parameter."""
    listed = True  # a sentence may break at such a place
    for number, line in enumerate(lines):
        if listed and (found := _PARAMETER.match(line)):
            lines[number] = f":param {found[1]}: {found[2]}"
        listed = not line or line.startswith(" ") or lines[number].startswith(":param")


def setup(app: Any) -> None:
    """Sphinx's hook."""
    app.connect("source-read", _linked)
    app.connect("autodoc-process-docstring", _described)
