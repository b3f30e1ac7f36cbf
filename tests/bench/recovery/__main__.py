"""The recovery benchmark's command line."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import signal

import bench.recovery
from bench.planes import Plane, plane_by_name
from bench.recovery.faults import INJECTED, TWO_AT_ONCE
from bench.recovery.jobs import BATCH, one_job, uninterrupted
from bench.recovery.outcome import Totals
from bench.recovery.summary import mode_summary, summary
from drivetrain_api.runtime import RuntimeSpec, RuntimeTraining

STEPS = {"deterministic": 600, "default": 1200, "zero 1": 1200, "zero 2": 1200, "zero 3": 1200}
"""A job's length. It takes faults from the list until its end is near; default steps are faster."""


def faults_for(mode: str, arguments: argparse.Namespace, chance: random.Random) -> list[str]:
    """Half of all kills, in random order: the injected ones, and random moments for the rest. Where state is shared
    out, as many as were asked for, each of one rank: two at once are a part and its copy, or its copy's copy."""
    shared = mode.startswith("zero")
    share = arguments.zero_kills if shared else arguments.kills // 2
    if arguments.kinds:
        names = arguments.kinds.split(",")
        return [names[number % len(names)] for number in range(share)]
    injected = [kind for kind in INJECTED if not (shared and kind in TWO_AT_ONCE)]
    kinds = [kind for kind in injected for _ in range(1 if shared else max(1, arguments.injected // 2))]
    if mode == "deterministic":  # in a ring nobody has the sum before everybody can have it
        kinds += ["redo"] * 3 * arguments.injected
    kinds = kinds[:share] + ["random"] * max(0, share - len(kinds))
    chance.shuffle(kinds)
    return kinds


async def run_mode(mode: str, plane: Plane, arguments: argparse.Namespace) -> Totals:
    """All jobs of one mode."""
    totals = Totals()
    chance = random.Random(f"{arguments.seed}-{mode}")
    kinds = faults_for(mode, arguments, chance)
    spec = RuntimeSpec(
        workers=3,
        min_workers=1,
        spares=1,
        replicas=1 if mode.startswith("zero") else 0,
        training=RuntimeTraining(
            zero=int(mode.removeprefix("zero ")) if mode.startswith("zero") else 0,
            steps=arguments.steps or STEPS[mode],
            global_batch=BATCH,
            clip_norm=1.0,
            seed=arguments.seed,
            deterministic=mode == "deterministic",
            virtual_shards=8,  # what the API resolves for worlds of up to 8
        ),
    )
    if mode == "deterministic":
        totals.expected_hash, expected_loss = uninterrupted(spec)
    else:  # batch-norm sees a third of the batch: only an uninterrupted world of 3 compares
        quiet = Totals()
        await one_job(plane, spec, [], chance, quiet, keeps=arguments.snapshots, kill_last=False)
        totals.problems += quiet.problems
        (expected_loss,) = quiet.losses or [float("nan")]
    jobs = 0
    while kinds and jobs < arguments.max_jobs:
        jobs += 1
        print(f"{mode} job {jobs}, {len(kinds)} faults to go, seed {arguments.seed}", flush=True)
        await one_job(plane, spec, kinds, chance, totals, keeps=arguments.snapshots)
    mode_summary(mode, totals, expected_loss)
    return totals


async def run(arguments: argparse.Namespace) -> int:
    """The whole benchmark; ended by SIGTERM it cleans up as it does after Ctrl-C."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    print(f"seed {arguments.seed}, {arguments.kills} kills, plane {arguments.plane}", flush=True)
    async with contextlib.AsyncExitStack() as stack:
        plane = await stack.enter_async_context(plane_by_name(arguments.plane))
        names = ["deterministic", "default", *(f"zero {stage}" for stage in arguments.zero.split(",") if stage)]
        wanted = names if not arguments.only_zero else names[2:]
        modes = {mode: await run_mode(mode, plane, arguments) for mode in wanted}
    return summary(modes, arguments.torchrun_runs)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.recovery", description=bench.recovery.__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--injected", type=int, default=6, help="times that each injected fault happens, at least")
    parser.add_argument("--zero", default="", help="these stages too, such as 1,2,3, each part with a copy")
    parser.add_argument("--zero-kills", type=int, default=20, help="of each stage")
    parser.add_argument("--only-zero", action="store_true", help="nothing but those")
    parser.add_argument("--snapshots", action="store_true", help="every step is kept in a folder (spec.snapshots)")
    parser.add_argument("--max-jobs", type=int, default=40, help="in each mode")
    parser.add_argument("--steps", type=int, default=0, help=f"of each job; default: {STEPS}")
    parser.add_argument("--seed", type=int, default=20261121)
    parser.add_argument("--plane", choices=("embedded", "processes"), default="embedded")
    parser.add_argument("--kinds", default="", help="only these faults, comma-separated: for debugging")
    parser.add_argument("--torchrun-runs", type=int, default=5)
    raise SystemExit(asyncio.run(run(parser.parse_args())))


if __name__ == "__main__":
    main()
