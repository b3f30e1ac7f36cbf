"""Real operator, coordinator, launchers and ranks on the embedded plane: a job survives whatever is killed."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from drivetrain_cli.reasons import explain, state
from drivetrain_cli.table import parsed
from drivetrain_local.client import ApiFailure, Client
from drivetrain_local.daemon import Daemon
from drivetrain_local.up import Options, down, up
from harness.commands import ran
from harness.html import objections
from harness.html import parsed as parse_html
from harness.job import QUICK, ROOT
from harness.official import everything
from harness.patience import patiently

JOBS = "/apis/drivetrain.dev/v1alpha1/namespaces/default/trainingjobs"
PODS = "/api/v1/namespaces/default/pods"
EVENTS = "/api/v1/namespaces/default/events"
COMMANDS = {
    "drivetrain-operator": "drivetrain_operator.main",
    "drivetrain-coordinator": "drivetrain_coordinator.main",
    "drivetrain-launcher": "drivetrain.launch.main",
}
STEPS = 400
SCRIPT = """
import os, time, torch, drivetrain

class Data:
    def __len__(self): return 512
    def __getitem__(self, index):
        x = torch.tensor([index / 512.0, 1.0])
        return x, x.sum()

def forward(model, shard):
    x, y = shard
    if not os.path.exists(HURRY):
        time.sleep(0.3)  # the job lasts until the test has had its say, on a busy machine too
    return ((model(x).squeeze(-1) - y) ** 2).mean()

run = drivetrain.start(defaults={"global_batch": 16})
run.prepare(model=torch.nn.Linear(2, 1), optimizer=lambda p: torch.optim.SGD(p, 0.1), data=Data())
for batch in run.batches():
    run.log(loss=run.step(batch, forward).loss)
"""


@dataclass
class Plane:
    """An embedded plane with an operator on it."""

    state: Path
    client: Client
    options: Options

    @property
    def hurry(self) -> Path:
        """Where this file is, scripts run as fast as they can."""
        return self.state / "hurry"

    async def job(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = await self.client.get(f"{JOBS}/{name}")
        return found

    async def status(self, name: str) -> dict[str, Any]:
        return (await self.job(name)).get("status") or {}

    async def pod(self, name: str) -> str:
        """The whole name of the newest pod whose name begins so."""
        pods = (await self.client.get(PODS))["items"]
        return max(str(pod["metadata"]["name"]) for pod in pods if pod["metadata"]["name"].startswith(f"{name}-"))

    async def is_ready(self, name: str) -> bool:
        pod = await self.client.get(f"{PODS}/{await self.pod(name)}")
        return any(each["type"] == "Ready" and each["status"] == "True" for each in pod["status"]["conditions"])

    async def emptied(self) -> None:
        """Returns once no pod is left; 20 s at most."""
        async with patiently(20):
            while True:
                if not (await self.client.get(PODS))["items"]:
                    return
                await asyncio.sleep(0.1)

    async def create(self, name: str, script: str, /, **spec: Any) -> None:
        data = {"train.py": script.replace("HURRY", repr(str(self.hurry)))}
        config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}
        await self.client.post("/api/v1/namespaces/default/configmaps", config)
        given = {
            "image": "drivetrain-worker",
            "script": {"configMap": name, "key": "train.py"},
            "workers": 2,
            "training": {"steps": STEPS},
            "recovery": {"spares": 0},
        }
        body = {"apiVersion": "drivetrain.dev/v1alpha1", "kind": "TrainingJob", "metadata": {"name": name}}
        wanted = {field: value for field, value in {**given, **spec}.items() if value is not None}
        await self.client.post(JOBS, {**body, "spec": wanted})

    async def until(self, name: str, condition: Callable[[dict[str, Any]], bool], seconds: float = 60.0) -> None:
        try:
            async with patiently(seconds):
                while True:
                    if condition(await self.status(name)):
                        return
                    await asyncio.sleep(0.1)
        except TimeoutError:
            log = Daemon(self.state, "operator").log_tail(40)
            pytest.fail(f"not reached: {await self.status(name)}\n{log}")


@pytest.fixture
async def plane(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Plane]:
    pytest.importorskip("torch", exc_type=ImportError)
    commands = tmp_path / "bin"
    commands.mkdir()
    for command, module in COMMANDS.items():
        # As an installation would put them there; the tests run from the source tree.
        (commands / command).write_text(f'#!/bin/sh\nexec "{sys.executable}" -m {module} "$@"\n')
        (commands / command).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", f"{ROOT / 'operator'}:{ROOT / 'worker-image'}:{QUICK}")
    state = tmp_path / "plane"
    argv = [str(commands / "drivetrain-operator"), "--no-leader-election", "--allow-own-namespace"]
    argv += ["--log-format", "text"]
    options = Options(state=state, crds=[ROOT / "crds"], commands=[("operator", argv)])
    try:
        client = Client.from_kubeconfig(await up(options), user_agent="test")
        yield Plane(state, client, options)
        await client.close()
    finally:
        down(state)


async def reported(plane: Plane, name: str, what: str) -> str:
    """The job's page, once this is in it; 20 s at most."""
    async with patiently(20):
        while True:
            argv = [sys.executable, "-m", "drivetrain_cli", "report", name, "-o", "-"]
            argv += ["--kubeconfig", str(plane.state / "kubeconfig")]
            page = (await asyncio.to_thread(ran, argv, 30, dict(os.environ))).stdout
            if what in page:
                return page
            await asyncio.sleep(0.5)


