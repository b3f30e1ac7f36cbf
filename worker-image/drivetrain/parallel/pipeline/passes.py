"""What happens at a block when the forward function calls it: pass on, leave out, measure, record.

One object is one call of the forward function; each block calls its `call` (stages.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch

from drivetrain.device import settle
from drivetrain.errors import UsageError
from drivetrain.parallel.loss import Output, minimised
from drivetrain.parallel.pipeline.elsewhere import Elsewhere, has_unknown, known

Original = Callable[..., Any]


class StageEnd(BaseException):
    """The forward function has reached the next stage's first block."""

    def __init__(self, value: torch.Tensor) -> None:
        super().__init__()
        self.value = value


class Passage:
    """One call of the forward function, for one chunk of blocks."""

    def __init__(
        self, blocks: range, count: int, receive: Callable[[], torch.Tensor], enter: Callable[[], None]
    ) -> None:
        """`count`: of all blocks. `receive` gives our first block's input; `enter` is called before it, if the chunk is
        not the first."""
        self._blocks = blocks
        self._count = count
        self._receive = receive
        self._enter = enter
        self._next = 0
        self.input: torch.Tensor | None = None
        """What our first block was given, if it came from another stage."""

    def call(self, number: int, original: Original, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A block is called."""
        _check_order(number, self._next)
        self._next += 1
        given = _given(args)
        if number < self._blocks.start:
            return Elsewhere.on(given.device)
        if number == self._blocks.stop:
            value = known(given)
            if has_unknown(value):
                raise UsageError(_NOT_A_CHAIN.format(number))
            raise StageEnd(value)
        if number == self._blocks.start and number > 0:
            if not has_unknown(given):
                raise UsageError(_NOT_A_CHAIN.format(number))
            assert isinstance(given, Elsewhere)
            given.arrived = self.input = self._receive().to(given.device).requires_grad_(torch.is_grad_enabled())
            self._enter()
        if self._blocks.start > 0:
            args, kwargs = known((args, kwargs))
            if has_unknown((args, kwargs)):
                raise UsageError(_NOT_A_CHAIN.format(number))
        return original(*args, **kwargs)

    def check(self, result: Output) -> None:
        """The forward function was not left, so this is the last chunk: raises `UsageError` if it was no chain."""
        if self._next != self._count:
            raise _not_all_called(self._count, self._next)
        if has_unknown(minimised(result)):
            raise UsageError(
                "forward: with training.parallel.pipeline, the loss must not depend on what blocks of other stages "
                "return, but by the blocks after them"
            )


_NOT_A_CHAIN: Final = (
    "forward: with training.parallel.pipeline, block {} must be given what comes from the block before it, and nothing "
    "from earlier ones; set model.blocks to a list of modules that form a chain"
)


class Timing:
    """One call of the forward function, block by block; all blocks are there."""

    def __init__(self, count: int) -> None:
        self.costs: list[float] = [0.0] * count
        """Seconds of forward and backward."""
        self.before = 0.0
        """Seconds of the backward pass of what comes before the blocks."""
        self.left = 0.0
        """When the last block was done."""
        self._next = 0

    def call(self, number: int, original: Original, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A block is called."""
        given = _given(args)
        if self._next == 0 and given.requires_grad:
            started = now(given)
            torch.autograd.backward(given, torch.ones_like(given), retain_graph=True)
            self.before = now(given) - started
        self._next += 1
        started = now(given)
        inside = given.detach().requires_grad_(given.is_floating_point())
        output = original(inside, *args[1:], **kwargs)
        if isinstance(output, torch.Tensor) and output.requires_grad:
            torch.autograd.backward(output, torch.ones_like(output), retain_graph=True)
        self.left = now(given)
        self.costs[number] = self.left - started
        return output.detach().requires_grad_() if isinstance(output, torch.Tensor) else output


class Tried(Passage):
    """One call of the forward function as the stage would make it that begins with a certain block and has all after
    it. Nothing is computed in blocks: they return what they returned before, in a call by `Recorded`."""

    def __init__(self, first: int, recorded: Recorded) -> None:
        count = len(recorded.given)
        super().__init__(range(first, count), count, lambda: recorded.given[first].clone(), lambda: None)
        self._returned = recorded.returned

    def call(self, number: int, original: Original, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A block is called."""
        return super().call(number, lambda *_, **__: self._returned[number], args, kwargs)


class Recorded:
    """One call of the forward function with all blocks there, and what each was given and returned."""

    def __init__(self) -> None:
        self.given: list[torch.Tensor] = []
        self.returned: list[Any] = []

    def call(self, number: int, original: Original, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A block is called."""
        _check_order(number, len(self.given))
        self.given.append(_given(args).detach())
        self.returned.append(original(*args, **kwargs))
        return self.returned[-1]

    def check(self, count: int) -> None:
        """Raises `UsageError` if not all blocks were called."""
        if len(self.given) != count:
            raise _not_all_called(count, len(self.given))


class Whole:
    """A call of the forward function with all blocks there, and the random numbers that the stages would draw."""

    def __init__(self, bounds: Sequence[int], enter: Callable[[int], None]) -> None:
        self._chunks = {first: chunk for chunk, first in enumerate(bounds[:-1]) if chunk > 0}
        self._enter = enter

    def call(self, number: int, original: Original, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A block is called."""
        if number in self._chunks:
            self._enter(self._chunks[number])
        return original(*args, **kwargs)


def _check_order(number: int, due: int) -> None:
    if number != due:
        raise UsageError(
            f"forward: block {number} of model.blocks is called where block {due} was due; with "
            "training.parallel.pipeline, each must be called once, in their order"
        )


def _not_all_called(count: int, called: int) -> UsageError:
    return UsageError(
        f"forward: with training.parallel.pipeline, all {count} of model.blocks must be called; it returned "
        f"after {called}"
    )


def _given(args: tuple[Any, ...]) -> torch.Tensor:
    """A block's first argument."""
    given = args[0] if args else None
    if not isinstance(given, torch.Tensor):
        raise UsageError(
            f"forward: with training.parallel.pipeline, a block's first argument must be a tensor, not "
            f"{type(given).__name__}"
        )
    return given


def now(tensor: torch.Tensor) -> float:
    settle(tensor.device)
    return time.perf_counter()
