"""PURE: how does a job stand? One page: how far it is, what it waits for, conditions, members, what happened to it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from drivetrain_api.constants import LABEL_INDEX, LABEL_ROLE, ROLE_COORDINATOR
from drivetrain_cli.life.outlook import goes_on_from
from drivetrain_cli.printable import printable_lines
from drivetrain_cli.reasons import ADVICE, headline, held_up, restarts, waiting
from drivetrain_cli.stale import differences
from drivetrain_cli.table import age, aligned

Json = dict[str, Any]
_RUNS: Final = {
    "drivetrain": "Its script calls drivetrain.start(): survivors of a loss go on",
    "torchrun": "Its script is a stock one: at a loss all ranks start again in their pods, from its own checkpoint",
}
_NEW: Final = "No operator has looked at it yet."


def page(job: Json, pods: Sequence[Json], now: datetime) -> list[str]:
    """Lines for a person."""
    meta, status = job["metadata"], job.get("status") or {}
    lines = [f"TrainingJob {meta['namespace']}/{meta['name']}, created {age(meta['creationTimestamp'], now)} ago"]
    if not status.get("phase"):
        return [*lines, _NEW]
    lines += [headline(job), *_facts(job), *differences(job, pods)]
    lines += _section("It waits for", _waits(job, pods))
    lines += _section("Conditions", _conditions(status, now))
    lines += _section("Members", _members(pods, now))
    lines += _section("What happened", [line for text in restarts(job) for line in text.splitlines()])
    return [printable_lines(line) for line in lines]


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return ["", f"{title}:", *(f"  {line}" for line in lines)] if lines else []


def _facts(job: Json) -> list[str]:
    """Numbers of the training, as far as they are known."""
    status = job.get("status") or {}
    progress = status.get("progress") or {}
    told = []
    if progress.get("eta") and status.get("phase") == "Running":
        told.append(f"about {progress['eta']} left")
    if progress.get("loss") is not None:
        told.append(f"loss {progress['loss']:g}")
    if progress.get("samplesPerSecond") is not None:
        told.append(f"{progress['samplesPerSecond']:g} samples/s")
    lines = [f"{', '.join(told)}.".capitalize()] if told else []
    if status.get("runtime"):
        auto = ", as its workers found out" if job["spec"].get("runtime", "auto") == "auto" else ""
        lines.append(f"{_RUNS[status['runtime']]} (runtime {status['runtime']}{auto}).")
    if progress.get("durableStep") is not None:
        lines.append(f"Step {progress['durableStep']} is in its snapshots.")
    if (restored := (progress.get("snapshots") or {}).get("restoredStep")) is not None:
        lines.append(f"It went on from step {restored} of them when nobody had its state.")
    if (goodput := status.get("goodput") or {}).get("summary"):
        lines.append(f"Goodput {goodput['summary']}: what the rest of its time was, drivetrain goodput says.")
    if (electricity := (status.get("energy") or {}).get("used") or {}).get("kwh"):
        grams = f", {electricity['grams']} g CO2e" if electricity.get("grams") else ""
        lines.append(f"It has used {electricity['kwh']} kWh{grams}: drivetrain energy says what of it was measured.")
    used = status.get("budget") or {}
    if used.get("used"):
        lines.append(f"Incidents that count against recovery.maxRestarts: {used['summary']}.")
    return lines


def _waits(job: Json, pods: Sequence[Json]) -> list[str]:
    """What holds it up, and what can be done about it."""
    status = job.get("status") or {}
    reason, message = status.get("reason") or "", status.get("message") or ""
    if status.get("phase") == "Suspended":
        return [f"somebody to resume it (drivetrain resume {job['metadata']['name']}): {goes_on_from(job)}"]
    if status.get("phase") in ("Succeeded", "Failed"):
        return []
    lines = [f"{reason}: {message}" if reason else message] if message else []
    lines += [f"→ {ADVICE[reason]}"] if reason in ADVICE else []
    return lines + held_up(job) + waiting(pods, said=message)


def _conditions(status: Json, now: datetime) -> list[str]:
    rows = [["TYPE", "STATUS", "SINCE", "REASON", "MESSAGE"]]
    for each in status.get("conditions") or []:
        first = (each.get("message") or "").splitlines()[0:1]
        since = age(each["lastTransitionTime"], now) if each.get("lastTransitionTime") else "-"
        rows.append([each["type"], each["status"], since, each.get("reason") or "", *(first or [""])])
    return aligned(rows).splitlines() if len(rows) > 1 else []


def _members(pods: Sequence[Json], now: datetime) -> list[str]:
    """Pods of the job; a worker is ready while its processes take part."""
    rows = [["POD", "ROLE", "NODE", "PHASE", "READY", "AGE"]]
    for pod in sorted(pods, key=_order):
        status = pod.get("status") or {}
        going = "Terminating" if pod["metadata"].get("deletionTimestamp") else status.get("phase") or "Pending"
        ready = any(c.get("type") == "Ready" and c.get("status") == "True" for c in status.get("conditions") or [])
        made = pod["metadata"].get("creationTimestamp")
        rows.append(
            [
                pod["metadata"]["name"],
                _role(pod),
                (pod.get("spec") or {}).get("nodeName") or "-",
                going,
                "yes" if ready else "no",
                age(made, now) if made else "-",
            ]
        )
    return aligned(rows).splitlines() if len(rows) > 1 else []


def _role(pod: Json) -> str:
    return str((pod["metadata"].get("labels") or {}).get(LABEL_ROLE, ""))


def _order(pod: Json) -> tuple[bool, int, str]:
    """The coordinator first, then workers by index."""
    index = str((pod["metadata"].get("labels") or {}).get(LABEL_INDEX, ""))
    return _role(pod) != ROLE_COORDINATOR, int(index) if index.isdecimal() else -1, str(pod["metadata"]["name"])
