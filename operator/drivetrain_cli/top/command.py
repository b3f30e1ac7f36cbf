"""All jobs, live: phase, step, samples a second, time left, goodput, losses that were survived. q or Ctrl-C ends it.
With --once, or where no terminal is, it prints one table."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from datetime import UTC, datetime
from typing import Final

from drivetrain_cli import where as which
from drivetrain_cli.cluster import Cluster, connect
from drivetrain_cli.errors import CliError, Exit, UsageError
from drivetrain_cli.top import screen, terminal
from drivetrain_operator.kube.errors import Forbidden, KubeError
from drivetrain_operator.kube.resources import Object

_SLOWEST: Final = 3600.0
_FASTEST: Final = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `drivetrain top`."""
    parser.add_argument("-A", "--all-namespaces", action="store_true", help="jobs of all namespaces")
    parser.add_argument("--once", action="store_true", help="print one table, and end")
    parser.add_argument(
        "--interval", type=float, default=2.0, metavar="SECONDS", help="ask again after so long (default: %(default)g)"
    )
    which.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """0, also if there is no job."""
    if not _FASTEST <= arguments.interval <= _SLOWEST:
        raise UsageError(f"--interval: from {_FASTEST:g} to {_SLOWEST:g} seconds, not {arguments.interval:g}")
    return asyncio.run(_run(arguments))


async def _run(arguments: argparse.Namespace) -> int:
    async with connect(which.where(arguments)) as cluster:
        namespace = None if arguments.all_namespaces else cluster.namespace
        try:
            jobs = await cluster.jobs(namespace)
        except Forbidden as error:
            which_jobs = "-A: jobs of all namespaces" if namespace is None else f"-n: jobs of namespace {namespace!r}"
            raise CliError(f"{which_jobs} may not be listed by you: {error.message}") from error
        if arguments.once or not terminal.is_one():
            rows = screen.table(jobs, datetime.now(UTC), namespaces=namespace is None)
            print("\n".join(screen.plain(rows)))
            return Exit.OK
        with terminal.borrowed() as borrowed:
            await _live(cluster, namespace, jobs, borrowed, arguments.interval)
    return Exit.OK


async def _live(
    cluster: Cluster, namespace: str | None, jobs: list[Object], shown: terminal.Terminal, interval: float
) -> None:
    """Until somebody ends it. What is shown stays while the API server does not answer, and says so."""
    note, colour = "", terminal.has_colour()
    of = "all namespaces" if namespace is None else f"namespace {namespace}"
    asking: asyncio.Task[list[Object]] | None = None
    asked = asyncio.get_running_loop().time()
    try:
        while not shown.quit:
            now = datetime.now(UTC)
            title = f"{len(jobs)} jobs in {of} of {cluster.name}, {now:%H:%M:%S} UTC; q ends"
            columns, lines = shown.size
            rows = screen.table(jobs, now, namespaces=namespace is None)
            shown.draw(screen.screen(rows, title, columns, lines, colour=colour, note=note))
            left = asked + interval - asyncio.get_running_loop().time()
            if asking is None and left <= 0:
                asking = asyncio.create_task(cluster.jobs(namespace), name="jobs")
            shown.changed.clear()
            news = asyncio.create_task(shown.changed.wait())
            waited = {news} if asking is None else {news, asking}
            await asyncio.wait(waited, timeout=max(0.05, left) if asking is None else interval,
                               return_when=asyncio.FIRST_COMPLETED)  # fmt: skip
            news.cancel()
            if asking is not None and asking.done():
                try:
                    jobs, note = asking.result(), ""
                except (KubeError, CliError) as error:
                    note = note or f"not reached, so this is as of {now:%H:%M:%S} UTC: {error}"
                asking, asked = None, asyncio.get_running_loop().time()
    finally:
        if asking is not None:
            asking.cancel()
            with contextlib.suppress(asyncio.CancelledError, KubeError, CliError):
                await asking
