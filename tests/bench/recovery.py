"""How long does training stand still when something dies, and is anything lost?

Jobs of three workers train while processes are killed and frozen, at random moments and at chosen points of the step.
Time: from the kill to the first step that all members of a later membership have finished, minus the median step of
that membership (`raw` is without the subtraction).
Beside it, in the same run, the same script under torchrun. Run by `make bench-recovery`; `--help` has smaller runs.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from bench.ledger import Committed, Ledger
from bench.planes import Plane, plane_by_name
from bench.torchrun import torchrun_recovery
from drivetrain_api.runtime import RuntimeSpec, RuntimeTraining

SCRIPT = Path(__file__).with_name("recovery_train.py")
BATCH, SAMPLES = 48, 4800
LIMIT_SECONDS = 60.0
INJECTED = (
    "bucket", "reduced", "committed", "forming", "copying", "promoted", "two", "freeze", "blip", "launcher",
    "coordinator",
)  # fmt: skip
STEPS = {"deterministic": 600, "default": 1200}
"""A job's length. It takes faults from the list until its end is near; default steps are faster."""
LOSS_BAND = 0.05
"""How far the final loss (mean of the last 20 steps) may lie from the uninterrupted run's; it starts at about 2.5."""
LAST_STEPS = 60
"""No more faults so near the end, but for one at the very last step."""


@dataclass
class Outcome:
    """One fault and what followed."""

    kind: str
    at: float
    done: float | None
    """When all members had finished a step; None: training did not go on within the limit."""
    membership: tuple[int, int] = (0, 0)
    """The one that finished it."""
    step_seconds: float = 0.0
    """Its median step."""

    @property
    def seconds(self) -> float | None:
        """Time lost: nothing when it went on within a step."""
        return None if self.done is None else max(0.0, self.done - self.at - self.step_seconds)


@dataclass
class Totals:
    """Everything measured in one mode."""

    outcomes: list[Outcome] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    """What the ledger says against the samples that were applied."""
    expected_hash: str = ""
    """Of the uninterrupted run."""
    peak_mb: list[int] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    hashes: list[str] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    equal_members: int = 0
    jobs: int = 0
    survivors: int = 0
    survivors_changed: int = 0


