"""`python -m drivetrain_local.node`: nodes, scheduler, node lifecycle and service proxy in one process."""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Coroutine
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from drivetrain_api.logs import LogSettings, configure, from_environment
from drivetrain_local.address import Plane
from drivetrain_local.client import Client
from drivetrain_local.controllers import NodeLifecycle, Scheduler, ServiceProxy
from drivetrain_local.node import NodeAgent, NodeConfig, default_images
from drivetrain_local.node.images import parse_image
from drivetrain_local.signals import until_told_to_stop


async def _run(args: argparse.Namespace) -> None:
    config = yaml.safe_load(args.kubeconfig.read_text())
    token = config["users"][0]["user"]["token"]
    plane = Plane.of_host(urlsplit(config["clusters"][0]["cluster"]["server"]).hostname or "")
    client = Client.from_kubeconfig(args.kubeconfig, user_agent="drivetrain-local-node")
    images = default_images() | dict(args.image)
    agents = [
        NodeAgent(
            client,
            token,
            NodeConfig(
                name=f"node-{index}",
                state=args.state / "nodes",
                claims=args.state / "volumes",
                pod_cidr=plane.pod_cidr(index),
                cpu=args.cpu,
                gpus=args.gpus,
                images=images,
            ),
        )
        for index in range(args.nodes)
    ]
    work: list[Coroutine[Any, Any, None]] = [agent.run() for agent in agents]
    lifecycle = NodeLifecycle(client, grace_seconds=args.node_grace)
    work += [Scheduler(client).run(), ServiceProxy(client).run(), lifecycle.run()]
    tasks = [asyncio.create_task(coroutine) for coroutine in work]
    stop = asyncio.create_task(until_told_to_stop())
    try:
        done, _ = await asyncio.wait([stop, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            # None of them ever returns by itself: this raises what went wrong.
            task.result()
    finally:
        for task in [stop, *tasks]:
            task.cancel()
        await asyncio.wait([stop, *tasks])
        await client.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="drivetrain-local-node", description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, required=True, help="written by the API server")
    parser.add_argument("--state", type=Path, required=True, help="directory of this plane; pods live below it")
    parser.add_argument("--nodes", type=int, default=1, help="how many nodes this machine plays")
    parser.add_argument("--cpu", default="", help="allocatable CPU of each node (default: this machine's)")
    parser.add_argument("--gpus", type=int, default=0, help="fake nvidia.com/gpu capacity of each node")
    parser.add_argument("--node-grace", type=float, default=40.0, help="seconds of silence until a node is Unknown")
    parser.add_argument(
        "--image", type=parse_image, action="append", default=[], help='NAME=["argv", ...]: how an image is run'
    )
    args = parser.parse_args()
    configure("node", from_environment(os.environ, LogSettings(level="warning")))
    asyncio.run(_run(args))


if __name__ == "__main__":
    main()
