"""What does a stage of a pipeline do in a step beside passing on: read, seed, count, and add up with the others?"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from drivetrain import rng
from drivetrain.comm.arrivals import Arrivals
from drivetrain.data.order import parts_of, share
from drivetrain.data.source import Source
from drivetrain.errors import UsageError
from drivetrain.parallel.layout import NUMBERS
from drivetrain.parallel.loss import Forward
from drivetrain.parallel.mesh import Mesh
from drivetrain.parallel.pipeline.stage import Pipeline
from drivetrain.parallel.tally import Tally
from drivetrain.precision import Precision
from drivetrain_api.runtime import RuntimeTraining


class StageWork:
    """The steps of one model on one stage."""

    def __init__(
        self,
        pipeline: Pipeline,
        model: nn.Module,
        source: Source,
        tally: Tally,
        precision: Precision,
        training: RuntimeTraining,
    ) -> None:
        self._pipeline = pipeline
        self._model = model
        self._source = source
        self._tally = tally
        self._precision = precision
        self._training = training

    def place(self, mesh: Mesh, step: int, forward: Forward) -> None:
        """A membership begins: decide which blocks each stage gets, by what they cost here and now; on all ranks
        alike. Raises `Interrupted`."""
        training, tally, stages = self._training, self._tally, self._pipeline.stages
        part = parts_of(share(self._source.batch, mesh.data_size, mesh.data_rank), training.microbatches)[0]
        tally.open(change_pending=False)
        with rng.stream(training.seed, step, mesh.data_rank):
            shard = self._source.read(step, part)

            def compute() -> torch.Tensor:
                result = forward(self._model, shard)
                stages.check(result)
                return tally.add(result, len(part))

            costs = stages.measure(compute)
            mine = stages.obstacles(compute)
        tally.buffers.put_back()
        for parameter in self._model.parameters():
            parameter.grad = None
        found = torch.cat([costs, costs.new_tensor([float(each is not None) for each in mine])])
        mesh.world.all_reduce(found).wait()
        of_others = UsageError(
            "forward: with training.parallel.pipeline, the model cannot be cut: see the logs of others"
        )
        obstacles = [
            (each or of_others) if anybody else None
            for each, anybody in zip(mine, found[len(costs) :].tolist(), strict=True)
        ]
        self._pipeline.place(mesh, found[: len(costs)].tolist(), obstacles)

    def run(self, arrivals: Arrivals, forward: Forward, step: int, parts: list[range], stream: int) -> None:
        """Forward and backward of all micro-batches, through this rank's chunks of the model. Raises `Interrupted`."""
        seed, tally = self._training.seed, self._tally
        shards: dict[int, Any] = {}
        """By micro-batch: read once, though each chunk needs it."""

        def compute(number: int) -> torch.Tensor:
            if number not in shards:
                shards[number] = tally.read(step, parts[number])
            # What the script draws before the blocks, say a mask of words, must be the same on all stages.
            rng.seed(seed, step, stream, number)
            result = forward(self._model, shards[number])
            self._pipeline.stages.check(result)
            return self._precision.scaled(tally.add(result, len(parts[number])))

        def reseed(number: int, chunk: int) -> None:
            rng.seed(seed, step, stream, number, chunk)

        self._pipeline.step(len(parts), compute, reseed, arrivals)
        if new := tally.buffers.computed():
            raise UsageError(
                f"forward: with training.parallel.pipeline, it must not register buffers: register {', '.join(new)} "
                "in the model's __init__"
            )
        if any(self._pipeline.is_everywhere(each) for each in tally.buffers.changed()):
            raise UsageError(
                "forward: with training.parallel.pipeline, only blocks may have buffers that forward changes, such as "
                "the statistics of a batch norm"
            )

    def add_up(self, mesh: Mesh, tail: torch.Tensor) -> None:
        """What a stage does not know: the numbers of the last one, and the gradients of what all have. Raises
        `Interrupted`."""
        assert mesh.pipe is not None
        everywhere = [slot for slot in self._tally.layout.slots if self._pipeline.is_everywhere(slot.parameter)]
        used = [float(slot.parameter.grad is not None) for slot in everywhere]
        gradients = [
            torch.zeros_like(slot.parameter) if slot.parameter.grad is None else slot.parameter.grad
            for slot in everywhere
        ]
        vector = torch.cat([tail[:NUMBERS], tail.new_tensor(used), *(each.flatten() for each in gradients)])
        mesh.pipe.all_reduce(vector).wait()
        tail[:NUMBERS] = vector[:NUMBERS]
        counts = vector[NUMBERS : NUMBERS + len(used)].tolist()
        at = NUMBERS + len(used)
        for slot, count in zip(everywhere, counts, strict=True):
            size = slot.stop - slot.start
            slot.parameter.grad = vector[at : at + size].view(slot.parameter.shape) if count else None
            at += size
