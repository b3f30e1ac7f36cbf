"""Operations under changing membership, with a world of one process that changes when the test says so.

What other members would do stands in the position that arrives with a new membership.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from drivetrain.errors import CommFault, MembershipOver, OutOfStep, UsageError
from drivetrain.operation import Operations
from drivetrain.position import Position, StepResult
from drivetrain.state import Piece, TrainingState
from drivetrain.world.base import Entry
from drivetrain.world.fixed import Fixed
from drivetrain.world.heal import Doing, Healed
from drivetrain_api.messages import EpochId


class Changing(Fixed):
    """Alone; `arrives` is called once at the next `ensure`, as if a new group had formed and handed state over."""

    def __init__(self, operations: Operations) -> None:
        super().__init__(None, operations.synchronise)
        self.arrives: Callable[[], None] | None = None
        self.interruptions: list[str] = []

    def ensure(self, doing: Doing) -> Healed | None:
        if self.arrives is not None:
            arrives, self.arrives = self.arrives, None
            arrives()
            return Healed(True, 0, 1, (doing,))
        return super().ensure(doing)

    def interrupted(self, error: Any) -> None:
        self.interruptions.append(str(error))


def made() -> tuple[Operations, Changing]:
    operations = Operations(TrainingState())
    world = Changing(operations)
    operations.attach(world)
    return operations, world


def committing(number: int) -> Callable[..., tuple[Callable[[], StepResult], bool]]:
    return lambda transport, pending: (lambda: StepResult(number, float(number)), False)


def member_at(position: Position) -> tuple[Operations, Changing]:
    """A newcomer whose first membership brings this position."""
    operations, world = made()
    world.arrives = lambda: operations.position.load(position.dump())
    return operations, world


def journal(step: int, since: list[float], mark: int | None, before_first: list[float] | None = None) -> Position:
    """The members' position: results of one number each."""
    return Position(
        step, EpochId(1, 1), True, [[each] for each in before_first or []], 0, [[each] for each in since], mark,
        StepResult(step - 1, 0.5),
    )  # fmt: skip


def never() -> list[float]:
    raise AssertionError("it is known already")


def test_an_interrupted_step_is_undone_and_tried_again() -> None:
    operations, world = made()
    undone: list[int] = []
    tries = iter([MembershipOver("over"), CommFault("peer"), None])

    def attempt(transport: Any, pending: bool) -> tuple[Callable[[], StepResult], bool]:
        error = next(tries)
        if error is not None:
            raise error
        return lambda: StepResult(0, 1.0), False

    number = operations.bind(5)
    assert operations.step(number, attempt, lambda: undone.append(1)).loss == 1.0
    assert (len(undone), world.interruptions) == (2, ["over", "peer"])
    assert (operations.position.step, operations.counts.recomputed_steps) == (1, 2)


def test_a_step_that_a_peer_committed_is_taken_over_not_repeated() -> None:
    operations, world = made()
    operations.bind(5)
    world.arrives = lambda: operations.position.commit_step(StepResult(0, 9.0), EpochId(1, 2))
    assert operations.step(0, committing(0), lambda: None).loss == 9.0
    assert (operations.position.step, operations.counts.redone_steps) == (1, 1)


def test_a_batch_cannot_be_trained_on_twice() -> None:
    operations, _ = made()
    operations.bind(5)
    operations.step(0, committing(0), lambda: None)
    with pytest.raises(UsageError, match="step 0 is done already"):
        operations.step(0, committing(0), lambda: None)


def test_a_reduction_that_a_peer_completed_is_not_repeated() -> None:
    operations, world = made()
    operations.bind(5)
    world.arrives = lambda: operations.position.commit_reduction([4.0], EpochId(1, 2))
    assert operations.reduce(1, never) == [4.0]
    assert operations.reduce(1, lambda: [5.0]) == [5.0]


def test_a_newcomer_is_answered_what_members_reduced_before_their_first_step() -> None:
    operations, _ = member_at(journal(7, [1.0], 1, before_first=[10.0, 20.0]))
    assert operations.reduce(1, never) == [10.0]
    assert operations.reduce(1, never) == [20.0]
    assert operations.bind(9) == 7


@pytest.mark.parametrize(
    ("since", "mark", "known"),
    [
        ([], 0, []),
        ([1.0], 1, []),  # reduced after step 6, then asked for the batch: nothing of step 7's own
        ([1.0, 2.0], 1, [2.0]),  # and one before step 7, which the newcomer's script asks for again
        ([2.0], 0, [2.0]),
        ([1.0], None, []),  # no member is left that asked for this batch: what it reduced after step 6 is over
    ],
)
def test_a_newcomer_enters_where_members_asked_for_the_batch(
    since: list[float], mark: int | None, known: list[float]
) -> None:
    operations, _ = member_at(journal(7, since, mark, before_first=[10.0]))
    assert operations.reduce(1, never) == [10.0]
    assert operations.bind(9) == 7
    for each in known:
        assert operations.reduce(1, never) == [each]
    assert operations.reduce(1, lambda: [3.0]) == [3.0]
    assert operations.step(7, committing(7), lambda: None).step == 7


def test_a_late_newcomer_replays_what_followed_the_last_step() -> None:
    operations, _ = member_at(journal(9, [1.0, 2.0], None, before_first=[10.0]))
    operations.reduce(1, never)
    assert operations.bind(9) == 9
    operations.stepped()
    assert [operations.reduce(1, never), operations.reduce(1, never)] == [[1.0], [2.0]]
    assert operations.reduce(1, lambda: [3.0]) == [3.0]


def test_the_place_where_a_batch_is_asked_for_is_noted_for_newcomers() -> None:
    operations, _ = made()
    operations.next_batch()
    operations.bind(9)
    operations.step(0, committing(0), lambda: None)
    operations.stepped()
    marks = [operations.position.mark]
    operations.reduce(1, lambda: [1.0])
    operations.next_batch()
    operations.reduce(1, lambda: [2.0])
    marks.append(operations.position.mark)
    operations.step(1, committing(1), lambda: None)
    assert [*marks, operations.position.mark] == [None, 1, None]


def far_ahead(pipe: Any) -> str:
    """Rank 0 is three steps further; rank 1's script stands at its second."""
    import torch

    from unit.runtime.test_backend import connected

    transport = connected(pipe)
    model = torch.nn.Linear(2, 2)
    registry = TrainingState()
    registry.register(Piece("model", model))
    operations = Operations(registry)
    operations.attach(Fixed(None, operations.synchronise))
    operations.bind(9)
    for number in range(4 if pipe.rank == 0 else 1):
        operations.step(number, committing(number), lambda: None)
    try:
        healed = operations.synchronise(transport, Doing.STEP, Entry(new=pipe.rank == 1, may_start=False))
        return f"sent to {healed.sent_to}"
    except OutOfStep as error:
        return str(error)


def nobody_has_state(pipe: Any) -> str:
    from unit.runtime.test_backend import connected

    try:
        operations = Operations(TrainingState())
        operations.synchronise(connected(pipe), Doing.BINDING, Entry(new=True, may_start=False))
    except CommFault as error:
        return str(error)
    return "started"


def test_a_script_that_cannot_follow_asks_to_be_replaced() -> None:
    from unit.runtime.together import together

    sent, error = together(far_ahead, 2)
    assert sent == "sent to 1"
    assert error == "the members are at step 4, this script stands at step 1 and cannot jump"


def test_nobody_starts_anew_without_permission() -> None:
    from unit.runtime.together import together

    assert all("somebody outside" in each for each in together(nobody_has_state, 2))
