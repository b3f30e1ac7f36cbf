"""Do `drivetrain run` and `drivetrain demo` work as a person uses them: as processes, from nothing to nothing?"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from drivetrain_cli import plane
from drivetrain_cli.demo.processes import belonging_to
from drivetrain_cli.looker import LABEL_LOOKS_AT
from drivetrain_local.client import Client
from drivetrain_local.up import down
from harness.commands import ended, ran
from harness.job import QUICK
from harness.patience import until

ROOT = Path(__file__).parents[2]
SOURCES = f"{ROOT / 'operator'}:{ROOT / 'worker-image'}"
HASH = re.compile(r"^  ([0-9a-f]{64})  (this run|uninterrupted), rank (\d), step (\d+)$", re.MULTILINE)
SCRIPT = """
import sys, torch, drivetrain
from net import build

class Data:
    def __len__(self): return 64
    def __getitem__(self, index):
        return torch.tensor([index / 64.0]), torch.tensor([1.0])

run = drivetrain.start(defaults={"steps": 6, "global_batch": 8})
run.prepare(model=build(), optimizer=lambda p: torch.optim.SGD(p, 0.1), data=Data())
for batch in run.batches():
    if "--break" in sys.argv:
        raise ValueError("the data is bad")
    run.step(batch, lambda model, shard: ((model(shard[0]) - shard[1]) ** 2).mean())
print(f"rank {run.rank} trained {run.step_number} steps", flush=True)
"""


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A user without any cluster, with a state folder and a temporary folder of his own; whose ranks start fast."""
    kept = {name: value for name, value in os.environ.items() if name not in ("KUBECONFIG", "OMP_NUM_THREADS")}
    (tmp_path / "tmp").mkdir()
    yield {
        **kept,
        "PYTHONPATH": f"{SOURCES}:{QUICK}",
        "DRIVETRAIN_STATE": str(tmp_path / "state"),
        "TMPDIR": str(tmp_path / "tmp"),
        "HOME": str(tmp_path),
    }
    down(tmp_path / "state" / "drivetrain" / "local")
    until(lambda: not belonging_to(tmp_path / "state"), "nothing stays behind", 5)


