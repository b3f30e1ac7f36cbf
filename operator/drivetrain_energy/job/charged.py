"""What does switching take off slots that were given out as if it took nothing? A run begins with the seconds of its
start, each other size costs a resize, and before a rest workers take their time to end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from drivetrain_energy.job.plan import PlanSlot
from drivetrain_energy.job.request import Request


def charged(slots: Sequence[PlanSlot], request: Request) -> tuple[list[PlanSlot], float]:
    """The same slots with the progress that is left, and the steps that are lost."""
    switch, found, steps = request.switch, list[PlanSlot](), 0.0
    has, lost = None if request.running_since is not None else 0, 0.0
    for at, slot in enumerate(slots):
        if not slot.workers:
            has, lost = 0, 0.0
            found.append(slot)
            continue
        if has is not None and slot.workers != has:
            lost += switch.resume if not has else switch.resize
        has, seconds = slot.workers, slot.end - slot.start
        idle = min(lost, seconds)
        lost -= idle
        if at + 1 < len(slots) and not slots[at + 1].workers:
            idle = min(seconds, idle + switch.suspend)
        steps += slot.throughput * idle
        found.append(replace(slot, throughput=slot.throughput * (seconds - idle) / seconds) if idle else slot)
    return found, steps


__all__ = ["charged"]
