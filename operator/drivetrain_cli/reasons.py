"""PURE: why is a job as it is? From its status, pods, events and the nodes to sentences for a person.

The operator has decided already what the most useful cause is (Ready's reason and message); here stands what a person
can do about it, and the evidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from drivetrain_api.constants import LABEL_ROLE, ROLE_COORDINATOR
from drivetrain_api.figures import plain
from drivetrain_api.recovery import sentence
from drivetrain_cli.printable import printable_lines
from drivetrain_cli.stale import ACTIVE, differences
from drivetrain_cli.table import age
from drivetrain_operator.kube.events import EVENTS

Json = dict[str, Any]

ADVICE: Final[dict[str, str]] = {
    **{event.reason: event.advice for event in EVENTS if not event.advice.startswith("Nothing")},
    # Of pods, and of failures that are no event's reason.
    "CreateContainerConfigError": "A ConfigMap, Secret or PersistentVolumeClaim that the pod names is missing: "
    "create it, and the pod starts.",
    "Deviation": "All ranks must call run.step, evaluate, reduce, save and skip in one order, from the same lines: "
    "look at what the script does on some ranks only.",
}
_NOT_SEEN: Final = (
    "No operator has looked at it yet. If that stays so, none runs: see its pods (kubectl get pods -A -l "
    "app.kubernetes.io/name=drivetrain), or start the embedded plane (drivetrain up)."
)
_STACK_LINES: Final = 12
_USUAL_WAITS: Final = ("ContainerCreating", "PodInitializing")


def state(job: Json) -> str:
    """The job in one line."""
    return printable_lines(_state(job))


def _state(job: Json) -> str:
    status = job.get("status") or {}
    name, phase = job["metadata"]["name"], status.get("phase")
    if not phase:
        return f"{name} is new: no operator has looked at it yet"
    workers, progress = status.get("workers") or {}, status.get("progress") or {}
    reason, message = status.get("reason") or "", status.get("message") or ""
    text = f"{name} is {phase}"
    if phase in ("Pending", "Waiting", "Failed") and message:
        return f"{text}: {message}" if reason in ("", "WorkersStarting") else f"{text}, {reason}: {message}"
    if phase == "Succeeded":
        return f"{text} after {progress['step']} steps" if progress.get("step") else text
    if phase == "Suspended" and progress.get("step"):
        return f"{text} at step {progress['step']}"
    if phase in ("Pending", "Running", "Waiting"):
        if reason == "CoordinatorSilent":
            return f"{text}: {message}"
        text = f"{text}: {workers.get('ready', 0)} of {workers.get('target', 0)} workers ready"
        return f"{text}, {message}" if reason == "StandingStill" else text
    return text


def short(job: Json, *, width: int | None = None) -> str:
    """What holds the job up, or ended it, in a cell of a table: empty while all is well; cut to `width`."""
    status = job.get("status") or {}
    phase, reason, message = status.get("phase"), status.get("reason") or "", status.get("message") or ""
    if not phase:
        return "no operator has looked at it yet"
    if phase == "Succeeded":
        return ""
    first = message.splitlines()[0] if message else ""
    text = f"{reason}: {first}" if reason and first else reason or first
    return text if width is None or len(text) <= width else text[: width - 1].rstrip() + "…"


def failures(job: Json, *, last: int | None = None) -> list[str]:
    """What failed, oldest first, each with the end of what it printed."""
    found = (job.get("status") or {}).get("failures") or []
    return [printable_lines(_failure(f)) for f in (found if last is None else found[-last:])]


def explain(
    job: Json,
    pods: Sequence[Json],
    events: Sequence[Json],
    nodes: Sequence[Json] | None,
    now: datetime,
    *,
    absent: str | None = None,
) -> list[str]:
    """The whole answer of `drivetrain why`, line by line. `nodes` is None where we may not see them; `absent` says that
    no operator looks after the job."""
    status = job.get("status") or {}
    if not status.get("phase"):
        return [
            f"{job['metadata']['name']} was created {age(job['metadata']['creationTimestamp'], now)} ago.",
            _NOT_SEEN,
        ]
    lines = [absent] if absent is not None and status["phase"] in ACTIVE else []
    lines += [headline(job), *differences(job, pods)]
    reason, message = status.get("reason") or "", status.get("message") or ""
    if message:
        lines.append(f"{reason}: {message}" if reason else message)
    if advice := ADVICE.get(reason):
        lines.append(f"→ {advice}")
    if reason == "Unschedulable" and nodes is not None:
        lines += _capacity(job, nodes)
    lines += _conditions(status, said=message)
    lines += held_up(job)
    lines += _late_ranks(status)
    lines += waiting(pods, said=message)
    lines += restarts(job)
    lines += _warnings(events, now, said="\n".join(lines))
    return [printable_lines(line) for line in lines]


def headline(job: Json) -> str:
    """How far the job is, and with how many workers."""
    status = job.get("status") or {}
    phase, workers = status.get("phase"), status.get("workers") or {}
    progress, membership = status.get("progress") or {}, status.get("membership") or {}
    text = f"{job['metadata']['name']} is {phase}"
    if progress.get("step"):
        of = f" of {progress['steps']} ({progress.get('percent', 0)} %)" if progress.get("steps") else ""
        text += f" at step {progress['step']}{of}"
    if phase in ("Pending", "Running", "Waiting"):
        text += f", {workers.get('ready', 0)} of {workers.get('target', 0)} workers ready"
        text += f", world size {workers.get('world', 0)}"
        text += " when a coordinator reported last" if status.get("reason") == "CoordinatorSilent" else ""
    if phase == "Running" and membership.get("epoch"):
        text += f", membership {membership.get('term', 0)}.{membership['epoch']}"
    return text + "."


def _conditions(status: Json, said: str) -> list[str]:
    lines = []
    for condition in status.get("conditions") or []:
        kind, holds, message = condition.get("type"), condition.get("status"), condition.get("message") or ""
        if not message or message in said:
            continue
        if kind == "StandingStill" and holds == "True":
            lines.append(f"It stands still: {message}")
        elif kind in ("KeptElsewhere", "CredentialsLost", "ReportUnusable") and holds == "True":
            lines.append(f"{kind}: {message}")
        elif kind == "ResultsLost" and holds == "True":
            lines.append(f"Results were lost: {message}")
        elif kind == "StateLost" and holds == "True":
            lines.append(f"Training state was lost: {message}")
        elif kind == "Running" and holds == "Unknown" and status.get("reason") != "CoordinatorSilent":
            lines.append(f"Whether it trains is not known: {message}")
        elif kind == "Running" and holds == "False" and status.get("phase") in ("Pending", "Waiting", "Running"):
            lines.append(f"The coordinator says: {message}")
    return lines


def held_up(job: Json) -> list[str]:
    """For whom all wait in every step, and what to do about it."""
    status = job.get("status") or {}
    found = status.get("holdUp") or {}
    if not found.get("message") or status.get("phase") != "Running":
        return []
    return [f"Each step is held up: {found['message']}", f"→ {ADVICE['HeldUp']}"]


def _late_ranks(status: Json) -> list[str]:
    """Where the ranks are that hold a job up which stands still, with the end of their stacks."""
    lines = []
    for late in status.get("lateRanks") or []:
        node = f" on {late['node']}" if late.get("node") else ""
        last = f", {late['collective']}" if late.get("collective") else ""
        head = f"rank {late.get('rank', 0)} ({late.get('pod') or '?'}{node}) {late.get('where') or ''}{last}:"
        stack = (late.get("stack") or "").splitlines()[-_STACK_LINES:]
        lines.append("\n".join([head, *(f"  {line}" for line in stack)]))
    return lines


def waiting(pods: Sequence[Json], said: str = "") -> list[str]:
    """Pods that do not run, with the kubelet's or the scheduler's own words."""
    lines = []
    for pod in pods:
        name, status = pod["metadata"]["name"], pod.get("status") or {}
        role = "coordinator" if (pod["metadata"].get("labels") or {}).get(LABEL_ROLE) == ROLE_COORDINATOR else "worker"
        placed: Json = next((c for c in status.get("conditions") or [] if c.get("type") == "PodScheduled"), {})
        if placed.get("status") == "False":
            if (placed.get("message") or "") not in said:
                lines.append(f"{role} {name} has no node: {placed.get('message') or placed.get('reason')}")
            continue
        for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
            waiting = (container.get("state") or {}).get("waiting") or {}
            reason, node = waiting.get("reason") or "", (pod.get("spec") or {}).get("nodeName", "?")
            if reason and reason not in _USUAL_WAITS:
                image = f" (image {container['image']})" if "mage" in reason and container.get("image") else ""
                words = f": {waiting['message']}" if waiting.get("message") else ""
                lines.append(f"{role} {name} on {node} waits, {reason}{image}{words}")
    return lines


def _capacity(job: Json, nodes: Sequence[Json]) -> list[str]:
    """What the nodes have of the GPUs that are missing."""
    spec = job.get("spec") or {}
    if not spec.get("gpusPerWorker"):
        return []
    resource = spec.get("gpuResource") or "nvidia.com/gpu"
    have = {
        n["metadata"]["name"]: int(((n.get("status") or {}).get("allocatable") or {}).get(resource, 0)) for n in nodes
    }
    with_any = ", ".join(f"{name}: {count}" for name, count in sorted(have.items()) if count)
    wanted = spec["gpusPerWorker"] * spec.get("workers", 1)
    return [
        f"It asks for {wanted} {resource} ({spec.get('workers', 1)} workers of {spec['gpusPerWorker']}); "
        f"the nodes have {sum(have.values())}{f' ({with_any})' if with_any else ', no node has any'}, "
        "used ones included."
    ]


def restarts(job: Json) -> list[str]:
    """Losses, workers that were taken, and what failed."""
    status = job.get("status") or {}
    lines = []
    if status.get("recoveries"):
        lines.append(_recoveries(status))
    membership = status.get("membership") or {}
    if membership.get("term", 0) > 1 and membership.get("replacedMessage"):
        lines.append(f"The coordinator before this one (term {membership['term']}): {membership['replacedMessage']}.")
    if taken := status.get("departures"):
        lines.append("Workers that were taken, each of which had a successor and cost no restart:")
        lines += [_departure(each) for each in taken]
    found = failures(job)
    if found:
        recovery = (job.get("spec") or {}).get("recovery") or {}
        allowed = f" of {recovery['maxRestarts']} allowed" if "maxRestarts" in recovery else ""
        used = (status.get("budget") or {}).get("used", status.get("restarts", 0))
        lines.append(f"Incidents that count: {used}{allowed} (recovery.maxRestarts). What failed:")
        lines += found
    return lines


def _recoveries(status: Json) -> str:
    """What that means depends on the script: a stock one goes on from its own checkpoint."""
    number, took, how = status["recoveries"], status.get("lastRecoverySeconds"), status.get("runtime")
    times = f"{number} time{'s' if number != 1 else ''} after a loss"
    last = f", last after {plain(took, 6)} s" if took is not None else ""
    last += f" ({_in_phases(status['lastRecovery'])})" if status.get("lastRecovery") else ""
    if how == "torchrun":
        return (
            f"All ranks were started again in their pods {times}{last}; their script goes on from its own checkpoint."
        )
    return f"{'Survivors' if how == 'drivetrain' else 'Training'} went on {times}{last}."


def _in_phases(last: Json) -> str:
    phases = (f"{phase}Seconds" for phase in ("detected", "formed", "copied", "firstStep"))
    return sentence(str(last.get("cause")), *(float(last.get(phase) or 0) for phase in phases))


def _departure(departure: Json) -> str:
    pods = [f"{p['name']} on {p['node']}" if p.get("node") else str(p["name"]) for p in departure.get("pods") or []]
    more = departure.get("count", 0) - len(pods)
    named = ", ".join(pods) + (f" and {more} more" if more > 0 else "")
    return f"  {departure.get('time', '')} {departure.get('reason', '')}: {named}, {departure.get('message', '')}"


def _failure(failure: Json) -> str:
    rank = f"rank {failure['rank']} in " if failure.get("rank") is not None else ""
    how = f"signal {failure['signal']}" if failure.get("signal") else f"exit code {failure.get('exitCode')}"
    node = f" on {failure['node']}" if failure.get("node") else ""
    free = "" if failure.get("counted", True) else ", part of the incident before"
    text = f"  {failure.get('time', '')} {failure.get('reason', '')}: {rank}{failure.get('pod', '')}{node}, {how}{free}"
    tail = (failure.get("logTail") or "").rstrip()
    return text + "".join(f"\n    | {line}" for line in tail.splitlines()[-20:])


def _warnings(events: Sequence[Json], now: datetime, said: str) -> list[str]:
    """Warnings that nothing above has said yet, newest of each reason."""
    newest = {
        (e.get("reason"), (e.get("involvedObject") or {}).get("name")): e for e in events if e.get("type") == "Warning"
    }
    lines = []
    for event in list(newest.values())[-8:]:
        first = (event.get("message") or "").splitlines()[0:1]
        if first and first[0] not in said and not any(part and part in said for part in first[0].split(": ")[-1:]):
            about = (event.get("involvedObject") or {}).get("name", "")
            stamp = event.get("lastTimestamp") or event.get("eventTime") or ""
            lines.append(f"  {age(stamp, now) + ' ago ' if stamp else ''}{event.get('reason')} {about}: {first[0]}")
    return ["Warnings:", *lines] if lines else []
