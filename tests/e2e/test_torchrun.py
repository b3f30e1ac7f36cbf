"""Does the same script train under plain `python` and under torchrun, and after a failure there?"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.commands import ended, succeeded
from harness.job import QUICK, ROOT
from harness.patience import OutOfPatience
from harness.ports import reserve_port

SCRIPT = """
import os, signal, sys, torch, drivetrain
from pathlib import Path

class Data:
    def __len__(self): return 64
    def __getitem__(self, index):
        return torch.tensor([index / 64.0]), torch.tensor([1.0])

run = drivetrain.start(defaults={"steps": 8, "global_batch": 8, "deterministic": True})
run.prepare(model=torch.nn.Linear(1, 1), optimizer=lambda p: torch.optim.SGD(p, 0.1), data=Data(),
            resume=Path("model.pt"))
for batch in run.batches():
    run.step(batch, lambda model, shard: ((model(shard[0]) - shard[1]) ** 2).mean())
    run.save(Path("model.pt"))
    if "--break" in sys.argv and batch.step == 4 and run.rank == run.world_size - 1 and not Path("broken").exists():
        Path("broken").touch()
        os.kill(os.getpid(), signal.SIGKILL)
print(f"rank {run.rank} of {run.world_size} ends at step {run.step_number} with {run.state_sha256()}", flush=True)
"""
END = re.compile(r"rank (\d) of (\d) ends at step (\d+) with ([0-9a-f]{64})")


@pytest.fixture
def environment() -> dict[str, str]:
    """Nothing of a job's: a machine on which somebody has a script."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DRIVETRAIN_")}
    return {**kept, "PYTHONPATH": f"{ROOT / 'operator'}:{ROOT / 'worker-image'}:{QUICK}", "OMP_NUM_THREADS": "1"}


def folder_with_script(parent: Path, name: str) -> Path:
    """A folder of its own for each run, because they save into it."""
    folder = parent / name
    folder.mkdir()
    (folder / "train.py").write_text(SCRIPT)
    return folder


def torchrun(agents: int, ranks: int, folder: Path, environment: dict[str, str], *arguments: str) -> str:
    """The script on so many machines, with so many ranks on each; what they printed, once all have ended well."""
    port = reserve_port()
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--nnodes", str(agents), "--nproc-per-node", str(ranks)),
        *("--max-restarts", "3", "--rdzv-backend", "c10d", "--rdzv-id", "test", "--local-addr", "127.0.0.1"),
        *("--rdzv-endpoint", f"127.0.0.1:{port.value}", "--monitor-interval", "0.1", "train.py", *arguments),
    ]
    log = folder / "agents.log"
    processes = []
    codes: list[int | None] = []
    try:
        with log.open("ab") as output:
            for _ in range(agents):
                processes.append(subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=output))
        with contextlib.suppress(OutOfPatience):
            for process in processes:
                ended(process, 60)
    finally:
        for process in processes:
            codes.append(process.poll())
            if codes[-1] is None:
                process.send_signal(signal.SIGTERM)  # its rank is in a session of its own, and is its to end
                ended(process, 40)
        port.release()
    assert codes == [0] * agents, log.read_text()
    return log.read_text()


def test_torchrun_ends_as_plain_python_does_although_a_rank_was_killed(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    alone = folder_with_script(tmp_path, "alone")
    (expected,) = END.findall(succeeded([sys.executable, "train.py"], 60, environment, alone))
    assert expected[:3] == ("0", "1", "8")
    together = folder_with_script(tmp_path, "together")
    ends = END.findall(torchrun(2, 1, together, environment, "--break"))
    assert (together / "broken").exists()
    assert sorted(ends) == [("0", "2", "8", expected[3]), ("1", "2", "8", expected[3])]


SLOW_END = """
import time
from drivetrain.comm.pending import Pending

arm = Pending._arm
def slowly(self, notify):
    def told():
        notify()
        time.sleep(0.2)

    arm(self, told)

Pending._arm = slowly
"""
"""gloo's thread is still in Python, in the callback that tells of an operation's end, when whoever waited goes on."""


@pytest.mark.parametrize("held", ["", "group = run.process_group"])
def test_a_rank_that_ends_right_after_its_last_collective_ends_well(
    tmp_path: Path, environment: dict[str, str], held: str
) -> None:
    folder = folder_with_script(tmp_path, "slow")
    script = SCRIPT.replace("for batch", f"{held}\nfor batch", 1)
    (folder / "train.py").write_text(SLOW_END + script)
    output = torchrun(1, 2, folder, environment)
    assert "terminate called" not in output
    assert len(END.findall(output)) == 2
