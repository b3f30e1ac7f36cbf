"""What of a model's buffers does a step change, how is that undone, and what do all ranks make of it?

Buffers are known by module and name, and looked at anew in each step, because a script may assign another tensor to a
name, add modules between the steps, or register and delete buffers in forward. Statistics of normalisation layers
become what they were plus the mean change of all shares, weighted by samples. Of all other buffers the rule is DDP's:
those of the rank with the first samples are everybody's.

What does not change costs nothing: a large buffer that stayed the same in its first steps is watched by its version and
a sample of its elements; a copy of it stands by in case that it does change, and the step is undone.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import nn

from drivetrain.comm.transport import Transport
from drivetrain.dense import odd
from drivetrain.device import at_home
from drivetrain.errors import UsageError
from drivetrain.memory_format import dense_part
from drivetrain.outline import GONE, Gone, Outline, hide, is_hidden
from drivetrain.world.reunion import broadcast_tree

_LARGE: Final = 1 << 16
"""Bytes; smaller ones are copied and compared whole in each step."""
_LOOKS: Final = 3
"""In so many steps a large one is compared whole before it counts as constant."""
_SAMPLED: Final = 64
"""Elements of a large one that are looked at in each step."""

_Key = tuple[nn.Module, str]
_Value = torch.Tensor | Gone | None
"""What a name stands for: nothing at all, None, or a tensor."""
Became = tuple[torch.Tensor | None, str, bool] | None
"""What a buffer has become: nothing if it is gone; else what it is, on what kind of device, and whether it is not
persistent."""


@dataclass(slots=True)
class _Kept:
    """One buffer as it was when the step began."""

    module: nn.Module
    name: str
    tensor: _Value
    """The same object that the module had."""
    copy: torch.Tensor | None
    version: int
    sample: torch.Tensor | None
    """Of a large one that counts as constant."""
    hidden: bool = False
    """Not persistent."""

    @property
    def now(self) -> _Value:
        return self.module._buffers.get(self.name, GONE)

    def is_changed(self) -> bool:
        now = self.now
        if not isinstance(now, torch.Tensor) or not isinstance(self.tensor, torch.Tensor) or self.copy is None:
            return now is not self.tensor
        if is_hidden(self.module, self.name) is not self.hidden:
            return True
        if now is self.tensor:
            if self.sample is not None and now._version == self.version and torch.equal(_sample(now), self.sample):
                return False
            part = dense_part(now)
            return not torch.equal(part, _same_part(self.copy, part))
        return (now.shape, now.dtype) != (self.copy.shape, self.copy.dtype) or not torch.equal(now, self.copy)

    def put_back(self) -> None:
        if isinstance(self.tensor, Gone):
            self.module._buffers.pop(self.name, None)
            hide(self.module, self.name, False)
            return
        self.module._buffers[self.name] = self.tensor
        hide(self.module, self.name, self.hidden)
        if self.tensor is not None and self.copy is not None:
            _write(self.tensor, self.copy)


class Buffers:
    """Those of one model."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._outline = Outline(model)
        self._norms: dict[nn.Module, None] = {}
        """Normalisation layers, in the model's order."""
        self._shapes: list[tuple[nn.Module, str, torch.Size]] = []
        """Of their statistics."""
        self.statistics = 0
        """How many numbers the statistics of normalisation layers are."""
        self.digest = 0
        """32 bits that tell these layers from others: all members must have the same."""
        self._kept: list[_Kept] = []
        self._statistics: list[_Kept] = []
        self._earlier: list[_Kept] = []
        """In a later phase of a step: as they were when earlier ones began, the latest first."""
        self._first: list[tuple[_Kept, _Value, bool]] | None = None
        """Of several shares: what the first one with samples made of the others."""
        self._had_samples = False
        """The share before had."""
        self._constant: dict[_Key, _Kept] = {}
        """Large ones, with the copy that stands by."""
        self._looks: dict[_Key, int] = {}
        """How often a large one was found unchanged. Of one that was not, it is gone for good."""
        self._changing: set[_Key] = set()
        self._changed: dict[int, _Kept] | None = None
        """What the step has changed, once that is known."""
        self.outcome: dict[str, Became] = {}
        """By path: those that the last step has changed."""
        self._look_at_modules()
        self.look()

    def look(self) -> bool:
        """Between the steps: find what the script has made of the model. Returns whether other statistics than before
        are to be exchanged from now on."""
        if self._outline.has_other_modules:
            self._outline.take()
            self._look_at_modules()
        shapes = [(module, name, tensor.shape) for module, name, tensor in self._all_statistics()]
        if shapes == self._shapes:
            return False
        self._shapes = shapes
        self.statistics = sum(shape.numel() for _, _, shape in shapes)
        described = [(self._outline.path(module, name), tuple(shape)) for module, name, shape in shapes]
        self.digest = zlib.crc32(repr(described).encode())
        return True

    def _look_at_modules(self) -> None:
        modules = self._outline.modules
        self._norms = dict.fromkeys(each for each in modules if isinstance(each, nn.modules.batchnorm._NormBase))
        there = set(modules)
        self._constant = {key: each for key, each in self._constant.items() if key[0] in there}
        self._looks = {key: looks for key, looks in self._looks.items() if key[0] in there}
        self._changing = {key for key in self._changing if key[0] in there}

    def _all(self) -> Iterator[tuple[nn.Module, str, torch.Tensor | None]]:
        for module in self._outline.modules:
            if module._buffers:
                for name, tensor in module._buffers.items():
                    yield module, name, tensor

    def _all_statistics(self) -> Iterator[tuple[nn.Module, str, torch.Tensor]]:
        for module in self._norms:
            for name, tensor in module._buffers.items():
                if tensor is not None:
                    yield module, name, tensor

    # --- a step -----------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """A step begins: remember what it may change."""
        self._earlier = []
        self._remember()

    def go_on(self) -> None:
        """Another phase of the step begins, from what the one before has made of them. `restore` still goes back to
        where the step began."""
        self._earlier = [*self._statistics, *self._kept, *self._earlier]
        self._remember()

    def _remember(self) -> None:
        self._kept, self._statistics, self._first = [], [], None
        self._changed = None
        self.outcome = {}  # so that what forward assigns anew is not kept for a step longer
        self._outline.take_names()
        for module, name, tensor in self._all():
            kept = self._keep(module, name, tensor)
            kept.hidden = is_hidden(module, name)
            (self._statistics if module in self._norms and tensor is not None else self._kept).append(kept)

    def _keep(self, module: nn.Module, name: str, tensor: torch.Tensor | None) -> _Kept:
        if tensor is None:
            return _Kept(module, name, None, None, 0, None)
        if (what := odd(tensor)) is not None:
            raise UsageError(f"the model's buffer {self._outline.path(module, name)} {what}")
        key = (module, name)
        if tensor.untyped_storage().nbytes() <= _LARGE or key in self._changing:
            return _Kept(module, name, tensor, _copied(tensor), 0, None)
        known = self._constant.get(key)
        if known is None or known.tensor is not tensor or known.version != tensor._version:
            # New to us, or changed between the steps.
            known = self._constant[key] = _Kept(module, name, tensor, _copied(tensor), tensor._version, None)
            self._looks[key] = 0
        return known

    def computed(self) -> list[str]:
        """Forward has run: the buffers that it has registered belong to the step from here on. Returns their paths.
        Raises `UsageError` for what other ranks could not do, too."""
        for path, module in self._outline.new_modules:
            if any(True for _ in module.parameters()) or any(True for _ in module.buffers()):
                raise UsageError(
                    f"forward: it has made {path}, a module with parameters or buffers, which other ranks do not have; "
                    "make it in the model's __init__, or between the steps"
                )
        known = {(each.module, each.name) for each in self._kept if each.tensor is GONE}
        new = self._outline.new_buffers
        for module, name in new:
            if module in self._norms:
                raise UsageError(
                    f"forward: it has registered {self._outline.path(module, name)}, the buffer of a normalisation "
                    "layer; its statistics must be there before the step"
                )
            if (module, name) not in known:
                self._kept.append(_Kept(module, name, GONE, None, 0, None))
        for each in self._kept:
            now = each.now
            if now is not each.tensor and isinstance(now, torch.Tensor) and (what := odd(now)) is not None:
                raise UsageError(f"forward: the buffer {self._path(each)} {what}")
        for each in self._statistics:
            now, before = each.now, each.copy
            if not isinstance(now, torch.Tensor) or before is None or now.shape != before.shape:
                raise UsageError(
                    f"forward: {self._path(each)}, the buffer of a normalisation layer, has another shape now, or is "
                    "gone; statistics may come and go between the steps only"
                )
        return [self._outline.path(module, name) for module, name in new]

    def next_share(self) -> None:
        """Another share of the same step begins: each starts from the same buffers."""
        if self._first is None and self._had_samples:
            changed = (each for each in self._kept if each.is_changed())
            self._first = [(each, _copied_if_any(each.now), is_hidden(each.module, each.name)) for each in changed]
        self.put_back()

    def end_shares(self) -> None:
        """The last of several shares is computed: the first one's buffers count."""
        if self._first is not None:
            with torch.no_grad():
                for each in self._kept:
                    if each.is_changed():
                        each.put_back()
                for kept, value, hidden in self._first:
                    _assign(kept.module, kept.name, value, hidden)

    def restore(self) -> None:
        """Put all back to what they were when the step began."""
        self.put_back()
        with torch.no_grad():
            for each in self._earlier:
                if each.is_changed():
                    each.put_back()
        self._changed = None
        self.end()

    def put_back(self) -> None:
        """The same; the step goes on."""
        with torch.no_grad():
            for each in (*self._statistics, *self._kept):
                if each.is_changed():
                    each.put_back()
        self._outline.put_back()

    def conclude(self) -> None:
        """The step is exchanged: `outcome` is what it did. It can still be restored."""
        self._changed = {id(each): each for each in (*self._statistics, *self._kept) if each.is_changed()}
        earlier = (each for each in self._earlier if each.is_changed())
        self.outcome = {self._path(each): _became(each) for each in (*earlier, *self._changed.values())}

    def end(self) -> None:
        """It counts. What is restored before the next `begin` must not roll it back."""
        if self._changed is None:
            self.conclude()
        changed, self._changed = self._changed or {}, None
        for each in self._kept:
            key = (each.module, each.name)
            if key in self._constant:
                if id(each) in changed:
                    del self._constant[key], self._looks[key]
                    self._changing.add(key)
                elif each.sample is None:
                    self._looks[key] += 1
                    if self._looks[key] == _LOOKS and isinstance(each.tensor, torch.Tensor):
                        each.sample = _sample(each.tensor)
        self._kept, self._statistics, self._first, self._earlier = [], [], None, []

    # --- what all ranks make of them ----------------------------------------------------------------------------------

    def changed(self) -> list[torch.Tensor]:
        """Those that this step has changed, as the objects that the model had before it."""
        known = (*self._statistics, *self._kept)
        return [each.tensor for each in known if isinstance(each.tensor, torch.Tensor) and each.is_changed()]

    @property
    def dirty(self) -> bool:
        """Whether the step changed any that is no statistic."""
        return any(each.is_changed() for each in self._kept)

    def write_statistics(self, numbers: torch.Tensor, weight: float) -> None:
        """At the end of a share: add its change of the statistics, weighted (the weights of a step sum to 1), to a flat
        tensor."""
        self._had_samples = weight > 0
        if self._statistics:
            changes = torch._foreach_sub([_current(each) for each in self._statistics], self._before)
            numbers.add_(
                torch.cat([each.flatten().to(numbers.device, numbers.dtype) for each in changes]), alpha=weight
            )

    def read_statistics(self, numbers: torch.Tensor) -> None:
        """Set the statistics to those before the step plus the weighted mean change of all shares."""
        if not self._statistics:
            return
        before = self._before
        pieces = numbers.split([each.numel() for each in before])
        changes = [piece.view(old.shape).to(old.device) for piece, old in zip(pieces, before, strict=True)]
        fitting, values = [], []
        with torch.no_grad():
            changes = [
                change if old.is_floating_point() else change.round().to(old.dtype)
                for change, old in zip(changes, before, strict=True)
            ]
            for each, value in zip(self._statistics, torch._foreach_add(before, changes), strict=True):
                now = _current(each)
                if now.is_contiguous() and (now.shape, now.dtype) == (value.shape, value.dtype):
                    fitting.append(now)
                    values.append(value)
                    hide(each.module, each.name, each.hidden)
                else:
                    _assign(each.module, each.name, value, each.hidden)
            torch._foreach_copy_(fitting, values)

    @property
    def _before(self) -> list[torch.Tensor]:
        """The statistics when the step began."""
        return [each.copy for each in self._statistics if each.copy is not None]

    def take_from(self, transport: Transport, owner: int) -> None:
        """Make the others what rank `owner` has. All ranks call this. Raises `Interrupted`."""
        given: dict[str, Became] = {}
        if transport.rank == owner:
            given = {self._path(each): _became(each) for each in self._kept if each.is_changed()}
        else:
            with torch.no_grad():
                for each in self._kept:
                    if each.is_changed():
                        each.put_back()
        found = broadcast_tree(transport, given, owner)
        if transport.rank != owner:
            write({path: module for module, path in self._outline.paths.items()}, found)

    def _path(self, kept: _Kept) -> str:
        return self._outline.path(kept.module, kept.name)


