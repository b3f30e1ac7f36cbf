"""How far has training come? The same on every member, and the first thing that members compare after a change.

A run is a sequence of operations that all members take part in: steps, and between them reductions (`run.reduce`,
`run.evaluate`, `run.save`). A position is the number of the next step and how many reductions followed the last one.
Results of the few operations that a late or new member may still have to answer for are kept here and travel with the
state.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from drivetrain_api.messages import EpochId


@dataclass(frozen=True, slots=True)
class StepResult:
    """What `run.step` returns: numbers over the whole global batch, the same on every rank."""

    step: int
    loss: float
    metrics: dict[str, float] = field(default_factory=dict)
    grad_norm: float | None = None
    """Norm of the gradient before clipping; None when `clipNorm` is not set."""
    skipped: bool = False
    """The gradient overflowed fp16: nothing was updated, and the next loss is scaled less."""


@dataclass(slots=True)
class Position:
    """Where this member is."""

    step: int = 0
    """The next step to commit."""
    lineage: EpochId = field(default_factory=lambda: EpochId(0, 0))
    """The membership epoch in which the last operation was committed: tells two states of the same step apart."""
    has_state: bool = False
    before_first: list[list[float]] = field(default_factory=list)
    """Results of the reductions before the first step, for the scripts of newcomers, which ask for them again."""
    first: int = 0
    """The step that the job's scripts began with: 0, or that of the file they resumed from."""
    since: list[list[float]] = field(default_factory=list)
    """Results of the reductions since the last step."""
    mark: int | None = None
    """How many of `since` came before the script asked for the next batch; None until it did. A newcomer's script
    enters there, so it does not ask for those."""
    last: StepResult | None = None
    hooked: int = 0
    """The step up to which the script's share in updates is done (`run.on_update`)."""
    run: int = 0
    """Number of what was begun when nobody had state: a job that lost all of it is in its second. Snapshots are told
    apart by it."""
    apart: dict[str, int] = field(default_factory=dict)
    """How often buffers alone were found to differ between ranks, by name. From the second time on each rank's is its
    own, and not compared: a script writes it (healing.py)."""
    life: str = ""
    """Of what began when nobody had state: another one each time, with or without snapshots. What trackers were told of
    steps from `first` on, in a life before, is of state that is lost."""
    writer: str = ""
    """The process that feeds trackers, until it is gone: then one that was there before, which has the steps that are
    not written yet; a newcomer has none. Empty where nobody counts processes: rank 0."""
    passes: list[tuple[int, int]] = field(default_factory=list)
    """Of an iterable dataset: see `drivetrain.data.stream.Passes`. What a member knows saves others from reading all
    passes before theirs; it decides nothing."""

    def order(self) -> tuple[int, int, int, EpochId]:
        """Compares members: the greatest one has seen everything that any member has."""
        return (int(self.has_state), self.step, len(self.since), self.lineage)

    def commit_step(self, result: StepResult, epoch: EpochId) -> None:
        """A step is done."""
        self.step += 1
        self.since = []
        self.mark = None
        self.last = result
        self.lineage = epoch
        self.has_state = True

    def commit_reduction(self, result: list[float], epoch: EpochId) -> None:
        """A reduction is done."""
        self.since.append(result)
        if self.step == self.first:
            self.before_first.append(result)
        self.lineage = epoch
        self.has_state = True

    def begin(self) -> None:
        """Scripts start here, from a file: what was reduced around this step belongs to the run that wrote it."""
        self.first = self.step
        self.before_first = []
        self.since = []
        self.mark = None

    def follows(self, step: int, reductions: int) -> bool:
        """Can a script that stands before operation (`step`, `reductions`) go on from here? One step behind is the
        most: of operations before that the results are gone, and a script cannot be wound forward."""
        return self.step == step + 1 or (self.step == step and len(self.since) >= reductions)

    def dump(self) -> dict[str, Any]:
        """What travels to a peer or into a file."""
        return {
            "step": self.step,
            "lineage": tuple(self.lineage),
            "before_first": self.before_first,
            "first": self.first,
            "since": self.since,
            "mark": self.mark,
            "last": None if self.last is None else dataclasses.asdict(self.last),
            "hooked": self.hooked,
            "run": self.run,
            "life": self.life,
            "writer": self.writer,
            "passes": self.passes,
            "apart": self.apart,
        }

    def load(self, data: dict[str, Any]) -> None:
        """Take over a peer's position."""
        self.step = data["step"]
        self.lineage = EpochId(*data["lineage"])
        self.before_first = [list(each) for each in data["before_first"]]
        self.first = data["first"]
        self.since = [list(each) for each in data["since"]]
        self.mark = data["mark"]
        self.last = None if data["last"] is None else StepResult(**data["last"])
        self.hooked = data.get("hooked", self.step)
        self.run = data.get("run", 0)
        self.life = data.get("life", "")
        self.writer = data.get("writer", "")
        self.apart = dict(data.get("apart", {}))
        self.passes[:] = [(number, start) for number, start in data.get("passes", [])]
        self.has_state = True
