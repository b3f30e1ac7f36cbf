"""Pipeline parallelism: one step of a stage, by its schedule.

Each rank of a pipeline has one chunk of the model's blocks, or several (stages.py). Micro-batches pass through them
forward, their gradients backward; what order a stage works in is its schedule (schedules/). Everything that is sent is
sent as soon as it is there (comm/neighbours.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import torch
from torch import nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from drivetrain import say
from drivetrain.comm.arrivals import Arrivals
from drivetrain.comm.neighbours import Message, Neighbours
from drivetrain.errors import UsageError
from drivetrain.parallel.mesh import Mesh
from drivetrain.parallel.pipeline.passes import Passage
from drivetrain.parallel.pipeline.schedules.action import Action, Kind, Shape
from drivetrain.parallel.pipeline.schedules.table import SCHEDULES
from drivetrain.parallel.pipeline.stages import Stages
from drivetrain.telemetry.spending import Spending
from drivetrain_api.holdup import Stage
from drivetrain_api.runtime import RuntimePipeline

_REENTRANT: Final = (
    "training.parallel.pipeline.schedule zerobubble: a block calls backward inside its backward, as "
    "torch.utils.checkpoint with use_reentrant=True does, so its gradients cannot be computed in two parts; set "
    "use_reentrant=False, or take another schedule"
)

_PIECES_UNDER_WAY: Final = 8
"""In an evaluation: so far may a stage be ahead of the next one."""


@dataclass(slots=True)
class _Live:
    """A micro-batch between its forward and its backward pass through a chunk."""

    input: torch.Tensor | None
    """None: from the script's own data."""
    edge: GradientEdge | None
    """Of the output; None: nothing that is trained comes before it."""
    device: torch.device
    """Of the output."""
    gradient: torch.Tensor | None
    """Of the output; in the last chunk that is the loss, whose gradient is 1."""
    left: list[dict[str, Any]] | None = None
    """What a `WEIGHT` goes on with after a `BACKWARD`; None if that did nothing."""


