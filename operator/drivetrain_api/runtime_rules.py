"""What cannot be asked of a script that says nothing of its steps (spec.runtime: torchrun)? Part of rules.py.

Refused, not ignored: who sets it expects something of it. With `auto` the API cannot know; the script's log says it.
"""

from __future__ import annotations

from typing import Any, Final

from drivetrain_api.rule import Json, Rule

_STOCK: Final = "has(self.runtime) && self.runtime == 'torchrun'"
_OPTIONAL: Final = ("steps", "clipNorm", "optimizer", "compression", "balance", "tracking", "verify")
"""Of spec.training: nothing is asked for where they are absent."""
_ASKED: Final = (
    *(f"has(self.training.{field})" for field in _OPTIONAL),
    "has(self.training.deterministic) && self.training.deterministic",
    "has(self.training.batch) && has(self.training.batch.global)",
    "has(self.training.parallel) && has(self.training.parallel.zero) && self.training.parallel.zero > 0",
    "has(self.training.parallel) && has(self.training.parallel.tensor) && self.training.parallel.tensor > 1",
    "has(self.training.parallel) && has(self.training.parallel.pipeline)",
    "has(self.training.precision) && has(self.training.precision.compute) && self.training.precision.compute != 'fp32'",
)


def _asks(training: Json) -> bool:
    parallel: Any = training["parallel"]
    return (
        any(field in training for field in _OPTIONAL)
        or bool(training["deterministic"])
        or "global" in training["batch"]
        or parallel["zero"] > 0
        or parallel["tensor"] > 1
        or "pipeline" in parallel
        or training["precision"]["compute"] != "fp32"
    )


def _stock(spec: Json) -> bool:
    return bool(spec["runtime"] == "torchrun")


RUNTIME_RULES: Final[tuple[Rule, ...]] = (
    Rule(
        name="no-training-of-stock-scripts",
        path="spec",
        cel=f"!({_STOCK}) || !has(self.training) || !({' || '.join(f'({asked})' for asked in _ASKED)})",
        message="spec.training is read by drivetrain.start(), which a script with spec.runtime torchrun does not call; "
        "remove it, or set spec.runtime to drivetrain",
        check=lambda self, _: not _stock(self) or not _asks(self["training"]),
    ),
    Rule(
        name="no-snapshots-of-stock-scripts",
        path="spec",
        cel=f"!({_STOCK}) || !has(self.snapshots)",
        message="spec.snapshots keeps the steps of run.step; with spec.runtime torchrun the script saves its own "
        "checkpoints",
        check=lambda self, _: not _stock(self) or "snapshots" not in self,
    ),
    Rule(
        name="no-progress-of-stock-scripts",
        path="spec",
        cel=f"!({_STOCK}) || !has(self.recovery) || !has(self.recovery.noProgressSeconds)",
        message="spec.recovery.noProgressSeconds cannot be used with spec.runtime torchrun: such a script says nothing "
        "of its steps",
        check=lambda self, _: not _stock(self) or "noProgressSeconds" not in self["recovery"],
    ),
)
