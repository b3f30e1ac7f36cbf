"""`drivetrain up`, `down`, and `status` without a job: the embedded plane, with an operator in it."""

from __future__ import annotations

import argparse
import asyncio
import shlex
from pathlib import Path
from typing import Any

from drivetrain_cli import plane
from drivetrain_cli.errors import Exit, UsageError
from drivetrain_cli.invocation import command, example
from drivetrain_energy.settings import read


def add_commands(commands: Any) -> None:
    """Add `up` and `down`."""
    up = commands.add_parser("up", help="start the embedded plane: jobs on this machine, no Kubernetes, no root")
    up.add_argument("--nodes", type=int, default=1, help="nodes that this machine plays (default: %(default)s)")
    up.add_argument("--gpus", type=int, default=0, help="fake nvidia.com/gpu capacity of each (default: %(default)s)")
    up.add_argument("--energy", type=Path, help="folder with energy.yaml, and the traces and credentials that it names")
    up.set_defaults(command=_up)
    down = commands.add_parser("down", help="end the embedded plane and everything in it")
    down.set_defaults(command=_down)
    for parser in (up, down):
        add_state(parser)


def add_state(parser: argparse.ArgumentParser) -> None:
    """The flag that says which embedded plane."""
    parser.add_argument(
        "--state", type=Path, default=plane.default_state(), help="folder of the embedded plane (default: %(default)s)"
    )


def _up(arguments: argparse.Namespace) -> int:
    if arguments.nodes < 1:
        raise UsageError("--nodes: at least 1")
    if arguments.gpus < 0:
        raise UsageError("--gpus: at least 0")
    energy = arguments.energy.resolve() if arguments.energy is not None else None
    if energy is not None:
        _check_energy(energy)
    kubeconfig = asyncio.run(plane.start(arguments.state, nodes=arguments.nodes, gpus=arguments.gpus, energy=energy))
    print("The embedded plane runs. For kubectl and everything else:\n")
    print(f"  export KUBECONFIG={shlex.quote(str(kubeconfig))}\n")
    print("Next:")
    ours = command()
    steps = (
        (f"{ours} run --workers 3 --steps 100 {example()}", "a script as a job, followed here"),
        ("kubectl get tj -w", "jobs as they change (in another terminal)"),
        (f"{ours} doctor", "what of torch, GPUs and images is usable here"),
    )
    width = max(len(line) for line, _ in steps)
    for line, text in steps:
        print(f"  {line:<{width}}   # {text}")
    print(f"\n{ours} down ends it.")
    return Exit.OK


def _check_energy(folder: Path) -> None:
    """Raises UsageError, with the field's name."""
    try:
        read((folder / "energy.yaml").read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"--energy: {folder / 'energy.yaml'}: {error}") from None


def _down(arguments: argparse.Namespace) -> int:
    state = arguments.state.resolve()
    was_running = any(plane.processes(state).values())
    plane.stop(state)
    print("The embedded plane is down, no process is left." if was_running else "The embedded plane was not running.")
    return Exit.OK


def status(arguments: argparse.Namespace) -> int:
    """Which processes of the embedded plane run? 1: not all."""
    state = arguments.state.resolve()
    found = plane.processes(state)
    if not found:
        print(f"The embedded plane does not run ({command()} up starts it).")
        return Exit.FAILED
    for name, pid in found.items():
        print(f"{name:<12} {f'pid {pid}' if pid else f'not running; log: {state}/logs/{name}.log'}")
    if kubeconfig := plane.running(state):
        print(f"\nexport KUBECONFIG={shlex.quote(str(kubeconfig))}")
    return Exit.OK if all(found.values()) else Exit.FAILED
