"""What a rank could not send yet: error feedback, and how it survives a change of membership.

Every lossy method adds to a gradient what earlier steps left out of it, and remembers what this step leaves out (Seide
et al. 2014; Karimireddy et al. 2019, arXiv 1901.09847). That memory is this rank's alone, so state copied from a peer
does not contain it: before members come or go it is summed over all, and shared out anew afterwards. Of a rank that
dies it is lost: by the second paper's lemma 3 at most 2 sqrt(1 - d) / d of its longest gradient, d being the part of a
vector's square that the method delivers: 0.014 for int8, 0.24 for int4.
"""

from __future__ import annotations

import torch

from drivetrain.comm.transport import Transport


class Carried:
    """A vector as long as the gradient that this rank carries from step to step."""

    def __init__(self, like: torch.Tensor) -> None:
        self.value = torch.zeros_like(like)
        """As the last committed step left it."""
        self.next = torch.zeros_like(like)
        """As the step in progress will leave it."""
        self.whole: torch.Tensor | None = None
        """The sum over the ranks of an earlier membership, not shared out yet."""

    def begin(self, world: int) -> None:
        """A step begins among so many ranks."""
        if self.whole is not None:
            self.value.copy_(self.whole).div_(world)
            self.whole = None

    def commit(self) -> None:
        """The step is done."""
        self.value, self.next = self.next, self.value

    def hand_over(self, transport: Transport) -> None:
        """Sum over the ranks, because some of them will leave. Raises `Interrupted`; nothing was changed then."""
        if self.whole is None:
            total = self.value.clone()
            transport.all_reduce(total).wait()
            self.whole = total

    def take_over(self, whole: torch.Tensor | None) -> None:
        """Begin with what a peer knows of the sum."""
        self.whole = None if whole is None else whole.clone()
        self.value.zero_()
