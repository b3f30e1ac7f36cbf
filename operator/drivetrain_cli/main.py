"""Entry point of `drivetrain` and `kubectl drivetrain`: arguments in, exit code out."""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import os
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, Final

from drivetrain_api import logs
from drivetrain_api.constants import API_VERSION
from drivetrain_api.logs import LogSettings, LogSettingsError
from drivetrain_cli import complete, completion, doctor, run, up, why
from drivetrain_cli import logs as logs_of_jobs
from drivetrain_cli.convert import command as convert
from drivetrain_cli.demo import command as demo
from drivetrain_cli.errors import CliError, Exit
from drivetrain_cli.intermixed import Parser
from drivetrain_cli.life import delete, energy, events, goodput, listing, rest, scale, status
from drivetrain_cli.outlook import command as outlook
from drivetrain_cli.printable import printable_lines
from drivetrain_cli.report import command as report
from drivetrain_cli.results import command as results
from drivetrain_cli.snapshots import command as snapshots
from drivetrain_cli.top import command as top
from drivetrain_operator.kube.errors import Forbidden, KubeError

_EPILOG: Final = """exit codes:
  0    done; for run and logs -f: the job succeeded
  1    the job failed (status and why say it so, too), a check failed, something was lost, a wait took too long,
       you may not do it, or it makes no sense for a job that is over
  2    an argument cannot work; the message names its flag
  3    no API server, or one without TrainingJobs
  4    no such job; names that are much alike are suggested
  130  Ctrl-C

Which cluster: --kubeconfig, $KUBECONFIG, the pod's service account, ~/.kube/config, else the embedded plane.
"""

_COMPLETE: Final = "__complete"
"""Asked by what `drivetrain completion` prints, not by people."""

Command = Callable[[argparse.Namespace], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    parser = make_parser()
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == [_COMPLETE]:
        return complete.main(parser, words[1:])
    given = parser.parse_args(words)
    command: Command = given.command
    if arguments is None:  # else the process is another's, who has said how it logs
        try:
            # What libraries have to tell goes to stderr, beside the command's own words.
            logs.configure("cli", logs.from_environment(os.environ, LogSettings(level="warning")), short=True)
        except LogSettingsError as error:
            _complain(str(error))
            return Exit.USAGE
    try:
        return int(command(given))
    except CliError as error:
        _complain(str(error))
        return error.code
    except Forbidden as error:
        _complain(f"not allowed: {error.message}")
        return Exit.FAILED
    except KubeError as error:
        _complain(f"the API server: {error}")
        return Exit.NO_CLUSTER
    except (KeyboardInterrupt, asyncio.CancelledError):
        return Exit.INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # `drivetrain logs | head`: nobody reads on, and that is fine
        return Exit.OK


def _complain(text: str) -> None:
    print(f"drivetrain: {printable_lines(text)}", file=sys.stderr)


def make_parser() -> argparse.ArgumentParser:
    """All commands and flags."""
    parser = argparse.ArgumentParser(
        prog="drivetrain",
        description="Train PyTorch models on Kubernetes, or on this machine, with jobs that survive their machines.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    for name, module, text in (
        ("run", run, "pack a script into a job, follow it, end as it ends"),
        ("list", listing, "jobs, with what holds them up (-A: of all namespaces)"),
        ("top", top, "all jobs, live in a terminal"),
        ("status", status, "how a job stands, on one page; without a job: the embedded plane"),
        ("logs", logs_of_jobs, "print or follow the logs of all workers of a job"),
        ("events", events, "what the cluster and the operator say about a job and its pods"),
        ("why", why, "why does a job not run, or why did it restart or fail?"),
        ("goodput", goodput, "what was a job's time spent on? How much of it on steps that count"),
        ("report", report, "one page for a browser: curves, members, failures and what they cost"),
        ("energy", energy, "what electricity has a job used, what did that emit and cost, and how sure is that?"),
        ("scale", scale, "change the number of workers of a job"),
    ):
        _add(commands, name, module.run, module, text)
    _add(commands, "suspend", rest.run_suspend, rest, "stop a job for a while; says from which step it will go on")
    _add(commands, "resume", rest.run_resume, rest, "let a suspended job go on; says from which step")
    for name, module, text in (
        ("delete", delete, "delete jobs; their snapshots stay"),
        ("plan", outlook, "when would a job run for the least carbon, and what would it emit? Offline"),
        ("convert", convert, "manifests of Kubeflow, KubeRay and batch Jobs to TrainingJobs; says what it cannot"),
        ("snapshots", snapshots, "steps of a job that can be gone back to: list, verify, prune, export, restore"),
        ("get", results, "bring checkpoints and results of a job, or list them"),
        ("doctor", doctor, "what of torch, GPUs, cluster and images is usable here?"),
        ("demo", demo, "train on three workers of this machine, kill one, see what happens"),
    ):
        _add(commands, name, module.run, module, text)
    up.add_commands(commands)
    _add(commands, "completion", completion.run, completion, "what makes a shell complete commands and names of jobs")
    version = commands.add_parser("version", help="print versions")
    version.set_defaults(command=_version)
    return parser


def _add(commands: Any, name: str, command: Command, module: ModuleType, text: str) -> None:
    sub = commands.add_parser(name, help=text, description=module.__doc__)
    module.add_arguments(sub)
    sub.set_defaults(command=command)


def _version(_: argparse.Namespace) -> int:
    try:
        number = importlib.metadata.version("drivetrain")
    except importlib.metadata.PackageNotFoundError:
        number = "checkout"  # run from the source tree, uninstalled
    print(f"drivetrain {number} (API {API_VERSION}, Python {sys.version.split()[0]})")
    return Exit.OK


if __name__ == "__main__":
    sys.exit(main())
