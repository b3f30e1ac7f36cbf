"""Random programs of shared operations on two or three ranks, some of which deviate, and some of whose operations fail.

Every deviation is named with both positions, nothing hangs, nothing is paired that does not belong together, and an
error on one rank is the same error on all.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, cast

import pytest
import torch

from drivetrain.closing import Closed
from drivetrain.comm.transport import Transport
from drivetrain.errors import Deviation
from drivetrain.found import Found
from drivetrain.identity import Kind, here
from drivetrain.operation import Operations
from drivetrain.position import StepResult
from drivetrain.state import TrainingState
from drivetrain.world.fixed import Fixed
from drivetrain.world.heal import Doing, Healed
from unit.runtime.simulated import Group, SimulatedTransport

PROGRAMS = 10_000
AT_ONCE = 500
KINDS = (Kind.STEP, Kind.SKIP, Kind.REDUCE, Kind.EVALUATE, Kind.SAVE)


@dataclass(frozen=True)
class Operation:
    """One line of a script."""

    kind: Kind
    fails_on: int | None = None
    """The rank on which it raises."""

    @property
    def text(self) -> str:
        """The line."""
        attempts = self.kind in (Kind.STEP, Kind.SKIP)
        call = (
            f"step(at(), attempt({self.fails_on}), undo"
            if attempts
            else f"reduce(2, contribute({self.fails_on}, {int(self.kind)})"
        )
        return f"caught({'lambda: '}{call}, Kind({int(self.kind)})))"


class Script:
    """What one rank runs: the operations that it has, each on its line; no operation on a line is `pass`."""

    def __init__(self, transport: SimulatedTransport, lines: list[Operation | None]) -> None:
        self.log: list[str] = []
        """What its operations came to."""
        self._rank = transport.rank
        self._operations = Operations(TrainingState())
        world = Fixed(cast(Transport, transport), lambda *_: Healed(False, 0, transport.world, (Doing.STEP,)))
        self._operations.attach(world)
        self._operations.position.has_state = True
        self._operations._bound = True
        self._lines = lines

    def run(self) -> str | None:
        """The deviation that it is told, if any."""
        text = "\n".join("pass" if each is None else each.text for each in self._lines)
        names: dict[str, Any] = {
            "Kind": Kind,
            "step": self._operations.step,
            "reduce": self._operations.reduce,
            "at": lambda: self._operations.position.step,
            "attempt": self._attempt,
            "contribute": self._contribute,
            "undo": lambda: None,
            "caught": self._caught,
        }
        try:
            exec(compile(text, "script.py", "exec"), names)
            self._operations.reduce(1, lambda: [1.0], Kind.FINISH)
        except Deviation as error:
            return str(error)
        return None

    def _caught(self, operation: Callable[[], Any]) -> None:
        try:
            self.log.append(str(operation()))
        except KeyError as error:
            self.log.append(f"KeyError on {'this rank' if error.args == ('bad',) else str(error).split(',')[0]}")

    def _attempt(self, fails_on: int | None) -> Callable[[Any, bool], tuple[Callable[[], StepResult], bool]]:
        def attempt(transport: Any, pending: bool) -> tuple[Callable[[], StepResult], bool]:
            failure = KeyError("bad") if self._rank == fails_on else None
            told = torch.tensor([1.0, float(failure is not None)])
            transport.all_reduce(told).wait()
            if told[1] > 0:
                raise Closed(failure)
            return lambda: StepResult(self._operations.position.step, float(told[0])), False

        return attempt

    def _contribute(self, fails_on: int | None, kind: int) -> Callable[[], list[float]]:
        def contribute() -> list[float]:
            if self._rank == fails_on:
                raise KeyError("bad")
            found = Found(weight=1.0, loss=float(self._rank))
            return found.packed() if kind == Kind.EVALUATE else [float(self._rank), 1.0]

        return contribute


def random_program(chance: random.Random, world: int) -> list[list[Operation | None]]:
    """By rank. Half of them deviate: some rank lacks a line that others have, or has one of its own."""
    lines: list[Operation | None] = [
        Operation(chance.choice(KINDS), chance.randrange(world) if chance.random() < 0.1 else None)
        for _ in range(chance.randint(1, 6))
    ]
    by_rank = [list(lines) for _ in range(world)]
    if chance.random() < 0.5:
        at, odd = chance.randrange(len(lines)), chance.randrange(world)
        other = chance.choice([None, Operation(chance.choice(KINDS))])
        for rank in range(world):
            if (rank == odd) == (chance.random() < 0.8):
                by_rank[rank][at] = other
    return by_rank


def expected(program: list[list[Operation | None]]) -> list[str] | None:
    """Where each rank is when they come apart; None if they never do."""
    sequences = [[(line.kind, f"script.py:{at + 1}") for at, line in enumerate(lines) if line] for lines in program]
    for at in range(max(map(len, sequences)) + 1):
        places = [each[at] if at < len(each) else (Kind.FINISH, "") for each in sequences]
        if len(set(places)) > 1:
            return [f"{kind.told} in {line}" if line else kind.told for kind, line in places]
        if places[0][0] is Kind.FINISH:
            return None
    return None


@pytest.mark.parametrize("batch", range(PROGRAMS // AT_ONCE))
def test_every_deviation_is_named_and_nothing_hangs(batch: int) -> None:
    with ThreadPoolExecutor(3) as pool:
        for number in range(batch * AT_ONCE, (batch + 1) * AT_ONCE):
            chance = random.Random(number)
            program = random_program(chance, world := chance.choice((2, 3)))
            group = Group(world)
            scripts = [Script(SimulatedTransport(group, rank), program[rank]) for rank in range(world)]
            told = list(pool.map(Script.run, scripts))
            assert group.mispaired == [], number
            places = expected(program)
            if places is None:
                assert told == [None] * world, number
                assert len({tuple(_alike(script.log)) for script in scripts}) == 1, number
            else:
                assert None not in told, number
                assert len(set(told)) == 1, number
                assert told[0] is not None
                for rank, place in enumerate(places):
                    assert _names(told[0], rank, place), (number, told[0], rank, place)


def _alike(log: list[str]) -> list[str]:
    """An error is its rank's own there, and says where it comes from elsewhere."""
    return ["KeyError" if each.startswith("KeyError") else each for each in log]


def _names(told: str, rank: int, place: str) -> bool:
    """Does the message say that this rank is there?"""
    body = told.removeprefix("the ranks' scripts have come apart: ")
    for part in body.replace(", rank", "|rank").split("|"):
        who, _, where = part.partition(" at ")
        numbers = [int(each.strip(",")) for each in who.split() if each.strip(",").isdigit()]
        if rank in numbers:
            return where == place or (place == Kind.FINISH.told and where.startswith(place))
    return False


def test_a_script_may_lie_in_another_folder_on_each_pod() -> None:
    text = "def inner():\n    return here()\nfound = inner()"
    found = []
    for folder in ("/pod-a", "/somewhere/else"):
        names: dict[str, Any] = {"here": here}
        exec(compile(text, f"{folder}/train.py", "exec"), names)
        found.append(names["found"])
    assert found[0] == found[1]
    assert found[0][0] == "train.py:2"
    names = {"here": here}
    exec(compile(text.replace("found", "\nfound"), "/pod-a/train.py", "exec"), names)
    assert names["found"][1] != found[0][1]
