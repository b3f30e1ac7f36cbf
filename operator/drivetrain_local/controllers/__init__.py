"""What a control plane does besides storing: place pods, notice dead nodes, make Services reachable.

Each is a task over `Mirror`s that speaks HTTP, as its Kubernetes counterpart does.
"""

from __future__ import annotations

from drivetrain_local.controllers.nodes import NodeLifecycle
from drivetrain_local.controllers.proxy import ServiceProxy
from drivetrain_local.controllers.scheduler import Scheduler

__all__ = ["NodeLifecycle", "Scheduler", "ServiceProxy"]
