"""How is the learning rate of a step made from the optimizer's own? By the size of the batch, and by a warm-up.

Both are factors on whatever the optimizer and the script's schedule say; neither has state.
"""

from __future__ import annotations

from dataclasses import dataclass

from drivetrain_api.runtime import RuntimeLearningRate


@dataclass(frozen=True, slots=True)
class RateFactor:
    """What the learning rate is multiplied by."""

    scale: float = 1.0
    warmup_steps: int = 0

    @classmethod
    def of(cls, settings: RuntimeLearningRate, batch: int) -> RateFactor:
        """For a global batch of this many samples.

        linear: batch / base (Goyal et al. 2017, section 2.1); sqrt: its square root (Krizhevsky 2014, section 5), which
        keeps the variance of an update; You et al. 2020 use it for LAMB.
        """
        ratio = batch / (settings.base_batch or batch)
        scale = {"none": 1.0, "linear": ratio, "sqrt": ratio**0.5}[settings.scaling]
        return cls(scale, settings.warmup_steps)

    def at(self, step: int) -> float:
        """The factor of a step, counted from 0: during warm-up it grows in equal parts (Goyal et al. 2017, 2.2)."""
        return self.scale * min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else self.scale
