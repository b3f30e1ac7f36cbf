"""What is trained: a transformer of 5.7 M parameters on the source text of Python's standard library, as charlm does.

The same for both sides: initial parameters, samples of every step, optimizer, clipping. There is no dropout, so that
both must arrive at the same loss.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, Final

import torch
import torch.nn.functional as F
from torch import nn

from drivetrain.data.order import share
from drivetrain.data.source import MapSource

VOCABULARY: Final = [chr(code) for code in (10, *range(32, 127))]
CONTEXT, WIDTH, DEPTH, HEADS = 64, 240, 8, 8
CLIP_NORM: Final = 1.0
SEED: Final = 3


def standard_library(limit: int = 1_000_000) -> torch.Tensor:
    """Characters of the standard library's top-level modules as indices into VOCABULARY, int64."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    text = ""
    for path in sorted(folder.glob("*.py")):
        text += path.read_text("utf-8", "ignore")
        if len(text) >= limit:
            break
    table = torch.full((128,), VOCABULARY.index(" "), dtype=torch.int64)
    for index, character in enumerate(VOCABULARY):
        table[ord(character)] = index
    codes = torch.frombuffer(bytearray(text[:limit].encode("ascii", "ignore")), dtype=torch.uint8)
    return table[codes.long()]


class Windows:
    """Every sample is CONTEXT characters and, shifted by one, the characters that follow."""

    def __init__(self, text: torch.Tensor) -> None:
        self.text = text

    def __len__(self) -> int:
        return (len(self.text) - 1) // CONTEXT

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        window = self.text[index * CONTEXT : index * CONTEXT + CONTEXT + 1]
        return window[:-1], window[1:]


class Block(nn.Module):
    """Pre-norm attention and feed-forward; (batch, time, width) to the same."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.queries = nn.Linear(width, width)
        self.keys = nn.Linear(width, width)
        self.values = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        normed = self.norm1(hidden)
        # -1, not the number of heads: a rank of tensor parallelism has its part of them.
        head = normed.shape[-1] // self.heads
        q, k, v = (
            each(normed).unflatten(-1, (-1, head)).transpose(1, 2) for each in (self.queries, self.keys, self.values)
        )
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        hidden = hidden + self.out(attended)
        out: torch.Tensor = hidden + self.down(F.gelu(self.up(self.norm2(hidden))))
        return out


class Transformer(nn.Module):
    """A small GPT. `blocks` is what stage 3 of ZeRO gathers one by one and what a pipeline is cut between."""

    tp_plan: ClassVar = {
        **{f"blocks.*.{name}": "colwise" for name in ("queries", "keys", "values", "up")},
        **{f"blocks.*.{name}": "rowwise" for name in ("out", "down")},
    }

    def __init__(self, width: int = WIDTH, depth: int = DEPTH, heads: int = HEADS) -> None:
        super().__init__()
        self.characters = nn.Embedding(len(VOCABULARY), width)
        self.positions = nn.Embedding(CONTEXT, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.head = nn.Linear(width, len(VOCABULARY))

    def forward(self, indices: torch.Tensor) -> torch.Tensor:
        """Indices (batch, time) to logits (batch, time, vocabulary)."""
        hidden = self.characters(indices) + self.positions(torch.arange(indices.shape[1]))
        for block in self.blocks:
            hidden = block(hidden)
        out: torch.Tensor = self.head(hidden)
        return out


def new_model(width: int = WIDTH) -> Transformer:
    """The same initial parameters every time, on every rank."""
    torch.manual_seed(SEED)
    return Transformer(width)


def new_optimizer(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Every mode's, unless the mode is about the optimizer."""
    return torch.optim.AdamW(parameters, **ADAMW)


ADAMW: Final[dict[str, Any]] = {"lr": 1e-3, "eps": 1e-6}
"""A larger eps than torch's: Adam turns a gradient's rounding into a step of full size where all gradients are tiny."""


def loss_of(model: nn.Module, shard: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """The forward function of both sides: mean cross-entropy a character."""
    inputs, targets = shard
    return F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())


class Feed:
    """What torch's side reads: at every step the samples that our side reads, cut over the ranks alike."""

    def __init__(self, data: Windows, batch: int, rank: int, world: int) -> None:
        self._source = MapSource(data, None, SEED, batch)
        self._mine = share(batch, world, rank)

    def share(self, step: int) -> Any:
        """This rank's part of a step's batch."""
        return self._source.read(step, self._mine)

    def whole(self, step: int) -> Any:
        """All of it, for modes whose ranks share out the model instead."""
        return self._source.read(step, range(self._source.batch))
