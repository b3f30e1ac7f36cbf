"""What of a model's buffers does a step change, how is that undone, and what do all ranks make of it?

Buffers are known by module and name, and looked at anew in each step, because a script may assign another tensor to a
name. Statistics of normalisation layers become what they were plus the mean change of all shares, weighted by samples.
Of all other buffers the rule is DDP's: those of the rank with the first samples are everybody's.

What does not change costs nothing: a large buffer that stayed the same in its first steps is watched by its version and
a sample of its elements; a copy of it stands by in case that it does change, and the step is undone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import torch
from torch import nn

from drivetrain.comm.transport import Transport
from drivetrain.memory_format import dense_part
from drivetrain.world.reunion import broadcast_tree

_LARGE: Final = 1 << 16
"""Bytes; smaller ones are copied and compared whole in each step."""
_LOOKS: Final = 3
"""In so many steps a large one is compared whole before it counts as constant."""
_SAMPLED: Final = 64
"""Elements of a large one that are looked at in each step."""

_Key = tuple[nn.Module, str]


@dataclass(slots=True)
class _Kept:
    """One buffer as it was when the step began."""

    module: nn.Module
    name: str
    tensor: torch.Tensor | None
    """The same object that the module had."""
    copy: torch.Tensor | None
    version: int
    sample: torch.Tensor | None
    """Of a large one that counts as constant."""

    def is_changed(self) -> bool:
        now = self.module._buffers.get(self.name)
        if now is None or self.tensor is None or self.copy is None:
            return now is not self.tensor
        if now is self.tensor:
            if self.sample is not None and now._version == self.version and torch.equal(_sample(now), self.sample):
                return False
            part = dense_part(now)
            return not torch.equal(part, _same_part(self.copy, part))
        return (now.shape, now.dtype) != (self.copy.shape, self.copy.dtype) or not torch.equal(now, self.copy)

    def put_back(self) -> None:
        self.module._buffers[self.name] = self.tensor
        if self.tensor is not None and self.copy is not None:
            _write(self.tensor, self.copy)


class Buffers:
    """Those of one model."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._modules = list(model.modules())
        self._names = {module: name for name, module in model.named_modules()}
        self._norms = {each for each in self._modules if isinstance(each, nn.modules.batchnorm._NormBase)}
        self._kept: list[_Kept] = []
        self._statistics: list[_Kept] = []
        self._first: list[tuple[_Key, torch.Tensor | None]] | None = None
        """Of several shares: what the first one with samples made of the others."""
        self._had_samples = False
        """The share before had."""
        self._constant: dict[_Key, _Kept] = {}
        """Large ones, with the copy that stands by."""
        self._looks: dict[_Key, int] = {}
        """How often a large one was found unchanged. Of one that was not, it is gone for good."""
        self._changing: set[_Key] = set()
        self.statistics = sum(each.numel() for _, _, each in self._all_statistics())
        """How many numbers the statistics of normalisation layers are."""

    def _all(self) -> Iterator[tuple[nn.Module, str, torch.Tensor | None]]:
        for module in self._modules:
            if module._buffers:
                for name, tensor in module._buffers.items():
                    yield module, name, tensor

    def _all_statistics(self) -> Iterator[tuple[nn.Module, str, torch.Tensor]]:
        for module, name, tensor in self._all():
            if module in self._norms and tensor is not None:
                yield module, name, tensor

    # --- a step -----------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """A step begins: remember what it may change."""
        self._kept, self._statistics, self._first = [], [], None
        for module, name, tensor in self._all():
            kept = self._keep(module, name, tensor)
            (self._statistics if module in self._norms and tensor is not None else self._kept).append(kept)

    def _keep(self, module: nn.Module, name: str, tensor: torch.Tensor | None) -> _Kept:
        if tensor is None:
            return _Kept(module, name, None, None, 0, None)
        key = (module, name)
        if tensor.untyped_storage().nbytes() <= _LARGE or key in self._changing:
            return _Kept(module, name, tensor, _copied(tensor), 0, None)
        known = self._constant.get(key)
        if known is None or known.tensor is not tensor or known.version != tensor._version:
            # New to us, or changed between the steps.
            known = self._constant[key] = _Kept(module, name, tensor, _copied(tensor), tensor._version, None)
            self._looks[key] = 0
        return known

    def next_share(self) -> None:
        """Another share of the same step begins: each starts from the same buffers."""
        if self._first is None and self._had_samples:
            changed = (each for each in self._kept if each.is_changed())
            self._first = [((each.module, each.name), _copied_or_none(each)) for each in changed]
        self.put_back()

    def end_shares(self) -> None:
        """The last of several shares is computed: the first one's buffers count."""
        if self._first is not None:
            for each in self._kept:
                if each.is_changed():
                    each.put_back()
            for (module, name), value in self._first:
                _assign(module, name, value)

    def restore(self) -> None:
        """Put all back to what they were when the step began."""
        self.put_back()
        self.end()

    def put_back(self) -> None:
        """The same; the step goes on."""
        with torch.no_grad():
            for each in (*self._statistics, *self._kept):
                if each.is_changed():
                    each.put_back()

    def end(self) -> None:
        """The step is exchanged. What is restored before the next `begin` must not roll it back."""
        for each in self._kept:
            key = (each.module, each.name)
            if key in self._constant:
                if each.is_changed():
                    del self._constant[key], self._looks[key]
                    self._changing.add(key)
                elif each.sample is None:
                    self._looks[key] += 1
                    if self._looks[key] == _LOOKS and each.tensor is not None:
                        each.sample = _sample(each.tensor)
        self._kept, self._statistics, self._first = [], [], None

    @contextmanager
    def untouched(self) -> Iterator[None]:
        """Put all back after the block, whatever was done in it."""
        inside = Buffers(self._model)
        inside.begin()
        try:
            yield
        finally:
            inside.restore()

    # --- what all ranks make of them ----------------------------------------------------------------------------------

    def changed(self) -> list[torch.Tensor]:
        """Those that this step has changed, as the objects that the model had before it."""
        known = (*self._statistics, *self._kept)
        return [each.tensor for each in known if each.tensor is not None and each.is_changed()]

    @property
    def dirty(self) -> bool:
        """Whether the step changed any that is no statistic."""
        return any(each.is_changed() for each in self._kept)

    def write_statistics(self, numbers: torch.Tensor, weight: float) -> None:
        """At the end of a share: add its change of the statistics, weighted (the weights of a step sum to 1), to a flat
        tensor."""
        self._had_samples = weight > 0
        at = 0
        for each, old in self._statistics_before():
            change = (_current(each) - old).flatten().to(numbers.device, numbers.dtype)
            numbers[at : at + old.numel()].add_(change, alpha=weight)
            at += old.numel()

    def read_statistics(self, numbers: torch.Tensor) -> None:
        """Set the statistics to those before the step plus the weighted mean change of all shares."""
        at = 0
        with torch.no_grad():
            for each, old in self._statistics_before():
                change = numbers[at : at + old.numel()].view(old.shape).to(old.device)
                change = change if old.is_floating_point() else change.round().to(old.dtype)
                _assign(each.module, each.name, old + change)
                at += old.numel()

    def _statistics_before(self) -> Iterator[tuple[_Kept, torch.Tensor]]:
        for each in self._statistics:
            assert each.copy is not None
            yield each, each.copy

    def take_from(self, transport: Transport, owner: int) -> None:
        """Make the others what rank `owner` has. All ranks call this. Raises `Interrupted`."""
        given = {}
        if transport.rank == owner:
            changed = ((each, each.module._buffers.get(each.name)) for each in self._kept if each.is_changed())
            given = {self._path(each): None if now is None else now.detach() for each, now in changed}
        else:
            for each in self._kept:
                if each.is_changed():
                    each.put_back()
        found = broadcast_tree(transport, given, owner)
        if transport.rank != owner:
            by_path = {self._path(each): each for each in self._kept}
            with torch.no_grad():
                for path, value in found.items():
                    _assign(by_path[path].module, by_path[path].name, value)

    def _path(self, kept: _Kept) -> str:
        return f"{self._names[kept.module]}.{kept.name}"


