"""Who made which step, and when? Read from the lines that examples/charlm/train.py appends to $STEP_LOG."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import NamedTuple


class Membership(NamedTuple):
    """(term, n) of a membership epoch; ordered."""

    term: int
    n: int

    def __str__(self) -> str:
        return f"{self.term}.{self.n}"


@dataclass(frozen=True, slots=True)
class Made:
    """One process has finished one step."""

    at: float
    """Seconds since 1970."""
    pid: int
    rank: int
    world: int
    membership: Membership
    step: int
    """From 0."""
    loss: float


class Steps:
    """All lines so far. `read` takes in what was appended since."""

    def __init__(self, folder: Path) -> None:
        self.made: list[Made] = []
        self._folder = folder
        self._offsets: dict[Path, int] = {}

    def read(self) -> None:
        """Take in new lines; one that is only half there waits for the next time."""
        fresh: list[Made] = []
        for path in sorted(self._folder.glob("*.jsonl")):
            offset = self._offsets.get(path, 0)
            with path.open("rb") as file:
                file.seek(offset)
                data = file.read()
            whole = data[: data.rfind(b"\n") + 1]
            self._offsets[path] = offset + len(whole)
            fresh += [_made(json.loads(line)) for line in whole.splitlines()]
        self.made += sorted(fresh, key=lambda made: made.at)

    def common(self) -> list[tuple[float, int, Membership]]:
        """(time, step, membership) of every step that all members of one membership have finished, in order of time."""
        parts: dict[tuple[Membership, int], dict[int, Made]] = defaultdict(dict)
        for made in self.made:
            parts[made.membership, made.step].setdefault(made.rank, made)
        done = [
            (max(made.at for made in ranks.values()), step, membership)
            for (membership, step), ranks in parts.items()
            if len(ranks) == next(iter(ranks.values())).world
        ]
        return sorted(done)

    def members(self) -> dict[int, int]:
        """pid by rank in the newest membership of which all members have finished a step."""
        common = self.common()
        if not common:
            return {}
        newest = max(membership for _, _, membership in common)
        return {made.rank: made.pid for made in self.made if made.membership == newest}

    def last(self) -> Made | None:
        """The newest line."""
        return self.made[-1] if self.made else None

    def step_seconds(self, last: int = 20) -> float:
        """Median time between the last common steps; 0 before there are two."""
        times = [at for at, _, _ in self.common()][-last:]
        gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
        return median(gaps) if gaps else 0.0

    def first_common_after(self, at: float, above: Membership) -> tuple[float, int] | None:
        """(time, step) of the first step after `at` that all members of a membership later than `above` finished."""
        return next(
            ((when, step) for when, step, membership in self.common() if when > at and membership > above), None
        )

    def missing(self, steps: int) -> list[str]:
        """In words: steps that nobody ever made."""
        made = {each.step for each in self.made}
        return [f"step {step + 1} was never made" for step in range(steps) if step not in made]

    def made_again(self, at: float, above: Membership) -> list[str]:
        """In words: steps that all had at that time, and that a later membership made again.

        A step that only some had when one was killed is not lost: the others take over its result.
        """
        before = max((step for when, step, _ in self.common() if when <= at), default=-1)
        after = [each.step for each in self.made if each.membership > above]
        return [f"step {step + 1} was made a second time" for step in range(min(after, default=before + 1), before + 1)]


def _made(line: dict[str, object]) -> Made:
    term, _, n = str(line["membership"]).partition(".")
    return Made(
        float(str(line["at"])),
        int(str(line["pid"])),
        int(str(line["rank"])),
        int(str(line["world"])),
        Membership(int(term), int(n)),
        int(str(line["step"])),
        float(str(line["loss"])),
    )
