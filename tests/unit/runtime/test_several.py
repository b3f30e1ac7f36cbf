"""Several models and optimizers in one run: what a step of phases comes to, what is left of one that fails, and what is
refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from drivetrain.data.order import samples_of_step
from drivetrain.errors import UsageError
from drivetrain.run import Run
from drivetrain_api.runtime import RuntimeCompression, RuntimeOptimizer, RuntimePrecision
from unit.runtime.test_given import prepared, run_with
from unit.runtime.training import Numbers
from unit.runtime.user_scripts import (
    ADVERSARIES,
    BATCH,
    SCRIPTS,
    STEPS,
    Net,
    adamw,
    adversaries,
    cross_entropy,
    fooled,
    sgd,
    told_apart,
)
from unit.runtime.users import run_of, watched

PHASES: dict[str, Callable[[Any, Any], Any]] = {"discriminator": told_apart, "generator": fooled}


def gan(run: Run | None = None, **given: Any) -> Run:
    torch.manual_seed(1)
    return prepared(run, **{"model": adversaries(), "optimizer": ADVERSARIES, **given})


def part(run: Run, name: str) -> nn.Module:
    return run._prepared().model.get_submodule(name)


def plain_gan() -> dict[str, torch.Tensor]:
    """As tutorials have it, one optimizer after the other, with gradients clipped apart."""
    torch.manual_seed(1)
    models, data = adversaries(), Numbers()
    optimizers = {name: make(models[name].parameters()) for name, make in ADVERSARIES.items()}
    for step in range(STEPS):
        picked = samples_of_step(step, BATCH, len(data), 2)
        shard = data.x[picked], data.y[picked], data.weight[picked]
        for name, forward in PHASES.items():
            result = forward(models, shard)
            optimizers[name].zero_grad()
            (result["loss"] if isinstance(result, dict) else result).backward()
            nn.utils.clip_grad_norm_(models[name].parameters(), 0.5)
            optimizers[name].step()
    return {f"{name}.{key}": each for name, model in models.items() for key, each in model.state_dict().items()}


def test_phases_come_to_what_plain_torch_comes_to() -> None:
    seen = watched(run_of(SCRIPTS["a GAN"]), SCRIPTS["a GAN"])
    expected = plain_gan()
    assert seen.state.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(seen.state[name], value, rtol=1e-4, atol=1e-6, msg=name)


def test_a_step_of_phases_tells_the_loss_of_each() -> None:
    run = gan()
    result = run.step(next(iter(run.batches())), PHASES)
    assert result.loss == pytest.approx(result.metrics["loss/generator"] + result.metrics["loss/discriminator"])
    assert 0 <= result.metrics["fooled"] <= 1


@pytest.mark.parametrize("failing", ["discriminator", "generator"])
def test_nothing_is_left_of_a_step_that_fails_in_a_phase(failing: str) -> None:
    """Neither of the models that an earlier phase has brought forward, nor of what forward did to buffers."""
    run, fails = gan(), True

    def phase(name: str) -> Callable[[Any, Any], Any]:
        def forward(models: Any, shard: Any) -> Any:
            result = PHASES[name](models, shard)
            if fails and name == failing:
                raise ValueError("of the script")
            return result

        return forward

    for batch in run.batches():
        before, fails = run.state_sha256(), batch.step == 3
        try:
            run.step(batch, {name: phase(name) for name in PHASES})
        except ValueError:
            assert run.state_sha256() == before
    whole = gan()
    for batch in whole.batches():
        if batch.step == 3:
            whole.skip(batch)
        else:
            whole.step(batch, PHASES)
    assert run.state_sha256() == whole.state_sha256()


class Turning(torch.optim.SGD):
    """Keeps a count on itself, changes its groups and its gradients: once a step, whatever is made twice."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.calls = 0

    def step(self, closure: Any = None) -> Any:
        self.calls += 1
        for group in self.param_groups:
            group["lr"] *= 0.9
            for each in group["params"]:
                each.grad *= 0.5
        return super().step(closure)


