"""Deadline first: is the time that is left just what the work takes at full speed?

Asked at every tick with what was measured last; whoever is told yes runs flat out, whatever carbon or budget say.
"""

from __future__ import annotations

from drivetrain_energy.hull import fastest
from drivetrain_energy.request import Request


def must_run(request: Request, deadline: float) -> bool:
    """True from the moment on when work and margin, at the highest throughput, fill the time before the reserve."""
    return slack(request, deadline) <= 0


def slack(request: Request, deadline: float) -> float:
    """Seconds that the job may still stand still, before it has to run flat out; below 0: the reserve is being used."""
    rate = fastest(request.curve).throughput
    starting = 0.0 if request.running_since is not None else request.switch.resume
    takes = starting + request.work_steps * (1 + request.margin) / rate
    return deadline - request.reserve - request.now - takes


__all__ = ["must_run", "slack"]
