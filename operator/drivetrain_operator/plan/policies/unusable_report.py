"""Can the job be planned with what its coordinator says? If not, it is looked after as if nothing were said.

The last line of defence. Reports are checked where they come in, and a number that slips through would make every pass
of the job raise: its user could not even suspend it. So `plan` decides once more without the report, and here a person
is told: once, whatever the next report says.
"""

from __future__ import annotations

import traceback

from drivetrain_api.status import ConditionType, TrainingJobStatus
from drivetrain_operator.plan.conditions import clip, with_condition
from drivetrain_operator.plan.decision import Decision
from drivetrain_operator.plan.view import View

_TYPE = ConditionType.REPORT_UNUSABLE


def unusable_report(view: View, status: TrainingJobStatus, defect: Exception | None) -> Decision:
    """ReportUnusable. `defect`: what deciding with the report ended by; None if all is well, or nothing is said."""
    holds = status.is_true(_TYPE)
    if defect is not None and not holds:
        return Decision(with_condition(view, status, _TYPE, True, "PolicyFailed", _said(defect)))
    if defect is None and holds and view.report is not None:
        return Decision(with_condition(view, status, _TYPE, False, "ReportRead"))
    return Decision(status)


def _said(defect: Exception) -> str:
    ours = [frame for frame in traceback.extract_tb(defect.__traceback__) if "drivetrain" in frame.filename]
    where = "".join(f" ({frame.filename.rpartition('/')[2]}:{frame.lineno})" for frame in ours[-1:])
    what = clip(" ".join(str(defect).split()), 300)
    return (
        "nothing can be decided with what the coordinator reports, so the job is looked after as if it said nothing: "
        f"its steps, failures and recoveries are not known. Please tell Drivetrain's authors: {type(defect).__name__}: "
        f"{what}{where}"
    )
