"""Training scripts as people write them: each must come to what plain torch comes to with the whole batch at once.

A script is a model, what it does before and after a step, and how its optimizer is made. Plain torch runs the same.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from drivetrain.data.order import samples_of_step
from drivetrain.run import Run
from unit.runtime.odd_scripts import BATCH, SCRIPTS, STEPS, Script
from unit.runtime.together import Pipe, Worlds, together
from unit.runtime.training import Numbers, settings


def loss_of(script: Script, model: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    loss = F.cross_entropy(model(x), y)
    return loss if script.penalty is None else loss + script.penalty(model)


def ours(pipe: Pipe, ports: dict[str, int]) -> dict[str, Any]:
    """All scripts, one after the other, as one of `pipe.world` ranks, each in a world of its own."""
    found: dict[str, Any] = {}
    for name, port in ports.items():
        Worlds.enter(port)
        found[name] = one(SCRIPTS[name])
    return found


def one(script: Script) -> dict[str, Any]:
    if script.case.deterministic:
        torch.use_deterministic_algorithms(True)
    torch.manual_seed(5)
    run = Run(settings(script.case), None)
    model = script.model()
    script.prepare(model)
    made: list[torch.optim.Optimizer] = []

    def optimizer(_: Any) -> torch.optim.Optimizer:
        made.append(script.optimizer(model))
        return made[0]

    run.prepare(model=model, optimizer=optimizer, data=Numbers())
    losses = []
    for batch in run.batches():
        script.before(model, made[0], batch.step)
        losses.append(run.step(batch, lambda model, shard: loss_of(script, model, shard[0], shard[1])).loss)
        script.after(model, made[0], batch.step)
    sha = run.state_sha256()
    run.finish()
    run._world.close()
    torch.use_deterministic_algorithms(False)
    return {"losses": losses, "sha": sha, "state": tensors(model)}


def plain(script: Script) -> dict[str, Any]:
    """The same in plain torch."""
    torch.manual_seed(5)
    model = script.model()
    script.prepare(model)
    optimizer = script.optimizer(model)
    data, losses = Numbers(), []
    for step in range(STEPS):
        script.before(model, optimizer, step)
        picked = samples_of_step(step, BATCH, len(data), script.case.seed)
        model.zero_grad()
        loss = loss_of(script, model, data.x[picked], data.y[picked])
        loss.backward()
        if script.case.clip is not None:
            updated = [each for group in optimizer.param_groups for each in group["params"]]
            nn.utils.clip_grad_norm_(updated, script.case.clip)
        optimizer.step()
        script.after(model, optimizer, step)
        losses.append(float(loss.detach()))
    return {"losses": losses, "state": tensors(model)}


def tensors(model: Any) -> dict[str, torch.Tensor]:
    """All parameters and buffers, also those that are not persistent."""
    return {name: each.detach().clone() for name, each in [*model.named_parameters(), *model.named_buffers()]}


GROUPS = [list(SCRIPTS)[at::5] for at in range(5)]


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("group", range(len(GROUPS)))
def test_scripts_come_to_what_plain_torch_comes_to(group: int, world: int) -> None:
    names = GROUPS[group]
    worlds = Worlds(names)
    by_rank = together(ours, world, worlds.ports)
    for name in names:
        expected = plain(SCRIPTS[name])
        assert len({found[name]["sha"] for found in by_rank}) == 1, name
        for found in by_rank:
            assert found[name]["state"].keys() == expected["state"].keys(), name
            assert found[name]["losses"] == pytest.approx(expected["losses"], rel=2e-5), name
            for key, value in expected["state"].items():
                torch.testing.assert_close(found[name]["state"][key], value, rtol=1e-4, atol=2e-6, msg=f"{name}: {key}")
                assert found[name]["state"][key].stride() == value.stride(), f"{name}: {key}"
