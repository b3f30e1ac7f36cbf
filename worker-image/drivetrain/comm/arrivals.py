"""When has backward made a gradient, and where does it go? Hooks on the parameters of one model.

A gradient is moved, once a step, to where it will be sent from; what later micro-batches add goes there by itself. When
the last micro-batch's backward has made it, it may be sent.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from drivetrain.comm.wait import Interrupt
from drivetrain.errors import UsageError
from drivetrain.parallel.layout import Layout, Slot


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
        more, `made(slot)` in every backward."""
        self._layout = layout
        self._place = place
        self._complete = complete
        self._made = made
        self._interrupt: Interrupt | None = None
        self._last = False
        self._seen: list[bool] = []
        self._counted: list[bool] = []
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
        self._seen = [False] * len(self._layout.slots)
        self._counted = [False] * len(self._layout.slots)

    def arm(self) -> None:
        """The next backward is the last of this step."""
        self._last = True

    def rest(self) -> None:
        """The step has all its gradients: what backward makes until the next one is nothing to us."""
        self._interrupt = None

    def end(self) -> None:
        """The step was interrupted: its gradients are nothing to anybody."""
        self.clear()
        self.rest()

    def clear(self) -> None:
        """Forget all gradients."""
        for slot in self._layout.slots:
            slot.parameter.grad = None

    def arrived(self, parameter: torch.Tensor) -> None:
        """For who computes gradients without autograd's hooks: `parameter.grad` has been made, or added to."""
        self._arrived_at(self._slot_of[id(parameter)])(parameter)

    def _arrived_at(self, slot: Slot) -> Callable[[torch.Tensor], None]:
        # Called for every parameter in every backward: what does not change is looked up once.
        index, place, complete, made = slot.index, self._place, self._complete, self._made

        def arrived(parameter: torch.Tensor) -> None:
            if self._interrupt is None:
                return
            gradient, target = parameter.grad, place(slot)
            if gradient is not target:
                # Autograd made a tensor of its own: the first micro-batch.
                assert gradient is not None
                parameter.grad = target.copy_(gradient)
                self._seen[index] = True
            if made is not None:
                made(slot)
            if self._last:
                if self._counted[index]:
                    # Several backward passes inside one (re-entrant checkpointing): it may be on its way already.
                    raise UsageError(
                        "forward: a parameter got its gradient twice in one backward pass; "
                        "use torch.utils.checkpoint with use_reentrant=False"
                    )
                self._counted[index] = True
                complete(slot)

        return arrived

    def has(self, slot: Slot) -> bool:
        """Whether this step has made a gradient of this parameter."""
        return self._seen[slot.index]

    @property
    def used(self) -> list[int]:
        """Slot indices of the parameters that got a gradient here."""
        if self._interrupt is None:
            return [slot.index for slot in self._layout.slots if slot.parameter.grad is not None]
        return [index for index, seen in enumerate(self._seen) if seen]
