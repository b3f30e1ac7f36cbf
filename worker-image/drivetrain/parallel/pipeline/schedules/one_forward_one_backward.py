"""1F1B: a stage goes backward as soon as it can, so it keeps few activations.

Narayanan et al. 2019, "PipeDream: Generalized Pipeline Parallelism for DNN Training" (SOSP), section 3.2, with a flush
after each step (Narayanan et al. 2021, arXiv 2104.04473, section 2.2.1, figure 4 above). As idle as GPipe; stage s of p
keeps at most p - s activations.
"""

from __future__ import annotations

from drivetrain.parallel.pipeline.schedules.action import Action, Kind, Shape


def one_forward_one_backward(shape: Shape, stage: int) -> list[Action]:
    """See above. Needs one chunk a stage."""
    ahead = min(shape.microbatches, shape.stages - stage - 1)
    actions = [Action(Kind.FORWARD, 0, number) for number in range(ahead)]
    for number in range(shape.microbatches):
        if ahead + number < shape.microbatches:
            actions.append(Action(Kind.FORWARD, 0, ahead + number))
        actions.append(Action(Kind.BACKWARD, 0, number))
    return actions
