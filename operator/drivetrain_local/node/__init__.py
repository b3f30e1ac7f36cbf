"""A node without a container runtime: pods become processes of this machine.

    agent = NodeAgent(client, token, NodeConfig(name="node-0", state=path))
    task = asyncio.create_task(agent.run())
    agent.lose(); agent.freeze(); agent.thaw()        # faults

What a pod gets: its own loopback address, environment, arguments, volumes below `$DRIVETRAIN_POD_ROOT`, logs, exit
codes, SIGTERM and grace, restarts, readiness. What it does not get: a file system, a network or a process table of its
own, resource limits, DNS, liveness probes, lifecycle hooks, activeDeadlineSeconds.
"""

from __future__ import annotations

from drivetrain_local.node.agent import NodeAgent, NodeConfig
from drivetrain_local.node.images import Image, default_images

__all__ = ["Image", "NodeAgent", "NodeConfig", "default_images"]
