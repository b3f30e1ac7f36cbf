"""What is the next character of a line of Python? Lines from many files, read in parts, beside the training.

Runs alone (`python train.py`), under torchrun, and as a TrainingJob. $FILES is where the files are, as a URL or path
that fsspec knows (s3://…, https://…; default: Python's own standard library). Writes `lines.pt` to $OUTPUT (default:
here).
"""

import os
import sysconfig
from pathlib import Path

import fsspec
import torch
import torch.nn.functional as F
from torch import nn

import drivetrain

LENGTH, CONTEXT = 64, 8
"""Characters of a line that are looked at, and characters before each that the model sees."""
CHARACTERS, WIDTH = 128, 128
FILES = os.environ.get("FILES") or sysconfig.get_paths()["stdlib"]
OUTPUT = Path(os.environ.get("OUTPUT", "."))


def characters(line: str) -> torch.Tensor:
    """A line as numbers, shape (CONTEXT + LENGTH,): zeros before and behind it."""
    found = torch.zeros(CONTEXT + LENGTH, dtype=torch.int64)
    codes = [min(ord(each), CHARACTERS - 1) for each in line[: LENGTH - 1] + "\n"]
    found[CONTEXT : CONTEXT + len(codes)] = torch.tensor(codes)
    return found


def lines(*, held_out: bool) -> drivetrain.Files:
    """Those of every 25th file, or of all others. Lists of files are sorted, so all ranks have the same."""
    system, path = fsspec.core.url_to_fs(FILES)
    names = sorted(system.glob(f"{path}/*.py"))
    urls = [system.unstrip_protocol(name) for at, name in enumerate(names) if (at % 25 == 0) == held_out]
    return drivetrain.Files(urls, transform=characters, part_bytes=64 << 10, cache_bytes=16 << 20)


class LineModel(nn.Module):
    """A layer over the characters before (Bengio et al. 2003)."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(CHARACTERS, 16)
        self.hidden = nn.Linear(CONTEXT * 16, WIDTH)
        self.head = nn.Linear(WIDTH, CHARACTERS)

    def forward(self, before: torch.Tensor) -> torch.Tensor:
        """Characters (n, CONTEXT) to logits (n, CHARACTERS)."""
        return self.head(F.gelu(self.hidden(self.embed(before).flatten(1))))


def forward(model: nn.Module, shard: torch.Tensor) -> drivetrain.Loss:
    windows = shard.unfold(1, CONTEXT + 1, 1).reshape(-1, CONTEXT + 1)
    windows = windows[windows[:, -1] > 0]
    logits = model(windows[:, :-1])
    return drivetrain.Loss(F.cross_entropy(logits, windows[:, -1], reduction="sum"), len(windows))


run = drivetrain.start(defaults={"steps": 250, "global_batch": 64})
run.prepare(
    model=LineModel(),
    optimizer=lambda parameters: torch.optim.AdamW(parameters, 3e-3),
    data=lines(held_out=False),
    resume=OUTPUT / "lines.pt",
)
held_out = lines(held_out=True)
before = run.evaluate(held_out, forward, batch=512)
for batch in run.batches():
    run.step(batch, forward)
after = run.evaluate(held_out, forward, batch=512)
run.save(OUTPUT / "lines.pt")
print(f"held-out loss {before.loss:.4f} before, {after.loss:.4f} after {run.step_number} steps")
