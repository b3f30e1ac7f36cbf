"""The ranks of tests start without torch's compiler: also those on the cluster, whose script has that in it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from drivetrain_api import constants
from drivetrain_api.runtime import RuntimeSpec, RuntimeTraining
from e2e.cluster.job import script_text
from harness.commands import succeeded
from harness.job import ROOT

SHOWS = """
import sys
print("compiler", "torch._dynamo" in sys.modules)
"""


def test_the_clusters_script_trains_and_loads_no_compiler(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(script_text() + SHOWS)
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT / 'operator'}:{ROOT / 'worker-image'}",
        constants.ENV_SPEC: RuntimeSpec(training=RuntimeTraining(steps=3, global_batch=48)).model_dump_json(),
        constants.ENV_POD_UID: "pod",
        constants.ENV_JOB_UID: f"job-{os.getpid()}",
        "PACE": "0",
    }
    try:
        told = succeeded([sys.executable, "train.py"], 60, environment, tmp_path)
    finally:
        for left in Path("/tmp").glob(f"ledger-job-{os.getpid()}-*.jsonl"):
            left.unlink()
    assert "step 3/3" in told
    assert "compiler False" in told.splitlines()
