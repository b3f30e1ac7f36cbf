"""PURE: how much does a YAML text stand for? Aliases of aliases make gigabytes of a few lines, for who walks them."""

from __future__ import annotations

import math
from typing import Final

import yaml

MOST_ADDED: Final = 100_000
"""Values that aliases may add to those that are written out."""


class TooMuch(yaml.YAMLError):
    """It is YAML, but nobody could walk it."""


def check_size(text: str) -> None:
    """Raises YAMLError; `TooMuch` for what is longer than it looks, or nested too deep."""
    try:
        for document in yaml.compose_all(text, yaml.SafeLoader):
            sizes: dict[int, float] = {}
            if document is not None and _size(document, sizes) - len(sizes) > MOST_ADDED:
                raise TooMuch(f"its aliases stand for more than {MOST_ADDED} values")
    except RecursionError as error:
        raise TooMuch("is nested too deep") from error


def _size(node: yaml.Node, sizes: dict[int, float]) -> float:
    """With all that its aliases stand for: no end, if one is of what it stands in."""
    if id(node) not in sizes:
        sizes[id(node)] = math.inf
        parts: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            parts = node.value
        sizes[id(node)] = 1.0 + sum(_size(part, sizes) for part in parts)
    return sizes[id(node)]
