"""PURE: was anything lost? What the demo saw, as sentences for people and as a list of problems."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

_HASH: Final = re.compile(r"state sha256 ([0-9a-f]{64}) \(rank (\d+), step (\d+)\)")
_LOSS: Final = re.compile(r"held-out loss ([\d.]+|nan) before, ([\d.]+|nan) after (\d+) steps")


@dataclass(frozen=True, slots=True)
class StateHash:
    """sha256 over all registered state of one rank at one step."""

    run: str
    """Which run, for people."""
    sha256: str
    rank: int
    step: int

    def __str__(self) -> str:
        return f"{self.sha256}  {self.run}, rank {self.rank}, step {self.step}"


@dataclass(frozen=True, slots=True)
class Kill:
    """One rank was killed, and what came of it."""

    rank: int
    pid: int
    step: int
    """Steps that all members had finished when it happened."""
    seconds: float
    """Until all members of the next membership had finished a step."""
    step_seconds: float
    """What a step takes undisturbed."""
    next_step: int
    membership: str
    world: int
    survivors: dict[int, int]
    """pid by rank before the kill, of those that live on."""
    gone: list[int] = field(default_factory=list)
    """pids of members that were not killed by us and are not the same any more."""
    joined: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Fall:
    """All ranks were killed at once, and what came of it."""

    step: int
    """Steps that all members had finished when it happened."""
    durable: int
    """Of those, the ones that status said could be gone back to."""
    next_step: int
    """With which training went on, from 0."""
    seconds: float
    """Until all members of the next membership had finished a step."""

    @property
    def redone(self) -> int:
        """Steps that had been made and were made again."""
        return max(0, self.step - self.next_step)


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that the demo saw."""

    phase: str
    world: int
    """Members at the end: fewer than workers if a replacement was not ready in time."""
    steps: int
    kill: Kill | None
    fall: Fall | None
    lost: list[str]
    hashes: list[StateHash]
    reference: StateHash | None
    losses: tuple[float, float] | None
    left_behind: list[int] = field(default_factory=list)

    def problems(self) -> list[str]:
        """Why this is no success; empty if it is one."""
        found = list(self.lost)
        if self.phase != "Succeeded":
            found.append(f"the job is {self.phase or 'without a status'}, not Succeeded")
        if self.kill is None:
            found.append("training did not go on after the kill")
        elif self.kill.gone:
            found.append(f"processes {self.kill.gone} were to survive and did not")
        if self.fall is None:
            found.append("training did not go on after all ranks were killed")
        elif self.fall.next_step < self.fall.durable:
            found.append(f"{self.fall.durable} steps were durable, and training went on from {self.fall.next_step}")
        if len({h.rank for h in self.hashes}) != self.world:
            found.append(f"{len(self.hashes)} of {self.world} ranks told the hash of their state")
        if self.reference is None:
            found.append("the uninterrupted run told no hash")
        for h in self.hashes:
            if self.reference is not None and (h.sha256, h.step) != (self.reference.sha256, self.reference.step):
                found.append(f"rank {h.rank} does not have the state of the uninterrupted run, bit for bit")
        if self.losses is None:
            found.append("no rank told the loss on held-out text")
        elif not self.losses[1] < self.losses[0]:
            found.append("the loss on held-out text did not fall")
        if self.left_behind:
            found.append(f"processes were left behind: {self.left_behind}")
        return found


def hashes(run: str, lines: Iterable[str]) -> list[StateHash]:
    """The hashes that a run's ranks printed, by rank."""
    found = {int(m[2]): StateHash(run, m[1], int(m[2]), int(m[3])) for line in lines if (m := _HASH.search(line))}
    return [found[rank] for rank in sorted(found)]


def losses(lines: Iterable[str]) -> tuple[float, float] | None:
    """Loss on held-out text before and after training."""
    return next(((float(m[1]), float(m[2])) for line in lines if (m := _LOSS.search(line))), None)


def told(kill: Kill) -> list[str]:
    """What happened after the kill, in sentences."""
    survivors = ", ".join(f"rank {rank} (pid {pid})" for rank, pid in sorted(kill.survivors.items()))
    joined = f"; in its place: pid {', '.join(map(str, kill.joined))}" if kill.joined else ""
    return [
        f"{kill.seconds * 1000:.0f} ms from the kill to the first step that all members finished "
        f"(step {kill.next_step + 1}, membership {kill.membership}, world size {kill.world}); "
        f"a step takes {kill.step_seconds * 1000:.0f} ms",
        f"survived, same processes: {survivors}{joined}",
    ]


def told_fall(fall: Fall) -> list[str]:
    """What happened after all were killed, in sentences."""
    again = f"{fall.redone} step{'s' if fall.redone != 1 else ''} made again"
    return [
        f"{fall.seconds:.1f} s until new processes of all ranks finished a step (step {fall.next_step + 1}); they "
        f"went on from the snapshot of step {fall.next_step}: {again} ({fall.durable} were known to be durable)"
    ]
