"""Which pass over the data is a step in, and does one end with it? What is said of passes in numbers of steps."""

from __future__ import annotations

from dataclasses import dataclass

from drivetrain.errors import UsageError


@dataclass(frozen=True, slots=True)
class PassLength:
    """Of one run's data."""

    samples: int | None
    """That a pass trains on; None if only reading can tell."""
    batch: int
    """Samples of a global batch."""

    @classmethod
    def of(cls, samples: int | None, batch: int, *, whole_batches: bool) -> PassLength:
        """`whole_batches`: what is left of a pass, less than a batch, is left out of it. Raises `UsageError`."""
        if not whole_batches:
            return cls(samples, batch)
        if samples is None:
            raise UsageError("prepare(drop_last=True): an iterable dataset decides itself what is in a pass")
        if samples < batch:
            raise UsageError(
                f"prepare(drop_last=True): a pass has {samples} samples, and a batch (training.batch.global) {batch}: "
                "nothing would be left"
            )
        return cls(samples // batch * batch, batch)

    def number(self, step: int) -> int:
        """Of the pass that the first sample of a step is in; the first pass is 0. Raises `UsageError`."""
        return step * self.batch // self._known("batch.pass_number")

    def ends(self, step: int, by: str = "batch.ends_pass") -> bool:
        """Whether a pass ends with this step, or within it. Raises `UsageError` that names `by`."""
        samples = self._known(by)
        return (step + 1) * self.batch // samples > step * self.batch // samples

    def _known(self, by: str) -> int:
        if self.samples is None:
            raise UsageError(f"{by}: how long a pass of an iterable dataset is, is known only when it was read")
        return self.samples
