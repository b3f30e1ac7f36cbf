"""JSON from the API server, of which nothing may be nested so deep that reading it breaks us.

Kubernetes takes ten thousand levels where a field has no schema, as a pod template has none here; Python's parser takes
a thousand. One object like that would be read with every list, and with every event of its own: whoever may create it
could stop the operator for all. So what lies too deep is cut off, and the plan says of the rest that it is too deep.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

DEEPEST: Final = 200
"""Levels. Far more than anything that Kubernetes gives a meaning to, and few enough for whoever walks through it."""
_TOKENS: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]')


def loads(text: bytes) -> Any:
    """As `json.loads`, which raises ValueError for what is no JSON."""
    try:
        return json.loads(text)
    except RecursionError:
        return json.loads(shallow(text))


def shallow(text: bytes) -> bytes:
    """The same, with `null` in place of what is nested deeper. Costs next to nothing where few brackets are opened."""
    if text.count(b"{") + text.count(b"[") <= DEEPEST:
        return text
    kept: list[bytes] = []
    depth, start = 0, 0
    for token in _TOKENS.finditer(text):
        bracket = token[0]
        if bracket in (b"[", b"{"):
            depth += 1
            if depth == DEEPEST + 1:
                kept.append(text[start : token.start()])
        elif bracket in (b"]", b"}"):
            if depth == DEEPEST + 1:
                kept.append(b"null")
                start = token.end()
            depth -= 1
    if depth <= DEEPEST:  # else it ends in the middle, and is no JSON with or without the rest
        kept.append(text[start:])
    return b"".join(kept)