def times(job: dict[str, Any]) -> dict[str, float]:
    """A job's time by category, which is all of it: to the second, with which the API server keeps times."""
    status = job["status"]
    ended = status.get("completionTime") or next(
        each["lastTransitionTime"] for each in status["conditions"] if each["type"] == "Suspended"
    )
    wall = (parsed(ended) - parsed(job["metadata"]["creationTimestamp"])).total_seconds()
    seconds: dict[str, float] = status["goodput"]["seconds"]
    assert -0.1 <= sum(seconds.values()) - wall <= 1.1, (seconds, wall)
    return seconds


async def test_a_job_trains_to_its_end_whatever_is_killed(plane: Plane) -> None:
    await plane.create("survivor", SCRIPT, elastic={"minWorkers": 1, "maxWorkers": 3})
    await plane.until("survivor", lambda status: bool(status.get("progress")))

    async with patiently(20):  # by its probe: it takes part
        while not await plane.is_ready("survivor-1-0"):
            await asyncio.sleep(0.5)

    # As on any cluster: what survivors hold in their memory cannot change, and every client can read what is there.
    with pytest.raises(ApiFailure, match=r"spec\.image cannot change once the job has started") as refused:
        await plane.client.patch(f"{JOBS}/survivor", {"spec": {"image": "another"}})
    assert (refused.value.code, refused.value.reason) == (422, "Invalid")
    served = await asyncio.to_thread(everything, plane.state / "kubeconfig")
    assert {name for name, items in served.items() if items} >= {
        "/pods",
        "/services",
        "/secrets",
        "/configmaps",
        "/events",
        "/nodes",
    }

    # The operator dies, and with nobody looking a worker's pod is deleted.
    operator = Daemon(plane.state, "operator").pid()
    os.kill(operator, signal.SIGKILL)
    await asyncio.to_thread(os.waitpid, operator, 0)  # later than `up` would look, on a busy machine
    await plane.client.delete(f"{PODS}/{await plane.pod('survivor-1-0')}", {"gracePeriodSeconds": 0})
    await up(plane.options)
    await plane.until("survivor", lambda status: status["workers"]["world"] == 2 and status["membership"]["epoch"] > 1)

    # The coordinator is lost: another one leads on, and nobody starts again.
    term = (await plane.status("survivor"))["membership"]["term"]
    await plane.client.delete(f"{PODS}/{await plane.pod(f'survivor-coordinator-{term}')}", {"gracePeriodSeconds": 0})
    await plane.until("survivor", lambda status: status["membership"]["term"] == term + 1)

    running = await reported(plane, "survivor", 'class="line c0"')
    assert objections(parse_html(running)) == []

    plane.hurry.touch()
    await plane.until("survivor", lambda status: status["phase"] in ("Succeeded", "Failed"), 90)
    status = await plane.status("survivor")
    assert (status["phase"], status["reason"]) == ("Succeeded", "Completed"), status
    assert (status["progress"]["step"], status["restarts"], status["attempt"]) == (STEPS, 0, 0)
    spent = times(await plane.job("survivor"))
    assert {"starting", "productive"} <= spent.keys(), spent
    assert not spent.keys() & {"queued", "suspended", "redone"}
    assert status["goodput"]["ratio"] == pytest.approx(spent["productive"] / sum(spent.values()), abs=0.001)
    used = status["energy"]["used"]
    wall = sum(spent.values())
    assert used["counted"]["term"] == term + 1
    assert 0.5 * (wall - spent["starting"]) < used["seconds"] <= wall + 2
    assert used["seconds"] < used["workerSeconds"] < 4 * used["seconds"]
    # There are no counters in most machines that tests run on; a worker uses some of a processor, and not all of them.
    watts = {source: joules / used["workerSeconds"] for source, joules in used["joules"]["cpu"].items()}
    assert all(0.05 < each < 3.5 * (os.cpu_count() or 1) for source, each in watts.items() if source == "model"), used
    assert not used.get("grams")
    assert used["why"]

    ended = await reported(plane, "survivor", "<td>Succeeded")
    assert objections(parse_html(ended)) == []
    for what in ("<td>departure</td>", "coordinator replaced (", "Loss as numbers", f"{STEPS} of {STEPS}"):
        assert what in ended, what

    await plane.client.delete(f"{JOBS}/survivor")
    with pytest.raises(ApiFailure):
        await plane.job("survivor")
    await plane.emptied()


