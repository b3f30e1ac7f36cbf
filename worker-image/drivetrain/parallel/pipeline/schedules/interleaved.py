"""Interleaved 1F1B: a stage has several chunks of the model, so that the pipeline fills and drains in smaller steps.

Narayanan et al. 2021, "Efficient Large-Scale Language Model Training on GPU Clusters Using Megatron-LM" (arXiv
2104.04473), section 2.2.2, figure 4 below. With v chunks a stage, p stages and m micro-batches it is idle for
(p - 1) / (v m + p - 1) of the time, and sends v times as much. m must be a multiple of p.
"""

from __future__ import annotations

from drivetrain.parallel.pipeline.schedules.action import Action, Kind, Shape


def interleaved(shape: Shape, stage: int) -> list[Action]:
    """See above."""
    stages, chunks, microbatches = shape
    total = chunks * microbatches

    def action(kind: Kind, number: int) -> Action:
        """The stage's number-th: `stages` micro-batches through one chunk, then the same through the next."""
        chunk = number // stages % chunks
        microbatch = number // (stages * chunks) * stages + number % stages
        return Action(kind, chunk if kind is Kind.FORWARD else chunks - 1 - chunk, microbatch)

    ahead = min(total, 2 * (stages - stage - 1) + (chunks - 1) * stages)
    actions = [action(Kind.FORWARD, number) for number in range(ahead)]
    for number in range(total):
        if ahead + number < total:
            actions.append(action(Kind.FORWARD, ahead + number))
        actions.append(action(Kind.BACKWARD, number))
    return actions
