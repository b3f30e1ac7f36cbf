"""What do the calls of the Python client do, and raise? Against the embedded API server, without an operator."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from drivetrain.client import (
    AsyncClient,
    Client,
    ClientError,
    Job,
    JobFailed,
    JobNotFound,
    NoCluster,
    UsageError,
    WaitTimeout,
)
from harness.patience import until
from harness.served import Served, served
from unit.api.cases import job

ROOT = Path(__file__).parents[3]
SINCE = "2026-01-01T00:00:00Z"
RUNNING = {"phase": "Running", "progress": {"step": 3, "steps": 9}, "workers": {"ready": 1}}
DONE = {"phase": "Succeeded", "conditions": [
    {"type": "Complete", "status": "True", "reason": "Completed", "lastTransitionTime": SINCE}]}  # fmt: skip
FAILED = {
    "phase": "Failed",
    "reason": "ScriptError",
    "message": "ValueError: bad",
    "failures": [
        {"time": SINCE, "reason": "ScriptError", "pod": "lm-0-0", "rank": 1, "logTail": "one\nValueError: bad"}
    ],
    "conditions": [{"type": "Failed", "status": "True", "reason": "ScriptError", "lastTransitionTime": SINCE}],
}
STEPS = 7


def train(rate: float) -> None:
    print(rate, STEPS)


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path) as found:
        yield found


@pytest.fixture
def client(api: Served) -> Iterator[Client]:
    with Client(kubeconfig=api.kubeconfig) as found:
        yield found


def test_a_script_is_submitted_as_drivetrain_run_does(api: Served, client: Client, tmp_path: Path) -> None:
    (tmp_path / "fit.py").write_text("import net\n")
    (tmp_path / "net.py").write_text("")
    made = client.submit(
        tmp_path / "fit.py",
        arguments=["--lr", "1"],
        name="fit",
        workers=2,
        elastic=(1, 4),
        env={"A": "b=c"},
        training={"steps": 9, "batch": {"global": 8}},
        flags=["--seed", "5", "--memory", "1Gi"],
    )
    assert (made.name, made.namespace, made.phase, made.workers) == ("fit", "default", "New", 2)
    spec = api.job("fit")["spec"]
    assert spec["elastic"] == {"minWorkers": 1, "maxWorkers": 4}
    assert spec["training"]["steps"] == 9
    assert (spec["training"]["seed"], spec["training"]["batch"]["global"]) == (5, 8)
    assert spec["command"][-2:] == ["--lr", "1"]
    worker = spec["podTemplate"]["spec"]["containers"][0]
    assert {"name": "A", "value": "b=c"} in worker["env"]
    assert worker["resources"]["limits"]["memory"] == "1Gi"
    config_map = api.get("/api/v1/namespaces/default/configmaps/fit-script")
    assert sorted(config_map["data"]) == ["fit.py", "net.py"]
    assert config_map["metadata"]["ownerReferences"][0]["uid"] == made.uid


def test_a_function_is_submitted_by_its_source(api: Served, client: Client) -> None:
    made = client.submit(train, arguments={"rate": 0.1})
    assert made.name.startswith("train-")
    text = api.get(f"/api/v1/namespaces/default/configmaps/{made.name}-script")["data"]["train.py"]
    assert "STEPS = 7" in text
    assert text.endswith('if __name__ == "__main__":\n    train(rate=0.1)\n')


@pytest.mark.parametrize(
    ("call", "why"),
    [
        (lambda it, here: it.submit(here / "none.py"), "none.py"),
        (lambda it, here: it.submit(train, arguments=["0.1"]), "of a function they are a dict"),
        (lambda it, here: it.submit(here / "a.py", arguments={"a": 1}), "of a script they are a list"),
        (lambda it, here: it.submit(train, arguments={"rate": 1}, workers=0), "--workers"),
        (lambda it, here: it.submit(train, arguments={"rate": 1}, elastic=(3, 2)), "--elastic"),
        (lambda it, here: it.submit(train, arguments={"rate": 1}, training={"steps": -1}), "--steps"),
        (lambda it, here: it.submit(train, arguments={"rate": 1}, flags=["--no-such"]), "--no-such"),
        (lambda it, here: it.submit(train, arguments={"rate": 1}, flags=["--dry-run"]), "--dry-run"),
        (lambda it, here: it.submit(lambda: None), "a lambda"),
        (lambda it, here: it.submit(3), "neither a path nor a function"),
        (lambda it, here: it.submit(train, arguments={"rate": 1}, name="there"), "there already"),
    ],
)
def test_what_cannot_be_submitted_is_named_and_leaves_nothing(
    api: Served, client: Client, tmp_path: Path, call: Callable[[Any, Path], object], why: str
) -> None:
    api.put(job("there"))
    with pytest.raises(UsageError) as error:
        call(client, tmp_path)
    assert why in str(error.value)
    assert [each.name for each in client.list()] == ["there"]
    assert api.get("/api/v1/namespaces/default/configmaps")["items"] == []


def test_get_list_and_delete(api: Served, client: Client) -> None:
    api.put(job("lm", RUNNING))
    api.put(job("words", FAILED))
    found = client.get("lm")
    assert (found.phase, found.step, found.steps, found.ready, found.finished) == ("Running", 3, 9, 1, False)
    assert [(each.name, each.finished) for each in client.list(all_namespaces=True)] == [("lm", False), ("words", True)]
    assert "TrainingJob default/lm" in client.describe(found)
    assert "ScriptError" in client.why("words")
    client.delete(found, wait=True)
    with pytest.raises(JobNotFound, match="no TrainingJob 'lm'"):
        client.get(found)
    with pytest.raises(JobNotFound, match="did you mean words"):
        client.delete("word")


def test_scale_suspend_and_resume(api: Served, client: Client) -> None:
    api.put(job("lm", RUNNING, workers=2, elastic={"minWorkers": 1, "maxWorkers": 3}))
    assert client.scale("lm", 3).workers == 3
    with pytest.raises(UsageError, match=r"spec\.elastic\.maxWorkers of lm"):
        client.scale("lm", 4)
    with pytest.raises(WaitTimeout, match="coming to rest"):
        client.suspend("lm", timeout=0.1)
    assert api.job("lm")["spec"]["suspend"] is True
    api.say("lm", {"phase": "Suspended"})
    assert client.suspend("lm").phase == "Suspended"
    api.say("lm", {"phase": "Pending"})
    assert client.resume("lm").phase == "Pending"
    assert not api.job("lm")["spec"].get("suspend")


@pytest.mark.parametrize(
    ("status", "phases", "raised"),
    [
        (DONE, ("Succeeded",), None),
        (FAILED, ("Succeeded", "Failed"), None),
        (RUNNING, ("Running",), None),
        (FAILED, ("Succeeded",), JobFailed),
        (DONE, ("Running",), JobFailed),
        (RUNNING, ("Succeeded",), WaitTimeout),
    ],
)
def test_wait(
    api: Served, client: Client, status: dict[str, Any], phases: tuple[str, ...], raised: type[Exception] | None
) -> None:
    api.put(job("lm", status))
    seen: list[Job] = []
    if raised is None:
        assert client.wait("lm", phases=phases, timeout=5, on_change=seen.append).phase == status["phase"]
        assert [each.phase for each in seen] == [status["phase"]]
    else:
        with pytest.raises(raised) as error:
            client.wait("lm", phases=phases, timeout=0.1)
        assert isinstance(error.value, ClientError)
        assert "lm" in str(error.value)


def test_a_wait_sees_changes_and_the_end(api: Served, client: Client) -> None:
    api.put(job("lm", {"phase": "Pending"}))
    seen: list[str] = []

    def change(now: Job) -> None:
        seen.append(now.phase)
        following: dict[str, dict[str, Any]] = {"Pending": RUNNING, "Running": DONE}
        if now.phase in following:
            api.say("lm", following[now.phase])

    assert client.wait("lm", on_change=change).succeeded
    assert seen == ["Pending", "Running", "Succeeded"]


def test_a_job_that_is_deleted_meanwhile_has_failed(api: Served, client: Client) -> None:
    api.put(job("lm", RUNNING))
    with pytest.raises(JobFailed, match="was deleted"):
        client.wait("lm", on_change=lambda it: Client(kubeconfig=api.kubeconfig).delete(it))


async def test_cancelling_ends_an_asynchronous_wait(api: Served) -> None:
    api.put(job("lm", RUNNING))
    async with AsyncClient(kubeconfig=api.kubeconfig) as client:
        waiting = asyncio.create_task(client.wait("lm"))
        await asyncio.sleep(0.2)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert (await client.get("lm")).phase == "Running"  # nothing happened to the job, or to the client


def test_the_same_client_from_several_threads(api: Served, client: Client) -> None:
    api.put(job("lm", RUNNING))
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(client.get("lm").phase)) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert found == ["Running"] * 8


def test_logs_of_a_job_whose_pods_are_gone_are_what_status_keeps(api: Served, client: Client) -> None:
    api.put(job("lm", FAILED))
    lines = list(client.logs("lm"))
    assert [(each.rank, each.text, str(each)) for each in lines] == [
        (1, "one", "[rank 1] one"),
        (1, "ValueError: bad", "[rank 1] ValueError: bad"),
    ]
    with pytest.raises(JobNotFound):
        next(client.logs("nobody"))


def test_leaving_a_loop_over_logs_ends_what_runs(api: Served) -> None:
    api.put(job("lm", RUNNING))
    client = Client(kubeconfig=api.kubeconfig)
    lines = client.logs("lm")
    reader = threading.Thread(target=lambda: next(lines, None), daemon=True)
    reader.start()
    time.sleep(0.3)
    api.say("lm", DONE)  # without an operator there are no pods: the loop ends with the job
    until(lambda: not reader.is_alive(), "the end of the lines", 15)
    client.close()
    until(lambda: not any(t.name == "drivetrain-client" for t in threading.enumerate()), "no thread is left", 10)


def test_events(api: Served, client: Client) -> None:
    uid = api.put(job("lm", RUNNING))["metadata"]["uid"]
    body = {
        "metadata": {"name": "a"},
        "involvedObject": {"kind": "TrainingJob", "name": "lm", "uid": uid, "namespace": "default"},
        "type": "Warning",
        "reason": "Recovered",
        "message": "it did",
        "lastTimestamp": SINCE,
        "count": 3,
    }
    api.post("/api/v1/namespaces/default/events", body)
    (found,) = client.events("lm")
    assert (found.reason, found.about, found.count, found.message) == ("Recovered", "trainingjob/lm", 3, "it did")


def test_no_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with Client(state=tmp_path) as client, pytest.raises(NoCluster, match="no cluster is configured"):
        client.list()


def test_it_needs_no_torch_and_leaves_nothing_at_the_end(api: Served) -> None:
    """Of a program that never closes its client."""
    program = (
        f"import sys; from drivetrain.client import Client; client = Client(kubeconfig={str(api.kubeconfig)!r}); "
        "print(client.list(), 'torch' in sys.modules)"
    )
    path = f"{ROOT / 'operator'}:{ROOT / 'worker-image'}"
    argv = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(
        argv, env={"PYTHONPATH": path, "PATH": "/usr/bin"}, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "[] False", "")


def test_a_worker_image_says_what_is_missing(tmp_path: Path) -> None:
    """It has the packages of worker-image/ and no client's."""
    argv = [sys.executable, "-c", "import drivetrain, drivetrain.client"]
    path = f"{ROOT / 'worker-image'}"
    done = subprocess.run(
        argv, env={"PYTHONPATH": path, "PATH": "/usr/bin"}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "ImportError: drivetrain.client needs drivetrain_client, which worker images do not have" in done.stderr
