"""PURE: who took this pod, and how is that said?

A *departure* is the loss of a worker for which nobody's program is to blame: a drain, a preemption, a lost node, a
person's delete. It costs no restart, and it is told and kept like a failure: whoever looks later saw nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from drivetrain_api.status import MAX_DEPARTED, MAX_DEPARTURES, DepartedPod, DepartureStatus, ReplacedFor
from drivetrain_operator.plan.causes import Cause, last_line, pod_cause
from drivetrain_operator.plan.conditions import clip, stamp
from drivetrain_operator.plan.view import PodView

MESSAGE_LIMIT: Final = 512
TOGETHER: Final = timedelta(seconds=30)
"""Pods that are taken for one cause with no longer pause than this are one entry."""

_SAID: Final = {
    "EvictionByEvictionAPI": "evicted through the API, as a drain does",
    "PreemptionByScheduler": "preempted for a pod of higher priority",
    "DeletionByTaintManager": "its node has a taint that it does not tolerate, such as unreachable or not-ready",
    "DeletionByPodGC": "its node is gone",
    "TerminationByKubelet": "its kubelet ended it: the node shuts down, or lacks room",
    "NodeLost": "its node does not answer any more",
}
"""Kubernetes' word, for a person."""
DELETED: Final = Cause("Deleted", "somebody deleted it, and Kubernetes does not say who", disruption=True)
GONE: Final = Cause("Gone", "deleted by force, or with its node: it vanished without a word", disruption=True)
UNSEEN: Final = Cause("Gone", "deleted, or gone with its node, while no operator looked", disruption=True)
_TOLD_TO_GO: Final = ("Left", "Stopped", "Killed")
"""How a pod ends that was deleted: by itself, or with SIGKILL when its grace is over."""


@dataclass(frozen=True, slots=True)
class Departed:
    """A pod that was taken, and why."""

    pod: DepartedPod
    cause: Cause


def taken(pod: PodView) -> Cause | None:
    """Why a worker pod that is not live was taken; None if it ended by itself, and is a failure."""
    if pod.over:
        cause = pod_cause(pod)
        if pod.deleting and cause.reason in _TOLD_TO_GO:
            return DELETED
        return _in_words(cause) if cause.disruption else None
    reason = pod.disruption or pod.reason
    return _in_words(Cause(reason, pod.message, disruption=True)) if reason else DELETED


def departed(pod: PodView, cause: Cause) -> Departed:
    """For status."""
    return Departed(DepartedPod(name=pod.name, node=pod.node[:253]), cause)


def grouped(news: Iterable[Departed], now: datetime) -> tuple[DepartureStatus, ...]:
    """Those of one cause are one entry, however many they are."""
    groups: dict[str, list[Departed]] = {}
    for each in news:
        groups.setdefault(each.cause.reason, []).append(each)
    return tuple(
        DepartureStatus(
            time=stamp(now),
            reason=reason[:64],
            message=clip(group[0].cause.message, MESSAGE_LIMIT),
            count=len(group),
            pods=[each.pod for each in group[:MAX_DEPARTED]],
        )
        for reason, group in groups.items()
    )


def kept(before: Sequence[DepartureStatus], news: Iterable[DepartureStatus]) -> list[DepartureStatus]:
    """What of these status keeps, oldest first. A drain of a thousand workers is seen in many passes, and is one."""
    entries = list(before)
    for each in news:
        same = next((e for e in entries if e.reason == each.reason and abs(each.time - e.time) <= TOGETHER), None)
        if same is not None:
            entries.remove(same)
            pods = [*same.pods, *each.pods][:MAX_DEPARTED]
            each = each.model_copy(update={"count": same.count + each.count, "pods": pods})
        entries.append(each)
    return entries[-MAX_DEPARTURES:]


def summary(departure: DepartureStatus) -> str:
    """One line for events, and for Ready while a successor is on its way."""
    named = ", ".join(f"{pod.name} on {pod.node}" if pod.node else pod.name for pod in departure.pods)
    more = f" and {departure.count - len(departure.pods)} more" if departure.count > len(departure.pods) else ""
    return f"{named}{more}: {departure.message}"


REPLACED: Final = {
    ReplacedFor.GONE: "its pod is gone from the API server",
    ReplacedFor.NOT_READY: "it was silent, and by the kubelet's word it does not answer, or its node is gone",
    ReplacedFor.UNREACHABLE: "it was silent, and its workers' launchers lost it",
    ReplacedFor.NO_NODE: "it was to avoid a node, and no other was left",
}
"""How a coordinator was lost that cannot be asked."""


def how_it_was_lost(reason: ReplacedFor, pod: PodView | None) -> str:
    """A coordinator that has a successor, as it was seen last, if it was."""
    if pod is not None and (reason in (ReplacedFor.ENDED, ReplacedFor.DELETED) or pod.disruption or pod.reason):
        return _how_it_ended(pod)
    where = f" (on {pod.node})" if pod is not None and pod.node else ""
    return REPLACED.get(reason, "") + where


def _how_it_ended(pod: PodView) -> str:
    """A coordinator's end: what became of it, and where."""
    where = f" (on {pod.node})" if pod.node else ""
    ended = pod.terminated
    reason = pod.disruption or pod.reason
    if reason:
        word = _in_words(Cause(reason, pod.message, disruption=True)).message
        return f"{reason}: {word}{where}"
    if not pod.over:
        return f"its pod was deleted, and Kubernetes does not say by whom{where}"
    if ended is None:
        return f"its pod failed without saying why{where}"
    how = f"signal {ended.signal}" if ended.signal else f"exit code {ended.exit_code}"
    word = f"{ended.reason}, {how}" if ended.reason not in ("", "Error", "Completed") else how
    last = last_line(ended.message)
    return f"its container ended with {word}{where}" + (f"; its last words: {last}" if last else "")


def _in_words(cause: Cause) -> Cause:
    said = _SAID.get(cause.reason)
    if said is None:
        return cause if cause.message else replace(cause, message="the platform took it")
    detail = cause.message if cause.message not in ("", "the platform took the pod") else ""
    return replace(cause, message=f"{said} ({detail})" if detail else said)


__all__ = [
    "DELETED",
    "GONE",
    "UNSEEN",
    "Departed",
    "departed",
    "grouped",
    "how_it_was_lost",
    "kept",
    "summary",
    "taken",
]
