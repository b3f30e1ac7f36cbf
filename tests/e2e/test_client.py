"""Does the Python client work as a notebook uses it: a function, trained by real processes, one of which dies?"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import drivetrain
from drivetrain.client import Client, LogLine
from drivetrain_cli import plane
from drivetrain_local.client import Client as Api
from harness.patience import until

STEPS = 120


class Data:
    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.tensor([index / 64.0]), torch.tensor([1.0])


def train(rate: float, pause: float) -> None:
    run = drivetrain.start(defaults={"steps": STEPS, "global_batch": 8})
    run.prepare(model=torch.nn.Linear(1, 1), optimizer=lambda p: torch.optim.SGD(p, rate), data=Data())
    for batch in run.batches():
        run.step(batch, lambda model, shard: ((model(shard[0]) - shard[1]) ** 2).mean())
        time.sleep(pause)
    print(f"trained {run.step_number} steps", flush=True)


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with Client(state=tmp_path / "plane", start=True) as found:
        yield found
    plane.stop(tmp_path / "plane")


@pytest.mark.timeout(400)
def test_a_function_is_trained_and_its_logs_outlive_a_pod(client: Client, tmp_path: Path) -> None:
    arguments = {"rate": 0.05, "pause": 0.15}
    flags = ["--spares", "0"]
    job = client.submit(train, arguments=arguments, name="fn", workers=2, elastic=(1, 2), flags=flags)
    lines: list[LogLine] = []
    reading = threading.Thread(target=lambda: lines.extend(client.logs(job)), name="reading")
    reading.start()
    running = client.wait(job, phases=("Running",), timeout=120)
    until(lambda: (client.get(job).step or 0) > 0, "a step is told", 60, 0.3)
    victim = f"fn-1-0-{running.uid[:5]}"

    async def killed() -> None:
        api = Api.from_kubeconfig(tmp_path / "plane" / "kubeconfig", user_agent="test")
        await api.delete(f"/api/v1/namespaces/default/pods/{victim}", {"gracePeriodSeconds": 0})
        await api.close()

    client._loop.run(killed())
    done = client.wait(job, timeout=240)
    reading.join(60)
    assert (done.step, done.steps) == (STEPS, STEPS)
    pods = {line.pod for line in lines}
    assert {f"fn-0-0-{job.uid[:5]}", victim, f"fn-1-1-{job.uid[:5]}"} <= pods
    trained = [line for line in lines if line.text == f"trained {STEPS} steps"]
    assert sorted(str(line) for line in trained) == [f"[rank {rank}] trained {STEPS} steps" for rank in range(2)]
    assert {"Training", "Completed"} <= {event.reason for event in client.events(job)}
    client.delete(job, wait=True)
    assert client.list() == []
