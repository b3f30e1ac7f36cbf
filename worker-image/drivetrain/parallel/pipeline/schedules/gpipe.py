"""GPipe: all forward passes, then all backward passes.

Huang et al. 2019, "GPipe: Efficient Training of Giant Neural Networks using Pipeline Parallelism" (arXiv 1811.06965),
section 2.3. Idle: (p - 1) / (m + p - 1) of the time with p stages and m micro-batches. Keeps m activations.
"""

from __future__ import annotations

from drivetrain.parallel.pipeline.schedules.action import Action, Kind, Shape


def gpipe(shape: Shape, stage: int) -> list[Action]:
    """See above. Needs one chunk a stage."""
    forward = [Action(Kind.FORWARD, 0, number) for number in range(shape.microbatches)]
    backward = [Action(Kind.BACKWARD, 0, number) for number in range(shape.microbatches)]
    return forward + backward
