"""Whatever a script does to its state, a run that comes back from snapshots goes on with the same bits."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from drivetrain.errors import StateMismatch
from drivetrain.optim.lamb import Lamb
from drivetrain.optim.lars import Lars
from drivetrain.run import Run
from drivetrain.settings import Settings
from drivetrain.snapshot.copying import Copying
from drivetrain.snapshot.errors import StorageError
from drivetrain.snapshot.found import Found
from drivetrain.snapshot.storage.local import Local
from drivetrain_api.runtime import RuntimeBranch, RuntimePrecision, RuntimeSnapshots, RuntimeTraining
from unit.runtime.together import Pipe, together

optim = torch.optim
STEPS = 24
BACK = (5, 17, 23)
"""Steps that are gone back to."""


class Net(nn.Module):
    """Rows of a table, a normalisation layer, a buffer that forward counts in, one that is not persistent."""

    def __init__(self, *, sparse: bool = False) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 8, sparse=sparse)
        self.first = nn.Linear(8, 16)
        self.norm = nn.BatchNorm1d(16)
        self.last = nn.Linear(16, 4)
        self.unused = nn.Linear(3, 3)
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.nothing = nn.Parameter(torch.empty(0))
        self.whole = nn.Parameter(torch.ones(3, dtype=torch.complex64), requires_grad=False)
        self.calls = 0
        self.seen: torch.Tensor
        self.register_buffer("seen", torch.tensor(0))
        self.mean: torch.Tensor
        self.register_buffer("mean", torch.zeros(16), persistent=False)

    def get_extra_state(self) -> dict[str, int]:
        return {"calls": self.calls}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.calls = state["calls"]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.norm(self.first(self.table(x).mean(1)))
        if self.training:
            self.seen += 1
            self.calls += 1
            self.mean = 0.9 * self.mean + 0.1 * hidden.detach().mean(0)
        out: torch.Tensor = self.last(torch.relu(hidden - self.mean)) * self.scale + self.nothing.sum()
        return out


class Counting(torch.optim.SGD):
    """Keeps something that belongs to no parameter."""

    def step(self, closure: Any = None) -> Any:
        state: Any = self.state
        state["all"] = {"steps": state.get("all", {"steps": 0})["steps"] + 1}
        return super().step(closure)


class Hidden(torch.optim.SGD):
    """Keeps a count on itself."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.calls = 0

    def step(self, closure: Any = None) -> Any:
        self.calls += 1
        for group in self.param_groups:
            group["lr"] = 0.1 / (1 + self.calls % 5)
        return super().step(closure)


class Noisy(torch.optim.AdamW):
    """Adds random numbers (SGLD)."""

    def step(self, closure: Any = None) -> Any:
        super().step(closure)
        with torch.no_grad():
            for group in self.param_groups:
                for each in group["params"]:
                    each.add_(torch.randn_like(each), alpha=1e-3)


class Scales(torch.optim.SGD):
    """Changes gradients in place, as optimizers of old do."""

    most = 0
    """Only of tensors with more elements."""

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for each in group["params"]:
                if each.grad is not None and each.numel() > self.most and each.numel() != 80 * 64:
                    each.grad *= 0.9
        return super().step(closure)


class ScalesLarge(Scales):
    """Not of those that it is tried on."""

    most = 390


class Secretive(torch.optim.SGD):
    """Keeps tensors of its own where nobody looks."""

    def step(self, closure: Any = None) -> Any:
        found: Any = vars(self).setdefault("found", {})
        for group in self.param_groups:
            for each in group["params"]:
                if each.grad is not None:
                    found[each] = 0.9 * found.get(each, 0) + each.grad
                    each.grad = found[each].clone()
        return super().step(closure)


class Data:
    def __len__(self) -> int:
        return 90

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.arange(index, index + 3) % 50, index % 4


def forward(model: nn.Module, shard: Any) -> torch.Tensor:
    x, y = shard
    return F.cross_entropy(model(x), y)


class Counter:
    """Small registered state."""

    def __init__(self) -> None:
        self.value = 0

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value = state["value"]


