"""Deadline first: is the time that is left just what the work takes at full speed?

Asked at every tick with what was measured last; whoever is told yes runs flat out, whatever carbon or budget say.
"""

from __future__ import annotations

from drivetrain_energy.job.held import ways
from drivetrain_energy.job.hull import fastest
from drivetrain_energy.job.request import Request


def must_run(request: Request, deadline: float) -> bool:
    """True from the moment on when work and margin, at the highest throughput, fill the time before the reserve."""
    return slack(request, deadline) <= 0


def slack(request: Request, deadline: float) -> float:
    """Seconds that the job may still stand still, before it has to run flat out; below 0: the reserve is being used.
    While it is held back, flat out is what it may do then."""
    rate, work = fastest(request.curve).throughput, request.work_steps * (1 + request.margin)
    starting = 0.0 if request.running_since is not None else request.switch.resume
    end, held = deadline - request.reserve, request.held
    if held is None or held.until <= request.now or end <= request.now:
        return end - request.now - starting - work / rate
    until = min(held.until, end)
    slow = max((point.throughput for point in ways(request.curve, held)), default=0.0)
    while_held = slow * max(0.0, until - request.now - starting)
    spare = while_held + rate * (end - until) - work
    if spare <= 0:
        return spare / rate
    return spare / slow if spare <= while_held else until - request.now + (spare - while_held) / rate


__all__ = ["must_run", "slack"]
