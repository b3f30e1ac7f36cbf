"""Reads the ledgers that the ranks of the recovery benchmark wrote, and answers for them: who, when, which samples."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True)
class Committed:
    """One optimizer step of one rank."""

    at: float
    pid: int
    step: int
    membership: tuple[int, int]
    rank: int
    world: int


@dataclass
class Ledger:
    """All lines of a job so far; `read` takes in what was appended since."""

    folder: Path
    steps: list[Committed] = field(default_factory=list)
    forwards: dict[tuple[int, tuple[int, int]], dict[int, Counter[int]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(Counter))
    )
    ends: list[dict[str, Any]] = field(default_factory=list)
    faults: list[dict[str, Any]] = field(default_factory=list)
    ready: set[int] = field(default_factory=set)
    """Processes that warmed up and asked for a seat."""
    _offsets: dict[Path, int] = field(default_factory=dict)

    def read(self) -> None:
        """Take in new lines. Lines of one file are in order."""
        for path in self.folder.glob("ledger-*.jsonl"):
            with path.open("rb") as file:
                file.seek(self._offsets.get(path, 0))
                data = file.read()
            whole = data[: data.rfind(b"\n") + 1]
            self._offsets[path] = self._offsets.get(path, 0) + len(whole)
            for line in whole.splitlines():
                self._take(json.loads(line))

    def _take(self, line: dict[str, Any]) -> None:
        if line["kind"] == "step":
            self.steps.append(
                Committed(
                    line["at"], line["pid"], line["step"], _epoch(line["membership"]), line["rank"], line["world"]
                )
            )
        elif line["kind"] == "forward":
            self.forwards[line["step"], _epoch(line["membership"])][line["pid"]].update(line["samples"])
        elif line["kind"] == "end":
            self.ends.append(line)
        elif line["kind"] == "fault":
            self.faults.append(line)
        elif line["kind"] == "ready":
            self.ready.add(line["pid"])

    def members(self) -> dict[int, int]:
        """pid by rank, of the newest membership that has committed a step on all of its ranks."""
        by_epoch: dict[tuple[int, int], dict[int, tuple[int, int]]] = defaultdict(dict)
        for each in self.steps:
            by_epoch[each.membership][each.rank] = (each.pid, each.world)
        for epoch in sorted(by_epoch, reverse=True):
            ranks = by_epoch[epoch]
            if len(ranks) == next(iter(ranks.values()))[1]:
                return {rank: pid for rank, (pid, _) in ranks.items()}
        return {}

    def newest_step(self) -> int:
        """Highest committed step."""
        return max((each.step for each in self.steps), default=-1)

    def first_common_step_after(self, at: float, membership: tuple[int, int]) -> tuple[float, Committed] | None:
        """When all members of a membership above `membership` had finished one and the same step, after `at`."""
        found: dict[tuple[tuple[int, int], int], dict[int, Committed]] = defaultdict(dict)
        for each in self.steps:
            if each.at > at and each.membership > membership:
                found[each.membership, each.step][each.rank] = each
        done = [
            (max(each.at for each in ranks.values()), next(iter(ranks.values())))
            for ranks in found.values()
            if len(ranks) == next(iter(ranks.values())).world
        ]
        return min(done, key=lambda pair: pair[0], default=None)

    def membership_at(self, at: float) -> tuple[int, int]:
        """The highest membership with a committed step before `at`."""
        return max((each.membership for each in self.steps if each.at <= at), default=(0, 0))

    def median_step_seconds(self, membership: tuple[int, int]) -> float:
        """Median time between steps of rank 0 in a membership (of all, when it has fewer than five)."""
        gaps = self._gaps([each for each in self.steps if each.membership == membership])
        return median(gaps if len(gaps) >= 5 else self._gaps(self.steps) or [0.0])

    def counts(self) -> dict[str, int]:
        """Steps computed again, steps taken over from a peer, and processes that joined a running job."""
        memberships: dict[tuple[int, int], set[tuple[int, int]]] = defaultdict(set)
        for (step, membership), by_pid in self.forwards.items():
            for pid in by_pid:
                memberships[pid, step].add(membership)
        by_pid_steps: dict[int, list[int]] = defaultdict(list)
        for each in self.steps:
            by_pid_steps[each.pid].append(each.step)
        redone = sum(max(steps) - min(steps) + 1 - len(set(steps)) for steps in by_pid_steps.values())
        return {
            "recomputed": sum(len(seen) - 1 for seen in memberships.values()),
            "redone": redone,
            "joined": sum(1 for steps in by_pid_steps.values() if min(steps) > 0),
        }

    @staticmethod
    def _gaps(steps: list[Committed]) -> list[float]:
        gaps = []
        last: dict[int, Committed] = {}
        for each in sorted(steps, key=lambda step: step.at):
            before = last.get(each.pid)
            if before is not None and each.step == before.step + 1:
                gaps.append(each.at - before.at)
            last[each.pid] = each
        return gaps

    def lost_samples(self, steps: int, batch: int, size: int) -> list[str]:
        """What is wrong with the samples of steps 0 … steps-1: every pass must use every sample exactly once.

        A step counts in the last membership that committed it; its samples are what that membership's members computed.
        """
        lineage: dict[int, tuple[int, int]] = {}
        for each in self.steps:
            lineage[each.step] = max(lineage.get(each.step, (0, 0)), each.membership)
        problems = [f"step {step} was never committed" for step in range(steps) if step not in lineage]
        used: Counter[int] = Counter()
        for step, membership in lineage.items():
            if step >= steps:
                continue
            samples: Counter[int] = Counter()
            for counts in self.forwards[step, membership].values():
                samples.update(counts)
            if samples.total() != batch or len(samples) != batch:
                problems.append(f"step {step} in {membership}: {samples.total()} samples, {len(samples)} different")
            used.update(samples)
        passes, rest = divmod(steps * batch, size)
        wrong = [index for index in range(size) if not passes <= used[index] <= passes + (1 if rest else 0)]
        if wrong:
            problems.append(f"{len(wrong)} samples were not used {passes} times each, such as {wrong[:3]}")
        return problems


def _epoch(text: str) -> tuple[int, int]:
    term, n = text.split(".")
    return int(term), int(n)
