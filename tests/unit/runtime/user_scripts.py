"""Training scripts as users write them, each with something beside a model, an optimizer and a mean loss.

A script gets a run that has been started, and returns when it is through: what it is seen to do is the test's business
(users.py).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.utils.data import WeightedRandomSampler

from drivetrain.run import Run
from unit.runtime.training import Numbers

optim = torch.optim
STEPS = 14
BATCH = 25


@dataclass(frozen=True)
class Script:
    """One, and what the job says of it."""

    train: Callable[[Run], None]
    training: dict[str, Any] = field(default_factory=dict)
    tolerance: float = 2e-4
    """By which losses alone and on two ranks may be apart."""


class Net(nn.Module):
    """A classifier, one layer of which is never used."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(12, 16), nn.LayerNorm(16), nn.Tanh())
        self.head = nn.Linear(16, 5)
        self.unused = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.body(x.to(next(self.body.parameters()).dtype))
        out: torch.Tensor = self.head(hidden.to(self.head.weight.dtype))
        return out


def adamw(parameters: Any) -> torch.optim.Optimizer:
    return optim.AdamW(parameters, 3e-3, eps=1e-4)


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return optim.SGD(parameters, 0.05, momentum=0.9)


def cross_entropy(model: nn.Module, shard: Any) -> torch.Tensor:
    x, y, _ = shard
    return F.cross_entropy(model(x).float(), y)


def train(run: Run, forward: Any = cross_entropy, **prepared: Any) -> None:
    """The plain loop."""
    run.prepare(**{"model": Net(), "optimizer": adamw, "data": Numbers(), **prepared})
    for batch in run.batches():
        run.step(batch, forward)


# --- what forward returns ---------------------------------------------------------------------------------------------


class ModelOutput(OrderedDict[str, Any]):
    """As Hugging Face's models return it."""

    def __getattr__(self, name: str) -> Any:
        return self[name]


def hugging_face(run: Run) -> None:
    def forward(model: nn.Module, shard: Any) -> Any:
        x, y, _ = shard
        logits = model(x)
        return ModelOutput(loss=F.cross_entropy(logits, y), logits=logits)

    train(run, forward)


def first_of_a_tuple(run: Run) -> None:
    def forward(model: nn.Module, shard: Any) -> Any:
        x, y, _ = shard
        logits = model(x)
        return F.cross_entropy(logits, y), logits

    train(run, forward)


def numbers_beside_the_loss(run: Run) -> None:
    def forward(model: nn.Module, shard: Any) -> Any:
        x, y, _ = shard
        logits = model(x)
        return {
            "loss": F.cross_entropy(logits, y),
            "accuracy": (logits.argmax(1) == y).float().mean(),
            "logits": logits,
        }

    train(run, forward)


# --- between backward and update --------------------------------------------------------------------------------------


def clip_by_value(run: Run) -> None:
    def clip(model: nn.Module) -> dict[str, float]:
        norm = float(model.get_parameter("head.weight").grad.norm())  # type: ignore[union-attr]
        nn.utils.clip_grad_value_(model.parameters(), 0.02)
        return {"norm/head": norm}

    run.on_gradients(clip)
    train(run, optimizer=sgd)


def noise_on_gradients(run: Run) -> None:
    """The same on all ranks, or they would part."""

    def add(model: nn.Module) -> None:
        for each in model.parameters():
            if each.grad is not None:
                each.grad = each.grad + 1e-3 * torch.randn_like(each)

    run.on_gradients(add)
    train(run, optimizer=sgd)


# --- schedules --------------------------------------------------------------------------------------------------------


def plateau(run: Run) -> None:
    """Its rate depends on what an evaluation says after each pass."""
    run.prepare(
        model=Net(),
        optimizer=sgd,
        data=Numbers(),
        scheduler=lambda optimizer: optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, factor=0.5, patience=0, threshold=2.0
        ),
    )
    for batch in run.batches():
        run.step(batch, cross_entropy)
        if batch.ends_pass:
            run.scheduler.step(run.evaluate(Numbers(), cross_entropy, batch=50).loss)


def rate_of_a_pass(run: Run) -> None:
    train(run, scheduler=lambda optimizer: optim.lr_scheduler.StepLR(optimizer, 1, 0.3), schedule="pass")


