"""Which of a model's blocks does this rank compute, and how is the script's forward function kept to them?

The function runs as the script wrote it. A block of another stage that comes before ours is left out: its result is
unknown (elsewhere.py). Our first block gets what the stage before has sent. When the block after our last one is
called, the function is left by an exception that carries what the block was given: that is sent to the next stage. All
else, such as embeddings and the head, is there on every rank; what it is used for decides where it gets gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, Final

import torch
from torch import nn

from drivetrain.errors import UsageError
from drivetrain.parallel.absent import Absent
from drivetrain.parallel.blocks import in_backward, modules_of, owners
from drivetrain.parallel.loss import Output
from drivetrain.parallel.pipeline.cut import cut
from drivetrain.parallel.pipeline.elsewhere import known
from drivetrain.parallel.pipeline.passes import Original, Passage, Recorded, StageEnd, Timing, Tried, Whole, now

_TIMINGS: Final = 3
"""How often costs are measured; the least of each block counts."""


class Stages:
    """The blocks of one model, and which are ours."""

    def __init__(self, model: nn.Module, chunks: int) -> None:
        """`chunks`: of the whole model."""
        self._model = model
        self._modules = modules_of(model)
        if len(self._modules) < chunks:
            raise UsageError(
                f"training.parallel.pipeline: the model has {len(self._modules)} blocks for {chunks} chunks (stages "
                "times chunks of each): set model.blocks to a list of at least as many modules"
            )
        self._refuse_wrong_blocks()
        self.absent = Absent()
        """What other stages have."""
        self._pass: Passage | Timing | Recorded | Whole | None = None
        self._bounds: list[int] = []
        self._chunk_of: dict[int, int] = {}
        """By id of a parameter or buffer."""
        self._block_of = owners(model, self._modules)
        for number, module in enumerate(self._modules):
            module.forward = self._wrapped(number, module.forward)

    def _refuse_wrong_blocks(self) -> None:
        """Each must be called, once, and for itself."""
        names = {id(module): name for name, module in self._model.named_modules()}
        listed = {id(each) for each in self._modules}
        if len(listed) < len(self._modules):
            twice = next(each for at, each in enumerate(self._modules) if each in self._modules[:at])
            raise UsageError(
                f"training.parallel.pipeline: {names[id(twice)]} is listed twice in model.blocks; no two stages can "
                "share a block"
            )
        for each in self._modules:
            name = names[id(each)]
            if type(each).forward is nn.Module.forward and "forward" not in vars(each):
                raise UsageError(
                    f"training.parallel.pipeline: the block {name} is a {type(each).__name__}, which has no forward "
                    "and so is never called; set model.blocks to a list of modules that are called one after the other"
                )
            inner = next(
                (names[id(other)] for other in each.modules() if other is not each and id(other) in listed), None
            )
            if inner is not None:
                raise UsageError(f"training.parallel.pipeline: the block {inner} of model.blocks is a part of {name}")

    def _wrapped(self, number: int, original: Original) -> Original:
        def forward(*args: Any, **kwargs: Any) -> Any:
            if self._pass is None or in_backward():
                args, kwargs = known((args, kwargs))
                return original(*args, **kwargs)
            return self._pass.call(number, original, args, kwargs)

        return forward

    @property
    def bounds(self) -> list[int]:
        """Where each chunk begins, and the number of blocks. Empty: the model is whole."""
        return self._bounds

    @bounds.setter
    def bounds(self, bounds: list[int]) -> None:
        self._bounds = bounds
        if bounds:
            self._block_of = owners(self._model, self._modules)  # buffers may be other ones than when they were made
        chunks = {block: chunk for chunk, (first, end) in enumerate(pairwise(bounds)) for block in range(first, end)}
        self._chunk_of = {key: chunks[block] for key, block in self._block_of.items()} if bounds else {}

    @property
    def count(self) -> int:
        """Number of blocks."""
        return len(self._modules)

    def chunk_of(self, tensor: torch.Tensor) -> int | None:
        """Which chunk this parameter or buffer belongs to; None: all ranks have it."""
        return self._chunk_of.get(id(tensor))

    def parameters_of(self, chunks: Sequence[int]) -> dict[int, list[nn.Parameter]]:
        """Those that may get a gradient from each of these chunks: its own, and those that all ranks have."""
        found: dict[int, list[nn.Parameter]] = {chunk: [] for chunk in chunks}
        for each in self._model.parameters():
            if each.requires_grad:
                of = self.chunk_of(each)
                for chunk in found if of is None else {of} & found.keys():
                    found[chunk].append(each)
        return found

    def blocks_of_chunk(self, chunk: int) -> range:
        """Numbers of a chunk's blocks."""
        return range(self.bounds[chunk], self.bounds[chunk + 1])

    # --- where to cut -----------------------------------------------------------------------------------------------

    def measure(self, compute: Callable[[], torch.Tensor]) -> torch.Tensor:
        """Seconds of forward and backward of each block, then of what comes before and after them, float64, shape
        (blocks + 2,). `compute` calls the forward function on some samples. Leaves gradients behind."""
        rounds = []
        for _ in range(_TIMINGS):
            timing = Timing(self.count)
            self._pass = timing
            try:
                loss = compute()
                loss.backward()
            finally:
                self._pass = None
            rounds.append([*timing.costs, timing.before, now(loss) - timing.left])
        return torch.tensor(rounds, dtype=torch.float64).amin(0)

    def obstacles(self, compute: Callable[[], torch.Tensor]) -> list[Exception | None]:
        """What is wrong with a chunk that begins with each block but the first, if anything. `compute` as above. Raises
        `UsageError` for what is wrong wherever the model is cut."""
        recorded = Recorded()
        self.run(recorded, compute)
        recorded.check(self.count)
        found: list[Exception | None] = []
        for first in range(1, self.count):
            try:
                self.run(Tried(first, recorded), compute)
                found.append(None)
            except Exception as error:  # noqa: BLE001  Whatever the script does with a stand-in, it cannot be cut here.
                found.append(error)
        return found

    def cut(self, costs: Sequence[float], chunks: int, obstacles: Sequence[Exception | None]) -> None:
        """From here on the model consists of so many chunks. `costs` and `obstacles` as found above. Raises the first
        obstacle if they leave too few places."""
        *blocks, before, after = costs
        starts = [0, *(first for first, obstacle in enumerate(obstacles, 1) if obstacle is None)]
        if len(starts) < chunks:
            raise next(filter(None, obstacles))
        pieces = [sum(blocks[first:end]) for first, end in pairwise([*starts, self.count])]
        self.bounds = [[*starts, self.count][each] for each in cut(pieces, chunks, before, after)]

    def described(self, costs: Sequence[float]) -> str:
        """Where it is cut, for people; `costs` as above."""
        *blocks, before, after = costs
        extra = {0: before, len(self.bounds) - 2: after}
        chunks = [
            (first, end, sum(blocks[first:end]) + extra.get(chunk, 0.0))
            for chunk, (first, end) in enumerate(pairwise(self.bounds))
        ]
        whole = sum(cost for _, _, cost in chunks)
        return ", ".join(
            f"{f'blocks {first} to {end - 1}' if end - first > 1 else f'block {first}'} ({cost / whole:.0%})"
            for first, end, cost in chunks
        )

    def whole(self) -> None:
        """All blocks are there again."""
        self.bounds, self._pass = [], None

    # --- a call of the forward function -----------------------------------------------------------------------------

    def run(self, passage: Passage | Recorded, compute: Callable[[], Any]) -> tuple[Any, torch.Tensor | None]:
        """Call `compute`, which calls the forward function: its result, or what is to be sent to the next stage."""
        self._pass = passage
        try:
            result = compute()
        except StageEnd as end:
            return None, end.value
        finally:
            self._pass = None
        return result, None

    @contextmanager
    def entering(self, enter: Callable[[int], None]) -> Iterator[None]:
        """While all blocks are there, though it is known where they will be cut: `enter(chunk)` is called before the
        first block of each chunk but the first."""
        self._pass = Whole(self.bounds, enter)
        try:
            yield
        finally:
            self._pass = None

    def check(self, result: Output) -> None:
        """Look at what the forward function returned, in `compute`. Raises `UsageError`."""
        if isinstance(self._pass, Passage):
            self._pass.check(result)
