"""What a stock script leaves on a volume is brought by `drivetrain get`, when the job has ended."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.kubectl import environment, get, kubectl
from drivetrain_cli.looker import LABEL_LOOKS_AT
from e2e.cluster.job import Job

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
TRAINS = """
import hashlib, os, pathlib, sys, torch
import torch.distributed as dist
dist.init_process_group("gloo")
out = pathlib.Path(sys.argv[1].removeprefix("--out="))
assert str(out) == os.environ["DRIVETRAIN_OUTPUT_DIR"]
mine = out / f"shard-{dist.get_rank()}"
mine.mkdir()
(mine / "optimizer.bin").write_bytes(bytes([dist.get_rank()]) * 1000)
dist.barrier()
if dist.get_rank() == 0:
    torch.save({"weights": torch.randn(8_000_000)}, out / "model.pt")
    print("sha256", hashlib.sha256((out / "model.pt").read_bytes()).hexdigest(), flush=True)
"""


def got(job: Job, *words: str) -> subprocess.CompletedProcess[str]:
    """`kubectl drivetrain get`, as a person has it."""
    command = [sys.executable, "-m", "drivetrain_cli", "get", *words, "--namespace", job.namespace]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=240, check=False)


def test_results_on_a_volume_are_brought_when_the_job_has_ended(
    start: Callable[..., Job], claim: str, tmp_path: Path
) -> None:
    command = ["python", "-c", TRAINS, "--out=$(DRIVETRAIN_OUTPUT_DIR)"]
    storage = {"persistentVolumeClaim": claim}
    job = start("results", script=False, workers=2, command=command, storage=storage, recovery={"spares": 0})
    job.completes(240)
    selector = f"drivetrain.dev/job-uid={job.uid},drivetrain.dev/role=worker"
    log = kubectl("logs", "--namespace", job.namespace, "--selector", selector, "--tail=-1")
    (sha256,) = re.findall(r"sha256 (\w{64})", log)
    # Not even of a worker's pod is anything left.
    kubectl("delete", "pods", "--namespace", job.namespace, "--selector", selector)

    listed = got(job, "results:", "-o", "json")
    assert listed.returncode == 0, listed.stdout + listed.stderr
    files = {each["name"]: each["size"] for each in json.loads(listed.stdout)["files"]}
    assert files.keys() == {"model.pt", "shard-0/optimizer.bin", "shard-1/optimizer.bin"}
    assert files["model.pt"] > 32_000_000

    brought = got(job, "results:", str(tmp_path / "all"))
    assert brought.returncode == 0, brought.stdout + brought.stderr
    assert hashlib.sha256((tmp_path / "all" / "model.pt").read_bytes()).hexdigest() == sha256
    assert (tmp_path / "all" / "shard-1" / "optimizer.bin").read_bytes() == b"\1" * 1000
    assert len([path for path in (tmp_path / "all").rglob("*") if path.is_file()]) == 3
    missing = got(job, "results:modle.pt", str(tmp_path))
    assert (missing.returncode, "near it: model.pt" in missing.stderr) == (2, True), missing.stderr
    left = get("pods", "--namespace", job.namespace, "--selector", LABEL_LOOKS_AT)["items"]
    assert [pod["metadata"]["name"] for pod in left if not pod["metadata"].get("deletionTimestamp")] == []
