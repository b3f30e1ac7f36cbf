"""PURE: does status still hold? What it says was true when an operator wrote it; pods and a Lease say more of now.

Each difference is one sentence. None of them says that anything is wrong with the training: it needs neither operator
nor coordinator to go on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from drivetrain_api.constants import LABEL_ROLE, LABEL_TERM, ROLE_COORDINATOR, ROLE_WORKER

Json = dict[str, Any]
ACTIVE: Final = ("Pending", "Running", "Waiting")


@dataclass(frozen=True, slots=True)
class Look:
    """A Lease as it was seen once."""

    version: str
    holder: str
    renewed: datetime | None
    """By the clock of the operator that wrote it."""
    duration: float
    at: datetime | None
    """When it was looked at, by the API server's clock. This machine's has no part in it."""

    @property
    def overdue(self) -> float | None:
        """About how many seconds ago it was renewed last, if that is too long ago."""
        if self.renewed is None or self.at is None:
            return None
        seconds = (self.at - self.renewed).total_seconds()
        return seconds if seconds > self.duration else None


def away(lease: str, first: Look, second: Look) -> str | None:
    """That no operator renews this Lease, if both looks show it: the clocks of API server and operator may differ, but
    an operator that is there renews it between the two."""
    overdue = second.overdue
    if overdue is None or first.version != second.version:
        return None
    if not second.holder:
        return f"No operator leads: its Lease {lease} has been free for about {overdue:.0f} s. {_SO}"
    return f"The operator has not renewed its Lease {lease} for about {overdue:.0f} s. {_SO}"


_SO: Final = (
    "What status says is what it knew then. Training needs no operator, but what is lost meanwhile is not replaced."
)


def differences(job: Json, pods: Sequence[Json]) -> list[str]:
    """What pods show that status does not say (yet)."""
    status = job.get("status") or {}
    if status.get("phase") not in ACTIVE:
        return []
    return [*_workers(status, pods), *_coordinator(status, pods)]


def _workers(status: Json, pods: Sequence[Json]) -> list[str]:
    counts = status.get("workers") or {}
    current, ready = counts.get("current", 0), counts.get("ready", 0)
    live = [pod for pod in pods if _role(pod) == ROLE_WORKER and _live(pod)]
    run = sum((pod.get("status") or {}).get("phase") == "Running" for pod in live)
    if current == len(live) and ready <= run:
        return []
    are = "is" if len(live) == 1 else "are"
    return [
        f"Status counts {_pods(current)}, {ready} of them ready; now there {are} {len(live)}, {run} of them running."
    ]


def _coordinator(status: Json, pods: Sequence[Json]) -> list[str]:
    term = (status.get("membership") or {}).get("term", 0)
    if not term:
        return []
    found = [
        pod
        for pod in pods
        if _role(pod) == ROLE_COORDINATOR and (pod["metadata"].get("labels") or {}).get(LABEL_TERM) == str(term)
    ]
    missing = "training goes on without it, and nobody reports"
    if not found:
        return [f"The coordinator of term {term} has no pod now: {missing}."]
    name, phase = found[0]["metadata"]["name"], (found[0].get("status") or {}).get("phase") or "Pending"
    if found[0]["metadata"].get("deletionTimestamp"):
        return [f"The coordinator's pod {name} is being deleted: {missing}."]
    if phase != "Running":
        return [f"The coordinator's pod {name} does not run, it is {phase}: {missing}."]
    if not _ready(found[0]):
        return [f"The coordinator's pod {name} is not ready, by its kubelet's word."]
    return []


def _pods(count: int) -> str:
    return f"{count} worker pod{'s' if count != 1 else ''}"


def _role(pod: Json) -> str:
    return str((pod["metadata"].get("labels") or {}).get(LABEL_ROLE, ""))


def _live(pod: Json) -> bool:
    """As the operator counts them."""
    over = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
    return not over and not pod["metadata"].get("deletionTimestamp")


def _ready(pod: Json) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return all(c.get("status") == "True" for c in conditions if c.get("type") == "Ready")


class Doubts:
    """Sentences that have been true for a while: for a moment, status is always late."""

    def __init__(self, seconds: float = 5.0) -> None:
        self._seconds = seconds
        self._since: dict[str, float] = {}

    def standing(self, sentences: Iterable[str], now: float) -> list[str]:
        """Those that were true in each look of the last seconds."""
        self._since = {sentence: self._since.get(sentence, now) for sentence in sentences}
        return [sentence for sentence, since in self._since.items() if now - since >= self._seconds]


__all__ = ["ACTIVE", "Doubts", "Look", "away", "differences"]
