"""What launchers count, and coordinators show to Prometheus. A closed list, or launchers could name metrics."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator

from drivetrain_api.bounds import MAX_TOLD

LAUNCHER_COUNTERS: Final = {
    "recomputed_steps": "Steps that were interrupted in a process and tried again there.",
    "redone_steps": "Steps that a peer had committed and a member had not: taken over with the peer's state.",
    "joins": "Newcomers that got the state of a membership.",
    "states_received": "States that processes took over from a peer.",
    "skipped_steps": "Steps without an update, such as those whose gradient overflowed fp16.",
    "corruptions": "Ranks that held other bits than their peers, and took the state of one.",
    "memberships": "Memberships that processes took part in.",
    "abandoned_operations": "Collective operations that were left to themselves because a peer was lost.",
    "payload_bytes": "What ranks sent to one another, without protocol overhead.",
}
"""Name of the metric without its prefix and suffix, and what it says. All are summed over the launchers of a job."""


def _known(told: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in told.items() if 0 <= value <= MAX_TOLD}


def _named(told: Any) -> Any:
    return {name: told[name] for name in LAUNCHER_COUNTERS if name in told} if isinstance(told, dict) else told


Counters = Annotated[dict[str, float], BeforeValidator(_named), AfterValidator(_known)]
"""Those that are known and possible; newer images may tell more."""
