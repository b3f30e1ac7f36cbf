"""drivetrain-launcher: process 1 of every worker pod. Starts the ranks first, then everything else, and ends with an
`ExitCode` that says why. Whatever the way out, no process stays behind."""

from __future__ import annotations

import itertools
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from drivetrain.energy.here import sources
from drivetrain.energy.meter import EnergyMeter
from drivetrain.launch import brought, fit
from drivetrain.launch.errors import LauncherError
from drivetrain.launch.leave import EarlySignals
from drivetrain.launch.memory import MemoryKills
from drivetrain.launch.process import RankProcess, become_subreaper, end_all_descendants
from drivetrain.launch.settings import LOG, Settings, chosen_log, read_settings
from drivetrain.launch.storage import OutputFolder
from drivetrain.torchrun.choice import Choice, choose
from drivetrain.torchrun.course import save_seconds
from drivetrain.torchrun.endpoint import Endpoint
from drivetrain_api import logs
from drivetrain_api.exit_codes import ExitCode
from drivetrain_api.logline import LogFormat, of_pod
from drivetrain_api.logs import LogSettings

log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the launcher; returns the exit code."""
    early = EarlySignals()
    _log_to(LOG)
    try:
        chosen = chosen_log(os.environ)
        _log_to(chosen)
        settings = read_settings(sys.argv[1:] if argv is None else argv, os.environ)
        choice = choose(settings.command, settings.spec, os.environ, Path.cwd())
        if brought.here():
            choice = brought.into(choice, settings.spec, os.environ)
        else:
            variables = {**os.environ, **choice.environment}
            fit.check_trackers(choice.interpreter, variables, settings.spec, stock=choice.stock)
        output = OutputFolder.made(settings.spec, os.environ, early)
        become_subreaper()
        return _launch(settings, choice, early, output, chosen)
    except LauncherError as error:
        log.error(str(error))
        return error.code
    except Exception:
        # A defect: the exit code must say so, and its traceback must be in the pod's log.
        log.exception("the launcher ended by a defect")
        return ExitCode.INTERNAL
    finally:
        if left := end_all_descendants():
            log.error("processes that SIGKILL did not end", extra={"pids": left})


def _launch(
    settings: Settings, choice: Choice, early: EarlySignals, output: OutputFolder | None, chosen: LogSettings
) -> int:
    memory_kills = MemoryKills()
    endpoint = Endpoint(settings.credentials / "token") if choice.stock else None
    ranks_log = logs.environment(replace(chosen, format=LogFormat.JSON if chosen.as_json() else LogFormat.TEXT))
    added = {**ranks_log, **(output.environment if output else {}), **(endpoint.environment if endpoint else {})}
    spawn = _spawner(settings, choice, added)
    processes = [spawn(None, number) for number in range(settings.spec.processes_per_worker)]

    # While the ranks import torch, which takes seconds, this process imports aiohttp, which takes tenths of one.
    import asyncio

    from drivetrain.launch.agent import STOP_SECONDS, Agent
    from drivetrain.launch.output import Console

    if output is not None:
        output.start()
    stop_seconds = STOP_SECONDS + (save_seconds(settings.grace_seconds) if choice.stock else 0.0)

    async def work() -> int:
        agent = Agent(settings, console, spawn, memory_kills, stop_seconds, output, endpoint, meter)
        return await agent.run(processes, early)

    meter = EnergyMeter(partial(sources, dict(os.environ)))
    console = Console(1, _gap(chosen))
    try:
        _log_to(chosen, console.line)
        if choice.note:
            log.info(choice.note)
        return asyncio.run(work())
    finally:
        console.close()
        _log_to(chosen)


def _gap(chosen: LogSettings) -> Callable[[int], bytes]:
    """What tells of so many lines that nobody took."""
    formatter = logs.Formatter("launcher", of_pod(os.environ), json=chosen.as_json(), short=True)

    def told(count: int) -> bytes:
        text = f"{count} lines dropped, stdout stood still"
        return formatter.format(log.makeRecord(log.name, logging.WARNING, "", 0, text, (), None)).encode()

    return told


def _log_to(chosen: LogSettings, line: Callable[[bytes], None] | None = None) -> None:
    """From now on `line`, or stderr, gets what is logged."""
    handler = _ConsoleHandler(line) if line is not None else None
    logs.configure("launcher", chosen, of_pod(os.environ), handler=handler, short=True)


def _spawner(
    settings: Settings, choice: Choice, added: Mapping[str, str]
) -> Callable[[str | None, int | None], RankProcess]:
    numbers = itertools.count(1)
    environment = {**os.environ, **choice.environment, **added}

    def spawn(level: str | None, local_rank: int | None) -> RankProcess:
        process_id = f"{settings.pod_uid}/{settings.boot}/{next(numbers)}"
        return RankProcess(
            choice.command,
            process_id=process_id,
            environment=environment,
            spare_level=level,
            local_rank=local_rank,
        )

    return spawn


class _ConsoleHandler(logging.Handler):
    """Logs through the console's thread: a stalled stdout must not stop the launcher."""

    def __init__(self, line: Callable[[bytes], None]) -> None:
        super().__init__()
        self._line = line

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        self._line(self.format(record).encode(errors="replace"))


if __name__ == "__main__":
    sys.exit(main())