# --- which samples ----------------------------------------------------------------------------------------------------


class ByLength:
    """Indices of samples that are alike one after the other, as Hugging Face's `LengthGroupedSampler` has them."""

    def __init__(self, lengths: list[float], group: int) -> None:
        self.lengths = lengths
        self.group = group

    def __iter__(self) -> Iterator[int]:
        order = torch.randperm(len(self.lengths)).tolist()
        for at in range(0, len(order), self.group):
            yield from sorted(order[at : at + self.group], key=lambda index: self.lengths[index])


def weighted(run: Run) -> None:
    weights = Numbers().weight.tolist()
    train(run, sampler=WeightedRandomSampler(weights, 120, generator=torch.Generator()))


def by_length_in_whole_batches(run: Run) -> None:
    train(run, sampler=ByLength(Numbers().weight.tolist(), 60), drop_last=True)


# --- types ------------------------------------------------------------------------------------------------------------


def pure_bf16(run: Run) -> None:
    train(run, model=Net().to(torch.bfloat16), optimizer=sgd)


def mixed_types(run: Run) -> None:
    """A body in bf16, and a head and norms in what they need."""
    model = Net()
    model.body[0].to(torch.bfloat16)
    model.body[1].to(torch.float32)
    model.body = nn.Sequential(model.body[0], Cast(torch.float32), model.body[1], model.body[2])
    model.head.double()
    train(run, model=model)


class Cast(nn.Module):
    """To another type."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.to(self.dtype)


# --- several models and optimizers ------------------------------------------------------------------------------------


class Generator(nn.Module):
    """Counts its calls, of which there are some in each phase of a step."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 12))
        self.seen: torch.Tensor
        self.register_buffer("seen", torch.tensor(0.0))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.seen += 1.0
        out: torch.Tensor = self.layers(z)
        return out


def discriminator() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))


def adversaries() -> dict[str, nn.Module]:
    return {"generator": Generator(), "discriminator": discriminator()}


def told_apart(models: Any, shard: Any) -> torch.Tensor:
    """What a discriminator learns."""
    real = shard[0]
    fake = models["generator"](real[:, :4]).detach()
    right, wrong = models["discriminator"](real), models["discriminator"](fake)
    ones, zeros = torch.ones_like(right), torch.zeros_like(wrong)
    return F.binary_cross_entropy_with_logits(right, ones) + F.binary_cross_entropy_with_logits(wrong, zeros)


def fooled(models: Any, shard: Any) -> Any:
    """What a generator learns."""
    out = models["discriminator"](models["generator"](shard[0][:, :4]))
    return {"loss": F.binary_cross_entropy_with_logits(out, torch.ones_like(out)), "fooled": (out > 0).float().mean()}


ADVERSARIES: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "generator": lambda parameters: optim.Adam(parameters, 3e-3, betas=(0.5, 0.9), eps=1e-4),
    "discriminator": lambda parameters: optim.SGD(parameters, 0.05, momentum=0.9),
}


def gan(run: Run) -> None:
    run.prepare(model=adversaries(), optimizer=ADVERSARIES, data=Numbers())
    for batch in run.batches():
        run.step(batch, {"discriminator": told_apart, "generator": fooled})


def one_of_three(run: Run) -> None:
    """The generator learns in every third step, with a rate of its own that follows its own steps."""
    run.prepare(
        model=adversaries(),
        optimizer=ADVERSARIES,
        data=Numbers(),
        scheduler={"generator": lambda found: optim.lr_scheduler.ExponentialLR(found, 0.5)},
    )
    for batch in run.batches():
        phases = {"discriminator": told_apart} if batch.step % 3 else {"discriminator": told_apart, "generator": fooled}
        run.step(batch, phases)