async def test_a_script_that_raises_fails_the_job_with_its_traceback(plane: Plane) -> None:
    script = "raise RuntimeError('no such corpus')"
    await plane.create("broken", script, workers=1, recovery={"spares": 0, "maxRestarts": 1})
    await plane.until("broken", lambda status: status.get("phase") == "Failed")
    status = await plane.status("broken")
    assert status["restarts"] == 2
    assert any("no such corpus" in failure.get("logTail", "") for failure in status["failures"])


@pytest.mark.timeout(180)
async def test_a_job_that_stands_still_says_who_waits_for_whom_and_fails_when_it_may_not(plane: Plane) -> None:
    """The limit is set while the job runs, after the sentence was seen: no slow machine can hide either."""
    late = plane.state / "late"
    script = SCRIPT.replace("run.log(", f"batch.step == 9 and claimed({str(late)!r}) and time.sleep(1000); run.log(")
    late.touch()
    claimed = """
import pathlib
def claimed(path):
    try:
        return pathlib.Path(path).rename(path + ".claimed")
    except FileNotFoundError:  # by the other rank
        return None
"""
    script = claimed + script
    line = next(number for number, text in enumerate(script.splitlines(), 1) if "time.sleep(1000)" in text)
    await plane.create("late", script, recovery={"spares": 0, "maxRestarts": 0})
    await plane.until("late", lambda status: status.get("reason") == "StandingStill")
    said = "\n".join(explain(await plane.job("late"), [], [], None, datetime.now(UTC)))
    assert re.search(
        rf"at step 9: rank (\d) \(late-\1-0-[0-9a-f]{{5}} on \S+\) is at train.py:{line}.* waits for it", said
    ), said
    await plane.until("late", lambda status: bool(status.get("lateRanks")))
    (rank,) = (await plane.status("late"))["lateRanks"]
    assert rank["where"] == f"train.py:{line}"
    assert f'train.py", line {line}' in rank["stack"]
    assert "#" in rank["collective"]
    said = "\n".join(explain(await plane.job("late"), [], [], None, datetime.now(UTC)))
    assert f"rank {rank['rank']} ({rank['pod']} on {rank['node']}) train.py:{line}, {rank['collective']}:" in said

    await plane.client.patch(f"{JOBS}/late", {"spec": {"recovery": {"noProgressSeconds": 5}}})
    await plane.until("late", lambda status: status.get("phase") == "Failed")
    status = await plane.status("late")
    (failure,) = status["failures"]
    reasons = [event["reason"] for event in (await plane.client.get(EVENTS))["items"]]
    assert reasons.count("RankLate") == 1
    assert (status["reason"], failure["reason"]) == ("NoProgress", "NoProgress")
    assert f'train.py", line {line}' in failure["logTail"]


