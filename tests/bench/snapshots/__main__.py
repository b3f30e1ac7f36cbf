"""`make bench-snapshots`: a transformer of 5.7 M parameters on the standard library's text, every step in storage.

Sizes are beside torch's distributed checkpoint of the same model and optimizer, and beside the same in byte planes
with zstd. Times are of one run that trains with and without snapshots in turn.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp

from bench.snapshots.rank import BLOCK, begin
from bench.training.workload import loss_of
from drivetrain.snapshot.codec import encode
from drivetrain.snapshot.found import Found
from drivetrain.snapshot.restore import Restore
from drivetrain.snapshot.storage.local import Local
from drivetrain.snapshot.tensors import dtype_name, flat_bytes
from harness.ports import free_port

Json = dict[str, Any]


def ranks(world: int, mode: str, folder: Path, steps: int, kind: str, snapshots: Json) -> list[Json]:
    """What each rank measured."""
    port = free_port()
    result = folder.parent / f"{folder.name}.json"
    command = [sys.executable, "-m", "bench.snapshots.rank", mode, str(folder), str(result), str(steps), kind]
    processes = [
        subprocess.Popen(
            [*command, json.dumps(snapshots)],
            env={
                **os.environ,
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(world),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "OMP_NUM_THREADS": "1",
            },
            stdout=subprocess.DEVNULL,
        )
        for rank in range(world)
    ]
    codes = [process.wait(timeout=900) for process in processes]
    if any(codes):
        raise SystemExit(f"a rank failed: exit codes {codes}")
    return [json.loads(Path(f"{result}.{rank}").read_text()) for rank in range(world)]


def checkpoint(folder: Path, steps: int, kind: str) -> tuple[int, int]:
    """Bytes of torch's distributed checkpoint after some steps, and of the same in byte planes with zstd."""
    torch.manual_seed(0)
    run = begin(folder / f"plain-{kind}", steps, kind, {})
    for batch in run.batches():
        run.step(batch, loss_of)
    made = run._prepared()
    state = {"model": made.model.state_dict(), "optimizer": made.update.state.optimizer.state_dict()}
    target = folder / f"dcp-{kind}"
    dcp.save(state, checkpoint_id=target, no_dist=True)  # type: ignore[attr-defined]
    size = sum(each.stat().st_size for each in target.iterdir())
    tensors = [*state["model"].values()]
    tensors += [value for each in state["optimizer"]["state"].values() for value in each.values() if value.dim()]
    packed = sum(len(plane) for each in tensors for plane in encode(flat_bytes(each), dtype_name(each.dtype))[1])
    return size, packed


def come_back(folder: Path, digests: dict[str, str], tries: int) -> tuple[int, list[float]]:
    """How many of so many random steps come back with the same bits, and seconds a step that is applied again."""
    rng, right, speeds = random.Random(7), 0, []
    for _ in range(tries):
        step = rng.randrange(25, len(digests) + 1)  # before that the first base is not whole
        run = begin(folder, len(digests), "full", {})
        made = run._prepared()
        found = Found.of(Local(folder))
        point = found.verified(step)
        assert point is not None
        began = time.perf_counter()
        with made.only_update.updating():
            Restore(made.strategy, run._state, run._operations.position).to(found, point)
        seconds = time.perf_counter() - began
        if point.replayed >= 10:
            speeds.append(seconds / point.replayed)
        right += point.step == step and run.state_sha256() == digests[str(step)]
        made.only_update.end()
        run._finished = True  # it was made to look at, and has nothing to wait for
    return right, speeds


def measure(given: argparse.Namespace, folder: Path) -> None:
    size, packed = checkpoint(folder, 8, "full")
    lora_size, _ = checkpoint(folder, 8, "lora")
    print(f"a full checkpoint: {size / 1e6:.1f} MB by torch's DCP, {packed / 1e6:.1f} MB in byte planes with zstd")
    figures: dict[str, float] = {}
    for world in given.worlds:
        for precision in ("exact", "bf16"):
            steps = given.blocks * 2 * BLOCK
            options = {"precision": precision, "commit_seconds": 0.0, "base_every_steps": given.base}
            found = ranks(world, "timed", folder / f"{precision}-{world}", steps, "full", options)
            on, off = (statistics.median(found[0][key]) for key in ("on", "off"))
            slow_on, slow_off = (sorted(found[0][key])[int(0.95 * len(found[0][key]))] for key in ("on", "off"))
            blocked = 1e3 * statistics.median(found[0]["blocked"])
            worst = 1e3 * sorted(found[0]["blocked"])[int(0.95 * len(found[0]["blocked"]))]
            written = sum(each["log_bytes"] for each in found) / (steps / 2)
            print(
                f"{world} ranks, {precision}: {written / 1e6:.2f} MB a step, 1/{size / written:.1f} of a checkpoint, "
                f"1/{packed / written:.1f} of a packed one; {1e3 * off:.0f} ms without, {1e3 * on:.0f} ms with "
                f"every step durable ({on / off:.3f}, p95 {slow_on / slow_off:.3f}); blocked {blocked:.2f} ms "
                f"(p95 {worst:.2f}), dropped {sum(each['dropped'] for each in found)}, n={len(found[0]['on'])}",
                flush=True,
            )
            figures[f"bytes_{precision}"] = written / size
            figures[f"vs_zstd_{precision}"] = written / packed
            figures["blocked_ms"] = max(figures.get("blocked_ms", 0.0), blocked)
            figures["inflation"] = max(figures.get("inflation", 0.0), on / off)
            figures["step"] = off
    lora = ranks(2, "timed", folder / "lora", 2 * BLOCK, "lora", {"commit_seconds": 0.0, "base_every_steps": 10**6})
    lora_written = sum(each["log_bytes"] for each in lora) / BLOCK
    print(
        f"all but 0.1 % frozen: {lora_written / 1e3:.1f} kB a step, 1/{lora_size / lora_written:.0f} of its checkpoint"
    )
    digests = ranks(2, "hashed", folder / "hashed", 60, "full", {"commit_seconds": 0.0, "base_every_steps": 40})[0][
        "digests"
    ]
    right, speeds = come_back(folder / "hashed", digests, given.tries)
    again = statistics.median(speeds)
    print(f"applying a step again: {1e3 * again:.1f} ms, one step of training takes {1e3 * figures['step']:.0f} ms")
    faster = figures["step"] / again
    print(
        f"bytes_exact={figures['bytes_exact']:.3f} bytes_bf16={figures['bytes_bf16']:.3f} "
        f"vs_zstd_exact={figures['vs_zstd_exact']:.3f} vs_zstd_bf16={figures['vs_zstd_bf16']:.3f} "
        f"lora={lora_written / lora_size:.5f} blocked_ms={figures['blocked_ms']:.2f} "
        f"inflation={figures['inflation']:.3f} replay_speedup={faster:.1f} bitwise={right}/{given.tries}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", type=int, nargs="+", default=[2, 3], help="ranks (default: 2 3)")
    parser.add_argument("--blocks", type=int, default=4, help="pairs of blocks with and without (default: 4)")
    parser.add_argument("--base", type=int, default=500, help="steps between two bases (default: 500)")
    parser.add_argument("--tries", type=int, default=8, help="random steps that are gone back to (default: 8)")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        measure(given, Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
