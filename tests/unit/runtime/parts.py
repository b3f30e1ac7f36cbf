"""Trainings in float64 whose ranks share a model in all ways, and the same in one process: for bits in files.

Rounding differs by 1e-15, so what is told of the wrong part, or not at all, cannot hide in it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from drivetrain.data.order import samples_of_step
from drivetrain.parallel.loss import Loss
from drivetrain.run import Run
from drivetrain.state import digest
from drivetrain.world.reunion import Holder, reunite
from drivetrain_api.choices import ScheduleName
from drivetrain_api.runtime import RuntimePipeline
from unit.runtime.together import Pipe, Worlds
from unit.runtime.training import Case, settings

WIDTH = 8
PLAN = {
    "layers.*.up": "colwise",
    "layers.*.up_b": "colwise",
    "layers.*.down": "rowwise",
    "head": "colwise_gather",
}
STEPS = 3


def stages(count: int, schedule: ScheduleName = "1f1b", **fields: Any) -> Case:
    """A case with a pipeline."""
    chunks = 2 if schedule == "interleaved" else 1
    return Case(pipeline=RuntimePipeline(stages=count, schedule=schedule, chunks=chunks), microbatches=4, **fields)


MODES: dict[str, tuple[int, Case]] = {
    "replicas": (2, Case()),
    "ZeRO 1": (2, Case(zero=1)),
    "ZeRO 2": (3, Case(zero=2)),
    "ZeRO 3": (2, Case(zero=3, microbatches=2)),
    "tensor": (2, Case(tensor=2)),
    "tensor, replicas": (4, Case(tensor=2)),
    "tensor, ZeRO 1": (4, Case(tensor=2, zero=1)),
    "tensor, ZeRO 3": (4, Case(tensor=2, zero=3)),
    "pipeline": (2, stages(2)),
    "pipeline, zero-bubble": (2, stages(2, "zerobubble")),
    "pipeline, interleaved, replicas": (4, stages(2, "interleaved")),
    "tensor, pipeline": (4, stages(2, tensor=2)),
}


class Layer(nn.Module):
    """Two matrices, the first with an adapter beside it, and buffers of its own."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.up = nn.Linear(WIDTH, 2 * WIDTH)
        self.up_a, self.up_b = nn.Linear(WIDTH, 2, bias=False), nn.Linear(2, 2 * WIDTH, bias=False)
        self.down = nn.Linear(2 * WIDTH, WIDTH)
        self.register_buffer("scale", torch.linspace(0.5, 1.0, WIDTH) + number)
        self.register_buffer("number", torch.tensor(number))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        assert isinstance(self.scale, torch.Tensor)
        found: torch.Tensor = (
            hidden + self.down(torch.tanh(self.up(hidden) + self.up_b(self.up_a(hidden)))) / self.scale
        )
        return found


class Model(nn.Module):
    """Four layers between two matrices; the head has as many outputs as a bias that a rank has one element of."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.tp_plan = PLAN
        self.first = nn.Linear(WIDTH, WIDTH)
        self.layers = nn.ModuleList(Layer(number) for number in range(4))
        self.unused = nn.Linear(3, 3)
        self.head = nn.Linear(WIDTH, 2)
        if kind == "tied":
            self.get_submodule("layers.2.up").bias = self.get_submodule("layers.1.up").bias
            self.last = nn.Linear(WIDTH, WIDTH)
            self.last.weight = self.first.weight
        for name, parameter in self.named_parameters():
            parameter.requires_grad = _is_trained(kind, name)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.first(x)
        for layer in self.layers:
            hidden = layer(hidden)
        if hasattr(self, "last"):
            hidden = self.last(hidden)
        out: torch.Tensor = self.head(hidden)
        return out


def _is_trained(kind: str, name: str) -> bool:
    if kind == "LoRA":
        return "_a." in name or "_b." in name
    if kind == "only the end":
        return name.startswith(("layers.3.down", "head"))
    return not (kind == "some frozen" and name.endswith(("up.weight", "down.bias", "first.bias")))


KINDS = ("all", "LoRA", "only the end", "some frozen", "not given", "tied", "odd state")


class Odd(torch.optim.Optimizer):
    """Momentum, with all kinds of state beside it."""

    def __init__(self, params: Iterable[nn.Parameter], lr: float) -> None:
        super().__init__(params, {"lr": lr, "seen": 0, "mean": torch.zeros(2)})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            group["seen"] += 1
            group["mean"] += 0.5
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["sum"] = torch.zeros_like(parameter)
                    state["count"], state["table"] = torch.zeros(1), torch.arange(6.0).view(2, 3)
                    state["step"], state["seen"], state["marks"] = torch.tensor(0.0), 0, [torch.zeros(3), "a"]
                state["count"] += 1
                state["step"] += 1
                state["seen"] += 1
                state["marks"][0] += 2
                state["sum"].mul_(0.5).add_(parameter.grad)
                parameter.sub_(group["lr"] * state["sum"])


def make(kind: str) -> Model:
    """The model of a kind, in float64, initialised alike everywhere."""
    torch.manual_seed(5)
    return Model(kind).double()


def make_optimizer(kind: str, model: nn.Module, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Over what the kind gives it."""
    if kind == "odd state":
        return Odd(parameters, 0.05)
    if kind == "not given":
        parameters = [each for name, each in model.named_parameters() if ".up." not in name]
    return torch.optim.AdamW(parameters, 0.01, eps=1e-3)


