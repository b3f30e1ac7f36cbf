"""What a job is to do from now until it is done: the planner's answer, which stands in the job's status."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from drivetrain_energy.job.held import Held
from drivetrain_energy.signals.signal import Measure

MOST_SLOTS = 200
"""A plan has no more: it stands in an object that etcd keeps."""


class Mode(StrEnum):
    """How a plan came about."""

    PLANNED = "planned"
    """The least of the objective."""
    NOW = "now"
    """At once, at the usual size: nothing is known that could justify waiting."""
    FLAT_OUT = "flat-out"
    """At once, as fast as can be: the deadline (or the objective) wants it."""


@dataclass(frozen=True, slots=True)
class PlanSlot:
    """From `start` to before `end`, run so. `workers` 0: suspended, or not started yet."""

    start: float
    end: float
    workers: int
    cap_watts: float | None
    """Of each device; None: as it comes."""
    throughput: float
    """Steps a second to expect, with what starting costs taken off."""
    watts: float


@dataclass(frozen=True, slots=True)
class Totals:
    """What a plan takes, to the step that ends the job: without the margin, and with the PUE."""

    joules: float = 0.0
    grams: float | None = None
    """None: nothing is known of carbon intensity. Where only some hours are, the others count as their mean."""
    cost: float | None = None
    node_hours: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """Slots without gap from `made_at` on; after the last one the job is done."""

    made_at: float
    mode: Mode
    slots: tuple[PlanSlot, ...]
    finish: float
    """When the work is done if all goes as planned, margin not needed."""
    deadline: float
    meets_deadline: bool
    """False: even flat out it will be late, by what is expected now."""
    work_steps: float
    totals: Totals
    usual: Totals
    """What the same work takes at the usual size at once: savings are counted from this."""
    measure: Measure | None
    """What the grams are of."""
    vintages: tuple[float, ...]
    """Of the signals that it was made of."""
    why: str
    """For a person: one sentence."""
    held: Held | None = None
    """What it was to keep to for now."""

    def at(self, time: float) -> PlanSlot | None:
        """What to do at `time`; None: nothing more, or it is before the plan."""
        return next((slot for slot in self.slots if slot.start <= time < slot.end), None)

    def steps_by(self, time: float) -> float:
        """Steps that are done by `time`, since `made_at`, if all goes as planned."""
        done = sum(s.throughput * (min(time, s.end) - s.start) for s in self.slots if s.start < time)
        return min(done, self.work_steps)

    def changes(self, after: float) -> float | None:
        """When it next wants another size or cap than before; None: never again."""
        at = bisect_right([slot.start for slot in self.slots], after)
        return self.slots[at].start if at < len(self.slots) else None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, small: `slots` are lists in the order of `PlanSlot`'s fields."""
        return {
            "madeAt": self.made_at,
            "mode": self.mode.value,
            "finish": self.finish,
            "deadline": self.deadline,
            "meetsDeadline": self.meets_deadline,
            "workSteps": self.work_steps,
            "totals": _totals_dict(self.totals),
            "usual": _totals_dict(self.usual),
            "measure": self.measure and self.measure.value,
            "vintages": list(self.vintages),
            "why": self.why,
            "held": [self.held.until, self.held.workers, self.held.pace] if self.held is not None else None,
            "slots": [
                [round(s.start), round(s.end), s.workers, s.cap_watts, _short(s.throughput), _short(s.watts)]
                for s in self.slots
            ],
        }

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Plan:
        """The inverse, but for rounding (times to a second, rates to six digits). Raises KeyError, ValueError or
        TypeError for anything else."""
        return cls(
            made_at=float(given["madeAt"]),
            mode=Mode(given["mode"]),
            finish=float(given["finish"]),
            deadline=float(given["deadline"]),
            meets_deadline=bool(given["meetsDeadline"]),
            work_steps=float(given["workSteps"]),
            totals=_totals(given["totals"]),
            usual=_totals(given["usual"]),
            measure=Measure(given["measure"]) if given.get("measure") else None,
            vintages=tuple(map(float, given["vintages"])),
            why=str(given["why"]),
            held=_held(given.get("held")),
            slots=tuple(
                PlanSlot(
                    float(start),
                    float(end),
                    int(workers),
                    None if cap is None else float(cap),
                    float(rate),
                    float(watts),
                )
                for start, end, workers, cap, rate, watts in given["slots"]
            ),
        )


def _short(number: float) -> float:
    return float(f"{number:.6g}")


def _totals_dict(totals: Totals) -> dict[str, float | None]:
    return {
        "joules": _short(totals.joules),
        "grams": None if totals.grams is None else _short(totals.grams),
        "cost": None if totals.cost is None else _short(totals.cost),
        "nodeHours": _short(totals.node_hours),
    }


def _held(given: Any) -> Held | None:
    if given is None:
        return None
    until, workers, pace = given
    return Held(float(until), int(workers), float(pace))


def _totals(given: Mapping[str, Any]) -> Totals:
    grams, cost = given.get("grams"), given.get("cost")
    return Totals(
        joules=float(given["joules"]),
        grams=None if grams is None else float(grams),
        cost=None if cost is None else float(cost),
        node_hours=float(given["nodeHours"]),
    )


def merged(slots: list[PlanSlot]) -> tuple[PlanSlot, ...]:
    """Equal neighbours as one; slots of no length are dropped."""
    kept: list[PlanSlot] = []
    for slot in slots:
        if slot.end <= slot.start:
            continue
        if kept and _same(kept[-1], slot):
            slot = PlanSlot(kept.pop().start, slot.end, *_way(slot))
        kept.append(slot)
    return tuple(kept)


def _way(slot: PlanSlot) -> tuple[int, float | None, float, float]:
    return slot.workers, slot.cap_watts, slot.throughput, slot.watts


def _same(one: PlanSlot, other: PlanSlot) -> bool:
    return _way(one) == _way(other)


__all__ = ["MOST_SLOTS", "Mode", "Plan", "PlanSlot", "Totals", "merged"]
