"""drivetrain-launcher: process 1 of every worker pod. Starts the ranks first, then everything else, and ends with an
`ExitCode` that says why. Whatever the way out, no process stays behind."""

from __future__ import annotations

import itertools
import logging
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from drivetrain.launch import brought, fit
from drivetrain.launch.errors import LauncherError
from drivetrain.launch.leave import EarlySignals
from drivetrain.launch.memory import MemoryKills
from drivetrain.launch.process import RankProcess, become_subreaper, end_all_descendants
from drivetrain.launch.settings import Settings, read_settings
from drivetrain.launch.storage import OutputFolder
from drivetrain.torchrun.choice import Choice, choose
from drivetrain.torchrun.course import save_seconds
from drivetrain.torchrun.endpoint import Endpoint
from drivetrain_api.exit_codes import ExitCode


def main(argv: Sequence[str] | None = None) -> int:
    """Run the launcher; returns the exit code."""
    early = EarlySignals()
    try:
        settings = read_settings(sys.argv[1:] if argv is None else argv, os.environ)
        choice = choose(settings.command, settings.spec, os.environ, Path.cwd())
        if brought.here():
            choice = brought.into(choice, settings.spec, os.environ)
        else:
            variables = {**os.environ, **choice.environment}
            fit.check_trackers(choice.interpreter, variables, settings.spec, stock=choice.stock)
        output = OutputFolder.made(settings.spec, os.environ, early)
        become_subreaper()
        return _launch(settings, choice, early, output)
    except LauncherError as error:
        print(f"drivetrain-launcher: {error}", file=sys.stderr, flush=True)
        return error.code
    except Exception:  # noqa: BLE001  A defect: the exit code must say so, and its traceback must be in the pod's log.
        traceback.print_exc()
        return ExitCode.INTERNAL
    finally:
        if left := end_all_descendants():
            print(f"drivetrain-launcher: processes that SIGKILL did not end: {left}", file=sys.stderr, flush=True)


def _launch(settings: Settings, choice: Choice, early: EarlySignals, output: OutputFolder | None) -> int:
    memory_kills = MemoryKills()
    endpoint = Endpoint(settings.credentials / "token") if choice.stock else None
    added = {**(output.environment if output else {}), **(endpoint.environment if endpoint else {})}
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
        return await Agent(settings, console, spawn, memory_kills, stop_seconds, output, endpoint).run(processes, early)

    console = Console()
    try:
        _log_to(console.line)
        if choice.note:
            logging.getLogger(__name__).info(choice.note)
        return asyncio.run(work())
    finally:
        console.close()


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


_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class _ConsoleHandler(logging.Handler):
    """Logs through the console's thread: a stalled stdout must not stop the launcher."""

    def __init__(self, line: Callable[[bytes], None]) -> None:
        super().__init__()
        self._line = line

    def emit(self, record: logging.LogRecord) -> None:
        """Write `launcher: message key=value ...`."""
        fields = [f" {key}={value}" for key, value in vars(record).items() if key not in _STANDARD]
        text = f"launcher: {record.getMessage()}{''.join(fields)}"
        if record.exc_info:
            text += "\n" + "".join(traceback.format_exception(*record.exc_info))
        self._line(text.encode(errors="replace"))


def _log_to(line: Callable[[bytes], None]) -> None:
    logging.basicConfig(level=logging.INFO, handlers=[_ConsoleHandler(line)], force=True)


if __name__ == "__main__":
    sys.exit(main())
