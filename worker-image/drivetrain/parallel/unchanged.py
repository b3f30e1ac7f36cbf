"""Does forward change parameters? It must not: each rank would by its samples, and one without samples not at all.

Seen by the version that torch counts in each tensor, so a look costs nanoseconds; what a script writes through `.data`
is not seen.
"""

from __future__ import annotations

from types import TracebackType

from torch import nn

from drivetrain.errors import UsageError
from drivetrain.parallel.trained import Trained


class Unchanged:
    """The parameters of one model, while its forward and backward run: a context manager. No generator, because that
    sets attributes of exceptions, which a class of the script's may forbid.
    """

    def __init__(self, trained: Trained) -> None:
        self._trained = trained
        self._known: list[nn.Parameter] = []
        self._watched: list[nn.Parameter] = []
        self._before: list[int] = []
        self._refusal: str | None = None
        """Once it was so, for good: ranks may differ since."""

    def __enter__(self) -> None:
        """Begin to watch. Raises `UsageError` if a parameter was changed before."""
        self._refuse()
        if self._known is not self._trained.every:
            self._known = self._trained.every
            self._watched = [each for each in self._known if not each.is_inference()]  # those have no versions
        self._before = [each._version for each in self._watched]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Raises `UsageError` that names a parameter which was changed inside, unless an error comes out of it."""
        now = [each._version for each in self._watched]
        if now != self._before:
            changed = next(each for each, a, b in zip(self._watched, self._before, now, strict=True) if a != b)
            self._refusal = (
                f"forward: {self._trained.names[id(changed)]}, a parameter, was changed while forward and backward "
                "ran, so ranks would come to have other values: change it in run.on_update or after run.step, or "
                "make it a buffer (register_buffer)"
            )
        if kind is None:
            self._refuse()

    def _refuse(self) -> None:
        if self._refusal is not None:
            raise UsageError(self._refusal)
