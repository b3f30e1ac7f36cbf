"""The command line: `python -m cluster up`, `down`, and what is between."""

import argparse
import contextlib
import signal
import sys
import time
from pathlib import Path

from cluster import binaries, faults, images, network, preflight, project
from cluster.down import down, old_logs
from cluster.errors import ClusterError, InUse, Unsuitable
from cluster.kubectl import kubectl
from cluster.layout import logs_dir
from cluster.load import load
from cluster.lock import alone
from cluster.smoke import smoke
from cluster.state import node_named, running_nodes
from cluster.up import next_commands, up


def main(arguments: list[str] | None = None) -> int:
    """Run one verb; what goes wrong is one message on standard error and exit status 1."""
    options = _parser().parse_args(arguments)
    changes = options.verb in ("up", "down", "load", "smoke")
    try:
        with alone(f"python -m cluster {options.verb}") if changes else contextlib.nullcontext():
            options.call(options)
    except ClusterError as error:
        print(f"cluster {options.verb}: {error}", file=sys.stderr)
        if options.verb == "up" and not isinstance(error, Unsuitable | InUse):
            print(f"All logs are in {logs_dir()}; remove what was started with: make cluster-down", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cluster", description="A real Kubernetes on this machine.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    verb = verbs.add_parser("up", help="start the cluster (builds it first if needed)")
    verb.add_argument("--nodes", type=int, default=3, help="worker nodes (default 3), beside the control plane")
    verb.set_defaults(call=_up)
    verbs.add_parser("down", help="remove every trace of it; safe to repeat").set_defaults(call=lambda _: down())
    verbs.add_parser("status", help="nodes and pods").set_defaults(call=_status)
    verb = verbs.add_parser("smoke", help="try all that tests rely on: pods, DNS, services, exec, logs, faults")
    verb.set_defaults(call=lambda _: smoke(running_nodes()))
    verb = verbs.add_parser("preflight", help="can this machine run it, and what would it change?")
    verb.add_argument("--nodes", type=int, default=3)
    verb.add_argument("--install", action="store_true", help="apt-get install what is missing")
    verb.set_defaults(call=_preflight)
    verb = verbs.add_parser("build", help="build the programs only")
    verb.add_argument("names", nargs="*", help="default: all of them")
    verb.set_defaults(call=lambda options: print(binaries.build(*options.names)))

    verb = verbs.add_parser("image", help="build an image from any Dockerfile, for `load`")
    verb.add_argument("name", help="as in docker.io/library/drivetrain-operator:0.1.0")
    verb.add_argument("--file", type=Path, required=True, help="the Dockerfile")
    verb.add_argument("--context", type=Path, default=Path(), help="default: the current folder")
    verb.add_argument("--build-arg", action="append", type=_pair, default=[], metavar="KEY=VALUE")
    verb.set_defaults(call=_image)
    verbs.add_parser("base", help="make the Python base image").set_defaults(call=lambda _: print(images.python_base()))
    verb = verbs.add_parser("images", help="build the project's operator and worker images")
    verb.set_defaults(call=lambda _: print(*project.build_images(), sep="\n"))
    verb = verbs.add_parser("load", help="bring built images to all nodes")
    verb.add_argument("names", nargs="*", default=list(project.DOCKERFILES), help="default: the project's images")
    verb.set_defaults(call=_load)

    for name, action in (("cut", network.cut), ("heal", network.heal)):
        verb = verbs.add_parser(name, help=f"{name} a node's network cable")
        verb.add_argument("node")
        verb.set_defaults(call=lambda options, action=action: action(node_named(options.node)))
    for name, help_text in (("ps", "list a pod's processes"), ("kill", "signal a pod's processes from outside it")):
        verb = verbs.add_parser(name, help=help_text)
        verb.add_argument("pod")
        verb.add_argument("--namespace", "-n", default="default")
        verb.add_argument("--match", default="", help="only processes with this in their command line")
        if name == "kill":
            verb.add_argument("--signal", type=_signal, default=signal.SIGKILL)
        verb.set_defaults(call=_ps if name == "ps" else _kill)
    verb = verbs.add_parser("gpus", help="let Kubernetes believe in GPUs")
    verb.add_argument("node")
    verb.add_argument("count", type=int)
    verb.set_defaults(call=lambda options: faults.set_capacity(node_named(options.node).name, options.count))
    return parser


def _up(options: argparse.Namespace) -> None:
    up(options.nodes)
    print(next_commands())


def _status(_: argparse.Namespace) -> None:
    print(f"{len(running_nodes())} nodes; logs in {logs_dir()} (the last cluster's: {old_logs()})")
    print(kubectl("get", "nodes,pods", "--all-namespaces", "-o", "wide"))


def _preflight(options: argparse.Namespace) -> None:
    if options.install:
        preflight.install()
    print(preflight.changes(options.nodes))
    preflight.demand(options.nodes)
    print(f"this machine can run it; programs still to build: {len(binaries.missing())}")


def _image(options: argparse.Namespace) -> None:
    print(images.build(options.name, options.file, options.context, dict(options.build_arg)))


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key, value


def _signal(text: str) -> signal.Signals:
    try:
        return signal.Signals[f"SIG{text.removeprefix('SIG')}"]
    except KeyError:
        raise argparse.ArgumentTypeError(f"{text!r} is no signal; try KILL, STOP, CONT or TERM") from None


def _load(options: argparse.Namespace) -> None:
    for name in options.names:
        started = time.monotonic()
        load(name, running_nodes())
        print(f"{name} loaded in {time.monotonic() - started:.1f} s")


def _ps(options: argparse.Namespace) -> None:
    for each in faults.pod_processes(faults.pod_uid(options.pod, options.namespace), options.match):
        print(f"{each.pid}\tstarted at tick {each.started}\t{each.command}")


def _kill(options: argparse.Namespace) -> None:
    crash = faults.kill_pod(faults.pod_uid(options.pod, options.namespace), options.match, options.signal)
    for each in crash.killed:
        print(f"{options.signal.name} to {each.pid}\t{each.command}")


if __name__ == "__main__":
    sys.exit(main())
