"""A byte-level language model whose layers can be shared between ranks: `tp_plan` says how, `training.parallel.tensor`
by how many. Trains on the source text of Python's own standard library; writes `model.pt` to $OUTPUT.
"""

import os
import sysconfig
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

import drivetrain

CONTEXT, WIDTH, HEADS = 64, 96, 4
OUTPUT = Path(os.environ.get("OUTPUT", "."))


def standard_library(limit: int = 2_000_000) -> torch.Tensor:
    """The bytes of the standard library's top-level modules, uint8."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    return torch.frombuffer(
        bytearray(b"".join(path.read_bytes() for path in sorted(folder.glob("*.py")))[:limit]), dtype=torch.uint8
    )


class Windows:
    """Every sample is CONTEXT + 1 bytes."""

    def __init__(self, text: torch.Tensor) -> None:
        self.text = text

    def __len__(self) -> int:
        return (len(self.text) - 1) // CONTEXT

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.text[index * CONTEXT : index * CONTEXT + CONTEXT + 1].long()


class Layer(nn.Module):
    """Attention and a feed-forward part. How many heads there are follows from the weights: a rank has some of them."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        normed = self.norm1(hidden)
        query, key, value = (
            part(normed).unflatten(-1, (-1, WIDTH // HEADS)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        hidden = hidden + self.out(mixed.transpose(1, 2).flatten(2))
        return hidden + self.down(F.gelu(self.up(self.norm2(hidden))))


class Model(nn.Module):
    """A small GPT on bytes."""

    tp_plan: ClassVar = {
        "embedding": "split",  # from here on each rank has a part of the sequence, but inside of attention and up/down
        "layers.*.norm?": "sequence",
        **{f"layers.*.{name}": "colwise" for name in ("query", "key", "value", "up")},
        **{f"layers.*.{name}": "rowwise" for name in ("out", "down")},
        "norm": "sequence",
        "head": "colwise_gather",
    }

    def __init__(self) -> None:
        super().__init__()
        self.embedding = Embedding()
        self.layers = nn.ModuleList(Layer() for _ in range(2))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, 256)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        """Bytes (batch, time) to logits (batch, time, 256)."""
        hidden = self.embedding(text)
        for layer in self.layers:
            hidden = layer(hidden)
        return self.head(self.norm(hidden))


class Embedding(nn.Module):
    """Of bytes and their positions."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes, self.positions = nn.Embedding(256, WIDTH), nn.Embedding(CONTEXT, WIDTH)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        return self.bytes(text) + self.positions(torch.arange(text.shape[1], device=text.device))


def forward(model: nn.Module, text: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(model(text[:, :-1]).flatten(0, 1), text[:, 1:].flatten())


def main() -> None:
    run = drivetrain.start(defaults={"steps": 60, "global_batch": 32, "clip_norm": 1.0})
    text = standard_library()
    held_out = Windows(text[-10_000:])
    run.prepare(
        model=Model(),
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=3e-3),
        data=Windows(text[:-10_000]),
        resume=OUTPUT / "model.pt",
    )
    before = run.evaluate(held_out, forward)
    for batch in run.batches():
        run.step(batch, forward)
    after = run.evaluate(held_out, forward)
    run.save(OUTPUT / "model.pt")
    print(f"held-out loss {before.loss:.4f} before, {after.loss:.4f} after {run.step_number} steps")


if __name__ == "__main__":
    main()
