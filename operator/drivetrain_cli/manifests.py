"""YAML as kubectl reads it: what looks like a time stays text, because JSON, which it becomes, has no times."""

from __future__ import annotations

from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    """Without timestamps."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag != "tag:yaml.org,2002:timestamp"]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def documents(text: str) -> list[Any]:
    """All documents, empty ones, too. Raises yaml.YAMLError, and ValueError for values that cannot be."""
    return list(yaml.load_all(text, Loader=_Loader))


__all__ = ["documents"]
