"""When would this job run, with how many workers, and what would it emit and cost? By the operator's own planner,
before anything is submitted, and without a cluster. `--trace` has carbon intensities, such as those of last week."""

from __future__ import annotations

import argparse
from datetime import datetime
from pathlib import Path
from typing import Final

from drivetrain_api.older_python import UTC
from drivetrain_cli import output
from drivetrain_cli.errors import CliError, Exit, UsageError
from drivetrain_cli.outlook import answer
from drivetrain_cli.outlook.picture import picture
from drivetrain_cli.outlook.question import manifest, question, trace
from drivetrain_cli.printable import printable_lines
from drivetrain_energy.feeds.means import mean
from drivetrain_energy.job.planner import plan
from drivetrain_energy.job.request import RequestInvalid
from drivetrain_energy.settings import EnergySettings
from drivetrain_energy.signals.signal import Measure, Signal

SVG: Final = (".svg",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `drivetrain plan`."""
    parser.add_argument("manifest", type=Path, help="file with one TrainingJob that has spec.energy")
    parser.add_argument(
        "--trace", type=Path, help="CSV with timestamp,g_per_kwh (default: the zone's annual mean, which moves nothing)"
    )
    parser.add_argument("--tariff", type=Path, help="CSV with timestamp,per_kwh: what a kilowatt-hour costs")
    parser.add_argument("--currency", default="", help="of the tariff, to be printed")
    parser.add_argument("--at", help="when it is submitted (default: now, or the beginning of a trace that is older)")
    parser.add_argument(
        "--steps-per-second", type=float, help="with spec.workers, for a job without spec.energy.profile"
    )
    parser.add_argument(
        "--pue", type=float, default=1.0, help="what the site draws for each watt (default: %(default)g)"
    )
    parser.add_argument("--picture", type=Path, help="write the plan as a picture to this file, which ends in .svg")
    output.add_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """0; 1 if the job would be late."""
    job = manifest(arguments.manifest)
    energy = job.spec.energy
    assert energy is not None, "manifest() has looked"
    zone = energy.zone or "unknown"
    if not 1 <= arguments.pue < float("inf"):
        raise UsageError(f"--pue: at least 1, not {arguments.pue:g}")
    pace: float | None = arguments.steps_per_second
    if pace is not None and not 0 < pace <= 1e6:
        raise UsageError(f"--steps-per-second: above 0, and at most 1,000,000, not {pace:g}")
    if arguments.picture is not None and arguments.picture.suffix not in SVG:
        raise UsageError(f"--picture: the name of a file that ends in .svg, not {arguments.picture}")
    signals = []
    if arguments.trace is not None:
        signals.append(trace(arguments.trace, zone, Measure(energy.measure)))
    elif (known := mean(EnergySettings(), zone)) is not None and energy.measure == "average":
        signals.append(known)
    if arguments.tariff is not None:
        signals.append(trace(arguments.tariff, zone, Measure.PRICE))
    asked = question(job, signals, _when(arguments.at, signals), pace, arguments.pue, zone)
    try:
        found = plan(asked)
    except RequestInvalid as error:
        raise CliError(f"{job.name}: {error}") from None
    horizon = max((signal.slots[-1].end for signal in signals if signal.slots), default=0.0)
    others = answer.later(asked, horizon)
    if arguments.picture is not None:
        try:
            arguments.picture.write_text(picture(job.name, found, asked), encoding="utf-8")
        except OSError as error:
            raise CliError(f"--picture {arguments.picture}: {error.strerror}") from None
    if arguments.output:
        print(output.dumped(answer.as_object(job.name, found, asked, others, energy.budget), arguments.output))
    else:
        told = answer.lines(job.name, found, asked, others, arguments.currency, energy.budget)
        print(printable_lines("\n".join(told)))
    return Exit.OK if found.meets_deadline else Exit.FAILED


def _when(given: str | None, signals: list[Signal]) -> datetime:
    if given is not None:
        try:
            found = datetime.fromisoformat(given.upper().replace("Z", "+00:00"))
        except ValueError:
            raise UsageError(f"--at: a time such as 2026-12-01T18:00:00Z, not {given}") from None
        return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
    now = datetime.now(UTC)
    for signal in signals:
        if signal.slots and not signal.slots[0].start <= now.timestamp() < signal.slots[-1].end:
            return datetime.fromtimestamp(signal.slots[0].start, UTC)
    return now
