"""PURE: HTML that no text of others can break out of: what is no `Html` already is escaped by the element around it.

Names of jobs and metrics, messages and logs are of whoever can write them. There is one way to make `Html`, which is
`tag`; what it is given as text stays text.
"""

from __future__ import annotations

import html
import itertools
from typing import Final

_VOID: Final = frozenset({"meta", "br", "link", "path", "rect", "line"})
"""That have no content, or none here."""


class Html(str):
    """Markup that is safe already."""

    __slots__ = ()


def text(of: object) -> Html:
    """Escaped, without what no page may hold."""
    if isinstance(of, Html):
        return of
    return Html(html.escape("".join(each if each.isprintable() or each in "\n\t" else "�" for each in str(of))))


def join(parts: object) -> Html:
    """Several after one another; what is None is left out."""
    assert not isinstance(parts, str)
    return Html("".join(text(each) for each in parts if each is not None))  # type: ignore[attr-defined]


def tag(name: str, /, *children: object, **attributes: object) -> Html:
    """One element. Attributes lose a trailing underscore, and others become hyphens; None and False are left out, True
    has no value."""
    said = "".join(_attribute(key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items())
    if name in _VOID and not children:
        return Html(f"<{name}{said}/>")
    return Html(f"<{name}{said}>{join(children)}</{name}>")


def _attribute(name: str, value: object) -> str:
    if value is None or value is False:
        return ""
    return f" {name}" if value is True else f' {name}="{text(str(value))}"'


class Ids:
    """Ids of one page: each is there once."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def new(self, kind: str) -> str:
        return f"{kind}-{next(self._numbers)}"
