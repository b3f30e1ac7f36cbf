"""What a stock script is told at its start: what it gives up, and what a few lines more would bring."""

from __future__ import annotations

from collections.abc import Mapping

from drivetrain_api.messages import Form
from drivetrain_api.runtime import RuntimeSpec


def at_start(spec: RuntimeSpec) -> list[str]:
    """The first time."""
    lines = [
        "this script never calls drivetrain.start(), so it runs as under torchrun: when a rank dies, or workers come "
        "or go, all ranks start again in place from the script's own last checkpoint, and the steps since are lost",
        "SIGTERM comes before planned changes, as the time to save; Transformers' Trainer tells its progress itself, "
        "other scripts by two lines, and three lines keep the state of a DDP loop in memory, so that no step is lost: "
        "docs/frameworks.md",
        "with drivetrain.start(), run.prepare() and run.step() survivors would go on, too: docs/scripts.md",
    ]
    if spec.snapshots is not None or spec.training.steps is not None or spec.training.optimizer is not None:
        lines.append("spec.training and spec.snapshots have no effect on it")
    return lines


def again(form: Form, environment: Mapping[str, str]) -> str:
    """Each time after it."""
    ranks = environment["WORLD_SIZE"]
    return (
        f"starts again with {ranks} {'rank' if ranks == '1' else 'ranks'}, after {form.recoveries} "
        f"{'failure' if form.recoveries == 1 else 'failures'}: {form.reason}"
    )
