"""Which wishes about energy contradict each other? Part of rules.py."""

from __future__ import annotations

from typing import Final

from drivetrain_api.rule import Rule

ENERGY_RULES: Final[tuple[Rule, ...]] = (
    Rule(
        name="energy-one-deadline",
        path="spec.energy",
        cel="!(has(self.deadline) && has(self.maxCompletionFactor))",
        message="only one of spec.energy.deadline and spec.energy.maxCompletionFactor can be set",
        check=lambda self, _: not ("deadline" in self and "maxCompletionFactor" in self),
    ),
    Rule(
        name="energy-profile-once",
        path="spec.energy",
        cel="!has(self.profile) || self.profile.all(p, self.profile.exists_one(q, q.workers == p.workers && "
        "has(q.capWatts) == has(p.capWatts) && (!has(p.capWatts) || q.capWatts == p.capWatts)))",
        message="spec.energy.profile has one point for each number of workers and cap",
        check=lambda self, _: (
            len({(p["workers"], p.get("capWatts")) for p in self.get("profile", ())}) == len(self.get("profile", ()))
        ),
    ),
)