def start_ticks(pid: int) -> int | None:
    """When the process started (field 22 of /proc/PID/stat); None when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else int(fields[19])


class Controller:
    """Breaks one job again and again and measures."""

    def __init__(self, folder: Path, plane: Plane, chance: random.Random, totals: Totals) -> None:
        self.folder = folder
        self.plane = plane
        self.ledger = Ledger(folder)
        self.chance = chance
        self.totals = totals
        self.stuck = False

    async def until(self, condition: str, seconds: float, test: object) -> bool:
        """Read the ledger until `test()` holds."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.ledger.read()
            if test():  # type: ignore[operator]
                return True
            await asyncio.sleep(0.02)
        return False

    def alive_members(self) -> dict[int, int]:
        """pid by rank; empty while one of them is dead."""
        members = self.ledger.members()
        return members if all(start_ticks(pid) for pid in members.values()) else {}

    def settled(self) -> bool:
        """Three members train, and there is a warm spare for each."""
        members = self.alive_members()
        spares = [pid for pid in self.ledger.ready if pid not in members.values() and start_ticks(pid)]
        return len(members) == 3 and len(spares) >= 3

    def arm(self, name: str, **order: object) -> None:
        """Arm a fault: the first process that reaches the point claims it."""
        temporary = self.folder / f"tmp-{name}"
        temporary.write_text(json.dumps(order))
        temporary.rename(self.folder / f"arm-{name}.json")

    async def fault(self, kind: str) -> bool:
        """One fault of this kind, and the wait for training to go on. False when it did not come to the fault."""
        if not await self.until("settled", LIMIT_SECONDS, self.settled):
            if not self.ledger.ends:
                self.stuck = True
                self.totals.problems.append(f"before {kind}: no world of 3 with spares within {LIMIT_SECONDS:.0f} s")
            return False
        members = self.alive_members()
        if len(members) != 3:
            return False
        pids = list(members.values())
        self.chance.shuffle(pids)
        before = {pid: start_ticks(pid) for pid in pids}
        membership = max(each.membership for each in self.ledger.steps)
        step_seconds = self.ledger.median_step_seconds(membership)
        count = len(self.ledger.faults)
        began = time.time()
        victims = await self._break(kind, pids, step_seconds)
        if kind in ("bucket", "reduced", "committed", "forming", "copying", "promoted", "redo"):

            def killed() -> bool:
                return any(each["action"] == "kill" for each in self.ledger.faults[count:])

            if not await self.until("fault", LIMIT_SECONDS, killed):
                for path in self.folder.glob("arm-*.json"):
                    path.unlink()
                self.totals.problems.append(f"{kind}: the point was not reached")
                return True
            at = max(each["at"] for each in self.ledger.faults[count:] if each["action"] == "kill")
            # A first loss may have been answered already when the armed one came: count from the membership it hit.
            membership = max(membership, self.ledger.membership_at(at))
            if kind == "redo":
                await asyncio.sleep(at - time.time())  # the kill is announced just before it happens
                with contextlib.suppress(ProcessLookupError):  # then it counts as a survivor that changed
                    os.kill(pids[1], signal.SIGCONT)
                at = time.time()
            victims = victims | {each["pid"] for each in self.ledger.faults[count:] if each["action"] == "kill"}
        else:
            at = began if kind in ("blip", "coordinator") else self.killed_at
        if kind in ("blip", "coordinator"):
            done = await self._next_common(at, membership, same=True)
        else:
            done = await self._next_common(at, membership, same=False)
        if done is None:
            self.totals.outcomes.append(Outcome(kind, at, None))
            print(f"  {kind:<12}    HANG", flush=True)
            self.totals.problems.append(f"HANG after {kind}: {self.plane.describe()}")
            return True
        self.totals.outcomes.append(Outcome(kind, at, done[0], done[1].membership))
        print(f"  {kind:<12}{1e3 * (done[0] - at):>8.0f} ms raw", flush=True)
        for pid in set(pids) - victims:
            self.totals.survivors += 1
            if start_ticks(pid) != before[pid]:
                self.totals.survivors_changed += 1
                self.totals.problems.append(
                    f"survivor {pid} of {kind} is not the same process any more: {self.plane.describe()}"
                )
        return True

    async def _next_common(
        self, at: float, membership: tuple[int, int], *, same: bool
    ) -> tuple[float, Committed] | None:
        floor = (membership[0], membership[1] - 1) if same else membership
        found = await self.until(
            "next step", LIMIT_SECONDS, lambda: self.ledger.first_common_step_after(at, floor) is not None
        )
        return self.ledger.first_common_step_after(at, floor) if found else None

    async def _break(self, kind: str, pids: list[int], step_seconds: float) -> set[int]:
        """Do it. Returns the pids that are meant to die."""
        await asyncio.sleep(self.chance.random() * 2 * step_seconds)
        self.killed_at = time.time()
        first, second = pids[0], pids[1]
        if kind == "random":
            os.kill(first, signal.SIGKILL)
            return {first}
        if kind in ("bucket", "reduced", "committed"):
            self.arm(f"{first}-{kind}", action="kill")
            return {first}
        if kind in ("forming", "copying", "promoted"):
            self.arm(f"any-{kind}", action="kill")
            os.kill(first, signal.SIGKILL)
            return {first}
        if kind == "two":
            os.kill(first, signal.SIGKILL)
            os.kill(second, signal.SIGKILL)
            return {first, second}
        if kind == "redo":
            # In the last exchange of a step everybody sends to everybody. The second has sent its part and is stopped,
            # the first has sent its own to the third, but cannot to the second, and dies: only the third has the step.
            self.ledger.read()
            step = self.ledger.newest_step() + 3  # one step for all of this
            self.arm(f"{second}-gathering-{step}", action="stop", seconds=0.08)
            self.arm(f"{first}-bucket-{step}", action="delay", seconds=0.25)
            self.arm(f"{first}-gathering-{step}", action="kill", seconds=0.1)
            return {first}
        if kind == "freeze":
            os.kill(first, signal.SIGSTOP)
            return {first}
        if kind == "blip":
            os.kill(first, signal.SIGSTOP)
            await asyncio.sleep(0.2)
            os.kill(first, signal.SIGCONT)
            return set()
        if kind == "launcher":
            parent = int(Path(f"/proc/{first}/stat").read_text().rpartition(")")[2].split()[1])
            os.kill(parent, signal.SIGKILL)
            return {first}
        assert kind == "coordinator"
        os.kill(self.plane.coordinator_pid(), signal.SIGKILL)
        return set()


