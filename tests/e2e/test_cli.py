"""Do `drivetrain run` and `drivetrain demo` work as a person uses them: as processes, from nothing to nothing?"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from drivetrain_cli.demo.processes import belonging_to
from drivetrain_local.up import down
from harness.commands import ended, ran
from harness.patience import until

ROOT = Path(__file__).parents[2]
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
    """A user without any cluster, with a state folder and a temporary folder of his own."""
    kept = {name: value for name, value in os.environ.items() if name not in ("KUBECONFIG", "OMP_NUM_THREADS")}
    path = f"{ROOT / 'operator'}:{ROOT / 'worker-image'}"
    (tmp_path / "tmp").mkdir()
    yield {
        **kept,
        "PYTHONPATH": path,
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