def drivetrain(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """One command, to its end."""
    argv = [sys.executable, "-m", "drivetrain_cli", *arguments]
    return ran(argv, 60, environment)


def test_run_starts_a_plane_and_ends_as_the_job_ends(tmp_path: Path, environment: dict[str, str]) -> None:
    environment["PYTHONPATH"] = SOURCES  # here as a user has it
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    (tmp_path / "net.py").write_text("import torch\ndef build():\n    return torch.nn.Linear(1, 1)\n")

    good = drivetrain(environment, "run", "--name", "good", "--workers", "2", "--spares", "0", str(script))
    assert good.returncode == 0, good.stdout + good.stderr
    assert "starting the embedded plane" in good.stdout
    assert {f"[rank {rank}] rank {rank} trained 6 steps" for rank in range(2)} <= set(good.stdout.splitlines())

    flags = ("--name", "bad", "--spares", "0", "--max-restarts", "0")
    bad = drivetrain(environment, "run", *flags, str(script), "--break")
    assert bad.returncode == 1, bad.stdout + bad.stderr
    assert "ValueError: the data is bad" in bad.stdout

    why = drivetrain(environment, "why", "bad")
    assert why.returncode == 1
    assert "ScriptError" in why.stdout
    assert "ValueError: the data is bad" in why.stdout
    logs = drivetrain(environment, "logs", "good")
    assert sorted(line for line in logs.stdout.splitlines() if "trained" in line) == [
        "[rank 0] rank 0 trained 6 steps",
        "[rank 1] rank 1 trained 6 steps",
    ]
    assert drivetrain(environment, "logs", "nobody").returncode == 4
    assert drivetrain(environment, "down").returncode == 0
    assert drivetrain(environment, "why", "bad").returncode == 3


async def created(kubeconfig: Path, text: str, snapshots: Path) -> None:
    """What `run --dry-run` has printed, and the job keeps its steps."""
    client = Client.from_kubeconfig(kubeconfig, user_agent="test")
    config_map, job = yaml.safe_load_all(text)
    job["spec"]["snapshots"] = {"storage": {"path": str(snapshots)}, "commitSeconds": 0, "baseEverySteps": 4}
    snapshots.mkdir()
    mounts = [{"name": "out", "mountPath": "/mnt/out"}]
    job["spec"]["podTemplate"] = {
        "spec": {
            "containers": [{"name": "worker", "volumeMounts": mounts}],
            "volumes": [{"name": "out", "hostPath": {"path": str(snapshots)}}],
        }
    }
    try:
        await client.post("/api/v1/namespaces/default/configmaps", config_map)
        await client.post("/apis/drivetrain.dev/v1alpha1/namespaces/default/trainingjobs", job)
    finally:
        await client.close()


async def pods_left(kubeconfig: Path) -> list[str]:
    """Those that look at snapshots."""
    client = Client.from_kubeconfig(kubeconfig, user_agent="test")
    try:
        found = (await client.get("/api/v1/namespaces/default/pods"))["items"]
    finally:
        await client.close()
    return [pod["metadata"]["name"] for pod in found if LABEL_LOOKS_AT in pod["metadata"].get("labels", {})]


def test_snapshots_are_seen_from_a_pod_of_their_own(tmp_path: Path, environment: dict[str, str]) -> None:
    """Listed, verified, pruned and exported when the job's own pods are gone, and a new job begins with a step."""
    (tmp_path / "train.py").write_text(SCRIPT.replace("from net import build", "build = lambda: torch.nn.Linear(1, 1)"))
    assert drivetrain(environment, "up").returncode == 0
    kubeconfig = plane.running(tmp_path / "state" / "drivetrain" / "local")
    assert kubeconfig is not None
    flags = ("--name", "kept", "--spares", "0", "--steps", "12", "--dry-run")
    described = drivetrain(environment, "run", *flags, str(tmp_path / "train.py"))
    asyncio.run(created(kubeconfig, described.stdout, tmp_path / "shared"))
    followed = drivetrain(environment, "logs", "-f", "kept")
    assert followed.returncode == 0, followed.stdout + followed.stderr

    listed = drivetrain(environment, "snapshots", "kept", "-o", "json")
    assert listed.returncode == 0, listed.stdout + listed.stderr
    found = json.loads(listed.stdout)
    assert found["newest"] == 12

    export = ("snapshots", "kept", "export", "--step", "11", "--to")
    lost = drivetrain(environment, *export, "/tmp/x.safetensors")
    assert (lost.returncode, "/tmp goes with the pod" in lost.stderr) == (2, True)
    done = drivetrain(environment, *export, "/mnt/out/x.safetensors")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "shared" / "x.safetensors").stat().st_size > 0

    branch = drivetrain(environment, "snapshots", "kept", "restore", "--step", "11", "--as", "other")
    assert branch.returncode == 0, branch.stdout + branch.stderr
    followed = drivetrain(environment, "logs", "-f", "other")
    assert followed.returncode == 0, followed.stdout + followed.stderr
    assert re.search(r"restored step 11 from \S+/kept-", followed.stdout)

    pruned = drivetrain(environment, "snapshots", "kept", "prune", "--keep", "1")
    assert pruned.returncode == 0, pruned.stdout + pruned.stderr
    assert re.search(r"^\d+ objects, .*: deleted$", pruned.stdout, re.MULTILINE)
    whole = max((tmp_path / "shared" / "default").glob("kept-*/base/*/*/manifest.json"))
    pack = max(whole.parent.glob("*.pack"))
    pack.write_bytes(pack.read_bytes()[:-5])
    broken = drivetrain(environment, "snapshots", "kept", "verify")
    assert broken.returncode == 1
    assert f"{pack.parent.name}/: its sha256 differs" in broken.stdout

    assert asyncio.run(pods_left(kubeconfig)) == []


