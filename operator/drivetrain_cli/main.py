"""Entry point of `drivetrain` and `kubectl drivetrain`: arguments in, exit code out."""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import sys
from collections.abc import Callable, Sequence
from typing import Final

from drivetrain_api.constants import API_VERSION
from drivetrain_cli import doctor, logs, run, up, why
from drivetrain_cli.demo import command as demo
from drivetrain_cli.errors import CliError, Exit
from drivetrain_cli.snapshots import command as snapshots
from drivetrain_operator.kube.errors import KubeError

_EPILOG: Final = """exit codes:
  0    done; for run and logs -f: the job succeeded
  1    the job failed, a check failed, or something was lost
  2    an argument cannot work; the message names its flag
  3    no API server, or one without TrainingJobs
  4    no such job
  130  Ctrl-C

Which cluster: --kubeconfig, $KUBECONFIG, the pod's service account, ~/.kube/config, else the embedded plane.
"""

Command = Callable[[argparse.Namespace], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    parser = make_parser()
    given = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    command: Command = given.command
    try:
        return int(command(given))
    except CliError as error:
        print(f"drivetrain: {error}", file=sys.stderr)
        return error.code
    except KubeError as error:
        print(f"drivetrain: the API server: {error}", file=sys.stderr)
        return Exit.NO_CLUSTER
    except (KeyboardInterrupt, asyncio.CancelledError):
        return Exit.INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # `drivetrain logs | head`: nobody reads on, and that is fine
        return Exit.OK


def make_parser() -> argparse.ArgumentParser:
    """All commands and flags."""
    parser = argparse.ArgumentParser(
        prog="drivetrain",
        description="Train PyTorch models on Kubernetes, or on this machine, with jobs that survive their machines.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, module, text in (
        ("run", run, "pack a script into a job, follow it, end as it ends"),
        ("logs", logs, "print or follow the logs of all workers of a job"),
        ("why", why, "why does a job not run, or why did it restart or fail?"),
        ("snapshots", snapshots, "steps of a job that can be gone back to: list, verify, prune, export, restore"),
        ("doctor", doctor, "what of torch, GPUs, cluster and images is usable here?"),
        ("demo", demo, "train on three workers of this machine, kill one, see what happens"),
    ):
        sub = commands.add_parser(name, help=text, description=module.__doc__)
        module.add_arguments(sub)
        sub.set_defaults(command=module.run)
    up.add_commands(commands)
    version = commands.add_parser("version", help="print versions")
    version.set_defaults(command=_version)
    return parser


def _version(_: argparse.Namespace) -> int:
    try:
        number = importlib.metadata.version("drivetrain")
    except importlib.metadata.PackageNotFoundError:
        number = "checkout"  # run from the source tree, uninstalled
    print(f"drivetrain {number} (API {API_VERSION}, Python {sys.version.split()[0]})")
    return Exit.OK


if __name__ == "__main__":
    sys.exit(main())
