"""A process that is no member yet rehearses a step: it runs what a rank would get, and nothing follows from it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, Final

import pytest

from drivetrain_api.constants import ENV_SPEC
from unit.runtime.scripts import End, Scripts

SCRIPT: Final = """
import collections, random, sys
import numpy, torch, drivetrain
from torch import nn

class Data:
    def __len__(self): return 30
    def __getitem__(self, index): return torch.tensor([index / 30.0, 1.0, index % 3])
class Stream:
    def __iter__(self): return (Data()[index] for index in range(30))
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.frozen, self.line = nn.BatchNorm1d(3), nn.BatchNorm1d(3).eval(), nn.Linear(3, 1)
        self.register_buffer("calls", torch.zeros(1))
    def forward(self, x):
        self.calls = self.calls + 1
        return self.line(self.frozen(self.norm(x)))
class Stats:
    def __init__(self): self.seen = collections.Counter()
    def state_dict(self): return {"seen": self.seen}
    def load_state_dict(self, state): self.seen = state["seen"]

def rehearsing(): return run.membership == "0.0"
def forward(model, x):
    if rehearsing(): print(f"<{len(x)}>", flush=True)
    stats.seen["samples"] += len(x)
    try: return middle(model, x)
    finally: model.train()
def middle(model, x): return model(x).square().mean()

run = drivetrain.start(defaults={"steps": 3, "global_batch": 10, **DEFAULTS})
model = Net()
model.line.bias.requires_grad_(False)
stats, data = Stats(), Data()
BODY
def optimizer(parameters): return torch.optim.SGD([each for each in parameters if each.requires_grad], 0.01)
run.prepare(model=model, optimizer=optimizer, data=data)
run.register("stats", stats)
torch.manual_seed(5); random.seed(5); numpy.random.seed(5)
for batch in run.batches():
    run.step(batch, forward)
print("[", run.state_sha256(), torch.rand(()).item(), random.random(), numpy.random.rand(), "]", model.frozen.training)
"""


@dataclass(frozen=True)
class Case:
    """What is changed in the script, and what micro-batches the rehearsal must run."""

    body: str = ""
    sizes: tuple[int, ...] = (10, 10, 10)
    workers: int = 1
    defaults: dict[str, Any] = field(default_factory=dict)
    not_warm: str = ""
    """What the line says that tells of a failure."""


IN_REHEARSAL: Final = (
    "def middle(model, x):\n  loss = model(x).square().mean()\n  if rehearsing():\n    {}\n  return loss"
)
CASES: Final[dict[str, Case]] = {
    "batch-norm": Case(),
    "a share": Case(workers=3, sizes=(4, 4, 4)),
    "micro-batches of a share": Case(workers=3, defaults={"microbatches": 2}, sizes=(2, 2, 2)),
    "virtual shards": Case(workers=3, defaults={"deterministic": True, "virtual_shards": 4}, sizes=(3, 3, 3)),
    "a stream": Case("data = Stream()"),
    "ZeRO 2": Case(defaults={"zero": 2}),
    "ZeRO 3": Case(defaults={"zero": 3}),
    "compression": Case(defaults={"compression": {"method": "bf16"}}),
    "bf16": Case(defaults={"precision": {"compute": "bf16"}}),
    "random numbers": Case("def middle(model, x): return model(x).mean() * (torch.rand(()) + random.random())"),
    "one sample in spite of all": Case(
        workers=3, defaults={"microbatches": 4}, sizes=(1,), not_warm="ValueError: Expected more than 1 value"
    ),
    "an error in forward": Case(
        IN_REHEARSAL.format("raise KeyError('of the script')"), (10,), not_warm="of the script"
    ),
    "an error of many lines": Case(IN_REHEARSAL.format("raise KeyError('one\\ntwo')"), (10,), not_warm="KeyError: "),
    "no exception at all": Case(
        IN_REHEARSAL.format("raise type('Own', (BaseException,), {})('of the script')"), (10,), not_warm="Own: of the"
    ),
    "an error without a text": Case(
        IN_REHEARSAL.format("raise type('Mute', (Exception,), {'__str__': lambda self: 1})()"),
        (10,),
        not_warm="Mute: (",
    ),
    "an error in backward": Case(
        IN_REHEARSAL.format("loss.register_hook(lambda gradient: [][1])"),
        (10,),
        not_warm="IndexError",
    ),
    "an error half-way": Case(
        IN_REHEARSAL.format(
            "loss.backward(); model.eval(); model.calls += 9; stats.seen['x'] = 1; raise OSError('half')"
        ),
        (10,),
        not_warm="OSError: half",
    ),
    "no loss": Case(IN_REHEARSAL.format("return model(x)"), (10,), not_warm="UsageError: forward: must return"),
    "the rank is asked for": Case(IN_REHEARSAL.format("run.rank"), (10,), not_warm="UsageError: run.rank"),
}


def ended(scripts: Scripts, case: Case, *, job: bool) -> End:
    """The script, with a rehearsal (in a job) or without one."""
    script = SCRIPT.replace("DEFAULTS", repr(case.defaults)).replace("BODY", case.body)
    spec = {ENV_SPEC: json.dumps({"workers": case.workers})} if job else {}
    return scripts.ended(script, job=job, environment={"OMP_NUM_THREADS": "1", **spec}, seconds=60.0)


def result(end: End) -> str:
    """State and random numbers at the end."""
    assert end.code == 0, end.output
    (found,) = re.findall(r"\[ .* \] \w+", end.output)
    return str(found)


@pytest.mark.parametrize("name", CASES)
def test_a_rehearsal_changes_nothing(scripts: Scripts, name: str) -> None:
    case = CASES[name]
    rehearsed = ended(scripts, case, job=True)
    assert result(rehearsed) == result(ended(scripts, case, job=False))
    assert tuple(map(int, re.findall(r"<(\d+)>", rehearsed.output))) == case.sizes
    told = [line for line in rehearsed.output.splitlines() if "not warm" in line]
    assert len(told) == bool(case.not_warm)
    assert case.not_warm in "".join(told)
    assert "Traceback" not in rehearsed.output
    assert rehearsed.told == []


def test_an_error_of_the_script_comes_again_in_its_step(scripts: Scripts) -> None:
    end = ended(scripts, Case("def middle(model, x): raise ValueError('always')"), job=True)
    assert (end.code, end.finished) == (1, False)
    assert "not warm" in end.output
    assert "ValueError: always" in "".join(end.told)
