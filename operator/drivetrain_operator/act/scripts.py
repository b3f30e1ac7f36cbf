"""Gives a job its own copy of its script, once for each start.

The copy is looked for first: it stands for what runs. What becomes of the ConfigMap that it was made from is no matter
any more; only a copy that is gone asks for it, and gets it only if its text is the same.
"""

from __future__ import annotations

import hashlib
import json
from typing import Final

from drivetrain_operator.act.creator import PASSING, Creator, Foreign, NoScript, Outcome, check_owner
from drivetrain_operator.act.memory import JobMemory
from drivetrain_operator.kube.errors import ApiError
from drivetrain_operator.kube.resources import CONFIGMAPS, Object
from drivetrain_operator.plan.effects import CreateScript
from drivetrain_operator.plan.view import JobView
from drivetrain_operator.render.script import lacks

_TEXTS: Final = ("data", "binaryData")


class Scripts:
    """One instance serves all jobs."""

    def __init__(self, creator: Creator, memory: JobMemory) -> None:
        self._creator = creator
        self._memory = memory

    async def copy(self, job: JobView, effect: CreateScript, outcome: Outcome) -> None:
        """Make the copy, or find that it is there. Raises KubeError where the pass has to be tried again."""
        try:
            existing = await self._creator.find(job, CONFIGMAPS, effect.name)
            if existing is not None:
                self._found(job, effect, existing)
                return
            source = await self._source(job, effect)
        except (ApiError, Foreign, NoScript) as error:
            if isinstance(error, PASSING):
                raise
            self._creator.refuse(job, effect, error, outcome)
            return
        if await self._creator.create(job, effect, outcome, source) is not None:
            self._memory.script(job.uid, effect.name, _digest(source))

    def _found(self, job: JobView, effect: CreateScript, existing: Object) -> None:
        check_owner(job, "ConfigMap", existing)
        if lacks(effect, existing):
            raise NoScript(f"the job's own ConfigMap {effect.name} has no key {effect.key} (spec.script.key)")
        self._memory.script(job.uid, effect.name, _digest(existing))
        self._memory.succeeded(job.uid, effect.name)
        self._memory.file_exists(job.uid, effect.name)

    async def _source(self, job: JobView, effect: CreateScript) -> Object:
        source = await self._creator.find(job, CONFIGMAPS, effect.source)
        if source is None:
            raise NoScript(f"ConfigMap {effect.source} does not exist (spec.script.configMap)")
        if lacks(effect, source):
            raise NoScript(f"ConfigMap {effect.source} has no key {effect.key} (spec.script.key)")
        if not effect.first and self._memory.script_digest(job.uid, effect.name) != _digest(source):
            raise NoScript(
                f"the job's own copy of its script, ConfigMap {effect.name}, was deleted, and {effect.source} may have "
                "another text than its workers run: restore the copy, or suspend and resume the job"
            )
        return source


def _digest(config_map: Object) -> str:
    text = json.dumps({name: config_map.get(name) or {} for name in _TEXTS}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
