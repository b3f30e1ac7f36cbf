"""When can a process take part in nothing any more? After what cannot be undone, and after what ended it half-way.

An update that fails half-way leaves a state that is of no step. A rank that leaves an operation by `KeyboardInterrupt`
or `SystemExit` has left the others in it. The script may catch either; but whatever it asks for next is refused, so
that this process ends, and the others go on as after a death.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from drivetrain.errors import Interrupted, UsageError


def ends_the_process(error: BaseException) -> bool:
    """Whether that is what it means: such an error is nobody's but this process's."""
    return isinstance(error, (KeyboardInterrupt, SystemExit))


class Stranded:
    """Of one process: whether it is, and why."""

    def __init__(self) -> None:
        self._why: tuple[str, BaseException] | None = None

    def __bool__(self) -> bool:
        return self._why is not None

    def refuse(self, what: str) -> None:
        """`what` the script asks for now. Raises `UsageError` if this process can take part in nothing any more."""
        if self._why is not None:
            text, error = self._why
            raise UsageError(f"{what}: {text}; let that error end the process") from error

    def left(self, where: str, error: BaseException) -> None:
        """This rank leaves an operation that the others are in."""
        self._why = (f"{type(error).__name__} has ended {where} here, in which the other ranks still are", error)

    @contextmanager
    def updating(self, step: int) -> Iterator[None]:
        """Around what is neither undone nor done again."""
        try:
            yield
        except Interrupted:
            raise
        except BaseException as error:
            self._why = (
                f"the update of step {step} has ended half-way, in {type(error).__name__}, and cannot be undone: the "
                "state here is of no step",
                error,
            )
            raise
