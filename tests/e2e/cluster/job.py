"""A TrainingJob under test: what Kubernetes says of it, what its ledger says, and its processes on this machine."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bench.ledger import Ledger
from cluster.errors import CommandFailed
from cluster.faults import pod_processes
from cluster.kubectl import get, kubectl
from cluster.processes import Process, describe, kill
from e2e.cluster.ledgers import ledgers
from harness.job import QUICK as QUICK_START
from harness.patience import Patience

SCRIPT = Path(__file__).with_name("train.py")
BATCH, SAMPLES = 48, 4800
IMAGE = "drivetrain-worker"
_LEDGER_SECONDS = 0.02
_PROCESSES_SECONDS = 0.2
_ASK_SECONDS = 0.4

QUICK = [
    *("python", "-c"),
    """
import torch, drivetrain
run = drivetrain.start()
model = torch.nn.Linear(4, 1)
data = torch.utils.data.TensorDataset(torch.randn(480, 4), torch.randn(480, 1))
run.prepare(model=model, optimizer=lambda p: torch.optim.SGD(p, 0.01), data=data)
for batch in run.batches():
    run.step(batch, lambda model, shard: (model(shard[0]) - shard[1]).square().mean())
run.finish()
""",
]
"""The command of a job that trains in a moment."""
NO_SPARES = {"spares": 0}
"""Of jobs that are only looked at while something else happens: half as many processes have to start."""


def script_text() -> str:
    """The test's own, as its ranks run it: they start in half the time, without torch's compiler (harness/quick). Jobs
    of other scripts start as for a user."""
    before, torch, after = SCRIPT.read_text().partition("\nimport torch\n")
    assert torch, f"{SCRIPT} imports torch elsewhere"
    return "\n".join((before, (QUICK_START / "sitecustomize.py").read_text(), torch, after))


@dataclass(frozen=True)
class Member:
    """A rank that trains: the pod that it is in, and its process as this machine sees it."""

    rank: int
    pod_uid: str
    process: Process

    def alive(self) -> bool:
        """The very same process still runs."""
        now = describe(self.process.pid)
        return now is not None and now.started == self.process.started


@dataclass
class Job:
    """One TrainingJob in one namespace."""

    namespace: str
    name: str
    folder: Path
    steps: int = 600
    uid: str = ""
    ledger: Ledger = field(init=False)

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.folder)

    def apply(self, spec: Mapping[str, Any], *, script: bool = True, pace: float = 0.1, save_every: int = 0) -> None:
        """`kubectl apply` it; with `script`, it runs the test's own script and keeps a ledger."""
        given: dict[str, Any] = {"image": IMAGE, **spec}
        given["training"] = {"steps": self.steps, "batch": {"global": BATCH}, **given.get("training", {})}
        objects: list[dict[str, Any]] = []
        if script:
            given["script"] = {"configMap": self.name, "key": "train.py"}
            template = given.setdefault("podTemplate", {}).setdefault("spec", {})
            environment = {"PACE": pace, "SAVE_EVERY": save_every, "OMP_NUM_THREADS": 1}
            variables = [{"name": name, "value": str(value)} for name, value in environment.items()]
            template["containers"] = [{"name": "worker", "env": variables}]
            data = {"train.py": script_text()}
            objects.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": self._metadata(), "data": data})
        objects.append(
            {
                "apiVersion": "drivetrain.dev/v1alpha1",
                "kind": "TrainingJob",
                "metadata": self._metadata(),
                "spec": given,
            }
        )
        kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
        self.uid = str(self.get()["metadata"]["uid"])

    def get(self) -> dict[str, Any]:
        """The TrainingJob."""
        return get("trainingjob", self.name, "--namespace", self.namespace)

    def status(self) -> dict[str, Any]:
        """Its status; empty at first."""
        return self.get().get("status") or {}

    def condition(self, kind: str) -> dict[str, Any]:
        """One condition; empty if there is none."""
        found = [each for each in self.status().get("conditions", []) if each["type"] == kind]
        return found[0] if found else {}

    def pods(self, role: str = "worker") -> list[dict[str, Any]]:
        """Its pods of a role, by name."""
        selector = f"drivetrain.dev/job-uid={self.uid},drivetrain.dev/role={role}"
        items: list[dict[str, Any]] = get("pods", "--namespace", self.namespace, "--selector", selector)["items"]
        return sorted(items, key=lambda pod: str(pod["metadata"]["name"]))

    def coordinator(self) -> dict[str, Any]:
        """Its newest coordinator's pod."""
        term = self.status()["membership"]["term"]
        return next(
            pod for pod in self.pods("coordinator") if pod["metadata"]["labels"]["drivetrain.dev/term"] == str(term)
        )

    def pod_of(self, member: Member) -> dict[str, Any]:
        """The pod that a member is in."""
        return next(pod for pod in self.pods() if pod["metadata"]["uid"] == member.pod_uid)

    def until(self, what: str, true: Callable[[dict[str, Any]], bool], seconds: float) -> dict[str, Any]:
        """Wait until its status satisfies `true`, and return that status."""
        patience = Patience(seconds)
        status = self.status()
        while not true(status):
            if not patience.left():
                pytest.fail(f"{what}: {patience}\n{self.describe()}")
            time.sleep(_ASK_SECONDS)
            status = self.status()
        return status

    def until_ledger(self, what: str, true: Callable[[], bool], seconds: float, every: float = _LEDGER_SECONDS) -> None:
        """Wait until the ledger satisfies `true`."""
        patience = Patience(seconds)
        while True:
            self.ledger.read()
            if true():
                return
            if not patience.left():
                pytest.fail(f"{what}: {patience}\n{self.describe()}")
            time.sleep(every)

    def members(self) -> list[Member]:
        """The ranks of the newest membership that has finished a step; empty while one of them is dead."""
        self.ledger.read()
        return _all_of(self.ledger.members(), self._processes())

    def settled(self, world: int, *, spares: int = 1, seconds: float = 120) -> list[Member]:
        """Wait until `world` members train, and there is a warm spare for each of their seats; returns the members."""
        members: list[Member] = []

        def is_so() -> bool:
            nonlocal members
            seats = self.ledger.members()
            if len(seats) != world or len(self.ledger.ready) < world * (1 + spares):
                return False
            processes = self._processes()
            members = _all_of(seats, processes)
            warm = [who for who in self.ledger.ready if str(who) in processes]
            return len(members) == world and len(warm) >= world * (1 + spares)

        self.until_ledger(f"{world} members with {spares} spares each", is_so, seconds, _PROCESSES_SECONDS)
        return members

    def newest_membership(self) -> tuple[int, int]:
        """The highest membership that has finished a step."""
        self.ledger.read()
        return max((each.membership for each in self.ledger.steps), default=(0, 0))

    def next_common_step(self, at: float, membership: tuple[int, int], seconds: float) -> float:
        """Seconds from `at` to the first step that all members of a membership above `membership` have finished."""
        self.until_ledger(
            f"the next step of all after membership {membership}",
            lambda: self.ledger.first_common_step_after(at, membership) is not None,
            seconds,
        )
        found = self.ledger.first_common_step_after(at, membership)
        assert found is not None
        return found[0] - at

    def completes(self, seconds: float = 120) -> dict[str, Any]:
        """Let it run as fast as it can; it must end Succeeded."""
        patience = Patience(seconds)
        while (status := self.status()).get("phase") not in ("Succeeded", "Failed"):
            if not patience.left():
                pytest.fail(f"the job's end: {patience}\n{self.describe()}")
            with suppress(FileNotFoundError):  # a pod went in this very moment
                self.hurry()
            time.sleep(_ASK_SECONDS)
        assert (status["phase"], status["reason"]) == ("Succeeded", "Completed"), self.describe()
        return status

    def succeeds(self, seconds: float = 120) -> dict[str, Any]:
        """The same, with every sample used exactly once a pass, and all members with the same state."""
        status = self.completes(seconds)
        self.ledger.read()
        assert self.ledger.lost_samples(self.steps, BATCH, SAMPLES) == []
        hashes = {each["sha256"] for each in self.ledger.ends}
        assert len(hashes) == 1, f"members end with different states: {self.ledger.ends}"
        return status

    def hurry(self) -> None:
        """No more waiting in each step."""
        for folder in {ledger.parent for ledger in ledgers(self.uid)}:
            if not (folder / "pace").exists():
                whole = folder / "pace.new"
                whole.write_text("0")
                whole.rename(folder / "pace")

    def describe(self) -> str:
        """What a person would look at, for a failed test's message."""
        words = [["get", "pods", "-o", "wide"], ["describe", "trainingjob", self.name]]
        words += [["logs", "--tail=15", "--prefix", "--selector", f"drivetrain.dev/job-uid={self.uid}"]]
        told = []
        for each in words:
            try:
                told.append(kubectl(*each, "--namespace", self.namespace, timeout=20))
            except CommandFailed as error:
                told.append(str(error))
        return "\n".join(told)

    def _metadata(self) -> dict[str, str]:
        return {"name": self.name, "namespace": self.namespace}

    def _processes(self) -> dict[str, Process]:
        """Its living rank processes, by the names that they have in the ledger: POD-UID/PID."""
        found = {}
        for uid in {str(who).partition("/")[0] for who in self.ledger.ready}:
            for process in pod_processes(uid, SCRIPT.name):
                with suppress(FileNotFoundError, ProcessLookupError):  # it ended since it was listed
                    status = Path(f"/proc/{process.pid}/status").read_text().splitlines()
                    pids = next(line for line in status if line.startswith("NSpid:")).split()
                    found[f"{uid}/{pids[-1]}"] = process
        return found


def _all_of(seats: Mapping[int, object], processes: Mapping[str, Process]) -> list[Member]:
    """The members in these seats; none at all while one of them is dead."""
    names = {rank: str(who) for rank, who in sorted(seats.items())}
    if not all(who in processes for who in names.values()):
        return []
    return [Member(rank, who.partition("/")[0], processes[who]) for rank, who in names.items()]


def strike(member: Member) -> float:
    """SIGKILL a rank's process; returns when, on the clock of the ledger."""
    at = time.time()
    assert kill(member.process), f"{member} was dead already"
    return at


def wait_until(seconds: float, what: str, true: Callable[[], bool]) -> None:
    """Wait for anything; the test fails if it does not come."""
    patience = Patience(seconds)
    while not true():
        if not patience.left():
            pytest.fail(f"{what}: {patience}")
        time.sleep(_ASK_SECONDS)
