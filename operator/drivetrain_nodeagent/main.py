"""Entry: the guardian, which starts this again with --agent."""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import logging
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from drivetrain_api import logs
from drivetrain_api.exit_codes import ExitCode
from drivetrain_api.logline import LogFormat
from drivetrain_api.logs import LogSettings, LogSettingsError
from drivetrain_nodeagent.errors import AgentError, NvmlMissing
from drivetrain_nodeagent.guardian import guard
from drivetrain_nodeagent.journal import Journal
from drivetrain_nodeagent.limits import Limits
from drivetrain_nodeagent.nvml import LIBRARY, Nvml

logger = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1


def main(arguments: Sequence[str] | None = None, env: Mapping[str, str] = os.environ) -> int:
    """Serve until SIGTERM (0), or say what is missing (64)."""
    parser = argparse.ArgumentParser(
        prog="drivetrain-nodeagent",
        description="Reads what this node draws, and sets GPUs' power limits (docs/energy-power.md).",
    )
    parser.add_argument("--node", default=env.get("NODE_NAME"), help="this node's name (default: $NODE_NAME)")
    parser.add_argument(
        "--namespace", default=env.get("POD_NAMESPACE"), help="the operator's (default: $POD_NAMESPACE)"
    )
    parser.add_argument(
        "--journal",
        type=Path,
        default=Path("/var/lib/drivetrain-nodeagent/limits.json"),
        help="what was changed, on the node's disk (default: %(default)s)",
    )
    parser.add_argument(
        "--nvml",
        default=env.get("DRIVETRAIN_NVML", LIBRARY),
        help="NVIDIA's library (default: $DRIVETRAIN_NVML or %(default)s)",
    )
    parser.add_argument("--host", default="0.0.0.0", help="address of /metrics and /healthz (default: %(default)s)")
    parser.add_argument("--port", type=int, default=7072, help="their port; 0 picks one (default: %(default)s)")
    parser.add_argument("--sys", type=Path, default=Path("/sys"), help="(default: %(default)s)")
    parser.add_argument("--proc", type=Path, default=Path("/proc"), help="(default: %(default)s)")
    parser.add_argument("--agent", type=int, metavar="GUARDIAN", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    try:
        logs.configure("nodeagent", logs.from_environment(env, LogSettings(LogFormat.AUTO)), {"node": given.node})
        for name in ("node", "namespace"):
            if not getattr(given, name):
                raise AgentError(f"--{name} is not given")
        if given.agent is not None:
            asyncio.run(_serve(given))
            return 0
        command = [
            sys.executable,
            "-m",
            "drivetrain_nodeagent.main",
            *(sys.argv[1:] if arguments is None else arguments),
        ]
        return guard([*command, "--agent", str(os.getpid())], given.journal, given.nvml)
    except (AgentError, LogSettingsError) as error:
        print(f"drivetrain-nodeagent: {error}", file=sys.stderr)
        return int(ExitCode.USAGE)


async def _serve(given: argparse.Namespace) -> None:
    # Here, because the guardian has to stay small.
    from drivetrain_nodeagent.agent import Agent
    from drivetrain_nodeagent.node import Node
    from drivetrain_operator.clock import SystemClock
    from drivetrain_operator.kube.auth import find_credentials
    from drivetrain_operator.kube.client import KubeClient
    from drivetrain_operator.kube.errors import CredentialsError

    _die_with(given.agent)
    try:
        nvml: Nvml | None = Nvml(given.nvml)
    except NvmlMissing as error:
        logger.warning("no GPUs here", extra={"why": str(error)})
        nvml = None
    limits = Limits(nvml, Journal(given.journal)) if nvml is not None else None
    clock = SystemClock()
    try:
        credentials = find_credentials(clock)
    except CredentialsError as error:
        raise AgentError(str(error)) from error
    async with KubeClient(credentials, clock, user_agent="drivetrain-nodeagent") as client:
        agent = Agent(Node(nvml, limits, given.sys, given.proc, time.time), client, given.namespace, given.node)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, agent.stop)
        await agent.run(given.host, given.port)


def _die_with(guardian: int) -> None:
    """If it is killed it takes us with it: nobody would give back what we set. Raises AgentError if it was already."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != guardian:
        raise AgentError("the process that started it is gone")


if __name__ == "__main__":
    sys.exit(main())
