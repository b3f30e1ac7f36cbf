"""PURE: which job goes on from a step of another one? The same spec, with `restoreFrom`; the other stays as it is."""

from __future__ import annotations

from typing import Any

from drivetrain_api.rules import MAX_NAME
from drivetrain_cli.errors import UsageError

Json = dict[str, Any]


def branch(job: Json, step: int | None, name: str | None, suffix: str) -> Json:
    """The TrainingJob. Raises UsageError that names the flag."""
    meta, spec = job["metadata"], job["spec"]
    end = f"-from-{step}" if step is not None else f"-branch-{suffix}"
    name = name or f"{meta['name'][: MAX_NAME - len(end)].rstrip('-')}{end}"
    if name == meta["name"]:
        raise UsageError("--as: the new job needs a name of its own")
    steps = (spec.get("training") or {}).get("steps")
    if step is not None and steps is not None and step >= steps:
        raise UsageError(f"--step: the job trains {steps} steps (training.steps), and there is none after step {step}")
    source: Json = {"job": f"{meta['name']}-{meta['uid'][:8]}"}  # whatever other jobs had the name
    if step is not None:
        source["step"] = step
    kept = {key: value for key, value in (meta.get("labels") or {}).items() if "kubernetes.io/" not in key}
    return {
        "apiVersion": job["apiVersion"],
        "kind": job["kind"],
        "metadata": {"name": name, "namespace": meta["namespace"]} | ({"labels": kept} if kept else {}),
        "spec": {**{key: value for key, value in spec.items() if key != "suspend"}, "restoreFrom": source},
    }
