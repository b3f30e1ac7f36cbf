"""One rank of the benchmark: trains with and without snapshots in turn, and tells what it measured."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

import drivetrain
from bench.training.workload import Windows, loss_of, new_model, new_optimizer, standard_library
from drivetrain.run import Run

BLOCK = 12
"""Steps with snapshots, then as many without: both see the same machine."""
SETTLE = 2
"""Steps of each block that do not count: what the block before has left to write is written meanwhile."""
BATCH = 48
"""Windows of 64 characters: 3072 tokens a step."""


def begin(folder: Path, steps: int, kind: str, snapshots: dict[str, Any]) -> Run:
    """A run over real text; `kind` full, or lora: all but 1 % of the parameters frozen."""
    run = drivetrain.start(
        defaults={"steps": steps, "global_batch": BATCH, "clip_norm": 1.0, "seed": 3},
        snapshots={"storage": str(folder), **snapshots},
    )
    model = new_model()
    if kind == "lora":
        for name, parameter in model.named_parameters():
            parameter.requires_grad = name.endswith(("norm1.weight", "norm2.weight", "norm1.bias", "norm2.bias"))
    run.prepare(model=model, optimizer=_optimizer, data=Windows(standard_library()))
    return run


def _optimizer(parameters: Any) -> torch.optim.Optimizer:
    return new_optimizer([each for each in parameters if each.requires_grad])


def timed(run: Run, blocks: int) -> dict[str, Any]:
    """Seconds a step with and without, and by how much training was held up."""
    made, snapshots = run._prepared(), run._snapshots
    assert snapshots is not None
    recorder = snapshots.recorder
    times: dict[bool, list[float]] = {True: [], False: []}
    blocked = []
    for at, batch in enumerate(run.batches()):
        block, inside = divmod(at, BLOCK)
        on = block % 2 == 0
        if inside == 0:
            recorder.flush(30.0)
            recorder.bases.thread.drain(30.0)
        made.update.recording = snapshots if on else None
        before = recorder.blocked_seconds
        began = time.perf_counter()
        run.step(batch, loss_of)
        if inside >= SETTLE:
            times[on].append(time.perf_counter() - began)
            if on:
                blocked.append(recorder.blocked_seconds - before)
    recorder.flush(30.0)
    return {"on": times[True], "off": times[False], "blocked": blocked}


def hashed(run: Run) -> dict[str, Any]:
    """The digest of the state after each step."""
    found = {}
    for batch in run.batches():
        result = run.step(batch, loss_of)
        found[result.step + 1] = run.state_sha256()
    return {"digests": found}


def main() -> None:
    mode, folder, result, steps, kind, snapshots = sys.argv[1:]
    run = begin(Path(folder), int(steps), kind, json.loads(snapshots))
    found = timed(run, 0) if mode == "timed" else hashed(run)
    rank = run.rank
    run.finish()
    assert run._snapshots is not None
    recorder = run._snapshots.recorder
    recorder.bases.thread.drain(30.0)
    found["log_bytes"], found["dropped"] = recorder.log.written_bytes, recorder.log.dropped
    found["base_bytes"] = recorder.bases.written_bytes
    Path(f"{result}.{rank}").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