class Average(nn.Module):
    """A moving average of the parameters, larger than what is written with each step."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.values = nn.ParameterList(each.detach().clone() for each in model.parameters())
        self.rate: torch.Tensor
        self.register_buffer("rate", torch.tensor(0.0), persistent=False)
        self.much: torch.Tensor
        self.register_buffer("much", torch.zeros(300_000))

    @torch.no_grad()
    def update(self, model: nn.Module, rate: float = 0.0) -> None:
        self.rate.fill_(rate)
        for mine, each in zip(self.values, model.parameters(), strict=True):
            mine.lerp_(each, 0.1)
        self.much += 1


def hooked(parameters: Any) -> torch.optim.Optimizer:
    """With a hook of the script."""

    def before(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        for group in optimizer.param_groups:
            for each in group["params"]:
                if each.grad is not None:
                    each.grad.data.mul_(0.7).add_(1e-3)

    made = optim.AdamW(parameters, 0.02)
    made.register_step_pre_hook(before)
    return made


Between = Callable[[Run, nn.Module, torch.optim.Optimizer, int], None]
"""What a script does after a step of this number."""


def nothing(run: Run, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Most scripts."""


def clip(run: Run, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    with torch.no_grad():
        for each in model.parameters():
            if not each.is_complex():
                each.clamp_(-0.1, 0.1)


def clip_data(run: Run, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    for each in model.parameters():
        if not each.is_complex():
            each.data.clamp_(-0.1, 0.1)


def decay(run: Run, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    for group in optimizer.param_groups:
        group["lr"] *= 0.9


def unfreeze(run: Run, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    model.get_submodule("first").requires_grad_(step % 6 < 3)


def grow(run: Run, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    if step == 7:
        optimizer.add_param_group({"params": [model.get_parameter("scale")], "lr": 0.3})


def move_buffers(run: Run, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    if step == 9:
        model.get_buffer("seen").fill_(77)


def zero_a_bias(run: Run, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    if step == 16:
        model.get_parameter("last.bias").data.zero_()


def forget_momentum(run: Run, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    """As ReLoRA does, and warm restarts."""
    if step == 14:
        for each in optimizer.state.values():
            each["exp_avg"].zero_()


def begin_state_anew(run: Run, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    if step == 14:
        optimizer.state.clear()


def new_head(run: Run, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    if step == 14:
        torch.manual_seed(77)
        old, new = model.get_submodule("last"), nn.Linear(16, 4)
        model.add_module("last", new)
        put = {id(a): b for a, b in zip(old.parameters(), new.parameters(), strict=True)}
        for each in old.parameters():
            optimizer.state.pop(each, None)
        for group in optimizer.param_groups:
            group["params"] = [put.get(id(each), each) for each in group["params"]]


def evaluate(run: Run, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    if step % 4 == 1:
        run.evaluate(Data(), forward)


@dataclass(frozen=True)
class Case:
    """One kind of script."""

    optimizer: Callable[[Any], torch.optim.Optimizer] = lambda parameters: torch.optim.AdamW(parameters, 0.02)
    between: Between = nothing
    schedule: bool = False
    sparse: bool = False
    double: bool = False
    skips: bool = False
    average: str = ""
    """Where a moving average is made: in the `hook` of an update, or in the `loop`."""
    without_scale: bool = False
    goes_on: bool = True
    """With the bits that it would have had; else it has them only where it begins."""
    training: dict[str, Any] = field(default_factory=dict)
    precision: str = "exact"


CASES: dict[str, Case] = {
    "AdamW": Case(),
    "AdamW, bf16 log": Case(precision="bf16"),
    "AdamW, clipping, accumulation, schedule": Case(schedule=True, training={"clip_norm": 0.5, "microbatches": 3}),
    "AdamW, fused": Case(optimizer=lambda p: optim.AdamW(p, 0.02, fused=True)),
    "AdamW, one by one": Case(optimizer=lambda p: optim.AdamW(p, 0.02, foreach=False)),
    "Adam, amsgrad": Case(optimizer=lambda p: optim.Adam(p, 0.02, amsgrad=True, weight_decay=0.1)),
    "SGD": Case(optimizer=lambda p: optim.SGD(p, 0.02, momentum=0.9, nesterov=True)),
    "RMSprop": Case(optimizer=lambda p: optim.RMSprop(p, 0.002, momentum=0.5, centered=True)),
    "Adagrad": Case(optimizer=lambda p: optim.Adagrad(p, 0.02)),
    "Adadelta": Case(optimizer=lambda p: optim.Adadelta(p, 0.5)),
    "NAdam": Case(optimizer=lambda p: optim.NAdam(p, 0.02)),
    "RAdam": Case(optimizer=lambda p: optim.RAdam(p, 0.02)),
    "Rprop": Case(optimizer=lambda p: optim.Rprop(p, 0.002)),
    "LAMB": Case(optimizer=lambda p: Lamb(p, lr=0.02), training={"clip_norm": 1.0}),
    "LARS": Case(optimizer=lambda p: Lars(p, lr=0.5, momentum=0.9)),
    "float64": Case(double=True),
    "sparse, SGD": Case(optimizer=lambda p: optim.SGD(p, 0.1), sparse=True),
    "sparse, Adagrad, bf16 log": Case(optimizer=lambda p: optim.Adagrad(p, 0.1), sparse=True, precision="bf16"),
    "fp16": Case(training={"precision": RuntimePrecision(compute="fp16", reduce="fp16")}),
    "bf16": Case(training={"precision": RuntimePrecision(compute="bf16")}),
    "deterministic": Case(training={"deterministic": True, "virtual_shards": 4}),
    "weights are clipped": Case(between=clip),
    "weights are clipped through .data": Case(between=clip_data),
    "the rate is changed": Case(between=decay),
    "layers are frozen and unfrozen": Case(between=unfreeze),
    "a group is added": Case(between=grow, without_scale=True),
    "moments are set to zero, once": Case(between=forget_momentum),
    "the optimizer's state begins anew": Case(between=begin_state_anew),
    "a layer is replaced": Case(between=new_head),
    "a buffer is changed": Case(between=move_buffers),
    "a bias is set through .data, once": Case(between=zero_a_bias),
    "an optimizer with state of its own": Case(optimizer=lambda p: Counting(p, 0.02, momentum=0.9)),
    "an optimizer with a count on itself": Case(optimizer=lambda p: Hidden(p, 0.02, momentum=0.9)),
    "an optimizer that adds noise": Case(optimizer=lambda p: Noisy(p, 0.02), schedule=True, goes_on=False),
    "an optimizer that adds noise, bf16 log, clipping": Case(
        optimizer=lambda p: Noisy(p, 0.02), precision="bf16", training={"clip_norm": 0.5}, goes_on=False
    ),
    "an optimizer that adds noise, and weights are clipped": Case(
        optimizer=lambda p: Noisy(p, 0.02), between=clip_data, goes_on=False
    ),
    "an optimizer that changes gradients": Case(optimizer=lambda p: Scales(p, 0.02, momentum=0.9)),
    "an optimizer that changes gradients of large tensors": Case(optimizer=lambda p: ScalesLarge(p, 0.02)),
    "a hook that changes gradients": Case(optimizer=hooked),
    "an optimizer with a secret": Case(optimizer=lambda p: Secretive(p, 0.02), goes_on=False),
    "evaluations": Case(between=evaluate),
    "batches are left out": Case(skips=True),
    "an average in run.on_update": Case(average="hook", schedule=True),
    "an average in the loop": Case(average="loop"),
}


def runs(case: Case, folder: Path, branch: RuntimeBranch | None = None) -> Iterator[tuple[int, str]]:
    """The next step before each one and at the end, and the digest of all state then."""
    torch.manual_seed(1)
    training = RuntimeTraining(steps=STEPS, global_batch=12, seed=2, **case.training)
    snapshots = RuntimeSnapshots(
        storage=str(folder),
        commit_seconds=0.0,
        base_every_steps=6,
        keep_bases=100,
        precision=case.precision,
        restore_from=branch,
    )
    run = Run(Settings(training, STEPS, 12, 1, snapshots), None)
    model = Net(sparse=case.sparse)
    if case.double:
        model.double()
    made: list[torch.optim.Optimizer] = []

    def optimizer(parameters: Any) -> torch.optim.Optimizer:
        found = [each for each in parameters if not (case.without_scale and each is model.scale)]
        made.append(case.optimizer(found))
        return made[0]

    scheduler = (lambda found: optim.lr_scheduler.OneCycleLR(found, 0.05, total_steps=STEPS)) if case.schedule else None
    run.prepare(model=model, optimizer=optimizer, data=Data(), scheduler=scheduler)
    counter, average = Counter(), Average(model)
    run.register("counter", counter)
    run.register("average", average)
    if case.average == "hook":
        run.on_update(lambda result: average.update(model, made[0].param_groups[0]["lr"] + result.loss))
    for batch in run.batches():
        yield batch.step, run.state_sha256()
        if case.skips and batch.step % 5 == 2:
            run.skip(batch)
        else:
            run.step(batch, forward)
        counter.value += 1
        if case.average == "loop":
            average.update(model)
        case.between(run, model, made[0], batch.step if batch.rehearsing else run.step_number - 1)
    yield STEPS, run.state_sha256()
    run.finish()
    assert run._snapshots is not None
    recorder = run._snapshots.recorder
    assert recorder.bases.thread.drain(30.0)
    assert (recorder.log.defect, recorder.bases.thread.defect, recorder.bases.failure) == (None, None, None)


def compare(pipe: Pipe, name: str, folder: Path) -> dict[int, dict[int, tuple[str, str]]]:
    """By the step that was gone back to: where the digests differ."""
    case = CASES[name]
    whole = dict(runs(case, folder / "whole"))
    found: dict[int, dict[int, tuple[str, str]]] = {}
    for step in BACK:
        copy = folder / str(step)
        shutil.copytree(folder / "whole", copy)
        storage = Local(copy)
        looked = Found.of(storage)
        storage.delete([str(each) for each in looked.segments if each.last >= step])
        for base in looked.bases:
            if base.step > step:
                shutil.rmtree(copy / str(base))
        again = dict(runs(case, copy))
        assert min(again) == step, (min(again), step)
        found[step] = {
            at: (whole[at], sha) for at, sha in again.items() if whole[at] != sha and (case.goes_on or at == step)
        }
    return found


@pytest.mark.parametrize("name", CASES)
def test_a_script_goes_on_with_the_same_bits(name: str, tmp_path: Path) -> None:
    (found,) = together(compare, 1, name, tmp_path)
    assert found == {step: {} for step in BACK}


LATE = (
    *("AdamW", "AdamW, bf16 log", "AdamW, clipping, accumulation, schedule", "LAMB", "fp16", "sparse, SGD"),
    *(each for each in CASES if "changes gradients" in each),
    *("weights are clipped through .data", "layers are frozen and unfrozen", "a layer is replaced"),
)


def compare_late(pipe: Pipe, name: str, folder: Path) -> dict[int, dict[int, tuple[str, str]]]:
    """The same where the thread that copies is slow to begin."""
    begin = Copying.begin

    def late(self: Copying, work: Callable[[], None]) -> None:
        def slow() -> None:
            time.sleep(0.01)
            work()

        begin(self, slow)

    Copying.begin = late  # type: ignore[method-assign]
    return compare(pipe, name, folder)


@pytest.mark.parametrize("name", LATE)
def test_copies_that_are_late_are_right(name: str, tmp_path: Path) -> None:
    (found,) = together(compare_late, 1, name, tmp_path)
    assert found == {step: {} for step in BACK}


class Silent:
    """A storage that does not answer."""

    def list(self, prefix: str) -> dict[str, int]:
        raise StorageError(f"cannot list {prefix}: Stale file handle (ESTALE)")


def asked(pipe: Pipe, folder: Path) -> list[int]:
    """Which step all could go back to: before there is one, and when the storage does not answer."""
    snapshots = RuntimeSnapshots(storage=str(folder))
    run = Run(Settings(RuntimeTraining(steps=STEPS, global_batch=12), STEPS, 12, 1, snapshots), None)
    run.prepare(model=Net(), optimizer=CASES["AdamW"].optimizer, data=Data())
    assert run._snapshots is not None
    saved = run._operations.subject.saved_step
    before, run._snapshots._storage = saved(), Silent()  # type: ignore[assignment]
    return [before, saved()]


def test_a_storage_that_does_not_answer_is_not_an_empty_one(tmp_path: Path) -> None:
    assert together(asked, 1, tmp_path) == [[-1, 0]]


def grown(pipe: Pipe, folder: Path, change: str) -> str:
    """What another script than the one that wrote it is told."""
    for _ in runs(CASES["AdamW"], folder):
        pass
    snapshots = RuntimeSnapshots(storage=str(folder))
    run = Run(Settings(RuntimeTraining(steps=STEPS, global_batch=12, seed=2), STEPS, 12, 1, snapshots), None)
    model: nn.Module = Net()
    if change == "shape":
        model.add_module("last", nn.Linear(4, 16))
    elif change == "more":
        model.add_module("more", nn.Linear(2, 2))
    elif change == "dtype":
        model.double()
    kind = torch.optim.SGD if change == "optimizer" else torch.optim.AdamW
    run.prepare(model=model, optimizer=lambda parameters: kind(parameters, 0.02), data=Data())
    run.register("counter", Counter())
    if change != "piece":
        run.register("average", Average(Net()))
    try:
        next(run.batches())
    except StateMismatch as error:
        return str(error)
    return "nothing"


@pytest.mark.parametrize(
    ("change", "told"),
    {
        "shape": "the parameter last.weight is float32 of shape (4, 16) in the snapshots and float32 of shape (16, 4)",
        "more": "the parameter more.weight is missing in the snapshots",
        "dtype": "the parameter scale is float32 of shape () in the snapshots and float64",
        "optimizer": "made with the optimizer torch.optim.adamw.AdamW",
        "piece": "['average', 'counter', 'trained'] beside model and optimizer",
    }.items(),
)
def test_another_script_is_refused(change: str, told: str, tmp_path: Path) -> None:
    (found,) = together(grown, 1, tmp_path, change)
    assert told in found
