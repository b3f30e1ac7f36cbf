"""Everything around the operator that a test needs: time, nodes that run pods, and coordinators that report.

Deterministic and without threads: `World.step` does once what scheduler, kubelets and coordinators would do by now. The
API server is the embedded one, over HTTP.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp

from drivetrain_api.constants import (
    API_VERSION,
    KIND,
    LABEL_ROLE,
    LABEL_TERM,
    PLURAL,
    ROLE_COORDINATOR,
    ROLE_WORKER,
)
from drivetrain_api.messages import EpochId, Progress
from drivetrain_api.report import (
    JobState,
    MemberReport,
    Report,
    Roster,
)
from drivetrain_local.apiserver import ApiServer
from drivetrain_operator.clock import SystemClock, Timer
from drivetrain_operator.render import names

Obj = dict[str, Any]
NAMESPACE = "default"
JOBS = f"drivetrain.dev/{PLURAL}"


class JumpClock(SystemClock):
    """Real time, plus what the test skipped."""

    def __init__(self) -> None:
        self.skipped = 0.0

    def skip(self, seconds: float) -> None:
        self.skipped += seconds

    def monotonic(self) -> float:
        return super().monotonic() + self.skipped

    def now(self) -> datetime:
        return super().now() + timedelta(seconds=self.skipped)

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        return super().call_later(seconds, callback)


def a_job(name: str = "charlm", **spec: Any) -> Obj:
    """A TrainingJob of two workers."""
    given = {"image": "drivetrain-worker", "command": ["python", "train.py"], "workers": 2}
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {**given, **spec},
    }


class World:
    """The cluster around one operator."""

    def __init__(self, api: ApiServer, http: aiohttp.ClientSession, clock: JumpClock) -> None:
        self.api = api
        self.http = http
        self.clock = clock
        self.steps_done = 0
        self.finished = False
        self.silent = False
        """No coordinator reports."""
        self.closing: list[Callable[[], Awaitable[None]]] = []
        """What the fixture closes at the end."""
        self._seq = 0

    # -- what is there -----------------------------------------------------------------------------------------------

    def job(self, name: str = "charlm") -> Obj:
        found = self.api.store.get(JOBS, NAMESPACE, name)
        assert found is not None, f"no job {name}"
        return found

    def status(self, name: str = "charlm") -> Obj:
        found: Obj = self.job(name).get("status") or {}
        return found

    def all(self, storage: str) -> list[Obj]:
        return self.api.store.all(storage, NAMESPACE)

    def children(self) -> list[Obj]:
        """Of all jobs."""
        kinds = ["pods", "services", "secrets", "configmaps", "policy/poddisruptionbudgets"]
        kinds.append("networking.k8s.io/networkpolicies")
        return [obj for kind in kinds for obj in self.all(kind) if LABEL_ROLE in (obj["metadata"].get("labels") or {})]

    def pods(self, role: str | None = None, *, live: bool = False) -> list[Obj]:
        found = [pod for pod in self.all("pods") if role in (None, pod["metadata"]["labels"].get(LABEL_ROLE))]
        if live:
            found = [pod for pod in found if not _over(pod) and not pod["metadata"].get("deletionTimestamp")]
        return sorted(found, key=lambda pod: str(pod["metadata"]["name"]))

    def names(self, role: str | None = None, *, live: bool = False) -> list[str]:
        """Without the piece of the job's uid at the end: charlm-0-0."""
        return [_short(pod) for pod in self.pods(role, live=live)]

    # -- what people and machines do ---------------------------------------------------------------------------------

    async def request(self, method: str, path: str, body: Obj | None = None, content: str = "application/json") -> Obj:
        async with self.http.request(method, path, json=body, headers={"Content-Type": content}) as response:
            answer: Obj = await response.json()
            assert response.status < 400 or response.status == 404, answer
            return answer

    async def create_job(self, job: Obj) -> Obj:
        return await self.request("POST", f"/apis/{API_VERSION}/namespaces/{NAMESPACE}/{PLURAL}", job)

    async def patch_job(self, patch: Obj, name: str = "charlm") -> Obj:
        path = f"/apis/{API_VERSION}/namespaces/{NAMESPACE}/{PLURAL}/{name}"
        return await self.request("PATCH", path, patch, "application/merge-patch+json")

    async def delete_job(self, name: str = "charlm") -> None:
        await self.request("DELETE", f"/apis/{API_VERSION}/namespaces/{NAMESPACE}/{PLURAL}/{name}")

    async def fail_pod(self, name: str, exit_code: int = 1) -> None:
        await self._container(name, "Failed", {"terminated": {"exitCode": exit_code, **self._ended()}})

    async def succeed_pod(self, name: str) -> None:
        await self._container(name, "Succeeded", {"terminated": {"exitCode": 0, **self._ended()}})

    async def remove_pod(self, name: str) -> None:
        """As `kubectl delete --force` does."""
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/{self.pod(name)['metadata']['name']}"
        await self.request("DELETE", path, {"gracePeriodSeconds": 0})

    # -- what happens by itself --------------------------------------------------------------------------------------

    async def step(self) -> bool:
        """Scheduler and kubelets: start what is new, end what was deleted. Tells whether anything changed."""
        acted = False
        for pod in self.pods():
            name = pod["metadata"]["name"]
            if pod["metadata"].get("deletionTimestamp"):
                await self.remove_pod(name)
            elif not pod["spec"].get("nodeName"):
                binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}}
                path = f"/api/v1/namespaces/{NAMESPACE}/pods/{name}/binding"
                await self.request("POST", path, {**binding, "target": {"kind": "Node", "name": "node-0"}})
                await self._container(name, "Running", {"running": {"startedAt": self._stamp()}})
            elif self.finished and pod["metadata"]["labels"].get(LABEL_ROLE) == ROLE_WORKER and not _over(pod):
                await self.succeed_pod(name)
            else:
                continue
            acted = True
        return acted

    def report(self, roster: Roster | None) -> Report | None:
        """What the coordinator of the newest term would say, given the roster that it was told."""
        leaders = [pod for pod in self.pods(ROLE_COORDINATOR, live=True) if pod["status"].get("phase") == "Running"]
        if not leaders or roster is None or self.silent:
            return None
        leader = max(leaders, key=_term)
        job = self.job(leader["metadata"]["ownerReferences"][0]["name"])
        listed = {pod.uid for pod in roster.pods if not pod.draining}
        joined = [
            pod
            for pod in self.pods(ROLE_WORKER, live=True)
            if pod["metadata"]["uid"] in listed and pod["status"].get("phase") == "Running"
        ]
        uids = [pod["metadata"]["uid"] for pod in joined]
        training = len(joined) >= max(roster.minimum, 1)
        self.steps_done += training
        self._seq += 1
        return Report(
            job_uid=job["metadata"]["uid"],
            namespace=NAMESPACE,
            job=job["metadata"]["name"],
            term=_term(leader),
            seq=self._seq,
            roster_seen=roster.revision,
            state=JobState.COMPLETE if self.finished else JobState.TRAINING if training else JobState.WAITING,
            epoch=EpochId(_term(leader), 1 + len(joined)) if training else None,
            world=len(joined) if training else 0,
            members=[
                MemberReport(rank=rank, process=f"{uid}/b/0", pod_uid=uid, pid=1, start_ticks=1, step=self.steps_done)
                for rank, uid in enumerate(uids if training else [])
            ],
            joined=uids,
            ready=uids,
            progress=Progress(step=self.steps_done, steps=None, loss=1.0) if training else None,
        )

    def pod(self, name: str) -> Obj:
        """By its whole name, or by that without the piece of the job's uid."""
        found = [pod for pod in self.pods() if name in (pod["metadata"]["name"], _short(pod))]
        assert len(found) == 1, f"pods {name}: {[pod['metadata']['name'] for pod in found]}"
        return found[0]

    async def _container(self, name: str, phase: str, state: Obj) -> None:
        pod = self.pod(name)
        role = pod["metadata"]["labels"][LABEL_ROLE]
        ready = phase == "Running"
        status = {
            "phase": phase,
            "podIP": "127.0.0.1",
            "conditions": [{"type": "Ready", "status": str(ready)}, {"type": "PodScheduled", "status": "True"}],
            "containerStatuses": [
                {
                    "name": "worker" if role == ROLE_WORKER else "coordinator",
                    "ready": ready,
                    "restartCount": 0,
                    "image": "x",
                    "imageID": "x",
                    "state": state,
                }
            ],
        }
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod['metadata']['name']}/status"
        await self.request("PATCH", path, {"status": status}, "application/merge-patch+json")

    def _stamp(self) -> str:
        return self.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")

    def _ended(self) -> Obj:
        return {"startedAt": self._stamp(), "finishedAt": self._stamp(), "reason": "Error", "containerID": "x"}


def index_of(pod: Obj) -> int:
    """The slot of a worker pod."""
    return int(pod["metadata"]["name"].split("-")[-3])


def _term(pod: Obj) -> int:
    return int(pod["metadata"]["labels"][LABEL_TERM])


def _short(pod: Obj) -> str:
    name, _, piece = str(pod["metadata"]["name"]).rpartition("-")
    owner = next((str(each["uid"]) for each in pod["metadata"].get("ownerReferences") or ()), "")
    return name if len(piece) == len(names.suffix(owner)) and owner.startswith(piece) else f"{name}-{piece}"


def _over(pod: Obj) -> bool:
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def crds() -> list[Path]:
    """The CRD as it is installed."""
    return [Path(__file__).parents[3] / "crds"]
