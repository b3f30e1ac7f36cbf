"""Print what Kubernetes and the operator have to say about a job and its pods, also those that are gone; oldest first.
-f goes on until the job ends. The cluster forgets events after an hour; what matters later is in `drivetrain why`."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from drivetrain_cli import output
from drivetrain_cli import where as which
from drivetrain_cli.cluster import Cluster, connect, event_time
from drivetrain_cli.errors import Exit, UsageError
from drivetrain_cli.follow import finished
from drivetrain_cli.life.patience import patient_job
from drivetrain_cli.printable import printable
from drivetrain_cli.table import age, aligned
from drivetrain_operator.kube.resources import Object
from drivetrain_operator.render.names import identify, suffix

Json = dict[str, Any]
_EVERY_SECONDS: Final = 1.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `drivetrain events`."""
    parser.add_argument("job", help="name of the TrainingJob")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the job ends")
    output.add_argument(parser)
    which.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """0, also if there are none."""
    if arguments.follow and arguments.output:
        raise UsageError("-o: cannot be used with --follow")
    return asyncio.run(_run(arguments))


async def _run(arguments: argparse.Namespace) -> int:
    async with connect(which.where(arguments)) as cluster:
        job = await cluster.job(arguments.job)
        if arguments.follow:
            async for event in followed(cluster, job):
                print("   ".join(_row(event, datetime.now(UTC))), flush=True)
            return Exit.OK
        found = about(job, await cluster.all_events())
        if arguments.output:
            print(output.dumped(output.as_list(found), arguments.output))
        elif found:
            now = datetime.now(UTC)
            print(aligned([["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"], *(_row(each, now) for each in found)]))
        else:
            print(
                f"No events of {arguments.job}: the cluster keeps them for an hour. See drivetrain why {arguments.job}"
            )
        return Exit.OK


async def followed(cluster: Cluster, job: Object) -> AsyncGenerator[Object]:
    """Events of the job, each once, and again when it has happened again; until the job has ended or is deleted."""
    seen: dict[str, str] = {}
    while True:
        now = await patient_job(cluster, job["metadata"]["name"])
        for event in about(job, await cluster.all_events()):
            uid, version = event["metadata"]["uid"], event["metadata"]["resourceVersion"]
            if seen.get(uid) != version:
                seen[uid] = version
                yield event
        if finished(now):
            return
        await asyncio.sleep(_EVERY_SECONDS)


def about(job: Json, events: Sequence[Json]) -> list[Json]:
    """PURE: those about the job itself and its pods: of pods that are gone only the names are left, which say whose
    they were; what is older than the job was of another one of its name."""
    uid, since = job["metadata"]["uid"], job["metadata"]["creationTimestamp"]

    def ours(event: Json) -> bool:
        of = event.get("involvedObject") or {}
        of_a_pod = of.get("kind") == "Pod" and _is_of(job, str(of.get("name") or ""))
        return of.get("uid") == uid or (of_a_pod and event_time(event) >= since)

    return [event for event in events if ours(event)]


def _is_of(job: Json, pod: str) -> bool:
    resolved = (job.get("status") or {}).get("resolved") or {}
    end = resolved.get("nameSuffix", suffix(job["metadata"]["uid"]))
    return bool(identify(job["metadata"]["name"], pod).role) and pod.endswith(end)


def _row(event: Json, now: datetime) -> list[str]:
    of, stamp = event.get("involvedObject") or {}, event_time(event)
    count = (event.get("series") or {}).get("count") or event.get("count") or 1
    again = f" (x{count})" if count > 1 else ""
    cells = [
        (age(stamp, now) if stamp else "-") + again,
        event.get("type") or "",
        event.get("reason") or "",
        f"{str(of.get('kind') or '').lower()}/{of.get('name') or ''}",
        " ".join((event.get("message") or "").split()),
    ]
    return [printable(cell) for cell in cells]
