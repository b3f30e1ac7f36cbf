"""Zero-bubble (ZB-H1): the gradients of the parameters, which nobody waits for, are computed where others would idle.

Qi et al. 2023, "Zero Bubble Pipeline Parallelism" (arXiv 2401.10241), section 2.3, figure 2: backward is cut into
B (the input's gradient, which the stage before waits for) and W (the parameters'). Stage s puts W off by s
micro-batches. With F, B and W equally long, p stages are idle for (p - 1) / (3 m + p - 1) of the time, a third of
1F1B's share, and every stage keeps at most p activations.
"""

from __future__ import annotations

from drivetrain.parallel.pipeline.schedules.action import Action, Kind, Shape


def zero_bubble(shape: Shape, stage: int) -> list[Action]:
    """See above. Needs one chunk a stage."""
    ahead = min(shape.microbatches, shape.stages - stage)
    actions = [Action(Kind.FORWARD, 0, number) for number in range(ahead)]
    for number in range(shape.microbatches):
        actions.append(Action(Kind.BACKWARD, 0, number))
        if number >= stage:
            actions.append(Action(Kind.WEIGHT, 0, number - stage))
        if ahead + number < shape.microbatches:
            actions.append(Action(Kind.FORWARD, 0, ahead + number))
    first = max(0, shape.microbatches - stage)
    return actions + [Action(Kind.WEIGHT, 0, number) for number in range(first, shape.microbatches)]
