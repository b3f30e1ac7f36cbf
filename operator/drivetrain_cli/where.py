"""Which flags say which cluster and namespace? The same ones for every command that talks to an API server."""

from __future__ import annotations

import argparse

from drivetrain_cli.cluster import Where
from drivetrain_cli.up import add_state


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--kubeconfig, --context, -n, --embedded, --state."""
    group = parser.add_argument_group("which cluster")
    group.add_argument("--kubeconfig", help="kubeconfig file (default: as kubectl finds it)")
    group.add_argument("--context", help="context of the kubeconfig (default: its current one)")
    group.add_argument("-n", "--namespace", help="namespace (default: that of the context)")
    group.add_argument("--embedded", action="store_true", help="the embedded plane, whatever KUBECONFIG says")
    add_state(parser)


def where(arguments: argparse.Namespace) -> Where:
    """What these flags say."""
    return Where(
        arguments.kubeconfig, arguments.context, arguments.namespace, arguments.embedded, arguments.state.resolve()
    )
