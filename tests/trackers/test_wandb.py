"""`wandb sync` finds every step once, whoever died, and however often it was called."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from drivetrain_api.runtime import RuntimeTracking, RuntimeWandb
from harness.patience import until_true
from trackers.tracked_job import STEPS, run
from trackers.wandb_server import Server, served

ALL = list(range(1, STEPS + 1))
NAMES = {"loss", "twice", "process", "_step", "_timestamp", "_runtime"}


def tracking(folder: Path) -> RuntimeTracking:
    return RuntimeTracking(wandb=RuntimeWandb(folder=str(folder / "runs"), project="digits", entity="us"))


async def synced(folder: Path, server: Server) -> str:
    """What the real `wandb sync` says, of all that is in the folder."""
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("wandb"),
        "sync",
        folder / "runs",
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "WANDB_BASE_URL": server.address,
            "WANDB_API_KEY": "a" * 40,
            "WANDB_ERROR_REPORTING": "false",
        },
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await asyncio.wait_for(process.communicate(), 60.0)
    assert process.returncode == 0, said.decode()
    return said.decode()


async def test_another_rank_takes_over_in_the_middle(tmp_path: Path) -> None:
    """Also of a run that was uploaded as far as it was."""
    with served() as server:
        async with run(tmp_path, tracking(tmp_path), SLOW="0.3") as tracked:
            first = await tracked.at_step(20)
            assert "Finished syncing" in await synced(tmp_path, server)
            assert 1 <= len(server.history()) < STEPS
            assert server.exit_code == 1  # as of any run that has not ended
            tracked.kill(first)
            second = await tracked.at_step(tracked.rank_zero()[1] + 10, after=first)
            tracked.kill(second)
            await tracked.at_step(tracked.rank_zero()[1] + 10, after=second)
            printed = await tracked.end()
        assert "Finished syncing" in await synced(tmp_path, server)
    history = server.history()
    assert [line["_step"] for line in history] == ALL
    assert all(set(line) == NAMES for line in history)
    assert [line["loss"] * 2 for line in history] == pytest.approx([line["twice"] for line in history])
    assert len({line["process"] for line in history}) >= 3
    assert server.exit_code == 0
    assert server.path == "/files/us/digits/test-job-uid/file_stream"
    assert server.run["displayName"] == "test-job-uid"
    config = {name: item["value"] for name, item in json.loads(server.run["config"]).items()}
    assert (config["global_batch"], config["world_size"], config["steps"]) == (32, 2, STEPS)
    summary = server.files["wandb-summary.json"]
    assert summary[max(summary)]["loss"] == history[-1]["loss"]
    assert "drivetrain: tracking" not in printed


async def test_what_is_repeated_from_a_file_takes_the_place_of_what_was_written(tmp_path: Path) -> None:
    async with run(tmp_path, tracking(tmp_path), workers=1, every=25) as tracked:
        first = await tracked.at_step(40)
        tracked.kill(first)
        second = await tracked.at_step(30, after=first)
        printed = await tracked.end()
    assert f"resumed from {tmp_path / 'model.pt'} at step 25" in printed
    with served() as server:
        await synced(tmp_path, server)
    history = server.history()
    assert [line["_step"] for line in history] == ALL
    assert [line["process"] for line in history] == [first] * 25 + [second] * (STEPS - 25)
    assert "drivetrain: tracking" not in printed


async def test_a_folder_that_is_not_there_yet_holds_up_nothing(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    async with run(tmp_path, tracking(tmp_path)) as tracked:
        await tracked.at_step(10)
        (tmp_path / "runs").unlink()
        await until_true(lambda: (tmp_path / "runs").is_dir(), tracked.printed, 60.0)
        printed = await tracked.end()
    with served() as server:
        await synced(tmp_path, server)
    assert [line["_step"] for line in server.history()] == ALL
    assert printed.count("W&B failed, and is tried again; training goes on: ") == 1
    assert printed.count("W&B goes on at step") == 1
