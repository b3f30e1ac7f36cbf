"""How large is anything that goes over the wire? The types that messages, reports and status share.

Two manners. What the protocol lives on (ids, numbers of steps, lists) is refused out of bounds: whoever says that did
not mean it. What a script may choose (a loss, a message, what it printed) is cut, or dropped, by whoever reads it: one
odd number must not silence the worker that tells it.

Lists fail with their first item that is wrong (`FailFast`): half a megabyte can hold a million errors, and telling them
took seconds and a gigabyte.
"""

from __future__ import annotations

import itertools
import math
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, Field

MAX_EXACT: Final = 2**53
"""Every reader of JSON keeps whole numbers up to here as they are."""
MAX_TOLD: Final = MAX_EXACT - 1
"""The highest number of a message that is believed: the operator counts steps from 1, and has to write it."""
MAX_RECOVERIES: Final = 2**40
"""One a second for thirty thousand years. The operator adds them up over terms."""
MAX_SECONDS: Final = 1e9
"""Thirty years."""
MAX_NAMED: Final = 999_999_999
"""Terms and incarnations are parts of pods' names, with nine digits at most."""
MAX_PODS: Final = 8192
"""Twice the workers that a job may have: some on their way out, while their successors are there."""
MAX_MEMBERS: Final = 4096 * 64
"""Workers of a job, and processes of a worker."""
MAX_METRICS: Final = 64
MAX_TAIL: Final = 4096
"""Characters of what a process printed last."""


def _first(limit: int) -> AfterValidator:
    return AfterValidator(lambda text: text[:limit])


def _last(limit: int) -> AfterValidator:
    return AfterValidator(lambda text: text[-limit:])


def _measured(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) and abs(value) <= 1e300 else None


def _duration(value: float | None) -> float | None:
    return value if value is not None and 0 <= value <= MAX_SECONDS else None


def _metrics(told: dict[str, Any]) -> dict[str, float]:
    return {name[:128]: value for name, value in told.items() if _measured(value) is not None}


def _few(told: Any) -> Any:
    """Before anything is looked at: each thing that is wrong in what follows would be an error of its own."""
    return dict(itertools.islice(told.items(), MAX_METRICS)) if isinstance(told, dict) else told


Number = Annotated[int, Field(ge=-1, le=MAX_TOLD)]
"""A step or a sequence number; -1 before the first."""
Count = Annotated[int, Field(ge=0, le=MAX_TOLD)]
Recoveries = Annotated[int, Field(ge=0, le=MAX_RECOVERIES)]
Small = Annotated[int, Field(ge=0, le=2**31 - 1)]
Signed32 = Annotated[int, Field(ge=-(2**31), le=2**31 - 1)]
Term = Annotated[int, Field(ge=0, le=MAX_NAMED)]
Seconds = Annotated[float, Field(ge=0, le=MAX_SECONDS, allow_inf_nan=False)]

Uid = Annotated[str, Field(max_length=64)]
Name = Annotated[str, Field(max_length=253)]
ProcessId = Annotated[str, Field(max_length=160)]
"""`<pod uid>/<boot>/<counter>`."""

Word = Annotated[str, _first(64)]
Sentence = Annotated[str, _first(1024)]
Tail = Annotated[str, _last(MAX_TAIL)]
Measured = Annotated[float | None, AfterValidator(_measured)]
"""None if it is no number that can be shown."""
Duration = Annotated[float | None, AfterValidator(_duration)]
"""Seconds; None if it cannot be."""
Metrics = Annotated[dict[str, float], BeforeValidator(_few), AfterValidator(_metrics)]
"""Of the first `MAX_METRICS`, those that are finite."""
