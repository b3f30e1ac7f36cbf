"""Forked processes are what they would be if they were started: in what they see, whose they are, how they end."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from cluster.processes import all_pids
from drivetrain.launch import procfs
from drivetrain_api.exit_codes import ExitCode
from drivetrain_api.runtime import RuntimeSpec
from harness.forked import nursery
from harness.job import LocalJob
from harness.patience import until_true

SCRIPT = """
import json, os, sys, time
from beside import NAME
known = {"pid": os.getpid(), "ppid": os.getppid(), "sid": os.getsid(0), "argv": sys.argv, "name": __name__}
known |= {"beside": NAME, "variable": os.environ.get("GIVEN")}
with open("known.new", "w") as file:
    json.dump(known, file)
os.rename("known.new", "known")
time.sleep(600)
"""


async def test_a_rank_is_its_launchers_and_ends_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "scripts"
    folder.mkdir()
    (folder / "sleeps.py").write_text(SCRIPT)
    (folder / "beside.py").write_text("NAME = 'beside'\n")
    command = [sys.executable, str(folder / "sleeps.py"), "--flag"]
    spec = RuntimeSpec(workers=1, spares=0)
    async with LocalJob.run(tmp_path, spec, command, {"GIVEN": "given"}, forked=True) as job:
        (pod,) = job.pods.values()
        await until_true((tmp_path / "known").exists, lambda: f"the rank runs\n{job.logs()}", 60)
        known = json.loads((tmp_path / "known").read_text())
        rank = known["pid"]
        assert (known["ppid"], known["sid"]) == (pod.process.pid, rank)
        assert (known["argv"], known["name"]) == ([str(folder / "sleeps.py"), "--flag"], "__main__")
        assert (known["beside"], known["variable"]) == ("beside", "given")
        descendants = procfs.descendants(pod.process.pid, procfs.children_by_parent())
        await job.kill_pod(pod.uid)
        assert pod.process.returncode == -signal.SIGKILL
        with pytest.raises(ProcessLookupError):
            pod.process.send_signal(signal.SIGTERM)
        left = {process.pid for process in descendants}
        assert rank in left
        await until_true(lambda: not left & set(all_pids()), "all that was the launcher's has ended", 20)


async def test_whoever_ends_by_itself_tells_how(tmp_path: Path) -> None:
    """A coordinator without settings: by the code, and in the words, of one that is started."""
    with (tmp_path / "log").open("wb") as log:
        coordinator = nursery().start("coordinator", [], {"PATH": os.environ["PATH"]}, tmp_path, log.fileno())
    assert await coordinator.wait() == coordinator.returncode == ExitCode.USAGE
    assert "drivetrain-coordinator: " in (tmp_path / "log").read_text()
