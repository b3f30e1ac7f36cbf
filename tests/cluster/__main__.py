"""The command line: `python -m cluster up`, `down`, and what is between."""

import argparse
import sys

from cluster import binaries, preflight
from cluster.down import down, old_logs
from cluster.errors import ClusterError
from cluster.kubectl import kubectl
from cluster.layout import logs_dir
from cluster.state import running_nodes
from cluster.up import next_commands, up


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        options.call(options)
    except ClusterError as error:
        print(f"cluster {options.verb}: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cluster", description="A real Kubernetes on this machine.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    verb = verbs.add_parser("up", help="start the cluster (builds it first if needed)")
    verb.add_argument(
        "--nodes", type=int, default=3, help="worker nodes (default 3); the control plane is none of them"
    )
    verb.set_defaults(call=_up)

    verbs.add_parser("down", help="remove every trace of it; safe to repeat").set_defaults(call=lambda _: down())
    verbs.add_parser("status", help="nodes and pods").set_defaults(call=_status)
    verbs.add_parser("build", help="build the programs only").set_defaults(call=_build)

    verb = verbs.add_parser("preflight", help="can this machine run it, and what would it change?")
    verb.add_argument("--nodes", type=int, default=3)
    verb.add_argument("--install", action="store_true", help="apt-get install what is missing")
    verb.set_defaults(call=_preflight)
    return parser


def _up(options: argparse.Namespace) -> None:
    try:
        up(options.nodes)
    except ClusterError:
        print(f"logs: {logs_dir()}; remove what was started with: python -m cluster down", file=sys.stderr)
        raise
    print(next_commands())


def _build(_: argparse.Namespace) -> None:
    print(binaries.build())


def _status(_: argparse.Namespace) -> None:
    nodes = running_nodes()
    print(f"{len(nodes)} nodes; logs in {logs_dir()} (of the last cluster: {old_logs()})")
    print(kubectl("get", "nodes,pods", "--all-namespaces", "-o", "wide", "--ignore-not-found"))


def _preflight(options: argparse.Namespace) -> None:
    if options.install:
        preflight.install()
    print(preflight.changes(options.nodes))
    preflight.demand(options.nodes)
    print(f"this machine can run it; programs still to build: {len(binaries.missing())}")


if __name__ == "__main__":
    sys.exit(main())
