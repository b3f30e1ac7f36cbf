"""A character language model on the source text of Python's own standard library: real data that every machine has.

Runs alone (`python train.py`), under torchrun, and as a TrainingJob. Writes `model.pt` to $OUTPUT (default: here);
`python train.py generate "def "` continues a text with it.
"""

import json
import os
import sys
import sysconfig
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

import drivetrain

CONTEXT = 64
VOCABULARY = [chr(code) for code in (10, *range(32, 127))]
OUTPUT = Path(os.environ.get("OUTPUT", "."))
SAMPLE_SECONDS = float(os.environ.get("SAMPLE_SECONDS", "0"))
"""As if a sample took so long: for looking at jobs that change their size on a machine with few cores."""


def standard_library(limit: int = 4_000_000) -> torch.Tensor:
    """The characters of the standard library's top-level modules as indices into VOCABULARY, int64."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    text = "".join(path.read_text("utf-8", "ignore") for path in sorted(folder.glob("*.py")))[:limit]
    table = torch.full((128,), VOCABULARY.index(" "), dtype=torch.int64)
    for index, character in enumerate(VOCABULARY):
        table[ord(character)] = index
    codes = torch.frombuffer(bytearray(text.encode("ascii", "ignore")), dtype=torch.uint8)
    return table[codes.long()]


class Windows:
    """Every sample is CONTEXT characters and, shifted by one, the characters that follow."""

    def __init__(self, text: torch.Tensor) -> None:
        self.text = text

    def __len__(self) -> int:
        return (len(self.text) - 1) // CONTEXT

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        if SAMPLE_SECONDS:
            time.sleep(SAMPLE_SECONDS)
        window = self.text[index * CONTEXT : index * CONTEXT + CONTEXT + 1]
        return window[:-1], window[1:]


class CharacterModel(nn.Module):
    """A small GPT: learned positions, pre-norm blocks, dropout."""

    def __init__(self, width: int = 128, depth: int = 2, heads: int = 4, dropout: float = 0.1) -> None:
        super().__init__()
        self.characters = nn.Embedding(len(VOCABULARY), width)
        self.positions = nn.Embedding(CONTEXT, width)
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.head = nn.Linear(width, len(VOCABULARY))

    def forward(self, indices: torch.Tensor) -> torch.Tensor:
        """Indices (batch, time) to logits (batch, time, vocabulary)."""
        time = indices.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(time, device=indices.device)
        hidden = self.characters(indices) + self.positions(torch.arange(time, device=indices.device))
        return self.head(self.blocks(hidden, mask=mask, is_causal=True))


def forward(model: nn.Module, shard: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    inputs, targets = shard
    return F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())


@torch.no_grad()
def generate(model: CharacterModel, prompt: str, length: int = 200, seed: int = 0) -> str:
    """Continue `prompt` by `length` sampled characters."""
    model.eval()
    generator = torch.Generator().manual_seed(seed)
    indices = [VOCABULARY.index(character) for character in prompt]
    for _ in range(length):
        logits = model(torch.tensor([indices[-CONTEXT:]]))[0, -1] / 0.8
        indices.append(int(torch.multinomial(logits.softmax(0), 1, generator=generator)))
    return "".join(VOCABULARY[index] for index in indices)


class StepLog:
    """Tells whoever measures from outside of every step that this process has made: a line in a file in $STEP_LOG."""

    def __init__(self) -> None:
        folder = os.environ.get("STEP_LOG")
        flags = os.O_CREAT | os.O_APPEND | os.O_WRONLY
        self.file = os.open(Path(folder) / f"{os.getpid()}.jsonl", flags) if folder else None

    def write(self, run: drivetrain.Run, step: int, loss: float) -> None:
        if self.file is None:
            return
        line = {"at": time.time(), "pid": os.getpid(), "rank": run.rank, "world": run.world_size}
        line |= {"membership": run.membership, "step": step, "loss": loss}
        os.write(self.file, json.dumps(line).encode() + b"\n")  # one write: a SIGKILL leaves no half line


def main() -> None:
    run = drivetrain.start(defaults={"steps": 300, "global_batch": 48, "clip_norm": 1.0})
    text = standard_library()
    held_out = Windows(text[-10_000:])
    run.prepare(
        model=CharacterModel(),
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=2e-3),
        scheduler=lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, run.settings.steps, 1e-4),
        data=Windows(text[:-10_000]),
        resume=OUTPUT / "model.pt",
    )
    log = StepLog()
    before = run.evaluate(held_out, forward)
    for batch in run.batches():
        result = run.step(batch, forward)
        run.log(loss=result.loss)
        log.write(run, result.step, result.loss)
    after = run.evaluate(held_out, forward)
    run.save(OUTPUT / "model.pt")
    print(f"held-out loss {before.loss:.4f} before, {after.loss:.4f} after {run.step_number} steps")
    print(f"state sha256 {run.state_sha256()} (rank {run.rank}, step {run.step_number})")


if __name__ == "__main__":
    if sys.argv[1:2] == ["generate"]:
        model = CharacterModel()
        model.load_state_dict(torch.load(OUTPUT / "model.pt", weights_only=True)["model"])
        print(generate(model, sys.argv[2] if len(sys.argv) > 2 else "def "))
    else:
        main()
