"""Print what a job's time was spent on since it was created: how much of it on steps that count, and the rest by cause.
Up to the last time that the operator wrote its status."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from drivetrain_api.goodput import Category
from drivetrain_cli import output
from drivetrain_cli import where as which
from drivetrain_cli.cluster import connect
from drivetrain_cli.errors import Exit
from drivetrain_cli.printable import printable_lines
from drivetrain_cli.table import aligned, parsed
from drivetrain_operator.plan.policies.progress import duration

Json = dict[str, Any]

MEANS: Final[Mapping[Category, str]] = {
    Category.QUEUED: "no room in the cluster, or in a quota",
    Category.STARTING: "pods and processes start",
    Category.FORMING: "the first membership forms, and restores a state",
    Category.PRODUCTIVE: "steps that were not made before",
    Category.DATA: "ranks wait for samples",
    Category.SNAPSHOT: "training waits until state is copied or written",
    Category.WAITING: "ranks wait for others that are late",
    Category.REDONE: "steps that had been made before",
    Category.RECOVERING: "from a loss to the next step of all",
    Category.RESIZING: "members join or leave",
    Category.SUSPENDED: "spec.suspend",
    Category.OTHER: "evaluation, the script between steps, and what nobody can tell",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `drivetrain goodput`."""
    parser.add_argument("job", help="name of the TrainingJob")
    output.add_argument(parser)
    which.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """0, also of a job that has failed."""
    return asyncio.run(_run(arguments))


async def _run(arguments: argparse.Namespace) -> int:
    async with connect(which.where(arguments)) as cluster:
        job = await cluster.job(arguments.job)
        found = split(job, datetime.now(UTC))
        if arguments.output:
            print(output.dumped(found, arguments.output))
        else:
            print(printable_lines("\n".join(lines(found))))
        return Exit.OK


def split(job: Json, now: datetime) -> Json:
    """PURE: a job's time by category, for programs. `uncounted`: since then nothing was written that says more; by a
    clock of this machine, so it is for people."""
    meta, status = job["metadata"], job.get("status") or {}
    known = status.get("goodput") or {}
    seconds = {str(each): known["seconds"][each] for each in Category if (known.get("seconds") or {}).get(each)}
    counted = round(sum(seconds.values()), 3)
    age = (now - parsed(meta["creationTimestamp"])).total_seconds()
    ended = status.get("completionTime") is not None
    return {
        "job": meta["name"],
        "namespace": meta.get("namespace", ""),
        "goodput": known.get("ratio"),
        "countedSeconds": counted,
        "uncountedSeconds": 0.0 if ended else round(max(0.0, age - counted), 3),
        "standing": (known.get("counted") or {}).get("standing"),
        "seconds": seconds,
    }


def lines(found: Json) -> list[str]:
    """PURE: for people."""
    counted = found["countedSeconds"]
    if not counted:
        return [f"Of {found['job']} nothing is counted yet."]
    if found["goodput"] is None:
        first = f"Nobody has told of a step of {found['job']}: how much of {duration(counted)} it trained is not known."
    else:
        made = found["seconds"].get(Category.PRODUCTIVE, 0.0)
        first = f"Goodput of {found['job']}: {100 * found['goodput']:.1f}% ({duration(made)} of {duration(counted)})."
    rows = [["CATEGORY", "TIME", "SHARE", "WHAT IT IS"]]
    for each, seconds in sorted(found["seconds"].items(), key=lambda item: -item[1]):
        rows.append([each, _time(seconds), f"{100 * seconds / counted:.1f}%", MEANS[Category(each)]])
    text = [first, *aligned(rows).splitlines()]
    if found["uncountedSeconds"] >= 1:
        standing = f", {found['standing']}" if found["standing"] else ""
        text.append(f"The last {duration(found['uncountedSeconds'])} are not counted yet{standing}.")
    return text


def _time(seconds: float) -> str:
    return duration(seconds) if seconds >= 10 else f"{seconds:.1f}s"
