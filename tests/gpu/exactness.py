"""Do several ranks on one device, over gloo, train as plain torch does there with the whole batch?"""

from __future__ import annotations

from typing import Final

from drivetrain_api.runtime import RuntimeCompression, RuntimeOptimizer, RuntimePipeline
from gpu.report import DEVICE, Report
from gpu.trainings import ours, plain
from unit.runtime.text import PLAN, SEQUENCE_PLAN
from unit.runtime.together import together
from unit.runtime.training import Case

SHORT: Final = Case(steps=10, clip=0.5)
ADAM: Final = SHORT.but(optimizer="adam")
STAGES: Final = RuntimePipeline(stages=2)
BUBBLES: Final = RuntimePipeline(stages=2, schedule="zerobubble")

CASES: Final[dict[str, tuple[int, Case, dict[str, str] | None]]] = {
    "2 ranks, AdamW, schedule, micro-batches": (2, ADAM.but(scheduler=True, microbatches=2), None),
    "3 ranks, uneven shares": (3, SHORT.but(batch=25), None),
    "LAMB": (2, SHORT.but(named=RuntimeOptimizer(name="lamb", lr=0.01, eps=1e-4)), None),
    "sparse gradients": (2, SHORT.but(model="sparse", optimizer="plain sgd"), None),
    "ZeRO 1": (2, ADAM.but(zero=1), None),
    "ZeRO 2, 3 ranks": (3, ADAM.but(zero=2, batch=25), None),
    "ZeRO 3": (2, ADAM.but(zero=3, model="deep"), None),
    "tensor": (2, ADAM.but(tensor=2), PLAN),
    "sequence": (2, ADAM.but(tensor=2, microbatches=2), SEQUENCE_PLAN),
    "a pipeline": (2, ADAM.but(pipeline=STAGES, microbatches=4), PLAN),
    "a zero-bubble pipeline": (2, ADAM.but(pipeline=BUBBLES, microbatches=4), PLAN),
}

TOLERANCE: Final = 1e-4
"""Relative; float32 without TF32."""


def main() -> int:
    report = Report()
    worst = 0.0
    for name, (world, case, plan) in CASES.items():
        (reference,) = together(plain, 1, case, plan)
        outcomes = together(ours, world, case, plan)
        found, devices = outcomes[0]
        distance = found.distance(reference)
        worst = max(worst, distance)
        alike = all(outcome.losses == found.losses for outcome, _ in outcomes)
        where = devices if plan is None and not case.zero else {DEVICE.type}  # else it is what a file had
        report.check(
            f"as plain torch: {name}",
            distance <= TOLERANCE and alike and where == {DEVICE.type},
            f"distance {distance:.1e}",
        )
    report.figure("exact_worst", worst)
    case = SHORT.but(model="norm", deterministic=True, virtual_shards=4)
    hashes = {outcome.sha256 for world in (1, 2, 3) for outcome, _ in together(ours, world, case)}
    report.check("deterministic: the same bits with 1, 2 and 3 ranks", len(hashes) == 1, f"{len(hashes)} hashes")
    for method in ("int8", "powersgd"):
        case = Case(steps=20, compression=RuntimeCompression(method=method, warmup_steps=0), optimizer="plain sgd")
        (reference,) = together(plain, 1, case)
        distance = together(ours, 2, case)[0][0].distance(reference)
        report.check(f"near plain torch: {method}", distance < 0.5, f"distance {distance:.1e}")
    return report.end()


if __name__ == "__main__":
    raise SystemExit(main())
