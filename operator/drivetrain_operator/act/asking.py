"""Is a pod that the cache lacks really gone? The API server is asked for it by name before anything calls it dead.

A cache shows what a watch told it, filtered by labels that anybody may change: that a pod is not in it proves nothing.
What the API server does not have under its name, or has under another uid, is gone for good: names are used once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from drivetrain_operator.act.creator import fields
from drivetrain_operator.act.memory import JobMemory
from drivetrain_operator.kube.client import KubeClient
from drivetrain_operator.kube.errors import KubeError, NotFound
from drivetrain_operator.kube.resources import PODS, controller_uid
from drivetrain_operator.plan import slots
from drivetrain_operator.plan.observe import pod_view
from drivetrain_operator.plan.policies.coordinator import LAG_SECONDS
from drivetrain_operator.plan.view import JobView, PodView, Sight, View
from drivetrain_operator.render import names

log = logging.getLogger(__name__)

PARALLEL: Final = 16


@dataclass(frozen=True, slots=True)
class Answer:
    """What the API server said of pods that the cache lacks."""

    found: tuple[PodView, ...] = ()
    absent: frozenset[str] = frozenset()
    """Uids and names of those that are gone."""
    failed: bool = False
    """It could not say all: ask again soon."""


class Asking:
    """Answers of the kind "not there" are remembered as long as anybody speaks of the pod: they hold for ever."""

    def __init__(self, client: KubeClient, memory: JobMemory) -> None:
        self._client = client
        self._memory = memory

    async def ask(self, view: View) -> Answer:
        """Look for pods that the view should have. Raises nothing: who cannot be asked for is not called gone."""
        job, memory = view.job, self._memory
        known = memory.pod_names(job.uid, {pod.uid: pod.name for pod in view.pods})
        present = {pod.uid for pod in view.pods}
        current = current_names(job)
        needed = _taking_part(view) | {uid for uid, name in known.items() if name in current}
        leader = _missing_coordinator(view)
        memory.keep_gone(job.uid, needed | current | ({leader} if leader is not None else set()))
        missing = {uid for uid in needed - present if not memory.is_gone(job.uid, uid)}
        wanted = {known[uid] for uid in missing if uid in known}
        if missing - known.keys():
            wanted |= current
        if leader is not None and not memory.is_gone(job.uid, leader):
            wanted.add(leader)
        wanted |= {name for name in _seen_before(job) if not memory.is_gone(job.uid, name)}
        wanted -= {pod.name for pod in view.pods} | {refusal.name for refusal in view.refusals if refusal.certain}
        answers = await self._get(view, sorted(wanted), missing)
        failed = {name for name, answer in answers.items() if isinstance(answer, KubeError)}
        found = tuple(answer for answer in answers.values() if isinstance(answer, PodView))
        gone = missing - {pod.uid for pod in found} - {uid for uid in missing if known.get(uid) in failed}
        if failed and missing - known.keys():
            gone &= known.keys()
        memory.gone(job.uid, gone)
        memory.gone(job.uid, wanted - failed - {pod.name for pod in found})
        if found:
            log.warning(
                "the cache lacks pods that exist; are their labels changed?",
                extra={**fields(job), "pods": ", ".join(pod.name for pod in found)},
            )
        return Answer(found, memory.all_gone(job.uid), bool(failed))

    async def _get(self, view: View, wanted: list[str], missing: set[str]) -> dict[str, PodView | KubeError | None]:
        limit, job = asyncio.Semaphore(PARALLEL), view.job

        async def one(name: str) -> PodView | KubeError | None:
            async with limit:
                try:
                    pod = await self._client.get(PODS, name, job.namespace)
                except NotFound:
                    return None
                except KubeError as error:
                    log.warning("cannot ask for a pod", extra={**fields(job), "pod": name, "error": str(error)})
                    return error
            # The same pod, even if somebody took our name from it; which it is says its name.
            if controller_uid(pod) != job.uid and pod["metadata"]["uid"] not in missing:
                return None
            who = names.identify(job.name, name)
            return replace(pod_view(pod), role=who.role, index=who.index, incarnation=who.incarnation, term=who.term)

        return dict(zip(wanted, await asyncio.gather(*(one(name) for name in wanted)), strict=True))


def _taking_part(view: View) -> set[str]:
    """Uids of pods that the coordinator speaks of."""
    if view.report is None:
        return set()
    report = view.report.report
    return {member.pod_uid for member in report.members} | set(report.joined)


def current_names(job: JobView) -> set[str]:
    """Of the worker pods that status wants."""
    return _names(job, slots.parse(job.status.workers.indices))


def _seen_before(job: JobView) -> set[str]:
    """Worker pods that some operator has seen, perhaps not this process: it may have been started since they went."""
    return set() if job.status.finished else _names(job, slots.parse(job.status.workers.seen))


def _names(job: JobView, indices: Iterable[int]) -> set[str]:
    used = job.status.incarnations
    return {names.worker(job.name, names.of(job.status), index, used.get(index, 0)) for index in indices}


def _missing_coordinator(view: View) -> str | None:
    term = view.job.status.membership.term
    if term == 0 or view.age(Sight.TERM, term) < LAG_SECONDS or any(pod.term == term for pod in view.pods):
        return None
    return names.coordinator(view.job.name, names.of(view.job.status), term)