class Data:
    """Pairs."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(7)
        self.x = torch.randn(97, WIDTH, generator=generator, dtype=torch.float64)
        self.y = torch.randn(97, 2, generator=generator, dtype=torch.float64)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.x[index], self.y[index]


def forward(model: nn.Module, shard: Any) -> torch.Tensor | Loss:
    """The mean squared error."""
    x, y = shard
    loss: torch.Tensor = (model(x) - y).square().mean()
    return loss


@dataclass(frozen=True)
class Saved:
    """What was in files, or would have been."""

    before: dict[str, Any]
    """The state at step 0."""
    after: dict[str, Any]
    losses: list[float]
    digests: tuple[str, ...] = ()
    """Of a rank's state after all parts were put together there, as a newcomer gets it; and of the file's."""


def by_ranks(pipe: Pipe, case: Case, ports: dict[str, int], folder: Path) -> dict[str, Saved]:
    """Train all kinds as one of `pipe.world` ranks, each in a world of its own."""
    found = {}
    for kind, port in ports.items():
        Worlds.enter(port)
        run = Run(settings(case.but(steps=STEPS, batch=24)), None)
        model = make(kind)

        def optimizer(parameters: Any, kind: str = kind, model: nn.Module = model) -> torch.optim.Optimizer:
            return make_optimizer(kind, model, parameters)

        run.prepare(model=model, optimizer=optimizer, data=Data())
        run.save(folder / f"{kind} 0.pt")
        losses = [run.step(batch, forward).loss for batch in run.batches()]
        run.save(folder / f"{kind}.pt")
        before, after = (torch.load(folder / f"{kind}{end}.pt", weights_only=True)["state"] for end in (" 0", ""))
        found[kind] = Saved(before, after, losses, (_reunited(run), digest(after)))
        run.finish()
    return found


def _reunited(run: Run) -> str:
    sharded, transport = run._operations.subject.sharded, run._world.transport
    assert transport is not None
    with run._operations.subject.ours():
        if sharded is not None:
            sources, receivers = sharded.sources(transport.world), sharded.receivers(transport.world)
            # Those of the last replica, where any one has all: the first may be what was lost.
            reunite(transport, sharded, [Holder(rank) for rank in receivers[-len(sources) :]], receivers)
        return run._state.sha256()


def by_one(kind: str) -> Saved:
    """The same in plain torch."""
    model, data = make(kind), Data()
    optimizer = make_optimizer(kind, model, model.parameters())
    before = _state(model, optimizer)
    losses = []
    for step in range(STEPS):
        picked = samples_of_step(step, 24, len(data), Case().seed)
        loss = forward(model, (data.x[picked], data.y[picked]))
        assert isinstance(loss, torch.Tensor)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return Saved(before, _state(model, optimizer), losses)


def _state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    state = optimizer.state_dict()
    names = {"lr", "seen", "mean"}
    groups = [{name: group[name] for name in names & group.keys()} for group in state["param_groups"]]
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    return {"model": weights, "optimizer": {"state": dict(state["state"]), "groups": groups}}
