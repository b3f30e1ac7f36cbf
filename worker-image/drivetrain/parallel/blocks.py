"""Into which blocks does a model fall, one after the other?

The elements of `model.blocks`, if there is such a list; otherwise those of the outermost `nn.ModuleList`s and
`nn.Sequential`s. What belongs to no block, or to several (tied weights), is the rest: embeddings, the head.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
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
    block_of = {
        id(inner): number
        for number, module in enumerate(_hinted(model) or _outermost(model))
        for inner in module.modules()
    }
    users: dict[int, set[int | None]] = defaultdict(set)
    for module in model.modules():
        for each in module.parameters(recurse=False):
            users[id(each)].add(block_of.get(id(module)))
    blocks = [
        Block(module, tuple(each for each in module.parameters() if id(each) in dense and users[id(each)] == {number}))
        for number, module in enumerate(_hinted(model) or _outermost(model))
    ]
    blocks = [block for block in blocks if block.parameters]
    inside = {id(each) for block in blocks for each in block.parameters}
    rest = tuple(each for each in model.parameters() if id(each) in dense - inside)
    return ([Block(None, rest)] if rest else []) + blocks


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
