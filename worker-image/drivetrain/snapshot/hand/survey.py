"""What does a storage have, for people and their programs? Runs, bases, the steps that can be gone back to, and what is
wrong. Knows nothing of torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from drivetrain.snapshot.found import Found
from drivetrain.snapshot.names import BaseName, SegmentName, run_name, run_number
from drivetrain.snapshot.storage import Dated

Range = tuple[int, int]
"""First and last step."""


@dataclass(frozen=True, slots=True)
class Run:
    """What happened between two losses of all state."""

    run: int
    came_from: tuple[int, int] | None
    """Run and step; None: it did not go on from another run."""
    branch_of: dict[str, Any] | None
    """`storage` and `step` of another job that it began with."""
    leads_on: bool
    """Training goes on from it, or from a run that went on from it."""
    steps: tuple[Range, ...]
    """Durable ones that led to where training stands."""
    world: tuple[int, ...]
    """Ranks that wrote it, by membership."""
    bytes: int
    began: float | None
    """Unix time by the storage's clock; None: it tells none."""


@dataclass(frozen=True, slots=True)
class Base:
    """A full copy of the state."""

    run: int
    step: int
    whole_from: int
    """The first step that can be gone back to with it."""
    reaches: int | None
    """The last one; None: none."""
    world: int
    bytes: int
    written: float | None
    damaged: str | None


@dataclass(frozen=True, slots=True)
class Survey:
    """All of it."""

    storage: str
    verified: bool
    """All bytes were read; else only names, runs and manifests."""
    newest: int | None
    """The step that training would go on with."""
    promised: int | None
    """The step that it would go on with if nothing were damaged, as far as the names of objects say."""
    steps: tuple[Range, ...]
    """Those that can be gone back to."""
    runs: tuple[Run, ...]
    bases: tuple[Base, ...]
    damaged: dict[str, str]
    """What is wrong, by object."""
    unfinished: dict[str, int]
    """Bytes of bases that were never whole, by base."""
    objects: int
    bytes: int

    @classmethod
    def of(cls, found: Found, *, verified: bool = False, promised: int | None = None) -> Survey:
        """Raises `StorageError`."""
        sizes = found.storage.list("")
        times = found.storage.modified("") if isinstance(found.storage, Dated) else {}
        points = {point.base: point.step for point in found.points()}
        bases = tuple(
            Base(
                name.run,
                name.step,
                found.bases[name]["last"],
                points.get(name),
                found.bases[name]["world"],
                sum(size for each, size in sizes.items() if BaseName.parse(each) == name),
                times.get(name.manifest),
                found.damaged.get(str(name)),
            )
            for name in sorted(found.bases)
        )
        return cls(
            str(found.storage),
            verified,
            newest := max(points.values(), default=None),
            promised if verified else newest,
            tuple(found.reachable()),
            tuple(_runs(found, sizes, times)),
            bases,
            dict(sorted(found.damaged.items())),
            _unfinished(found, sizes),
            len(sizes),
            sum(sizes.values()),
        )

    def told(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def _runs(found: Found, sizes: Mapping[str, int], times: Mapping[str, float]) -> Iterable[Run]:
    steps: dict[int, list[int]] = {}
    for step, segments in found.durable().items():
        steps.setdefault(segments[0].run, []).append(step)
    lineage = {span.run for span in found.lineage}
    for number, told in sorted(found.runs.items()):
        before = told.get("from")
        worlds = {(each.epoch, each.world) for each in found.segments if each.run == number}
        yield Run(
            number,
            None if before is None else (int(before["run"]), int(before["step"])),
            told.get("branch"),
            number in lineage,
            ranges(steps.get(number, ())),
            tuple(world for _, world in sorted(worlds)),
            sum(size for name, size in sizes.items() if _run_of(name) == number),
            times.get(run_name(number)),
        )


def _run_of(name: str) -> int | None:
    found = BaseName.parse(name) or SegmentName.parse(name)
    return found.run if found is not None else run_number(name)


def _unfinished(found: Found, sizes: Mapping[str, int]) -> dict[str, int]:
    gone: dict[str, int] = {}
    for name, size in sizes.items():
        base = BaseName.parse(name)
        if base is not None and base not in found.bases and base.manifest not in found.damaged:
            gone[str(base)] = gone.get(str(base), 0) + size
    return gone


def ranges(steps: Iterable[int]) -> tuple[Range, ...]:
    """Of steps in any order, those that follow one another together."""
    found: list[Range] = []
    for step in sorted(steps):
        if found and found[-1][1] + 1 == step:
            found[-1] = (found[-1][0], step)
        else:
            found.append((step, step))
    return tuple(found)
