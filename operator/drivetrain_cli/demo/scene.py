"""What happens in the demo, in order? Plane, job, half-way a SIGKILL, near the end one for all ranks at once; beside
it, undisturbed training."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from drivetrain_api.constants import KIND, ROLE_WORKER
from drivetrain_cli import pack, plane
from drivetrain_cli.cluster import Cluster, Where, connect
from drivetrain_cli.demo.outcome import Fall, Kill, Outcome, hashes, losses, told, told_fall
from drivetrain_cli.demo.processes import belonging_to, identities, unchanged
from drivetrain_cli.demo.reference import logs_of, reference_of
from drivetrain_cli.demo.screen import Screen, Snapshot
from drivetrain_cli.demo.steps import Membership, Steps
from drivetrain_cli.errors import CliError
from drivetrain_cli.pack.pods import PodWish
from drivetrain_cli.table import table
from drivetrain_local.node.images import python_environment
from drivetrain_operator.kube.errors import KubeError
from drivetrain_operator.kube.resources import CONFIGMAPS, PODS, TRAININGJOBS, Object

JOB: Final = "charlm"
PROMPT: Final = "def __init__(self"
_WORKERS: Final = 3
_LOOK_SECONDS: Final = 0.1
_FAST_SECONDS: Final = 0.004
_RECOVERY_LIMIT: Final = 30.0
_RETURN_LIMIT: Final = 90.0
"""For all ranks to come back from nothing: new processes import torch."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how big. `limit` bounds the job in seconds."""

    script: Path
    folder: Path
    steps: int = 120
    batch: int = 24
    seed: int = 0
    limit: float = 240.0


async def play(plan: Plan, screen: Screen) -> Outcome:
    """The whole demo. Whatever happens, no process stays behind. Raises CliError."""
    state = plan.folder / "plane"
    for name in ("steps", "model", "reference"):
        (plan.folder / name).mkdir(parents=True)
    try:
        outcome = await _play(plan, screen, state)
    finally:
        screen.close()
        plane.stop(state)
    return _with_left_behind(outcome, plan.folder)


async def _play(plan: Plan, screen: Screen, state: Path) -> Outcome:
    began = time.monotonic()
    kubeconfig = await plane.start(state)
    screen.say(
        f"Embedded control plane with operator: up after {time.monotonic() - began:.1f} s (no Kubernetes, no root)"
    )
    config_map, job = _objects(plan)
    async with (
        connect(Where(kubeconfig=str(kubeconfig))) as cluster,
        reference_of(plan.script, plan.folder / "reference", job) as reference,
    ):
        await cluster.client.create(CONFIGMAPS, config_map, cluster.namespace)
        await cluster.client.create(TRAININGJOBS, job, cluster.namespace)
        screen.say(
            f"{KIND} {JOB}: {_WORKERS} workers, {plan.steps} steps of {plan.batch} samples, seed {plan.seed}, "
            "deterministic; beside it the same training undisturbed, in one process"
        )
        watched = _Watched(plan, cluster, screen)
        kill = await watched.until_recovered()
        fall = await watched.until_returned() if kill is not None else None
        final = await watched.until_finished()
        screen.close()
        text = asyncio.create_task(_generated(plan), name="generated text")
        logs = await logs_of(cluster, final)
        screen.say()
        screen.say("$ kubectl get tj")
        screen.say(await _as_kubectl_prints(kubeconfig, final))
        undisturbed = await reference
    found = hashes("this run", logs)
    lost = watched.lost()
    outcome = Outcome(
        phase=(final.get("status") or {}).get("phase", ""),
        world=watched.world(),
        steps=plan.steps,
        kill=kill,
        fall=fall,
        lost=lost,
        hashes=found,
        reference=next(iter(hashes("uninterrupted", undisturbed)), None),
        losses=_losses(losses(undisturbed), losses(logs)),
    )
    _tell(plan, screen, outcome, await text)
    return outcome


