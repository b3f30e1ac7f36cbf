"""Into what is a job's time split? The names that ranks, coordinators and the operator share.

A rank tells what its script's thread was at (`Activity`), a coordinator what the job was at in its term (`Category`),
each as seconds that only grow, so that nothing is lost with a message. The operator makes one account of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator

from drivetrain_api.bounds import MAX_SECONDS
from drivetrain_api.older_python import StrEnum


class Activity(StrEnum):
    """What the thread of a rank is at that runs the script."""

    WORK = "work"
    """A step: forward, backward, exchange, update."""
    WAITING = "waiting"
    """In a step, for a collective: for what travels, and for whoever is late."""
    DATA = "data"
    """Waits for its samples."""
    SNAPSHOT = "snapshot"
    """Copies or writes state."""
    OTHER = "other"
    """Evaluates, or does what the script does between steps."""


class Category(StrEnum):
    """What a job is at. At each moment one of them, so that together they are its age."""

    QUEUED = "queued"
    """Nothing of it was ever trained since it was started or resumed, and pods have no node."""
    STARTING = "starting"
    """The same, with nodes: images are pulled, processes start, torch is imported."""
    FORMING = "forming"
    """The first membership forms, and restores what the job goes on from."""
    PRODUCTIVE = "productive"
    """Steps that were not made before."""
    DATA = "data"
    """Ranks wait for samples."""
    SNAPSHOT = "snapshot"
    """Training waits until state is copied or written."""
    WAITING = "waiting"
    """Ranks wait for others that are late."""
    REDONE = "redone"
    """Steps that had been made before, and were lost."""
    RECOVERING = "recovering"
    """From the first sign of a loss to the first step that all members finished without what was lost."""
    RESIZING = "resizing"
    """Members join or leave that nobody lost."""
    SUSPENDED = "suspended"
    """By spec.suspend."""
    OTHER = "other"
    """Evaluation, what scripts do between steps, their end; and what nobody can tell."""


TRAINED: Final = (Category.PRODUCTIVE, Category.DATA, Category.SNAPSHOT, Category.WAITING, Category.REDONE)
"""Of a membership that trains."""
OPERATORS: Final = frozenset({Category.QUEUED, Category.SUSPENDED})
"""Of which coordinators know nothing."""


def _known(names: frozenset[str]) -> BeforeValidator:
    """Those of a closed list; newer senders may tell more."""

    def of(told: Any) -> Any:
        return {name: told[name] for name in sorted(names & told.keys())} if isinstance(told, dict) else told

    return BeforeValidator(of)


def _possible(told: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in told.items() if math.isfinite(value) and 0 <= value <= MAX_SECONDS}


Spent = Annotated[dict[str, float], _known(frozenset(map(str, Activity))), AfterValidator(_possible)]
"""Seconds of a rank's process since it began, by `Activity`. Impossible ones are left out."""
SpentByJob = Annotated[
    dict[str, float],
    _known(frozenset(str(each) for each in Category if each not in OPERATORS)),
    AfterValidator(_possible),
]
"""Seconds of a coordinator's term since it began, by `Category`. Impossible ones are left out."""
