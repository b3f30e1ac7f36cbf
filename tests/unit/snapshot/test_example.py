"""What format 1 has written once is read by every later version, to the bit."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from drivetrain.snapshot.found import Found
from drivetrain.snapshot.hand.verify import verified
from drivetrain.snapshot.storage.local import Local
from unit.runtime.together import Pipe, together
from unit.snapshot import example

FOLDER = Path(__file__).with_name("example-1")
EXPECTED: dict[int, list[str]] = {
    int(step): both for step, both in json.loads(FOLDER.with_suffix(".json").read_text()).items()
}
"""By step, digests of all that comes back, and of model and optimizer as they are exported."""


def test_all_of_it_is_read() -> None:
    survey = verified(Local(FOLDER))
    assert survey.damaged == {}
    assert (survey.newest, survey.promised) == (16, 16)
    assert survey.steps == ((1, 16),)
    assert [(each.run, each.came_from, each.steps, each.world) for each in survey.runs] == [
        (1, None, ((1, 7),), (2,)),
        (2, (1, 8), ((8, 15),), (3,)),
    ]
    assert [(each.run, each.step, each.reaches, each.world) for each in survey.bases] == [
        (1, 1, 16, 2),
        (1, 5, 16, 2),
        (2, 9, 16, 3),
        (2, 10, 16, 3),
        (2, 15, 16, 3),
    ]


def digests(pipe: Pipe, folder: Path) -> dict[int, str]:
    """By the step that was restored; at last by training going on from the newest."""
    os.environ |= {"SNAPSHOTS": str(folder), "STEPS": "16", "WORLD_SIZE": "1"}
    storage, found = Local(folder), {}
    for step in range(1, 17):
        run, model, optimizer, counter = example.begin()
        example.go_back(run, storage, step)
        found[step] = example.sha256(model, optimizer, counter)
    assert Found.of(storage).newest == 2, "looking begins no run"
    run, model, optimizer, counter = example.begin()
    assert list(run.batches()) == []
    assert example.sha256(model, optimizer, counter) == found[16]
    assert Found.of(storage).newest == 3
    return found


def test_each_of_its_steps_has_the_bits_that_it_had(tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "copy")  # a run that goes on writes there
    (found,) = together(digests, 1, tmp_path / "copy")
    assert found == {step: sha for step, (sha, _) in EXPECTED.items() if step}
