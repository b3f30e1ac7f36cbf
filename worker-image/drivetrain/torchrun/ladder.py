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
        "with drivetrain.start(), run.prepare() and run.step() no step would be lost, survivors would go on, and "
        "progress would be known: docs/scripts.md; SIGTERM comes before planned changes, as the time to save",
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