def test_demo_measures_and_leaves_nothing(tmp_path: Path, environment: dict[str, str]) -> None:
    done = drivetrain(environment, "demo", "--steps", "20", "--batch", "16")
    assert done.returncode == 0, done.stdout + done.stderr
    found = HASH.findall(done.stdout)
    assert [(run, rank, step) for _, run, rank, step in found] == [
        *(("this run", str(rank), "20") for rank in range(len(found) - 1)),
        ("uninterrupted", "0", "20"),
    ]
    assert len(found) >= 3  # two survivors at least: in so short a run a replacement may come too late
    assert len({sha for sha, *_ in found}) == 1
    assert re.search(r"^  \d+ ms from the kill to the first step that all members finished", done.stdout, re.MULTILINE)
    survivors = re.search(r"survived, same processes: (.*)", done.stdout)
    assert survivors is not None
    assert len(re.findall(r"rank \d \(pid \d+\)", survivors[1])) == 2
    assert re.search(r"^charlm +Succeeded +100% +20 ", done.stdout, re.MULTILINE)
    until(lambda: not belonging_to(tmp_path / "tmp"), "nothing stays behind", 5)
    assert list((tmp_path / "tmp").glob("drivetrain-demo-*")) == []


def test_ctrl_c_ends_the_demo_and_all_that_it_started(tmp_path: Path, environment: dict[str, str]) -> None:
    argv = [sys.executable, "-m", "drivetrain_cli", "demo"]
    with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("TrainingJob"):
                break
        until(lambda: len(belonging_to(tmp_path / "tmp")) >= 7, "plane, operator, coordinator and launchers", 60, 0.1)
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        assert ended(process, 30) == 130, rest
    until(lambda: not belonging_to(tmp_path / "tmp"), "nothing stays behind", 5)


def test_a_jobs_life(tmp_path: Path, environment: dict[str, str]) -> None:
    """Run detached, seen, scaled, suspended, resumed, and deleted, each as a person does it."""
    (tmp_path / "train.py").write_text(
        SCRIPT.replace("from net import build", "import time\nbuild = lambda: torch.nn.Linear(1, 1)").replace(
            "    run.step(", "    time.sleep(0.05)\n    run.step("
        )
    )
    flags = ("--name", "lm", "--workers", "1", "--elastic", "1:2", "--spares", "0", "--steps", "5000", "--detach")
    begun = drivetrain(environment, "run", *flags, str(tmp_path / "train.py"))
    assert begun.returncode == 0, begun.stdout + begun.stderr

    grown = drivetrain(environment, "scale", "lm", "2", "--wait")
    assert grown.returncode == 0, grown.stdout + grown.stderr
    assert "lm has 2 workers that take part." in grown.stdout
    until(lambda: re.search(r"at step \d+ of 5000", seen(environment)) is not None, "a step is told", 30, 0.5)
    page = seen(environment)
    assert re.search(r"^  lm-1-0-\w+ +worker +node-0 +Running +yes", page, re.MULTILINE), page

    rested = drivetrain(environment, "suspend", "lm")
    assert rested.returncode == 0, rested.stdout + rested.stderr
    assert re.search(r"^lm is suspended at step \d+ of 5000", rested.stdout)
    assert "last run.save" in rested.stdout
    assert re.search(r"^lm +Suspended", drivetrain(environment, "list").stdout, re.MULTILINE)
    assert drivetrain(environment, "resume", "lm").returncode == 0
    until(lambda: "2 of 2 workers ready" in seen(environment), "it trains again", 30, 0.5)

    told = drivetrain(environment, "events", "lm").stdout
    for reason in ("Scheduled", "Training", "JobSuspended", "JobResumed"):
        assert re.search(rf" {reason} ", told), told
    gone = drivetrain(environment, "delete", "lm", "--wait")
    assert gone.returncode == 0, gone.stdout + gone.stderr
    missing = drivetrain(environment, "status", "lm")
    assert (missing.returncode, missing.stdout) == (4, "")


def seen(environment: dict[str, str]) -> str:
    """The page of the job `lm`."""
    return drivetrain(environment, "status", "lm").stdout
