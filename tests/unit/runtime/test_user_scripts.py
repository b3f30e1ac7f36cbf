"""Scripts with more than a model and a mean loss: alone, on two ranks, through deaths, and back from snapshots."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from unit.runtime.led import Death, Leader
from unit.runtime.together import Pipe, Worlds, together
from unit.runtime.training import Numbers
from unit.runtime.user_scripts import SCRIPTS, Net, adamw, cross_entropy
from unit.runtime.users import Seen, as_ranks, gone_back, led, run_of

BACK = (5, 13)
DEATHS = (Death(2, "bucket", 1), Death(4, "reduced", 0), Death(6, "committed", 1), Death(9, "gathering", 0))
GROUPS = [list(SCRIPTS)[at::4] for at in range(4)]


@pytest.mark.parametrize("group", range(len(GROUPS)))
def test_two_ranks_do_what_one_does(group: int) -> None:
    names = GROUPS[group]
    (alone,) = together(as_ranks, 1, Worlds(names).ports)
    worlds = Worlds(names)
    both = together(as_ranks, 2, worlds.ports)
    for name in names:
        one, tolerance = alone[name], SCRIPTS[name].tolerance
        assert both[0][name].digests == both[1][name].digests, name
        for found in (each[name] for each in both):
            assert found.rates == one.rates, name
            for step, result in one.results.items():
                told = f"{name}, step {step}"
                assert found.results[step].loss == pytest.approx(result.loss, rel=tolerance), told
                assert found.results[step].metrics == pytest.approx(result.metrics, rel=tolerance), told
            for key, value in one.state.items():
                torch.testing.assert_close(
                    found.state[key], value, rtol=10 * tolerance, atol=tolerance, msg=f"{name}: {key}"
                )
        if SCRIPTS[name].training.get("deterministic"):
            assert both[0][name].digests == one.digests, name


@pytest.mark.parametrize("name", SCRIPTS)
def test_deaths_change_no_bit(name: str) -> None:
    leader = Leader(led, 2, DEATHS, (name,))
    found: list[Seen] = leader.results()
    assert leader.died == len(DEATHS)
    for one, undisturbed in zip(found, Leader(led, 2, (), (name,)).results(), strict=True):
        assert one.digests == {step: undisturbed.digests[step] for step in one.digests}
        assert one.results == {step: undisturbed.results[step] for step in one.results}
        assert all(math.isfinite(each.loss) for each in one.results.values())


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_goes_on_from_its_snapshots(name: str, tmp_path: Path) -> None:
    (found,) = together(gone_back, 1, name, tmp_path, BACK)
    assert found == {step: [] for step in BACK}


def fails_on_one(pipe: Pipe) -> str:
    """A forward function that talks to the other rank's, which has raised an error."""
    run = run_of(SCRIPTS["a metric of all ranks"])
    run.prepare(model=Net(), optimizer=adamw, data=Numbers(), process_group=True)

    def forward(model: nn.Module, shard: Any) -> torch.Tensor:
        if run.rank == 1 and run.step_number == 3:
            raise ValueError("of the script")
        torch.distributed.all_reduce(torch.ones(1))
        return cross_entropy(model, shard)

    try:
        for batch in run.batches():
            run.step(batch, forward)
    except Exception as error:  # noqa: BLE001  Whatever it is, the test looks at it.
        run._world.close()
        return f"{type(error).__name__} in step {run.step_number}"
    return "through"


def test_nobody_waits_for_a_rank_whose_forward_has_failed() -> None:
    found = together(fails_on_one, 2)
    assert found[1] == "ValueError in step 3"
    assert found[0].endswith("in step 3")
