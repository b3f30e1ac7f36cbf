"""Trainings for the exactness tests: one through drivetrain, one in plain torch with the whole batch at once."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from drivetrain.data.order import samples_of_step
from drivetrain.optim.named import named_optimizer
from drivetrain.optim.rate import RateFactor
from drivetrain.parallel.loss import Loss
from drivetrain.run import Run
from drivetrain.settings import Settings
from drivetrain_api.choices import VerifyName
from drivetrain_api.runtime import (
    RuntimeCompression,
    RuntimeLearningRate,
    RuntimeOptimizer,
    RuntimePipeline,
    RuntimePrecision,
    RuntimeTraining,
)
from unit.runtime.together import Pipe


@dataclass(frozen=True)
class Case:
    """What is trained, and how."""

    steps: int = 12  # past the end of a pass
    batch: int = 24
    microbatches: int = 1
    clip: float | None = None
    optimizer: str = "sgd"
    scheduler: bool = False
    model: str = "plain"
    loss: str = "mean"
    deterministic: bool = False
    virtual_shards: int = 8
    seed: int = 3
    metrics: tuple[str, ...] = ()
    named: RuntimeOptimizer | None = None
    """What the job says of the optimizer; None: the script's."""
    learning_rate: RuntimeLearningRate = field(default_factory=RuntimeLearningRate)
    balance_every: int | None = None
    slow_rank: int | None = None
    """Takes 15 ms for a sample, all others 5."""
    precision: RuntimePrecision = field(default_factory=RuntimePrecision)
    zero: int = 0
    tensor: int = 1
    pipeline: RuntimePipeline | None = None
    compression: RuntimeCompression | None = None
    bucket_bytes: int = 4 << 20
    data_workers: int = 0
    verify: VerifyName | None = None
    looks: bool = False
    """The script computes gradients of its own between the steps."""

    def but(self, **changes: Any) -> Case:
        """The same case with some fields changed."""
        return replace(self, **changes)


@dataclass(frozen=True)
class Outcome:
    """Of one rank."""

    before: dict[str, torch.Tensor]
    after: dict[str, torch.Tensor]
    losses: list[float]
    norms: list[float | None]
    metrics: list[dict[str, float]]
    sha256: str = ""
    evaluation: tuple[float, dict[str, float]] = (0.0, {})
    extra: dict[str, Any] = field(default_factory=dict)

    def distance(self, other: Outcome) -> float:
        """‖Δ − Δ'‖ / ‖Δ'‖ over all floating-point state, Δ being what training changed."""
        names = [name for name, value in self.after.items() if value.is_floating_point()]
        mine = torch.cat([(self.after[name] - self.before[name]).flatten().double() for name in names])
        theirs = torch.cat([(other.after[name] - other.before[name]).flatten().double() for name in names])
        return float((mine - theirs).norm() / theirs.norm())


