"""Write one page for a browser: curves, who took part when, what failed and what that cost, where the time went. Of
jobs that run and that have ended. The page needs no network, no script and no storage of the job's."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from drivetrain_api import history
from drivetrain_api.history import HistoryError
from drivetrain_cli import where as which
from drivetrain_cli.cluster import Cluster, connect
from drivetrain_cli.errors import CliError, Exit
from drivetrain_cli.printable import printable
from drivetrain_cli.report.page import page
from drivetrain_cli.report.told import Told
from drivetrain_operator.kube.errors import Forbidden, NotFound
from drivetrain_operator.kube.resources import CONFIGMAPS, Object, controller_uid
from drivetrain_operator.render import names

_STDOUT: Final = "-"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `drivetrain report`."""
    parser.add_argument("job", help="name of the TrainingJob")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="where it goes; - is stdout (default: JOB.html)"
    )
    which.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """0, also of a job that has failed."""
    return asyncio.run(_run(arguments))


async def _run(arguments: argparse.Namespace) -> int:
    async with connect(which.where(arguments)) as cluster:
        told = await gather(cluster, await cluster.job(arguments.job))
    text = page(told)
    if str(arguments.output) == _STDOUT:
        sys.stdout.write(text)
        return Exit.OK
    path = arguments.output or Path(f"{arguments.job}.html")
    _write(path, text)
    print(f"{printable(str(path))} ({len(text.encode()) / 1000:.0f} kB)")
    if told.missing:
        print(f"Without curves: {printable(told.missing)}", file=sys.stderr)
    return Exit.OK


async def gather(cluster: Cluster, job: Object) -> Told:
    """What is known of the job. Raises KubeError."""
    uid, name = str(job["metadata"]["uid"]), str(job["metadata"]["name"])
    now = datetime.now(UTC)
    named = names.history(name, uid)
    try:
        found = await cluster.client.get(CONFIGMAPS, named, cluster.namespace)
    except NotFound:
        return Told(job, now, missing=_none(job, named))
    except Forbidden as error:
        return Told(job, now, missing=f"You may not read ConfigMap {named}, which has the numbers: {error.message}")
    if controller_uid(found) != uid:
        return Told(job, now, missing=f"ConfigMap {named} is not this job's.")
    try:
        return Told(job, now, history.decoded((found.get("data") or {}).get(history.KEY) or ""))
    except HistoryError as error:
        return Told(job, now, missing=f"What is in ConfigMap {named} cannot be read: {error}")


def _none(job: Object, named: str) -> str:
    if not (job.get("status") or {}).get("startTime") and not (job.get("status") or {}).get("completionTime"):
        return "The job has not started yet."
    return (
        f"There is no ConfigMap {named}: the job has just started, an older release or one with jobHistory false looks "
        "after it, or somebody has deleted it."
    )


def _write(path: Path, text: str) -> None:
    """Whole or not at all; what is no file, such as a pipe or /dev/null, is written to. Raises CliError."""
    real = path.resolve()
    try:
        if real.exists() and not real.is_file():
            real.write_text(text, encoding="utf-8")
            return
        with tempfile.NamedTemporaryFile("w", dir=real.parent, delete=False, encoding="utf-8") as file:
            try:
                file.write(text)
                file.flush()
                umask = os.umask(0)
                os.umask(umask)
                os.chmod(file.name, 0o666 & ~umask)
                os.replace(file.name, real)
            except BaseException:
                os.unlink(file.name)
                raise
    except OSError as error:
        raise CliError(f"-o {path}: {error.strerror}") from error
