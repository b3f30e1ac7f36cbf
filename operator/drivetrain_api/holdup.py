"""Which rank holds a job up, and with what? What ranks tell of their steps, and what the coordinator makes of it.

In synchronous training all ranks' steps take equally long. What differs is how long each works for itself, and how long
it waits for the others: so a rank tells both, by the stages of a step, as sums that only grow. Nothing is lost with a
message, and no clock is compared with another.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from drivetrain_api.bounds import MAX_SECONDS, Count, ProcessId, Seconds, Sentence, Small, Uid, Word
from drivetrain_api.older_python import StrEnum

MAX_LATE: Final = 8
"""Ranks that are named where it is not one alone."""


class Stage(StrEnum):
    """What a rank is at, in their order in a step. Pipelines pass through forward and backward again and again."""

    DATA = "data"
    """Waits for its samples."""
    FORWARD = "forward"
    """From the beginning of `run.step` on, without the reading."""
    BACKWARD = "backward"
    """With the sending of gradients that it starts."""
    EXCHANGE = "exchange"
    """What it has to do itself for the rest of the exchange."""
    UPDATE = "update"
    """From when the gradients are there: `on_gradients`, clipping, optimizer, `on_update`."""
    SNAPSHOT = "snapshot"
    """Copies or writes state."""
    SCRIPT = "script"
    """What the script does between operations, `on_commit` on rank 0, evaluation."""


def _known(told: Any) -> Any:
    """Those of the list; newer images may tell more."""
    return {name: told[name] for name in map(str, Stage) if name in told} if isinstance(told, dict) else told


def _possible(told: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in told.items() if math.isfinite(value) and 0 <= value <= MAX_SECONDS}


StageSeconds = Annotated[dict[str, float], BeforeValidator(_known), AfterValidator(_possible)]
"""By `Stage`. Impossible ones are left out."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class StageTimes(_Part):
    """Of one process since it began, as of the last step that it committed. Sums, which only grow."""

    steps: Count
    """That it took part in."""
    seconds: StageSeconds
    """Of its script's thread, without what it waited for others."""
    waited: Seconds = 0.0
    """For others, and for what travels."""
    samples: Count = 0
    """That it computed in these steps; ranks need not have equally many."""
    part: Small = 0
    """Of the model: stage of a pipeline. Ranks of different ones do different work."""


class HoldUp(_Part):
    """One rank, or a few, for which the others wait in every step."""

    rank: Small
    """The one that does so most."""
    process: ProcessId
    pod_uid: Uid
    stage: Word = ""
    """What it takes longer for; empty if no stage stands out."""
    slower_by: Seconds
    """Seconds a step that the others wait for it."""
    share: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0
    """The same, of a step."""
    late: list[Small] = Field(fail_fast=True, default_factory=list, max_length=MAX_LATE)
    """Ranks that are about as late, with `rank`: more than one, if it is ambiguous."""
    message: Sentence
    """All of it, in one sentence."""
