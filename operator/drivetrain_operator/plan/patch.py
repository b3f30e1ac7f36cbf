"""PURE: what is the smallest write that turns one status into another? A JSON merge patch (RFC 7386)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drivetrain_api.energy_status import EnergyStatus
from drivetrain_api.status import Condition, TrainingJobStatus
from drivetrain_api.status_model import StatusModel

Json = dict[str, Any]


def status_json(status: StatusModel) -> Json:
    """The status as the API server stores it: camelCase, absent where there is nothing to say."""
    return status.model_dump(mode="json", by_alias=True, exclude_none=True)


def status_patch(old: TrainingJobStatus, new: TrainingJobStatus, stored: Mapping[str, Any] | None = None) -> Json:
    """`{"status": …}` for a merge patch, {} if nothing changes. Add metadata.resourceVersion as the precondition.

    `stored`: what stands there, where `old` is not all of it; then the patch takes away the rest.
    """
    if old == new and stored is None:
        return {}
    # The first write is whole: zeros that are merely defaults here would show as blanks in kubectl's columns.
    before = stored if stored is not None else status_json(old) if old.phase is not None else {}
    changes = merge_patch(before, status_json(new))
    return {"status": changes} if changes else {}


def only_counts(old: TrainingJobStatus, new: TrainingJobStatus) -> bool:
    """Whether they differ in nothing but how many pods are there, the words that say so, and time that has passed."""
    counted = ("current", "ready", "world", "seen", "summary")
    workers = new.workers.model_copy(update={name: getattr(old.workers, name) for name in counted})
    if [_essence(c) for c in old.conditions] != [_essence(c) for c in new.conditions]:
        return False
    words = {"message": old.message, "conditions": old.conditions, "workers": workers, "goodput": old.goodput}
    words["energy"] = _as_used_before(old, new)
    return new.model_copy(update=words) == old


def _as_used_before(old: TrainingJobStatus, new: TrainingJobStatus) -> EnergyStatus | None:
    """What has been used since is a count, whatever else is in there."""
    before = old.energy if old.energy is not None else EnergyStatus()
    after = (new.energy if new.energy is not None else EnergyStatus()).model_copy(update={"used": before.used})
    return old.energy if after == before else after


def _essence(condition: Condition) -> tuple[object, ...]:
    return condition.type, condition.status, condition.reason, condition.observed_generation


def merge_patch(old: Mapping[str, Any], new: Json) -> Json:
    """What to merge into `old` to get `new`; null removes a key, lists are replaced whole."""
    patch: Json = {key: None for key in old if key not in new}
    for key, value in new.items():
        before = old.get(key)
        if isinstance(before, dict) and isinstance(value, dict):
            if inner := merge_patch(before, value):
                patch[key] = inner
        elif before != value:
            patch[key] = value
    return patch
