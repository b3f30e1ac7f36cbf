"""Half-precision training: near to float32, the same on all ranks, and bf16 on the wire."""

from __future__ import annotations

from typing import Any, Final

from drivetrain_api.runtime import RuntimePrecision
from gpu.report import Report
from gpu.trainings import ours, plain
from unit.runtime.together import together
from unit.runtime.training import Case

CASES: Final[dict[str, dict[str, Any]]] = {
    "bf16": {"compute": "bf16"},
    "fp16, with a loss scale": {"compute": "fp16"},
    "bf16, also on the wire": {"compute": "bf16", "reduce": "bf16"},
}

TOLERANCE: Final = 0.05
"""Relative, of what ten steps change."""


def main() -> int:
    report = Report()
    case = Case(steps=10, clip=0.5)
    (reference,) = together(plain, 1, case)
    for name, fields in CASES.items():
        outcomes = [outcome for outcome, _ in together(ours, 2, case.but(precision=RuntimePrecision(**fields)))]
        distance = outcomes[0].distance(reference)
        alike = outcomes[0].losses == outcomes[1].losses
        report.check(f"near float32: {name}", 0 < distance < TOLERANCE and alike, f"distance {distance:.1e}")
        report.figure(f"distance_{fields['compute']}{'_wire' if 'reduce' in fields else ''}", distance)
    return report.end()


if __name__ == "__main__":
    raise SystemExit(main())