class Pipeline:
    """The stage of one rank."""

    def __init__(self, stages: Stages, options: RuntimePipeline) -> None:
        self.stages = stages
        self.stage_count = options.stages
        self.spending = Spending()
        """Is told what a step is at."""
        self._schedule = SCHEDULES[options.schedule]
        self._chunks = options.chunks
        """Of each stage."""
        self._mesh: Mesh | None = None
        self._neighbours: Neighbours | None = None
        self._live: dict[tuple[int, int], _Live] = {}
        self._parameters: dict[int, list[nn.Parameter]] = {}
        """By chunk, if gradients are computed in two parts: those that may get one from it in this step."""
        if options.schedule == "zerobubble":
            import drivetrain.parallel.pipeline.split  # noqa: F401  Now, and not in the first step.

    def place(self, mesh: Mesh, costs: Sequence[float], obstacles: Sequence[Exception | None]) -> None:
        """A membership begins: decide which blocks are whose. `costs` and `obstacles` as `Stages` finds them, on all
        ranks the same."""
        if mesh.idle:
            return
        assert mesh.pipe is not None
        self.stages.cut(costs, mesh.stages * self._chunks, obstacles)
        if mesh.world.rank == 0:
            say.line(f"pipeline of {mesh.stages} stages: {self.stages.described(costs)}")
        self._mesh = mesh
        self._neighbours = Neighbours(mesh.pipe, {_beside(mesh, -1), _beside(mesh, 1)})

    def is_here(self, tensor: torch.Tensor) -> bool:
        """Whether this parameter or buffer belongs to a block of ours, or to no block."""
        chunk = self.stages.chunk_of(tensor)
        return chunk is None or (self._mesh is not None and chunk % self._mesh.stages == self._mesh.stage)

    def is_everywhere(self, tensor: torch.Tensor) -> bool:
        """Whether it belongs to no block."""
        return self.stages.chunk_of(tensor) is None

    def abandon(self) -> None:
        """The step was interrupted, and the membership is over."""
        self._live = {}
        self._mesh, self._neighbours = None, None

    def _chunk(self, action: Action) -> int:
        """Of the whole model."""
        assert self._mesh is not None
        return action.chunk * self._mesh.stages + self._mesh.stage

    def _messages(self, action: Action, shape: Shape) -> tuple[Message | None, Message | None]:
        """What an action receives, and what it sends."""
        assert self._mesh is not None
        chunk, number, last = self._chunk(action), action.microbatch, shape.stages * shape.chunks - 1
        before, after = _beside(self._mesh, -1), _beside(self._mesh, 1)

        def tag(sender: int, *, gradient: bool) -> int:
            return (2 * sender + gradient) * shape.microbatches + number

        receives = sends = None
        if action.kind is Kind.FORWARD:
            receives = Message(before, tag(chunk - 1, gradient=False)) if chunk else None
            sends = Message(after, tag(chunk, gradient=False)) if chunk < last else None
        elif action.kind is Kind.BACKWARD:
            receives = Message(after, tag(chunk + 1, gradient=True)) if chunk < last else None
            sends = Message(before, tag(chunk, gradient=True)) if chunk else None
        return receives, sends

    # --- a step -----------------------------------------------------------------------------------------------------

    def step(
        self,
        microbatches: int,
        compute: Callable[[int], torch.Tensor],
        reseed: Callable[[int, int], None],
        arrivals: Arrivals,
    ) -> None:
        """Forward and backward of all micro-batches. `compute(i)` calls the forward function for one and returns what
        to call `backward` on; `reseed(i, chunk)` is called before a chunk other than the first. Raises `Interrupted`.
        """
        mesh, neighbours = self._mesh, self._neighbours
        assert mesh is not None
        assert neighbours is not None
        shape = Shape(mesh.stages, self._chunks, microbatches)
        actions = self._schedule(shape, mesh.stage)
        messages = [self._messages(action, shape) for action in actions]
        splits = any(action.kind is Kind.WEIGHT for action in actions)
        if splits:
            self._parameters = self.stages.parameters_of(sorted({self._chunk(action) for action in actions}))
        with _ending_for_all(neighbours), self.stages.absent.many_forwards():
            for number, (action, (receives, sends)) in enumerate(zip(actions, messages, strict=True)):
                receive = partial(_received, neighbours, receives)
                mesh.world.interrupt.check()
                if number == len(actions) - 1:
                    arrivals.arm()
                self.spending.stage(Stage.FORWARD if action.kind is Kind.FORWARD else Stage.BACKWARD)
                if action.kind is Kind.FORWARD:
                    self._forward(action, compute, reseed, receive, neighbours, sends)
                elif action.kind is Kind.BACKWARD:
                    self._backward(action, receive, neighbours, sends, arrivals if splits else None)
                else:
                    self._weight(action, arrivals)
            neighbours.settle()

    def _forward(
        self,
        action: Action,
        compute: Callable[[int], torch.Tensor],
        reseed: Callable[[int, int], None],
        receive: Callable[[], torch.Tensor],
        neighbours: Neighbours,
        sends: Message | None,
    ) -> None:
        chunk = self._chunk(action)
        passage = Passage(
            self.stages.blocks_of_chunk(chunk),
            self.stages.count,
            receive,
            lambda: reseed(action.microbatch, chunk),
        )
        loss, value = self.stages.run(passage, lambda: compute(action.microbatch))
        if passage.input is not None and not passage.input.requires_grad:
            raise UsageError(
                "forward: with training.parallel.pipeline, a block must not be called where gradients are switched "
                "off, as by torch.utils.checkpoint with use_reentrant=True; set use_reentrant=False"
            )
        output = value if loss is None else loss
        assert output is not None
        if not output.requires_grad and (loss is not None or passage.input is not None):
            raise UsageError(
                "forward: with training.parallel.pipeline, what blocks return, and the loss, must depend on what the "
                "first of them was given: nothing may be detached on the way"
            )
        edge = get_gradient_edge(output) if output.requires_grad else None  # None: all before it is frozen
        gradient = None if loss is None else torch.ones_like(loss)
        self._live[action.chunk, action.microbatch] = _Live(passage.input, edge, output.device, gradient)
        if sends is not None:
            neighbours.send(output, sends)

    def _backward(
        self,
        action: Action,
        receive: Callable[[], torch.Tensor],
        neighbours: Neighbours,
        sends: Message | None,
        splits: Arrivals | None,
    ) -> None:
        """`splits`: the gradients of the parameters, which arrive there, are computed later."""
        live = self._live[action.chunk, action.microbatch]
        if live.gradient is None:
            live.gradient = receive().to(live.device)
        if live.edge is None:
            if splits is None:
                del self._live[action.chunk, action.microbatch]
        elif splits is None:
            torch.autograd.backward((live.edge,), (live.gradient,))
            del self._live[action.chunk, action.microbatch]
        elif live.input is not None:
            from drivetrain.parallel.pipeline.split import backward_to_input

            parameters = self._parameters[self._chunk(action)]
            splits.refuses = _REENTRANT
            try:
                live.left = backward_to_input(live.edge, live.gradient, live.input, parameters)
            except RuntimeError as error:
                if "use_reentrant" in str(error.__cause__):  # torch's own check
                    raise UsageError(_REENTRANT) from None
                raise
            splits.refuses = None
        if sends is not None:
            assert live.input is not None
            gradient, live.input.grad = live.input.grad, None
            neighbours.send(torch.zeros_like(live.input) if gradient is None else gradient, sends)

    def _weight(self, action: Action, arrivals: Arrivals) -> None:
        live = self._live.pop((action.chunk, action.microbatch))
        assert live.gradient is not None
        if live.edge is None:
            return
        if live.left is None:  # the first chunk: nobody waits for the gradient of its input
            torch.autograd.backward((live.edge,), (live.gradient,))
            return
        from drivetrain.parallel.pipeline.split import backward_to_parameters

        parameters = self._parameters[self._chunk(action)]
        for each in backward_to_parameters(live.edge, live.gradient, live.left, parameters):
            arrivals.arrived(each)

    # --- an evaluation ----------------------------------------------------------------------------------------------

    def passing(self, forward: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        """The same function for an evaluation, without gradients: None where it does not come to its end. All ranks of
        a pipeline call it for the same samples."""
        mesh, neighbours = self._mesh, self._neighbours
        assert mesh is not None
        assert neighbours is not None
        shape = Shape(mesh.stages, self._chunks, 1)
        calls = 0

        def call(model: Any, shard: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls % _PIECES_UNDER_WAY == 0:
                neighbours.settle()
            result = None

            def whole() -> Any:
                found = forward(model, shard)
                self.stages.check(found)
                return found

            for chunk in range(self._chunks):
                action = Action(Kind.FORWARD, chunk, 0)
                receives, sends = self._messages(action, shape)
                blocks = self.stages.blocks_of_chunk(self._chunk(action))
                passage = Passage(blocks, self.stages.count, partial(_received, neighbours, receives), lambda: None)
                with _ending_for_all(neighbours):
                    result, value = self.stages.run(passage, whole)
                    if sends is not None:
                        assert value is not None
                        neighbours.send(value, sends)
            return result

        return call

    def settle(self) -> None:
        """At the end of an evaluation: wait until the next stage has all. Raises `Interrupted`."""
        if self._neighbours is not None:
            self._neighbours.settle()


@contextmanager
def _ending_for_all(neighbours: Neighbours) -> Iterator[None]:
    """An error inside reaches the other stages: none waits for what this one will not send any more."""
    try:
        yield
    except BaseException:
        neighbours.hang_up()
        raise


def _beside(mesh: Mesh, way: int) -> int:
    """The stage before (-1) or after (1), round and round."""
    return (mesh.stage + way) % mesh.stages


def _received(neighbours: Neighbours, message: Message | None) -> torch.Tensor:
    assert message is not None
    return neighbours.receive(message)
