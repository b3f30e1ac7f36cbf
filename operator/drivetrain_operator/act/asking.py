"""Is a pod that the cache lacks really gone? The API server is asked for it by name before anything calls it dead.

A cache shows what a watch told it, filtered by labels that anybody may change: that a pod is not in it proves nothing.
What the API server does not have under its name, or has under another uid, is gone for good: names are used once.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import Final

from drivetrain_operator.act.memory import JobMemory
from drivetrain_operator.kube.client import KubeClient
from drivetrain_operator.kube.errors import NotFound
from drivetrain_operator.kube.resources import PODS, controller_uid
from drivetrain_operator.plan import slots
from drivetrain_operator.plan.observe import pod_view
from drivetrain_operator.plan.policies.coordinator import LAG_SECONDS
from drivetrain_operator.plan.view import PodView, Sight, View
from drivetrain_operator.render import names

log = logging.getLogger(__name__)

PARALLEL: Final = 16


class Asking:
    """Completes views. Answers of the kind "not there" are remembered: they hold for ever."""

    def __init__(self, client: KubeClient, memory: JobMemory) -> None:
        self._client = client
        self._memory = memory

    async def complete(self, view: View) -> View:
        """The view with pods that the cache should have, and what is known to be gone. Raises KubeError."""
        job = view.job
        known = self._memory.pod_names(job.uid, {pod.uid: pod.name for pod in view.pods})
        present = {pod.uid for pod in view.pods}
        current = _current_names(view)
        needed = _taking_part(view) | {uid for uid, name in known.items() if name in current}
        missing = {uid for uid in needed - present if not self._memory.is_gone(job.uid, uid)}
        wanted = {known[uid] for uid in missing if uid in known}
        if missing - known.keys():
            wanted |= current
        if (name := _missing_coordinator(view)) is not None and not self._memory.is_gone(job.uid, name):
            wanted.add(name)
        wanted -= {pod.name for pod in view.pods}
        found = await self._ask(view, sorted(wanted))
        self._memory.gone(job.uid, missing - {pod.uid for pod in found})
        self._memory.gone(job.uid, wanted - {pod.name for pod in found})
        if found:
            log.warning(
                "the cache lacks pods that exist; are their labels changed?",
                extra={"job": f"{job.namespace}/{job.name}", "pods": ", ".join(pod.name for pod in found)},
            )
        return replace(
            view,
            pods=tuple(sorted((*view.pods, *found), key=lambda pod: pod.name)),
            absent=self._memory.all_gone(job.uid),
        )

    async def _ask(self, view: View, wanted: list[str]) -> list[PodView]:
        limit = asyncio.Semaphore(PARALLEL)

        async def one(name: str) -> PodView | None:
            async with limit:
                try:
                    pod = await self._client.get(PODS, name, view.job.namespace)
                except NotFound:
                    return None
            return pod_view(pod) if controller_uid(pod) == view.job.uid else None

        answers = await asyncio.gather(*(one(name) for name in wanted))
        return [pod for pod in answers if pod is not None]


def _taking_part(view: View) -> set[str]:
    """Uids of pods that the coordinator speaks of."""
    if view.report is None:
        return set()
    report = view.report.report
    return {member.pod_uid for member in report.members} | set(report.joined)


def _current_names(view: View) -> set[str]:
    job = view.job
    indices = slots.parse(job.status.workers.indices)
    return {names.worker(job.name, index, job.status.incarnations.get(index, 0)) for index in indices}


def _missing_coordinator(view: View) -> str | None:
    term = view.job.status.membership.term
    name = names.coordinator(view.job.name, term)
    if term == 0 or view.age(Sight.TERM, term) < LAG_SECONDS or any(pod.name == name for pod in view.pods):
        return None
    return name
