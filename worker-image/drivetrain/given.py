"""What a script hands over in `run.prepare`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from drivetrain.data.source import Collate, Dataset, MapSource, is_stream
from drivetrain.data.stream import Passes, StreamSource
from drivetrain.errors import UsageError
from drivetrain.optim.closures import refuse_closures
from drivetrain.optim.several import Several, each_of
from drivetrain.schedule import When

MakeOptimizer = Callable[[Iterator[nn.Parameter]], torch.optim.Optimizer]
MakeScheduler = Callable[[torch.optim.Optimizer], LRScheduler]
Models = nn.Module | Mapping[str, nn.Module]
"""One, or several by name; so are these:"""
MakeOptimizers = MakeOptimizer | Mapping[str, MakeOptimizer]
MakeSchedulers = MakeScheduler | Mapping[str, MakeScheduler]


@dataclass(frozen=True, slots=True)
class Given:
    """All of it."""

    model: Models
    optimizer: MakeOptimizers
    data: Dataset
    scheduler: MakeSchedulers | None = None
    schedule: When | None = None
    collate: Collate | None = None
    sampler: Iterable[int] | None = None
    drop_last: bool = False
    process_group: bool = False

    def modules(self) -> nn.Module:
        """The model; of several, one that has them by name. Raises `UsageError`."""
        model: Any = self.model
        if isinstance(model, nn.Module):
            return model
        if not isinstance(model, Mapping) or not model:
            raise UsageError(f"prepare(model=...): must be a module, or modules by name, got {type(model).__name__}")
        for name, each in model.items():
            if not isinstance(each, nn.Module):
                raise UsageError(f"prepare(model=...): {name!r} must be a module, got {type(each).__name__}")
        try:
            return nn.ModuleDict(dict(model))
        except (KeyError, TypeError) as error:
            raise UsageError(f"prepare(model=...): a name that a module cannot have: {error.args[0]}") from None

    def optimizers(self, model: nn.Module) -> torch.optim.Optimizer:
        """One of all that is to be updated. Each factory gets the parameters of the model of its name. Raises
        `UsageError`."""
        if not isinstance(self.optimizer, Mapping):
            return self.optimizer(model.parameters())
        if not self.optimizer:
            raise UsageError("prepare(optimizer=...): must be a factory, or factories by name, got none")
        made = {name: make(_named(model, name).parameters()) for name, make in self.optimizer.items()}
        for each in made.values():
            refuse_closures(each)
        return Several(made) if len(made) > 1 else next(iter(made.values()))

    def schedulers(self, optimizer: torch.optim.Optimizer) -> dict[str, LRScheduler]:
        """By the name of their optimizer; "" of the only one. Raises `UsageError`."""
        if self.scheduler is None:
            return {}
        optimizers, makes = each_of(optimizer), self.scheduler
        if not isinstance(makes, Mapping):
            if isinstance(optimizer, Several):
                names = ", ".join(optimizers)
                raise UsageError(f"prepare(scheduler=...): must be factories by name of an optimizer: {names}")
            return {"": makes(optimizer)}
        if isinstance(self.optimizer, Mapping) and len(self.optimizer) == 1:  # the only one has a name for the script
            makes = {"" if name in self.optimizer else name: make for name, make in makes.items()}
        if unknown := makes.keys() - optimizers.keys():
            raise UsageError(
                f"prepare(scheduler=...): no optimizer is named {sorted(unknown)}; there are {list(optimizers)}"
            )
        return {name: make(optimizers[name]) for name, make in makes.items()}

    @property
    def samples(self) -> int | None:
        """Of the dataset; None if only reading it can tell. Raises `UsageError` for what is no dataset."""
        return None if is_stream(self.data, "prepare(data=...)") else len(self.data)  # type: ignore[arg-type]

    def source(self, seed: int, batch: int, passes: Passes) -> MapSource | StreamSource:
        """What a step reads from. `passes` of an iterable dataset, as far as they are known. Raises `UsageError`."""
        if self.samples is not None:
            return MapSource(self.data, self.collate, seed, batch, self.sampler, drop_last=self.drop_last)  # type: ignore[arg-type]
        if self.sampler is not None or self.drop_last:
            name = "sampler=..." if self.sampler is not None else "drop_last=True"
            raise UsageError(f"prepare({name}): an iterable dataset decides itself what it yields, in which order")
        return StreamSource(self.data, self.collate, seed, batch, passes)  # type: ignore[arg-type]


def _named(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError:
        known = [each for each, _ in model.named_children()]
        raise UsageError(
            f"prepare(optimizer=...): there is no model {name!r} whose parameters it could have; there are {known}"
        ) from None