async def one_job(
    plane: Plane,
    spec: RuntimeSpec,
    kinds: list[str],
    chance: random.Random,
    totals: Totals,
    folder: Path,
    *,
    kill_last: bool = True,
) -> None:
    """Start a job, take faults from `kinds`, kill once more at the very last step, and check everything at the end."""
    steps = spec.training.steps
    assert steps is not None
    async with plane.job(folder, spec, [sys.executable, "-m", "bench.recovery_train"], {"BENCH_FOLDER": str(folder)}):
        controller = Controller(folder, plane, chance, totals)
        first = len(totals.outcomes)
        while kinds and controller.ledger.newest_step() < steps - LAST_STEPS:
            kind = kinds.pop(0)
            if not await controller.fault(kind):
                kinds.append(kind)
                if controller.stuck:
                    break
        # By turns: nobody has the step's sum yet, so it is done again; all have it, and only finish without the victim.
        if kill_last:
            controller.arm(f"any-last-{('bucket', 'reduced')[totals.jobs % 2]}", action="kill")
        ended = await controller.until("end", 900, lambda: len(controller.ledger.ends) >= 3)
        for path in folder.glob("arm-*.json"):
            path.unlink()
        last = [each for each in controller.ledger.faults if each["step"] == steps - 1 and each["action"] == "kill"]
        if last and ended:
            at = last[-1]["at"]
            final = [each for each in controller.ledger.steps if each.step == steps - 1 and each.at > at]
            if final:
                done = max(each.at for each in final)
                totals.outcomes.append(Outcome("last", at, done, max(each.membership for each in final)))
                print(f"  {'last':<12}{1e3 * (done - at):>8.0f} ms raw", flush=True)
        for outcome in totals.outcomes[first:]:
            outcome.step_seconds = controller.ledger.median_step_seconds(outcome.membership)
        if not ended or not await plane.succeeded(120):
            totals.problems.append(f"the job did not end: {plane.describe()}")
            return
        controller.ledger.read()
        ends = controller.ledger.ends
        totals.jobs += 1
        totals.counts.update(controller.ledger.counts())
        totals.lost += controller.ledger.lost_samples(steps, BATCH, SAMPLES)
        totals.peak_mb.append(max(each["peak_mb"] for each in ends))
        totals.equal_members += len({each["sha256"] for each in ends}) == 1
        totals.hashes.append(ends[0]["sha256"])
        totals.losses.append(max(ends, key=lambda end: end["losses"])["loss"])  # not a newcomer's