def _current(kept: _Kept) -> torch.Tensor:
    now = kept.module._buffers[kept.name]
    assert now is not None
    return now


def _copied(tensor: torch.Tensor) -> torch.Tensor:
    """Its values; one that repeats itself in memory (expanded) takes no more than that."""
    return dense_part(tensor.detach()).clone().expand(tensor.shape)


def _copied_or_none(kept: _Kept) -> torch.Tensor | None:
    now = kept.module._buffers.get(kept.name)
    return None if now is None else _copied(now)


def _sample(tensor: torch.Tensor) -> torch.Tensor:
    part = dense_part(tensor.detach())
    if not part.is_contiguous():
        return part[tuple(slice(None, None, max(1, size // 4)) for size in part.shape)].clone()
    flat = part.view(-1)
    return flat[:: max(1, len(flat) // _SAMPLED)].clone()


def _same_part(whole: torch.Tensor, part: torch.Tensor) -> torch.Tensor:
    return whole if whole.shape == part.shape else whole[tuple(slice(0, size) for size in part.shape)]


def _write(tensor: torch.Tensor, values: torch.Tensor) -> None:
    """In place; into one that repeats itself in memory, too."""
    with torch.no_grad():
        part = dense_part(tensor)
        part.copy_(_same_part(values, part))


def _assign(module: nn.Module, name: str, value: torch.Tensor | None) -> None:
    now = module._buffers.get(name)
    if value is None or now is None or (now.shape, now.dtype) != (value.shape, value.dtype):
        like = next((each for each in module._buffers.values() if each is not None), value)
        module._buffers[name] = value if value is None or like is None else value.to(like.device)
    else:
        _write(now, value)
