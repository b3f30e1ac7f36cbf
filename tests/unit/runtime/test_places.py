"""What do `run.rank` and `run.world_size` answer, wherever a script may ask?"""

from __future__ import annotations

import re
from typing import Final

import pytest

from drivetrain.launch.environment import ENV_SPARE_LEVEL
from unit.runtime.scripts import Scripts
from unit.runtime.together import free_port

SCRIPT: Final = """
import atexit, torch, drivetrain

seen = {}
def ask(where):
    try: seen.setdefault(where, f"{run.rank}/{run.world_size}")
    except drivetrain.UsageError as error: seen.setdefault(where, str(error))
def tell():
    ask("atexit")
    for where, answer in seen.items(): print(f"<{where}: {answer}>", flush=True)

class Data:
    def __init__(self, workers): self.workers = workers
    def __len__(self): return 8
    def __getitem__(self, index):
        if self.workers:
            ask("worker")
            print(f"<worker: {seen['worker']}>", flush=True)
        return torch.ones(2)

def forward(model, x):
    ask("rehearsal" if run.membership == "0.0" else "forward")
    return model(x).sum()

WORKERS = %d
run = drivetrain.start(defaults={"steps": 2, "global_batch": 4, "data_workers": WORKERS})
atexit.register(tell)
ask("before prepare")
run.prepare(model=torch.nn.Linear(2, 1), optimizer=lambda p: torch.optim.SGD(p, 0.1), data=Data(WORKERS))
ask("after prepare")
for batch in run.batches():
    %s
    run.step(batch, forward)
    ask("after step")
ask("after the loop")
run.finish()
ask("after finish")
"""
ASKS: Final = 'ask("in the loop")'
NO_MEMBER, FORKED = "is no member of the job yet", "forked from a rank"
LATER: Final = ("forward", "after step", "after the loop", "after finish", "atexit")


def found(output: str) -> dict[str, str]:
    """The answers by place."""
    return dict(re.findall(r"<([^:]*): ([^>]*)>", output))


@pytest.mark.parametrize("environment", [{}, {ENV_SPARE_LEVEL: "model"}], ids=["candidate", "spare"])
def test_a_rank_of_a_job(scripts: Scripts, environment: dict[str, str]) -> None:
    """Where there is no answer yet, an error says where there is one; never -1 or 0."""
    end = scripts.ended(SCRIPT % (0, "pass"), job=True, environment=environment, seconds=60.0)
    assert end.code == 0, end.output
    answers = found(end.output)
    for where in ("before prepare", "after prepare", "rehearsal"):
        assert NO_MEMBER in answers[where]
        assert "inside the loop over run.batches()" in answers[where]
    assert {where: answers[where] for where in LATER} == dict.fromkeys(LATER, "0/1")


def test_who_asks_in_the_loop_is_a_member(scripts: Scripts) -> None:
    end = scripts.ended(SCRIPT % (0, ASKS), job=True, seconds=60.0)
    assert end.code == 0, end.output
    assert found(end.output)["in the loop"] == "0/1"
    assert "rehearsal" not in found(end.output)


def test_a_data_worker_of_a_job_does_not_know(scripts: Scripts) -> None:
    end = scripts.ended(SCRIPT % (1, "pass"), job=True, seconds=60.0)
    assert end.code == 0, end.output
    told = re.findall("<worker: ([^>]*)>", end.output)
    assert any(FORKED in each for each in told), end.output


def test_alone(scripts: Scripts) -> None:
    answers = found(scripts.ended(SCRIPT % (1, ASKS), seconds=60.0).output)
    places = ("before prepare", "after prepare", "in the loop", "worker", *LATER)
    assert {where: answers[where] for where in places} == dict.fromkeys(places, "0/1")


def test_under_torchrun(scripts: Scripts) -> None:
    port = str(free_port())
    environments = [
        {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port} for rank in range(2)
    ]
    ends = scripts.all_ended([SCRIPT % (0, ASKS)] * 2, job=False, seconds=60.0, environments=environments)
    places = ("before prepare", "after prepare", "in the loop", *LATER)
    for rank, end in enumerate(ends):
        assert end.code == 0, end.output
        answers = found(end.output)
        assert {where: answers[where] for where in places} == dict.fromkeys(places, f"{rank}/2")
