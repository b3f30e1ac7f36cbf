"""How does a person start and stop the plane? `python -m drivetrain_local.up {up|down|status}`.

`up` starts what does not run yet (API server, node process, the commands of --run) and returns when the nodes are
Ready; a second `up` changes nothing. `down` ends every process and leaves none, also none of a pod. All state stands
in one directory: ${DRIVETRAIN_STATE:-${XDG_STATE_HOME:-~/.local/state}}/drivetrain/local.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from drivetrain_local.address import Plane
from drivetrain_local.client import RETRYABLE, Client
from drivetrain_local.daemon import Daemon
from drivetrain_local.node import strays
from drivetrain_local.node.images import python_environment
from drivetrain_local.objects import dig

_READY_SECONDS = 30.0
_STOP_SECONDS = 10.0
_POLL_SECONDS = 0.05
_APISERVER, _NODE = "apiserver", "node"


class PlaneError(Exception):
    """The plane did not come up; the message has the log of the process that failed."""


@dataclass(frozen=True)
class Options:
    """What to start. `commands` are (name, argv); each gets KUBECONFIG, and POD_IP as an address to listen on."""

    state: Path
    nodes: int = 1
    cpu: str = ""
    gpus: int = 0
    crds: Sequence[Path] = ()
    images: Sequence[str] = ()
    commands: Sequence[tuple[str, Sequence[str]]] = ()
    env: dict[str, str] = field(default_factory=dict)
    """Added to the environment of the commands."""


def default_state() -> Path:
    """Where the state is kept unless told otherwise."""
    if chosen := os.environ.get("DRIVETRAIN_STATE"):
        base = Path(chosen)
    else:
        base = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return base / "drivetrain" / "local"


async def up(options: Options) -> Path:
    """Start what does not run. Returns the kubeconfig. Raises PlaneError."""
    state = options.state
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    _must_be_ours(state)
    with _locked(state):
        kubeconfig = state / "kubeconfig"
        server = Daemon(state, _APISERVER)
        if not server.pid():
            # Nodes and commands of a lost server know nothing that the new one could use.
            _stop_all(state)
            kubeconfig.unlink(missing_ok=True)
        crds = [argument for path in options.crds for argument in ("--crds", str(path.resolve()))]
        server.start(_python("drivetrain_local.apiserver", "--state", str(state), *crds), _environment())
        await _until(kubeconfig.exists, server, "the API server did not start")
        node_flags = ["--nodes", str(options.nodes), "--cpu", options.cpu, "--gpus", str(options.gpus)]
        node_flags += [argument for image in options.images for argument in ("--image", image)]
        node_argv = _python(
            "drivetrain_local.node", "--kubeconfig", str(kubeconfig), "--state", str(state), *node_flags
        )
        node = Daemon(state, _NODE)
        node.start(node_argv, _environment())
        await _nodes_ready(kubeconfig, options.nodes, node)
        plane = plane_of(kubeconfig)
        for index, (name, argv) in enumerate(options.commands):
            env = {"KUBECONFIG": str(kubeconfig), "POD_IP": plane.command_host(index), **options.env}
            Daemon(state, name).start(argv, _environment() | env)
        return kubeconfig


def _must_be_ours(state: Path) -> None:
    """Whoever can write here decides which token is believed and which files pods are given."""
    found = state.stat()
    if os.geteuid() not in (0, found.st_uid):
        raise PlaneError(f"{state} belongs to somebody else: choose another folder")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PlaneError(f"others can write in {state}: `chmod go-w` it, or choose another folder")


def down(state: Path, *, purge: bool = True) -> None:
    """End every process of the plane; with `purge`, also remove what pods and server left on disk (logs stay)."""
    if not state.exists():
        return
    with _locked(state):
        _stop_all(state)
        if purge:
            shutil.rmtree(state / "nodes", ignore_errors=True)
            (state / "kubeconfig").unlink(missing_ok=True)


def status(state: Path) -> dict[str, int]:
    """The pid of each process that was started, 0 for one that does not run."""
    return {name: Daemon(state, name).pid() for name in _names(state)}


def plane_of(kubeconfig: Path) -> Plane:
    """The addresses of the plane behind a kubeconfig."""
    server = yaml.safe_load(kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
    return Plane.of_host(urlsplit(server).hostname or "")


def _stop_all(state: Path) -> None:
    """Commands first, so that nothing acts on a dying plane; then nodes, then the server."""
    names = _names(state)
    commands = [name for name in names if name not in (_APISERVER, _NODE)]
    for name in [*commands, _NODE, _APISERVER]:
        Daemon(state, name).stop(_STOP_SECONDS)
    for directory in sorted((state / "nodes").glob("*")):
        strays.kill_marked(strays.mark(directory))


def _names(state: Path) -> list[str]:
    return sorted(file.stem for file in (state / "run").glob("*.json"))


def _python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


def _environment() -> dict[str, str]:
    """This environment, with our own packages importable from wherever the process starts."""
    return {**os.environ, **python_environment()}


async def _nodes_ready(kubeconfig: Path, count: int, node: Daemon) -> None:
    client = Client.from_kubeconfig(kubeconfig, user_agent="drivetrain-local-up")
    try:
        ready = 0
        deadline = time.monotonic() + _READY_SECONDS
        while ready < count:
            if time.monotonic() > deadline or not node.pid():
                raise PlaneError(f"{ready} of {count} nodes are Ready; log of the node process:\n{node.log_tail()}")
            with contextlib.suppress(*RETRYABLE):
                nodes = (await client.get("/api/v1/nodes"))["items"]
                conditions = [c for item in nodes for c in dig(item, "status", "conditions", default=[])]
                ready = sum(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
            if ready < count:
                await asyncio.sleep(_POLL_SECONDS)
    finally:
        await client.close()


async def _until(reached: Callable[[], bool], daemon: Daemon, failure: str) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while not reached():
        if time.monotonic() > deadline or not daemon.pid():
            raise PlaneError(f"{failure}; its log:\n{daemon.log_tail()}")
        await asyncio.sleep(_POLL_SECONDS)


@contextlib.contextmanager
def _locked(state: Path) -> Iterator[None]:
    """One `up` or `down` at a time."""
    with (state / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _command(text: str) -> tuple[str, list[str]]:
    name, equals, argv = text.partition("=")
    parsed = json.loads(argv) if equals else None
    if not name or not isinstance(parsed, list) or not all(isinstance(part, str) for part in parsed):
        raise argparse.ArgumentTypeError(f'--run {text!r}: want NAME=["argv", ...]')
    return name, parsed


def main() -> None:
    parser = argparse.ArgumentParser(prog="drivetrain-local", description=__doc__)
    parser.add_argument("action", choices=("up", "down", "status"))
    parser.add_argument("--state", type=Path, default=default_state(), help="directory of this plane")
    parser.add_argument("--nodes", type=int, default=1, help="how many nodes this machine plays")
    parser.add_argument("--cpu", default="", help="allocatable CPU of each node (default: this machine's)")
    parser.add_argument("--gpus", type=int, default=0, help="fake nvidia.com/gpu capacity of each node")
    parser.add_argument("--crds", type=Path, action="append", default=[], help="file or directory of CRDs to serve")
    parser.add_argument("--image", action="append", default=[], help='NAME=["argv", ...]: how an image is run')
    parser.add_argument(
        "--run",
        type=_command,
        action="append",
        default=[],
        help='NAME=["argv", ...]: one more process, e.g. the operator',
    )
    args = parser.parse_args()
    state: Path = args.state.resolve()
    if args.action == "up":
        options = Options(state, args.nodes, args.cpu, args.gpus, args.crds, args.image, args.run)
        try:
            print(f"export KUBECONFIG={asyncio.run(up(options))}")
        except PlaneError as error:
            sys.exit(f"drivetrain-local: {error}")
    elif args.action == "down":
        down(state)
    else:
        found = status(state)
        for name, pid in found.items():
            print(f"{name:<12} {'pid ' + str(pid) if pid else 'not running'}")
        sys.exit(0 if found and all(found.values()) else 1)


if __name__ == "__main__":
    main()