def test_an_update_that_is_seen_by_a_later_phase_counts_once() -> None:
    made: list[Turning] = []

    def make(parameters: Any) -> torch.optim.Optimizer:
        made.append(Turning(parameters, 0.1, momentum=0.9))
        return made[-1]

    run = gan(optimizer=ADVERSARIES | {"discriminator": make})
    for batch in run.batches():
        run.step(batch, PHASES)
    torch.manual_seed(1)
    model, data = adversaries(), Numbers()
    alone = Turning(model["discriminator"].parameters(), 0.1, momentum=0.9)
    assert (made[0].calls, made[0].param_groups[0]["lr"]) == (STEPS, pytest.approx(0.1 * 0.9**STEPS))
    picked = samples_of_step(0, BATCH, len(data), 2)
    told_apart(model, (data.x[picked],)).backward()
    alone.step()
    first = gan(optimizer=ADVERSARIES | {"discriminator": make})
    first.step(next(iter(first.batches())), PHASES)
    for one, other in zip(
        model["discriminator"].parameters(),
        part(first, "discriminator").parameters(),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_a_file_has_all_models_and_optimizers(tmp_path: Path) -> None:
    path, digests = tmp_path / "model.pt", []
    schedulers = {name: lambda found: torch.optim.lr_scheduler.StepLR(found, 3, 0.5) for name in ADVERSARIES}
    for times in range(2):
        run = gan(scheduler=schedulers, resume=path)
        for batch in run.batches():
            if times == 0 and batch.step == 7:
                run.save(path)
            run.step(batch, PHASES)
        digests.append(run.state_sha256())
    assert digests[0] == digests[1]
    model = torch.load(path, weights_only=True)["model"]
    adversaries()["generator"].load_state_dict(
        {name.removeprefix("generator."): each for name, each in model.items() if name.startswith("generator.")}
    )


def test_one_optimizer_of_several_models_is_a_plain_one() -> None:
    models = {"student": Net(), "teacher": Net()}
    schedule = {"student": lambda found: torch.optim.lr_scheduler.StepLR(found, STEPS, 0.5)}
    run = prepared(run_with(zero=1), model=models, optimizer={"student": adamw}, scheduler=schedule)
    before = [each.detach().clone() for each in part(run, "teacher").parameters()]
    for batch in run.batches():
        run.step(batch, lambda found, shard: cross_entropy(found.get_submodule("student"), shard))
    after = part(run, "teacher").parameters()
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert run.scheduler.get_last_lr() == [1.5e-3]


SHARED = nn.Linear(12, 1)
WITH_ZERO = "prepare(optimizer=...): several optimizers cannot be used with training.parallel.zero"
REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "ZeRO": ({"zero": 1}, {}, WITH_ZERO),
    "compression": ({"compression": RuntimeCompression(method="int8")}, {}, "cannot be used with training.compression"),
    "fp16": ({"precision": RuntimePrecision(compute="fp16")}, {}, "training.precision.compute: fp16 scales one loss"),
    "the job's optimizer": (
        {"optimizer": RuntimeOptimizer(name="sgd", lr=0.1)},
        {},
        "training.optimizer takes the place",
    ),
    "no such model": ({}, {"optimizer": ADVERSARIES | {"critic": sgd}}, "there is no model 'critic'"),
    "no optimizers": ({}, {"optimizer": {}}, "got none"),
    "no models": ({}, {"model": {}}, "must be a module, or modules by name, got dict"),
    "no module": ({}, {"model": {"generator": 3}}, "'generator' must be a module, got int"),
    "a name with a dot": ({}, {"model": {"a.b": nn.Linear(1, 1)}}, "a name that a module cannot have"),
    "a parameter of two": (
        {},
        {"model": {"generator": SHARED, "discriminator": SHARED}},
        "shape (1, 12) is in both 'generator' and 'discriminator'",
    ),
    "LBFGS": ({}, {"optimizer": ADVERSARIES | {"generator": torch.optim.LBFGS}}, "LBFGS.step must be given a closure"),
    "one schedule of two": ({}, {"scheduler": lambda found: None}, "by name of an optimizer: generator, discriminator"),
    "a schedule of none": ({}, {"scheduler": {"critic": lambda found: None}}, "no optimizer is named ['critic']"),
    "a schedule of another one": (
        {},
        {"model": Net(), "optimizer": sgd, "scheduler": {"a": sgd}},
        "no optimizer is named ['a']",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_had_is_refused_by_prepare(name: str) -> None:
    training, given, told = REFUSED[name]
    with pytest.raises(UsageError) as refused:
        gan(run_with(**training), **given)
    assert told in str(refused.value)


STEPS_REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any], str]] = {
    "phases of one": ({}, {"model": Net(), "optimizer": sgd}, {"a": cross_entropy}, "is for several optimizers"),
    "an unknown name": ({}, {}, {"critic": told_apart}, "got ['critic']; there are ['generator', 'discriminator']"),
    "no phases": ({}, {}, {}, "got []"),
    "verification": ({"verify": "firstStep"}, {}, PHASES, "training.verify compares steps of one forward function"),
}


@pytest.mark.parametrize("name", STEPS_REFUSED)
def test_what_cannot_be_phases_is_refused_by_the_step(name: str) -> None:
    training, given, phases, told = STEPS_REFUSED[name]
    run = gan(run_with(**training), **given)
    with pytest.raises(UsageError) as refused:
        run.step(next(iter(run.batches())), phases)
    assert told in str(refused.value)


def test_a_phase_without_anything_to_train_is_refused() -> None:
    run = gan()
    part(run, "generator").requires_grad_(False)
    with pytest.raises(UsageError, match="no parameter of the optimizer 'generator' requires a gradient"):
        run.step(next(iter(run.batches())), PHASES)


def test_optimizers_get_no_other_groups_and_no_steps_of_the_script() -> None:
    made: list[torch.optim.Optimizer] = []

    def make(parameters: Any) -> torch.optim.Optimizer:
        _, *rest = parameters
        made.append(torch.optim.SGD(rest, 0.1))
        return made[-1]

    run = gan(optimizer=ADVERSARIES | {"generator": make})
    batches = iter(run.batches())
    run.step(next(batches), PHASES)
    with pytest.raises(UsageError, match=r"SGD\.step: it would update generator"):
        made[0].step()
    made[0].add_param_group({"params": [next(part(run, "generator").parameters())]})
    with pytest.raises(UsageError, match="groups must be decided before prepare"):
        run.step(next(batches), PHASES)
