"""What does a job's spec say? Read once for each generation of each job that lives, not in every pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drivetrain_operator.plan.observe import SpecRead, read_spec


class Specs:
    """By the job's uid. As many as there are jobs, and forgotten with them."""

    def __init__(self) -> None:
        self._read: dict[str, tuple[int, SpecRead]] = {}

    def read(self, obj: Mapping[str, Any]) -> SpecRead:
        """The spec of a TrainingJob as it is stored."""
        uid, generation = obj["metadata"]["uid"], int(obj["metadata"].get("generation") or 0)
        known = self._read.get(uid)
        if known is not None and known[0] == generation:
            return known[1]
        found = read_spec(obj)
        self._read[uid] = generation, found
        return found

    def forget(self, job_uid: str) -> None:
        """The job is gone."""
        self._read.pop(job_uid, None)
