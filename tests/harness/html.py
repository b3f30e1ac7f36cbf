"""What is in a page, for tests: elements with their attributes, children and text, by Python's own parser."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Final

_VOID: Final = frozenset({"meta", "br", "link", "img", "input", "hr"})


@dataclass
class Element:
    """One element."""

    name: str
    attributes: dict[str, str] = field(default_factory=dict)
    children: list[Element | str] = field(default_factory=list)

    def all(self, *names: str) -> Iterator[Element]:
        """Those inside with one of these names, or all, in their order."""
        for child in self.children:
            if isinstance(child, Element):
                if not names or child.name in names:
                    yield child
                yield from child.all(*names)

    @property
    def text(self) -> str:
        """All text inside."""
        return "".join(child if isinstance(child, str) else child.text for child in self.children)


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("")
        self._open = [self.root]
        self.unclosed: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        self._open[-1].children.append(element)
        if tag not in _VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open[-1].children.append(Element(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if self._open[-1].name != tag:
            raise ValueError(f"</{tag}> closes <{self._open[-1].name}>")
        self._open.pop()

    def handle_data(self, data: str) -> None:
        self._open[-1].children.append(data)


def parsed(text: str) -> Element:
    """The page. Raises ValueError if elements overlap."""
    parser = _Parser()
    parser.feed(text)
    parser.close()
    if len(parser._open) != 1:
        raise ValueError(f"<{parser._open[-1].name}> is not closed")
    return parser.root


def objections(page: Element) -> list[str]:
    """What is against everybody being able to read it, wherever they are."""
    found = []
    ids = [each.attributes["id"] for each in page.all() if "id" in each.attributes]
    found += [f"id {each} is there twice" for each in {*ids} if ids.count(each) > 1]
    for each in page.all():
        found += [
            f"<{each.name} {name}>" for name in each.attributes if name.startswith("on") or name in ("src", "srcset")
        ]
        found += [f"{name} of nothing: {ref}" for name in ("aria-labelledby", "aria-describedby")
                  for ref in each.attributes.get(name, "").split() if ref not in ids]  # fmt: skip
        link = each.attributes.get("href", "#")
        if not link.startswith("#") or (link != "#" and link[1:] not in ids):
            found.append(f"it asks for {link}")
    found += [
        f"<{each.name}>" for each in page.all("script", "iframe", "object", "embed", "link", "img", "base", "form")
    ]
    for style in page.all("style"):
        found += [f"style with {word}" for word in ("url(", "@import", "expression(") if word in style.text]
    for picture in page.all("svg"):
        title = next((child for child in picture.children if isinstance(child, Element)), None)
        if title is None or title.name != "title" or not title.text:
            found.append("a picture without a title")
        if picture.attributes.get("role") != "img":
            found.append("a picture that is none to a screen reader")
    for table in page.all("table"):
        if not any(table.all("caption")):
            found.append("a table without a caption")
        found += [
            "a heading of nothing" for each in table.all("th") if each.attributes.get("scope") not in ("col", "row")
        ]
    levels = [int(each.name[1]) for each in page.all("h1", "h2", "h3", "h4")]
    found += [f"h{b} after h{a}" for a, b in itertools.pairwise(levels) if b > a + 1]
    if levels.count(1) != 1:
        found.append(f"{levels.count(1)} h1")
    (html,) = page.all("html")
    found += [] if html.attributes.get("lang") else ["no language"]
    return found