def actor_and_critic(run: Run) -> None:
    """Of one model, with one loss, and gradients that are clipped by value."""
    model = nn.Module()
    model.actor, model.critic = Net(), discriminator()

    def forward(model: Any, shard: Any) -> torch.Tensor:
        x, y, reward = shard
        value = model.critic(x).squeeze(1)
        gain = (reward - value).detach()
        loss: torch.Tensor = (F.cross_entropy(model.actor(x), y, reduction="none") * gain).mean()
        return loss + F.mse_loss(value, reward)

    run.on_gradients(lambda model: nn.utils.clip_grad_value_(model.parameters(), 0.1))
    run.prepare(
        model=model,
        optimizer={"actor": adamw, "critic": lambda parameters: optim.RMSprop(parameters, 1e-3)},
        data=Numbers(),
        scheduler={
            "actor": lambda found: optim.lr_scheduler.StepLR(found, 1, 0.5),
            "critic": lambda found: optim.lr_scheduler.StepLR(found, 1, 0.7),
        },
        schedule="pass",
    )
    for batch in run.batches():
        run.step(batch, forward)


def teacher_and_student(run: Run) -> None:
    """The teacher is a moving average of the student."""
    student, teacher = Net(), Net()
    teacher.load_state_dict(student.state_dict())

    @torch.no_grad()
    def follow(result: Any) -> None:
        for mine, each in zip(teacher.parameters(), student.parameters(), strict=True):
            mine.lerp_(each, 0.1)

    def forward(models: Any, shard: Any) -> torch.Tensor:
        x, y, _ = shard
        out = models["student"](x)
        with torch.no_grad():
            wanted = models["teacher"](x).softmax(1)
        return F.cross_entropy(out, y) + F.cross_entropy(out, wanted)

    run.prepare(model={"student": student, "teacher": teacher}, optimizer={"student": adamw}, data=Numbers())
    run.on_update(follow)
    for batch in run.batches():
        run.step(batch, forward)


# --- torch.distributed ------------------------------------------------------------------------------------------------


def metric_of_all_ranks(run: Run) -> None:
    """As torchmetrics do it: by torch.distributed, if it is there."""

    def forward(model: nn.Module, shard: Any) -> Any:
        x, y, _ = shard
        logits = model(x)
        assert dist.is_initialized()
        assert (dist.get_rank(), dist.get_world_size()) == (run.rank, run.world_size)
        seen = torch.stack([(logits.argmax(1) == y).sum().float(), torch.tensor(float(len(y)))])
        dist.all_reduce(seen)
        return {"loss": F.cross_entropy(logits, y), "accuracy": seen[0] / seen[1]}

    def alone(model: nn.Module, shard: Any) -> torch.Tensor:
        assert not dist.is_initialized()
        return cross_entropy(model, shard)

    run.prepare(model=Net(), optimizer=adamw, data=Numbers(), process_group=True)
    for batch in run.batches():
        run.step(batch, forward)
        if batch.step % 5 == 4:
            run.evaluate(Numbers(), alone, batch=50)


SCRIPTS: dict[str, Script] = {
    "a metric of all ranks": Script(metric_of_all_ranks),
    "a GAN": Script(gan, {"clip_norm": 0.5}),
    "a GAN, deterministic, in micro-batches": Script(
        gan, {"deterministic": True, "virtual_shards": 4, "microbatches": 2, "clip_norm": 0.5}
    ),
    "one of two learns less often": Script(one_of_three, {"microbatches": 2}),
    "actor and critic": Script(actor_and_critic),
    "teacher and student": Script(teacher_and_student),
    "an output of Hugging Face": Script(hugging_face),
    "a tuple": Script(first_of_a_tuple, {"microbatches": 2}),
    "a dict with numbers": Script(numbers_beside_the_loss, {"microbatches": 3}),
    "gradients are clipped by value": Script(clip_by_value, {"clip_norm": 0.05}),
    "gradients get noise": Script(noise_on_gradients, {"microbatches": 2, "clip_norm": 0.5}),
    "ReduceLROnPlateau": Script(plateau),
    "a rate for each pass": Script(rate_of_a_pass),
    "a weighted sampler": Script(weighted),
    "by length, whole batches": Script(by_length_in_whole_batches),
    "pure bf16": Script(pure_bf16, {"microbatches": 2, "clip_norm": 0.5}, tolerance=2e-2),
    "mixed types": Script(mixed_types, {"microbatches": 2}, tolerance=1e-2),
    "mixed types, deterministic": Script(mixed_types, {"deterministic": True, "virtual_shards": 4}, tolerance=1e-2),
}
