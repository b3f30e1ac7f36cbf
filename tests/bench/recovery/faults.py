"""Break one job, in one of these ways, and wait for it to go on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from pathlib import Path
from typing import Any

from bench.ledger import Committed, Ledger
from bench.planes import Plane
from bench.recovery.outcome import Outcome, Totals

LIMIT_SECONDS = 60.0
ARMED = ("bucket", "reduced", "committed", "forming", "copying", "promoted", "redo")
"""The victim kills itself at a point of its step (drivetrain.faults)."""
SAME_MEMBERSHIP = ("blip", "coordinator")
"""Nobody dies who trains."""
INJECTED = (*ARMED[:-1], "two", "freeze", "blip", "launcher", "coordinator", "headless")
TWO_AT_ONCE = ("two", "forming")
"""Of three ranks, before they have come together again."""
APART = ("freeze", "blip", "headless")
"""Not in the figures over all kills: frozen ranks have a limit of their own, and so have two losses at once, one of
them the coordinator, whose successor must first be there."""


def start_ticks(pid: int) -> int | None:
    """When the process started (field 22 of /proc/PID/stat); None when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else int(fields[19])


def stolen_seconds() -> float:
    """Processor time that the hypervisor gave to others since the machine's start, summed over all processors."""
    return int(Path("/proc/stat").read_text().split(maxsplit=9)[8]) / os.sysconf("SC_CLK_TCK")


class Faults:
    """Breaks one job again and again and measures."""

    def __init__(self, folder: Path, plane: Plane, chance: random.Random, totals: Totals) -> None:
        self.folder = folder
        self.plane = plane
        self.ledger = Ledger(folder)
        self.chance = chance
        self.totals = totals
        self.stuck = False
        self._killed_at = 0.0

    async def until(self, seconds: float, test: Callable[[], bool | Awaitable[bool]]) -> bool:
        """Read the ledger until `test()` holds."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.ledger.read()
            found = test()
            if await found if isawaitable(found) else found:
                return True
            await asyncio.sleep(0.02)
        return False

    def alive_members(self) -> dict[int, int]:
        """pid by rank; empty while one of them is dead."""
        members = self.ledger.members()
        return members if all(start_ticks(pid) for pid in members.values()) else {}

    async def settled(self) -> bool:
        """Three members train, there is a warm spare for each, and the newest coordinator has heard of them all."""
        members = self.alive_members()
        spares = [pid for pid in self.ledger.ready if pid not in members.values() and start_ticks(pid)]
        return len(members) == 3 and len(spares) >= 3 and await self.plane.launchers_connected() == 3

    def arm(self, name: str, **order: object) -> None:
        """Arm a fault: the first process that reaches the point claims it."""
        temporary = self.folder / f"tmp-{name}"
        temporary.write_text(json.dumps(order))
        temporary.rename(self.folder / f"arm-{name}.json")

    def disarm(self) -> None:
        """Take back what nobody has claimed."""
        for path in self.folder.glob("arm-*.json"):
            path.unlink()

    async def strike(self, kind: str) -> bool:
        """One fault of this kind, and the wait for training to go on. False when it did not come to the fault."""
        if not await self.until(LIMIT_SECONDS, self.settled):
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
        stolen = stolen_seconds()
        victims = await self._break(kind, pids, step_seconds)
        at = self._killed_at
        if kind in ARMED:
            if not await self.until(LIMIT_SECONDS, lambda: bool(self._kills(count))):
                self.disarm()
                self.totals.problems.append(f"{kind}: the point was not reached")
                return True
            at = max(each["at"] for each in self._kills(count))
            # A first loss may have been answered already when the armed one came: count from the membership it hit.
            membership = max(membership, self.ledger.membership_at(at))
            if kind == "redo":
                await asyncio.sleep(at - time.time())  # the kill is announced just before it happens
                with contextlib.suppress(ProcessLookupError):  # then it counts as a survivor that changed
                    os.kill(pids[1], signal.SIGCONT)
                at = time.time()
            victims = victims | {each["pid"] for each in self._kills(count)}
        floor = (membership[0], membership[1] - 1) if kind in SAME_MEMBERSHIP else membership
        done = await self._next_common(at, floor)
        if done is None:
            self.totals.outcomes.append(Outcome(kind, at, None))
            print(f"  {kind:<12}    HANG", flush=True)
            self.totals.problems.append(f"HANG after {kind}: {self.plane.describe()}")
            return True
        self.totals.outcomes.append(Outcome(kind, at, done[0], done[1].membership))
        stolen = stolen_seconds() - stolen
        told = f" ({1e3 * stolen:.0f} ms of processor time stolen meanwhile)" if stolen >= 0.05 else ""
        print(f"  {kind:<12}{1e3 * (done[0] - at):>8.0f} ms raw{told}", flush=True)
        for pid in set(pids) - victims:
            self.totals.survivors += 1
            if start_ticks(pid) != before[pid]:
                self.totals.survivors_changed += 1
                self.totals.problems.append(
                    f"survivor {pid} of {kind} is not the same process any more: {self.plane.describe()}"
                )
        return True

    def _kills(self, count: int) -> list[dict[str, Any]]:
        """Armed kills that have happened since there were `count` faults in the ledger."""
        return [each for each in self.ledger.faults[count:] if each["action"] == "kill"]

    async def _next_common(self, at: float, floor: tuple[int, int]) -> tuple[float, Committed] | None:
        found = await self.until(LIMIT_SECONDS, lambda: self.ledger.first_common_step_after(at, floor) is not None)
        return self.ledger.first_common_step_after(at, floor) if found else None

    async def _break(self, kind: str, pids: list[int], step_seconds: float) -> set[int]:
        """Do it. Returns the pids that are meant to die."""
        await asyncio.sleep(self.chance.random() * 2 * step_seconds)
        first, second = pids[0], pids[1]
        if kind == "headless":
            os.kill(self.plane.coordinator_pid(), signal.SIGKILL)
            await asyncio.sleep(self.chance.random() * 0.5)
        self._killed_at = time.time()
        if kind in ("random", "headless"):
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