async def test_what_is_lost_with_its_coordinator_is_told_all_the_same(plane: Plane) -> None:
    """One node held both. Then the job rests, and says how far it was."""
    await plane.create("both", SCRIPT, elastic={"minWorkers": 1, "maxWorkers": 3})
    # So many that a coordinator, which looks once a second, sees them made anew.
    await plane.until("both", lambda status: ((status.get("progress") or {}).get("step") or 0) >= 10)
    names = [await plane.pod("both-1-0"), await plane.pod("both-coordinator-1")]
    await asyncio.gather(*(plane.client.delete(f"{PODS}/{name}", {"gracePeriodSeconds": 0}) for name in names))
    await plane.until("both", lambda status: status["membership"]["term"] == 2 and status.get("recoveries", 0) > 0)
    status = await plane.status("both")
    assert (status["recoveries"], status.get("lastRecoverySeconds"), status["attempt"]) == (1, None, 0)
    (taken,) = status["departures"]
    assert (taken["reason"] in ("Deleted", "Gone"), taken["pods"][0]["name"]) == (True, names[0])
    assert taken["pods"][0]["node"]
    reasons = [event["reason"] for event in (await plane.client.get(EVENTS))["items"]]
    assert reasons.count("Recovered") == reasons.count(taken["reason"]) == 1

    await plane.client.patch(f"{JOBS}/both", {"spec": {"suspend": True}})
    await plane.until("both", lambda status: status.get("phase") == "Suspended")
    progress = (await plane.status("both"))["progress"]
    assert progress["step"] >= status["progress"]["step"] > 0
    assert f"it was at step {progress['step']} of {STEPS}" in (await plane.status("both"))["message"]
    spent = times(await plane.job("both"))
    assert {"productive", "recovering"} <= spent.keys()

    # Resumed it makes anew what it had made, and rests again.
    await plane.client.patch(f"{JOBS}/both", {"spec": {"suspend": False}})
    await plane.until("both", lambda status: _seconds(status, "redone") > 0)
    await plane.client.patch(f"{JOBS}/both", {"spec": {"suspend": True}})
    await plane.until("both", lambda status: status.get("phase") == "Suspended")
    again = times(await plane.job("both"))
    assert again["suspended"] > 0
    assert again["redone"] > 0
    assert all(again[name] >= seconds for name, seconds in spent.items())


def _seconds(status: dict[str, Any], category: str) -> float:
    """Of status.goodput: written with the next thing that is."""
    found: float = ((status.get("goodput") or {}).get("seconds") or {}).get(category, 0.0)
    return found


async def test_a_stock_script_is_found_out_and_survives_a_kill_in_its_pods(plane: Plane, tmp_path: Path) -> None:
    """It never calls drivetrain.start(), so nobody knows of its steps."""
    (tmp_path / "slow").touch()
    values = {"FOLDER": str(tmp_path), "OMP_NUM_THREADS": "1", "TORCHDYNAMO_DISABLE": "1"}
    worker = {"name": "worker", "env": [{"name": name, "value": value} for name, value in values.items()]}
    template = {"spec": {"containers": [worker]}}
    script = (Path(__file__).parent / "processes" / "stock.py").read_text()
    await plane.create("stock", script, training={}, podTemplate=template, recovery={"spares": 1})
    await plane.until("stock", lambda status: status.get("phase") == "Running")
    pods = {await plane.pod("stock-0"), await plane.pod("stock-1")}
    await plane.until("stock", lambda status: (tmp_path / "checkpoint.pt").exists())
    status = await plane.status("stock")
    assert (status["workers"]["ready"], status["workers"]["world"], status.get("progress")) == (2, 2, None)
    said = explain(await plane.job("stock"), [], [], None, datetime.now(UTC))[0]
    assert said == "stock is Running, 2 of 2 workers ready, world size 2, membership 1.1."

    os.kill(int((tmp_path / "pid-1").read_text()), signal.SIGKILL)
    await plane.until("stock", lambda status: status["restarts"] == 1 and status["membership"]["epoch"] == 2)
    (tmp_path / "slow").unlink()
    await plane.until("stock", lambda status: status["phase"] in ("Succeeded", "Failed"))
    status = await plane.status("stock")
    assert (status["phase"], status["restarts"], status["attempt"], status.get("progress")) == ("Succeeded", 1, 0, None)
    assert [(failure["reason"], failure["signal"]) for failure in status["failures"]] == [("ProcessKilled", 9)]
    assert {await plane.pod("stock-0"), await plane.pod("stock-1")} == pods
    assert "StateLost" not in [condition["type"] for condition in status["conditions"]]
    assert state(await plane.job("stock")) == "stock is Succeeded"
    spent = times(await plane.job("stock"))
    assert ("productive" in spent, "recovering" in spent, spent["other"] > 0) == (False, True, True)
    assert "ratio" not in status["goodput"]


