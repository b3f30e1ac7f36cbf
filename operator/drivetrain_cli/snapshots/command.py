"""Look at a job's snapshots: the steps that can be gone back to, whether all bytes are right, what nobody needs any
more; write a step as safetensors or torch's distributed checkpoint, or begin a new job with it. A pod of its own, like
the job's workers, does the reading, because only such a pod sees the storage; it is deleted at the end."""

from __future__ import annotations

import argparse
import asyncio
import random
from typing import Final

import yaml

from drivetrain_cli import where as which
from drivetrain_cli.cluster import EMBEDDED, Cluster, connect
from drivetrain_cli.errors import Exit, UsageError
from drivetrain_cli.inside import result_of
from drivetrain_cli.intermixed import allow_flags_between
from drivetrain_cli.invocation import command
from drivetrain_cli.snapshots.branch import branch
from drivetrain_cli.snapshots.pod import Task, pod
from drivetrain_operator.kube.errors import AlreadyExists, Invalid
from drivetrain_operator.kube.resources import TRAININGJOBS, Object

_ALPHABET: Final = "bcdfghjklmnpqrstvwxz2456789"
_NEEDS: Final = {
    "list": ("output",),
    "verify": ("output",),
    "prune": ("keep", "unpin", "dry_run"),
    "export": ("step", "to", "format"),
    "restore": ("step", "name", "dry_run"),
}
"""Flags that each of them has."""
_FLAGS: Final = {"output": "-o", "keep": "--keep", "dry_run": "--dry-run", "step": "--step", "to": "--to"} | {
    "unpin": "--unpin",
    "format": "--format",
    "name": "--as",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `drivetrain snapshots`."""
    parser.add_argument("job", help="name of the TrainingJob")
    parser.add_argument("what", nargs="?", choices=tuple(_NEEDS), default="list", help="default: %(default)s")
    parser.add_argument("-o", dest="output", choices=("table", "json"), help="list, verify: how it is printed")
    parser.add_argument("--keep", type=int, metavar="N", help="prune: newest bases that stay")
    parser.add_argument(
        "--unpin", action="store_true", default=None, help="prune: readers have no pins any more; if none is left"
    )
    parser.add_argument("--dry-run", action="store_true", default=None, help="prune, restore: say what would be done")
    parser.add_argument("--step", type=int, help="export, restore: which (default: the newest)")
    parser.add_argument("--to", metavar="PATH", help="export: FILE.safetensors or a folder, in a volume of the pods")
    parser.add_argument("--format", choices=("safetensors", "dcp"), help="export: default: by the name of --to")
    parser.add_argument("--as", dest="name", metavar="NAME", help="restore: name of the new job")
    which.add_arguments(parser)
    allow_flags_between(parser)


def run(arguments: argparse.Namespace) -> int:
    """1 if something is damaged or could not be done."""
    for name, flag in _FLAGS.items():
        if getattr(arguments, name) is not None and name not in _NEEDS[arguments.what]:
            raise UsageError(f"{flag}: {arguments.what} has no use for it")
    if arguments.what == "prune" and (arguments.keep or 0) < 1:
        raise UsageError("--keep: prune needs a number of bases that stay, at least 1")
    if arguments.what == "export" and not (arguments.to or "").startswith("/"):
        raise UsageError("--to: export needs an absolute path, in a volume of the job's pods that outlives them")
    if (arguments.step or 0) < 0:
        raise UsageError("--step: at least 0")
    return asyncio.run(_run(arguments))


async def _run(arguments: argparse.Namespace) -> int:
    async with connect(which.where(arguments)) as cluster:
        job = await cluster.job(arguments.job)
        if not job["spec"].get("snapshots"):
            raise UsageError(f"TrainingJob {arguments.job} keeps no snapshots: spec.snapshots is not set")
        if arguments.what == "restore":
            return await _restore(cluster, job, arguments)
        task = Task(arguments.what, tuple(_tool(arguments)), _suffix(), arguments.to)
        embedded = cluster.name == EMBEDDED
        return await result_of(cluster, job, lambda worker: pod(job, worker, task, embedded=embedded))


def _tool(arguments: argparse.Namespace) -> list[str]:
    """Of `python -m drivetrain.snapshot`."""
    found = [arguments.what]
    if arguments.output is not None:
        found += ["-o", arguments.output]
    if arguments.output == "json" and arguments.what == "verify":
        found.append("-q")  # a pod's log has both streams
    if arguments.keep is not None:
        found += ["--keep", str(arguments.keep)]
    if arguments.unpin:
        found.append("--unpin")
    if arguments.dry_run:
        found.append("--dry-run")
    if arguments.what == "export":
        found += ["--to", arguments.to]
        found += [] if arguments.step is None else ["--step", str(arguments.step)]
        found += [] if arguments.format is None else ["--format", arguments.format]
    return found


async def _restore(cluster: Cluster, job: Object, arguments: argparse.Namespace) -> int:
    made = branch(job, arguments.step, arguments.name, _suffix())
    if arguments.dry_run:
        print(yaml.safe_dump(made, sort_keys=False), end="")
        return Exit.OK
    name = made["metadata"]["name"]
    try:
        await cluster.client.create(TRAININGJOBS, made, cluster.namespace)
    except AlreadyExists:
        raise UsageError(f"--as: there is a TrainingJob {name} already; choose another name") from None
    except Invalid as error:
        raise UsageError(f"--as: {error.message}") from error
    source, step = made["spec"]["restoreFrom"]["job"], made["spec"]["restoreFrom"].get("step")
    what = "its newest step" if step is None else f"step {step}"
    print(f"TrainingJob {cluster.namespace}/{name} created: it begins with {what} of {source}")
    print(f"Follow it: {command()} logs -f {name}")
    return Exit.OK


def _suffix() -> str:
    return "".join(random.choices(_ALPHABET, k=5))
