"""PURE: what will happen when a job is scaled, suspended, resumed or deleted? In sentences, before or as it is done."""

from __future__ import annotations

from typing import Any, Final

from drivetrain_api.spec import MAX_WORKERS
from drivetrain_cli.errors import CliError, UsageError

Json = dict[str, Any]
_OTHERWISE: Final = "Any other script gets SIGTERM, as the time to save, and starts again from its own checkpoint."
_FINISHED: Final = ("Succeeded", "Failed")


def phase(job: Json) -> str:
    """As status says; empty if no operator has looked at the job yet."""
    return str((job.get("status") or {}).get("phase") or "")


def check_not_over(job: Json, what: str) -> None:
    """Raises CliError for a job that has ended."""
    if phase(job) in _FINISHED:
        raise CliError(f"{job['metadata']['name']} has {phase(job).lower()} already: there is nothing to {what}")


def check_size(job: Json, workers: int) -> None:
    """Raises UsageError that names the bound which this number of workers breaks, CliError for a job that is over."""
    name, elastic = job["metadata"]["name"], job["spec"].get("elastic")
    if workers < 1:
        raise UsageError(f"N: at least 1; to stop {name} for a while: drivetrain suspend {name}")
    if workers > MAX_WORKERS:
        raise UsageError(f"N: {workers} is above {MAX_WORKERS}, the most that spec.workers may be")
    check_not_over(job, "scale")
    if elastic and workers < elastic["minWorkers"]:
        raise UsageError(f"N: {workers} is below spec.elastic.minWorkers of {name}, which is {elastic['minWorkers']}")
    if elastic and workers > elastic["maxWorkers"]:
        raise UsageError(f"N: {workers} is above spec.elastic.maxWorkers of {name}, which is {elastic['maxWorkers']}")


def scaled(job: Json, workers: int) -> list[str]:
    """What the change from spec.workers to `workers` does to a job."""
    before = int(job["spec"].get("workers", 1))
    name = job["metadata"]["name"]
    lines = [f"{name}: {before} → {workers} workers"]
    if workers == before:
        return [f"{name} has spec.workers {workers} already"]
    if job["spec"].get("suspend"):
        return [*lines, f"It is suspended: so many start when it is resumed (drivetrain resume {name})."]
    if _stock(job):
        return [*lines, "All ranks get SIGTERM, as the time to save, and start again from the script's own checkpoint."]
    if workers < before:
        lines.append("Those that cost least to lose leave: workers that have not started, then the highest index.")
    elif job["spec"].get("elastic"):
        lines.append("New ones start, and join between two steps; training goes on meanwhile.")
    else:
        lines.append(
            f"Without spec.elastic all {workers} are needed: until they are there, the others wait with their state."
        )
    own = "No process that stays is restarted, and no step is lost."
    return [*lines, own if _stock(job) is False else f"With drivetrain.start(): {_lower(own)} {_OTHERWISE}"]


def suspended(job: Json) -> list[str]:
    """Of a job that has been suspended: how far it was, and where it will go on."""
    name, progress = job["metadata"]["name"], _progress(job)
    of = f" of {progress['steps']}" if progress.get("steps") else ""
    at = f" at step {progress['step']}{of}" if progress.get("step") else ""
    return [f"{name} is suspended{at}: its pods are deleted.", f"drivetrain resume {name}: {goes_on_from(job)}"]


def goes_on_from(job: Json) -> str:
    """From which step a suspended job will go on."""
    progress, spec = _progress(job), job["spec"]
    if spec.get("snapshots"):
        if (durable := progress.get("durableStep")) is not None:
            return f"it goes on from step {durable} or later: so far its snapshots are known to reach{_lost(progress)}."
        if branch := spec.get("restoreFrom"):
            where = f"step {branch['step']}" if branch.get("step") is not None else "the last step"
            return f"nothing of its own is in its snapshots yet, so it begins with {where} of {branch['job']}."
        return "nothing is known to be in its snapshots yet; without a step there it begins with step 0."
    if _stock(job):
        return "its script starts again, from its own last checkpoint if it has one."
    own = "" if _stock(job) is False else " Without drivetrain.start(), it begins with the script's own checkpoint."
    if not progress.get("step"):
        return f"it begins with step 0, or the last run.save that prepare(resume=…) finds.{own}"
    return (
        f"it goes on from its last run.save that prepare(resume=…) finds, else from step 0; it was at step "
        f"{progress['step']}. With spec.snapshots it would go on from its last step.{own}"
    )


def deleted(job: Json) -> list[str]:
    """What goes with a job, and what stays."""
    meta, progress = job["metadata"], _progress(job)
    name = f"TrainingJob {meta['namespace']}/{meta['name']}"
    how = f", which was {phase(job)}" if phase(job) else ""
    at = f" at step {progress['step']}" if progress.get("step") and phase(job) != "Succeeded" else ""
    lines = [f"{name} deleted{how}{at}"]
    if storage := (job["spec"].get("snapshots") or {}).get("storage"):
        where = storage.get("url") or f"{storage.get('path', 'drivetrain')}"
        claim = storage.get("persistentVolumeClaim")
        of = f" of PersistentVolumeClaim {claim}" if claim else ""
        lines.append(
            f"Its snapshots stay, in {where}{of}, folder {meta['namespace']}/{meta['name']}-{meta['uid'][:8]}."
        )
    return lines


def _lost(progress: Json) -> str:
    """How many steps that is back, where status knows."""
    step, durable = progress.get("step") or 0, progress.get("durableStep") or 0
    return f"; it was at step {step}" if step > durable else ""


def _progress(job: Json) -> Json:
    found: Json = (job.get("status") or {}).get("progress") or {}
    return found


def _stock(job: Json) -> bool | None:
    """Whether the script knows nothing of steps; None if no worker has found that out yet."""
    given, found = job["spec"].get("runtime", "auto"), (job.get("status") or {}).get("runtime")
    return {"torchrun": True, "drivetrain": False}.get(str(found if given == "auto" else given))


def _lower(text: str) -> str:
    return text[0].lower() + text[1:]
