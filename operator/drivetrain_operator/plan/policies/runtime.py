"""How do the workers run the script? With spec.runtime auto each finds that out by reading it, and the members' places
tell; `scale`, `why`, `resume` and whoever reads status need it.

Forgotten when the job is resumed, since its command may have changed meanwhile.
"""

from __future__ import annotations

from drivetrain_api.places import STOCK
from drivetrain_api.status import ConditionType, RuntimeFound, TrainingJobStatus
from drivetrain_operator.plan.children import fresh_report
from drivetrain_operator.plan.decision import Decision
from drivetrain_operator.plan.view import View


def runtime(view: View, status: TrainingJobStatus) -> Decision:
    """status.runtime."""
    if status.is_true(ConditionType.SUSPENDED):
        return Decision(status)
    found = _found(view, status)
    return Decision(status if found == status.runtime else status.model_copy(update={"runtime": found}))


def _found(view: View, status: TrainingJobStatus) -> RuntimeFound:
    spec = view.job.spec
    if spec is not None and spec.runtime != "auto":
        return spec.runtime
    report = fresh_report(view, status)
    places = {m.place.operation for m in report.members if m.place is not None} - {""} if report is not None else set()
    if not places:
        return status.runtime
    return "torchrun" if STOCK in places else "drivetrain"
