"""What status says of snapshots: a storage that refuses, an optimizer that does not make the same bits again."""

from __future__ import annotations

from typing import Any

import pytest

from drivetrain_api.messages import Progress, Snapshotted
from drivetrain_api.status import TrainingJobStatus
from drivetrain_operator.plan.plan import plan
from drivetrain_operator.plan.view import View
from unit.plan.builders import condition, report, running
from unit.plan.tables import conditions

REFUSED = "cannot write /mnt/a: No space left on device (ENOSPC)"
NOISE = "Noisy made other bits of 90 of 100 numbers"


def told(status: TrainingJobStatus | None = None, **fields: Any) -> View:
    """The coordinator has heard this of snapshots; nothing, if there are no fields."""
    snapshots = Snapshotted(**fields) if fields else None
    view = report(progress=Progress(step=10, snapshots=snapshots))
    return running(report=view) if status is None else running(status=status, report=view)


FAILS = plan(told(failure=REFUSED)).status
DIFFERS = plan(told(differs=NOISE)).status


@pytest.mark.parametrize(
    ("status", "fields", "failing", "replayed"),
    [
        (None, {}, "", ""),
        (None, {"durable": 9}, "", ""),
        (None, {"failure": REFUSED}, "True StorageFails", ""),
        (FAILS, {}, "True StorageFails", ""),
        (FAILS, {"durable": 9}, "False Written", ""),
        (None, {"differs": NOISE}, "", "True OtherBits"),
        (DIFFERS, {}, "", "True OtherBits"),
        (DIFFERS, {"durable": 9}, "", "False SameBits"),
        (None, {"differs": NOISE, "failure": REFUSED}, "True StorageFails", "True OtherBits"),
    ],
)
def test_conditions(status: TrainingJobStatus | None, fields: dict[str, Any], failing: str, replayed: str) -> None:
    found = conditions(plan(told(status, **fields)).status)
    assert (found.get("SnapshotsFailing", ""), found.get("StepsNotReplayed", "")) == (failing, replayed)


def test_messages_have_what_the_rank_says() -> None:
    assert condition(FAILS, "SnapshotsFailing").message.startswith(REFUSED)
    assert condition(DIFFERS, "StepsNotReplayed").message.startswith(NOISE)
