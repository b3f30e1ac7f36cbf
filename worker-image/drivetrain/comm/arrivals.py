"""When has backward made a gradient, and where does it go? Hooks on the parameters of one model.

A gradient is moved, once a step, to where it will be sent from; what later micro-batches add goes there by itself. When
the last micro-batch's backward has made it, it may be sent. Small gradients are moved many at once, right before they
are sent: one by one, that would be Python more than copying.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch

from drivetrain.comm.wait import Interrupt
from drivetrain.errors import UsageError
from drivetrain.parallel.layout import Layout, Slot

_SMALL_BYTES: Final = 1 << 16


class Arrivals:
    """The gradients of one model, as they are made."""

    def __init__(
        self,
        layout: Layout,
        place: Callable[[Slot], torch.Tensor],
        complete: Callable[[Slot], None],
        made: Callable[[Slot], None] | None = None,
    ) -> None:
        """`place(slot)`: where a gradient belongs. `complete(slot)` is called when nothing will be added to it any
        more, `made(slot)` in every backward. Whoever sends gradients calls `move` first."""
        self._layout = layout
        self._place = place
        self._complete = complete
        self._made = made
        self._interrupt: Interrupt | None = None
        self._last = False
        self.refuses: str | None = None
        """What to tell a script whose backward makes a gradient now, where none is due; None: all are welcome."""
        self._seen = [False] * len(layout.slots)
        self._counted = [False] * len(layout.slots)
        self._to_move: list[Slot] = []
        self._slot_of = {id(slot.parameter): slot for slot in layout.slots}
        self._hooks = [
            slot.parameter.register_post_accumulate_grad_hook(self._arrived_at(slot)) for slot in layout.slots
        ]

    def close(self) -> None:
        """Somebody else takes over the model's gradients."""
        for hook in self._hooks:
            hook.remove()

    def begin(self, interrupt: Interrupt | None) -> None:
        """A step begins. None: gradients stay where autograd puts them."""
        self.clear()
        self._interrupt = interrupt
        self._last = False
        self._seen[:] = self._counted[:] = [False] * len(self._layout.slots)
        self._to_move.clear()

    def arm(self) -> None:
        """The next backward is the last of this step."""
        self._last = True

    def rest(self) -> None:
        """The step has all its gradients: what backward makes until the next one is nothing to us."""
        self._interrupt = None

    def end(self) -> None:
        """The step was interrupted: its gradients are nothing to anybody."""
        self.refuses = None
        self.clear()
        self.rest()

    def clear(self) -> None:
        """Forget all gradients."""
        for slot in self._layout.slots:
            slot.parameter.grad = None

    def arrived(self, parameter: torch.Tensor) -> None:
        """For who computes gradients without autograd's hooks: `parameter.grad` has been made, or added to."""
        slot = self._slot_of.get(id(parameter))
        if slot is not None:  # else nobody trains it
            self._arrived_at(slot)(parameter)

    def _arrived_at(self, slot: Slot) -> Callable[[torch.Tensor], None]:
        # Called for every parameter in every backward: what does not change is looked up once.
        index, place, complete, made = slot.index, self._place, self._complete, self._made
        seen, counted, to_move = self._seen, self._counted, self._to_move
        small = made is None and slot.parameter.nbytes <= _SMALL_BYTES
        converted = slot.converted

        def arrived(parameter: torch.Tensor) -> None:
            if self.refuses is not None:
                raise UsageError(self.refuses)
            if self._interrupt is None:
                return
            if not seen[index]:  # the first micro-batch: autograd made a tensor of its own
                seen[index] = True
                if converted:
                    pass  # its gradient stays autograd's, and is copied when nothing will be added any more
                elif small:
                    to_move.append(slot)
                else:
                    gradient = parameter.grad
                    assert gradient is not None
                    parameter.grad = place(slot).copy_(gradient)
            if made is not None:
                made(slot)
            if self._last:
                if counted[index]:
                    # Several backward passes in one micro-batch: it may be on its way already.
                    raise UsageError(
                        "forward: a parameter got its gradient twice, because there was more than one backward pass: "
                        "forward must not call backward() (return the sum of all losses, or use torch.autograd.grad), "
                        "and torch.utils.checkpoint must have use_reentrant=False"
                    )
                counted[index] = True
                if converted:
                    to_move.append(slot)
                complete(slot)

        return arrived

    def move(self) -> None:
        """Bring all gradients to their places that are not there yet."""
        if not self._to_move:
            return
        places = [self._place(slot) for slot in self._to_move]
        gradients: list[torch.Tensor] = []
        for slot, target in zip(self._to_move, places, strict=True):
            gradient = slot.parameter.grad
            assert gradient is not None
            gradients.append(gradient)
            if not slot.converted:
                slot.parameter.grad = target
        torch._foreach_copy_(places, gradients)
        self._to_move.clear()

    def move_converted(self) -> None:
        """The step will make no more gradients: bring those to their places that are there, and came early."""
        counted, seen = self._counted, self._seen
        slots = self._layout.slots if self._layout.converts else ()
        self._to_move += [each for each in slots if each.converted and seen[each.index] and not counted[each.index]]
        self.move()

    def has(self, slot: Slot) -> bool:
        """Whether this step has made a gradient of this parameter."""
        return self._seen[slot.index]

    @property
    def has_all(self) -> bool:
        """Whether it has made all."""
        return all(self._seen)

    @property
    def used(self) -> list[int]:
        """Slot indices of the parameters that got a gradient here."""
        if self._interrupt is None:
            return [slot.index for slot in self._layout.slots if slot.parameter.grad is not None]
        return [index for index, seen in enumerate(self._seen) if seen]
