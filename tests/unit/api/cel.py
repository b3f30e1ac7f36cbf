"""Just enough CEL to run the CRD's rules without an API server: the subset that `drivetrain_api.rules` writes.

An expression is turned into Python word by word. Anything outside the subset raises, so a rule cannot pass by accident.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<matches>(?:self|oldSelf)(?:\.\w+)*\.matches\('(?P<pattern>[^']*)'\))
    | has\((?P<has>(?:self|oldSelf)(?:\.\w+)+)\)
    | (?P<path>(?:self|oldSelf)(?:\.\w+)+)
    | (?P<number>\d+(?:\.\d+)?)
    | '(?P<text>[^']*)'
    | (?P<op>&&|\|\||==|!=|<=|>=|<|>|!|\(|\)|\[|\]|,|\*|%|\?|:|in\b)
    )""",
    re.X,
)
_WORDS = {"&&": " and ", "||": " or ", "!": " not ", "in": " in ", "?": " and [", ":": "] or ["}
"""A choice is `(a ? b : c)`, in parentheses of its own: `(a and [b] or [c])[0]`."""


def evaluate(expression: str, self: Any, old_self: Any = None) -> bool:
    """The value of a rule. Raises ValueError for what is not in the subset, KeyError for an absent field."""
    chooses: list[bool] = []
    """By open parenthesis: whether there is a choice in it."""
    python, position, names = "", 0, {"self": self, "oldSelf": old_self}
    # Functions, not values: `!has(x) || x == y` must not fail where x is absent.
    functions = {
        "get": lambda path: _get(names, path),
        "has": lambda path: _has(names, path),
        "matches": lambda path, pattern: re.search(pattern, _get(names, path)) is not None,
    }
    while position < len(expression.rstrip()):
        token = _TOKEN.match(expression, position)
        if token is None:
            raise ValueError(f"outside the subset: {expression[position:]!r}")
        position = token.end()
        if token["matches"]:
            python += f" matches({token['matches'].split('.matches(')[0]!r}, {token['pattern']!r}) "
        elif token["has"]:
            python += f" has({token['has']!r}) "
        elif token["path"]:
            python += f" get({token['path']!r}) "
        elif token["number"]:
            python += token["number"]
        elif token["text"] is not None:
            python += repr(token["text"])
        elif token["op"] == ")" and chooses.pop():
            python += "])[0]"
        else:
            if token["op"] == "(":
                chooses.append(False)
            elif token["op"] == "?":
                chooses[-1] = True
            python += _WORDS.get(token["op"], token["op"])
    value = eval(python, {"__builtins__": {}, **functions})
    if not isinstance(value, bool):
        raise ValueError(f"not a boolean: {expression}")
    return value


def _get(names: Mapping[str, Any], path: str) -> Any:
    value: Any = names
    for step in path.split("."):
        value = value[step]
    return value


def _has(names: Mapping[str, Any], path: str) -> bool:
    parent, _, last = path.rpartition(".")
    return last in _get(names, parent)
