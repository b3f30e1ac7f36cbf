"""How does the embedded plane come up with an operator in it? `start`, `stop`, `processes`."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import aiohttp
import yaml

from drivetrain_api.constants import METRICS_PORT
from drivetrain_api.crd import custom_resource_definition
from drivetrain_cli.errors import CliError
from drivetrain_local import up as local
from drivetrain_local.daemon import Daemon

OPERATOR = "operator"
POWER_LIMITS = "drivetrain-power-limits"
_READY_SECONDS = 30.0
_POLL_SECONDS = 0.05

default_state = local.default_state
processes = local.status
stop = local.down


async def start(state: Path, *, nodes: int = 1, gpus: int = 0, energy: Path | None = None) -> Path:
    """Start what does not run: API server, nodes, operator. Returns the kubeconfig. Raises CliError.

    `energy`: absolute path of a folder with energy.yaml, and the traces and credentials that it names.
    """
    # One person's machine, and one namespace for all.
    argv = [sys.executable, "-m", "drivetrain_operator.main", "--allow-own-namespace"]
    argv += ["--power-limits", POWER_LIMITS]
    if energy is not None:
        argv += ["--energy-settings", str(energy / "energy.yaml")]
        argv += ["--energy-traces", str(energy), "--energy-credentials", str(energy)]
    try:
        state, crd = _prepared(state)
        options = local.Options(state, nodes=nodes, gpus=gpus, crds=[crd], commands=[(OPERATOR, argv)])
        kubeconfig = await local.up(options)
    except local.PlaneError as error:
        raise CliError(str(error)) from error
    except OSError as error:
        raise CliError(f"the embedded plane cannot use {state}: {error}; choose another with --state") from error
    await _operator_ready(state, kubeconfig)
    return kubeconfig


def _prepared(state: Path) -> tuple[Path, Path]:
    """The state folder, made, and in it the CRD of this very release."""
    state = state.resolve()
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    crd = state / "crd.yaml"
    crd.write_text(yaml.safe_dump(custom_resource_definition(), sort_keys=False))
    return state, crd


def running(state: Path) -> Path | None:
    """The kubeconfig of the plane in `state`, if it runs."""
    kubeconfig = state.resolve() / "kubeconfig"
    alive = processes(state.resolve())
    return kubeconfig if alive and all(alive.values()) and kubeconfig.exists() else None


async def _operator_ready(state: Path, kubeconfig: Path) -> None:
    """Until it answers /readyz. One that ends at once (a wrong Python, a taken port) is told with its log."""
    operator = Daemon(state, OPERATOR)
    url = f"http://{local.plane_of(kubeconfig).command_host(0)}:{METRICS_PORT}/readyz"
    deadline = time.monotonic() + _READY_SECONDS
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2.0)) as session:
        while True:
            try:
                async with session.get(url) as answer:
                    if answer.status == 200:
                        return
            except (aiohttp.ClientError, TimeoutError):
                pass  # not listening yet
            if not operator.pid() or time.monotonic() > deadline:
                raise CliError(
                    f"the operator did not become ready; its log ({operator.logfile}):\n{operator.log_tail()}"
                )
            await asyncio.sleep(_POLL_SECONDS)
