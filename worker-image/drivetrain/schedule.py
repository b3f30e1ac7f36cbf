"""When does a learning rate's schedule go on? With each update, with each pass over the data, or when the script says.

The first two are parts of an update (update.py), so they happen once, whatever dies. The third is the script's, between
operations: it is for schedules that want to be told a number, such as `ReduceLROnPlateau`, by `run.scheduler.step(…)`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import torch
from torch.optim.lr_scheduler import LRScheduler

from drivetrain.data.passes import PassLength
from drivetrain.errors import UsageError

When = Literal["step", "pass", "script"]
WHENS: Final = ("step", "pass", "script")
Gradients = Sequence[torch.Tensor | None]
_ARGUMENT: Final = "prepare(schedule=...)"


@dataclass(frozen=True, slots=True)
class Schedule:
    """Of one run's optimizers."""

    schedulers: Mapping[str, LRScheduler]
    """By the optimizer's name; "" of the only one."""
    when: When
    passes: PassLength
    places: Mapping[str, range] = field(default_factory=dict)
    """By name, where gradients of that optimizer are among those of all; nothing if there is but one."""

    @classmethod
    def of(
        cls,
        schedulers: Mapping[str, LRScheduler],
        when: When | None,
        passes: PassLength,
        places: Mapping[str, range] | None = None,
    ) -> Schedule:
        """`when` None: with each step, if they can. Raises `UsageError`."""
        asks = next((each for each in schedulers.values() if _asks(each)), None)
        when = when or ("script" if asks is not None else "step")
        if when not in WHENS:
            raise UsageError(f"{_ARGUMENT}: must be one of {', '.join(WHENS)}, got {when!r}")
        if asks is not None and when != "script":
            raise UsageError(
                f'{_ARGUMENT}: {type(asks).__name__}.step must be told a number, so it cannot be "{when}": leave it '
                "out, and call run.scheduler.step(number) after run.evaluate or at the end of a pass"
            )
        if when == "pass":
            passes.ends(0, by=f'{_ARGUMENT} "pass"')
        return cls(schedulers, when, passes, places or {})

    def made(self, step: int, gradients: Gradients, *, skipped: bool) -> None:
        """A step is made, or left out: go on, if that is due."""
        if self.when == "script" or (self.when == "step" and skipped):
            return
        if self.when == "pass" and not self.passes.ends(step):
            return
        for name, scheduler in self.schedulers.items():
            if self.when == "pass" or self._is_updated(name, gradients):
                scheduler.step()

    def _is_updated(self, name: str, gradients: Gradients) -> bool:
        place = self.places.get(name)
        return place is None or any(gradients[each] is not None for each in place)


NO_SCHEDULE: Final = Schedule({}, "script", PassLength(None, 1))


class Together:
    """Several schedulers, as one piece of the training state."""

    def __init__(self, schedulers: Mapping[str, LRScheduler]) -> None:
        self._schedulers = schedulers

    def state_dict(self) -> dict[str, Any]:
        """By name."""
        return {name: each.state_dict() for name, each in self._schedulers.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse."""
        for name, each in self._schedulers.items():
            each.load_state_dict(state[name])


def _asks(scheduler: Any) -> bool:
    """Whether its `step` cannot be called without an argument."""
    step: Callable[..., Any] = type(scheduler).step
    parameters = list(inspect.signature(step).parameters.values())[1:]
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return any(each.default is inspect.Parameter.empty and each.kind in kinds for each in parameters)