def reference(spec: RuntimeSpec) -> tuple[str, float]:
    """The same training, uninterrupted, in one process: its final hash and loss."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **os.environ,
            "BENCH_FOLDER": folder,
            "DRIVETRAIN_SPEC": spec.model_dump_json(),
            "OMP_NUM_THREADS": "1",
        }
        environment["PYTHONPATH"] = os.pathsep.join(sys.path)
        subprocess.run([sys.executable, str(SCRIPT)], env=environment, check=True, stdout=subprocess.DEVNULL)
        ledger = Ledger(Path(folder))
        ledger.read()
        return ledger.ends[0]["sha256"], ledger.ends[0]["loss"]


def percentile(values: list[float], share: float) -> float:
    """Nearest-rank percentile."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def main_async(arguments: argparse.Namespace) -> int:
    plane = plane_by_name(arguments.plane)
    modes: dict[str, Totals] = {}
    print(f"seed {arguments.seed}, {arguments.kills} kills, plane {arguments.plane}", flush=True)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(plane)
        for mode in ("deterministic", "default"):
            totals = modes[mode] = Totals()
            chance = random.Random(f"{arguments.seed}-{mode}")
            share = arguments.kills // 2
            kinds = [kind for kind in INJECTED for _ in range(max(1, arguments.injected // 2))]
            if mode == "deterministic":  # in a ring nobody has the sum before everybody can have it
                kinds += ["redo"] * 3 * arguments.injected
            kinds = kinds[:share] + ["random"] * max(0, share - len(kinds))
            if arguments.kinds:
                kinds = [arguments.kinds.split(",")[each % len(arguments.kinds.split(","))] for each in range(share)]
            chance.shuffle(kinds)
            spec = RuntimeSpec(
                workers=3,
                min_workers=1,
                spares=1,
                training=RuntimeTraining(
                    steps=arguments.steps or STEPS[mode],
                    global_batch=BATCH,
                    clip_norm=1.0,
                    seed=arguments.seed,
                    deterministic=mode == "deterministic",
                    virtual_shards=8,  # what the API resolves for worlds of up to 8
                ),
            )
            if mode == "deterministic":
                totals.expected_hash, expected_loss = reference(spec)
            else:  # batch-norm sees a third of the batch: only an uninterrupted world of 3 compares
                quiet = Totals()
                with tempfile.TemporaryDirectory(prefix="drivetrain-bench-") as folder:
                    await one_job(plane, spec, [], chance, quiet, Path(folder), kill_last=False)
                totals.problems += quiet.problems
                (expected_loss,) = quiet.losses or [float("nan")]
            jobs = 0
            while kinds and jobs < arguments.max_jobs:
                jobs += 1
                print(f"{mode} job {jobs}, {len(kinds)} faults to go, seed {arguments.seed}", flush=True)
                with tempfile.TemporaryDirectory(prefix="drivetrain-bench-") as folder:
                    await one_job(plane, spec, kinds, chance, totals, Path(folder))
            bitwise = sum(each == totals.expected_hash for each in totals.hashes)
            print(
                f"{mode}: {len(totals.outcomes)} faults in {totals.jobs} jobs, counts {dict(totals.counts)}, "
                f"survivors {totals.survivors} (changed {totals.survivors_changed}), "
                f"members equal in {totals.equal_members}/{totals.jobs} jobs, "
                f"bitwise as uninterrupted {bitwise}/{totals.jobs}, "
                f"final loss {[round(loss, 4) for loss in totals.losses]} (uninterrupted {expected_loss:.4f}), "
                f"largest rank {max(totals.peak_mb, default=0)} MB"
            )
            totals.problems += [
                f"final loss {loss:.4f} is further than {LOSS_BAND} from the uninterrupted run's"
                for loss in totals.losses
                if not abs(loss - expected_loss) <= LOSS_BAND
            ]
            for problem in [*totals.lost, *totals.problems]:
                print(f"PROBLEM {problem}")
    return summary(modes, arguments)


def summary(modes: dict[str, Totals], arguments: argparse.Namespace) -> int:
    """The table by kind, torchrun beside it, and the last line."""
    outcomes = [outcome for totals in modes.values() for outcome in totals.outcomes]
    kinds = Counter(outcome.kind for outcome in outcomes)
    print(f"{'kind':<14}{'n':>5}{'p50 ms':>9}{'p95 ms':>9}{'max ms':>9}{'raw p50':>9}{'step p50':>10}")
    for kind in sorted(kinds):
        times = [o.seconds for o in outcomes if o.kind == kind and o.seconds is not None]
        if times:
            raw = median(o.done - o.at for o in outcomes if o.kind == kind and o.done is not None)
            step = median(o.step_seconds for o in outcomes if o.kind == kind and o.done is not None)
            print(
                f"{kind:<14}{kinds[kind]:>5}{1e3 * median(times):>9.0f}{1e3 * percentile(times, 0.95):>9.0f}"
                f"{1e3 * max(times):>9.0f}{1e3 * raw:>9.0f}{1e3 * step:>10.0f}"
            )
    killed = [o.seconds for o in outcomes if o.kind not in ("freeze", "blip") and o.seconds is not None]
    hangs = sum(o.seconds is None for o in outcomes)
    lost = sum(len(totals.lost) for totals in modes.values())
    deterministic = modes["deterministic"]
    bitwise = sum(each == deterministic.expected_hash for each in deterministic.hashes)
    tuned = torchrun_recovery(SCRIPT, arguments.torchrun_runs, BATCH)
    p95 = 1e3 * percentile(killed, 0.95) if killed else float("nan")
    print(
        f"recovery_p95_ms={p95:.0f} max_ms={1e3 * max(killed, default=0):.0f} kills={len(outcomes)} hangs={hangs} "
        f"lost_steps={lost} bitwise={bitwise}/{deterministic.jobs} torchrun_tuned_ms={tuned:.0f} "
        f"ratio={tuned / p95:.1f}"
    )
    wrong = hangs or lost or bitwise != deterministic.jobs or any(totals.problems for totals in modes.values())
    return 1 if wrong else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--injected", type=int, default=6, help="times that each injected fault happens, at least")
    parser.add_argument("--max-jobs", type=int, default=40, help="in each mode")
    parser.add_argument("--steps", type=int, default=0, help=f"of each job; default: {STEPS}")
    parser.add_argument("--seed", type=int, default=20261121)
    parser.add_argument("--plane", choices=("embedded", "processes"), default="embedded")
    parser.add_argument("--kinds", default="", help="only these faults, comma-separated: for debugging")
    parser.add_argument("--torchrun-runs", type=int, default=3)
    arguments = parser.parse_args()
    raise SystemExit(asyncio.run(main_async(arguments)))


if __name__ == "__main__":
    main()
