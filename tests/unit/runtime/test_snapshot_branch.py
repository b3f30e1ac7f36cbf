"""A job that begins with another job's step has that step's bits, needs it no more once it has a base of its own, and
says what there is if there is no such step."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from drivetrain.errors import UsageError
from drivetrain.snapshot.found import Found
from drivetrain.snapshot.storage.local import Local
from drivetrain_api.runtime import RuntimeBranch
from unit.runtime.test_snapshot_scripts import CASES, STEPS, runs
from unit.runtime.together import Pipe, together

JOB = "lm-0123abcd"
STEP = 7


def branch(folder: Path, job: str = "lm", step: int | None = STEP) -> RuntimeBranch:
    return RuntimeBranch(storage=str(folder), job=job, step=step)


def branched(pipe: Pipe, folder: Path) -> None:
    case = CASES["an average in run.on_update"]
    whole = dict(runs(case, folder / JOB))
    wanted = {step: sha for step, sha in whole.items() if step >= STEP}
    source = Found.of(Local(folder / JOB))

    once = folder / "once-00000000"
    assert dict(runs(case, once, branch(folder))) == wanted
    assert not (folder / JOB / "pins").exists(), "nobody reads it any more"
    assert Found.of(Local(folder / JOB)).segments == source.segments
    assert Found.of(Local(once)).runs[1]["branch"] == {"storage": str(folder / JOB), "step": STEP}

    # All of it was lost before a base of its own was whole: it begins there once more.
    shutil.copytree(once, folder / "twice-00000000")
    shutil.rmtree(folder / "twice-00000000" / "base")
    assert dict(runs(case, folder / "twice-00000000", branch(folder))) == wanted

    # Once it has steps of its own, it goes on from those, whether the other job's are there or not.
    shutil.rmtree(folder / JOB)
    assert dict(runs(case, once, branch(folder))) == {STEPS: whole[STEPS]}


def test_a_branch_has_the_bits_of_the_step_that_it_begins_with(tmp_path: Path) -> None:
    together(branched, 1, tmp_path)


def refused(pipe: Pipe, folder: Path) -> list[str]:
    case = CASES["SGD"]
    list(runs(case, folder / JOB))
    shutil.copytree(folder / JOB, folder / "cv-00000001")
    shutil.copytree(folder / JOB, folder / "cv-00000002")
    told = []
    for number, wanted in enumerate([branch(folder, step=99), branch(folder, "l"), branch(folder, "cv")]):
        with pytest.raises(UsageError) as error:
            next(runs(case, folder / f"new-0000000{number}", wanted))
        told.append(str(error.value).replace(f"{folder}", "…"))
    assert next(runs(case, folder / "new-00000009", branch(folder, "cv-00000002")))[0] == STEP
    assert next(runs(case, folder / "new-00000008", branch(folder, step=None)))[0] == STEPS
    assert not [
        path for path in folder.rglob("pins/*") if path.parts[-3] == JOB and "new-00000008" not in path.read_text()
    ]
    return told


def test_a_step_that_is_not_there_is_told_with_those_that_are(tmp_path: Path) -> None:
    (told,) = together(refused, 1, tmp_path)
    assert told == [
        f"spec.restoreFrom: step 99 of job lm is not in …/{JOB}: those it has are 1 to {STEPS}",
        "spec.restoreFrom.job l: snapshots are looked for in …, and it has none there",
        "spec.restoreFrom.job cv: snapshots are looked for in …, and several jobs had the name: "
        "say which of cv-00000001, cv-00000002",
    ]


def made_again(pipe: Pipe, folder: Path) -> None:
    case = CASES["SGD"]
    whole = dict(runs(case, folder / JOB))
    wanted = {step: sha for step, sha in whole.items() if step >= STEP}
    own = folder / "lm-89abcdef"
    assert dict(runs(case, own, branch(folder))) == wanted
    shutil.rmtree(own / "base")  # all was lost before there was one
    assert dict(runs(case, own, branch(folder))) == wanted


def test_a_job_that_was_deleted_and_made_again_is_no_source_of_its_own(tmp_path: Path) -> None:
    together(made_again, 1, tmp_path)