def write(modules: Mapping[str, nn.Module], outcome: Mapping[str, Became]) -> None:
    """Make a model's buffers what they have become elsewhere. `modules`: all of it, by path."""
    with torch.no_grad():
        for path, became in outcome.items():
            prefix, _, name = path.rpartition(".")
            value, kind, hidden = became or (GONE, "", False)
            _assign(modules[prefix], name, value, hidden, kind)


def _became(kept: _Kept) -> Became:
    now = kept.now
    if isinstance(now, Gone):
        return None
    hidden = is_hidden(kept.module, kept.name)
    return (None, "", hidden) if now is None else (now.detach(), now.device.type, hidden)


def _current(kept: _Kept) -> torch.Tensor:
    now = kept.now
    assert isinstance(now, torch.Tensor)
    return now


def _copied(tensor: torch.Tensor) -> torch.Tensor:
    """Its values; one that repeats itself in memory (expanded) takes no more than that."""
    if tensor.is_contiguous():
        return tensor.detach().clone()
    return dense_part(tensor.detach()).clone().expand(tensor.shape)


def _copied_if_any(value: _Value) -> _Value:
    return _copied(value) if isinstance(value, torch.Tensor) else value


def _sample(tensor: torch.Tensor) -> torch.Tensor:
    part = dense_part(tensor.detach())
    if not part.is_contiguous():
        return part[tuple(slice(None, None, max(1, size // 4)) for size in part.shape)].clone()
    flat = part.view(-1)
    return flat[:: max(1, len(flat) // _SAMPLED)].clone()


def _same_part(whole: torch.Tensor, part: torch.Tensor) -> torch.Tensor:
    return whole if whole.shape == part.shape else whole[tuple(slice(0, size) for size in part.shape)]


def _write(tensor: torch.Tensor, values: torch.Tensor) -> None:
    """In place; into one that repeats itself in memory, too. Without gradients."""
    part = dense_part(tensor)
    part.copy_(_same_part(values, part))


def _assign(module: nn.Module, name: str, value: _Value, hidden: bool, kind: str = "") -> None:
    """`kind`: of the device that it was on, if it has come from another rank."""
    now = module._buffers.get(name)
    if isinstance(value, Gone):
        module._buffers.pop(name, None)
        hide(module, name, False)
        return
    if value is None or now is None or (now.shape, now.dtype) != (value.shape, value.dtype):
        like = next((each for each in module._buffers.values() if each is not None), None)
        if value is not None and like is not None:
            value = value.to(like.device)
        module._buffers[name] = at_home(value, kind) if value is not None and like is None and kind else value
    else:
        _write(now, value)
    hide(module, name, hidden)
