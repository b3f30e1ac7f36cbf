"""`drivetrain demo`: arguments, signals and the exit code around `scene.play`."""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import tempfile
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from drivetrain_cli.demo.day import Day, told
from drivetrain_cli.demo.day import play as play_day
from drivetrain_cli.demo.scene import Plan, play
from drivetrain_cli.demo.screen import make_screen
from drivetrain_cli.errors import CliError, Exit, UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `drivetrain demo`."""
    parser.add_argument(
        "--script", type=Path, help="training script (default: examples/charlm/train.py of the checkout)"
    )
    parser.add_argument("--steps", type=int, default=120, help="steps to train (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=24, help="samples a step (default: %(default)s)")
    parser.add_argument(
        "--energy", action="store_true", help="another one: a day in two minutes, of a job that follows the sun"
    )
    parser.add_argument("--seed", type=int, help="seed of data order and weights (default: a random one)")
    parser.add_argument(
        "--limit", type=float, default=240.0, help="give up after so many seconds (default: %(default)g)"
    )


def run(arguments: argparse.Namespace) -> int:
    """0 if nothing was lost and all hashes are equal."""
    steps: int = arguments.steps
    if steps < 12:
        raise UsageError("--steps: at least 12, because one rank is killed half-way, and all of them near the end")
    seed = random.randrange(2**31) if arguments.seed is None else arguments.seed
    with tempfile.TemporaryDirectory(prefix="drivetrain-demo-", ignore_cleanup_errors=True) as folder:
        if arguments.energy:
            day = Day(_script(arguments.script), Path(folder), steps=steps, batch=arguments.batch, seed=seed)
            return asyncio.run(_until_interrupted(_day(day)))
        plan = Plan(
            _script(arguments.script),
            Path(folder),
            steps=steps,
            batch=arguments.batch,
            seed=seed,
            limit=arguments.limit,
        )
        return asyncio.run(_until_interrupted(_play(plan)))


async def _until_interrupted(demo: Coroutine[Any, Any, int]) -> int:
    task = asyncio.ensure_future(demo)
    loop = asyncio.get_running_loop()
    asked = False

    def stop() -> None:
        # Once: a second Ctrl-C must not cut the clean-up short, which takes a second.
        nonlocal asked
        if not asked:
            asked = True
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    try:
        return await task
    except asyncio.CancelledError:
        print("Interrupted; all processes of the demo are ended.", flush=True)
        return Exit.INTERRUPTED


async def _play(plan: Plan) -> int:
    began = time.monotonic()
    outcome = await play(plan, make_screen())
    return _ended(
        outcome.problems(),
        "All ranks have the state of the uninterrupted run, bit for bit; nothing was lost and no process is left "
        f"({time.monotonic() - began:.0f} s).",
    )


async def _day(day: Day) -> int:
    began = time.monotonic()
    seen = await play_day(day, make_screen())
    print("\n".join(told(seen)))
    return _ended(
        seen.problems(),
        "It followed the sun, was done in time, and has the state of the undisturbed run, bit for bit "
        f"({time.monotonic() - began:.0f} s).",
    )


def _ended(problems: list[str], well: str) -> int:
    print()
    print("FAILED: " + "; ".join(problems) if problems else well)
    return Exit.FAILED if problems else Exit.OK


def _script(given: Path | None) -> Path:
    script = given or Path(__file__).resolve().parents[3] / "examples" / "charlm" / "train.py"
    if not script.is_file():
        where = "--script" if given else "run it from a checkout, or give --script"
        raise CliError(f"{script} is not there: {where}")
    return script.resolve()