async def test_an_option_of_torchrun_that_cannot_be_had_fails_the_job_by_name(plane: Plane) -> None:
    command = ["python", "-m", "torch.distributed.run", "--log-dir", "logs", "train.py"]
    await plane.create("options", "", script=None, command=command, training={}, workers=1)
    await plane.until("options", lambda status: status.get("phase") == "Failed")
    status = await plane.status("options")
    assert (status["reason"], status["restarts"]) == ("CommandNotFound", 1)
    assert "torchrun --log-dir is not supported in spec.command" in status["message"]


STOCK = """
import os, pathlib, torch
import torch.distributed as dist
dist.init_process_group("gloo")
out = pathlib.Path(os.environ["DRIVETRAIN_OUTPUT_DIR"])
total = torch.ones(1000) * (dist.get_rank() + 1)
dist.all_reduce(total)
if dist.get_rank() == 0:
    torch.save({"total": total}, out / "model.pt")
    print("sha256", __import__("hashlib").sha256((out / "model.pt").read_bytes()).hexdigest(), flush=True)
dist.barrier()
"""


def got(plane: Plane, *words: str) -> subprocess.CompletedProcess[str]:
    """`drivetrain get`, as a person has it."""
    environment = {**os.environ, "KUBECONFIG": str(plane.state / "kubeconfig")}
    return ran([sys.executable, "-m", "drivetrain_cli", "get", *words], 60, environment)


async def test_a_stock_script_leaves_its_model_in_a_claim_and_get_brings_it(plane: Plane, tmp_path: Path) -> None:
    claim = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    claims = "/api/v1/namespaces/default/persistentvolumeclaims"
    await plane.client.post(claims, {"metadata": {"name": "shared"}, "spec": claim})
    await plane.create("stock", STOCK, training=None, storage={"persistentVolumeClaim": "shared"})
    await plane.until("stock", lambda status: status.get("phase") in ("Succeeded", "Failed"), 90)
    assert (await plane.status("stock"))["phase"] == "Succeeded"

    listed = await asyncio.to_thread(got, plane, "stock:", "-o", "json")
    assert [each["name"] for each in json.loads(listed.stdout)["files"]] == ["model.pt"], listed.stdout + listed.stderr
    brought = await asyncio.to_thread(got, plane, "stock:model.pt", str(tmp_path / "mine.pt"))
    assert brought.returncode == 0, brought.stdout + brought.stderr
    log = [text for path in plane.state.rglob("*.log") for text in re.findall(r"sha256 (\w{64})", path.read_text())]
    assert log == [hashlib.sha256((tmp_path / "mine.pt").read_bytes()).hexdigest()]
    refused = await asyncio.to_thread(got, plane, "stock:modle.pt")
    assert (refused.returncode, "near it: model.pt" in refused.stderr) == (2, True)

    await plane.client.delete(f"{JOBS}/stock")
    await plane.emptied()
    kept = list((plane.state / "volumes").rglob("model.pt"))
    assert [hashlib.sha256(path.read_bytes()).hexdigest() for path in kept] == log
