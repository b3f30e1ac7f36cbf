"""Which places for snapshots, and which ways to them, go together? Part of rules.py."""

from __future__ import annotations

from typing import Final

from drivetrain_api.rule import Rule
from drivetrain_api.storage_rules import storage_rules

SNAPSHOT_RULES: Final[tuple[Rule, ...]] = (
    *storage_rules("spec.snapshots.storage", "snapshots"),
    Rule(
        name="restore-from-needs-snapshots",
        path="spec",
        cel="!has(self.restoreFrom) || has(self.snapshots)",
        message="spec.restoreFrom needs spec.snapshots: the other job's lie in the same storage as this one's own",
        check=lambda self, _: "restoreFrom" not in self or "snapshots" in self,
    ),
)
