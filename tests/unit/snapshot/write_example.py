"""Writes `example-1/`: `python write_example.py FOLDER`. Committed once for each version of the format, never again.

Two ranks train with exact gradients until all of their state is lost, one of them with its last step not written; three
go on with gradients in bf16.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from drivetrain.snapshot.names import LOG, SegmentName
from drivetrain.snapshot.storage.local import Local

LOST = 8
"""The step that rank 1 of the first run has not written."""


def ranks(world: int, folder: Path, sums: Path, **environment: str) -> dict[str, list[str]]:
    """Train; digests by step."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    of_all = {**os.environ, "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    of_all |= {"SNAPSHOTS": str(folder), "SUMS": str(sums), "OMP_NUM_THREADS": "1", **environment}
    script = [sys.executable, str(Path(__file__).with_name("example.py"))]
    running = [subprocess.Popen(script, env={**of_all, "RANK": str(rank)}) for rank in range(world)]
    codes = [each.wait(120) for each in running]
    if any(codes):
        raise SystemExit(f"ranks ended with {codes}")
    found: dict[str, list[str]] = json.loads(sums.read_text())
    sums.unlink()
    return found


def main(folder: Path) -> None:
    folder.mkdir()
    sums = folder / "sums.json"
    first = ranks(2, folder, sums, STEPS=str(LOST + 1))
    storage = Local(folder)
    segments = {name: SegmentName.parse(name) for name in storage.list(LOG)}
    lost = [name for name, each in segments.items() if each is not None and (each.rank, each.last) == (1, LOST)]
    assert len(lost) == 1, lost
    storage.delete(lost)
    second = ranks(3, folder, sums, STEPS="16", PRECISION="bf16", COMMIT_SECONDS="60.0")
    assert min(map(int, second)) == LOST, second
    assert first[str(LOST)] == second[str(LOST)]
    expected = dict(sorted((first | second).items(), key=lambda each: int(each[0])))
    folder.with_suffix(".json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
