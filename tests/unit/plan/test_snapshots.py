"""What status says of snapshots: a storage that refuses, an optimizer that does not make the same bits again."""

from __future__ import annotations

from typing import Any

import pytest

from drivetrain_api.messages import Progress, Snapshotted
from drivetrain_api.status import SnapshotsStatus, TrainingJobStatus
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


def test_progress_has_what_is_in_storage_and_the_last_restore_of_whoever_made_one() -> None:
    first = plan(told(durable=9, age_seconds=3.4, bytes_written=5, backlog_bytes=1, restored=7, restored_seconds=1.6))
    assert first.status.progress is not None
    assert first.status.progress.durable_step == 9
    shown = first.status.progress.snapshots
    assert shown == SnapshotsStatus(
        durable_age_seconds=3, bytes_written=5, backlog_bytes=1, restored_step=7, restored_seconds=2
    )
    old = first.status.progress.model_copy(update={"last_update_time": None})
    later = plan(told(first.status.model_copy(update={"progress": old}), durable=10, dropped_steps=2)).status.progress
    assert later is not None
    assert later.snapshots == SnapshotsStatus(dropped_steps=2, restored_step=7, restored_seconds=2)


def test_messages_have_what_the_rank_says() -> None:
    assert condition(FAILS, "SnapshotsFailing").message.startswith(REFUSED)
    assert condition(DIFFERS, "StepsNotReplayed").message.startswith(NOISE)
