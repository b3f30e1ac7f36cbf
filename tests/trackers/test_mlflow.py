"""MLflow has every step once, whoever died: in a file, and on a real server that goes away meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from drivetrain_api.runtime import RuntimeMLflow, RuntimeTracking
from harness.patience import until_true
from harness.ports import reserve_network
from trackers.tracked_job import STEPS, Tracked, run

ALL = list(range(1, STEPS + 1))
METRICS = ("loss", "twice", "process")
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "1"}


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def database(tmp_path: Path) -> str:
    """One with its tables: to make them takes long, and whoever is killed over it leaves half of them."""
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    MlflowClient(tracking_uri=uri).search_experiments()
    return uri


def tracking(uri: str) -> RuntimeTracking:
    return RuntimeTracking(mlflow=RuntimeMLflow(uri=uri, experiment="digits"))


def read(uri: str) -> tuple[Any, dict[str, list[tuple[int, float]]]]:
    """The one run, and its metrics in the order in which they were written."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("digits")
    assert experiment is not None
    (found,) = client.search_runs([experiment.experiment_id])
    history = {name: client.get_metric_history(found.info.run_id, name) for name in found.data.metrics}
    return found, {name: [(each.step, each.value) for each in points] for name, points in history.items()}


async def has_written(uri: str, step: int, tracked: Tracked) -> None:
    """MLflow has this step."""

    def there() -> bool:
        try:
            return max(each for each, _ in read(uri)[1]["loss"]) >= step
        except (AssertionError, KeyError, ValueError):
            return False

    await until_true(there, lambda: f"step {step} in MLflow\n{tracked.printed()}", 60.0)


async def test_another_rank_takes_over_in_the_middle(tmp_path: Path, database: str) -> None:
    async with run(tmp_path, tracking(database)) as tracked:
        first = await tracked.at_step(10)
        await has_written(database, 1, tracked)
        tracked.kill(first)
        second = await tracked.at_step(20, after=first)
        await has_written(database, tracked.rank_zero()[1], tracked)
        tracked.kill(second)
        await tracked.at_step(30, after=second)
        printed = await tracked.end()
    found, metrics = read(database)
    assert {name: sorted(step for step, _ in points) for name, points in metrics.items()} == dict.fromkeys(METRICS, ALL)
    assert [value * 2 for _, value in metrics["loss"]] == pytest.approx([value for _, value in metrics["twice"]])
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "test-job-uid"
    assert found.data.params["global_batch"] == "32"
    assert found.data.params["world_size"] == "2"
    assert "drivetrain: tracking" not in printed


async def test_what_stands_there_stays_where_a_job_goes_back(tmp_path: Path, database: str) -> None:
    async with run(tmp_path, tracking(database), workers=1, every=25) as tracked:
        first = await tracked.at_step(30)
        await has_written(database, 30, tracked)
        tracked.kill(first)
        await tracked.at_step(30, after=first)
        printed = await tracked.end()
    _, metrics = read(database)
    assert {name: sorted(step for step, _ in points) for name, points in metrics.items()} == dict.fromkeys(METRICS, ALL)
    begins = printed.split("resumed from ")[1].split(" at step ")[1].split()[0]
    assert f"those of before the job went back to step {begins} stay" in printed
    kept = [step for step, process in metrics["process"] if process == first]
    assert max(kept) > int(begins)


class Server:
    """A real one, which can be paused."""

    def __init__(self, uri: str, folder: Path, host: str) -> None:
        self.uri = f"http://{host}:5000"
        command = [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--backend-store-uri",
            uri,
            "--host",
            host,
            "--port",
            "5000",
        ]
        command += ["--allowed-hosts", f"{host}:5000"]
        command += ["--workers", "1", "--default-artifact-root", str(folder / "artifacts")]
        with (folder / "server.log").open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def answers(self) -> bool:
        """It is up."""
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def end(self) -> None:
        """With all that it started."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def host() -> Iterator[str]:
    network = reserve_network()
    yield f"{network.value}.1"
    network.release()


async def test_a_server_that_is_away_holds_up_nothing_and_gets_everything(
    tmp_path: Path, database: str, host: str
) -> None:
    async with run(tmp_path, tracking(f"http://{host}:5000"), SLOW="0.7") as tracked:
        await tracked.at_step(5)
        server = Server(database, tmp_path, host)
        try:
            await until_true(server.answers, lambda: (tmp_path / "server.log").read_text(), 60.0)
            await has_written(database, 5, tracked)
            tracked.kill(tracked.rank_zero()[0])
            printed = await tracked.end()
        finally:
            server.end()
    found, metrics = read(database)
    assert {name: sorted(step for step, _ in points) for name, points in metrics.items()} == dict.fromkeys(METRICS, ALL)
    assert found.info.status == "FINISHED"
    assert printed.count("MLflow failed, and is tried again; training goes on: ConnectionRefusedError") == 1
    assert printed.count("MLflow goes on at step") == 1
