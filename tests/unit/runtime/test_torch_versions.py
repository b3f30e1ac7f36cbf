"""Other versions of torch: which are refused and how, and what stands in for what they lack, tried on this one."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._C._distributed_c10d import AllgatherOptions, AllToAllOptions, ReduceScatterOptions

from drivetrain import torch_versions
from drivetrain.comm.transport import FOR_EVER
from drivetrain.errors import UsageError
from drivetrain.supported import NEWEST_TORCH as NEWEST
from drivetrain.supported import OLDEST_TORCH as OLDEST
from drivetrain.torch_versions import check
from drivetrain_api.runtime import RuntimePipeline
from unit.runtime.test_backend import connected
from unit.runtime.text import PLAN, by_drivetrain, by_torch
from unit.runtime.together import Pipe, together
from unit.runtime.training import Case, Outcome

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("version", ["2.11.0", "2.11.0+cu130", "2.13.0a0+git123", "2.15.1"])
def test_what_is_in_the_range_is_taken_in_silence(version: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(version)


@pytest.mark.parametrize("version", ["2.10.0", "2.9.1+cpu", "1.13.1"])
def test_what_is_older_is_refused(version: str) -> None:
    with pytest.raises(UsageError, match=rf"torch {re.escape(version)} .* torch 2\.11 to 2\.15"):
        check(version)


@pytest.mark.parametrize("version", ["2.16.0.dev20261101", "3.0.0"])
def test_of_what_is_newer_it_is_told(version: str) -> None:
    with pytest.warns(UserWarning, match=rf"torch {re.escape(version)} .* torch 2\.11 to 2\.15 only"):
        check(version)


def test_a_script_is_told_before_anything_fails_at_a_name() -> None:
    script = "import torch; torch.__version__ = '2.10.0'; import drivetrain; drivetrain.start"
    ended = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": f"{ROOT / 'operator'}:{ROOT / 'worker-image'}"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("drivetrain.errors.UsageError: torch 2.10.0 is installed;")


def test_the_package_asks_for_the_same_range_and_each_version_has_its_pins() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (asked,) = [each for each in project["optional-dependencies"]["worker"] if each.startswith("torch")]
    assert asked == "torch>={}.{},<{}.{}".format(*OLDEST, NEWEST[0], NEWEST[1] + 1)
    (pinned,) = re.findall(r"^torch==(\d+\.\d+)\.", (ROOT / "requirements/dev.txt").read_text(), re.M)
    found = {path.stem.removeprefix("torch-") for path in (ROOT / "requirements").glob("torch-*.txt")}
    assert found | {pinned} == {f"2.{minor}" for minor in range(OLDEST[1], NEWEST[1] + 1)}
    table = (ROOT / "docs/torch.md").read_text()
    assert all(f"| {version} |" in table for version in found | {pinned})


def older_gloo(pipe: Pipe) -> dict[str, list[float]]:
    """Today's names on a group that has them by the older ones only."""
    group: Any = torch_versions._OlderGloo(connected(pipe).process_group)
    mine = torch.arange(4.0) + 10 * pipe.rank
    found = {name: torch.zeros(size) for name, size in {"gathered": 8, "exchanged": 4, "summed": 2}.items()}
    group.all_gather_single(found["gathered"], mine, AllgatherOptions()).wait(FOR_EVER)
    group.all_to_all_single(found["exchanged"], mine, [2, 2], [2, 2], AllToAllOptions()).wait(FOR_EVER)
    group.reduce_scatter_single(found["summed"], mine, ReduceScatterOptions()).wait(FOR_EVER)
    several = [torch.zeros(8), torch.zeros(8)]
    assert group.all_gather_single_coalesced(several, [mine, 2 * mine], AllgatherOptions()).wait(FOR_EVER)
    parts = [torch.zeros(2)]
    assert group.reduce_scatter_single_coalesced(parts, [mine], ReduceScatterOptions()).wait(FOR_EVER)
    found |= {"first": several[0], "second": several[1], "part": parts[0]}
    return {name: each.tolist() for name, each in found.items()}


def test_older_names_of_gloo_do_the_same() -> None:
    whole = [0.0, 1.0, 2.0, 3.0, 10.0, 11.0, 12.0, 13.0]
    for rank, found in enumerate(together(older_gloo, 2)):
        summed = [[10.0, 12.0], [14.0, 16.0]][rank]
        assert found == {
            "gathered": whole,
            "first": whole,
            "second": [2 * each for each in whole],
            "exchanged": [[0.0, 1.0, 10.0, 11.0], [2.0, 3.0, 12.0, 13.0]][rank],
            "summed": summed,
            "part": summed,
        }


def without_the_split(pipe: Pipe, case: Case) -> Outcome:
    """A zero-bubble pipeline where torch's split of a backward pass does not do."""
    import drivetrain.parallel.pipeline.split as split

    split.splits_backward = lambda: False  # type: ignore[attr-defined,assignment]
    return by_drivetrain(pipe, case, PLAN)


@pytest.mark.parametrize("model", ["plain", "odd"])
def test_zero_bubble_without_torchs_split_trains_alike(model: str) -> None:
    stages = RuntimePipeline(stages=2, schedule="zerobubble")
    case = Case(pipeline=stages, microbatches=4, optimizer="adam", steps=5, clip=0.5, model=model)
    assert together(without_the_split, 2, case)[0].distance(by_torch(case)) < 1e-5


def test_the_split_of_this_torch_is_tried_out() -> None:
    assert torch_versions.splits_backward() == (torch.__version__ >= "2.15")
