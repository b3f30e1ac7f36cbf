"""Which module of Python's standard library is a line of source from? A large table of words with sparse gradients.

Runs alone (`python train.py`), under torchrun, and as a TrainingJob. Writes `words.pt` to $OUTPUT (default: here).
"""

import os
import re
import sysconfig
import zlib
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

import drivetrain

ROWS, WIDTH = 1 << 16, 32
WORDS = 16
"""Words of a line that are looked at; shorter lines are filled up with row 0, which counts for nothing."""
MODULES = 40
OUTPUT = Path(os.environ.get("OUTPUT", "."))


def row(word: str) -> int:
    """A row of the table for any word, the same in every process; never 0."""
    return 1 + zlib.crc32(word.encode()) % (ROWS - 1)


class Lines:
    """Lines with at least four words, of the largest modules: rows (WORDS,), number of the module."""

    def __init__(self, *, held_out: bool) -> None:
        files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"), key=lambda path: -path.stat().st_size)
        lines, modules = [], []
        for number, path in enumerate(files[:MODULES]):
            text = path.read_text("utf-8", "ignore").splitlines()
            for words in (
                re.findall(r"\w+", line)[:WORDS] for at, line in enumerate(text) if (at % 10 == 0) == held_out
            ):
                if len(words) >= 4:
                    lines.append([row(word) for word in words] + [0] * (WORDS - len(words)))
                    modules.append(number)
        self.lines, self.modules = torch.tensor(lines), torch.tensor(modules)

    def __len__(self) -> int:
        return len(self.lines)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.lines[index], self.modules[index]


class WordModel(nn.Module):
    """The mean of a line's words, and one layer (Joulin et al. 2016, fastText)."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.EmbeddingBag(ROWS, WIDTH, mode="mean", sparse=True, padding_idx=0)
        self.head = nn.Linear(WIDTH, MODULES)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows (batch, WORDS) to logits (batch, MODULES)."""
        return self.head(self.words(rows))


def forward(model: nn.Module, shard: tuple[torch.Tensor, torch.Tensor]) -> drivetrain.Loss:
    rows, modules = shard
    logits = model(rows)
    right = float((logits.argmax(1) == modules).sum())
    return drivetrain.Loss(F.cross_entropy(logits, modules, reduction="sum"), len(modules), {"accuracy": right})


def main() -> None:
    run = drivetrain.start(defaults={"steps": 400, "global_batch": 256})
    held_out = Lines(held_out=True)
    run.prepare(
        model=WordModel(),
        optimizer=lambda parameters: torch.optim.Adagrad(parameters, lr=0.1),
        data=Lines(held_out=False),
        resume=OUTPUT / "words.pt",
    )
    before = run.evaluate(held_out, forward, batch=512)
    for batch in run.batches():
        result = run.step(batch, forward)
        run.log(accuracy=result.metrics["accuracy"])
    after = run.evaluate(held_out, forward, batch=512)
    run.save(OUTPUT / "words.pt")
    print(f"held-out loss {before.loss:.4f} before, {after.loss:.4f} after {run.step_number} steps")
    print(f"held-out accuracy {after.metrics['accuracy']:.3f}, {1 / MODULES:.3f} by chance")


if __name__ == "__main__":
    main()
