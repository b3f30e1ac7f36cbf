"""Entry of the coordinator process: environment in, one `Coordinator` on one event loop, a clean end on SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import logging
import signal
import sys
from collections.abc import Sequence

from drivetrain_api import logs
from drivetrain_api.exit_codes import ExitCode
from drivetrain_coordinator.membership import Timings
from drivetrain_coordinator.server import Coordinator
from drivetrain_coordinator.settings import Settings, SettingsError

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM (0), or say what is missing (64)."""
    parser = argparse.ArgumentParser(description="Drivetrain coordinator; configured by DRIVETRAIN_* variables.")
    parser.add_argument("--host", help="address to listen on (default: the pod's)")
    parser.add_argument("--port", type=int, help="port of the launchers' channel; 0 picks one")
    parser.add_argument("--metrics-port", type=int, help="port of /metrics and /healthz; 0 picks one")
    parser.add_argument(
        "--standstill-seconds",
        type=_seconds,
        help="people are told of a job that has not moved for so long, unless its steps are longer (default: 5)",
    )
    given = parser.parse_args(arguments)
    try:
        settings = Settings.from_environment()
        changes = {name: value for name, value in vars(given).items() if value is not None}
        settings = dataclasses.replace(settings, **changes)
        logs.configure("coordinator", settings.log, settings.about)
        asyncio.run(_serve(settings))
    except SettingsError as error:
        print(f"drivetrain-coordinator: {error}", file=sys.stderr)
        return int(ExitCode.USAGE)
    return 0


def _seconds(text: str) -> float:
    value = float(text)
    if not 0.5 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"must be from 0.5 to 3600 seconds, not {text}")
    return value


async def _serve(settings: Settings) -> None:
    coordinator = Coordinator(settings, Timings(standstill=settings.standstill_seconds))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, coordinator.stop)
    await coordinator.run()


if __name__ == "__main__":
    sys.exit(main())
