"""PURE: what looks at snapshots? One like the job's workers (`looker.py`), with `python -m drivetrain.snapshot`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from drivetrain_api.constants import WORKER_CONTAINER
from drivetrain_api.resolve import user_command
from drivetrain_cli.errors import CliError, UsageError
from drivetrain_cli.looker import Look, like_a_worker, looker
from drivetrain_operator.plan.observe import job_view

Json = dict[str, Any]
_SECONDS: Final = {"list": 900, "prune": 3600, "verify": 6 * 3600, "export": 6 * 3600}
_READS: Final[Json] = {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"memory": "2Gi"}}
"""An object is read as a whole: packs have 128 MiB."""
_PASSING: Final = frozenset({"emptyDir", "configMap", "secret", "projected", "downwardAPI"})


@dataclass(frozen=True, slots=True)
class Task:
    """What it is to do."""

    what: str
    arguments: tuple[str, ...]
    """Of `python -m drivetrain.snapshot`."""
    suffix: str
    """Of its name."""
    to: str | None = None
    """What it writes, a path in the pod."""

    @property
    def trains(self) -> bool:
        """It runs the job's script."""
        return self.what == "export"


def pod(job: Json, worker: Json | None, task: Task, *, embedded: bool = False) -> Json:
    """Body of the POST. `worker`: one of the job's, if there is any; else the job's spec says all. `embedded`: what
    is in no volume is this machine's.

    Raises CliError if that cannot be, UsageError if what it writes would go with it.
    """
    like = like_a_worker(job, worker, ours=not embedded)
    container = next((each for each in like["containers"] if each["name"] == WORKER_CONTAINER), like["containers"][0])
    command = ["python", "-m", "drivetrain.snapshot", *task.arguments]
    if task.trains:
        command += ["--", *_script(job)]
    resources = (container.get("resources") or {}) if task.trains else _READS
    look = Look("snapshots", task.suffix, command, resources, _SECONDS[task.what], script=task.trains)
    made = looker(job, like, look)
    if task.to is not None:
        mounts = made["spec"]["containers"][0]["volumeMounts"]
        _refuse_what_goes(task.to, mounts, like.get("volumes") or (), embedded=embedded)
    return made


def _refuse_what_goes(to: str, mounts: Sequence[Json], volumes: Sequence[Json], *, embedded: bool) -> None:
    around = [each for each in mounts if to.startswith(each["mountPath"].rstrip("/") + "/")]
    if not around:
        if not embedded:
            there = ", ".join(sorted(each["mountPath"] for each in mounts)) or "none"
            raise UsageError(f"--to: {to} is in no volume, and would go with the pod; volumes are mounted at: {there}")
        return
    inner = max(around, key=lambda each: len(each["mountPath"]))
    volume = next(each for each in volumes if each["name"] == inner["name"])
    if _PASSING & volume.keys():
        raise UsageError(f"--to: {inner['mountPath']} goes with the pod; name a path in a volume that stays")


def _script(job: Json) -> list[str]:
    spec = job_view(job).spec
    if spec is None:
        raise CliError("the job's spec cannot be used")
    return user_command(spec)