class _Watched:
    """Looks at a running job, breaks it twice, and waits for its end."""

    def __init__(self, plan: Plan, cluster: Cluster, screen: Screen) -> None:
        self._plan = plan
        self._cluster = cluster
        self._screen = screen
        self._steps = Steps(plan.folder / "steps")
        self._job: Object = {}
        self._looked = 0.0
        self._deadline = time.monotonic() + plan.limit
        self._killed: dict[int, float] = {}
        self._before = Membership(0, 0)
        self._again: list[str] | None = None
        """What was made again before all were killed."""

    async def until_recovered(self) -> Kill | None:
        """Train half-way, kill one rank, and wait for the first step of the others. None: it never came."""
        while len(self._steps.members()) < _WORKERS or self._common_step() < self._plan.steps // 2:
            if await self._look():
                return None
        members = self._steps.members()
        rank = random.choice(sorted(members))
        pid, started = members[rank], identities(list(members.values()))
        self._before = max(membership for _, _, membership in self._steps.common())
        step_seconds, step = self._steps.step_seconds(), self._common_step()
        self._screen.say(f"Step {step}: killing rank {rank} (pid {pid}) with SIGKILL")
        at = time.time()
        os.kill(pid, signal.SIGKILL)
        self._killed[pid] = at
        until = time.monotonic() + _RECOVERY_LIMIT
        while (found := self._steps.first_common_after(at, self._before)) is None:
            if time.monotonic() > until:
                return None
            await asyncio.sleep(_FAST_SECONDS)
            self._steps.read()
        survivors = {r: p for r, p in members.items() if p != pid}
        alive = unchanged({p: started[p] for p in survivors.values()})
        after = self._steps.members()
        kill = Kill(
            rank=rank,
            pid=pid,
            step=step,
            seconds=found[0] - at,
            step_seconds=step_seconds,
            next_step=found[1],
            membership=str(max(membership for _, _, membership in self._steps.common())),
            world=len(after),
            survivors={r: p for r, p in survivors.items() if p in alive},
            gone=[p for p in survivors.values() if p not in alive],
            joined=[p for p in after.values() if p not in members.values()],
        )
        for line in told(kill):
            self._screen.say(f"  {line}")
        return kill

    async def until_returned(self) -> Fall | None:
        """Train on, kill all that trains, and wait for the first step of their successors. None: it never came."""
        pids = await self._frozen_at(self._plan.steps * 5 // 6)
        if pids is None:
            return None
        self._again = self._made_again()
        above = max(membership for _, _, membership in self._steps.common())
        pods = [pod["metadata"]["name"] for pod in await self._cluster.pods(self._job, ROLE_WORKER)]
        step, durable = self._common_step(), int((self._status().get("progress") or {}).get("durableStep") or 0)
        self._screen.say(f"Step {step}: killing all {len(pods)} workers at once, with all that is in their memory")
        at = time.time()
        self._killed |= dict.fromkeys(pids, at)
        await asyncio.gather(*(self._delete(name) for name in pods))
        self._steps.read()
        step = max(step, self._common_step())
        until = time.monotonic() + _RETURN_LIMIT
        while (found := self._steps.first_common_after(at, above)) is None:
            if time.monotonic() > until or await self._look():
                return None
        fall = Fall(step=step, durable=durable, next_step=found[1], seconds=found[0] - at)
        for line in told_fall(fall):
            self._screen.say(f"  {line}")
        return fall

    async def _frozen_at(self, step: int) -> list[int] | None:
        """Pids of all ranks, stopped as soon as they have made so many steps: until their pods are deleted, on a busy
        machine, they would make the few that are left. None: the job ended before."""
        pids: list[int] | None = None
        while pids is None:
            look = asyncio.create_task(self._look(), name="look")
            try:
                while not look.done():
                    await asyncio.wait({look}, timeout=_FAST_SECONDS)
                    self._steps.read()
                    if pids is None and self._common_step() >= step:
                        pids = list(self._steps.members().values())
                        for pid in pids:
                            with contextlib.suppress(ProcessLookupError):
                                os.kill(pid, signal.SIGSTOP)
                if await look and pids is None:
                    return None
            finally:
                look.cancel()  # by Ctrl-C, it would ask a client that is closed
        return pids

    async def _delete(self, pod: str) -> None:
        await self._cluster.client.delete(PODS, pod, self._cluster.namespace, grace_seconds=0)

    async def until_finished(self) -> Object:
        """The job as it is at its end. Raises CliError after the plan's limit."""
        while not await self._look():
            pass
        return self._job

    def lost(self) -> list[str]:
        """In words: steps that nobody ever made, and such as the one kill's survivors made again."""
        self._steps.read()
        return self._steps.missing(self._plan.steps) + (self._made_again() if self._again is None else self._again)

    def _made_again(self) -> list[str]:
        return self._steps.made_again(next(iter(self._killed.values()), time.time()), self._before)

    def world(self) -> int:
        """Members of the newest membership."""
        return len(self._steps.members())

    def _common_step(self) -> int:
        return max((step for _, step, _ in self._steps.common()), default=-1) + 1

    async def _look(self) -> bool:
        """Show how it stands; whether the job is over."""
        if time.monotonic() > self._deadline:
            raise CliError(f"the job did not end within {self._plan.limit:.0f} s (--limit): {self._message()}")
        await asyncio.sleep(_LOOK_SECONDS)
        self._steps.read()
        if time.monotonic() - self._looked > 0.5:
            self._looked = time.monotonic()
            with contextlib.suppress(KubeError):  # asked again half a second later
                self._job = await self._cluster.job(JOB)
        self._show()
        return self._status().get("phase") in ("Succeeded", "Failed")

    def _show(self) -> None:
        last, seconds = self._steps.last(), self._steps.step_seconds()
        status = self._status()
        self._screen.update(
            Snapshot(
                step=self._common_step(),
                steps=self._plan.steps,
                loss=last.loss if last else None,
                samples_per_second=self._plan.batch / seconds if seconds else None,
                phase=status.get("phase") or "",
                workers=(status.get("workers") or {}).get("summary", ""),
                membership=str(last.membership) if last else "",
                members=self._steps.members(),
                killed=frozenset(self._killed),
            )
        )

    def _status(self) -> dict[str, Any]:
        return self._job.get("status") or {}

    def _message(self) -> str:
        return self._status().get("message") or self._status().get("phase") or "it has no status yet"


def _objects(plan: Plan) -> tuple[Object, Object]:
    wish = pack.Wish(
        name=JOB,
        code=pack.read(plan.script),
        workers=_WORKERS,
        elastic=(_WORKERS - 1, _WORKERS),
        training={
            "steps": plan.steps,
            "batch": {"global": plan.batch},
            "seed": plan.seed,
            "deterministic": True,
            "clipNorm": 1.0,
        },
        spares=1,
        pod=PodWish(environment={"STEP_LOG": str(plan.folder / "steps"), "OUTPUT": str(plan.folder / "model")}),
    )
    config_map, job = pack.objects(wish, "default")
    # Each step by itself: the demo is over before two seconds of steps would matter.
    job["spec"]["snapshots"] = {"storage": {"path": str(plan.folder / "snapshots")}, "commitSeconds": 0}
    return config_map, job


async def _as_kubectl_prints(kubeconfig: Path, job: Object) -> str:
    """By kubectl itself if there is one."""
    printed = await _run(["kubectl", "get", "tj", "--kubeconfig", str(kubeconfig)], dict(os.environ), 10.0)
    return printed or table([job], datetime.now(UTC))


def _losses(undisturbed: tuple[float, float] | None, ours: tuple[float, float] | None) -> tuple[float, float] | None:
    """Before all training, and after it: the script that ended has seen but the last steps."""
    return None if undisturbed is None or ours is None else (undisturbed[0], ours[1])


def _tell(plan: Plan, screen: Screen, outcome: Outcome, text: str) -> None:
    screen.say()
    if outcome.losses is not None:
        before, after = outcome.losses
        screen.say(f"Loss on held-out text: {before:.4f} before, {after:.4f} after {plan.steps} steps")
    screen.say(f"Steps lost: {len(outcome.lost)}")
    screen.say("sha256 over all registered state (model, optimizer, scheduler, random numbers):")
    for each in [*outcome.hashes, *([outcome.reference] if outcome.reference else [])]:
        screen.say(f"  {each}")
    if text:
        screen.say("The saved model goes on from " + repr(PROMPT) + ":")
        for line in text.splitlines()[:8]:
            screen.say(f"  | {line}")


async def _generated(plan: Plan) -> str:
    """Text from the saved model; "" if there is none."""
    environment = {**python_environment(), "OUTPUT": str(plan.folder / "model")}
    return await _run([sys.executable, str(plan.script), "generate", PROMPT], environment, 60.0)


async def _run(argv: list[str], environment: dict[str, str], seconds: float) -> str:
    """Output of a short command; "" if it cannot run, fails or takes too long."""
    try:
        process = await asyncio.create_subprocess_exec(
            *argv, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
    except OSError:
        return ""
    try:
        out, _ = await asyncio.wait_for(process.communicate(), seconds)
    except TimeoutError:
        return ""
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return out.decode(errors="replace").rstrip() if process.returncode == 0 else ""


def _with_left_behind(outcome: Outcome, folder: Path) -> Outcome:
    return replace(outcome, left_behind=belonging_to(folder))
