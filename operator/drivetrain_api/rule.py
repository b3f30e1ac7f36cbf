"""What is a rule of the API server, and what is its twin in Python? See rules.py, which has them all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Rule:
    """One CEL rule. `path` is the schema node that carries it: self and oldSelf are what stands there."""

    name: str
    path: str
    """"" for the object itself, else such as `spec.training.batch`."""
    cel: str
    message: str
    check: Callable[[Json, Json], bool]
    """The twin: (self, oldSelf) → accepted. oldSelf is {} for rules without transition."""
    transition: bool = False
    """Judged on updates only, because it names oldSelf."""