class Numbers:
    """193 samples: (x, y, weight). The size is prime, so passes end in the middle of batches."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(7)
        self.x = torch.randn(193, 12, generator=generator)
        self.y = torch.randint(0, 5, (193,), generator=generator)
        self.weight = torch.randint(1, 5, (193,), generator=generator).float()

    def __len__(self) -> int:
        return 193

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return self.x[index], self.y[index], self.weight[index]


class Net(nn.Module):
    """A small classifier. `unused`: a branch that the even samples' mean sign decides about, and one never used.

    `sparse` and `table` look up rows of the same table, one with sparse gradients. `deep` has blocks: one is computed
    again in backward, one is called past its forward, one shares its weight with the rest of the model.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.first = nn.Linear(12, 16)
        self.norm: nn.Module = nn.BatchNorm1d(16) if kind in ("norm", "all") else nn.Identity()
        self.drop: nn.Module = nn.Dropout(0.3) if kind in ("drop", "rest", "all") else nn.Identity()
        self.last = nn.Linear(16, 5)
        if kind in ("sparse", "table"):
            self.table = nn.Embedding(400, 12, sparse=kind == "sparse")
            self.untouched = nn.Embedding(7, 3, sparse=kind == "sparse")
        if kind == "deep":
            layers = [nn.Sequential(nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 16)) for _ in range(4)]
            self.layers = nn.ModuleList(layers)
            self.scale = nn.Parameter(torch.tensor(0.5))
            self.tied = nn.Linear(16, 16, bias=False)
            self.tied.weight = layers[3][0].weight  # type: ignore[assignment]
        if kind in ("unused", "rest", "all"):
            self.never = nn.Linear(16, 5)
            self.sometimes = nn.Linear(12, 5)
        if kind in ("buffer", "rest", "all"):
            self.register_buffer("calls", torch.zeros(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.kind in ("buffer", "rest", "all") and self.training:
            assert isinstance(self.calls, torch.Tensor)
            self.calls += x.detach().mean()
        if self.kind in ("sparse", "table"):
            x = x + self.table((x[:, :6] * 100).long() % 400).mean(1)
        hidden = self.drop(torch.tanh(self.norm(self.first(x))))
        if self.kind == "deep":
            hidden = hidden + self.scale * self.layers[0](hidden)
            hidden = hidden + checkpoint(self.layers[1], hidden, use_reentrant=False)
            for part in self.layers[2]:  # type: ignore[attr-defined]
                hidden = part(hidden)
            hidden = self.tied(hidden + self.layers[3](hidden))
        out: torch.Tensor = self.last(hidden)
        if self.kind in ("unused", "rest", "all") and bool(x[0, 0] > 0.5):
            out = out + self.sometimes(x)
        return out


def forward(case: Case) -> Any:
    """The forward function of a case."""

    def call(model: nn.Module, shard: Any) -> torch.Tensor | Loss:
        x, y, weight = shard
        out = model(x)
        if case.loss == "mean":
            return F.cross_entropy(out, y)
        each = F.cross_entropy(out, y, reduction="none") * weight
        correct = ((out.argmax(1) == y) * weight).sum()
        return Loss(each.sum(), float(weight.sum()), {name: float(correct) for name in case.metrics})

    return call


def make_optimizer(case: Case, parameters: Any) -> torch.optim.Optimizer:
    """The script's: SGD with momentum, or Adam with an eps that does not amplify rounding."""
    if case.optimizer == "sgd":
        return torch.optim.SGD(parameters, 0.05, momentum=0.9)
    if case.optimizer == "plain sgd":
        return torch.optim.SGD(parameters, 0.2)
    return torch.optim.AdamW(parameters, 3e-3, eps=1e-4)


def make_scheduler(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    """Changes the rate at every step."""
    return torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.97)


def copied(model: nn.Module) -> dict[str, torch.Tensor]:
    """The state of a model, cloned."""
    return {name: value.clone() for name, value in model.state_dict().items()}


def settings(case: Case) -> Settings:
    """As the job would give them."""
    training = RuntimeTraining(
        steps=case.steps,
        seed=case.seed,
        global_batch=case.batch,
        microbatches=case.microbatches,
        clip_norm=case.clip,
        optimizer=case.named,
        learning_rate=case.learning_rate,
        precision=case.precision,
        zero=case.zero,
        tensor=case.tensor,
        pipeline=case.pipeline,
        compression=case.compression,
        bucket_bytes=case.bucket_bytes,
        data_workers=case.data_workers,
        balance_every=case.balance_every,
        verify=case.verify,
        deterministic=case.deterministic,
        virtual_shards=case.virtual_shards,
    )
    return Settings(training, case.steps, case.batch, expected_world=1)


def by_drivetrain(pipe: Pipe, case: Case) -> Outcome:
    """Train as one of `pipe.world` ranks."""
    if case.deterministic:
        torch.use_deterministic_algorithms(True)
    torch.manual_seed(11 + pipe.rank)  # other initial parameters on every rank: rank 0's must win
    run = Run(settings(case), None)
    model = run.prepare(
        model=Net(case.model),
        optimizer=lambda parameters: make_optimizer(case, parameters),
        scheduler=make_scheduler if case.scheduler else None,
        data=Numbers(),
    )
    torch.manual_seed(11)
    before = copied(Net(case.model))
    losses, norms, metrics = [], [], []
    data = Numbers()
    samples: list[int] = []

    def timed(model: nn.Module, shard: Any) -> torch.Tensor | Loss:
        samples[-1] += len(shard[0])
        if case.slow_rank is not None:
            time.sleep(len(shard[0]) * (0.015 if pipe.rank == case.slow_rank else 0.005))
        return forward(case)(model, shard)  # type: ignore[no-any-return]

    for batch in run.batches():
        samples.append(0)
        result = run.step(batch, timed)
        if case.looks:
            for _ in range(2):
                forward(case)(model, (data.x, data.y, data.weight)).backward()
        losses.append(result.loss)
        norms.append(result.grad_norm)
        metrics.append(result.metrics)
    evaluation = run.evaluate(Numbers(), forward(case.but(metrics=("right",))), batch=50)
    sha = run.state_sha256()
    extra: dict[str, Any] = {"samples": samples}
    if case.zero or case.tensor > 1:
        extra |= kept(run)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.pt"
            run.save(path)
            after = torch.load(path, weights_only=True)["model"] if path.exists() else {}
    else:
        after = copied(model)
    run.finish()
    evaluated = (evaluation.loss, evaluation.metrics)
    return Outcome(before, after, losses, norms, metrics, sha, evaluated, extra)


def kept(run: Run) -> dict[str, int]:
    """How many elements this rank has of what ZeRO shares out."""
    model = run._prepared().model
    with run._operations.subject.ours():
        states = run._prepared().update.state.optimizer.state.values()
        storages = {
            each.untyped_storage().data_ptr(): each.untyped_storage() for each in run._prepared().model.parameters()
        }
        return {
            "state": sum(value.numel() for state in states for value in state.values() if torch.is_tensor(value))
            - sum(1 for state in states for name, value in state.items() if name == "step" and torch.is_tensor(value)),
            "parameters": sum(storage.nbytes() for storage in storages.values()) // 4,
            "gradients": sum(each.grad.numel() for each in model.parameters() if each.grad is not None),
        }


def by_torch(case: Case) -> Outcome:
    """Train in this process, the whole global batch in one pass."""
    torch.manual_seed(11)
    model = Net("table" if case.model == "sparse" else case.model)
    before = copied(model)
    optimizer = (
        named_optimizer(case.named, model.parameters()) if case.named else make_optimizer(case, model.parameters())
    )
    rate = RateFactor.of(case.learning_rate, case.batch)
    scheduler = make_scheduler(optimizer) if case.scheduler else None
    data = Numbers()
    losses: list[float] = []
    norms: list[float | None] = []
    for step in range(case.steps):
        picked = samples_of_step(step, case.batch, len(data), case.seed)
        result = forward(case)(model, (data.x[picked], data.y[picked], data.weight[picked]))
        loss = result.sum / result.weight if isinstance(result, Loss) else result
        optimizer.zero_grad()
        loss.backward()
        norms.append(None if case.clip is None else float(nn.utils.clip_grad_norm_(model.parameters(), case.clip)))
        unscaled = [group["lr"] for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            group["lr"] *= rate.at(step)
        optimizer.step()
        for group, lr in zip(optimizer.param_groups, unscaled, strict=True):
            group["lr"] = lr
        if scheduler is not None:
            scheduler.step()
        losses.append(float(loss.detach()))
    return Outcome(before, copied(model), losses, norms, [])
