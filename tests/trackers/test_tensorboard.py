"""TensorBoard's own readers show every step once, whoever died."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from drivetrain_api.runtime import RuntimeTensorBoard, RuntimeTracking
from harness.patience import until_true
from harness.ports import reserve_network
from trackers.tracked_job import STEPS, run

ALL = list(range(1, STEPS + 1))
TAGS = {"loss", "twice", "process"}


def tracking(folder: Path) -> RuntimeTracking:
    return RuntimeTracking(tensorboard=RuntimeTensorBoard(folder=str(folder / "runs")))


def read(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """As the reader in Python has it, by tag."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (of_job,) = (folder / "runs").iterdir()
    found = EventAccumulator(str(of_job), size_guidance={"scalars": 0, "tensors": 0})
    found.Reload()
    return {tag: [(each.step, each.value) for each in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a real TensorBoard, with its fast reader."""
    network = reserve_network()
    host = f"{network.value}.1"
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder / "runs"), "--host", host]
    command += ["--port", "6006", "--samples_per_plugin", "scalars=100000", "--load_fast", "true"]
    with (folder / "tensorboard.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield f"http://{host}:6006/data/plugin/scalars"
    finally:
        process.kill()
        process.wait()
        network.release()


def asked(url: str) -> Any:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return json.load(answer)
    except OSError:
        return None


async def shown(folder: Path) -> dict[str, list[int]]:
    """Steps by tag, as its server answers."""
    with served(folder) as address:
        found: dict[str, Any] = {}

        def there() -> bool:
            for name, tags in (asked(f"{address}/tags") or {}).items():
                for tag in tags:
                    query = urllib.parse.urlencode({"run": name, "tag": tag})
                    rows = asked(f"{address}/scalars?{query}") or []
                    found[tag] = [step for _, step, _ in rows]
            return set(found) >= TAGS and all(steps[-1:] == [STEPS] for steps in found.values())

        await until_true(there, lambda: f"what TensorBoard shows: {found}", 40.0)
        return found


async def test_another_rank_takes_over_in_the_middle(tmp_path: Path) -> None:
    async with run(tmp_path, tracking(tmp_path)) as tracked:
        first = await tracked.at_step(20)
        tracked.kill(first)
        second = await tracked.at_step(50, after=first)
        tracked.kill(second)
        await tracked.at_step(80, after=second)
        printed = await tracked.end()
    found = read(tmp_path)
    assert set(found) == TAGS
    assert {tag: [step for step, _ in rows] for tag, rows in found.items()} == dict.fromkeys(TAGS, ALL)
    assert [value * 2 for _, value in found["loss"]] == pytest.approx([value for _, value in found["twice"]])
    assert len({value for _, value in found["process"]}) >= 3
    assert await shown(tmp_path) == dict.fromkeys(TAGS, ALL)
    assert "drivetrain: tracking" not in printed


async def test_what_is_repeated_from_a_file_takes_the_place_of_what_was_written(tmp_path: Path) -> None:
    async with run(tmp_path, tracking(tmp_path), workers=1, every=25) as tracked:
        first = await tracked.at_step(40)
        tracked.kill(first)
        second = await tracked.at_step(30, after=first)
        printed = await tracked.end()
    assert f"resumed from {tmp_path / 'model.pt'} at step 25" in printed
    found = read(tmp_path)
    assert [step for step, _ in found["loss"]] == ALL
    assert [int(value) for _, value in found["process"]] == [first] * 25 + [second] * (STEPS - 25)
    assert await shown(tmp_path) == dict.fromkeys(TAGS, ALL)


async def test_parameters_stand_there_once(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    from tensorboard.plugins.hparams.metadata import parse_session_start_info_plugin_data

    async with run(tmp_path, tracking(tmp_path)) as tracked:
        tracked.kill(await tracked.at_step(10))
        await tracked.end()
    (of_job,) = (tmp_path / "runs").iterdir()
    values = [
        value
        for path in sorted(of_job.iterdir())
        for event in EventFileLoader(str(path)).Load()
        for value in event.summary.value
        if value.tag == "_hparams_/session_start_info"
    ]
    (value,) = values
    told = parse_session_start_info_plugin_data(value.metadata.plugin_data.content).hparams
    assert {name: told[name].number_value for name in ("global_batch", "world_size", "steps")} == {
        "global_batch": 32,
        "world_size": 2,
        "steps": STEPS,
    }
