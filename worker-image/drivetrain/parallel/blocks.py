"""Into which blocks does a model fall, one after the other?

The elements of `model.blocks`, if there is such a list; otherwise those of the outermost `nn.ModuleList`s and
`nn.Sequential`s. What belongs to no block, or to several (tied weights), is the rest: embeddings, the head.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from drivetrain.comm.sparse import sparse_parameters
from drivetrain.errors import UsageError


@dataclass(frozen=True, slots=True)
class Block:
    """One block with trainable parameters; module None is the rest."""

    module: nn.Module | None
    parameters: tuple[nn.Parameter, ...]
    """The trainable ones with dense gradients."""


def blocks_of(model: nn.Module) -> list[Block]:
    """The rest, then the blocks in the order of registration. Raises `UsageError` if `model.blocks` is no list."""
    tables = {id(each) for each in sparse_parameters(model)}
    dense = {id(each) for each in model.parameters() if each.requires_grad} - tables
    modules = modules_of(model)
    owner = owners(model, modules)
    dense &= owner.keys()
    blocks = [
        Block(module, tuple(each for each in module.parameters() if id(each) in dense and owner[id(each)] == number))
        for number, module in enumerate(modules)
    ]
    blocks = [block for block in blocks if block.parameters]
    inside = {id(each) for block in blocks for each in block.parameters}
    left_out = inside | tables
    rest = tuple(each for each in model.parameters() if each.requires_grad and id(each) not in left_out)
    return ([Block(None, rest)] if rest else []) + blocks


def modules_of(model: nn.Module) -> list[nn.Module]:
    """The blocks' modules, whether they are trained or not. Raises `UsageError` as `blocks_of` does."""
    return _hinted(model) or list(_outermost(model))


def owners(model: nn.Module, blocks: Sequence[nn.Module]) -> dict[int, int]:
    """By id of a parameter or buffer: which of the blocks has it, if one has, and nothing else of the model does."""
    users: dict[int, set[int | None]] = defaultdict(set)
    inside = set()
    for number, block in enumerate(blocks):
        for module in block.modules():
            inside.add(module)
            for each in _own(module):
                users[id(each)].add(number)
    for module in model.modules():
        for each in _own(module) if module not in inside else ():
            users[id(each)].add(None)
    alone = {key: next(iter(using)) for key, using in users.items() if len(using) == 1}
    return {key: number for key, number in alone.items() if number is not None}


def _own(module: nn.Module) -> Iterator[torch.Tensor]:
    yield from module.parameters(recurse=False)
    yield from module.buffers(recurse=False)


def _hinted(model: nn.Module) -> list[nn.Module]:
    given = getattr(model, "blocks", None)
    if isinstance(given, (list, tuple)):
        own = {id(module) for module in model.modules()}
        if not all(isinstance(each, nn.Module) and id(each) in own for each in given):
            raise UsageError("prepare(model=...): model.blocks must be a list of modules of the model")
        return list(given)
    return list(given) if isinstance(given, (nn.ModuleList, nn.Sequential)) else []


def _outermost(module: nn.Module) -> Iterator[nn.Module]:
    if isinstance(module, (nn.ModuleList, nn.Sequential)):
        yield from module.children()
        return
    for child in module.children():
        yield from _outermost(child)


def in_backward() -> bool:
    """Whether autograd is running: a checkpointed block is computed again."""
    current: Callable[[], int] = torch._C._current_graph_task_id
    return current() != -1
