"""`drivetrain demo`: arguments, signals and the exit code around `scene.play`."""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import tempfile
import time
from pathlib import Path

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
    parser.add_argument("--seed", type=int, help="seed of data order and weights (default: a random one)")
    parser.add_argument(
        "--limit", type=float, default=240.0, help="give up after so many seconds (default: %(default)g)"
    )


def run(arguments: argparse.Namespace) -> int:
    """0 if nothing was lost and all hashes are equal."""
    if arguments.steps < 12:
        raise UsageError("--steps: at least 12, because one rank is killed half-way, and all of them near the end")
    seed = random.randrange(2**31) if arguments.seed is None else arguments.seed
    with tempfile.TemporaryDirectory(prefix="drivetrain-demo-", ignore_cleanup_errors=True) as folder:
        plan = Plan(
            _script(arguments.script),
            Path(folder),
            steps=arguments.steps,
            batch=arguments.batch,
            seed=seed,
            limit=arguments.limit,
        )
        return asyncio.run(_play(plan))


async def _play(plan: Plan) -> int:
    began = time.monotonic()
    task = asyncio.ensure_future(play(plan, make_screen()))
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
        outcome = await task
    except asyncio.CancelledError:
        print("Interrupted; all processes of the demo are ended.", flush=True)
        return Exit.INTERRUPTED
    problems = outcome.problems()
    print()
    if problems:
        print("FAILED: " + "; ".join(problems))
        return Exit.FAILED
    print(
        "All ranks have the state of the uninterrupted run, bit for bit; nothing was lost and no process is left "
        f"({time.monotonic() - began:.0f} s)."
    )
    return Exit.OK


def _script(given: Path | None) -> Path:
    script = given or Path(__file__).resolve().parents[3] / "examples" / "charlm" / "train.py"
    if not script.is_file():
        where = "--script" if given else "run it from a checkout, or give --script"
        raise CliError(f"{script} is not there: {where}")
    return script.resolve()
